"""Lists a folder of images: files to read, class folders, and ignored files."""

from __future__ import annotations

import os
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path

from maskedconv.data.errors import DataError

IMAGE_SUFFIXES = frozenset(
    [
        ".bmp",
        ".gif",
        ".jfif",
        ".jpe",
        ".jpeg",
        ".jpg",
        ".pbm",
        ".pgm",
        ".png",
        ".pnm",
        ".ppm",
        ".tif",
        ".tiff",
        ".webp",
    ]
)
_EXAMPLES = 2


@dataclass(frozen=True)
class PassedOver:
    """Files and folders that are ignored, by kind."""

    root: Path
    found: dict[str, list[str]] = field(default_factory=dict)

    def add(self, kind: str, path: str | Path) -> None:
        """Records a path below ``root``."""
        self.found.setdefault(kind, []).append(os.path.relpath(path, self.root))

    def __str__(self) -> str:
        """One line with counts and examples; empty if nothing was ignored."""
        if not self.found:
            return ""
        parts = []
        for kind, paths in sorted(self.found.items()):
            examples = ", ".join(sorted(paths)[:_EXAMPLES]) + (
                ", …" if len(paths) > _EXAMPLES else ""
            )
            parts.append(f"{len(paths):,} {kind} ({examples})")
        return f"ignored in {self.root}: {'; '.join(parts)}"


def same_name(name: str) -> str:
    """``name`` in Unicode normal form C, because file systems and archives use different forms."""
    return unicodedata.normalize("NFC", name)


def class_folders(root: Path, passed_over: PassedOver) -> dict[str, Path]:
    """The folders in ``root`` by name in normal form, sorted by name.

    Raises:
        DataError: ``root`` cannot be read, or two of its folders have the same name.
    """
    folders: dict[str, Path] = {}
    for entry in _entries(root, passed_over):
        if not _is_folder(entry):
            passed_over.add("outside the class folders", entry.path)
            continue
        name = same_name(entry.name)
        if name in folders:
            raise DataError(
                f"{root} has two folders {name!r} in different Unicode forms "
                f"({folders[name].name!a} and {entry.name!a}); expected one for each class"
            )
        folders[name] = root / entry.name
    return dict(sorted(folders.items()))


def image_files(folder: Path, passed_over: PassedOver) -> list[Path]:
    """The files in ``folder`` with an image suffix in any case, sorted by name in normal form.

    Raises:
        DataError: ``folder`` cannot be read or holds no images.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is missing")
    names = []
    for entry in _entries(folder, passed_over):
        suffix = os.path.splitext(entry.name)[1].lower()
        if _is_folder(entry):
            passed_over.add("folders in class folders", entry.path)
        elif suffix not in IMAGE_SUFFIXES:
            passed_over.add(suffix or "without a suffix", entry.path)
        # A broken link is reported when it is read; reading a pipe would block.
        elif entry.is_symlink() or entry.is_file():
            names.append(entry.name)
        else:
            passed_over.add("special files", entry.path)
    if not names:
        raise DataError(f"{folder} holds no images ({', '.join(sorted(IMAGE_SUFFIXES))})")
    return [folder / name for name in sorted(names, key=lambda name: (same_name(name), name))]


def _entries(folder: Path, passed_over: PassedOver) -> list[os.DirEntry[str]]:
    """The entries of ``folder`` except hidden files (``.DS_Store``, ``._image.png``)."""
    try:
        with os.scandir(folder) as entries:
            found = list(entries)
    except OSError as error:
        raise DataError(f"{folder} cannot be read: {error}") from error
    for entry in found:
        if entry.name.startswith("."):
            passed_over.add("hidden", entry.path)
    return [entry for entry in found if not entry.name.startswith(".")]


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    # Raised for symbolic links that form a loop.
    except OSError:
        return False
