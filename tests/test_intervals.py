"""Clopper–Pearson bounds against SciPy's test, exact rational tails and exact coverage."""

import doctest
from fractions import Fraction
from math import comb

import pytest
import torch
from scipy.stats import binom, binomtest

from robcourse import intervals
from robcourse.intervals import clopper_pearson, clopper_pearson_lower, clopper_pearson_upper

COUNTS = [(0, 1), (1, 1), (0, 7), (3, 7), (7, 7), (172, 175), (1, 10_000), (99_999, 100_000)]


@pytest.mark.parametrize(("k", "n"), COUNTS)
@pytest.mark.parametrize("alpha", [0.5, 0.05, 1e-3, 1e-6])
def test_agrees_with_scipys_binomial_test(k, n, alpha):
    # SciPy solves for p with a root finder whose tolerance is about 1e-12 absolute.
    near = lambda value: pytest.approx(value, rel=1e-8, abs=1e-11)
    exact = lambda side: binomtest(k, n, alternative=side).proportion_ci(1 - alpha, method="exact")
    assert clopper_pearson_lower(k, n, alpha).item() == near(exact("greater").low)
    assert clopper_pearson_upper(k, n, alpha).item() == near(exact("less").high)
    low, high = clopper_pearson(k, n, alpha)
    assert (low.item(), high.item()) == (
        near(exact("two-sided").low),
        near(exact("two-sided").high),
    )


@pytest.mark.parametrize(("k", "n"), [(1, 1), (1, 9), (5, 9), (9, 9), (70, 100), (100, 100)])
@pytest.mark.parametrize("alpha", [0.25, 0.05, 1e-3])
def test_bounds_are_rounded_outward(k, n, alpha):
    """In rational arithmetic: the tail at the bound is at most α, and hardly less."""

    def at_least(p, k):
        p = Fraction(p)
        return sum(comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(k, n + 1))

    above = at_least(clopper_pearson_lower(k, n, alpha).item(), k)
    below = 1 - at_least(clopper_pearson_upper(n - k, n, alpha).item(), n - k + 1)
    for tail in (above, below):
        assert tail <= Fraction(alpha)
        assert float(tail) == pytest.approx(alpha, rel=1e-7)  # 1e-11 of p is ≤ n·1e-11 of the tail


@pytest.mark.parametrize("n", [1, 5, 20, 100])
@pytest.mark.parametrize("alpha", [0.3, 0.05, 1e-3])
def test_covers_every_true_share(n, alpha):
    """The probability of a wrong bound, summed over all counts, is at most α at every p."""
    k = torch.arange(n + 1)
    low, high = clopper_pearson_lower(k, n, alpha), clopper_pearson_upper(k, n, alpha)
    both = clopper_pearson(k, n, alpha)
    # Coverage is least just beside a bound, so those points are looked at as well as a grid.
    grid = torch.linspace(0, 1, 501, dtype=torch.float64)
    p = torch.cat([grid, low - 1e-9, low + 1e-9, high - 1e-9, high + 1e-9]).clamp(0, 1)[:, None]
    mass = torch.as_tensor(binom.pmf(k.numpy(), n, p.numpy()))
    for wrong in (low > p, high < p, (both[0] > p) | (both[1] < p)):
        assert (mass * wrong).sum(1).max() <= alpha + 1e-12  # rounding of the sum


def test_all_right_is_not_certainty():
    n = torch.tensor([1, 10, 100, 100_000])
    expected = 0.001 ** (1 / n.double())
    torch.testing.assert_close(clopper_pearson_lower(n, n, 0.001), expected, rtol=1e-10, atol=0)
    assert (clopper_pearson_upper(n, n, 0.001) == 1).all()
    assert (clopper_pearson_lower(0, n, 0.001) == 0).all()


def test_counts_broadcast_and_results_are_float64():
    k = torch.tensor([[0], [3]], dtype=torch.int32)
    low, high = clopper_pearson(k, torch.tensor([3, 5, 8]), 0.1)
    assert low.shape == high.shape == (2, 3)
    assert low.dtype == high.dtype == torch.float64
    assert low[1, 2] == clopper_pearson_lower(3, 8, 0.05)
    assert clopper_pearson_lower(3, 8, 0.05).shape == ()


@pytest.mark.parametrize("bound", [clopper_pearson_lower, clopper_pearson_upper, clopper_pearson])
@pytest.mark.parametrize(
    ("k", "n", "alpha", "message"),
    [
        (8, 7, 0.05, "k is 8 of n = 7; expected 0 ≤ k ≤ n"),
        (torch.tensor([1, -2]), 7, 0.05, "k is -2 of n = 7"),
        (0, 0, 0.05, "n is 0; expected at least 1"),
        (1, 7, 0.0, "alpha is 0.0"),
        (1, 7, 1.0, "alpha is 1.0"),
        (1, 7, float("nan"), "alpha is nan"),
    ],
)
def test_refuses_what_is_no_count(bound, k, n, alpha, message):
    with pytest.raises(ValueError, match=message):
        bound(k, n, alpha)


@pytest.mark.parametrize("k", [torch.tensor(0.5), torch.tensor(3.0), torch.tensor(True)])
def test_refuses_shares_in_place_of_counts(k):
    # `_counts` is asked, because the annotations, where they are checked, refuse first.
    with pytest.raises(TypeError, match=r"k is of torch.*; expected whole counts"):
        intervals._counts(k, 7, 0.05)


def test_the_printed_share_is_as_its_example_says():
    assert doctest.testmod(intervals).attempted >= 1
    assert doctest.testmod(intervals).failed == 0
