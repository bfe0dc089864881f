"""masked_weight: every backend for the CPU against a stable sort and float64 formulae."""

from __future__ import annotations

import pytest
import torch
from cpu_backends import cpu_backends
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from supermasks import (
    INF,
    LAYOUTS,
    NAN,
    SCORES,
    check_backend,
    check_close,
    counts_of,
    expected_weight,
    kept_by_sort,
    mask_of,
)

from maskedconv.ops import native
from maskedconv.ops.dispatch import recorded_decisions
from maskedconv.ops.masked_weight import (
    BACKENDS,
    FIND,
    MaskProblem,
    ScoreGradProblem,
    Threshold,
    ThresholdProblem,
    find_threshold,
    masked_weight,
    pack_mask,
    score_grad,
    unpack_mask,
)

SHAPES = [(5, 3, 3, 3), (4, 16, 1, 1), (1, 1, 1, 1), (7, 2, 5, 1)]
NAMES = [
    "reference",
    pytest.param("native", marks=pytest.mark.skipif(native.module() is None, reason=native.REASON)),
]


@pytest.fixture(params=NAMES)
def backend(request):
    return BACKENDS[request.param]


@pytest.fixture(params=[1, 2, 3])
def threads(request):
    torch.set_num_threads(request.param)
    return request.param


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("scores", SCORES)
def test_mask_weight_and_gradient(backend, scores, layout):
    for shape in SHAPES:
        score, weight = (LAYOUTS[layout](make(shape)) for make in (SCORES[scores], torch.randn))
        for num_kept in counts_of(score):
            check_backend(backend, weight, score, num_kept)


@pytest.mark.parametrize("layouts", [("contiguous", "channels_last"), ("view", "transposed")])
def test_weight_and_score_of_different_layouts(backend, layouts):
    for scores in ("normal", "ties"):
        score = LAYOUTS[layouts[0]](SCORES[scores]((6, 4, 3, 3)))
        weight = LAYOUTS[layouts[1]](torch.randn(6, 4, 3, 3))
        for num_kept in counts_of(score):
            check_backend(backend, weight, score, num_kept)


@pytest.mark.parametrize("shape", [(0,), (3, 0, 3, 3), (), (13,), (3, 4), (2, 2, 2, 2, 3)])
def test_any_number_of_dimensions(backend, shape):
    score, weight = torch.randn(shape), torch.randn(shape)
    for num_kept in counts_of(score):
        check_backend(backend, weight, score, num_kept)


@pytest.mark.parametrize("scores", ["uniform", "ties", "equal", "near"])
def test_many_threads(backend, threads, scores):
    """More elements than the share of three threads; every thread's share has ties."""
    score, weight = SCORES[scores]((80, 150, 3, 3)), torch.randn(80, 150, 3, 3)
    for num_kept in (1, 32400, 107999):
        check_backend(backend, weight, score, num_kept)


def test_the_number_of_threads_does_not_change_a_bit(backend):
    score, weight = torch.randn(40, 300, 3, 3), torch.randn(40, 300, 3, 3)
    results = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        threshold = backend.find_threshold(ThresholdProblem(score, 30000))
        problem = MaskProblem(weight, score, threshold, True, 1.0, torch.float32)
        results.append(backend.masked_weight(problem))
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


@settings(max_examples=60)
@given(
    values=arrays("float32", st.integers(1, 200), elements=st.floats(allow_nan=False, width=32)),
    data=st.data(),
    name=st.sampled_from(cpu_backends(BACKENDS)),
)
def test_exactly_so_many_are_kept(values, data, name):
    score = torch.from_numpy(values)
    num_kept = data.draw(st.integers(0, score.numel()))
    problem = ThresholdProblem(score, num_kept)
    if BACKENDS[name].cannot_run(problem):
        return
    threshold = BACKENDS[name].find_threshold(problem)
    assert int(mask_of(score, threshold).sum()) == num_kept
    assert torch.equal(mask_of(score, threshold), kept_by_sort(score, num_kept))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("scores", ["normal", "ties"])
def test_other_dtypes(dtype, scores):
    score, weight = SCORES[scores]((9, 7)).to(dtype), torch.randn(9, 7).to(dtype)
    for num_kept in counts_of(score):
        threshold, mask = find_threshold(score, num_kept), kept_by_sort(score, num_kept)
        assert torch.equal(mask_of(score, threshold), mask)
        found = masked_weight(weight, score, threshold, binary=True, scale=2.0)
        check_close(found, expected_weight(weight, mask, True, 2.0), dtype)
    assert score_grad(weight, weight, score).dtype == dtype


def test_a_score_of_nan_is_kept_first_and_gives_nan(backend):
    score, weight = torch.randn(50), torch.randn(50)
    score[[3, 7, 40]] = torch.tensor([NAN, -NAN, NAN])
    score[9] = INF
    for num_kept in (0, 1, 2, 3, 4, 20, 50):
        threshold = backend.find_threshold(ThresholdProblem(score, num_kept))
        kept = kept_by_sort(score, num_kept)
        for dtype in (torch.float32, torch.bfloat16, torch.float16):
            found = backend.masked_weight(MaskProblem(weight, score, threshold, False, 1.0, dtype))
            assert found[score.isnan()].isnan().all()
            assert torch.equal(found.bool() | score.isnan(), kept | score.isnan())
        found = backend.masked_weight(
            MaskProblem(weight, score, threshold, True, 1.0, torch.float32)
        )
        assert torch.equal(found.isnan(), kept | score.isnan())
        assert torch.equal(pack_mask(score, threshold), packed(kept))


def test_what_is_not_finite_in_the_weight(backend):
    weight = torch.tensor([INF, -INF, NAN, 1.0, 0.0, -0.0, 65520.0, 1e-8])
    score = torch.tensor([1.0, 0.1, 0.2, 1.0, 1.0, 1.0, 1.0, 1.0])
    threshold = backend.find_threshold(ThresholdProblem(score, 6))
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        found = backend.masked_weight(MaskProblem(weight, score, threshold, False, 1.0, dtype))
        assert torch.equal(found, torch.where(score > 0.5, weight, 0.0).to(dtype))
    problem = MaskProblem(weight, score, threshold, True, 1.0, torch.float32)
    found = backend.masked_weight(problem)
    expected = torch.tensor([INF, 0.0, 0.0, INF, NAN, NAN, INF, INF])
    torch.testing.assert_close(found, expected, equal_nan=True)


def test_every_half_is_converted_as_in_torch(backend):
    """All 16-bit numbers as gradients, and as results all roundings near to them."""
    for dtype in (torch.bfloat16, torch.float16):
        halves = torch.arange(-(2**15), 2**15, dtype=torch.int16).view(dtype)
        ones = torch.ones(2**16)
        found = backend.score_grad(ScoreGradProblem(halves, ones, ones, False, 1.0, torch.float32))
        torch.testing.assert_close(found, halves.float(), rtol=0, atol=0, equal_nan=True)
        bits = halves.float().view(torch.int32)
        near = torch.cat([(bits + offset).view(torch.float32) for offset in (-1, 0, 1)])
        middle = (halves.float() + halves.float().roll(-1)) / 2
        weight = torch.cat([near, middle])
        score = torch.ones_like(weight)
        threshold = Threshold(torch.tensor(1.0), torch.tensor(0))
        found = backend.masked_weight(MaskProblem(weight, score, threshold, False, 1.0, dtype))
        torch.testing.assert_close(found, weight.to(dtype), rtol=0, atol=0, equal_nan=True)


def test_a_threshold_of_several_layers(backend):
    """The threshold is found on all scores; the index is made relative to each layer."""
    parts = [(SCORES["ties"](shape)) for shape in ((4, 3, 3, 3), (7,), (5, 5))]
    whole = torch.cat([part.flatten() for part in parts])
    for num_kept in counts_of(whole):
        value, first = backend.find_threshold(ThresholdProblem(whole, num_kept))
        masks = kept_by_sort(whole, num_kept).split([part.numel() for part in parts])
        offset = 0
        for part, mask in zip(parts, masks, strict=True):
            threshold = Threshold(value, first - offset)
            problem = MaskProblem(torch.ones_like(part), part, threshold, False, 1.0, torch.float32)
            assert torch.equal(backend.masked_weight(problem).bool().flatten(), mask)
            offset += part.numel()


def packed(mask):
    bits = torch.zeros(-(-mask.numel() // 8) * 8, dtype=torch.int64)
    bits[: mask.numel()] = mask.flatten()
    return (bits.view(-1, 8) * 2 ** torch.arange(8)).sum(1).to(torch.uint8)


@pytest.mark.parametrize("shape", [(5, 3, 3, 3), (8,), (1,), (0,), (3, 11)])
def test_packed_masks(shape):
    score = SCORES["ties"](shape)
    for num_kept in counts_of(score):
        mask = kept_by_sort(score, num_kept)
        bits = pack_mask(score, find_threshold(score, num_kept))
        assert torch.equal(bits, packed(mask))
        assert torch.equal(unpack_mask(bits, shape), mask)


def test_bits_of_another_mask():
    with pytest.raises(ValueError, match=r"bits is \[2\] of torch.uint8; expected \[3\] of torch"):
        unpack_mask(torch.zeros(2, dtype=torch.uint8), (17,))
    with pytest.raises(ValueError, match=r"bits is .* of torch\.int64; expected"):
        unpack_mask(torch.zeros(3, dtype=torch.int64), (17,))
    with pytest.raises(ValueError, match="behind its last; expected 17 bits and zeros"):
        unpack_mask(torch.tensor([0, 0, 2], dtype=torch.uint8), (17,))


def test_wrong_arguments():
    score, weight = torch.randn(4, 3), torch.randn(4, 3)
    threshold = find_threshold(score, 5)
    with pytest.raises(ValueError, match="num_kept is 13; expected at most the 12 scores"):
        find_threshold(score, 13)
    with pytest.raises(ValueError, match="num_kept is -1; expected at least 0"):
        find_threshold(score, -1)
    with pytest.raises(TypeError, match=r"num_kept is 0\.5"):
        find_threshold(score, 0.5)
    with pytest.raises(TypeError, match=r"score is of torch.int64; expected floating point"):
        find_threshold(torch.ones(3, dtype=torch.int64), 1)
    with pytest.raises(ValueError, match=r"score is \[12\]; expected the weight's \[4, 3\]"):
        masked_weight(weight, score.flatten(), threshold)
    with pytest.raises(TypeError, match=r"weight is of torch\.int32"):
        masked_weight(weight.int(), score, threshold)
    with pytest.raises(ValueError, match=r"threshold is \[1\] of torch.float32 and \[\] of"):
        masked_weight(weight, score, Threshold(threshold.value[None], threshold.first))


def test_choice_of_backend(monkeypatch):
    monkeypatch.delenv("MASKEDCONV_BACKEND", raising=False)
    score, weight = torch.randn(4, 3), torch.randn(4, 3)
    first = "reference" if native.module() is None else "native"
    with recorded_decisions() as choices:
        threshold = find_threshold(score, 5)
        masked_weight(weight, score, threshold)
        score_grad(weight, weight, score)
        monkeypatch.setenv("MASKEDCONV_BACKEND", "reference")
        masked_weight(weight, score, threshold)
    assert [(choice.operator, choice.backend) for choice in choices] == [
        ("find_threshold", first), ("masked_weight", first), ("score_grad", first),
        ("masked_weight", "reference"),
    ]  # fmt: skip
    monkeypatch.setenv("MASKEDCONV_BACKEND", "cuda")
    with pytest.raises(RuntimeError, match="'cuda', which cannot run"):
        find_threshold(score, 5)


@pytest.mark.skipif(native.module() is None, reason=native.REASON)
def test_what_native_does_not_take():
    kernel, score, weight = BACKENDS["native"], torch.randn(4), torch.randn(4)
    threshold = find_threshold(score, 2)
    whole = torch.float32
    assert "float64" in kernel.cannot_run(ThresholdProblem(score.double(), 1))
    assert "meta" in kernel.cannot_run(ThresholdProblem(score.to("meta"), 1))
    for reason, changes in {
        "weights and scores; these are torch.bfloat16": {"weight": weight.bfloat16()},
        "scores; these are torch.float64": {"score": score.double()},
        "conversion to torch.float64": {"dtype": torch.float64},
    }.items():
        problem = MaskProblem(weight, score, threshold, False, 1.0, whole)._replace(**changes)
        assert reason in kernel.cannot_run(problem)
    for reason, changes in {
        "conversion from torch.float64": {"grad": score.double()},
        "for float32 scores; these are torch.bfloat16": {"score": score.bfloat16()},
        "of scores, not torch.bfloat16": {"dtype": torch.bfloat16},
    }.items():
        problem = ScoreGradProblem(weight, weight, score, False, 1.0, whole)._replace(**changes)
        assert reason in kernel.cannot_run(problem)


def test_what_is_timed_of_a_threshold_shows_a_wrong_one():
    problem = ThresholdProblem(torch.tensor([3.0, -1.0, 1.0, 2.0]), 3)
    for name, backend in FIND.backends.items():
        if not backend.cannot_run(problem):
            assert FIND.run(backend, problem).tolist() == [3.0, 0.0, 1.0, 2.0], name
