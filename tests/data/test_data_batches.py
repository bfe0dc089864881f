"""Random crops, flips and normalisation, and the batches made with them."""

from __future__ import annotations

import dataclasses
from itertools import pairwise

import numpy as np
import pytest
import torch

from maskedconv import data
from maskedconv.data.augment import crop_flip, draw_moves
from maskedconv.data.batches import batch_bounds
from maskedconv.data.share import Share


@pytest.mark.parametrize(("padding", "flip"), [(4, True), (1, False), (0, True), (0, False)])
def test_crop_flip_is_a_shifted_mirrored_copy(padding, flip):
    images = torch.randint(256, (64, 3, 7, 5), dtype=torch.uint8)
    moves = draw_moves(64, padding, flip, torch.Generator().manual_seed(3))
    padded = np.pad(images.numpy(), ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    expected = np.empty_like(images.numpy())
    for index, (row, column, mirror) in enumerate(moves.tolist()):
        crop = padded[index, :, row : row + 7, column : column + 5]
        expected[index] = crop[:, :, ::-1] if mirror else crop
    result = data.random_crop_flip(images, padding, flip, torch.Generator().manual_seed(3))
    assert result.dtype == torch.uint8
    assert np.array_equal(result.numpy(), expected)
    assert torch.equal(crop_flip(images, moves, padding), result)


def test_moves_are_drawn_evenly():
    moves = draw_moves(90_000, 4, True, torch.Generator().manual_seed(0))
    for column, choices in ((0, 9), (1, 9), (2, 2)):
        counts = moves[:, column].bincount()
        assert len(counts) == choices
        # Five standard deviations of a binomial count.
        share = 1 / choices
        bound = 5 * (90_000 * share * (1 - share)) ** 0.5
        assert (counts - 90_000 * share).abs().max() < bound
    assert np.abs(np.corrcoef(moves.T.numpy()) - np.eye(3)).max() < 0.02


@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_normalise(dtype, channels_last):
    images = torch.randint(256, (4, 3, 6, 5), dtype=torch.uint8)
    mean, std = (0.5, 0.4, 0.1), (0.2, 0.3, 0.6)
    result = data.normalise(images, mean, std, dtype, channels_last)
    shape = (1, 3, 1, 1)
    exact = images.double() / 255 - torch.tensor(mean, dtype=torch.float64).view(shape)
    exact /= torch.tensor(std, dtype=torch.float64).view(shape)
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    assert result.dtype == dtype
    assert result.is_contiguous(memory_format=memory_format)
    tolerance = 2e-6 if dtype == torch.float32 else 2**-8
    torch.testing.assert_close(result.double(), exact, rtol=tolerance, atol=tolerance)


def test_augmentation_arguments_are_checked():
    images = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
    generator = torch.Generator()
    with pytest.raises(ValueError, match="padding is -1; expected at least 0"):
        data.random_crop_flip(images, -1, True, generator)
    with pytest.raises(ValueError, match=r"images is torch.float32 .*; expected uint8"):
        data.random_crop_flip(images.float(), 1, True, generator)
    with pytest.raises(ValueError, match="3 channels, got 1 and 1"):
        data.normalise(images, (0.5,), (0.5,))


def numbered(count: int, flip: bool = False, crop_padding: int = 0) -> data.Dataset:
    """Images whose pixels all equal their label, so that images cannot be confused."""
    labels = torch.arange(count)
    images = labels.to(torch.uint8)[:, None, None, None].expand(count, 1, 4, 4).contiguous()
    return data.Dataset(
        name="numbered",
        train_images=images,
        train_labels=labels,
        test_images=images,
        test_labels=labels,
        classes=tuple(map(str, range(count))),
        mean=(0.0,),
        std=(1 / 255,),
        crop_padding=crop_padding,
        flip=flip,
        note="",
    )


@pytest.mark.parametrize(
    ("count", "batch_size", "sizes"),
    [
        (10, 4, [4, 4, 2]),
        (8, 4, [4, 4]),
        (9, 4, [4, 5]),
        (3, 8, [3]),
        (1, 8, [1]),
        (3, 1, [1, 1, 1]),
    ],
)
def test_every_image_comes_once_with_its_label(count, batch_size, sizes):
    dataset = numbered(count)
    batches = list(data.train_batches(dataset, batch_size, seed=0, epoch=0))
    assert [len(labels) for _, labels in batches] == sizes
    assert data.num_batches(dataset, batch_size) == len(sizes)
    assert sorted(torch.cat([labels for _, labels in batches]).tolist()) == list(range(count))
    for images, labels in batches:
        torch.testing.assert_close(images, labels.float()[:, None, None, None].expand_as(images))


@pytest.mark.parametrize(
    ("count", "batch_size", "processes", "sizes"),
    [
        (80, 37, 3, [37, 37, 6]),
        (80, 13, 3, [13] * 5 + [15]),
        (13, 4, 2, [4, 4, 5]),
        (9, 2, 2, [2, 2, 2, 3]),
        (8, 4, 4, [4, 4]),
        (3, 8, 2, [3]),
    ],
)
def test_a_rest_of_less_than_two_for_each_process_joins(count, batch_size, processes, sizes):
    bounds = batch_bounds(count, batch_size, processes)
    assert [stop - start for start, stop in pairwise(bounds)] == sizes
    shared = numbered(count).shared(Share(0, processes))
    assert data.num_batches(shared, batch_size) == len(sizes)


def test_test_batches_keep_the_order():
    batches = list(data.test_batches(numbered(10), 4))
    assert torch.cat([labels for _, labels in batches]).tolist() == list(range(10))
    values = torch.cat([images[:, 0, 0, 0] for images, _ in batches])
    torch.testing.assert_close(values, torch.arange(10.0))


def test_batches_depend_on_seed_and_epoch_alone():
    dataset = data.load("digits", subset=10)
    dataset = dataclasses.replace(dataset, flip=True)

    def epoch_images(seed, epoch, batch_size=16):
        torch.rand(3)
        batches = data.train_batches(dataset, batch_size, seed, epoch)
        return torch.cat([images for images, _ in batches])

    state = torch.get_rng_state()
    reference = epoch_images(0, 1)
    torch.manual_seed(12)
    assert torch.equal(epoch_images(0, 1), reference)
    assert torch.equal(epoch_images(0, 1, batch_size=7), reference)
    for seed, epoch in ((0, 0), (0, 2), (1, 0), (1, 1)):
        assert not torch.equal(epoch_images(seed, epoch), reference)
    torch.set_rng_state(state)
    list(data.train_batches(dataset, 16, 0, 0))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("first", [0, 2, 3, 5])
def test_later_batches_are_those_of_the_whole_epoch(first):
    dataset = numbered(11, crop_padding=1)
    whole = list(data.train_batches(dataset, 4, 0, 1))
    later = list(data.train_batches(dataset, 4, 0, 1, first_batch=first))
    assert len(later) == max(0, 3 - first)
    for (images, labels), (others, other_labels) in zip(whole[first:], later, strict=True):
        assert torch.equal(images, others)
        assert torch.equal(labels, other_labels)


def test_training_images_are_augmented_and_test_images_not():
    dataset = numbered(200, crop_padding=1)
    images, _ = next(data.train_batches(dataset, 200, 0, 0))
    assert 0.6 < (images == 0).any(dim=(1, 2, 3)).float().mean() < 1
    images, _ = next(data.test_batches(dataset, 200))
    assert (images[1:] > 0).all()


def test_batches_have_the_asked_type_and_format():
    dataset = dataclasses.replace(numbered(8), mean=(0.0,) * 3, std=(1.0,) * 3)
    dataset = dataclasses.replace(
        dataset,
        train_images=dataset.train_images.repeat(1, 3, 1, 1),
        test_images=dataset.test_images.repeat(1, 3, 1, 1),
    )
    for batches in (
        data.train_batches(dataset, 4, 0, 0, dtype=torch.bfloat16),
        data.test_batches(dataset, 4, dtype=torch.bfloat16),
    ):
        images, labels = next(batches)
        assert images.dtype == torch.bfloat16
        assert images.is_contiguous(memory_format=torch.channels_last)
        assert labels.dtype == torch.int64


def test_batch_arguments_are_checked_before_the_first_batch():
    dataset = numbered(4)
    with pytest.raises(ValueError, match="batch_size is 0; expected at least 1"):
        data.train_batches(dataset, 0, 0, 0)
    with pytest.raises(ValueError, match="batch_size is 0; expected at least 1"):
        data.test_batches(dataset, 0)
    with pytest.raises(ValueError, match="epoch is -1; expected at least 0"):
        data.train_batches(dataset, 2, 0, -1)
    with pytest.raises(ValueError, match="first_batch is -1; expected at least 0"):
        data.train_batches(dataset, 2, 0, 0, first_batch=-1)
