"""Checks of chapter 1: distances, the worst case, FGSM and PGD, and what random signs cannot do.

The oracles are closed forms in NumPy and float64, a linear program, and bisection.
"""

import numpy as np
import torch

from robcourse import data, models
from robcourse.threat import Threat

from . import Accepted, Case, Check, oracles
from . import messages as m

ORDERS = {"linf": (np.inf, 1), "l2": (2, 2), "l1": (1, np.inf)}


def _generator(seed: int, exercise: int) -> torch.Generator:
    return torch.Generator().manual_seed((seed * 1009 + exercise) % 2**63)


def _plain(*args):
    """Tensors as NumPy arrays of float64."""
    out = tuple(a.detach().double().numpy() if isinstance(a, torch.Tensor) else a for a in args)
    return out if len(out) > 1 else out[0]


def _norm_sign(name):
    return {"linf": "ℓ∞", "l2": "ℓ2", "l1": "ℓ1"}[name]


# distance


def distance_cases(seed):
    g = _generator(seed, 1)
    w, x = torch.tensor([3.0, 4.0]), torch.tensor([[2.0, 1.0], [0.0, 0.0]])
    text = [
        Case((w.clone(), -5.0, x.clone(), p), f"w = (3, 4), {_norm_sign(p)}", True) for p in ORDERS
    ]
    fresh = [
        Case((torch.randn(9, generator=g), torch.randn((), generator=g).item(),
              torch.rand(6, 9, generator=g), p), f"random, {_norm_sign(p)}")
        for p in ORDERS
    ]  # fmt: skip
    return text + fresh


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
    ]
    return m.compare(answer, abs(score) / dual, slips)


# worst_case


def worst_case_cases(seed):
    g = _generator(seed, 2)
    out = []
    for p, eps in (("linf", 0.2), ("l2", 0.6), ("l1", 1.3)):
        for box in (None, (0.0, 1.0)):
            w = torch.randn(8, generator=g)
            w[3] = 0
            x = (torch.rand(6, 8, generator=g) * 1.6 - 0.3).clamp(0, 1)
            y = torch.tensor([1.0, -1.0] * 3)
            label = f"{_norm_sign(p)}, {'no box' if box is None else 'in the box'}"
            out.append(Case((w, x, y, Threat(p, eps, box)), label))
    return out


def worst_case_judge(case, answer):
    w, x, y, threat = _plain(*case.args)
    if said := m.refuse_array(answer, x.shape, "the moved points") or m.refuse_point(
        answer, x, threat
    ):
        return said
    gain = y * ((x - answer) @ w)
    want = np.array([_largest_fall(w * s, row, threat) for row, s in zip(x, y, strict=True)])
    step = (
        oracles.steepest(-y[:, None] * w, threat.norm)
        if threat.norm != "l1"
        else _largest(-y[:, None] * w)
    )
    cut = y * ((x - oracles.into_box(x + threat.eps * step, threat)) @ w)
    even = threat.eps * abs(w).sum() / len(w) ** 0.5 * np.ones(len(x))
    slips = [
        (np.zeros(len(x)), "the points have not moved against the label"),
        (-want, m.SIGN),
        (cut,
         "clamping after one full step leaves budget unspent: some inputs have room left"),
        (even, "equal steps are the worst case of ℓ∞; in ℓ2 input i moves like |w_i|"),
    ]  # fmt: skip
    if (gain < -1e-4).any():
        return m.said(f"a score that rises by {-gain.min():.4g}", "one that falls", m.SIGN)
    return m.compare(gain, want, slips, what="a fall of ", rtol=1e-3, atol=1e-4)


def _largest(g):
    """ℓ1: one step along the largest coordinate."""
    one = np.zeros_like(g)
    at = np.abs(g).argmax(1)
    rows = np.arange(len(g))
    one[rows, at] = np.sign(g[rows, at])
    return one


def _largest_fall(v, x, threat):
    """max of v·(x − z) over the threat: closed form, linear program, or bisection."""
    low, high = threat.box or (-np.inf, np.inf)
    room = np.where(v > 0, x - low, high - x)
    if threat.norm == "linf":
        return abs(v) @ np.minimum(room, threat.eps)
    if threat.norm == "l1":
        from scipy.optimize import linprog

        spent = linprog(-abs(v), A_ub=np.ones((1, len(v))), b_ub=[threat.eps],
                        bounds=list(zip(np.zeros_like(room), room, strict=True)))  # fmt: skip
        return -spent.fun
    small, big = 0.0, 1e6
    for _ in range(200):
        t = (small + big) / 2
        fits = np.linalg.norm(np.minimum(t * abs(v), room)) <= threat.eps
        small, big = (t, big) if fits else (small, t)
    return abs(v) @ np.minimum(small * abs(v), room)


# sign_shifts


def sign_shifts_cases(seed):
    g = _generator(seed, 3)
    sparse = torch.zeros(64)
    sparse[5] = 1.0
    weights = (
        ("dense", torch.randn(400, generator=g)),
        ("equal sizes", torch.ones(100)),
        ("one input", sparse),
    )
    draws = torch.randint(2**31, (3,), generator=g).tolist()
    return [Case((w, 0.1, 2000, s), label) for (label, w), s in zip(weights, draws, strict=True)]


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
    if np.count_nonzero(w) == 1 and not np.allclose(abs(r), two, rtol=1e-4):
        return f"{got}: a nudge is +ε or −ε and nothing between: draw signs, not normal numbers"
    if abs(r).max() > one * 1.0001:
        return f"random: {m.said(f'a shift of {abs(r).max():.4g}', f'at most ε‖w‖₁ = {one:.4g}')}"
    if np.ptp(r) == 0:
        return f"{got}: the same draw {count} times"
    if abs(r.mean()) > noise * two:
        mean = m.said(f"a mean of {r.mean():.4g}", "about 0", "signs are −1 and +1, not 0 and 1")
        return f"random: {mean}"
    if np.count_nonzero(w) > 1 and len(np.unique(abs(r).round(5))) == 1:
        return f"{got}: each input needs a sign of its own"
    if abs(rms - two / np.sqrt(3)) < noise / 2 * two / np.sqrt(3):
        return f"{got}: uniform in [−ε, ε] is not ±ε: off by √3"
    return got if abs(rms - two) > noise / np.sqrt(2) * two else None


# robust_risk


def robust_risk_cases(seed):
    g = _generator(seed, 4)
    w, b = torch.tensor([3.0, 4.0]), -5.0
    # Scores 5 (a tie), 30, 2, 1, −2, −8, …: each slip gives another share.
    x = torch.tensor([[2, 1], [5, 5], [1, 1], [2, 0], [1, 0],
                      [-1, 0], [0, -1], [-2, 0], [-1, -1], [0, -2]]).float()  # fmt: skip
    cases = [Case((w, b, x, torch.ones(10), 1.0, "l2"), "one point at distance exactly ε")]
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
    ]
    return m.compare(answer, right, slips, rtol=0.0, atol=1e-6)


# fgsm


def fgsm_cases(seed):
    g = _generator(seed, 5)
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
    g = oracles.Network(model).gradient(x, y)
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
            "sign(g) is the steepest step of ℓ∞; in ℓ2 it is g/‖g‖",
        ),
    ]
    if said := m.refuse_point(z, x, threat):
        return said
    clear = abs(g) > 1e-4 * abs(g).max()  # the sign of a gradient of 0 is a matter of rounding
    slips = [(np.where(clear, w, z), why) for w, why in slips]
    return m.compare(z, np.where(clear, moved(step), z), slips, rtol=0.0, atol=2e-4)


_SIZE = "a gradient has the right direction, not the right size: normalise it, example by example"


# project_l1


def project_l1_cases(seed):
    g = _generator(seed, 6)
    text = torch.tensor([[3.0, 1.0], [-0.5, 0.25]])
    delta = torch.randn(12, 7, generator=g) * torch.rand(12, 1, generator=g) * 2
    delta[0], delta[1, 1:] = 1.0, 0.0
    return [Case((text, 2.0), "(3, 1) at ε = 2", True), Case((delta, 1.0), "random"),
            Case((torch.randn(4, 50, generator=g), 3.0), "50 inputs")]  # fmt: skip


def project_l1_judge(case, answer):
    delta, eps = _plain(*case.args)
    if said := m.refuse_array(answer, delta.shape, "the projected perturbations"):
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
    g = _generator(seed, 7)
    plans = (
        ("linf", 0.15, 10, 0.15),
        ("linf", 0.3, 10, 0.2),
        ("l2", 1.0, 8, 0.6),
        ("l2", 0.6, 8, 0.3),
    )
    out = []
    for i, (p, eps, steps, step) in enumerate(plans):
        model = models.mlp(20, 4, hidden=(32, 32), seed=seed + i)
        with torch.no_grad():  # larger weights, more bends: the plain slips cost margin
            for parameter in model.parameters():
                parameter.mul_(3)
            x = torch.rand(40, 20, generator=g)
            y = model(x).argmax(1)
        out.append(
            Case((model, x, y, Threat(p, eps), steps, step), f"{_norm_sign(p)}, {steps} steps")
        )
    return out


def pgd_judge(case, answer):
    model, x, y, threat, steps, step = case.args
    if said := m.refuse_array(answer, tuple(x.shape), "the moved points"):
        return said
    x, y, z = x.double().numpy(), y.numpy(), answer.astype(float)
    if said := m.refuse_point(z, x, threat):
        return said
    net = oracles.Network(model)
    attack = lambda **slip: oracles.pgd(net, x, y, threat, steps, step, **slip)
    least, clean = net.margin(attack(), y).mean(), net.margin(x, y).mean()
    got = net.margin(z, y).mean()
    if got <= least + 0.02 * (clean - least):  # float32 may take another turn at a kink
        return None
    loose = attack(project=lambda z, x, threat: oracles.into_box(z, threat), last=True)
    slips = [
        (x, "the points have not moved"),
        (attack(last=True), "an earlier iterate had a smaller margin: keep the best"),
        (oracles.into_ball(loose, x, threat), f"one projection at the end: {m.BALL}"),
        (attack(sign=-1, last=True), m.SIGN),
        (oracles.pgd(net, x, y, threat, 1, threat.eps), "this is FGSM: one step of size eps"),
        (oracles.pgd(net, x, y, threat, steps, threat.eps, last=True), "the step is eps, not step"),
    ]  # fmt: skip
    alike = lambda w: (abs(z - w).max(1) < 1e-3).mean() > 0.9
    why = next((message for w, message in slips if alike(w)), "weaker than PGD with as many steps")
    return m.said(f"a mean margin of {got:.4g}", f"at most {least:.4g}", why)


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
    truth = f"{100 * chance:.1f} % for random signs and {100 * worst:.1f} % for chosen ones"
    if low > clean:
        return m.said(
            f"random from {low:g}",
            f"at most {clean:.3f}, the clean accuracy",
            "nothing here can raise it",
        )
    if high < chance:
        why = "random signs cancel: their sum grows like √d, not like d"
        return m.said(f"random up to {high:g}", truth, why)
    if lower > worst:
        why = "you added the nudges as a random walk; chosen signs all pull the same way"
        return m.said(f"chosen from {lower:g}", truth, why)
    if low > chance:
        return m.said(
            f"random from {low:g}", truth, "random signs blur the scores: some cross over"
        )
    if upper < worst:
        why = "ε‖w‖₁ is large, but some scores are larger, and the box stops black and white pixels"
        return m.said(f"chosen up to {upper:g}", truth, why)
    return Accepted(f"Measured: {truth}")


def _refuse_interval(interval):
    if said := m.refuse_tuple(interval, ("low", "high")):
        return said
    for end in interval:
        if said := m.refuse_number(end, "an accuracy", 0.0, 1.0):
            return said
    low, high = interval
    if not low <= high <= low + 0.2:
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
    g = _generator(seed, 8)
    text = [
        Case((torch.tensor([3.0, -4.0]), p), f"w = (3, −4), {_norm_sign(p)}", True) for p in ORDERS
    ]
    return text + [
        Case((torch.randn(7, generator=g), p), f"random, {_norm_sign(p)}") for p in ORDERS
    ]


def holder_witness_judge(case, answer):
    w, p = _plain(*case.args)
    if said := m.refuse_array(answer, w.shape, "the perturbation δ"):
        return said
    delta, (own, dual) = answer.astype(float), ORDERS[p]
    size, want, got = np.linalg.norm(delta, own), np.linalg.norm(w, dual), delta @ w
    if abs(size - 1) > 1e-4:
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
        g, out = _generator(seed, exercise), []
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
    return None if np.any(w) else m.said("w = 0", "a rule with a boundary")


def _clean(w, b, x, y):
    return (y * (x @ w + b) > 0).mean()


more_radius_cases = _split_cases(9, 2)


def more_radius_judge(case, answer):
    x, y, xt, yt = _plain(*case.args, *case.kept)
    if said := _refuse_rule(answer, x.shape[1]):
        return said
    (w, b), (v, c) = answer, _logistic(x, y)
    w, b = np.asarray(w, float), float(b)
    radius = lambda w, b: np.median(np.maximum(yt * (xt @ w + b), 0)) / abs(w).sum()
    got, usual, ratio = _clean(w, b, xt, yt), _clean(v, c, xt, yt), radius(w, b) / radius(v, c)
    if got < 0.1:
        return m.said(f"held-out accuracy {got:.3f}", f"at least {usual - 0.03:.3f}", m.SIGN)
    if got < usual - 0.03:
        why = "accuracy is lost: the claim is refuted only by a rule that is as accurate"
        return m.said(f"held-out accuracy {got:.3f}", f"at least {usual - 0.03:.3f}", why)
    if ratio < 1.2:
        alike = w @ v / np.linalg.norm(w) / np.linalg.norm(v)
        why = "the distance does not change with ‖w‖" if alike > 0.999 else "make ‖w‖₁ dear"
        return m.said(f"{ratio:.2f} times the usual rule's median radius", "at least 1.2", why)
    text = f"held-out accuracy {got:.3f} (usual rule {usual:.3f}), median radius × {ratio:.2f}"
    return Accepted(text)


best_linear_cases = _split_cases(10, 2)


def best_linear_judge(case, answer):
    xt, yt = _plain(*case.kept)
    if said := _refuse_rule(answer, xt.shape[1]):
        return said
    w, b = np.asarray(answer[0], float), float(answer[1])
    clean, robust = _clean(w, b, xt, yt), _robust_accuracy(w, b, xt, yt, 4 / 16)
    if clean < 0.92:
        why = "robustness bought with accuracy is another task"
        return m.said(f"clean accuracy {clean:.3f}", "at least 0.92", why)
    if robust < 0.4:
        why = "sparser, or trained against the worst signs for longer"
        if robust < 0.2:
            why = "random nudges are not the adversary: train against the worst signs"
        return m.said(f"robust accuracy {robust:.3f}", "at least 0.4", why)
    return Accepted(f"objective: robust accuracy {robust:.3f} at 4 grey levels, clean {clean:.3f}")


_NAME = "01_linear_hypothesis."
CHECKS = {
    check.name.removeprefix(_NAME): check
    for check in (
        Check(_NAME + "distance", 1, distance_cases, distance_judge, ("linear.distance",)),
        Check(_NAME + "worst_case", 3, worst_case_cases, worst_case_judge, ("linear.worst_case",)),
        Check(_NAME + "sign_shifts", 2, sign_shifts_cases, sign_shifts_judge),
        Check(
            _NAME + "robust_risk", 1, robust_risk_cases, robust_risk_judge, ("linear.robust_risk",)
        ),
        Check(_NAME + "fgsm", 2, fgsm_cases, fgsm_judge, ("attacks.fgsm",)),
        Check(_NAME + "project_l1", 3, project_l1_cases, project_l1_judge, ("Threat.project",)),
        Check(_NAME + "pgd", 3, pgd_cases, pgd_judge, ("attacks.pgd", "attacks.apgd")),
        Check(_NAME + "random_vs_chosen", 1, random_vs_chosen_cases, random_vs_chosen_judge),
        Check(_NAME + "holder_witness", 2, holder_witness_cases, holder_witness_judge),
        Check(_NAME + "more_radius", 3, more_radius_cases, more_radius_judge),
        Check(_NAME + "best_linear", 3, best_linear_cases, best_linear_judge),
    )
}
