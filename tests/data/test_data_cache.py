"""The cache of decoded images: used if valid, otherwise rewritten with one line of output."""

from __future__ import annotations

import json
import os
import re

import numpy as np
import pytest
import torch
from image_files import write_folder, write_image
from PIL import Image

from maskedconv import data
from maskedconv.data import decode
from maskedconv.data.listing import list_image_folder


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("MASKEDCONV_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def cached_folder(tmp_path):
    root = write_folder(tmp_path / "images")
    data.load("folder", root)
    return root


def refuse_to_decode(paths):
    pytest.fail("decoded although the cache holds the images")


def test_second_load_comes_from_the_cache(cached_folder, monkeypatch, capsys):
    expected = data.load("folder", cached_folder)
    monkeypatch.setattr(decode, "decode_images", refuse_to_decode)
    capsys.readouterr()
    again = data.load("folder", cached_folder)
    assert torch.equal(again.train_images, expected.train_images)
    assert torch.equal(again.test_images, expected.test_images)
    assert capsys.readouterr() == ("", "")
    cache = decode.cache_file(cached_folder)
    assert list(cache.parent.iterdir()) == [cache]


def test_changed_image_is_read_again(cached_folder):
    path = cached_folder / "train" / "cat" / "0.png"
    before = path.stat()
    write_image(path, 99)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert (data.load("folder", cached_folder).train_images[0, :, 1:] == 99).all()


def test_images_of_swapped_class_folders_are_read_again(tmp_path):
    """Renamed folders keep the times of their files, which may be of one size."""
    root = tmp_path / "images"
    for split in ("train", "test"):
        for name, value in (("cat", 10), ("dog", 200)):
            (root / split / name).mkdir(parents=True)
            file = root / split / name / "0.bmp"
            Image.fromarray(np.full((8, 8, 3), value, np.uint8)).save(file)
            os.utime(file, (1e9, 1e9))
    assert data.load("folder", root).train_images[:, 0, 0, 0].tolist() == [10, 200]
    for old, new in (("cat", "other"), ("dog", "cat"), ("other", "dog")):
        (root / "train" / old).rename(root / "train" / new)
    assert data.load("folder", root).train_images[:, 0, 0, 0].tolist() == [200, 10]
    assert len(list(decode.cache_file(root).parent.iterdir())) == 1


def test_a_file_with_its_old_size_and_time_is_read_again(tmp_path):
    root = write_folder(tmp_path / "images", suffix=".bmp")
    data.load("folder", root)
    file = root / "train" / "cat" / "0.bmp"
    before = file.stat()
    write_image(file, 99)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (file.stat().st_size, file.stat().st_ino) == (before.st_size, before.st_ino)
    assert (data.load("folder", root).train_images[0, :, 1:] == 99).all()


def with_header(content, **changes):
    line, _, pixels = content.partition(b"\n")
    return json.dumps({**json.loads(line), **changes}).encode() + b"\n" + pixels


def flipped(content, place):
    content = bytearray(content)
    content[place] ^= 4
    return bytes(content)


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda c: c[:-50], "bytes and shape"),
        (lambda c: c + b"1", "bytes and shape"),
        (lambda c: b"?", "not valid JSON"),
        (lambda c: b"", "not valid JSON"),
        (lambda c: b"[" * 900 + c, "not valid JSON"),
        (lambda c: b"\xff" + c, "not valid JSON"),
        (lambda c: flipped(c, -1), "the pixels do not match their SHA-256"),
        (lambda c: flipped(c, len(c) // 2), "the pixels do not match their SHA-256"),
        # A wrong number of images: 16, as many as the file has bytes, or more than fit in memory.
        (lambda c: with_header(c, shape=[4, 3, 8, 8]), "expected 10 images"),
        (lambda c: with_header(c, shape=[4, 3, 20, 8]), "expected 10 images"),
        (lambda c: with_header(c, shape=[10, 3, 16, 4]), "the pixels do not match their SHA-256"),
        (lambda c: with_header(c, shape=[10, 3, 94_600, 94_600]), "bytes and shape"),
        (lambda c: with_header(c, shape=[10, 3, 2**62, 8]), "bytes and shape"),
        (lambda c: with_header(c, shape=[10, 192]), "shape is .*a list of 4"),
        (lambda c: with_header(c, shape=[10, 3, -8, -8]), r"shape\[2\] is -8"),
        (lambda c: with_header(c, shape="10"), "shape is '10'; expected a list"),
        (lambda c: with_header(c, format=1), "format is 1; expected 2"),
        (lambda c: with_header(c, sha256="0" * 64), "the pixels do not match their SHA-256"),
        (lambda c: b"{}\n" + c, "format is missing"),
    ],
)  # fmt: skip
def test_damaged_cache_is_reported_and_replaced(cached_folder, spoil, why, capsys, monkeypatch):
    cache = decode.cache_file(cached_folder)
    cache.write_bytes(spoil(cache.read_bytes()))
    capsys.readouterr()
    dataset = data.load("folder", cached_folder)
    assert (len(dataset.train_images), len(dataset.test_images)) == (6, 4)
    assert (dataset.train_images[-1, :, 1:] == 11).all()
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert len(lines) == 2
    assert re.search(rf"cache {cache} cannot be used \(.*{why}", lines[0])
    assert "decoding 10 images" in lines[1]
    monkeypatch.setattr(decode, "decode_images", refuse_to_decode)
    data.load("folder", cached_folder)


def test_every_flipped_byte_is_noticed(cached_folder, capsys):
    """Damages the header and some pixels byte by byte; wrong images are never returned."""
    cache = decode.cache_file(cached_folder)
    whole = cache.read_bytes()
    listing = list_image_folder(cached_folder)
    expected = decode.decode_listing(listing)
    for place in [*range(whole.index(b"\n") + 3), *range(-400, 0, 40)]:
        cache.write_bytes(flipped(whole, place))
        for images, right in zip(decode.decode_listing(listing), expected, strict=True):
            assert np.array_equal(images, right)
        assert cache.read_bytes() == whole
    capsys.readouterr()


def test_unwritable_cache_is_no_obstacle(tmp_path, monkeypatch, capsys):
    blocker = tmp_path / "file"
    blocker.write_text("")
    monkeypatch.setenv("MASKEDCONV_CACHE", str(blocker / "below"))
    root = write_folder(tmp_path / "images")
    assert len(data.load("folder", root).train_images) == 6
    assert "could not be cached" in capsys.readouterr().err


def test_full_disk_leaves_no_half_written_cache(tmp_path, monkeypatch, capsys):
    def fail(handle):
        raise OSError("no space left")

    root = write_folder(tmp_path / "images")
    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", fail)
        assert len(data.load("folder", root).train_images) == 6
    assert "no space left" in capsys.readouterr().err
    assert not list(decode.cache_file(root).parent.iterdir())
