"""load_run: a stored network with its preprocessing, class names and configuration; predictions."""

from __future__ import annotations

import csv
import errno
import json
import os
import shutil

import numpy as np
import pytest
import torch
from commands import call
from PIL import Image

import maskedconv
from maskedconv import predict, report, train
from maskedconv.checkpoint import read_notes, save
from maskedconv.cli import predictions
from maskedconv.data import load
from maskedconv.data.preprocessing import Preprocessing

ARGUMENTS = ("--model", "wrn_10_1", "--learned", "1", "--epochs", "2", "--subset", "5")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with one stored run on digits; the images are 8×8 and grey."""
    out = tmp_path_factory.mktemp("run")
    result = call(train, *ARGUMENTS, "--test-subset", "4", "--out", out, "--keep")
    assert result.exit_code == 0, result.output
    return out


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Test images as PNG files, a folder for each class."""
    root, digits = tmp_path_factory.mktemp("images"), load("digits").take_test(2, 0)
    for index, (image, label) in enumerate(
        zip(digits.test_images, digits.test_labels, strict=True)
    ):
        path = root / digits.classes[int(label)] / f"{index:02}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(image[0].numpy()).save(path)
    return root


def row_of(folder):
    (row,) = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    return row


def test_the_network_predicts_as_after_its_training(folder):
    run = maskedconv.load_run(folder)
    digits = load("digits").take_test(4, 0)
    assert run.classes == digits.classes
    assert (run.config.epochs, run.config.test_subset, run.config.lr) == (2, 4, 0.1)
    assert not run.network.training
    files = [Image.fromarray(image[0].numpy()) for image in digits.test_images]
    inputs = torch.stack([run.preprocessing(file) for file in files])
    with torch.no_grad():
        right = run.network(inputs).argmax(1) == digits.test_labels
    row = row_of(folder)
    assert 100 * right.double().mean().item() == pytest.approx(row["last_top1"])
    matrix = torch.tensor(row["confusion"])
    assert matrix.sum(1).tolist() == [4] * 10
    assert matrix.diagonal().sum() == right.sum()
    key = row["key"]
    file = folder / "weights" / f"{key}.safetensors"
    for same in (maskedconv.load_run(folder, key[:12]), maskedconv.load_run(file)):
        assert torch.equal(same.network(inputs), run.network(inputs))


@pytest.mark.parametrize(
    ("key", "error", "words"),
    [("nothing", FileNotFoundError, "key is 'nothing', and it stores [0-9a-f]+"), ("", None, "")],
)
def test_a_key_without_weights_is_named(folder, key, error, words):
    if error is None:
        assert maskedconv.load_run(folder, key).classes
        return
    with pytest.raises(error, match=words):
        maskedconv.load_run(folder, key)


def test_files_without_a_run_are_refused(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="it stores none"):
        maskedconv.load_run(tmp_path)
    path = tmp_path / "other.safetensors"
    save(torch.nn.Linear(2, 2), path)
    with pytest.raises(ValueError, match="does not say how the network was trained"):
        maskedconv.load_run(path)
    (file,) = (folder / "weights").iterdir()
    notes = dict(read_notes(file))
    for name, value in (("classes", 3), ("run", {**notes["run"], "lr": -1.0})):
        save(torch.nn.Linear(2, 2), path, notes={**notes, name: value})
        with pytest.raises(ValueError, match=f"other.safetensors, notes: {name}"):
            maskedconv.load_run(path)


def test_predictions_of_class_folders_are_an_evaluation(folder, images, tmp_path):
    table = tmp_path / "predictions.csv"
    result = call(predict, folder, images, "--csv", table, "--batch-size", "7")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert len(lines) == 11
    assert all("% of 2" in line for line in lines)
    rows = list(csv.DictReader(table.open()))
    right = sum(row["predicted"] == row["class"] for row in rows)
    assert f"{100 * right / 20:.2f} % of 20" in lines[-1]
    assert all(0 < float(row["probability"]) <= 1 for row in rows)


def test_predictions_of_a_flat_folder_are_listed(folder, images):
    one = next(path for path in sorted(images.iterdir()))
    result = call(predict, folder, one)
    assert result.exit_code == 0, result.output
    assert [line.split()[-1] for line in result.stdout.splitlines()] == [
        path.name for path in sorted(one.iterdir())
    ]


def test_images_beside_the_class_folders_are_named(folder, images, tmp_path):
    shutil.copytree(images, tmp_path / "images")
    for name in ("loose.png", ".hidden"):
        Image.new("L", (8, 8)).save(tmp_path / "images" / name, "png")
    result = call(predict, folder, tmp_path / "images")
    assert result.stdout.splitlines()[-1].endswith("% of 20")
    (line,) = result.stderr.splitlines()
    assert line.endswith(": 1 hidden (.hidden); 1 outside the class folders (loose.png)")
    one = tmp_path / "images" / "3"
    Image.new("L", (8, 8)).save(one / ".hidden", "png")
    assert call(predict, folder, one).stderr.endswith(f"ignored in {one}: 1 hidden (.hidden)\n")


def test_predict_names_what_it_cannot_use(folder, tmp_path):
    (tmp_path / "cats").mkdir()
    Image.new("RGB", (9, 9)).save(tmp_path / "cats" / "a.png")
    for root, words in ((tmp_path, "has the name of no class"), (tmp_path / "none", "a folder")):
        result = call(predict, folder, root)
        assert result.exit_code == 2
        assert words in result.stderr
    (tmp_path / "cats" / "a.png").write_bytes(b"no image")
    result = call(predict, folder, tmp_path / "cats")
    assert (result.exit_code, "a.png" in result.stderr) == (2, True)


def test_predict_names_a_run_that_is_not_there(images, tmp_path):
    missing = tmp_path / "none"
    for run, error in (
        (tmp_path, f"{tmp_path} has no such weights"),
        (missing, f"path is {str(missing)!r}; expected a folder or file that is there"),
    ):
        result = call(predict, run, images)
        assert (result.exit_code, result.stdout) == (2, "")
        assert result.stderr.startswith(f"error: {error}")


@pytest.mark.parametrize(("name", "why"), [("none/x.csv", "No such file"), (".", "Is a directory")])
def test_predict_looks_first_whether_the_table_can_be_written(
    folder, images, name, why, tmp_path, monkeypatch
):
    monkeypatch.setattr(predictions, "classify", lambda *_: pytest.fail("classified before"))
    result = call(predict, folder, images, "--csv", tmp_path / name)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: csv is {tmp_path / name}; expected a file")
    assert why in result.stderr


def test_names_of_images_that_are_not_text_are_kept(folder, tmp_path):
    name, table = b"caf\xe9.png", tmp_path / "predictions.csv"
    (tmp_path / "images").mkdir()
    Image.new("L", (8, 8)).save(tmp_path / "images" / os.fsdecode(name))
    result = call(predict, folder, tmp_path / "images", "--csv", table)
    assert result.exit_code == 0, result.output
    assert table.read_bytes().splitlines()[1].startswith(name + b",")
    result = call(predict, folder, tmp_path / "images")
    assert result.exit_code == 0, result.output
    assert result.stdout_bytes.endswith(b"  " + name + b"\n")


def test_a_reader_that_has_ended_is_no_usage_error(folder, images, monkeypatch):
    def closed(*_, **__):
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    monkeypatch.setattr(predictions, "print_result", closed)
    result = call(predict, folder, images)
    assert (result.exit_code, result.stderr) == (1, "")


def test_the_report_of_trains_folder(folder):
    page, key = report.write(folder), row_of(folder)["key"]
    markdown = (folder / "report.md").read_text()
    for name in ("top1", "loss", "confusion", "filters"):
        assert f"figures/{name}-{key}" in markdown
        assert (folder / "figures" / f"{name}-{key}.png").is_file()
    assert "Confusion matrix of 40 test images of 10 classes" in page.read_text()
    assert "maskedconv.load_run(" in page.read_text()


def test_preprocessing_is_that_of_the_test_set():
    digits = load("digits")
    steps = digits.preprocessing
    assert Preprocessing.from_json(steps.to_json()) == steps
    image, _ = next(digits.test_batches(1))
    file = Image.fromarray(digits.test_images[0, 0].numpy())
    torch.testing.assert_close(steps(file)[None], image)
    wide = Image.fromarray(np.full((16, 40), 255, np.uint8))
    white = (1 - steps.mean[0]) / steps.std[0]
    assert steps(wide).shape == (1, 8, 8)
    torch.testing.assert_close(steps(wide), torch.full((1, 8, 8), white))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"channels": 2}, "channels is 2"),
        ({"size": 0}, "size is 0"),
        ({"mean": (0.1,) * 3}, "mean and std have 3 and 1 values"),
    ],
)
def test_wrong_preprocessing_is_refused(values, words):
    usual = {"channels": 1, "size": 8, "resize": 8, "mean": (0.1,), "std": (0.2,)}
    with pytest.raises(ValueError, match=words):
        Preprocessing(**{**usual, **values})
