"""Norms and certificates, against explicit matrices, closed forms and attacks."""

import copy
import itertools
import math

import numpy as np
import pytest
import torch
from helpers import rng, unchecked, untouched
from torch import nn

from robcourse import attacks, data, lipschitz, models, objectives, orthogonal, training
from robcourse.threat import Threat, margin


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=rng(seed), dtype=torch.float64)


def made(kind, *args, seed: int = 0, scale: float = 1.0, **kwargs) -> nn.Module:
    """A layer or a network with random weights, without the global generator."""
    with torch.random.fork_rng():
        module = kind(*args, **kwargs)
    for i, p in enumerate(module.parameters()):
        p.data = scale * torch.randn(p.shape, generator=rng(100 * seed + i))
    return module.eval()


def matrix(layer: nn.Module, shape: tuple[int, ...]) -> np.ndarray:
    """[outputs, inputs]: what the layer does to each unit vector, its bias taken off."""
    exact = copy.deepcopy(layer).double()
    units = torch.eye(math.prod(shape), dtype=torch.float64).view(-1, *shape)
    with torch.no_grad():
        return (exact(units) - exact(torch.zeros_like(units[:1]))).flatten(1).T.numpy()


def truth(layer: nn.Module, shape: tuple[int, ...]) -> float:
    return np.linalg.norm(matrix(layer, shape), 2)


# Norms of layers

CONVOLUTIONS = list(itertools.product(
    ("zeros", "circular", "reflect", "replicate"),
    (0, 1, 2, "same"),
    ((3, 3), (2, 3), (5, 1)),
    (1, 2, (1, 3)),
    (1, 2),
    (1, 2),
))  # fmt: skip


@pytest.mark.parametrize("way", ["values", "factor"])
@pytest.mark.parametrize("mode", ["zeros", "circular", "reflect", "replicate"])
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
def test_a_convolutions_norm_is_never_below_and_at_most_two_percent_above(mode, way, monkeypatch):
    """All padding modes, amounts, strides, dilations, groups; images that strides do not divide."""
    if way == "factor":
        monkeypatch.setattr(lipschitz, "SMALL", 0)
    seen = 0
    for number, (_, padding, kernel, stride, dilation, groups) in enumerate(
        case for case in CONVOLUTIONS if case[0] == mode
    ):
        if padding == "same" and stride != 1:
            continue
        shape = (2, *((6, 7), (9, 8), (8, 9))[number % 3])
        layer = made(
            nn.Conv2d, 2, 4, kernel, stride, padding, dilation, groups,
            padding_mode=mode, seed=number,
        )  # fmt: skip
        try:
            true = truth(layer, shape)
        except RuntimeError:  # the kernel is larger than the image
            with pytest.raises((RuntimeError, ValueError)):
                lipschitz.spectral_norm(layer, shape)
            continue
        found = lipschitz.spectral_norm(layer, shape)
        assert true <= found <= 1.02 * true, (layer, shape)
        seen += 1
    assert seen > 60


@pytest.mark.parametrize(("shape", "outputs", "kernel", "stride"), [
    ((8, 12, 12), 8, 3, 1), ((16, 9, 9), 16, 3, 1), ((20, 8, 8), 20, 5, 1), ((6, 15, 14), 24, 3, 2),
])  # fmt: skip
def test_a_norm_too_large_for_all_singular_values(shape, outputs, kernel, stride):
    layer = made(nn.Conv2d, shape[0], outputs, kernel, stride, kernel // 2)
    assert min(matrix(layer, shape).shape) > lipschitz.SMALL
    true = truth(layer, shape)
    assert true <= lipschitz.spectral_norm(layer, shape) <= 1.02 * true


def test_a_positive_kernel_on_a_small_image_is_what_the_torus_overestimates():
    """There the factorisation must step in: the circular norm is that of an image without rim."""
    layer = made(nn.Conv2d, 32, 32, 3, padding=1)
    layer.weight.data.fill_(1.0)
    shape = (32, 6, 6)
    torus, same = lipschitz._torus(layer, shape)
    assert (torus, same) == ([7, 7], False)
    circular = lipschitz._circular(lipschitz._linear(layer, shape), torus)
    true = 32 * (1 + 2 * math.cos(math.pi / 7)) ** 2
    assert circular == pytest.approx(32 * 9)
    assert circular > 1.1 * true
    assert true <= lipschitz.spectral_norm(layer, shape) <= 1.02 * true


def test_the_factorisation_fails_below_the_norm_and_succeeds_above(monkeypatch):
    monkeypatch.setattr(lipschitz, "SMALL", 0)
    for layer in (
        made(nn.Conv2d, 3, 4, 3, padding=1),
        made(nn.Conv2d, 4, 6, 3, padding=1, groups=2),
        made(nn.Conv2d, 4, 2, 3, padding=1, padding_mode="reflect", stride=(1, 2)),
    ):
        shape = (layer.in_channels, 12, 9)
        exact, true = lipschitz._linear(layer, shape), truth(layer, shape)
        taps = lipschitz._taps(exact, shape)
        assert lipschitz._reach(taps) < taps.shape[1] / 3, "several blocks"
        assert lipschitz._definite(exact, taps, (true * (1 + 1e-9)) ** 2)
        assert not lipschitz._definite(exact, taps, (true * (1 - 1e-9)) ** 2)


def test_a_bad_estimate_from_below_costs_time_and_not_soundness(monkeypatch):
    layer, shape = made(nn.Conv2d, 3, 4, 3, padding=1, padding_mode="reflect"), (3, 8, 9)
    monkeypatch.setattr(lipschitz, "SMALL", 0)
    true = truth(layer, shape)
    monkeypatch.setattr(lipschitz, "_from_below", lambda *_: 0.5 * true)
    assert true <= lipschitz.spectral_norm(layer, shape) <= 1.01 * true


def test_the_estimate_is_from_below_even_when_its_span_is_complete():
    for rank in (1, 3, 8):
        layer = made(nn.Conv2d, 12, 11, 1, bias=False).double()
        layer.weight.data = (normal(11, rank) @ normal(rank, 12, seed=1))[..., None, None]
        found = lipschitz._from_below(layer, (12, 1, 1))
        true = truth(layer, (12, 1, 1))
        assert true * (1 - 1e-9) <= found <= true * (1 + 1e-9)


def test_what_is_too_large_is_bounded_by_the_torus_or_refused(monkeypatch):
    monkeypatch.setattr(lipschitz, "SMALL", 0)
    monkeypatch.setattr(lipschitz, "WORK", 0)
    shape = (3, 5, 5)
    zeros = made(nn.Conv2d, 3, 3, 3, padding=1)
    assert lipschitz.spectral_norm(zeros, shape) >= truth(zeros, shape)
    circular = made(nn.Conv2d, 3, 3, 3, padding=1, padding_mode="circular")
    assert lipschitz.spectral_norm(circular, shape) == pytest.approx(truth(circular, shape), 1e-5)
    reflect = made(nn.Conv2d, 3, 3, 3, padding=1, padding_mode="reflect")
    with pytest.raises(ValueError, match=r"padding_mode 'reflect' on \(3, 5, 5\) is too large"):
        lipschitz.spectral_norm(reflect, shape)


@pytest.mark.parametrize("seed", range(5))
def test_a_matrix_and_the_constrained_layers(seed):
    dense = made(nn.Linear, 7, 5, seed=seed)
    true = np.linalg.norm(dense.weight.detach().double().numpy(), 2)
    assert true <= lipschitz.spectral_norm(dense, (7,)) <= true * 1.00001
    for layer, shape in (
        (made(orthogonal.CayleyConv, 3, 5, seed=seed), (3, 6, 5)),
        (made(orthogonal.CayleyLinear, 5, 7, seed=seed), (5,)),
        (made(orthogonal.AOLConv, 3, 4, seed=seed), (3, 6, 6)),
        (made(orthogonal.BjorckLinear, 6, 6, seed=seed), (6,)),
        (made(orthogonal.SpectralLinear, 6, 6, seed=seed), (6,)),
    ):
        with untouched(layer):
            found = lipschitz.spectral_norm(layer, shape)
        assert truth(layer, shape) <= found <= 1.02 * truth(layer, shape)
        assert found <= 1 + 2e-6


def test_zero_weights_have_norm_zero(monkeypatch):
    for mode in ("zeros", "circular", "reflect"):
        layer = made(nn.Conv2d, 2, 2, 3, padding=1, padding_mode=mode, scale=0.0)
        assert lipschitz.spectral_norm(layer, (2, 4, 4)) == 0
    monkeypatch.setattr(lipschitz, "SMALL", 0)
    assert lipschitz.spectral_norm(layer, (2, 4, 4)) == 0


def test_power_iteration_is_from_below_and_gets_there():
    layer, shape = made(nn.Conv2d, 3, 4, 3, 2, 1), (3, 9, 8)
    true = truth(layer, shape)
    with untouched(layer):
        found = [lipschitz.power_iteration(layer, shape, steps=k) for k in (0, 1, 3, 10, 300)]
    assert found == sorted(found)
    assert all(value <= true * (1 + 1e-12) for value in found)
    assert found[1] < 0.95 * true, "one step says little"
    assert found[-1] == pytest.approx(true, rel=1e-6)
    assert lipschitz.power_iteration(layer, shape, steps=1, seed=1) != found[1]


def test_the_reshaped_kernels_norm_is_not_the_operators():
    layer, shape = made(nn.Conv2d, 4, 4, 3, padding=1), (4, 8, 8)
    reshaped = np.linalg.norm(layer.weight.detach().flatten(1).numpy(), 2)
    assert reshaped < 0.8 * lipschitz.power_iteration(layer, shape, steps=100)


@pytest.mark.parametrize(("layer", "shape", "message"), [
    (nn.ReLU(), (3,), "layer is ReLU; expected Linear, Conv2d or CayleyConv"),
    (nn.Linear, (4,), r"shape is \(4,\); this layer takes \(3,\), without the batch"),
    (nn.Linear, (1, 3), r"shape is \(1, 3\)"),
    (nn.Conv2d, (4, 5, 5), r"takes \(3, 'height', 'width'\)"),
    (nn.Conv2d, (1, 3, 5, 5), "without the batch"),
    (nn.Conv2d, (3, 1, 5), "the kernel is larger"),
])  # fmt: skip
def test_what_has_no_norm_is_named(layer, shape, message):
    if layer in (nn.Linear, nn.Conv2d):
        layer = made(layer, 3, 2, *([2] if layer is nn.Conv2d else []))
    with pytest.raises((TypeError, ValueError), match=message):
        lipschitz.spectral_norm(layer, shape)


def test_a_layer_with_a_forward_of_its_own_is_refused():
    class Twice(nn.Linear):
        def forward(self, x):
            return 2 * super().forward(x)

    with pytest.raises(TypeError, match="Twice with a forward of its own"):
        lipschitz.spectral_norm(made(Twice, 3, 2), (3,))
    with pytest.raises(ValueError, match="Twice has a forward of its own"):
        lipschitz.product_bound(nn.Sequential(made(Twice, 3, 2)), (3,))


class Loud(nn.ReLU):
    """It says ReLU."""

    def forward(self, x):
        return 100 * super().forward(x)


class Minus(nn.Sequential):
    """It says chain."""

    def forward(self, x):
        return -super().forward(x)


def hooked(layer: nn.Module) -> nn.Module:
    layer.register_forward_hook(lambda module, args, out: 50 * out)
    return layer


def patched(layer: nn.Module) -> nn.Module:
    layer.forward = lambda x: 50 * nn.functional.linear(x, layer.weight, layer.bias)
    return layer


@pytest.mark.parametrize("change", [
    lambda m: nn.Sequential(m[0], Loud(), m[2]),
    lambda m: nn.Sequential(Minus(*m)),
    lambda m: Minus(*m),
    lambda m: hooked(m),
    lambda m: nn.Sequential(m[0], nn.ReLU(), hooked(m[2])),  # the last one, too
    lambda m: nn.Sequential(nn.Sequential(m[0], hooked(nn.BatchNorm1d(4))), m[2]).eval(),
    lambda m: nn.Sequential(hooked(made(orthogonal.CayleyLinear, 3, 4)), m[2]),
    lambda m: nn.Sequential(m[0], patched(made(nn.Linear, 4, 2))),
    lambda m: nn.Sequential(m[0], nn.GELU(), m[2]),
])  # fmt: skip
def test_what_computes_something_else_than_it_says_is_refused(change):
    """Else the bound would be one of another network."""
    model = change(nn.Sequential(made(nn.Linear, 3, 4), nn.ReLU(), made(nn.Linear, 4, 2))).eval()
    x = torch.zeros(1, 3)
    for call in (
        lambda: lipschitz.product_bound(model, (3,)),
        lambda: lipschitz.certify(model, x),
        lambda: lipschitz.certify(model, x, pairwise=False),
    ):
        with pytest.raises(
            ValueError, match=r"has hooks|forward of its own|constant here for GELU"
        ):
            call()


@pytest.mark.parametrize("settings", [
    {"padding": 1, "padding_mode": "circular"}, {"padding": 1, "groups": 3}, {"dilation": 2},
    {"padding": 1, "stride": 2}, {"padding": "same", "padding_mode": "reflect"},
], ids=str)  # fmt: skip
def test_torchs_own_parametrization_keeps_the_layers_settings(settings):
    with torch.random.fork_rng():
        conv = made(nn.Conv2d, 3, 3, 3, **settings)
        conv = nn.utils.parametrizations.spectral_norm(conv).eval()
    shape, x = (3, 6, 6), torch.rand(2, 3, 6, 6, generator=rng(0))
    plain = orthogonal.export(nn.Sequential(conv), shape)
    torch.testing.assert_close(plain(x), conv(x), atol=1e-5, rtol=1e-5)
    true = np.linalg.norm(matrix(plain[0].double(), shape), 2)
    assert true * (1 - 1e-6) <= lipschitz.spectral_norm(conv, shape) <= 1.021 * true


def test_what_is_constrained_and_no_layer_of_ours_is_named():
    with torch.random.fork_rng():
        layer = nn.utils.parametrizations.spectral_norm(nn.ConvTranspose2d(2, 2, 3))
    with pytest.raises(ValueError, match="expected a Linear or a Conv2d"):
        orthogonal.export(nn.Sequential(layer), (2, 5, 5))


@pytest.mark.parametrize("scale", [1e-320, 1e-160, 1.0, 1e160, 1e300])
@pytest.mark.parametrize("kind", [nn.Linear, nn.Conv2d])
def test_tiny_and_huge_weights(kind, scale):
    layer = made(kind, 3, 2, *([3] if kind is nn.Conv2d else [])).double()
    shape = (3, 5, 5) if kind is nn.Conv2d else (3,)
    usual = lipschitz.spectral_norm(layer, shape)
    with torch.no_grad():
        layer.weight.mul_(scale)
    found = lipschitz.spectral_norm(layer, shape)
    assert found == pytest.approx(usual * scale, rel=1e-3 if scale < 1e-300 else 1e-9)
    if scale > 1e-300:
        assert found >= usual * scale * (1 - 1e-12)


def test_a_pool_that_sums_has_no_constant():
    with pytest.raises(ValueError, match="AvgPool2d"):
        lipschitz.product_bound(nn.Sequential(nn.AvgPool2d(2, divisor_override=1)), (1, 4, 4))


def test_a_model_that_changes_its_input_does_not_change_ours():
    model = nn.Sequential(nn.ReLU(inplace=True), made(nn.Linear, 3, 2)).double().eval()
    x = torch.tensor([[-0.5, 0.25, 1.0]], dtype=torch.float64)
    kept = x.clone()
    lipschitz.certify(model, x)
    assert torch.equal(x, kept)


def test_broken_weights_are_refused():
    layer = made(nn.Linear, 3, 2)
    layer.weight.data[0, 0] = torch.nan
    with pytest.raises(ValueError, match="weights of Linear hold NaN"):
        lipschitz.spectral_norm(layer, (3,))


# Chains


def test_the_product_of_a_network_of_matrices():
    model = models.mlp(6, 3, hidden=(5, 4), mean=0.3, std=0.25, seed=1)
    norms = [np.linalg.norm(m.weight.detach().double().numpy(), 2)
             for m in model if isinstance(m, nn.Linear)]  # fmt: skip
    found = lipschitz.product_bound(model, (6,))
    assert found == pytest.approx(4 * math.prod(norms), rel=1e-5)
    assert found >= 4 * math.prod(norms)


def jacobian(model: nn.Module, x: torch.Tensor) -> float:
    """The largest local slope at these points."""
    slopes = torch.func.vmap(torch.func.jacrev(lambda z: model(z[None])[0]))(x)
    return torch.linalg.matrix_norm(slopes.flatten(2), 2).max().item()


CHAINS = {
    "batch norm": (models.small_conv((1, 8, 8), 3, width=2, seed=1), (1, 8, 8)),
    "biases": (models.small_conv((2, 6, 5), 3, width=2, batch_norm=False, seed=2), (2, 6, 5)),
    "residual": (models.small_resnet((1, 8, 8), 3, width=2, blocks=(1, 1), seed=3), (1, 8, 8)),
    "dense": (models.lipschitz_mlp(16, 3, hidden=(8, 8), seed=4), (1, 4, 4)),
    "conv": (models.lipschitz_conv((2, 8, 8), 3, width=4, hidden=8, seed=5), (2, 8, 8)),
    "mean": (nn.Sequential(nn.AvgPool2d(2), nn.Flatten(), nn.Tanh(), made(nn.Linear, 16, 3)),
             (1, 8, 8)),
    "largest": (nn.Sequential(nn.MaxPool2d((2, 1)), nn.Flatten(), made(nn.Linear, 32, 3),
                              made(nn.BatchNorm1d, 3)), (1, 8, 8)),
    "cayley": (nn.Sequential(made(orthogonal.CayleyConv, 1, 4), made(nn.BatchNorm2d, 4),
                             nn.Flatten()), (1, 5, 5)),
}  # fmt: skip


@pytest.mark.parametrize("name", CHAINS)
def test_no_local_slope_is_above_the_product(name):
    """With batch statistics that shrink and stretch, and weights of both signs."""
    model, shape = CHAINS[name]
    model = copy.deepcopy(model).double().eval()
    for i, m in enumerate(model.modules()):
        if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d):
            m.running_var.uniform_(0.2, 8, generator=rng(i))
            m.weight.data.uniform_(-2, 2, generator=rng(i))
    x = torch.rand(40, *shape, generator=rng(0), dtype=torch.float64)
    with untouched(model):
        bound = lipschitz.product_bound(model, shape)
    assert 0 < jacobian(model, x) <= bound
    if name == "cayley":  # one linear map: nothing is lost when batch norm is folded
        assert bound <= 1.02 * truth(model, shape)


def test_batch_norm_is_folded_behind_a_layer_and_counted_alone_elsewhere():
    norm = made(nn.BatchNorm2d, 2)
    norm.weight.data, norm.running_var = torch.tensor([0.1, -3.0]), torch.tensor([1.0, 4.0])
    conv = made(nn.Conv2d, 1, 2, 1)
    conv.weight.data = torch.tensor([5.0, 0.1]).view(2, 1, 1, 1)
    folded = lipschitz.product_bound(nn.Sequential(conv, norm), (1, 4, 4))
    assert folded == pytest.approx(math.hypot(5 * 0.1, 0.1 * 1.5), rel=1e-4)
    alone = lipschitz.product_bound(nn.Sequential(nn.ReLU(), norm), (2, 4, 4))
    assert alone == pytest.approx(1.5, rel=1e-4)


def test_both_branches_of_a_residual_count():
    body = made(nn.Conv2d, 1, 1, 1)
    body.weight.data.fill_(3.0)
    model = nn.Sequential(models.Residual(body, nn.Sequential()), nn.Flatten())
    assert lipschitz.product_bound(model, (1, 2, 2)) == pytest.approx(4.0, rel=1e-4)
    assert jacobian(model.double(), torch.ones(1, 1, 2, 2).double()) == pytest.approx(4.0)


@pytest.mark.parametrize(("layer", "message"), [
    (nn.Sigmoid(), "no Lipschitz constant here for Sigmoid"),
    (nn.AvgPool2d(3, stride=1), "for AvgPool2d"),
    (nn.AvgPool2d(3, ceil_mode=True), "for AvgPool2d"),
    (nn.MaxPool2d(3, stride=1), "for MaxPool2d"),
    (nn.AdaptiveAvgPool2d(2), "for AdaptiveAvgPool2d"),
    (nn.BatchNorm2d(1, track_running_stats=False), "BatchNorm2d keeps no statistics"),
])  # fmt: skip
def test_a_layer_without_a_constant_is_named(layer, message):
    with pytest.raises(ValueError, match=message):
        lipschitz.product_bound(nn.Sequential(nn.ReLU(), layer), (1, 8, 8))


def test_hooks_are_refused():
    model = nn.Sequential(made(nn.Linear, 3, 2))
    model[0].register_forward_hook(lambda module, args, out: 5 * out)
    with pytest.raises(ValueError, match="Linear has hooks"):
        lipschitz.product_bound(model, (3,))


# Certificates


def linear(w, b=None) -> nn.Sequential:
    """The network x -> w·x + b."""
    w = torch.as_tensor(w, dtype=torch.float64)
    layer = nn.utils.skip_init(nn.Linear, w.shape[1], w.shape[0], dtype=torch.float64)
    layer.weight.data = w
    layer.bias.data = torch.zeros(len(w)).double() if b is None else torch.as_tensor(b).double()
    return nn.Sequential(layer).eval()


def test_root_two_is_tight_and_gamma_over_two_l_is_not():
    x = torch.tensor([[3.0, 1.0]], dtype=torch.float64)
    for pairwise in (True, False):
        found = lipschitz.certify(linear(torch.eye(2)), x, pairwise=pairwise)
        assert found.radius.item() == pytest.approx(2 / math.sqrt(2), rel=1e-5)
        assert found.radius.item() < 2 / math.sqrt(2)
        assert (found.label.item(), found.norm, found.failure_prob) == (0, "l2", 0.0)
        assert not found.abstain.item()


@pytest.mark.parametrize("seed", range(5))
def test_of_a_linear_network_the_radius_is_the_distance_to_the_boundary(seed):
    w, b, x = normal(4, 6, seed=seed), normal(4, seed=seed + 50), normal(30, 6, seed=seed + 100)
    logits = (x @ w.T + b).numpy()
    label, distance = logits.argmax(1), np.empty(30)
    for i, y in enumerate(label):
        distance[i] = min(
            (logits[i, y] - logits[i, j]) / np.linalg.norm(w[y] - w[j]) for j in range(4) if j != y
        )
    found = lipschitz.certify(linear(w, b), x)
    assert found.label.tolist() == label.tolist()
    np.testing.assert_allclose(found.radius.numpy(), distance, rtol=1e-5)
    assert (found.radius.numpy() < distance).all()
    gap = np.sort(logits, 1)
    root_two = (gap[:, -1] - gap[:, -2]) / (math.sqrt(2) * np.linalg.norm(w, 2))
    usual = lipschitz.certify(linear(w, b), x, pairwise=False)
    np.testing.assert_allclose(usual.radius.numpy(), root_two, rtol=1e-5)
    assert (usual.radius.numpy() < root_two).all()
    assert (usual.radius <= found.radius).all()


@pytest.mark.parametrize("name", ["batch norm", "biases", "residual", "dense", "conv"])
def test_no_attack_gets_inside_a_radius(name):
    """Each example is attacked in its own ball, a little smaller than what was certified."""
    model, shape = CHAINS[name]
    x = torch.rand(6, *shape, generator=rng(1))
    with untouched(model, x):
        found = lipschitz.certify(model, x)
    assert not found.abstain.any()
    with torch.no_grad():
        assert torch.equal(found.label, model(x).argmax(1))
    for i in range(len(x)):
        threat = Threat("l2", 0.999 * found.radius[i].item())
        one, y = x[i : i + 1], found.label[i : i + 1]
        assert not attacks.pgd(model, one, y, threat, steps=30, loss="margin").success.any()


def test_a_scale_of_the_logits_changes_margins_and_no_radius():
    w, x = normal(3, 5), normal(10, 5, seed=1)
    for pairwise in (True, False):
        radii = [lipschitz.certify(linear(s * w), x, pairwise=pairwise).radius
                 for s in (0.01, 1.0, 100.0)]  # fmt: skip
        torch.testing.assert_close(radii[0], radii[1], rtol=1e-9, atol=0)
        torch.testing.assert_close(radii[2], radii[1], rtol=1e-9, atol=0)


def test_ties_and_nan_abstain_and_what_cannot_change_is_certified_everywhere():
    x = torch.tensor([[1.0, 1.0], [2.0, 1.0], [1.0, 1.0 + 1e-12]], dtype=torch.float64)
    found = lipschitz.certify(linear(torch.eye(2)), x)
    assert found.abstain.tolist() == [True, False, True]
    assert found.radius[[0, 2]].tolist() == [0, 0]
    assert not found.holds(found.label, 0.0)[[0, 2]].any()

    broken = linear(torch.eye(2), [math.inf, math.inf])
    broken[0].bias.data -= broken[0].bias.data  # inf − inf
    found = lipschitz.certify(broken, x)
    assert found.abstain.all()
    assert (found.radius == 0).all()

    constant = lipschitz.certify(linear([[1.0, 2.0], [1.0, 2.0]], [1.0, 0.0]), x)
    assert constant.radius.isinf().all()
    assert not constant.abstain.any()


def test_a_certificate_is_of_the_network_in_float64_and_batches_do_not_matter():
    model, _ = CHAINS["dense"]
    x = torch.rand(7, 1, 4, 4, generator=rng(2))
    found = lipschitz.certify(model, x)
    assert found.radius.dtype == torch.float64
    exact = lipschitz.certify(copy.deepcopy(model).double(), x.double(), batch=2)
    torch.testing.assert_close(found.radius, exact.radius, rtol=1e-12, atol=0)


def test_the_norms_are_of_the_weights_there_are_now():
    model, x = linear(torch.eye(2)), torch.tensor([[3.0, 1.0]]).double()
    before = lipschitz.certify(model, x, pairwise=False).radius
    model[0].weight.data = torch.tensor([[1.0, 0.0], [0.0, 8.0]]).double()
    after = lipschitz.certify(model, torch.tensor([[3.0, 1 / 8]]).double(), pairwise=False).radius
    torch.testing.assert_close(8 * after, before)


def test_what_cannot_be_certified_is_named():
    x = torch.zeros(2, 3)
    with pytest.raises(ValueError, match="training mode"):
        lipschitz.certify(nn.Sequential(made(nn.Linear, 3, 2)).train(), x)
    with pytest.raises(ValueError, match="for Softmax"):
        lipschitz.certify(nn.Sequential(made(nn.Linear, 3, 2), nn.Softmax(1)).eval(), x)
    with unchecked(), pytest.raises(TypeError, match=r"Linear; expected an nn\.Seq"):
        lipschitz.certify(made(nn.Linear, 3, 2), x)
    with pytest.raises(ValueError, match="divide by 255"):
        lipschitz.certify(CHAINS["dense"][0], torch.full((1, 1, 4, 4), 200.0))


# Training


def test_the_tempered_loss_is_its_formula_and_a_hinge_when_cold():
    model, y = linear(normal(3, 4)), torch.tensor([0, 2, 1, 1, 0])
    x = normal(5, 4, seed=1)
    z = (x @ model[0].weight.detach().T).numpy()
    for t, r in ((1.0, 0.0), (0.3, 0.5), (1e-4, 0.5)):
        shifted = z.copy()
        shifted[np.arange(5), y] -= math.sqrt(2) * r
        u = shifted / t
        peak = u.max(1)
        loss = peak + np.log(np.exp(u - peak[:, None]).sum(1)) - u[np.arange(5), y]
        found = objectives.tempered(t, r)(model, x, y).item()
        assert found == pytest.approx(t * loss.mean(), rel=1e-9)
    gaps = margin(torch.from_numpy(z), y).numpy()
    cold = np.maximum(0, math.sqrt(2) * 0.5 - gaps).mean()
    assert found == pytest.approx(cold, abs=1e-3)
    assert training.tempered is objectives.tempered


def test_a_network_built_to_be_measured_is_certified_close_to_what_attacks_leave():
    digits = data.load("digits").only(3, 8)
    model = models.lipschitz_mlp(64, 2)
    objective = training.tempered(0.1, 0.5)
    training.fit(model, digits.train_x, digits.train_y, objective, epochs=30, lr=1e-2, batch=64)
    x, y, radii = digits.test_x, digits.test_y, torch.tensor([0.25, 0.5])
    certified = lipschitz.certify(model, x).accuracy_at(y, radii)
    plain = orthogonal.export(model, x.shape[1:])
    left = [attacks.pgd(plain, x, y, Threat("l2", r), steps=20, loss="margin")
            .robust_accuracy_upper for r in radii.tolist()]  # fmt: skip
    assert certified[0] > 0.85
    assert certified[1] > 0.65
    assert all(low <= high <= low + 0.1 for low, high in zip(certified.tolist(), left, strict=True))
