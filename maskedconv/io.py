"""Atomic file writing: a file is replaced as a whole or not at all. Free of torch."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO


class StoreError(OSError):
    """A folder of results cannot be used; the message says why."""


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write, which takes the place of ``path`` when the block ends.

    A reader sees the old file or the new one, also after a crash or loss of power. The new file
    lies beside ``path`` until then, under a name of its own; an error removes it. Its permissions
    are those of any new file.

    Raises:
        OSError: the file cannot be written or put in place.
    """
    partial = path.with_name(f".{_stem(path)}.{secrets.token_hex(8)}.partial")
    handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def replace_file(path: Path, content: bytes | memoryview) -> None:
    """Puts ``content`` at ``path``; errors as :func:`replacing`."""
    with replacing(path) as file:
        file.write(content)


def remove_partial_files(path: Path) -> None:
    """Removes what killed writers of ``path`` left; to be called when nobody writes it."""
    start = f".{_stem(path)}."
    with suppress(OSError):
        for name in os.listdir(path.parent):
            if name.startswith(start) and name.endswith(".partial"):
                path.with_name(name).unlink(missing_ok=True)


def _stem(path: Path) -> str:
    # A name may have 255 bytes, and a character up to four.
    return path.name[:50]


def _sync_folder(folder: Path) -> None:
    """Writes the folder's entries to disk, if its file system can."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
