"""Images that are read while a network is trained, of generated files."""

from __future__ import annotations

import csv
import json
import shutil

import numpy as np
import pytest
import torch
from commands import call
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file
from stopped_runs import stopped_after
from torch import nn

from maskedconv import data, load_run, predict, train
from maskedconv.data import DataError
from maskedconv.data.share import Share
from maskedconv.data.streamed import SIZE, random_box
from maskedconv.runs import RunConfig
from maskedconv.runs.execute import execute

SIZES = [(300, 260), (250, 400), (224, 224), (90, 120)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(0)
    for split, count in (("train", 4), ("val", 3)):
        for label, name in enumerate(("bird", "car")):
            for number in range(count):
                width, height = SIZES[number % len(SIZES)]
                pixels = random.integers(0, 100, (height, width, 3), dtype=np.uint8)
                pixels[..., label] += 150
                path = root / split / name / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(path)
    return root


@pytest.fixture
def photos(folder):
    return data.load("photos", folder)


def test_sizes_and_classes(photos, folder):
    assert photos.classes == ("bird", "car")
    assert (photos.train_size, photos.test_size) == (8, 6)
    assert photos.image_shape == (3, SIZE, SIZE)
    assert folder.name in photos.note


def test_a_digest_of_names_classes_and_sizes(photos, folder, tmp_path):
    assert data.load("photos", folder).digest == photos.shared(Share(1, 2)).digest == photos.digest
    copy = shutil.copytree(folder, tmp_path / "copy")
    assert data.load("photos", copy).digest == photos.digest
    with (copy / "train" / "bird" / "1.png").open("ab") as file:
        file.write(b"more")
    longer = data.load("photos", copy).digest
    (copy / "train" / "bird" / "1.png").rename(copy / "train" / "bird" / "9.png")
    assert len({photos.digest, longer, data.load("photos", copy).digest}) == 3


def test_batches_of_an_epoch(photos):
    batches = list(photos.train_batches(3, seed=0, epoch=1))
    assert [len(labels) for _, labels in batches] == [3, 3, 2]
    labels = torch.cat([labels for _, labels in batches])
    assert labels.bincount().tolist() == [4, 4]
    for images, their_labels in batches:
        assert images.shape[1:] == (3, SIZE, SIZE)
        assert images.dtype == torch.float32
        assert images.is_contiguous(memory_format=torch.channels_last)
        # The class is the brightest of the first two channels.
        assert torch.equal(images[:, :2].mean((2, 3)).argmax(1), their_labels)


def test_a_batch_depends_on_seed_and_epoch_alone(photos):
    first = list(photos.train_batches(3, seed=0, epoch=1))
    again = list(photos.train_batches(3, seed=0, epoch=1, first_batch=1))
    for (ours, labels), (theirs, their_labels) in zip(again, first[1:], strict=True):
        assert torch.equal(ours, theirs)
        assert torch.equal(labels, their_labels)
    for seed, epoch in ((1, 1), (0, 2)):
        images, _ = next(photos.train_batches(8, seed=seed, epoch=epoch))
        assert not torch.equal(images, torch.cat([images for images, _ in first]))


def test_test_images_are_the_centre_in_order(photos, folder):
    (images, labels), *rest = photos.test_batches(4)
    assert labels.tolist() == [0, 0, 0, 1]
    assert [len(part) for part, _ in rest] == [2]
    with Image.open(folder / "val" / "bird" / "2.png") as image:  # 224×224 becomes 256×256
        whole = image.resize((256, 256), Image.Resampling.BILINEAR).crop((16, 16, 240, 240))
    expected = torch.from_numpy(np.array(whole)).permute(2, 0, 1)[None].double() / 255
    mean, std = (torch.tensor(part).view(-1, 1, 1) for part in (photos.mean, photos.std))
    torch.testing.assert_close(images[2:3].double(), (expected - mean) / std, rtol=0, atol=1e-5)


def test_training_images_are_parts_of_which_half_are_mirrored(tmp_path):
    """Red grows from left to right and green downwards, by one for each pixel."""
    ramps = np.zeros((SIZE, SIZE, 3), np.uint8)
    ramps[..., 0], ramps[..., 1] = np.arange(SIZE), np.arange(SIZE)[:, None]
    for split, count in (("train", 40), ("val", 1)):
        (tmp_path / split / "a").mkdir(parents=True)
        for number in range(count):
            Image.fromarray(ramps).save(tmp_path / split / "a" / f"{number}.png")
    photos = data.load("photos", tmp_path)
    ((images, _),) = photos.train_batches(40, seed=0, epoch=1)
    mean, std = (torch.tensor(part).view(-1, 1, 1) for part in (photos.mean, photos.std))
    red, green = (images * std + mean).mul(255 / SIZE)[:, :2].unbind(1)
    width = (red[:, :, -1] - red[:, :, 0]).mean(1)
    height = (green[:, -1] - green[:, 0]).mean(1)
    assert (height > 0).all()
    assert 10 <= (width < 0).sum() <= 30
    areas = (width * height).abs()
    assert 0.06 < areas.min() < 0.3
    assert 0.7 < areas.max() <= 1


@pytest.fixture(scope="module")
def run(folder, tmp_path_factory):
    """The folder of a run on the photographs that keeps its weights, and its row."""
    out = tmp_path_factory.mktemp("run")
    arguments = ("--model", "resnet_8", "--learned", "0.5", "--epochs", "2", "--batch-size", "3")
    result = call(
        train, *arguments, "--dataset", "photos", "--data-dir", folder, "--out", out, "--keep"
    )
    assert result.exit_code == 0, result.output
    return out, json.loads((out / "results.jsonl").read_text())


def test_a_run_is_stored_and_predicts(run, folder, tmp_path):
    out, row = run
    assert row["status"] == "done"
    assert row["measured"] == {"top5": 100.0}  # of two classes
    assert load_run(out).classes == ("bird", "car")
    table = tmp_path / "predictions.csv"
    result = call(predict, out, folder / "val", "--csv", table)
    assert result.exit_code == 0, result.output
    right = [line["predicted"] == line["class"] for line in csv.DictReader(table.open())]
    assert len(right) == 6
    assert 100 * sum(right) / 6 == pytest.approx(row["last_top1"])


def test_a_stopped_run_resumes(run, photos, tmp_path, monkeypatch):
    """After the second of three batches of an epoch."""
    out, row = run
    config = RunConfig.from_json(row["config"])
    with stopped_after(monkeypatch, 2):
        execute(config, photos, folder=tmp_path, checkpoint_seconds=0)
    again = execute(config, photos, folder=tmp_path)
    for epoch, its in zip(row["history"], again["history"], strict=True):
        assert {**epoch, "seconds": 0} == {**its, "seconds": 0}
    values, others = (load_file(one / row["weights"]) for one in (out, tmp_path))
    assert values.keys() == others.keys()
    assert all(torch.equal(value, others[name]) for name, value in values.items())


def test_accuracy(photos):
    outputs = torch.tensor([[1.0, 2.0], [3.0, 0.0]])
    assert int(photos.correct(outputs, torch.tensor([1, 1]))) == 1


def test_top5_of_more_classes(tmp_path):
    """Seven images, one of each class, are said to be most likely of the last five classes."""
    for split in ("train", "val"):
        for name in "abcdefg":
            (tmp_path / split / name).mkdir(parents=True)
            Image.new("RGB", (8, 8)).save(tmp_path / split / name / "0.png")

    class Rising(nn.Module):
        def forward(self, images):
            assert not self.training
            return torch.arange(7.0).expand(len(images), -1)

    photos = data.load("photos", tmp_path)
    assert photos.measure(Rising()) == {"top5": pytest.approx(100 * 5 / 7, abs=1e-6)}


def test_a_subset_of_the_training_images(folder):
    chosen = data.load("photos", folder, subset=2)
    assert (chosen.train_size, chosen.test_size) == (4, 6)
    assert "2 training images per class" in chosen.note
    smaller = data.load("photos", folder, subset=1)
    assert set(smaller.listing.train.paths) < set(chosen.listing.train.paths)


def test_a_damaged_file_is_named(tmp_path):
    for split in ("train", "val"):
        (tmp_path / split / "a").mkdir(parents=True)
        (tmp_path / split / "a" / "broken.jpg").write_bytes(b"no image")
    broken = data.load("photos", tmp_path)
    with pytest.raises(DataError, match=r"broken\.jpg cannot be read as an image"):
        list(broken.train_batches(1, seed=0, epoch=0))


def test_a_folder_is_needed():
    with pytest.raises(data.MissingDataError, match="'photos' needs one: add --data-dir"):
        data.load("photos")


def test_imagenet_needs_its_classes(folder):
    with pytest.raises(DataError, match=r"ImageNet has 1000 classes, but .* has 2"):
        data.load("imagenet", folder)


@given(width=st.integers(1, 500), height=st.integers(1, 500), seed=st.integers(0, 2**32 - 1))
def test_random_boxes_lie_within_the_image(width, height, seed):
    left, upper, right, lower = random_box((width, height), np.random.default_rng(seed))
    assert 0 <= left < right <= width
    assert 0 <= upper < lower <= height


def test_the_share_of_the_area():
    """Uniform between 8 and 100 % of a square, except for boxes that did not fit."""
    random = np.random.default_rng(0)
    boxes = np.array([random_box((400, 400), random) for _ in range(4000)])
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    areas = width * height / 400**2
    assert 0.078 < areas.min() < 0.1
    assert 0.95 < areas.max() <= 1.0
    ratios = width / height
    assert 0.74 < ratios.min() < 0.76
    assert 1.32 < ratios.max() < 1.35
    assert abs(np.log(ratios).mean()) < 0.02
