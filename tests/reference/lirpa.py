"""What auto_LiRPA (Xu et al., BSD licence) gives: the bounds that ours are held against.

Run in an environment of its own, from the root of the repository, in a minute; version 0.3 is the
last one that is published as a package, and asks for an old torch:

    python -m venv .venv-lirpa && . .venv-lirpa/bin/activate
    pip install torch==1.13.1 "numpy<1.25" "setuptools<80" appdirs pytest packaging pyyaml
    pip install --no-deps auto_LiRPA==0.3
    OMP_NUM_THREADS=1 python tests/reference/lirpa.py

Writes `lirpa.json`. Methods: `IBP`; `backward` (CROWN inside too) and `CROWN-IBP`, both with the
adaptive lower slope; matrices for convolutions (version 0.3 errs with oblong images); float64; the
whole ball, for it knows no box but the one that an ℓ∞ ball is. `case` needs none of it.
"""

# ruff: noqa: T201

import datetime
import importlib.metadata
import json
from pathlib import Path

import torch
from torch import nn

HERE = Path(__file__).resolve().parent
OPTIONS = {"relu": "adaptive", "conv_mode": "matrix"}
METHODS = {"ibp": "IBP", "crown": "backward", "crown_ibp": "CROWN-IBP"}


def conv(channels: int, out: int, stride: int = 1, kernel: int = 3) -> list[nn.Module]:
    layer = nn.Conv2d(channels, out, kernel, stride, padding=kernel // 2, bias=False)
    return [layer, nn.BatchNorm2d(out)]


class Sum(nn.Module):
    """relu(body(x) + shortcut(x))."""

    def __init__(self, body: nn.Module, shortcut: nn.Module):
        super().__init__()
        self.body, self.shortcut = body, shortcut

    def forward(self, x):
        return torch.relu(self.body(x) + self.shortcut(x))


def layers(name: str, residual: type) -> tuple[tuple[int, ...], list[nn.Module]]:
    """The shape of an input, and the layers of a network."""

    def block(channels: int, out: int, stride: int) -> nn.Module:
        body = nn.Sequential(*conv(channels, out, stride), nn.ReLU(), *conv(out, out))
        shortcut = nn.Sequential(*(conv(channels, out, stride, 1) if stride > 1 else []))
        return residual(body, shortcut)

    match name:
        case "mlp":
            hidden = [nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 8), nn.ReLU()]
            return (6,), [*hidden, nn.Linear(8, 3)]
        case "conv":
            hidden = [*conv(2, 3), nn.ReLU(), *conv(3, 4, 2), nn.ReLU(), *conv(4, 4), nn.ReLU()]
            return (2, 6, 6), [*hidden, nn.Flatten(), nn.Linear(36, 3)]
        case "resnet":
            hidden = [*conv(2, 3), nn.ReLU(), block(3, 3, 1), block(3, 4, 2)]
            return (2, 6, 6), [*hidden, nn.AvgPool2d(3), nn.Flatten(), nn.Linear(4, 3)]
        case "pool":
            hidden = [nn.Conv2d(2, 3, 3, 2, 1), nn.ReLU(), nn.AvgPool2d(2), nn.Conv2d(3, 4, 2)]
            return (2, 8, 8), [*hidden, nn.ReLU(), nn.Flatten(), nn.Linear(4, 3)]


NAMES = ("mlp", "conv", "resnet", "pool")
EPS = {"linf": 0.02, "l2": 0.1, "l1": 0.3}
ORDER = {"linf": float("inf"), "l2": 2, "l1": 1}


def waves(shape: tuple[int, ...], seed: float) -> torch.Tensor:
    """Numbers in [−1, 1] that look random and are the same with every version of torch."""
    count = torch.Size(shape).numel()
    return torch.sin(torch.arange(1, count + 1, dtype=torch.float64).square() * 0.7 + seed).view(
        shape
    )


def case(name: str, residual: type = Sum) -> tuple[nn.Sequential, torch.Tensor]:
    """A network in float64 and two inputs; `residual` is the class of its blocks."""
    with torch.random.fork_rng():
        shape, chain = layers(name, residual)
    net = nn.Sequential(*chain).double()
    for i, p in enumerate(net.parameters()):
        fan = p[0].numel()
        p.data = waves(tuple(p.shape), i) * (1.5 / fan**0.5 if p.ndim > 1 else 0.3)
    for i, m in enumerate(net.modules()):
        if isinstance(m, nn.BatchNorm2d):
            m.running_mean.copy_(0.2 * waves((m.num_features,), i))
            m.running_var.copy_(1.5 + waves((m.num_features,), i + 0.5))
            m.weight.data += 0.8
    return net.eval().requires_grad_(False), 0.5 + 0.3 * waves((2, *shape), 0.1)


def main() -> None:
    from auto_LiRPA import BoundedModule, BoundedTensor, PerturbationLpNorm

    torch.set_default_dtype(torch.float64)  # its pooling makes weights of the default type
    answers = {}
    for name in NAMES:
        net, x = case(name)
        for norm, eps in EPS.items():
            ball = PerturbationLpNorm(norm=ORDER[norm], eps=eps)
            for ours, theirs in METHODS.items():
                bounded = BoundedModule(net, torch.empty_like(x), OPTIONS)
                low, high = bounded.compute_bounds(x=(BoundedTensor(x, ball),), method=theirs)
                answers[f"{name} {norm} {ours}"] = [low.tolist(), high.tolist()]
    card = {
        "date": datetime.date.today().isoformat(),
        "libraries": {
            "torch": torch.__version__,
            "auto_LiRPA": importlib.metadata.version("auto_LiRPA"),
        },
        "methods": METHODS,
        "options": OPTIONS,
        "eps": EPS,
        "command": "python tests/reference/lirpa.py",
    }
    text = json.dumps({"card": card, "answers": answers}, indent=1)
    (HERE / "lirpa.json").write_text(text + "\n")
    print(len(answers), "answers")


if __name__ == "__main__":
    main()
