"""The snippets of docs/how-to/convert.md run, and print what the page says."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "convert.md"


def test_the_snippets_run_without_warnings(capsys):
    text = PAGE.read_text(encoding="utf-8")
    code = "\n".join(re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        exec(code, {})
    printed = capsys.readouterr().out
    promised = re.findall(r"print\(.*\)\s+# (.*)", code)
    assert promised
    assert all(line in printed for line in promised)
