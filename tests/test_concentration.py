"""Caps against exact binomial tails and integrals; expansions against sets in closed form; the two
searches against brute force."""

import math
from fractions import Fraction
from math import comb
from statistics import NormalDist

import jaxtyping
import numpy as np
import pytest
import torch
from helpers import rng, unchecked, untouched
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.integrate import quad

from robcourse import concentration as c
from robcourse.concentration import Gaussian, Sphere

# Caps.


def tail(d: int, height: Fraction) -> Fraction:
    """The share of the sphere with x₁ ≥ height, for an odd d: exact.

    (1 + x₁)/2 is the middle one of d − 2 independent uniform numbers.
    """
    n, p = d - 2, (1 - height) / 2
    a, b, q = p.numerator, p.denominator - p.numerator, p.denominator
    i = (d - 1) // 2
    term = comb(n, i) * a**i * b ** (n - i)
    ways = 0
    while term:
        ways += term
        term = term * (n - i) * a // ((i + 1) * b)
        i += 1
    return Fraction(ways, q**n)


def log_of(x: Fraction) -> float:
    return math.log(x.numerator) - math.log(x.denominator)


HEIGHTS = [Fraction(k, 10) for k in (-9, -3, 0, 1, 5, 9)]


@pytest.mark.parametrize("d", [3, 5, 31, 201])
@pytest.mark.parametrize("height", HEIGHTS)
def test_a_cap_has_the_measure_of_a_binomial_tail(d, height):
    # An angle rounded by 1e-16 changes the tail by about d·1e-16 of itself.
    exact = tail(d, height)
    got = c.cap_measure(d, math.acos(height))
    assert got.dtype == torch.float64
    assert got.item() == pytest.approx(float(exact), rel=1e-12)


@pytest.mark.parametrize("d", [2, 3, 4, 10, 500])
@pytest.mark.parametrize("angle", [0.2, 1.0, math.pi / 2, 1.9, 3.0])
def test_a_cap_is_an_integral_of_sines(d, angle):
    sines = lambda s: math.sin(s) ** (d - 2)
    near, far = (quad(sines, *ends, epsabs=0, limit=200)[0]
                 for ends in ((0, angle), (angle, math.pi)))  # fmt: skip
    assert c.cap_measure(d, angle).item() == pytest.approx(near / (near + far), rel=1e-7)


def test_caps_of_the_circle_the_globe_and_the_ends():
    angle = torch.linspace(0, math.pi, 9, dtype=torch.float64)
    torch.testing.assert_close(c.cap_measure(2, angle), angle / math.pi)
    torch.testing.assert_close(c.cap_measure(3, angle), (1 - angle.cos()) / 2)
    for d in (2, 3, 1000, 10**6):
        both = c.cap_measure(d, angle) + c.cap_measure(d, math.pi - angle)
        torch.testing.assert_close(both, torch.ones(9).double())
        assert [c.cap_measure(d, r).item() for r in (0.0, math.pi / 2, math.pi)] == [
            0.0, pytest.approx(0.5), 1.0,
        ]  # fmt: skip
    assert c.cap_measure(9, torch.tensor(math.pi)) == 1  # float32's π is more than π


@given(st.integers(2, 10**6), st.floats(1e-250, 1))
def test_the_radius_is_the_inverse(d, measure):
    radius = c.cap_radius(d, measure)
    assert 0 <= radius <= math.pi + 1e-12
    # A share of 1 − 1e-16 is 1 in float64, so it is compared absolutely, a small one relatively.
    assert c.cap_measure(d, radius.clamp_max(math.pi)).item() == pytest.approx(measure, rel=1e-9)


def test_the_largest_shares_have_their_own_precision():
    """The radius of 1 − p is π minus the radius of p."""
    p = torch.tensor([1e-15, 1e-9, 0.3], dtype=torch.float64)
    torch.testing.assert_close(c.cap_radius(100, 1 - p), math.pi - c.cap_radius(100, p), rtol=1e-3,
                               atol=0)  # fmt: skip
    assert c.cap_radius(100, 1.0).item() == pytest.approx(math.pi)


@pytest.mark.parametrize("d", [31, 2001, 8001])
@pytest.mark.parametrize("height", [Fraction(1, 10), Fraction(4, 10), Fraction(1, 2)])
def test_the_logarithm_where_the_share_is_no_float(d, height):
    exact = log_of(tail(d, height))
    got = c.log_cap_measure(d, math.acos(height))
    assert got == pytest.approx(exact, rel=1e-11)
    if (d, height) == (8001, Fraction(1, 2)):
        assert c.cap_measure(d, math.acos(height)) == 0
        assert exact < -1000


@pytest.mark.parametrize("height", [Fraction(5, 10), Fraction(8, 10)])
def test_the_two_ways_to_the_logarithm_meet(height):
    """On both sides of the share 1e-290 where the second one takes over."""
    found = []
    for d in range(3, 10_001, 2):
        if -690 < (d / 2) * math.log(1 - float(height) ** 2) < -640:
            found.append(d)
    for d in found[:: max(1, len(found) // 6)]:
        exact = log_of(tail(d, height))
        assert c.log_cap_measure(d, math.acos(height)) == pytest.approx(exact, rel=1e-11)


def test_the_cap_of_sixty_degrees_in_a_million_dimensions():
    """Claims ledger, C6: log₁₀ = −62472.404, by a series in 30 digits."""
    got = c.log_cap_measure(10**6, math.pi / 3) / math.log(10)
    assert got == pytest.approx(-62472.404, abs=6e-4)
    assert c.log_cap_measure(3, 1e-200) == pytest.approx(2 * math.log(5e-201), rel=1e-12)


# Lévy.


@pytest.mark.parametrize("d", [3, 4, 20, 1000, 10**6])
def test_levy_holds_for_the_angle_from_the_equator(d):
    t = torch.linspace(0, min(1.57, 9 / math.sqrt(d)), 500, dtype=torch.float64)
    bound = c.levy(d, t)
    exact = 2 * c.cap_measure(d, math.pi / 2 - t)
    assert (exact <= bound).all()
    assert (exact <= (-(d - 2) * t**2 / 2).exp() * (1 + 1e-9)).all()  # the factor 2 is to spare
    assert (bound <= 1).all()
    last = 2 * math.exp(-(d - 2) * t[-1].item() ** 2 / 2)
    assert bound[-1].item() == pytest.approx(min(1, last))


def test_levy_with_d_for_d_minus_two_would_be_wrong_without_its_factor():
    """So the check above can see the slip: exp(−d·t²/2) is below the exact tail at d = 3."""
    exact = 2 * c.cap_measure(3, math.pi / 2 - 0.5).item()
    assert math.exp(-(3 - 2) * 0.125) > exact
    assert math.exp(-2.0 * 3 * 0.125) < exact


# Expansions.


@pytest.mark.parametrize("d", [3, 30, 1000])
@pytest.mark.parametrize("alpha", [1e-6, 0.01, 0.3, 0.5, 0.9])
def test_no_tube_grows_less_than_a_cap(d, alpha):
    """Points near a k-dimensional subspace: both measures are Beta tails."""
    for k in {1, 2, d // 2, d - 1}:
        tube = stats.beta(k / 2, (d - k) / 2)
        r = math.acos(math.sqrt(tube.isf(alpha)))
        alpha = float(tube.sf(math.cos(r) ** 2))  # the inverse is exact to about 1e-3 of it
        for t in (0.0, 0.3 / math.sqrt(d), 2 / math.sqrt(d), 1.0):
            grown = tube.sf(math.cos(min(r + t, math.pi / 2)) ** 2)
            # Rounding of the angles: about d·1e-16 of the tail.
            assert grown >= Sphere(d).least_expansion(alpha, t).item() * (1 - 1e-10)


def test_a_cap_of_the_globe_grows_by_its_angle():
    for alpha in (0.01, 0.5, 0.99):
        r = math.acos(1 - 2 * alpha)
        for t in (0.0, 0.4, 3.0):
            grown = (1 - math.cos(min(r + t, math.pi))) / 2
            assert Sphere(3).least_expansion(alpha, t).item() == pytest.approx(grown)
            assert Sphere(3, 7.0).least_expansion(alpha, 7 * t).item() == pytest.approx(grown)


@pytest.mark.parametrize("model", [Sphere(2), Sphere(50, 3.0), Sphere(10**6), Gaussian(0.3)])
def test_distance_and_expansion_are_inverse(model):
    measure = torch.tensor([1e-9, 0.01, 0.5], dtype=torch.float64)
    for share in (0.5, 0.9, 0.999):
        far = model.largest_distance(measure, share)
        back = torch.stack([model.least_expansion(m.item(), t.item())
                            for m, t in zip(measure, far, strict=True)])  # fmt: skip
        torch.testing.assert_close(back, torch.full_like(back, share), rtol=1e-8, atol=0)
        assert (far.diff() <= 0).all()  # a smaller set is farther
    assert model.largest_distance(0.5, 0.5) == 0
    assert model.largest_distance(0.5, 0.2) == 0
    assert model.largest_distance(0.01).item() == model.largest_distance(0.01, 0.5).item()


def test_the_sphere_becomes_gaussian():
    d = 10**6
    for alpha, share in ((0.01, 0.5), (1e-12, 0.98), (0.5, 0.75)):
        ball = Sphere(d, math.sqrt(d)).largest_distance(alpha, share).item()
        assert ball == pytest.approx(Gaussian().largest_distance(alpha, share).item(), rel=1e-4)


@pytest.mark.parametrize("sd", [0.2, 1.0, 5.0])
def test_a_half_space_attains_the_gaussian_bound(sd):
    normal = NormalDist(0, sd)
    for alpha in (1e-6, 0.05, 0.5):
        wall = normal.inv_cdf(alpha)
        for eps in (0.0, 0.1, 2.0):
            got = Gaussian(sd).least_expansion(alpha, eps).item()
            assert got == pytest.approx(normal.cdf(wall + eps), rel=1e-8)
        far = normal.inv_cdf(0.9) - wall
        assert Gaussian(sd).largest_distance(alpha, 0.9).item() == pytest.approx(far, rel=1e-8)


def test_drawn_points_are_as_far_from_a_cap_as_computed():
    z = torch.randn(20_000, 40, generator=rng(0), dtype=torch.float64)
    angle = (z[:, 0] / z.norm(dim=1)).acos() - c.cap_radius(40, 0.02)
    for share in (0.5, 0.9):
        near = (angle <= Sphere(40).largest_distance(0.02, share)).double().mean().item()
        assert near == pytest.approx(share, abs=5 * math.sqrt(share * (1 - share) / 20_000))


# What is found on a sample.


def stretched(n, seed, d=6):
    scales = torch.linspace(2, 0.3, d)
    turn = torch.linalg.qr(torch.randn(d, d, generator=rng(9))).Q
    return (torch.randn(n, d, generator=rng(seed)) * scales) @ turn + 0.5


def brute_half_space(train, test, alpha, eps, norm):
    """Over all principal components and coordinates, in NumPy: of the best its two counts."""
    train, test = train.double().numpy(), test.double().numpy()
    _, _, components = np.linalg.svd(train - train.mean(0))
    best = None
    for w in [*components, *np.eye(train.shape[1])]:
        w = w / np.linalg.norm(w, {"l2": 2, "linf": 1}[norm])
        for u in (w, -w):
            wall = np.sort(train @ u)[-math.ceil(alpha * len(train) - 1e-9)]
            grown = (train @ u >= wall - eps - 1e-6).sum()
            counts = (test @ u >= wall - 1e-9).sum(), (test @ u >= wall - eps - 1e-6).sum()
            if best is None or grown < best[0]:
                best = grown, counts
    return best


@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("eps", [0.0, 0.2, 0.7])
def test_the_half_space_is_the_best_of_all_directions(norm, eps):
    train, test = stretched(300, 1), stretched(500, 2)
    grown, counts = brute_half_space(train, test, 0.07, eps, norm)
    with untouched(None, train, test):
        got = c.half_space(train, test, 0.07, eps, norm=norm)
    on_train = c.half_space(train, train, 0.07, eps, norm=norm)
    assert (on_train.expanded, on_train.inside) == (grown, 21)  # ⌈.07·300⌉
    if eps > 0.1:  # without a tie of several directions
        assert (got.inside, got.expanded) == counts
    assert (got.eps, got.norm, got.n, got.found) == (eps, norm, 500, "half-space")
    assert got.inside <= got.expanded


def test_the_candidates_are_those_of_largest_spread():
    train, test = stretched(300, 1), stretched(500, 2)
    axis = np.linalg.svd(train.numpy() - train.numpy().mean(0))[2][0]
    options = []
    for u in (axis, -axis):
        wall = np.sort(train.numpy() @ u)[-15]
        options.append(
            ((train.numpy() @ u >= wall - 0.3).sum(), (test.numpy() @ u >= wall - 0.3).sum())
        )
    got = c.half_space(train, test, 0.05, 0.3, candidates=1)
    assert got.expanded == pytest.approx(min(options)[1], abs=1)  # a point on the wall, in float32


def brute_ball(train, alpha, eps, p):
    """The fewest examples within eps of a ball that holds its share, over all centres."""
    train = train.double().numpy()
    want = math.ceil(alpha * len(train) - 1e-9)
    best = len(train)
    for centre in train:
        away = np.linalg.norm(train - centre, p, axis=1)
        best = min(best, (away <= np.sort(away)[want - 1] + eps + 1e-6).sum())
    return best


@pytest.mark.parametrize(("norm", "p"), [("l2", 2), ("linf", np.inf), ("l1", 1)])
def test_one_ball_is_the_best_one(norm, p):
    train, test = stretched(200, 3), stretched(300, 4)
    with untouched(None, train, test):
        got = c.balls(train, train, 0.1, 0.4, norm=norm, count=1)
        other = c.balls(train, test, 0.1, 0.4, norm=norm, count=1)
    assert got.expanded == brute_ball(train, 0.1, 0.4, p)
    assert (got.inside, got.found, other.n) == (20, "1 ball", 300)
    assert other.inside <= other.expanded


def test_balls_find_a_cluster_that_does_not_grow():
    """A tenth of the data far from the rest: nothing else is within eps of it."""
    gen = rng(5)
    train = torch.cat([torch.rand(180, 3, generator=gen), torch.rand(20, 3, generator=gen) + 9])
    test = torch.cat([torch.rand(90, 3, generator=gen), torch.rand(10, 3, generator=gen) + 9])
    got = c.balls(train, test, 0.1, 1.0, count=1)
    assert got.inside >= 8
    assert got.expanded == 10
    many = c.balls(train, train, 0.1, 1.0, count=5)
    assert many.inside >= 20
    assert many.expanded == 20
    assert c.half_space(train, test, 0.1, 1.0).expanded == 10


@pytest.mark.parametrize("search", [c.half_space, c.balls])
def test_more_than_a_share_of_alpha_is_held(search):
    train = stretched(101, 6)
    for alpha in (0.001, 0.0991, 0.1, 0.5, 0.99):
        got = search(train, train, alpha, 0.1)
        assert got.inside >= alpha * 101 - 1e-6


@pytest.mark.parametrize("levels", [16, 255])
def test_what_is_exactly_eps_away_is_within_eps(levels):
    """Pixels k/255 and eps are rounded in float32; a step of one level is a step of one level."""
    x = (torch.arange(levels + 1) / levels)[:, None].repeat(1, 2)
    x[:, 1] = 0
    for step in (1, 3):
        got = c.half_space(x, x, 0.1, step / levels, norm="linf")
        assert got.expanded == got.inside + step
        ball = c.balls(x, x, 1.0 / (levels + 1), step / levels, norm="linf", count=1)
        assert (ball.inside, ball.expanded) == (1, 1 + step)  # at the end of the line


def test_images_are_flattened_and_the_dtype_does_not_matter():
    train, test = stretched(120, 7), stretched(130, 8)
    for search in (c.half_space, c.balls):
        plain = search(train, test, 0.1, 0.3)
        assert plain == search(train.view(120, 1, 2, 3), test.view(130, 1, 2, 3), 0.1, 0.3)
        assert plain == search(train.double(), test.double(), 0.1, 0.3)


def test_the_spread_is_that_of_the_best_direction():
    x = stretched(400, 10)
    w = torch.randn(2000, 6, generator=rng(11), dtype=torch.float64)
    for norm, dual in (("l2", 2), ("linf", 1)):
        unit = w / torch.linalg.vector_norm(w, dual, dim=1, keepdim=True)
        spread = (x.double() @ unit.T).std(0)
        best = c.largest_sd(x, norm)
        assert (spread <= best).all()
        assert spread.max() > 0.9 * best or norm == "linf"
    assert c.largest_sd(x, "linf") == pytest.approx(x.double().std(0).max().item())
    top = np.linalg.svd(x.double().numpy() - x.double().numpy().mean(0))[1][0]
    assert c.largest_sd(x, "l2") == pytest.approx(top / math.sqrt(399))


def test_on_a_gaussian_nothing_found_beats_the_theorem():
    train, test = stretched(1000, 12), stretched(20_000, 13)
    for norm in ("l2", "linf"):
        model = Gaussian({"l2": 2.0, "linf": c.largest_sd(test, "linf")}[norm])
        for search in (c.half_space, c.balls):
            got = search(train, test, 0.05, 0.5, norm=norm)
            inside, expanded = got.inside / got.n, got.expanded / got.n
            least = model.least_expansion(inside, 0.5).item()
            # Six standard deviations of a share of 20 000, for both shares together.
            assert expanded >= least - 6 * math.sqrt(2 * least / 20_000)
            assert search is c.balls or expanded <= 1.15 * least


# What is refused.

ONE = torch.zeros(4, 2)

REFUSED = {
    "d is 1; expected at least 2": lambda: c.cap_measure(1, 0.5),
    r"angle is 4.0; expected an angle in radians in \[0, 3.142\]": lambda: c.cap_measure(3, 4.0),
    r"angle is -0.5": lambda: c.cap_measure(3, torch.tensor([0.5, -0.5])),
    "angle is nan": lambda: c.cap_measure(3, float("nan")),
    r"measure is 0.0; expected a share in \(0, 1\]. A set of measure 0 may be empty":
        lambda: c.cap_radius(3, 0.0),
    "measure is 1.5": lambda: Sphere(3).least_expansion(1.5, 0.1),
    "share is 0.0": lambda: Sphere(3).largest_distance(0.1, 0.0),
    "eps is -0.25; expected a distance": lambda: Sphere(3).least_expansion(0.5, -0.25),
    "eps is -0.5; expected a distance": lambda: Gaussian().least_expansion(0.5, -0.5),
    "angle is 0.0; expected more than 0": lambda: c.log_cap_measure(3, 0.0),
    "d is 2; expected d ≥ 3: below, the bound is 1": lambda: c.levy(2, 0.5),
    "t is -1.0": lambda: c.levy(5, -1.0),
    "radius is 0.0; expected a positive number": lambda: Sphere(3, 0.0),
    "d is 0; expected at least 2": lambda: Sphere(0),
    "sd is inf": lambda: Gaussian(math.inf),
    r"train has examples of shape \(2,\), test of \(3,\)":
        lambda: c.half_space(ONE, torch.zeros(4, 3), 0.1, 0.1),
    "alpha is 1.0; expected a share": lambda: c.balls(ONE, ONE, 1.0, 0.1),
    "alpha is 0": lambda: c.half_space(ONE, ONE, 0, 0.1),
    "eps is -1; expected a distance": lambda: c.balls(ONE, ONE, 0.1, -1),
    "eps is nan": lambda: c.half_space(ONE, ONE, 0.1, math.nan),
    "norm is 'l1'; allowed: 'l2', 'linf'": lambda: c.half_space(ONE, ONE, 0.1, 0.1, norm="l1"),
    "norm is 'l3'; allowed": lambda: c.balls(ONE, ONE, 0.1, 0.1, norm="l3"),
    "candidates is 0": lambda: c.half_space(ONE, ONE, 0.1, 0.1, candidates=0),
    "count is 0; expected at least 1 ball": lambda: c.balls(ONE, ONE, 0.1, 0.1, count=0),
    "NaN or infinity": lambda: c.balls(ONE / 0, ONE, 0.1, 0.1),
    "expected a batch": lambda: c.half_space(ONE[0], ONE, 0.1, 0.1),
    "x has 1 example": lambda: c.largest_sd(ONE[:1], "l2"),
    "norm is 'l1'; allowed": lambda: c.largest_sd(ONE, "l1"),
}  # fmt: skip


@pytest.mark.parametrize("message", REFUSED)
def test_is_refused_in_words(message):
    with unchecked(), pytest.raises(ValueError, match=message):
        REFUSED[message]()


def test_bytes_are_refused():
    with unchecked(), pytest.raises(TypeError, match="expected a floating-point tensor"):
        c.half_space(ONE.byte(), ONE, 0.1, 0.1)


def test_shapes_are_checked():
    with pytest.raises(jaxtyping.TypeCheckError):
        c.half_space(ONE.long(), ONE, 0.1, 0.1)


@pytest.mark.gpu
def test_results_stay_on_the_device():
    x = stretched(200, 1).cuda()
    assert c.cap_measure(5, x.sigmoid()).is_cuda
    assert Sphere(5).largest_distance(x.sigmoid()).is_cuda
    for search in (c.half_space, c.balls):
        assert search(x, x, 0.1, 0.3).n == 200
