"""Curves: their side, their interval, and what is refused."""

import dataclasses
import itertools
from statistics import NormalDist

import numpy as np
import pytest
import torch
from helpers import rng, unchecked, untouched
from scipy.stats import binomtest

from robcourse import attacks, linear, risk
from robcourse.threat import AttackResult, Certificate, Threat, measure


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


# Decomposition


@pytest.fixture
def line():
    """A rule on one input, right above ½, and eight examples."""
    model = lambda x: torch.cat([torch.full_like(x, 0.5), x], 1)
    x = torch.tensor([0.1, 0.2, 0.3, 0.45, 0.55, 0.6, 0.7, 0.9])[:, None]
    y = torch.tensor([0, 0, 1, 0, 1, 0, 1, 1])  # two are wrong at x
    return model, x, y


def test_natural_and_boundary_risk_add_up_and_flips_are_not_won(line):
    model, x, y = line
    threat = Threat("linf", 0.08)
    # A proposal that turns both wrong answers into right ones, and two right ones into wrong ones.
    proposal = x + torch.tensor([0, 0, 0.08, 0.08, -0.08, -0.08, 0, 0])[:, None]
    attack = measure(model, proposal, x, y, threat)
    risks = risk.decompose(model, x, y, attack)
    assert (risks.natural, risks.boundary, risks.robust) == (2 / 8, 2 / 8, 4 / 8)
    assert risks.natural + risks.boundary == risks.robust


def test_an_attack_of_another_model_or_batch_is_refused(line):
    model, x, y = line
    attack = measure(model, x, x, y, Threat("linf", 0.1))
    with pytest.raises(ValueError, match="has 8 examples, y has 7"):
        risk.decompose(model, x[:7], y[:7], attack)
    with pytest.raises(ValueError, match="of another model"):
        risk.decompose(lambda x: -model(x), x, y, attack)


# The least risk of any classifier


def brute_force(x: list[float], y: list[int], eps: float, classes: int) -> float:
    """Every labelling of the line that the closed intervals [x − eps, x + eps] can tell apart."""
    ends = sorted({round(v + s * eps, 9) for v in x for s in (-1, 1)})
    points = np.array(sorted({*ends, *((a + b) / 2 for a, b in itertools.pairwise(ends))}))
    labels = np.array(list(itertools.product(range(classes), repeat=len(points))))
    right = 0
    for v, label in zip(x, y, strict=True):
        inside = np.abs(points - v) <= eps + 1e-9
        right = right + (labels[:, inside] == label).all(1)
    return 1 - right.max() / len(x)


@pytest.mark.parametrize("classes", [2, 3])
def test_it_is_the_least_over_all_labellings(classes):
    gen = rng(classes)
    for _ in range(12):
        n = 5 - classes + 1
        at = torch.randint(12, (n,), generator=gen)
        x, y = at / 11, torch.randint(classes, (n,), generator=gen)
        found = risk.optimal_transport(x[:, None], y, Threat("linf", 1 / 11))
        exact = [k / 11 for k in at.tolist()]  # x is rounded to float32
        wanted = brute_force(exact, y.tolist(), 1 / 11, classes)
        assert found.exact
        assert found.lower == found.upper == pytest.approx(wanted, abs=1e-12), (x, y)


def independent(pairs, n: int) -> int:
    """The largest set of examples without a conflict, over all sets."""
    sets = (np.arange(2**n)[:, None] >> np.arange(n)) & 1
    clash = np.zeros(len(sets), bool)
    for i, j in pairs:
        clash |= (sets[:, i] & sets[:, j]).astype(bool)
    return sets.sum(1)[~clash].max()


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize("classes", [2, 3, 5])
def test_it_is_a_smallest_cover_of_the_conflicts(norm, classes):
    for seed in range(6):
        x = torch.rand(13, 2, generator=rng(seed))
        y = torch.randint(classes, (13,), generator=rng(seed + 50))
        threat = Threat(norm, 0.12)
        found = risk.optimal_transport(x, y, threat)
        order = {"linf": np.inf, "l2": 2, "l1": 1}[norm]
        apart = np.linalg.norm((x[:, None] - x[None]).double().numpy(), order, axis=2)
        every = itertools.combinations(range(13), 2)
        wanted = [(i, j) for i, j in every if y[i] != y[j] and apart[i, j] <= 0.24]
        assert sorted(map(tuple, found.pairs.tolist())) == wanted
        assert found.exact
        assert found.lower == found.upper == pytest.approx(1 - independent(wanted, 13) / 13)
        cover = set(found.cover.tolist())
        assert len(cover) == round(found.upper * 13)
        assert all(i in cover or j in cover for i, j in wanted)
        assert float(found) == found.lower


def test_two_atoms_conflict_up_to_twice_eps_and_not_beyond():
    x, y = torch.tensor([[0.25], [0.75]]), torch.tensor([0, 1])
    assert float(risk.optimal_transport(x, y, Threat("linf", 0.25))) == 0.5
    assert float(risk.optimal_transport(x, y, Threat("linf", 0.2499))) == 0.0


def test_bytes_exactly_twice_eps_apart_conflict_whatever_float32_made_of_them():
    for k in range(1, 128):
        x = torch.tensor([[0.0], [2 * k / 255]])
        assert len(risk.optimal_transport(x, torch.tensor([0, 1]), Threat("linf", k / 255)).pairs)
        beyond = Threat("linf", (k - 0.01) / 255)
        assert not len(risk.optimal_transport(x, torch.tensor([0, 1]), beyond).pairs)


def test_a_star_costs_one_error_and_not_its_degree():
    x = torch.tensor([[0.5], [0.4], [0.45], [0.55], [0.6]])
    y = torch.tensor([1, 0, 0, 0, 0])
    found = risk.optimal_transport(x, y, Threat("linf", 0.06))
    assert len(found.pairs) == 4
    assert found.lower == 1 / 5
    assert found.cover.tolist() == [0]


def test_three_classes_at_one_point_cost_two_errors_of_three():
    x, y = torch.full((3, 2), 0.5), torch.tensor([0, 1, 2])
    found = risk.optimal_transport(x, y, Threat("l2", 0.1))
    assert found.exact
    assert found.lower == pytest.approx(2 / 3)


def test_on_a_large_gaussian_sample_it_is_near_the_closed_form():
    n, eps = 3000, 0.5
    y = torch.arange(n) % 2
    x = (2.0 * y - 1 + torch.randn(n, generator=rng(0)))[:, None].double()
    found = risk.optimal_transport(x, y, Threat("linf", eps, None))
    truth = NormalDist().cdf(-(1 - eps))  # of the best rule, the sign
    assert abs(found.lower - truth) < 3 * (truth * (1 - truth) / n) ** 0.5


def test_without_time_there_are_bounds():
    gen = rng(1)
    x, y = torch.rand(400, 2, generator=gen), torch.randint(3, (400,), generator=gen)
    found = risk.optimal_transport(x, y, Threat("l2", 0.05), seconds=1e-3)
    full = risk.optimal_transport(x, y, Threat("l2", 0.05))
    assert found.lower <= full.lower <= full.upper <= found.upper
    cover = set(found.cover.tolist())
    assert all(i in cover or j in cover for i, j in found.pairs.tolist())
    with pytest.raises(ValueError, match="seconds is 0"):
        risk.optimal_transport(x, y, Threat("l2", 0.05), seconds=0.0)


def test_known_conflicts_give_the_same_floor_and_a_pair_of_one_label_is_refused():
    x, y = torch.rand(40, 2, generator=rng(3)), torch.randint(2, (40,), generator=rng(4))
    whole = risk.optimal_transport(x, y, Threat("linf", 0.05))
    again = risk.floor_of(whole.pairs, y)
    assert (again.lower, again.upper, again.exact) == (whole.lower, whole.upper, True)
    assert len(whole.pairs) > 0
    with pytest.raises(ValueError, match="two examples of one label"):
        risk.floor_of(torch.tensor([[0, 1]]), torch.tensor([1, 1]))
    with pytest.raises(ValueError, match="seconds is 0"):
        risk.floor_of(whole.pairs, y, seconds=0.0)


# Tables


def one_line(**change) -> risk.Line:
    fields = {"name": "net", "clean": 90, "robust": 40, "n": 100, "threat": Threat("linf", 0.25),
              "side": "upper", "by": "APGD, 50 steps", "chosen": "last epoch"}  # fmt: skip
    return risk.Line(**fields | change)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"clean": None}, "clean is None; one accuracy says nothing without the other"),
        ({"robust": None}, "robust is None; one accuracy says nothing without the other"),
        ({"robust": 91}, "wrong examples that became right"),
        ({"clean": 101}, "got 101 and 40 of n = 100"),
        ({"robust": -1}, "got 90 and -1"),
        ({"n": 0, "clean": 0, "robust": 0}, "of n = 0"),
        ({"side": "truth"}, "side is 'truth'"),
        ({"by": " "}, "by is empty"),
        ({"chosen": ""}, "chosen is empty"),
        ({"chosen": "best on the Test set"}, "choose on held-out training data"),
    ],
)
def test_a_line_without_what_a_reader_needs_is_refused(change, words):
    with pytest.raises(ValueError, match=words):
        one_line(**change)


def test_the_latest_epoch_is_no_test_set():
    assert one_line(chosen="latest epoch").chosen == "latest epoch"


def test_a_table_has_both_accuracies_their_intervals_and_their_side():
    table = risk.report([one_line(), one_line(name="other", clean=80, robust=80)])
    head, rule, first, second = table.splitlines()
    assert head == "| model | clean | robust (≤), ℓ∞, ε = 0.25 | by | checkpoint |"
    assert set(rule) <= set("|-")
    low, high = binomtest(40, 100).proportion_ci(0.95, method="exact")
    assert f"| 40.0 % [{100 * low:.1f}, {100 * high:.1f}] of 100 | APGD" in first
    assert second.startswith("| other | 80.0 %")
    assert "(≥)" in risk.report([one_line(side="lower")])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"threat": Threat("linf", 0.5)}, "different threats"),
        ({"side": "lower"}, "different sides"),
        ({"n": 200}, "different numbers of examples: 100, 200"),
    ],
)
def test_a_table_compares_like_with_like(change, words):
    with pytest.raises(ValueError, match=words):
        risk.report([one_line(), one_line(**change)])
    with pytest.raises(ValueError, match="lines is empty"):
        risk.report([])
