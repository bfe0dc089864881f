"""Shares of a data set: together they are the batches of one process."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from killed_runs import small_dataset
from PIL import Image

from maskedconv import data
from maskedconv.data.share import WHOLE, Share
from maskedconv.training.batch_loss import BatchLoss

BATCH_SIZE, COUNT = 9, 4


@given(st.integers(1, 40), st.integers(1, 9), st.integers(0, 5))
def test_parts_follow_each_other_and_differ_by_one_example_at_most(size, count, start):
    parts = [Share(index, count).bounds(start, start + size) for index in range(count)]
    ends = [start, *(end for _, end in parts)]
    assert [first for first, _ in parts] == ends[:-1]
    assert ends[-1] == start + size
    sizes = [end - first for first, end in parts]
    assert sizes[0] == max(sizes) <= min(sizes) + 1
    for index, (first, end) in enumerate(parts):
        inputs = Share(index, count).inputs(start, start + size)
        assert inputs == ((first, end) if end > first else (start + size - 1, start + size))


def photos(folder):
    random = np.random.default_rng(0)
    for split, count in (("train", 13), ("val", 5)):
        for name in ("bird", "car"):
            for number in range(count):
                path = folder / split / name / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(random.integers(0, 255, (30, 40, 3), dtype=np.uint8)).save(path)
    return data.load("photos", folder)


def words():
    task = data.load("number-words-1000")
    return replace(task, train_pairs=task.train_pairs[:20], train_targets=task.train_targets[:20])


SIZES = {"dataset": [*[9] * 7, 8], "photos": [9, 8], "words": [11]}
MAKERS = {"dataset": lambda _: small_dataset(), "photos": photos, "words": lambda _: words()}


@pytest.mark.parametrize("name", MAKERS)
def test_shares_of_training_batches_are_the_whole(name, tmp_path):
    task = MAKERS[name](tmp_path)
    whole = list(task.train_batches(BATCH_SIZE, 0, 1, first_batch=1))
    shared = [
        task.shared(Share(index, COUNT)).train_batches(BATCH_SIZE, 0, 1, first_batch=1)
        for index in range(COUNT)
    ]
    joined = []
    for own in zip(*shared, strict=True):
        targets = own[0][1]
        assert all(torch.equal(theirs, targets) for _, theirs in own)
        counted = [Share(index, COUNT).bounds(0, len(targets)) for index in range(COUNT)]
        parts = [
            images[: end - first] for (images, _), (first, end) in zip(own, counted, strict=True)
        ]
        # One image has no batch statistics.
        assert min(len(images) for images, _ in own) >= 2
        joined.append((torch.cat(parts), targets))
    # Two pairs of tokens remain behind a batch of nine, which is less than two for each.
    assert [len(targets) for _, targets in joined] == SIZES[name]
    for found, expected in zip(zip(*joined, strict=True), zip(*whole, strict=True), strict=True):
        assert torch.equal(torch.cat(found), torch.cat(expected))


@pytest.mark.parametrize("name", MAKERS)
def test_test_batches_are_dealt(name, tmp_path):
    task = MAKERS[name](tmp_path)
    whole = list(task.test_batches(4))
    dealt = [list(task.shared(Share(index, 2)).test_batches(4)) for index in range(2)]
    assert len(dealt[0]) + len(dealt[1]) == len(whole)
    for index, batch in enumerate(whole):
        assert all(map(torch.equal, dealt[index % 2][index // 2], batch))
    assert task.shared(Share(1, 2)).shared(WHOLE).share == WHOLE


@pytest.mark.parametrize("size", [1, 3, 9])
@pytest.mark.parametrize("name", ["dataset", "words"])
def test_mean_of_the_losses_is_that_of_the_batch(name, size, tmp_path):
    task = MAKERS[name](tmp_path)
    _, targets = next(task.train_batches(size, 0, 1))
    generator = torch.Generator().manual_seed(0)
    outputs = torch.randn(*targets.shape, task.num_classes, generator=generator).double()
    losses, correct, count = [], 0, 0
    for index in range(COUNT):
        share = Share(index, COUNT)
        own = BatchLoss(task.shared(share))
        part = outputs[slice(*share.inputs(0, size))]
        losses.append(own.loss(part, targets))
        correct += own.correct(part, targets)
        count += own.count(targets)
    torch.testing.assert_close(torch.stack(losses).mean(), task.loss(outputs, targets))
    assert correct == task.correct(outputs, targets)
    assert count == size
