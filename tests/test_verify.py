"""Verification against an enumeration of all activation patterns, and against what must not be."""

import dataclasses
import functools
import itertools
import math

import cvxpy
import numpy as np
import pytest
import torch
from helpers import rng, unchecked, untouched
from torch import nn

from robcourse import bounds, branching, data, linear, milp, models, query, verify, zoo
from robcourse.models import Residual
from robcourse.threat import Threat, margin, measure

COMPLETE = (verify.milp, verify.branch_and_bound)
SOLVERS = (verify.lp, *COMPLETE)


def toy(seed: int, hidden=(5, 4), inputs=3, classes=3) -> nn.Sequential:
    """A network in float64 with few neurons, drawn so that most of them are open."""
    model = models.mlp(inputs, classes, hidden=hidden, seed=seed).double()
    gen = rng(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=gen, dtype=p.dtype))
    return model


def example(model, seed: int, inputs: int = 3):
    x = torch.rand(1, inputs, generator=rng(seed), dtype=torch.float64)
    with torch.no_grad():
        return x, model(x).argmax(1)


def enumerated(model, x, y, threat: Threat) -> float:
    """The least margin: a convex program for each pattern of the ReLUs and each wrong class.

    Shares nothing with the package but the model: the matrices are its parameters, the program is
    cvxpy's and Clarabel's.
    """
    pairs = [
        (m.weight.detach().numpy(), m.bias.detach().numpy())
        for m in model
        if isinstance(m, nn.Linear)
    ]
    *hidden, (w_last, b_last) = pairs
    start = x[0].numpy()
    n, label = len(start), int(y)
    z = cvxpy.Variable(n)
    order = {"linf": "inf", "l2": 2, "l1": 1}[threat.norm]
    allowed = [cvxpy.norm(z - start, order) <= threat.eps]
    if threat.box is not None:
        allowed += [z >= threat.box[0], z <= threat.box[1]]
    neurons = sum(len(b) for _, b in hidden)
    g, h = cvxpy.Parameter((neurons, n)), cvxpy.Parameter(neurons)
    c = cvxpy.Parameter(n)
    problem = cvxpy.Problem(cvxpy.Minimize(c @ z), [*allowed, g @ z <= h])
    mean, std = float(model[0].mean), float(model[0].std)
    least = math.inf
    for pattern in itertools.product((0.0, 1.0), repeat=neurons):
        a, k, at, rows, tops = np.eye(n) / std, np.full(n, -mean / std), 0, [], []
        for w, b in hidden:
            on = np.array(pattern[at : at + len(b)])
            at += len(b)
            a, k = w @ a, w @ k + b
            sign = np.where(on, -1.0, 1.0)
            rows.append(sign[:, None] * a)
            tops.append(-sign * k)
            a, k = on[:, None] * a, on * k
        a, k = w_last @ a, w_last @ k + b_last
        g.value, h.value = np.concatenate(rows), np.concatenate(tops)
        for j in range(len(b_last)):
            if j == label:
                continue
            c.value = a[label] - a[j]
            problem.solve(solver=cvxpy.CLARABEL)
            if problem.status == "optimal":
                least = min(least, problem.value + k[label] - k[j])
    return least


CASES = [
    ("linf", 0.15, (0.0, 1.0)), ("linf", 0.4, None), ("l1", 0.3, (0.0, 1.0)), ("l1", 0.5, None),
    ("l2", 0.25, (0.0, 1.0)), ("l2", 0.4, None),
]  # fmt: skip


@functools.cache
def truth(seed: int, norm: str, eps: float, box) -> float:
    model = toy(seed, hidden=(4, 3))
    return enumerated(model, *example(model, seed), Threat(norm, eps, box))


@pytest.mark.parametrize(("norm", "eps", "box"), CASES)
@pytest.mark.parametrize("seed", range(3))
def test_milp_branch_and_bound_and_enumeration_agree(seed, norm, eps, box):
    model, threat = toy(seed, hidden=(4, 3)), Threat(norm, eps, box)
    x, y = example(model, seed)
    least = truth(seed, norm, eps, box)
    assert abs(least) > 1e-3  # else the sign would be a matter of rounding
    for solver in COMPLETE:
        (found,) = solver(model, x, y, threat, exact=True)
        # Clarabel's own accuracy is 1e-8 of numbers of size 10.
        assert abs(found.bound - least) < 1e-6, solver.__name__
        (sign,) = solver(model, x, y, threat)
        assert sign.status == found.status == ("safe" if least > 0 else "unsafe")
        assert sign.bound <= least + 1e-6
    (relaxed,) = verify.lp(model, x, y, threat)
    crown = bounds.margins(model, x, y, threat).min()
    assert crown - 1e-9 <= relaxed.bound <= least + 1e-6
    assert relaxed.status in (sign.status, "unknown")


def test_the_cases_have_both_answers_and_a_gap_for_the_relaxation():
    margins = [truth(seed, *case) for seed in range(3) for case in CASES]
    assert min(margins) < 0 < max(margins)
    model = toy(1, hidden=(4, 3))
    (relaxed,) = verify.lp(model, *example(model, 1), Threat("linf", 0.4, None))
    assert relaxed.bound < truth(1, "linf", 0.4, None) - 1e-3


def residual(seed: int) -> nn.Sequential:
    gen = rng(seed)
    body = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 4))
    layers = [models.Normalize(), nn.Linear(3, 4), nn.ReLU(), Residual(body, nn.Sequential())]
    model = nn.Sequential(*layers, nn.Linear(4, 3)).double().eval()
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=gen, dtype=p.dtype))
    return model


@pytest.mark.parametrize("seed", range(4))
def test_residual_networks_against_a_grid(seed):
    with torch.random.fork_rng():
        model = residual(seed)
    x, y = example(model, seed)
    threat = Threat("linf", 0.2)
    exact = [solver(model, x, y, threat, exact=True)[0] for solver in COMPLETE]
    assert abs(exact[0].bound - exact[1].bound) < 1e-6
    side = torch.linspace(-0.2, 0.2, 41, dtype=torch.float64)
    grid = (x + torch.cartesian_prod(side, side, side)).clamp(0, 1)
    with torch.no_grad():
        least = margin(model(grid), y.expand(len(grid))).min().item()
    # The grid holds 68,921 points 0.01 apart: it is above the truth, and near to it.
    assert exact[0].bound - 1e-6 <= least < exact[0].bound + 1.0
    assert verify.lp(model, x, y, threat)[0].bound <= exact[0].bound + 1e-6


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_unsafe_has_a_witness_that_the_judge_confirms(solver, norm):
    model = toy(7, hidden=(8, 8)).float()
    x = torch.rand(12, 3, generator=rng(7))
    with torch.no_grad():
        y = model(x).argmax(1)
    threat = Threat(norm, {"linf": 0.15, "l2": 0.2, "l1": 0.25}[norm])
    with untouched(model, x, y):
        found = solver(model, x, y, threat)
    assert {"unsafe", "safe"} <= {v.status for v in found}
    for i, v in enumerate(found):
        assert (v.witness is not None) == (v.status == "unsafe")
        assert (v.reason != "") == (v.status == "unknown")
        if v.witness is not None:
            assert v.witness.dtype == x.dtype
            judged = measure(model, v.witness[None], x[i : i + 1], y[i : i + 1], threat)
            assert bool(judged.success)
            assert torch.equal(judged.x_adv[0], v.witness)
        near = threat.sample(x[i : i + 1].expand(2000, 3), seed=i)
        with torch.no_grad():
            reached = margin(model(near), y[i].expand(2000)).min().item()
        assert reached >= v.bound - 1e-5  # the samples are of float32
        if v.witness is not None:
            assert judged.margin.item() >= v.bound - 1e-5
        assert (v.bound > 0) == (v.status == "safe")


@pytest.mark.parametrize("solver", SOLVERS)
def test_wrong_at_x_is_unsafe_with_x_as_the_witness(solver):
    model = toy(1)
    x, y = example(model, 1)
    (found,) = solver(model, x, (y + 1) % 3, Threat("linf", 0.01))
    assert (found.status, found.nodes) == ("unsafe", 0)
    assert torch.equal(found.witness, x[0])


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_tie_is_wrong(solver):
    model = toy(1)
    with torch.no_grad():
        model[-1].weight.zero_()
        model[-1].bias.zero_()
    x, y = example(model, 1)
    assert solver(model, x, y, Threat("linf", 0.1))[0].status == "unsafe"


def corner(gap: float) -> nn.Sequential:
    """Two classes in one dimension; the least margin over |z − ½| ≤ 0.3 is `gap`, at a kink."""
    model = models.mlp(1, 2, hidden=(2,), mean=0.0, std=1.0).double()
    first, last = model[2], model[4]
    with torch.no_grad():  # margin = relu(z − 0.6) + relu(0.6 − z) + gap
        first.weight.copy_(torch.tensor([[1.0], [-1.0]]))
        first.bias.copy_(torch.tensor([-0.6, 0.6]))
        last.weight.copy_(torch.tensor([[1.0, 1.0], [0.0, 0.0]]))
        last.bias.copy_(torch.tensor([gap, 0.0]))
    return model


@pytest.mark.parametrize("solver", COMPLETE)
@pytest.mark.parametrize("gap", [0.01, 1e-7, 0.0, -1e-7, -0.01])
def test_a_margin_within_the_tolerance_is_never_safe_by_belief(solver, gap):
    x = torch.full((1, 1), 0.5, dtype=torch.float64)
    (found,) = solver(corner(gap), x, torch.tensor([0]), Threat("linf", 0.3))
    if gap <= 0:
        assert found.status != "safe"
    if solver is verify.milp and gap == 1e-7:  # HiGHS keeps constraints to 1e-6
        assert (found.status, "tolerance" in found.reason) == ("unknown", True)
    elif abs(gap) == 0.01 or (solver is verify.branch_and_bound and gap > 0):
        assert found.status == ("safe" if gap > 0 else "unsafe")


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("value", [math.nan, math.inf, 1e200])
def test_nan_and_overflow_are_unknown(solver, value):
    model = toy(3)
    x, y = example(model, 3)
    with torch.no_grad():
        model[2].weight[::2], model[2].weight[1::2] = value, -value
        model[4].weight[:] = value
    (found,) = solver(model, x, y, Threat("linf", 0.1))
    assert found.status == "unknown"
    assert "NaN" in found.reason or "overflow" in found.reason
    assert not found.bound > -math.inf


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_time_limit_proves_nothing(solver):
    model = toy(0, hidden=(8, 8))
    x, y = example(model, 0)
    threat = Threat("linf", 0.2)
    (whole,) = verify.branch_and_bound(model, x, y, threat)
    assert whole.status == "safe"
    assert whole.nodes > 20
    (found,) = solver(model, x, y, threat, seconds=1e-6)
    assert (found.status, found.reason) == ("unknown", "1e-06 seconds were not enough")
    assert found.bound <= 0


def ask(model, x, y, threat, exact=True) -> query.Query:
    net = bounds.graph(model, x)
    nothing = lambda points: (None, math.inf)
    q = query.Query(net, net.dense, x, int(y), threat, exact, math.inf, nothing)
    return q.bounded()


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_any_multipliers_give_a_lower_bound(norm):
    model = toy(4, hidden=(4, 3))
    x, y = example(model, 4)
    threat = Threat(norm, 0.3)
    least = enumerated(model, x, y, threat)
    q = ask(model, x, y, threat)
    p = milp.program(q, q.arrays)
    prices = np.random.default_rng(0).normal(size=(200, len(p.top)))
    found = [
        min(p.safe(q, j, scale * price)[0] for j in range(3) if j != int(y))
        for price in prices
        for scale in (0.01, 1.0)
    ]
    assert max(found) <= least
    assert p.safe(q, int(q.rivals[0]), np.full(len(p.top), math.nan))[0] == -math.inf


def test_a_solver_that_lies_proves_nothing(monkeypatch):
    """The bound of `lp` is right whatever HiGHS says of its optimum and its multipliers."""
    model = toy(4, hidden=(4, 3))
    x, y = example(model, 4)
    threat = Threat("linf", 0.3)
    least = enumerated(model, x, y, threat)
    assert least < 0
    solve, gen = milp.optimize.linprog, np.random.default_rng(0)

    def liar(*args, **kwargs):
        found = solve(*args, **kwargs)
        found.fun = 1.0
        for side in (found.ineqlin, found.eqlin):
            side.marginals = side.marginals + gen.normal(size=side.marginals.shape)
        return found

    monkeypatch.setattr(milp.optimize, "linprog", liar)
    (found,) = verify.lp(model, x, y, threat)
    assert found.bound <= least
    assert found.status != "safe"


def test_an_empty_program_is_proved_to_be_empty():
    model = corner(-1.0)
    x, y = torch.full((1, 1), 0.5, dtype=torch.float64), torch.tensor([1])
    q = ask(model, x, y, Threat("linf", 0.3))
    both = [(np.array([-0.4, -0.2]), np.array([0.0, 0.0]))]  # both off only at z = 0.6
    assert milp.least(q, milp.program(q, both), 0)[0] < math.inf
    q = ask(model, x, y, Threat("linf", 0.05))  # which is not reached from 0.5
    assert milp.least(q, milp.program(q, both), 0)[0] == math.inf
    assert query.nearest(dataclasses.replace(q, threat=Threat("l2", 0.05)), [np.zeros(2)], 0)[0] > 0


def test_radii_of_a_linear_rule_are_its_distances():
    model = models.mlp(6, 2, hidden=(), seed=3).double()
    x = torch.rand(4, 6, generator=rng(3), dtype=torch.float64) * 0.2 + 0.4
    with torch.no_grad():
        y = model(x).argmax(1)
    last = model[2]
    w = (last.weight[0] - last.weight[1]).detach() / model[0].std
    b = (last.bias[0] - last.bias[1]).detach() - w.sum() * model[0].mean
    for norm in ("linf", "l2"):
        true = linear.distance(w, b, x, norm)
        for found, size in zip(
            verify.minimal_radius(model, x, y, norm, box=None), true.tolist(), strict=True
        ):
            assert found.lower <= size <= found.upper * (1 + 1e-9)
            assert found.upper - found.lower <= 1.1e-4 * found.upper


@pytest.mark.parametrize(("norm", "order"), [("linf", math.inf), ("l2", 2)])
def test_the_travellers_radius(norm, order):
    model, _ = zoo.load("digits-3v8-standard")
    digits = data.load("digits").only(3, 8)
    at = slice(data.TRAVELLER, data.TRAVELLER + 1)
    x, y = digits.test_x[at], digits.test_y[at]
    (found,) = verify.minimal_radius(model, x, y, norm)
    assert 0 < found.upper - found.lower <= 1.1e-4 * found.upper
    size = (found.witness.double() - x[0].double()).flatten()
    assert torch.linalg.vector_norm(size, order).item() == pytest.approx(found.upper, abs=1e-6)
    # Another proof: a mixed-integer program at both ends.
    assert verify.milp(model, x, y, Threat(norm, found.lower * 0.999))[0].status == "safe"
    (beyond,) = verify.milp(model, x, y, Threat(norm, found.upper * 1.001))
    assert beyond.status == "unsafe"


def test_an_example_that_is_wrong_has_radius_zero():
    model = toy(1)
    x, y = example(model, 1)
    (found,) = verify.minimal_radius(model, x, (y + 1) % 3, "linf")
    assert (found.lower, found.upper) == (0.0, 0.0)
    assert torch.equal(found.witness, x[0])


def test_a_constant_rule_is_safe_as_far_as_the_box_goes():
    model = toy(1)
    with torch.no_grad():
        model[-1].weight.zero_()
    x, y = example(model, 1)
    (found,) = verify.minimal_radius(model, x, y, "linf")
    assert (found.lower, found.upper, found.witness) == (1.0, math.inf, None)


@pytest.mark.parametrize("solver", SOLVERS)
def test_bad_inputs_are_named(solver):
    model = toy(1)
    x, y = example(model, 1)
    threat = Threat("linf", 0.1)
    with unchecked():
        for bad, label, allowed, words in [
            (x[0], y, threat, "for one example use x"),
            (x * math.nan, y, threat, "NaN or infinity in 1 of 1"),
            (x, y + 3, threat, "labels are 0 … 2"),
            (x * 255, y, threat, "divide by 255"),
            (x, y, Threat("l2", 8.0), "in units of the input, so write 8/255"),
        ]:
            with pytest.raises(ValueError, match=words):
                solver(model, bad, label, allowed)
        with pytest.raises(TypeError, match="int64"):
            solver(model, x, y.float(), threat)
        with pytest.raises(ValueError, match="training mode"):
            solver(toy(1).train(), x, y, threat)
    for seconds in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="seconds is"):
            solver(model, x, y, threat, seconds=seconds)
    strange = nn.Sequential(*toy(1)[:3], nn.Sigmoid(), toy(1)[4]).eval()
    with pytest.raises(ValueError, match=r"layer 3: .*Sigmoid"):
        solver(strange, x, y, threat)


def test_bad_settings_are_named():
    model = toy(1)
    x, y = example(model, 1)
    with unchecked():
        for name in ("batch", "steps"):
            with pytest.raises(ValueError, match=f"{name} is 0; expected an integer"):
                verify.branch_and_bound(model, x, y, Threat("linf", 0.1), **{name: 0})
        for tolerance in (0.0, 1.0):
            with pytest.raises(ValueError, match="share of the radius"):
                verify.minimal_radius(model, x, y, "linf", tolerance=tolerance)
        with pytest.raises(ValueError, match="'l2' and 'linf'"):
            verify.minimal_radius(model, x, y, "l1")
        with pytest.raises(ValueError, match="seconds is 0"):
            verify.minimal_radius(model, x, y, "linf", seconds=0.0)


def test_a_network_that_is_too_large_for_matrices_is_named(monkeypatch):
    model = toy(0, hidden=(8, 8))
    x, y = example(model, 0)
    monkeypatch.setattr(query, "LARGEST", 50)
    for solver in (verify.lp, verify.milp):
        with pytest.raises(ValueError, match=r"\[8, 8\] neurons, too many for matrices"):
            solver(model, x, y, Threat("linf", 0.2))
    (found,) = verify.branch_and_bound(model, x, y, Threat("linf", 0.05))
    assert found.status == "safe"


@pytest.mark.parametrize("solver", SOLVERS)
def test_no_budget_leaves_only_x(solver):
    model = toy(1)
    x, y = example(model, 1)
    with torch.no_grad():
        here = margin(model(x), y).item()
    (found,) = solver(model, x, y, Threat("linf", 0.0))
    assert found.status == "safe"
    assert found.bound == pytest.approx(here, abs=1e-6)


def test_a_split_bound_holds_on_both_sides():
    """Every bound that the search computes is below every margin of its part."""
    model = toy(5, hidden=(6, 5))
    x, y = example(model, 5)
    threat = Threat("linf", 0.3)
    q = ask(model, x, y, threat)
    low, high = (torch.cat([getattr(b, s) for b in q.pre], 1) for s in ("lower", "upper"))
    zero = low.new_zeros(2, low.shape[1])
    alpha = (high > -low).to(low).expand_as(zero)
    part = branching.Subproblems(q.floor[q.rivals], q.rivals, zero, alpha, zero, zero)
    z = threat.sample(x.expand(20_000, 3), seed=0)
    with torch.no_grad():
        first = model[:3](z)
        second = model[:5](z)
        logits = model(z)
    signs = torch.cat([first, second], 1).sign()
    met = 0
    for _ in range(4):
        part, _ = branching._climb(q, low, high, part, 5)
        for bound, rival, phase in zip(part.bound, part.rival, part.phase, strict=True):
            inside = ((phase == 0) | (phase == signs)).all(1)
            if inside.any():
                met += 1
                gaps = logits[inside, int(y)] - logits[inside, int(rival)]
                assert bound <= gaps.min() + 1e-9
        part = branching._split(low, high, part)
    assert met > 10


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize("solver", SOLVERS)
def test_a_network_without_a_relu_is_decided(solver, norm):
    """Then the margin is linear, and its distance to 0 is known."""
    model = nn.Sequential(models.mlp(2, 2, hidden=(), seed=0)[-1]).double().eval()
    x = torch.tensor([[0.5, 0.5]], dtype=torch.float64)
    with torch.no_grad():
        y = model(x).argmax(1)
        w = model[0].weight[y] - model[0].weight[1 - y]
        away = margin(model(x), y) / Threat(norm, 1.0, None).dual(w)
    for share, status in ((0.99, "safe"), (1.01, "unsafe")):
        (found,) = solver(model, x, y, Threat(norm, share * away.item(), (-9.0, 9.0)))
        assert found.status == status


@pytest.mark.parametrize("scale", [1e3, 1e5, 1e6])
def test_badly_scaled_networks_are_never_called_safe_in_error(scale):
    """Numbers beyond what the solver can be trusted with: unknown, not a false proof."""
    seen = set()
    for seed in range(12):
        model = models.mlp(2, 3, hidden=(6, 6), seed=seed).double()
        with torch.no_grad():
            for p in model.parameters():
                p.copy_(scale * torch.randn(p.shape, generator=rng(seed), dtype=p.dtype))
        x = torch.rand(1, 2, generator=rng(seed), dtype=torch.float64)
        with torch.no_grad():
            y = model(x).argmax(1)
            side = torch.linspace(-0.3, 0.3, 61, dtype=torch.float64)
            points = (x + torch.cartesian_prod(side, side)).clamp(0, 1)
            broken = bool((margin(model(points), y.expand(len(points))) <= 0).any())
        (found,) = verify.milp(model, x, y, Threat("linf", 0.3), seconds=10.0)
        seen.add(found.status)
        if broken:
            assert found.status != "safe"
        if found.status == "unknown":
            assert "too large for the solver" in found.reason or "tolerance" in found.reason
    assert len(seen) > 1
