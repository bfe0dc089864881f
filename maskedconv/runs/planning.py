"""The plan of a command: its runs, their data, and plan.json in the output folder."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from maskedconv import data
from maskedconv.console import say
from maskedconv.data.sources import FETCHED, not_fetched
from maskedconv.runs.config import RunConfig
from maskedconv.runs.experiment import Experiment
from maskedconv.runs.images import SUBSET_SEED, DataKey, DataLocations, data_key
from maskedconv.runs.preset import Preset
from maskedconv.runs.same import trained_for
from maskedconv.runs.sequential import unique
from maskedconv.runs.store import Loaded, Store

if TYPE_CHECKING:
    from maskedconv.data import Task


@dataclass(frozen=True)
class Plan:
    """The runs of a command.

    Attributes:
        runs: the runs of each experiment.
        preset: the preset of the runs.
    """

    runs: Mapping[Experiment[Any], list[RunConfig]]
    preset: Preset


def all_runs(plan: Plan) -> list[RunConfig]:
    """Every run of the plan once."""
    return unique(run for runs in plan.runs.values() for run in runs)


def matching(plan: Plan, texts: Iterable[str]) -> Plan:
    """The runs whose label contains one of ``texts``, and the runs from which they start.

    The plan itself if there is no text. An item without such a run is left out.

    Raises:
        ValueError: no label contains one of the texts.
    """
    labels = {run.key: run.label() for run in all_runs(plan)}
    chosen: set[str] = set()
    for text in texts:
        found = {key for key, label in labels.items() if text in label}
        if not found:
            raise ValueError(f"match is {text!r}; expected part of a run's label, see --list")
        chosen |= found
    if not chosen:
        return plan
    chosen |= {run.start for run in all_runs(plan) if run.key in chosen}
    runs = {item: [run for run in runs if run.key in chosen] for item, runs in plan.runs.items()}
    return Plan({item: some for item, some in runs.items() if some}, plan.preset)


def trained_runs(store: Store, chosen: Plan, plan: Plan, loaded: Loaded) -> dict[str, RunConfig]:
    """What :func:`write_plan` would return now for the ``loaded`` rows; writes nothing.

    Raises:
        StoreError: the folder's plan is invalid.
    """
    return _join(chosen, plan, store.read_plan() or {}, loaded)[1]


def _join(
    chosen: Plan, plan: Plan, old: dict[str, Any], loaded: Loaded
) -> tuple[Plan, dict[str, RunConfig]]:
    """As :func:`_with_earlier`, and the run that is trained for each of these, by key."""
    joined = _with_earlier(chosen, plan, old)
    return joined, trained_for(all_runs(joined), loaded)


def _with_earlier(chosen: Plan, plan: Plan, old: dict[str, Any]) -> Plan:
    """``chosen``, and the runs of the folder's plan ``old`` that belong to ``plan``.

    A run belongs to it if it differs in seed and data set at most. An earlier command may have had
    more of them.
    """
    entries = old.get("experiments", {})
    runs: dict[Experiment[Any], list[RunConfig]] = {}
    for item, all_of_item in plan.runs.items():
        settings = {_setting(run) for run in all_of_item}
        earlier = entries[item.id]["runs"] if item.id in entries else []
        kept = [RunConfig.from_json(entry["config"]) for entry in earlier]
        kept = [run for run in kept if _setting(run) in settings]
        kept += chosen.runs.get(item, [])
        keys = {run.key for run in kept}
        if keys:
            runs[item] = unique([*(run for run in all_of_item if run.key in keys), *kept])
    return Plan(runs, plan.preset)


def _setting(run: RunConfig) -> str:
    """The configuration without seed, data set and start, which depends on both."""
    values = run.to_json()
    for name in ("seed", "dataset", "start"):
        del values[name]
    return json.dumps(values)


def data_keys(plan: Plan) -> list[DataKey]:
    """The data sets of the runs, in order."""
    return list(dict.fromkeys(data_key(run) for run in all_runs(plan)))


def check_data(plan: Plan, locations: DataLocations, needed: bool) -> None:
    """Checks cheaply that the images are present; only warns if they are not ``needed``.

    Raises:
        ValueError: images are missing or invalid; names the remedy and the items to omit.
    """
    keys = data_keys(plan)
    if locations.download and not any(name in FETCHED for name, _ in keys):
        names = ", ".join(name for name, _ in keys)
        raise ValueError(not_fetched(names))
    for key in keys:
        try:
            locations.check(key)
        except data.DataError as error:
            if needed or not isinstance(error, data.MissingDataError):
                raise ValueError(f"{error}{_without(key, plan)}") from error
            say(f"note: {error}")


def name_unused_folders(plan: Plan, locations: DataLocations) -> None:
    """Reports the folders on the command line that no run of the plan reads."""
    read = {name for name, _ in data_keys(plan)}
    if unused := sorted(set(locations.folders) - read - {""}):
        say(f"note: none of these runs reads the images of {' and '.join(unused)}")


def _without(key: DataKey, plan: Plan) -> str:
    """A hint for running without a data set; empty if it is the only one."""
    if len(data_keys(plan)) == 1:
        return ""
    needing = [
        item.id for item, runs in plan.runs.items() if any(data_key(run) == key for run in runs)
    ]
    others = [item.id for item in plan.runs if item.id not in needing]
    hints = ["--data-dir NAME=DIR names the folder of one of several data sets"]
    if others:
        hints.append(
            f"only {' and '.join(needing)} need {key[0]}: to omit it, name the other items "
            f"({' '.join(others)})"
        )
    if len(plan.preset.datasets) > 1 and key[0] in plan.preset.datasets:
        names = " and ".join(plan.preset.datasets)
        hints.append(
            f"the preset {plan.preset.name} is for {names}; --dataset takes one of them alone"
        )
    return f" ({'; '.join(hints)})"


def check_folder(store: Store, preset: Preset) -> None:
    """ValueError if the folder holds runs of another preset, data set, precision or --compile."""
    names = ", ".join(preset.datasets)
    old = store.read_plan()
    if old is not None and (old["preset"] != preset.name or not _overlap(old, preset)):
        raise ValueError(
            f"{store.out} holds the preset {old['preset']} on {old['dataset']}, not "
            f"{preset.name} on {names}; choose another folder with --out"
        )
    # A plan without it is from a version without --amp.
    if old is not None and (amp := old.get("amp", "off")) != preset.amp:
        raise ValueError(
            f"{store.out} holds runs of --amp {amp}, not {preset.amp}; --amp {amp} continues "
            "them, --out names another folder"
        )
    if old is not None and (compile := old.get("compile", False)) != preset.compile:
        ways = {False: "without --compile", True: "with --compile"}
        raise ValueError(
            f"{store.out} holds runs {ways[compile]}, not {ways[preset.compile]}; choose another "
            "folder with --out"
        )


def _overlap(old: dict[str, Any], preset: Preset) -> bool:
    """Whether the data sets of one contain those of the other: papers differ in their data sets."""
    before, now = set(old["dataset"].split(", ")), set(preset.datasets)
    return before <= now or now <= before


def check_same_data(store: Store, loaded: Loaded, datasets: Mapping[DataKey, Task]) -> None:
    """ValueError if the folder has results of other images, such as a JPEG copy of the data set.

    Rows have the images' digest. Those of earlier versions have a note alone, which also names the
    folder of the images.
    """

    @cache
    def examples(key: DataKey, test_subset: int | None) -> Task:
        dataset = datasets[key]
        return dataset if test_subset is None else dataset.take_test(test_subset, SUBSET_SEED)

    for row in loaded.rows.values():
        config = row["config"]
        key = config["dataset"], config.get("subset")
        if key not in datasets:
            continue
        found = examples(key, config.get("test_subset"))
        digest, note = row.get("data_digest"), row.get("data_note")
        there, here = (note, found.note) if digest is None else (digest, found.digest)
        if there not in (None, here):
            raise ValueError(
                f"{store.out} holds results of other data: {there!r}, not {here!r}; choose another "
                "folder with --out"
            )


def write_plan(
    store: Store, chosen: Plan, plan: Plan, datasets: Mapping[DataKey, Task], command: str
) -> dict[str, RunConfig]:
    """Adds ``chosen`` to the folder's plan; returns, for each key, the run that is trained for it.

    Args:
        chosen: the runs of this command, a part of ``plan``.
        plan: every run of its items. Runs of earlier commands stay in the folder's plan if they
            differ from one of these in seed and data set at most.

    Raises:
        StoreError: it cannot be written.
    """
    loaded = store.load()
    trained: dict[str, RunConfig] = {}

    def change(old: dict[str, Any]) -> dict[str, Any]:
        joined, found = _join(chosen, plan, old, loaded)
        trained.update(found)
        entries = {
            item.id: {
                "title": item.title,
                "command": command,
                "runs": [_entry(run, trained[run.key]) for run in runs],
            }
            for item, runs in joined.runs.items()
        }
        before = old["dataset"].split(", ") if old else []
        return {
            "preset": plan.preset.name,
            "dataset": ", ".join(dict.fromkeys([*before, *plan.preset.datasets])),
            "amp": plan.preset.amp,
            "compile": plan.preset.compile,
            "data_notes": {name: dataset.note for (name, _), dataset in datasets.items()},
            "command": command,
            "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "experiments": entries,
        }

    store.change_plan(change)
    return trained


def _entry(run: RunConfig, trained: RunConfig) -> dict[str, Any]:
    entry: dict[str, Any] = {"key": run.key, "config": run.to_json(defaults=False)}
    return entry if trained.key == run.key else {**entry, "same_as": trained.key}
