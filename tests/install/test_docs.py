"""The pages of docs/: links, navigation, and the snippets of the how-to pages."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest
from commands import call

import maskedconv
from maskedconv import train
from maskedconv.methods import METHODS

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.glob("*.md"), *DOCS.glob("how-to/*.md")])
HOOKS = SimpleNamespace(**runpy.run_path(str(DOCS / "site_hooks.py")))


def snippets(page):
    text = (DOCS / "how-to" / page).read_text(encoding="utf-8")
    return "\n".join(re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if not target.startswith(("https://", "#")):
            assert (page.parent / target.split("#")[0]).exists(), target


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


@pytest.mark.parametrize("page", ["fine-tune.md", "supermasks.md", "tasks.md", "which.md"])
def test_snippets_run(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code = snippets(page)
    exec(code, {})
    printed = capsys.readouterr().out
    assert printed
    for promised in re.findall(r"print\(.*\)  # (.* parameters learned .*)", code):
        assert promised in printed


def test_the_trained_run_of_the_page_is_used_in_python(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    page = (DOCS / "how-to" / "train.md").read_text(encoding="utf-8")
    command = re.search(r"^python -m maskedconv\.train (.*\\\n.*)$", page, re.MULTILINE)[1]
    arguments = command.replace("\\\n", "").replace("--epochs 20", "--epochs 1").split()
    result = call(train, *arguments, "--subset", "5", "--threads", "1")
    assert result.exit_code == 0, result.output
    exec(snippets("train.md"), {})
    assert "wrn_10_1 1\n" in capsys.readouterr().out
