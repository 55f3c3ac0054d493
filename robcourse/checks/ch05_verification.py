"""Checks of chapter 5: boxes, lines, triangles, binaries, a needle, and what a verdict may say.

The oracles are closed forms, interval and linear bounds in NumPy and float64, and small linear
programs.
"""

from dataclasses import replace

import numpy as np
import torch
from scipy import optimize

from robcourse import models
from robcourse.threat import Threat

from . import Accepted, Case, Check, oracles
from . import messages as m
from .cases import arrays, generator, numbers, numpy_generator, tensor, until_distinct


def _until_distinct(draw, table, count, label):
    return until_distinct(draw, table, count, label, lambda a, b: abs(a - b) > 5e-3)


def _refuse_parts(answer, names, shapes):
    """As `m.refuse_tuple`, for arrays of these shapes."""
    if said := m.refuse_tuple(answer, names):
        return said
    for value, name, shape in zip(answer, names, shapes, strict=True):
        if said := m.refuse_array(value, shape, name, whole=True):
            return said
    return None


def _compare_parts(answer, table, names):
    """The message for a tuple, by the right numbers and the slips of `table`."""
    if said := _refuse_parts(answer, names, [part.shape for part in table[0]]):
        return said
    return m.compare_all(names, answer, *table)


def _compare_one(answer, table, meaning, **tolerance):
    """The message for one array, by the right numbers and the slips of `table`."""
    (want,), slips = table
    if said := m.refuse_array(answer, want.shape, meaning, whole=True):
        return said
    return m.compare(answer, want, [(part, why) for (part,), why in slips], **tolerance)


def _upper_line(lower, upper):
    """Slope and intercept of the line above a ReLU on [lower, upper]."""
    cut = np.minimum(lower, 0)
    slope = np.where(upper > 0, np.maximum(upper, 0) / np.where(upper > 0, upper - cut, 1), 0)
    return slope, -slope * cut


def _adaptive(lower, upper):
    """The lower slope: that of the stable neurons, and 1 where the triangle is smaller so."""
    return np.where(lower >= 0, 1.0, (upper > 0) & (upper > -lower))


def _pinned(slope):
    """The lower slope of the unstable neurons, whatever their triangle."""
    return lambda lower, upper: np.where((lower < 0) & (upper > 0), slope, lower >= 0)


def _chord(lower, upper):
    """The line through (lower, 0) and (upper, upper), also where the neuron is stable."""
    return upper / (upper - lower), -upper * lower / (upper - lower)


def _step(a, lower, upper, rule=_adaptive, line=_upper_line, swap=False):
    """Coefficients and constant of a linear lower bound, taken back through a ReLU."""
    slope, intercept = line(lower, upper)
    below = (a < 0) if swap else (a >= 0)
    rest = np.where(below, 0, a * intercept).sum(-1)
    return np.where(below, a * rule(lower, upper), a * slope), rest


def _least(a, low, high):
    """The least of a·x over a box."""
    return np.where(a >= 0, a * low, a * high).sum(-1)


# guess_ibp_vs_crown

_WORDS = ("ibp", "crown", "equal")
#: v · relu(w x + b) for x from low to high: (v, w, b, low, high), and what it teaches.
_TOYS = (
    ((1, -1), (1, 1), (2, 1), -1, 1,
     "no neuron is unstable, so lines are exact; boxes forget that both see one x"),
    ((1,), (1,), (0,), -1, 2, "the lower line has slope 1 and falls to −1; the box stops at 0"),
    ((1,), (1,), (0,), -2, 1, "the lower slope is 0 here: both say 0"),
    ((1, -1), (1, -1), (0, 0), -1, 2,
     "two unstable neurons: what both lines give away is more than what the boxes forget"),
)  # fmt: skip


def _toy(v, w, b, low, high):
    """IBP's and CROWN's lower bounds."""
    v, w, b = (np.array(a, float) for a in (v, w, b))
    z = np.sort(np.stack([w * low + b, w * high + b]), axis=0)
    a, rest = _step(v, *z)
    return _least(v, *np.maximum(z, 0)), _least(a @ w, low, high) + a @ b + rest


def guess_ibp_vs_crown_cases(seed):
    return [Case(label="four functions of one input")]


def guess_ibp_vs_crown_judge(case, answer):
    want = "a tuple of four texts, each one of 'ibp', 'crown', 'equal'"
    if not isinstance(answer, tuple | list) or len(answer) != len(_TOYS):
        return m.said(m.named(answer), want)
    bad = [a for a in answer if not isinstance(a, str) or a.strip().lower() not in _WORDS]
    if bad:
        return m.said(m.named(bad[0]), want)
    pairs = [_toy(*toy[:-1]) for toy in _TOYS]
    truth = ["equal" if abs(i - c) < 1e-9 else "ibp" if i > c else "crown" for i, c in pairs]
    given = [a.strip().lower() for a in answer]
    if given == truth:
        return Accepted("IBP and CROWN: " + ", ".join(f"{i:g} and {c:g}" for i, c in pairs))
    if len(set(given)) == 1:
        why = "no theorem says that CROWN never loses: its lower line is fixed by a rule beforehand"
        if given[0] != "crown":
            why = "a box forgets that neurons share x, a line can leave the box: neither always"
        return m.said(f"{given[0]!r} four times", "a mixture", why)
    at = next(i for i, (a, b) in enumerate(zip(given, truth, strict=True)) if a != b)
    return m.said(f"{given[at]!r} for function {at + 1}", repr(truth[at]), _TOYS[at][-1])


# interval_affine


def interval_affine_cases(seed):
    g = generator(seed, 2)

    def draw():
        low = torch.rand(5, generator=g).double() * 2 - 1
        high = low + 0.2 + torch.rand(5, generator=g).double()
        w, b = (torch.randn(*s, generator=g).double() for s in ((3, 5), (3,)))
        return w, b, low, high

    return _until_distinct(draw, _affine, 2, "random, d = 5, k = 3")


def _affine(w, b, low, high):
    """The bounds, and those by each slip."""
    mid, half = (low + high) / 2, (high - low) / 2
    pair = lambda c, r: (c - r, c + r)
    ends, mean, spread = (w @ low + b, w @ high + b), w @ mid + b, abs(w) @ half
    want = pair(mean, spread)
    return want, [
        (ends, "negative weights swap the ends: W @ lower is no lower bound"),
        ((np.minimum(*ends), np.maximum(*ends)),
         "two corners of many: each input chooses its own end, by the sign of its weight"),
        ([np.maximum(w, 0) @ e + b for e in (low, high)], "the negative weights are missing"),
        (want[::-1], "the order is lower, upper: or positive weights took the upper end"),
        (pair(abs(w) @ mid + b, spread), "|W| belongs to the radius; the centre goes through W"),
        (pair(mean - b, spread), "the bias is missing"),
        (pair(mean, spread + abs(b)), "the bias moves the centre and leaves the radius"),
        (pair(mean - b, spread + b), "the bias moves the centre and leaves the radius"),
        (pair(mean, 2 * spread), "the radius is half of upper − lower"),
        (pair(mean, np.sqrt(w**2 @ half**2)), "the ends add up: a sum of |W|, no root of squares"),
    ]  # fmt: skip


def interval_affine_judge(case, answer):
    return _compare_parts(answer, _affine(*numbers(*case.args)), ("lower", "upper"))


# ibp_margin


def ibp_margin_cases(seed):
    g = generator(seed, 3)

    def draw():
        start = int(torch.randint(2**31, (), generator=g))
        model = models.mlp(6, 5, hidden=(8, 6), mean=0.4, std=0.3, seed=start)
        x = torch.rand(8, 6, generator=g).round(decimals=3)
        x[:, :2] = x[:, :2].round()  # on the walls of the box
        y = torch.randint(5, (8,), generator=g)
        eps = 0.06 + 0.06 * torch.rand((), generator=g).item()
        return model, x, y, Threat("linf", round(eps, 3))

    return _until_distinct(draw, _margins, 2, "eight images, five classes")


def _boxed(net, low, high, *, relu=True, first=False, signed=True, moved=1):
    """The box before the last layer: interval arithmetic, and its slips."""
    for w, b in net.layers[:-1]:
        if first:
            low, high, first = np.maximum(low, 0), np.maximum(high, 0), False
        pos, neg = (np.maximum(w, 0), np.minimum(w, 0)) if signed else (w, 0 * w)
        low, high = low @ pos.T + high @ neg.T + moved * b, high @ pos.T + low @ neg.T + moved * b
        if relu:
            low, high = np.maximum(low, 0), np.maximum(high, 0)
    return low, high


def _margins(model, x, y, threat):
    """The least margin of each image by interval bounds, and what it is by each slip."""
    net, rows = oracles.Network(model), np.arange(len(x))
    norm = lambda v: (v - net.mean) / net.std
    around = lambda eps, box=True: [norm(v.clip(0, 1) if box else v) for v in (x - eps, x + eps)]
    eps, (w, b) = threat.eps, net.layers[-1]
    other = np.arange(net.classes) != y[:, None]
    diff, shift = w[y][:, None] - w, b[y][:, None] - b  # [n, k, hidden], [n, k]

    def margins(ends, *, side=-1, **how):
        low, high = _boxed(net, *ends, **how)
        if how.get("signed", True):
            mid, half = (low + high)[:, None] / 2, (high - low)[:, None] / 2
            return (diff * mid + side * abs(diff) * half).sum(2) + shift
        return (diff * low[:, None]).sum(2) + shift

    ends = around(eps)
    least = lambda each: np.where(other, each, np.inf).min(1)
    each, (low, high) = margins(ends), _boxed(net, *ends)
    pos, neg = np.maximum(w, 0), np.minimum(w, 0)
    bottom, top = low @ pos.T + high @ neg.T + b, high @ pos.T + low @ neg.T + b
    apart = lambda a, c: least(a[rows, y][:, None] - c)
    second = np.where(other, net.logits(x), -np.inf).argmax(1)
    at_x, units = norm(x), "ε is in input units: x moves by all of it, not by a part or not at all"
    slips = [
        (apart(bottom, top), "logits differenced after bounding: fold the last layer first, "
         "(W_y − W_j) h + b_y − b_j"),
        (apart(top, bottom), m.SIDE),
        (least(margins(ends, side=1)), m.SIDE),
        (least(margins(around(eps, False))), "box ignored: inputs stay in [0, 1]"),
        (least(margins([at_x - eps, at_x + eps])),
         "ε is in input units: Normalize divides it by std, too"),
        *((least(margins(around(eps / k))), units) for k in (16, 255, 1 / net.std)),
        (net.margin(x, y), units),
        (least(margins(around(eps / 2))), "the box is x ± ε, not x ± ε/2"),
        (least(margins(ends, first=True)), "ReLU before the first affine layer: it comes after"),
        (least(margins(ends, relu=False)), "ReLU is missing"),
        (least(margins(ends, moved=0)), "the offsets of the hidden layers are missing"),
        (least(each - shift), "b_y − b_j is missing: the last layer has offsets, too"),
        (least(margins(ends, signed=False)), "negative weights swap the ends of an interval"),
        (np.where(other, each, -np.inf).max(1), "the smallest of the margins, not the largest"),
        (np.minimum(least(each), 0), "j = y is not among the other classes: its difference is 0"),
        (least(margins([v.clip(0, 1) for v in around(eps, False)])),
         "cut at 0 and 1 first: Normalize moves the box"),
        (each[rows, second], "the class that is second at x need not have the least bound"),
    ]  # fmt: skip
    return [least(each)], [([values], why) for values, why in slips]


def ibp_margin_judge(case, answer):
    model, x, y, threat = case.args
    table = _margins(model, *arrays(x, y), threat)
    # Bounds in float32 that round outward, as the package's do, end some 1e-4 below these.
    return _compare_one(answer, table, "a lower bound of each margin", atol=5e-4)


# triangle


def triangle_cases(seed):
    rng = numpy_generator(seed, 4)
    cases = [Case((tensor([-1, -3, 1, -3, 0]), tensor([3, 1, 2, -1, 0])), "as in the text", True)]

    def draw():
        lo, up = -rng.uniform(0.4, 3, 7), rng.uniform(0.4, 3, 7)
        lo[3], up[4], lo[5], up[6] = up[3] / 2, lo[4] / 2, 0, 0
        return tensor([*lo, 0.0]), tensor([*up, 0.0])

    return cases + _until_distinct(draw, _triangles, 2, "random, the last with l = u = 0")


def _triangles(lo, up):
    """Slope and intercept of the upper line, and those by each slip; `l` and `u` as in the text."""
    slope, intercept = want = _upper_line(lo, up)
    loose, width = (lo < 0) & (up > 0), np.where(up > lo, up - lo, 1)
    part = lambda s, i: (np.where(loose, s, slope), np.where(loose, i, intercept))
    stable, line = (up > 0, 0 * up), (up / width, -up * lo / width)
    return want, [
        *(((line[0], i), "a stable neuron has no triangle: its line is 1·z or 0·z")
          for i in (line[1], intercept)),
        *((part(slope, i), "the intercept is −ul/(u − l): the line is 0 at z = l")
          for i in (lo, -lo, up)),
        (part(slope, -intercept), "the intercept −ul/(u − l) is positive, as l < 0"),
        (part(slope, 0), "the intercept is missing: this line cuts the triangle's tip off"),
        ((_adaptive(lo, up), 0 * up),
         "these are lower lines: the upper one goes through (l, 0) and (u, u)"),
        (stable, "z itself is no upper bound of ReLU(z) for z < 0"),
        (part(-lo / width, intercept), "the slope is u/(u − l)"),
        (part(up / np.where(abs(up + lo) > 1e-3, up + lo, 1), intercept), "u − l: l is negative"),
        ((0 * up, np.maximum(up, 0)), "this is the box: a level line at u"),
    ]  # fmt: skip


def triangle_judge(case, answer):
    names, (lo, up) = ("slope", "intercept"), numbers(*case.args)
    empty = (lo == 0) & (up == 0)
    parts = answer if isinstance(answer, tuple) else ()
    parts = [p for p in parts if isinstance(p, np.ndarray) and p.shape == lo.shape]
    if any(not np.isfinite(p).all() and np.isfinite(p[~empty]).all() for p in parts):
        why = "u/(u − l) is 0/0: treat the stable neurons apart"
        return m.said("a number that is not finite at l = u = 0", "numbers", why)
    if said := _refuse_parts(answer, names, [lo.shape] * 2):
        return said
    slope = np.array(answer[0], float)
    if not ((slope[empty] >= 0) & (slope[empty] <= 1)).all():
        return m.said(f"slope {slope[empty][0]:.6g} at l = u = 0", "a slope from 0 to 1")
    slope[empty] = 0.0  # any line through (0, 0) is tight there
    want, slips = _triangles(lo, up)
    cut = [((np.where(empty, 0, s), i), why) for (s, i), why in slips]
    return m.compare_all(names, (slope, answer[1]), want, cut)


# crown_step


def crown_step_cases(seed):
    rng = numpy_generator(seed, 5)

    def draw():
        lo, up = -rng.uniform(0.4, 2, 8), rng.uniform(0.4, 2, 8)
        up[:2], lo[2:4] = -1.5 * lo[:2], -1.5 * up[2:4]  # both kinds of triangle
        lo[6], up[7] = up[6] / 2, lo[7] / 2  # on, off
        return tensor(rng.standard_normal((3, 8))), tensor(lo), tensor(up)

    return _until_distinct(draw, _steps, 2, "three bounds through eight neurons")


def _steps(a, lo, up):
    """Coefficients and constants before the ReLU, and those by each slip."""
    back, rest = want = _step(a, lo, up)
    slope, intercept = _upper_line(lo, up)
    inverse = lambda lo, up: np.where((lo < 0) & (up > 0), up < -lo, lo >= 0)
    negative = a < 0
    return want, [
        (_step(a, lo, up, swap=True),
         "the lines are swapped: a positive coefficient takes the lower one, a negative the upper"),
        (_step(a, lo, up, _pinned(0)), "sound, but looser: the lower slope is 1 where u > |l|"),
        (_step(a, lo, up, _pinned(1)), "sound, but looser: the lower slope is 0 where u ≤ |l|"),
        (_step(a, lo, up, _pinned(slope)),
         "a parallel lower line is sound, but asked for is the adaptive one: 1 where u > |l|"),
        (_step(a, lo, up, inverse), "the rule is inverted: slope 1 where u > |l|"),
        ((back, 0 * rest), "the intercept is lost: a negative coefficient brings A·(−ul/(u − l))"),
        ((back, -rest), "the intercept has the wrong sign: it makes the bound smaller"),
        ((back, (a * intercept).sum(1)), "an intercept belongs to the upper line only"),
        ((back, (np.maximum(a, 0) * intercept).sum(1)), "the intercepts are those of the negative "
         "coefficients"),
        ((back, (negative * intercept).sum(1)), "the intercept is multiplied by its coefficient"),
        (_step(a, lo, up, line=_chord), "a stable neuron has no triangle: its line is 1·z or 0·z"),
        ((a * _adaptive(lo, up), 0 * rest), "a negative coefficient takes the upper line"),
    ]  # fmt: skip


def crown_step_judge(case, answer):
    return _compare_parts(answer, _steps(*numbers(*case.args)), ("A", "constant"))


# crown_curve


def crown_curve_cases(seed):
    rng = numpy_generator(seed, 6)

    def draw():
        w, v, c = rng.standard_normal((10, 6)), rng.standard_normal(10), rng.uniform(0.5, 2)
        x = np.hstack([rng.uniform(0.02, 0.06, 2), rng.uniform(0.05, 0.95, 4)])
        b = 0.4 * rng.standard_normal(10) - w @ x / 2
        eps = rng.uniform([0.03, 0.1, 0.16, 0.35], [0.06, 0.13, 0.19, 0.45])
        return tensor(w), tensor(b), tensor(v), float(c), tensor(x), tensor(eps)

    return _until_distinct(draw, _curves, 2, "ten neurons, six inputs, four ε")


def _curves(w, b, v, c, x, eps):
    """CROWN's bound at each ε, and what it is by each slip."""
    free = lambda e: (x - e, x + e)
    ends = lambda e: [np.clip(t, 0, 1) for t in free(e)]

    def bound(*, inner=ends, outer=ends, keep=(1, 1), sign=1, boxes=False, order=None, **how):
        out = []
        for e in eps:
            low, high = inner(e)
            mid, half = w @ (low + high) / 2 + b, abs(w) @ (high - low) / 2
            z = mid - half, mid + half
            a, rest = _step(v, *z, **how)
            back = a @ w
            least = sign * _least(sign * back, *outer(e)) + keep[0] * (a @ b) + keep[1] * rest
            if order:
                least += back @ x - e * np.linalg.norm(back, order) - _least(back, *outer(e))
            out.append(c + (_least(v, *np.maximum(z, 0)) if boxes else least))
        return np.array(out)

    scaled = lambda k: bound(inner=lambda e: ends(e / k), outer=lambda e: ends(e / k))
    reused = "intermediate bounds reused from another ε"
    slips = [
        (bound(inner=lambda e: ends(eps[0])), f"{reused}: those of a smaller one are false here"),
        (bound(inner=lambda e: ends(eps[-1])), f"{reused}: sound, but loose"),
        (bound(inner=free, outer=free), "box ignored: inputs stay in [0, 1]"),
        (bound(inner=free), "box ignored in the intermediate bounds: sound, but loose"),
        (bound(outer=free), "box ignored in the last step: sound, but loose"),
        (bound(swap=True), "the lines are swapped: a positive coefficient takes the lower one"),
        (bound(rule=_pinned(0)), "sound, but another rule: the lower slope is 1 where u > |l|"),
        (bound(rule=_pinned(1)), "sound, but another rule: the lower slope is 0 where u ≤ |l|"),
        (bound(keep=(1, 0)), "the intercept is lost"),
        (bound(keep=(0, 1)), "A @ bias is missing: z is Wx + b"),
        (bound(line=_chord), "a stable neuron has no triangle: its line is 1·z or 0·z"),
        (bound(sign=-1), m.SIDE),
        (bound(outer=lambda e: (x, x)), "the last step is missing: the least over the box of x"),
        (bound() - c, "c is missing"),
        (np.maximum(bound(), bound(boxes=True)), "sound, and higher: but asked for is CROWN alone"),
        (bound(boxes=True), "this is IBP: take the lines back to x before the box"),
        (scaled(255), "ε is in input units: do not divide it by 255"),
        (scaled(16), "ε is in input units: do not divide it by 16"),
        *((bound(inner=f, order=k), "an ℓ∞ ball takes off ε times the ℓ1 norm, the dual one")
          for f in (ends, free) for k in (2, np.inf)),
    ]  # fmt: skip
    return [bound()], [([values], why) for values, why in slips]


def crown_curve_judge(case, answer):
    return _compare_one(answer, _curves(*numbers(*case.args)), "one bound for each ε")


# big_m


def big_m_cases(seed):
    rng = numpy_generator(seed, 7)
    cases = [Case((tensor(-1.0), tensor(2.0)), "l = −1, u = 2", True)]
    for k in range(2):
        ends = tensor(rng.uniform(0.6, 1.5)), tensor(rng.uniform(1.8, 3))
        cases.append(Case((-ends[k], ends[1 - k]), "random"))
    return cases


def big_m_judge(case, answer):
    lo, up = (end.item() for end in case.args)
    if said := m.refuse_tuple(answer, ("rows", "right")):
        return said
    count = len(answer[1]) if isinstance(answer[1], np.ndarray) and answer[1].ndim else 4
    meaning = "a row (c_z, c_h, c_a) for each inequality, its right side in `right`"
    for value, shape in zip(answer, ((count, 3), (count,)), strict=True):
        if said := m.refuse_array(value, shape, meaning, whole=True):
            return said
    rows, right = (np.asarray(v, float) for v in answer)
    if not 1 <= count <= 12 or np.abs(rows).max() > 1e6 or np.abs(right).max() > 1e6:
        return m.said(f"{count} inequalities", "four, with coefficients up to a million")
    z = np.linspace(lo, up, 9)
    z, h = z[z != 0], np.maximum(z[z != 0], 0)
    on, off = (_between(rows, right, z, a) for a in (1.0, 0.0))
    holds = lambda ends: (ends[0] <= h + 1e-5) & (h <= ends[1] + 1e-5)
    kept = np.where(z > 0, holds(on), holds(off))
    if not kept.all():
        at = int(kept.argmin())
        got = f"({z[at]:.4g}, {h[at]:.4g}) cut off at a = {int(z[at] > 0)}"
        inverted = np.where(z > 0, holds(off), holds(on)).all()
        why = "M is too small or a sign is wrong (the rows say ≤): a true point is cut off"
        why = "the binary is inverted: a = 1 means that the neuron is on" if inverted else why
        return m.said(got, "every point of the ReLU allowed", why)
    for a, (low, high) in ((1, on), (0, off)):
        wrong = (low <= high + 1e-5) & ((low < h - 1e-5) | (high > h + 1e-5) | ((z > 0) != a))
        if wrong.any():
            at = int(wrong.argmax())
            got = f"h from {low[at]:.4g} to {high[at]:.4g} at z = {z[at]:.4g}, a = {a}"
            why = "h ≥ 0 and h ≥ z are rows, too, whatever a is" if low[at] < h[at] - 1e-5 else ""
            why = why or "the binary decides nothing: two rows have to bound h by a from above"
            return m.said(got, f"h = {h[at]:.4g} there and nowhere else, a = {int(z[at] > 0)}", why)
    return _relaxation(rows, right, lo, up)


def _between(rows, right, z, a):
    """The least and the largest h that the rows allow at each z; crossed where there is none."""
    low, high = np.full(z.shape, -np.inf), np.full(z.shape, np.inf)
    for (cz, ch, ca), r in zip(rows, right, strict=True):
        room = r - cz * z - ca * a
        if abs(ch) <= 1e-9:
            low, high = np.where(room < -1e-5, [[np.inf], [-np.inf]], [low, high])
        elif ch > 0:
            high = np.minimum(high, room / ch)
        else:
            low = np.maximum(low, room / ch)
    return low, high


def _relaxation(rows, right, lo, up):
    """The message unless a in [0, 1] leaves exactly the triangle."""
    for z in np.linspace(lo, up, 9)[1:-1]:
        for sign, want in ((-1, up * (z - lo) / (up - lo)), (1, max(z, 0))):
            room, ends = right - rows[:, 0] * z + 1e-9, [(None, None), (0, 1)]
            found = optimize.linprog([sign, 0], A_ub=rows[:, 1:], b_ub=room, bounds=ends)
            h = found.x[0] if found.status == 0 else -sign * np.inf
            if abs(h - want) > 1e-5 * (1 + up):
                why = "valid for a = 0 and 1, but the relaxation is loose: u and l are the least M"
                why = "h ≥ 0 and h ≥ z are rows whatever a is" if sign > 0 else why
                got = f"h {'down' if sign > 0 else 'up'} to {h:.4g} at z = {z:.4g} for a in [0, 1]"
                return m.said(got, f"{want:.4g}, the triangle's edge", why)
    return None


# hull


def hull_cases(seed):
    rng = numpy_generator(seed, 8)
    text = -1.0, 3.0, tensor([1.0, 0.0, -1.0]), tensor([1.25, 0.0, 0.0])
    cases = [Case(text, "l = −1, u = 3", True)]

    def draw():
        lo, up = -float(rng.uniform(0.5, 2)), float(rng.uniform(0.5, 2))
        shares = np.vstack([rng.dirichlet((2, 2, 2), 4), np.eye(3), [[0.5, 0, 0.5]]])
        return lo, up, tensor(shares @ [lo, 0, up]), tensor(shares @ [0, 0, up])

    return cases + _until_distinct(draw, _shares, 2, "random, with the corners")


def _shares(lo, up, z, h):
    """The weights of the corners (l, 0), (0, 0), (u, u), and those by each slip."""
    weigh = lambda first, last, mid=None: (
        np.stack([first, 1 - first - last if mid is None else mid, last], -1),
    )
    left, top = (z - h) / lo, h / up
    t = (z - lo) / (up - lo)
    want = weigh(left, top)
    return want, [
        (weigh(top, left), "the order of the corners is (l, 0), (0, 0), (u, u)"),
        (weigh(1 - t, t), "this is the chord from (l, 0) to (u, u): the corner (0, 0) is left out"),
        (weigh(-left, top), "l is negative: (z − h)/l is not"),
        (weigh(left, top, 0 * z), "the weights sum to 1: the corner (0, 0) takes the rest"),
        (weigh(z / lo, top), "z = λl + μu: μu is taken off z before you divide by l"),
        (weigh(np.maximum(z / lo, 0), np.maximum(z / up, 0)),
         "h is not used: so every point would lie on the ReLU"),
        (weigh(left, z / up), "the height decides: only (u, u) has one, so its weight is h/u"),
    ]  # fmt: skip


def hull_judge(case, answer):
    return _compare_one(answer, _shares(*numbers(*case.args)), "three weights for each point")


# verdict


def verdict_cases(seed):
    rng, nan, inf, cases = numpy_generator(seed, 9), np.nan, np.inf, []
    for tolerance in (1e-6, 1e-3):
        r = lambda: float(rng.uniform(0.2, 2))
        t = tolerance * float(rng.uniform(0.3, 0.8))
        rows = [  # the proved bound, the margin of the point that was found, allowed, finished
            (r(), inf, 0, 1), (-r(), -r(), 1, 1), (-r(), inf, 0, 0), (r(), inf, 0, 0),
            (-r(), -r(), 1, 0), (t, inf, 0, 1), (-t, inf, 0, 1), (-r(), -r(), 0, 1),
            (-r(), 0.0, 1, 1), (nan, inf, 0, 1), (-r(), t, 1, 1), (-inf, inf, 0, 0),
            (-r(), -t, 1, 1), (r(), r(), 1, 0), (r(), -r(), 0, 1), (tolerance, inf, 0, 1),
        ]  # fmt: skip
        bound, margin, allowed, finished = np.array(rows)[rng.permutation(len(rows))].T
        # A list: two tensors with NaN are never equal, so a change in place could not be seen.
        args = bound.tolist(), tensor(margin), torch.tensor(allowed > 0), torch.tensor(finished > 0)
        cases.append(Case((*args, tolerance), f"sixteen runs, tolerance {tolerance:g}"))
    return cases


def _statuses(bound, margin, allowed, finished, tolerance):
    """Which runs are safe, which are unsafe, and what they are by each slip."""
    allowed, finished, broken = allowed > 0.5, finished > 0.5, np.isnan(bound)
    bound = np.where(broken, -np.inf, bound)

    def codes(*, safe=bound > tolerance, unsafe=allowed & (margin <= 0)):
        return safe & ~unsafe, unsafe

    right = codes()
    tie = "equality counts as an error: margin 0 is a counterexample"
    no_witness = ~(allowed & (margin <= 0))
    return right, [
        (codes(safe=no_witness), "no counterexample found is no proof: this is unknown"),
        (codes(safe=no_witness & finished), "that a solver has finished is no proof: its bound is"),
        (codes(safe=no_witness & ((bound > tolerance) | ~finished)),
         "a time limit proves nothing: this is unknown"),
        *((masks,
           "what was proved before the time limit stays proved, and a counterexample stays one")
          for masks in ([k & finished for k in right], codes(safe=(bound > tolerance) & finished))),
        (codes(safe=bound >= tolerance), "a bound of just the tolerance leaves room for a tie"),
        (codes(safe=bound > 0), "a bound within the solver's tolerance is no proof: unknown"),
        (codes(safe=bound >= -tolerance), "a bound within the solver's tolerance is no proof"),
        (codes(unsafe=margin <= 0), "this point is not in ball and box: no counterexample"),
        *((codes(unsafe=(bound <= 0) & part), "a bound below 0 may be loose: no counterexample")
          for part in (~broken, ~broken & finished, ~broken | True)),
        (codes(unsafe=allowed & (margin < 0)), tie),
        *((codes(unsafe=allowed & (margin <= k)),
           "a point is judged by the network itself: its margin is 0 or less, no tolerance")
          for k in (-tolerance, tolerance)),
        (codes(unsafe=allowed), "an allowed point whose margin is positive is no counterexample"),
        (codes(safe=(bound > tolerance) | broken), "NaN proves nothing: this is unknown"),
        (codes(safe=(bound > 0) | broken),
         "NaN proves nothing, and neither does a bound within the solver's tolerance"),
    ]  # fmt: skip


def verdict_judge(case, answer):
    bound, margin, allowed, finished, _ = args = [np.asarray(a, float) for a in numbers(*case.args)]
    if said := m.refuse_tuple(answer, ("safe", "unsafe")):
        return said
    for value in answer:
        plain = isinstance(value, np.ndarray) and value.shape == bound.shape
        if not (plain and np.isin(value, (0, 1)).all()):
            return m.refuse_array(value, bound.shape, "True or False for each run", dtype="bool")
    given, (right, slips) = np.array(answer) > 0.5, _statuses(*args)
    if (given == right).all():
        return None
    at = int((given != right).any(0).argmax())
    word = lambda masks: ("unknown", "safe", "unsafe", "both")[int(masks[0]) + 2 * int(masks[1])]
    point = f"a point with margin {margin[at]:.4g}, {'' if allowed[at] else 'not '}allowed"
    point = "no point" if np.isinf(margin[at]) else point
    run = f"bound {bound[at]:.4g}, {point}, {'finished' if finished[at] else 'time limit'}"
    why = next((why for masks, why in slips if (masks == given).all()), run)
    return m.said(f"{word(given[:, at])} for run {at}", word([part[at] for part in right]), why)


# needle

_D, _WIDTH = 6, 0.08  # inputs; the ℓ1 size, in turned coordinates, of what a needle touches


def needle_cases(seed):
    rng, cases = numpy_generator(seed, 10), []
    for k in range(2):
        x, eps = rng.uniform(0.35, 0.65, _D), float(rng.uniform(0.2, 0.25))
        x[0] = rng.uniform(0.04, 0.08)
        inside, beyond, outside = x + rng.uniform(-0.8, 0.8, (3, _D)) * eps
        inside[0] = beyond[0] = rng.uniform(0.1, 0.2)
        beyond[1], outside[0] = x[1] + 0.33, -0.09
        model = _haystack(rng, (inside, beyond, outside), (2.0, 3.0, 4.0))
        args = model, tensor(x[None]).float(), torch.tensor([0]), Threat("linf", round(eps, 3))
        cases.append(Case(args, f"network {k + 1} of 2"))
    return cases


def _haystack(rng, points, depths):
    """A network whose margin is 1 but near these points, where it falls to 1 − depth."""
    hidden = 2 * _D * len(points)
    model = models.mlp(_D, 2, hidden=(hidden, len(points)), mean=0.0, std=1.0)
    turns = [np.linalg.qr(rng.standard_normal((_D, _D)))[0] for _ in points]
    order = rng.permutation(hidden)
    first = np.vstack([s * q for q in turns for s in (1, -1)])[order]
    bias = np.hstack([-s * q @ p for q, p in zip(turns, points, strict=True) for s in (1, -1)])
    second = -np.repeat(np.eye(len(points)), 2 * _D, axis=1)[:, order]
    half = np.array(depths)[None] / _WIDTH / 2
    parts = first, bias[order], second, np.full(len(points), _WIDTH), np.vstack([-half, half])
    with torch.no_grad():
        for layer, k in zip((2, 4, 6), range(0, 6, 2), strict=True):
            model[layer].weight.copy_(tensor(parts[k]))
            model[layer].bias.copy_(tensor((*parts, (0.5, -0.5))[k + 1]))
    return model


def needle_judge(case, answer):
    model, x, y, threat = case.args
    x, y = arrays(x, y)
    if said := m.refuse_array(answer, x.shape, "the counterexample"):
        return said
    value = np.asarray(answer, float)
    if said := m.refuse_point(value, x, threat, ()):
        return said
    margin = float(oracles.Network(model).margin(value, y)[0])
    if margin > 1e-5:
        why = "the gradient is 0 here: search by the network's pieces, not by its slope"
        return m.said(f"margin {margin:.6g}", "a margin of 0 or less", why)
    return Accepted(f"margin {margin:.4g}")


# close_the_gap

_ASKED, _IMAGES, _EPS = 0.8, 6, 0.3


def close_the_gap_cases(seed):
    g, cases = generator(seed, 11), []
    for k in range(2):
        start = int(torch.randint(2**31, (), generator=g))
        model = models.mlp(8, 2, hidden=(16, 12), mean=0.0, std=1.0, seed=start)
        layers = oracles.Network(model).layers
        x = torch.rand(_IMAGES, 8, generator=g).double()
        low, high = ((x + s * _EPS).clamp(0, 1).numpy() for s in (-1, 1))
        given = _preactivations(layers, low, high)
        v, c = (part[0] - part[1] for part in layers[2])
        chain = *map(tensor, (*layers[0], *layers[1], v)), float(c)
        args = chain, (tensor(low), tensor(high)), tuple(map(tensor, given))
        cases.append(Case(args, f"network {k + 1} of 2"))
    return cases


def _preactivations(layers, low, high):
    """l₁, u₁ exactly, l₂, u₂ by CROWN, each [n, neurons]."""
    (w1, b1), (w2, b2) = layers[:2]
    mid, half = (low + high) / 2 @ w1.T + b1, (high - low) / 2 @ abs(w1).T
    l1, u1 = mid - half, mid + half
    ends = []
    for s in (1, -1):
        a, rest = _step(s * w2[None], l1[:, None], u1[:, None])
        ends.append(s * (_least(a @ w1, low[:, None], high[:, None]) + a @ b1 + rest + s * b2))
    return l1, u1, *ends


def _bound(chain, box, given, slopes):
    """The lower bounds by lines of these lower slopes on the unstable neurons."""
    (w1, b1, w2, b2, v, c), (l1, u1, l2, u2) = chain, given
    a, rest = _step(v + 0 * l2, l2, u2, _pinned(slopes[1]))
    total = c + rest + a @ b2
    a, rest = _step(a @ w2, l1, u1, _pinned(slopes[0]))
    return total + rest + a @ b1 + _least(a @ w1, *box)


def _triangle_program(chain, box, given, i):
    """The least of v·h over all triangles of image i: the LP, whose dual chooses all slopes."""
    (w1, b1, w2, b2, v, c), (d, n1, n2) = chain, (box[0].shape[1], len(chain[1]), len(chain[3]))
    rows, right, ends = [], [], [*zip(*(e[i] for e in box), strict=True)]
    for w, b, lo, up, at, size in ((w1, b1, *given[:2], 0, d), (w2, b2, *given[2:], d, n1)):
        slope, intercept = _upper_line(lo[i], up[i])
        z = np.zeros((len(b), d + n1 + n2))
        z[:, at : at + size] = w
        h = np.zeros_like(z)
        h[:, at + size : at + size + len(b)] = np.eye(len(b))
        rows += [z - h, h - slope[:, None] * z]
        right += [-b, intercept + slope * b]
        ends += [(0, None)] * len(b)
    cost = np.hstack([np.zeros(d + n1), v])
    found = optimize.linprog(cost, A_ub=np.vstack(rows), b_ub=np.hstack(right), bounds=ends)
    return found.fun + c


def close_the_gap_judge(case, answer):
    shapes = [tuple(case.args[2][k].shape) for k in (0, 2)]
    if said := _refuse_parts(answer, ("first", "second"), shapes):
        return said
    worst = max(max(-a.min(), a.max() - 1) for a in answer)
    if worst > 1e-6:
        why = "only slopes from 0 to 1 stay below ReLU: the bound would be false"
        return m.said(f"a slope {worst:.3g} outside [0, 1]", "slopes from 0 to 1", why)
    return None


def close_the_gap_together(cases, answers):
    """The share of the gap between adaptive CROWN and the LP that the slopes close."""
    won = gap = 0.0
    for case, slopes in zip(cases, answers, strict=True):
        chain, box, given = (numbers(*part) for part in case.args)
        slopes = [np.asarray(s, float).clip(0, 1) for s in slopes]
        rule = [_adaptive(given[k], given[k + 1]) for k in (0, 2)]
        start, best = _bound(chain, box, given, rule), _bound(chain, box, given, slopes)
        ideal = [_triangle_program(chain, box, given, i) for i in range(len(start))]
        won, gap = won + (best - start).sum(), gap + (ideal - start).sum()
    if won >= _ASKED * gap:
        return Accepted(f"objective: {won / gap:.3f} of the gap to the LP closed")
    why = "the right way: more steps, every image by itself, both layers"
    if won < 1e-6:
        why = "no better than the adaptive rule: the bound grows along its gradient in the slopes"
    return m.said(f"{won / gap:.3f} of the gap closed", f"at least {_ASKED}", why)


CHECKS = {
    name: Check(f"05_verification.{name}", points, cases, judge, tuple(teaches))
    for name, points, cases, judge, *teaches in (
        ("guess_ibp_vs_crown", 1, guess_ibp_vs_crown_cases, guess_ibp_vs_crown_judge),
        ("interval_affine", 1, interval_affine_cases, interval_affine_judge),
        ("ibp_margin", 2, ibp_margin_cases, ibp_margin_judge,
         "bounds.ibp", "bounds.ibp_margins", "bounds.margins"),
        ("triangle", 1, triangle_cases, triangle_judge),
        ("crown_step", 3, crown_step_cases, crown_step_judge),
        ("crown_curve", 3, crown_curve_cases, crown_curve_judge,
         "bounds.crown", "bounds.backward"),
        ("big_m", 2, big_m_cases, big_m_judge),
        ("hull", 3, hull_cases, hull_judge),
        ("verdict", 2, verdict_cases, verdict_judge),
        ("needle", 3, needle_cases, needle_judge, "verify.milp", "verify.branch_and_bound"),
        ("close_the_gap", 3, close_the_gap_cases, close_the_gap_judge),
    )
}  # fmt: skip
CHECKS["close_the_gap"] = replace(CHECKS["close_the_gap"], together=close_the_gap_together)
