"""Loading digits and image folders: results, errors and caching."""

from __future__ import annotations

import subprocess
import sys
import tarfile

import numpy as np
import pytest
import torch
from image_files import damage, write_folder, write_image
from PIL import Image

from maskedconv import data


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("MASKEDCONV_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="module")
def digits():
    return data.load("digits")


def test_names_and_checks_do_not_import_torch():
    code = (
        "import sys; from maskedconv import data; data.check('digits'); data.describe('cifar10');"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=600).returncode == 0


def test_digits_agree_with_their_description(digits):
    facts = data.describe("digits")
    assert digits.train_images.dtype == torch.uint8
    assert digits.train_labels.dtype == torch.int64
    assert tuple(digits.train_images.shape) == (facts.train_size, 1, 8, 8)
    assert tuple(digits.test_images.shape) == (facts.test_size, 1, 8, 8)
    assert digits.image_shape == (facts.channels, facts.image_size, facts.image_size)
    assert digits.num_classes == facts.num_classes == 10
    assert digits.train_labels.bincount().min() == facts.train_per_class
    assert digits.train_images.max() == 255
    assert digits.crop_padding == 1
    assert not digits.flip


@pytest.mark.parametrize(
    ("name", "padding", "flip"),
    [
        ("digits", 1, False),
        ("cifar10", 4, True),
        ("cifar100", 4, True),
        ("tiny-imagenet", 8, True),
        ("folder", None, True),
        ("mnist", 0, False),
        ("mnist5k", 2, False),
    ],
)
def test_augmentation_of_each_data_set(name, padding, flip):
    facts = data.describe(name)
    assert (facts.crop_padding, facts.flip) == (padding, flip)


def test_digits_are_split_by_class_without_overlap(digits):
    share = digits.test_labels.bincount() / (
        digits.train_labels.bincount() + digits.test_labels.bincount()
    )
    assert share.min() > 0.19
    assert share.max() < 0.21
    train = {image.numpy().tobytes() for image in digits.train_images}
    test = {image.numpy().tobytes() for image in digits.test_images}
    assert not train & test


def test_computed_statistics_normalise_the_training_set(digits):
    images = data.normalise(digits.train_images, digits.mean, digits.std)
    assert images.mean().item() == pytest.approx(0, abs=1e-5)
    assert images.std().item() == pytest.approx(1, abs=1e-4)


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(data.DataError, match=r"'svhn'.*digits, cifar10"):
        data.load("svhn")
    images = ["digits", "cifar10", "cifar100", "tiny-imagenet"]
    words = [f"number-words-{numbers}" for numbers in (1000, 10_000)]
    folders = ["imagenet", "photos", "folder"]
    assert data.available() == [*images, *words, *folders, "mnist", "mnist5k"]


def test_to_moves_every_tensor(digits):
    moved = digits.to("meta")
    tensors = [moved.train_images, moved.train_labels, moved.test_images, moved.test_labels]
    assert {tensor.device.type for tensor in tensors} == {"meta"}
    assert moved.device.type == "meta"


def test_subset_is_balanced_nested_and_seeded(digits):
    def images(subset, seed=0):
        part = data.load("digits", subset=subset, seed=seed)
        assert part.train_labels.bincount().tolist() == [subset] * 10
        assert torch.equal(part.test_images, digits.test_images)
        assert part.mean == digits.mean
        kept = iter(map(bytes, digits.train_images.numpy()))
        assert all(bytes(image) in kept for image in part.train_images.numpy())
        return [image.numpy().tobytes() for image in part.train_images]

    assert images(5) == images(5)
    assert set(images(5)) < set(images(20))
    assert set(images(5)) != set(images(5, seed=1))
    assert set(images(5)) < {image.numpy().tobytes() for image in digits.train_images}


@pytest.mark.parametrize(
    ("subset", "error", "message"),
    [
        (0, data.DataError, "subset is 0; expected at least 1 image per class"),
        (140, data.DataError, "140 images per class.*digits has 139"),
        (True, TypeError, "subset is True .*; expected an int"),
        (2.0, TypeError, "subset is 2.0 .float.; expected an int"),
    ],
)
def test_subset_is_checked(subset, error, message):
    with pytest.raises(error, match=message):
        data.check("digits", subset=subset)


def test_subset_larger_than_a_folders_smallest_class_names_it(tmp_path):
    root = write_folder(tmp_path)
    (root / "train" / "dog" / "0.png").unlink()
    with pytest.raises(data.DataError, match=r"3 images per class.*'dog'.*has 2"):
        data.check("folder", root, subset=3)


@pytest.mark.parametrize("test_name", ["test", "val"])
def test_folder_gives_pixels_and_labels(tmp_path, test_name):
    root = write_folder(tmp_path, ("cat", "dog", "eel"), test=test_name)
    (root / "train" / "cat" / ".hidden.png").write_bytes(b"")
    (root / "train" / "cat" / "Thumbs.db").write_bytes(b"")
    dataset = data.load("folder", str(root))
    assert dataset.classes == ("cat", "dog", "eel")
    assert dataset.train_labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert dataset.test_labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert dataset.image_shape == (3, 8, 8)
    for images, labels in (
        (dataset.train_images, dataset.train_labels),
        (dataset.test_images, dataset.test_labels),
    ):
        assert (images[:, :, 0] == 0).all()
        assert (images[:, :, 1:] == (10 * labels + 1)[:, None, None, None]).all()
    assert root.name in dataset.note


def test_grey_and_transparent_images_become_rgb(tmp_path):
    root = write_folder(tmp_path)
    write_image(root / "train" / "cat" / "0.png", 77, mode="L")
    write_image(root / "train" / "cat" / "1.png", 78, mode="RGBA")
    images = data.load("folder", root).train_images
    assert (images[0, :, 1:] == 77).all()
    assert (images[1, :, 1:] == 78).all()


def test_constant_images_do_not_divide_by_zero(tmp_path):
    root = write_folder(tmp_path)
    for path in root.rglob("*.png"):
        Image.new("RGB", (8, 8), (9, 9, 9)).save(path)
    dataset = data.load("folder", root)
    images, _ = next(data.test_batches(dataset, 4))
    assert torch.isfinite(images).all()


def remove_class_of_test(root):
    for path in (root / "test" / "dog").iterdir():
        path.unlink()
    (root / "test" / "dog").rmdir()


def empty_class(root):
    for path in (root / "train" / "dog").iterdir():
        path.unlink()


def wrong_size(root):
    write_image(root / "test" / "dog" / "1.png", 1, size=9)


def deep_image(root):
    Image.fromarray(np.full((8, 8), 40_000, np.uint16)).save(root / "train" / "dog" / "1.png")


def oblong_images(root):
    for path in root.rglob("*.png"):
        Image.new("RGB", (8, 6)).save(path)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (remove_class_of_test, "class 'dog'.*missing in.*test"),
        (lambda root: write_image(root / "test/eel/0.png", 1), "class 'eel'.*missing in.*train"),
        (empty_class, "train/dog holds no images"),
        (wrong_size, "test/dog/1.png has 9×9 pixels, but .*train/cat/0.png has 8×8"),
        (lambda root: damage(root / "train/dog/1.png", 45), "train/dog/1.png cannot be read as"),
        (lambda root: damage(root / "train/dog/1.png", 0), "train/dog/1.png cannot be read as"),
        (lambda root: (root / "train/dog/3.png").symlink_to("none"), "3.png cannot be read"),
        (deep_image, "train/dog/1.png has pixels of mode I;16"),
        (oblong_images, "0.png has 8×6 pixels.*square"),
    ],
)
def test_bad_folder_is_refused_by_file(tmp_path, spoil, message):
    root = write_folder(tmp_path)
    spoil(root)
    with pytest.raises(data.DataError, match=message):
        data.load("folder", root)


def test_truncated_jpeg_is_named(tmp_path):
    root = write_folder(tmp_path, size=32, suffix=".jpg")
    path = root / "train" / "dog" / "2.jpg"
    damage(path, path.stat().st_size - 40)
    with pytest.raises(data.DataError, match=r"(?i)train/dog/2\.jpg cannot be read.*truncated"):
        data.load("folder", root)


def test_missing_and_empty_folders_are_refused(tmp_path):
    with pytest.raises(data.MissingDataError, match="nowhere"):
        data.check("folder", tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="no train/ in it"):
        data.check("folder", tmp_path)
    with pytest.raises(data.MissingDataError, match="--data-dir"):
        data.check("folder")
    (tmp_path / "train").mkdir()
    with pytest.raises(data.DataError, match=r"expected train/ and test/"):
        data.check("folder", tmp_path)
    (tmp_path / "test").mkdir()
    with pytest.raises(data.DataError, match="no class folders"):
        data.check("folder", tmp_path)


def test_arguments_that_make_no_sense_are_refused(tmp_path):
    with pytest.raises(data.DataError, match="digits come with scikit-learn"):
        data.check("digits", tmp_path)
    with pytest.raises(data.DataError, match="only cifar10, cifar100 and mnist can be fetched"):
        data.check("tiny-imagenet", tmp_path, download=True)
    with pytest.raises(TypeError, match=r"data_dir is .* \(int\); expected a path"):
        data.check("cifar10", 3)


def test_archive_given_as_folder_says_how_to_unpack_it(tmp_path):
    archive = tmp_path / "images.tar.xz"
    with tarfile.open(archive, "w:xz") as tar:
        tar.add(write_folder(tmp_path / "images"))
    with pytest.raises(data.DataError, match=r"tar -xf .*images\.tar\.xz"):
        data.check("folder", archive)
    damage(archive, 20)
    with pytest.raises(data.DataError, match=r"images\.tar\.xz is a damaged or truncated archive"):
        data.check("folder", archive)


def test_mnist5k_agrees_with_its_description():
    images, facts = data.load("mnist5k"), data.describe("mnist5k")
    assert tuple(images.train_images.shape) == (facts.train_size, 1, 28, 28)
    assert tuple(images.test_images.shape) == (facts.test_size, 1, 28, 28)
    assert images.train_labels.bincount().tolist() == [facts.train_per_class] * 10
    assert images.train_images.max() == 255
    # MNIST's digits are a fifth of the image, so the mean is small; it is that of the data.
    assert images.mean == pytest.approx((images.train_images.double().mean().item() / 255,))
    assert not images.flip
    assert len(data.load("mnist5k", subset=3).train_labels) == 30


def test_a_package_that_is_missing(monkeypatch):
    monkeypatch.setattr("maskedconv.data.sources.find_spec", lambda module: None)
    with pytest.raises(data.MissingDataError, match=r"pip install 'maskedconv\[mnist5k\]'"):
        data.check("mnist5k")
