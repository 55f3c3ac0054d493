"""Checks of chapter 3: votes, exact bounds, radii, ceilings, and what breaks a certificate.

The oracles are binomial tails summed or inverted by bisection, normal closed forms, the networks
again in NumPy, and counts, in float64.
"""

from dataclasses import replace

import numpy as np
import torch
from scipy.special import betainc, betaincinv, ndtr, ndtri
from torch import Tensor

from robcourse import data, models

from . import Accepted, Case, Check, oracles
from . import messages as m
from .cases import generator, numbers, numpy_generator, tensor


def _whole(values) -> Tensor:
    return torch.tensor(np.asarray(values).astype(np.int64))


def _distinct(slips, want, least=1e-3) -> bool:
    """Whether slips with different messages give different numbers, and none the right ones."""
    each = [*((np.hstack(a), why) for a, why in slips), (np.hstack(want), "right")]
    far = lambda a, b: (abs(a - b) > least).any()
    return all(far(a, b) for i, (a, one) in enumerate(each) for b, two in each[:i] if one != two)


def _refuse_parts(answer, names, n):
    """As `m.refuse_tuple`, for arrays with a number, or True and False, an image."""
    if said := m.refuse_tuple(answer, names):
        return said
    for value, name in zip(answer, names, strict=True):
        if isinstance(value, np.ndarray):
            value = value + 0  # True and False become 1 and 0
            if np.isinf(value).any():
                return m.said("an infinite radius", "what n draws can prove", m.PLUG)
        if said := m.refuse_array(value, (n,), f"{name}, one for each", whole=True):
            return said
    return None


def _tail(k, n, p):
    """P(at least k hits of n), each with probability p."""
    return np.where(k > 0, betainc(np.maximum(k, 1), np.maximum(n - k + 1, 1e-9), p), 1.0)


def _lower(k, n, alpha):
    """Clopper and Pearson's bound by bisection: the share whose tail from k on is alpha."""
    k, n = np.broadcast_arrays(np.asarray(k, float), np.asarray(n, float))
    low, high = np.zeros(k.shape), np.ones(k.shape)
    for _ in range(60):
        middle = (low + high) / 2
        small = _tail(k, n, middle) < alpha
        low, high = np.where(small, middle, low), np.where(small, high, middle)
    return low


def _quantile(p):
    """Φ⁻¹, finite."""
    return ndtri(np.clip(p, 1e-300, 1 - 1e-16))


# guess_naive_share

_DRAWS, _SHARES = 100, np.array([0.9, 0.97, 0.99, 0.999])


def guess_naive_share_cases(seed):
    return [Case(label="100 draws, p = 0.9, 0.97, 0.99, 0.999")]


def guess_naive_share_judge(case, answer):
    if not isinstance(answer, tuple | list) or len(answer) != len(_SHARES):
        return m.said(m.named(answer), "a tuple of four shares, for p = 0.9, 0.97, 0.99, 0.999")
    for value, p in zip(answer, _SHARES, strict=True):
        if said := m.refuse_number(value, f"the share for p = {p}", 0.0, 1.0):
            return said
    guess, truth = np.array(answer, float), _SHARES**_DRAWS
    off = guess - truth
    if abs(off).max() <= 0.1:
        return Accepted(f"Computed: {', '.join(f'{t:.4f}' for t in truth)}")
    at = int(abs(off).argmax())
    want = "a smaller share" if off[at] > 0 else "a larger share"
    if abs(guess - _SHARES).max() <= 0.05:
        why = "p is the probability of one vote: a hundred of them have to agree"
    elif guess.min() >= 0.9:
        why = "one vote in ten is another one at p = 0.9: a hundred draws will show it"
    elif guess[-1] <= 0.1:
        why = "where p is near 1, unanimity is common: a hundred draws expect a tenth of a miss"
    else:
        why = "all draws are independent: their probabilities are multiplied"
    return m.said(f"{guess[at]:g} for p = {_SHARES[at]}", want, why)


# vote


def vote_cases(seed):
    g, cases = generator(seed, 1), []
    while len(cases) < 2:
        sigma = (0.5 if cases else 1.5) + 0.3 * torch.rand((), generator=g).item()
        model = models.mlp(12, 4, hidden=(16,), seed=int(torch.randint(2**31, (), generator=g)))
        with torch.no_grad():
            model[-1].bias[3] -= 9.0  # a class that no draw gives
        x = (torch.rand(1, 3, 4, generator=g) < 0.5).float() * 0.96 + 0.02
        noise = torch.randn(300, 1, 3, 4, generator=g)
        top = np.sort(list(_logits(model, *numbers(x, noise), sigma).values()))
        noise = noise[torch.tensor((top[..., -1] - top[..., -2]).min(0) > 1e-3)]  # no near ties
        want, slips = _votes(model, *numbers(x, noise), sigma)
        if want[3] == 0 and _distinct([([a], why) for a, why in slips], [want]):
            cases.append(Case((model, x, noise, sigma), f"random, σ = {sigma:.3g}"))
    return cases


def _logits(model, x, noise, sigma):
    """At the noisy points, and at those of each slip."""
    net, z = oracles.Network(model), x + sigma * noise
    points = {
        "": z,
        "the noise is scaled by sigma, not by its square": x + sigma**2 * noise,
        "the noise is scaled by sigma, not by its root": x + sigma**0.5 * noise,
        "sigma is missing": x + noise,
        "x is missing: the noise is added to it": sigma * noise,
        "x + sigma · noise, with a plus": x - sigma * noise,
        "noisy images leave the box: clipped ones have no Gaussian noise": z.clip(0, 1),
    }
    return {why: net.logits(p.reshape(len(p), -1)) for why, p in points.items()}


def _votes(model, x, noise, sigma):
    """The counts, and those by each slip."""
    logits, n = _logits(model, x, noise, sigma), len(noise)
    count = lambda z: np.bincount(z.argmax(1), minlength=z.shape[1]).astype(float)
    z, base = logits.pop(""), oracles.Network(model).logits(x.reshape(1, -1))[0]
    soft = oracles.softmax(z)
    one = [a for z in (z.mean(0), base) for a in (np.eye(len(z))[z.argmax()], z)]
    return count(z), [
        *((count(v), why) for why, v in logits.items()),
        *((v, "probabilities are no votes: each draw gives one class a whole one")
          for v in (soft.sum(0), soft.mean(0))),
        *((c * a, "the argmax of a mean, or at x alone, is another classifier: each draw votes")
          for a in one for c in (1, n)),
        (count(z) / n, "these are shares: a bound needs the counts"),
        (count(-z), "the largest logit has the vote"),
    ]  # fmt: skip


def vote_judge(case, answer):
    model, x, noise, sigma = case.args
    want, slips = _votes(model, *numbers(x, noise), sigma)
    if isinstance(answer, np.ndarray) and answer.shape == (len(noise),):
        return m.said("an answer for each draw", "a count for each class", "torch.bincount counts")
    meaning = "a count for each class, also for one that no draw gives"
    if said := m.refuse_array(answer, want.shape, meaning, whole=True):
        return said
    return m.compare(answer, want, slips, atol=1e-3)


# lower_bound


def lower_bound_cases(seed):
    rng = numpy_generator(seed, 2)
    cases = [Case((_whole([0, 60, 99, 100]), 100, 1e-3), "100 draws, α = 0.001", True)]
    for n in (int(rng.integers(15, 40)), int(rng.integers(300, 900)), 100_000):
        k = [0, int(n * rng.uniform(0.55, 0.7)), n - int(rng.integers(1, 5)), n]
        alpha = float(rng.uniform(0.015, 0.04))
        cases.append(Case((_whole(k), n, alpha), f"random, n = {n}, α = {alpha:.3g}"))
    return cases


def _bounds(k, n, alpha):
    """The lower bound, and what it is by each slip."""
    p, both = k / n, (-ndtri(alpha), -ndtri(alpha / 2))
    wald = lambda z: p - z * np.sqrt(p * (1 - p) / n)
    spread = lambda z: z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    wilson = lambda z: (p + z**2 / (2 * n) - spread(z)) / (1 + z**2 / n)
    hoeffding = p - np.sqrt(np.log(1 / alpha) / (2 * n))
    clip = lambda a: np.maximum(a, 0)
    return _lower(k, n, alpha), [
        (p, m.PLUG),
        (_lower(k, n, alpha / 2), "valid, but loose: one side is asked for, so α and not α/2"),
        (_lower(k, n, 1 - alpha), "1 − α for α: the quantile is the one at α"),
        *((1 - _lower(n - k, n, a), m.SIDE) for a in (alpha, alpha / 2)),
        (np.where(k < n, _lower(k + 1, n, alpha), 1), "the Beta has the parameters k, n − k + 1"),
        *((f(wald(z)), "the normal approximation: at k = n it gives 1")
          for z in both for f in (clip, np.array)),
        *((wilson(z), "Wilson's bound is an approximation: it does not keep α for every p")
          for z in both),
        *((f(hoeffding), "Hoeffding's bound holds, but is loose where p is near 1")
          for f in (clip, np.array)),
        *((_lower(k, n, a), f"alpha is not used: this is for {a}") for a in (0.001, 0.01, 0.05)),
        *((bound, "a Bayesian bound: it does not keep α for every p")
          for bound in (_lower(k + 1, n + 1, alpha), betaincinv(k + 0.5, n - k + 0.5, alpha))),
        (np.where(k < n, _lower(k, n, alpha), alpha**np.minimum(n, 100)), "α^(1/n), not α^n"),
    ]  # fmt: skip


def lower_bound_judge(case, answer):
    k, n, alpha = numbers(*case.args)
    if isinstance(answer, np.ndarray) and answer.shape == k.shape and answer.dtype.kind == "f":
        missing = np.isnan(answer)
        if missing.any() and not missing[(k > 0) & (k < n)].any():
            why = "no Beta has the parameter 0; the one of a lower bound has k and n − k + 1"
            return m.said("NaN where k is 0 or n", "0 at k = 0 and α^(1/n) at k = n", why)
    if said := m.refuse_array(answer, k.shape, "one bound for each k", whole=True):
        return said
    return m.compare(answer, *_bounds(k, n, alpha), rtol=0.0, atol=2e-7)


# radius


def radius_cases(seed):
    rng = numpy_generator(seed, 3)
    text = (tensor([0.9, 0.5, 0.3, 0.99]), 0.25, None)
    cases = [Case(text, "σ = 0.25, p_B unknown", True)]
    for known in (False, True):
        p_a = rng.uniform([0.9, 0.55, 0.55, 0.2], [0.95, 0.85, 0.85, 0.45])
        sigma, p_b = float(rng.uniform(0.3, 0.8)), None
        if known:
            p_a[3], p_a[2] = rng.uniform(0.4, 0.48), rng.uniform(0.1, 0.2)
            p_b = tensor([*((1 - p_a[:2]) * rng.uniform(0.3, 0.8, 2)), 0.35, 0.3])
        cases.append(Case((tensor(p_a), sigma, p_b), f"random, p_B {'' if known else 'un'}known"))
    return cases


def _radii(p_a, sigma, p_b):
    """The radius before it is cut off at 0, and what it is by each slip."""
    z = _quantile(p_a)
    full = sigma * z if p_b is None else sigma / 2 * (z - _quantile(p_b))
    slips = [
        (abs(full), "a positive radius where nothing is proved: 0"),
        (full / sigma, "sigma is missing"),
        (full * sigma, "radii grow with sigma, not with its square"),
        (full / 2**0.5, "Φ⁻¹ is √2 · erfinv(2p − 1)"),
        (sigma * ndtr(p_a), "Φ for Φ⁻¹"),
        (sigma * p_a, "Φ⁻¹ is missing"),
    ]
    if p_b is None:
        return full, [*slips, (full / 2, "half of it: p_B = 1 − p_A, and both terms are equal")]
    gap = p_a - p_b, _quantile(np.maximum(p_a - p_b, 1e-12))
    return full, [
        *slips,
        (sigma * z, "σΦ⁻¹(p_A) gives away what p_B proves: use both"),
        (2 * full, "twice too large: there A has fallen to p_B, but B has risen, too"),
        (sigma / 2 * (z + _quantile(p_b)), "Φ⁻¹(p_B) is taken off"),
        (-sigma * _quantile(p_b), "p_A is not used, or only to hold p_B below 1 − p_A: use both"),
        (np.where(p_a > 0.5, full, 0), "where p_B is known, p_A need not exceed ½, only p_B"),
        (sigma / 2 * (np.maximum(z, 0) - _quantile(p_b)), "cut off at 0 at the end, not before"),
        *((f * g, "the difference is one of quantiles, not of probabilities")
          for g in gap for f in (sigma, sigma / 2)),
    ]  # fmt: skip


def radius_judge(case, answer):
    p_a, sigma, p_b = numbers(*case.args)
    if said := m.refuse_array(answer, p_a.shape, "one radius an image", whole=True):
        return said
    want, slips = _radii(p_a, sigma, p_b)
    value, cut = np.asarray(answer, float), lambda a: np.maximum(a, 0)
    if (value < 0).any() and np.allclose(cut(value), cut(want), rtol=1e-4, atol=1e-5):
        return m.said(f"{value.min():.6g}", "0", "nothing is proved: 0, not a negative radius")
    return m.compare(cut(value), cut(want), [(cut(a), why) for a, why in slips])


# worst_classifier


def worst_classifier_cases(seed):
    rng = numpy_generator(seed, 4)
    text = (tensor([1.0, 2.0]), 0.9, 0.4, tensor([3.0, 4.0]))
    cases = [Case(text, "x = (1, 2), δ = (3, 4), p_A = 0.9, σ = 0.4", True)]
    for d in (5, 8):
        x, delta = tensor(rng.uniform(0.2, 1, d)), rng.standard_normal(d)
        delta *= rng.uniform(1.5, 2.5) / np.linalg.norm(delta)
        p_a, sigma = float(rng.uniform(0.6, 0.97)), float(rng.uniform(0.2, 0.7))
        cases.append(Case((x, p_a, sigma, tensor(delta)), f"random, d = {d}"))
    return cases


def worst_classifier_judge(case, answer):
    x, p_a, sigma, delta = numbers(*case.args)
    if said := m.refuse_tuple(answer, ("w", "b")):
        return said
    w, b = answer
    if said := m.refuse_array(w, x.shape, "the weights", whole=True):
        return f"w: {said}"
    if said := m.refuse_number(b, "the threshold's negative"):
        return f"b: {said}"
    size, b = np.linalg.norm(w), float(b)
    if not (1e-6 < size < 1e6 and abs(b) < 1e6):
        return m.said(f"‖w‖ = {size:.3g} and b = {b:.3g}", "‖w‖ from 1e-6 to 1e6, |b| < 1e6")
    far, z = np.linalg.norm(delta), ndtri(p_a)
    u, b = delta / far, b / size
    along = float(-w @ u / size)
    if not abs(along) >= 0.9999:
        why = "the mass falls fastest along the normal: lay it along δ"
        return m.said(f"a cosine of {abs(along):.4f} between w and δ", "1", why)
    if along < 0:
        why = "A lies in the direction of δ: this class gains by the shift, so it is the best one"
        return m.said("w along δ", "w against δ", why)
    at = float(u @ x)
    slips = [
        (at, "the plane goes through x: p_A would be ½"),
        (at + far, "the plane goes through x + δ whatever p_A is"),
        (sigma * z, "x is missing: w·x + b is what has to be σ‖w‖Φ⁻¹(p_A)"),
        (sigma * z - at, "w points against δ, so −w·x is +u·x"),
        (at - sigma * z, "the wrong side of x: p_A becomes 1 − p_A"),
        (at + z, "sigma is missing"),
        (at + sigma**2 * z, "the distance is σΦ⁻¹(p_A), not σ²Φ⁻¹(p_A)"),
        (at + sigma * p_a, "Φ⁻¹ is missing"),
        *((off, "the score w·z has the deviation σ‖w‖, not σ")
          for off in (at + sigma * z / far, at / far + sigma * z, at + sigma * z * far)),
    ]  # fmt: skip
    return m.compare(b, at + sigma * z, slips, what="b/‖w‖ = ")


# ceiling


def ceiling_cases(seed):
    rng, cases = numpy_generator(seed, 5), []
    while len(cases) < 2:
        n = [3, int(rng.integers(40, 90)), int(rng.integers(2000, 9000)), 10**5]
        sigma, alpha = float(rng.uniform(0.2, 0.8)), float(rng.uniform(0.002, 0.04))
        radius = sigma * np.array([rng.uniform(a, a + 0.3) for a in (0.4, 1.2, 2.0, 3.5)])
        part = np.log(alpha) / np.log(ndtr(radius / sigma)) % 1
        want, slips = _ceilings(np.array(n), radius, sigma, alpha)
        clear = part.min() > 0.05 and part.max() < 0.95 and np.ptp(part[:3].round()) == 1
        if clear and _distinct([(slip[1:], why) for slip, why in slips[:-6]], want[1:], 0.03):
            cases.append(Case((_whole(n), tensor(radius), sigma, alpha), f"σ = {sigma:.3g}"))
    return cases


def _ceilings(n, radius, sigma, alpha):
    """The largest radius of n draws, the least number for a radius, and both by each slip."""
    of = lambda p: sigma * np.maximum(_quantile(p), 0)
    root = lambda a: np.exp(np.log(a) / n)
    share = lambda r: np.minimum(ndtr(r), 1 - 1e-15)
    p, right = share(radius / sigma), root(alpha)
    least = lambda p, a=alpha: np.ceil(np.log(a) / np.log(p))
    most, draws, exact = of(right), least(p), np.log(alpha) / np.log(p)
    hoeffding = 1 - np.sqrt(np.log(1 / alpha) / (2 * n))
    first, second = lambda a: (a, draws), lambda a: (most, a)
    return (most, draws), [
        (second(draws - 1), "one too few: round up"),
        (second(np.round(exact)), "round up, not to the nearest"),
        (second(exact), "a whole number of draws: round up"),
        ((0 * n, np.ceil(1 / exact)), "inverted: p^n = α gives p = α^(1/n), n = ln α / ln p"),
        ((of(root(alpha / 2)), least(p, alpha / 2)), "one side is enough: α, not α/2"),
        ((of(root(1 - alpha)), least(p, 1 - alpha)), "1 − α for α"),
        *(((of(root(a)), least(p, a)), f"alpha is not used: this is for {a}")
          for a in (0.001, 0.01, 0.05)),
        ((of(1 - 1 / n), np.ceil(1 / (1 - p))), "alpha is missing: so many draws expect a miss"),
        ((most / sigma, least(share(radius))), "sigma is missing: radii are in units of sigma"),
        ((most / sigma, least(share(radius * sigma))), "sigma multiplies the radius"),
        ((most / 2, least(share(2 * radius / sigma))), "half of it: p_B = 1 − p_A"),
        ((of(hoeffding), np.ceil(np.log(1 / alpha) / (2 * (1 - p) ** 2))),
         "Hoeffding's bound holds, but α^(1/n) is exact"),
        (second(np.ceil(np.log(1 / alpha) / (1 - p))), "ln(1/p) is not 1 − p: exactly, please"),
        *((first(f(sigma * _quantile(right))), "so few draws prove nothing: 0, no negative radius")
          for f in (np.array, abs)),
        (first(of(1 - np.log(1 / alpha) / n)), "good for large n only: α^(1/n) is exact"),
        (first(sigma * right), "Φ⁻¹ is missing"),
        (first(0 * n), "α^(1/n) needs its brackets: alpha ** (1 / n)"),
        ((draws, most), "the order is most, draws"),
    ]  # fmt: skip


def ceiling_judge(case, answer):
    names, args = ("most", "draws"), numbers(*case.args)
    if said := _refuse_parts(answer, names, len(args[0])):
        return said
    return m.compare_all(names, answer, *_ceilings(*args), rtol=1e-3)


# certify


def certify_cases(seed):
    rng, cases = numpy_generator(seed, 7), []
    for sigma, alpha in ((0.25, 0.001), (0.6, 0.02)):
        sigma, alpha = sigma * float(rng.uniform(0.8, 1.2)), alpha * float(rng.uniform(1.1, 2))
        args = (*_drawn(rng, alpha), 4, sigma, alpha)
        cases.append(Case(args, f"seven images, σ = {sigma:.3g}, α = {alpha:.3g}"))
    return cases


def _drawn(rng, alpha, n0=30, n=600):
    """Votes of seven images: a clear one, a unanimous one, one where the second draws prefer
    another class, one that only the plug-in certifies, one that α proves and α/2 does not, one
    whose class has less than half, one where the two draws disagree and both are clear. The first
    image's class leads with less than half of the first draws, and is not their median."""
    k = np.arange(n + 1)
    least = int(np.argmax(_lower(k, n, alpha) > 0.5))
    hits = [int(n * rng.uniform(0.75, 0.9)), n, int(n * 0.35), least - 3, least,
            int(n * 0.47), int(n * 0.1)]  # fmt: skip
    first, second = [], []
    for row, h in enumerate(hits):
        c, other, *rest = rng.permutation(4) if row else (3, *rng.permutation(3))
        lead = n0 if row in (1, 6) else int(n0 * (0.7 if row else 0.4))
        votes = [c] * lead + ([other] * (n0 - lead) if row else [other] * 10 + [rest[0]] * 8)
        first.append(rng.permutation(votes))
        more = n - h if row in (2, 6) else (n - h) // 2
        left = rng.choice(rest, n - h - more)
        second.append(rng.permutation([c] * h + [other] * more + list(left)))
    return _whole(first), _whole(second)


def _certified(first, second, classes, sigma, alpha, *, choose=None, count=None, level=None,
               n=None, bound=_lower):  # fmt: skip
    """(label, radius, abstain) by Clopper and Pearson, with any of its parts replaced."""
    choose, count = first if choose is None else choose, second if count is None else count
    votes = lambda v: (v[:, :, None] == np.arange(classes)).sum(1)
    label = votes(choose).argmax(1)
    hits, n = votes(count)[np.arange(len(label)), label], n or count.shape[1]
    p = bound(hits, n, alpha if level is None else level)
    return label, np.where(p > 0.5, sigma * _quantile(np.maximum(p, 0.5)), 0), p <= 0.5


def _certificates(first, second, classes, sigma, alpha):
    """The answer, and what it is by each slip."""
    args, pooled = (first, second, classes, sigma, alpha), np.hstack([first, second])
    right = label, radius, abstain = _certified(*args)
    hits = (second == label[:, None]).sum(1)
    votes = (second[:, :, None] == np.arange(classes)).sum(1).max(1)
    of_most = _certified(*args, bound=lambda k, n, a: _lower(votes, n, a))
    z = sigma * _quantile(_lower(hits, second.shape[1], alpha))
    zp = sigma * _quantile(hits / second.shape[1])
    plug = _certified(*args, bound=lambda k, n, a: k / n)
    return right, [
        (_certified(*args, choose=second, count=first), "the first draws choose, the second count"),
        *((_certified(*args, choose=a, count=b), m.SAME)
          for a in (first, second, pooled) for b in (first, second, pooled)
          if a is b or pooled is a or pooled is b),
        (of_most, "count the class that was chosen, not the one that comes most often"),
        (_certified(*args, count=first, n=second.shape[1]), "n0 and n are confused"),
        (_certified(*args, n=pooled.shape[1]), "of n second draws, not of n0 + n"),
        (_certified(*args, choose=np.sort(first)[:, [(first.shape[1] - 1) // 2]]),
         "classes have no order: the one that comes most often, not the median"),
        (plug, m.PLUG),
        ((label, np.where(abstain, 0, zp), abstain), m.PLUG),
        ((label, radius, plug[2]), "abstain where the bound is ½ or less, not where k/n is"),
        (_certified(*args, level=alpha / 2), "one side is asked for: α, not α/2"),
        *((_certified(*args, level=alpha / k), "alpha is for each image: do not divide it")
          for k in (len(first), classes)),
        (_certified(*args, level=1 - alpha), "1 − α for α"),
        *((_certified(*args, level=a), f"alpha is not used: this is for {a}")
          for a in (0.001, 0.01, 0.05)),
        *(((label, r, abstain), "a radius for an abstention: it is 0") for r in (z, abs(z))),
        *(((label, r, abstain & False), "where the bound is ½ or less, abstain")
          for r in (z, abs(z), radius)),
        ((label, radius, ~abstain), "abstain is True where nothing is proved"),
        ((np.where(abstain, -1, label), radius, abstain),
         "absence is a mask: the label stays what the first draws chose"),
        ((label, radius / sigma, abstain), "sigma is missing"),
        ((label, radius * sigma, abstain), "radii grow with sigma, not with its square"),
        ((label, radius / 2, abstain), "half of it: p_B = 1 − p_A, and both terms are equal"),
    ]  # fmt: skip


def certify_judge(case, answer):
    names, args = ("label", "radius", "abstain"), numbers(*case.args)
    parts = answer if isinstance(answer, tuple) else ()
    kinds = [part.dtype.kind if isinstance(part, np.ndarray) else "" for part in parts]
    if kinds[1:] == ["b", "f"]:
        return m.said("(label, abstain, radius)", "(label, radius, abstain)", "the order")
    if kinds[1:2] == ["f"] and np.isnan(parts[1]).any():
        return m.said("a radius of NaN", "0 where it abstains", "n is second.shape[1]")
    if said := _refuse_parts(answer, names, len(args[0])):
        return said
    return m.compare_all(names, answer, *_certificates(*args))


# predict


def predict_cases(seed):
    rng, cases = numpy_generator(seed, 8), []
    for low, high in ((0.003, 0.005), (0.008, 0.012)):
        a = float(rng.uniform(low, high))
        near = (1.01 * a, 1.06 * a), (1.6 * a, 1.9 * a), (2.2 * a, 0.045), (0.00105, 0.48 * a)
        rows = [[*_split(rng, *p), 0, 0] for p in ((0.55 * a, 0.95 * a), *near)]
        first, second = _split(rng, 1e-6, 1e-4)
        rows += [[first, second, second - 1, second - 2], [90, 89, 0, 60]]
        counts = np.array([rng.permutation(row) for row in rows])
        cases.append(Case((_whole(counts), a), f"seven images, α = {a:.3g}"))
    return cases


def _split(rng, low, high):
    """Two counts whose two-sided test has a p-value between low and high."""
    while True:
        n = int(rng.integers(600, 2000))
        p = 2 * _tail(np.arange(n + 1), n, 0.5)
        if len(at := np.flatnonzero((p > low) & (p < high))):
            return int(at[0]), n - int(at[0])


def _predictions(counts, alpha):
    """(label, abstain), and what they are by each slip."""
    order = np.sort(counts, axis=1)[:, ::-1]
    first, second, n = order[:, 0], order[:, 1], counts.sum(1)
    label, gap = counts.argmax(1), (first - second) / np.sqrt(first + second)
    one, next_one = (_tail(first + k, first + second, 0.5) for k in (0, 1))
    test = lambda p, level=alpha: (label, p > level)
    right, absent = test(2 * one), np.where(2 * one > alpha, -1, label)
    return right, [
        (test(one), "two-sided (which of the two leads was not known before): twice the tail, "
                    "which is the chance of so many or more"),
        (test(4 * one), "α is halved and the tail doubled: one of the two"),
        *((test(c * _tail(first, n, 0.5)),
           "a prediction needs no majority: compare the two top classes only, not all draws")
          for c in (1, 2)),
        ((label, label < 0), "where the two top classes cannot be told apart, abstain"),
        ((label, ~right[1]), "abstain is True where the test does not reject"),
        (test(2 * one, 1 - alpha), "1 − α for α: it abstains where the p-value exceeds α"),
        *((test(2 * one, a), f"alpha is not used: this is for {a}") for a in (0.001, 0.05)),
        ((absent, right[1]),
         "absence is a mask: the label stays the class that came most often"),
        *((test(2 * p), "the exact tail, which begins at the count itself")
          for p in (next_one, ndtr(-gap))),
    ]  # fmt: skip


def predict_judge(case, answer):
    names, args = ("label", "abstain"), numbers(*case.args)
    if said := _refuse_parts(answer, names, len(args[0])):
        return said
    return m.compare_all(names, answer, *_predictions(*args))


# certified_accuracy


def certified_accuracy_cases(seed):
    rng, cases, eps = numpy_generator(seed, 9), [], np.array([0.0, 0.25, 0.5, 0.75])
    while len(cases) < 2:
        y, wrong = rng.integers(0, 5, 40), rng.random(40) < 0.2
        label, abstain = np.where(wrong, (y + 1) % 5, y), rng.random(40) < 0.25
        radius = np.where(rng.random(40) < 0.3, rng.choice(eps[1:], 40), rng.uniform(0.01, 1, 40))
        args = (label, radius, abstain, y, eps)
        want, slips = _shares(*args)
        if _distinct([([a], why) for a, why in slips], [want]):
            args = (_whole(label), tensor(radius), torch.tensor(abstain), _whole(y), tensor(eps))
            cases.append(Case(args, "forty images, some with a radius of exactly 0.25"))
    return cases


def _shares(label, radius, abstain, y, eps):
    """Certified accuracy at each eps, and what it is by each slip."""
    right, sure = label == y, abstain < 0.5
    far = radius > eps[:, None]
    share = lambda hit, of=None: hit.sum(1) / (len(y) if of is None else of.sum())
    want, closed = share(far & right & sure), radius >= eps[:, None]
    return want, [
        (share(closed & right & sure), "the proof is for changes below the radius: radius > eps"),
        (share(far & sure), "a certificate of a wrong label counts as wrong"),
        (share(far & right & ~sure), "abstain is True where nothing is proved"),
        (share(far & right), "an abstention is not certified, whatever radius stands beside it"),
        (share(far & right & sure, sure), "abstentions stay in the denominator: all images"),
        *((share(far & right & sure, of), "the share of all images")
          for of in (right, right & sure)),
        (share(far & right & sure) * len(y), "this is a count: divide by the number of images"),
        (share(~far & right & sure), "the radius is larger than eps, not smaller"),
        (1 - want, "this is what is not certified"),
    ]  # fmt: skip


def certified_accuracy_judge(case, answer):
    args = numbers(*case.args)
    if said := m.refuse_array(answer, args[-1].shape, "one share for each eps", whole=True):
        return said
    return m.compare(answer, *_shares(*args))


# other_norms


def other_norms_cases(seed):
    g, cases = generator(seed, 10), []
    for shape in ((4, 1, 3, 5), (3, 3, 4, 5)):
        radius = 0.2 + torch.rand(shape[0], generator=g).double()
        cases.append(Case((radius, torch.rand(shape, generator=g)), f"images of {shape[1:]}"))
    return cases


def _balls(radius, x):
    """The radii in ℓ∞ and ℓ1, and those by each slip."""
    d, places = x[0].size, x.shape[2] * x.shape[3]
    pair = lambda root, one=1.0: (radius / root, radius * one)
    inside = "‖δ‖₂ ≤ ‖δ‖₁: the ℓ1 ball of the same radius lies inside"
    return pair(d**0.5), [
        (pair(1), "√d is missing: a corner of the ℓ∞ ball is √d times as far"),
        (pair(d), "divide by √d, not by d"),
        (pair(d**-0.5), "divide by √d: ℓ∞ balls have far corners"),
        *([(pair(places**0.5), "d counts the inputs of every channel")] * (places < d)),
        *((pair(n**0.5), "d is of one image, not of the whole batch") for n in (x.size, len(x))),
        *((pair(d**0.5, c), inside) for c in (d**0.5, d**-0.5, 1 / d)),
        (pair(1, d**-0.5), "the order is linf, l1"),
        (pair(d**0.5 / 255), "in input units: nothing is multiplied by 255"),
    ]


def other_norms_judge(case, answer):
    names, args = ("linf", "l1"), numbers(*case.args)
    if said := _refuse_parts(answer, names, len(args[0])):
        return said
    return m.compare_all(names, answer, *_balls(*args))


# pick_sigma

_ROWS, _N = 2000, 1000


def pick_sigma_cases(seed):
    rng = numpy_generator(seed, 11)
    sigmas, alpha = np.geomspace(0.4, 1.0, 8), 0.01
    while True:
        distance = float(rng.uniform(0.5, 0.8))
        hits = rng.binomial(_N, ndtr(distance / sigmas), (_ROWS, len(sigmas)))
        wrong = _honest(hits, sigmas, alpha) > distance
        if wrong.any(1).mean() >= 4 * alpha and wrong.mean(0).max() <= 1.5 * alpha:
            args = (_whole(hits), _N, tensor(sigmas), alpha)
            return [Case(args, f"{_ROWS} repetitions", kept=(distance,))]


def _honest(hits, sigmas, alpha):
    """The certificate of each repetition and sigma."""
    bound = _lower(np.arange(_N + 1), _N, alpha)[hits.astype(int)]
    return sigmas * np.maximum(_quantile(bound), 0)


def pick_sigma_judge(case, answer):
    hits, n, sigmas, alpha = numbers(*case.args)
    if said := m.refuse_array(answer, (len(hits),), "one radius a repetition", whole=True):
        return said
    (distance,), honest = case.kept, _honest(hits, sigmas, alpha)
    own = lambda r: abs(honest - r[:, None]).min(1) <= 1e-4
    value = np.asarray(answer, float)
    if not own(value).all():
        bound = f"the break is in the choice, not in the bound: {m.PLUG}"
        slips = [
            ((sigmas * _quantile(hits / n)).max(1), bound),
            (honest.mean(1), "a mean of radii is nobody's radius: choose one of them"),
            *((_honest(hits, sigmas, a).max(1), "another α is another promise: keep to this one")
              for a in (alpha / 2, alpha / 8, 1 - alpha, 0.001, 0.05, 0.1)),
        ]  # fmt: skip
        at = int(own(value).argmin())
        near = [why for a, why in slips if np.allclose(a, value, atol=1e-4)]
        want = f"one of its eight honest radii, up to {honest[at].max():.6g}"
        return m.said(f"{value[at]:.6g} in repetition {at}", want, (near or [""])[0])
    fails = int((value > distance).sum())
    if fails >= 3 * alpha * len(hits):
        share = f"{fails} of {len(hits)} certificates are false"
        return Accepted(f"{share}, where α = {alpha} allows {alpha * len(hits):.0f}")
    why = "choose anew in each repetition, and the one that is most likely too large"
    if np.allclose(value, honest.min(1), atol=1e-4):
        why = "the smallest of eight bounds is safer than each: the other end"
    return m.said(f"{fails} false certificates", f"at least {3 * alpha * len(hits):.0f}", why)


# average_radius

_ASKED, _TESTED, _DRAWN = 0.43, 300, (100, 1000)


def average_radius_cases(seed):
    d = data.load("digits")
    x, y = torch.cat([d.train_x, d.test_x]).flatten(1), torch.cat([d.train_y, d.test_y])
    g, out = generator(seed, 12), []
    for i in range(2):
        a, b = torch.randperm(len(x), generator=g).tensor_split(2)
        b = b[:_TESTED]
        out.append(Case((x[a], y[a]), f"split {i + 1} of 2", kept=(x[b], y[b], seed, i)))
    return out


def average_radius_judge(case, answer):
    if not isinstance(answer, tuple) or len(answer) not in (3, 5, 7, 9):
        want = "a tuple (sigma, weight, bias, …) of one to four layers"
        return m.said(m.named(answer), want, "end with `return sigma, weight, bias, …`")
    sigma, *layers = answer
    if isinstance(sigma, np.ndarray) and sigma.size > 1:
        return m.said(m.named(sigma), "one sigma", "chosen beforehand, the same for every image")
    if said := m.refuse_number(sigma, "the noise, above 0", 1e-3, 10.0):
        return said
    width = 64
    for weight, bias in zip(layers[::2], layers[1::2], strict=True):
        rows = len(weight) if isinstance(weight, np.ndarray) and weight.ndim else 0
        for value, shape in ((weight, (min(rows, 512), width)), (bias, (rows,))):
            if said := m.refuse_array(value, shape, "a weight [out ≤ 512, in] or a bias [out]"):
                return said
            if not np.abs(value).max(initial=0) < 1e4:
                return m.said(f"a weight of {np.abs(value).max():.3g}", "weights below 10 000")
        width = rows
    return None if width == 10 else m.said(f"{width} logits", "10: a class for each digit")


def average_radius_together(cases, answers):
    """The mean certified radius on held-out images, wrong and abstained ones counted as 0."""
    pairs = zip(cases, answers, strict=True)
    mean, accuracy = np.mean([_certify(case, answer) for case, answer in pairs], axis=0)
    if mean >= _ASKED:
        return Accepted(f"objective: {mean:.3f}; certified at all and right: {accuracy:.3f}")
    sigma = float(answers[0][0])
    ceiling = sigma * ndtri(1e-3 ** (1 / _DRAWN[1]))
    if ceiling < _ASKED:
        why = f"no radius can exceed {ceiling:.3f} at this σ: raise it"
    elif mean > sigma:
        why = "nearly all votes agree: another σ, or a network with a hidden layer"
    else:
        why = "too few votes agree: train on images with this noise"
        why += ", or take less of it" if sigma > 0.4 else ""
    return m.said(f"a mean certified radius of {mean:.3f}", f"at least {_ASKED}", why)


def _certify(case, answer):
    """The mean radius, and the share that is certified and right."""
    sigma, layers = float(answer[0]), [np.float32(part) for part in answer[1:]]
    x, y, *numbers = case.kept
    rng, (n0, n) = numpy_generator(numbers[0], 13 + numbers[1]), _DRAWN
    label, hits = np.zeros(len(x), int), np.zeros(len(x))
    for i, image in enumerate(x.numpy()):
        z = image + np.float32(sigma) * rng.standard_normal((n0 + n, 64), dtype=np.float32)
        for weight, bias in zip(layers[:-2:2], layers[1:-2:2], strict=True):
            z = np.maximum(z @ weight.T + bias, 0)
        votes = (z @ layers[-2].T + layers[-1]).argmax(1)
        label[i] = np.bincount(votes[:n0]).argmax()
        hits[i] = (votes[n0:] == label[i]).sum()
    p = _lower(hits, n, 1e-3)
    radius = np.where((p > 0.5) & (label == y.numpy()), sigma * _quantile(np.maximum(p, 0.5)), 0)
    return radius.mean(), (radius > 0).mean()


CHECKS = {
    name: Check(f"03_smoothing.{name}", points, cases, judge, tuple(teaches))
    for name, points, cases, judge, *teaches in (
        ("guess_naive_share", 1, guess_naive_share_cases, guess_naive_share_judge),
        ("vote", 2, vote_cases, vote_judge, "smoothing.count", "smoothing.predict"),
        ("lower_bound", 2, lower_bound_cases, lower_bound_judge,
         "intervals.clopper_pearson_lower", "intervals.clopper_pearson"),
        ("radius", 1, radius_cases, radius_judge, "smoothing.radius"),
        ("worst_classifier", 3, worst_classifier_cases, worst_classifier_judge),
        ("ceiling", 2, ceiling_cases, ceiling_judge,
         "smoothing.radius", "intervals.clopper_pearson_lower"),
        ("certify", 3, certify_cases, certify_judge, "smoothing.certify", "smoothing.certificate"),
        ("predict", 2, predict_cases, predict_judge, "smoothing.predict"),
        ("certified_accuracy", 1, certified_accuracy_cases, certified_accuracy_judge,
         "Certificate.accuracy_at", "Certificate.holds", "risk.curve"),
        ("other_norms", 1, other_norms_cases, other_norms_judge),
        ("pick_sigma", 3, pick_sigma_cases, pick_sigma_judge),
        ("average_radius", 3, average_radius_cases, average_radius_judge,
         "data.load", "sys._getframe"),
    )
}  # fmt: skip
CHECKS["average_radius"] = replace(CHECKS["average_radius"], together=average_radius_together)
