"""``--graph`` and ``--compile`` in runs: results, keys, checkpoints, folders, commands, report."""

from __future__ import annotations

import json
from dataclasses import replace

import killed_runs
import pytest
import recorders
import torch
from commands import call
from killed_runs import OPTIMIZERS
from recorders import Rerun, take_the_place
from report_samples import config, write_folder
from safetensors.torch import load_file
from stopped_runs import stopped_after

from maskedconv import reproduce, train
from maskedconv.cli.options import open_graph
from maskedconv.report import write
from maskedconv.runs import RunConfig, Store, timing, workers
from maskedconv.runs.checkpoints import checkpoint_path
from maskedconv.runs.execute import execute
from maskedconv.runs.images import Size
from maskedconv.training.checkpoint import Checkpoint

# An epoch has ten batches of 8, or three of 24 and one of 8.
RUNS = {name: replace(killed_runs.SMALL, **changes) for name, changes in OPTIMIZERS.items()}
SMALLER_LAST = replace(killed_runs.SMALL, batch_size=24)
FIG6 = ("fig6", "--epochs", "1", "--subset", "2", "--no-report", "--device", "cpu")
TRAIN = ("--model", "wrn_10_1", "--epochs", "2", "--subset", "5", "--batch-size", "8")


@pytest.fixture(scope="module")
def dataset():
    return killed_runs.small_dataset()


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def results(row, folder):
    """Everything in a row and its weights that may not depend on the graph."""
    assert (row["status"], row["error"]) == ("done", None)
    history = [{**epoch, "seconds": 0} for epoch in row["history"]]
    weights = load_file(folder / row["weights"])
    values = {name: tensor.numpy().tobytes() for name, tensor in weights.items()}
    return row["key"], row["config"], history, row["layers"], values


@pytest.mark.parametrize("run", [*RUNS.values(), SMALLER_LAST], ids=[*RUNS, "smaller last"])
def test_captured_and_resumed_runs_are_those_of_eager_steps(run, dataset, tmp_path, monkeypatch):
    folders = [tmp_path / name for name in ("eager", "whole", "resumed")]
    for folder in folders:
        folder.mkdir()
    rows = [execute(run, dataset, folder=folders[0])]
    take_the_place(monkeypatch, Rerun)
    rows.append(execute(run, dataset, folder=folders[1], graph="on"))
    assert recorders.made[-1].replays > 0
    with stopped_after(monkeypatch, 3):
        execute(run, dataset, folder=folders[2], checkpoint_seconds=0, graph="on")
    rows.append(execute(run, dataset, folder=folders[2], graph="on"))
    eager, whole, resumed = map(results, rows, folders)
    assert whole == eager
    assert resumed == eager


def test_only_compile_changes_the_key():
    plain = config()
    assert replace(plain, compile=False).key == plain.key
    assert replace(plain, compile=True).key != plain.key
    before = {name: value for name, value in plain.to_json().items() if name != "compile"}
    assert RunConfig.from_json(before) == plain
    assert "compiled" in replace(plain, compile=True).label()
    assert "graph" not in plain.to_json()


def test_a_checkpoint_from_before_later_fields_existed_is_used(dataset, tmp_path, capsys):
    """An empty training state, so that the run fails where it is restored."""
    run = RUNS["sgd"]
    described = run.to_json()
    for name in ("compile", "method", "method_options", "warmup", "test_subset", "processes"):
        del described[name]
    images = [*dataset.train_images.shape, len(dataset.test_images), dataset.num_classes]
    identity = {"config": described, "images": images, "device": "cpu"}
    Checkpoint(checkpoint_path(tmp_path, run), identity, 0).write({})
    assert execute(run, dataset, folder=tmp_path)["error_type"] == "KeyError"
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("command", [train, reproduce])
@pytest.mark.parametrize(
    ("graph", "words"),
    [
        ("on", "graph is 'on', but a CUDA graph needs the device cuda, not cpu; expected auto or"),
        ("maybe", "graph is 'maybe'; expected one of auto, on, off"),
    ],
)
def test_commands_end_before_any_work(command, graph, words, tmp_path):
    arguments = TRAIN if command is train else FIG6
    out = tmp_path / "out"
    result = call(command, *arguments, "--device", "cpu", "--graph", graph, "--out", out)
    assert result.exit_code == 2, result.output
    assert f"error: {words}" in result.stderr
    assert not out.exists()


def test_commands_name_the_optimizers_that_prevent_it(capsys):
    cuda = torch.device("cuda")
    assert open_graph("auto", cuda, ["sgd", "yellowfin", "yellowfin"]) == "auto"
    reason = "yellowfin computes some numbers of its step on the host"
    note = f"note: training steps are not captured in a CUDA graph: {reason}\n"
    assert capsys.readouterr().err == note
    for graph, device, optimizer in (
        ("auto", "cuda", "adam"), ("off", "cuda", "yellowfin"), ("auto", "cpu", "yellowfin")
    ):  # fmt: skip
        open_graph(graph, torch.device(device), [optimizer])
    assert capsys.readouterr().err == ""
    with pytest.raises(ValueError, match=f"graph is 'on', but {reason}; expected auto or off"):
        open_graph("on", cuda, ["sgd", "yellowfin"])


@pytest.mark.parametrize(
    ("command", "arguments"), [(train, TRAIN), (reproduce, (*FIG6, "--parallel", "1"))]
)
def test_commands_pass_it_to_their_runs(command, arguments, tmp_path, monkeypatch):
    take_the_place(monkeypatch, Rerun)
    for graph in ("off", "auto"):
        out = tmp_path / graph
        result = call(command, *arguments, "--graph", graph, "--out", out)
        assert result.exit_code == 0, result.output
        assert bool(recorders.made) is (graph == "auto")
    rows, others = (Store(tmp_path / graph).load().rows for graph in ("off", "auto"))
    assert rows.keys() == others.keys()
    assert [row["best_top1"] for row in rows.values()] == [
        row["best_top1"] for row in others.values()
    ]


def test_workers_pass_it_to_their_runs(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(workers, "attempt", lambda *arguments: asked.append(arguments[-1]))
    torch.save({}, tmp_path / "images")

    class Connection:
        runs = iter([config()])

        def recv(self):
            try:
                return next(self.runs)
            except StopIteration:
                raise EOFError from None

        def send(self, event):
            pass

    options = workers.WorkerConfig(tmp_path, "cpu", 1, graph="on")
    workers._work(Connection(), options, tmp_path / "images")
    assert asked == ["on"]


def test_a_folder_is_compiled_or_not(tmp_path):
    """Figures share runs, so that a mixture would go unnoticed."""
    arguments = (*FIG6, "--parallel", "1", "--out", tmp_path)
    assert call(reproduce, *arguments).exit_code == 0
    plan = json.loads((tmp_path / "plan.json").read_text())
    assert plan["compile"] is False
    result = call(reproduce, *arguments, "--compile")
    assert result.exit_code == 2
    assert "holds runs without --compile, not with --compile; choose another" in result.stderr
    del plan["compile"]
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    assert call(reproduce, *arguments, "--compile").exit_code == 2
    assert call(reproduce, *arguments).exit_code == 0


def test_estimates_compile_nothing(monkeypatch):
    monkeypatch.setattr(torch, "compile", None)
    run = config("alexnet", options=(("width", 0.125),), batch_size=8, compile=True)
    assert timing.measure(timing.Job(run, Size(10, (1, 8, 8), 20, 20)), torch.device("cpu")).train


def test_the_report_names_compiled_runs(tmp_path):
    run = config("wrn_10_1", learned=0.1, compile=True)
    write_folder(tmp_path, {"fig1": [run]}, lambda run: 50.0)
    text = write(tmp_path).with_suffix(".md").read_text()
    assert "Precision: float32, compiled" in text.replace("*", "").replace("| ", "")
