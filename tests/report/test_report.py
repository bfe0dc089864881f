"""The report: its input, claims and output, with synthetic rows."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
import typer
from report_samples import config, load, results_of, row, small_plan, small_top1, write_folder

from maskedconv import report, reproduce
from maskedconv.report.appendix import FLAGS, only
from maskedconv.report.fits import fit_line
from maskedconv.report.results import Stat, setting_label
from maskedconv.report.tables import cell
from maskedconv.runs import StoreError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished report: two seeds, two settings diverged, three runs missing."""
    out = tmp_path_factory.mktemp("report") / "quick"
    write_folder(out, small_plan(), small_top1, skip=3)
    with (out / "results.jsonl").open("a") as file:
        file.write('{"half": "a li')
    report.write(out)
    return out


class _Links(HTMLParser):
    """All references that a browser would fetch, all alternative texts and all ids."""

    def __init__(self) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.alts: list[str] = []
        self.ids: list[str] = []
        self.anchors: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if "id" in values:
            self.ids.append(values["id"])
        if tag == "a":
            self.anchors.append(values["href"])
        elif "src" in values or "href" in values:
            self.sources.append(values.get("src") or values["href"])
        if tag == "img":
            self.alts.append(values.get("alt", ""))


def test_writes_every_file(folder):
    names = {path.name for path in folder.iterdir()}
    assert {"report.html", "report.md", "results.csv", "figures"} <= names
    drawn = ("fig1", "fig2", "fig3", "fig4", "fig5", "fig6", "table1", "table3", "table4", "curves")
    for item in drawn:
        vector = sorted(path.stem for path in (folder / "figures").glob(f"{item}*.svg"))
        pixels = sorted(path.stem for path in (folder / "figures").glob(f"{item}*.png"))
        assert vector
        assert vector == pixels
    assert not [name for name in names if name.startswith((".report", ".results"))]


def test_page_asks_for_nothing_outside_itself(folder):
    page = (folder / "report.html").read_text(encoding="utf-8")
    links = _Links()
    links.feed(page)
    assert links.sources
    assert all(source.startswith("data:image/svg+xml;base64,") for source in links.sources)
    assert "@import" not in page
    assert "url(" not in page
    assert all(anchor.removeprefix("#") in links.ids for anchor in links.anchors)
    assert len(links.ids) == len(set(links.ids))
    assert all(len(alt) > 20 for alt in links.alts)


def test_first_line_says_that_the_small_preset_is_not_comparable(folder):
    first = (folder / "report.md").read_text(encoding="utf-8").splitlines()[0]
    page = (folder / "report.html").read_text(encoding="utf-8")
    body = re.sub(r"<[^>]+>", "\n", page.split("<body>")[1]).strip().splitlines()[0]
    for line in (first, body):
        assert "small preset" in line
        assert "not comparable with the paper" in line


def test_same_rows_give_the_same_files(tmp_path):
    plan = {name: runs for name, runs in small_plan(1).items() if name in ("fig3", "table4")}
    one, again = (write_folder(tmp_path / name, plan, small_top1) for name in ("one", "again"))
    report.write(one)
    report.write(again)
    paths = [path.relative_to(one) for path in one.rglob("*.*") if path.name != "report.html"]
    assert len(paths) > 10
    for path in paths:
        if path.name != "report.md":
            assert (again / path).read_bytes() == (one / path).read_bytes()
    # The page and its Markdown differ in the command that names the folder.
    page = (one / "report.html").read_text().replace(str(one), str(again))
    assert page == (again / "report.html").read_text()


def test_csv_has_a_row_for_every_planned_run(folder):
    with (folder / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    plan = json.loads((folder / "plan.json").read_text())
    keys = {run["key"] for entry in plan["experiments"].values() for run in entry["runs"]}
    assert {row["key"] for row in rows} == keys
    assert len(rows) == len(keys)
    states = [row["status"] for row in rows]
    assert (states.count("not run"), states.count("failed")) == (3, 8)
    for shared, item in (("fig1;fig3;fig4", "fig1"), ("fig6;table3", "table3")):
        used = {run["key"] for run in plan["experiments"][item]["runs"]}
        there = [row for row in rows if row["experiments"] == shared]
        assert there
        assert {row["key"] for row in there} <= used
    one = next(row for row in rows if row["status"] == "done" and row["model"] == "wrn_10_1")
    assert float(one["best_top1"]) > 10
    assert one["epochs"] == "6"


def test_markdown_links_to_figures_that_exist(folder):
    text = (folder / "report.md").read_text(encoding="utf-8")
    links = re.findall(r'<img src="(figures/[^"]+)" alt="[^"]+"', text)
    assert len(links) == len(list((folder / "figures").glob("*.png")))
    assert all((folder / link).is_file() for link in links)


def test_markdown_tables_are_whole(folder):
    text = (folder / "report.md").read_text(encoding="utf-8")
    blocks = [block for block in text.split("\n\n") if block.startswith("|")]
    assert blocks
    for block in blocks:
        assert len({line.replace("\\|", "").count("|") for line in block.splitlines()}) == 1


def test_failures_missing_runs_and_bad_lines_are_told(folder):
    text = (folder / "report.md").read_text(encoding="utf-8")
    assert "8 failed" in text
    assert "3 planned, not run" in text
    assert "diverged in epoch 2" in text
    assert "line 354" in text


@pytest.mark.parametrize("skip", [0, 10**6])
def test_writes_a_report_with_nothing_to_show(tmp_path, skip):
    plan = {"fig1": [config("wrn_10_1", dataset="folder", learned=0.1)], "fig2": [], "fig3": []}
    out = write_folder(tmp_path, plan, lambda run: None, skip=skip)
    text = report.write(out).read_text(encoding="utf-8")
    assert ("diverged" if skip == 0 else "planned, not run") in text


def test_text_from_outside_cannot_become_markup(tmp_path):
    run = config("wrn_10_1", learned=0.1)
    out = write_folder(tmp_path, {"fig1": [run]}, small_top1, data_note="<script>alert(1)</script>")
    failed = row(run, None, error="a | b <b>c</b>")
    (out / "results.jsonl").write_text(json.dumps(failed) + "\n")
    page = report.write(out).read_text(encoding="utf-8")
    assert "<script>" not in page
    assert "<b>c</b>" not in page
    assert r"a \| b \<b\>c" in (out / "report.md").read_text(encoding="utf-8")


def test_seeds_of_one_setting_are_averaged(tmp_path):
    runs = [config("wrn_10_1", learned=0.1, seed=seed) for seed in range(3)]
    results = results_of(tmp_path, {"fig1": runs}, lambda run: 50.0 + run.seed)
    (setting,) = results.seed_groups("fig1")
    assert setting.best == Stat(51.0, 1.0, 3)
    assert str(setting.best) == "51.00 ± 1.00"
    assert setting.after(1) == Stat(pytest.approx(12.75), pytest.approx(0.25), 3)


def test_one_filter_and_all_filters_are_two_settings(tmp_path):
    runs = [config("wrn_10_1", learned=learned) for learned in (1, 1.0)]
    results = results_of(tmp_path, {"fig1": runs}, small_top1)
    assert [setting_label(s.config) for s in results.seed_groups("fig1")] == ["k = 1", "all"]


def test_some_failed_seeds_are_said_in_the_cell(tmp_path):
    runs = [config("wrn_10_1", learned=0.1, seed=seed) for seed in range(3)]
    results = results_of(tmp_path, {"fig1": runs}, lambda run: 50.0 if run.seed else None)
    (setting,) = results.seed_groups("fig1")
    assert cell(setting, setting.best) == "50.00 ± 0.00 (1 of 3 failed)"
    assert cell(None, None) == "–"


def test_rows_outside_the_plan_and_rows_without_numbers_are_left_out(tmp_path):
    planned, other, broken = (config("wrn_10_1", learned=learned) for learned in (0.1, 0.4, 0.7))
    out = write_folder(tmp_path, {"fig1": [planned, broken]}, small_top1)
    lines = [row(planned, 50.0), row(other, 60.0), row(broken, 70.0, best_top1=None)]
    (out / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    results = load(out)
    assert results.unplanned == 1
    assert [run.done for run in results.runs().values()] == [True, False]
    assert "line 3: best_top1 is None; expected a finite number" in results.problems[0]


def test_no_plan_names_the_file_and_the_remedy(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"plan\.json.*maskedconv\.reproduce"):
        report.write(tmp_path)


def test_a_plan_with_a_run_that_is_none_is_an_error(tmp_path):
    out = write_folder(tmp_path, {"fig1": [config()]}, small_top1)
    text = (out / "plan.json").read_text()
    (out / "plan.json").write_text(text.replace('"batch_size"', '"batchsize"'))
    with pytest.raises(StoreError, match=r"plan\.json: experiments\.fig1.*batchsize"):
        report.write(out)


def test_command_line(tmp_path):
    def run(out: Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "maskedconv.report", "--out", str(out)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    out = write_folder(tmp_path / "one", {"fig1": [config()]}, small_top1)
    done = run(out)
    assert done.returncode == 0
    assert done.stdout.strip() == str(out / "report.html")
    missing = run(tmp_path / "none")
    assert missing.returncode == 2
    assert "plan.json" in missing.stderr
    assert "Traceback" not in missing.stderr


def test_fit_recovers_a_known_line_and_its_interval():
    xs = [0.0, 1.0, 2.0, 3.0]
    fit = fit_line(xs, [1.1, 2.9, 5.1, 6.9])
    assert fit is not None
    assert fit.slope == pytest.approx(1.96)
    assert fit.intercept == pytest.approx(1.06)
    # Residuals ±0.04 and ±0.12; squares of y about its mean add up to 19.24.
    assert fit.r2 == pytest.approx(1 - 0.032 / 19.24)
    # Variance of the slope (0.032 / 2) / 5; Student t of 0.975 with 2 degrees of freedom 4.30265.
    half = 4.30265 * (0.016 / 5) ** 0.5
    assert (fit.low, fit.high) == pytest.approx((1.96 - half, 1.96 + half), abs=1e-4)


def test_fit_of_a_constant_is_level_and_of_two_points_is_none():
    fit = fit_line([0.0, 1.0, 2.0], [10.0, 10.0, 10.0])
    assert fit is not None
    assert (fit.slope, fit.low, fit.high, fit.r2) == (0.0, 0.0, 0.0, 0.0)
    assert fit_line([0.0, 1.0, 1.0], [1.0, 2.0, 3.0]) is None


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (
            "python -m maskedconv.reproduce all --out 'my runs'",
            "python -m maskedconv.reproduce fig2 --out 'my runs'",
        ),
        (
            "python -m maskedconv.reproduce --seeds 3 fig1 table1",
            "python -m maskedconv.reproduce fig2 --seeds 3",
        ),
        (
            "python -m maskedconv.reproduce --download fig1 --out table1 --match fig2",
            "python -m maskedconv.reproduce fig2 --download --out table1 --match fig2",
        ),
        (
            "python -m maskedconv.reproduce --out=runs table1 fig1",
            "python -m maskedconv.reproduce fig2 --out=runs",
        ),
        ("python -m maskedconv.reproduce", "python -m maskedconv.reproduce fig2"),
    ],
)
def test_command_of_one_item(command, expected):
    assert only("fig2", command, ["fig1", "fig2", "table1"]) == expected


def test_the_flags_are_those_of_reproduce():
    command = typer.Typer(add_completion=False)
    command.command()(reproduce.main)
    options = typer.main.get_command(command).params
    flags = [each for each in options if getattr(each, "is_flag", False)]
    assert {name for flag in flags for name in flag.opts} == FLAGS


def test_importing_the_package_is_light():
    code = (
        "import sys, maskedconv.report\n"
        "heavy = {'torch', 'matplotlib', 'scipy', 'jinja2'} & set(sys.modules)\n"
        "sys.exit(', '.join(heavy) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
