"""Chapter 5. One question to a verifier, the inputs that it allows, and one activation pattern.

A question is an example with its threat, and what is known of it: bounds before every ReLU, and
CROWN's bound of each margin. Within one pattern of the ReLUs the network is affine. In ℓ2 the
least margin over a pattern is then a projection onto a polytope, which nonnegative least squares
solve; its multipliers are the proof.
"""

import dataclasses
import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64
from scipy import optimize
from torch import Tensor

from . import bounds
from .threat import Threat

#: The numbers in a network's matrices, at most: 0.8 GB.
LARGEST = 100_000_000


@dataclass(frozen=True)
class Query:
    """One example, its network and what is known of it; all in float64 on the CPU.

    Attributes:
        graph: the network, compiled.
        matrices: gives it as matrices, the same at each call.
        x: `[1, *s]`.
        y: its label.
        threat: what is allowed.
        exact: whether the least margin is asked for, or only its sign.
        deadline: of `time.monotonic`.
        confirm: candidates `[b, *s]` -> a witness that the judge accepts, or None; and the least
            margin that was met.
        pre: bounds `[1, N]` of the pre-activations of each ReLU layer.
        floor: `[k]`, CROWN's lower bounds of logit_y − logit_j; inf at y.
    """

    graph: bounds.Graph
    matrices: Callable[[], list[bounds.Dense]]
    x: Float64[Tensor, " 1 *s"]
    y: int
    threat: Threat
    exact: bool
    deadline: float
    confirm: Callable[[Tensor], tuple[Tensor | None, float]]
    pre: list[bounds.Bounds] | None = None
    floor: Float64[Tensor, " k"] | None = None

    def bounded(self) -> "Query":
        """The same with `pre` and `floor`."""
        pre = bounds.layers(self.graph, self.x, self.threat)
        floor = bounds.backward(self.graph, self.x, self.threat, pre, self.spec()[None]).lower[0]
        floor[self.y] = torch.inf
        return dataclasses.replace(self, pre=pre, floor=floor)

    @property
    def explicit(self) -> bool:
        """Whether the network is small enough for matrices."""
        sizes = [self.x.numel(), *self.graph.sizes, self.graph.classes]
        return sum(a * b for a, b in itertools.pairwise(sizes)) <= LARGEST

    @property
    def dense(self) -> list[bounds.Dense]:
        """The network as matrices.

        Raises:
            ValueError: it is too large.
        """
        if not self.explicit:
            raise ValueError(
                f"the network has ReLU layers of {self.graph.sizes} neurons, too many for matrices "
                f"of at most {LARGEST:,} numbers; branch_and_bound and bounds.margins need none"
            )
        return self.matrices()

    @property
    def left(self) -> float:
        """Seconds until the deadline."""
        return self.deadline - time.monotonic()

    @property
    def rivals(self) -> Tensor:
        """The wrong classes that are left to decide, the likeliest first."""
        order = self.floor.argsort()
        return order[:-1] if self.exact else order[~(self.floor[order] > 0)]

    @property
    def settled(self) -> float:
        """The least bound of all other classes."""
        rivals = self.rivals.tolist()
        return min(v for j, v in enumerate(self.floor.tolist()) if j not in rivals)

    @property
    def arrays(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """`pre` for NumPy, a pair `[N]` a layer."""
        return [(b.lower[0].numpy(), b.upper[0].numpy()) for b in self.pre]

    def spec(self) -> Tensor:
        """The combinations logit_y − logit_j, `[k, k]`."""
        eye = torch.eye(self.graph.classes, dtype=torch.float64)
        return eye[self.y] - eye


@dataclass(frozen=True)
class Answer:
    """A bound, a witness if there is one, programs or parts solved, and what hinders a proof."""

    bound: float
    witness: Tensor | None
    nodes: int
    reason: str = ""


def nearest(
    q: Query, on: list[np.ndarray], j: int, t: float = 0.0
) -> tuple[float, np.ndarray | None]:
    """The least margin j in ℓ2 over the inputs of one activation pattern: a bound, and a point.

    The point of the pattern's polytope with margin ≤ t that is nearest to x is a nonnegative
    least-squares problem (Lawson & Hanson), whose multipliers bound the margin in the ball by
    weak duality. That decides whether it is above t; with t the last bound it is Newton's method
    for the least margin. The bound is inf where the ball misses the polytope. The point is the
    best one in the ball, else the nearest one with margin ≤ t, else None.
    """
    x, eps = q.x.flatten().numpy(), q.threat.eps
    low, high = walls(q)
    eye = np.eye(len(x))
    outputs = [(eye, x)]  # of each layer, in δ = z − x
    rows, tops = [-eye, eye], [x - low, high - x]
    for layer, dense in enumerate(q.dense):
        w = sum(t.numpy() @ outputs[s + 1][0] for s, t in dense.terms.items())
        b = dense.bias.numpy() + sum(t.numpy() @ outputs[s + 1][1] for s, t in dense.terms.items())
        if layer < len(on):
            sign = np.where(on[layer], -1.0, 1.0)
            rows.append(sign[:, None] * w)
            tops.append(-sign * b)
            outputs.append((on[layer][:, None] * w, on[layer] * b))
    spec = q.spec()[j].numpy()
    c, offset = spec @ w, float(spec @ b)
    g, h = np.concatenate([*rows, c[None]]), np.concatenate([*tops, [-offset]])
    enough, bound, met, point = t, -np.inf, np.inf, None
    for _ in range(60):
        h[-1] = t - offset
        e = np.concatenate([-g.T, -h[None]])
        try:
            u, _ = optimize.nnls(e, np.eye(len(x) + 1)[-1], maxiter=100 * len(h))
        except RuntimeError:  # too many steps: what is proved so far stands
            break
        rest = e @ u
        rest[-1] -= 1
        delta = rest[:-1] / -rest[-1] if rest[-1] < 0 else np.full(len(x), np.inf)
        if point is None and np.isfinite(delta).all():
            point = x + delta
        if np.linalg.norm(delta) <= eps * (1 + 1e-12) and c @ delta + offset < met:
            met, point = c @ delta + offset, x + delta
        lift = -u[:-1] @ h[:-1] - eps * np.linalg.norm(g.T @ u)
        lift -= 4 * sum(g.shape) * np.finfo(float).eps * (u @ (np.abs(h) + np.abs(g).sum(1) * eps))
        if u[-1] > 0:
            bound = max(bound, lift / u[-1] + offset)
        elif lift > 0:
            return np.inf, None
        if (bound > enough and not q.exact) or met <= bound + 1e-9 * (1 + abs(bound)):
            break
        if met <= t:
            t = bound if bound > -np.inf else met - 1 - abs(met)
        else:  # no point with margin ≤ t is in the ball, or none at all
            t = bound if bound > t else min((t + met) / 2, t + 1 + abs(t))
    return float(bound), point


def walls(q: Query) -> tuple[np.ndarray, np.ndarray]:
    """The least and the largest value of each input, rounded outward."""
    x, box = q.x.flatten().numpy(), q.threat.box
    low = np.nextafter(x - q.threat.eps, -np.inf)
    high = np.nextafter(x + q.threat.eps, np.inf)
    if box is not None:  # an x on a wall that was rounded as x was is still allowed
        low, high = np.minimum(np.maximum(low, box[0]), x), np.maximum(np.minimum(high, box[1]), x)
    return low, high


def over_ball(q: Query, g: np.ndarray, corner: np.ndarray) -> tuple[float, np.ndarray]:
    """The least g·z over the input's box (at `corner`) and in ℓ2 the ball, and where.

    In ℓ2 by weak duality: g·δ + μ(‖δ‖² − eps²) is least over the box coordinate by coordinate,
    for any μ ≥ 0; the μ is that of the projection of a point far down along g.
    """
    x, size = q.x.flatten().numpy(), np.abs(g)
    room = np.abs(corner - x)
    if q.threat.norm != "l2" or np.linalg.norm(room) <= q.threat.eps or not size.max() > 0:
        return float(g @ corner), corner
    far = torch.from_numpy(x - 1e6 * q.threat.eps * g / size.max()).view_as(q.x)
    near = np.abs(q.threat.project(far, q.x).flatten().numpy() - x)
    t = (near[size > 0] / size[size > 0]).max()
    delta = np.minimum(t * size, room)
    value = g @ x - size @ delta + (delta @ delta - q.threat.eps**2) / (2 * t)
    return float(value), x - np.sign(g) * delta


def tangents(q: Query, deltas: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """normals·z ≤ tops, which hold for all z in the ball, touching it in these directions."""
    size = np.linalg.norm(deltas, axis=1)
    deltas, size = deltas[size > 0], size[size > 0]
    return deltas, deltas @ q.x.flatten().numpy() + q.threat.eps * size * (1 + 1e-12)
