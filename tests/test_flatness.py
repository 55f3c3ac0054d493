"""Sharpness against autograd's whole Hessian and many digits; the radius against attacks on it."""

import mpmath
import pytest
import torch
from helpers import rng, unchecked, untouched
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from robcourse import attacks, flatness, lipschitz, models
from robcourse.flatness import full_sharpness, head_trace, loss_radius, relative_sharpness
from robcourse.orthogonal import CayleyLinear, GroupSort
from robcourse.threat import Threat

EYE = torch.eye(2, dtype=torch.float64)


def layer(k, d, seed, *, n=5, scale=1.0):
    gen = rng(seed)
    weight = scale * torch.randn(k, d, generator=gen, dtype=torch.float64)
    bias = torch.randn(k, generator=gen, dtype=torch.float64)
    return weight, bias, torch.randn(n, d, generator=gen, dtype=torch.float64)


def hessian(weight, bias, phi, label):
    """[k, d, k, d], by autograd, of one example's cross-entropy."""

    def loss(w):
        return F.cross_entropy(F.linear(phi[None], w, bias), torch.tensor([label]))

    return torch.autograd.functional.hessian(loss, weight)


# The closed forms.


@given(st.integers(2, 6), st.integers(1, 6), st.integers(0, 10**6), st.booleans())
def test_sharpness_is_that_of_the_whole_hessian(k, d, seed, with_bias):
    weight, bias, phi = layer(k, d, seed, n=3)
    given_bias = bias if with_bias else None
    for i in range(3):
        h = hessian(weight, given_bias, phi[i], (seed + i) % k)  # whatever the label
        one = phi[i : i + 1]
        blocks = torch.einsum("sitj,ij->st", h, torch.eye(d, dtype=h.dtype))
        wanted = (
            (head_trace, blocks.trace()),
            (relative_sharpness, weight.square().sum() * blocks.trace()),
            (full_sharpness, (weight @ weight.T * blocks).sum()),
        )
        for closed, truth in wanted:
            got = closed(weight, one, bias=given_bias)[0]
            torch.testing.assert_close(got, truth, rtol=1e-10, atol=1e-14)


@given(st.integers(2, 6), st.integers(1, 6), st.integers(0, 10**6))
def test_the_full_measure_is_at_most_the_spectral_and_the_relative_one(k, d, seed):
    weight, bias, phi = layer(k, d, seed, scale=3.0)
    full = full_sharpness(weight, phi, bias=bias)
    spectral = torch.linalg.matrix_norm(weight, 2) ** 2 * head_trace(weight, phi, bias=bias)
    assert (full <= spectral * (1 + 1e-12)).all()
    assert (spectral <= relative_sharpness(weight, phi, bias=bias) * (1 + 1e-12)).all()


@pytest.mark.parametrize("c", [1e-3, 0.3, 7.0, 1e4])
def test_sharpness_does_not_feel_what_two_layers_hand_each_other(c):
    weight, bias, phi = layer(7, 20, 0)
    for measure in (relative_sharpness, full_sharpness):
        torch.testing.assert_close(
            measure(weight * c, phi / c, bias=bias), measure(weight, phi, bias=bias),
            rtol=1e-9, atol=0,
        )  # fmt: skip
    moved = head_trace(weight * c, phi / c, bias=bias) / head_trace(weight, phi, bias=bias)
    torch.testing.assert_close(moved, torch.full_like(moved, c**-2), rtol=1e-9, atol=0)


def test_one_row_added_to_all_moves_the_relative_measure_and_not_the_full_one():
    weight, bias, phi = layer(4, 3, 1)
    shifted = weight + 5 * torch.randn(3, generator=rng(2), dtype=torch.float64)
    torch.testing.assert_close(
        full_sharpness(shifted, phi, bias=bias), full_sharpness(weight, phi, bias=bias)
    )
    ratio = relative_sharpness(shifted, phi) / relative_sharpness(weight, phi)
    assert (ratio > 5).all()
    centred = shifted - shifted.mean(0)
    torch.testing.assert_close(
        relative_sharpness(centred, phi), relative_sharpness(weight - weight.mean(0), phi)
    )


@pytest.mark.parametrize("gap", [0.0, 1.0, 17.0, 50.0, 300.0, 700.0])
def test_nothing_cancels_at_a_large_margin(gap):
    weight = torch.tensor([[0.0, 1], [0, 0], [-0.5, 0]], dtype=torch.float64)
    phi = torch.tensor([[3.0, gap]], dtype=torch.float64)
    with mpmath.workdps(700):
        e = [mpmath.exp(z) for z in (gap, 0, -1.5)]
        truth = (1 - sum((a / sum(e)) ** 2 for a in e)) * (9 + mpmath.mpf(gap) ** 2)
    got = head_trace(weight, phi).item()
    # A logit is exact here; exp and the division are good to a few units of rounding.
    assert got == pytest.approx(float(truth), rel=1e-13)
    if gap == 50.0:
        p = F.softmax(phi @ weight.T, 1)
        assert 1 - p.square().sum() == 0  # what cancels
        single = head_trace(weight.float(), phi.float()).item()
        assert single == pytest.approx(float(truth), rel=1e-5)


def test_sharpness_can_be_differentiated():
    weight, _, phi = layer(3, 4, 5)
    weight.requires_grad_()
    for measure in (head_trace, relative_sharpness, full_sharpness):
        assert torch.autograd.gradcheck(lambda w, m=measure: m(w, phi), weight)


def test_what_does_not_go_together_is_refused():
    weight, bias, phi = layer(3, 4, 0)
    with unchecked():
        for bad, words in (
            (lambda: head_trace(weight.T, phi), "not its transpose"),
            (lambda: head_trace(weight, phi[0]), r"\[n, d\]"),
            (lambda: relative_sharpness(weight[:1], phi), "at least two classes"),
            (
                lambda: full_sharpness(weight, phi, bias=bias[:2]),
                r"bias is \(2,\); expected \(3,\)",
            ),
            (lambda: head_trace(weight, phi * torch.nan), "NaN or infinite"),
            (lambda: loss_radius(weight, phi, torch.tensor([0, 1, 2, 0, 3]), 0.1), "0 … 2"),
            (lambda: loss_radius(weight, phi, torch.zeros(4).long(), 0.1), r"expected \(5,\)"),
        ):
            with pytest.raises(ValueError, match=words):
                bad()
        with pytest.raises(TypeError, match="one float dtype"):
            head_trace(weight, phi.float())
        with pytest.raises(TypeError, match="one float dtype"):
            head_trace(weight.long(), phi.long())


# The estimate.


def quadratic(h):
    x = torch.randn(len(h), generator=rng(9), dtype=h.dtype).requires_grad_()
    return x @ h @ x / 2, x


def symmetric(p, seed, rank=None):
    a = torch.randn(p, rank or p, generator=rng(seed), dtype=torch.float64)
    return a @ a.T


def test_the_estimate_comes_near_the_closed_form_and_says_how_near():
    weight, bias, phi = layer(4, 6, 3)
    weight.requires_grad_()
    y = torch.tensor([0, 1, 2, 3, 0])
    loss = F.cross_entropy(F.linear(phi, weight, bias), y, reduction="sum")
    truth = head_trace(weight, phi, bias=bias).sum().item()
    for sketch in (0, 5):
        got = flatness.trace(loss, [weight], probes=400, sketch=sketch)
        assert got.products == 400 + 2 * sketch
        assert 0 < got.error < 0.05 * truth
        assert abs(got.value - truth) < 4 * got.error
    assert weight.grad is None


def test_its_variance_is_the_one_that_is_printed():
    h = symmetric(4, 0)
    loss, x = quadratic(h)
    runs = [flatness.trace(loss, [x], probes=2, seed=s) for s in range(1500)]
    values = torch.tensor([r.value for r in runs], dtype=torch.float64)
    variance = 2 * (h.square().sum() - h.diagonal().square().sum()) / 2
    assert values.mean().item() == pytest.approx(
        h.trace().item(), abs=4 * (variance / 1500).sqrt().item()
    )
    # The variance of a sample variance of 1500: a few per cent.
    assert values.var().item() == pytest.approx(variance.item(), rel=0.15)
    squared = torch.tensor([r.error**2 for r in runs], dtype=torch.float64)
    assert squared.mean().item() == pytest.approx(variance.item(), rel=0.15)


def test_a_diagonal_hessian_needs_no_luck():
    loss, x = quadratic(torch.diag(torch.tensor([1.0, -2, 5], dtype=torch.float64)))
    assert flatness.trace(loss, [x], probes=2) == flatness.Trace(4.0, 0.0, 2)


def test_a_sketch_as_wide_as_the_rank_leaves_no_rest():
    h = symmetric(30, 1, rank=4)
    loss, x = quadratic(h)
    got = flatness.trace(loss, [x], probes=2, sketch=4)
    assert got.value == pytest.approx(h.trace().item(), rel=1e-10)
    assert got.error < 1e-9
    assert got.products == 10
    assert flatness.trace(loss, [x], probes=2).error > 1e-3
    assert flatness.trace(loss, [x], probes=2, sketch=30).value == pytest.approx(got.value)


def test_a_narrow_sketch_is_unbiased_and_better_than_as_many_probes():
    h = symmetric(20, 2, rank=3) + 0.01 * symmetric(20, 3)
    loss, x = quadratic(h)

    def values(**options):
        return torch.tensor(
            [flatness.trace(loss, [x], seed=s, **options).value for s in range(300)],
            dtype=torch.float64,
        )

    plus, plain = values(probes=4, sketch=4), values(probes=12)
    assert plus.mean().item() == pytest.approx(
        h.trace().item(), abs=4 * plus.std().item() / 300**0.5
    )
    assert plus.std() < plain.std() / 3


def test_the_estimate_leaves_everything_as_it_was():
    net = models.mlp(6, 3, hidden=(5,)).train()
    x, y = torch.rand(8, 6, generator=rng(1)), torch.arange(8) % 3
    wanted = sum(
        torch.stack([h.flatten()[:: p.numel() + 1].sum() for p, h in diagonals(net, x, y)])
    )
    loss = F.cross_entropy(net(x), y)
    with untouched(net, x), torch.no_grad():
        got = flatness.trace(loss, list(net.parameters()), probes=300)
        again = flatness.trace(loss, list(net.parameters()), probes=300)
        other = flatness.trace(loss, list(net.parameters()), probes=300, seed=1)
    assert got == again != other
    assert abs(got.value - wanted.item()) < 4 * got.error
    loss.backward()  # the graph is kept


def diagonals(net, x, y):
    """Each parameter with its block of the Hessian, by autograd."""
    named = dict(net.named_parameters())
    for name, p in named.items():

        def loss(v, name=name):
            return F.cross_entropy(torch.func.functional_call(net, {**named, name: v}, (x,)), y)

        yield p, torch.autograd.functional.hessian(loss, p.detach())


def test_a_linear_loss_has_no_curvature_and_a_parameter_may_be_unused():
    x, unused = torch.ones(3, requires_grad=True), torch.ones(2, requires_grad=True)
    assert flatness.trace(2 * x.sum(), [x, unused], probes=3, sketch=2).value == 0
    assert flatness.trace(x.square().sum(), [x, unused], probes=3).value == 6


def test_an_estimate_that_cannot_be_made_is_refused():
    loss, x = quadratic(symmetric(3, 0))
    for options, words in (
        ({"probes": 1}, "probes is 1"),
        ({"probes": 2, "sketch": 4}, r"sketch is 4; expected 0 … 3"),
        ({"probes": 2, "sketch": -1}, "sketch is -1"),
    ):
        with pytest.raises(ValueError, match=words):
            flatness.trace(loss, [x], **options)
    with pytest.raises(ValueError, match="parameters is empty"):
        flatness.trace(loss, [], probes=2)
    with pytest.raises(ValueError, match="no graph"):
        flatness.trace(loss.detach(), [x], probes=2)


# The radius.


def rise(weight, bias, phi, y, move):
    """How much the loss rises where the features move: log Σ p_j·exp(v_j − v_y)."""
    v = move @ weight.T
    logp = F.log_softmax(F.linear(phi, weight, bias), 1)
    return torch.logsumexp(logp + v - v.gather(1, y[:, None]), 1)


def worst(weight, bias, phi, y, radius):
    """The largest rise that was found on the sphere, by ascent from k starts.

    The loss is convex in the features: to go to the end of the ball along the gradient, again and
    again, never makes it less.
    """
    best = torch.full_like(radius, -torch.inf)
    target = F.one_hot(y, len(weight)).to(weight)
    for j in range(len(weight)):
        direction = weight[j] - weight[y]
        for _ in range(15):
            move = Threat("l2", 1.0, None).steepest(direction) * radius[:, None]
            best = torch.maximum(best, rise(weight, bias, phi, y, move))
            direction = (F.softmax(F.linear(phi + move, weight, bias), 1) - target) @ weight
    return best


@pytest.mark.parametrize("k", [2, 3, 5, 10])
def test_the_loss_never_rises_more_within_the_radius(k):
    """12 500 examples, 25 000 trials each k, half of them random and half adversarial."""
    found = []
    for seed in range(25):
        gen = rng(100 * k + seed)
        scale, eps = (10 ** (torch.rand(2, generator=gen) * 4 - 2)).tolist()  # 0.01 … 100
        weight, bias, phi = layer(k, 2 + seed % 7, 100 * k + seed, n=500, scale=scale)
        y = torch.randint(k, (500,), generator=gen)
        radius = loss_radius(weight, phi, y, eps, bias=bias)
        assert (radius > 0).all()
        # `rise` subtracts logits, of at most 8 products each.
        logits = F.linear(phi.abs(), weight.abs(), bias.abs()).amax(1)
        allowed = eps + 1e-14 * (1 + eps + logits)
        at = torch.randn(phi.shape, generator=gen, dtype=phi.dtype)
        length = radius * torch.rand(500, generator=gen, dtype=phi.dtype) ** 0.1
        random = F.normalize(at, dim=1) * length[:, None]
        assert (rise(weight, bias, phi, y, random) <= allowed).all()
        hit = worst(weight, bias, phi, y, radius)
        assert (hit <= allowed).all()
        found.append(hit / eps)
    found = torch.cat(found)
    if k == 2:  # attained
        torch.testing.assert_close(found, torch.ones_like(found), rtol=1e-6, atol=0)
    else:  # not always attained, and near it often enough for the test to mean something
        assert found.median() > 0.8
        assert (found > 0.999).any()


@given(st.integers(2, 6), st.integers(0, 10**6), st.floats(1e-6, 20.0))
def test_the_radius_solves_its_equation(k, seed, eps):
    weight, bias, phi = layer(k, 3, seed)
    y = torch.arange(5) % k
    radius = loss_radius(weight, phi, y, eps, lipschitz=2.0, bias=bias)
    p = F.softmax(F.linear(phi, weight, bias), 1)
    speed = (weight[y][:, None] - weight).norm(dim=2)
    total = (p * torch.expm1(2.0 * speed * radius[:, None])).sum(1)
    # The radius is rounded down by about 1e-12, which the exponential enlarges.
    torch.testing.assert_close(total, torch.expm1(torch.tensor(eps)).to(total).expand(5),
                               rtol=1e-6, atol=0)  # fmt: skip


def test_two_classes_in_closed_form_at_every_confidence():
    """log(1 + (e^ε − 1)/(1 − p_y))/D, in 2000 digits, where 1 − p_y is far below 1e-308."""
    weight = torch.tensor([[1.0, 0], [-1, 0]], dtype=torch.float64)
    for z in (-1e4, -3.0, 0.0, 2.0, 40.0, 1e4):
        for eps in (1e-9, 0.1, 30.0, 1e3):
            with mpmath.workdps(9000):
                other = 1 / (1 + mpmath.exp(2 * mpmath.mpf(z)))
                truth = float(mpmath.log1p(mpmath.expm1(mpmath.mpf(eps)) / other) / 2)
            phi = torch.tensor([[z, 1.0]], dtype=torch.float64)
            got = loss_radius(weight, phi, torch.tensor([0]), eps).item()
            assert got == pytest.approx(truth, rel=1e-9)
            assert got <= truth


@pytest.mark.parametrize("scale", [1e-3, 1.0, 300.0])
@pytest.mark.parametrize("eps", [1e-12, 0.1, 50.0])
def test_four_classes_from_below_in_many_digits(scale, eps):
    weight, bias, phi = layer(4, 30, 8, n=6, scale=scale)
    y = torch.arange(6) % 4
    got = loss_radius(weight, phi, y, eps, bias=bias)
    for i, found in enumerate(got.tolist()):
        with mpmath.workdps(60):
            rows = [[mpmath.mpf(a) for a in row] for row in weight.tolist()]
            point = [mpmath.mpf(a) for a in phi[i].tolist()]
            z = [mpmath.fdot(r, point) + b for r, b in zip(rows, bias.tolist(), strict=True)]
            total = sum(mpmath.exp(a) for a in z)
            true = rows[y[i]]
            speed = [mpmath.norm([a - b for a, b in zip(r, true, strict=True)]) for r in rows]

            def rises(s, z=z, total=total, speed=speed):
                terms = [mpmath.exp(a) * mpmath.expm1(d * s) for a, d in zip(z, speed, strict=True)]
                return sum(terms) / total - mpmath.expm1(mpmath.mpf(eps))

            # Never above the truth, and within what is taken off for rounding.
            assert rises(mpmath.mpf(found)) <= 0 < rises(mpmath.mpf(found) * (1 + mpmath.mpf(1e-8)))


def test_scaled_up_it_is_the_certificate_of_chapter_4(global_random):
    torch.manual_seed(0)
    body = nn.Sequential(CayleyLinear(6, 6), GroupSort(), CayleyLinear(6, 6))
    net = nn.Sequential(body, nn.Linear(6, 4)).double().eval()
    gen = rng(0)
    with torch.no_grad():
        net[1].weight.copy_(torch.randn(4, 6, generator=gen))
        net[1].bias.copy_(torch.randn(4, generator=gen))
    x = torch.randn(40, 6, generator=gen, dtype=torch.float64)
    proved = lipschitz.certify(net, x)
    speed = lipschitz.product_bound(body, (6,))
    weight, bias = net[1].weight.detach(), net[1].bias.detach()
    phi = body(x).detach()
    assert proved.radius.min() > 1e-3

    def scaled(c, y, eps=0.01):
        return loss_radius(c * weight, phi, y, eps, lipschitz=speed, bias=c * bias)

    torch.testing.assert_close(scaled(1e6, proved.label), proved.radius.double(), rtol=0.01, atol=0)
    assert (scaled(1e6, proved.label) < proved.radius * (1 + 1e-6)).all()  # from below for small ε
    assert (scaled(1e6, (proved.label + 1) % 4) < 1e-6).all()  # a wrong answer keeps nothing
    assert (scaled(1.0, proved.label) < proved.radius).all()


def test_through_a_network_no_attack_raises_the_loss_by_more():
    net = models.mlp(8, 3, hidden=(16,), seed=4)
    x, y = torch.rand(60, 8, generator=rng(3)), torch.arange(60) % 3
    with torch.no_grad():
        phi, before = net[:-1](x), F.cross_entropy(net(x), y, reduction="none")
    speed = lipschitz.product_bound(net[:-1], (8,))
    head, eps, near = net[-1], 0.05, []
    radius = loss_radius(head.weight, phi, y, eps, lipschitz=speed, bias=head.bias)
    assert radius.dtype == torch.float32
    for i in range(60):
        threat = Threat("l2", radius[i].item(), None)
        found = attacks.pgd(net, x[i : i + 1], y[i : i + 1], threat, steps=10, keep_path=True)
        after = F.cross_entropy(net(found.path[-1]), y[i : i + 1]).item()
        assert after - before[i] <= eps + 1e-5  # float32
        near.append((after - before[i].item()) / eps)
    assert max(near) > 0.2  # the attack did something


def test_the_radius_is_rounded_down():
    weight, bias, phi = (t.float() for t in layer(5, 8, 11, n=2000))
    y = torch.arange(2000) % 5
    single = loss_radius(weight, phi, y, 0.1, bias=bias)
    double = loss_radius(weight.double(), phi.double(), y, 0.1, bias=bias.double())
    assert single.dtype == torch.float32
    assert (single.double() <= double).all()
    torch.testing.assert_close(single.double(), double, rtol=2e-7, atol=0)


def test_rows_that_are_equal_cost_nothing():
    phi, y = torch.tensor([[1.0, 2.0]]), torch.tensor([0])
    assert loss_radius(torch.ones(3, 2), phi, y, 0.1).item() == torch.inf
    twice = torch.tensor([[1.0, 0], [1, 0], [0, 1]])
    assert 0 < loss_radius(twice, phi, y, 0.1).item() < torch.inf


@pytest.mark.parametrize("name", ["eps", "lipschitz"])
@pytest.mark.parametrize("value", [0.0, -1.0, torch.inf, torch.nan])
def test_a_radius_needs_a_positive_number(name, value):
    options = {"eps": 0.1, "lipschitz": 1.0} | {name: value}
    with pytest.raises(ValueError, match=f"{name} is .*expected a finite number > 0"):
        loss_radius(EYE, EYE, torch.tensor([0, 1]), options["eps"], lipschitz=options["lipschitz"])


# The path.


def walked(dtype=torch.float64, norm="linf"):
    net = models.mlp(8, 4, hidden=(16, 12), seed=2).to(dtype)
    x = torch.rand(9, 8, generator=rng(5), dtype=dtype)
    with torch.no_grad():
        y = net(x).argmax(1)
    found = attacks.pgd(
        net, x, y, Threat(norm, 0.3 if norm == "linf" else 0.9), steps=12, keep_path=True
    )
    return net, found.path, y


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_trajectory_is_what_autograd_says_at_each_iterate(norm):
    net, path, y = walked(norm=norm)
    with untouched(net, path), torch.no_grad():
        got = flatness.trajectory(net, path, y)
    for t, x in enumerate(path):
        x = x.clone().requires_grad_()
        logits = net(x).detach().requires_grad_()
        losses = F.cross_entropy(net(x), y, reduction="none")
        (slope,) = torch.autograd.grad(losses.sum(), x)
        (logit,) = torch.autograd.grad(F.cross_entropy(logits, y, reduction="sum"), logits)
        top = logits.detach().topk(2, 1).values
        right = logits.argmax(1) == y
        head, bias = net[-1].weight.detach(), net[-1].bias
        blocks = [hessian(head, bias, f, 0).flatten(2).flatten(0, 1) for f in net[:-1](x)]
        traces = torch.stack([h.trace() for h in blocks])
        for name, wanted in (
            ("away", (x - path[0]).norm(dim=1)),
            ("loss", losses),
            ("confidence", F.softmax(logits, 1).amax(1)),
            ("slope", slope.norm(dim=1)),
            ("logit_slope", logit.norm(dim=1)),
            ("trace", traces),
        ):
            torch.testing.assert_close(getattr(got, name)[t], wanted.detach(), msg=name)
        torch.testing.assert_close(got.margin[t][right], (top[:, 0] - top[:, 1])[right])
        assert (got.margin[t][~right] < 0).all()
        torch.testing.assert_close(got.sharpness[t], got.trace[t] * head.square().sum())
    assert (got.loss[-1] > got.loss[0]).all()
    assert (got.logit_slope < 2**0.5).all()


def test_images_and_plain_inputs_make_a_trajectory_without_a_warning(global_random):
    net = nn.Sequential(nn.Flatten(), nn.ReLU(), nn.Linear(16, 3)).eval()
    path = torch.rand(3, 5, 1, 4, 4, generator=rng(0))
    assert flatness.trajectory(net, path, torch.arange(5) % 3).loss.shape == (3, 5)
    far = flatness.trajectory(net, 10 * path - 5, torch.arange(5) % 3)
    assert far.away.dtype == torch.float32


def test_a_confident_right_answer_has_a_loss_in_float32(global_random):
    net = nn.Sequential(nn.Identity(), nn.Linear(2, 2, bias=False)).eval()
    with torch.no_grad():
        net[1].weight.copy_(torch.tensor([[25.0, 0], [-25, 0]]))
    got = flatness.trajectory(net, torch.ones(1, 1, 2), torch.tensor([0]))
    small = torch.tensor(50.0, dtype=torch.float64).neg().exp().item()
    for field, factor in (("loss", 1), ("logit_slope", 2**0.5), ("slope", 50), ("trace", 4)):
        assert getattr(got, field).item() == pytest.approx(factor * small, rel=1e-5)
    assert F.cross_entropy(net(torch.ones(1, 2)), torch.tensor([0])).item() == 0  # torch's own


def test_a_path_that_cannot_be_followed_is_refused():
    net, path, y = walked()
    with pytest.raises(TypeError, match=r"ends in nn\.Linear"):
        flatness.trajectory(net[:-1], path, y)
    with pytest.raises(ValueError, match="training mode"):
        flatness.trajectory(models.mlp(8, 4).double().train(), path, y)
    with pytest.raises(ValueError, match="NaN"):
        flatness.trajectory(net, torch.cat([path, path[:1] * torch.nan]), y)
    with unchecked():
        with pytest.raises(TypeError, match=r"ends in nn\.Linear"):
            flatness.trajectory(lambda x: x, path, y)
        with pytest.raises(ValueError, match=r"expected \[t, n, \.\.\.\]"):
            flatness.trajectory(net, path[0], y)
        with pytest.raises(ValueError, match=r"expected \(9,\)"):
            flatness.trajectory(net, path, y[:3])


def test_a_basin_ends_where_the_loss_has_risen():
    loss = torch.tensor([[1.0, 1.0, 1.0, 1.0], [1.05, 2.0, 0.5, 1.1], [1.2, 1.0, 1.0, 1.1]])
    away = torch.tensor([[0.0] * 4, [0.3, 0.4, 0.5, 0.6], [0.7, 0.8, 0.9, 1.0]])
    width = flatness.basin_width(loss, away, rise=0.1 + 1e-6)
    assert torch.equal(width, torch.tensor([0.7, 0.4, torch.inf, torch.inf]))
    with pytest.raises(ValueError, match="rise is 0"):
        flatness.basin_width(loss, away, rise=0.0)
    with unchecked(), pytest.raises(ValueError, match=r"expected \[t, n\]"):
        flatness.basin_width(loss, away[0], rise=0.1)


def test_no_basin_is_wider_than_its_loss_radius_says_it_must_be():
    """From below: within `loss_radius` the loss cannot have risen."""
    net, path, y = walked(norm="l2")
    got = flatness.trajectory(net, path, y)
    with torch.no_grad():
        phi = net[:-1](path[0])
    radius = loss_radius(
        net[-1].weight, phi, y, 0.1, bias=net[-1].bias,
        lipschitz=lipschitz.product_bound(net[:-1], (8,)),
    )  # fmt: skip
    width = flatness.basin_width(got.loss, got.away, rise=0.1)
    assert width.isfinite().any()
    assert (width > radius).all()
