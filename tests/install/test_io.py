"""Atomic file writing."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import time

import pytest
from commands import wait_until

from maskedconv.io import check_replaceable, remove_partial_files, replace_file, replacing


def test_replaces_with_the_permissions_of_any_new_file(tmp_path):
    path, plain = tmp_path / "file", tmp_path / "plain"
    path.write_bytes(b"old")
    plain.write_bytes(b"")
    replace_file(path, b"new")
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode == plain.stat().st_mode
    assert sorted(tmp_path.iterdir()) == [path, plain]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path, error):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def fail():
        with replacing(path) as file:
            file.write(b"half")
            raise error

    with pytest.raises(error):
        fail()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_full_disk(tmp_path, monkeypatch):
    def full(handle):
        raise OSError(28, "No space left on device")

    path = tmp_path / "file"
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        replace_file(path, b"new")
    assert list(tmp_path.iterdir()) == []


def test_whether_a_file_can_be_written_is_known_before(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    check_replaceable(path)
    check_replaceable(tmp_path / "new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
    for wrong in (tmp_path, tmp_path / "none" / "file", path / "file"):
        with pytest.raises(OSError, match=re.escape(str(wrong.parent))):
            check_replaceable(wrong)


def test_two_writers_at_once_do_not_meet(tmp_path):
    path = tmp_path / "file"
    with replacing(path) as one, replacing(path) as other:
        one.write(b"one")
        other.write(b"other")
    assert path.read_bytes() == b"one"
    assert list(tmp_path.iterdir()) == [path]


def test_a_name_of_any_length(tmp_path):
    path = tmp_path / ("é" * 127)
    replace_file(path, b"new")
    assert list(tmp_path.iterdir()) == [path]


def _write_and_wait(path):
    with replacing(path) as file:
        file.write(b"half")
        file.flush()
        time.sleep(60)


def test_what_killed_writers_leave_is_removed(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    (tmp_path / ".file2.0.partial").touch()
    writer = multiprocessing.get_context("fork").Process(target=_write_and_wait, args=(path,))
    writer.start()
    wait_until(lambda: len(list(tmp_path.iterdir())) >= 3)
    os.kill(writer.pid, signal.SIGKILL)
    writer.join()
    assert path.read_bytes() == b"old"
    remove_partial_files(path)
    assert sorted(file.name for file in tmp_path.iterdir()) == [".file2.0.partial", "file"]
    remove_partial_files(tmp_path / "none" / "file")
