"""Figures draw results; they compute nothing.

One colour and one marker for each kind of statement, through the whole book:

    certificate  blue       ▶  solid    "the truth is to my right"
    attack       vermilion  ◀  dashed   "the truth is to my left"
    truth        black      |  solid    exact: a closed form, an optimum
    estimate     grey band     an interval

The two classes of the running example are sky and amber. Every function takes and returns an
`Axes`; torch is not needed to draw.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from .risk import Curve

CERTIFICATE, ATTACK, TRUTH, ESTIMATE = "#0072B2", "#D55E00", "#000000", "#8C8C8C"
CLASSES = ("#56B4E9", "#E69F00")
_SIDES = {
    "lower": {"color": CERTIFICATE, "ls": "-", "marker": ">"},
    "upper": {"color": ATTACK, "ls": "--", "marker": "<"},
    "exact": {"color": TRUTH, "ls": "-", "marker": "|"},
}
_MARKS = {"certificate": "lower", "attack": "upper", "truth": "exact"}


def curve(
    *curves: Curve, levels: int | None = None, unit: str = "ε (input units)", ax: Axes | None = None
) -> Axes:
    """Accuracy against ε for `risk.Curve`s, each with its interval as a band.

    Args:
        curves: what to draw; colour, line and marker follow `side`, several of one side differ
            by their fill.
        levels: if given, a second scale above counts ε in grey levels, `levels` of them to 1.
        unit: the label of the ε axis.
    """
    ax = _axes(ax, (6.0, 3.6))
    seen: dict[str, int] = {}
    for c in curves:
        look = dict(_SIDES[c.side])
        nth = seen.setdefault(c.side, 0)
        seen[c.side] += 1
        eps, value, low, high = (_numpy(t) for t in (c.eps, c.value, c.low, c.high))
        ax.fill_between(eps, low, high, color=look["color"], alpha=0.16 - 0.04 * nth, lw=0)
        if c.side == "exact":  # a bar as a marker has no fill to tell two curves apart
            look["ls"] = ("-", ":", "-.")[nth]
        ax.plot(eps, value, label=f"{c.label} (n = {c.n})", ms=6, lw=1.6, mew=1.4,
                mfc=look["color"] if nth == 0 else "white", **look)  # fmt: skip
    ax.set(xlabel=unit, ylabel="accuracy", ylim=(-0.02, 1.04))
    ax.legend(frameon=False)
    if levels is not None:
        above = ax.secondary_xaxis("top", functions=(lambda e: e * levels, lambda g: g / levels))
        above.set_xlabel("ε in grey levels")
    return ax


def ruler(
    rows: Mapping[str, Mapping[str, float]], *, unit: str, levels: int | None = None,
    ax: Axes | None = None,
) -> Axes:  # fmt: skip
    """What is known of one image's distance to the nearest wrong answer, a row a classifier.

    Args:
        rows: name → {"certificate" | "attack" | "truth": radius}. A certificate points right, an
            attack points left, the truth is a bar; what lies between the first two is shaded.
        unit: the label of the axis.
        levels: if given, a second scale above, as in `curve`.
    """
    ax = _axes(ax, (6.4, 0.75 + 0.52 * len(rows)))
    for y, known in enumerate(rows.values()):
        ax.axhline(y, color="#DDDDDD", lw=1, zorder=0)
        if {"certificate", "attack"} <= set(known):
            ax.plot(
                [known["certificate"], known["attack"]], [y, y], color="#BBBBBB", lw=7, zorder=1
            )
        for kind, value in known.items():
            look = _SIDES[_MARKS[kind]]
            tall = {"ms": 20, "mew": 3} if kind == "truth" else {"ms": 10}
            ax.plot(
                value, y, color=look["color"], marker=look["marker"], ls="none", zorder=3, **tall
            )
            ax.annotate(f"{value:.3f}", (value, y), xytext=(0, 12), textcoords="offset points",
                        ha="center", fontsize=8.5, color=look["color"])  # fmt: skip
    ax.set(yticks=range(len(rows)), xlabel=unit, ylim=(len(rows) - 0.45, -0.65))
    ax.set_yticklabels(list(rows))
    ax.set_xlim(0, 1.15 * max(v for known in rows.values() for v in known.values()))
    ax.spines[["left"]].set_visible(False)
    ax.tick_params(axis="y", length=0)
    if levels is not None:
        above = ax.secondary_xaxis("top", functions=(lambda e: e * levels, lambda g: g / levels))
        above.set_xlabel("in grey levels")
    return ax


def scores(
    values: object, y: object, classes: Sequence[str], *, bins: object = 40,
    at: float | None = None, unit: str = "score w·x + b", ax: Axes | None = None,
) -> Axes:  # fmt: skip
    """Two histograms of scores, one a class (y = 0, 1), and the wall at 0.

    Args:
        at: the score of one example, marked by a triangle above the histograms.
    """
    ax = _axes(ax, (6.0, 2.6))
    values, y = _numpy(values), _numpy(y)
    for c, (name, hatch) in enumerate(zip(classes, ("", "////"), strict=True)):
        ax.hist(values[y == c], bins=bins, color=CLASSES[c], alpha=0.75, label=f"class {name}",
                hatch=hatch, edgecolor="white", lw=0.4)  # fmt: skip
    ax.axvline(0, color=TRUTH, lw=1.4)
    if at is not None:
        ax.plot(at, 1.0, marker="v", color=TRUTH, ms=9, clip_on=False, ls="none",
                transform=ax.get_xaxis_transform())  # fmt: skip
    ax.set(xlabel=unit, ylabel="images")
    ax.legend(frameon=False, loc="upper left")
    return ax


def image(x: object, title: str = "", *, ax: Axes | None = None) -> Axes:
    """One image, `[c, h, w]` or `[h, w]` in [0, 1]; a single channel is ink on white."""
    ax = _axes(ax, (2.2, 2.2))
    ax.imshow(_pixels(x), cmap="gray_r", vmin=0, vmax=1)
    return _bare(ax, title)


def change(delta: object, title: str = "", *, most: float, ax: Axes | None = None) -> Axes:
    """A perturbation of one channel: ink added in orange, removed in purple, full at ±`most`."""
    ax = _axes(ax, (2.2, 2.2))
    ax.imshow(_pixels(delta), cmap="PuOr_r", vmin=-most, vmax=most)
    return _bare(ax, title)


def along(
    t: object, lines: Mapping[str, object], *, unit: str, what: str, ax: Axes | None = None
) -> Axes:
    """Functions of one variable. A name that starts with "tangent" is drawn thin and grey."""
    ax = _axes(ax, (6.0, 3.2))
    styles = iter([(TRUTH, "-"), (ATTACK, "--"), (CERTIFICATE, "-."), (CLASSES[1], ":")])
    for name, values in lines.items():
        quiet = name.startswith("tangent")
        color, ls = (ESTIMATE, "-") if quiet else next(styles)
        ax.plot(_numpy(t), _numpy(values), color=color, ls=ls, lw=1.1 if quiet else 1.9, label=name)
    ax.axhline(0, color="#DDDDDD", lw=1, zorder=0)
    ax.set(xlabel=unit, ylabel=what)
    ax.legend(frameon=False)
    return ax


def timeline(events: Sequence[tuple[str, str]], *, ax: Axes | None = None) -> Axes:
    """Dated events down a line, evenly spaced so that every one can be read on a phone."""
    ax = _axes(ax, (6.4, 0.42 * len(events) + 0.2))
    ax.axvline(0, color="#BBBBBB", lw=2, zorder=0)
    for row, (year, what) in enumerate(events):
        ax.plot(0, row, "o", color=TRUTH, ms=6)
        ax.text(-0.035, row, f"{year}", ha="right", va="center", fontweight="bold")
        ax.text(0.035, row, what, ha="left", va="center")
    ax.set(xlim=(-0.16, 1), ylim=(len(events) - 0.5, -0.5))
    ax.set_axis_off()
    return ax


def _axes(ax: Axes | None, size: tuple[float, float]) -> Axes:
    if ax is None:
        import matplotlib.pyplot as plt

        ax = plt.subplots(figsize=size, layout="constrained")[1]
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def _bare(ax: Axes, title: str) -> Axes:
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    ax.set_title(title, fontsize=10)
    return ax


def _pixels(x: object) -> np.ndarray:
    """[h, w] for one channel, else [h, w, c]: the order that `imshow` wants."""
    pixels = _numpy(x)
    if pixels.ndim != 3:
        return pixels
    return pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)


def _numpy(t: object) -> np.ndarray:
    """The one place where tensors become NumPy arrays."""
    return np.asarray(t.detach().cpu() if hasattr(t, "detach") else t)
