"""Atomic file writing: a file is replaced completely or not at all. Also appends lines.

Does not import torch.
"""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO


class StoreError(OSError):
    """A folder of results cannot be used; the message gives the reason."""


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Context that yields a file for writing, which replaces ``path`` when the block ends.

    Readers see the old file or the new one, even after a crash or power loss. Until the end of the
    block, the new file has a temporary name in the folder of ``path``; an error removes it. It has
    the default permissions of a new file.

    Raises:
        OSError: the file cannot be written or put in place.
    """
    partial, handle = _new_partial(path)
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
    """Writes ``content`` to ``path`` atomically; errors as :func:`replacing`."""
    with replacing(path) as file:
        file.write(content)


def append_line(path: Path, line: bytes) -> None:
    """Appends ``line`` and a newline in one write, and waits until they are on disk.

    Raises:
        OSError: the file cannot be written.
        StoreError: not all of the line was written.
    """
    handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        content, size = line + b"\n", os.fstat(handle).st_size
        if size and os.pread(handle, 1, size - 1) != b"\n":
            # A killed writer left a partial line: end it, so that ours stays readable.
            content = b"\n" + content
        if os.write(handle, content) != len(content):
            raise StoreError(f"{path}: the line is incomplete; is the disk full?")
        os.fsync(handle)
    finally:
        os.close(handle)


def check_replaceable(path: Path) -> None:
    """OSError if :func:`replacing` cannot put a file at ``path``; writes nothing."""
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    partial, handle = _new_partial(path)
    os.close(handle)
    partial.unlink()


def remove_partial_files(path: Path) -> None:
    """Removes the files of killed writers of ``path``. No process may be writing it."""
    start = f".{_stem(path)}."
    with suppress(OSError):
        for name in os.listdir(path.parent):
            if name.startswith(start) and name.endswith(".partial"):
                path.with_name(name).unlink(missing_ok=True)


def _new_partial(path: Path) -> tuple[Path, int]:
    """A new file in the folder of ``path``, and its handle."""
    partial = path.with_name(f".{_stem(path)}.{secrets.token_hex(8)}.partial")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    return partial, os.open(partial, flags, 0o666)


def _stem(path: Path) -> str:
    # A file name is limited to 255 bytes, and a character may take four.
    return path.name[:50]


def _sync_folder(folder: Path) -> None:
    """Syncs the folder's entries to disk, if its file system supports this."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
