"""The threat and the judge, against quadratic programs, brute force and known laws."""

import math
import time

import cvxpy as cp
import numpy as np
import pytest
import torch
from helpers import rng, unchecked, untouched
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from robcourse import models
from robcourse.runtime import generator
from robcourse.threat import ORDER, AttackResult, Certificate, Threat, margin, measure

NORMS = ["linf", "l2", "l1"]
P = {"linf": "inf", "l2": 2, "l1": 1}


def cases(max_d=10):
    """(threat, x [n, d], a proposal [n, d]) in float64: corners, ties, zeros, far and near."""

    @st.composite
    def build(draw):
        norm = draw(st.sampled_from(NORMS))
        box = draw(st.sampled_from([None, (0.0, 1.0), (-1.0, 2.0), (0.1, 0.7)]))
        eps = draw(st.sampled_from([0.0, 1e-6, 1e-3, 8 / 255, 0.1, 0.5, 1.3, 5.0, 1e4]))
        if norm == "linf" and box:
            eps = min(eps, box[1] - box[0])
        d = draw(st.integers(1, max_d))
        gen = rng(draw(st.integers(0, 10**6)))
        low, high = box or (-2.0, 2.0)
        x = low + (high - low) * torch.rand(3, d, generator=gen, dtype=torch.float64)
        if draw(st.booleans()):  # at the corners of the box
            x = torch.where(torch.rand(3, d, generator=gen) < 0.6, x.round().clamp(low, high), x)
            x = torch.where(torch.rand(3, d, generator=gen) < 0.3, high, x)
        delta = torch.randn(3, d, generator=gen, dtype=torch.float64)
        shape = draw(st.sampled_from(["plain", "ties", "zeros", "sparse"]))
        if shape == "ties":
            delta = delta.sign() * (1 + delta.abs().round())
        elif shape == "zeros":
            delta = torch.zeros_like(delta)
        elif shape == "sparse":
            delta = delta * (torch.rand(3, d, generator=gen) < 0.4)
        scale = draw(st.sampled_from([1e-7, 1e-2, 0.3, 1.0, 30.0, 1e4]))
        return Threat(norm, eps, box), x, x + scale * delta

    return build()


def size(delta, norm):
    """The norm by NumPy, in float64."""
    order = {"linf": np.inf, "l2": 2, "l1": 1}[norm]
    return np.linalg.norm(delta.detach().cpu().double().flatten(1).numpy(), order, axis=1)


def qp_projection(threat, x, z):
    """The nearest allowed point by an interior-point solver, in float64.

    Solved for δ/eps, so that a budget of 1e-6 is not below the solver's own tolerance.
    """
    x, z = x.numpy(), z.numpy()
    unit = threat.eps
    delta = cp.Variable(len(x))
    rows = [cp.norm(delta, P[threat.norm]) <= 1]
    if threat.box is not None:
        rows += [unit * delta <= threat.box[1] - x, unit * delta >= threat.box[0] - x]
    problem = cp.Problem(cp.Minimize(cp.sum_squares(delta - (z - x) / unit)), rows)
    problem.solve(solver=cp.CLARABEL)
    return torch.from_numpy(x + unit * delta.value)


# The projection.


@given(cases())
def test_projection_is_feasible_and_idempotent(case):
    threat, x, z = case
    p = threat.project(z, x)
    assert threat.contains(p, x).all()
    slack = 1e-12 * (threat.eps + 1 + size(x, "l1"))  # of float64
    assert (size(p - x, threat.norm) <= threat.eps + slack).all()
    # A second projection may move by rounding only: a few units in the last place.
    torch.testing.assert_close(threat.project(p, x), p, rtol=1e-14, atol=1e-14 * (1 + threat.eps))


@given(cases(max_d=40))
def test_projection_in_float32_is_feasible(case):
    threat, x, z = case
    x, z = x.float(), z.float()
    if threat.box is not None:
        x = x.clamp(*threat.box)
    assert threat.contains(threat.project(z, x), x).all()


@pytest.mark.parametrize("norm", NORMS)
def test_a_point_a_little_outside_is_moved_onto_the_ball(norm):
    """`contains` forgives 1e-5; the projection forgives nothing."""
    x = torch.full((1, 4), 0.5, dtype=torch.float64)
    threat = Threat(norm, 0.2)
    direction = threat.steepest(torch.tensor([[1.0, -2.0, 0.5, 1.5]], dtype=torch.float64))
    p = threat.project(x + 0.2 * (1 + 1e-6) * direction, x)
    torch.testing.assert_close(p, x + 0.2 * direction, rtol=0, atol=1e-12)


@given(cases())
def test_projection_leaves_what_is_allowed_as_it_is(case):
    threat, x, _ = case
    inside = threat.sample(x, seed=1)
    inside = x + 0.9 * (inside - x)  # strictly inside the ball, so rounding decides nothing
    assert torch.equal(threat.project(inside, x), inside)


@given(cases(max_d=40), st.integers(0, 1000), st.sampled_from([torch.float64, torch.float32]))
def test_projection_satisfies_the_variational_inequality(case, seed, dtype):
    """p is nearest if and only if ⟨z − p, q − p⟩ ≤ 0 for every allowed q."""
    threat, x, z = case
    p = threat.project(z.to(dtype), x.to(dtype)).double()
    x = x.to(dtype).double()
    z = z.to(dtype).double()
    gen = rng(seed)
    toward = Threat(threat.norm, threat.eps, threat.box)
    others = [x, toward.sample(x, seed=seed)]
    for scale in (0.1, 1.0, 10.0):  # allowed points of another make: shrunk into ball and box
        q = torch.randn(x.shape, generator=gen, dtype=x.dtype) * scale * threat.eps + z - x
        longer = torch.from_numpy(size(q, threat.norm)) / (threat.eps + 1e-300)
        q = q / longer.clamp_min(1)[:, None]
        others.append(x + q if threat.box is None else (x + q).clamp(*threat.box))
    # One coordinate of p is off by at most an ulp of it and of the difference z − x.
    ulp = torch.finfo(dtype).eps
    slack = 4 * ulp * x.shape[1] ** 0.5 * (1 + x.abs().amax(1) + z.abs().amax(1))
    for q in others:
        product = ((z - p) * (q - p)).sum(1)
        # Off by `slack` in p costs that much times either factor.
        allowed = slack * ((z - p).norm(dim=1) + (q - p).norm(dim=1) + slack)
        assert (product <= allowed).all(), (product, allowed)


@given(cases(max_d=8))
def test_projection_is_the_nearest_point_by_a_quadratic_program(case):
    threat, x, z = case
    if threat.eps == 0:
        assert torch.equal(threat.project(z, x), x)
        return
    if (z - x).abs().max() > 1e3 * threat.eps:  # the solver's own precision ends here
        z = x + (z - x) * (1e3 * threat.eps / (z - x).abs().max())
    p, q = threat.project(z, x)[0], qp_projection(threat, x[0], z[0])
    # The solver stops within about 1e-8 of the optimal value of (‖δ − z‖/eps)²; by strong convexity
    # the points differ by at most the root of that.
    far = 1 + ((z[0] - x[0]) / threat.eps).norm()
    assert (p - q).norm() <= 3e-4 * threat.eps * far
    assert ((p - z[0]).norm() - (q - z[0]).norm()) <= 1e-6 * threat.eps * far


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("box", [None, (0.0, 1.0)])
def test_projection_of_one_example_known_by_hand(norm, box):
    x = torch.tensor([[0.5, 0.5, 1.0]])
    z = x + torch.tensor([[3.0, 4.0, 12.0]])
    expected = {
        ("linf", None): [1.0, 1.0, 1.5],
        ("linf", (0.0, 1.0)): [1.0, 1.0, 1.0],
        ("l2", None): [0.5 + 1.5 / 13, 0.5 + 2 / 13, 1 + 6 / 13],
        ("l2", (0.0, 1.0)): [0.8, 0.9, 1.0],  # the third is at its wall; (3, 4)/5 · 0.5
        ("l1", None): [0.5, 0.5, 1.5],
        ("l1", (0.0, 1.0)): [0.5, 1.0, 1.0],
    }[norm, box]
    p = Threat(norm, 0.5, box).project(z, x)
    torch.testing.assert_close(p, torch.tensor([expected]))


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("d", [64, 3072])
@pytest.mark.parametrize("scale", [1e-6, 1e-4, 1e-2, 1.0])
def test_rounding_never_throws_a_projection_or_a_sample_out_of_the_ball(norm, d, scale):
    """Half a unit of rounding in each coordinate adds up to more than an ℓ1 ball forgives."""
    gen = rng(d)
    x = torch.rand(3, d, generator=gen)
    z = x + scale * torch.randn(3, d, generator=gen)
    for eps in (1e-4, 1e-2, 8 / 255, 0.1, 1.0, 10.0):
        threat = Threat(norm, min(eps, 1.0) if norm == "linf" else eps)
        assert threat.contains(threat.project(z, x), x).all(), eps
        assert threat.contains(threat.sample(x), x).all(), eps
    if norm != "l1":
        return
    # Rounding towards x costs at most a unit in the last place of x a coordinate.
    lost = threat.eps - size(threat.project(x + torch.randn(3, d, generator=gen), x) - x, norm)
    assert (lost <= d * 2**-24).all()


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("box", [None, (0.0, 1.0), (0.0, 255.0)])
def test_coarse_numbers_stay_in_the_ball_too(norm, dtype, box):
    """16 bits, or values in the hundreds: the rounding of x + δ is larger than the tolerance."""
    gen = rng(3)
    x = (torch.rand(4, 50, generator=gen) * (box[1] if box else 1000)).to(dtype)
    z = x + (20 * torch.randn(4, 50, generator=gen)).to(dtype)
    threat = Threat(norm, 0.1, box)
    if box:
        z = z.clamp(*box)
    assert threat.contains(threat.project(z, x), x).all()
    assert threat.contains(threat.sample(x), x).all()


@pytest.mark.parametrize("norm", ["l2", "l1"])
def test_projection_of_a_point_on_the_ball_up_to_rounding_is_the_point(norm):
    """All coordinates are at their walls and the budget is a hair more or less than that takes."""
    x, z = torch.zeros(1, 3, dtype=torch.float64), torch.tensor([[9.0, 1.0, 3.0]]).double()
    full = {"l2": math.sqrt(3), "l1": 3.0}[norm]
    for hair in (-1e-15, 0.0, 1e-15):
        p = Threat(norm, full * (1 + hair)).project(z, x)
        torch.testing.assert_close(p, torch.ones_like(p), rtol=1e-7, atol=0)


@pytest.mark.parametrize("norm", ["l2", "l1"])
def test_projection_where_float32_and_float64_disagree_about_outside(norm):
    """Every wall can be reached with what eps is in float64; in float32 the sum is above eps."""
    x, z = torch.rand(200, 50, generator=rng(0)), 5 + 10 * torch.rand(200, 50, generator=rng(1))
    walls = torch.ones_like(x)
    disagree = 0
    for i, room in enumerate(size(walls - x, norm)):
        threat = Threat(norm, room * (1 + 1e-9))
        if (threat.size(walls - x)[i] > threat.eps).item():
            disagree += 1
            p = threat.project(z[i : i + 1], x[i : i + 1])
            torch.testing.assert_close(p, walls[:1], rtol=0, atol=1e-6)
    assert disagree > 10


@pytest.mark.parametrize("scale", [1e6, 1e16, 1e30])
def test_projection_of_far_away_points_keeps_its_precision(scale):
    x, z = torch.zeros(1, 3), scale * torch.tensor([[1.0, 1.0, 0.5]])
    for norm, expected in {"l1": [0.5, 0.5, 0.0], "l2": [2 / 3, 2 / 3, 1 / 3]}.items():
        p = Threat(norm, 1.0, None).project(z, x)
        torch.testing.assert_close(p, torch.tensor([expected]))
    torch.testing.assert_close(Threat("l1", 2.5).project(z, x), torch.tensor([[1.0, 1.0, 0.5]]))


@pytest.mark.parametrize("norm", NORMS)
def test_projection_in_the_dimension_of_imagenet_takes_less_than_a_second(norm):
    gen = rng(0)
    x = torch.rand(2, 3, 224, 224, generator=gen)
    z = x + torch.randn(x.shape, generator=gen)
    threat = Threat(norm, 0.1)
    seconds = []
    for _ in range(3):
        start = time.process_time()
        p = threat.project(z, x)
        seconds.append(time.process_time() - start)
    assert min(seconds) < 1
    assert p.shape == x.shape
    used = size(p - x, norm)  # rounding towards x may cost ℓ1 an ulp in each coordinate that moves
    np.testing.assert_allclose(used, 0.1, rtol=1e-5)


@pytest.mark.parametrize("norm", NORMS)
def test_projection_changes_nothing_it_was_given_and_returns_something_new(norm):
    x, z = torch.rand(2, 5, generator=rng(0)), torch.rand(2, 5, generator=rng(1))
    for box in (None, (0.0, 1.0)):
        for eps in (0.01, 1.0):
            with untouched(None, x, z):
                p = Threat(norm, eps, box).project(z, x)
                p.zero_()


@pytest.mark.parametrize("norm", NORMS)
def test_projection_follows_shape_strides_and_emptiness(norm):
    threat = Threat(norm, 0.2)
    x = torch.rand(4, 6, 5, 3, generator=rng(0))
    z = x + torch.randn(x.shape, generator=rng(1))
    strided = threat.project(z.permute(0, 3, 1, 2), x.permute(0, 3, 1, 2))
    torch.testing.assert_close(
        strided, threat.project(z.permute(0, 3, 1, 2).contiguous(), x.permute(0, 3, 1, 2).clone())
    )
    assert threat.project(x[:0], x[:0]).shape == (0, 6, 5, 3)
    assert threat.contains(x[:0], x[:0]).shape == (0,)
    assert threat.sample(x[:0]).shape == (0, 6, 5, 3)


@pytest.mark.parametrize("norm", NORMS)
def test_projection_does_not_hide_nan(norm):
    """NaN in, NaN out (the judge throws it away); the other examples are as without it."""
    x = torch.full((3, 4), 0.5)
    z = x + torch.tensor([[1.0, 2.0, 0.0, 0.0]])
    bad = z.clone()
    bad[1, 2] = torch.nan
    threat = Threat(norm, 0.3)
    p = threat.project(bad, x)
    assert p[1].isnan().any()
    assert torch.equal(p[[0, 2]], threat.project(z, x)[[0, 2]])
    assert not threat.contains(p, x)[1]


# The steepest direction and the dual norm.


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("scale", [1e-40, 1e-30, 1e-4, 1.0, 1e19, 1e38])
def test_steepest_attains_the_dual_norm_at_every_scale(norm, scale):
    threat = Threat(norm, 0.1)
    g = torch.randn(5, 3, 4, generator=rng(2)).clamp(-3, 3) * scale
    g[0, 0] = 0
    delta = threat.steepest(g)
    np.testing.assert_allclose(size(delta, norm), 1, rtol=1e-5)
    product = (g.double() * delta.double()).flatten(1).sum(1)
    # A gradient of 1e-40 is denormal: it holds about five digits itself.
    torch.testing.assert_close(product, threat.dual(g.double()), rtol=1e-5, atol=0)


@pytest.mark.parametrize("norm", NORMS)
def test_steepest_of_zero_is_zero_and_of_a_tie_has_size_one(norm):
    threat = Threat(norm, 0.1)
    assert torch.equal(threat.steepest(torch.zeros(2, 3)), torch.zeros(2, 3))
    tie = torch.tensor([[2.0, -2.0, 2.0]])
    assert threat.size(threat.steepest(tie)).item() == pytest.approx(1)


@given(st.sampled_from(NORMS), st.integers(1, 30), st.integers(0, 10**6))
def test_hoelder(norm, d, seed):
    gen = rng(seed)
    g, delta = torch.randn(2, 4, d, generator=gen, dtype=torch.float64)
    threat = Threat(norm, 1.0, None)
    assert ((g * delta).sum(1) <= threat.size(delta) * threat.dual(g) * (1 + 1e-12)).all()
    np.testing.assert_allclose(threat.size(delta).numpy(), size(delta, norm), rtol=1e-12)
    conjugate = {"linf": "l1", "l2": "l2", "l1": "linf"}[norm]
    np.testing.assert_allclose(threat.dual(g).numpy(), size(g, conjugate), rtol=1e-12)


# Random points.


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("d", [1, 2, 5])
def test_sample_is_uniform_in_the_ball(norm, d):
    """Radius: (r/eps)^d is uniform. One coordinate: uniform, Beta(½, (d+1)/2), Beta(1, d)."""
    threat = Threat(norm, 0.3, None)
    delta = threat.sample(torch.zeros(4000, d, dtype=torch.float64), seed=1) / 0.3
    radius = size(delta, norm)
    assert (radius <= 1 + 1e-12).all()
    one = delta[:, -1].abs().numpy()
    marginal = {
        "linf": stats.uniform(),
        "l2": stats.beta(0.5, (d + 1) / 2),
        "l1": stats.beta(1, d),
    }[norm]
    observed = one**2 if norm == "l2" else one
    # With this seed; a wrong law at n = 4000 gives p-values below 1e-6.
    assert stats.kstest(radius**d, "uniform").pvalue > 1e-3
    assert stats.kstest(observed, marginal.cdf).pvalue > 1e-3
    assert stats.binomtest(int((delta[:, 0] > 0).sum()), 4000).pvalue > 1e-3


def test_sample_in_linf_is_uniform_in_ball_and_box():
    x = torch.tensor([0.05, 0.5, 1.0], dtype=torch.float64).repeat(4000, 1)
    z = Threat("linf", 0.2).sample(x, seed=2)
    for i, (low, high) in enumerate([(0.0, 0.25), (0.3, 0.7), (0.8, 1.0)]):
        assert stats.kstest(z[:, i].numpy(), stats.uniform(low, high - low).cdf).pvalue > 1e-3


@given(cases(), st.integers(0, 10**6))
def test_sample_is_allowed_and_repeats(case, seed):
    threat, x, _ = case
    x = x.float() if threat.box is None else x.float().clamp(*threat.box)
    with untouched(None, x):
        z = threat.sample(x, seed=seed)
    assert threat.contains(z, x).all()
    assert torch.equal(z, threat.sample(x, seed=seed))
    if threat.eps >= 0.1 and threat.box is None:
        assert not torch.equal(z, threat.sample(x, seed=seed + 1))


def test_sample_survives_a_draw_of_exactly_zero():
    """Uniform draws in float32 hold exact zeros, one in 2²⁴; the logarithm of one is infinite."""
    shape = (2, 150528)
    assert (torch.rand(shape, generator=generator(34, torch.zeros(1))) == 0).any()
    for norm in NORMS:
        assert Threat(norm, 1.0, None).sample(torch.zeros(shape), seed=34).isfinite().all()


# What is allowed.


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("eps", [0.1, 8 / 255, 1 / 255, 0.125])
@pytest.mark.parametrize("d", [64, 3072])
def test_contains_forgives_the_rounding_of_an_honest_step(norm, eps, d):
    x = torch.rand(50, d, generator=rng(4)) * 0.5 + 0.25
    threat = Threat(norm, eps)
    step = threat.steepest(torch.randn(50, d, generator=rng(5)))
    assert threat.contains(x + eps * step, x).all()
    assert not threat.contains(x + (eps * 1.001 + 2e-6) * step, x).any()


def test_contains_forgives_nothing_in_the_box_and_no_nan():
    threat = Threat("linf", 0.5)
    x = torch.tensor([[0.9, 0.0]])
    above = torch.nextafter(torch.tensor(1.0), torch.tensor(2.0)).item()
    below = torch.nextafter(torch.tensor(0.0), torch.tensor(-1.0)).item()
    for bad in ([above, 0.0], [1.0, below], [torch.nan, 0.0], [torch.inf, 0.0], [0.9, -torch.inf]):
        assert not threat.contains(torch.tensor([bad]), x).any(), bad
    assert threat.contains(torch.tensor([[1.0, 0.0]]), x).all()
    free = Threat("linf", 0.5, None)
    assert free.contains(torch.tensor([[above, below]]), x).all()
    assert not free.contains(torch.tensor([[torch.nan, 0.0]]), x).any()


def test_a_wall_that_float32_rounds_is_still_a_wall():
    """0.3 is no float32: what is clamped there must be allowed and pass the check of the input."""
    threat = Threat("l2", 0.25, (0.0, 0.3))
    x = torch.tensor([[0.3, 0.1]])
    assert x.double().max() > 0.3
    threat.validate(None, x)
    p = threat.project(x + 1, x)
    assert threat.contains(p, x).all()
    threat.validate(None, p)
    # x + (wall − x) need not be the wall, in float32.
    box = (0.1, 0.7)
    x = (0.1 + 0.6 * torch.rand(500, 10, generator=rng(0))).clamp(*box)
    z = x + torch.randn(500, 10, generator=rng(1))
    for norm, eps in (("linf", 0.5), ("l2", 0.8), ("l1", 1.5)):
        threat = Threat(norm, eps, box)
        assert threat.contains(threat.project(z, x), x).all()
        assert threat.contains(threat.sample(x), x).all()


# The margin.


@given(st.integers(2, 6), st.integers(0, 10**6), st.booleans())
def test_margin_against_brute_force(k, seed, ties):
    gen = rng(seed)
    z = torch.randn(5, k, generator=gen)
    z = z.round() if ties else z
    y = torch.randint(k, (5,), generator=gen)
    for row, label, m in zip(z.tolist(), y.tolist(), margin(z, y).tolist(), strict=True):
        rest = [v for j, v in enumerate(row) if j != label]
        assert m == pytest.approx(row[label] - max(rest))
        assert (m > 0) == all(row[label] > v for v in rest)


def test_margin_at_the_edges():
    inf, nan = torch.inf, torch.nan
    z = torch.tensor([[1.0, 1.0], [nan, 0.0], [0.0, nan], [-inf, 0.0], [0.0, -inf], [-inf, -inf],
                      [inf, inf], [3e38, -3e38]])  # fmt: skip
    m = margin(z, torch.zeros(8, dtype=torch.int64))
    assert (m > 0).tolist() == [False, False, False, False, True, False, False, True]
    assert m[1:3].isnan().all()
    assert m[0] == 0
    assert m[3] == -inf


# The judge.


def linear_model(x):
    """Two classes in the plane: 0 to the right of x₀ = 0.5, 1 to the left; a tie on the line."""
    return torch.stack([x[:, 0] - 0.5, 0.5 - x[:, 0]], 1)


def test_measure_counts_only_what_is_allowed():
    threat = Threat("linf", 0.25)
    x = torch.tensor([[0.75, 0.5]]).repeat(7, 1)
    y = torch.zeros(7, dtype=torch.int64)
    y[6] = 1  # wrong at x already
    proposals = torch.tensor([
        [0.625, 0.5],  # allowed, still right
        [0.5, 0.5],  # allowed, a tie
        [0.25, 0.5],  # out of the ball
        [torch.nan, 0.5],
        [0.5, -1e-7],  # out of the box
        [0.75, torch.inf],
        [0.5, 0.5],  # would be a tie; x is kept, for it is wrong
    ])  # fmt: skip
    with untouched(None, proposals, x, y):
        result = measure(linear_model, proposals, x, y, threat)
    assert result.success.tolist() == [False, True, False, False, False, False, True]
    expected = x.clone()
    expected[0, 0], expected[1, 0] = 0.625, 0.5
    assert torch.equal(result.x_adv, expected)
    assert torch.equal(result.margin, margin(linear_model(expected), y))
    assert result.robust_accuracy_upper == pytest.approx(5 / 7)
    assert result.threat == threat


def test_measure_counts_nan_logits_as_wrong():
    def broken(x):
        z = linear_model(x)
        return torch.where(x[:, 1:] < 0.5, torch.nan, z)

    x = torch.tensor([[1.0, 1.0], [1.0, 0.0]])
    y = torch.zeros(2, dtype=torch.int64)
    proposals = torch.tensor([[1.0, 0.25], [1.0, 1.0]])
    result = measure(broken, proposals, x, y, Threat("linf", 1.0))
    assert result.success.tolist() == [True, True]
    assert result.x_adv.tolist() == [[1.0, 0.25], [1.0, 0.0]]


@given(st.integers(0, 10**6), st.sampled_from(NORMS))
def test_measure_never_reports_more_than_the_clean_accuracy(seed, norm):
    model = models.mlp(6, 3, hidden=(5,), seed=seed)
    gen = rng(seed)
    x, y = torch.rand(20, 6, generator=gen), torch.randint(3, (20,), generator=gen)
    wild = x + torch.randn(20, 6, generator=gen)
    wild[3] = torch.nan
    threat = Threat(norm, 0.3)
    clean = (margin(model(x), y) > 0).double().mean().item()
    for z in (wild, threat.project(wild, x), x):
        with untouched(model, z, x, y):
            result = measure(model, z, x, y, threat)
        assert result.robust_accuracy_upper <= clean
        assert threat.contains(result.x_adv, x).all()
        assert torch.equal(result.success, ~(margin(model(result.x_adv), y) > 0))
    assert result.robust_accuracy_upper == pytest.approx(clean)  # x itself proposes nothing


def test_measure_leaves_no_graph_and_no_gradient():
    model = models.mlp(4, 3)
    x = torch.rand(2, 4, generator=rng(0)).requires_grad_()
    y = torch.tensor([0, 1])
    with untouched(model, x, y):
        result = measure(model, x * 1.0, x, y, Threat("l2", 0.1))
    for value in (result.x_adv, result.margin):
        assert not value.requires_grad


def test_measure_refuses_a_proposal_of_another_shape_or_dtype():
    x, y = torch.full((2, 2), 0.7), torch.zeros(2, dtype=torch.int64)
    threat = Threat("l2", 0.1)
    with (
        unchecked(),
        pytest.raises(ValueError, match=r"x_adv has shape \(2, 2, 1\); x has \(2, 2\)"),
    ):
        measure(linear_model, x[..., None], x, y, threat)
    with pytest.raises(
        TypeError, match=r"x_adv is torch.float64; x is torch.float32: use x_adv.to"
    ):
        measure(linear_model, x.double(), x, y, threat)


def test_result_counts_survivors():
    success = torch.tensor([True, False, False, True])
    result = AttackResult(torch.zeros(4, 1), success, torch.zeros(4), Threat("l2", 1.0))
    assert result.robust_accuracy_upper == 0.5


# Certificates.


def test_certificate_holds_strictly_and_never_where_it_abstained():
    radius = torch.tensor([0.5, 0.5, 0.25, 0.0, 0.0], dtype=torch.float64)
    label = torch.tensor([1, 1, 1, 1, 1])
    y = torch.tensor([1, 0, 1, 1, 1])
    abstain = torch.tensor([False, False, False, False, True])
    c = Certificate(label, radius, "l2", 1e-3, abstain)
    assert c.holds(y, 0.25).tolist() == [True, False, False, False, False]
    assert c.holds(y, 0.5).tolist() == [False] * 5  # radius == eps: the closed ball is not proved
    assert not c.holds(y, 0.0)[3]
    accuracies = c.accuracy_at(y, torch.tensor([0.0, 0.25, 0.5]))
    torch.testing.assert_close(accuracies, torch.tensor([0.4, 0.2, 0.0], dtype=torch.float64))
    # Without a mask nothing abstains; the mask alone decides, not the radius.
    never = Certificate(label, radius + 1, "l2")
    assert never.holds(y, 0.9).tolist() == [True, False, True, True, True]
    masked = Certificate(label, radius + 1, "l2", abstain=abstain)
    assert masked.holds(y, 0.9).tolist() == [True, False, True, True, False]
    nan = Certificate(label, radius * torch.nan, "l2")
    assert not nan.holds(y, 0.0).any()


def test_certificate_accuracy_falls_with_the_radius():
    radius = torch.rand(100, generator=rng(0))
    c = Certificate(torch.zeros(100, dtype=torch.int64), radius, "linf")
    radii = torch.linspace(0, 1.2, 25)
    accuracies = c.accuracy_at(torch.zeros(100, dtype=torch.int64), radii)
    brute = [np.mean(radius.numpy() > r) for r in radii.numpy()]
    np.testing.assert_allclose(accuracies.numpy(), brute)
    assert (accuracies.diff() <= 0).all()


# What is refused, in words.


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("linf", 8.0), r"eps is 8, but the box \(0.0, 1.0\) is 1 wide: .* units of the input, so "
                      r"write 8/255"),
        (("linf", 0.5, (0.0, 0.2)), r"eps is 0.5, but the box .* is 0.2 wide"),
        (("l2", -0.1), r"eps is -0.1; expected a finite number ≥ 0"),
        (("l2", math.nan), r"eps is nan; expected"),
        (("l1", math.inf), r"eps is inf; expected"),
        (("l3", 0.1), r"norm is 'l3'; allowed: 'linf', 'l2', 'l1'"),
        (("L2", 0.1), r"norm is 'L2'; allowed"),
        (("l2", 0.1, (1.0, 0.0)), r"box is \(1.0, 0.0\); expected \(low, high\), low < high"),
        (("l2", 0.1, (0.0, 0.0)), r"box is \(0.0, 0.0\); expected"),
        (("l2", 0.1, (0.0, math.nan)), r"box is \(0.0, nan\); expected"),
        (("l2", 0.1, (-math.inf, math.inf)), r"box is \(-inf, inf\); expected"),
    ],
)  # fmt: skip
def test_threat_refuses_in_words(arguments, words):
    with pytest.raises(ValueError, match=words):
        Threat(*arguments)


def test_threat_refuses_another_eps_in_at_too():
    threat = Threat("linf", 0.1)
    assert threat.at(0.2) == Threat("linf", 0.2)
    with pytest.raises(ValueError, match="8/255"):
        threat.at(8.0)


@pytest.mark.parametrize(("norm", "widest"), [("l2", 8.0), ("l1", 64.0)])
def test_an_eps_that_swallows_every_image_is_refused_with_the_batch(norm, widest):
    x = torch.rand(2, 1, 8, 8, generator=rng(0))
    Threat(norm, widest).validate(None, x)
    with pytest.raises(
        ValueError, match=rf"eps is 128, but two inputs are at most {widest:g} apart"
    ):
        Threat(norm, 128.0).validate(None, x)
    Threat(norm, 128.0, None).validate(None, x.flatten(1))


def test_threat_is_frozen_hashable_and_covers_every_norm():
    threat = Threat("l2", 0.5)
    with pytest.raises(AttributeError):
        threat.eps = 1.0
    assert {threat: 1}[Threat("l2", 0.5)] == 1
    assert sorted(ORDER) == sorted(NORMS)
    for p, q in ORDER.values():
        assert 1 / p + 1 / q == 1


@pytest.mark.gpu
@pytest.mark.parametrize("norm", NORMS)
def test_on_a_gpu_as_on_the_cpu(norm):
    threat = Threat(norm, 0.3)
    x = torch.rand(4, 3, 32, 32, generator=rng(0))
    z = x + torch.randn(x.shape, generator=rng(1))
    p = threat.project(z.cuda(), x.cuda())
    assert p.is_cuda
    torch.testing.assert_close(p.cpu(), threat.project(z, x))
    torch.testing.assert_close(threat.steepest(z.cuda()).cpu(), threat.steepest(z))
    sample = threat.sample(x.cuda(), seed=1)
    assert threat.contains(sample, x.cuda()).all()
    assert torch.equal(sample, threat.sample(x.cuda(), seed=1))
    model = models.mlp(3072, 10)
    y = torch.zeros(4, dtype=torch.int64)
    here = measure(model, p.cpu(), x, y, threat)
    there = measure(model.cuda(), p, x.cuda(), y.cuda(), threat)
    torch.testing.assert_close(there.margin.cpu(), here.margin, rtol=1e-4, atol=1e-5)
