"""Bounds: nothing leaves them, rounding included; auto_LiRPA gives the same; each part alone."""

import itertools
import json
from pathlib import Path

import pytest
import torch
from helpers import rng, unchecked, untouched
from reference import lirpa
from torch import nn

from robcourse import bounds, models
from robcourse.threat import Threat

LINF = Threat("linf", 0.1)
ANSWERS = json.loads((Path(__file__).parent / "reference" / "lirpa.json").read_text())["answers"]


@pytest.fixture
def toy():
    """A network in float64 whose ReLUs are open, examples and labels."""
    model = models.mlp(5, 3, hidden=(7, 6), seed=3).double().requires_grad_(False)
    x = torch.rand(4, 5, generator=rng(0), dtype=torch.float64)
    return model, x, torch.tensor([0, 1, 2, 0])


# Nothing leaves the bounds


def architecture(seed: int) -> tuple[nn.Sequential, torch.Tensor, Threat]:
    """A random network of what is supported, in float64, three inputs and a threat."""
    g = rng(seed)

    def pick(*choices):
        return choices[int(torch.randint(len(choices), (1,), generator=g))]

    def norm(channels):
        layer = nn.BatchNorm2d(channels)
        for t in (layer.weight.data, layer.bias.data, layer.running_mean):
            t.normal_(generator=g)
        layer.running_var.uniform_(0.1, 3, generator=g)
        return layer

    def conv(channels, out):
        kernel = pick(1, 2, 3)
        layer = nn.Conv2d(channels, out, kernel, pick(1, 2), pick(0, 1), 1, 1, bool(pick(0, 1)))
        return [layer, *([norm(out)] if pick(0, 1) else [])]

    with models._seeded(seed):
        kind, layers = pick("mlp", "conv", "resnet"), []
        if pick(0, 1):
            layers.append(models.Normalize(pick(0.5, [0.2, 0.7]) if kind != "mlp" else 0.5, 0.3))
        if kind == "mlp":
            sizes = [pick(2, 5), *(pick(3, 8) for _ in range(pick(0, 1, 3))), 3]
            shape = (sizes[0],)
            layers.append(nn.Flatten())
            for a, b in itertools.pairwise(sizes):
                layers += [nn.Linear(a, b, bool(pick(0, 1))), *([nn.BatchNorm1d(b)] * pick(0, 1)),
                           nn.ReLU()]  # fmt: skip
            layers = layers[: None if pick(0, 1) else -1]
        else:
            shape, channels = (2, pick(7, 8), pick(7, 9)), 2
            for _ in range(pick(1, 2)):
                out = pick(1, 3)
                if kind == "conv":
                    layers += [*conv(channels, out), nn.ReLU()]
                else:
                    stride = pick(1, 2)
                    body = nn.Sequential(
                        *([norm(channels)] * pick(0, 1)), nn.Conv2d(channels, out, 3, stride, 1),
                        nn.ReLU(), nn.Conv2d(out, out, 3, 1, 1), norm(out),
                    )  # fmt: skip
                    same = stride == 1 and channels == out
                    short = [] if same else [nn.Conv2d(channels, out, 1, stride), norm(out)]
                    layers.append(models.Residual(body, nn.Sequential(*short)))
                channels = out
            layers += pick([], [nn.AvgPool2d(2, 1, 1)], [nn.AdaptiveAvgPool2d(1)])
            flat = nn.Sequential(*layers, nn.Flatten()).eval()(torch.zeros(1, *shape)).shape[1]
            layers += [nn.Flatten(), nn.Linear(flat, 3)]
    threat = Threat(pick("linf", "l2", "l1"), pick(0.01, 0.1, 0.5), pick(None, (0.0, 1.0)))
    x = torch.rand(3, *shape, generator=g, dtype=torch.float64)
    if threat.box is None:
        x = 4 * x - 2
    return nn.Sequential(*layers).double().eval().requires_grad_(False), x, threat


def reached(model, x, threat, seed: int):
    """Points of the threat, random and attacked, and the logits there."""
    for i in range(4):
        yield threat.sample(x, seed=10 * seed + i)
    for j in range(3):
        for sign in (-1, 1):
            z = x.clone()
            for _ in range(3):
                z.requires_grad_()
                (g,) = torch.autograd.grad(model(z)[:, j].sum(), z)
                z = threat.project(z.detach() + sign * threat.eps * threat.steepest(g), x)
            yield x + (1 - 1e-12) * (z - x)


def check_architecture(seed: int):
    model, x, threat = architecture(seed)
    y = torch.arange(3)
    linear = isinstance(model[-1], nn.Linear)
    methods = [("ibp", "both")] * linear + [("crown", i) for i in ("ibp", "crown", "both")]
    found = [bounds.ibp(model, x, threat)]
    found += [bounds.crown(model, x, threat, inner=i) for i in ("ibp", "crown", "both")]
    least = [bounds.margins(model, x, y, threat, method=m, inner=i) for m, i in methods]
    before = bounds.layers(bounds.graph(model, x), x, threat)
    assert all(b.lower.isfinite().all() and b.upper.isfinite().all() for b in found + before)
    for z in reached(model, x, threat, seed):
        logits = model(z)
        for b in found:
            assert (b.lower <= logits).all(), (seed, threat)
            assert (logits <= b.upper).all(), (seed, threat)
        apart = logits.gather(1, y[:, None]) - logits
        apart = apart.scatter(1, y[:, None], torch.inf)
        assert all((low <= apart).all() for low in least), (seed, threat)
        for b, value in zip(before, inside(bounds.graph(model, x), z), strict=True):
            assert (b.lower <= value + 1e-12).all(), (seed, threat)
            assert (value <= b.upper + 1e-12).all(), (seed, threat)


def inside(net, z):
    """What each ReLU reads, by the dense matrices."""
    outputs, values = {-1: z.flatten(1)}, []
    for i, part in enumerate(net.dense()):
        value = sum(outputs[s] @ t.T for s, t in part.terms.items()) + part.bias
        values.append(value)
        outputs[i] = value.relu()
    return values[:-1]


@pytest.mark.filterwarnings("ignore:threat.box is None")
@pytest.mark.parametrize("block", range(10))
def test_no_point_of_200_random_networks_leaves_its_bounds(block):
    for seed in range(20 * block, 20 * block + 20):
        check_architecture(seed)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:threat.box is None")
@pytest.mark.parametrize("block", range(10))
def test_no_point_of_2000_random_networks_leaves_its_bounds(block):
    for seed in range(1000 + 200 * block, 1200 + 200 * block):
        check_architecture(seed)


@pytest.mark.parametrize("eps", [0.0, 1e-6, 0.01])
@pytest.mark.parametrize("offset", [0.0, 1e3])
def test_float32_is_rounded_outward(eps, offset):
    """A large bias, taken away again, leaves rounding only: the exact answer is inside."""
    for seed in range(10):
        model = models.small_resnet((1, 8, 8), 3, width=4, seed=seed)
        model[1].bias = nn.Parameter(torch.full((4,), offset))
        model[2].running_mean.fill_(offset)
        x = torch.rand(2, 1, 8, 8, generator=rng(seed))
        threat = Threat("linf", eps)
        found = [bounds.ibp(model, x, threat), bounds.crown(model, x, threat)]
        exact = bounds.crown(model, x.double(), threat)
        points = [threat.sample(x.double(), seed=s) for s in range(5)]
        model = model.double()
        for b in found:
            for z in points:
                assert (b.lower.double() <= model(z)).all()
                assert (model(z) <= b.upper.double()).all()
            assert (b.lower <= exact.lower + 1e-9).all()
            assert (b.upper >= exact.upper - 1e-9).all()


def test_what_rounds_is_where_the_width_comes_from(toy):
    model, x, _ = toy
    for width, dtype in ((1e-11, torch.float64), (1e-3, torch.float32)):
        for method in (bounds.ibp, bounds.crown):
            found = method(model, x.to(dtype), LINF.at(0.0))
            assert 0 < (found.upper - found.lower).max() < width


@pytest.mark.parametrize("value", [torch.nan, torch.inf, 1e300])
@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_nan_and_overflow_bound_nothing(toy, value, norm):
    model, x, y = toy
    model[4].weight[1] = value
    model[6].weight[0] = value
    threat = Threat(norm, 0.1)
    pre = bounds.layers(bounds.graph(model, x), x, threat)
    assert not any(b.lower.isnan().any() and not b.upper.isnan().any() for b in pre)
    for b in (bounds.ibp(model, x, threat), bounds.crown(model, x, threat)):
        assert (b.lower[:, 0] == -torch.inf).all()
        assert (b.upper[:, 0] == torch.inf).all()
    for method in ("ibp", "crown"):
        assert not bounds.certified(model, x, 0 * y, threat, method=method).any()


# Against others


@pytest.mark.filterwarnings("ignore:threat.box is None")
@pytest.mark.parametrize("name", ANSWERS)
def test_auto_lirpa_gives_the_same_or_wider(name):
    network, norm, method = name.split()
    model, x = lirpa.case(network, models.Residual)
    threat = Threat(norm, lirpa.EPS[norm], None)
    if method == "ibp":
        found = bounds.ibp(model, x, threat)
    else:
        found = bounds.crown(model, x, threat, inner="ibp" if method == "crown_ibp" else "crown")
    low, high = torch.tensor(ANSWERS[name], dtype=torch.float64)
    assert (found.lower >= low - 1e-5).all()
    assert (found.upper <= high + 1e-5).all()
    same = (found.lower - low).abs().max() <= 1e-5 and (found.upper - high).abs().max() <= 1e-5
    assert same == (name not in WIDER)


# Its intervals take the ℓ2 norm of a kernel in ℓ1 too, and the whole kernel at an image's edge; so
# does its CROWN for a first layer without batch norm. Sound, and wider than the dual norm of a row.
WIDER = {f"{net} l1 {how}" for net in ("conv", "resnet", "pool") for how in ("ibp", "crown_ibp")}
WIDER |= {"pool l1 crown", "pool l2 crown"}


def test_intervals_are_those_of_a_loop(toy):
    model, x, _ = toy
    found = bounds.ibp(model, x, LINF)
    for i in range(len(x)):
        box = [
            ((max(v - 0.1, 0) - 0.5) / 0.5, (min(v + 0.1, 1) - 0.5) / 0.5) for v in x[i].tolist()
        ]
        for layer in (model[2], model[4], model[6]):
            out = []
            for row, bias in zip(layer.weight.tolist(), layer.bias.tolist(), strict=True):
                ends = [sorted((w * a, w * b)) for w, (a, b) in zip(row, box, strict=True)]
                out.append((bias + sum(e[0] for e in ends), bias + sum(e[1] for e in ends)))
            box = [(max(a, 0), max(b, 0)) for a, b in out]
        torch.testing.assert_close(found.lower[i], torch.tensor(out, dtype=x.dtype)[:, 0])
        torch.testing.assert_close(found.upper[i], torch.tensor(out, dtype=x.dtype)[:, 1])


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_where_every_sign_is_known_lines_are_exact(toy, norm):
    """Then the logits are linear on the threat: least at their gradient's worst point."""
    model, x, _ = toy
    x = 0.25 + x / 2
    threat = Threat(norm, 1e-4)
    z = x.clone().requires_grad_()
    logits = model(z)
    found = bounds.crown(model, x, threat)
    for j in range(3):
        (g,) = torch.autograd.grad(logits[:, j].sum(), z, retain_graph=True)
        worst = logits[:, j] - 1e-4 * threat.dual(g)
        torch.testing.assert_close(found.lower[:, j], worst.detach(), rtol=0, atol=1e-11)


@pytest.mark.parametrize(("norm", "eps"), [("l2", 0.3), ("l1", 0.5)])
def test_a_ball_in_a_box_is_no_looser_than_either(toy, norm, eps):
    model, x, _ = toy
    free = Threat(norm, eps, None)
    inside = bounds.crown(model, x, Threat(norm, eps), inner="ibp")
    for wider in (free, Threat("linf", eps)):
        found = bounds.ibp(model, x, wider)
        mine = bounds.ibp(model, x, Threat(norm, eps))
        assert (mine.lower >= found.lower - 1e-9).all()
    corner = torch.zeros_like(x)
    cut = bounds.crown(model, corner, Threat(norm, 0.9), inner="ibp")
    loose = bounds.crown(model, corner, Threat(norm, 0.9, None), inner="ibp")
    assert inside.lower.isfinite().all()
    assert (cut.upper - cut.lower).mean() < (loose.upper - loose.lower).mean()


@pytest.mark.parametrize(
    ("norm", "eps"),
    [("linf", 0.1), ("l2", 0.0), ("l2", 0.05), ("l2", 0.6), ("l2", 3.0), ("l1", 0.2), ("l1", 2.0)],
)
@pytest.mark.parametrize("box", [(0.0, 1.0), None])
def test_a_linear_function_is_least_where_it_is_said_to_be(norm, eps, box):
    """Weak duality bounds it from below, the point from above: they meet."""
    threat = Threat(norm, eps, box)
    x = torch.rand(6, 8, generator=rng(0), dtype=torch.float64)
    x[:, :3], x[:, 3] = 0.0, 1.0
    a = torch.randn(6, 2, 8, generator=rng(1), dtype=torch.float64)
    a[0, 0], a[1, 0, 2:], a[2] = 0.0, 0.0, 1e-9 * a[2]
    region = bounds.Region(x, threat)
    point, low = region.point(a), region.least(a)
    assert threat.contains(point.flatten(0, 1), x.repeat_interleave(2, 0)).all()
    apart = (a * point).sum(2) - low
    assert (apart >= 0).all()
    assert apart.max() < 1e-11


# Margins, and what verification is built of


def test_margins_are_tighter_than_differences_and_certify_what_holds(toy):
    model, x, y = toy
    threat = LINF.at(0.02)
    for method, found in (
        ("ibp", bounds.ibp(model, x, threat)),
        ("crown", bounds.crown(model, x, threat, inner="both")),
    ):
        low = bounds.margins(model, x, y, threat, method=method)
        apart = (found.lower.gather(1, y[:, None]) - found.upper).scatter(1, y[:, None], torch.inf)
        assert (low >= apart - 1e-9).all()
        assert (low > apart + 1e-6).any()
        right = bounds.certified(model, x, y, threat, method=method)
        assert torch.equal(right, low.amin(1) > 0)
    label = model(x).argmax(1)
    assert bounds.certified(model, x, label, LINF.at(1e-5)).all()
    assert not bounds.certified(model, x, (label + 1) % 3, LINF.at(1e-5)).any()


def test_sound_intervals_are_those_of_training_rounded_outward(toy):
    model, x, y = toy
    trained = bounds.ibp_margins(model, x, y, LINF)
    sound = bounds.margins(model, x, y, LINF, method="ibp").scatter(1, y[:, None], 0.0)
    assert (sound <= trained).all()
    torch.testing.assert_close(sound, trained)


@pytest.mark.parametrize("build", [models.small_conv, models.small_resnet])
def test_dense_matrices_are_the_network(build):
    model = build((2, 8, 8), 4, width=2).double()
    x = torch.rand(3, 2, 8, 8, generator=rng(1), dtype=torch.float64)
    net = bounds.graph(model, x)
    parts = net.dense()
    assert [len(p.bias) for p in parts] == [*net.sizes, net.classes]
    outputs = {-1: x.flatten(1)}
    for i, part in enumerate(parts):
        value = sum(outputs[s] @ t.T for s, t in part.terms.items()) + part.bias
        outputs[i] = value.relu()
    torch.testing.assert_close(value, model(x))
    assert (build is models.small_resnet) == any(len(p.terms) == 2 for p in parts)


def split(model, x, threat, which, on):
    """Bounds before each ReLU with the phase of neuron `which` of layer 0 imposed."""
    net = bounds.graph(model, x)
    pre = bounds.layers(net, x, threat)
    low, high = pre[0].lower.clone(), pre[0].upper.clone()
    if on:
        low[:, which] = low[:, which].clamp_min(0)
    else:
        high[:, which] = high[:, which].clamp_max(0)
    return net, [bounds.Bounds(low, high), *pre[1:]]


@pytest.mark.parametrize("on", [True, False])
def test_an_imposed_phase_bounds_its_own_half(toy, on):
    model, x, _ = toy
    threat, eye = LINF.at(0.3), torch.eye(3, dtype=torch.float64)
    spec = torch.cat([eye, -eye]).expand(len(x), -1, -1)
    points = torch.stack([threat.sample(x, seed=s) for s in range(300)])
    first, gained, met = model[:3](points.flatten(0, 1)).view(300, 4, 7), 0, 0
    logits = model(points.flatten(0, 1)).view(300, 4, 3)
    value = torch.cat([logits, -logits], 2)
    for which in range(7):
        net, pre = split(model, x, threat, which, on)
        pre = bounds.tighten(net, x, threat, pre, after=0)
        half = (first[:, :, which] >= 0) if on else (first[:, :, which] <= 0)
        fixed = torch.zeros(4, 1, 7, dtype=x.dtype)
        fixed[:, :, which] = 0.05 if on else -0.05
        nothing = torch.zeros(4, 1, 6, dtype=x.dtype)
        slopes = [torch.full((4, 1, k), 0.3, dtype=x.dtype) for k in (7, 6)]
        whole = bounds.backward(net, x, threat, bounds.layers(net, x, threat), spec).lower
        for options in ({}, {"alpha": slopes}, {"beta": [fixed, nothing]}):
            low = bounds.backward(net, x, threat, pre, spec, **options).lower
            assert (low <= value)[half].all()
            gained += (low > whole + 1e-9).sum()
            met += half.sum()
    assert gained > 0
    assert met > 1000


def test_multipliers_have_gradients_and_gain(toy):
    model, x, y = toy
    threat = LINF.at(0.3)
    net = bounds.graph(model, x)
    pre = bounds.layers(net, x, threat)
    eye = torch.eye(3, dtype=torch.float64)
    spec = (eye[y] - eye[(y + 1) % 3])[:, None]
    alpha = [torch.full((4, 1, k), 0.5, dtype=x.dtype, requires_grad=True) for k in net.sizes]
    first = bounds.backward(net, x, threat, pre, spec, alpha=alpha)
    first.lower.sum().backward()
    better = [(a + 0.1 * a.grad.sign()).clamp(0, 1).detach() for a in alpha]
    assert bounds.backward(net, x, threat, pre, spec, alpha=better).lower.sum() > first.lower.sum()
    assert first.point.shape == (4, 1, 5)
    assert [c.shape for c in first.coefs] == [(4, 1, 7), (4, 1, 6)]
    assert threat.contains(first.point[:, 0], x).all()


def test_pieces_and_batches_give_the_same(monkeypatch):
    model = models.small_resnet((1, 8, 8), 3, width=2).double()
    x = torch.rand(3, 1, 8, 8, generator=rng(1), dtype=torch.float64)
    whole = bounds.crown(model, x, LINF)
    alone = bounds.crown(model, x[1:2], LINF)
    monkeypatch.setattr(bounds, "ROOM", 700)
    pieces = bounds.crown(model, x, LINF)
    torch.testing.assert_close(pieces.lower, whole.lower, rtol=0, atol=1e-10)
    torch.testing.assert_close(alone.upper, whole.upper[1:2], rtol=0, atol=1e-10)


# What goes in


def test_the_model_is_left_as_it_was_and_weights_may_be_wider(toy):
    model, x, y = toy
    model = model.float().requires_grad_()
    with untouched(model, x):
        narrow = bounds.crown(model, x, LINF)
        bounds.margins(model, x, y, LINF, method="ibp")
    exact = bounds.crown(model.double(), x, LINF)
    torch.testing.assert_close(narrow.lower, exact.lower, rtol=0, atol=1e-12)
    assert not exact.lower.requires_grad


@pytest.mark.parametrize(
    ("layer", "match"),
    [
        (nn.Sigmoid(), r"layer 2\.body\.1: .*Sigmoid"),
        (nn.MaxPool2d(3, 1, 1), "MaxPool2d"),
        (nn.BatchNorm2d(2).train(), "BatchNorm2d in training mode"),
        (nn.Conv2d(2, 2, 3, padding=1, padding_mode="reflect"), "Conv2d"),
        (nn.AvgPool2d(3, 1, 1, count_include_pad=False), "AvgPool2d"),
        (nn.AdaptiveAvgPool2d(5), "AdaptiveAvgPool2d"),
        (nn.Linear(4, 4), "Linear on inputs of shape .*after Flatten"),
        (nn.Flatten(2), "Flatten"),
    ],
)
def test_what_has_no_rule_is_named_with_its_place(layer, match):
    with models._seeded(0):
        body = nn.Sequential(nn.Conv2d(2, 2, 1), layer)
    net = nn.Sequential(nn.Identity(), nn.ReLU(), models.Residual(body, nn.Sequential()))
    x = torch.zeros(1, 2, 4, 4)
    for method in (bounds.ibp, bounds.crown):
        with pytest.raises(ValueError, match=match) as error:
            method(net, x, LINF)
        assert "layer 2.body.1" in str(error.value)


def test_what_is_no_batch_of_examples_is_refused(toy):
    model, x, y = toy
    with unchecked():
        with pytest.raises(ValueError, match="NaN"):
            bounds.crown(model, x * torch.nan, LINF)
        with pytest.raises(ValueError, match="divide by 255"):
            bounds.ibp(model, x * 255, LINF)
        with pytest.raises(ValueError, match="labels are 0"):
            bounds.margins(model, x, y + 1, LINF)
        with pytest.raises(TypeError, match=r"x is torch\.float16"):
            bounds.crown(model, x.half(), LINF)
        with pytest.raises(ValueError, match="inner is 'lp'"):
            bounds.crown(model, x, LINF, inner="lp")
        with pytest.raises(ValueError, match="method is 'lp'"):
            bounds.margins(model, x, y, LINF, method="lp")
        with pytest.raises(ValueError, match=r"the model gives \(2, 4, 4\)"):
            bounds.ibp(nn.ReLU(), torch.zeros(1, 2, 4, 4), LINF)


def dense(seed: int) -> nn.Linear:
    return models.mlp(2, 2, hidden=(), seed=seed)[-1]


def test_a_layer_that_comes_twice_counts_twice():
    relu, first, last = nn.ReLU(), dense(0), dense(1)
    model = nn.Sequential(first, relu, first, relu, last).eval()
    x = torch.rand(50, 2, generator=rng(0)).double()
    found = bounds.ibp(model, x, Threat("linf", 0.0))
    with torch.no_grad():
        torch.testing.assert_close(found.lower, model.double()(x), atol=1e-9, rtol=0)
    assert bounds.graph(model, x[:1]).sizes == [2, 2]


def test_what_computes_something_else_than_it_says_is_refused():
    class Skip(nn.Sequential):
        def forward(self, x):
            return x - super().forward(x)

    class Loud(nn.ReLU):
        def forward(self, x):
            return 100 * super().forward(x)

    x, plain, hooked = torch.rand(1, 2, generator=rng(0)), dense(0), dense(1)
    hooked.register_forward_hook(lambda module, args, out: -out)
    for inner, message in (
        (Skip(plain), "layer 0: Skip has a forward of its own"),
        (Loud(), "layer 0: Loud has a forward of its own"),
        (hooked, "layer 0: Linear has hooks"),
    ):
        with pytest.raises(ValueError, match=message):
            bounds.ibp(nn.Sequential(inner, plain).eval(), x, Threat("linf", 0.1))
