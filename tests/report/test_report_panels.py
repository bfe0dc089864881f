"""The panels of the report: the numbers that they draw."""

from __future__ import annotations

import matplotlib.figure
import pytest
from report_samples import config, results_of

from maskedconv.papers.rosenfeld2018 import fig2, fig3, fig4, table1, table3
from maskedconv.report import curves
from maskedconv.report.drawing import draw
from maskedconv.report.learned import learned_panel
from maskedconv.report.single_runs import confusion_panel

TOP = 60.0


def axes_of(panel):
    axes = matplotlib.figure.Figure(layout="constrained").add_subplot()
    panel(axes)
    return axes


def points_of(panel):
    """The means of each kind of points, by its name in the legend."""
    return {one.get_label(): list(one.lines[0].get_ydata()) for one in axes_of(panel).containers}


def settings_of(tmp_path, item, top1, field, values):
    """A setting for each of ``values`` of a run's ``field``, with the accuracies ``top1``."""
    runs = [config("wrn_10_1", **{"learned": 0.1, field: value}) for value in values]
    by_key = {run.key: accuracy for run, accuracy in zip(runs, top1, strict=True)}
    return results_of(tmp_path, {item: runs}, lambda run: by_key[run.key]).seed_groups(item)


@pytest.mark.parametrize("names", [["cash$_$", "b"], ["a", "$x^$"]], ids=["one", "other"])
def test_names_of_classes_are_drawn_as_they_are(tmp_path, names):
    """Text between two signs of $ is a formula to matplotlib, and an error if it is none."""
    panel = confusion_panel([[3, 1], [0, 4]], names)
    assert draw(tmp_path, "confusion", f"{names}", "Test images by class.", panel).svg


def test_a_curve_is_of_the_test_accuracy(tmp_path):
    settings = settings_of(tmp_path, "fig1", [48.0], "frozen", ["random"])
    curve, *_ = axes_of(curves.curves_panel(settings, TOP)).lines
    assert list(curve.get_xdata()) == [1, 2, 3, 4, 5]
    assert list(curve.get_ydata()) == [12.0, 24.0, 36.0, 48.0, 47.75]


def test_points_of_random_and_zeroed_rests(tmp_path):
    settings = settings_of(tmp_path, "fig1", [40.0, 20.0], "frozen", ["random", "zero"])
    expected = {"rest random": [40.0], "rest zeroed": [20.0]}
    assert points_of(learned_panel(settings, TOP)) == expected


def test_points_of_each_sliced_dimension(tmp_path):
    settings = settings_of(tmp_path, "fig2", [10.0, 20.0, 30.0, 40.0], "slice_dim", range(4))
    assert points_of(fig2.slice_panel(settings, TOP)) == {
        "filters (0)": [10.0],
        "input channels (1)": [20.0],
        "rows (2)": [30.0],
        "columns (3)": [40.0],
    }


def test_points_by_learned_parameters_are_hatched_if_zeroed(tmp_path):
    settings = settings_of(tmp_path, "fig3", [40.0, 20.0], "frozen", ["random", "zero"])
    drawn = axes_of(fig3.learned_parameters_panel([settings], TOP)).collections
    found = {
        bool(points.get_hatch()): points.get_offsets().tolist()
        for points in drawn
        if len(points.get_offsets())
    }
    parameters = settings[0].learned_parameters
    assert found == {False: [[parameters, 40.0]], True: [[parameters, 20.0]]}


def test_points_of_learned_and_fixed_batch_norms(tmp_path):
    settings = settings_of(tmp_path, "fig4", [40.0, 20.0], "bn_learned", [True, False])
    expected = {"BN learned": [40.0], "BN fixed": [20.0]}
    assert points_of(learned_panel(settings, TOP, fig4._MARKS)) == expected


def test_points_of_each_learned_part(tmp_path):
    settings = settings_of(tmp_path, "table1", [40.0, 20.0], "trained", ["fc", "bn"])
    panel = table1.parts_panel([("WRN", settings)], ("bn", "fc"), TOP)
    assert points_of(panel) == {"WRN": [20.0, 40.0]}


def test_points_of_each_fraction_and_of_the_paper(tmp_path):
    settings = settings_of(tmp_path, "table3", [33.0, 11.0], "learned", [0.7, 0.1])
    theirs = [table3.TABLE3[learned][0] for learned in (0.1, 0.7)]
    ours = {"ours": [11.0, 33.0]}
    assert points_of(table3.fractions_panel(settings, same=False)) == ours
    assert points_of(table3.fractions_panel(settings, same=True)) == {"paper": theirs, **ours}
