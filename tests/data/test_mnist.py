"""MNIST in torchvision's files, of a few generated images."""

from __future__ import annotations

import errno
import gzip
import hashlib
import struct

import numpy as np
import pytest
import torch

from maskedconv import data
from maskedconv.data import DataError, MissingDataError, mnist

COUNTS = {"train": 30, "t10k": 20}


@pytest.fixture(autouse=True)
def _few_images(monkeypatch):
    monkeypatch.setattr(mnist, "_SPLITS", tuple(COUNTS.items()))


def write(root, counts=COUNTS):
    folder = root / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for seed, (split, count) in enumerate(counts.items()):
        random = np.random.default_rng(seed)
        pixels = random.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        head = struct.pack(">iiii", 2051, count, 28, 28)
        (folder / f"{split}-images-idx3-ubyte").write_bytes(head + pixels.tobytes())
        head = struct.pack(">ii", 2049, count)
        (folder / f"{split}-labels-idx1-ubyte").write_bytes(head + labels.tobytes())
    return folder


def test_images_and_labels(tmp_path):
    folder = write(tmp_path)
    dataset = data.load("mnist", tmp_path)
    assert dataset.image_shape == (1, 28, 28)
    assert (dataset.train_size, dataset.test_size) == (30, 20)
    assert dataset.test_labels.tolist() == [*range(10), *range(10)]
    written = (folder / "t10k-images-idx3-ubyte").read_bytes()[16:]
    assert dataset.test_images.numpy().tobytes() == written
    assert (dataset.crop_padding, dataset.flip) == (0, False)


def test_training_images_are_not_augmented(tmp_path):
    write(tmp_path)
    dataset = data.load("mnist", tmp_path)
    images, labels = next(dataset.train_batches(30, seed=0, epoch=1))
    plain = data.normalise(dataset.train_images, dataset.mean, dataset.std)
    found = {hashlib.sha1(image.contiguous().numpy().tobytes()).hexdigest() for image in images}
    expected = {hashlib.sha1(image.contiguous().numpy().tobytes()).hexdigest() for image in plain}
    assert found == expected
    assert torch.equal(labels.bincount(), torch.full((10,), 3))


@pytest.mark.parametrize("place", [".", "MNIST", "MNIST/raw"])
def test_the_folder_itself_or_one_above_may_be_given(place, tmp_path):
    write(tmp_path)
    assert data.load("mnist", tmp_path / place).train_size == 30


@pytest.mark.parametrize(
    ("here", "given"),
    [("MNIST/raw", "."), ("MNIST", "raw"), ("MNIST", "."), ("MNIST/raw", ".."), ("MNIST", "..")],
)
def test_a_relative_path_may_be_given(here, given, tmp_path, monkeypatch):
    write(tmp_path)
    monkeypatch.chdir(tmp_path / here)
    assert data.load("mnist", given).train_size == 30


@pytest.mark.parametrize("place", [".", "MNIST", "MNIST/raw"])
def test_a_link_may_be_given_or_be_a_part(place, tmp_path):
    write(tmp_path / "images")
    (tmp_path / "link").symlink_to(tmp_path / "images" / place)
    assert data.load("mnist", tmp_path / "link").train_size == 30
    linked = tmp_path / "linked" / place
    linked.parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "images" / place).rename(tmp_path / "moved")
    linked.symlink_to(tmp_path / "moved")
    assert data.load("mnist", linked).train_size == 30


def test_a_folder_of_that_name_may_be_above(tmp_path):
    write(tmp_path / "MNIST")
    assert data.load("mnist", tmp_path / "MNIST").train_size == 30


def test_a_subset(tmp_path):
    write(tmp_path)
    assert data.load("mnist", tmp_path, subset=2).train_size == 20


def test_a_missing_file_is_named(tmp_path):
    (write(tmp_path) / "t10k-labels-idx1-ubyte").unlink()
    words = "t10k-labels-idx1-ubyte is missing; fetch the dataset again: .*--dataset mnist --down"
    with pytest.raises(MissingDataError, match=words):
        data.check("mnist", tmp_path)


def test_no_files_name_the_command(tmp_path):
    with pytest.raises(MissingDataError, match=r"no MNIST/raw in it; fetch it \(12 MB\) with: .*"):
        data.check("mnist", tmp_path)
    data.check("mnist", tmp_path, download=True)


@pytest.mark.parametrize("damage", ["empty", "short", "another number", "compressed", "text"])
@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
def test_a_damaged_file_is_named(name, damage, tmp_path):
    folder = write(tmp_path)
    file, content = folder / name, (folder / name).read_bytes()
    if damage == "another number":
        write(tmp_path / "other", {split: count + 10 for split, count in COUNTS.items()})
        content = (tmp_path / "other" / "MNIST" / "raw" / name).read_bytes()
    changed = {"empty": b"", "short": content[:-3], "text": b"not these bytes at all " * 9}
    file.write_bytes(
        gzip.compress(content) if damage == "compressed" else changed.get(damage, content)
    )
    with pytest.raises(DataError, match=f"{name}.*; fetch it again with: .* --download"):
        data.load("mnist", tmp_path)


def interrupt(folder, name, left):
    """Leaves the files of a download that ended within this one: the later ones are missing."""
    (folder / name).write_bytes((folder / name).read_bytes()[:left])
    names = [file.name for file in mnist._files(folder.parents[1])]
    for later in names[names.index(name) + 1 :]:
        (folder / later).unlink()


@pytest.mark.parametrize("given", [".", "MNIST/raw"])
@pytest.mark.parametrize(
    ("name", "left"),
    [("train-images-idx3-ubyte", 1), ("t10k-images-idx3-ubyte", 0), ("t10k-labels-idx1-ubyte", 9)],
)
def test_fetching_repairs_an_interrupted_download(name, left, given, tmp_path, monkeypatch):
    import torchvision.datasets

    expected = {
        file.name: file.read_bytes() for file in sorted(write(tmp_path / "whole").iterdir())
    }
    folder = write(tmp_path / "part")
    interrupt(folder, name, left)
    kept = {file.name for file in folder.iterdir()} - {name}
    seen = []

    def fetched(root, download):
        """Acts as torchvision, which takes existing files for complete."""
        assert root == str(tmp_path / "part")
        seen.append({file.name for file in folder.iterdir() if file.suffix != ".damaged"})
        for file, content in expected.items():
            if not (folder / file).exists():
                (folder / file).write_bytes(content)

    monkeypatch.setattr(torchvision.datasets, "MNIST", fetched)
    place = tmp_path / "part" / given
    data.check("mnist", place, download=True)
    assert data.load("mnist", place, download=True).test_size == 20
    assert seen == [kept]
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == expected
    data.load("mnist", place, download=True)
    assert len(seen) == 1


@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
def test_a_file_that_cannot_be_read_is_kept(name, tmp_path, monkeypatch):
    """An error of the disk, behind a damaged file, says nothing about the content."""
    import torchvision.datasets.mnist

    folder = write(tmp_path)
    (folder / "train-images-idx3-ubyte").write_bytes(b"")
    before = {file.name: file.read_bytes() for file in folder.iterdir()}

    def reads(kind):
        read = getattr(torchvision.datasets.mnist, kind)

        def failing(file):
            if file.endswith(name):
                raise OSError(errno.EIO, "Input/output error")
            return read(file)

        return failing

    for kind in ("read_image_file", "read_label_file"):
        monkeypatch.setattr(torchvision.datasets.mnist, kind, reads(kind))
    monkeypatch.setattr(torchvision.datasets, "MNIST", lambda *_, **__: pytest.fail("fetched"))
    with pytest.raises(OSError, match=f"Input/output error: .*{name}"):
        data.load("mnist", tmp_path, download=True)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


@pytest.mark.parametrize(
    "error", [RuntimeError("no route"), KeyboardInterrupt()], ids=["net", "stop"]
)
def test_a_damaged_file_is_kept_until_the_new_one_is_there(error, tmp_path, monkeypatch):
    """Two files are damaged, and the download ends within the second one."""
    import torchvision.datasets

    folder = write(tmp_path)
    whole = {file.name: file.read_bytes() for file in folder.iterdir()}
    first, second = "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte"
    for name in (first, second):
        (folder / name).write_bytes(b"some of it")

    def interrupted(root, download):
        (folder / first).write_bytes(whole[first])
        (folder / second).write_bytes(b"less")
        raise error

    monkeypatch.setattr(torchvision.datasets, "MNIST", interrupted)
    with pytest.raises((MissingDataError, KeyboardInterrupt)):
        data.load("mnist", tmp_path, download=True)
    found = {file.name: file.read_bytes() for file in folder.iterdir()}
    assert found == whole | {second: b"some of it"}


def test_fetching_goes_through_torchvision(tmp_path, monkeypatch):
    import torchvision.datasets

    def fetched(root, download):
        assert download
        write(tmp_path)

    monkeypatch.setattr(torchvision.datasets, "MNIST", fetched)
    assert data.load("mnist", tmp_path, download=True).test_size == 20

    def refused(root, download):
        raise RuntimeError("no route")

    monkeypatch.setattr(torchvision.datasets, "MNIST", refused)
    with pytest.raises(MissingDataError, match=r"could not be fetched into .*: no route"):
        data.load("mnist", tmp_path / "elsewhere", download=True)
