"""Accuracy as ε grows, with its side and its interval: no number without both.

What survived an attack bounds robust accuracy from above, what was proved bounds it from below,
and only a closed form gives it exactly. A `Curve` says which of the three it is, on how many
examples, and how far the sample may be from the population.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from .intervals import clopper_pearson
from .threat import AttackResult, Certificate

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
    norm = _common([(r.threat.norm, r.threat.box, len(r.success)) for r in results])
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


def _common(kinds: list[tuple]) -> str:
    """The norm, after all results were seen to be of one kind."""
    for at, name in enumerate(("norms", "boxes", "numbers of examples")):
        different = sorted({str(kind[at]) for kind in kinds})
        if len(different) > 1:
            raise ValueError(
                f"the results have different {name}: {', '.join(different)}; a curve is of one "
                "threat with growing ε, on the same examples"
            )
    return kinds[0][0]
