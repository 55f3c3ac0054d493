"""Figures draw what they were given, each kind of statement in its own colour."""

import subprocess
import sys

import matplotlib
import numpy as np
import pytest
import torch

from robcourse import plots
from robcourse.risk import Curve

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # after the backend is chosen


@pytest.fixture(autouse=True)
def _closed():
    yield
    plt.close("all")


def a_curve(side: str, label: str = "a") -> Curve:
    eps = torch.tensor([0.0, 0.1, 0.2], dtype=torch.float64)
    value = torch.tensor([0.9, 0.5, 0.1], dtype=torch.float64)
    return Curve(eps, value, value - 0.05, value + 0.05, 100, side, label)


@pytest.mark.parametrize(
    ("side", "color", "dash", "marker"),
    [
        ("upper", plots.ATTACK, "--", "<"),
        ("lower", plots.CERTIFICATE, "-", ">"),
        ("exact", plots.TRUTH, "-", "|"),
    ],
)
def test_a_curve_wears_the_look_of_its_side(side, color, dash, marker):
    ax = plots.curve(a_curve(side))
    (line,) = ax.lines
    assert (line.get_color(), line.get_linestyle(), line.get_marker()) == (color, dash, marker)
    np.testing.assert_array_equal(line.get_xdata(), [0.0, 0.1, 0.2])
    np.testing.assert_array_equal(line.get_ydata(), [0.9, 0.5, 0.1])
    (band,) = ax.collections
    heights = band.get_paths()[0].vertices[:, 1]
    assert heights.min() == pytest.approx(0.05)
    assert heights.max() == pytest.approx(0.95)
    assert "n = 100" in ax.get_legend().get_texts()[0].get_text()


@pytest.mark.parametrize("side", ["upper", "exact"])
def test_two_curves_of_one_side_can_be_told_apart(side):
    first, second = plots.curve(a_curve(side, "a"), a_curve(side, "b")).lines
    look = [(line.get_linestyle(), line.get_markerfacecolor()) for line in (first, second)]
    assert look[0] != look[1]


def test_the_second_scale_counts_grey_levels():
    ax = plots.curve(a_curve("upper"), levels=16)
    ax.figure.canvas.draw()
    (above,) = ax.child_axes
    assert above.get_xlim()[1] == pytest.approx(16 * ax.get_xlim()[1])
    assert "grey" in above.get_xlabel()


def test_the_ruler_puts_each_mark_where_it_belongs():
    rows = {
        "net": {"certificate": 0.1, "attack": 0.3, "truth": 0.25},
        "line": {"truth": 0.2},
    }
    ax = plots.ruler(rows, unit="distance")
    marks = {
        (
            line.get_marker(),
            float(line.get_xdata()[0]),
            float(line.get_ydata()[0]),
        ): line.get_color()
        for line in ax.lines
        if line.get_marker() in "<>|"
    }
    assert marks == {
        (">", 0.1, 0.0): plots.CERTIFICATE,
        ("<", 0.3, 0.0): plots.ATTACK,
        ("|", 0.25, 0.0): plots.TRUTH,
        ("|", 0.2, 1.0): plots.TRUTH,
    }
    assert [t.get_text() for t in ax.get_yticklabels()] == ["net", "line"]
    assert ax.get_xlim()[1] > 0.3


def test_histograms_count_every_score_of_every_class():
    scores, y = torch.tensor([-2.0, -1.5, 1.0, 2.0, 0.5]), torch.tensor([0, 0, 0, 1, 1])
    ax = plots.scores(scores, y, ("3", "8"), bins=[-3, -1, 0, 1.5, 3], at=0.5)
    counted = [[bar.get_height() for bar in bars] for bars in ax.containers]
    assert counted == [[2, 0, 1, 0], [0, 0, 1, 1]]
    first, second = (next(iter(bars)) for bars in ax.containers)
    assert first.get_hatch() != second.get_hatch()  # told apart without colour
    assert any(line.get_marker() == "v" and line.get_xdata()[0] == 0.5 for line in ax.lines)


@pytest.mark.parametrize("shape", [(8, 8), (1, 8, 8), (3, 8, 8)])
def test_an_image_is_shown_as_it_is(shape):
    x = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    shown = plots.image(x, "title").images[0].get_array()
    want = x.squeeze().numpy() if shape[0] != 3 else x.permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(np.asarray(shown), want)


def test_a_change_has_one_scale_for_more_and_less():
    picture = plots.change(torch.tensor([[0.25, -0.25]]), most=0.5).images[0]
    assert picture.get_clim() == (-0.5, 0.5)
    more, less = (picture.cmap(picture.norm(v))[:3] for v in (0.25, -0.25))
    assert more[0] > more[2]  # orange
    assert less[2] > less[1]  # purple


def test_tangents_are_quiet_and_functions_are_not():
    t = torch.linspace(-1, 1, 5)
    ax = plots.along(t, {"f": t**2, "tangent at 0": 0 * t}, unit="t", what="value")
    by_name = {line.get_label(): line for line in ax.lines}
    assert by_name["tangent at 0"].get_color() == plots.ESTIMATE
    assert by_name["f"].get_linewidth() > by_name["tangent at 0"].get_linewidth()


def test_a_timeline_says_everything_in_order():
    events = [("2004", "first"), ("Dec 2013", "second")]
    texts = [t.get_text() for t in plots.timeline(events).texts]
    assert texts == ["2004", "first", "Dec 2013", "second"]


def test_an_axes_that_is_given_is_used():
    _, ax = plt.subplots()
    for draw in (
        lambda: plots.curve(a_curve("upper"), ax=ax),
        lambda: plots.image(torch.zeros(2, 2), ax=ax),
        lambda: plots.timeline([("1", "a")], ax=ax),
    ):
        assert draw() is ax


def test_drawing_needs_no_torch():
    code = (
        "import sys; import robcourse.plots, robcourse.widgets; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
