"""Chapter 4, the layers: linear maps that never stretch, and an activation that loses no slope.

A layer that stretches no difference of two inputs has operator norm at most 1, and a chain of such
layers is 1-Lipschitz by construction: nothing has to be checked while it trains. What it may lose
is slope. An orthogonal matrix loses none (of the gradient if it is wide or square, W·Wᵀ = I), and
`GroupSort` only reorders, where ReLU forgets half of what it sees.

The constraint is a function of free parameters (torch's parametrizations), so every optimiser can
train them. `export` writes the weights out: what is left are layers of torch alone. Whether a
constraint holds is not for these layers to say; `lipschitz` computes the norms anew, from above.
"""

import copy
import itertools

import torch
from jaxtyping import Float, Inexact
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from .runtime import frozen


def cayley(w: Inexact[Tensor, "*b o i"]) -> Inexact[Tensor, "*b o i"]:
    """The Cayley transform: a free matrix in, one with orthonormal rows or columns out.

    For a square w it is (I − A)(I + A)⁻¹ with the skew A = w − wᴴ, an orthogonal matrix of
    determinant +1. A tall w = (u; v) becomes ((I − A); −2v)(I + A)⁻¹ with A = u − uᴴ + vᴴv, which
    has orthonormal columns; a wide one is the transpose of a tall one and has orthonormal rows.

    Source: Trockman & Kolter, ICLR 2021, section 4.1 and appendix (non-square).
    """
    outputs, inputs = w.shape[-2:]
    if outputs < inputs:
        return cayley(w.mH).mH
    u, v = w[..., :inputs, :], w[..., inputs:, :]
    a = u - u.mH + v.mH @ v
    eye = torch.eye(inputs, dtype=w.dtype, device=w.device)
    return torch.linalg.solve(eye + a, torch.cat([eye - a, -2 * v], dim=-2), left=False)


def bjorck(w: Float[Tensor, "o i"], *, steps: int = 25) -> Float[Tensor, "o i"]:
    """Towards the nearest orthonormal matrix: w ← w(3I − wᵀw)/2, from w over `norm_above(w)`.

    A step maps a singular value s to s(3 − s²)/2, which lies between s and 1 for s in [0, 1]. So
    the result never stretches, however few the steps; small singular values need more of them.

    Source: Björck & Bowie, SIAM J. Numer. Anal. 8 (1971); in networks Anil, Lucas & Grosse, ICML
    2019.
    """
    if len(w) < w.shape[1]:
        return bjorck(w.mT, steps=steps).mT
    w = w / norm_above(w)
    for _ in range(steps):
        w = 1.5 * w - 0.5 * w @ (w.mT @ w)
    return w


def aol(w: Float[Tensor, "o i *k"]) -> Float[Tensor, "o i *k"]:
    """Each input (of a kernel: each input channel) divided by √(row sum of |wᵀw|).

    Then the operator norm is at most 1: of a matrix, and of a convolution with any stride whose
    padding is zeros, or circular with no more outputs than inputs, since wᵀw then is the kernel's
    correlation with itself. A diagonal wᵀw becomes I. An input with zero weights is left alone.

    Source: Prach & Lampert, "Almost-orthogonal layers …", ECCV 2022, theorem 1.
    """
    if w.ndim == 2:
        sums = (w.mT @ w).abs().sum(1)
    else:
        t = w.transpose(0, 1)
        sums = F.conv2d(t, t, padding=[k - 1 for k in w.shape[2:]]).abs().sum((1, 2, 3))
    tiny = torch.finfo(w.dtype).tiny
    return w * sums.clamp_min(tiny).rsqrt().view(-1, *[1] * (w.ndim - 2))


def norm_above(w: Inexact[Tensor, "*b o i"], *, steps: int = 8) -> Float[Tensor, "*b"]:
    """‖w‖₂ from above, differentiable, by Gram iteration: ‖(wᴴw)^(2^steps)‖_F, and the root of it.

    At most rank^(1/2^(steps + 2)) times the norm: for rank 64 and 8 steps, 0.4 % more. Zero gives
    a tiny number above 0.

    Source: Delattre et al., "Efficient bound of Lipschitz constant for convolutional layers by
    Gram iteration", ICML 2023.
    """
    outputs, inputs = w.shape[-2:]
    g = w @ w.mH if outputs < inputs else w.mH @ w
    log = 0.0
    for step in range(steps + 1):
        size = torch.linalg.matrix_norm(g, keepdim=True).clamp_min(torch.finfo(g.dtype).tiny)
        log = log + size.log() / 2 ** (step + 1)
        g = (g / size) @ (g / size)
    return log.exp()[..., 0, 0]


class CayleyLinear(nn.Linear):
    """A dense layer with orthonormal columns (tall), rows (wide) or both (square); see `cayley`."""

    def __init__(self, inputs: int, outputs: int, *, bias: bool = True):
        super().__init__(inputs, outputs, bias)
        _constrain(self, cayley)


class BjorckLinear(nn.Linear):
    """A dense layer near orthonormality that never stretches; see `bjorck`."""

    def __init__(self, inputs: int, outputs: int, *, steps: int = 25, bias: bool = True):
        super().__init__(inputs, outputs, bias)
        _constrain(self, lambda w: bjorck(w, steps=steps))


class SpectralLinear(nn.Linear):
    """A dense layer divided by a bound on its norm from above: spectral normalisation, honestly.

    The usual form (Miyato et al., ICLR 2018) divides by a power iteration's estimate, which is
    below the norm, so that the layer may stretch.
    """

    def __init__(self, inputs: int, outputs: int, *, bias: bool = True):
        super().__init__(inputs, outputs, bias)
        _constrain(self, lambda w: w / norm_above(w))


class AOLLinear(nn.Linear):
    """A dense layer rescaled so that it never stretches; see `aol`. It starts orthogonal."""

    def __init__(self, inputs: int, outputs: int, *, bias: bool = True):
        super().__init__(inputs, outputs, bias)
        nn.init.orthogonal_(self.weight)
        _constrain(self, aol)


class AOLConv(nn.Conv2d):
    """A convolution rescaled so that it never stretches; see `aol`. It starts orthogonal.

    Padding is kernel // 2, of zeros.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int = 3, *, stride: int = 1, bias: bool = True
    ):
        super().__init__(inputs, outputs, kernel, stride, kernel // 2, bias=bias)
        nn.init.zeros_(self.weight)
        nn.init.orthogonal_(self.weight[..., kernel // 2, kernel // 2])
        _constrain(self, aol)


class CayleyConv(nn.Module):
    """A circular convolution with all singular values 1: as an operator on images, orthogonal.

    Circular convolutions become products of matrices, one a frequency, and each of those matrices
    is replaced by its Cayley transform. The kernel that results is as large as the image. Strides
    are not needed: `nn.PixelUnshuffle(2)` before it makes four channels of each at half the size,
    orthogonally.

    Source: Trockman & Kolter, ICLR 2021, section 4.

    Args:
        inputs, outputs: channels.
        kernel: the side of the free kernel; at most the image's.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, *, bias: bool = True):
        super().__init__()
        free = nn.Conv2d(inputs, outputs, kernel, bias=bias)
        self.free, self.bias = free.weight, free.bias

    def matrices(self, height: int, width: int) -> Inexact[Tensor, "height half o i"]:
        """The orthogonal matrix of each frequency, of those that `rfft2` keeps.

        Raises:
            ValueError: the image is smaller than the kernel.
        """
        kernel = self.free.shape[-1]
        if kernel > min(height, width):
            raise ValueError(f"kernel is {kernel}; the image has {height}×{width}, which is less")
        middle = self.free.new_zeros(*self.free.shape[:2], height, width)
        middle[..., :kernel, :kernel] = self.free
        middle = middle.roll((-(kernel // 2), -(kernel // 2)), (2, 3))
        return cayley(torch.fft.rfft2(middle).permute(2, 3, 0, 1))

    def forward(self, x):
        q = self.matrices(*x.shape[2:])
        y = torch.einsum("hwoi,nihw->nohw", q, torch.fft.rfft2(x))
        y = torch.fft.irfft2(y, s=x.shape[2:])
        return y if self.bias is None else y + self.bias[:, None, None]


class GroupSort(nn.Module):
    """Sorts each group of `size` neighbouring channels, from the smallest up; 2 is called MaxMin.

    It only permutes, so that it is 1-Lipschitz and every gradient keeps its length; with ReLU, a
    chain of layers with norm at most 1 whose gradient has length 1 everywhere is affine.

    Source: Anil, Lucas & Grosse, "Sorting out Lipschitz function approximation", ICML 2019.

    Raises:
        ValueError: the number of channels is no multiple of `size`.
    """

    def __init__(self, size: int = 2):
        super().__init__()
        self.size = size

    def forward(self, x):
        if x.shape[1] % self.size:
            raise ValueError(f"x has {x.shape[1]} channels; size is {self.size}, a divisor is due")
        return x.unflatten(1, (-1, self.size)).sort(2).values.flatten(1, 2)


def export(model: nn.Sequential, shape: tuple[int, ...]) -> nn.Sequential:
    """The same function in plain layers: constrained ones become Linear and Conv2d of torch.

    The weights are computed in float64 and then rounded to the model's dtype. Everything else is
    copied; nested chains become one. A `CayleyConv` becomes a circular Conv2d whose kernel is as
    large as the image, which costs height·width multiplications where a 3×3 kernel costs 9: for
    verifiers and for reading, not for speed.

    Args:
        shape: of one example, without the batch.

    Raises:
        ValueError: a constrained layer that is neither Linear nor Conv2d nor `CayleyConv`, or one
            inside something that is no chain.
    """
    like = next(itertools.chain(model.parameters(), model.buffers()), torch.zeros(()))
    layers, x = [], like.new_zeros(1, *shape)
    with frozen(model), torch.no_grad():
        for layer in flat(model):
            layers.append(plain(layer, x.shape[1:]))
            x = layer(x)
    return nn.Sequential(*layers).train(model.training)


def plain(layer: nn.Module, shape: tuple[int, ...]) -> nn.Module:
    """One layer of `export`, on inputs of this shape."""
    if isinstance(layer, CayleyConv):
        return _full_kernel(layer, *shape[1:])
    if not any(map(_constrained, layer.modules())):
        return copy.deepcopy(layer)
    if not _constrained(layer):
        raise ValueError(f"{type(layer).__name__} has constrained layers inside; expected a chain")
    exact = copy.deepcopy(layer).double()
    if type(layer).forward is nn.Linear.forward:
        new = _empty(nn.Linear, layer, layer.in_features, layer.out_features)
    elif type(layer).forward is nn.Conv2d.forward:
        new = _empty(
            nn.Conv2d, layer, layer.in_channels, layer.out_channels, layer.kernel_size,
            layer.stride, layer.padding, layer.dilation, layer.groups,
            padding_mode=layer.padding_mode,
        )  # fmt: skip
    else:
        raise ValueError(f"{type(layer).__name__} is constrained; expected a Linear or a Conv2d")
    return _filled(new, exact.weight, exact.bias)


def flat(model: nn.Module) -> list[nn.Module]:
    """The layers of a chain, chains within it opened."""
    if not isinstance(model, nn.Sequential):
        return [model]
    return [inner for layer in model for inner in flat(layer)]


class _Constraint(nn.Module):
    """free weights -> weights."""

    def __init__(self, function):
        super().__init__()
        self.forward = function


def _constrain(layer: nn.Module, function) -> None:
    parametrize.register_parametrization(layer, "weight", _Constraint(function))


def _constrained(layer: nn.Module) -> bool:
    return isinstance(layer, CayleyConv) or parametrize.is_parametrized(layer)


def _full_kernel(layer: CayleyConv, height: int, width: int) -> nn.Conv2d:
    """Conv2d correlates: tap t meets x[i − left + t], where the layer has kernel[left − t]."""
    exact = copy.deepcopy(layer).double()
    q = torch.fft.irfft2(exact.matrices(height, width).permute(2, 3, 0, 1), s=(height, width))
    for axis, side in ((2, height), (3, width)):
        at = ((side - 1) // 2 - torch.arange(side)) % side
        q = q.index_select(axis, at.to(q.device))
    new = _empty(
        nn.Conv2d, layer, q.shape[1], q.shape[0], (height, width), padding="same",
        padding_mode="circular",
    )  # fmt: skip
    return _filled(new, q, exact.bias)


def _empty(kind: type, like: nn.Module, *args, **kwargs) -> nn.Module:
    """A layer with the device, dtype and mode of another; nothing is drawn for its weights."""
    at = next(like.parameters())
    new = nn.utils.skip_init(kind, *args, bias=like.bias is not None, device=at.device, **kwargs)
    return new.to(at.dtype).train(like.training)


@torch.no_grad()
def _filled(new: nn.Module, weight: Tensor, bias: Tensor | None) -> nn.Module:
    new.weight.copy_(weight)
    if bias is not None:
        new.bias.copy_(bias)
    return new
