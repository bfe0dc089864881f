"""The pages of docs/ and the READMEs: links, navigation, and snippets."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from commands import call

import maskedconv
from maskedconv import train
from maskedconv.methods import METHODS

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
ROOT_PAGES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "bench/README.md")
FILES = (*(ROOT / name for name in ROOT_PAGES), *DOCS.glob("*.md"), *DOCS.glob("how-to/*.md"))
PAGES = sorted(str(file.relative_to(ROOT)) for file in FILES)
# Pages whose snippets other tests run.
RUN_ELSEWHERE = {
    "docs/how-to/convert.md",  # conversion/test_how_to.py, without warnings
    "docs/how-to/export.md",  # analysis/test_export.py, with small networks: exporters are slow
    "docs/how-to/train.md",  # below, with the run that the page trains
}
HOOKS = SimpleNamespace(**runpy.run_path(str(DOCS / "site_hooks.py")))


def text_of(page):
    return (ROOT / page).read_text(encoding="utf-8")


def snippets(page):
    return "\n".join(re.findall(r"^```python\n(.*?)^```", text_of(page), re.MULTILINE | re.DOTALL))


def promised(code):
    """What comments behind ``print`` say that it prints, with a number or dots that stand for some.

    As patterns: dots match anything.
    """
    said = re.findall(r"print\(.*\)\s+# (.*(?:\d|\.\.\.).*)", code)
    return [".*".join(map(re.escape, line.split("..."))) for line in said]


def anchors(path):
    """The names of a page's headings, as GitHub and the site make them."""
    text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.M | re.S)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", line.lower()).replace(" ", "-") for line in headings}


def broken(page, link):
    """Whether the link of a page leads to no file, or to no heading of it."""
    file, _, anchor = link.partition("#")
    path = ROOT / page if not file else (ROOT / page).parent / file
    return not path.exists() or (bool(anchor) and anchor not in anchors(path))


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files_and_headings(page):
    links = re.findall(r"\]\(([^)\s]+)\)", text_of(page))
    assert [one for one in links if not one.startswith("https://") and broken(page, one)] == []


@pytest.mark.parametrize("link", ["#no-heading", "docs/none.md", "docs/how-to/which.md#none"])
def test_broken_links_are_found(link):
    assert broken("README.md", link)


def test_the_api_has_every_public_name():
    text = (DOCS / "api.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^::: maskedconv\.(\w+)$", text, re.MULTILINE))
    assert listed == set(maskedconv.__all__)


def test_the_api_has_every_method():
    text = (DOCS / "api.md").read_text(encoding="utf-8")
    listed = re.findall(r"^::: maskedconv\.methods\.(\w+)\.\w+$", text, re.MULTILINE)
    assert set(listed) == set(METHODS)


def test_a_folder_in_the_navigation_becomes_its_pages():
    config = {"docs_dir": str(DOCS), "nav": [{"How to": "how-to/"}, {"Start": "index.md"}]}
    how_to, start = HOOKS.on_config(config)["nav"]
    assert how_to == {"How to": sorted(f"how-to/{p.name}" for p in DOCS.glob("how-to/*.md"))}
    assert start == {"Start": "index.md"}


@pytest.mark.parametrize(
    ("link", "expected"),
    [
        ("[table](../../bench/README.md)", "table (`bench/README.md`)"),
        ("[bench/README.md](../../bench/README.md)", "`bench/README.md`"),
        ("[API](../api.md)", "[API](../api.md)"),
        ("[lost](../../bench/lost.md)", "[lost](../../bench/lost.md)"),
        ("![picture](../../bench/README.md)", "![picture](../../bench/README.md)"),
        ("[site](https://arxiv.org/abs/1802.00844)", "[site](https://arxiv.org/abs/1802.00844)"),
    ],
)
def test_links_out_of_docs_become_paths(link, expected):
    page = SimpleNamespace(file=SimpleNamespace(abs_src_path=str(DOCS / "how-to" / "page.md")))
    assert HOOKS.on_page_markdown(link, page, {"docs_dir": str(DOCS)}, None) == expected


def test_roles_of_docstrings_become_links():
    html = "<p>as :class:<code>MaskedConv2d</code>; :func:<code>maskedconv.erk</code>::</p>"
    found = HOOKS.on_page_content(html, None, None, None)
    assert re.findall(r'identifier="([\w.]+)"', found) == [
        "maskedconv.MaskedConv2d",
        "maskedconv.erk",
    ]
    assert not re.search(r":class:|:func:|::", found)


def test_promises_are_told_from_other_comments():
    code = "print(a)  # how many\nprint(b)  # a 1 ... b\nprint(c)  # trainable: ...\n"
    assert promised(code) == [r"a\ 1\ .*\ b", r"trainable:\ .*"]


@pytest.fixture
def _one_process(monkeypatch):
    """What torchrun tells its only process. A group that a snippet makes ends with the test."""
    for name, value in (("RANK", 0), ("WORLD_SIZE", 1), ("MASTER_ADDR", "localhost")):
        monkeypatch.setenv(name, str(value))
    monkeypatch.setenv("MASTER_PORT", "0")
    yield
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


@pytest.mark.usefixtures("_one_process")
@pytest.mark.parametrize("page", [p for p in PAGES if snippets(p) and p not in RUN_ELSEWHERE])
def test_snippets_run(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code = snippets(page)
    exec(code, {})
    printed = capsys.readouterr().out
    assert bool(printed) == ("print(" in code)
    for pattern in promised(code):
        assert re.search(pattern, printed), pattern


def test_the_trained_run_of_the_page_is_used_in_python(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    page = "docs/how-to/train.md"
    command = re.search(r"^python -m maskedconv\.train (.*\\\n.*)$", text_of(page), re.MULTILINE)[1]
    arguments = command.replace("\\\n", "").replace("--epochs 20", "--epochs 1").split()
    result = call(train, *arguments, "--subset", "5", "--threads", "1")
    assert result.exit_code == 0, result.output
    exec(snippets(page), {})
    assert "wrn_10_1 1\n" in capsys.readouterr().out
