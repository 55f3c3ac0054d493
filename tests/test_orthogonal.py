"""The constrained layers, against explicit matrices and NumPy."""

import copy

import numpy as np
import pytest
import torch
from helpers import rng, unchecked, untouched
from hypothesis import given
from hypothesis import strategies as st
from scipy.linalg import polar
from torch import nn

from robcourse import models, orthogonal
from robcourse.orthogonal import (
    AOLConv,
    AOLLinear,
    BjorckLinear,
    CayleyConv,
    CayleyLinear,
    GroupSort,
    SpectralLinear,
)

SIZES = [(6, 6), (4, 7), (7, 4), (1, 5), (5, 1)]  # inputs, outputs


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=rng(seed), dtype=torch.float64)


def filled(layer: nn.Module, seed: int = 0, scale: float = 1.0) -> nn.Module:
    """With random free weights: the global generator belongs to nobody here."""
    for i, p in enumerate(layer.parameters()):
        p.data = scale * torch.randn(p.shape, generator=rng(100 * seed + i))
    return layer.eval()


def made(kind, *args, seed: int = 0, scale: float = 1.0, **kwargs) -> nn.Module:
    with torch.random.fork_rng():
        return filled(kind(*args, **kwargs), seed, scale)


def matrix(layer: nn.Module, *shape: int) -> np.ndarray:
    """[outputs, inputs]: what the layer does to each unit vector, its bias taken off."""
    exact = copy.deepcopy(layer).double()
    units = torch.eye(int(np.prod(shape)), dtype=torch.float64).view(-1, *shape)
    with torch.no_grad():
        return (exact(units) - exact(torch.zeros_like(units[:1]))).flatten(1).T.numpy()


def singular(layer: nn.Module, *shape: int) -> np.ndarray:
    return np.linalg.svd(matrix(layer, *shape), compute_uv=False)


# Dense


@pytest.mark.parametrize(("inputs", "outputs"), SIZES)
def test_the_cayley_transform_has_orthonormal_rows_or_columns(inputs, outputs):
    w = orthogonal.cayley(3 * normal(outputs, inputs)).numpy()
    gram = w.T @ w if inputs <= outputs else w @ w.T
    np.testing.assert_allclose(gram, np.eye(min(inputs, outputs)), atol=1e-13)


def test_the_square_cayley_transform_is_the_formula_and_a_rotation():
    w = normal(5, 5).numpy()
    a, eye = w - w.T, np.eye(5)
    found = orthogonal.cayley(torch.from_numpy(w)).numpy()
    np.testing.assert_allclose(found, (eye - a) @ np.linalg.inv(eye + a), atol=1e-13)
    assert np.linalg.det(found) == pytest.approx(1.0)
    plane = orthogonal.cayley(torch.tensor([[0.0, 1.0], [0.0, 0.0]])).numpy()
    np.testing.assert_allclose(plane, [[0, -1], [1, 0]], atol=1e-6)


def test_the_cayley_transform_of_complex_batches_is_unitary():
    w = torch.complex(normal(3, 2, 7, 4), normal(3, 2, 7, 4, seed=1))
    q = orthogonal.cayley(w)
    eye = torch.eye(4, dtype=q.dtype).expand(3, 2, 4, 4)
    torch.testing.assert_close(q.mH @ q, eye, atol=1e-13, rtol=0)
    torch.testing.assert_close(orthogonal.cayley(w.mH), q.mH)


@pytest.mark.parametrize("steps", [0, 1, 5, 60])
@pytest.mark.parametrize(("inputs", "outputs"), SIZES)
def test_bjorck_never_stretches_and_ends_at_the_polar_factor(inputs, outputs, steps):
    w = normal(outputs, inputs, seed=3)
    found = orthogonal.bjorck(w, steps=steps).numpy()
    assert np.linalg.norm(found, 2) <= 1 + 1e-12
    if steps == 60:
        np.testing.assert_allclose(found, polar(w.numpy())[0], atol=1e-9)


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 10**6), st.integers(0, 10))
def test_gram_iteration_is_above_and_close(outputs, inputs, seed, steps):
    w = normal(2, outputs, inputs, seed=seed)
    found = orthogonal.norm_above(w, steps=steps).numpy()
    true = np.linalg.norm(w.numpy(), 2, axis=(1, 2))
    rank = min(outputs, inputs)
    assert (found >= true * (1 - 1e-12)).all()
    assert (found <= true * rank ** (1 / 2 ** (steps + 2)) * (1 + 1e-12)).all()


def test_gram_iteration_has_a_gradient_and_knows_zero_and_large_numbers():
    w = normal(4, 3).requires_grad_()
    (slope,) = torch.autograd.grad(orthogonal.norm_above(w, steps=12), w)
    u, _, v = np.linalg.svd(w.detach().numpy())
    np.testing.assert_allclose(slope.numpy(), np.outer(u[:, 0], v[0]), atol=1e-2)
    assert 0 < orthogonal.norm_above(torch.zeros(3, 3)).item() < 1e-15
    for size in (1e-6, 1e6):
        assert orthogonal.norm_above(size * torch.eye(3)).item() == pytest.approx(size, rel=1e-2)


@pytest.mark.parametrize("kind", [CayleyLinear, BjorckLinear, SpectralLinear, AOLLinear])
@pytest.mark.parametrize(("inputs", "outputs"), SIZES)
@pytest.mark.parametrize("scale", [1e-3, 1.0, 30.0])
def test_no_dense_layer_stretches_and_cayley_keeps_every_length_that_it_can(
    kind, inputs, outputs, scale
):
    found = singular(made(kind, inputs, outputs, scale=scale), inputs)
    assert found.max() <= 1 + 1e-12
    if kind is CayleyLinear:
        assert found.min() >= 1 - 1e-12
    if kind is SpectralLinear:
        assert found.max() >= 0.99


def test_miyatos_spectral_normalisation_may_stretch():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        usual = nn.utils.parametrizations.spectral_norm(nn.Linear(64, 64), n_power_iterations=1)
        found = np.linalg.norm(usual.eval().weight.detach().numpy(), 2)
    assert found > 1.02


def test_wide_keeps_gradients_and_tall_keeps_lengths():
    tall, wide = made(CayleyLinear, 1, 2).double(), made(CayleyLinear, 2, 1).double()
    x = normal(1, 1)
    assert (tall(x) - tall.bias).norm().item() == pytest.approx(x.norm().item())
    lost = torch.tensor([-1.0, 1.0], dtype=x.dtype) * tall.weight[:, 0].flip(0)
    assert (tall.weight.T @ lost).abs().max() < 1e-12  # a gradient of length 1 that dies
    assert (wide.weight.T @ torch.ones(1).double()).norm().item() == pytest.approx(1.0)


# Convolutions


@pytest.mark.parametrize(("inputs", "outputs"), [(3, 3), (2, 5), (5, 2)])
@pytest.mark.parametrize(("height", "width"), [(4, 4), (5, 5), (3, 6)])
@pytest.mark.parametrize("kernel", [1, 2, 3])
def test_every_singular_value_of_a_cayley_convolution_is_one(
    inputs, outputs, height, width, kernel
):
    layer = made(CayleyConv, inputs, outputs, kernel)
    found = singular(layer, inputs, height, width)
    np.testing.assert_allclose(found, 1.0, atol=1e-6)


def test_a_cayley_convolution_is_one_and_starts_near_its_kernel():
    layer, x = made(CayleyConv, 2, 3, 3).double(), normal(2, 2, 6, 5)
    moved = x.roll((2, 1), (2, 3))
    torch.testing.assert_close(layer(moved), layer(x).roll((2, 1), (2, 3)))
    near = made(CayleyConv, 2, 2, 3, scale=1e-3).double()
    near.bias = None
    # To first order (I − A)(I + A)⁻¹ is I − 2A, A the kernel minus its adjoint, both centred.
    k = near.free.detach()
    skew = k.flip(2, 3) - k.transpose(0, 1)
    padded = nn.functional.pad(x, (1, 1, 1, 1), "circular")
    linear = x - 2 * nn.functional.conv2d(padded, skew)
    torch.testing.assert_close(near(x), linear, atol=1e-3, rtol=0)
    assert (linear - x).abs().max() > 5e-3, "the first order is seen"


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize(("inputs", "outputs", "kernel"), [(2, 3, 3), (3, 2, 2), (1, 4, 5)])
@pytest.mark.parametrize("mode", ["zeros", "circular"])
def test_an_aol_convolution_never_stretches(stride, inputs, outputs, kernel, mode):
    layer = made(AOLConv, inputs, outputs, kernel, stride=stride, scale=5.0)
    if mode == "circular":  # as many outputs as inputs: a longer border would repeat some
        layer.padding = (0, 0)
        layer = nn.Sequential(nn.CircularPad2d((0, kernel - 1, 0, kernel - 1)), layer)
    assert singular(layer, inputs, 6, 7).max() <= 1 + 1e-12


def test_aol_is_its_formula_leaves_orthogonal_weights_and_silent_inputs():
    w = normal(4, 3).numpy()
    d = np.abs(w.T @ w).sum(1) ** -0.5
    np.testing.assert_allclose(orthogonal.aol(torch.from_numpy(w)).numpy(), w * d)
    q = orthogonal.cayley(normal(5, 3))
    torch.testing.assert_close(orthogonal.aol(q), q)
    q[:, 1] = 0
    assert orthogonal.aol(q).isfinite().all()
    assert (orthogonal.aol(q)[:, 1] == 0).all()
    kernel = normal(4, 3, 1, 1)
    torch.testing.assert_close(orthogonal.aol(kernel)[..., 0, 0], orthogonal.aol(kernel[..., 0, 0]))


def test_aol_layers_start_orthogonal():
    with torch.random.fork_rng():
        conv, dense = AOLConv(4, 8, 3), AOLLinear(5, 9)
    np.testing.assert_allclose(singular(conv, 4, 5, 6), 1.0, atol=1e-6)
    np.testing.assert_allclose(singular(dense, 5), 1.0, atol=1e-6)


# GroupSort


@pytest.mark.parametrize("size", [1, 2, 3, 6])
def test_group_sort_sorts_each_group_and_keeps_every_gradients_length(size):
    x = normal(3, 6, 2).requires_grad_()
    y = GroupSort(size)(x)
    wanted = x.detach().numpy().reshape(3, 6 // size, size, 2)
    np.testing.assert_array_equal(y.detach().numpy(), np.sort(wanted, 2).reshape(3, 6, 2))
    g = normal(3, 6, 2, seed=1)
    (back,) = torch.autograd.grad(y, x, g)
    assert back.norm().item() == pytest.approx(g.norm().item(), rel=1e-12)


def test_group_sort_needs_whole_groups():
    with pytest.raises(ValueError, match="x has 5 channels; size is 2"):
        GroupSort()(torch.zeros(1, 5))


# Export


def network(*, seed: int = 0) -> nn.Sequential:
    """One of each."""
    with torch.random.fork_rng():
        model = nn.Sequential(
            models.Normalize(0.4, 1.0),
            CayleyConv(2, 4, 3),
            GroupSort(),
            nn.Sequential(nn.PixelUnshuffle(2), AOLConv(16, 6, 3, stride=2), GroupSort(3)),
            nn.Flatten(),
            CayleyLinear(6 * 2 * 1, 8),
            nn.ReLU(),
            BjorckLinear(8, 7),
            SpectralLinear(7, 6, bias=False),
            AOLLinear(6, 3),
        )
    return filled(model, seed)


def test_export_is_the_same_function_in_plain_layers():
    model, x = network(), torch.rand(4, 2, 8, 4, generator=rng(0))
    with untouched(model, x):
        plain = orthogonal.export(model, (2, 8, 4))
    torch.testing.assert_close(plain(x), model(x), atol=1e-6, rtol=0)
    kinds = {type(m) for m in plain if any(True for _ in m.parameters())}
    assert kinds == {nn.Linear, nn.Conv2d}
    assert not any(isinstance(m, nn.Sequential) for m in plain)
    assert plain[1].kernel_size == (8, 4)
    assert plain[1].padding_mode == "circular"
    assert not plain.training
    plain(x).sum().backward()  # what was exported can be trained on, apart from the model
    assert all(p.grad is None for p in model.parameters())


def test_export_keeps_dtype_and_mode_and_bias():
    plain = orthogonal.export(network().double().train(), (2, 8, 4))
    assert plain.training
    assert all(p.dtype == torch.float64 for p in plain.parameters())
    assert [m.bias is None for m in plain if isinstance(m, nn.Linear)] == [False] * 2 + [
        True,
        False,
    ]
    exact, x = network().double(), torch.rand(2, 2, 8, 4, generator=rng(1)).double()
    torch.testing.assert_close(plain.eval()(x), exact(x), atol=1e-13, rtol=0)


def test_what_cannot_be_exported_is_named():
    branch = models.Residual(made(CayleyConv, 2, 2), nn.Sequential())
    with pytest.raises(ValueError, match="Residual has constrained layers inside"):
        orthogonal.export(nn.Sequential(branch), (2, 4, 4))
    with pytest.raises(ValueError, match="kernel is 3; the image has 2×4"):
        orthogonal.export(nn.Sequential(made(CayleyConv, 2, 2)), (2, 2, 4))


def test_rounded_parameters_make_another_orthogonal_layer():
    layer = made(CayleyLinear, 6, 6)
    state = {k: v.half().float() for k, v in layer.state_dict().items()}
    layer.load_state_dict(state)
    np.testing.assert_allclose(singular(layer, 6), 1.0, atol=1e-12)


@pytest.mark.parametrize("build", [
    lambda seed: models.lipschitz_mlp(64, 3, hidden=(8, 6), seed=seed),
    lambda seed: models.lipschitz_conv((1, 8, 8), 3, width=4, hidden=8, seed=seed),
])  # fmt: skip
def test_the_builders_make_the_same_network_of_the_same_seed(build):
    x = torch.rand(2, 1, 8, 8, generator=rng(0))
    with untouched():
        one, same, other = build(1), build(1), build(2)
    assert torch.equal(one(x), same(x))
    assert not torch.equal(one(x), other(x))
    assert one(x).shape == (2, 3)
    assert not one.training


def test_shapes_are_checked():
    from jaxtyping import TypeCheckError

    with pytest.raises(TypeCheckError):
        orthogonal.bjorck(torch.zeros(2, 3, 4))
    with unchecked(), pytest.raises(RuntimeError):
        orthogonal.cayley(torch.zeros(3, 3, dtype=torch.int64))
