"""Checks of chapter 2: shells, caps, Lévy's bound, distances to a set, and how round digits are.

The oracles are the exact Beta and χ² tails of SciPy, Gaussian closed forms and counts, in float64.
"""

from dataclasses import replace

import numpy as np
import torch
from scipy.special import betainc, betaln, gammaincinv, ndtr, ndtri

from robcourse import data

from . import Accepted, Case, Check
from . import messages as m
from .cases import generator, numbers, numpy_generator, tensor


def _compare_factors(value, want, slips):
    """As `m.compare`, up to a factor of 1.002: a measure of 1e-14 counts as much as one of ½."""
    log = lambda a: np.log(np.maximum(np.asarray(a, float), 1e-200))
    off = lambda a: abs(log(value) - log(a))
    if off(want).max() <= 2e-3:
        return None
    at = int(off(want).argmax())
    why = next((why for wrong, why in slips if off(wrong).max() <= 2e-3), "")
    return m.said(f"{value[at]:.6g} at example {at}", f"{want[at]:.6g}", why)


def _distinct(slips, want, least=1e-3) -> bool:
    """Whether slips with different messages give different numbers, and none the right ones: by a
    share of them, or by as much where they are about 1."""
    each = [*((np.ravel(a), why) for a, why in slips), (np.ravel(want), "right")]
    far = lambda a, b: (abs(a - b) > least * np.minimum(1, np.maximum(abs(a), abs(b)))).any()
    return all(far(a, b) for i, (a, one) in enumerate(each) for b, two in each[:i] if one != two)


def _refuse_arrays(answer, names, shape, meanings):
    """As `m.refuse_tuple`, for arrays of one shape."""
    if said := m.refuse_tuple(answer, names):
        return said
    for value, name, meaning in zip(answer, names, meanings, strict=True):
        if said := m.refuse_array(value, shape, f"{name}, {meaning}", whole=True):
            return said
    return None


# guess_share

_DIMENSIONS, _BAND = (3, 100, 2500, 40_000), 0.02


def guess_share_cases(seed):
    return [Case(label="the sphere, d = 3, 100, 2500, 40000")]


def guess_share_judge(case, answer):
    guess = tuple(answer) if isinstance(answer, list) else answer
    if not isinstance(guess, tuple) or len(guess) != len(_DIMENSIONS):
        return m.said(m.named(answer), "a tuple of four shares, for d = 3, 100, 2500 and 40000")
    for value, d in zip(guess, _DIMENSIONS, strict=True):
        if said := m.refuse_number(value, f"the share for d = {d}", 0.0, 1.0):
            return said
    guess = np.array(guess, float)
    truth = np.array([betainc(0.5, (d - 1) / 2, _BAND**2) for d in _DIMENSIONS])
    off = guess - truth
    if abs(off).max() <= 0.1:
        return Accepted(f"Computed: {', '.join(f'{t:.4f}' for t in truth)}")
    at = int(abs(off).argmax())
    got = f"{guess[at]:g} for d = {_DIMENSIONS[at]}"
    want = "a smaller share" if off[at] > 0 else "a larger share"
    if np.ptp(guess) < 0.05:
        why = "the share rises with d; only on the sphere of d = 3 is the height spread evenly"
    elif guess[-1] < guess[0]:
        why = "most of a large sphere lies near its equator, not near its poles"
    elif abs(guess - truth / 2).max() <= 0.05:
        why = "the band has two sides, above and below the equator"
    elif off[at] > 0:
        why = "the height has the size 1/√d, not 1/d: compare the band's 0.02 with that"
    else:
        why = "the height is nearly normal, with the standard deviation 1/√d: 0.02 is how many?"
    return m.said(got, want, why)


# shell


def shell_cases(seed):
    g = generator(seed, 1)
    draw = lambda low, high: int(torch.randint(low, high, (), generator=g))
    out = [Case((torch.tensor([2, 100]), 1.0, 0.95), "d = 2 and 100, sd 1", True)]
    for share in (0.5, 0.9):
        d = torch.tensor([1, draw(3, 20), draw(100, 300), draw(10_000, 90_000)])
        sd = 1.5 + torch.rand((), generator=g).item()
        out.append(Case((d, sd, share), f"random, sd {sd:.3g}, share {share:g}"))
    return out


def _shells(d, sd, share):
    """The two radii, and what they are by each slip."""
    q = lambda p, d=d: np.sqrt(2 * gammaincinv(d / 2, p))
    tail, z, root = (1 - share) / 2, ndtri((1 + share) / 2), np.sqrt(d)
    low, high = q(tail), q(1 - tail)
    squares = "these are squared norms, near d: the norm is near √d"
    normal = "good for large d only: the quantiles of χ² are exact"
    tails = "what lies outside is 1 − share on both sides together"
    rough = np.sqrt(np.maximum(d - z * np.sqrt(2 * d), 0)), np.sqrt(d + z * np.sqrt(2 * d))
    slips = [
        *((np.array([low**2, high**2]) * s, squares) for s in (1, sd, sd**2)),
        ((low, high), "sd is missing"),
        ((sd**2 * low, sd**2 * high), "norms grow with sd, not with its square"),
        ((sd**0.5 * low, sd**0.5 * high), "norms grow with sd: it stands outside the root"),
        ((sd * q(1 - share), sd * q(share)), tails),
        ((0 * d, sd * q(share)), "no point of a large d is near 0: leave out both tails"),
        ((sd * q(tail, d - 1 + 1e-9), sd * q(1 - tail, d - 1 + 1e-9)), "d degrees, not d − 1"),
        ((sd * (root - z / 2**0.5), sd * (root + z / 2**0.5)), normal),
        ((sd * rough[0], sd * rough[1]), normal),
        ((sd * high, sd * low), "the order is low, high"),
    ]
    return (sd * low, sd * high), slips


def shell_judge(case, answer):
    d, sd, share = numbers(*case.args)
    meanings = ("the inner radius for each d", "the outer radius for each d")
    if said := _refuse_arrays(answer, ("low", "high"), d.shape, meanings):
        return said
    return m.compare_all(("low", "high"), answer, *_shells(d, sd, share), rtol=3e-4)


# cap_measure


def cap_measure_cases(seed):
    rng = numpy_generator(seed, 2)
    text = tensor([np.pi / 6, np.pi / 3, np.pi / 2, 2 * np.pi / 3])
    cases = [Case((3, text), "the sphere of d = 3", True)]
    for low, high, ends in ((4, 9, (0.5, 0.8)), (20, 60, (0.8, 1.3)), (300, 500, (1.0, 1.05))):
        while True:
            d = int(rng.integers(low, high))
            beyond = rng.uniform(1.62, 1.7) if d > 9 else rng.uniform(1.8, 2.6)
            angle = np.array([rng.uniform(*ends), rng.uniform(1.3, 1.5), beyond])
            if _distinct(_cap_slips(d, angle), _cap(d, np.cos(angle)), 0.01):
                break
        cases.append(Case((d, tensor(angle)), f"random, d = {d}"))
    return cases


def _cap(d, height):
    """The share of the unit sphere of d dimensions with x₁ at least so high."""
    both = betainc((d - 1) / 2, 0.5, 1 - height**2)
    return np.where(height >= 0, both / 2, 1 - both / 2)


def _cap_slips(d, angle):
    """What the measure of a cap is by each slip."""
    height, sine = np.cos(angle), np.sin(angle)
    whole = lambda a, x=sine**2: betainc(a, 0.5, x)
    half = lambda part: np.where(height >= 0, part / 2, 1 - part / 2)
    two = "one cap, not the two around both poles: a factor 2"
    ball = "this is a cap of the ball: on the sphere the first parameter is (d − 1)/2"
    beyond = "beyond π/2 the cap is more than half of the sphere: take what is left of it"
    tail = abs(height) * np.sqrt(d)
    return [
        (2 * half(whole((d - 1) / 2)), two),
        (whole((d - 1) / 2), two),
        (np.where(height >= 0, whole((d - 1) / 2), 1 - whole((d - 1) / 2)), two),
        (half(whole(d / 2)), "the first parameter is (d − 1)/2, not d/2"),
        (half(whole((d + 1) / 2)), ball),
        (half(whole((d - 2) / 2)), "the first parameter is (d − 1)/2, not (d − 2)/2"),
        (whole((d - 1) / 2) / 2, beyond),
        (half(whole((d - 1) / 2, sine)), "the Beta tail is at sin², not at sin"),
        (half(1 - whole((d - 1) / 2)), "this is around the equator: swap sin² and cos²"),
        (half(1 - betainc(0.5, (d - 1) / 2, sine**2)), "the parameters of the Beta are swapped"),
        (half(betainc(0.5, (d - 1) / 2, sine**2)), "the parameters of the Beta are swapped"),
        (_cap(d, np.clip(1 - angle**2 / 2, -1, 1)), "angle is an arc, not the straight way"),
        (_cap(d, np.clip(angle, 0, 1)), "angle is no height: the cap starts at the height cos"),
        (_cap(d, np.clip(1 - angle, -1, 1)), "the cap starts at the height cos(angle)"),
        (1 - half(whole((d - 1) / 2)), "this is what the cap leaves: 1 − P for P"),
        (half(2 * ndtr(-tail)), "right for large d only: the exact tail is a Beta's"),
        *((c * np.exp(-(d - k) * height**2 / 2), "this is a bound like Lévy's, not the measure")
          for c in (0.5, 1, 2) for k in (0, 1, 2)),
    ]  # fmt: skip


def cap_measure_judge(case, answer):
    d, angle = numbers(*case.args)
    if said := m.refuse_array(answer, angle.shape, "one measure an angle"):
        return said
    want, value = _cap(d, np.cos(angle)), np.asarray(answer, float)
    deep = want < 1e-9
    if deep.any() and _compare_factors(value[~deep], want[~deep], ()) is None:
        at = int(deep.argmax())
        if not abs(value[at] / want[at] - 1) <= 2e-3:
            why = "1 − P loses its digits where P is near 1: compute the small tail itself"
            return m.said(f"{value[at]:.4g} at example {at}", f"{want[at]:.4g}", why)
    if not (value > 0).all() or not (value < 1).all():
        got = f"a measure of {value.min() if value.min() <= 0 else value.max():.4g}"
        slips = _cap_slips(d, angle)
        like = next((why for a, why in slips if np.allclose(value, a, rtol=1e-3, atol=1e-6)), "")
        return m.said(got, "above 0 and below 1", like)
    return _compare_factors(value, want, _cap_slips(d, angle))


# levy_bound


def levy_bound_cases(seed):
    rng = numpy_generator(seed, 3)
    cases = []
    for d in (int(rng.integers(5, 20)), int(rng.integers(100, 300))):
        while True:
            lipschitz, radius = rng.uniform(1.5, 3.0), rng.uniform(2.0, 6.0)
            t = np.array([0.3, 1.6, 3.0, 6.0]) * lipschitz * radius / (d - 2) ** 0.5
            args = (d, tensor(t), float(lipschitz), float(radius))
            want, slips = _levy(*numbers(*args))
            if _distinct(slips, want, 0.01):
                break
        cases.append(Case(args, f"random, d = {d}"))
    return [*cases, Case((402, tensor([0.05, 0.1, 0.2]), 1.0, 1.0), "the unit sphere, L = 1")]


def _levy(d, t, lipschitz, radius):
    """Lévy's bound, and what it is by each slip."""
    scale = lipschitz * radius
    bound = lambda u, c=2, k=d - 2: np.minimum(1, c * np.exp(-np.minimum(k * u**2 / 2, 600)))
    u = t / scale
    return bound(u), [
        (2 * np.exp(-(d - 2) * u**2 / 2), "a probability is at most 1: clip it"),
        *((bound(u, k=d - k), f"the exponent has d − 2, not d{f' − {k}' * (k > 0)}")
          for k in (0, 1, 3)),
        (bound(u, 1), "|f − M| has two sides: a factor 2"),
        (bound(u, 4), "both sides are in the factor 2 already"),
        (bound(u, 0.5), "|f − M| has two sides: a factor 2"),
        (bound(u * 2**0.5), "the exponent is divided by 2"),
        (bound(u / 2**0.5), "the exponent is divided by 2, not by 4"),
        (bound(np.sqrt(u)), "t is squared in the exponent"),
        (bound(t / radius), "the Lipschitz constant is missing"),
        (bound(t / lipschitz), "the radius is missing: t is measured on the unit sphere"),
        (bound(t), "radius and Lipschitz constant are missing"),
        (bound(t * lipschitz / radius), "a larger Lipschitz constant makes the bound weaker"),
        (bound(t * radius / lipschitz), "divide by the radius: on a larger sphere f varies more"),
        (bound(t / scale**0.5), "t, L and the radius are squared, all three"),
        (bound(t / lipschitz / radius**0.5), "t, L and the radius are squared, all three"),
        (bound(t / radius / lipschitz**0.5), "t, L and the radius are squared, all three"),
        (1 - bound(u), "this bounds from below that f is near M: the question is |f − M| ≥ t"),
        (2 * _cap(d, np.clip(u, 0, 1)), "this is the exact tail of x₁, not the bound for every f"),
    ]  # fmt: skip


def levy_bound_judge(case, answer):
    d, t, lipschitz, radius = numbers(*case.args)
    if said := m.refuse_array(answer, t.shape, "one bound for each t"):
        return said
    value, (want, slips) = np.asarray(answer, float), _levy(d, t, lipschitz, radius)
    if not (value >= 0).all():
        return m.said(f"{value.min():.4g}", "a probability", "nothing below 0")
    return _compare_factors(value, want, slips)


# worst_distance


def worst_distance_cases(seed):
    rng = numpy_generator(seed, 4)
    text = (tensor([0.01, 1e-12, 0.5]), 0.5, 10**6, 1.0)
    cases = []
    for i in range(2):
        share, radius = float(rng.uniform(0.7, 0.99)), float(rng.uniform(2, 9))
        share = share if i else float(rng.uniform(0.2, 0.3))
        mu = np.array([10 ** rng.uniform(-12, -6), rng.uniform(0.01, 0.1), rng.uniform(0.35, 0.45)])
        args = (tensor(mu), share, int(rng.integers(10**5, 10**6)), radius)
        cases.append(Case(args, f"random, share {share:.3g}, radius {radius:.3g}"))
    return [cases[1], cases[0], Case(text, "the unit sphere, half of it, d = 10⁶", True)]


def _distances(mu, share, d, radius):
    """How far a share of the sphere can be from a set of measure mu, and that by each slip."""
    reach, scale = np.maximum(ndtri(share) - ndtri(mu), 0), radius / d**0.5
    levy = lambda c: (np.sqrt(2 * np.log(c / mu)) + np.sqrt(2 * np.log(c / (1 - share)))) * scale
    added = "Φ⁻¹(mu) is below 0: take it off, do not add it"
    return scale * reach, [
        (radius * reach, "√d is missing: this is the distance among Gaussian points"),
        (radius * d**0.5 * reach, "√d divides: the larger d, the nearer the set"),
        (radius / d * reach, "divide by √d, not by d"),
        (scale * (ndtri(share) - ndtri(mu)), "a point of the set itself is at distance 0: clip"),
        (scale * abs(ndtri(share) - ndtri(mu)), "a point of the set itself is at distance 0: clip"),
        (scale * (ndtri(share) + ndtri(mu)), added),
        (scale * np.maximum(ndtri(share) + ndtri(mu), 0), added),
        (scale * abs(ndtri(share) + ndtri(mu)), added),
        (scale * (ndtri(mu) - ndtri(share)), "right size, wrong sign"),
        (0 * mu + scale * ndtri(share), "mu is missing: this is for a set of half the sphere"),
        (0 * mu + abs(scale * ndtri(share)), "mu is missing: this is for a set of half the sphere"),
        (-scale * ndtri(mu), "share is missing: within this lies half of the sphere"),
        (reach / d**0.5, "the radius is missing: this is for the unit sphere"),
        (scale * np.maximum(-ndtri(share) - ndtri(mu), 0), "share lies within, 1 − share beyond"),
        (scale * (-ndtri(share) - ndtri(mu)), "share lies within, 1 − share beyond"),
        *((levy(c), "Lévy's bound allows this, but caps reach less: use Φ⁻¹") for c in (1, 2)),
        (scale * np.sqrt(2 * np.log(1 / mu)), "this is from Lévy's bound: use Φ⁻¹"),
        (scale * (share - mu), "Φ⁻¹ is missing: shares are no distances"),
    ]


def worst_distance_judge(case, answer):
    mu, share, d, radius = numbers(*case.args)
    if said := m.refuse_array(answer, mu.shape, "one distance for each mu", whole=True):
        return said
    want, slips = _distances(mu, share, d, radius)
    # The exact arc of caps and its Gaussian limit differ by about 1e-3 of it.
    return m.compare(answer, want, slips, rtol=2e-3, atol=1e-9)


# in_pixels


def in_pixels_cases(seed):
    g = generator(seed, 5)
    cases = []
    for shape, levels in (((12, 1, 4, 5), 16), ((9, 3, 4, 4), 255)):
        x = 0.6 * torch.rand(shape[1:], generator=g) + 0.4 * torch.rand(shape, generator=g)
        x = x * torch.linspace(0.2, 1, shape[0])[:, None, None, None]
        away = 0.1 + 0.4 * torch.rand((), generator=g).item()
        cases.append(Case((x, away, levels), f"random, {levels} levels"))
    return cases


def _pixels(x, distance, levels):
    """The distance in input units and in levels a pixel, and those by each slip."""
    flat = x.reshape(len(x), -1)
    centred, d = flat - flat.mean(0), flat.shape[1]
    norms = np.linalg.norm(centred, axis=1)
    radius = np.sqrt((norms**2).mean())
    pair = lambda r, root=d**0.5: (r * distance, levels * r * distance / root)
    plain, places = np.linalg.norm(flat, axis=1), x.shape[2] * x.shape[3]
    moving = "the sphere lies around the mean image: take it off first"
    right = pair(radius)
    return right, [
        (pair(np.sqrt((plain**2).mean())), moving),
        (pair(plain.mean()), moving),
        (pair(np.linalg.norm(flat - flat.mean(), axis=1).mean()), moving),
        (pair(np.sqrt(((flat - flat.mean()) ** 2).sum(1).mean())),
         "a mean for each pixel, over the images, not one for all"),
        (pair(norms.mean()), "the root of the mean square, not the mean of the norms"),
        (pair(radius * (len(x) / (len(x) - 1)) ** 0.5), "a mean over n images, not over n − 1"),
        (pair(1.0), "the radius is missing: this is on the unit sphere"),
        (pair(np.linalg.norm(centred)), "the norm of one image, not of all of them together"),
        (pair(radius**2), "the root is missing: this is the mean square"),
        (pair(radius / d**0.5), "the radius is a norm: a sum over the pixels, not their mean"),
        (pair(d**0.5), "the radius is that of these images, not √d"),
        (pair(d**0.5 / 2), "the radius is that of these images, not √d/2"),
        (pair(norms.max()), "the root of the mean square norm, not the largest"),
        ((distance / radius, levels * distance / radius / d**0.5), "multiply by the radius"),
        (pair(radius, 1), "√d is missing: the change is spread over all pixels"),
        (pair(radius, 1 / d**0.5), "√d divides: the change is spread over all pixels"),
        (pair(radius, d), "divide by √d, not by d: squares are averaged"),
        ((right[0], right[1] / levels), "in grey levels: multiply by `levels`"),
        (right[::-1], "the order is l2, grey"),
        *([(pair(radius, places**0.5), "d counts the pixels of every channel")]
          * (places < d)),
    ]  # fmt: skip


def in_pixels_judge(case, answer):
    names = ("l2", "grey")
    if said := m.refuse_numbers(answer, names, "the distance"):
        return said
    return m.compare_all(names, answer, *_pixels(*numbers(*case.args)))


# distance_is_lipschitz


def lipschitz_cases(seed):
    g = generator(seed, 6)
    points = (
        ([0.0, 0.0], [6.0, 0.0], [0.0, 9.0]),
        ([3.0, 4.0], [1.0, 0.0]),
        ([0.0, 2.0], [5.0, 0.0]),
    )
    cases = [Case(tuple(map(torch.tensor, points)), "a set of three points of the plane", True)]
    for _ in range(2):
        while True:
            a, x, z = (torch.randn(n, 4, generator=g) for n in (7, 6, 6))
            x[0] = a[2]
            want, slips = _sides(*numbers(a, x, z))
            if _distinct([(np.stack(pair), why) for pair, why in slips], np.stack(want), 0.02):
                break
        cases.append(Case((a, x, z), "random, one x lies in the set"))
    return cases


def _sides(a, x, z):
    """By how much the distance changes, how far the point moves, and both by each slip."""
    away = lambda p, order=2: np.linalg.norm(p[:, None] - a, order, axis=2)
    rows, (near, far) = np.arange(len(x)), (away(x), away(z))
    gap, moved = near.min(1) - far.min(1), np.linalg.norm(x - z, axis=1)
    squares = "squared: the square of a distance is not Lipschitz"
    middle = lambda p: np.linalg.norm(p - a.mean(0), axis=1)
    line = lambda p: away(p, 1).min(1)
    return (abs(gap), moved), [
        ((gap, moved), "the absolute value is missing"),
        ((-gap, moved), "the absolute value is missing"),
        ((abs(near.min(1) ** 2 - far.min(1) ** 2), moved**2), squares),
        ((abs(near.min(1) ** 2 - far.min(1) ** 2), moved), squares),
        ((abs(gap), moved**2), squares),
        ((abs(near.mean(1) - far.mean(1)), moved), "the infimum over the set, not the mean"),
        ((abs(near.max(1) - far.max(1)), moved), "the nearest point of the set, not the farthest"),
        ((abs(middle(x) - middle(z)), moved), "the distance to the set, not to its middle"),
        ((abs(near.min(1) - far[rows, near.argmin(1)]), moved), "each has its own nearest point"),
        ((abs(line(x) - line(z)), abs(x - z).sum(1)), "Euclidean: the root of the sum of squares"),
        ((abs(gap), abs(gap)), "an inequality, not an equality: moved is ‖x − z‖"),
        ((moved, abs(gap)), "the order is change, moved"),
    ]


def lipschitz_judge(case, answer):
    a, x, z = numbers(*case.args)
    names, meanings = ("change", "moved"), ("the change of the distance", "the way of the point")
    if said := _refuse_arrays(answer, names, (len(x),), meanings):
        return said
    return m.compare_all(names, answer, *_sides(a, x, z))


# escape

_LEAST = 0.25


def escape_cases(seed):
    rng = numpy_generator(seed, 7)
    d = np.append(np.sort(10 ** rng.uniform(2, 6, 4)).round(), 1e6)
    return [Case((tensor(d),), "dimensions from a hundred to a million")]


def escape_judge(case, answer):
    (d,) = numbers(*case.args)
    names, meanings = ("angle", "distance"), ("of your cap for each d", "to your cap for each d")
    if said := _refuse_arrays(answer, names, d.shape, meanings):
        return said
    angle, away = (np.asarray(a, float) for a in answer)
    if not (angle > 0).all():
        why = "a constant function is a counterexample, too, but give one with both classes"
        return m.said(f"an angle of {angle.min():.4g}", "angles above 0", why)
    if not (angle <= np.pi).all():
        return m.said(f"an angle of {angle.max():.4g}", "radians, below π/2", "degrees?")
    if not (angle < np.pi / 2).all():
        why = "a cap of half the sphere or more holds the typical point itself"
        return m.said(f"an angle of {angle.max():.4g}", "angles below π/2", why)
    right, height = np.pi / 2 - angle, np.cos(angle)
    straight = "the straight way: distance is the angle between the points"
    slips = [
        (2 * np.sin(right / 2), straight),
        (height, "the height over the plane of the cap's edge: distance is an angle"),
        (0 * d + np.pi / 2, "to the middle of the cap: its edge is nearer"),
        (0 * d + 2**0.5, straight),
        (angle, "this is the cap's own angle: what is left of π/2 lies between"),
        (right * np.sqrt(d), "in radians, not in units of 1/√d"),
        (right / np.sqrt(d), "the distance between angles does not shrink with d"),
        (np.pi - angle, "from the equator, where nearly all points are, not from the other pole"),
    ]
    if said := m.compare(away, right, slips, what="distance ", rtol=1e-3, atol=1e-6):
        return said
    at, size = int(right.argmin()), _log_cap(d, angle)
    if not right[at] >= _LEAST:
        share = f"a class of measure 10^{size[at]:.4g} concentrates"
        got = f"a distance of {right[at]:.4g} for d = {d[at]:.0f}"
        return m.said(got, f"at least {_LEAST} whatever d", f"{share}: choose a smaller cap")
    return Accepted(f"At d = 10⁶ your class has the measure 10^{size[-1]:.0f}")


def _log_cap(d, angle):
    """log10 of the measure of a cap below π/2, however small: the series of the Beta tail."""
    a, x = (d - 1) / 2, np.minimum(np.sin(angle) ** 2, 1 - 1e-9)
    n = np.arange(4000)[:, None]
    terms = np.log((a + 0.5 + n) / (a + 1 + n)) + np.log(x)
    series = 1 + np.exp(np.cumsum(terms, axis=0)).sum(0)
    logs = a * np.log(x) + 0.5 * np.log(1 - x) - np.log(2 * a) - betaln(a, 0.5)
    return (logs + np.log(series)) / np.log(10)


# gaussian_floor


def gaussian_floor_cases(seed):
    rng = numpy_generator(seed, 8)
    text = (torch.diag(tensor([4.0, 1.0, 0.36])), 0.1, 0.5)
    cases = [Case(text, "variances 4, 1, 0.36, a tenth of the points", True)]
    for d in (5, 8):
        while True:
            q = np.linalg.qr(rng.standard_normal((d, d)))[0]
            cov = (q * np.geomspace(rng.uniform(0.5, 3), 0.02, d)) @ q.T
            args = (tensor((cov + cov.T) / 2), float(rng.uniform(0.01, 0.15)),
                    float(rng.uniform(0.3, 0.9)))  # fmt: skip
            want, slips = _floor(*numbers(*args))
            if _distinct(slips, want) and 0.02 < want < 0.9:
                break
        cases.append(Case(args, f"random, d = {d}"))
    return cases


def _floor(cov, mu, eps):
    """The least measure of the expansion, and what it is by each slip."""
    values = np.linalg.eigvalsh(cov)
    top, d = values[-1], len(cov)
    grown = lambda scale, mu=mu: ndtr(ndtri(mu) + eps / scale)
    most = "sets grow least along the direction of the largest variance"
    return grown(top**0.5), [
        (grown(1.0), "the covariance is missing: ε is in units of 1"),
        (grown(top), "divide ε by a standard deviation: the root of the eigenvalue"),
        (ndtr(ndtri(mu) + eps * top**0.5), "divide ε by the deviation, do not multiply"),
        (grown(values[0] ** 0.5), f"this is the smallest eigenvalue, but {most}"),
        (grown(values.mean() ** 0.5), f"this is a round Gaussian of the same size, but {most}"),
        (grown(values.sum() ** 0.5), "the trace is the square of the whole radius, not of one way"),
        (
            grown(np.diag(cov).max() ** 0.5),
            "the largest eigenvalue, not the largest pixel variance",
        ),
        (grown(np.linalg.norm(cov) ** 0.5), "the spectral norm, not the Frobenius norm"),
        (ndtr(ndtri(mu) - eps / top**0.5), "an expansion grows: plus"),
        (1 - grown(top**0.5), "this is what the expansion leaves"),
        (grown(top**0.5, 1 - mu), "this expands the complement"),
        (mu + eps, "measures are added, but ε is a length: go through Φ⁻¹"),
        (grown(top**0.5) - mu, "the expansion contains the set: do not take it off"),
        (grown(top**0.5 / d**0.5), "no √d here: Gaussian points have the size √d already"),
        (grown(top**0.5 * d**0.5), "no √d here: Gaussian points have the size √d already"),
        (grown(top**0.5, 0.5), "mu is missing: this is for a set of half the points"),
    ]


def gaussian_floor_judge(case, answer):
    if said := m.refuse_number(answer, "a measure", 0.0, 1.0):
        return said
    return m.compare(answer, *_floor(*numbers(*case.args)))


# half_space_expansion


def half_space_cases(seed):
    g = generator(seed, 9)
    cases = []
    for share in (0.2, 0.1):
        while True:
            mix = torch.randn(5, 5, generator=g) / 2
            train, test = (torch.randn(n, 5, generator=g) @ mix for n in (60, 140))
            w = torch.randn(5, generator=g)
            w = w * (1.6 + torch.rand((), generator=g)) / w.norm()
            args = (train, test, w, share, 0.4)
            if _clear(*numbers(*args)) and _distinct(*_expansions(*numbers(*args))[::-1], 3e-3):
                break
        cases.append(Case(args, f"random, share {share:g}"))
    return cases


def _clear(train, test, w, share, eps):
    """Whether no test score lies between two thresholds that both leave the share, or on one."""
    k, order = round(share * len(train)), np.sort(train @ w)[::-1]
    scores, step = test @ w, eps * np.linalg.norm(w)
    between = lambda move: ((scores >= order[k] - move - 1e-3)
                            & (scores <= order[k - 1] - move + 1e-3)).any()  # fmt: skip
    return not any(map(between, (0, step, -step)))


def _expansions(train, test, w, share, eps):
    """The held-out measures of set and expansion, and those by each slip."""
    k, size = round(share * len(train)), np.linalg.norm(w)
    scores, c = test @ w, np.sort(train @ w)[::-1][k - 1]
    own = np.sort(scores)[::-1][round(share * len(test)) - 1]
    wrong_end = np.sort(train @ w)[k - 1]
    pair = lambda move, c=c, s=scores: ((s >= c).mean(), (s >= c - move).mean())
    right, rest = pair(eps * size), (scores < c + eps * size).mean()
    held = "the threshold comes from the test points: then their share is no held-out measure"
    other = "this expands the complement: the set lies above its threshold"
    units = "ε is in input units: the score w·x moves by ε‖w‖"
    slips = [
        (pair(eps * size, own), held),
        (pair(eps, own), held),
        (pair(eps * size, c, train @ w), "these are shares of the training points"),
        (pair(eps), units),
        (pair(eps / size), units),
        (pair(eps * size**2), units),
        (pair(eps * abs(w).sum()), "in ℓ2 the score moves by ε‖w‖₂; ‖w‖₁ belongs to ℓ∞"),
        (pair(-eps * size), "an expansion grows: the threshold goes down"),
        (pair(eps * size, wrong_end), "the set holds the largest scores, not the smallest"),
        (((scores <= wrong_end).mean(), (scores <= wrong_end + eps * size).mean()),
         "the set holds the largest scores, not the smallest"),
        ((right[0], rest), other),
        ((1 - right[0], rest), other),
        ((1 - right[0], 1 - right[1]), "these are the shares outside"),
        ((right[0], right[1] - right[0]), "the expansion contains the set: do not take it off"),
        (right[::-1], "the order is measure, expanded"),
        (tuple(len(test) * r for r in right), "these are counts: divide by their number"),
    ]  # fmt: skip
    return right, slips


def half_space_judge(case, answer):
    names = ("measure", "expanded")
    if said := m.refuse_numbers(answer, names, "the share"):
        return said
    return m.compare_all(names, answer, *_expansions(*numbers(*case.args)), rtol=0.0, atol=1e-6)


# small_expansion

_SHARE, _EPS, _MOST = 0.05, 0.5, 0.135


def small_expansion_cases(seed):
    d = data.load("digits")
    x = torch.cat([d.train_x, d.test_x]).flatten(1)
    g, out = generator(seed, 10), []
    for i in range(4):
        a, b = torch.randperm(len(x), generator=g).tensor_split(2)
        out.append(Case((x[a], _SHARE, _EPS), f"split {i + 1} of 4", kept=(x[b],)))
    return out


def small_expansion_judge(case, answer):
    if said := m.refuse_tuple(answer, ("w", "c")):
        return said
    w, c = answer
    if said := m.refuse_array(w, (case.args[0].shape[1],), "the weights", whole=True):
        return f"w: {said}"
    if said := m.refuse_number(c, "the threshold"):
        return f"c: {said}"
    most = np.abs(np.asarray(w, float)).max()
    if not (1e-6 < most < 1e6 and abs(float(c)) < 1e6):
        got = f"|w| up to {most:.3g} and |c| = {abs(float(c)):.3g}"
        return m.said(got, "|w| from 1e-6 to 1e6, |c| < 1e6", "w = 0 bounds no half-space")
    return None


def small_expansion_together(cases, answers):
    """The held-out measure and its expansion, in the mean over the splits."""
    measure, grown, other, unit, turned, flipped = _held_out(cases, answers).mean(0)
    top = [np.linalg.eigvalsh(np.cov(numbers(*case.args)[0].T))[-1] for case in cases]
    null = ndtr(ndtri(_SHARE) + _EPS / np.sqrt(np.mean(top)))
    scaled = _SHARE <= unit < 0.15 and abs(unit - measure) > 1e-3
    belongs = "c belongs to w as you return it: w·x ≥ c, not w·x/‖w‖ ≥ c"
    if not measure >= _SHARE:
        why = "leave a margin: what holds in training falls on images that were not searched"
        got = f"a held-out measure of {measure:.4f}"
        return m.said(got, f"at least {_SHARE}", belongs if scaled else why)
    if not grown <= _MOST:
        why = f"a Gaussian with this covariance has {null:.3f}: search beyond its main directions"
        if scaled:
            why = belongs
        elif 1 - measure >= _SHARE and other <= _MOST:
            why = "the small side of your wall is the other one: −w and −c"
        elif turned >= _SHARE and flipped <= _MOST:
            why = "the sign of c: the set is w·x ≥ c"
        elif measure > 0.09:
            why = "your set is larger than it has to be: choose the threshold first"
        return m.said(f"a held-out expansion of {grown:.3f}", f"at most {_MOST}", why)
    beside = f"a Gaussian with this covariance: at least {null:.3f}"
    return Accepted(f"objective: {grown:.3f} from a measure of {measure:.3f}; {beside}")


def _held_out(cases, answers):
    """A row a split: measure and expansion; the expansion of the other side; the measure if c is
    for the unit vector; both if the sign of c is wrong."""
    rows = []
    for case, (w, c) in zip(cases, answers, strict=True):
        (x,) = numbers(*case.kept)
        w, c = np.asarray(w, float), float(c)
        size = np.linalg.norm(w)
        s = x @ w
        near = c - _EPS * size, c + _EPS * size
        sets = s >= c, s >= near[0], s <= near[1], s >= c * size, s >= -c, s >= -near[1]
        rows.append([inside.mean() for inside in sets])
    return np.array(rows)


CHECKS = {
    name: Check(f"02_concentration.{name}", points, cases, judge, tuple(teaches))
    for name, points, cases, judge, *teaches in (
        ("guess_share", 1, guess_share_cases, guess_share_judge),
        ("shell", 1, shell_cases, shell_judge),
        ("cap_measure", 2, cap_measure_cases, cap_measure_judge, "concentration.cap_measure"),
        ("levy_bound", 1, levy_bound_cases, levy_bound_judge, "concentration.levy"),
        ("distance_is_lipschitz", 2, lipschitz_cases, lipschitz_judge),
        ("worst_distance", 2, worst_distance_cases, worst_distance_judge,
         "concentration.Sphere", "concentration.Gaussian", "concentration.cap_radius"),
        ("in_pixels", 1, in_pixels_cases, in_pixels_judge),
        ("escape", 3, escape_cases, escape_judge),
        ("gaussian_floor", 2, gaussian_floor_cases, gaussian_floor_judge,
         "concentration.Gaussian", "concentration.largest_sd"),
        ("half_space_expansion", 3, half_space_cases, half_space_judge,
         "concentration.half_space"),
        ("small_expansion", 3, small_expansion_cases, small_expansion_judge,
         "data.load", "sys._getframe"),
    )
}  # fmt: skip
CHECKS["small_expansion"] = replace(CHECKS["small_expansion"], together=small_expansion_together)
