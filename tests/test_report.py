"""The report: what it reads, what it claims, and what it writes. Draws from made-up rows."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from report_samples import config, row, small_plan, small_top1, write_folder

from maskedconv import report
from maskedconv.experiments.config import RunConfig
from maskedconv.report import criteria, paper
from maskedconv.report.appendix import only
from maskedconv.report.build import notice
from maskedconv.report.claims import CLAIMS, judge
from maskedconv.report.fits import fit_line
from maskedconv.report.results import Results, Stat, load, setting_label
from maskedconv.report.tables import cell, comparison, fig1_table, networks, table1_table


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished report: two seeds, two settings diverged, three runs missing."""
    out = tmp_path_factory.mktemp("report") / "quick"
    write_folder(out, small_plan(), small_top1, skip=3)
    with (out / "results.jsonl").open("a") as file:
        file.write('{"half": "a li')
    report.write(out)
    return out


def results_of(tmp_path: Path, plan: dict[str, list[RunConfig]], top1, **fields) -> Results:
    return load(write_folder(tmp_path / "out", plan, top1, **fields))


class _Links(HTMLParser):
    """Everything a browser would fetch, every alternative text and every id."""

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
    for item in ("fig1", "fig2", "fig3", "table1", "curves"):
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


def test_same_rows_give_the_same_files(folder, tmp_path):
    again = tmp_path / "again"
    again.mkdir()
    for name in ("plan.json", "results.jsonl"):
        shutil.copy(folder / name, again / name)
    report.write(again)
    for path in ("results.csv", "figures/fig3-digits-fits.svg", "figures/table1-digits.png"):
        assert (again / path).read_bytes() == (folder / path).read_bytes()


def test_csv_has_a_row_for_every_planned_run(folder):
    with (folder / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    plan = json.loads((folder / "plan.json").read_text())
    keys = {run["key"] for entry in plan["experiments"].values() for run in entry["runs"]}
    assert {row["key"] for row in rows} == keys
    assert len(rows) == len(keys)
    states = [row["status"] for row in rows]
    assert (states.count("not run"), states.count("failed")) == (3, 4)
    shared = [row for row in rows if row["experiments"] == "fig1;fig3"]
    assert len(shared) == len(plan["experiments"]["fig3"]["runs"])
    one = next(row for row in rows if row["status"] == "done" and row["model"] == "wrn_10_1")
    assert float(one["best_top1"]) > 10
    assert one["epochs"] == "5"


def test_markdown_links_to_figures_that_exist(folder):
    text = (folder / "report.md").read_text(encoding="utf-8")
    links = re.findall(r"\]\((figures/[^)]+)\)", text)
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
    assert "4 failed" in text
    assert "3 planned, not run" in text
    assert "diverged in epoch 2" in text
    assert "line 196" in text


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
    (setting,) = results.settings("fig1")
    assert setting.best == Stat(51.0, 1.0, 3)
    assert str(setting.best) == "51.00 ± 1.00"
    assert setting.after(1) == Stat(pytest.approx(10.2), pytest.approx(0.2), 3)


def test_one_filter_and_all_filters_are_two_settings(tmp_path):
    runs = [config("wrn_10_1", learned=learned) for learned in (1, 1.0)]
    results = results_of(tmp_path, {"fig1": runs}, small_top1)
    assert [setting_label(s.config) for s in results.settings("fig1")] == ["k = 1", "all"]


def test_some_failed_seeds_are_said_in_the_cell(tmp_path):
    runs = [config("wrn_10_1", learned=0.1, seed=seed) for seed in range(3)]
    results = results_of(tmp_path, {"fig1": runs}, lambda run: 50.0 if run.seed else None)
    (setting,) = results.settings("fig1")
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
    assert any(broken.key in problem for problem in results.problems)


def test_no_plan_names_the_file_and_the_remedy(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"plan\.json.*maskedconv\.reproduce"):
        report.write(tmp_path)


def test_a_plan_with_a_run_that_is_none_is_an_error(tmp_path):
    out = write_folder(tmp_path, {"fig1": [config()]}, small_top1)
    text = (out / "plan.json").read_text()
    (out / "plan.json").write_text(text.replace('"batch_size"', '"batchsize"'))
    with pytest.raises(ValueError, match=r"plan\.json.*batchsize"):
        report.write(out)


def test_command_line(folder, tmp_path):
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


def test_notice_of_the_larger_presets(tmp_path):
    run = config("wrn_28_4", dataset="cifar10", epochs=10)
    whole = results_of(tmp_path / "a", {"table1": [run]}, small_top1, preset="paper")
    assert notice(whole).startswith("This is the paper's preset")
    cut = replace(run, epochs=2, subset=500)
    less = results_of(tmp_path / "b", {"table1": [cut]}, small_top1, preset="paper")
    assert "fewer epochs" in notice(less)
    assert "500 training images per class" in notice(less)


def test_the_authors_runs_are_read_whole():
    runs = paper.author_runs()
    assert len(runs) == 142
    counts = {
        run.learned_parameters
        for run in runs
        if run.model == "densenet_bc_100_12"
        and (run.learned, type(run.learned), run.dataset) == (1, int, "cifar10")
        and run.slice_dim == 0
    }
    assert counts == {57_529}


def test_compares_only_the_same_run(tmp_path):
    run = config("densenet_bc_100_12", dataset="cifar10", learned=0.1, epochs=1)
    settings = {
        "same": run,
        "other data": replace(run, dataset="digits"),
        "fewer images": replace(run, subset=100),
        "narrower": replace(run, options=(("width", 0.5),)),
        "another rate": replace(run, lr=0.01),
        "all filters": replace(run, learned=1.0),
    }
    found = {}
    for name, changed in settings.items():
        results = results_of(tmp_path / name, {"fig2": [changed]}, lambda run: 48.53)
        found[name] = [
            (pair.theirs.run, pair.theirs.top1) for pair in paper.compare(results.settings("fig2"))
        ]
    assert found.pop("same") == [("1 epoch", 48.57), ("epoch 1 of 10", 53.78)]
    assert found.pop("all filters") == [("epoch 1 of 10", 58.46)]
    assert not any(found.values())


def test_comparison_shows_the_difference(tmp_path):
    run = config("wrn_28_4", dataset="cifar100", learned=1, epochs=10)
    results = results_of(tmp_path, {"fig1": [run]}, lambda run: 15.06)
    (table,) = comparison(results.settings("fig1"))
    assert table.rows[0][-3:] == ["15.06", "14.96", "+0.10"]


def test_table1_gives_a_difference_only_to_the_same_network(tmp_path):
    ours = config("wrn_28_4", dataset="cifar10", epochs=10, trained="block2")
    small = replace(ours, model="wrn_10_1")
    same = results_of(tmp_path / "a", {"table1": [ours]}, lambda run: 75.0).settings("table1")
    other = results_of(tmp_path / "b", {"table1": [small]}, lambda run: 75.0).settings("table1")
    assert table1_table(same, True, "").rows[0][-2:] == ["76.32", "−1.32"]
    table = table1_table(other, False, "")
    assert table.columns[-2] == "paper (other network)"
    assert table.rows[0][-2:] == ["76.32", "wrn_28_4, CIFAR-10"]


def test_networks_are_split_by_learning_rate_only_where_there_are_several(tmp_path):
    runs = [config("vgg19"), config("vgg19", lr=0.01), config("vgg19_bn")]
    results = results_of(tmp_path, {"fig1": runs}, small_top1)
    assert list(networks(results.settings("fig1"))) == [
        "vgg19, lr 0.1",
        "vgg19, lr 0.01",
        "vgg19_bn",
    ]


def test_fig1_table_puts_random_and_zeroed_side_by_side(tmp_path):
    runs = [
        config("wrn_10_1", learned=learned, frozen=frozen)
        for learned in (0.1, 1)
        for frozen in ("random", "zero")
    ]
    values = {(0.1, "random"): 40.0, (0.1, "zero"): 20.0, (1, "random"): 30.0, (1, "zero"): None}
    results = results_of(tmp_path, {"fig1": runs}, lambda run: values[(run.learned, run.frozen)])
    rows = fig1_table(results.settings("fig1")).rows
    assert [row[1] for row in rows] == ["k = 1", "p = 0.1"]
    assert rows[0][4:] == ["30.00", "30.00", "diverged", "diverged"]
    assert rows[1][4:] == ["40.00", "40.00", "20.00", "20.00"]


def verdicts(results: Results) -> dict[str, str]:
    return {verdict.claim.id: verdict.status for verdict in judge(results)}


def test_claims_hold_on_results_of_the_papers_shape(folder):
    found = verdicts(load(folder))
    decided = {name for name, status in found.items() if status != "not run"}
    assert decided == {
        "one-filter", "random-beats-zero", "gap-closes", "vgg-chance", "bn-networks",
        "filters-best", "log-linear", "bn-alone", "block-beats-fc",
    }  # fmt: skip
    assert {found[name] for name in decided} == {"reproduced"}


def test_claims_fall_on_results_of_the_opposite_shape(tmp_path):
    def top1(run: RunConfig) -> float:
        if run.model == "vgg19":
            return 80.0
        if run.trained != "all":
            return {"bn": 12.0, "fc": 90.0}.get(run.trained, 30.0)
        if run.learned == 1 and isinstance(run.learned, int) and run.slice_dim == 0:
            return 12.0
        few = run.learned == 0.1 or isinstance(run.learned, int)
        return 50.0 + (15 if run.frozen == "zero" else 0) + (20 if few and run.slice_dim else 0)

    found = verdicts(results_of(tmp_path, small_plan(seeds=1), top1))
    decided = {name: status for name, status in found.items() if status != "not run"}
    assert len(decided) == 9
    assert set(decided.values()) == {"not"}


def test_a_claim_that_holds_in_some_cases_is_partly_reproduced(tmp_path):
    runs = [config(model, learned=1) for model in ("wrn_10_1", "densenet_bc_16_12")]
    results = results_of(
        tmp_path, {"fig1": runs}, lambda run: 29.9 if run.model == "wrn_10_1" else 30.0
    )
    assert verdicts(results)["one-filter"] == "partly"


def test_the_papers_own_table1_meets_the_criteria_as_the_report_says(tmp_path):
    runs = [
        config(model, dataset=dataset, epochs=10, trained=part)
        for (model, dataset), numbers in paper.TABLE1.items()
        for part in numbers
    ]
    results = results_of(
        tmp_path,
        {"table1": runs},
        lambda run: paper.TABLE1[(run.model, run.dataset)][run.trained],
    )
    by_id = {verdict.claim.id: verdict for verdict in judge(results)}
    assert by_id["bn-alone"].status == "reproduced"
    assert by_id["block-beats-fc"].status == "partly"
    missed = [case.name for case in by_id["block-beats-fc"].cases if not case.holds]
    assert missed == ["densenet_bc_100_12, CIFAR-100"]


def test_the_authors_figure2_meets_the_criterion(tmp_path):
    stored = {
        (run.learned, type(run.learned), run.slice_dim): run.top1
        for run in paper.author_runs()
        if run.run == "1 epoch" and run.frozen == "random"
    }
    runs = [
        config("densenet_bc_100_12", dataset="cifar10", epochs=1, learned=learned, slice_dim=dim)
        for learned, _, dim in stored
    ]
    results = results_of(
        tmp_path,
        {"fig2": runs},
        lambda run: stored[(run.learned, type(run.learned), run.slice_dim)],
    )
    assert verdicts(results)["filters-best"] == "reproduced"


def test_divergence_counts_as_chance_and_other_failures_as_nothing(tmp_path):
    run = config("vgg19", learned=0.1)
    out = write_folder(tmp_path, {"fig1": [run]}, lambda run: None)
    assert verdicts(load(out))["vgg-chance"] == "reproduced"
    failed = row(run, None, error="out of memory", error_type="OutOfMemoryError")
    (out / "results.jsonl").write_text(json.dumps(failed) + "\n")
    assert verdicts(load(out))["vgg-chance"] == "not run"


def test_chance_depends_on_the_number_of_classes(tmp_path):
    run = config("wrn_28_4", dataset="cifar100", learned=1)
    low = results_of(tmp_path / "a", {"fig1": [run]}, lambda run: 3.0)
    assert verdicts(low)["one-filter"] == "reproduced"
    unknown = results_of(
        tmp_path / "b", {"fig1": [replace(run, dataset="folder")]}, lambda run: 90.0
    )
    assert verdicts(unknown)["one-filter"] == "not run"


def test_every_claim_names_its_experiment_and_criterion():
    from maskedconv.experiments.registry import EXPERIMENTS

    assert len({claim.id for claim in CLAIMS}) == len(CLAIMS)
    for claim in CLAIMS:
        assert claim.needs in EXPERIMENTS
        assert claim.criterion.endswith((".", ".)"))
    assert criteria.FAR > criteria.NEAR > 1


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
        ("python -m maskedconv.reproduce", "python -m maskedconv.reproduce fig2"),
    ],
)
def test_command_of_one_item(command, expected):
    assert only("fig2", command) == expected


def test_importing_the_package_is_light():
    code = (
        "import sys, maskedconv.report\n"
        "heavy = {'torch', 'matplotlib', 'scipy', 'jinja2'} & set(sys.modules)\n"
        "sys.exit(', '.join(heavy) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
