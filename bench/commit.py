"""The code that a measurement ran. Does not import torch."""

from __future__ import annotations

import hashlib
import subprocess
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def commit() -> str:
    """The commit with a hash of uncommitted changes; without git, a hash of the code.

    Committed measurements do not count as code.
    """
    with suppress(OSError, subprocess.CalledProcessError):
        name = _git("rev-parse", "--short=12", "HEAD")
        changes = _git("diff", "HEAD", "--", ".", ":(exclude)bench/results")
        return f"{name}+{hashlib.sha256(changes.encode()).hexdigest()[:8]}" if changes else name
    digest = hashlib.sha256()
    for file in _sources():
        digest.update(f"{file.relative_to(ROOT)}\n".encode() + file.read_bytes())
    return f"no git, {digest.hexdigest()[:12]}"


def _sources() -> list[Path]:
    """The files that results may depend on; in csrc all, most of a kernel is in .h and .inl."""
    files = [file for file in (ROOT / "csrc").rglob("*") if file.is_file()]
    for folder in ("maskedconv", "models", "bench", "tests"):
        files += (ROOT / folder).rglob("*.py")
    return sorted([*files, *ROOT.glob("*.py"), *ROOT.glob("*.toml")])


def _git(*arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", ROOT, *arguments], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()
