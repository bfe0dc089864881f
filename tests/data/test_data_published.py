"""CIFAR and Tiny-ImageNet in their published layouts, intact and damaged."""

from __future__ import annotations

import hashlib
import os
import pickle
import tarfile
import unicodedata
import urllib.error
from pathlib import Path

import numpy as np
import pytest
from image_files import damage, write_folder, write_image

from maskedconv import data
from maskedconv.data.catalogue import JPEG_COPY
from maskedconv.data.listing import list_tiny_imagenet

CIFAR_CLASSES = [
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("MASKEDCONV_CACHE", str(tmp_path_factory.mktemp("cache")))


def test_cifar_from_jpegs_says_so(tmp_path):
    root = write_folder(tmp_path, CIFAR_CLASSES, size=32, suffix=".jpg")
    dataset = data.load("cifar10", root)
    assert dataset.classes == tuple(CIFAR_CLASSES)
    assert dataset.mean == (0.4914, 0.4822, 0.4465)
    assert dataset.std == (0.2023, 0.1994, 0.2010)
    assert (dataset.crop_padding, dataset.flip) == (4, True)
    assert f"CIFAR-10 {JPEG_COPY}" in dataset.note
    assert "30 of 50,000 training images" in dataset.note


def test_cifar_folder_must_have_its_classes_and_size(tmp_path):
    nine = write_folder(tmp_path / "nine", CIFAR_CLASSES[:9], size=32)
    with pytest.raises(data.DataError, match=r"CIFAR-10 has 10 classes, but .*nine has 9"):
        data.check("cifar10", nine)
    small = write_folder(tmp_path / "small", CIFAR_CLASSES, size=16)
    with pytest.raises(data.DataError, match=r"0\.png has 16×16 pixels; CIFAR-10 needs 32×32"):
        data.load("cifar10", small)


def test_missing_cifar_gives_the_command_that_fetches_it(tmp_path):
    place = tmp_path / "no such place"
    with pytest.raises(
        FileNotFoundError,
        match=f"maskedconv.reproduce --dataset cifar100 --download --data-dir '{place}'",
    ):
        data.check("cifar100", place)
    with pytest.raises(data.MissingDataError, match=r"no cifar-10-batches-py, .* or train/ in it"):
        data.check("cifar10", tmp_path)


def write_arrays(root: Path, monkeypatch) -> Path:
    """CIFAR-10's published layout, four images a file, with checksums that torchvision accepts.

    The n-th image has the value n at channel 2, row 5, column 7; the test images start at 100.
    """
    from torchvision.datasets import CIFAR10

    folder = root / CIFAR10.base_folder
    folder.mkdir(parents=True)

    def write(name, content):
        raw = pickle.dumps(content)
        (folder / name).write_bytes(raw)
        return [name, hashlib.md5(raw).hexdigest()]

    def write_batch(name, first):
        pixels = np.full((4, 3, 32, 32), 200, np.uint8)
        pixels[:, 2, 5, 7] = range(first, first + 4)
        pixels = pixels.reshape(4, 3072)
        return write(name, {"data": pixels, "labels": [first % 10] * 4})

    train = [write_batch(f"data_batch_{number}", 4 * (number - 1)) for number in range(1, 6)]
    name, md5 = write("batches.meta", {"label_names": CIFAR_CLASSES})
    monkeypatch.setattr(CIFAR10, "train_list", train)
    monkeypatch.setattr(CIFAR10, "test_list", [write_batch("test_batch", 100)])
    monkeypatch.setattr(CIFAR10, "meta", {"filename": name, "key": "label_names", "md5": md5})
    return root


def test_cifar_arrays(tmp_path, monkeypatch):
    root = write_arrays(tmp_path, monkeypatch)
    data.check("cifar10", root)
    for download in (False, True):
        dataset = data.load("cifar10", root, download=download)
        assert dataset.train_images[:, 2, 5, 7].tolist() == list(range(20))
        assert dataset.train_labels.tolist() == [0] * 4 + [4] * 4 + [8] * 4 + [2] * 4 + [6] * 4
        assert dataset.test_images[:, 2, 5, 7].tolist() == [100, 101, 102, 103]
        assert dataset.classes == tuple(CIFAR_CLASSES)
        assert dataset.note == "CIFAR-10"


def test_damaged_cifar_arrays_are_named(tmp_path, monkeypatch):
    root = write_arrays(tmp_path, monkeypatch)
    batch = damage(root / "cifar-10-batches-py" / "data_batch_3")
    with pytest.raises(data.DataError, match=r"data_batch_3 is truncated or damaged.*--download"):
        data.load("cifar10", root)
    batch.unlink()
    with pytest.raises(data.MissingDataError, match="data_batch_3 is missing"):
        data.check("cifar10", root)


def test_cifar_archive_is_unpacked_or_refused(tmp_path, monkeypatch, capsys):
    from torchvision.datasets import CIFAR10

    made = write_arrays(tmp_path / "made", monkeypatch)
    archive = tmp_path / "cifar-10-python.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(made / "cifar-10-batches-py", "cifar-10-batches-py")
    monkeypatch.setattr(CIFAR10, "tgz_md5", hashlib.md5(archive.read_bytes()).hexdigest())
    whole = archive.read_bytes()

    damage(archive, len(whole) // 2)
    with pytest.raises(data.DataError, match=r"cifar-10-python\.tar\.gz is truncated"):
        data.load("cifar10", tmp_path)
    archive.write_bytes(whole)
    assert len(data.load("cifar10", tmp_path).train_images) == 20
    assert capsys.readouterr().out == ""


def test_failed_download_is_a_data_error(tmp_path, monkeypatch, capsys):
    from torchvision.datasets import CIFAR10

    def fail(self):
        print("Downloading")
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(CIFAR10, "download", fail)
    with pytest.raises(data.MissingDataError, match=r"CIFAR-10 could not be fetched.*no network"):
        data.load("cifar10", tmp_path, download=True)
    assert capsys.readouterr() == ("", "Downloading\n")


def write_tiny(root: Path, num_classes=200) -> Path:
    """Tiny-ImageNet's layout: two training images and one validation image of each class."""
    wnids = [f"n{9999 - number:08d}" for number in range(num_classes)]
    lines = []
    for number, wnid in enumerate(wnids):
        mode = "L" if number == 0 else "RGB"
        for index in range(2):
            path = root / "train" / wnid / "images" / f"{wnid}_{index}.JPEG"
            write_image(path, number, 64, mode)
        write_image(root / "val" / "images" / f"val_{number}.JPEG", number, 64)
        lines.append(f"val_{number}.JPEG\t{wnid}\t0\t0\t63\t63\n")
    (root / "val" / "val_annotations.txt").write_text("".join(lines))
    (root / "wnids.txt").write_text("\n".join(wnids) + "\n")
    return root


@pytest.fixture(scope="module")
def tiny_folder(tmp_path_factory):
    return write_tiny(tmp_path_factory.mktemp("tiny"))


def test_tiny_imagenet(tiny_folder):
    dataset = data.load("tiny-imagenet", tiny_folder)
    assert tuple(dataset.train_images.shape) == (400, 3, 64, 64)
    assert dataset.num_classes == 200
    assert dataset.train_labels.tolist() == [label for label in range(200) for _ in range(2)]
    assert dataset.classes[0] == "n00009999"
    # JPEG preserves uniform areas to within a few grey levels.
    for images, labels in (
        (dataset.train_images, dataset.train_labels),
        (dataset.test_images, dataset.test_labels),
    ):
        middle = images[:, :, 32:, 32:].float().mean((1, 2, 3))
        assert (middle - labels).abs().max() < 3
    assert "400 of 100,000 training images; 200 of 10,000 test images" in dataset.note


@pytest.fixture
def spoilt_tiny(tmp_path, tiny_folder):
    """A copy to be damaged: links to the images, and its own lists."""
    for path in tiny_folder.rglob("*"):
        place = tmp_path / path.relative_to(tiny_folder)
        if path.is_dir():
            place.mkdir()
        elif path.suffix == ".txt":
            place.write_text(path.read_text())
        else:
            os.link(path, place)
    return tmp_path


def drop_line(path: Path, number: int) -> None:
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:number] + lines[number + 1 :]))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda root: drop_line(root / "wnids.txt", 0), "n00009999 is not in .*wnids.txt"),
        (lambda root: (root / "train/n00009999").rename(root / "x"), "n00009999.*has no folder"),
        (lambda root: (root / "wnids.txt").unlink(), "wnids.txt is missing"),
        (lambda root: (root / "val/val_annotations.txt").unlink(), "annotations.txt is missing"),
        (lambda root: drop_line(root / "val/val_annotations.txt", 7), "val_7.JPEG has no line"),
        (lambda root: (root / "val/images/val_7.JPEG").unlink(), "val_7.JPEG is in .*missing"),
        (
            lambda root: (root / "val/val_annotations.txt").write_text("val_0.JPEG n1\n"),
            "val_annotations.txt, line 1: expected",
        ),
    ],
)
def test_bad_tiny_imagenet_is_refused_by_file(spoilt_tiny, spoil, message):
    spoil(spoilt_tiny)
    with pytest.raises(data.DataError, match=message):
        data.check("tiny-imagenet", spoilt_tiny)


def test_tiny_imagenet_has_200_classes(tmp_path):
    root = write_tiny(tmp_path, num_classes=3)
    with pytest.raises(data.DataError, match=r"has 200 classes, but .* has 3"):
        data.check("tiny-imagenet", root)


@pytest.mark.parametrize("name", ["cifar-10-batches-py", "renamed"])
def test_the_folder_of_the_arrays_itself(tmp_path, monkeypatch, name):
    """--data-dir may be the folder of the batches, with any name, or its parent."""
    folder = write_arrays(tmp_path, monkeypatch) / "cifar-10-batches-py"
    folder = folder.rename(tmp_path / name)
    monkeypatch.chdir(folder)
    for root in (folder, "."):
        data.check("cifar10", root)
        dataset = data.load("cifar10", root)
        assert dataset.train_images[:, 2, 5, 7].tolist() == list(range(20))
    (folder / "data_batch_3").unlink()
    with pytest.raises(data.MissingDataError, match=rf"{name}/data_batch_3 is missing"):
        data.check("cifar10", folder)


def test_the_folder_of_cifar100_itself(tmp_path):
    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    (folder / "train").write_bytes(b"")
    with pytest.raises(data.MissingDataError, match="cifar-100-python/test is missing"):
        data.check("cifar100", folder)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_byte_order_marks_in_lists(spoilt_tiny, encoding):
    expected = list_tiny_imagenet(spoilt_tiny)
    for path in (spoilt_tiny / "wnids.txt", spoilt_tiny / "val/val_annotations.txt"):
        path.write_bytes(path.read_text().replace("\n", "\r\n").encode(encoding))
    assert list_tiny_imagenet(spoilt_tiny) == expected


def test_unicode_forms_in_lists(tmp_path):
    composed, decomposed = (unicodedata.normalize(form, "né") for form in ("NFC", "NFD"))
    write_image(tmp_path / "train" / decomposed / "images" / "0.JPEG", 1)
    write_image(tmp_path / "val" / "images" / f"{decomposed}.JPEG", 1)
    (tmp_path / "wnids.txt").write_text(composed)
    (tmp_path / "val" / "val_annotations.txt").write_text(f"{composed}.JPEG\t{decomposed}\n")
    listing = list_tiny_imagenet(tmp_path)
    assert listing.classes == (composed,)
    assert [path.is_file() for path in (*listing.train.paths, *listing.test.paths)] == [True] * 2


def test_a_file_of_two_classes_is_refused(spoilt_tiny):
    path = spoilt_tiny / "val/val_annotations.txt"
    path.write_text(path.read_text() + "val_0.JPEG\tn00009998\t0\t0\t63\t63\n")
    with pytest.raises(data.DataError, match=r"line 201: val_0.JPEG had another class before"):
        data.check("tiny-imagenet", spoilt_tiny)
