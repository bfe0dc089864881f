"""Hooks of MkDocs: pages of a folder in the navigation, links out of docs/, roles of docstrings."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(([^)\s:#]+)(#[^)\s]*)?\)")


# As in docstrings: :class:`MaskedConv2d`, :func:`maskedconv.erk`.
_ROLE = re.compile(r":(?:class|func|meth|mod|data|attr):<code>~?([\w.]+)(?:\(\))?</code>")


def on_config(config: Any) -> Any:
    """Replaces a folder in the navigation (``how-to/``) by the pages in it, sorted by name."""
    docs = Path(config["docs_dir"])
    for entry in config["nav"]:
        for title, place in entry.items():
            if isinstance(place, str) and place.endswith("/"):
                entry[title] = sorted(f"{place}{page.name}" for page in (docs / place).glob("*.md"))
    return config


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Replaces links to files of the repository, which the site does not hold, by their paths."""
    docs = Path(config["docs_dir"]).resolve()
    folder = Path(page.file.abs_src_path).parent

    def path_or_link(link: re.Match[str]) -> str:
        target = (folder / link[2]).resolve()
        if target.is_relative_to(docs) or not target.exists():
            return link[0]  # MkDocs checks links within docs/, and warns of those to nothing
        path = f"`{target.relative_to(docs.parent)}`"
        return path if link[1].strip("`") == path.strip("`") else f"{link[1]} ({path})"

    return _LINK.sub(path_or_link, markdown)


def on_page_content(html: str, page: Any, config: Any, files: Any) -> str:
    """Replaces the roles of docstrings by links, as far as the API has their names."""
    return _ROLE.sub(_reference, html).replace("::</p>", ":</p>")


def _reference(role: re.Match[str]) -> str:
    name = role[1]
    full = name if name.startswith("maskedconv.") else f"maskedconv.{name}"
    return f'<autoref optional identifier="{full}"><code>{name}</code></autoref>'
