"""Certificates by sampling: the formulas, the level exactly, and the same draws whoever draws."""

import math
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import numpy as np
import pytest
import torch
from helpers import Half, rng, untouched
from scipy import stats

from robcourse import models, smoothing
from robcourse.intervals import clopper_pearson_lower
from robcourse.smoothing import Plan


@pytest.fixture
def line():
    """Images of one pixel that matters, on a grid, away from the wall."""
    x = torch.rand(30, 1, 2, 2, generator=rng(0))
    x[:, 0, 0, 0] = torch.linspace(0.05, 0.95, 30)
    return x


# The formulas


def test_the_radius_is_sigma_times_the_quantile():
    p = torch.tensor([0.5, 0.7, 0.99, 1.0, 0.2], dtype=torch.float64)
    found = smoothing.radius(p, 0.25)
    wanted = 0.25 * stats.norm.ppf(p.numpy())
    np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-12)
    assert found[0] == 0
    assert found[3] == torch.inf
    assert found[4] < 0
    both = smoothing.radius(torch.tensor(0.45), 1.0, torch.tensor(0.3))
    assert float(both) == pytest.approx((stats.norm.ppf(0.45) - stats.norm.ppf(0.3)) / 2, rel=1e-6)
    assert float(smoothing.radius(0.9, 1.0, 0.1)) == pytest.approx(
        float(smoothing.radius(0.9, 1.0))
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"p_a": 0.7, "sigma": 0.0}, "sigma is 0.0"),
        ({"p_a": 1.2, "sigma": 1.0}, "p_a is"),
        ({"p_a": 0.7, "sigma": 1.0, "p_b": -0.1}, "p_b is"),
        ({"p_a": math.nan, "sigma": 1.0}, "p_a is"),
    ],
)
def test_a_radius_of_nonsense_is_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        smoothing.radius(**arguments)


def test_for_a_ball_the_certificate_is_below_the_true_radius():
    """Class A is a ball around x: its mass after a shift is a noncentral chi-square."""
    d, sigma, p = 10, 0.5, 0.9
    reach = stats.chi2.ppf(p, d)
    mass = lambda shift: stats.ncx2.cdf(reach, d, (shift / sigma) ** 2) if shift else p
    certified = float(smoothing.radius(p, sigma))
    assert mass(certified) > 0.5
    assert mass(2 * certified) > mass(3 * certified)


# The level


@pytest.mark.parametrize("n", [100, 1000, 10_000])
@pytest.mark.parametrize("alpha", [0.05, 1e-3])
def test_the_level_is_held_exactly(n, alpha):
    """For every p: P(lower bound > p) ≤ α, summed over the binomial; and not much less."""
    bound = clopper_pearson_lower(torch.arange(n + 1), n, alpha).numpy()
    grid = np.concatenate([np.linspace(0.5, 0.999, 60), [1 - 1e-4, 1 - 1e-6]])
    worst = 0.0
    for p in grid:
        first = int(
            np.searchsorted(bound, p, side="right")
        )  # the least count whose bound exceeds p
        fails = stats.binom.sf(first - 1, n, p) if first <= n else 0.0
        assert fails <= alpha * (1 + 1e-9), p
        worst = max(worst, fails)
    assert worst > alpha / 4


def test_the_fewest_hits_are_those_of_the_bound():
    for n, alpha in ((5, 0.05), (100, 0.001), (1000, 0.05), (4, 0.001)):
        bounds = clopper_pearson_lower(torch.arange(n + 1), n, alpha)
        enough = (bounds > 0.5).nonzero()
        wanted = int(enough[0]) if len(enough) else n + 1
        assert Plan(1.0, 2, 10, n, alpha).fewest() == wanted


def test_ten_thousand_certificates_fail_no_more_often_than_they_may():
    """The truth is the distance to the wall; a sound engine fails so often once in a million."""
    alpha, sigma, m = 0.05, 0.25, 10_000
    x = torch.full((m, 1), 0.5 + 0.1)
    found = smoothing.certify(
        Half().eval(), x, sigma=sigma, classes=2, n0=10, n=100, alpha=alpha, batch=20_000, seed=3
    )
    wrong = int(((found.radius > 0.1 + 1e-7) & (found.label == 1)).sum())
    wrong += int(((found.radius > 0) & (found.label == 0)).sum())
    assert stats.binom.sf(wrong - 1, m, alpha) > 1e-6
    assert wrong > 0  # a bound that never fails gives radii away


def test_a_certificate_is_below_the_distance_and_near_it(line):
    found = smoothing.certify(Half().eval(), line, sigma=0.5, classes=2, n=20_000, batch=5000)
    true = (line[:, 0, 0, 0] - 0.5).abs().double()
    assert found.norm == "l2"
    assert found.failure_prob == 1e-3
    assert (found.radius <= true + 1e-7).all()  # a failure has probability 0.03 in all, at most
    assert (found.radius[~found.abstain] > true[~found.abstain] - 0.05).all()
    truth = (line[:, 0, 0, 0] > 0.5).long()
    assert torch.equal(found.label[~found.abstain], truth[~found.abstain])
    assert (found.radius[found.abstain] == 0).all()


def test_no_count_certifies_beyond_the_ceiling(line):
    far = line.clone()
    far[:, 0, 0, 0] = 1.0
    found = smoothing.certify(Half().eval(), far, sigma=0.05, classes=2, n=1000)
    ceiling = 0.05 * stats.norm.ppf(1e-3 ** (1 / 1000))
    assert (found.radius <= ceiling).all()
    assert found.radius.numpy() == pytest.approx(ceiling, rel=1e-9)


# The engine


def test_draws_depend_on_seed_image_and_block_alone(line):
    options = {"sigma": 0.3, "classes": 2, "n0": 30, "n": 450, "alpha": 0.01}
    model, seen = Half().eval(), []
    with untouched(model):
        whole = smoothing.certify(model, line, **options, on_image=seen.append)
    assert sorted(c.image for c in seen) == list(range(30))
    assert any(c.drawn < 450 for c in seen)  # some were given up
    for other in ({"batch": 100}, {"batch": 700}, {"batch": 100_000}):
        same = []
        again = smoothing.certify(model, line, **options, **other, on_image=same.append)
        assert torch.equal(again.radius, whole.radius)
        assert {c.image: c for c in same} == {c.image: c for c in seen}
    part = smoothing.certify(model, line[7:12], **options, images=range(7, 12))
    assert torch.equal(part.radius, whole.radius[7:12])
    other = smoothing.certify(model, line, **options, seed=1)
    assert not torch.equal(other.radius, whole.radius)


@pytest.mark.parametrize("pool", [ThreadPoolExecutor, ProcessPoolExecutor])
def test_whoever_draws_the_counts_are_the_same(line, pool):
    options = {"sigma": 0.3, "classes": 2, "n": 300}
    alone = smoothing.certify(Half().eval(), line, **options)
    net, images = models.small_conv((3, 8, 8), 2, width=8), torch.rand(9, 3, 8, 8, generator=rng(1))
    deep = smoothing.certify(net, images, **options)  # its threads are running when it forks
    with pool(2) as executor, untouched(net):
        shared = smoothing.certify(Half().eval(), line, **options, executor=executor)
        again = smoothing.certify(net, images, **options, executor=executor)
    for one, other in ((alone, shared), (deep, again)):
        assert torch.equal(one.radius, other.radius)
        assert torch.equal(one.label, other.label)


def test_what_is_given_up_could_not_have_been_certified(line, monkeypatch):
    options = {"sigma": 0.6, "classes": 2, "n": 500, "alpha": 0.01}
    early = smoothing.certify(Half().eval(), line, **options)
    monkeypatch.setattr(Plan, "fewest", lambda self: 0)  # never give up
    late = smoothing.certify(Half().eval(), line, **options)
    assert torch.equal(early.radius, late.radius)
    assert torch.equal(early.abstain, late.abstain)
    assert early.abstain.any()


def test_blocks_of_an_image_have_seeds_of_their_own_and_look_normal():
    pieces = [smoothing.Piece(0, 5, stage, b, 100) for stage in (0, 1) for b in range(3000)]
    seeds = {smoothing._seed(0, piece) for piece in pieces}
    assert len(seeds) == len(pieces)
    x = torch.zeros(1, 4)
    drawn = []

    def keep(noisy):
        drawn.append(noisy.clone())
        return torch.zeros(len(noisy), 2)

    plan = Plan(2.0, 2, 1, 100)
    for piece in pieces[:60]:
        smoothing._draw(keep, x, plan, [piece])
    noise = torch.cat(drawn)
    assert stats.kstest(noise.flatten().numpy() / 2, "norm").pvalue > 1e-4
    lag = np.corrcoef(noise[:-100].flatten(), noise[100:].flatten())[0, 1]
    assert abs(lag) < 5 / math.sqrt(noise.numel())


def test_memory_is_bounded_by_the_batch(line):
    sizes = []

    def model(x):
        sizes.append(len(x))
        return Half()(x)

    smoothing.certify(model, line, sigma=0.3, classes=2, n=2000, batch=400)
    assert max(sizes) <= 400
    full = sum(s == 400 for s in sizes)
    assert full >= 0.9 * len(sizes)  # batches fill up across images


class Flat(torch.nn.Module):
    """Answers by the brightness of the first pixel; keeps what it was given."""

    def __init__(self, flatten):
        super().__init__()
        self.flatten, self.given = flatten, []

    def forward(self, x):
        self.given.append(x)
        first = self.flatten(x)[:, :1]
        return torch.cat([first, 0.5 - first], 1)


def test_colour_images_come_channels_last_to_a_model_that_takes_them_so():
    x = torch.rand(9, 3, 4, 5, generator=rng(3))
    takes = Flat(lambda z: z.flatten(1)).eval()
    refuses = Flat(lambda z: z.view(len(z), -1)).eval()  # fails on any other layout
    options = {"sigma": 0.5, "classes": 2, "n": 300}
    one, other = (smoothing.certify(model, x, **options) for model in (takes, refuses))
    assert torch.equal(one.radius, other.radius)
    last = {"memory_format": torch.channels_last}
    passes = [[z for z in model.given if len(z) >= 100] for model in (takes, refuses)]
    assert len(passes[0]) == len(passes[1]) == 4
    for a, b in zip(*passes, strict=True):
        assert torch.equal(a, b)  # the draws do not depend on it
        assert a.is_contiguous(**last)
        assert b.is_contiguous()


def test_a_network_is_certified_in_float64_too():
    net = models.small_conv((1, 4, 4), 3, width=2).double()
    x = torch.rand(2, 1, 4, 4, generator=rng(2)).double()
    found = smoothing.certify(net, x, sigma=0.1, classes=3, n=200)
    assert found.radius.dtype == torch.float64


def test_prediction_abstains_where_classes_cannot_be_told_apart(line):
    found = smoothing.predict(Half().eval(), line, sigma=0.3, classes=2, n=250, alpha=0.01)
    assert (found.counts.sum(1) == 250).all()
    near = (line[:, 0, 0, 0] - 0.5).abs() < 0.01
    assert found.abstain[near].all()
    assert not found.abstain[(line[:, 0, 0, 0] - 0.5).abs() > 0.2].any()
    for i in (0, 14):
        a, b = sorted(found.counts[i].tolist(), reverse=True)
        assert bool(found.abstain[i]) == (stats.binomtest(a, a + b).pvalue > 0.01)
    wrong = found.label[~found.abstain] != (line[:, 0, 0, 0] > 0.5).long()[~found.abstain]
    assert not wrong.any()


# What is refused


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"sigma": 0.0}, "sigma is 0"),
        ({"sigma": math.nan}, "sigma is nan"),
        ({"n": 0}, "n is 0"),
        ({"n0": 0}, "n0 is 0"),
        ({"alpha": 0.0}, "alpha is 0"),
        ({"alpha": 1.0}, "alpha is 1"),
        ({"batch": 99}, "blocks of 100"),
        ({"classes": 1}, "classes is 1"),
        ({"classes": 3}, "classes is 3; the model has 2"),
        ({"images": [0, 0]}, "expected each once"),
    ],
)
def test_bad_settings_are_refused(line, change, words):
    options = {"sigma": 0.3, "classes": 2} | change
    with pytest.raises(ValueError, match=words):
        smoothing.certify(Half().eval(), line[:2], **options)


def test_a_model_that_fails_under_noise_is_named(line):
    class Nan(Half):
        def forward(self, x):
            outside = x.amax((1, 2, 3))[:, None] > 1.0
            return torch.where(outside, torch.nan, super().forward(x))

    class Shape(Half):
        def forward(self, x):
            return super().forward(x)[: max(len(x) - 1, 1)]

    with pytest.raises(ValueError, match="NaN for image"):
        smoothing.certify(Nan().eval(), line, sigma=0.3, classes=2)
    with pytest.raises(ValueError, match=r"expected \(1000, 2\)"):
        smoothing.certify(Shape().eval(), line, sigma=0.3, classes=2)


@pytest.mark.gpu
def test_certifies_on_cuda(line):
    here = smoothing.certify(Half().eval(), line, sigma=0.3, classes=2, n=5000)
    there = smoothing.certify(Half().eval().cuda(), line.cuda(), sigma=0.3, classes=2, n=5000)
    assert there.radius.is_cuda
    assert (here.radius - there.radius.cpu()).abs().max() < 0.1
