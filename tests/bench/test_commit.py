"""The commit or hash that measurements are stamped with."""

from __future__ import annotations

import subprocess

import pytest

from bench import commit


def git(folder, *arguments):
    name = ("-c", "user.name=a", "-c", "user.email=a@b")
    subprocess.run(["git", *name, "-C", folder, *arguments], check=True, capture_output=True)


def test_changes_count_and_measurements_do_not(tmp_path, monkeypatch):
    monkeypatch.setattr(commit, "ROOT", tmp_path)
    (tmp_path / "bench/results").mkdir(parents=True)
    code, measured = tmp_path / "code.py", tmp_path / "bench/results/table.md"
    code.write_text("one")
    measured.write_text("one")
    git(tmp_path, "init")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "first")
    first = commit.commit()
    assert len(first) == 12
    measured.write_text("two")
    assert commit.commit() == first
    code.write_text("two")
    assert commit.commit().startswith(f"{first}+")


@pytest.mark.parametrize(
    "file",
    [
        "csrc/op/cuda/op.h", "csrc/op/loops.inl", "csrc/op/cuda/op.cu", "csrc/op/op.cpp",
        "maskedconv/ops/op.py", "models/net.py", "bench/gpu_check/plan.py", "native_build.py",
        "tests/ops/test_gpu.py",
    ],
)  # fmt: skip
def test_without_git_every_source_counts(tmp_path, monkeypatch, file):
    monkeypatch.setattr(commit, "ROOT", tmp_path)
    monkeypatch.setattr(commit, "_git", lambda *_: (_ for _ in ()).throw(OSError("no git")))
    path = tmp_path / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("one")
    first = commit.commit()
    assert first.startswith("no git, ")
    assert commit.commit() == first
    path.write_text("two")
    second = commit.commit()
    path.rename(path.with_name("other" + path.suffix))
    assert len({first, second, commit.commit()}) == 3
