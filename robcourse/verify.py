"""Chapter 5. Is there a wrong answer within the threat? Three solvers, and what each may say.

"unsafe" always comes with a witness that `threat.measure` confirmed, on the model as it runs.
"safe" is a proof about the network in exact arithmetic with those weights: what floating point
makes of it may differ in the last digits. All else is "unknown", with the reason. A tie counts as
wrong; what a time limit cuts off proves nothing.

`lp` relaxes every neuron to its triangle, and cannot always decide. `milp` and `branch_and_bound`
can, given time: the one with a general solver, whose tolerances have to be believed, the other
with bounds that are rounded outward.
"""

import dataclasses
import functools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from . import attacks, bounds, branching
from . import milp as programs
from .query import Answer, Query
from .runtime import frozen
from .threat import Threat, measure


@dataclass(frozen=True)
class Verdict:
    """What is known of one example.

    Attributes:
        status: "safe", "unsafe" or "unknown".
        bound: a lower bound of the least margin over the threat, −inf where there is none;
            positive if safe. From `milp` to the solver's tolerance.
        witness: `[*s]`, allowed and wrong, if unsafe; else None.
        nodes: programs or subproblems that were solved; 0 if none was needed.
        seconds: wall time.
        reason: why it is unknown; "" if it is not.
    """

    status: str
    bound: float
    witness: Float[Tensor, " *s"] | None
    nodes: int
    seconds: float
    reason: str = ""


def lp(
    model: nn.Module,
    x: Float[Tensor, " n *s"],
    y: Int[Tensor, " n"],
    threat: Threat,
    *,
    seconds: float = 60.0,
) -> list[Verdict]:
    """The triangle relaxation, a linear program for each wrong class that CROWN leaves open.

    The bound is what the solver's multipliers prove, its rounding taken off, and not what the
    solver says. In ℓ1 the ball is exact; in ℓ2 it is cut out of its box by tangents. "unknown"
    where the relaxation is too loose: the network may be safe all the same.

    Args:
        model: affine layers, ReLUs and `models.Residual` in a chain, in evaluation mode.
        x, y: the examples and their labels.
        threat: what is allowed.
        seconds: for each example.

    Raises:
        ValueError: a layer that has no bounds here, named with its place; a network that is too
            large for matrices; no time; what `Threat.validate` refuses.

    Source: Ehlers, ATVA 2017; Wong & Kolter, ICML 2018.
    """
    return _each(model, x, y, threat, seconds, programs.relaxed)


def milp(
    model: nn.Module,
    x: Float[Tensor, " n *s"],
    y: Int[Tensor, " n"],
    threat: Threat,
    *,
    seconds: float = 60.0,
    exact: bool = False,
) -> list[Verdict]:
    """A mixed-integer program for each wrong class that CROWN leaves open; HiGHS solves it.

    Each open neuron has a binary, and its bounds are the constants M. "safe" is no proof as the
    other two give it: it believes HiGHS, which keeps constraints and integrality to 1e-6. So a
    margin is "unknown" that is no larger than what such violations amount to, each weighed with
    its coefficient in CROWN's bound. In ℓ2 the ball is cut out by tangents, one program after
    another; the tangent at the nearest point of an activation pattern closes the whole pattern.

    Args:
        model, x, y, threat, seconds: as for `lp`.
        exact: go on to the least margin itself, instead of stopping at its sign.

    Raises:
        ValueError: what `lp` refuses.

    Source: Tjeng, Xiao & Tedrake, "Evaluating robustness of neural networks with mixed integer
    programming" (ICLR 2019).
    """
    return _each(model, x, y, threat, seconds, programs.search, exact=exact)


def branch_and_bound(
    model: nn.Module,
    x: Float[Tensor, " n *s"],
    y: Int[Tensor, " n"],
    threat: Threat,
    *,
    seconds: float = 60.0,
    exact: bool = False,
    batch: int = 128,
    steps: int = 6,
    seed: int = 0,
) -> list[Verdict]:
    """PGD looks for a witness; then neurons are split until each part is proved or refuted.

    Bounds are CROWN's with optimised slopes and multipliers, for many parts at once, the worst
    first; a part with no open neuron is a linear program, in ℓ2 a projection. All of them are
    computed in float64 and lowered by their rounding.

    Args:
        model, x, y, threat, seconds, exact: as for `milp`.
        batch: how many subproblems are split at a time.
        steps: of gradient ascent on each bound.
        seed: of the attack.

    Raises:
        ValueError: batch or steps below 1; what `lp` refuses.

    Source: Bunel et al., "Branch and bound for piecewise linear neural network verification"
    (JMLR 2020); Wang et al., "Beta-CROWN" (NeurIPS 2021).
    """
    for name, value in (("batch", batch), ("steps", steps)):
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} is {value!r}; expected an integer ≥ 1")

    def solve(q: Query) -> Answer:
        return branching.search(q, batch=batch, steps=steps)

    def attack(x: Tensor, y: Tensor) -> Tensor:
        options = {"steps": 20, "restarts": 2, "loss": "margin", "seed": seed}
        return attacks.pgd(model, x, y, threat, **options).x_adv

    return _each(model, x, y, threat, seconds, solve, exact=exact, attack=attack)


@dataclass(frozen=True)
class Radius:
    """The distance from one example to the nearest wrong answer, enclosed.

    Attributes:
        lower: no wrong answer is nearer: proved by `branch_and_bound`.
        upper: the distance of `witness`; inf where none was found.
        witness: `[*s]`, or None.
        norm: of the distances.
        nodes: subproblems bounded, in all.
        seconds: wall time.
    """

    lower: float
    upper: float
    witness: Float[Tensor, " *s"] | None
    norm: str
    nodes: int
    seconds: float


def minimal_radius(
    model: nn.Module,
    x: Float[Tensor, " n *s"],
    y: Int[Tensor, " n"],
    norm: str,
    *,
    box: tuple[float, float] | None = (0.0, 1.0),
    tolerance: float = 1e-4,
    seconds: float = 60.0,
    seed: int = 0,
) -> list[Radius]:
    """The distance to the nearest wrong answer, enclosed to `tolerance` of itself.

    An attack proposes a point; branch and bound tries to prove the ball that just leaves it out.
    If it finds a nearer witness instead, the enclosure is halved until it is tight or the time
    is over.

    Args:
        model, x, y: as for `lp`.
        norm: "linf" or "l2", those that `attacks.minimal` knows.
        box: the range of every coordinate; None for unbounded inputs. Without a box, and where
            the attack finds nothing, nothing is known: 0 and inf.
        tolerance: relative; the judge's own, 1e-6, is the limit.
        seconds: for each example.
        seed: of the attacks.

    Raises:
        ValueError: a tolerance outside (0, 1); what `lp` and `attacks.minimal` refuse.
    """
    if not 0 < tolerance < 1:
        raise ValueError(f"tolerance is {tolerance}; expected a share of the radius in (0, 1)")
    _positive(seconds)
    return [
        _enclosed(model, x[i : i + 1], y[i : i + 1], norm, box, tolerance, seconds, seed)
        for i in range(len(x))
    ]


def _enclosed(model, x, y, norm, box, tolerance, seconds, seed) -> Radius:
    start = time.monotonic()
    near = attacks.minimal(model, x, y, norm, box=box, seed=seed)
    lower, upper, witness, nodes = 0.0, math.inf, None, 0
    if bool(near.success):
        upper, witness = near.threat.size(near.x_adv - x).item(), near.x_adv[0]
    trial = near.threat.eps if witness is None else upper * (1 - tolerance)
    while upper > 0 and near.threat.eps > 0:
        left = start + seconds - time.monotonic()
        if left <= 0:
            break
        (found,) = branch_and_bound(model, x, y, near.threat.at(trial), seconds=left, seed=seed)
        nodes += found.nodes
        if found.status == "safe":
            lower = trial
        elif found.status == "unsafe":
            upper = min(upper, near.threat.size(found.witness[None] - x).item())
            witness = found.witness
        if found.status == "unknown" or upper - lower <= tolerance * upper * (1 + 1e-6):
            break
        trial = (lower + upper) / 2
    return Radius(lower, upper, witness, norm, nodes, time.monotonic() - start)


def _each(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: Threat,
    seconds: float,
    solve: Callable[[Query], Answer],
    *,
    exact: bool = False,
    attack: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> list[Verdict]:
    threat.validate(model, x, y)
    _positive(seconds)
    x = x.detach()
    with frozen(model), torch.no_grad():
        graph = bounds.graph(model, x[:1].cpu().double())
        matrices = functools.cache(graph.dense)

        def one(x: Tensor, y: Tensor) -> Verdict:
            start = time.monotonic()
            q = Query(
                graph, matrices, x.cpu().double(), int(y), threat, exact, start + seconds,
                _judge(model, x, y, threat),
            )  # fmt: skip
            found = _decide(q, solve, attack and (lambda: attack(x, y)))
            status = "unknown" if found.reason else "safe"
            if found.witness is not None:
                status = "unsafe"
            reason = found.reason if status == "unknown" else ""
            if reason and q.left <= 0:
                reason = f"{seconds:g} seconds were not enough"
            spent = time.monotonic() - start
            return Verdict(status, float(found.bound), found.witness, found.nodes, spent, reason)

        return [one(x[i : i + 1], y[i : i + 1]) for i in range(len(x))]


def _decide(q: Query, solve: Callable, attack: Callable | None) -> Answer:
    """What the judge says of x, what CROWN proves, what an attack finds; only then `solve`."""
    witness, met = q.confirm(q.x)
    if math.isnan(met):
        return Answer(-math.inf, None, 0, "a logit at x is NaN")
    if witness is not None and not q.exact:
        return Answer(-math.inf, witness, 0)
    q = q.bounded()
    edges = [q.floor[q.rivals], *(side for b in q.pre for side in (b.lower, b.upper))]
    if not all(edge.isfinite().all() for edge in edges):
        return Answer(-math.inf, witness, 0, "a bound is NaN or overflows")
    if not len(q.rivals):
        return Answer(q.floor.min().item(), None, 0)
    if attack and not q.exact:
        witness, _ = q.confirm(attack())
        if witness is not None:
            return Answer(q.floor.min().item(), witness, 0)
    found = solve(q)
    return found if found.witness is not None else dataclasses.replace(found, witness=witness)


def _judge(model: nn.Module, x: Tensor, y: Tensor, threat: Threat) -> Callable:
    """Candidates `[b, *s]` -> the first that is allowed and wrong, or None; the least margin."""

    def confirm(points: Tensor) -> tuple[Tensor | None, float]:
        n = len(points)
        many = x.expand(n, *x.shape[1:])
        points = threat.project(points.to(x).nan_to_num(), many)
        found = measure(model, points, many, y.expand(n), threat)
        wrong = (found.success & ~found.margin.isnan()).nonzero()[:, 0]
        witness = found.x_adv[wrong[0]].clone() if len(wrong) else None
        return witness, found.margin.min().item()

    return confirm


def _positive(seconds: float) -> None:
    if not seconds > 0:
        raise ValueError(f"seconds is {seconds}; expected a time > 0 for each example")
