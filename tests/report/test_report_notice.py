"""The first line of a report, and the names of JPEG copies beside the papers' numbers."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from report_samples import config, results_of, row, runs_of, write_folder

from maskedconv import report
from maskedconv.data.catalogue import JPEG_COPY
from maskedconv.papers import ITEMS
from maskedconv.report.build import notice
from maskedconv.report.copies import with_copies
from maskedconv.report.document import Table


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "This is the paper's preset: its networks, settings and epochs on CIFAR-10."),
        (
            {"amp": "bf16", "compile": True},
            "This is the paper's preset: its networks, settings and epochs on CIFAR-10, in "
            "bfloat16 (autocast), compiled.",
        ),
        (
            {"epochs": 20},
            "The paper preset: the paper's networks on CIFAR-10, trained for more epochs. Numbers "
            "compare with the paper's only where a table gives a difference.",
        ),
        (
            {"epochs": 2, "subset": 500},
            "The paper preset: the paper's networks on CIFAR-10, trained for fewer epochs, on 500 "
            "training images per class. Numbers compare with the paper's only where a table gives "
            "a difference.",
        ),
    ],
    ids=["equal", "another precision", "longer", "shorter"],
)
def test_notice_of_the_larger_presets(tmp_path, changes, expected):
    run = replace(config("wrn_28_4", dataset="cifar10", epochs=10), **changes)
    results = results_of(tmp_path, {"table1": [run]}, lambda run: 50.0, preset="paper")
    assert notice(results) == expected


@pytest.mark.parametrize("item", sorted(ITEMS))
def test_the_papers_preset_has_the_printed_epochs(item):
    """The first line would call its runs longer or shorter otherwise."""
    runs = runs_of(item, "paper")
    known = {(run.epochs, printed) for run in runs if (printed := ITEMS[item].printed_epochs(run))}
    assert all(ours == printed for ours, printed in known)


@pytest.mark.parametrize(
    ("columns", "cells", "named"),
    [
        (("network", "paper", "difference"), ("a", "70.00", "+1.00"), True),
        (("network", "paper, mean / ensemble"), ("a", "71 / 73"), True),
        (("network", "paper (not comparable)"), ("a", "70.00"), False),
        # Of two of ours.
        (("network", "with BN", "difference"), ("a", "70.00", "+1.00"), False),
        # Of a data set that was not run.
        (("network", "signed constant, paper", "ours"), ("a", "70.00", "–"), False),
    ],
    ids=["paper", "several", "not comparable", "ours alone", "not run"],
)
def test_captions_of_comparable_tables_name_a_jpeg_copy(tmp_path, columns, cells, named):
    run = config("wrn_28_10", dataset="cifar10")
    notes = {"cifar10": f"CIFAR-10 {JPEG_COPY}"}
    results = results_of(tmp_path, {"fig5": [run]}, lambda run: 70.0, skip=1, data_notes=notes)
    told = with_copies(Table("Top-1, %", columns, [cells]), results.seed_groups("fig5"))
    expected = "Top-1, %; ours: CIFAR-10 from a JPEG copy" if named else "Top-1, %"
    assert told.caption == expected


@pytest.mark.parametrize("copy", ["", f" {JPEG_COPY}"], ids=["original", "copy"])
def test_a_jpeg_copy_is_named_beside_printed_numbers(tmp_path, copy):
    """It is compared, but the paper's images are the original ones."""
    one = config("wrn_28_10", dataset="cifar10", epochs=200, learned=1)
    runs = [one, replace(one, learned=0.1)]
    out = write_folder(tmp_path, {"fig5": runs}, lambda run: 70.0, preset="paper")
    found = [json.dumps(row(run, 70.0, data_note=f"CIFAR-10{copy}: a note")) for run in runs]
    (out / "results.jsonl").write_text("".join(f"{line}\n" for line in found))
    report.write(out)
    lines = (out / "report.md").read_text().splitlines()
    assert lines[0] == (
        f"**This is the paper's preset: its networks, settings and epochs on CIFAR-10{copy}.**"
    )
    assert f"- Data: CIFAR-10{copy}" in lines
    captions = [line for line in lines if line.startswith("Comparison with the runs")]
    evidence = [line for line in lines if "against the printed 69 %" in line]
    assert len(captions) == len(evidence) == 1
    assert captions[0].endswith("Ours: CIFAR-10 from a JPEG copy.") is bool(copy)
    assert evidence[0].endswith("; ours from a JPEG copy") is bool(copy)
