"""Failures of the machine during runs: disk, output folder, images. Finished runs are not lost."""

from __future__ import annotations

import resource
import shutil
from dataclasses import replace

import pytest
import report_samples
from commands import SMALL, SMALL_RUNS, call, keys, start, time_nothing, wait_for_rows
from image_files import write_folder
from report_samples import preset_of

from maskedconv import reproduce
from maskedconv.papers import ITEMS
from maskedconv.runs import Store, execute
from maskedconv.runs.sequential import run_all, unfinished
from maskedconv.runs.weights import weights_path

ONE_BY_ONE = (*SMALL, "--parallel", "1", "--threads", "1")


def test_full_disk(tmp_path):
    """A limit on the file size that is enough for the plan, but not for all rows."""
    limit = 12_000
    process = start(
        *ONE_BY_ONE, "--out", tmp_path,
        before_start=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )  # fmt: skip
    _, said = process.communicate(timeout=300)
    assert process.returncode == 1, said
    assert "error: " in said
    assert "results.jsonl" in said
    assert "finished runs are kept, and the same command resumes" in said
    assert "Traceback" not in said
    kept = Store(tmp_path).load().rows
    assert 1 <= len(kept) < SMALL_RUNS
    again = call(reproduce, *ONE_BY_ONE, "--out", tmp_path)
    assert again.exit_code == 0, again.output
    assert f"{len(kept)} of {SMALL_RUNS} runs are finished in {tmp_path}" in again.stderr
    assert {key: Store(tmp_path).load().rows[key] for key in kept} == kept


def test_output_folder_that_is_removed(tmp_path, monkeypatch):
    out, real = tmp_path / "out", execute.execute

    def removes(config, *arguments, **options):
        shutil.rmtree(out)
        return real(config, *arguments, **options)

    monkeypatch.setattr(execute, "execute", removes)
    result = call(reproduce, *ONE_BY_ONE, "--out", out)
    assert result.exit_code == 1, result.output
    assert f"error: the folder {out} cannot be used: No such file or directory" in result.stderr
    assert "Traceback" not in result.output


@pytest.mark.parametrize("parallel", ["1", "2"])
def test_images_that_are_removed_are_not_missed(tmp_path, parallel):
    images, out = write_folder(tmp_path / "images"), tmp_path / "out"
    process = start(
        "table1", "--epochs", "10", "--no-report", "--dataset", "folder", "--data-dir", images,
        "--parallel", parallel, "--out", out,
    )  # fmt: skip
    wait_for_rows(out, 1, process)
    shutil.rmtree(images)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert len(keys(out)) == SMALL_RUNS


class Quiet:
    def started(self, config): ...
    def epoch(self, config, epoch): ...
    def finished(self, config, row): ...
    def waiting(self, runs): ...


def kept_row(config, folder):
    """The row of a finished run, whose weights are in ``folder`` if it keeps them."""
    if config.keep:
        weights_path(folder, config.key).parent.mkdir(exist_ok=True)
        weights_path(folder, config.key).touch()
    return report_samples.row(config, 50.0)


def test_runs_whose_start_failed(tmp_path, monkeypatch):
    """They fail with this reason, and are tried again when the start exists."""
    start_, *ensembles = ITEMS["table4"].runs(preset_of("quick"))
    configs = [*ensembles[:2], start_]
    done = []

    def execute_(config, dataset, on_epoch, **options):
        done.append(config.key)
        failed = {"status": "failed", "error": "out of memory", "error_type": "MemoryError"}
        return kept_row(config, tmp_path) | (failed if len(done) == 1 else {})

    monkeypatch.setattr(execute, "execute", execute_)
    store = Store(tmp_path)
    store.prepare()
    rows = run_all(configs, store, lambda _: None, Quiet())
    assert done == [start_.key]
    assert {rows[run.key]["error"] for run in ensembles[:2]} == {
        f"its start {start_.label()} failed: out of memory"
    }
    rows = run_all(configs, store, lambda _: None, Quiet())
    assert done == [start_.key, start_.key, *(run.key for run in ensembles[:2])]
    assert {row["status"] for row in rows.values()} == {"done"}

    orphan = replace(ensembles[0], start="0" * 16)
    rows = run_all([orphan], store, lambda _: None, Quiet())
    assert rows[orphan.key]["error"] == "its start 0000000000000000 has not been run"


def test_a_start_whose_weights_are_gone_is_done_again(tmp_path, monkeypatch):
    time_nothing(monkeypatch)
    start_, ensemble, *_ = configs = ITEMS["table4"].runs(preset_of("quick"))
    store, done = Store(tmp_path), []
    store.prepare()
    store.append(kept_row(start_, tmp_path))

    def execute_(config, dataset, on_epoch, **options):
        done.append(config.key)
        return kept_row(config, tmp_path)

    def to_do():
        dry = call(reproduce, "table4", "--dry-run", "--parallel", "1", "--out", tmp_path)
        return int(dry.stdout.splitlines()[-1].split()[2])

    assert to_do() == len(configs) - 1
    weights_path(tmp_path, start_.key).unlink()
    assert to_do() == len(configs)
    rows = run_all([ensemble], store, lambda _: pytest.fail("it cannot begin"), Quiet())
    said = f"the weights of its start {start_.label()} are not in {tmp_path}"
    assert rows[ensemble.key]["error"] == said

    monkeypatch.setattr(execute, "execute", execute_)
    run_all([ensemble, start_], store, lambda _: None, Quiet())
    assert done == [start_.key, ensemble.key]
    assert to_do() == len(configs) - 2
    # No run that is left starts from it.
    weights_path(tmp_path, start_.key).unlink()
    assert unfinished([start_, ensemble], store, store.load()) == []
    # As train --keep, which asks for the weights themselves.
    run_all([start_], store, lambda _: None, Quiet())
    assert done == [start_.key, ensemble.key, start_.key]


def test_a_start_that_diverged_is_not_done_again(tmp_path):
    start_, ensemble, *_ = ITEMS["table4"].runs(preset_of("quick"))
    store = Store(tmp_path)
    store.prepare()
    store.append(report_samples.row(start_, None))
    assert unfinished([start_, ensemble], store, store.load()) == [ensemble]


def test_missing_data_says_how_to_go_without(tmp_path):
    cifar = write_folder(tmp_path / "cifar", [str(n) for n in range(10)], size=32)
    arguments = ("--preset", "short", "--subset", "3", "--out", tmp_path / "out")
    for folders in ([f"cifar10={cifar}", "tiny-imagenet=/none"], [str(cifar)]):
        options = [option for folder in folders for option in ("--data-dir", folder)]
        result = call(reproduce, *arguments, *options)
        assert result.exit_code == 2
        assert "error: no Tiny-ImageNet in" in result.stderr
        assert "only fig6 and table3 need tiny-imagenet: to omit it, name the" in result.stderr
        assert "(fig1 fig2 fig3 fig4 fig5 table1 table2 table4 " in result.stderr
        assert "--data-dir NAME=DIR" in result.stderr
    assert not (tmp_path / "out").exists()
    result = call(reproduce, *arguments, "table1", *options, "--list")
    assert result.exit_code == 0


def test_only_the_data_of_the_named_items_is_needed(tmp_path):
    """Figure 2 of the paper uses CIFAR-10 only."""
    cifar = write_folder(tmp_path / "cifar", [str(n) for n in range(10)], size=32)
    options = ("--data-dir", f"cifar10={cifar}", "--subset", "3", "--out", tmp_path / "out")
    plan_of = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reproduce, "run_missing", lambda plan, *_: plan_of.append(plan) or {})
        result = call(reproduce, "fig2", "--preset", "paper", "--no-report", *options)
    assert result.exit_code == 0, result.output
    assert {run.dataset for run in plan_of[0]} == {"cifar10"}
    result = call(reproduce, "fig1", "--preset", "paper", *options)
    assert result.exit_code == 2
    assert "error: no CIFAR-100 in" in result.stderr
    assert "--dataset takes one of them alone" in result.stderr


def test_plan_of_several_data_sets(tmp_path):
    """Notes of the data sets are kept when an item with another one is added."""
    store = Store(tmp_path)
    store.prepare()
    first = {"preset": "short", "dataset": "cifar10", "data_notes": {"cifar10": "a JPEG copy"}}
    second = {**first, "data_notes": {"tiny-imagenet": "200 classes"}}
    store.change_plan(lambda old: {**first, "experiments": {"fig1": {"runs": []}}})
    store.change_plan(lambda old: {**second, "experiments": {}})
    plan = store.read_plan()
    assert plan["data_note"] == "a JPEG copy; 200 classes"
    assert list(plan["experiments"]) == ["fig1"]


def test_table3_on_another_data_set_is_told(tmp_path, monkeypatch):
    time_nothing(monkeypatch)
    images = write_folder(tmp_path / "images")
    options = ("--dataset", "folder", "--data-dir", images, "--dry-run", "--epochs", "1")
    result = call(reproduce, "table3", "fig6", *options)
    assert "note: fig6 and table3 run on folder" in result.stderr
    result = call(reproduce, "table1", *options)
    assert "run on folder" not in result.stderr


def test_dry_run_counts_the_images_that_are_there(tmp_path, monkeypatch):
    time_nothing(monkeypatch)
    cifar = write_folder(tmp_path / "cifar", [str(n) for n in range(10)], size=32)
    options = ("--dataset", "cifar10", "--data-dir", cifar, "--epochs", "1", "--dry-run")
    result = call(reproduce, "table1", "--parallel", "1", *options)
    assert result.exit_code == 0, result.output
    # Twelve runs of 3 images of each class.
    assert result.stdout.splitlines()[-1].split()[:5] == ["total", "12", "12", "12", "360"]
