"""What bounds are computed on: a network as a graph, and the region where its inputs are.

A graph has affine maps, ReLUs and sums. It is built from the layers of a `torch.nn.Sequential`,
residual blocks inside, for inputs of one shape, dtype and device. Batch norm in evaluation mode is
folded into the layer before it; average pooling is a convolution. A layer that has no rule is
named, with its place.
"""

import dataclasses
import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn
from torch.nn import functional as F

from .models import Normalize, Residual
from .runtime import validate_layers
from .threat import Threat

_KNOWN = (
    nn.Sequential, Residual, nn.ReLU, nn.Identity, Normalize, nn.Flatten, nn.Linear, nn.Conv2d,
    nn.BatchNorm1d, nn.BatchNorm2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d,
)  # fmt: skip


@dataclass(frozen=True)
class Dense:
    """A layer before its ReLU, Σ terms[s] @ h_s + bias; h_−1 is the input, h_j ReLU layer j's."""

    terms: dict[int, Float[Tensor, "neurons source"]]
    bias: Float[Tensor, " neurons"]


@dataclass(frozen=True)
class Affine:
    """h ↦ W h + b on a batch; W is `weight` in the layer's own layout."""

    weight: Tensor
    bias: Tensor  # adds to a batch by broadcasting
    size: Tensor  # ≥ |bias|, and ≥ the sizes of what it was computed from

    terms = 1  # products in a sum

    def __call__(self, h: Tensor) -> Tensor:
        return self.times(h, self.weight, self.bias)

    def spread(self, r: Tensor, share: float) -> Tensor:
        """|W| r + share·size: how far W h can move, or is rounded, if h moves by r."""
        return self.times(r, self.weight.abs(), share * self.size if share else None)

    def times(self, h: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The layer's own product and sum, with another weight and bias of the same shapes."""
        return h * weight if bias is None else torch.addcmul(bias, h, weight)

    def back(self, a: Tensor, shape: tuple[int, ...]) -> Tensor:
        """a W, for rows a; W h has the shape of a row, h has `shape`."""
        return a * self.weight

    def constant(self, a: Tensor) -> Tensor:
        """a·b, for rows a, summed in float64."""
        return (a * self.bias).flatten(1).sum(1, dtype=torch.float64)

    def rescaled(self, scale: Tensor, shift: Tensor, size: Tensor) -> "Affine":
        """Followed by z ↦ scale·z + shift, one number a channel."""
        wide = scale.view(-1, *[1] * (self.weight.ndim - 1))
        bias, least = self.bias * scale + shift, self.size * scale.abs() + size
        return dataclasses.replace(self, weight=self.weight * wide, bias=bias, size=least)


@dataclass(frozen=True)
class Reshape(Affine):
    """All of an example in one row."""

    def times(self, h, weight, bias):
        return h.flatten(1)

    def back(self, a, shape):
        return a.view(-1, *shape)

    def constant(self, a):
        return 0.0


@dataclass(frozen=True)
class Matrix(Affine):
    """A dense layer."""

    @property
    def terms(self):
        """Products in a sum."""
        return self.weight[0].numel()

    def times(self, h, weight, bias):
        return F.linear(h, weight, bias)

    def back(self, a, shape):
        return a @ self.weight


@dataclass(frozen=True)
class Kernel(Matrix):
    """A convolution, padded with zeros."""

    how: tuple  # stride, padding, dilation, groups

    def times(self, h, weight, bias):
        return F.conv2d(h, weight, bias, *self.how)

    def back(self, a, shape):
        stride, padding, dilation, groups = self.how
        least = [
            (out - 1) * s - 2 * p + d * (k - 1) + 1
            for out, s, p, d, k in zip(
                a.shape[2:], stride, padding, dilation, self.weight.shape[2:], strict=True
            )
        ]
        extra = [size - n for size, n in zip(shape[1:], least, strict=True)]
        return F.conv_transpose2d(a, self.weight, None, stride, padding, extra, groups, dilation)

    def constant(self, a):
        return a.flatten(2).sum(2, dtype=torch.float64) @ self.bias.double()


@dataclass(frozen=True)
class Node:
    """A value that the network computes, and from which others."""

    op: Affine | str  # "input", "relu", "add"
    parents: tuple[int, ...]
    shape: tuple[int, ...]
    terms: int  # of the longest sum on the way from the last ReLU


@dataclass(frozen=True)
class Graph:
    """A network as a list of nodes, each after its parents; made by `graph`."""

    nodes: list[Node]
    relus: list[int]
    unit: float  # of rounding

    @property
    def sizes(self) -> list[int]:
        """How many neurons each ReLU layer has."""
        return [math.prod(self.nodes[i].shape) for i in self.relus]

    @property
    def classes(self) -> int:
        """How many logits there are."""
        return self.nodes[-1].shape[0]

    @property
    def widest(self) -> int:
        """Numbers in the largest node."""
        return max(math.prod(node.shape) for node in self.nodes)

    def slack(self, terms: int) -> float:
        """More than twice γ of so many terms; sums over a whole layer are made in float64."""
        return 2 * (terms + 16) * self.unit + 2 * self.widest * 2.0**-53

    def direct(self, at: int) -> bool:
        """Whether node `at` is one linear layer of the input, but for rescaling."""
        linear = 0
        while at:
            node = self.nodes[at]
            if not isinstance(node.op, Affine):
                return False
            linear += isinstance(node.op, Matrix)
            at = node.parents[0]
        return linear <= 1

    def dense(self) -> list[Dense]:
        """Each layer before its ReLU, and the logits last, as matrices: for small networks."""
        return [self._dense(self.nodes[i].parents[0]) for i in self.relus] + [
            self._dense(len(self.nodes) - 1)
        ]

    def _dense(self, at: int) -> Dense:
        size = math.prod(self.nodes[at].shape)
        ops = [node.op for node in self.nodes if isinstance(node.op, Affine)]
        like = ops[0].weight
        eye = torch.eye(size, dtype=like.dtype, device=like.device)
        rows, terms = {at: eye.view(size, *self.nodes[at].shape)}, {}
        bias = torch.zeros(size, dtype=torch.float64, device=like.device)
        for i in range(at, -1, -1):
            if (a := rows.pop(i, None)) is None:
                continue
            node = self.nodes[i]
            if isinstance(node.op, Affine):
                bias = bias + node.op.constant(a)
                a = node.op.back(a, self.nodes[node.parents[0]].shape)
            if node.op in ("input", "relu"):
                terms[self.relus.index(i) if i else -1] = a.flatten(1)
            else:
                for parent in node.parents:
                    rows[parent] = rows[parent] + a if parent in rows else a
        return Dense(terms, bias.to(like.dtype))


def graph(model: nn.Module, x: Float[Tensor, " n *s"]) -> Graph:
    """The network for inputs like those of x; keeps the gradients of the weights if they are on.

    Raises:
        ValueError: a layer that has no rule here, or hooks, or a forward of its own; with its
            place and class.
        TypeError: x is not float32 or float64: for other types rounding is not accounted for.
    """
    if x.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"x is {x.dtype}; expected float32 or float64: use x.float()")
    validate_layers(model, _KNOWN)
    builder = _Builder(x)
    out = builder.grow(model, "", 0, 0)
    shape = builder.nodes[out].shape
    if len(shape) != 1:
        raise ValueError(f"the model gives {shape} for an example; expected (k,) logits")
    relus = [i for i, node in enumerate(builder.nodes) if node.op == "relu"]
    return Graph(builder.nodes, relus, torch.finfo(x.dtype).eps / 2)


class Region:
    """Ball ∩ box around each example, and the least value of a linear function on it."""

    def __init__(self, x: Tensor, threat: Threat):
        self.x, self.threat = x, threat
        self.exact = x.detach().double()
        low, high = self.exact - threat.eps, self.exact + threat.eps
        if threat.box is not None:  # a wall is rounded as x was
            walls = torch.tensor(threat.box, dtype=x.dtype).tolist()
            low, high = low.clamp(*walls), high.clamp(*walls)
        self.low, self.high = low, high
        self.middle, self.half = (low + high) / 2, (high - low) / 2
        self.center, self.radius = self.middle.to(x.dtype), self.half.to(x.dtype)

    def least(self, a: Float[Tensor, " n m *s"]) -> Float64[Tensor, "n m"]:
        """A lower bound of a·x; in ℓ∞ the minimum, in ℓ2 and ℓ1 too, both to rounding.

        There weak duality gives one for every price of the budget; `_spend` finds the right one.
        """
        a = a.flatten(2).double()
        middle, half, x = (t.flatten(1) for t in (self.middle, self.half, self.exact))
        slack = 4 * (a.shape[2] + 16) * 2.0**-53
        low = dot(a, middle) - dot(a.abs(), half + slack * (middle.abs() + half))
        if self.threat.norm == "linf":
            return low
        size, eps, at_x = a.abs(), self.threat.eps, dot(a, x) - dot(a.abs(), slack * x.abs())
        reach = (1 + slack) * eps * self.threat.dual(a.flatten(0, 1)).view(low.shape)
        low = torch.maximum(low, at_x - reach)
        if self.threat.box is None:
            return low
        spent, room, price = self._spend(a.detach())
        if self.threat.norm == "l1":
            saved = ((size - price).relu() * room).sum(2)
            cost = saved + price[..., 0] * eps
            return torch.maximum(low, at_x - (1 + slack) * cost)
        # min over d in the box of a·d + price/2·(‖d‖² − eps²); at d = −spent for the right price
        gain, over = (size * spent).sum(2), price[..., 0] / 2
        squares = spent.square().sum(2)
        dual = at_x - gain + over * (squares - eps**2)
        dual = dual - slack * (gain + over * (squares + eps**2))
        return torch.maximum(low, torch.where(dual.isfinite(), dual, -torch.inf))

    def point(self, a: Float[Tensor, " n m *s"]) -> Float[Tensor, " n m *s"]:
        """Where a·x is least, to rounding; in the box exactly."""
        flat = a.flatten(2).double()
        spent, _, _ = self._spend(flat)
        moved = (self.exact.flatten(1)[:, None] - flat.sign() * spent).to(a.dtype).view(a.shape)
        return moved if self.threat.box is None else moved.clamp(*self.threat.box)

    def _spend(self, a: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """How far each coordinate goes against a, how far it could, and the price of the budget."""
        x, low, high = (t.flatten(1)[:, None] for t in (self.exact, self.low, self.high))
        size, eps = a.abs(), self.threat.eps
        room = torch.where(a > 0, x - low, high - x)
        if self.threat.norm == "linf":
            return room, room, torch.zeros_like(room[..., :1])
        if self.threat.norm == "l1":  # the steepest coordinates first, each up to its wall
            sizes, order = size.sort(2, descending=True)
            rooms = room.gather(2, order)
            before = rooms.cumsum(2) - rooms
            spent = (eps - before).clamp_min(0).minimum(rooms)
            last = (before < eps).sum(2, keepdim=True).clamp_min(1) - 1
            short = rooms.sum(2, keepdim=True) > eps
            price = torch.where(short, sizes.gather(2, last), 0.0)
            return torch.zeros_like(spent).scatter(2, order, spent), room, price
        largest = size.amax(2, keepdim=True)
        size = torch.where(largest > 0, size / largest, 0.0)
        far = x - 1e6 * eps * a.sign() * size
        x = x.expand_as(far)
        near = self.threat.project(far.flatten(0, 1), x.flatten(0, 1)).view_as(far)
        free = size * ((near - x).abs() < room * (1 - 1e-9))
        each = ((near - x).abs() * free).sum(2, keepdim=True) / free.square().sum(2, keepdim=True)
        spent = torch.where(free.any(2, keepdim=True), (each * size).minimum(room), room)
        return spent, room, largest / each


def dot(a: Float[Tensor, "n m d"], b: Float[Tensor, "n d"]) -> Float[Tensor, "n m"]:
    """Of each row with its example's vector."""
    return (a @ b[:, :, None])[..., 0]


class _Builder:
    """Appends nodes; each method gives the node that holds the output."""

    def __init__(self, x: Tensor):
        self.x = x
        self.nodes = [Node("input", (), tuple(x.shape[1:]), 0)]

    def grow(self, layer: nn.Module, name: str, at: int, since: int) -> int:
        """`layer` reads node `at`, of a chain that began at node `since`."""
        shape, before = self.nodes[at].shape, self.nodes[at].op
        match layer:
            case nn.Sequential():
                since = at
                for key, child in layer._modules.items():  # a layer may come twice
                    at = self.grow(child, f"{name}.{key}" if name else key, at, since)
                return at
            case Residual():
                body = self.grow(layer.body, f"{name}.body", at, at)
                shortcut = self.grow(layer.shortcut, f"{name}.shortcut", at, at)
                both = self._add("add", self.nodes[body].shape, body, shortcut)
                return self._add("relu", self.nodes[both].shape, both)
            case nn.ReLU():
                return self._add("relu", shape, at)
            case nn.Identity():
                return at
            case Normalize():
                shift = self._take(-layer.mean / layer.std)
                return self._add(self._op(Affine, self._take(1 / layer.std), shift), shape, at)
            case nn.Flatten() if (layer.start_dim, layer.end_dim) == (1, -1):
                one = torch.ones_like(self.x[0].flatten()[:1])
                return self._add(self._op(Reshape, one, 0 * one), (math.prod(shape),), at)
            case nn.Linear() if shape == (layer.in_features,):
                op = self._op(Matrix, *self._weights(layer))
                return self._add(op, (layer.out_features,), at)
            case nn.Conv2d() if layer.padding_mode == "zeros" and layer.padding != "same":
                padding = (0, 0) if layer.padding == "valid" else layer.padding
                how = (layer.stride, padding, layer.dilation, layer.groups)
                return self._conv(at, *self._weights(layer), how)
            case nn.BatchNorm1d() | nn.BatchNorm2d() if (
                layer.affine and layer.track_running_stats and not layer.training
            ):
                mean, var = self._take(layer.running_mean), self._take(layer.running_var)
                weight, bias = self._weights(layer)
                scale = weight / torch.sqrt(var + layer.eps)
                shift, size = bias - mean * scale, bias.abs() + (mean * scale).abs()
                if isinstance(before, Matrix) and since < at == len(self.nodes) - 1:
                    op = before.rescaled(scale, shift, size)
                    self.nodes[at] = dataclasses.replace(self.nodes[at], op=op)
                    return at
                wide = [t.view(-1, *[1] * (len(shape) - 1)) for t in (scale, shift, size)]
                return self._add(self._op(Affine, *wide[:2], size=wide[2]), shape, at)
            case nn.AvgPool2d() if not layer.ceil_mode and layer.divisor_override is None:
                kernel, stride, padding = map(
                    _pair, (layer.kernel_size, layer.stride, layer.padding)
                )
                if layer.count_include_pad or padding == (0, 0):
                    return self._pool(at, kernel, stride, padding)
            case nn.AdaptiveAvgPool2d():
                outs = [
                    out or s for s, out in zip(shape[1:], _pair(layer.output_size), strict=True)
                ]
                if all(s % out == 0 for s, out in zip(shape[1:], outs, strict=True)):
                    kernel = tuple(s // out for s, out in zip(shape[1:], outs, strict=True))
                    return self._pool(at, kernel, kernel, (0, 0))
        norm = isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d)
        mode = " in training mode" if norm and layer.training else ""
        place = f"layer {name}: " if name else ""
        raise ValueError(
            f"{place}there is no interval rule for {type(layer).__name__}{mode} on inputs of shape "
            f"{shape}; allowed: Linear after Flatten, Conv2d, AvgPool2d and AdaptiveAvgPool2d into "
            "equal parts, BatchNorm in evaluation mode, ReLU, Flatten, Normalize, Residual"
        )

    def _take(self, t: Tensor) -> Tensor:
        return (t if torch.is_grad_enabled() else t.detach()).to(self.x)

    def _weights(self, layer: nn.Module) -> tuple[Tensor, Tensor]:
        weight = self._take(layer.weight)
        return weight, weight.new_zeros(len(weight)) if layer.bias is None else self._take(
            layer.bias
        )

    def _op(self, kind: type, weight: Tensor, bias: Tensor, *rest, size: Tensor | None = None):
        tiny = 1e16 * torch.finfo(self.x.dtype).tiny  # more than products lose by underflow
        return kind(weight, bias, (bias.abs() if size is None else size) + tiny, *rest)

    def _add(self, op: Affine | str, shape: tuple[int, ...], *parents: int) -> int:
        terms = 0
        if op != "relu":
            terms = 8 + getattr(op, "terms", 0) + max(self.nodes[i].terms for i in parents)
        self.nodes.append(Node(op, parents, shape, terms))
        return len(self.nodes) - 1

    def _conv(self, at: int, weight: Tensor, bias: Tensor, how: tuple) -> int:
        sides = zip(self.nodes[at].shape[1:], weight.shape[2:], *how[:3], strict=True)
        out = tuple((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in sides)
        return self._add(self._op(Kernel, weight, bias, how), (len(weight), *out), at)

    def _pool(self, at: int, kernel: tuple, stride: tuple, padding: tuple) -> int:
        channels = self.nodes[at].shape[0]
        weight = self.x.new_full((channels, 1, *kernel), 1 / math.prod(kernel))
        how = (stride, padding, (1, 1), channels)
        return self._conv(at, weight, self.x.new_zeros(channels), how)


def _pair(size) -> tuple:
    return size if isinstance(size, tuple) else (size, size)
