"""Chapter 5. Branch and bound: split a neuron, bound both halves, throw away what is proved.

A bound is the dual of the triangle relaxation, evaluated backwards through the network for many
subproblems at once. Its free numbers are a lower slope for each open neuron (α) and a multiplier
for each neuron that was split (β). CROWN is one choice of them; a few steps of gradient ascent
find better ones, and every choice is a proof. A subproblem with no open neuron left is a linear
program.

Source: Bunel et al., JMLR 21 (2020), for the frame and the branching rule (BaBSR); Wang et al.,
"Beta-CROWN" (NeurIPS 2021), for the bound.
"""

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor

from . import bounds, milp
from .query import Answer, Query, nearest

#: How far the bound may stay below a margin that was met, where the exact value is asked for.
GAP = 1e-7

#: A batch is filled up to so many subproblems: smaller ones cost as much time.
FILL = 16

REASON = "the least margin is 0, or too near to it to be told from it"

#: Of the multipliers β: larger ones would only swell the rounding.
LARGEST = 1e6


@dataclass(frozen=True)
class Subproblems:
    """A batch of b of them.

    Attributes:
        bound: `[b]`, of the margin over the subproblem, from below.
        rival: `[b]`, the wrong class of the margin.
        phase: `[b, N]`, all neurons in a row: 1 fixed active, −1 fixed inactive, 0 not split.
        alpha, beta: `[b, N]`, with which the bound was found.
        coefs: `[b, N]`, there, of the neurons' outputs.
    """

    bound: Tensor
    rival: Tensor
    phase: Tensor
    alpha: Tensor
    beta: Tensor
    coefs: Tensor

    def __getitem__(self, rows: Tensor | slice) -> "Subproblems":
        return Subproblems(*(getattr(self, f.name)[rows] for f in dataclasses.fields(self)))

    def replaced(self, where: Tensor, other: "Subproblems") -> "Subproblems":
        """`other` in some rows."""
        pairs = [(getattr(other, f.name), getattr(self, f.name)) for f in dataclasses.fields(self)]
        return Subproblems(*(torch.where(_column(where, a), a, b) for a, b in pairs))

    @staticmethod
    def cat(parts: list["Subproblems"]) -> "Subproblems":
        """All of them in one batch."""
        names = [f.name for f in dataclasses.fields(Subproblems)]
        return Subproblems(*(torch.cat([getattr(p, n) for p in parts]) for n in names))


def search(q: Query, *, batch: int, steps: int) -> Answer:
    """The least margin over the rivals, from below.

    It ends when every subproblem is proved to be positive, at a witness that the judge confirms,
    or at the deadline. If the query is exact it goes on until the bound is within `GAP` of a
    margin that was met.
    """
    low, high = (torch.cat([getattr(b, side) for b in q.pre], 1) for side in ("lower", "upper"))
    start = low.new_zeros(len(q.rivals), low.shape[1])
    alpha = (high > -low).to(low).expand_as(start)
    fresh = Subproblems(q.floor[q.rivals], q.rivals, start, alpha, start, start)
    todo, proved, least, witness, nodes = fresh[:0], q.settled, torch.inf, None, 0
    while True:
        fresh, points = _climb(q, low, high, fresh, steps)
        nodes += len(fresh.bound)
        goal = least - GAP if q.exact else 0.0
        leaf = ~_open(low, high, fresh.phase).any(1)
        for i in (leaf & (fresh.bound <= goal)).nonzero()[:, 0].tolist():
            fresh.bound[i], points[i] = _solve(q, low, high, fresh[i : i + 1], points[i])
        found, met = q.confirm(points)
        witness, least = found if witness is None else witness, min(least, met)
        goal = least - GAP if q.exact else 0.0
        proved = min([proved, *fresh.bound[leaf].tolist()])
        todo = Subproblems.cat([todo, fresh[~leaf]])
        closed = todo.bound > goal
        proved = min([proved, *todo.bound[closed].tolist()])
        todo = todo[~closed]
        if not len(todo.bound) or q.left <= 0 or (witness is not None and not q.exact):
            bound = min([proved, *todo.bound.tolist()])
            return Answer(bound, witness, nodes, "" if bound > 0 else REASON)
        order = todo.bound.argsort()
        fresh, todo = todo[order[:batch]], todo[order[batch:]]
        while (more := _split(low, high, fresh)) is not None:
            fresh = more
            if len(fresh.bound) > FILL:
                break


def _open(low: Tensor, high: Tensor, phase: Tensor) -> Tensor:
    return (low < 0) & (high > 0) & (phase == 0)


def _climb(
    q: Query, low: Tensor, high: Tensor, s: Subproblems, steps: int
) -> tuple[Subproblems, Tensor]:
    """Better α and β by gradient ascent; the best bounds, and the inputs they are reached at."""
    n, sizes = len(s.bound), q.graph.sizes
    lower = torch.where(s.phase > 0, low.clamp_min(0), low).split(sizes, 1)
    upper = torch.where(s.phase < 0, high.clamp_max(0), high).split(sizes, 1)
    pre = [bounds.Bounds(a, b) for a, b in zip(lower, upper, strict=True)]
    x, spec = q.x.expand(n, *q.x.shape[1:]), q.spec()[s.rival][:, None]
    alpha, beta = (t.clone().requires_grad_() for t in (s.alpha, s.beta))
    ascent = torch.optim.Adam(
        [{"params": alpha, "lr": 0.2}, {"params": beta, "lr": 0.5}],
        betas=(0.8, 0.99), maximize=True,
    )  # fmt: skip
    best, points = s, q.x.repeat(n, *[1] * (q.x.ndim - 1))
    for step in range(steps + 1):
        with torch.enable_grad():
            found = bounds.backward(
                q.graph, x, q.threat, pre, spec,
                alpha=[a[:, None] for a in alpha.split(sizes, 1)],
                beta=[b[:, None] for b in (beta * s.phase).split(sizes, 1)],
            )  # fmt: skip
            value = found.lower[:, 0]
            total = value.sum()
        better = value.detach() > best.bound
        coefs = torch.cat(found.coefs, 2)[:, 0].detach()
        now = Subproblems(value.detach(), s.rival, s.phase, alpha.detach(), beta.detach(), coefs)
        best = best.replaced(better, now)
        points = torch.where(_column(better, points), found.point[:, 0].detach(), points)
        if step == steps or (best.bound > 0).all():
            return best, points
        alpha.grad, beta.grad = torch.autograd.grad(total, (alpha, beta))
        ascent.step()
        with torch.no_grad():
            alpha.nan_to_num_(0.0).clamp_(0, 1)
            beta.nan_to_num_(0.0).clamp_(0, LARGEST)


def _split(low: Tensor, high: Tensor, s: Subproblems) -> Subproblems | None:
    """Both halves of each subproblem, at the neuron whose triangle costs most where it is used.

    One with no open neuron stays as it is; None if all of them do.
    """
    open_ = _open(low, high, s.phase)
    score = torch.where(open_, s.coefs.clamp_max(0) * high * low / (high - low), -1.0)
    at, can = score.argmax(1, keepdim=True), open_.any(1)
    if not can.any():
        return None
    halves = [dataclasses.replace(s, phase=s.phase.scatter(1, at, side))[can] for side in (1, -1)]
    return Subproblems.cat([*halves, s[~can]])


def _solve(
    q: Query, low: Tensor, high: Tensor, s: Subproblems, point: Tensor
) -> tuple[float, Tensor]:
    """The bound of a subproblem with no open neuron, and the input where it is reached."""
    lower = torch.where(s.phase > 0, low.clamp_min(0), low)[0].split(q.graph.sizes)
    upper = torch.where(s.phase < 0, high.clamp_max(0), high)[0].split(q.graph.sizes)
    rival = int(s.rival)
    if not q.explicit:
        return s.bound.item(), point
    if q.threat.norm == "l2":
        value, found = nearest(q, [(a >= 0).numpy() for a in lower], rival)
    else:
        pre = [(a.numpy(), b.numpy()) for a, b in zip(lower, upper, strict=True)]
        value, found = milp.least(q, milp.program(q, pre), rival)
    near = point if found is None else torch.from_numpy(found).view_as(point)
    return max(value, s.bound.item()), near


def _column(mask: Tensor, like: Tensor) -> Tensor:
    return mask.view(-1, *[1] * (like.ndim - 1))
