"""Accuracy as ε grows, with its side and its interval: no number without both.

What survived an attack bounds robust accuracy from above, what was proved bounds it from below,
and only a closed form gives it exactly. A `Curve` says which of the three it is, on how many
examples, and how far the sample may be from the population.
"""

import dataclasses
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float64, Int
from scipy import optimize, sparse
from torch import Tensor

from .intervals import clopper_pearson, text
from .runtime import frozen, validate
from .threat import AttackResult, Certificate, Threat, margin

SIDES = ("lower", "upper", "exact")


@dataclass(frozen=True)
class Curve:
    """A share of right answers against ε, on the CPU, in float64.

    Attributes:
        eps: the radii, ascending, in input units.
        value: the share on the n examples.
        low, high: an interval for the same share in the population, at each ε on its own. What it
            says of robust accuracy is one-sided: it lies below `high` for side "upper", above
            `low` for "lower".
        n: the number of examples; 0 for a formula about the population (low = value = high).
        side: "upper" (survived an attack), "lower" (proved) or "exact".
        label: the name in a legend.

    Raises:
        ValueError: another side, radii that do not ascend from 0, a value that rises with ε or
            lies outside [low, high].
    """

    eps: Float64[Tensor, " e"]
    value: Float64[Tensor, " e"]
    low: Float64[Tensor, " e"]
    high: Float64[Tensor, " e"]
    n: int
    side: str
    label: str

    def __post_init__(self):
        if self.side not in SIDES:
            raise ValueError(f"side is {self.side!r}; allowed: {', '.join(map(repr, SIDES))}")
        if not (self.eps >= 0).all() or not (self.eps.diff() > 0).all():
            raise ValueError(
                f"eps is {self.eps.tolist()}; expected radii ≥ 0, each once, ascending"
            )
        if (self.value.diff() > 0).any():
            at = int((self.value.diff() > 0).nonzero()[0])
            raise ValueError(
                f"the value rises from {self.value[at]:.4g} to {self.value[at + 1]:.4g} between "
                f"ε = {self.eps[at]:g} and {self.eps[at + 1]:g}; a larger ball never helps: are "
                "all values on the same examples and of the same classifier?"
            )
        if not ((self.low <= self.value) & (self.value <= self.high)).all():
            raise ValueError("a value lies outside its interval [low, high]")


def curve(
    results: Sequence[AttackResult] | Certificate,
    *,
    y: Int[Tensor, " n"] | None = None,
    radii: Float[Tensor, " e"] | None = None,
    alpha: float = 0.05,
    label: str | None = None,
) -> Curve:
    """The curve of an attack, from its results at several ε, or of a certificate.

    An attack that won within a smaller ε counts as won at a larger one, where its point is still
    allowed: so the upper bound never rises. For certificates that may fail, `failure_prob` is
    taken off `low`.

    Args:
        results: attack results on the same examples, one for each ε, in any order; or one
            certificate.
        y: the labels, for a certificate; its label is its own guess.
        radii: where to evaluate a certificate; 101 points from 0 to its largest radius if None.
        alpha: the intervals (Clopper and Pearson, two-sided) have level 1 − alpha.
        label: for the legend; "attack, ℓ∞" and the like if None.

    Raises:
        TypeError: results that are neither.
        ValueError: no results; results of different norms, boxes or numbers of examples; an ε
            twice; a certificate without labels.
    """
    if isinstance(results, Certificate):
        return _of_certificate(results, y, radii, alpha, label)
    if not results:
        raise ValueError("results is empty; expected an attack result for each ε")
    if not all(isinstance(r, AttackResult) for r in results):
        raise TypeError("results holds something else; expected attack results, or one certificate")
    if y is not None or radii is not None:
        raise ValueError("y and radii go with a certificate; attack results know both")
    norm, *_ = _same(
        "results",
        [(r.threat.norm, r.threat.box, len(r.success)) for r in results],
        ("norms", "boxes", "numbers of examples"),
        "a curve is of one threat with growing ε, on the same examples",
    )
    ordered = sorted(results, key=lambda r: r.threat.eps)
    broken = torch.stack([r.success for r in ordered]).cpu().cummax(0).values
    eps = torch.tensor([r.threat.eps for r in ordered], dtype=torch.float64)
    left = (~broken).sum(1)
    return _counted(eps, left, broken.shape[1], "upper", alpha, label or f"attack, {_SIGN[norm]}")


def exact_curve(
    eps: Sequence[float] | Float[Tensor, " e"],
    right: Sequence[int] | Int[Tensor, " e"],
    n: int,
    *,
    alpha: float = 0.05,
    label: str = "exact",
) -> Curve:
    """The curve of a closed form on a sample: at each ε, `right` of n examples are robustly right.

    For instance n·(1 − `linear.robust_risk`) of them.

    Raises:
        TypeError: counts that are not integers.
        ValueError: a count outside 0 … n, alpha outside (0, 1), or what `Curve` refuses.
    """
    eps = torch.as_tensor(eps, dtype=torch.float64)
    return _counted(eps, torch.as_tensor(right), n, "exact", alpha, label)


@dataclass(frozen=True)
class Risks:
    """Natural, boundary and robust risk on n examples: natural + boundary = robust.

    What an attack did not break may still break: boundary and robust risk are lower bounds.

    Attributes:
        natural: the share answered wrongly.
        boundary: the share answered rightly, and broken.
        robust: the share answered wrongly somewhere in the threat, as far as was found.
        n: the number of examples.
    """

    natural: float
    boundary: float
    robust: float
    n: int


@torch.no_grad()
def decompose(
    model: Callable,
    x: Float[Tensor, " n *s"],
    y: Int[Tensor, " n"],
    adversarial: AttackResult,
) -> Risks:
    """The risks of a model by what an attack found on the same examples.

    The identity natural + boundary = robust holds because x itself is in the threat: an example
    that is wrong without an attack counts as broken, whatever the attack makes of it.

    Raises:
        ValueError: another number of examples than the attack's; an example that is wrong at x and
            unbroken, so that the attack was made for another model; what `validate` refuses.

    Source: Zhang et al., "Theoretically principled trade-off …" (ICML 2019), equation (1).
    """
    validate(model, x, y, box=adversarial.threat.box)
    if len(adversarial.success) != len(y):
        raise ValueError(f"the attack has {len(adversarial.success)} examples, y has {len(y)}")
    with frozen(model):
        wrong = margin(model(x), y) <= 0
    if (wrong & ~adversarial.success).any():
        raise ValueError("an example is wrong at x and unbroken: is the attack of another model?")
    natural, broken = int(wrong.sum()), int(adversarial.success.sum())
    n = len(y)
    return Risks(natural / n, (broken - natural) / n, broken / n, n)


@dataclass(frozen=True)
class Transport:
    """The least robust risk that any classifier has on a labelled sample.

    Attributes:
        lower, upper: it lies between; equal if `exact`.
        exact: whether it is known.
        pairs: [m, 2]: the examples of different classes that conflict.
        cover: as many examples as `upper` counts, which touch every pair: a classifier that is
            wrong on them can be robustly right on all others.
        n: the number of examples.
    """

    lower: float
    upper: float
    exact: bool
    pairs: Int[Tensor, "m 2"]
    cover: Int[Tensor, " c"]
    n: int

    def __float__(self) -> float:
        return self.lower


def optimal_transport(
    x: Float[Tensor, " n *s"], y: Int[Tensor, " n"], threat: Threat, *, seconds: float = 60.0
) -> Transport:
    """The least robust risk of any classifier whatever on this sample.

    Two examples of different classes conflict if some point is allowed around both: if they are
    at most 2·eps apart (the balls are closed, and a box that holds both holds their middle). No
    classifier is robustly right on both; and one that is wrong on a vertex cover of the conflict
    graph can be right on all the rest. With two classes the graph is bipartite, and the smallest
    cover is as large as the largest matching (König): exact. With more it is an integer program,
    which HiGHS gets `seconds` for; if it does not finish, there are bounds.

    It speaks of this sample, and not of the distribution that it comes from.

    Raises:
        ValueError: no time, or what `Threat.validate` refuses.

    Source: Bhagoji, Cullina & Mittal, "Lower bounds on adversarial robustness from optimal
    transport" (NeurIPS 2019), theorem 1; for more classes Dai et al. (NeurIPS 2023).
    """
    threat.validate(None, x, y)
    return floor_of(_conflicts(x, y, threat), y, seconds=seconds)


def floor_of(
    pairs: Int[Tensor, "m 2"], y: Int[Tensor, " n"], *, seconds: float = 60.0
) -> Transport:
    """`optimal_transport` of conflicts that are already known, each pair once.

    Raises:
        ValueError: no time, or a pair of one label.
    """
    if not seconds > 0:
        raise ValueError(f"seconds is {seconds}; expected a number > 0")
    if (y[pairs[:, 0]] == y[pairs[:, 1]]).any():
        raise ValueError("pairs holds two examples of one label; those never conflict")
    n = len(y)
    if not len(pairs):
        return Transport(0.0, 0.0, True, pairs, pairs.new_empty(0), n)
    if len(y[pairs.flatten()].unique()) == 2:
        cover = _koenig(pairs, y)
        return Transport(len(cover) / n, len(cover) / n, True, pairs, cover, n)
    cover, least = _cover(pairs, seconds)
    return Transport(least / n, len(cover) / n, least == len(cover), pairs, cover, n)


@dataclass(frozen=True)
class Line:
    """One line of a table of results: clean and robust accuracy on the same examples, or nothing.

    Attributes:
        name: of the model.
        clean: how many of the n are right untouched.
        robust: how many of the same n are still right under the threat, as far as `by` knows.
        n: the number of examples.
        threat: what was allowed.
        side: "upper" (what an attack left), "lower" (what was proved) or "exact".
        by: the attack or the certificate, with its settings.
        chosen: how the checkpoint was chosen, such as "last epoch" or "robust validation".

    Raises:
        ValueError: one of the two accuracies is missing, counts that do not go together, another
            side, words that are missing, a checkpoint chosen on the test set.
    """

    name: str
    clean: int | None
    robust: int | None
    n: int
    threat: Threat
    side: str
    by: str
    chosen: str

    def __post_init__(self):
        for missing in (k for k in ("clean", "robust") if getattr(self, k) is None):
            raise ValueError(
                f"{self.name}: {missing} is None; one accuracy says nothing without the other: a "
                "constant rule is as robust as it is right, and the usual network is only right"
            )
        if not 0 <= self.clean <= self.n or not 0 <= self.robust <= self.n or self.n < 1:
            raise ValueError(f"{self.name}: got {self.clean} and {self.robust} of n = {self.n}")
        if self.robust > self.clean:
            raise ValueError(
                f"{self.name}: {self.robust} robustly right of {self.clean} right; were wrong "
                "examples that became right counted, or are the examples not the same?"
            )
        if self.side not in SIDES:
            raise ValueError(f"side is {self.side!r}; allowed: {', '.join(map(repr, SIDES))}")
        for field in ("name", "by", "chosen"):
            if not getattr(self, field).strip():
                raise ValueError(f"{self.name}: {field} is empty; a reader has to know it")
        if re.search(r"\btest\b", self.chosen, re.IGNORECASE):
            raise ValueError(
                f"{self.name}: chosen is {self.chosen!r}; what was chosen on the test set looks "
                "better there than it is: choose on held-out training data"
            )


def report(lines: Sequence[Line], *, alpha: float = 0.05) -> str:
    """A Markdown table of results that can be compared, each share with its interval.

    Raises:
        ValueError: no lines; lines of different threats, sides or numbers of examples.
    """
    if not lines:
        raise ValueError("lines is empty; expected a Line for each model")
    _same(
        "lines",
        [(line.threat, line.side, line.n) for line in lines],
        ("threats", "sides", "numbers of examples"),
        "one table compares models under one threat, from one side, on the same examples",
    )
    first = lines[0]
    sign = {"upper": "≤", "lower": "≥", "exact": "="}[first.side]
    threat = f"{_SIGN[first.threat.norm]}, ε = {first.threat.eps:.4g}"
    rows = [
        f"| model | clean | robust ({sign}), {threat} | by | checkpoint |",
        "|---|---|---|---|---|",
    ]
    for line in lines:
        clean, robust = (text(k, line.n, alpha=alpha) for k in (line.clean, line.robust))
        rows.append(f"| {line.name} | {clean} | {robust} | {line.by} | {line.chosen} |")
    return "\n".join(rows)


def _conflicts(x: Tensor, y: Tensor, threat: Threat) -> Tensor:
    """The pairs i < j of different labels within 2·eps, a block of rows at a time.

    With room for the rounding of float32 pixels: balls that just touch do conflict.
    """
    flat, p = x.flatten(1).double(), {"linf": torch.inf, "l2": 2.0, "l1": 1.0}[threat.norm]
    found = []
    for i in range(0, len(flat), 256):
        away = torch.cdist(
            flat[i : i + 256], flat[i:], p, compute_mode="donot_use_mm_for_euclid_dist"
        )
        close = (away <= 2 * threat.eps * (1 + 1e-6)) & (y[i : i + 256, None] != y[None, i:])
        at = close.nonzero() + i
        found.append(at[at[:, 0] < at[:, 1]])
    return torch.cat(found).cpu()


def _koenig(pairs: Tensor, y: Tensor) -> Tensor:
    """A smallest vertex cover of a bipartite graph, from a largest matching.

    What alternating paths from unmatched left ends reach: the cover is the left ends that are not
    reached, and the right ends that are.
    """
    left = y == y[pairs[0, 0]]
    ends = torch.where(left[pairs[:, :1]], pairs, pairs.flip(1)).numpy()
    n = len(y)
    graph = sparse.csr_matrix((np.ones(len(ends), bool), (ends[:, 0], ends[:, 1])), (n, n))
    right_of = sparse.csgraph.maximum_bipartite_matching(graph, perm_type="column")
    left_of = np.full(n, -1)
    left_of[right_of[right_of >= 0]] = np.flatnonzero(right_of >= 0)
    todo = [i for i in np.unique(ends[:, 0]) if right_of[i] < 0]
    lefts, rights = set(todo), set()
    while todo:
        i = todo.pop()
        for j in graph.indices[graph.indptr[i] : graph.indptr[i + 1]]:
            if j not in rights:
                rights.add(j)
                if left_of[j] not in lefts:
                    lefts.add(left_of[j])
                    todo.append(left_of[j])
    cover = sorted({*np.unique(ends[:, 0])} - lefts) + sorted(rights)
    return torch.tensor([int(i) for i in cover])


def _cover(pairs: Tensor, seconds: float) -> tuple[Tensor, int]:
    """A small vertex cover, and how small one could be at least."""
    nodes, ends = pairs.unique(return_inverse=True)
    m, k = len(pairs), len(nodes)
    rows = np.repeat(np.arange(m), 2)
    touches = sparse.csr_matrix((np.ones(2 * m), (rows, ends.numpy().ravel())), (m, k))
    found = optimize.milp(
        np.ones(k), integrality=np.ones(k), bounds=optimize.Bounds(0, 1),
        constraints=optimize.LinearConstraint(touches, lb=1), options={"time_limit": seconds},
    )  # fmt: skip
    if found.x is None:  # no time for any: all of them, and one at least
        return nodes, 1
    cover = nodes[torch.as_tensor(found.x > 0.5)]
    bound = found.mip_dual_bound if found.status else found.fun
    return cover, int(np.ceil(bound - 1e-6))


_SIGN = {"linf": "ℓ∞", "l2": "ℓ2", "l1": "ℓ1"}


def _of_certificate(certificate, y, radii, alpha, label) -> Curve:
    if y is None:
        raise ValueError("y is None; a certificate needs the true labels: curve(cert, y=y)")
    n = len(certificate.radius)
    if len(y) != n:
        raise ValueError(f"y has {len(y)} labels; the certificate has {n} examples")
    if radii is None:
        finite = certificate.radius[certificate.radius.isfinite()]
        largest = float(finite.max()) if finite.any() else 1.0
        radii = torch.linspace(0, largest, 101, dtype=torch.float64)
    right = torch.stack([certificate.holds(y, r).sum() for r in radii.tolist()])
    label = label or f"certificate, {_SIGN[certificate.norm]}"
    found = _counted(radii, right, n, "lower", alpha, label)
    low = (found.low - certificate.failure_prob).clamp_min(0)
    return dataclasses.replace(found, low=low)


def _counted(eps: Tensor, right: Tensor, n: int, side: str, alpha: float, label: str) -> Curve:
    low, high = clopper_pearson(right.cpu(), n, alpha)
    value = right.cpu().double() / n
    return Curve(eps.double().cpu(), value, low, high, n, side, label)


def _same(what: str, kinds: list[tuple], names: tuple[str, ...], why: str) -> tuple:
    """What all of them have in common."""
    for at, name in enumerate(names):
        different = sorted({str(kind[at]) for kind in kinds})
        if len(different) > 1:
            raise ValueError(f"the {what} have different {name}: {', '.join(different)}; {why}")
    return kinds[0]
