"""The linear rule in closed form, against linear and convex programs, brute force and float64."""

import cvxpy as cp
import numpy as np
import pytest
import torch
from helpers import rng, unchecked, untouched
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linprog

from robcourse.linear import distance, fit, robust_risk, score, worst_case
from robcourse.threat import Threat

NORMS = ["linf", "l2", "l1"]
P = {"linf": "inf", "l2": 2, "l1": 1}
ORDER = {"linf": np.inf, "l2": 2, "l1": 1}
DUAL = {"linf": 1, "l2": 2, "l1": np.inf}


def rows(n, d, seed, dtype=torch.float64):
    return torch.rand(n, d, generator=rng(seed), dtype=dtype)


def weights(d, seed, dtype=torch.float64):
    return torch.randn(d, generator=rng(seed), dtype=dtype)


# The distance.


def distance_by_program(w, b, x, norm):
    """min ‖δ‖ subject to w·(x + δ) + b = 0, without the word dual."""
    d, at = len(w), w @ x + b
    if norm == "linf":  # variables δ, t:  −t ≤ δ_i ≤ t
        eye, one = np.eye(d), np.ones((d, 1))
        a = np.block([[eye, -one], [-eye, -one]])
        cost, equal = np.r_[np.zeros(d), 1], np.r_[w, 0][None]
        free = [(None, None)] * d + [(0, None)]
        return linprog(cost, a, np.zeros(2 * d), equal, [-at], bounds=free).fun
    if norm == "l1":  # variables u, v ≥ 0:  δ = u − v
        return linprog(np.ones(2 * d), A_eq=np.r_[w, -w][None], b_eq=[-at]).fun
    delta = cp.Variable(d)
    problem = cp.Problem(cp.Minimize(cp.norm(delta, 2)), [w @ delta == -at])
    return problem.solve(solver=cp.CLARABEL)


@pytest.mark.parametrize("norm", NORMS)
@given(st.integers(1, 12), st.integers(0, 10**6), st.booleans())
def test_distance_is_the_optimum_of_a_program(norm, d, seed, sparse):
    w = weights(d, seed)
    if sparse:
        w[1:] *= torch.rand(d - 1, generator=rng(seed + 1)) < 0.5
    x, b = rows(1, d, seed + 2), 0.3
    expected = distance_by_program(w.numpy(), b, x[0].numpy(), norm)
    # Clarabel stops at 1e-8 of the value and of its constraints.
    assert distance(w, b, x, norm).item() == pytest.approx(expected, rel=1e-6, abs=1e-7)


@pytest.mark.parametrize("norm", NORMS)
def test_distance_in_the_plane_by_brute_force(norm):
    w, b, x = torch.tensor([1.0, -2.5]), 0.4, torch.tensor([[0.3, 0.9]])
    s = torch.linspace(-5, 5, 200_001, dtype=torch.float64)
    line = torch.stack([s, (w[0] * s + b) / 2.5], 1)  # every point with w·z + b = 0
    brute = np.linalg.norm((line - x).numpy(), ORDER[norm], axis=1).min()
    # Neighbours on the line are less than 1e-4 apart.
    assert distance(w, b, x, norm).item() == pytest.approx(brute, abs=1e-4)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("scale", [1e-3, 7.0, 1e4])
def test_distance_does_not_change_when_the_rule_is_scaled(norm, scale):
    w, x = weights(20, 0), rows(5, 20, 1)
    torch.testing.assert_close(distance(scale * w, scale * 0.7, x, norm), distance(w, 0.7, x, norm))


@pytest.mark.parametrize("norm", NORMS)
def test_the_step_of_that_length_lands_on_the_boundary(norm):
    w, b, x = weights(30, 3), 0.2, rows(6, 30, 4)
    far = distance(w, b, x, norm)
    threat = Threat(norm, 1.0, None)
    step = -score(w, b, x).sign()[:, None] * threat.steepest(w[None])
    assert score(w, b, x + far[:, None] * step).abs().max() < 1e-12
    assert (score(w, b, x + 0.999 * far[:, None] * step) * score(w, b, x) > 0).all()


def test_the_worked_example_of_the_chapter():
    """w = (3, 4), b = −5, x = (2, 1), y = +1: score 5; the wall is 1 away in ℓ2, 5/7 in ℓ∞."""
    w, x, y = torch.tensor([3.0, 4.0]), torch.tensor([[2.0, 1.0]]), torch.tensor([1])
    assert score(w, -5.0, x).item() == 5
    expected = {"l2": 1.0, "linf": 5 / 7, "l1": 5 / 4}
    for norm, value in expected.items():
        assert distance(w, -5.0, x, norm).item() == pytest.approx(value)
    wrong = {("l2", 0.5): 0, ("linf", 0.5): 0, ("linf", 0.8): 1, ("l2", 0.8): 0, ("l2", 1.0): 1}
    for (norm, eps), risk in wrong.items():
        assert robust_risk(w, -5.0, x, y, Threat(norm, eps, None)) == risk, (norm, eps)
    # With score 2 it is right and not robust: ℓ2 at 0.5 needs 2.5.
    assert robust_risk(w, -8.0, x, y, Threat("l2", 0.0, None)) == 0
    assert robust_risk(w, -8.0, x, y, Threat("l2", 0.5, None)) == 1


# The worst case.


def least_by_program(w, x, y, threat):
    """min y·w·z over the ball and the box, by an interior-point solver."""
    z = cp.Variable(len(x))
    allowed = [cp.norm(z - x, P[threat.norm]) <= threat.eps]
    if threat.box is not None:
        allowed += [z >= threat.box[0], z <= threat.box[1]]
    return cp.Problem(cp.Minimize(y * (w @ z)), allowed).solve(solver=cp.CLARABEL)


@st.composite
def linear_cases(draw):
    norm = draw(st.sampled_from(NORMS))
    box = draw(st.sampled_from([None, (0.0, 1.0), (-0.5, 0.8)]))
    d, seed = draw(st.integers(1, 10)), draw(st.integers(0, 10**6))
    eps = draw(st.sampled_from([1e-3, 0.1, 0.6, 1.2, 3.0]))
    if box and norm == "linf":
        eps = min(eps, box[1] - box[0])
    elif box:
        eps = min(eps, (box[1] - box[0]) * d ** (0.5 if norm == "l2" else 1))
    low, high = box or (-1.0, 1.0)
    x = low + (high - low) * rows(3, d, seed)
    w = weights(d, seed + 1)
    kind = draw(st.sampled_from(["plain", "corners", "zeros", "ties", "all zero"]))
    if kind == "corners":
        x = low + (high - low) * rows(3, d, seed + 2).round()
        x = x.clamp(low, high)  # low + (high − low) is not always high
    if kind == "zeros":
        w *= rows(1, d, seed + 3)[0] < 0.5
    if kind == "ties":
        w = w.sign()
    if kind == "all zero":
        w = torch.zeros_like(w)
    y = torch.where(rows(3, 1, seed + 4)[:, 0] < 0.5, -1, 1)
    return w, x, y, Threat(norm, eps, box)


@given(linear_cases())
def test_worst_case_is_the_optimum_of_a_program(case):
    w, x, y, threat = case
    with untouched(None, w, x, y):
        z = worst_case(w, x, y, threat)
    assert threat.contains(z, x).all()
    assert torch.equal(z[:, w == 0], x[:, w == 0])  # what does not matter stays
    reached = (y * (z @ w))[0].item()
    expected = least_by_program(w.numpy(), x[0].numpy(), y[0].item(), threat)
    # Neither side may win by more than the solver's tolerance.
    assert reached == pytest.approx(expected, abs=2e-6 * (1 + w.abs().sum().item()))


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("spread", [1.0, 1e6, 1e30])
@pytest.mark.parametrize("box", [None, (0.0, 1.0)])
def test_worst_case_without_a_wall_in_reach_uses_exactly_the_budget(norm, dtype, spread, box):
    """y·w·(z − x) = −eps·‖w‖_* where no wall is near, whatever the sizes in w and in d = 4096."""
    d, eps = 4096, 0.3
    w = weights(d, 5, dtype)
    w = w.sign() * spread ** -rows(1, d, 6, dtype)[0] * w.abs().clamp_min(0.1)
    x = torch.full((2, d), 0.5, dtype=dtype)
    y = torch.tensor([1, -1])
    z = worst_case(w, x, y, Threat(norm, eps, box))
    gained = (y[:, None] * (z.double() - x.double()) * w.double()).sum(1)
    full = -eps * np.linalg.norm(w.double().numpy(), DUAL[norm])
    # In float32 each coordinate of z is rounded to 3e-8, of a step of eps/√d ≈ 5e-3 in ℓ2.
    np.testing.assert_allclose(gained.numpy(), full, rtol=2e-5 if dtype == torch.float32 else 1e-12)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("spread", [1.0, 1e6])
def test_worst_case_at_walls_in_float32_is_as_good_as_in_float64(norm, spread):
    d = 4096
    w = weights(d, 7).sign() * spread ** -rows(1, d, 8)[0]
    x = rows(3, d, 9).round(decimals=1)  # many at or near a wall
    x[0] = x[0].round()
    y = torch.tensor([1, -1, 1])
    for eps in (0.1, 0.9) if norm == "linf" else (0.1, 3.0, 40.0):
        threat = Threat(norm, eps)
        exact = worst_case(w, x, y, threat)
        z = worst_case(w.float(), x.float(), y, threat)
        assert threat.contains(z, x.float()).all()
        most = (w.abs() * (exact - x).abs()).sum(1)  # the gain
        gap = (y * ((z.double() - exact) @ w)).abs()
        # Each coordinate is off by a few units of float32's rounding of a number below 1.
        assert (gap <= 1e-5 * most + 3e-7).all(), (eps, gap, most)


@pytest.mark.parametrize("norm", NORMS)
def test_worst_case_takes_weights_of_any_size_float32_has(norm):
    w = torch.tensor([1e-38, -3e10, 4e10, 0.0])
    x, y = torch.full((1, 4), 0.5), torch.tensor([1])
    z = worst_case(w, x, y, Threat(norm, 0.1))
    step = {"linf": [-0.1, 0.1, -0.1, 0], "l2": [0, 0.06, -0.08, 0], "l1": [0, 0, -0.1, 0]}[norm]
    torch.testing.assert_close(z - x, torch.tensor([step]))


def test_worst_case_by_hand():
    w, x, y = torch.tensor([2.0, -1.0, 0.0]), torch.tensor([[0.4, 0.9, 0.5]]), torch.tensor([1.0])
    expected = {
        ("linf", (0.0, 1.0)): [0.1, 1.0, 0.5],
        ("linf", None): [0.1, 1.2, 0.5],
        ("l1", (0.0, 1.0)): [0.1, 0.9, 0.5],
        ("l2", None): [0.4 - 0.6 / 5**0.5, 0.9 + 0.3 / 5**0.5, 0.5],
        ("l2", (0.0, 1.0)): [0.4 - 0.08**0.5, 1.0, 0.5],  # the second stops after 0.1
    }
    for (norm, box), z in expected.items():
        torch.testing.assert_close(
            worst_case(w, x, y, Threat(norm, 0.3, box)), torch.tensor([z]), rtol=1e-5, atol=1e-6
        )
    spilled = worst_case(w, x, y, Threat("l1", 0.45))  # 0.4 for the first, 0.05 is left
    torch.testing.assert_close(spilled, torch.tensor([[0.0, 0.95, 0.5]]))


@pytest.mark.parametrize("norm", NORMS)
def test_worst_case_keeps_the_shape_and_takes_any_strides(norm):
    x = rows(2, 48, 0).view(2, 4, 4, 3).permute(0, 3, 1, 2)
    w, y = weights(48, 1), torch.tensor([1, -1])
    z = worst_case(w, x, y, Threat(norm, 0.2))
    flat = worst_case(w, x.flatten(1), y, Threat(norm, 0.2))
    assert z.shape == x.shape
    assert torch.equal(z.flatten(1), flat)


# The risk.


@given(linear_cases(), st.sampled_from([-0.4, 0.0, 0.4]))
def test_robust_risk_is_the_share_with_a_wrong_point_in_reach(case, b):
    w, x, y, threat = case
    risk = robust_risk(w, b, x, y, threat)
    least = [
        least_by_program(w.numpy(), x[i].numpy(), y[i].item(), threat) + y[i].item() * b
        for i in range(len(x))
    ]
    tie = 2e-6 * (1 + w.abs().sum().item())  # the solver cannot tell on which side these lie
    wrong, unsure = np.mean(np.array(least) <= -tie), np.mean(np.array(least) <= tie)
    assert wrong - 1e-12 <= risk <= unsure + 1e-12


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("box", [None, (0.0, 1.0)])
def test_robust_risk_in_the_plane_by_brute_force(norm, box):
    w, b, eps = torch.tensor([1.0, -0.7], dtype=torch.float64), -0.11, 0.25
    x, y = rows(60, 2, 0), torch.where(rows(60, 1, 1)[:, 0] < 0.5, -1, 1)
    axis = torch.linspace(-1, 1, 401, dtype=torch.float64)
    around = eps * torch.cartesian_prod(axis, axis)
    around = around[np.linalg.norm(around.numpy(), ORDER[norm], axis=1) <= eps * (1 + 1e-12)]
    wrong = []
    for xi, yi in zip(x, y, strict=True):
        z = xi + around
        if box:
            z = z[((z >= box[0]) & (z <= box[1])).all(1)]
        wrong.append(bool((yi * (z @ w + b) <= 0).any()))
    # The grid has steps of eps/200: at most one of 60 points may lie that near to the edge.
    assert robust_risk(w, b, x, y, Threat(norm, eps, box)) == pytest.approx(
        np.mean(wrong), abs=1.01 / 60
    )
    assert np.mean(wrong) not in (0, 1)


def test_robust_risk_a_box_can_only_help_and_a_tie_is_wrong():
    w, x = weights(10, 0), rows(50, 10, 1)
    y = torch.where(score(w, 0.0, x) > 0, 1, -1)
    for norm in NORMS:
        free = robust_risk(w, 0.0, x, y, Threat(norm, 0.3, None))
        assert robust_risk(w, 0.0, x, y, Threat(norm, 0.3)) <= free
        assert robust_risk(w, 0.0, x, y, Threat(norm, 0.0)) == 0
        assert robust_risk(0 * w, 0.0, x, y, Threat(norm, 0.0, None)) == 1
        assert robust_risk(0 * w, 0.0, x, y, Threat(norm, 0.0)) == 1
    nan = torch.tensor(torch.nan, dtype=torch.float64)
    assert robust_risk(w, nan, x, y, Threat("l2", 0.1)) == 1
    assert robust_risk(w, nan, x, y, Threat("l2", 0.1, None)) == 1


# Exact robust training.


def objective(w, b, x, y, threat, decay):
    slack = y * (x @ w + b) - threat.eps * np.linalg.norm(w, DUAL[threat.norm])
    return np.logaddexp(0, -slack).mean() + decay / 2 * (w @ w)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(("eps", "decay"), [(0.0, 1e-3), (0.05, 1e-3), (0.2, 1e-3), (0.2, 0.1)])
def test_fit_reaches_the_optimum_of_its_convex_problem(norm, eps, decay):
    n, d = 60, 6
    x = rows(n, d, 0)
    noise = 0.3 * torch.randn(n, generator=rng(1), dtype=torch.float64)
    y = torch.where((x - 0.5) @ weights(d, 2) + noise > 0, 1, -1)
    threat = Threat(norm, eps)
    with untouched(None, x, y):
        w, b = fit(x, y, threat, decay=decay)
    v, c = cp.Variable(d), cp.Variable()
    slack = cp.multiply(y.numpy(), x.numpy() @ v + c) - eps * cp.norm(v, DUAL[norm])
    loss = cp.sum(cp.logistic(-slack)) / n + decay / 2 * cp.sum_squares(v)
    best = cp.Problem(cp.Minimize(loss)).solve(solver=cp.CLARABEL)
    reached = objective(w.numpy(), b.item(), x.numpy(), y.numpy(), threat, decay)
    assert best - 1e-6 <= reached <= best * (1 + 1e-3)
    assert not w.requires_grad
    assert not b.requires_grad


def test_fit_leaves_no_gradient_in_what_it_was_given():
    x = rows(20, 3, 0, torch.float32).requires_grad_()
    y = torch.where(rows(20, 1, 1)[:, 0] < 0.5, -1.0, 1.0)
    with untouched(None, x, y), torch.no_grad():  # also where gradients are switched off
        w, b = fit(x, y, Threat("l2", 0.1), steps=20)
    assert w.dtype == b.dtype == torch.float32
    assert x.grad is None
    with untouched(None, x, y):
        again, _ = fit(x.view(20, 3, 1), y, Threat("l2", 0.1), steps=20)
    assert torch.equal(w, again)


# What is refused, in words.

X = rows(2, 3, 0)
W = torch.ones(3, dtype=torch.float64)
Y = torch.tensor([1, -1])
BALL = Threat("l2", 0.1)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: distance(W, 0.0, X, "l0"), ValueError, r"norm is 'l0'; allowed"),
        (lambda: distance(0 * W, 0.0, X, "l2"), ValueError, r"w is 0: the rule has no boundary"),
        (lambda: distance(W[:2], 0.0, X, "l2"), ValueError,
         r"w has shape \(2,\); each x has 3 inputs, so expected \(3,\)"),
        (lambda: distance(W[None], 0.0, X, "l2"), ValueError, r"w has shape \(1, 3\)"),
        (lambda: distance(W.float(), 0.0, X, "l2"), TypeError,
         r"w is torch.float32; x is torch.float64: use w.to\(x\)"),
        (lambda: distance(W * torch.nan, 0.0, X, "l2"), ValueError, r"w holds NaN or infinity"),
        (lambda: distance(W, 0.0, X * torch.nan, "l2"), ValueError, r"x holds NaN or infinity"),
        (lambda: distance(W, 0.0, X[:0], "l2"), ValueError, r"the batch is empty"),
        (lambda: distance(W, 0.0, X[0], "l2"), ValueError, r"for one example use x\[None\]"),
        (lambda: distance(W, 0.0, X.tolist(), "l2"), TypeError, r"x is list"),
        (lambda: worst_case(W, X, Y > 0, BALL), ValueError, r"y holds \[False, True\]; .* signs"),
        (lambda: worst_case(W, X, (Y + 1) // 2, BALL), ValueError,
         r"y holds \[0, 1\]; .* −1 and \+1: for classes 0 and 1 pass 2 \* y - 1"),
        (lambda: worst_case(W, X, Y[:1], BALL), ValueError,
         r"y has shape \(1,\); expected \(2,\), one an example"),
        (lambda: worst_case(W, X, Y[:, None], BALL), ValueError, r"y has shape \(2, 1\)"),
        (lambda: worst_case(W, X, [1, -1], BALL), TypeError, r"y is list; expected a tensor"),
        (lambda: worst_case(W, X * 300, Y, BALL), ValueError, r"divide by 255"),
        (lambda: worst_case(W, X, Y, Threat("l2", 128.0)), ValueError, r"write 128/255"),
        (lambda: worst_case(W[:2], X, Y, BALL), ValueError, r"w has shape \(2,\)"),
        (lambda: robust_risk(W, 0.0, X, Y * torch.nan, BALL), ValueError, r"y holds \[nan"),
        (lambda: robust_risk(W[:2], 0.0, X, Y, BALL), ValueError, r"w has shape \(2,\)"),
        (lambda: robust_risk(W[:2], 0.0, X, Y, Threat("l2", 0.1, None)), ValueError,
         r"w has shape \(2,\)"),
        (lambda: robust_risk(W, 0.0, X * torch.inf, Y, Threat("l2", 0.1, None)), ValueError,
         r"x holds NaN or infinity"),
        (lambda: fit(X, (Y + 1) // 2, BALL), ValueError, r"y holds \[0, 1\]"),
        (lambda: fit(X, Y[:, None], BALL), ValueError, r"y has shape \(2, 1\)"),
        (lambda: fit(X - 1, Y, BALL), ValueError, r"the box is \[0, 1\]"),
    ],
)  # fmt: skip
def test_what_is_refused(call, error, words):
    with unchecked(), pytest.raises(error, match=words):
        call()


@pytest.mark.gpu
@pytest.mark.parametrize("norm", NORMS)
def test_on_a_gpu_as_on_the_cpu(norm):
    w, x, y = weights(64, 0, torch.float32), rows(8, 64, 1, torch.float32), Y.repeat(4)
    for box in (None, (0.0, 1.0)):
        threat = Threat(norm, 0.3, box)
        z = worst_case(w.cuda(), x.cuda(), y.cuda(), threat)
        torch.testing.assert_close(z.cpu(), worst_case(w, x, y, threat))
        risk = robust_risk(w.cuda(), 0.1, x.cuda(), y.cuda(), threat)
        assert risk == robust_risk(w, 0.1, x, y, threat)
    far = distance(w.cuda(), 0.1, x.cuda(), norm)
    torch.testing.assert_close(far.cpu(), distance(w, 0.1, x, norm))
    there, _ = fit(x.cuda(), y.cuda(), Threat(norm, 0.05), steps=100)
    here, _ = fit(x, y, Threat(norm, 0.05), steps=100)
    torch.testing.assert_close(there.cpu(), here, rtol=1e-3, atol=1e-3)
