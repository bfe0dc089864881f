"""bench.gpu_check after a lost GPU."""

from __future__ import annotations

import json

import pytest

from bench.gpu_check.cases import tests
from bench.gpu_check.device import Rehearsed
from bench.gpu_check.record import Record

# Each process has its own "GPU", which a test of the process may lose.
LOSING = """
import os
import pytest
import torch

def lost(*_):
    raise RuntimeError("CUDA error: an illegal memory access was encountered")

@pytest.mark.parametrize("number", range(4))
def test_number(number):
    with open(__file__ + ".ran", "a") as file:
        file.write(f"{number}\\n")
    if number == 1:
        torch.cuda.is_initialized = lambda: True
        torch.cuda.synchronize = lost
        lost()
    assert number != 2
"""


@pytest.mark.parametrize("workers", [True, False])
def test_tests_after_a_lost_gpu_run_in_another_process(tmp_path, monkeypatch, workers):
    if not workers:
        monkeypatch.setattr(tests.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(tests, "WORKERS", 1)
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)  # of the process of this test
    monkeypatch.setenv("PYTEST_ADDOPTS", "-p no:randomly")  # their order, if it is installed
    file, results = tmp_path / "test_losing.py", tmp_path / "results.jsonl"
    file.write_text(LOSING)
    row = tests.run(str(file), Rehearsed(), {"results": str(results)})
    assert row["status"] == "error"
    rows = {row["key"].partition("::")[2]: row for row in Record(results).rows()}
    assert {name: row["status"] for name, row in rows.items()} == {
        "test_number[0]": "ok", "test_number[1]": "error", "test_number[2]": "error",
        "test_number[3]": "ok",
    }  # fmt: skip
    assert [name for name, row in rows.items() if "lost_gpu" in row] == ["test_number[1]"]
    assert "illegal memory" in rows["test_number[1]"]["error"]
    assert "assert 2 != 2" in rows["test_number[2]"]["error"]
    assert (tmp_path / "test_losing.py.ran").read_text().split() == ["0", "1", "2", "3"]
    assert json.dumps(row)


@pytest.mark.parametrize(("selected", "numbers"), [("not 1", "02"), ("1", "1")])
def test_a_case_may_be_a_part_of_a_files_tests(tmp_path, monkeypatch, selected, numbers):
    monkeypatch.setattr(tests.importlib.util, "find_spec", lambda name: None)
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    file, results = tmp_path / "test_some.py", tmp_path / "results.jsonl"
    file.write_text(LOSING.replace("number == 1", "False").replace("range(4)", "range(3)"))
    tests.run(f"{file} | {selected}", Rehearsed(), {"results": str(results)})
    names = [row["key"].partition("::")[2] for row in Record(results).rows()]
    assert sorted(names) == [f"test_number[{number}]" for number in numbers]
