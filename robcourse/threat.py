"""What is promised: the set of changes an attacker may make, and the one judge of what was done.

*Robust* means nothing until a norm, a budget and a range of inputs are named. `Threat` names
them. Whoever proposes a perturbation does not judge it: every attack hands its proposal to
`measure`, which throws away what leaves the ball or the box.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from .runtime import frozen, generator, validate

#: The order of each norm and of its dual: 1/p + 1/q = 1.
ORDER = {"linf": (torch.inf, 1.0), "l2": (2.0, 2.0), "l1": (1.0, torch.inf)}


@dataclass(frozen=True)
class Threat:
    """The perturbations allowed: the ball of radius `eps` in `norm`, inside `box`.

    Args:
        norm: `"linf"`, `"l2"` or `"l1"`, over all coordinates of one example.
        eps: the radius, in units of the input (8/255, not 8).
        box: the range of every coordinate, (0, 1) for images; None for unbounded inputs.

    Raises:
        ValueError: an unknown norm, an eps that is negative, not finite or (in ℓ∞) wider than
            the box, a box that is empty.
    """

    norm: str
    eps: float
    box: tuple[float, float] | None = (0.0, 1.0)

    def __post_init__(self):
        order(self.norm)
        if not 0 <= self.eps < torch.inf:
            raise ValueError(f"eps is {self.eps}; expected a finite number ≥ 0")
        if self.box is not None:
            low, high = self.box
            if not -torch.inf < low < high < torch.inf:
                raise ValueError(f"box is {self.box}; expected (low, high), low < high, or None")
            if self.norm == "linf" and self.eps > high - low:
                raise ValueError(_units(self.eps, f"the box {self.box} is {high - low:g} wide"))

    def at(self, eps: float) -> "Threat":
        """The same threat with another budget."""
        return dataclasses.replace(self, eps=eps)

    def validate(self, model: Callable | None, x: Tensor, y: Tensor | None = None) -> None:
        """`runtime.validate` with this box, and an eps that does not swallow every image."""
        validate(model, x, y, box=self.box)
        if self.box is not None:
            widest = (self.box[1] - self.box[0]) * x[0].numel() ** (1 / order(self.norm)[0])
            if self.eps > widest:
                raise ValueError(_units(self.eps, f"two inputs are at most {widest:.4g} apart"))

    def size(self, delta: Float[Tensor, " n *s"]) -> Float[Tensor, " n"]:
        """The norm of each perturbation."""
        flat = delta.flatten(1)
        if self.norm == "linf":
            return flat.abs().amax(1)  # vector_norm gives the same, fifteen times as slowly
        return torch.linalg.vector_norm(flat, order(self.norm)[0], dim=1)

    def dual(self, g: Float[Tensor, " n *s"]) -> Float[Tensor, " n"]:
        """The dual norm of each g: the largest ⟨g, δ⟩ over δ of size 1."""
        return torch.linalg.vector_norm(g.flatten(1), order(self.norm)[1], dim=1)

    def steepest(self, g: Float[Tensor, " n *s"]) -> Float[Tensor, " n *s"]:
        """A δ of size 1 with ⟨g, δ⟩ = dual(g): sign(g), g/‖g‖₂, or the largest coordinate's sign.

        Where g = 0 every direction is steepest; 0 is returned.
        """
        if self.norm == "linf":
            return g.sign()
        flat = g.flatten(1)
        if self.norm == "l2":
            # Scaled by the largest entry first: the square of a tiny gradient would underflow.
            flat = flat / _positive(flat.abs().amax(1, keepdim=True))
            unit = flat / _positive(flat.norm(dim=1, keepdim=True))
        else:
            at = flat.abs().argmax(1, keepdim=True)
            unit = torch.zeros_like(flat).scatter(1, at, flat.gather(1, at).sign())
        return unit.view_as(g)

    def sample(self, x: Float[Tensor, " n *s"], *, seed: int = 0) -> Float[Tensor, " n *s"]:
        """A random point for each example: uniform in the ball, then moved into the box.

        In ℓ∞ the draw is uniform in ball ∩ box.
        """
        gen = generator(seed, x)
        flat = x.flatten(1)
        if self.norm == "linf":
            low, high = self._interval(flat)
            u = torch.rand(flat.shape, generator=gen, device=x.device, dtype=x.dtype)
            return self._inward((low + u * (high - low)).clamp(low, high), flat).view_as(x)
        if self.norm == "l2":
            direction = torch.randn(flat.shape, generator=gen, device=x.device, dtype=x.dtype)
        else:  # signed exponentials, divided by their sum, are uniform on the ℓ1 sphere
            e = torch.empty_like(flat).exponential_(generator=gen)
            direction = e - torch.empty_like(flat).exponential_(generator=gen)
        direction = direction / _positive(self.size(direction))[:, None]
        u = torch.rand(len(x), 1, generator=gen, device=x.device, dtype=x.dtype)
        step = self.eps * u ** (1 / flat.shape[1]) * direction
        return self._clamp(self._inward(flat + step, flat, step.abs())).view_as(x)

    def contains(
        self, x_adv: Float[Tensor, " n *s"], x: Float[Tensor, " n *s"]
    ) -> Bool[Tensor, " n"]:
        """Whether each point is allowed: size ≤ eps·(1 + 1e-5) + 1e-6, and exactly in the box.

        The ball is given the rounding of float32; the box, which pixels have exactly, is not.
        NaN is not allowed.
        """
        inside = self._in_ball(x_adv, x)
        if self.box is not None:
            flat = x_adv.flatten(1)
            inside &= ((flat >= self.box[0]) & (flat <= self.box[1])).all(1)
        return inside

    def project(
        self, x_adv: Float[Tensor, " n *s"], x: Float[Tensor, " n *s"]
    ) -> Float[Tensor, " n *s"]:
        """The point of ball ∩ box that is nearest in ℓ2, exactly; `x` must lie in the box.

        ℓ∞ is a product of intervals. In ℓ2 the answer is clamp(x + t(x_adv − x)) for one t ≤ 1,
        in ℓ1 each |δ_i| is reduced by one λ ≥ 0 and cut at the box (Croce & Hein, "Mind the box",
        ICML 2021); t and λ are found by sorting the points where a coordinate meets a wall. What
        rounding would throw out of the ball is rounded towards x.
        """
        flat, z = x.flatten(1), x_adv.flatten(1)
        if self.norm == "linf":
            low, high = self._interval(flat)
            return self._inward(z.clamp(low, high), flat).view_as(x)
        near = self._clamp(z).clone()
        outside = self.size(near - flat) > self.eps
        if outside.any():
            start, delta = flat[outside], (z - flat)[outside]
            room = self._room(start.double(), delta)
            shrink = _shrink_l2 if self.norm == "l2" else _shrink_l1
            size = shrink(delta.abs().double(), room, self.eps).to(z.dtype)
            near[outside] = self._clamp(self._inward(start + delta.sign() * size, start, size))
        return near.view_as(x)

    def _clamp(self, z: Tensor) -> Tensor:
        return z if self.box is None else z.clamp(*self.box)

    def _interval(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The ends of the ℓ∞ ball in the box."""
        return self._clamp(x - self.eps), self._clamp(x + self.eps)

    def _in_ball(self, z: Tensor, x: Tensor) -> Tensor:
        return self.size(z - x) <= self.eps * (1 + 1e-5) + 1e-6

    def _inward(self, z: Tensor, x: Tensor, limit: Tensor | None = None) -> Tensor:
        """z, a unit of rounding nearer to x where it was rounded to beyond `limit` (None: eps).

        Only in examples which rounding threw out of the ball. In ℓ1 it is not rare: half a unit
        in each of 3,072 coordinates is more than `contains` forgives.
        """
        if limit is None:  # ℓ∞: no more than a unit of rounding of the largest number in the box
            largest = torch.inf if self.box is None else max(map(abs, self.box))
            if largest * torch.finfo(z.dtype).eps <= 1e-6:
                return z
            limit = self.eps
        over = ~self._in_ball(z, x)[:, None] & ((z - x).abs() > limit)
        return torch.where(over, torch.nextafter(z, x), z) if over.any() else z

    def _room(self, x: Tensor, delta: Tensor) -> Tensor:
        """How far each coordinate can go in the direction of delta before it meets the box."""
        if self.box is None:
            return torch.full_like(x, torch.inf)
        return torch.where(delta > 0, self.box[1] - x, x - self.box[0])


def order(norm: str) -> tuple[float, float]:
    """(p, q) of a norm and its dual; ValueError for a name that is not "linf", "l2" or "l1"."""
    if norm not in ORDER:
        raise ValueError(f"norm is {norm!r}; allowed: 'linf', 'l2', 'l1'")
    return ORDER[norm]


@dataclass(frozen=True)
class AttackResult:
    """What an attack reached, as `measure` judged it: an upper bound on robust accuracy.

    Attributes:
        x_adv: the adversarial points, allowed by `threat`; x itself where it was wrong already.
        success: True where the answer is wrong (a tie and a NaN logit count as wrong).
        margin: of the true label, at x_adv.
        threat: what was allowed.
        path: the iterates `[steps + 1, n, *s]`, if they were kept.
    """

    x_adv: Float[Tensor, " n *s"]
    success: Bool[Tensor, " n"]
    margin: Float[Tensor, " n"]
    threat: Threat
    path: Float[Tensor, " t n *s"] | None = None

    @property
    def robust_accuracy_upper(self) -> float:
        """The share that survived: at least the robust accuracy, at most the clean one.

        Of these examples, and of a ball larger by the rounding that `Threat.contains` allows.
        """
        return (~self.success).double().mean().item()


@dataclass(frozen=True)
class Certificate:
    """What was proved: the label of each example is constant within `radius` of it.

    Attributes:
        label: the certified label; a guess where `abstain` is True.
        radius: a lower bound on the distance to the nearest other answer; 0 if abstained.
        norm: of the radius.
        failure_prob: the probability, for each example, that the radius is wrong; 0 if proved.
        abstain: True where nothing was proved; None if the method never abstains.
    """

    label: Int[Tensor, " n"]
    radius: Float[Tensor, " n"]
    norm: str
    failure_prob: float = 0.0
    abstain: Bool[Tensor, " n"] | None = None

    def holds(self, y: Int[Tensor, " n"], eps: float) -> Bool[Tensor, " n"]:
        """Where y is proved on the closed ball: not abstained, label y, radius > eps."""
        proved = (self.label == y) & (self.radius > eps)
        return proved if self.abstain is None else proved & ~self.abstain

    def accuracy_at(self, y: Int[Tensor, " n"], radii: Float[Tensor, " r"]) -> Float[Tensor, " r"]:
        """Certified accuracy, a lower bound on robust accuracy, at each radius.

        Each example's part in it is wrong with probability at most `failure_prob`.
        """
        return torch.stack([self.holds(y, r).double().mean() for r in radii.tolist()])


def margin(logits: Float[Tensor, "n k"], y: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
    """z_y − max_{j≠y} z_j: positive exactly where the answer is right. NaN where a logit is NaN."""
    true = y[:, None]
    return logits.gather(1, true)[:, 0] - logits.scatter(1, true, -torch.inf).amax(1)


@torch.no_grad()
def measure(
    model: Callable,
    x_adv: Float[Tensor, " n *s"],
    x: Float[Tensor, " n *s"],
    y: Int[Tensor, " n"],
    threat: Threat,
) -> AttackResult:
    """Judge proposals: one that is NaN or not allowed counts for nothing, and x stands in for it.

    Args:
        model: logits `[n, *s] -> [n, k]`, in evaluation mode.
        x_adv: a proposal an example.
        x, y: the examples and their labels.
        threat: what is allowed.

    Raises:
        ValueError, TypeError: `x_adv` has another shape or dtype than `x`, or what
            `Threat.validate` refuses.
    """
    threat.validate(model, x, y)
    if x_adv.shape != x.shape:
        raise ValueError(f"x_adv has shape {tuple(x_adv.shape)}; x has {tuple(x.shape)}")
    if x_adv.dtype != x.dtype:
        raise TypeError(f"x_adv is {x_adv.dtype}; x is {x.dtype}: use x_adv.to(x)")
    with frozen(model):
        counts = threat.contains(x_adv, x) & (margin(model(x), y) > 0)
        kept = torch.where(counts.view(-1, *[1] * (x.ndim - 1)), x_adv, x)
        reached = margin(model(kept), y)
    return AttackResult(kept, ~(reached > 0), reached, threat)


def _positive(t: Tensor) -> Tensor:
    """t where it is positive, else 1: a safe divisor."""
    return torch.where(t > 0, t, 1)


def _units(eps: float, why: str) -> str:
    slip = f", so write {eps:g}/255" if eps > 1 else ""
    return f"eps is {eps:g}, but {why}: eps is in units of the input{slip}"


def _shrink_l2(size: Tensor, room: Tensor, eps: float) -> Tensor:
    """min(t·size, room) with the t for which its ℓ2 norm is eps; for rows that need it."""
    # Coordinate i meets its wall at t_i; between two such points the norm² is t²·free + fixed.
    meets = torch.where(size > 0, room / _positive(size), torch.inf)
    meets, at = meets.sort(dim=1)
    a, c = size.gather(1, at).square(), room.gather(1, at).square()
    a_after = a.flip(1).cumsum(1).flip(1)  # Σ over coordinates not yet at their wall
    fixed = torch.where(meets < torch.inf, c, 0).cumsum(1) - torch.where(meets < torch.inf, c, 0)
    t = ((eps * eps - fixed).clamp_min(0) / _positive(a_after)).sqrt()
    t[:, 1:] = torch.maximum(t[:, 1:], meets[:, :-1])  # of rounding: each t lies in its own segment
    fits = (t <= meets) & (a_after > 0)
    t = t.gather(1, fits.double().argmax(1, keepdim=True))
    t = torch.where(fits.any(1, keepdim=True), t, 1)  # on the ball but for rounding: only the walls
    return torch.minimum(t * size, room)


def _shrink_l1(size: Tensor, room: Tensor, eps: float) -> Tensor:
    """clip(size − λ, 0, room) with the λ for which its sum is eps; for rows that need it."""
    # Counted down from the largest size, λ = max − μ: sums of small terms, where a sum of all
    # sizes would swallow eps. No coordinate can get more than eps, so every wall is finite.
    room = room.clamp_max(eps)
    lag = size.amax(1, keepdim=True) - size
    breaks, at = torch.cat([lag, lag + room], 1).sort(dim=1)
    slope = torch.cat([torch.ones_like(size), -torch.ones_like(size)], 1).gather(1, at).cumsum(1)
    rises = (slope[:, :-1] * breaks.diff(dim=1)).cumsum(1)
    value = torch.cat([torch.zeros_like(rises[:, :1]), rises], 1)  # of the sum at each break
    last = (value <= eps).sum(1, keepdim=True) - 1
    more = (eps - value.gather(1, last)) / slope.gather(1, last).clamp_min(1)
    return torch.minimum((breaks.gather(1, last) - lag + more).clamp_min(0), room)
