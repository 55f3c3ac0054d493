"""Chapter 5. A ReLU network as linear constraints: a triangle for each neuron, or a binary.

With every open neuron relaxed to its triangle, the least margin is a linear program; with a binary
for each it is a mixed-integer one, and exact. The solver, HiGHS, works in floating point and to
tolerances, so its optimum proves nothing. Its multipliers do: by weak duality any multipliers
give a lower bound, which is summed here in float64 with the largest possible rounding taken off.

Source: Neumaier & Shcherbina, "Safe bounds in linear and mixed-integer linear programming", Math.
Program. 99 (2004); Tjeng, Xiao & Tedrake, ICLR 2019, for the binaries.
"""

import dataclasses
import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy import optimize, sparse
from torch import Tensor

from . import bounds
from .query import Answer, Query, nearest, over_ball, tangents, walls

#: HiGHS may violate each constraint of a mixed-integer program by so much.
TOLERANCE = 1e-6

#: It answers nonsense where a program's numbers are larger.
WILD = 1e7


def relaxed(q: Query) -> Answer:
    """Every neuron a triangle, a program for each rival."""
    p, floor, nodes, reason = program(q, q.arrays), q.floor.clone(), 0, ""
    for j in q.rivals.tolist():
        nodes += 1
        value, point = least(q, p, j)
        floor[j] = max(value, floor[j].item())
        witness = None if point is None else q.confirm(_input(q, point))[0]
        if witness is not None:
            break
    if not floor.min() > 0:
        reason = "the relaxation is too loose to decide"
    return Answer(floor.min().item(), witness, nodes, reason)


def search(q: Query) -> Answer:
    """Every open neuron a binary, a program for each rival."""
    p, floor, nodes, reason = program(q, q.arrays, binary=True), q.floor.clone(), 0, ""
    found = bounds.backward(q.graph, q.x, q.threat, q.pre, q.spec()[None])
    pairs = zip(found.coefs, q.pre, strict=True)
    swell = sum((a[0].abs() @ (1 + b.upper - b.lower)[0] for a, b in pairs), 0 * q.floor)
    witness = None
    if (largest := p.largest()) > WILD:
        said = f"the program has numbers up to {largest:.0e}, too large for the solver's tolerances"
        return Answer(q.floor.min().item(), None, 0, said)
    for j in q.rivals.tolist():
        slack = TOLERANCE * (1 / p.scale(j) + swell[j].item())
        value, point, tried, p = _optimum(q, p, j, slack)
        nodes += tried
        floor[j] = max(value, floor[j].item())
        if point is not None and witness is None:
            witness = q.confirm(_input(q, point))[0]
            if witness is not None and not q.exact:
                break
        if value < slack:
            reason = f"the least margin is within the solver's tolerance of {slack:.1e}, or below"
    return Answer(floor.min().item(), witness, nodes, reason)


@dataclass(frozen=True)
class Program:
    """rows·v ≤ top, with equality where `equal`, and low ≤ v ≤ high; costs[j]·v + offsets[j] is
    logit_y − logit_j.

    v holds the flattened input, the output of every neuron, in ℓ1 the size of every change, and
    with binaries one for each open neuron; the last `tangents` rows cut an ℓ2 ball out of its box.
    """

    costs: np.ndarray
    offsets: np.ndarray
    rows: sparse.csr_matrix
    top: np.ndarray
    equal: np.ndarray
    low: np.ndarray
    high: np.ndarray
    binaries: int
    tangents: int = 0

    def cut(self, normals: np.ndarray, tops: np.ndarray) -> "Program":
        """The same with the inequalities normals·input ≤ tops."""
        wide = sparse.hstack(
            [sparse.csr_matrix(normals),
             sparse.csr_matrix((len(normals), len(self.low) - normals.shape[1]))]
        )  # fmt: skip
        return dataclasses.replace(
            self,
            rows=sparse.vstack([self.rows, wide], "csr"),
            top=np.append(self.top, tops),
            equal=np.append(self.equal, np.zeros(len(tops), bool)),
            tangents=self.tangents + len(tops),
        )

    def scale(self, j: int) -> float:
        """The power of two that makes the largest cost of margin j about 1."""
        return 2.0 ** -max(math.frexp(np.abs(self.costs[j]).max())[1], -1000)

    def largest(self) -> float:
        """Of all numbers but the costs, which can be scaled."""
        ends = (self.top, self.low, self.high, self.rows.data)
        return max(float(np.abs(end).max(initial=0)) for end in ends)

    def safe(self, q: Query, j: int, price: np.ndarray) -> tuple[float, np.ndarray]:
        """The lower bound of margin j that these multipliers prove, and the input it is met at.

        For prices p ≤ 0 (of any sign for equations) and all v allowed, cost·v ≥ p·top +
        (cost − pᵀrows)·v. The last term is least at a corner of the box of v; in ℓ2 the input's
        part of it is taken over the ball as well, and the tangents are not needed.
        """
        price = np.where(self.equal, price, np.minimum(price, 0))
        price[len(price) - self.tangents :] = 0
        cost, offset, d = self.costs[j], self.offsets[j], q.x.numel()
        reduced = cost - self.rows.T @ price
        corner = np.where(reduced > 0, self.low, self.high)
        inner, point = over_ball(q, reduced[:d], corner[:d])
        value = offset + price @ self.top + inner + reduced[d:] @ corner[d:]
        largest = np.maximum(np.abs(self.low), np.abs(self.high))
        met = abs(offset) + np.abs(cost) @ largest
        met += np.abs(price) @ (np.abs(self.top) + abs(self.rows) @ largest)
        value -= 4 * (sum(self.rows.shape) + 8) * np.finfo(float).eps * met
        return (float(value) if np.isfinite(value) else -np.inf), point


def least(q: Query, p: Program, j: int) -> tuple[float, np.ndarray | None]:
    """The least margin j of a linear program: a proved lower bound, and where HiGHS reaches it.

    The bound is inf where the program is proved to be empty. In ℓ2 the ball is cut out of its
    box by tangents: where the point found lies beyond it, and where the multipliers want it.
    """
    x, values, point = q.x.flatten().numpy(), [], None
    while q.left > 0:
        found = _linprog(q, p, j)
        if found.status == 2:
            return _empty(q, p, j), None
        if found.status != 0:
            return max(values, default=-np.inf), point
        value, near = p.safe(q, j, _prices(p, found))
        values, point = [*values, value], found.x[: len(x)]
        delta = point - x
        beyond = q.threat.norm == "l2" and np.linalg.norm(delta) > q.threat.eps * (1 + 1e-9)
        if not beyond or max(values) > 0 or _stalls(values):
            break
        p = p.cut(*tangents(q, np.stack([delta, near - x])))
    return max(values, default=-np.inf), point


def program(q: Query, pre: list[tuple[np.ndarray, np.ndarray]], *, binary: bool = False) -> Program:
    """The relaxed (or, with binaries, the exact) network, with bounds `pre` of its pre-activations.

    A neuron is open where its bounds have 0 strictly inside. A phase is imposed by bounds that end
    at 0: an upper bound of 0 becomes a row.
    """
    x = q.x.flatten().numpy()
    sizes = [len(x), *q.graph.sizes]
    at = np.cumsum([0, *sizes])  # where each layer's variables begin
    l1 = q.threat.norm == "l1"
    lows, highs = ([wall] for wall in walls(q))
    opened = sum(int(((low < 0) & (high > 0)).sum()) for low, high in pre) if binary else 0
    width = at[-1] + l1 * len(x) + opened
    blocks = [(sparse.csr_matrix((0, width)), np.zeros(0), False)]  # rows, tops, equations?

    def affine(layer: int) -> tuple[sparse.csr_matrix, np.ndarray]:
        found = sparse.lil_matrix((len(q.dense[layer].bias), width))
        for source, weight in q.dense[layer].terms.items():
            found[:, at[source + 1] : at[source + 2]] = weight.numpy()
        return found.tocsr(), q.dense[layer].bias.numpy()

    def unit(columns: np.ndarray, values: np.ndarray | float = 1.0) -> sparse.csr_matrix:
        n = len(columns)
        return sparse.csr_matrix((np.broadcast_to(values, n), (range(n), columns)), (n, width))

    used = width - opened
    for i, (low, high) in enumerate(pre):
        lows.append(np.maximum(low, 0))
        highs.append(np.maximum(high, 0))
        a, bias = affine(i)
        here = np.arange(at[i + 1], at[i + 2])
        on, cut = low >= 0, (low < 0) & (high == 0)
        blocks.append((unit(here[on]) - a[on], bias[on], True))
        blocks.append((a[cut], -bias[cut], False))
        mid = (low < 0) & (high > 0)
        a, bias, low, high, here = a[mid], bias[mid], low[mid], high[mid], here[mid]
        blocks.append((a - unit(here), -bias, False))
        if binary:
            z = np.arange(used, used + len(here))
            used += len(here)
            blocks.append((unit(here) - a - unit(z, low), bias - low, False))
            blocks.append((unit(here) - unit(z, high), np.zeros(len(here)), False))
        else:  # the chord, lifted by its rounding: above both ends it is above all between them
            slope = high / (high - low)
            lift = np.maximum(-slope * low, high - slope * high) + 1e-15 * (high - low)
            blocks.append((unit(here) - sparse.diags(slope) @ a, slope * bias + lift, False))
    if l1:
        size, flat = np.arange(at[-1], at[-1] + len(x)), np.arange(len(x))
        blocks.append((unit(flat) - unit(size), x, False))
        blocks.append((-unit(flat) - unit(size), -x, False))
        total = sparse.csr_matrix((np.ones(len(x)), (np.zeros(len(x), int), size)), (1, width))
        blocks.append((total, np.array([q.threat.eps]), False))
        lows.append(np.zeros(len(x)))
        highs.append(np.full(len(x), q.threat.eps))
    a, bias = affine(len(pre))
    spec = q.spec().numpy()
    return Program(
        spec @ a, spec @ bias,
        sparse.vstack([b[0] for b in blocks], "csr"), np.concatenate([b[1] for b in blocks]),
        np.repeat([b[2] for b in blocks], [b[0].shape[0] for b in blocks]),
        np.concatenate([*lows, np.zeros(opened)]), np.concatenate([*highs, np.ones(opened)]),
        opened,
    )  # fmt: skip


def _optimum(
    q: Query, p: Program, j: int, slack: float
) -> tuple[float, np.ndarray | None, int, Program]:
    """The least margin j of a program with binaries: bound, point, nodes, program with tangents.

    Only whether it is at most `slack` is asked, unless the query is exact: then no solution means
    a bound of slack. In ℓ2 the tangent at the nearest point of a pattern closes the whole pattern.
    """
    nodes, d, x, before = 0, q.x.numel(), q.x.flatten().numpy(), None
    while q.left > 0:
        found = _milp(q, p, j, math.inf if q.exact else slack)
        nodes += int(found.get("mip_node_count") or 0) + 1
        if found.status == 2:
            return (-math.inf if q.exact else slack), None, nodes, p
        dual = found.get("mip_dual_bound")
        value = -math.inf if dual is None else float(dual / p.scale(j) + p.offsets[j])
        if found.x is None:
            return value, None, nodes, p
        delta = found.x[:d] - x
        if q.threat.norm != "l2" or np.linalg.norm(delta) <= q.threat.eps * (1 + 1e-9):
            return value, found.x, nodes, p
        z, on = found.x[len(found.x) - p.binaries :] > 0.5, []
        for low, high in q.arrays:
            mid = (low < 0) & (high > 0)
            on.append(low >= 0)
            on[-1][mid], z = z[: mid.sum()], z[mid.sum() :]
        pattern = np.concatenate([*on, []])
        least, point = nearest(q, on, j, 0.0 if q.exact else slack)
        if least <= (value if q.exact else 0) + slack or np.array_equal(pattern, before):
            return value, point, nodes, p
        before = pattern
        ends = [delta] if point is None else [delta, point - x]
        p = p.cut(*tangents(q, np.stack(ends)))
    return -math.inf, None, nodes, p


def _milp(q: Query, p: Program, j: int, most: float) -> optimize.OptimizeResult:
    lower = np.where(p.equal, p.top, -np.inf)
    whole = np.zeros(len(p.low))
    whole[len(whole) - p.binaries :] = 1
    costs = p.costs[j] * p.scale(j)
    rows = sparse.vstack([p.rows, sparse.csr_matrix(costs[None])], "csr")
    return optimize.milp(
        costs, integrality=whole, bounds=optimize.Bounds(p.low, p.high),
        constraints=optimize.LinearConstraint(
            rows, np.append(lower, -np.inf), np.append(p.top, (most - p.offsets[j]) * p.scale(j))
        ),
        options={"time_limit": max(q.left, 0.01)},
    )  # fmt: skip


def _stalls(values: list[float]) -> bool:
    """Whether ten rounds have raised the best bound by less than a thousandth."""
    before = max(values[:-10], default=-np.inf)
    return max(values) - before <= 1e-3 * abs(max(values))


def _input(q: Query, point: np.ndarray) -> Tensor:
    return torch.from_numpy(point[: q.x.numel()].copy()).view_as(q.x)


def _linprog(q: Query, p: Program, j: int) -> optimize.OptimizeResult:
    return optimize.linprog(
        p.costs[j], p.rows[~p.equal], p.top[~p.equal], p.rows[p.equal], p.top[p.equal],
        np.stack([p.low, p.high], 1), method="highs", options={"time_limit": max(q.left, 0.01)},
    )  # fmt: skip


def _prices(p: Program, found: optimize.OptimizeResult) -> np.ndarray:
    price = np.zeros(len(p.top))
    price[~p.equal], price[p.equal] = found.ineqlin.marginals, found.eqlin.marginals
    return np.nan_to_num(price, nan=0.0, posinf=0.0, neginf=0.0)


def _empty(q: Query, p: Program, j: int) -> float:
    """inf if the program is proved to be empty, else −inf.

    Each row may be violated at a price. Multipliers that prove that this costs anything at all
    prove that no point violates none.
    """
    m = len(p.top)
    loose = dataclasses.replace(
        p,
        costs=np.pad(0 * p.costs, ((0, 0), (0, 2 * m)), constant_values=1.0),
        rows=sparse.hstack([p.rows, -sparse.identity(m), sparse.diags(p.equal * 1.0)], "csr"),
        low=np.append(p.low, np.zeros(2 * m)),
        high=np.append(p.high, np.full(2 * m, np.inf)),
    )
    found = _linprog(q, loose, j)
    if found.status != 0:
        return -np.inf
    free = dataclasses.replace(p, costs=0 * p.costs, offsets=0 * p.offsets)
    return np.inf if free.safe(q, j, _prices(p, found))[0] > 0 else -np.inf
