"""Checks of chapter 10: sharpness, the bounds of the loss, a cubic, and what a scale can hide.

The oracles are closed forms in NumPy and float64, roots by bracketing, and a linear program.
"""

from dataclasses import replace
from functools import cache

import numpy as np
import torch
from numpy.linalg import norm
from scipy import optimize, special, stats
from torch.nn import functional as F
from torch.nn.utils import skip_init

from robcourse import attacks, data
from robcourse.threat import Threat

from . import Accepted, Case, Check
from . import messages as m
from .cases import arrays, generator, numbers, numpy_generator, tensor, until_distinct
from .oracles import softmax

_CUBE = np.sqrt(6) / 54


def _until_distinct(draw, table, count, label):
    return until_distinct(
        draw, table, count, label, lambda a, b: abs(a - b) > 3e-3 * (abs(a) + abs(b))
    )


def _compare_one(answer, table, meaning, **tolerance):
    """The message for one array, by the right numbers and the slips of `table`."""
    (want,), slips = table
    if said := m.refuse_array(answer, want.shape, meaning, whole=True):
        return said
    near = {"rtol": 1e-4, "atol": 0.0} | tolerance
    return m.compare(answer, want, [(part, why) for (part,), why in slips], **near)


def _refuse_texts(answer, allowed):
    """The message unless there are five texts, each one of those allowed."""
    want = f"a tuple of five texts, each one of {', '.join(map(repr, allowed))}"
    if not isinstance(answer, tuple | list) or len(answer) != 5:
        return m.said(m.named(answer), want)
    bad = [a for a in answer if not isinstance(a, str) or a.strip().lower() not in allowed]
    return m.said(m.named(bad[0]), want) if bad else None


def _infinite(answer, shape) -> bool:
    """Whether an array of this shape has numbers that are not finite."""
    fits = isinstance(answer, np.ndarray) and answer.shape == shape and answer.dtype.kind == "f"
    return bool(fits and not np.isfinite(answer).all())


def _off(answer, want) -> list:
    """Where an array of the right shape has wrong numbers; empty for anything else."""
    if not isinstance(answer, np.ndarray) or answer.shape != want.shape:
        return []
    right = np.isclose(answer.astype(float), want, rtol=1e-4, atol=0)
    return np.flatnonzero(~right).tolist() if np.isfinite(answer).all() else []


def _spread(p):
    """1 − Σ p², as the sum of all products of two different classes."""
    return np.einsum("ni,nj,ij->n", p, p, 1 - np.eye(p.shape[1]))


def _loss(z, y):
    """Cross-entropy of logits [n, k]."""
    return special.logsumexp(z, 1) - z[np.arange(len(z)), y]


# guess_scale

_MOVES = ("rises", "falls", "same")
_ASKED = (
    ("the clean accuracy", "a label cannot feel a positive factor"),
    ("CE-PGD in float32", "most gradients underflow to 0, and the attack stays where it starts"),
    ("CE-PGD in float64", "float64 does not cure it: below exp(−745) there is only 0"),
    ("margin-PGD", "confidence read as robustness: no answer and no way of the margin has changed"),
    ("the loss of the fooled", "it grows with the scale: a wrong answer is more confident, too"),
)


def guess_scale_cases(seed):
    return [Case(label="logits times 1000")]


@cache
def _scaled():
    """The five numbers at scale 1 and 1000, for the nearest of two class means on digits."""
    digits = data.load("digits").only(3, 8)
    x, y = digits.test_x[:100].flatten(1).double(), digits.test_y[:100]
    means = torch.stack([digits.train_x[digits.train_y == c].mean(0).flatten() for c in (0, 1)])
    w, threat, rows = means.double(), Threat("linf", 2 / 16), []
    for s in (1, 1000):
        rule = skip_init(torch.nn.Linear, 64, 2)  # no draw from the global random state
        with torch.no_grad():
            rule.weight.copy_(16 * s * w)
            rule.bias.copy_(-8 * s * w.square().sum(1))
        rule = rule.eval().requires_grad_(False)
        tries = [(torch.float32, "ce"), (torch.float64, "ce"), (torch.float32, "margin")]
        found = [attacks.pgd(rule.to(a), x.to(a), y, threat, steps=10, loss=b) for a, b in tries]
        clean = (rule.float()(x.float()).argmax(1) == y).double().mean().item()
        last = found[-1]
        fooled = F.cross_entropy(rule(last.x_adv)[last.success], y[last.success]).item()
        rows.append([clean, *(f.robust_accuracy_upper for f in found), fooled])
    return np.array(rows, float)


def guess_scale_judge(case, answer):
    if said := _refuse_texts(answer, _MOVES):
        return said
    once, scaled = _scaled()
    truth = [_MOVES[2 if abs(b - a) < 0.015 else int(b < a)]
             for a, b in zip(once, scaled, strict=True)]  # fmt: skip
    given = [a.strip().lower() for a in answer]
    if given == truth:
        pairs = ", ".join(f"{a:.3g} → {b:.3g}" for a, b in zip(once, scaled, strict=True))
        return Accepted(f"Computed for a linear rule, 3 against 8: {pairs}")
    at = next(i for i, (a, b) in enumerate(zip(given, truth, strict=True)) if a != b)
    return m.said(f"{given[at]!r} for {_ASKED[at][0]}", repr(truth[at]), _ASKED[at][1])


# head_trace

_CONFIDENT = 3  # so many examples, the last ones, have a large margin


def head_trace_cases(seed):
    g = generator(seed, 2)

    def draw():
        logits, features = (torch.randn(8, d, generator=g).double() for d in (4, 3))
        logits[-_CONFIDENT:, 1] += torch.tensor([45.0, 120.0, 350.0]).double()
        return logits, features * (0.6 + 2 * torch.rand(8, 1, generator=g).double())

    return _until_distinct(draw, _traces, 2, "four classes, margins up to 350")


def _traces(logits, features):
    """The traces, and what they are by each slip."""
    p, square = softmax(logits), (features**2).sum(1)
    want, top = _spread(p) * square, p.max(1)
    lam = np.einsum("ni,ij->nij", p, np.eye(p.shape[1])) - np.einsum("ni,nj->nij", p, p)
    slips = [
        (_spread(p) * np.sqrt(square), "‖φ‖ is squared: H is Λ ⊗ φφᵀ"),
        (0 * want + want.mean(), "the mean of the batch: each example has its own trace"),
        (want / len(want), "divided by n: each example has its own trace"),
        (_spread(p), "the features are missing: this is Tr Λ"),
        ((p**2).sum(1) * square, "this is Σ p² ‖φ‖², the rest of 1 is asked"),
        ((1 - top) * square, "1 − max p is less: all classes count"),
        (p.max(1) * (1 - top) * square, "p (1 − p) of the largest class alone: sum over all"),
        (norm(lam, axis=(1, 2)) * square, "the norm of Λ is not its trace"),
        (_spread(p) / 2 * square, "every pair i ≠ j counts twice, as (i, j) and as (j, i)"),
        (_spread(softmax(p)) * square, "softmax twice: the argument holds logits"),
        (_spread(softmax(logits.T).T) * square, "softmax over the batch: the classes are in dim 1"),
        (_spread(p) * square.sum(), "‖φ‖² of each example: this is the norm of the whole batch"),
    ]
    return [want], [([part], why) for part, why in slips]


def head_trace_judge(case, answer):
    (want,), slips = table = _traces(*numbers(*case.args))
    first, off = len(want) - _CONFIDENT, _off(answer, want)
    if off and off[0] >= first:
        ratio, at = answer / want, off[0]
        why = "1 − Σ p² cancels where one class has nearly all: add up p_i p_j over i ≠ j"
        if np.allclose(ratio[first:], 0.5, rtol=1e-4):
            why = "half is lost: the 1 − p of the largest class is rounded to 0, sum the others"
        elif abs(ratio[first] - 1) < 1e-3:
            why = "float32 ends at e^−103: stay in float64"
        got = f"{answer[at]:.4g} at a margin of about {(45, 120, 350)[at - first]}"
        return m.said(got, f"{want[at]:.4g}", why)
    if off:  # a slip may lose the last digits as well: what it is shows in the others
        answer, table = answer[:first], ([want[:first]], [([a[:first]], w) for (a,), w in slips])
    return _compare_one(answer, table, "the trace of each example, not of the batch")


# kappa


def kappa_cases(seed):
    g = generator(seed, 3)

    def draw():
        w, features = (torch.randn(*s, generator=g).double() for s in ((4, 3), (6, 3)))
        return w + torch.randn(3, generator=g).double(), features

    return _until_distinct(draw, _sharpness, 2, "four classes, three features")


def _sharpness(w, features):
    """κ and κ* of each example, and those by each slip."""
    p, square = softmax(features @ w.T), (features**2).sum(1)
    trace, size, length = _spread(p) * square, (w**2).sum(), np.sqrt(square)
    rows, apart = (w**2).sum(1), w - (p @ w)[:, None]
    around = lambda centre: (p * ((w - centre) ** 2).sum(-1)).sum(1) * square
    full = around((p @ w)[:, None])
    kappa, spectral = size * trace, norm(w, 2) ** 2 * trace
    return (kappa, full), [
        ((np.sqrt(size) * trace, full), "‖W‖_F is squared: without it a rescaled layer changes κ"),
        ((spectral, full), "the spectral norm is sharper, and another measure: take ‖W‖_F"),
        ((np.sqrt(spectral * trace), full), "the norm is that of Frobenius, squared"),
        ((trace, full), "‖W‖_F² is missing: this is the trace alone"),
        ((((w - w.mean(0)) ** 2).sum() * trace, full), "centring its rows is a repair: take W"),
        ((kappa / length, full / length), "‖φ‖ is squared"),
        ((size * _spread(p), full / square), "‖φ‖² is missing"),
        ((kappa, (p @ rows) * square), "the mean row Σ p_j w_j is not taken off"),
        ((kappa, around(w.mean(0))), "the mean of the rows is weighted by p"),
        ((kappa, square * (apart**2).sum((1, 2))), "each row counts with its probability"),
        ((kappa, around((p @ w).mean(0))), "each example has its own mean row, by its own p"),
        ((kappa, ((p @ w) ** 2).sum(1) * square), "this is ‖w̄‖², which is to be taken off"),
        ((kappa / 2, full), "every pair i ≠ j counts twice, as (i, j) and as (j, i)"),
        ((kappa, 2 * full), "½ Σ p_i p_j ‖w_i − w_j‖²: each pair comes twice"),
        ((kappa, kappa), "κ* is no multiple of ‖W‖_F²: it is the variance of the rows"),
        ((full, kappa), "the order is kappa, full"),
    ]  # fmt: skip


def kappa_judge(case, answer):
    (kappa, _), _ = table = _sharpness(*numbers(*case.args))
    names = ("kappa", "full")
    if said := m.refuse_tuple(answer, names):
        return said
    for value, name in zip(answer, names, strict=True):
        if said := m.refuse_array(value, kappa.shape, f"{name} of each example", whole=True):
            return said
    return m.compare_all(names, answer, *table, atol=1e-9)


# repaired_bound


def repaired_bound_cases(seed):
    g = generator(seed, 4)

    def draw():
        w, features = (torch.randn(*s, generator=g).double() for s in ((4, 3), (6, 3)))
        y = torch.randint(4, (6,), generator=g)
        delta, lipschitz = (torch.rand(2, generator=g) * 0.4 + torch.tensor([0.2, 1.5])).tolist()
        return w, 0.7 * features, y, round(delta, 3), round(lipschitz, 3)

    return _until_distinct(draw, _repaired, 2, "six examples, four classes")


def _repaired(w, features, y, delta, lipschitz):
    """The repaired bound, and what it is by each slip."""
    p, length = softmax(features @ w.T), norm(features, axis=1)
    hot, n = np.eye(len(w)), len(p)
    pull, kappa = p - hot[y], (w**2).sum() * _spread(p) * length**2
    slope, trace, size = norm(pull, axis=1), _spread(p), norm(w)
    mean = norm(pull.T @ features) / n  # the length of the gradient of the mean loss in W
    tau = size * lipschitz * delta

    def bound(t=tau, *, first=slope, second=trace, cube=_CUBE, far=None):
        return t * first + second * t**2 / 2 + cube * (t if far is None else far) ** 3

    own = "the gradient of the mean loss: each sample has its own, and they do not cancel"
    drop = "the gradient is dropped: no finite W makes a sample's own gradient 0"
    short = "the weights move by Δ‖W‖_F, not by Δ: ‖W‖_F³ belongs in the remainder"
    slips = [
        *((bound(first=0, far=f), drop) for f in (None, lipschitz * delta)),
        *((bound(first=f), own) for f in (mean / length, norm(pull.mean(0)), mean)),
        *((bound(first=n * f), own + ", summed or not") for f in (mean / length, mean)),
        (bound(first=slope / n), "a mean loss divides each gradient by n: take the sum"),
        *((bound(far=f), short) for f in (lipschitz * delta, lipschitz * delta / length)),
        (bound(cube=0), "the remainder is missing: two terms of a series are no bound"),
        (bound(cube=6 * _CUBE), "√6/9 is the third derivative: a sixth of it counts"),
        (bound(first=1 - p[np.arange(n), y]), "‖p − e_y‖₂: the other classes count, too"),
        (bound(first=slope**2), "‖p − e_y‖₂ is a norm, not its square"),
        (bound(second=trace * length**2), "Tr Λ, not Tr H: ‖φ‖² is in τ already"),
        (bound(second=kappa), "Tr Λ, not κ: ‖W‖_F² and ‖φ‖² are in τ² already"),
        (bound(second=0), "the second term is missing"),
        (bound(tau / length), "τ is ‖W‖_F L δ: ‖φ‖ divides the gradient, and not τ"),
        (bound(first=abs(pull).sum(1)), "‖p − e_y‖₂: this is the sum of the entries' sizes"),
        (bound(first=norm(p - hot[p.argmax(1)], axis=1)), "y is the label, not the answer"),
        (bound(cube=0) + (lipschitz**2 * delta) ** 3 * w.size / 24, short),
        (bound(second=2 * trace), "½ is missing in the second term"),
        (bound(second=trace / size), "‖W‖_F is squared in the second term"),
        (bound(first=slope * length), "‖φ‖ once too often: Δ is ‖W‖_F L δ / ‖φ‖"),
        (bound(size * delta), "the features move by up to L δ"),
        (bound(size * delta / lipschitz), "the features move by up to L δ, not δ / L"),
        (bound(norm(w, 2) * lipschitz * delta), "true, and sharper: asked for is ‖W‖_F"),
        (bound(size**2 * lipschitz * delta), "‖W‖_F once, then its square and its cube"),
    ]
    return [want := bound()], [([part + 0 * want], why) for part, why in slips]


def repaired_bound_judge(case, answer):
    w, features, y, *numbers_ = case.args
    table = _repaired(*arrays(w, features, y), *numbers_)
    return _compare_one(answer, table, "a bound for each example")


# loss_bound


def loss_bound_cases(seed):
    rng = numpy_generator(seed, 5)

    def draw():
        p, tau = rng.uniform(0.1, 0.95, 8), rng.uniform(0.05, 2, 8)
        p[5:], tau[5:] = rng.uniform(0.6, 0.95, 3), rng.uniform(550, 900, 3)
        p[4] = 1 - 2.0**-30
        return tensor(p), tensor(tau)

    return _until_distinct(draw, _risen, 2, "the last three τ are beyond 500")


def _risen(p, tau):
    """The bound of the loss's rise, and what it is by each slip."""
    bound = lambda t, p=p: np.logaddexp(np.log(p), np.log1p(-p) + t)
    root = np.sqrt(2) * tau
    slips = [
        (bound(tau), "τ for √2 τ: ‖e_j − e_y‖₂ = √2"),
        (bound(2 * tau), "√2 τ, not 2 τ"),
        (bound(root, 1 - p), "p and 1 − p are swapped: the other classes grow"),
        ((1 - p) * root, "the first order in τ alone: the rise is larger"),
        (root, "true, and blind to p_y"),
        (bound(root) - np.log(p), "this is the loss at ξ: its rise is asked"),
        (np.logaddexp(np.log(p), root), "e^(√2 τ) is weighted with 1 − p_y"),
        (bound(-root), "the sign of τ: the loss rises"),
        (np.maximum(np.log(p), np.log1p(-p) + root), "the larger summand is less than the sum"),
    ]
    return [bound(root)], [([part], why) for part, why in slips]


def loss_bound_judge(case, answer):
    table = _risen(*numbers(*case.args))
    if _infinite(answer, (8,)):
        got = f"a number that is not finite at τ = {case.args[1].max().item():.4g}"
        return m.said(got, "numbers", "exp overflows: torch.logaddexp adds in logarithms")
    (want,), _ = table
    off = _off(answer, want)
    if off and off[0] >= 4:
        why = "keep log(1 − p_y): by log1p, in float64, and where τ is large, too"
        return m.said(f"{answer[off[0]]:.8g} at example {off[0]}", f"{want[off[0]]:.8g}", why)
    return _compare_one(answer, table, "a bound for each example")


# loss_radius


def loss_radius_cases(seed):
    g = generator(seed, 6)

    def draw():
        w, z = (torch.randn(*s, generator=g).double() for s in ((4, 3), (6, 4)))
        y = torch.randint(4, (6,), generator=g)
        z[:4] = z[:4].scatter_add(1, y[:4, None], torch.rand(4, 1, generator=g).double() * 3)
        z[4, y[4]] += 50
        eps, lipschitz = (torch.rand(2, generator=g) * 1.2 + torch.tensor([0.3, 1.5])).tolist()
        return w, z, y, round(eps, 3), round(lipschitz, 3)

    return _until_distinct(draw, _radii, 2, "six examples, one with a margin of about 50")


def _radii(w, z, y, eps, lipschitz):
    """δ*(ε) of each example, and what it is by each slip."""
    n = len(z)
    p, other = softmax(z), np.arange(len(w)) != y[:, None]
    speed, goal = norm(w[y][:, None] - w, axis=2), np.expm1(eps)
    rest, fast = np.where(other, p, 0).sum(1), speed.max(1)
    slow, rows = speed[other].reshape(n, -1).min(1), np.where(other, norm(w, axis=1), 0)
    closed = lambda d: np.log1p(goal / rest) / d
    alone = np.log1p(goal / p) / np.where(other, speed, 1)
    first = np.arange(n), np.where(other, z, -np.inf).argmax(1)
    runner_up, alone = alone[first], np.where(other, alone, np.inf).min(1)

    def solved(p=p, goal=goal, speed=speed):
        """The root of Σ p_j (e^{D_j s} − 1) = goal, of each row."""
        out = []
        for q, d, c in zip(np.where(other, p, 0), speed, goal + 0 * rest, strict=True):
            excess = lambda s, q=q, d=d, c=c: q @ np.expm1(d * s) - c
            high = min(np.log1p(c / a) / b for a, b in zip(q, d, strict=True) if a > 0)
            out.append(optimize.brentq(excess, 0, high * (1 + 1e-9), xtol=1e-13, rtol=1e-13))
        return np.array(out)

    own = z[np.arange(n), y]
    limit = np.where(other, (own[:, None] - z) / np.where(other, speed, 1), np.inf).min(1)
    want, odds = solved(), p / p[np.arange(n), y][:, None]
    large = "true, and smaller: every D_j is put at the largest, solve the equation"
    slips = [
        (want, "this is how far the features may move: divide by L"),
        (want * lipschitz, "the input may move less than the features: divide by L"),
        (closed(fast) / lipschitz, large),
        (closed(np.sqrt(2) * norm(w, 2)) / lipschitz, large + ", with D_j for √2‖W‖₂"),
        (alone / lipschitz, "each class alone: their rises add up, so this radius is too large"),
        (closed(np.sqrt(2) * norm(w)) / lipschitz, large + ", with D_j for √2‖W‖_F"),
        (eps / fast / lipschitz, "p_y is ignored: a confident loss has further to go"),
        (2 * eps / fast / lipschitz, "p_y is ignored: a confident loss has further to go"),
        (closed(slow) / lipschitz, "every D_j is put at the smallest: this radius is too large"),
        (eps / (p * speed).sum(1) / lipschitz, "the first order in δ alone: too large a radius"),
        (runner_up / lipschitz, "the runner-up alone: the other classes rise, too"),
        (solved(goal=eps) / lipschitz, "the right side is e^ε − 1, not ε"),
        (solved(goal=goal + 1 - rest) / lipschitz, "p_y is missing in the sum: its exponent is 0"),
        (solved(goal=np.exp(eps)) / lipschitz, "the right side is e^ε − 1, not e^ε"),
        (solved(speed=rows) / lipschitz, "D_j = ‖w_j − w_y‖, not ‖w_j‖"),
        (solved(odds) / lipschitz, "p_j, not p_j / p_y"),
        (solved(speed=speed**2) / lipschitz, "D_j is a norm, not its square"),
        (np.maximum(limit, 0) / lipschitz, "the margin's radius, the limit for larger logits"),
    ]
    return [want / lipschitz], [([part], why) for part, why in slips]


def loss_radius_judge(case, answer):
    w, z, y, *numbers_ = case.args
    if _infinite(answer, (6,)):
        why = "1 − p_y is rounded to 0 at a margin of 50: sum the other p_j, or solve in logarithms"
        return m.said("a number that is not finite", "numbers", why)
    (want,), _ = table = _radii(*arrays(w, z, y), *numbers_)
    if _off(answer, want) == [4] and answer[4] < want[4]:
        why = "does the interval that you halve end too early?"
        return m.said(f"{answer[4]:.6g} at example 4", f"{want[4]:.6g}", why)
    return _compare_one(answer, table, "a radius for each example")


# solve_cubic

_EASY = 10.0  # κ up to which no digits are in danger


def solve_cubic_cases(seed):
    rng, cases = numpy_generator(seed, 7), []
    for eps, label in ((1.0, "ε about 1"), (0.01, "ε about 0.01")):
        kappa = 10.0 ** np.array([-4, -1.5, 0, 0.9, 2, 4, 6]) * rng.uniform(0.8, 1.2, 7)
        a, eps = (round(float(v * rng.uniform(0.8, 1.2)), 4) for v in (4.0, eps))
        cases.append(Case((tensor(kappa), a, eps), label))
    return cases


def _roots(kappa, a, eps):
    """The positive Δ, and what it is by each slip."""

    def root(b, c):
        """Of b Δ² + c Δ³ = ε, in logarithms."""
        rise = lambda t: np.logaddexp(np.log(b) + 2 * t, np.log(c) + 3 * t) - np.log(eps)
        return np.exp(optimize.brentq(rise, -60, 60, xtol=1e-13))

    each = lambda f: np.array([f(k) for k in kappa])
    want = each(lambda k: root(k / 2, a / 24))
    side = lambda c: np.minimum(np.sqrt(c * eps / kappa), (12 * c * eps / a) ** (1 / 3))
    slips = [
        (each(lambda k: root(a / 24, k / 2)), "divided the wrong way: Δ³ + (b/a) Δ² = ε/a"),
        (np.sqrt(2 * eps / kappa), "the cubic term is dropped: this is for large κ only"),
        (0 * kappa + (24 * eps / a) ** (1 / 3), "κ is dropped: this is the limit for small κ"),
        (side(2), "the upper side of the sandwich, not the root"),
        (side(1), "the lower side of the sandwich, not the root"),
        ((eps / kappa) ** (1 / 3), "an exponent of −⅓ is nowhere a law: solve the equation"),
        (each(lambda k: root(k / 2 * eps, a / 24 * eps)), "ε is forgotten: P and Q hold 1/ε"),
        (1 / want, "this is u = 1/Δ"),
        (each(lambda k: root(k, a)), "½ and 1/24 are missing"),
        (each(lambda k: root(k / 2, a / 6)), "the cubic term has 1/24, not 1/6"),
        (each(lambda k: root(k, a / 24)), "the second term has ½"),
    ]
    return [want], [([part], why) for part, why in slips]


def solve_cubic_judge(case, answer):
    kappa, a, eps = numbers(*case.args)
    if _infinite(answer, kappa.shape):
        why = "Cardano's square root is of a negative number: three real roots, use the cosine"
        if not np.isfinite(answer[kappa < 1]).any():
            why = "the arccosine is of more than 1: one real root, use the cube root"
        return m.said("a number that is not finite", "numbers", why)
    (want,), slips = table = _roots(kappa, a, eps)
    if said := m.refuse_array(answer, want.shape, "a root for each κ", whole=True):
        return said
    off = _off(answer, want)
    like = any(np.allclose(answer, part, rtol=1e-4, atol=0) for (part,), _ in slips)
    if off and kappa[off].min() > _EASY and not like:
        at = off[-1]
        why = "digits are lost: set u = 1/Δ, with no x − b/(3a); or the search stops too early"
        return m.said(f"{answer[at]:.6g} at κ = {kappa[at]:.3g}", f"{want[at]:.6g}", why)
    if (answer <= 0).any() and not like:
        at = int((answer <= 0).argmax())
        got = f"{answer[at]:.4g} at κ = {kappa[at]:.3g}"
        return m.said(got, f"{want[at]:.4g}", "another branch: exactly one root is positive")
    return _compare_one(answer, table, "a root for each κ")


# transfer

_SURE = ("certain", "open")
_CHANGES = (
    ("the logits times 100", "transfer read as a finding: argmax(s z) = argmax z, for every s > 0"),
    ("W times 100, b as it was", "the bias is not scaled with the rest: answers can change"),
    ("one row added to all rows of W", "all logits move by the same number: no answer changes"),
    ("the logits times 1 + ‖x‖²", "a factor may differ from input to input, if it is positive"),
    ("another network of the same κ", "sharpness does not see the label: κ does not fix an answer"),
)


def transfer_cases(seed):
    return [Case(label="five changes of a network")]


@cache
def _transferred():
    """The least share of errors that survive each change, over many linear rules."""
    rng, least = np.random.default_rng(0), np.ones(len(_CHANGES))
    for _ in range(50):
        w, b, x = rng.normal(size=(3, 4)), 3 * rng.normal(size=3), rng.normal(size=(200, 4))
        z, y = x @ w.T + b, rng.integers(3, size=200)
        own = special.logsumexp(z, 1, keepdims=True)
        wrong = z.argmax(1) != y
        after = (100 * z, 100 * x @ w.T + b, z + x @ rng.normal(size=(4, 1)),
                 z * (1 + (x**2).sum(1, keepdims=True)), (z - own)[:, [1, 2, 0]])  # fmt: skip
        survive = [(a.argmax(1) != y)[wrong].mean() for a in after]
        least = np.minimum(least, survive)
    return least


def transfer_judge(case, answer):
    if said := _refuse_texts(answer, _SURE):
        return said
    least = _transferred()
    given = [a.strip().lower() for a in answer]
    for i, (share, (change, why)) in enumerate(zip(least, _CHANGES, strict=True)):
        truth = _SURE[int(share < 1)]
        if given[i] != truth:
            return m.said(f"{given[i]!r} for change {i + 1}, {change}", repr(truth), why)
    shares = ", ".join(f"{share:.2f}" for share in least)
    return Accepted(f"The least share over fifty linear rules: {shares}")


# equality_case


def equality_case_cases(seed):
    g = generator(seed, 9)

    def draw():
        w, x = (torch.randn(*s, generator=g).double() for s in ((2, 5), (6, 5)))
        delta = round(0.3 + torch.rand((), generator=g).item(), 3)
        return w, x, torch.randint(2, (6,), generator=g), delta

    return _until_distinct(draw, _worst, 2, "two classes, five inputs")


def _worst(w, x, y, delta):
    """The worst points of the balls, and those by each slip."""
    unit = lambda v: v / norm(v, axis=1, keepdims=True)
    other = 1 - y
    gap = w[other] - w[y]
    way = unit(gap)
    pull = "the difference w_j − w_y decides, not one row alone"
    z = x @ w.T
    q = softmax(z)[np.arange(len(x)), other][:, None]
    slips = [
        (x - delta * way, m.SIGN),
        (x + delta * unit(w[other]), pull),
        (x - delta * unit(w[y]), pull),
        (x + delta / 2 * way, "half of the radius is left"),
        (x + 0 * way, "the centre of the ball: nothing has moved"),
        (x + delta * np.sign(way), "the sign is the worst case of ℓ∞: this leaves the ℓ2 ball"),
        (x + delta * np.sign(way) / np.sqrt(x.shape[1]), "the sign is the worst case of ℓ∞"),
        (x + delta * way / np.sqrt(len(x)), "each row is divided by its own length"),
        (x + delta * gap, "the direction has to have length 1"),
        (x + delta * q * gap, "the gradient has to be scaled to the length δ"),
        (delta * way, "the step alone: add x"),
        (x + delta * unit(w[1 - z.argmax(1)] - w[z.argmax(1)]), "y is the label, not the answer"),
        (x + delta * (unit(w)[other] - unit(w)[y]), "divide the difference, not each row"),
        (x + delta * q * gap / norm(q * gap), "each row is divided by its own length"),
    ]
    return [x + delta * way], [([part], why) for part, why in slips]


def equality_case_judge(case, answer):
    w, x, y, delta = case.args
    table = _worst(*arrays(w, x, y), delta)
    return _compare_one(answer, table, "a point for each example", atol=1e-4)


# break_prop8

_LEAST, _TIMES = 0.5, 10.0  # r, and by how much the printed bound has to be passed


def break_prop8_cases(seed):
    return [Case(label="your own training set")]


def break_prop8_judge(case, answer):
    names = ("inputs", "labels", "weight", "xi")
    if said := m.refuse_tuple(answer, names):
        return said
    for value, name, shape in zip(answer, names, ((-1, 2), (-1,), (3, 2), (2,)), strict=True):
        count = len(value) if isinstance(value, np.ndarray) and value.ndim else 0
        shape = tuple(count if s < 0 else s for s in shape)
        if said := m.refuse_array(value, shape, name, whole=True):
            return said
    x, labels, w, xi = (np.asarray(a, float) for a in answer)
    if said := _refuse_training(x, labels, w, xi):
        return said
    y = labels.astype(int)
    delta, p = norm(xi - x[0]), softmax(x[:1] @ w.T)
    kappa = (w**2).sum() * _spread(p)[0] * x[0] @ x[0]
    printed = delta**2 * kappa / (2 * _LEAST**2) + delta**3 * w.size / (24 * _LEAST**3)
    rise = float(_loss(np.stack([xi]) @ w.T, y[:1])[0] - _loss(x[:1] @ w.T, y[:1])[0])
    text = f"a rise of {rise:.4g} where B = {printed:.4g}"
    if rise >= _TIMES * printed:
        return Accepted(f"B is passed {rise / printed:.3g} times: {text}")
    why = "B falls like δ² and the rise like δ: step along the gradient, and make δ smaller"
    if rise <= 0:
        why = "the loss of this sample falls or stays: it rises along (p − e_y)ᵀW, if that is not 0"
    return m.said(text, f"a rise of at least {_TIMES:g} B", why)


def _refuse_training(x, labels, w, xi):
    """The message unless W is the finite minimiser of a training set of the set of inputs."""
    if not 2 <= len(x) <= 500 or len(np.unique(x.round(6), axis=0)) < 2:
        return m.said(f"{len(x)} examples", "2 to 500, with at least two different inputs")
    if not np.isin(labels, (0, 1, 2)).all():
        return m.said("labels that are no classes", "whole numbers from 0 to 2")
    lengths, y = norm(np.vstack([x, xi]), axis=1), labels.astype(int)
    if lengths.max() > 1 + 1e-6:
        return m.said(f"an input of length {lengths.max():.4g}", "‖x‖ ≤ 1, for ξ, too")
    if lengths.min() < _LEAST - 1e-6:
        why = "r has to hold on all of X, for ξ, too: else the hypothesis is broken, not the claim"
        return m.said(f"an input of length {lengths.min():.4g}", f"‖φ(x)‖ ≥ r = {_LEAST}", why)
    if norm(xi - x[0]) < 1e-9:
        return m.said("ξ = x", "another point", "B is 0 there, and so is the rise")
    if _separable(x, y):
        why = "a larger W is better on separable data: no finite minimiser, only small gradients"
        return m.said("a separable training set", "one whose loss has a minimum", why)
    pull = softmax(x @ w.T) - np.eye(3)[y]
    mean = norm(pull.T @ x) / len(x)
    if mean > 1e-6:
        why = "W is no minimiser over S: let the softmax at each input equal the labels' shares"
        return m.said(f"a mean gradient of {mean:.3g}", "0, to 1e-6", why)
    if norm(pull[0]) < 1e-6:
        return m.said("a sample whose own gradient is 0", "one whose gradient is not")
    return None


def _separable(x, y) -> bool:
    """Whether some change of W lowers no other margin and raises one: then no minimum exists."""
    rows = [np.kron(np.eye(3)[c] - np.eye(3)[j], v)
            for v, c in zip(x, y, strict=True) for j in range(3) if j != c]  # fmt: skip
    rows = np.unique(np.array(rows), axis=0)
    found = optimize.linprog(-rows.sum(0), A_ub=-rows, b_ub=0 * rows[:, 0], bounds=(-1e4, 1e4))
    return found.status != 0 or -found.fun > 1e-3


# flip_with_less_loss

_FALL = 0.38  # the supremum for three classes is log(3/2) = 0.405


def flip_with_less_loss_cases(seed):
    return [Case(label="the true label is class 0")]


def flip_with_less_loss_judge(case, answer):
    if said := m.refuse_tuple(answer, ("before", "after")):
        return said
    for value, name in zip(answer, ("before", "after"), strict=True):
        meaning = f"{name}, the probabilities of three classes"
        if isinstance(value, np.ndarray) and value.shape == (2,):
            why = "with two classes it is impossible: wrong means p_y ≤ ½, right means p_y > ½"
            return m.said("two classes", f"three: {meaning}", why)
        if said := m.refuse_array(value, (3,), meaning, whole=True):
            return said
        if abs(value.astype(float).clip(-9, 9).sum() - 1) > 1e-5 or value.min() < 0:
            got = f"{name} from {value.min():.4g}, of sum {value.astype(float).sum():.6g}"
            return m.said(got, "none below 0, and a sum of 1")
        if value.min() < 1e-9:
            return m.said(f"{name} with a probability of 0", "all positive", "no softmax gives it")
    before, after = (np.asarray(v, float) for v in answer)
    if not before[0] > before[1:].max() + 1e-6:
        why = "the first answer has to be right"
        return m.said(f"before: {before[0]:.4g} for class 0", "the largest, by 1e-6 at least", why)
    if not after[0] < after[1:].max() - 1e-6:
        why = "no flip: the second answer is right, too"
        return m.said(f"after: {after[0]:.4g} for class 0", "less than another, by 1e-6", why)
    fall = float(np.log(after[0] / before[0]))
    if fall >= _FALL:
        return Accepted(f"the loss falls by {fall:.4f}, and log(3/2) = {np.log(1.5):.4f}")
    why = "how low can a right answer's p_y be, and how high a wrong one's?"
    if before[0] > 0.5:
        why = "p_y > ½ at first: every wrong answer has p_y ≤ ½ and costs more"
    elif fall <= 0:
        why = "the loss rises here: p_y has to grow"
    return m.said(f"a fall of {fall:.4g}", f"at least {_FALL}", why)


# robust_flatness

_RANK, _SCALES = 0.95, (0.2, 1.0, 5.0, 25.0)
_ALIKE = ("loss or the margin", "trace of the Hessian", "relative sharpness κ")


def robust_flatness_cases(seed):
    rng = numpy_generator(seed, 12)
    cases = []
    for s in rng.permutation(_SCALES):
        w, phi = rng.normal(size=(2, 4)), rng.normal(size=(80, 4))
        w -= w.mean(0)
        phi *= rng.uniform(0.4, 1.2, (80, 1)) / norm(phi, axis=1, keepdims=True)
        # The scale is spread over layer and features, the labels are the answers.
        c = 10.0 ** rng.uniform(-1, 1)
        w, phi = 2 * s * c * w, phi / c
        y = (phi @ w.T).argmax(1)
        cases.append(Case((_head_loss(phi, y), tensor(w)), f"scale {s:g}", kept=(phi, y)))
    return cases


def _head_loss(phi, y):
    """The loss of each example as a function of weights [n, k, d]; neither features nor labels."""
    phi, y = tensor(phi), torch.tensor(y)

    def loss(weight):
        z = torch.einsum("nkd,nd->nk", weight.to(phi.dtype).expand(len(phi), -1, -1), phi)
        behind = z.scatter(1, y[:, None], -torch.inf).logsumexp(1) - z.gather(1, y[:, None])[:, 0]
        return -F.logsigmoid(-behind)

    return loss


def robust_flatness_judge(case, answer):
    return m.refuse_array(answer, (80,), "a score for each example", whole=True)


def robust_flatness_together(cases, answers):
    """The rank correlation of the scores with the relative radius, over all networks at once."""
    scores = [np.asarray(a, float) for a in answers]
    if any(np.ptp(s) == 0 for s in scores):
        why = "does a search stop at its end: the wrong way, or an end too near?"
        return m.said("one score for all examples", "other scores for other examples", why)
    radii, known = [], []
    for case in cases:
        (phi, _), w = case.kept, case.args[1].numpy()
        gap, length = abs(phi @ (w[0] - w[1])), norm(phi, axis=1)
        radii.append(gap / norm(w[0] - w[1]) / length)
        trace = 2 * special.expit(gap) * special.expit(-gap) * length**2
        known.append((gap, -trace, -(w**2).sum() * trace))
    rank = lambda a, b: stats.spearmanr(a, b).statistic
    whole = rank(np.hstack(scores), np.hstack(radii))
    if whole >= _RANK:
        return Accepted(f"objective: rank correlation {whole:.3f}")
    like = [rank(np.hstack(scores), np.hstack(k)) for k in zip(*known, strict=True)]
    why = "go along each example's own gradient to where its answer changes, and no further"
    if whole < 0:
        why = "the wrong sign, or flatness alone: a larger score means more robust"
    elif max(like) > 0.999:
        why = f"the {_ALIKE[np.argmax(like)]} follows the scale: go to where the answer changes"
    elif min(map(rank, scores, radii)) > 0.98:
        why = "right within each network, lost between them: measure the step relative to ‖W‖"
    return m.said(f"rank correlation {whole:.3f}", f"at least {_RANK}", why)


CHECKS = {
    name: Check(f"10_flatness.{name}", points, cases, judge, tuple(teaches))
    for name, points, cases, judge, *teaches in (
        ("guess_scale", 1, guess_scale_cases, guess_scale_judge),
        ("head_trace", 2, head_trace_cases, head_trace_judge, "flatness.head_trace"),
        ("kappa", 2, kappa_cases, kappa_judge,
         "flatness.relative_sharpness", "flatness.full_sharpness"),
        ("repaired_bound", 2, repaired_bound_cases, repaired_bound_judge),
        ("loss_bound", 2, loss_bound_cases, loss_bound_judge),
        ("loss_radius", 3, loss_radius_cases, loss_radius_judge, "flatness.loss_radius"),
        ("solve_cubic", 3, solve_cubic_cases, solve_cubic_judge),
        ("transfer", 1, transfer_cases, transfer_judge),
        ("equality_case", 3, equality_case_cases, equality_case_judge),
        ("break_prop8", 3, break_prop8_cases, break_prop8_judge),
        ("flip_with_less_loss", 2, flip_with_less_loss_cases, flip_with_less_loss_judge),
        ("robust_flatness", 3, robust_flatness_cases, robust_flatness_judge,
         "__closure__", "inspect.getclosurevars", "sys._getframe"),
    )
}  # fmt: skip
CHECKS["robust_flatness"] = replace(CHECKS["robust_flatness"], together=robust_flatness_together)
