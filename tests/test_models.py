"""The networks: what their docstrings say of them, and the same seed is the same network."""

import re

import pytest
import torch
from helpers import rng, untouched
from torch import nn

from robcourse import models
from robcourse.models import Normalize, Residual, mlp, small_conv, small_resnet

SHAPES = [(1, 8, 8), (1, 28, 28), (3, 32, 32), (2, 7, 13), (1, 1, 1)]
BUILDERS = {
    "mlp": lambda shape, **o: mlp(shape[0] * shape[1] * shape[2], 5, **o),
    "small_conv": lambda shape, **o: small_conv(shape, 5, width=4, **o),
    "small_resnet": lambda shape, **o: small_resnet(shape, 5, width=4, **o),
}


def count(model):
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", BUILDERS)
def test_a_network_is_in_evaluation_mode_float32_and_starts_with_normalize(name, shape):
    with untouched():
        model = BUILDERS[name](shape)
    assert isinstance(model, nn.Sequential)
    assert isinstance(model[0], Normalize)
    assert not any(m.training for m in model.modules())
    assert {p.dtype for p in model.state_dict().values()} <= {torch.float32, torch.int64}
    x = torch.rand(3, *shape, generator=rng(0))
    with untouched(model, x), torch.no_grad():
        logits = model(x)
    assert logits.shape == (3, 5)
    assert logits.isfinite().all()
    # Each example is answered alone: batch norm uses what it has stored.
    torch.testing.assert_close(model(x[:1]), logits[:1])
    assert model.double()(x.double()).dtype == torch.float64


@pytest.mark.parametrize("name", BUILDERS)
def test_the_same_seed_is_the_same_network_whatever_the_defaults(name):
    def weights(seed):
        model = BUILDERS[name]((1, 8, 8), seed=seed)
        return torch.cat([p.detach().flatten() for p in model.parameters()])

    first = weights(3)
    assert torch.equal(first, weights(3))
    assert not torch.equal(first, weights(4))
    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")  # stands for a GPU: tensors without a device would go there
    try:
        with untouched():
            again = weights(3)
        assert torch.get_default_dtype() == torch.float64
        assert torch.get_default_device() == torch.device("meta")
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)
    assert again.dtype == torch.float32
    assert again.device.type == "cpu"
    assert torch.equal(first, again)


def test_the_global_state_comes_back_also_when_building_fails():
    with untouched(), pytest.raises(TypeError):
        mlp("64", 10)
    assert torch.get_default_dtype() == torch.float32


def test_small_conv_is_what_its_docstring_says():
    model = small_conv()
    convs = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    assert len(convs) == sum(isinstance(m, nn.BatchNorm2d) for m in model.modules()) == 6
    assert {c.kernel_size for c in convs} == {(3, 3)}
    assert sum(c.stride == (2, 2) for c in convs) == 3
    assert sum(isinstance(m, nn.Linear) for m in model.modules()) == 1
    millions = float(re.search(r"([\d.]+) million", small_conv.__doc__).group(1))
    assert count(model) / 1e6 == pytest.approx(millions, abs=0.005)


@pytest.mark.parametrize("blocks", [(1, 1, 1), (2, 2, 2), (1,), (2, 1)])
def test_small_resnet_is_what_its_docstring_says(blocks):
    model = small_resnet(blocks=blocks)
    main = [
        m
        for name, m in model.named_modules()
        if isinstance(m, nn.Conv2d | nn.Linear) and "shortcut" not in name
    ]
    assert len(main) == 2 * sum(blocks) + 2  # layers deep
    assert sum(isinstance(m, Residual) for m in model) == sum(blocks)
    shortcuts = [c for m in model if isinstance(m, Residual) for c in m.shortcut]
    kernels = [c.kernel_size for c in shortcuts if isinstance(c, nn.Conv2d)]
    assert kernels == [(1, 1)] * (len(blocks) - 1)
    image = torch.zeros(1, 3, 32, 32)
    body = nn.Sequential(*list(model)[:-3])(image)  # all but pooling, flattening and the last layer
    halved = 32 // 2 ** (len(blocks) - 1)
    assert body.shape == (1, 16 * 2 ** (len(blocks) - 1), halved, halved)


def test_mlp_has_the_layers_it_is_asked_for():
    assert count(mlp(64, 10)) == 64 * 16 + 16 + 16 * 16 + 16 + 16 * 10 + 10
    assert count(mlp(64, 2, hidden=())) == 64 * 2 + 2
    layers = [m for m in mlp(6, 3, hidden=(5, 4)) if isinstance(m, nn.Linear)]
    assert [m.out_features for m in layers] == [5, 4, 3]


def test_normalize_is_the_formula_and_no_parameter():
    x = torch.rand(2, 3, 4, 4, generator=rng(0))
    mean, std = [0.1, 0.2, 0.3], [0.5, 0.25, 2.0]
    layer = Normalize(mean, std)
    for c in range(3):
        torch.testing.assert_close(layer(x)[:, c], (x[:, c] - mean[c]) / std[c])
    torch.testing.assert_close(Normalize(1.0, 2.0)(x), (x - 1) / 2)
    assert list(layer.parameters()) == []
    assert set(layer.state_dict()) == {"mean", "std"}


def test_residual_adds_its_shortcut():
    x = torch.randn(2, 3, generator=rng(1))
    torch.testing.assert_close(Residual(nn.Identity(), nn.Identity())(x), (2 * x).relu())


@pytest.mark.gpu
def test_on_a_gpu_the_networks_answer_as_on_the_cpu():
    x = torch.rand(3, 1, 8, 8, generator=rng(0))
    for build in BUILDERS.values():
        model = build((1, 8, 8))
        here = model(x)
        torch.testing.assert_close(model.cuda()(x.cuda()).cpu(), here, rtol=1e-3, atol=1e-4)
    assert models.mlp(4, 2)[2].weight.device.type == "cpu"


@pytest.mark.parametrize("name", BUILDERS)
def test_in_bfloat16_it_is_nearly_the_same_network_with_logits_in_float32(name):
    net, x = BUILDERS[name]((3, 16, 16)), torch.rand(8, 3, 16, 16, generator=rng(2))
    plain = net(x).detach()
    fast = models.Bfloat16(net)
    assert not fast.training
    assert models.Bfloat16(net.train()).training
    with untouched(fast.eval(), x):
        logits = fast(x)
    assert logits.dtype == torch.float32
    assert torch.allclose(logits, plain, atol=0.02 * plain.abs().max().item())
    assert not torch.equal(logits, plain)  # the arithmetic is another one
    assert torch.allclose(net.eval()(x), plain, atol=1e-5)  # the network itself is as it was
