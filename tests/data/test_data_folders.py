"""Contents of data folders: every image is read, and ignored files are reported."""

from __future__ import annotations

import os
import unicodedata

import numpy as np
import pytest
from image_files import write_folder, write_image
from PIL import Image

from maskedconv import data
from maskedconv.data.listing import list_image_folder

COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("MASKEDCONV_CACHE", str(tmp_path_factory.mktemp("cache")))


def test_tiff_beside_png_is_read(tmp_path, capsys):
    """Ten PNG and five TIFF files give 15 images and no message."""
    root = write_folder(tmp_path)
    for number, suffix in enumerate((".tif", ".tiff", ".TIF", ".TIFF", ".JPG")):
        write_image(root / "train" / "dog" / f"more{number}{suffix}", 99)
    dataset = data.load("folder", root)
    assert len(dataset.train_images) + len(dataset.test_images) == 15
    assert (dataset.train_images[6:10, :, 1:] == 99).all()
    assert "ignored in" not in capsys.readouterr().err


def test_what_is_passed_over_is_said_once(tmp_path, capsys):
    root = write_folder(tmp_path)
    cat = root / "train" / "cat"
    for name in ("a.txt", "b.txt", "c.TXT", "x.heic", "README", "._0.png", ".DS_Store"):
        (cat / name).write_bytes(b"?")
    write_image(cat / "more" / "0.png", 1)
    write_image(root / "train" / "loose.png", 1)
    write_image(root / "val" / "cat" / "0.png", 1)
    (cat / "loop").symlink_to(root / "train")
    (cat / "self").symlink_to("self")
    os.mkfifo(cat / "pipe.png")
    for _ in range(2):
        assert len(data.load("folder", root).train_images) == 6
    said = [line for line in capsys.readouterr().err.splitlines() if "ignored in" in line]
    assert len(said) == 1
    for part in (
        "3 .txt (train/cat/a.txt, train/cat/b.txt, …)",
        "1 .heic (train/cat/x.heic)",
        "2 without a suffix (train/cat/README, train/cat/self)",
        "2 hidden (train/cat/.DS_Store, train/cat/._0.png)",
        "2 folders in class folders (train/cat/loop, train/cat/more)",
        "1 outside the class folders (train/loose.png)",
        "1 special files (train/cat/pipe.png)",
        "1 beside test (val)",
    ):
        assert part in said[0]


def test_links_that_lead_to_themselves_are_named(tmp_path):
    root = write_folder(tmp_path)
    (root / "train" / "cat" / "9.png").symlink_to("9.png")
    with pytest.raises(data.DataError, match=r"9\.png cannot be read"):
        data.load("folder", root)


def test_linked_classes_are_read(tmp_path):
    root = write_folder(tmp_path / "images")
    (root / "train" / "cat").rename(tmp_path / "elsewhere")
    (root / "train" / "cat").symlink_to(tmp_path / "elsewhere")
    (root / "train" / "loop").symlink_to("loop")
    assert data.load("folder", root).train_labels.tolist() == [0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize("forms", [(COMPOSED, DECOMPOSED), (DECOMPOSED, COMPOSED)])
def test_unicode_forms_of_a_class_are_one(tmp_path, forms):
    root = write_folder(tmp_path, ("zebra", "x"))
    for split, name in zip(("train", "test"), forms, strict=True):
        (root / split / "x").rename(root / split / name)
    dataset = data.load("folder", root)
    assert dataset.classes == (COMPOSED, "zebra")
    assert dataset.train_labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert (dataset.train_images[:3, :, 1:] == 11).all()
    assert (dataset.test_images[:2, :, 1:] == 11).all()


def test_two_forms_of_one_class_are_refused(tmp_path):
    root = write_folder(tmp_path, (COMPOSED, DECOMPOSED))
    with pytest.raises(data.DataError, match=r"two folders 'café'.*\('caf.*\\.* and 'caf.*\\.*'\)"):
        list_image_folder(root)


def test_a_hidden_class_is_none(tmp_path):
    root = write_folder(tmp_path)
    (root / "train" / ".ipynb_checkpoints").mkdir()
    assert data.load("folder", root).classes == ("cat", "dog")


def first_image(tmp_path, save):
    """The first training image of a folder, [3, 8, 8], written by ``save``."""
    root = write_folder(tmp_path)
    path = root / "train" / "cat" / "0.png"
    path.unlink()
    save(path)
    return data.load("folder", root).train_images[0].numpy()


PIXELS = np.arange(8 * 8 * 3, dtype=np.uint8).reshape(8, 8, 3)
PICTURE = Image.fromarray(PIXELS)


def as_grey(picture):
    return np.asarray(picture.convert("L"))


@pytest.mark.parametrize(
    ("name", "picture", "expected"),
    [
        ("0.png", PICTURE, PIXELS),
        ("0.tif", PICTURE, PIXELS),
        ("0.png", PICTURE.convert("L"), as_grey(PICTURE)[..., None].repeat(3, 2)),
        ("0.png", PICTURE.convert("LA"), as_grey(PICTURE)[..., None].repeat(3, 2)),
        ("0.tif", PICTURE.convert("RGBA"), PIXELS),
        ("0.gif", PICTURE.quantize(256), PIXELS),
        ("0.png", PICTURE.quantize(256), PIXELS),
        ("0.bmp", PICTURE, PIXELS),
        ("0.pbm", Image.new("1", (8, 8), 1), np.full((8, 8, 3), 255)),
    ],
)
def test_modes_become_rgb(tmp_path, name, picture, expected):
    image = first_image(tmp_path, lambda path: picture.save(path.with_name(name)))
    assert np.array_equal(image.transpose(1, 2, 0), expected)


def test_the_first_frame_of_an_animation_is_used_and_said(tmp_path, capsys):
    def save(path):
        frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
        frames[0].save(path.with_suffix(".tiff"), save_all=True, append_images=frames[1:])

    assert first_image(tmp_path, save)[:, 0, 0].tolist() == [255, 0, 0]
    assert "1 images have several frames: the first of each is used (such as" in (
        capsys.readouterr().err
    )


def test_exif_orientation_is_followed_and_said(tmp_path, capsys):
    def save(path):
        exif = Image.Exif()
        exif[0x0112] = 3
        PICTURE.save(path, exif=exif)

    assert np.array_equal(first_image(tmp_path, save).transpose(1, 2, 0), PIXELS[::-1, ::-1])
    assert "1 images are turned as their EXIF orientation says" in capsys.readouterr().err


@pytest.mark.parametrize("mode", ["I;16", "I", "F"])
def test_grey_values_of_more_than_8_bits_are_refused(tmp_path, mode):
    values = np.full((8, 8), 40_000, np.uint16)

    def save(path):
        kind = {"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode]
        Image.fromarray(values.astype(kind)).save(path.with_suffix(".tif"))

    with pytest.raises(data.DataError, match=rf"0\.tif has pixels of mode {mode}"):
        first_image(tmp_path, save)
