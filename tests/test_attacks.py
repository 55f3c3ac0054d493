"""Attacks: exact where a closed form exists, allowed, undisturbing, and as strong as others'."""

import json
from pathlib import Path

import jaxtyping
import pytest
import torch
from helpers import rng, unchecked, untouched
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import make
from torch import nn

from robcourse import attacks, linear, models
from robcourse.threat import Threat, margin

NORMS = ["linf", "l2", "l1"]
ANSWERS = json.loads((Path(__file__).parent / "reference" / "answers.json").read_text())
EPS = {"linf": 0.1, "l2": 0.5, "l1": 1.0}


def rule(d, seed):
    """A linear two-class network and the w, b of the rule that it is."""
    # Without the usual draw of weights from the global random state.
    net = nn.Sequential(nn.Flatten(), nn.utils.skip_init(nn.Linear, d, 2)).double().eval()
    with torch.no_grad():
        net[1].weight.copy_(torch.randn(2, d, generator=rng(seed), dtype=torch.float64))
        net[1].bias.copy_(torch.randn(2, generator=rng(seed + 1), dtype=torch.float64))
    weight, bias = net[1].weight.detach(), net[1].bias.detach()
    return net, weight[1] - weight[0], bias[1] - bias[0]


def right(net, n, shape, seed, dtype=torch.float32):
    """Random inputs in [0, 1] and the labels that the network gives them."""
    x = torch.rand(n, *shape, generator=rng(seed), dtype=dtype)
    return x, net(x).argmax(1).detach()


def small(seed=0, classes=4):
    net = models.small_conv((1, 8, 8), classes, width=2, seed=seed)
    return net, *right(net, 6, (1, 8, 8), seed)


def digits(n=20):
    x, y = make.batch("digits10")
    return make.load("digits10"), x[:n], y[:n]


def hills():
    """Four classes with bent boundaries on points of [0, 1]², float64."""
    centres = torch.tensor([[0.2, 0.3], [0.8, 0.4], [0.5, 0.9], [0.4, 0.1]]).double()
    return lambda x: -20 * (x.flatten(1)[:, None] - centres).square().sum(2)


EVERY = {
    "fgsm": lambda net, x, y, threat, seed=0: attacks.fgsm(net, x, y, threat),
    "pgd": lambda net, x, y, threat, seed=0: attacks.pgd(
        net, x, y, threat, steps=5, restarts=2, seed=seed
    ),
    "pgd, long steps": lambda net, x, y, threat, seed=0: attacks.pgd(
        net, x, y, threat, steps=4, step=2 * threat.eps, loss="margin", seed=seed
    ),
    "apgd": lambda net, x, y, threat, seed=0: attacks.apgd(
        net, x, y, threat, steps=9, restarts=2, seed=seed
    ),
    "apgd, targeted": lambda net, x, y, threat, seed=0: attacks.apgd(
        net, x, y, threat, steps=6, targets=2, seed=seed
    ),
}


# Exact on linear rules.


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("boxed", [True, False])
@given(st.integers(1, 16), st.integers(0, 10**6), st.sampled_from([0.02, 0.1, 0.5]))
@settings(max_examples=12)
def test_linear_rules_get_their_worst_case(norm, boxed, d, seed, eps):
    net, w, b = rule(d, seed)
    x, y = right(net, 5, (d,), seed, torch.float64)
    threat = Threat(norm, eps, (0.0, 1.0) if boxed else None)
    sign = 2.0 * y.double() - 1
    worst = sign * linear.score(w, b, linear.worst_case(w, x, sign, threat))
    clean = sign * linear.score(w, b, x)
    for name, attack in EVERY.items():
        if name == "apgd, targeted":
            continue
        reached = attack(net, x, y, threat).margin
        # The ball is allowed a rounding of 1e-5·eps + 1e-6; nobody beats the optimum by more.
        slack = (1e-5 * eps + 1e-6) * threat.dual(w[None]).item()
        assert (reached >= worst - slack).all(), name
        if norm != "l2" or not boxed or name == "fgsm":  # see the next test
            assert (reached <= worst + 2e-6 * (clean - worst) + 1e-9).all(), name


@given(st.integers(1, 16), st.integers(0, 10**6), st.sampled_from([0.02, 0.1, 0.5]))
@settings(max_examples=10)
def test_pgd_on_the_corner_of_an_l2_ball_and_the_box_takes_more_steps(d, seed, eps):
    """There the best point is where the walls cut the sphere; steps get there by and by."""
    net, w, b = rule(d, seed)
    x, y = right(net, 5, (d,), seed, torch.float64)
    threat, sign = Threat("l2", eps), 2.0 * y.double() - 1
    worst = sign * linear.score(w, b, linear.worst_case(w, x, sign, threat))
    clean = sign * linear.score(w, b, x)
    reached = attacks.pgd(net, x, y, threat, steps=100, step=4 * eps).margin
    assert (reached <= worst + 1e-3 * (clean - worst) + 1e-9).all()


def test_fgsm_is_the_sign_step_cut_off_at_the_box():
    net, x, y = small()
    (g,) = torch.autograd.grad(nn.functional.cross_entropy(net(x.requires_grad_()), y), x)
    expected = (x + 0.1 * g.sign()).clamp(0, 1).detach()
    assert torch.allclose(attacks.fgsm(net, x, y, Threat("linf", 0.1)).x_adv, expected, atol=1e-7)


# What is proposed is allowed: the judge has nothing to refuse.


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("eps", [0.1, 8 / 255])
@given(st.integers(0, 10**6))
@settings(max_examples=8)
def test_every_proposal_is_allowed(norm, eps, seed):
    net, x, y = small(seed % 7)
    x = x.round() if seed % 2 else x  # pixels at the walls of the box
    threat = Threat(norm, eps)

    def judge(model, x_adv, *rest):
        assert threat.contains(x_adv, x).all()
        return real(model, x_adv, *rest)

    real, attacks.measure = attacks.measure, judge
    try:
        for attack in EVERY.values():
            attack(net, x, y, threat, seed=seed)
    finally:
        attacks.measure = real


# Best point, path, restarts, seeds.


@pytest.mark.parametrize("norm", NORMS)
def test_the_best_point_of_the_path_is_kept(norm):
    net, x, y = small()
    threat = Threat(norm, 2 * EPS[norm])
    result = attacks.pgd(net, x, y, threat, steps=12, step=threat.eps, keep_path=True)
    assert result.path.shape == (13, *x.shape)
    assert torch.equal(result.path[0], x)
    margins = torch.stack([margin(net(z), y) for z in result.path]).detach()
    assert all(threat.contains(z, x).all() for z in result.path)
    assert torch.equal(result.margin, margins.amin(0))
    assert (margins[-1] > margins.amin(0)).any()  # so the last point would have been another


def test_a_path_does_not_change_the_attack():
    net, x, y = small()
    plain = attacks.pgd(net, x, y, Threat("linf", 0.1), steps=4)
    kept = attacks.pgd(net, x, y, Threat("linf", 0.1), steps=4, keep_path=True)
    assert plain.path is None
    assert torch.equal(plain.x_adv, kept.x_adv)


@pytest.mark.parametrize("attack", [attacks.pgd, attacks.apgd])
@pytest.mark.parametrize("norm", NORMS)
def test_more_restarts_are_never_weaker_and_leave_the_broken_alone(attack, norm):
    net, x, y = digits(40)
    threat = Threat(norm, 0.7 * make.EPS["digits10"][norm])
    one, three = (attack(net, x, y, threat, steps=5, restarts=r) for r in (1, 3))
    # What one restart broke is kept to the bit; the others may only fall (to rounding: the
    # smaller batch of survivors).
    assert torch.equal(three.x_adv[one.success], one.x_adv[one.success])
    assert (three.margin <= one.margin + 1e-5).all()
    assert (three.margin < one.margin).any()


@pytest.mark.parametrize("attack", EVERY.values(), ids=EVERY)
@pytest.mark.parametrize("norm", NORMS)
def test_same_seed_same_bits_and_nothing_else_is_touched(attack, norm):
    head = models.mlp(64, 4)
    net = nn.Sequential(nn.BatchNorm2d(1), nn.Dropout(), *head).eval()
    x, y = right(net, 6, (1, 8, 8), 0)
    net[-1].weight.grad = torch.ones_like(net[-1].weight)
    net[-1].bias.requires_grad_(False)
    threat = Threat(norm, EPS[norm])
    with untouched(net, x, y):
        a, b = (attack(net, x, y, threat, seed=3) for _ in range(2))
    assert torch.equal(a.x_adv, b.x_adv)
    assert a.threat == threat
    assert a.x_adv.dtype == x.dtype
    assert not a.x_adv.requires_grad


def test_seeds_draw_other_starts():
    net, x, y = small()
    x_adv = [
        attacks.pgd(net, x, y, Threat("linf", 0.03), steps=1, step=1e-4, restarts=2, seed=s).x_adv
        for s in (0, 1)
    ]
    assert not torch.equal(*x_adv)


@pytest.mark.parametrize("recording", [True, False])
def test_an_example_that_asks_for_gradients_is_attacked_and_left_alone(recording):
    net, x, y = small()
    asking = x.clone().requires_grad_()
    for name, attack in EVERY.items():
        plain = attack(net, x, y, Threat("linf", 0.1)).x_adv
        with untouched(net, asking), torch.set_grad_enabled(recording):
            result = attack(net, asking, y, Threat("linf", 0.1))
        assert torch.equal(result.x_adv, plain), name
        assert not result.x_adv.requires_grad, name
    with untouched(net, asking), torch.set_grad_enabled(recording):
        assert not attacks.minimal(net, asking, y, "l2", steps=4).x_adv.requires_grad


@pytest.mark.parametrize(("norm", "times"), [("linf", 2.5), ("l2", 2.5), ("l1", 7.5)])
def test_steps_are_as_long_as_the_documentation_says(norm, times):
    net, x, y = digits()
    x, threat = 0.5 + 0 * x, Threat(norm, 0.3)  # far from the walls
    kept = attacks.pgd(net, x, y, threat, steps=10, keep_path=True).path
    lengths = threat.size(kept[1] - kept[0])
    assert torch.allclose(lengths, torch.tensor(times * 0.3 / 10), rtol=1e-4)
    kept = attacks.pgd(net, x, y, threat, steps=3, step=0.05, keep_path=True).path
    assert torch.allclose(threat.size(kept[1] - kept[0]), torch.tensor(0.05), rtol=1e-4)


def test_a_wrong_example_stays_where_it_is():
    net, x, y = small()
    for attack in EVERY.values():
        result = attack(net, x, (y + 1) % 4, Threat("linf", 0.1))
        assert torch.equal(result.x_adv, x)
        assert result.success.all()


# Gradients that are not numbers.


def half_nan(x):
    """Class 0 wins where the sum is above 3; the gradient of its last input is 0·∞ = NaN."""
    flat = x.flatten(1)
    total = flat.sum(1) + 0 * (flat[:, -1] * 0).sqrt()
    return torch.stack([total - 3, 3 - total], 1)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("attack", ["fgsm", "pgd", "apgd"])
def test_a_nan_in_the_gradient_stops_its_own_coordinate_only(norm, attack):
    x = torch.full((2, 6), 0.6)
    result = EVERY[attack](half_nan, x, torch.zeros(2, dtype=torch.int64), Threat(norm, 0.8))
    assert result.success.all()
    assert torch.equal(result.x_adv[:, -1], x[:, -1])
    assert result.x_adv.isfinite().all()


def test_a_gradient_that_is_one_number_expanded_is_no_obstacle():
    model = lambda x: torch.stack([x.sum((1, 2)), torch.full((len(x),), 2.0)], 1)
    x = torch.full((3, 2, 2), 0.6)
    for name, attack in EVERY.items():
        if name != "apgd, targeted":
            y = torch.zeros(3, dtype=torch.int64)
            assert attack(model, x, y, Threat("linf", 0.2)).success.all(), name


def test_a_logit_that_is_nan_counts_as_wrong_and_is_kept():
    model = lambda x: torch.stack([(x[:, 0] - 0.45).sqrt() + 1, x[:, 1] * 0], 1)
    x, y = torch.full((1, 2), 0.5), torch.zeros(1, dtype=torch.int64)
    result = attacks.pgd(model, x, y, Threat("linf", 0.1), steps=5)
    assert result.success.all()
    assert result.margin.isnan().all()


# Losses, against the formulas of the paper written out with sorting.


def test_dlr_is_the_ratio_of_croce_and_hein():
    logits = torch.randn(50, 6, generator=rng(0)).double()
    y, aim = torch.arange(50) % 6, (torch.arange(50) + 2) % 6
    value = attacks._objective("dlr")(logits, y)
    towards = attacks._towards(aim, "dlr")(logits, y)
    for i, z in enumerate(logits.tolist()):
        top = sorted(z, reverse=True)
        other = max(v for j, v in enumerate(z) if j != y[i])
        assert value[i].item() == pytest.approx(-(z[y[i]] - other) / (top[0] - top[2]))
        expected = -(z[y[i]] - z[aim[i]]) / (top[0] - (top[2] + top[3]) / 2)
        assert towards[i].item() == pytest.approx(expected)


def test_dlr_and_margin_do_not_see_the_scale_of_the_logits_and_ce_goes_blind():
    net, (x, y) = make.load("digits10"), make.batch("digits10")
    loud = lambda z: 1000 * net(z)
    threat = Threat("linf", 0.17)
    left = {
        (loss, model): attacks.pgd(model, x, y, threat, loss=loss).robust_accuracy_upper
        for loss in attacks.LOSSES
        for model in (net, loud)
    }
    assert left["margin", loud] == pytest.approx(left["margin", net], abs=0.011)
    assert left["dlr", loud] == pytest.approx(left["dlr", net], abs=0.011)
    assert left["ce", loud] > left["ce", net] + 0.3


def test_aims_are_the_likeliest_wrong_classes_in_order():
    net, x, y = small(classes=5)
    logits = net(x).detach()
    expected = [
        [j for j in logits[i].argsort(descending=True).tolist() if j != y[i]][:3]
        for i in range(len(x))
    ]
    assert attacks._aims(net, x, y, 3).tolist() == expected


# APGD.


def test_checkpoints_are_those_of_the_paper():
    """At 22 %, then after 19, 16, 13, 10, 7, 6, 6 % more."""
    assert sorted(attacks._checkpoints(100)) == [22, 41, 57, 70, 80, 87, 93, 99]


@pytest.mark.parametrize("norm", NORMS)
def test_apgd_finds_the_worst_point_of_a_ball_where_boundaries_are_bent(norm):
    """Two inputs, so a fine grid over the ball is the oracle; the grid is 1/400 of eps apart."""
    model, eps = hills(), 0.15
    x, y = right(model, 12, (2,), 5, torch.float64)
    side = torch.linspace(-eps, eps, 801, dtype=torch.float64)
    grid = torch.cartesian_prod(side, side)
    threat = Threat(norm, eps)
    result = attacks.apgd(model, x, y, threat, steps=50, targets=3)
    plain = attacks.apgd(model, x, y, threat, steps=50, loss="margin", restarts=3)
    for i in range(len(x)):
        z = x[i] + grid
        z = z[threat.contains(z, x[i].expand_as(z))]
        least = margin(model(z), y[i].expand(len(z))).min()
        for r in (result, plain):
            if least > 0.05 or least < -0.05:
                assert r.success[i] == (least <= 0)
        if not plain.success[i]:
            # A grid point is within eps/400 in each input; slopes are below 40 in each.
            assert plain.margin[i] == pytest.approx(least.item(), abs=2 * 40 * eps / 400)


# As strong as others, on the stored networks. `answers.json` says with what and when.


def rivals(part):
    """(network, label) for the answers whose label contains `part`."""
    return [
        (net, label) for net, rows in ANSWERS["robust_accuracy"].items() for label in rows
        if part(label)
    ]  # fmt: skip


def ours(net, label):
    name, norm = label.split()
    model, (x, y) = make.load(net), make.batch(net)
    threat = Threat(norm, ANSWERS["card"]["eps"][net][norm])
    if name.startswith("APGD"):
        kind = {"loss": name.split("-")[1]} if name != "APGD-T" else {"targets": 9}
        return attacks.apgd(model, x, y, threat, steps=50, **kind)
    if "FG" in name:
        return attacks.fgsm(model, x, y, threat)
    return attacks.pgd(model, x, y, threat, steps=20)


@pytest.mark.parametrize(("net", "label"), rivals(lambda label: "Square" not in label))
def test_at_least_as_strong_at_equal_steps(net, label):
    """Ours is one run from x, theirs the mean of three seeds. Slack: two images of 200."""
    theirs = ANSWERS["robust_accuracy"][net][label]
    n = len(make.batch(net)[0])
    assert ours(net, label).robust_accuracy_upper <= sum(theirs) / len(theirs) + 2.1 / n


@pytest.mark.parametrize("net", make.NETWORKS)
@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_minimal_is_within_five_percent_of_the_best_of_others(net, norm):
    model, (x, y) = make.load(net), make.batch(net)
    result = attacks.minimal(model, x, y, norm)
    far = torch.where(result.success, result.threat.size(result.x_adv - x), torch.inf)
    theirs = [v for k, v in ANSWERS["median_distance"][net].items() if k.split()[1] == norm]
    assert far.median().item() <= 1.05 * min(theirs)


# Minimal norm.


@pytest.mark.parametrize("norm", ["l2", "linf"])
@given(st.integers(1, 20), st.integers(0, 10**6))
@settings(max_examples=15)
def test_minimal_is_the_distance_of_a_linear_rule(norm, d, seed):
    net, w, b = rule(d, seed)
    x, y = right(net, 4, (d,), seed, torch.float64)
    result = attacks.minimal(net, x, y, norm, box=None)
    exact = linear.distance(w, b, x, norm)
    found = result.threat.size(result.x_adv - x)
    assert result.success.all()
    assert (found >= exact * (1 - 1e-9)).all()
    assert torch.allclose(found, exact, rtol=0.01)  # the last ball is 0.1 % tight, times steps


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_minimal_respects_the_box(norm):
    """The oracle: the least eps, by bisection, at which the exact worst case is wrong."""
    net, w, b = rule(12, 2)
    x, y = right(net, 10, (12,), 3, torch.float64)
    x = (1.5 * x - 0.25).clamp(0, 1)
    y = net(x).argmax(1)
    sign = 2.0 * y.double() - 1
    corner = Threat(norm, 1.0).size(torch.ones(1, 12)).item()  # the longest way in the box
    low, high = torch.zeros(10).double(), torch.full((10,), corner).double()
    for i in range(10):
        for _ in range(40):
            mid = (low[i] + high[i]) / 2
            one = slice(i, i + 1)
            z = linear.worst_case(w, x[one], sign[one], Threat(norm, mid.item()))
            broken = (sign[one] * linear.score(w, b, z) <= 0).item()
            low[i], high[i] = (low[i], mid) if broken else (mid, high[i])
    result = attacks.minimal(net, x, y, norm)
    found = result.threat.size(result.x_adv - x)
    assert torch.allclose(found[result.success], high[result.success], rtol=0.01)
    assert torch.equal(result.success, high < corner - 1e-6)


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_minimal_of_a_wrong_example_is_0_and_of_a_constant_rule_is_not_found(norm):
    net, x, y = small()
    with untouched(net, x):
        wrong = attacks.minimal(net, x, (y + 1) % 4, norm, steps=4)
    assert wrong.success.all()
    assert torch.equal(wrong.x_adv, x)
    constant = lambda z: torch.tensor([1.0, 0.0]).expand(len(z), 2) + 0 * z.flatten(1)[:, :1]
    none = attacks.minimal(constant, x, torch.zeros(6, dtype=torch.int64), norm, steps=4)
    assert not none.success.any()
    assert torch.equal(none.x_adv, x)


def test_minimal_of_a_seed_is_repeatable_and_every_point_wrong():
    net, x, y = digits()
    a, b, c = (attacks.minimal(net, x, y, "l2", steps=60, seed=s) for s in (0, 0, 1))
    assert torch.equal(a.x_adv, b.x_adv)
    assert not torch.equal(a.x_adv, c.x_adv)
    assert (margin(net(a.x_adv), y)[a.success] <= 0).all()


# Errors.


def test_errors_say_what_is_wrong():
    net, x, y = small()
    two = models.mlp(64, 2)
    yes, linf = y % 2, Threat("linf", 0.1)
    bad = [
        (lambda: attacks.fgsm(net, x, y, linf, loss="hinge"), "loss is 'hinge'; allowed: 'ce'"),
        (lambda: attacks.pgd(net, x, y, linf, loss="nll"), "loss is 'nll'"),
        (lambda: attacks.apgd(net, x, y, linf, loss="nll"), "loss is 'nll'"),
        (lambda: attacks.fgsm(two, x, yes, linf, loss="dlr"), "use loss='margin'"),
        (lambda: attacks.pgd(two, x, yes, linf, loss="dlr"), "needs 3 classes or more.* has 2"),
        (lambda: attacks.apgd(two, x, yes, linf, loss="dlr"), "use loss='margin'"),
        (
            lambda: attacks.apgd(two, x, yes, linf, loss="dlr", targets=1),
            "needs 4 classes or more.* has 2: use loss='margin'",
        ),
        (lambda: attacks.apgd(net, x, y, linf, targets=4), "targets is 4; the model has 4 classes"),
        (lambda: attacks.apgd(net, x, y, linf, targets=-1), "targets is -1"),
        (lambda: attacks.pgd(net, x, y, linf, steps=0), "steps is 0; expected a whole number ≥ 1"),
        (lambda: attacks.pgd(net, x, y, linf, steps=2.5), "steps is 2.5"),
        (lambda: attacks.apgd(net, x, y, linf, steps=0), "steps is 0"),
        (lambda: attacks.pgd(net, x, y, linf, restarts=0), "restarts is 0"),
        (lambda: attacks.apgd(net, x, y, linf, restarts=0), "restarts is 0"),
        (lambda: attacks.pgd(net, x, y, linf, step=-0.01), "step is -0.01; expected a length > 0"),
        (lambda: attacks.pgd(net, x, y, linf, step=float("nan")), "step is nan"),
        (
            lambda: attacks.pgd(net, x, y, linf, keep_path=True, restarts=2),
            "keep_path is True with restarts=2",
        ),
        (lambda: attacks.minimal(net, x, y, "l1"), "norm is 'l1'; a minimal attack knows"),
        (lambda: attacks.minimal(net, x, y, "l3"), "norm is 'l3'"),
        (lambda: attacks.minimal(net, x, y, "l2", steps=1), "steps is 1"),
        (lambda: attacks.minimal(net, 255 * x, y, "l2"), "divide by 255"),
        (lambda: attacks.pgd(net, x, y, Threat("l2", 50.0)), "eps is in units of the input"),
        (lambda: attacks.pgd(net, x, y + 4, linf), "y runs from"),
        (lambda: attacks.fgsm(net.train(), x, y, linf), "training mode"),
    ]
    for call, words in bad:
        with unchecked(), pytest.raises(ValueError, match=words):
            call()


def test_a_failed_attack_leaves_the_network_as_it_was():
    net = models.mlp(64, 2)
    x, y = right(net, 3, (1, 8, 8), 0)
    with untouched(net, x), pytest.raises(ValueError, match="dlr"):
        attacks.pgd(net, x, y, Threat("linf", 0.1), loss="dlr")


def test_targets_of_few_classes_take_the_margin():
    net = models.mlp(64, 3)
    x, y = right(net, 4, (1, 8, 8), 0)
    left = attacks.apgd(net, x, y, Threat("linf", 0.1), steps=5, targets=2)
    same = attacks.apgd(net, x, y, Threat("linf", 0.1), steps=5, targets=2, loss="margin")
    assert torch.equal(left.x_adv, same.x_adv)


def test_shapes_are_checked():
    net, x, y = small()
    for attack in (attacks.fgsm, attacks.pgd, attacks.apgd):
        with pytest.raises(jaxtyping.TypeCheckError):
            attack(net, x, y[:-1], Threat("linf", 0.1))
        with pytest.raises(jaxtyping.TypeCheckError):
            attack(net, x.int(), y, Threat("linf", 0.1))
    with pytest.raises(jaxtyping.TypeCheckError):
        attacks.minimal(net, x, y[:, None], "l2")


@pytest.mark.gpu
@pytest.mark.parametrize("norm", NORMS)
def test_on_cuda_the_answer_stays_there_and_repeats(norm):
    net, (x, y) = make.load("digits10").cuda(), [t.cuda() for t in make.batch("digits10")]
    threat = Threat(norm, make.EPS["digits10"][norm])
    for attack in EVERY.values():
        result = attack(net, x, y, threat)
        assert result.x_adv.is_cuda
        assert threat.contains(result.x_adv, x).all()
    if norm != "l1":
        assert attacks.minimal(net, x, y, norm).success.all()
    on_cpu = attacks.pgd(make.load("digits10"), x.cpu(), y.cpu(), threat)
    there = attacks.pgd(net, x, y, threat)
    assert there.robust_accuracy_upper == pytest.approx(on_cpu.robust_accuracy_upper, abs=0.02)
