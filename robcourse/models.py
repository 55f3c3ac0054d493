"""The networks of the book: small, plain chains with normalisation as their first layer.

Because `Normalize` is inside the network, inputs stay in [0, 1] everywhere and every radius is in
input units. Each builder returns an `nn.Sequential` in evaluation mode, initialised from `seed`,
in float32 on the CPU; move it with `.to`.
"""

import contextlib
import itertools
from collections.abc import Sequence

import torch
from torch import nn

from .orthogonal import AOLConv, CayleyLinear, GroupSort


class Normalize(nn.Module):
    """(x − mean) / std, per channel or with one number for all; constants, not parameters.

    Args:
        mean, std: a number, or one number a channel.
    """

    def __init__(self, mean: float | Sequence[float] = 0.5, std: float | Sequence[float] = 0.5):
        super().__init__()
        for name, value in (("mean", mean), ("std", std)):
            t = torch.as_tensor(value, dtype=torch.float32)
            self.register_buffer(name, t.view(-1, 1, 1) if t.ndim else t)

    def forward(self, x):
        return (x - self.mean) / self.std


class Residual(nn.Module):
    """relu(body(x) + shortcut(x))."""

    def __init__(self, body: nn.Module, shortcut: nn.Module):
        super().__init__()
        self.body, self.shortcut = body, shortcut

    def forward(self, x):
        return torch.relu(self.body(x) + self.shortcut(x))


class Bfloat16(nn.Module):
    """The same network, its arithmetic in bfloat16, images in channels-last order.

    Half the time or less where the hardware knows it. Inputs, weights and logits stay in float32,
    and the answers may differ: it is another network, to be measured or certified as such.

    Args:
        model: its convolutions' weights are put in channels-last order.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model.to(memory_format=torch.channels_last)
        self.train(model.training)

    def forward(self, x):
        with torch.autocast(x.device.type, dtype=torch.bfloat16):
            if x.ndim == 4:
                x = x.contiguous(memory_format=torch.channels_last)
            return self.model(x).float()


def mlp(
    inputs: int,
    classes: int,
    *,
    hidden: tuple[int, ...] = (16, 16),
    mean: float = 0.5,
    std: float = 0.5,
    seed: int = 0,
) -> nn.Sequential:
    """A ReLU network on flattened inputs: `[n, *s] -> [n, classes]`."""
    with _seeded(seed):
        sizes = (inputs, *hidden)
        layers: list[nn.Module] = [Normalize(mean, std), nn.Flatten()]
        for a, b in itertools.pairwise(sizes):
            layers += [nn.Linear(a, b), nn.ReLU()]
        return nn.Sequential(*layers, nn.Linear(sizes[-1], classes)).eval()


def small_conv(
    shape: tuple[int, int, int] = (3, 32, 32),
    classes: int = 10,
    *,
    width: int = 32,
    batch_norm: bool = True,
    mean: float | Sequence[float] = 0.5,
    std: float | Sequence[float] = 0.5,
    seed: int = 0,
) -> nn.Sequential:
    """Six 3×3 convolutions with batch norm, three of them with stride 2, and one linear layer.

    `shape` is (channels, height, width). With width 32 on 3×32×32: 0.45 million parameters. Without
    batch norm each convolution has a bias: a chain that interval bounds can train.
    """
    plan = [(1, 1), (2, 2), (2, 1), (4, 2), (4, 1), (4, 2)]  # (times width, stride)
    with _seeded(seed):
        layers: list[nn.Module] = [Normalize(mean, std)]
        channels, height, wide = shape
        for times, stride in plan:
            layers += [*_conv(channels, times * width, stride, norm=batch_norm), nn.ReLU()]
            channels, height, wide = times * width, -(-height // stride), -(-wide // stride)
        head = nn.Linear(channels * height * wide, classes)
        return nn.Sequential(*layers, nn.Flatten(), head).eval()


def small_resnet(
    shape: tuple[int, int, int] = (3, 32, 32),
    classes: int = 10,
    *,
    width: int = 16,
    blocks: tuple[int, ...] = (1, 1, 1),
    mean: float | Sequence[float] = 0.5,
    std: float | Sequence[float] = 0.5,
    seed: int = 0,
) -> nn.Sequential:
    """A residual network of the CIFAR family (He et al. 2016): 2·Σblocks + 2 layers deep.

    A stage has `blocks[i]` residual blocks at width·2^i channels, halving the image after the
    first stage; the shortcut that changes shape is a 1×1 convolution.
    """
    with _seeded(seed):
        layers: list[nn.Module] = [Normalize(mean, std), *_conv(shape[0], width, 1), nn.ReLU()]
        channels = width
        for stage, count in enumerate(blocks):
            out = width * 2**stage
            for block in range(count):
                stride = 2 if stage and not block else 1
                body = nn.Sequential(*_conv(channels, out, stride), nn.ReLU(), *_conv(out, out, 1))
                same = channels == out and stride == 1
                shortcut = nn.Sequential(*([] if same else _conv(channels, out, stride, kernel=1)))
                layers.append(Residual(body, shortcut))
                channels = out
        layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes)]
        return nn.Sequential(*layers).eval()


def lipschitz_mlp(
    inputs: int,
    classes: int,
    *,
    hidden: tuple[int, ...] = (64, 64),
    mean: float = 0.5,
    seed: int = 0,
) -> nn.Sequential:
    """A 1-Lipschitz network on flattened inputs: `CayleyLinear` and `GroupSort`.

    Inputs are shifted and not scaled: dividing by a standard deviation would make it faster.
    """
    with _seeded(seed):
        sizes = (inputs, *hidden)
        layers: list[nn.Module] = [Normalize(mean, 1.0), nn.Flatten()]
        for a, b in itertools.pairwise(sizes):
            layers += [CayleyLinear(a, b), GroupSort()]
        return nn.Sequential(*layers, CayleyLinear(sizes[-1], classes)).eval()


def lipschitz_conv(
    shape: tuple[int, int, int] = (3, 32, 32),
    classes: int = 10,
    *,
    width: int = 32,
    hidden: int = 256,
    mean: float | Sequence[float] = 0.5,
    seed: int = 0,
) -> nn.Sequential:
    """A 1-Lipschitz convolutional network: `AOLConv` and `GroupSort`, the sides halved twice.

    The halvings keep every pixel: four neighbours become four channels. Inputs are shifted and
    not scaled.
    """
    channels, height, wide = shape
    with _seeded(seed):
        layers: list[nn.Module] = [Normalize(mean, 1.0)]
        for out in (width, 2 * width):
            layers += [nn.PixelUnshuffle(2)]
            layers += [AOLConv(4 * channels, out), GroupSort(), AOLConv(out, out), GroupSort()]
            channels = out
        features = channels * (height // 4) * (wide // 4)
        layers += [nn.Flatten(), CayleyLinear(features, hidden), GroupSort()]
        return nn.Sequential(*layers, CayleyLinear(hidden, classes)).eval()


def _conv(
    channels: int, out: int, stride: int, *, kernel: int = 3, norm: bool = True
) -> list[nn.Module]:
    conv = nn.Conv2d(channels, out, kernel, stride, padding=kernel // 2, bias=not norm)
    return [conv, nn.BatchNorm2d(out)] if norm else [conv]


@contextlib.contextmanager
def _seeded(seed: int):
    """Inside, torch's global generator starts from `seed`; afterwards it is as it was.

    Drawn in float32 on the CPU whatever the defaults are: the same seed is the same network.
    """
    default = torch.get_default_dtype()
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.random.default_generator.manual_seed(seed)
        torch.set_default_dtype(torch.float32)
        try:
            yield
        finally:
            torch.set_default_dtype(default)
