"""What a student is told: one catalogue of sentences for the whole book, and the shared first steps
of every judge: type, shape, domain.

A message opens with what came and what was expected; the likely slip follows.
"""

import numpy as np

from .plain import Record

BOX = "clamp to the box after you project"
BALL = "project after every step, around x and not around the last point"
DUAL = "you used the p-norm of w; distance in p divides by the dual, q"
SQUARE = "off by exactly a factor ‖w‖: squared where the norm belongs, or the reverse"
SIGN = "right size, wrong sign: you are helping the classifier"
MEAN = "off by exactly n: mean where the statement sums, or the reverse"
ABS = "a wrong prediction got a positive radius: keep the sign of the margin"
SIDE = "this is an upper bound returned as a lower one, or the reverse"
PLUG = "you used k/n; at k = n your certificate is infinite: use a lower confidence bound"
SAME = "selection and estimation share draws: coverage fails"
ROOT2 = "off by √2: see ‖e_y − e_j‖₂"
STATE = "you changed the model's mode or its gradients"
SEED = "draw from torch.Generator().manual_seed(seed), not from the global random state"
TIE = "equality counts as an error for a closed ball"
CASES = "right on the example in the text only: it looks hard-coded"
RETURN = "is a `return` missing?"
GRAD = "your function switches them on for its input: z = x.clone().requires_grad_()"
COPY = "your function changes its input in place: work on a copy"


def said(got, expected, why: str = "") -> str:
    """The form of every message."""
    return f"got {got} / expected {expected}" + (f": {why}" if why else "")


def named(value) -> str:
    """A decoded answer in words, for the first half of a message."""
    if isinstance(value, np.ndarray):
        return f"a tensor of shape {value.shape} and dtype {value.dtype}"
    if isinstance(value, bool) or value is None:
        return str(value)
    if isinstance(value, int | float):
        return f"the number {value:.6g}"
    if isinstance(value, Record):
        return f"a result of type {value.name}"
    if isinstance(value, str):
        return f"the text {value[:40]!r}"
    kind = type(value).__name__
    return f"a {kind} of {len(value)}"


def refuse_array(
    value,
    shape: tuple[int, ...],
    meaning: str,
    *,
    finite: bool = True,
    dtype: str = "floating",
    whole: bool = False,
) -> str | None:
    """The message if `value` is no array of this shape and kind of dtype ("floating" | "integer" |
    "bool"), or holds NaN (or infinity); else None. `whole`: integers will do for floating."""
    want = f"a {dtype} tensor of shape {shape}: {meaning}"
    if value is None:
        return said("None", want, RETURN)
    if isinstance(value, list):
        return said(named(value), want, "torch.stack or torch.tensor makes one")
    if isinstance(value, Record) and "x_adv" in value.fields:
        return said(named(value), want, "return its .x_adv")
    if isinstance(value, tuple):
        return said(named(value), want, "return the tensor alone")
    if not isinstance(value, np.ndarray):
        return said(named(value), want)
    if value.shape != tuple(shape):
        return said(f"shape {value.shape}", f"shape {shape}", f"{meaning}{_reshape(value, shape)}")
    kind = {"f": "floating", "i": "integer", "u": "integer", "b": "bool"}[value.dtype.kind]
    if kind != dtype and not (whole and (kind, dtype) == ("integer", "floating")):
        return said(f"dtype {value.dtype}", f"a {dtype} dtype", meaning)
    bad = ~np.isfinite(value) if finite and kind == "floating" else np.isnan(value.astype(float))
    if bad.any():
        what = "NaN" if np.isnan(value.astype(float)).any() else "infinity"
        return said(f"{what} in {int(bad.sum())} of {value.size} places", "numbers", _nan(what))
    return None


def refuse_number(value, meaning: str, low: float = -np.inf, high: float = np.inf) -> str | None:
    """The message if `value` is no finite number in [low, high]; a 0-dimensional array is one."""
    want = f"one number: {meaning}"
    if value is None:
        return said("None", want, RETURN)
    if isinstance(value, np.ndarray) and value.shape == () and value.dtype.kind in "fiu":
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, int | float):
        slip = ".item() makes one" if isinstance(value, np.ndarray) and value.size == 1 else ""
        return said(named(value), want, slip)
    if not np.isfinite(value):
        return said(f"{value}", want, _nan("NaN" if np.isnan(value) else "infinity"))
    if not low <= value <= high:
        slip = "a share, not a percentage" if high == 1 and 1 < value <= 100 else meaning
        return said(f"{value:.6g}", f"a number from {low:g} to {high:g}", slip)
    return None


def refuse_tuple(value, names: tuple[str, ...]) -> str | None:
    """The message if `value` is no tuple with an entry for each of these names."""
    want = f"a tuple ({', '.join(names)})"
    if value is None:
        return said("None", want, RETURN)
    if not isinstance(value, tuple):
        return said(named(value), want, f"end with `return {', '.join(names)}`")
    if len(value) != len(names):
        return said(f"a tuple of {len(value)}", want)
    return None


def refuse_numbers(answer, names: tuple[str, ...], what: str) -> str | None:
    """As `refuse_tuple`, for numbers."""
    if message := refuse_tuple(answer, names):
        return message
    each = (refuse_number(value, f"{what} {n}") for n, value in zip(names, answer, strict=True))
    return next(filter(None, each), None)


def refuse_point(x_adv: np.ndarray, x: np.ndarray, threat, slips=None) -> str | None:
    """The message if a point leaves the ball or the box, by the tolerance of `Threat.contains`.

    `slips` are pairs of wrong points and their message; None where points are made in many steps.
    """
    order = {"linf": np.inf, "l2": 2, "l1": 1}[threat.norm]
    z, flat = (a.astype(float).reshape(len(x), -1) for a in (x_adv, x))
    size = np.linalg.norm(z - flat, order, axis=1)
    like = [why for wrong, why in slips or () if np.allclose(z, wrong, rtol=1e-4, atol=1e-4)]
    if not (size <= threat.eps * (1 + 1e-5) + 1e-6).all():
        why = BALL if slips is None else (like or [""])[0]
        return said(f"‖δ‖ = {size.max():.4g}", f"at most ε = {threat.eps:.4g}", why)
    if threat.box is not None:
        low, high = threat.box
        by = max(low - z.min(), z.max() - high)
        if not by <= 0:
            why = f"x_adv leaves [{low:g}, {high:g}] by {by:.2g}: {BOX}"
            got = f"inputs from {z.min():.4g} to {z.max():.4g}"
            return said(got, f"[{low:g}, {high:g}]", (like or [why])[0])
    return None


def compare(
    value,
    want,
    slips,
    *,
    what: str = "",
    rtol: float = 1e-4,
    atol: float = 1e-5,
    unique: bool = False,
) -> str | None:
    """None where the numbers agree; else the first slip whose wrong numbers they are, or the bare
    difference.

    `slips` is a list of (wrong numbers, message); `what` names the numbers. The tolerance is that
    of float32: answers come from it, and sums of a few hundred terms lose about 1e-5 of their size.
    `unique`: name no slip where several give these numbers.
    """
    value, want = np.asarray(value, dtype=float), np.asarray(want, dtype=float)

    def close(a):
        return np.shape(a) == value.shape and np.allclose(value, a, rtol=rtol, atol=atol)

    if close(want):
        return None
    at = np.unravel_index(np.argmax(np.abs(value - want)), want.shape)
    place = f" at {'example ' if len(at) == 1 else ''}{', '.join(map(str, at))}" if at else ""
    like = list(dict.fromkeys(why for wrong, why in slips if close(np.asarray(wrong, float))))
    why = like[0] if len(like) == 1 or (like and not unique) else ""
    return said(f"{what}{value[at]:.6g}{place}", f"{what}{want[at].round(12):.6g}", why)


def compare_all(names, answer, want, slips, **tolerance) -> str | None:
    """`compare` part by part; a slip that gives all of them comes first."""
    answer = [np.asarray(a, float) for a in answer]
    near = {"rtol": 1e-4, "atol": 1e-5} | tolerance
    same = lambda slip: all(np.allclose(a, b, **near) for a, b in zip(answer, slip, strict=True))
    slips = sorted(slips, key=lambda slip: not same(slip[0]))
    for k, name in enumerate(names):
        each = [(slip[k], why) for slip, why in slips]
        if message := compare(answer[k], want[k], each, what=f"{name} ", **tolerance):
            return message
    return None


def _reshape(value, shape):
    if value.size == np.prod(shape) and value.ndim != len(shape):
        return " (the numbers are as many as they should be: a dimension of 1 too many or too few?)"
    return ""


def _nan(what):
    return "a division by 0 or a norm of 0?" if what == "infinity" else "0/0, or inf − inf?"
