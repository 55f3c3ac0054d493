"""Curves: their side, their interval, and what is refused."""

import dataclasses

import pytest
import torch
from helpers import rng, unchecked, untouched
from scipy.stats import binomtest

from robcourse import attacks, linear, risk
from robcourse.threat import AttackResult, Certificate, Threat


def result(survived: list[bool], eps: float, *, norm: str = "linf", box=(0.0, 1.0)) -> AttackResult:
    alive = torch.tensor(survived)
    x = torch.zeros(len(alive), 3)
    return AttackResult(x, ~alive, alive.float() - 0.5, Threat(norm, eps, box))


def interval(k: int, n: int, level: float):
    found = binomtest(k, n).proportion_ci(level, method="exact")
    return pytest.approx(found.low, abs=1e-9), pytest.approx(found.high, abs=1e-9)


def test_an_attack_bounds_from_above_with_an_exact_interval():
    results = [
        result([True, False, False, False], 0.2),
        result([True, True, True, False], 0.0),  # the order does not matter
        result([True, True, False, False], 0.1),
    ]
    c = risk.curve(results, alpha=0.1, label="PGD")
    assert (c.side, c.n, c.label) == ("upper", 4, "PGD")
    assert c.eps.tolist() == [0.0, 0.1, 0.2]
    assert c.value.tolist() == [0.75, 0.5, 0.25]
    for at, k in enumerate([3, 2, 1]):
        assert (c.low[at].item(), c.high[at].item()) == interval(k, 4, 0.9)
    assert risk.curve(results).label == "attack, ℓ∞"


def test_an_attack_that_won_with_less_has_won_with_more():
    c = risk.curve([result([True, False, True], 0.1), result([False, True, True], 0.2)])
    assert c.value.tolist() == pytest.approx([2 / 3, 1 / 3])


def test_the_attack_is_above_the_truth_and_the_certificate_below():
    """A linear rule, without a box: FGSM and the distance are exact, so all three curves meet."""
    w, b = torch.randn(6, generator=rng(1)), 0.1
    x = torch.randn(200, 6, generator=rng(2)) + 0.4 * w
    y = (torch.rand(200, generator=rng(3)) < 0.9).long()
    sign = 2 * y - 1
    eps = [0.05, 0.1, 0.3, 0.7]
    model = lambda x: torch.stack([torch.zeros(len(x)), x @ w + b], 1)
    with untouched(None, x, y, w):
        attacked = risk.curve([attacks.fgsm(model, x, y, Threat("linf", e, None)) for e in eps])
        proved = risk.curve(
            Certificate((x @ w + b > 0).long(), linear.distance(w, b, x, "linf"), "linf"),
            y=y, radii=torch.tensor(eps),
        )  # fmt: skip
        right = [round(200 * (1 - linear.robust_risk(w, b, x, sign, Threat("linf", e, None))))
                 for e in eps]  # fmt: skip
        exact = risk.exact_curve(eps, right, 200, label="closed form")
    assert (proved.side, exact.side) == ("lower", "exact")
    assert exact.value.tolist() == proved.value.tolist() == attacked.value.tolist()
    assert exact.eps.tolist() == eps
    assert proved.label == "certificate, ℓ∞"


def test_an_abstention_and_a_wrong_label_certify_nothing():
    certificate = Certificate(
        label=torch.tensor([0, 1, 1, 0]),
        radius=torch.tensor([0.3, 0.5, 0.5, 0.2]),
        norm="l2",
        failure_prob=0.01,
        abstain=torch.tensor([False, False, False, True]),
    )
    y = torch.tensor([0, 1, 0, 0])
    c = risk.curve(certificate, y=y, radii=torch.tensor([0.0, 0.3, 0.4, 0.5]).double())
    assert c.value.tolist() == [0.5, 0.25, 0.25, 0.0]  # radius > eps is strict: .3 and .5 are out
    low, high = interval(2, 4, 0.95)
    assert c.low[0].item() + 0.01 == low  # the certificates may fail: that comes on top
    assert c.high[0].item() == high
    assert c.low[-1] == 0
    grid = risk.curve(certificate, y=y)
    assert (grid.eps[0].item(), len(grid.eps)) == (0.0, 101)
    assert grid.eps[-1].item() == pytest.approx(0.5)


def test_a_certificate_without_a_limit_has_a_grid_too():
    c = risk.curve(
        Certificate(torch.zeros(2).long(), torch.full((2,), torch.inf), "l2"),
        y=torch.zeros(2).long(),
    )
    assert (c.value == 1).all()
    assert c.eps.isfinite().all()


REFUSED = {
    "results is empty": lambda: risk.curve([]),
    r"different norms: l2, linf": lambda: risk.curve(
        [result([True], 0.1), result([True], 0.2, norm="l2")]
    ),
    "different boxes": lambda: risk.curve([result([True], 0.1), result([True], 0.2, box=None)]),
    "different numbers of examples: 1, 2": lambda: risk.curve(
        [result([True], 0.1), result([True, True], 0.2)]
    ),
    "each once, ascending": lambda: risk.curve([result([True], 0.1), result([True], 0.1)]),
    "y and radii go with a certificate": lambda: risk.curve(
        [result([True], 0.1)], y=torch.zeros(1).long()
    ),
    "y is None; a certificate needs": lambda: risk.curve(
        Certificate(torch.zeros(2).long(), torch.ones(2), "l2")
    ),
    "y has 3 labels; the certificate has 2": lambda: risk.curve(
        Certificate(torch.zeros(2).long(), torch.ones(2), "l2"), y=torch.zeros(3).long()
    ),
    "alpha is 1.5": lambda: risk.curve([result([True], 0.1)], alpha=1.5),
    "the value rises from 0.25 to 0.5 between ε = 0.1 and 0.2": lambda: risk.exact_curve(
        [0.1, 0.2], [1, 2], 4
    ),
    "k is 5 of n = 4": lambda: risk.exact_curve([0.1], [5], 4),
    r"expected radii ≥ 0": lambda: risk.exact_curve([-0.1, 0.2], [2, 1], 4),
}


@pytest.mark.parametrize("message", REFUSED)
def test_refuses_what_is_no_curve(message):
    with unchecked(), pytest.raises(ValueError, match=message):
        REFUSED[message]()


def test_refuses_results_of_another_kind():
    with unchecked(), pytest.raises(TypeError, match="expected attack results, or one certificate"):
        risk.curve([Certificate(torch.zeros(2).long(), torch.ones(2), "l2")])


def test_a_curve_checks_its_own_fields():
    c = risk.exact_curve([0.1, 0.2], [2, 1], 4)
    with pytest.raises(ValueError, match="side is 'above'; allowed: 'lower', 'upper', 'exact'"):
        dataclasses.replace(c, side="above")
    with pytest.raises(ValueError, match="outside its interval"):
        dataclasses.replace(c, low=c.value + 0.1)
