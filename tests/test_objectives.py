"""Each objective against its paper's formula, written again in NumPy or with loops; on a toy."""

import copy
import math

import numpy as np
import pytest
import torch
from helpers import rng
from torch import nn

from robcourse import bounds, models, objectives, training
from robcourse.objectives import (
    adversarial,
    ascend,
    awp,
    hinge,
    ibp,
    noise,
    sam,
    standard,
    trades,
)
from robcourse.threat import Threat

LINF, L2 = Threat("linf", 0.1), Threat("l2", 0.3)


@pytest.fixture
def toy():
    """A network in float64, in training mode, and a batch."""
    model = models.mlp(6, 3, hidden=(8,), seed=3).double().train()
    for p in model.parameters():
        p.data *= 2
    x = torch.rand(10, 6, generator=rng(0), dtype=torch.float64)
    y = torch.randint(3, (10,), generator=rng(1))
    return model, x, y


def weights(model) -> list[np.ndarray]:
    return [p.detach().numpy().copy() for p in model.parameters()]


def forward(w: list[np.ndarray], x: np.ndarray) -> np.ndarray:
    """The toy in NumPy: normalise, hidden ReLU layer, logits."""
    hidden = np.maximum((x - 0.5) / 0.5 @ w[0].T + w[1], 0)
    return hidden @ w[2].T + w[3]


def log_softmax(z: np.ndarray) -> np.ndarray:
    z = z - z.max(1, keepdims=True)
    return z - np.log(np.exp(z).sum(1, keepdims=True))


def cross_entropy(w, x, y) -> float:
    return -log_softmax(forward(w, x))[np.arange(len(y)), y].mean()


def slopes(f, w: list[np.ndarray], step: float = 1e-6) -> list[np.ndarray]:
    """Central differences of f(w), one weight at a time."""
    out = []
    for k, a in enumerate(w):
        g = np.zeros_like(a)
        for at in np.ndindex(a.shape):
            moved = [b.copy() for b in w]
            moved[k][at] += step
            up = f(moved)
            moved[k][at] -= 2 * step
            g[at] = (up - f(moved)) / (2 * step)
        out.append(g)
    return out


def gradients(objective, model, x, y) -> list[np.ndarray]:
    model.zero_grad()
    objective(model, x, y).backward()
    return [p.grad.numpy().copy() for p in model.parameters()]


def close(found, wanted, tolerance: float = 1e-5) -> None:
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_allclose(a, b, atol=tolerance, rtol=tolerance)


def test_standard_is_the_mean_cross_entropy(toy):
    model, x, y = toy
    wanted = cross_entropy(weights(model), x.numpy(), y.numpy())
    assert standard()(model, x, y).item() == pytest.approx(wanted, abs=1e-12)


def test_noise_is_the_cross_entropy_at_gaussian_points(toy, global_random):
    model, x, y = toy
    torch.manual_seed(7)
    found = noise(0.25)(model, x, y).item()
    torch.manual_seed(7)
    z = x + 0.25 * torch.randn(10, 6, dtype=torch.float64)
    wanted = cross_entropy(weights(model), z.numpy(), y.numpy())
    assert found == pytest.approx(wanted, abs=1e-12)
    many = noise(0.25).propose(model, torch.zeros(4000, 6, dtype=torch.float64), y)
    assert many.std().item() == pytest.approx(0.25, rel=0.02)
    assert many.min() < 0, "it is not clamped"


def climbed(w, x, start, y, eps, steps, step, value) -> np.ndarray:
    """Signed gradient ascent with central differences in the inputs."""
    z = start.copy()
    for _ in range(steps):
        g = np.zeros_like(z)
        for at in np.ndindex(z.shape):
            moved = z.copy()
            moved[at] += 1e-6
            up = value(w, moved, y)
            moved[at] -= 2e-6
            g[at] = up - value(w, moved, y)
        z = np.clip(np.clip(z + step * np.sign(g), x - eps, x + eps), 0, 1)
    return z


def test_adversarial_is_the_cross_entropy_where_pgd_ends(toy, monkeypatch):
    model, x, y = toy
    start = LINF.sample(x, seed=5)
    monkeypatch.setattr(objectives, "_start", lambda x, threat: start)
    w = weights(model)
    z = climbed(w, x.numpy(), start.numpy(), y.numpy(), 0.1, 3, 2.5 * 0.1 / 3, cross_entropy)
    found = adversarial(LINF, steps=3)
    np.testing.assert_allclose(found.propose(model, x, y).numpy(), z, atol=1e-9)
    assert found(model, x, y).item() == pytest.approx(cross_entropy(w, z, y.numpy()), abs=1e-9)


def test_the_attack_starts_at_a_random_point_of_the_threat(toy, global_random):
    model, x, y = toy
    for threat in (LINF, L2):
        one, two = (adversarial(threat, steps=1, step=1e-9).propose(model, x, y) for _ in "12")
        assert (one - two).abs().max() > 1e-3
        assert threat.contains(one, x).all()
        assert model.training
        assert all(p.requires_grad and p.grad is None for p in model.parameters())


def test_a_step_is_never_longer_than_eps(toy):
    model, x, y = toy
    up = lambda logits: nn.functional.cross_entropy(logits, y, reduction="sum")
    free = Threat("linf", 0.1, None)
    moved = ascend(model, x, x, free, up, 1, None)
    assert (moved - x).abs().max().item() == pytest.approx(0.1, abs=1e-6)


def divergence(w, clean: np.ndarray, z: np.ndarray) -> float:
    """KL(p(x) ‖ p(z)), the mean over the batch."""
    p, q = log_softmax(forward(w, clean)), log_softmax(forward(w, z))
    return (np.exp(p) * (p - q)).sum(1).mean()


@pytest.mark.parametrize("beta", [1.0, 6.0])
def test_trades_is_cross_entropy_and_beta_times_the_divergence(toy, global_random, beta):
    model, x, y = toy
    w = weights(model)
    torch.manual_seed(3)
    start = (x + 1e-3 * torch.randn_like(x)).clamp(0, 1)
    value = lambda w, z, y: divergence(w, x.numpy(), z)
    z = climbed(w, x.numpy(), start.numpy(), y.numpy(), 0.1, 2, 0.1, value)
    torch.manual_seed(3)
    objective = trades(LINF, beta, steps=2)
    np.testing.assert_allclose(objective.propose(model, x, y).numpy(), z, atol=1e-9)
    torch.manual_seed(3)
    wanted = cross_entropy(w, x.numpy(), y.numpy()) + beta * divergence(w, x.numpy(), z)
    assert objective(model, x, y).item() == pytest.approx(wanted, abs=1e-9)
    swapped = cross_entropy(w, x.numpy(), y.numpy()) + beta * divergence(w, z, x.numpy())
    assert abs(swapped - wanted) > 1e-5, "the toy tells the two divergences apart"


def test_trades_knows_no_label(toy, global_random):
    model, x, y = toy
    points = []
    for labels in (y, (y + 1) % 3):
        torch.manual_seed(0)
        points.append(trades(LINF, 1.0, steps=2).propose(model, x, labels))
    assert torch.equal(*points)


def test_sam_takes_the_gradient_at_the_worst_nearby_weights(toy):
    model, x, y = toy
    w, rho = weights(model), 0.3
    f = lambda w: cross_entropy(w, x.numpy(), y.numpy())
    g = slopes(f, w)
    size = math.sqrt(sum((a**2).sum() for a in g))
    moved = [a + rho * b / size for a, b in zip(w, g, strict=True)]
    assert sam(rho)(model, x, y).item() == pytest.approx(f(moved), abs=1e-6)
    close(gradients(sam(rho), model, x, y), slopes(f, moved))
    close(weights(model), w, 0)


def test_awp_moves_each_layer_in_proportion_and_leaves_vectors(toy, monkeypatch):
    model, x, y = toy
    start = LINF.sample(x, seed=5)
    monkeypatch.setattr(objectives, "_start", lambda x, threat: start)
    base, gamma = adversarial(LINF, steps=2), 0.05
    z = base.propose(model, x, y).numpy()
    w = weights(model)
    f = lambda w: cross_entropy(w, z, y.numpy())
    g = slopes(f, w)
    step = lambda a, b: gamma * np.linalg.norm(a) / np.linalg.norm(b) * b if a.ndim > 1 else 0
    moved = [a + step(a, b) for a, b in zip(w, g, strict=True)]
    assert awp(gamma, base)(model, x, y).item() == pytest.approx(f(moved), abs=1e-6)
    close(gradients(awp(gamma, base), model, x, y), slopes(f, moved))


def test_moved_weights_leave_batch_statistics_to_the_first_pass():
    model = models.small_conv((1, 8, 8), 3, width=2).train()
    x, y = torch.rand(6, 1, 8, 8, generator=rng(0)), torch.arange(6) % 3
    once = copy.deepcopy(model)
    standard()(once, x, y)
    sam(0.5)(model, x, y)
    for (name, a), b in zip(model.named_buffers(), once.buffers(), strict=True):
        assert torch.equal(a, b), name
    assert {m.momentum for m in model.modules() if isinstance(m, nn.BatchNorm2d)} == {0.1}


def test_the_hinge_asks_for_a_radius(toy):
    model, x, y = toy
    z, radius = forward(weights(model), x.numpy()), 0.7
    total = 0.0
    for i, label in enumerate(y.tolist()):
        for j in range(3):
            if j != label:
                total += max(0.0, math.sqrt(2) * radius - (z[i, label] - z[i, j]))
    assert hinge(radius)(model, x, y).item() == pytest.approx(total / (3 * len(y)), abs=1e-9)


# Interval bounds


def test_bounds_of_one_layer_are_the_extremes_over_the_corners(toy):
    layer, x = toy[0][2], toy[1]
    found = bounds.ibp(nn.Sequential(layer), x, LINF)
    corners = torch.tensor(np.array(list(np.ndindex(*[2] * 6)))).double()
    low, high = (x - 0.1).clamp(0, 1), (x + 0.1).clamp(0, 1)
    for i in range(len(x)):
        out = layer(low[i] + corners * (high[i] - low[i]))
        torch.testing.assert_close(found.lower[i], out.min(0).values)
        torch.testing.assert_close(found.upper[i], out.max(0).values)


@pytest.mark.parametrize("batch_norm", [True, False])
def test_no_point_of_the_threat_leaves_the_bounds(batch_norm):
    model = models.small_conv((1, 8, 8), 4, width=2, batch_norm=batch_norm, seed=1).double()
    for m in model.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.running_var.uniform_(0.5, 2, generator=rng(2))
            m.weight.data.uniform_(-1, 1, generator=rng(3))
    x = torch.rand(3, 1, 8, 8, generator=rng(0), dtype=torch.float64)
    y = torch.tensor([0, 1, 3])
    found, least = bounds.ibp(model, x, LINF), bounds.ibp_margins(model, x, y, LINF)
    for seed in range(20):
        z = x + LINF.eps * torch.randn(x.shape, generator=rng(seed), dtype=x.dtype).sign()
        logits = model(z.clamp(0, 1))
        assert (logits >= found.lower - 1e-12).all()
        assert (logits <= found.upper + 1e-12).all()
        assert (logits.gather(1, y[:, None]) - logits >= least - 1e-12).all()


def test_folding_the_last_layer_is_tighter_than_subtracting_and_zero_for_the_label(toy):
    model, x, y = toy
    found, least = bounds.ibp(model, x, LINF), bounds.ibp_margins(model, x, y, LINF)
    apart = found.lower.gather(1, y[:, None]) - found.upper
    others = torch.ones_like(least).scatter(1, y[:, None], 0).bool()
    assert (least >= apart - 1e-12)[others].all()
    assert (least > apart + 1e-6)[others].any()
    assert (least.gather(1, y[:, None]) == 0).all()


def test_without_a_budget_the_bounds_are_the_logits(toy):
    model, x, _ = toy
    found = bounds.ibp(model, x, LINF.at(0.0))
    torch.testing.assert_close(found.lower, model(x))
    torch.testing.assert_close(found.upper, model(x))


def test_what_has_no_interval_rule_is_named(toy):
    with pytest.raises(ValueError, match="no interval rule for Sigmoid"):
        bounds.ibp(nn.Sequential(nn.Sigmoid()), toy[1], LINF)
    with pytest.raises(ValueError, match="BatchNorm2d in training mode"):
        bounds.ibp(nn.Sequential(nn.BatchNorm2d(1).train()), torch.zeros(2, 1, 4, 4), LINF)
    with pytest.raises(ValueError, match="last layer is ReLU; expected Linear"):
        bounds.ibp_margins(nn.Sequential(nn.ReLU()), toy[1], toy[2], LINF)


def test_ibp_mixes_clean_and_worst_cross_entropy(toy):
    model, x, y = toy
    w = weights(model)
    low, high = np.clip(x.numpy() - 0.1, 0, 1), np.clip(x.numpy() + 0.1, 0, 1)
    low, high = (low - 0.5) / 0.5, (high - 0.5) / 0.5
    plus, minus = np.maximum(w[0], 0), np.minimum(w[0], 0)
    first = (low @ plus.T + high @ minus.T + w[1], high @ plus.T + low @ minus.T + w[1])
    low, high = (np.maximum(a, 0) for a in first)
    total = 0.0
    for i, label in enumerate(y.tolist()):
        difference = w[2][label] - w[2]  # [3, 8], the last layer folded in
        least = np.maximum(difference, 0) @ low[i] + np.minimum(difference, 0) @ high[i]
        least += w[3][label] - w[3]
        total += np.log(np.exp(-least).sum())
    worst = total / len(y)
    clean = cross_entropy(w, x.numpy(), y.numpy())
    for kappa in (0.0, 0.5, 0.9):
        found = ibp(LINF, kappa=kappa)(model, x, y).item()
        assert found == pytest.approx(kappa * clean + (1 - kappa) * worst, abs=1e-9)


def test_ibp_raises_eps_and_lowers_kappa_in_a_straight_line():
    whole = ibp(LINF, kappa=0.5, begin=0.2, end=0.6)
    for progress, share in ((0.0, 0), (0.2, 0), (0.3, 0.25), (0.4, 0.5), (0.6, 1), (1.0, 1)):
        now = whole.at(progress)
        assert now.threat.eps == pytest.approx(0.1 * share)
        assert now.kappa == pytest.approx(1 - 0.5 * share)


def test_every_objective_can_be_had_from_training_and_names_itself():
    for name in ("standard", "noise", "adversarial", "trades", "sam", "awp", "ibp", "hinge"):
        assert getattr(training, name) is getattr(objectives, name)
    assert repr(trades(LINF, 6.0)).startswith("trades(threat=Threat(norm='linf', eps=0.1")
