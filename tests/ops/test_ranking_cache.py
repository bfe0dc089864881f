"""Rankings on disk: valid and invalid files, and their location."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch._subclasses import FakeTensor, FakeTensorMode

from maskedconv.ops import ranking_cache
from maskedconv.ops.bn_relu import Normalisation, NormProblem
from maskedconv.ops.bn_statistics import StatisticsProblem
from maskedconv.ops.geometry import ConvGeometry
from maskedconv.ops.masked_weight import ThresholdProblem
from maskedconv.ops.pack_filters import PackProblem
from maskedconv.ops.ranking_cache import Ranking, RankingCache
from maskedconv.ops.weight_grad import WeightGradProblem

BACKENDS = ("reference", "triton", "cuda")
RANKING = Ranking(("cuda", "reference"), "timed")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "rankings.json"


def content(path, **changes):
    RankingCache(path, {}).add("kind", RANKING, BACKENDS)
    return json.loads(path.read_text()) | changes


def test_what_is_added_is_found(path):
    cache = RankingCache(path, {})
    assert cache.find("kind", BACKENDS) is None
    assert cache.add("kind", RANKING, BACKENDS) == RANKING
    other = Ranking(("reference",), "timed too")
    assert cache.add("other", other, BACKENDS) == other
    assert RankingCache(path, {}).find("kind", BACKENDS) == RANKING
    assert {file.name for file in path.parent.iterdir()} == {path.name, f"{path.stem}.lock"}


def test_what_was_stored_first_holds(path):
    RankingCache(path, {}).add("kind", RANKING, BACKENDS)
    second = Ranking(("reference",), "timed later")
    assert RankingCache(path, {}).add("kind", second, BACKENDS) == RANKING
    assert RankingCache(path, {}).find("kind", BACKENDS) == RANKING


def test_processes_that_write_at_once_lose_nothing(path):
    """Threads with a cache of their own: they read and write the file as processes do."""
    names = [f"kind {number}" for number in range(40)]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda name: RankingCache(path, {}).add(name, RANKING, BACKENDS), names))
    assert all(RankingCache(path, {}).find(name, BACKENDS) == RANKING for name in names)


def test_another_environment_is_not_read(path):
    RankingCache(path, {"driver": "1"}).add("kind", RANKING, BACKENDS)
    assert RankingCache(path, {"driver": "2"}).find("kind", BACKENDS) is None


@pytest.mark.parametrize(
    "rankings",
    [
        [],
        {"kind": 1},
        {"kind": [["cuda", "reference"]]},
        {"kind": [["cuda"], "timed"]},
        {"kind": [["cuda", "cuda", "reference"], "timed"]},
        {"kind": [["quick", "reference"], "timed"]},
        {"kind": [[["cuda"], "reference"], "timed"]},
        {"kind": [["cuda", "reference"], 1]},
        {"kind": ["reference", "timed"]},
    ],
    ids=str,
)
def test_a_damaged_entry_counts_as_none_and_is_replaced(path, rankings):
    path.write_text(json.dumps(content(path, rankings=rankings)))
    cache = RankingCache(path, {})
    assert cache.find("kind", BACKENDS) is None
    assert cache.add("kind", RANKING, BACKENDS) == RANKING
    assert cache.find("kind", BACKENDS) == RANKING


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "[" * 100_000, "\0" * 100], ids=lambda text: repr(text[:3])
)
def test_a_damaged_file_counts_as_empty_and_is_replaced(path, text):
    path.write_text(text)
    cache = RankingCache(path, {})
    assert cache.find("kind", BACKENDS) is None
    assert cache.add("kind", RANKING, BACKENDS) == RANKING
    assert cache.find("kind", BACKENDS) == RANKING


def test_a_file_of_other_bytes_counts_as_empty(path):
    path.write_bytes(b"\xff\xfe\x00{")
    assert RankingCache(path, {}).find("kind", BACKENDS) is None


def test_a_lock_that_another_process_keeps_is_not_waited_for_without_end(path, monkeypatch):
    monkeypatch.setattr(ranking_cache, "LOCK_SECONDS", 0.1)
    with RankingCache(path, {})._locked():
        assert RankingCache(path, {}).find("kind", BACKENDS) is None  # which waits for nothing
        assert RankingCache(path, {}).add("kind", RANKING, BACKENDS) == RANKING
    assert RankingCache(path, {}).find("kind", BACKENDS) == RANKING


def test_the_folder(monkeypatch, tmp_path):
    monkeypatch.setenv(ranking_cache.VARIABLE, str(tmp_path / "named"))
    assert ranking_cache.folder() == tmp_path / "named"
    monkeypatch.delenv(ranking_cache.VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert ranking_cache.folder() == tmp_path / "xdg" / "maskedconv"
    monkeypatch.setitem(__import__("sys").modules, "platformdirs", None)
    assert ranking_cache.folder() == tmp_path / "xdg" / "maskedconv"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert ranking_cache.folder() == Path.home() / ".cache" / "maskedconv"


def test_the_digest_follows_the_kernels(monkeypatch, tmp_path):
    ranking_cache.kernels_digest.cache_clear()
    before = ranking_cache.kernels_digest()
    built = tmp_path / "_C.so"
    built.write_bytes(b"another build")
    monkeypatch.setattr(
        ranking_cache.native, "module", lambda: type("Module", (), {"__file__": str(built)})
    )
    ranking_cache.kernels_digest.cache_clear()
    assert ranking_cache.kernels_digest() != before
    ranking_cache.kernels_digest.cache_clear()


def test_no_key_depends_on_the_index_of_the_gpu(monkeypatch):
    """Processes with a GPU each share the rankings."""
    monkeypatch.setattr(FakeTensor, "data_ptr", lambda _: 64)

    def keys(device):
        with FakeTensorMode(allow_non_fake_inputs=True):
            x = torch.empty(2, 8, 4, 4, device=device).to(memory_format=torch.channels_last)
            table, filters = (
                torch.empty(5, 8, device=device),
                torch.empty(4, 8, 3, 3, device=device),
            )
        norm = Normalisation(None, None, table, 1e-5, True)
        geometry = ConvGeometry((1, 1), (1, 1), (1, 1), 1)
        problems = (
            NormProblem(x, norm),
            NormProblem(x, norm, "", x),
            StatisticsProblem(x, None, None, 1e-5, moments=table[:2]),
            PackProblem(filters, filters, 0, torch.bfloat16, torch.channels_last),
            WeightGradProblem(x, x, filters.shape, 0, geometry, table[3], table[4]),
            ThresholdProblem(filters, 3),
        )
        shown = f"{torch.device(device)!r}, "
        return [repr(problem.kind()).replace(shown, "") for problem in problems]

    assert keys("cuda:0") == keys("cuda:1")
