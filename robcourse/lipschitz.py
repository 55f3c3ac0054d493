"""Chapter 4. Lipschitz networks: a network that cannot move fast cannot change its answer nearby.

If the logits together are L-Lipschitz, ℓ2 to ℓ2, the difference of any two of them moves at most
√2·L times as far as the input. So an answer with margin γ is constant within γ/(√2·L): a proof for
every change at once, with no samples, as good as the bound on L. That bound is a product over the
layers, and each of its factors must come from above. All arithmetic here is in float64, and what
comes out is rounded outward.
"""

import copy
import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from . import orthogonal
from .models import Normalize, Residual
from .runtime import frozen, generator, validate, validate_layers
from .threat import Certificate

#: Every bound is multiplied by this. The rounding errors of the factorisations here are at most
#: about n·b·10⁻¹⁶, for n outputs and a band of b (Higham 2002, chapter 10; Rump 2006): less than
#: a tenth of this for 32768 outputs and a band of 8192.
OUTWARD = 1 + 1e-6

#: A matrix with at most so many rows gets all its singular values computed; a factorisation may
#: take at most so many multiplications.
SMALL, WORK = 1000, 4e12

_LINEAR = (nn.Linear, nn.Conv2d, orthogonal.CayleyConv)
_KNOWN = (
    *_LINEAR, nn.Sequential, nn.BatchNorm1d, nn.BatchNorm2d, Normalize, Residual, nn.ReLU, nn.Tanh,
    nn.Identity, nn.Flatten, nn.PixelUnshuffle, orthogonal.GroupSort, nn.AdaptiveAvgPool2d,
    nn.AvgPool2d, nn.MaxPool2d,
)  # fmt: skip


def spectral_norm(layer: nn.Module, shape: tuple[int, ...]) -> float:
    """The ℓ2 operator norm of a linear layer, bias apart: at least the truth, at most 2 % more.

    (Of a convolution too large to be factorised it is the torus's, however much more that is.)

    From above for one of these reasons, and the first that is within 2 % of an estimate from
    below is taken:

    - A dense matrix, or a convolution with few inputs or outputs: the largest singular value.
    - A circular convolution on a side that the stride divides: Fourier's matrices make it
      block-diagonal, and its norm is the largest norm of a block (with a stride, of the blocks of
      frequencies that it folds together).
    - A convolution padded with zeros is part of a circular one on a larger torus: its inputs are
      those that are 0 in the border, and of the outputs some are left out. So its norm is at most
      the circular one's. The border may be shared by both sides. (Sedghi, Gupta & Long, ICLR 2019,
      for circular ones.)
    - Any convolution: the norm is at most μ if a Cholesky factorisation of μ²·I − AAᵀ runs to its
      end (Rump, BIT 46, 2006). μ starts 0.5 % above the estimate and grows by 1 % where it fails,
      which shows that the norm is above it. Outputs that lie far apart have no pixel in common, so
      the matrix is block-tridiagonal, a few rows of the image a block.

    Args:
        layer: Linear, Conv2d (any padding mode, stride, dilation, groups), or one of
            `orthogonal`'s constrained layers.
        shape: of one input: (features,) or (channels, height, width).

    Raises:
        TypeError: another kind of layer.
        ValueError: a shape that does not fit, weights that are NaN or infinite, or a convolution
            too large for the last way whose padding allows no other.
    """
    exact = _linear(layer, shape)
    power = 2.0 ** (math.frexp(exact.weight.abs().max().item())[1] - 1)  # divided out exactly
    exact.weight.div_(power)
    norm = _norm(exact, shape)
    return math.nextafter(power * norm, math.inf) if norm else 0.0


def power_iteration(
    layer: nn.Module, shape: tuple[int, ...], *, steps: int, seed: int = 0
) -> float:
    """‖A·v‖ for the unit vector v that `steps` rounds of v ← AᵀA·v make of a random one.

    From below, whatever the number of steps: no unit vector is stretched by more than the norm.

    Raises:
        TypeError, ValueError: as for `spectral_norm`.
    """
    exact = _linear(layer, shape)
    exact.bias = None
    v = torch.randn(1, *shape, dtype=torch.float64, generator=generator(seed, exact.weight))
    for _ in range(steps):
        _, back = torch.func.vjp(exact, v)
        (v,) = back(exact(v))
        v = v / v.norm().clamp_min(1e-300)
    return exact(v / v.norm().clamp_min(1e-300)).norm().item()


def product_bound(model: nn.Module, shape: tuple[int, ...]) -> float:
    """An upper bound on the Lipschitz constant of a chain, ℓ2 to ℓ2: the product of its layers'.

    Batch norm is folded into the convolution or the matrix before it; a `Residual` counts as the
    sum of its two branches. Every input counts, not those in the box alone.

    Args:
        model: judged as in evaluation mode.
        shape: of one input, without the batch.

    Raises:
        ValueError: a layer that has no bound here, a forward of its own, or hooks.
    """
    validate_layers(model, _KNOWN)
    exact = copy.deepcopy(model).cpu().double().eval()
    with torch.no_grad():
        return _product(orthogonal.flat(exact), torch.zeros(1, *shape, dtype=torch.float64))[0]


@torch.no_grad()
def certify(
    model: nn.Sequential, x: Float[Tensor, " n *s"], *, pairwise: bool = True, batch: int = 1000
) -> Certificate:
    """The ℓ2 radius within which each answer is constant: for each other class, margin over speed.

    The difference of two logits moves at √2·L at most. If the last layer is linear and `pairwise`,
    z_y − z_j moves at ‖w_y − w_j‖·L' at most, L' of the layers before it: never worse, since
    ‖w_y − w_j‖ ≤ √2·‖W‖. Norms are computed anew at each call, from above, in float64.

    What is certified is the network in float64, constraints included. Its logits get 10⁻⁹ of the
    largest as room for rounding (what rounds inside the network is not bounded); in float32 an
    answer may differ where a margin is about 10⁻⁶ of the logits. It abstains at ties and NaN. The
    box is not used.

    Args:
        model: a chain in evaluation mode, layers as `product_bound` takes them.
        x: a batch; any device.
        pairwise: False gives γ/(√2·L).
        batch: examples at a time.

    Raises:
        TypeError: the model is no nn.Sequential.
        ValueError: what `product_bound` and `runtime.validate` refuse.

    Source: Tsuzuku, Sato & Sugiyama, NeurIPS 2018, proposition 1; pairwise Singla, Singla & Feizi,
    ICLR 2022 (last layer normalisation).
    """
    if not isinstance(model, nn.Sequential):
        raise TypeError(f"model is {type(model).__name__}; expected an nn.Sequential")
    validate_layers(model, _KNOWN)
    validate(model, x, box=(0.0, 1.0) if x.ndim == 4 else None)
    exact = copy.deepcopy(model).double()
    with frozen(exact):
        exact = orthogonal.export(exact, x.shape[1:])
        logits = torch.cat([exact(part.to(torch.float64, copy=True)) for part in x.split(batch)])
        speed = _speeds(exact, x.shape[1:], logits.shape[1], pairwise).to(x.device)
    label = logits.nan_to_num(-torch.inf).argmax(1)
    ahead = logits.gather(1, label[:, None]) - logits - 1e-9 * logits.abs().amax(1, keepdim=True)
    each = (ahead / speed[label]).scatter(1, label[:, None], torch.inf)
    radius = torch.where(ahead > 0, each, 0).scatter(1, label[:, None], torch.inf).amin(1)
    abstain = ~(radius > 0)
    return Certificate(label, torch.where(abstain, 0, radius), "l2", 0.0, abstain)


def _norm(exact: nn.Linear | nn.Conv2d, shape: tuple[int, ...]) -> float:
    """`spectral_norm` of weights below 2 in size."""
    if isinstance(exact, nn.Linear):
        return OUTWARD * torch.linalg.matrix_norm(exact.weight, 2).item()
    exact.bias = None
    torus, same = _torus(exact, shape)
    bound = math.inf if torus is None else OUTWARD * _circular(exact, torus)
    if same:
        return bound
    outputs = math.prod(exact(torch.zeros(1, *shape).double()).shape)
    if min(math.prod(shape), outputs) <= SMALL:
        return OUTWARD * _largest_value(exact, shape, outputs)
    below = _from_below(exact, shape)
    if bound <= 1.02 * below:
        return bound
    taps = _taps(exact, shape)
    work = outputs * (_reach(taps) * exact.out_channels) ** 2
    if work <= WORK:
        return _factorised(exact, taps, 1.005 * below)
    if torus is None:
        raise ValueError(
            f"a convolution with padding_mode {exact.padding_mode!r} on {tuple(shape)} is too "
            f"large: {work:.0e} multiplications. Use zeros, or 'circular' with a stride that "
            "divides the image's sides"
        )
    return bound


def _speeds(model: nn.Sequential, shape, classes: int, pairwise: bool) -> Tensor:
    """[k, k]: how fast the difference of two logits can move, from above."""
    *body, last = model
    if not (pairwise and isinstance(last, nn.Linear)):
        same = 2**0.5 * OUTWARD * product_bound(model, shape)
        return torch.full((classes, classes), same, dtype=torch.float64)
    w = last.weight.cpu()
    return OUTWARD * product_bound(nn.Sequential(*body), shape) * (w[:, None] - w).norm(dim=2)


def _product(layers: list[nn.Module], x: Tensor) -> tuple[float, Tensor]:
    """The product of the layers' constants, and what they make of x, which gives the shapes."""
    bound = 1.0
    for at, layer in enumerate(layers):
        folded = _is_norm(layer) and at > 0 and isinstance(layers[at - 1], _LINEAR)
        if not folded:
            bound *= _constant(layer, layers[at + 1 : at + 2], x)
        x = layer(x)
    return bound, x


def _constant(layer: nn.Module, after: list[nn.Module], x: Tensor) -> float:
    """The Lipschitz constant of one layer on inputs like x, from above; of two, to be folded."""
    match layer:
        case nn.Linear() | nn.Conv2d() | orthogonal.CayleyConv():
            norms = [norm for norm in after if _is_norm(norm)]
            return spectral_norm(_folded(layer, norms, x.shape[1:]), x.shape[1:])
        case nn.BatchNorm1d() | nn.BatchNorm2d():
            return OUTWARD * _scale(layer).abs().max().item()
        case Normalize() if layer.std.all():
            return OUTWARD / layer.std.abs().min().item()
        case Residual():
            branches = (layer.body, layer.shortcut)
            return sum(_product(orthogonal.flat(b), x)[0] for b in branches)
        case (
            nn.ReLU() | nn.Tanh() | nn.Identity() | nn.Flatten() | nn.PixelUnshuffle()
            | orthogonal.GroupSort()
        ):  # fmt: skip
            return 1.0
        case nn.AdaptiveAvgPool2d() if layer.output_size in (1, (1, 1)):
            return OUTWARD / math.sqrt(x[0, 0].numel())
        case nn.AvgPool2d(padding=0, ceil_mode=False, divisor_override=None) if (
            layer.kernel_size == layer.stride
        ):
            side = layer.kernel_size
            return OUTWARD / (math.sqrt(math.prod(side)) if isinstance(side, tuple) else side)
        case nn.MaxPool2d() if layer.kernel_size == layer.stride and layer.dilation == 1:
            return 1.0
    raise ValueError(f"there is no Lipschitz constant here for {type(layer).__name__}")


def _is_norm(layer: nn.Module) -> bool:
    return isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d)


def _scale(norm: nn.BatchNorm1d | nn.BatchNorm2d) -> Tensor:
    """What batch norm multiplies each channel by, in evaluation mode."""
    if norm.running_var is None:
        raise ValueError(f"{type(norm).__name__} keeps no statistics, so no Lipschitz constant")
    scale = torch.rsqrt(norm.running_var + norm.eps)
    return scale if norm.weight is None else scale * norm.weight


def _folded(layer: nn.Module, norms: list[nn.Module], shape) -> nn.Module:
    """The layer as a plain one, with the scale of the batch norm behind it, if there is one."""
    new = _linear(layer, shape)
    for norm in norms:
        new.weight.mul_(_scale(norm).view(-1, *[1] * (new.weight.ndim - 1)))
    return new


def _linear(layer: nn.Module, shape: tuple[int, ...]) -> nn.Linear | nn.Conv2d:
    """A copy as a plain layer in float64 on the CPU, which no gradient reaches."""
    if not any(type(layer).forward is kind.forward for kind in _LINEAR):
        own = " with a forward of its own" if isinstance(layer, _LINEAR) else ""
        raise TypeError(
            f"layer is {type(layer).__name__}{own}; expected Linear, Conv2d or CayleyConv (of a "
            "network take the product_bound)"
        )
    width = layer.in_features if isinstance(layer, nn.Linear) else _channels(layer)
    expected = (width,) if isinstance(layer, nn.Linear) else (width, "height", "width")
    if len(shape) != len(expected) or shape[0] != width:
        raise ValueError(f"shape is {tuple(shape)}; this layer takes {expected}, without the batch")
    with torch.no_grad():
        exact = orthogonal.plain(copy.deepcopy(layer).cpu().double(), shape).requires_grad_(False)
    if not exact.weight.isfinite().all():
        raise ValueError(f"the weights of {type(layer).__name__} hold NaN or infinity")
    return exact


def _channels(layer: nn.Module) -> int:
    return layer.in_channels if isinstance(layer, nn.Conv2d) else layer.free.shape[1]


# A convolution as a circular one


def _sides(conv: nn.Conv2d, shape) -> list[tuple[int, ...]]:
    """For height and width: side, stride, dilation, kernel, padding before and after, outputs."""
    found = []
    for i, side in enumerate(shape[1:]):
        stride, dilation, kernel = conv.stride[i], conv.dilation[i], conv.kernel_size[i]
        before = after = 0 if isinstance(conv.padding, str) else conv.padding[i]
        if conv.padding == "same":
            before = dilation * (kernel - 1) // 2
            after = dilation * (kernel - 1) - before
        outputs = (side + before + after - dilation * (kernel - 1) - 1) // stride + 1
        if outputs < 1:
            raise ValueError(f"shape is {tuple(shape)}; the kernel is larger than that")
        found.append((side, stride, dilation, kernel, before, after, outputs))
    return found


def _torus(conv: nn.Conv2d, shape) -> tuple[list[int] | None, bool]:
    """The sides of a torus on which the convolution is part of a circular one, if there is one.

    And whether it is all of it.
    """
    torus, whole = [], conv.padding_mode == "circular"
    for side, stride, dilation, kernel, before, _, outputs in _sides(conv, shape):
        if conv.padding_mode == "circular":
            whole = whole and outputs * stride == side
            if side % stride or outputs * stride > side:
                return None, False
            torus.append(side)
        elif conv.padding_mode == "zeros":
            last = (outputs - 1) * stride - before + dilation * (kernel - 1)
            least = max(side + max(before, last - side + 1, 0), outputs * stride)
            torus.append(-(-least // stride) * stride)
        else:
            return None, False
    return torus, whole


def _circular(conv: nn.Conv2d, torus: list[int]) -> float:
    """The norm of the circular convolution: the largest over the blocks of frequencies."""
    w = conv.weight.unflatten(0, (conv.groups, -1)).to(torch.complex128)
    waves = []
    for side, kernel, dilation in zip(torus, conv.kernel_size, conv.dilation, strict=True):
        turns = torch.outer(torch.arange(side), torch.arange(kernel) * dilation) % side
        waves.append(torch.exp(-2j * math.pi * turns.double() / side))
    symbol = torch.einsum("goikl,ak,bl->gaboi", w, *waves)
    down, right = conv.stride  # frequencies that differ by side/stride become one
    symbol = symbol.unflatten(2, (right, -1)).unflatten(1, (down, -1))  # g, s, a, t, b, o, i
    blocks = symbol.permute(0, 2, 4, 5, 1, 3, 6).flatten(4)
    blocks = blocks[:, : blocks.shape[1] // 2 + 1]  # the others are their conjugates
    gram = blocks @ blocks.mH if blocks.shape[3] < blocks.shape[4] else blocks.mH @ blocks
    largest = torch.linalg.eigvalsh(gram).max().clamp_min(0)
    return math.sqrt(largest.item() / (down * right))


# A convolution as a matrix


def _adjoint(conv: nn.Conv2d, u: Tensor, shape) -> Tensor:
    """Aᵀu, for a batch."""
    _, back = torch.func.vjp(conv, torch.zeros(len(u), *shape, dtype=u.dtype))
    return back(u)[0]


def _largest_value(conv: nn.Conv2d, shape, outputs: int) -> float:
    """The largest singular value, by the eigenvalues of AAᵀ or AᵀA."""
    if (inputs := math.prod(shape)) <= outputs:
        a = conv(torch.eye(inputs, dtype=torch.float64).view(-1, *shape))
    else:
        units = torch.eye(outputs, dtype=torch.float64)
        a = _adjoint(conv, units.view(-1, *conv(torch.zeros(1, *shape).double()).shape[1:]), shape)
    a = a.flatten(1)
    return math.sqrt(max(0.0, torch.linalg.eigvalsh(a @ a.T)[-1].item()))


def _from_below(conv: nn.Conv2d, shape, steps: int = 40) -> float:
    """The norm on the span of v, Gv, G²v, …, G = AᵀA: nearly the norm, and never above it."""
    v = torch.randn(math.prod(shape), generator=torch.Generator().manual_seed(0)).double()
    basis = v.new_empty(0, len(v))
    for _ in range(steps):
        before = v.norm()
        for _ in range(2):
            v = v - (basis @ v) @ basis
        if not v.norm() > 1e-8 * before:  # the span is complete
            break
        basis = torch.cat([basis, v[None] / v.norm()])
        v = _adjoint(conv, conv(basis[-1:].view(-1, *shape)), shape).flatten()
    return torch.linalg.matrix_norm(conv(basis.view(-1, *shape)).flatten(1), 2).item()


def _taps(conv: nn.Conv2d, shape) -> Tensor:
    """[taps, places]: which pixel each tap of the kernel meets at each output; −1 for a zero."""
    (h, *_, top, bottom, _), (w, *_, left, right, _) = _sides(conv, shape)
    place = torch.arange(1, h * w + 1, dtype=torch.float64).view(1, 1, h, w)
    mode = "constant" if conv.padding_mode == "zeros" else conv.padding_mode
    place = F.pad(place, (left, right, top, bottom), mode)
    return F.unfold(place, conv.kernel_size, conv.dilation, 0, conv.stride)[0].long() - 1


def _reach(taps: Tensor) -> int:
    """How many places apart two outputs may be that meet a common pixel; at least 1."""
    at = torch.arange(taps.shape[1]).expand_as(taps)[taps >= 0]
    pixel, size = taps[taps >= 0], int(taps.max()) + 1
    last = torch.zeros(size, dtype=torch.long).scatter_reduce(0, pixel, at, "amax")
    first = last.scatter_reduce(0, pixel, at, "amin")
    return max(1, int((last - first).max()))


def _factorised(conv: nn.Conv2d, taps: Tensor, mu: float) -> float:
    """The first of μ, 1.01·μ, 1.01²·μ … for which μ²·I − AAᵀ has a Cholesky factor."""
    if not conv.weight.any():
        return 0.0
    while not _definite(conv, taps, mu * mu):
        mu *= 1.01
    return OUTWARD * mu


def _definite(conv: nn.Conv2d, taps: Tensor, shift: float) -> bool:
    """Whether shift·I − AAᵀ has a Cholesky factor; block-tridiagonal in blocks of `_reach`."""
    full = conv.weight.new_zeros(conv.out_channels, conv.in_channels, len(taps))
    for g, part in enumerate(conv.weight.flatten(2).chunk(conv.groups)):
        full[g * len(part) :][: len(part), g * part.shape[1] :][:, : part.shape[1]] = part
    pairs = torch.einsum("oit,pis->tsop", full, full).flatten(2).flatten(0, 1)

    def gram(here: Tensor, there: Tensor) -> Tensor:
        common = (here.T[:, None, :, None] == there.T[None, :, None]) & (here.T >= 0)[
            :, None, :, None
        ]
        blocks = common.flatten(2).double() @ pairs  # [here, there, o·o]
        square = blocks.unflatten(2, (conv.out_channels, -1)).transpose(1, 2)
        return square.flatten(2).flatten(0, 1)

    left, before = None, None
    for places in taps.split(_reach(taps), dim=1):
        block = -gram(places, places)
        block.diagonal().add_(shift)
        if before is not None:
            side = torch.linalg.solve_triangular(left, -gram(before, places), upper=False)
            block -= side.mT @ side
        left, failed = torch.linalg.cholesky_ex(block)
        if failed:
            return False
        before = places
    return True
