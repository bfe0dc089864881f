"""Files of single tasks."""

from __future__ import annotations

import pytest
import torch
from task_networks import METHODS, images, network, two_tasks
from torch import nn

from maskedconv import Tasks, convert_, load, models, save


def other_tasks(method, head=None):
    """Like :func:`two_tasks`, with the same frozen values and one untrained task."""
    torch.manual_seed(0)
    tasks = Tasks(convert_(network(), method=METHODS[method], seed=0), head=head)
    tasks.add("own")
    return tasks.eval()


def values(tasks):
    return {key: tensor.clone() for key, tensor in tasks.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("method", METHODS)
def test_every_method(method, tmp_path):
    tasks, x, path = two_tasks(method), images(), tmp_path / "a"
    tasks.save("a", path)
    assert tasks.active == "b"
    other = other_tasks(method)
    own = other(x)
    other.load("loaded", path)
    tasks.set("a")
    assert other.active == "loaded"
    assert torch.equal(other(x), tasks(x))
    other.set("own")
    assert torch.equal(other(x), own)
    assert torch.equal(load(convert_like(method), path).eval()(x), tasks(x))


def convert_like(method):
    torch.manual_seed(0)
    return convert_(network(), method=METHODS[method], seed=0)


@pytest.mark.parametrize("method", ["supermask", "global", "coats", "biprop"])
def test_masks_as_bits(method, tmp_path):
    tasks, x, path = two_tasks(method), images(), tmp_path / "a"
    tasks.set("a")
    out = tasks(x)
    for layer in (tasks.model[0], tasks.model[3], tasks.model[5]):
        layer.hold_mask(layer.pack_mask())
    tasks.set("b")
    with pytest.raises(ValueError, match="expected masks=True"):
        tasks.save("a", path)
    assert tasks.active == "b"
    tasks.save("a", path, masks=True)
    other = other_tasks(method)
    other.load("a", path)
    assert torch.equal(other(x), out)
    # Tasks with held masks are no obstacle, and keep theirs.
    other = other_tasks(method)
    other(x)
    for layer in (other.model[0], other.model[3], other.model[5]):
        layer.hold_mask(torch.zeros_like(layer.pack_mask()))
    held = other(x)
    other.load("a", path)
    assert torch.equal(other(x), out)
    other.set("own")
    assert torch.equal(other(x), held)


def test_a_file_has_what_the_task_learned_and_nothing_else(tmp_path):
    tasks = Tasks(models.create("wrn_10_4", learned=0.1, seed=0), head="fc")
    tasks.add("a")
    tasks.add("b")
    tasks.save("a", tmp_path / "a")
    learned = tasks.nbytes("a")
    assert learned <= (tmp_path / "a").stat().st_size <= 1.02 * learned + 8192


def test_a_head_of_another_size(tmp_path):
    tasks, x = two_tasks("slice", head="5"), images()
    tasks.add("c", head=nn.Linear(64, 7))
    out = tasks.eval()(x)
    tasks.save("c", tmp_path / "c")
    other = other_tasks("slice", head="5")
    with pytest.raises(ValueError, match=r"5\.weight|only the file has \['5\.bias'\]"):
        other.load("c", tmp_path / "c")
    assert (other.names, other(x).shape[1]) == (("own",), 5)
    other.load("c", tmp_path / "c", head=nn.Linear(64, 7))
    assert torch.equal(other.eval()(x), out)


def damaged(path):
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)


def of_another_start(path):
    torch.manual_seed(1)
    save(convert_(network(), learned=0.25), path, frozen=True)


def of_another_fraction(path):
    torch.manual_seed(0)
    save(convert_(network(), learned=0.5), path)


def of_another_conversion(path):
    torch.manual_seed(0)
    save(convert_(network(), learned=0.25, exclude="3", rest="learn"), path)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (damaged, "is damaged"),
        (lambda path: path.write_bytes(b""), "is not a whole safetensors file"),
        (of_another_start, "are not those of the model, which keeps its own"),
        (of_another_fraction, r"num_learned is 8 in the file; the model has 4"),
        (of_another_conversion, "masked layers"),
        (lambda path: path.unlink(), "expected a file that save"),
    ],
)
@pytest.mark.parametrize("empty", [True, False])
def test_a_bad_file_changes_nothing(spoil, message, empty, tmp_path):
    path = tmp_path / "task"
    two_tasks("slice", trained=False).save("a", path)
    spoil(path)
    tasks = other_tasks("slice")
    if empty:
        tasks.remove("own")
    before, own = values(tasks), (tasks.names, tasks.active)
    head, layers = tasks.model[5], dict(tasks.model.named_parameters())
    with pytest.raises((ValueError, OSError), match=message) as error:
        tasks.load("new", path)
    assert str(path) in str(error.value)
    assert (tasks.names, tasks.active) == own
    assert same(tasks.state_dict(), before)
    assert tasks.model[5] is head
    assert all(one is layers[name] for name, one in tasks.model.named_parameters())


def test_a_plain_model_is_not_converted(tmp_path):
    path = tmp_path / "task"
    two_tasks("slice", trained=False).save("a", path)
    torch.manual_seed(0)
    tasks = Tasks(network())
    tasks.add("own")
    with pytest.raises(ValueError, match="0 is a layer of the method slice in the file; the model"):
        tasks.load("new", path)
    assert type(tasks.model[0]) is nn.Conv2d


def test_an_existing_name_is_refused(tmp_path):
    tasks = two_tasks("slice", trained=False)
    tasks.save("a", tmp_path / "a")
    with pytest.raises(ValueError, match="name is 'a', which exists"):
        tasks.load("a", tmp_path / "a")
