"""Checks of chapter 1: distances, the worst case, FGSM and PGD, and what random signs cannot do.

The oracles are closed forms in NumPy and float64, a linear program, and bisection.
"""

import numpy as np
import torch

from robcourse import data, models
from robcourse.threat import Threat

from . import Accepted, Case, Check, oracles
from . import messages as m
from .cases import generator

ORDERS = {"linf": (np.inf, 1), "l2": (2, 2), "l1": (1, np.inf)}


def _plain(*args):
    """Tensors as NumPy arrays of float64."""
    out = tuple(a.detach().double().numpy() if isinstance(a, torch.Tensor) else a for a in args)
    return out if len(out) > 1 else out[0]


def _norm_sign(name):
    return {"linf": "ℓ∞", "l2": "ℓ2", "l1": "ℓ1"}[name]


# distance


def distance_cases(seed):
    g = generator(seed, 1)
    w, x = torch.tensor([3.0, 4.0]), torch.tensor([[2.0, 1.0], [0.0, 0.0]])
    text = [
        Case((w.clone(), -5.0, x.clone(), p), f"w = (3, 4), {_norm_sign(p)}", True) for p in ORDERS
    ]
    fresh = [
        Case((_largest_below_0(torch.randn(9, generator=g)), torch.randn((), generator=g).item(),
              torch.rand(6, 9, generator=g), p), f"random, {_norm_sign(p)}")
        for p in ORDERS
    ]  # fmt: skip
    return text + fresh


def _largest_below_0(w):
    """So that the largest w is not the largest |w|."""
    at = w.abs().argmax()
    w[at] = -w[at].abs()
    return w


def distance_judge(case, answer):
    w, b, x, p = _plain(*case.args)
    if said := m.refuse_array(answer, (len(x),), "one distance an example"):
        return said
    score, (own, dual) = x @ w + b, (np.linalg.norm(w, q) for q in ORDERS[p])
    slips = [
        (score / dual, "a distance is not negative: take the absolute value of the score"),
        (abs(score) / own, m.DUAL),
        (abs(x @ w) / dual, "right only for a plane through the origin: b is missing"),
        (abs(score) / dual**2, m.SQUARE),
        (abs(score), "this is the score: divide by the dual norm of w"),
        (abs(x @ w - b) / dual, "b is added, not taken off"),
        (abs(x @ w + len(w) * b) / dual, "b is added once to the sum, not once for each input"),
        (abs(score) / np.linalg.norm(w), "this is the distance in ℓ2, whatever the norm"),
    ]
    signed = {"linf": w.sum(), "l1": w.max()}.get(p)
    if signed:
        why = "|w_i|: the sign of w must not matter"
        slips += [(abs(score) / signed, why), (abs(score) / abs(signed), why)]
    return m.compare(answer, abs(score) / dual, slips)


# worst_case


def worst_case_cases(seed):
    g = generator(seed, 2)
    out = []
    for p, eps, scale in (("linf", 0.2, 1), ("l2", 0.6, 0.02), ("l2", 0.6, 1), ("l1", 1.3, 1)):
        for box in (None, (0.0, 1.0)):
            w = scale * torch.randn(8, generator=g)
            w[3] = 0
            x = (torch.rand(6, 8, generator=g) * 1.6 - 0.3).clamp(0, 1)
            y = torch.tensor([1.0, -1.0] * 3)
            label = f"{_norm_sign(p)}, {'no box' if box is None else 'in the box'}"
            label += "" if scale == 1 else f", w scaled by {scale}"
            out.append(Case((w, x, y, Threat(p, eps, box)), label))
    return out


def worst_case_judge(case, answer):
    w, x, y, threat = _plain(*case.args)
    if said := m.refuse_array(answer, x.shape, "the moved points", whole=True):
        return said
    far = np.array([_steps(w * s, row, threat) for row, s in zip(x, y, strict=True)])
    away, want = -y[:, None] * w, far @ abs(w)
    signs = x + threat.eps * np.sign(away)
    shared = {"l2": "in ℓ2 input i moves like |w_i|", "l1": "in ℓ1 they share one budget"}
    if said := m.refuse_point(answer, x, threat, [
        (np.sign(away) * far, _DELTA),
        (threat.eps * np.sign(away), _DELTA),
        *((z, f"every input moves by ε: {shared.get(threat.norm)}")
          for z in (signs, oracles.into_box(signs, threat)) if threat.norm in shared),
    ]):  # fmt: skip
        return said
    gain = y * ((x - answer) @ w)
    step = oracles.steepest(away, threat.norm) if threat.norm != "l1" else _largest(away)
    room = _room(-away, x, threat)
    cut = y * ((x - oracles.into_box(x + threat.eps * step, threat)) @ w)
    even = threat.eps * abs(w).sum() / len(w) ** 0.5 * np.ones(len(x))
    slips = [
        (np.zeros(len(x)), "the points have not moved against the label"),
        (-want, m.SIGN),
        (cut,
         "clamping after one full step leaves budget unspent: some inputs have room left"),
        (even, "equal steps are the worst case of ℓ∞; in ℓ2 input i moves like |w_i|"),
        (y * ((x - oracles.into_box(x + threat.eps * away, threat)) @ w),
         "w has the right direction, not the right size: normalise it"),
        *((np.minimum(t * abs(w), room) @ abs(w), "t stops too early: look for it up to 10⁴, say")
          for t in (1, threat.eps, threat.eps / np.linalg.norm(w))),
    ]  # fmt: skip
    if not (gain >= -1e-4).all():
        return m.said(f"a score that rises by {-gain.min():.4g}", "one that falls", m.SIGN)
    return m.compare(gain, want, slips, what="a fall of ", rtol=1e-3, atol=1e-4)


def _largest(g):
    """ℓ1: one step along the largest coordinate."""
    one = np.zeros_like(g)
    at = np.abs(g).argmax(1)
    rows = np.arange(len(g))
    one[rows, at] = np.sign(g[rows, at])
    return one


_DELTA = "you returned δ: return x + δ"


def _room(v, x, threat):
    """How far each input can go against v."""
    low, high = threat.box or (-np.inf, np.inf)
    return np.where(v > 0, x - low, high - x)


def _largest_fall(v, x, threat):
    """max of v·(x − z) over the threat."""
    return abs(v) @ _steps(v, x, threat)


def _steps(v, x, threat):
    """How far each input goes in the worst case: closed form, linear program, or bisection."""
    room = _room(v, x, threat)
    if threat.norm == "linf":
        return np.where(v == 0, 0, np.minimum(room, threat.eps))
    if threat.norm == "l1":
        from scipy.optimize import linprog

        spent = linprog(-abs(v), A_ub=np.ones((1, len(v))), b_ub=[threat.eps],
                        bounds=list(zip(np.zeros_like(room), room, strict=True)))  # fmt: skip
        return spent.x
    small, big = 0.0, 1e6
    for _ in range(200):
        t = (small + big) / 2
        fits = np.linalg.norm(np.minimum(t * abs(v), room)) <= threat.eps
        small, big = (t, big) if fits else (small, t)
    return np.minimum(small * abs(v), room)


# sign_shifts


def sign_shifts_cases(seed):
    g = generator(seed, 3)
    sparse = torch.zeros(64)
    sparse[5] = 1.0
    dense = torch.randn(400, generator=g)
    plans = (
        ("dense", dense, 0),
        ("another seed", dense, 1),
        ("the first seed again", dense, 0),
        ("equal sizes", torch.ones(100), 2),
        ("w = (1, 2, 4)", torch.tensor([1.0, 2.0, 4.0]), 3),
        ("one input", sparse, 4),
    )
    seeds = torch.randint(2**31, (5,), generator=g).tolist()
    return [Case((w.clone(), 0.1, 2000, seeds[i]), label) for label, w, i in plans]


def sign_shifts_together(cases, answers):
    """The same draws from the same seed, others from another."""
    first, other, again = (np.asarray(random, float) for _, random in answers[:3])
    if not np.allclose(first, again, rtol=1e-4, atol=1e-5):
        why = "make your generator from `seed`, in the function"
        return f"random: {m.said('other numbers from the same seed', 'the same numbers', why)}"
    if np.allclose(first, other, rtol=1e-4, atol=1e-5):
        return f"random: {m.said('the same numbers from two seeds', 'others', 'use `seed`')}"
    return None


def sign_shifts_judge(case, answer):
    w, eps, count, _ = _plain(*case.args)
    if said := m.refuse_tuple(answer, ("chosen", "random")):
        return said
    chosen, drawn = answer
    if said := m.refuse_number(chosen, "the largest rise of the score"):
        return f"chosen: {said}"
    if said := m.refuse_array(drawn, (count,), "the rise of the score for each draw"):
        return f"random: {said}"
    one, two = abs(w).sum(), np.linalg.norm(w)
    slips = [
        (eps * two, "you added the nudges as a random walk; chosen signs all pull the same way"),
        (eps * one / len(w), m.MEAN),
        (one, "ε is missing"),
        (eps * abs(w.sum()), "the sum of w: the signs must follow those of w, so |w_i| adds up"),
    ]
    if said := m.compare(chosen, eps * one, slips):
        return f"chosen: {said}"
    return _random_shifts(np.asarray(drawn, float), eps, w, count)


def _random_shifts(r, eps, w, count):
    """Six standard deviations of room: m draws fix the root mean square to about √(1/(2m))."""
    one, two = eps * abs(w).sum(), eps * np.linalg.norm(w)
    rms, noise = np.sqrt((r**2).mean()), 6 / np.sqrt(count)
    got = f"random: {m.said(f'a root mean square of {rms:.4g}', f'about {two:.4g}')}"
    near = lambda a, b: abs(a - b) <= noise / np.sqrt(2) * two
    if (r >= 0).all() and np.count_nonzero(w) > 3 and near(rms, two):
        return f"random: {m.said('no rise below 0', 'as many as above', 'a rise may be negative')}"
    if near(2 * r.std(), two) and near(2 * r.mean(), eps * w.sum()):
        mean = m.said(f"a mean of {r.mean():.4g}", "about 0", "signs are −1 and +1, not 0 and 1")
        return f"random: {mean}"
    if np.count_nonzero(w) == 1 and not np.allclose(abs(r), two, rtol=1e-4):
        return f"{got}: a nudge is +ε or −ε and nothing between: draw signs, not normal numbers"
    if not abs(r).max() <= one * 1.0001:
        return f"random: {m.said(f'a shift of {abs(r).max():.4g}', f'at most ε‖w‖₁ = {one:.4g}')}"
    if np.ptp(r) == 0:
        return f"{got}: the same draw {count} times"
    if not abs(r.mean()) <= noise * two:
        return f"random: {m.said(f'a mean of {r.mean():.4g}', 'about 0', 'a sign is fair')}"
    if np.count_nonzero(w) > 1 and len(np.unique(abs(r).round(5))) == 1:
        return f"{got}: each input needs a sign of its own"
    if abs(rms - two / np.sqrt(3)) < noise / 2 * two / np.sqrt(3):
        return f"{got}: uniform in [−ε, ε] is not ±ε: off by √3"
    return _not_sums(r / eps, w, count) if near(rms, two) else got


def _not_sums(q, w, count):
    """Where w is of few whole numbers, the sums ±w₁ ± w₂ … are, too, and each choice is as likely
    as any other: no other distribution of the same variance is like that."""
    if len(w) > 3 and np.ptp(w) == 0 and w[0] == 1:
        off = abs((q - len(w)) / 2 - ((q - len(w)) / 2).round()).max()
        if not off <= 5e-3:
            want = "an even number of ε, the sum of 100 times ±ε"
            return f"random: {m.said('other sums', want, 'draw signs, not normal numbers')}"
    if len(w) == 3:
        sums = [a + b + c for a in (-1, 1) for b in (-2, 2) for c in (-4, 4)]
        hits = [(abs(q - s) < 1e-2).sum() for s in sums]
        room = 6 * np.sqrt(count * 7 / 64)
        if not (sum(hits) == count and max(abs(h - count / 8) for h in hits) <= room):
            got = f"sums ±1 ± 2 ± 4 that come up {min(hits)} to {max(hits)} times"
            why = "draw a fair sign of its own for each input"
            return f"random: {m.said(got, f'about {count // 8} times each', why)}"
    return None


# robust_risk


def robust_risk_cases(seed):
    g = generator(seed, 4)
    w, b = torch.tensor([3.0, 4.0]), -5.0
    # The first score is 5, a tie. Found by search: each slip of the judge gives another share.
    x = torch.tensor([[2, 1], [-3, 3], [1, 1], [4, 4], [4, 2], [2, 0], [-1, 1],
                      [1, 0], [1, -1], [0, 1], [3, 0], [-1, 3], [-3, 3], [0, -1],
                      [-3, 2], [3, 0], [0, -2], [-2, 4], [4, -2], [3, 2]]).float()  # fmt: skip
    y = torch.ones(20)
    y[12:] = -1
    cases = [Case((w, b, x, y, 1.0, "l2"), "one point at distance exactly ε")]
    for p, eps in (("linf", 0.1), ("l2", 0.3), ("l1", 0.4)):
        w, x = torch.randn(6, generator=g), torch.randn(60, 6, generator=g)
        b = torch.randn((), generator=g).item()
        y = (x @ w + b).sign()
        y[::5] *= -1
        cases.append(Case((w, b, x, y, eps, p), f"random, {_norm_sign(p)}"))
    return cases


def robust_risk_judge(case, answer):
    w, b, x, y, eps, p = _plain(*case.args)
    if said := m.refuse_number(answer, "the share of examples"):
        return said
    s, (own, dual) = y * (x @ w + b), (np.linalg.norm(w, q) for q in ORDERS[p])
    right = (s <= eps * dual).mean()
    slips = [
        (right * len(x), m.MEAN),
        ((s < eps * dual).mean(), m.TIE),
        ((abs(s) <= eps * dual).mean(), m.ABS),
        ((abs(s) < eps * dual).mean(), m.ABS),
        (1 - right, "this is the robust accuracy; the risk is the rest"),
        ((s <= 0).mean(), "this is the clean risk: nobody has moved"),
        ((s <= eps * own).mean(), m.DUAL),
        ((s <= -eps * dual).mean(), m.SIGN),
        ((s <= eps).mean(), "ε is a distance; the score moves by ε times the dual norm"),
        ((y * (x @ w) <= eps * dual).mean(), "b is missing"),
        ((y * (x @ w - b) <= eps * dual).mean(), "b is added, not taken off"),
    ]
    return m.compare(answer, right, slips, rtol=0.0, atol=1e-6, unique=True)


# fgsm


def fgsm_cases(seed):
    g = generator(seed, 5)
    out = []
    for i, (p, eps, box) in enumerate(
        (("linf", 0.1, (0.0, 1.0)), ("linf", 0.2, None), ("l2", 0.5, (0.0, 1.0)))
    ):
        model = models.mlp(12, 3, hidden=(16,), seed=seed + i)
        x = (torch.rand(8, 1, 3, 4, generator=g) * 1.4 - 0.2).clamp(0, 1)
        y = torch.randint(3, (8,), generator=g)
        label = f"{_norm_sign(p)}, {'no box' if box is None else 'in the box'}"
        out.append(Case((model, x, y, Threat(p, eps, box)), label))
    return out


def fgsm_judge(case, answer):
    model, x, y, threat = case.args
    if said := m.refuse_array(answer, tuple(x.shape), "the moved points"):
        return said
    x, y = x.double().flatten(1).numpy(), y.numpy()
    z = answer.astype(float).reshape(x.shape)
    net = oracles.Network(model)
    g, other = net.gradient(x, y), net.gradient(x, net.logits(x).argmax(1))
    full = lambda step: x + threat.eps * step
    moved = lambda step: oracles.into_box(x + threat.eps * step, threat)
    step = oracles.steepest(g, threat.norm)
    slips = [
        (x, "the points have not moved"),
        (moved(-step), m.SIGN),
        (moved(g), _SIZE),
        (moved(g / len(x)), _SIZE),
        (moved(g / np.linalg.norm(g)), "one norm for the whole batch: each example has its own"),
        (
            moved(np.sign(g) / g.shape[1] ** 0.5),
            _SIGN_IN_L2,
        ),
        (moved(oracles.steepest(other, threat.norm)), "the label is y, not the predicted class"),
        (moved(oracles.steepest(net.gradient_of_softmax_twice(x, y), threat.norm)),
         "cross_entropy takes logits: a softmax before it makes two"),
    ]  # fmt: skip
    if said := m.refuse_point(z, x, threat, [
        (threat.eps * step, _DELTA),
        (full(-step), m.SIGN),
        *((a, _SIZE) for a in (moved(g), full(g), full(g / len(x)))),
        *((a(np.sign(g)), _SIGN_IN_L2) for a in (full, moved) if threat.norm == "l2"),
    ]):  # fmt: skip
        return said
    clear = abs(g) > 1e-4 * abs(g).max()  # the sign of a gradient of 0 is a matter of rounding
    slips = [(np.where(clear, w, z), why) for w, why in slips]
    return m.compare(z, np.where(clear, moved(step), z), slips, rtol=0.0, atol=2e-4)


_SIGN_IN_L2 = "sign(g) is the steepest step of ℓ∞; in ℓ2 it is g/‖g‖"
_SIZE = "a gradient has the right direction, not the right size: normalise it, example by example"


# project_l1


def project_l1_cases(seed):
    g = generator(seed, 6)
    text = torch.tensor([[3.0, 1.0], [-0.5, 0.25]])
    delta = torch.randn(12, 7, generator=g) * torch.rand(12, 1, generator=g) * 2
    delta[0], delta[1, 1:] = 1.0, 0.0
    return [Case((text, 2.0), "(3, 1) at ε = 2", True), Case((delta, 1.0), "random"),
            Case((torch.randn(4, 50, generator=g), 3.0), "50 inputs")]  # fmt: skip


def project_l1_judge(case, answer):
    delta, eps = _plain(*case.args)
    if said := m.refuse_array(answer, delta.shape, "the projected perturbations", whole=True):
        return said
    size = abs(delta).sum(1, keepdims=True)
    outside = size > eps
    low, high = np.zeros_like(size), abs(delta).max(1, keepdims=True)
    for _ in range(100):  # bisection for the λ that brings the sum of max(|δ| − λ, 0) to eps
        cut = (low + high) / 2
        over = np.maximum(abs(delta) - cut, 0).sum(1, keepdims=True) > eps
        low, high = np.where(over, cut, low), np.where(over, high, cut)
    soft = lambda cut: np.sign(delta) * np.maximum(abs(delta) - cut, 0)
    want = np.where(outside, soft(high), delta)
    slips = [
        (delta * np.minimum(1, eps / size),
         "feasible, but not nearest: take the same λ off every |δ_i|"),
        (delta * eps / size, "points inside the ball stay where they are"),
        (np.where(outside, soft(np.maximum(size - eps, 0) / delta.shape[1]), delta),
         "an input that reaches 0 stops paying: find how many stay, then share λ among those"),
        (delta.clip(-eps, eps), "this is the projection onto the ℓ∞ ball"),
        (abs(want), "the signs are lost"),
        (_largest(delta) * np.minimum(eps, size), "not nearest: you kept one input only"),
    ]  # fmt: skip
    return m.compare(answer, want, slips, rtol=1e-4, atol=1e-5)


# pgd


def pgd_cases(seed):
    g = generator(seed, 7)
    plans = (
        ("linf", 0.15, 10, 0.15),
        ("linf", 0.3, 10, 0.2),
        ("l2", 1.0, 8, 0.6),
        ("l2", 0.6, 8, 0.3),
    )
    out = []
    for i, (p, eps, steps, step) in enumerate(plans):
        label = f"{_norm_sign(p)}, {steps} steps"
        out.append(Case((*_bent(seed + i, g), Threat(p, eps), steps, step), label))
    # A few steps of ℓ∞ are the same for every right style, so there the margins must be the same.
    kept = ("margins",)
    few, much = (Threat("linf", 0.3), 3, 0.1), (Threat("linf", 0.4), 2, 0.4)
    return [
        *out[:2],
        Case((*_bent(seed + 4, g), *few), "ℓ∞, 3 steps, example by example", kept=kept),
        Case((*_overshot(seed + 5, g, *much), *much), "ℓ∞, 2 steps that are too large", kept=kept),
        *out[2:],
    ]


def _bent(seed, g, n=40):
    """A model, inputs and its own labels for them. Larger weights than at the start of training
    mean more bends: the plain slips cost margin."""
    model = models.mlp(20, 4, hidden=(32, 32), seed=seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)
        x = torch.rand(n, 20, generator=g)
        return model, x, model(x).argmax(1)


def _overshot(seed, g, threat, steps, step):
    """As `_bent`, from points that are bad already: at most of them PGD finds nothing worse."""
    model, x, y = _bent(seed, g, 4000)
    net, at = oracles.Network(model), y.numpy()
    low = oracles.pgd(net, x.double().numpy(), at, Threat("linf", 0.1), 20, 0.01)
    x = torch.from_numpy(low).float().clamp(0, 1)
    z = x.double().numpy()
    better = oracles.pgd(net, z, at, threat, steps, step, from_x=False)
    gain = torch.from_numpy(net.margin(z, at) - net.margin(better, at))
    chosen = gain.argsort()[:40]
    return model, x[chosen], y[chosen]


def pgd_judge(case, answer):
    model, x, y, threat, steps, step = case.args
    if said := m.refuse_array(answer, tuple(x.shape), "the moved points"):
        return said
    x, y, z = x.double().numpy(), y.numpy(), answer.astype(float)
    if said := m.refuse_point(z, x, threat):
        return said
    net = oracles.Network(model)
    attack = lambda **slip: oracles.pgd(net, x, y, threat, steps, step, **slip)
    if case.kept:
        off = lambda points: abs(net.margin(z, y) - net.margin(points, y))
        share = (off(attack()) < 1e-3).mean()
        if share >= 0.9:  # float32 takes another turn at few
            return None
        got, want = f"the margin of PGD at {100 * share:.0f} % of the examples", "at least 90 %"
        return m.said(got, want, _pgd_slip(net, attack, off, *case.args[1:]))
    least, clean = net.margin(attack(), y).mean(), net.margin(x, y).mean()
    got = net.margin(z, y).mean()
    if got <= least + 0.02 * (clean - least):  # float32 may take another turn at a kink
        return None
    why = _pgd_slip(net, attack, lambda points: abs(z - points).max(1), *case.args[1:])
    why = why or "weaker than PGD with as many steps"
    return m.said(f"a mean margin of {got:.4g}", f"at most {least:.4g}", why)


def _pgd_slip(net, attack, off, x, y, threat, steps, step):
    """The slip that explains most of the examples, and more than half: bends part the rest."""
    x, y = x.double().numpy(), y.numpy()
    loose = attack(project=lambda z, x, threat: oracles.into_box(z, threat), last=True)
    other = lambda steps, step, **slip: oracles.pgd(net, x, y, threat, steps, step, **slip)
    slips = [
        (x, "the points have not moved"),
        (attack(from_x=False), "x itself is a candidate: keep it where nothing is better"),
        (attack(last=True), "an earlier iterate had a smaller margin: keep the best"),
        (oracles.into_ball(loose, x, threat), f"one projection at the end: {m.BALL}"),
        (attack(sign=-1, last=True), m.SIGN),
        (attack(sums=True), "the gradients of all steps add up: take each one afresh"),
        (other(1, threat.eps), "this is FGSM: one step of size eps"),
        (other(steps, threat.eps), "the step is eps, not step"),
        (other(steps, threat.eps, last=True), "the step is eps, not step"),
        (other(steps - 1, step), "one step too few"),
        (other(steps + 1, step), "one step too many"),
        (other(20, threat.eps / 4), "take `steps` steps of size `step`, as you are told"),
    ]
    shares = [(off(points) < 1e-3).mean() for points, _ in slips]
    return slips[int(np.argmax(shares))][1] if max(shares) > 0.5 else ""


# random_vs_chosen

LEVELS = 3


def random_vs_chosen_cases(seed):
    return [Case(label=f"digits, 3 against 8, {LEVELS} grey levels")]


def random_vs_chosen_judge(case, answer):
    if not isinstance(answer, dict) or set(answer) != {"random", "chosen"}:
        want = 'a dict {"random": (low, high), "chosen": (low, high)}'
        return m.said(m.named(answer), want)
    for key, interval in answer.items():
        if said := _refuse_interval(interval):
            return f"{key}: {said}"
    clean, chance, worst = _accuracies()
    (low, high), (lower, upper) = answer["random"], answer["chosen"]
    if not low <= clean:
        most = f"at most {clean:.3f}, the clean accuracy"
        return m.said(f"random from {low:g}", most, "nothing here can raise it")
    if said := (
        _outside("random", low, high, chance,
                 "random signs cancel: their sum grows like √d, not like d",
                 "random signs blur the scores: some cross over")
        or _outside("chosen", lower, upper, worst,
                    "ε‖w‖₁ is large, but some scores are larger, and the box stops black and "
                    "white pixels",
                    "you added the nudges as a random walk; chosen signs all pull the same way")
    ):  # fmt: skip
        return said
    truth = f"{100 * chance:.1f} % for random signs and {100 * worst:.1f} % for chosen ones"
    return Accepted(f"Measured: {truth}")


def _outside(key, low, high, truth, too_low, too_high):
    """The message if `truth` is not in [low, high]; it says where to go, not how far."""
    if low <= truth <= high:
        return None
    near = "close, but not inside" if low - 0.03 <= truth <= high + 0.03 else ""
    if not truth <= high:
        return m.said(f"{key} up to {high:g}", "a higher interval", near or too_low)
    return m.said(f"{key} from {low:g}", "a lower interval", near or too_high)


def _refuse_interval(interval):
    interval = tuple(interval) if isinstance(interval, list) else interval
    if said := m.refuse_tuple(interval, ("low", "high")):
        return said
    for end in interval:
        if said := m.refuse_number(end, "an accuracy", 0.0, 1.0):
            return said
    low, high = interval
    if not low <= high <= low + 0.2 + 1e-9:  # 0.9 − 0.7 is more than 0.2 in floating point
        return m.said(f"({low:g}, {high:g})", "low ≤ high, at most 0.2 apart", "commit yourself")
    return None


def _accuracies():
    """Of logistic regression on the test half: clean, under random signs, under the worst ones."""
    d = data.load("digits").only(3, 8)
    x, xt = (t.double().flatten(1).numpy() for t in (d.train_x, d.test_x))
    y, yt = (2 * t.numpy() - 1 for t in (d.train_y, d.test_y))
    w, b = _logistic(x, y)
    rng, eps = np.random.default_rng(0), LEVELS / 16
    nudged = ((xt + eps * rng.choice([-1.0, 1.0], xt.shape)).clip(0, 1) for _ in range(50))
    chance = np.mean([(yt * (z @ w + b) > 0).mean() for z in nudged])
    return (yt * (xt @ w + b) > 0).mean(), chance, _robust_accuracy(w, b, xt, yt, eps)


def _logistic(x, y):
    from sklearn.linear_model import LogisticRegression

    rule = LogisticRegression(max_iter=2000).fit(x, y)
    return rule.coef_[0], rule.intercept_[0]


def _robust_accuracy(w, b, x, y, eps):
    """Exact for a linear rule in ℓ∞ with the box: each pixel goes to its own wall."""
    z = (x - eps * y[:, None] * np.sign(w)).clip(0, 1)
    return (y * (z @ w + b) > 0).mean()


# holder_witness


def holder_witness_cases(seed):
    g = generator(seed, 8)
    text = [
        Case((torch.tensor([3.0, -4.0]), p), f"w = (3, −4), {_norm_sign(p)}", True) for p in ORDERS
    ]
    return text + [
        Case((torch.randn(7, generator=g), p), f"random, {_norm_sign(p)}") for p in ORDERS
    ]


def holder_witness_judge(case, answer):
    w, p = _plain(*case.args)
    if said := m.refuse_array(answer, w.shape, "the perturbation δ", whole=True):
        return said
    delta, (own, dual) = answer.astype(float), ORDERS[p]
    size, want, got = np.linalg.norm(delta, own), np.linalg.norm(w, dual), delta @ w
    if not abs(size - 1) <= 1e-4:
        return m.said(f"‖δ‖ = {size:.4g}", "1", "scale δ to size 1 in the norm it was asked for")
    if abs(got - want) <= 1e-4 * want:
        return None
    why = "feasible after scaling, but not extremal: w·δ can be larger"
    if abs(got + want) <= 1e-4 * want:
        why = m.SIGN
    elif p == "linf" and np.count_nonzero(delta) == 1:
        why = "that is an extreme point of the ℓ1 ball; in ℓ∞ every coordinate may move"
    return m.said(f"w·δ = {got:.6g}", f"‖w‖ in the dual norm, {want:.6g}", why)


# more_radius, best_linear


def _split_cases(exercise, count):
    """Fresh halves of the 3s and 8s; the student's function gets one half, y of −1 and +1."""

    def cases(seed):
        d = data.load("digits").only(3, 8)
        x = torch.cat([d.train_x, d.test_x]).flatten(1)
        y = 2 * torch.cat([d.train_y, d.test_y]).to(x.dtype) - 1
        g, out = generator(seed, exercise), []
        for i in range(count):
            a, b = torch.randperm(len(x), generator=g).tensor_split(2)
            out.append(Case((x[a], y[a]), f"split {i + 1} of {count}", kept=(x[b], y[b])))
        return out

    return cases


def _refuse_rule(answer, d):
    if said := m.refuse_tuple(answer, ("w", "b")):
        return said
    w, b = answer
    if said := m.refuse_array(w, (d,), "the weights"):
        return f"w: {said}"
    if said := m.refuse_number(b, "the bias"):
        return f"b: {said}"
    if not np.any(w):
        return m.said("w = 0", "a rule with a boundary")
    # Else products overflow or vanish, and NaN decides.
    most, far = np.abs(np.asarray(w, float)).max(), abs(float(b))
    if not (1e-6 < most < 1e6 and far < 1e6):
        return m.said(
            f"|w| up to {most:.3g} and |b| = {far:.3g}", "|w| from 1e-6 to 1e6, |b| < 1e6"
        )
    return None


def _usual(w, v):
    """Whether w is the usual rule v times a number."""
    return w @ v / np.linalg.norm(w) / np.linalg.norm(v) > 0.999


def _clean(w, b, x, y):
    return (y * (x @ w + b) > 0).mean()


def _rule_judge(case, answer):
    return _refuse_rule(answer, case.args[0].shape[1])


def _rules(cases, answers):
    """Each split with its rule: x, y, held-out x and y, w, b."""
    for case, (w, b) in zip(cases, answers, strict=True):
        yield *_plain(*case.args, *case.kept), np.asarray(w, float), float(b)


# The accuracy of one rule on one half of 357 images has a standard error of about 1 point: the
# mean over splits is what is judged.
more_radius_cases = _split_cases(9, 6)


def more_radius_together(cases, answers):
    """Accuracy and the median radius on held-out images, in the mean over the splits."""
    radius = lambda w, b, x, y: np.median(np.maximum(y * (x @ w + b), 0)) / abs(w).sum()
    rows = []
    for x, y, xt, yt, w, b in _rules(cases, answers):
        v, c = _logistic(x, y)
        rows.append((_clean(w, b, xt, yt), _clean(v, c, xt, yt),
                     radius(w, b, xt, yt), radius(v, c, xt, yt), _usual(w, v)))  # fmt: skip
    got, usual, mine, theirs, alike = np.mean(rows, axis=0)
    ratio = mine / theirs
    if not got >= 0.1:
        return m.said(f"held-out accuracy {got:.3f}", f"at least {usual - 0.03:.3f}", m.SIGN)
    if not got >= usual - 0.03:
        why = "accuracy is lost: the claim is refuted only by a rule that is as accurate"
        return m.said(f"held-out accuracy {got:.3f}", f"at least {usual - 0.03:.3f}", why)
    if not ratio >= 1.2:
        why = "the distance does not change with ‖w‖" if alike == 1 else "make ‖w‖₁ dear"
        return m.said(f"{ratio:.2f} times the usual rule's median radius", "at least 1.2", why)
    text = f"held-out accuracy {got:.3f} (usual rule {usual:.3f}), median radius × {ratio:.2f}"
    return Accepted(text)


best_linear_cases = _split_cases(10, 3)


def best_linear_together(cases, answers):
    """Clean and robust accuracy on held-out images, in the mean over the splits."""
    rows = [
        (
            _clean(w, b, xt, yt),
            _robust_accuracy(w, b, xt, yt, 4 / 16),
            _usual(w, _logistic(x, y)[0]),
        )
        for x, y, xt, yt, w, b in _rules(cases, answers)
    ]
    clean, robust, alike = np.mean(rows, axis=0)
    if not clean >= 0.92:
        why = "robustness bought with accuracy is another task"
        return m.said(f"clean accuracy {clean:.3f}", "at least 0.92", why)
    if not robust >= 0.4:
        why = "sparser, or trained against the worst signs for longer"
        if alike == 1:
            why = "this is the usual rule: train against the worst signs"
        elif not robust >= 0.2:
            why = "random nudges are not the adversary: train against the worst signs"
        return m.said(f"robust accuracy {robust:.3f}", "at least 0.4", why)
    return Accepted(f"objective: robust accuracy {robust:.3f} at 4 grey levels, clean {clean:.3f}")


_NAME = "01_linear_hypothesis."
CHECKS = {
    check.name.removeprefix(_NAME): check
    for check in (
        Check(_NAME + "distance", 1, distance_cases, distance_judge, ("linear.distance",)),
        Check(_NAME + "worst_case", 3, worst_case_cases, worst_case_judge, ("linear.worst_case",)),
        Check(
            _NAME + "sign_shifts", 2, sign_shifts_cases, sign_shifts_judge,
            seeded=True, together=sign_shifts_together,
        ),
        Check(
            _NAME + "robust_risk", 1, robust_risk_cases, robust_risk_judge, ("linear.robust_risk",)
        ),
        Check(_NAME + "fgsm", 2, fgsm_cases, fgsm_judge, ("attacks.fgsm",)),
        Check(_NAME + "project_l1", 3, project_l1_cases, project_l1_judge, ("Threat.project",)),
        Check(_NAME + "pgd", 3, pgd_cases, pgd_judge, ("attacks.pgd", "attacks.apgd")),
        Check(_NAME + "random_vs_chosen", 1, random_vs_chosen_cases, random_vs_chosen_judge),
        Check(_NAME + "holder_witness", 2, holder_witness_cases, holder_witness_judge),
        Check(
            _NAME + "more_radius", 3, more_radius_cases, _rule_judge,
            ("data.load", "sys._getframe"), together=more_radius_together,
        ),
        Check(
            _NAME + "best_linear", 3, best_linear_cases, _rule_judge,
            ("data.load", "sys._getframe"), together=best_linear_together,
        ),
    )
}  # fmt: skip
