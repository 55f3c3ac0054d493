"""Checks of chapter 4: speed limits, their products, norms from above, and what keeps lengths.

The oracles are singular values, convolutions written out as matrices, closed forms and the
networks again in NumPy, in float64.
"""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import torch
from numpy.linalg import norm as _norm

from robcourse import data

from . import Accepted, Case, Check
from . import messages as m
from .cases import arrays, generator, numpy_generator, tensor


def _distinct(slips, want, least=1e-3) -> bool:
    """Whether slips with different messages give different numbers, and none the right ones."""
    each = [*((np.ravel(a), why) for a, why in slips), (np.ravel(want), "right")]
    far = lambda a, b: a.shape != b.shape or (abs(a - b) > least * (1 + abs(b))).any()
    return all(far(a, b) for i, (a, one) in enumerate(each) for b, two in each[:i] if one != two)


def _top(a) -> float:
    """The largest singular value."""
    return float(_norm(a, 2))


# guess_v

_SLOPES = np.array([0.5, 0.5, 1.0, 1.0])
_NETS = ("ReLU, width 2", "ReLU, width 1000", "ReLU, a thousand layers", "MaxMin")


def guess_v_cases(seed):
    return [Case(label="slopes −s and s, all norms at most 1")]


def guess_v_judge(case, answer):
    if isinstance(answer, np.ndarray) and answer.ndim == 1:
        answer = answer.tolist()
    if not isinstance(answer, tuple | list) or len(answer) != len(_NETS):
        return m.said(m.named(answer), f"a tuple of four slopes: {'; '.join(_NETS)}")
    for value, net in zip(answer, _NETS, strict=True):
        if said := m.refuse_number(value, f"the slope, {net}", 0.0, 1.0):
            return said
    guess = np.array(answer, float)
    off = abs(guess - _SLOPES) > 0.1 + 1e-9
    if not off.any():
        least = np.cos(np.pi / 1000) ** 1000
        return Accepted(f"½, ½, at least {least:.3f}, and 1: only MaxMin attains it")
    at = int(off.argmax())
    alone = "each matrix has one unit for both sides, in squares; and there are two matrices"
    if guess[0] > 0.9:
        alone = "universality was proved without a limit on the norms"
    elif guess[0] < 0.1:
        alone = "the theorem forbids a slope of exactly ±1, not every V"
    elif guess[0] < 0.4:
        alone = "a V, but not the steepest: one unit for each side, in equal shares"
    whys = [
        alone,
        "wider does not help: the slope jumps by Σ|cᵢaᵢ| ≤ ‖c‖‖a‖ ≤ 1, whatever the width",
        "deeper helps: exactly ±1 is forbidden, but each layer turns the branches further apart",
        "max(x, −x) = |x|, and min(x, −x) = −|x| is not thrown away",
    ]
    return m.said(f"{guess[at]:g} for {_NETS[at]}", f"{_SLOPES[at]:g} within 0.1", whys[at])


# product_bound


def product_bound_cases(seed):
    rng = numpy_generator(seed, 1)
    text = [tensor([[3.0, 0.0], [4.0, 5.0]]), tensor([[2.0, 1.0]])]
    cases = [Case((text, 0.4), "(3 0; 4 5), then (2 1); std = 0.4", True)]
    while len(cases) < 3:
        sizes = (5, 7, 4, 3)[: 2 + len(cases)]
        weights = [_flat(rng.standard_normal((b, a))) * rng.uniform(0.4, 1.5)
                   for a, b in pairwise(sizes)]  # fmt: skip
        std = float(rng.uniform(0.25, 0.45))
        if _distinct(_products(weights, std)[1], _products(weights, std)[0], 0.01):
            args = ([tensor(w) for w in weights], std)
            cases.append(Case(args, f"random, {len(weights)} layers, std = {std:.3g}"))
    return cases


def _flat(a):
    """Two singular values that are nearly the same: a power iteration takes long to part them."""
    u, s, v = np.linalg.svd(a, full_matrices=False)
    s[1] = 0.98 * s[0]
    return (u * s) @ v


def _products(weights, std):
    """The bound in input units, and what it is by each slip."""
    each = lambda size: np.array([size(w) for w in weights])
    by = lambda size: np.prod(each(size)) / std
    order = lambda p: lambda w: _norm(w, p)
    want, norms, whole = by(_top), each(_top), weights[0]
    for w in weights[1:]:
        whole = w @ whole
    loose = "valid, but loose by up to the root of the rank: the largest singular value"
    return want, [
        (by(_norm), loose),
        (by(lambda w: np.sqrt(_norm(w, 1) * _norm(w, np.inf))), "valid, but loose: σ_max itself"),
        (by(order("nuc")), "the largest singular value, not their sum"),
        (norms.sum() / std, "layers follow one another: their norms multiply"),
        (norms.sum(), "layers follow one another: their norms multiply"),
        (by(lambda w: abs(w).max()), f"the largest entry is no norm of the map; {m.SIDE}"),
        (by(order(-2)), "the smallest singular value: the largest is asked for"),
        *((_top(whole) / s, "the activations stand between: the norm of W₂W₁ is no bound")
          for s in (1, std)),
        *((by(order(p)), "row or column sums measure ℓ∞ or ℓ1, here lengths are ℓ2")
          for p in (1, np.inf)),
        (want * std, "std is missing: the first layer sees x / std"),
        (want * std**2, "x is divided by std, so the bound is, too"),
        (want / std ** (len(weights) - 1), "only the first layer sees x / std"),
        (want**2 * std, "the largest eigenvalue of WᵀW is the square of the norm"),
        *((f(norms) / std, "every layer counts") for f in (max, min)),
    ]  # fmt: skip


def product_bound_judge(case, answer):
    weights, std = case.args
    if said := m.refuse_number(answer, "the bound"):
        return said
    return _compare_from_below(float(answer), *_products(arrays(*weights), std), 1e-4)


def _compare_from_below(value, want, slips, rtol):
    """As `compare`; a number below the norm that is no other slip may be an estimate."""
    said = m.compare(value, want, slips, rtol=rtol)
    if said and 0 < value < want and not any(_is(value, wrong) for wrong, _ in slips):
        why = "below the norm: something is left out, or a power iteration, which comes from below"
        return m.said(f"{value:.6g}", f"{want:.6g}", why)
    return said


# certified_radius

_ITSELF = "the gap of y to itself is 0: leave y out"


def certified_radius_cases(seed):
    rng = numpy_generator(seed, 2)
    text = (tensor([[3.0, 1.0, 0.0], [1.0, 3.0, 2.0]]), torch.tensor([0, 0]), 1.0)
    cases = [Case(text, "logits (3, 1, 0) and (1, 3, 2), y = 0, L = 1", True)]
    while len(cases) < 3:
        z, y = rng.normal(0, 3, (7, 5)), rng.integers(0, 5, 7)
        z[np.arange(5), y[:5]] = z[:5].max(1) + rng.uniform(0.5, 2, 5)
        z[4] -= z[4].max() + rng.uniform(20, 30)
        limit = float(rng.uniform(1.5, 4) if len(cases) == 1 else rng.uniform(0.2, 0.7))
        want, slips = _radii(z, y, limit)
        if (want == 0).sum() >= 1 and _distinct([(np.maximum(a, 0), s) for a, s in slips], want):
            args = (tensor(z), torch.tensor(y), limit)
            cases.append(Case(args, f"random, L = {limit:.3g}"))
    return cases


def _others(z, y):
    """z_y − z_j for the other classes, sorted, the runner-up first."""
    rows = np.arange(len(z))
    gaps = z[rows, y][:, None] - z
    gaps[rows, y] = np.inf
    return np.sort(gaps, 1)[:, :-1]


def _radii(z, y, limit):
    """The radius, and what it is by each slip; below 0 nothing is certified."""
    gaps, order = _others(z, y), np.sort(z, 1)
    gap, p = gaps[:, 0], np.exp(z - z.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    root, rows = 2**0.5, np.arange(len(z))
    after = z[rows, y] - z[rows, (y + 1) % z.shape[1]]
    pair = "the wrong pair of classes: the runner-up is the first to catch up"
    return np.maximum(gap, 0) / (root * limit), [
        (gap / (2 * limit), f"valid, but not tight: {m.ROOT2}"),
        (gap / limit, f"too large: {m.ROOT2}"),
        (root * gap / limit, f"too large: divide by √2, not by its inverse; {m.ROOT2}"),
        *((abs(gap) / (c * limit), m.ABS) for c in (1, root, 2)),
        *(((order[:, -1] - order[:, -2]) / (c * limit), f"of the answer, not of y: {m.ABS}")
          for c in (1, root, 2)),
        *((other / (c * limit), pair) for c in (1, root, 2)
          for other in (gaps[:, -1], gaps[:, 1], gaps.mean(1), after)),
        *((z[rows, y] / (c * limit), "a logit alone says nothing: the gap to the runner-up")
          for c in (1, root)),
        *((_others(p, y)[:, 0] / (c * limit), "L is of the logits, not of probabilities")
          for c in (1, root, 2)),
        (0 * gap, _ITSELF),
        *(((z[rows, y] - np.maximum(z[rows, y] - gap, low)) / (root * limit),
           "leave y out with −∞, not with a number") for low in (0, -1, -10)),
        (gap / (2 * limit) ** 0.5, "√2 stands beside L, and not √(2L)"),
        (gap / root, "L is missing"),
        (gap * limit / root, "a steeper network has shorter radii: divide by L"),
        (gap / (root * limit**2), "divide by L, not by its square"),
    ]  # fmt: skip


def _refuse_radius(answer, want):
    """Type and shape, then a negative number where 0 stands."""
    if said := m.refuse_array(answer, want.shape, "one radius an image", whole=True):
        return said
    value = np.asarray(answer, float)
    if (value < 0).any() and np.allclose(np.maximum(value, 0), want, rtol=1e-4, atol=1e-5):
        return m.said(f"{value.min():.6g}", "0", "a wrong answer is certified nowhere: 0")
    return None


def certified_radius_judge(case, answer):
    want, slips = _radii(*arrays(*case.args[:2]), case.args[2])
    if said := _refuse_radius(answer, want):
        return said
    return m.compare(np.maximum(answer, 0), want, [(np.maximum(a, 0), why) for a, why in slips])


# pair_radius


def pair_radius_cases(seed):
    rng, cases = numpy_generator(seed, 3), []
    while len(cases) < 2:
        weight, y = rng.standard_normal((4, 6)) * rng.uniform(0.3, 1.5, (4, 1)), np.arange(7) % 4
        z = rng.normal(0, 2, (7, 4))
        z[np.arange(5), y[:5]] = z[:5].max(1) + rng.uniform(0.3, 1, 5)
        y[5:] = z[5].argsort()[2], z[6].argmin()
        before = float(rng.uniform(1.5, 3) ** (-1) ** len(cases))
        want, slips = _pairs(z, weight, y, before)
        if _distinct([(np.maximum(a, 0), why) for a, why in slips], want):
            args = (tensor(z), tensor(weight), torch.tensor(y), before)
            cases.append(Case(args, f"random, L before = {before:.3g}"))
    return cases


def _pairs(z, weight, y, before):
    """The radius, and what it is by each slip."""
    rows, root = np.arange(len(z)), 2**0.5
    gap = z[rows, y][:, None] - z
    between = weight[y][:, None] - weight
    sizes = _norm(weight, axis=1)

    def least(size, take=np.min):
        ratio = gap / np.where(np.arange(z.shape[1]) == y[:, None], np.nan, size)
        return np.apply_along_axis(lambda r: take(r[~np.isnan(r)]), 1, ratio)

    order = np.where(np.arange(z.shape[1]) == y[:, None], -np.inf, z).argsort(1)
    runner, pair = order[:, -1], _norm(between, axis=2)
    full = least(_norm(between, axis=2) * before)
    near, label, two = gap[rows, runner], z.argmax(1), order[:, -2:]
    first = np.take_along_axis(gap, two, 1) / np.take_along_axis(pair * before, two, 1)
    answered = full if (label == y).all() else _pairs(z, weight, label, before)[0]
    every = "each class has its own distance: the runner-up in logits need not be the nearest"
    return np.maximum(full, 0), [
        (near / (pair[rows, runner] * before), every),
        (first.min(1), every),
        (0 * full, _ITSELF),
        (least(pair * before, lambda ratio: min(ratio[ratio > 0], default=0)), m.ABS),
        *((near / (s * before), "valid, but loose: each class has its own ‖w_y − w_j‖")
          for s in (pair.max(1), pair.max())),
        *((near / (c * s * before), "valid, but loose: L of the logits, not of z_y − z_j")
          for c in (root, 2) for s in (_top(weight), _norm(weight))),
        (near / (_top(weight) * before), "no bound: ‖w_y − w_j‖ may be up to √2 times ‖W‖"),
        *((full / c, "√2 and ‖w_y − w_j‖ are the same step, taken twice") for c in (root, 2)),
        (least((sizes[y][:, None] + sizes) * before), "valid, but loose: ‖w_y − w_j‖, not the sum"),
        (least(np.hypot(sizes[y][:, None], sizes) * before),
         "‖w_y − w_j‖ is not √(‖w_y‖² + ‖w_j‖²) unless the two are at right angles"),
        (least(_norm(between) * before), "one length for each pair: the norm over dimension 2"),
        (least(sizes * before), "the difference z_y − z_j moves with w_y − w_j, not with w_j"),
        (least(sizes[y][:, None] * before), "z_y − z_j moves with w_y − w_j, not with w_y alone"),
        (least(pair * before, np.max), "the nearest class decides: the least of them"),
        (least(pair * before, np.mean), "the nearest class decides, not a mean"),
        (full * before, "the layers before are missing"),
        (full * before**2, "a steeper network has shorter radii: divide by what comes before"),
        (least(pair**2 * before), m.SQUARE),
        *((least(abs(between).max(2) * before), "the ℓ2 norm: ‖w_y − w_j‖₂"),
          (least(abs(between).sum(2) * before), "the ℓ2 norm: ‖w_y − w_j‖₂")),
        *((a, m.ABS) for a in (abs(full), least(pair * before, lambda ratio: abs(ratio).min()))),
        (answered, f"of the answer, not of y: {m.ABS}"),
    ]  # fmt: skip


def pair_radius_judge(case, answer):
    want, slips = _pairs(*arrays(*case.args[:3]), case.args[3])
    if isinstance(answer, np.ndarray) and answer.dtype.kind == "f" and np.isnan(answer).any():
        return m.said("NaN", "numbers", "the pair of y with itself is 0/0: leave it out")
    if said := _refuse_radius(answer, want):
        return said
    return m.compare(np.maximum(answer, 0), want, [(np.maximum(a, 0), why) for a, why in slips])


# root_two


def root_two_cases(seed):
    rng = numpy_generator(seed, 4)
    cases = [
        Case(
            (tensor([0.0, 0.0, 0.0]), tensor([3.0, 1.0]), 1.0), "x = 0, logits (3, 1), L = 1", True
        )
    ]
    for d, k in ((4, 3), (2, 6)):
        x, z = rng.uniform(0.2, 1, d), rng.permutation(np.arange(k) + rng.uniform(0.2, 0.8, k))
        limit = float(rng.uniform(1.5, 3) ** (1 if k == 3 else -1))
        cases.append(Case((tensor(x), tensor(z), limit), f"random, d = {d}, k = {k}"))
    return cases


def root_two_judge(case, answer):
    x, z, limit = arrays(*case.args)
    if said := m.refuse_tuple(answer, ("w", "x2")):
        return said
    w, x2 = answer
    for value, shape, name in ((w, (len(z), len(x)), "w"), (x2, x.shape, "x2")):
        if said := m.refuse_array(value, shape, name, whole=True):
            return f"got for {name}: {said[4:]}"
        if not np.abs(value).max(initial=0) < 1e6:
            return m.said(f"numbers of {np.abs(value).max():.3g} in {name}", "moderate ones")
    w, x2 = np.asarray(w, float), np.asarray(x2, float)
    first, second = np.argsort(z)[::-1][:2]
    gap, size, way = z[first] - z[second], _top(w), x2 - x
    if size > limit * (1 + 1e-4):
        why = "the largest singular value of w is the network's speed limit"
        if _is(size, 2**0.5 * limit):
            why = "‖e_j − e_y‖ = √2 belongs to the norm of w, too"
        return m.said(f"‖w‖ = {size:.6g}", f"at most L = {limit:.6g}", why)
    far, want = float(_norm(way)), gap / (2**0.5 * limit)
    after = z + w @ way
    left = float(after[first] - np.delete(after, first).max())
    slips = [
        (gap / (2 * limit), "γ/(2L): no network of this limit has lost its answer there"),
        (gap / limit, "γ/L is reached if one logit moves: let one fall and the other rise"),
        (2**0.5 * gap / limit, "divide by √2, do not multiply"),
        (gap / 2**0.5, "L is missing"),
        *(((z[first] - other) / (2**0.5 * limit), "the runner-up is the first to catch up")
          for other in z if other < z[second]),
        (0.0, "x2 is x: nothing has moved"),
        *([(float(_norm(x2 - x)), "x2 is the point itself, not the way to it: add x")]
          * _is(_norm(x2), gap / (2**0.5 * limit))),
    ]  # fmt: skip
    if said := m.compare(far, want, slips, what="‖x2 − x‖ = "):
        return said
    if abs(left) > 1e-3 * gap:
        if left > gap:
            why = m.SIGN
        elif size < limit * (1 - 1e-3):
            why = f"‖w‖ = {size:.4g}: use all of L, along x2 − x"
        else:
            why = "let the first fall and the second rise, by the same amount"
        return m.said(f"a margin of {left:.6g} at x2", "0: a tie", why)
    return None


def _is(a, b):
    return bool(abs(a - b) <= 1e-3 * abs(b))


# conv_norm


def conv_norm_cases(seed):
    rng = numpy_generator(seed, 5)
    row = tensor([[[[0, 0, 0], [1, 1, 1], [0, 0, 0]]]])
    cases = [Case((row, (8, 8), 1), "(0 0 0; 1 1 1; 0 0 0) on 8×8", True)]
    for o, i, k, size, stride in ((2, 3, 3, (5, 7), 1), (3, 2, 3, (6, 5), 2), (2, 2, 5, (7, 6), 1)):
        while True:
            kernel = rng.standard_normal((o, i, k, k)) + rng.uniform(-0.6, 0.6, (o, i, 1, 1))
            if _distinct(*reversed(_conv_norms(kernel, size, stride)), 2.5e-3):
                break
        label = f"random, {o}×{i}×{k}×{k} on {size[0]}×{size[1]}, stride {stride}"
        cases.append(Case((tensor(kernel), size, stride), label))
    return cases


def _matrix(kernel, size, stride, pad, around=False):
    """The convolution written out: a row for each output, a column for each input."""
    (o, i, k, _), (h, w) = kernel.shape, size
    rows, cols = ((n + 2 * pad - k) // stride + 1 for n in size)
    out = np.zeros((o, rows, cols, i, h, w))
    for a, b, c, d in np.ndindex(rows, cols, k, k):
        y, x = stride * a + c - pad, stride * b + d - pad
        if around or (0 <= y < h and 0 <= x < w):
            out[:, a, b, :, y % h, x % w] += kernel[:, :, c, d]
    return out.reshape(o * rows * cols, i * h * w)


def _conv_norms(kernel, size, stride):
    """The norm of the convolution, and what it is by each slip."""
    o, i, k, _ = kernel.shape
    full, pad = _matrix(kernel, size, stride, k // 2), k // 2
    flat = [_top(kernel.reshape(o, -1)), _top(kernel.transpose(1, 0, 2, 3).reshape(i, -1))]
    reshaped = "the norm of the reshaped kernel: it sees each input once, the layer up to k² times"
    slips = [
        (_top(_matrix(kernel, size, stride, pad, True)),
         "circular for zero padding: it differs at the rim"),
        *((f, reshaped) for f in flat),
        *((k * f, "k times the norm of the reshaped kernel is a true bound, but not the norm")
          for f in flat),
        *((_top(_matrix(kernel, size, stride, p)), f"the padding is K // 2 zeros, not {p}")
          for p in {0, 1} - {pad}),
        *[(max(_top(part) for part in full.reshape(o, -1, full.shape[1])),
           "all outputs together")] * (o > 1),
        (_top(kernel.sum((2, 3))), "what happens to an even image: others are stretched more"),
        (_top(full) ** 2, "the largest eigenvalue of AᵀA is the square of the norm"),
        (_norm(full), "the Frobenius norm is valid, but loose: the largest singular value"),
        (_norm(kernel), "the norm of the kernel's numbers is not that of the layer"),
        (abs(kernel).sum(), "the sum of the sizes is valid, but loose"),
        (_power(full, 1), "one power step is an estimate from below: many steps, or the matrix"),
    ]  # fmt: skip
    if stride > 1:
        slips.append((_top(_matrix(kernel, size, 1, pad)), "the stride leaves outputs away"))
    if size[0] != size[1]:
        other = _top(_matrix(kernel, size[::-1], stride, pad))
        slips += [(other, "size is (height, width)")] * (not _is(other, _top(full)))
    return _top(full), slips


def _power(a, steps):
    """A power iteration from (1, …, 1): never above the norm."""
    return _estimate(a, np.ones(a.shape[1]) / a.shape[1] ** 0.5, steps)


def conv_norm_judge(case, answer):
    kernel, size, stride = arrays(*case.args)
    if said := m.refuse_number(answer, "the norm"):
        return said
    return _compare_from_below(float(answer), *_conv_norms(kernel, size, stride), 1e-3)


# cheat

_PASSES, _ASKED_NORM = 1.0, 1.5


def cheat_cases(seed):
    rng, cases = numpy_generator(seed, 6), []
    for n, steps in ((4, 1), (7, 5), (12, 20)):
        start = rng.standard_normal(n)
        args = (tensor(start / _norm(start)), steps)
        cases.append(Case(args, f"n = {n}, {steps} step{'s' if steps > 1 else ''}"))
    return cases


def _estimate(w, start, steps):
    """The norm by a power iteration; NaN where it starts at 0."""
    v = start
    for _ in range(steps):
        v = w.T @ (w @ v)
        if _norm(v) <= 1e-12 * max(_top(w), 1e-12) ** 2:
            return np.nan
        v = v / _norm(v)
    return float(_norm(w @ v))


def cheat_judge(case, answer):
    start, steps = arrays(*case.args)
    n = len(start)
    if said := m.refuse_array(answer, (n, n), "the matrix", whole=True):
        return said
    if not np.abs(answer).max() < 1e6:
        return m.said(f"an entry of {np.abs(answer).max():.3g}", "entries below 10⁶")
    w = np.asarray(answer, float)
    size, seen = _top(w), _estimate(w, start, steps)
    if size < _ASKED_NORM * (1 - 1e-6):
        why = "this layer keeps its promise: the cheat has to be steep somewhere"
        return m.said(f"a norm of {size:.6g}", f"{_ASKED_NORM} or more", why)
    if np.isnan(seen):
        why = "w·start = 0, so the iteration starts from rounding errors: give start its own share"
        return m.said("an estimate of 0/0", "1 or less", why)
    if seen > _PASSES * (1 + 1e-6):
        share = abs(np.linalg.svd(w)[2][0] @ start)
        why = f"the steep direction has a share of {share:.2g} in start, and each step raises it"
        return m.said(f"an estimate of {seen:.6g}", "1 or less", why)
    return None


# cayley


def cayley_cases(seed):
    rng = numpy_generator(seed, 7)
    cases = [Case((tensor([[1.0, 2.0], [1.0, 1.0]]),), "w = (1 2; 1 1)", True)]
    for shape in ((4, 4), (6, 3), (3, 5)):
        w = tensor(rng.standard_normal(shape) * 0.6)
        cases.append(Case((w,), f"random, {shape[0]}×{shape[1]}"))
    return cases


def _cayley(w, skew=lambda u: u - u.T, gram=1.0, factor=-2.0):
    """Of a tall or square matrix, with any of its parts replaced."""
    n = w.shape[1]
    u, v = w[:n], w[n:]
    a = skew(u) + gram * v.T @ v
    inverse = np.linalg.pinv(np.eye(n) + a)
    return np.vstack([inverse @ (np.eye(n) - a), factor * v @ inverse])


def _cayleys(w):
    """Orthogonal by Cayley, the other signs that are as good, and the slips."""
    wide = w.shape[0] < w.shape[1]
    turn = (lambda a: a.T) if wide else (lambda a: a)
    of = lambda **parts: turn(_cayley(turn(w), **parts))
    minus = lambda **parts: of(skew=lambda u: u.T - u, gram=-1.0, **parts)
    good = [of(), of(factor=2.0)]
    if w.shape[0] == w.shape[1]:
        good.append(of().T)
    else:
        other = of(skew=lambda u: u.T - u)
        good += [other, of(skew=lambda u: u.T - u, factor=2.0)]
    slips = [
        (of(skew=lambda u: u), "A is not skew: take w − wᵀ"),
        (of(skew=lambda u: u + u.T), "A is symmetric: take w − wᵀ"),
        (of(gram=0.0), "VᵀV is missing in A: the columns get longer than 1"),
        *((of(factor=f), "the lower block is ∓2V(I + A)⁻¹: the 2 is missing") for f in (1.0, -1.0)),
        *((minus(factor=f), "invert I + A: with I − A only a square one is orthogonal")
          for f in (2.0, -2.0)),
        (of(skew=lambda u: (u - u.T) / 2), "orthogonal, but of half the parameters: w − wᵀ"),
        (w / _top(w), "its norm is 1, but other lengths shrink: every singular value has to be 1"),
    ]  # fmt: skip
    return good, slips


def cayley_judge(case, answer):
    (w,) = arrays(*case.args)
    if said := m.refuse_array(answer, w.shape, "a matrix of the shape of w", whole=True):
        return said
    q, good_slips = np.asarray(answer, float), _cayleys(w)
    good, slips = good_slips
    wide = w.shape[0] < w.shape[1]
    near = lambda a: np.allclose(q, a, rtol=1e-4, atol=1e-5)
    if near(good[0]):
        return None
    if any(map(near, good[1:])):
        return Accepted("Another convention of signs, and orthogonal, too")
    if not np.abs(q).max() < 1e6:
        return m.said(f"an entry of {np.abs(q).max():.3g}", "none above 1")
    why = next((why for a, why in slips if near(a)), "")
    gram = q @ q.T if wide else q.T @ q
    if abs(gram - np.eye(len(gram))).max() > 1e-4:
        values = np.linalg.svd(q, compute_uv=False)
        want = "rows of length 1 at right angles" if wide else "columns of length 1 at right angles"
        need = "gradients need WWᵀ = I" if wide else "lengths need WᵀW = I"
        got = f"singular values from {values.min():.4g} to {values.max():.4g}"
        return m.said(got, f"1, all of them: {want}", why or need)
    at = np.unravel_index(abs(q - good[0]).argmax(), q.shape)
    got = f"an orthogonal matrix with {q[at]:.4g} at {at[0]}, {at[1]}"
    return m.said(
        got, f"{good[0][at].round(9) + 0:.4g}", why or "not the Cayley transform of these numbers"
    )


# group_sort


def group_sort_cases(seed):
    g = generator(seed, 8)
    text = tensor([[1.0, -1.0, -2.0, 5.0], [4.0, -3.0, 3.0, 2.0]])
    cases = [Case((text,), "(1, −1, −2, 5) and (4, −3, 3, 2)", True)]
    for shape in ((4, 6), (3, 5), (2, 6, 3, 4)):
        while True:
            h = torch.randn(shape, generator=g)
            want, slips = _sorted(h.double().numpy())
            if _distinct(slips, want):
                break
        cases.append(Case((h,), f"random, shape {shape}"))
    return cases


def _sorted(h):
    """Pairs of neighbours, the smaller first; and what it is by each slip."""
    c = h.shape[1] // 2 * 2
    a, b, rest = h[:, 0:c:2], h[:, 1:c:2], h[:, c:]
    half = h[:, : c // 2], h[:, c // 2 : c]
    most, least = np.maximum(a, b), np.minimum(a, b)

    def woven(first, second, last=rest):
        out = np.stack([first, second], 2).reshape(len(h), c, *h.shape[2:])
        return np.concatenate([out, last], 1)

    most2, least2 = np.maximum(*half), np.minimum(*half)
    chunk = "a pair is two neighbours, not one of each half"
    every = "pairs are sorted, not all channels at once"
    twice = "pairs do not overlap: 0 and 1, then 2 and 3"
    lost = "one of the pair was overwritten before the other was taken"
    step, last = np.minimum(h[:, :-1], h[:, 1:]), np.maximum(h[:, -2:-1], h[:, -1:])
    bubble = h.copy()
    for i in range(h.shape[1] - 1):
        bubble[:, i : i + 2] = np.sort(bubble[:, i : i + 2], 1)
    slips = [
        (woven(most, least), "the order of a pair is smaller first"),
        *(
            (np.concatenate([*both, rest], 1), "right pairs: keep each where it stood")
            for both in ((least, most), (most, least))
        ),
        (woven(least2, most2), chunk),
        *((np.concatenate([*both, rest], 1), chunk) for both in ((least2, most2), (most2, least2))),
        (np.sort(h, 1), every),
        (-np.sort(-h, 1), every),
        *(
            (f, "sorted across the batch: no image may see another")
            for f in (np.sort(h, 0), -np.sort(-h, 0))
        ),
        (np.maximum(h, 0), "ReLU throws away: the gradient of what is below 0"),
        (abs(h), "|h| is another activation"),
        (h, "nothing is sorted"),
        *((f, lost) for f in (woven(least, b), woven(a, most))),
        *((f, twice) for f in (bubble, np.concatenate([step, last], 1))),
        (woven(most, most), "only the larger: half of the gradient is lost"),
    ]
    if h.ndim > 2:
        along = "along the channels, dimension 1, not along the rows of an image"
        slips += [(np.sort(h, d), along) for d in (2, 3)] + [
            (-np.sort(-h, d), along) for d in (2, 3)
        ]
        pairs = np.sort(h.reshape(*h.shape[:-1], -1, 2), -1)
        slips.append((pairs.reshape(h.shape), along))
    if rest.size:
        alone = "a last channel without a partner stays as it is"
        slips += [(woven(least, most, f(rest, 0)), alone) for f in (np.maximum, np.minimum)]
        slips.append((woven(least, most, 0 * rest), alone))
    return woven(least, most), slips


def group_sort_judge(case, answer):
    (h,) = arrays(*case.args)
    if isinstance(answer, np.ndarray) and answer.ndim == h.ndim and answer.shape != h.shape:
        why = {h.shape[1] // 2: "only the larger of each pair: half of the gradient is lost",
               h.shape[1] // 2 * 2: "a last channel without a partner stays as it is",
               h.shape[1] + 1: "a last channel without a partner stays as it is"}  # fmt: skip
        if why := why.get(answer.shape[1]):
            return m.said(f"shape {answer.shape}", f"shape {h.shape}", why)
    if said := m.refuse_array(answer, h.shape, "the shape of h", whole=True):
        return said
    return m.compare(answer, *_sorted(h))


# certify_more

_ASKED, _CLEAN, _RADIUS = 0.60, 0.93, 0.5


def certify_more_cases(seed):
    d = data.load("digits")
    x, y = torch.cat([d.train_x, d.test_x]).flatten(1), torch.cat([d.train_y, d.test_y])
    g, out = generator(seed, 9), []
    for i in range(2):
        a, b = torch.randperm(len(x), generator=g).tensor_split(2)
        out.append(Case((x[a], y[a]), f"split {i + 1} of 2", kept=(x[b], y[b])))
    return out


def certify_more_judge(case, answer):
    if not isinstance(answer, tuple) or len(answer) not in (2, 4, 6, 8):
        want = "a tuple (weight, bias, …) of one to four layers"
        return m.said(m.named(answer), want, "end with `return weight, bias, …`")
    width = 64
    for i, (weight, bias) in enumerate(zip(answer[::2], answer[1::2], strict=True)):
        rows = len(weight) if isinstance(weight, np.ndarray) and weight.ndim else 0
        for value, shape in ((weight, (min(rows, 256), width)), (bias, (rows,))):
            if said := m.refuse_array(value, shape, "a weight [out ≤ 256, in] or a bias [out]"):
                return said
            if not np.abs(value).max(initial=0) < 1e4:
                return m.said(f"a weight of {np.abs(value).max():.3g}", "weights below 10 000")
        if rows % 2 and i < len(answer) // 2 - 1:
            return m.said(f"{rows} hidden units", "an even number", "MaxMin takes pairs")
        width = rows
    return None if width == 10 else m.said(f"{width} logits", "10: a class for each digit")


def certify_more_together(cases, answers):
    """Certified accuracy on held-out images, by the product of the norms and the pairs."""
    pairs = zip(cases, answers, strict=True)
    clean, certified = np.mean([_certify(case, answer) for case, answer in pairs], axis=0)
    if clean >= _CLEAN and certified >= _ASKED:
        return Accepted(f"objective: {certified:.3f}; right at all: {clean:.3f}")
    got = f"{certified:.3f} certified, {clean:.3f} right"
    want = f"at least {_ASKED} and {_CLEAN}"
    if len(answers[0]) == 2:
        why = "one layer draws planes: add a hidden layer"
    elif clean < _CLEAN and certified >= _ASKED:
        why = "a smaller margin in the loss, or a wider network"
    elif clean < _CLEAN:
        why = "it has not learnt enough: more steps, or a smaller margin; or the check's network is"
        why += (" not the one that you trained: MaxMin, smaller first;"
                " a rescaled weight needs its bias rescaled")  # fmt: skip
    else:
        why = "margins are short beside the norms: hold the norms while you train, ask for a margin"
    return m.said(got, want, why)


def _certify(case, layers):
    """The shares that are right, and certified beyond the radius that is asked for."""
    x, y = case.kept[0].double().numpy(), case.kept[1].numpy()
    layers, before = [np.asarray(part, float) for part in layers], 1.0
    for weight, bias in zip(layers[:-2:2], layers[1:-2:2], strict=True):
        x = _sorted(x @ weight.T + bias)[0]
        before *= _top(weight)
    z = x @ layers[-2].T + layers[-1]
    gap = _others(z, y)[:, 0]
    if before == 0 or not layers[-2].any():
        return (gap > 0).mean(), 0.0
    radius = _pair_radius(z, layers[-2], y, before)
    return (gap > 0).mean(), (radius > _RADIUS).mean()


def _pair_radius(z, weight, y, before):
    """0 for a wrong answer; two equal rows never change their order."""
    gap = z[np.arange(len(z)), y][:, None] - z
    size = _norm(weight[y][:, None] - weight, axis=2) * before
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(np.arange(z.shape[1]) == y[:, None], np.inf, gap / size)
    return np.maximum(np.nan_to_num(ratio, nan=0.0).min(1), 0)


CHECKS = {
    name: Check(f"04_lipschitz.{name}", points, cases, judge, tuple(teaches))
    for name, points, cases, judge, *teaches in (
        ("guess_v", 1, guess_v_cases, guess_v_judge),
        ("product_bound", 1, product_bound_cases, product_bound_judge, "lipschitz.product_bound"),
        ("certified_radius", 2, certified_radius_cases, certified_radius_judge,
         "lipschitz.certify"),
        ("pair_radius", 2, pair_radius_cases, pair_radius_judge,
         "lipschitz.certify"),
        ("root_two", 3, root_two_cases, root_two_judge),
        ("conv_norm", 3, conv_norm_cases, conv_norm_judge, "lipschitz.spectral_norm"),
        ("cheat", 3, cheat_cases, cheat_judge),
        ("cayley", 3, cayley_cases, cayley_judge,
         "orthogonal.cayley", "orthogonal.CayleyLinear"),
        ("group_sort", 1, group_sort_cases, group_sort_judge, "orthogonal.GroupSort"),
        ("certify_more", 3, certify_more_cases, certify_more_judge,
         "data.load", "sys._getframe"),
    )
}  # fmt: skip
CHECKS["certify_more"] = replace(CHECKS["certify_more"], together=certify_more_together)
