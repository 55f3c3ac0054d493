"""Bounds of the logits over a threat: intervals layer by layer, or lines from the back (CROWN).

An interval forgets which of a box's corners go together, and is loose for that; a line remembers.
Every ReLU whose sign is open is put between two lines, and one linear function of the *input*
bounds what is asked for: the wider the open ReLUs, the looser.

What is bounded is the network in exact arithmetic with the weights it has, on ball ∩ box. Rounding
goes outward. A sum of t products, in any order, is off by at most γ = t·u / (1 − t·u) times the sum
of their sizes (Higham, "Accuracy and stability of numerical algorithms", 2002, section 3.1), u the
unit of rounding; every bound is widened by more than γ times the same sum over the largest sizes
that each layer can meet. In float64 that is about 1e-12 of the numbers met, in float32 about 1e-4:
give `x.double()` where it matters. It holds for kernels that multiply and add in the dtype of x,
those of the CPU; not for TF32 or Winograd's on a GPU. NaN or overflow gives (−inf, inf).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor, nn
from torch.nn import functional as F

from . import graphs
from .graphs import Affine, Graph, Matrix, Region, Reshape, dot
from .graphs import Dense as Dense
from .threat import Threat

#: Numbers in one layer's coefficients: so many rows go backwards at a time.
ROOM = 2**23

Inner = Literal["ibp", "crown", "both"]


@dataclass(frozen=True)
class Bounds:
    """Of the numbers of one layer over the threat around each example: lower ≤ value ≤ upper."""

    lower: Float[Tensor, "n k"]
    upper: Float[Tensor, "n k"]


@dataclass(frozen=True)
class Relaxed:
    """What lines from the back give for m linear functions of the logits.

    Attributes:
        lower: of each function, over the threat.
        point: where the linear function of the input is least, in ball ∩ box (in ℓ2 and ℓ1: least
            over the ball, moved into the box): a candidate for a witness, no more.
        coefs: for each ReLU layer, the coefficient of each neuron's output when it was relaxed.
    """

    lower: Float64[Tensor, "n m"]
    point: Float[Tensor, " n m *s"]
    coefs: list[Float[Tensor, "n m _"]]


@torch.no_grad()
def ibp(model: nn.Module, x: Float[Tensor, " n *s"], threat: Threat) -> Bounds:
    """Interval bound propagation: of each logit, rounded outward; the box respected.

    In ℓ2 and ℓ1 the first linear layer is bounded by the dual norm of its rows where that is less.

    Raises:
        ValueError: a layer that has no rule here (named), or what `Threat.validate` refuses.

    Source: Gowal et al., ICCV 2019, section 3.
    """
    threat.validate(None, x)
    net = graph(model, x)
    center, radius = _interval(net, Region(x, threat))[-1]
    edge = radius + 4 * net.unit * (center.abs() + radius)
    return _finite(center - edge, center + edge)


def ibp_margins(
    model: nn.Module, x: Float[Tensor, " n *s"], y: Int[Tensor, " n"], threat: Threat
) -> Float[Tensor, "n k"]:
    """Interval bounds for training: of logit_y − logit_j for each class j; 0 for j = y.

    The last linear layer is folded into the differences, which is tighter than subtracting bounds.
    Differentiable in the weights. As computed: not rounded outward (`margins` is).
    """
    return _interval_margins(graphs.graph(model, x), Region(x, threat), y, sound=False)


@torch.no_grad()
def crown(
    model: nn.Module, x: Float[Tensor, " n *s"], threat: Threat, *, inner: Inner = "crown"
) -> Bounds:
    """Bounds of each logit by CROWN: backward, lower slope 1 where upper > −lower, else 0.

    Args:
        inner: where the bounds before each ReLU come from: CROWN itself for every neuron that
            intervals leave open, each about two backward passes, so for small networks; "ibp":
            intervals alone; "both": the tighter of the two for each neuron, as dear as CROWN.

    Raises:
        ValueError: as `ibp`.

    Source: Zhang et al., "Efficient neural network robustness certification with general activation
    functions" (NeurIPS 2018), section 3; "ibp" is CROWN-IBP (Zhang et al., ICLR 2020).
    """
    threat.validate(None, x)
    net = graph(model, x)
    eye = torch.eye(net.classes, dtype=x.dtype, device=x.device)
    low = _from_the_back(net, x, threat, torch.cat([eye, -eye]).expand(len(x), -1, -1), inner)
    lower, negated = low.chunk(2, 1)
    return _finite(lower, -negated)


@torch.no_grad()
def margins(
    model: nn.Module,
    x: Float[Tensor, " n *s"],
    y: Int[Tensor, " n"],
    threat: Threat,
    *,
    method: Literal["ibp", "crown"] = "crown",
    inner: Inner = "both",
) -> Float[Tensor, "n k"]:
    """Lower bounds of logit_y − logit_j for each class j, rounded outward; inf for j = y.

    The difference is bounded as one function, which is tighter than subtracting bounds.

    Raises:
        ValueError: as `ibp`; a label out of range.
    """
    threat.validate(None, x, y)
    net = graph(model, x)
    if y.min() < 0 or y.max() >= net.classes:
        raise ValueError(
            f"y runs from {y.min()} to {y.max()}; the model has {net.classes} classes, so labels "
            f"are 0 … {net.classes - 1}"
        )
    if method not in ("ibp", "crown"):
        raise ValueError(f"method is {method!r}; allowed: 'ibp', 'crown'")
    if method == "ibp":
        low = _interval_margins(net, Region(x, threat), y, sound=True)
    else:
        eye = torch.eye(net.classes, dtype=x.dtype, device=x.device)
        low = _from_the_back(net, x, threat, eye[y][:, None] - eye, inner)
    return _finite(low, low).lower.scatter(1, y[:, None], torch.inf)


def certified(
    model: nn.Module,
    x: Float[Tensor, " n *s"],
    y: Int[Tensor, " n"],
    threat: Threat,
    *,
    method: Literal["ibp", "crown"] = "crown",
    inner: Inner = "both",
) -> Bool[Tensor, " n"]:
    """Where it is proved that every point of the threat gets the label y."""
    return margins(model, x, y, threat, method=method, inner=inner).amin(1) > 0


# What verification is built of: the network as a graph, and bounds of its parts


@torch.no_grad()
def graph(model: nn.Module, x: Float[Tensor, " n *s"]) -> Graph:
    """The network for inputs like those of x; see `graphs.graph`."""
    return graphs.graph(model, x)


@torch.no_grad()
def layers(
    net: Graph, x: Float[Tensor, " n *s"], threat: Threat, *, inner: Inner = "both"
) -> list[Bounds]:
    """Bounds before each ReLU, a layer flattened; `inner` as in `crown`."""
    if inner not in ("ibp", "crown", "both"):
        raise ValueError(f"inner is {inner!r}; allowed: 'ibp', 'crown', 'both'")
    found = _interval(net, Region(x, threat))
    boxes = []
    for i in net.relus:
        center, radius = (t.flatten(1) for t in found[net.nodes[i].parents[0]])
        edge = radius + 4 * net.unit * (center.abs() + radius)
        boxes.append(Bounds(center - edge, center + edge))
    return boxes if inner == "ibp" else _redo(net, x, threat, boxes, -1, inner == "both")


@torch.no_grad()
def tighten(
    net: Graph, x: Float[Tensor, " n *s"], threat: Threat, pre: list[Bounds], *, after: int = -1
) -> list[Bounds]:
    """The layers later than `after` again, by CROWN from `pre`, never looser than `pre`.

    Where `pre` is cut at 0 (a phase is imposed) the bounds hold for the inputs of that phase; an
    empty interval says that there are none.
    """
    return _redo(net, x, threat, pre, after, True)


def backward(
    net: Graph,
    x: Float[Tensor, " n *s"],
    threat: Threat,
    pre: list[Bounds],
    spec: Float[Tensor, "n m k"],
    *,
    alpha: Sequence[Tensor] | None = None,
    beta: Sequence[Tensor] | None = None,
) -> Relaxed:
    """Lower bounds of spec @ logits from the bounds `pre` before each ReLU.

    Args:
        net, x, threat: as for `layers`.
        pre: of each ReLU layer. Cut at 0 where a phase is imposed.
        spec: m linear functions of the logits for each example.
        alpha: the lower slopes of open neurons, in [0, 1], `[n, 1 or m, neurons]` a layer; None:
            1 where upper > −lower, else 0.
        beta: multipliers of imposed phases, `[n, 1 or m, neurons]` a layer: ≥ 0 where the neuron is
            on, ≤ 0 where it is off, 0 where it is free; not checked.

    Differentiable in alpha and beta. Source: Xu et al. (ICLR 2021) and Wang et al. (NeurIPS 2021).
    """
    inputs = Region(x, threat)
    lines = _Lines(net, inputs)
    for i, known in enumerate(pre):
        lines.learn(known, None if alpha is None else alpha[i])
    constant, a, coefs = lines.descend(len(net.nodes) - 1, spec, beta)
    lower = constant + inputs.least(a)
    lower = torch.where(lower.isfinite(), lower, -torch.inf)
    return Relaxed(lower, inputs.point(a.detach()), coefs)


class _Lines:
    """The lines of the ReLU layers learnt so far: low·z ≤ relu(z) ≤ high·z + lift."""

    def __init__(self, net: Graph, inputs: Region):
        self.net, self.inputs = net, inputs
        self.lines: list[tuple[Tensor, Tensor, Tensor]] = []
        #: Of each node: no smaller than the sum of the sizes of what it is computed from.
        self.sizes = [inputs.center.abs() + inputs.radius]
        self._advance()

    def learn(self, known: Bounds, alpha: Tensor | None = None) -> None:
        node = self.net.nodes[len(self.sizes)]
        shape = (len(known.lower), 1, *node.shape)
        lower, upper = known.lower.view(shape), known.upper.view(shape)
        slope = upper / (upper - lower)
        lift = torch.maximum(-slope * lower, (1 - slope) * upper) * (1 + self.net.slack(0))
        best = (
            (upper > -lower).to(slope) if alpha is None else alpha.view(len(lower), -1, *node.shape)
        )
        on, off = lower >= 0, upper <= 0

        def pick(value):
            return torch.where(on, 1.0, torch.where(off, 0.0, value))

        self.lines.append((pick(best), pick(slope), torch.where(on | off, 0.0, lift)))
        self.sizes.append(upper[:, 0].relu())
        self._advance()

    def _advance(self) -> None:
        for node in self.net.nodes[len(self.sizes) :]:
            if node.op == "relu":
                return
            sizes = [self.sizes[i] for i in node.parents]
            self.sizes.append(sum(sizes) if node.op == "add" else node.op.spread(sizes[0], 1.0))

    def descend(self, at: int, rows: Tensor, beta: Sequence[Tensor] | None = None):
        """Rows [n, m, *shape] of functions of node `at`: constants [n, m], rows of x, and coefs."""
        n, m = rows.shape[:2]
        rest, coefs = {at: rows}, []
        constant = -self._noise(at, rows)
        for i in range(at, 0, -1):
            if (a := rest.pop(i, None)) is None:
                continue
            node = self.net.nodes[i]
            if node.op == "relu":
                coefs.append(a.flatten(2))
                index = self.net.relus.index(i)
                low, high, lift = self.lines[index]
                lost = (a.clamp_max(0) * lift).flatten(2).sum(2, dtype=torch.float64)
                a = a * torch.where(a > 0, low, high)
                if beta is not None:
                    push = beta[index].view(n, -1, *node.shape)
                    constant = constant - self._noise(node.parents[0], push)
                    a = a - push
                constant = constant + lost - self._noise(node.parents[0], a)
            elif isinstance(node.op, Affine):
                flat = a.flatten(0, 1)
                shape = self.net.nodes[node.parents[0]].shape
                if not isinstance(node.op, Reshape):
                    constant = constant + node.op.constant(flat).view(n, m)
                a = node.op.back(flat, shape).view(n, m, *shape)
            for parent in node.parents:
                rest[parent] = rest[parent] + a if parent in rest else a
        return constant, rest[0], coefs[::-1]

    def _noise(self, at: int, rows: Tensor) -> Tensor:
        """More than what rounding can change between node `at` and the ReLU layers before it."""
        sizes = self.sizes[at].flatten(1)
        tiny = 1e16 * torch.finfo(rows.dtype).tiny
        noise = self.net.slack(self.net.nodes[at].terms) * dot(rows.flatten(2).abs(), sizes)
        return noise.double() + tiny * sizes.double().sum(1, keepdim=True)


def _redo(
    net: Graph, x: Tensor, threat: Threat, given: list[Bounds], after: int, meet: bool
) -> list[Bounds]:
    """Layers later than `after`, by CROWN, of the neurons that `given` leaves open."""
    parts = []
    for s in _slices(len(x), 2 * max(net.sizes, default=0) * net.widest):
        lines, part = _Lines(net, Region(x[s], threat)), []
        for i, known in enumerate(given):
            known = Bounds(known.lower[s], known.upper[s])
            at = net.nodes[net.relus[i]].parents[0]
            # Of one linear layer intervals are exact (in ℓ2 and ℓ1 not at an image's edge).
            if i > after and not (threat.norm == "linf" and net.direct(at)):
                known = _redone(lines, at, known, meet)
            part.append(known)
            lines.learn(known)
        parts.append(part)
    return [
        Bounds(torch.cat([b.lower for b in layer]), torch.cat([b.upper for b in layer]))
        for layer in zip(*parts, strict=True)
    ]


def _redone(lines: _Lines, at: int, known: Bounds, meet: bool) -> Bounds:
    lower, upper = known.lower.clone(), known.upper.clone()
    n, size = lower.shape
    which = ((lower < 0) & (upper > 0)).any(0).nonzero()[:, 0]
    for s in _slices(len(which), 2 * n * lines.net.widest):
        some = which[s]
        rows = F.one_hot(some, size).to(lower)
        rows = torch.cat([rows, -rows]).expand(n, -1, -1)
        constant, a, _ = lines.descend(at, rows.view(*rows.shape[:2], *lines.net.nodes[at].shape))
        low, high = (constant + lines.inputs.least(a)).chunk(2, 1)
        found = _finite(low.to(lower), -high.to(lower), lines.net.unit)
        old_low, old_high = lower[:, some], upper[:, some]
        open_ = (old_low < 0) & (old_high > 0)
        if meet:
            found = Bounds(old_low.maximum(found.lower), old_high.minimum(found.upper))
        lower[:, some] = torch.where(open_, found.lower, old_low)
        upper[:, some] = torch.where(open_, found.upper, old_high)
    return Bounds(lower, upper)


def _interval(net: Graph, inputs: Region, *, sound: bool = True) -> list[tuple[Tensor, Tensor]]:
    """Center and radius of each node. `sound`: wide enough for what rounding can do.

    Widened once a ReLU layer, by its largest outputs times the slack of the longest sum: that then
    goes through |W| as everything else does.
    """
    slack = net.slack(max(node.terms for node in net.nodes)) if sound else 0.0
    center, radius = inputs.center, inputs.radius
    found = [(center, radius + slack * (center.abs() + radius))]
    # Linear functions of x alone: their value at x, and how far the ball moves a coordinate.
    ball = {} if inputs.threat.norm == "linf" else {0: (inputs.x, inputs.threat.eps)}
    for i, node in enumerate(net.nodes[1:], 1):
        center, radius = found[node.parents[0]]
        if node.op == "relu":
            low, high = (center - radius).relu_(), (center + radius).relu_()
            center = (low + high).mul_(0.5)
            radius = (high * (0.5 + slack)).sub_(low, alpha=0.5)
        elif node.op == "add":
            center = center + found[node.parents[1]][0]
            radius = radius + found[node.parents[1]][1]
        else:
            center, radius = node.op(center), node.op.spread(radius, slack)
            if node.parents[0] in ball:
                x, reach = ball[node.parents[0]]
                value = node.op(x)
                if not isinstance(node.op, Matrix):
                    ball[i] = (value, reach * node.op.weight.abs().max() * (1 + slack))
                else:
                    rows = inputs.threat.dual(node.op.weight).view_as(node.op.bias) * reach
                    edge = node.op.spread(slack * x.abs(), slack)
                    edge = edge + (rows * (1 + slack)).view(-1, *[1] * (len(node.shape) - 1))
                    low = torch.maximum(center - radius, value - edge)
                    high = torch.minimum(center + radius, value + edge)
                    center, radius = (low + high) / 2, (high - low) / 2
                    radius = radius + slack * (low.abs() + high.abs())
        found.append((center, radius))
    return found


def _interval_margins(net: Graph, inputs: Region, y: Tensor, *, sound: bool) -> Tensor:
    last = net.nodes[-1]
    if not isinstance(last.op, Matrix):
        name = "ReLU" if last.op == "relu" else "no linear layer"
        raise ValueError(f"the last layer is {name}; expected Linear")
    body = Graph(net.nodes[:-1], net.relus, net.unit)
    found = _interval(body, inputs, sound=sound)
    center, radius = found[last.parents[0]]
    weight = last.op.weight[y][:, None] - last.op.weight[None]  # [n, k, features]
    low = torch.einsum("nkd,nd->nk", weight, center)
    low = low - torch.einsum("nkd,nd->nk", weight.abs(), radius)
    low = low + last.op.bias[y][:, None] - last.op.bias
    if sound:
        slack = net.slack(last.terms)
        size = last.op.size[y][:, None] + last.op.size
        far = torch.einsum("nkd,nd->nk", weight.abs(), center.abs() + radius)
        low = low - slack * (far + size)
    return low.scatter(1, y[:, None], 0.0)


def _from_the_back(net: Graph, x: Tensor, threat: Threat, spec: Tensor, inner: Inner) -> Tensor:
    pre = layers(net, x, threat, inner=inner)
    parts = []
    for s in _slices(len(x), spec.shape[1] * net.widest):
        some = [Bounds(b.lower[s], b.upper[s]) for b in pre]
        parts.append(backward(net, x[s], threat, some, spec[s]).lower)
    low = torch.cat(parts)
    return (low - 2 * net.unit * low.abs()).to(x.dtype)  # what the cast rounds up


def _slices(count: int, each: int) -> list[slice]:
    """0 … count − 1 in pieces of ROOM numbers, if each needs so many."""
    step = max(1, ROOM // max(1, each))
    return [slice(i, i + step) for i in range(0, count, step)]


def _finite(lower: Tensor, upper: Tensor, unit: float = 0.0) -> Bounds:
    """Outward by a unit of rounding; nothing is known where either is NaN or infinite."""
    lower, upper = lower - 2 * unit * lower.abs(), upper + 2 * unit * upper.abs()
    known = lower.isfinite() & upper.isfinite()
    return Bounds(torch.where(known, lower, -torch.inf), torch.where(known, upper, torch.inf))
