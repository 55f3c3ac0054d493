"""Chapter 2. Concentration of measure: what a share forces on distances, and what real data do.

On a sphere, and for a Gaussian, a set that is not very small is near to nearly everything, once
the dimension is high. Caps and half-spaces are the sets that grow least, so for them the bounds
are exact. Real data are neither sphere nor Gaussian; there two searches find sets that grow
little, and each such set limits what concentration can be blamed for.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from scipy import special
from torch import Tensor

from .runtime import validate
from .threat import order


def cap_measure(d: int, angle: float | Float[Tensor, "..."]) -> Float64[Tensor, "..."]:
    """The share of the unit sphere in d dimensions within `angle` of one of its points: exact.

    It is P(B ≤ sin²(angle/2)) for B of Beta((d − 1)/2, (d − 1)/2). Angles are in radians; the
    part x₁ ≥ h of the sphere is the cap of angle arccos(h).

    Raises:
        ValueError: d < 2, an angle outside [0, π].
    """
    a = _shape(d)
    angle = _within(angle, "angle", 0.0, math.pi, "an angle in radians")
    share = special.betainc(a, a, (angle / 2).sin().square().cpu().numpy())
    return torch.as_tensor(share, device=angle.device)


def cap_radius(d: int, measure: float | Float[Tensor, "..."]) -> Float64[Tensor, "..."]:
    """The angle of the cap that holds this share of the sphere: the inverse of `cap_measure`.

    Raises:
        ValueError: d < 2, a measure that is not in (0, 1].
    """
    a, share = _shape(d), _share(measure, "measure")
    small = torch.minimum(share, 1 - share).cpu().numpy()
    angle = 2 * torch.as_tensor(special.betaincinv(a, a, small), device=share.device).sqrt().asin()
    return torch.where(share <= 0.5, angle, math.pi - angle)


def log_cap_measure(d: int, angle: float) -> float:
    """The natural logarithm of `cap_measure`, also where the share itself is below any float64.

    There the incomplete Beta integral is x^a/(2a·B(a, ½)) · ∫ e^(−v) (1 − x e^(−v/a))^(−½) dv over
    v > 0, with x = sin²(angle) and a = (d − 1)/2, smooth enough for 64 Gauss–Laguerre nodes.

    Raises:
        ValueError: d < 2, an angle outside (0, π].
    """
    if not angle > 0:
        raise ValueError(f"angle is {angle}; expected more than 0: a point has measure 0")
    plain = cap_measure(d, angle).item()
    if plain > 1e-290:
        return math.log(plain)
    a, sine = _shape(d), math.sin(angle)
    v, weight = (torch.as_tensor(t) for t in special.roots_laguerre(64))
    integral = (weight / (1 - sine**2 * (-v / a).exp()).sqrt()).sum().item()
    front = 2 * a * math.log(sine) - math.log(2 * a) - special.betaln(a, 0.5)
    return float(front + math.log(integral))


def levy(d: int, t: float | Float[Tensor, "..."]) -> Float64[Tensor, "..."]:
    """Lévy's bound min(1, 2·exp(−(d − 2)t²/2)) on the share with |f − median| ≥ t.

    For f with |f(x) − f(y)| ≤ angle(x, y) on the unit sphere, uniformly distributed, d ≥ 3.

    Raises:
        ValueError: d < 3, where the inequality says nothing; t < 0.
    """
    if d < 3:
        raise ValueError(f"d is {d}; expected d ≥ 3: below, the bound is 1 for every t")
    t = _within(t, "t", 0.0, math.inf, "a distance")
    return (2 * (-(d - 2) * t.square() / 2).exp()).clamp_max(1)


@dataclass(frozen=True)
class Sphere:
    """The uniform distribution on the sphere of this radius around 0; distances run along it.

    The straight way through the inside is shorter, so an upper bound on a distance holds for it.

    Raises:
        ValueError: d < 2, a radius that is not positive.
    """

    d: int
    radius: float = 1.0

    def __post_init__(self):
        _shape(self.d)
        _positive(self.radius, "radius")

    def least_expansion(
        self, measure: float | Float[Tensor, "..."], eps: float | Float[Tensor, "..."]
    ) -> Float64[Tensor, "..."]:
        """At least this share lies within `eps` of any set of this measure; caps attain it.

        Raises:
            ValueError: a measure that is not in (0, 1], eps < 0.
        """
        eps = _within(eps, "eps", 0.0, math.inf, "a distance")
        angle = cap_radius(self.d, measure) + eps / self.radius
        return cap_measure(self.d, angle.clamp_max(math.pi))

    def largest_distance(
        self, measure: float | Float[Tensor, "..."], share: float | Float[Tensor, "..."] = 0.5
    ) -> Float64[Tensor, "..."]:
        """A share of the sphere lies within this distance of any set of this measure, or nearer.

        Caps attain it. For a set of errors it is an upper bound: another set may be nearer.

        Raises:
            ValueError: a measure or a share that is not in (0, 1].
        """
        needed = cap_radius(self.d, _share(share, "share")) - cap_radius(self.d, measure)
        return self.radius * needed.clamp_min(0)


@dataclass(frozen=True)
class Gaussian:
    """A normal distribution of any dimension, mean and covariance, in the norm of the distances.

    Attributes:
        sd: the largest standard deviation of w·x over all w of dual norm 1. In ℓ2 it is the root
            of the largest eigenvalue of the covariance, in ℓ∞ the largest one of a coordinate.

    Raises:
        ValueError: sd is not positive.
    """

    sd: float = 1.0

    def __post_init__(self):
        _positive(self.sd, "sd")

    def least_expansion(
        self, measure: float | Float[Tensor, "..."], eps: float | Float[Tensor, "..."]
    ) -> Float64[Tensor, "..."]:
        """At least Φ(Φ⁻¹(measure) + eps/sd) lies within `eps` of any set of this measure.

        A half-space attains it. Errors as for `Sphere.least_expansion`.
        """
        eps = _within(eps, "eps", 0.0, math.inf, "a distance")
        share = _share(measure, "measure")
        return torch.special.ndtr(torch.special.ndtri(share) + eps / self.sd)

    def largest_distance(
        self, measure: float | Float[Tensor, "..."], share: float | Float[Tensor, "..."] = 0.5
    ) -> Float64[Tensor, "..."]:
        """sd·(Φ⁻¹(share) − Φ⁻¹(measure)), at least 0: as `Sphere.largest_distance`."""
        far, near = _share(share, "share"), _share(measure, "measure")
        return self.sd * (torch.special.ndtri(far) - torch.special.ndtri(near)).clamp_min(0)


@dataclass(frozen=True)
class Expansion:
    """A set that was found on one sample, and what it and its expansion hold of another.

    The set knows nothing of the second sample, so both counts are binomial. An error set of its
    measure exists that grows no more than this: an upper bound on what concentration forces.

    Attributes:
        eps, norm: how far the set was expanded.
        inside: how many of the second sample are in the set.
        expanded: how many are within eps of it. No box is used; in a box there are no more.
        n: the size of the second sample.
        found: the kind of set.
    """

    eps: float
    norm: str
    inside: int
    expanded: int
    n: int
    found: str


def half_space(
    train: Float[Tensor, " n *s"],
    test: Float[Tensor, " m *s"],
    alpha: float,
    eps: float,
    *,
    norm: str = "l2",
    candidates: int = 64,
) -> Expansion:
    """The half-space with a share ≥ alpha of `train` of which the expansion holds least of it.

    For a Gaussian the best direction is a principal component in ℓ2, a coordinate in ℓ∞. Both
    kinds are tried, either way round: the `candidates` with the largest standard deviation.

    Raises:
        ValueError: samples of different shapes, or NaN; alpha outside (0, 1), eps < 0, the norm
            "l1", fewer than one candidate.

    Source: after Prescott, Zhang & Evans, "Improved estimation of concentration under ℓp-norm
    distance metrics using half spaces" (ICLR 2021); their search is a different one.
    """
    a, b, want = _samples(train, test, alpha, eps)
    if candidates < 1:
        raise ValueError(f"candidates is {candidates}; expected at least 1")
    w, sd = _directions(a, norm)
    w = w[:, sd.topk(min(candidates, len(sd))).indices]
    w = torch.cat([w, -w], 1)
    score = a @ w
    wall = score.topk(want, dim=0).values[-1]  # x·w ≥ wall, for `want` examples or more
    reach = wall - eps * (1 + _ROUNDING) - _ROUNDING
    best = int((score >= reach).sum(0).argmin())
    score = b @ w[:, best]
    inside, expanded = (int((score >= t[best]).sum()) for t in (wall - _ROUNDING, reach))
    return Expansion(eps, norm, inside, expanded, len(b), "half-space")


def balls(
    train: Float[Tensor, " n *s"],
    test: Float[Tensor, " m *s"],
    alpha: float,
    eps: float,
    *,
    norm: str = "l2",
    count: int = 10,
) -> Expansion:
    """A union of about `count` balls with a share ≥ alpha of `train`, each chosen to grow little.

    Greedy: around every training example the smallest ball with its part of what is still missing;
    of these the one whose expansion reaches fewest examples that were not reached before. It takes
    memory for the n² distances.

    Raises:
        ValueError: as `half_space`, except that "l1" is allowed; fewer than one ball.

    Source: after Mahloujifar, Zhang, Mahmoody & Evans, "Empirically measuring concentration"
    (NeurIPS 2019); the greedy choice of the balls is this book's.
    """
    a, b, want = _samples(train, test, alpha, eps)
    if count < 1:
        raise ValueError(f"count is {count}; expected at least 1 ball")
    p, grown = order(norm)[0], eps * (1 + _ROUNDING) + _ROUNDING
    apart = torch.cdist(a, a, p, compute_mode="donot_use_mm_for_euclid_dist")
    held = torch.zeros(len(a), dtype=torch.bool, device=a.device)
    reached, centres, radii = held.clone(), [], []
    while (missing := want - int(held.sum())) > 0:
        part = min(missing, math.ceil(want / count))
        radius = apart.masked_fill(held, math.inf).kthvalue(part, dim=1).values
        new = (apart <= radius[:, None] + grown) & ~reached
        best = int(new.sum(1).argmin())
        centres.append(best)
        radii.append(radius[best])
        held |= apart[best] <= radius[best]
        reached |= new[best]
    away = torch.cdist(b, a[centres], p, compute_mode="donot_use_mm_for_euclid_dist")
    away -= torch.stack(radii)
    inside, expanded = (int((away <= t).any(1).sum()) for t in (_ROUNDING, grown))
    kind = "1 ball" if len(radii) == 1 else f"{len(radii)} balls"
    return Expansion(eps, norm, inside, expanded, len(b), kind)


def largest_sd(x: Float[Tensor, " n *s"], norm: str) -> float:
    """The `sd` of the `Gaussian` with the mean and covariance of this sample, in "l2" or "linf".

    Raises:
        ValueError: fewer than two examples, NaN, another norm.
    """
    flat = _flat(x)
    if len(flat) < 2:
        raise ValueError(f"x has {len(x)} example; a standard deviation needs two")
    return _directions(flat, norm)[1].max().item()


#: Two points that are exactly eps apart are within eps, whatever float32 made of their pixels,
#: and float32's π is an angle.
_ROUNDING = 1e-6


def _directions(x: Tensor, norm: str) -> tuple[Tensor, Tensor]:
    """Principal components and coordinates [d, 2d], of dual norm 1, and x's spread along each."""
    if norm == "l1":
        raise ValueError("norm is 'l1'; allowed: 'l2', 'linf' (in ℓ1 the best direction is hard)")
    d, dual = x.shape[1], order(norm)[1]
    covariance = x.T.cov().view(d, d)
    w = torch.cat([torch.linalg.eigh(covariance).eigenvectors, torch.eye(d).to(x)], 1)
    w = w / torch.linalg.vector_norm(w, dual, dim=0)
    return w, ((covariance @ w) * w).sum(0).clamp_min(0).sqrt()


def _samples(train: Tensor, test: Tensor, alpha: float, eps: float) -> tuple[Tensor, Tensor, int]:
    """Both samples, flattened, and how many examples a share of alpha is."""
    a, b = _flat(train), _flat(test)
    if train.shape[1:] != test.shape[1:]:
        raise ValueError(
            f"train has examples of shape {tuple(train.shape[1:])}, test of "
            f"{tuple(test.shape[1:])}; expected one distribution"
        )
    if not 0 < alpha < 1:
        raise ValueError(f"alpha is {alpha}; expected a share strictly between 0 and 1")
    if not 0 <= eps < math.inf:
        raise ValueError(f"eps is {eps}; expected a distance ≥ 0")
    return a, b, max(1, math.ceil(alpha * len(a) - 1e-9))


def _flat(x: Tensor) -> Tensor:
    """[n, d] in float64, after it was looked at."""
    validate(None, x.flatten(1) if isinstance(x, Tensor) and x.ndim > 2 else x, box=None)
    return x.detach().flatten(1).double()


def _shape(d: int) -> float:
    """The parameter a = (d − 1)/2 of the Beta distribution."""
    if d < 2:
        raise ValueError(
            f"d is {d}; expected at least 2: in one dimension the sphere is two points"
        )
    return (d - 1) / 2


def _share(value: float | Tensor, name: str) -> Tensor:
    t = torch.as_tensor(value, dtype=torch.float64)
    good = (t > 0) & (t <= 1)
    if not good.all():
        raise ValueError(
            f"{name} is {_first(t, ~good)}; expected a share in (0, 1]. A set of "
            "measure 0 may be empty, and then no distance follows"
        )
    return t


def _within(value: float | Tensor, name: str, low: float, high: float, what: str) -> Tensor:
    t = torch.as_tensor(value, dtype=torch.float64)
    good = (t >= low - _ROUNDING) & (t <= high + _ROUNDING)
    if not good.all():
        raise ValueError(f"{name} is {_first(t, ~good)}; expected {what} in [{low:g}, {high:.4g}]")
    return t.clamp(low, high)


def _positive(value: float, name: str) -> None:
    if not 0 < value < math.inf:
        raise ValueError(f"{name} is {value}; expected a positive number")


def _first(t: Tensor, bad: Tensor) -> float:
    return t[bad].flatten()[0].item()
