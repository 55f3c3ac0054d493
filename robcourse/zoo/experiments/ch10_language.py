"""Chapter 10: a causal character model, attacked through its prompt, token by token."""

import ast
import hashlib
import importlib.util
import math
import warnings
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robcourse import flatness


def language_valley() -> dict:
    """Chapter 10: sharpness at the target's characters while a prompt is attacked, greedily."""
    train, held = _corpus(PACKAGES)
    baselines = _baselines(train, held)
    model = _build(**NETWORK)
    loss = _fit(model, train, **FIT)
    model.eval().requires_grad_(False)
    return {
        "data": "docstrings of " + ", ".join(f"{p} {version(p)}" for p in PACKAGES),
        "data_sha256": hashlib.sha256(bytes(torch.cat([train, held]).tolist())).hexdigest(),
        "alphabet": ALPHABET,
        "characters": {"train": len(train), "held_out": len(held)},
        "network": NETWORK | {"weights": sum(p.numel() for p in model.parameters())},
        "fit": FIT,
        "loss": loss,
        "bits": baselines | {"network": _bits(model, held, NETWORK["context"])},
        "attack": ATTACK,
        "groups": _attacked(model, held, **ATTACK),
    }


#: Whose docstrings: packages that the course needs anyway.
PACKAGES = ("numpy", "scipy", "scikit-learn", "torch")
#: Lower case; any white space is one space; the last letter stands for every other character.
ALPHABET = "abcdefghijklmnopqrstuvwxyz .,:;?"
NETWORK = {"width": 96, "layers": 2, "heads": 4, "context": 64, "window": 4, "seed": 0}
FIT = {"steps": 2500, "batch": 32, "lr": 4e-3, "weight_decay": 0.01, "seed": 0}
ATTACK = {"n": 48, "prompt": 32, "target": 3, "steps": 40, "tried": 32, "best": 8,
          "sure": 0.8, "unsure": 0.4, "seed": 0}  # fmt: skip


class Embedding(nn.Module):
    """One-hot characters [n, t, k] to vectors: each sees the last few, and where it stands."""

    def __init__(self, k: int, width: int, context: int, window: int) -> None:
        super().__init__()
        self.window = window
        self.mix = nn.Conv1d(k, width, window)
        self.place = nn.Parameter(0.02 * torch.randn(context, width))

    def forward(self, x: Tensor) -> Tensor:
        past = F.pad(x.transpose(1, 2), (self.window - 1, 0))
        return self.mix(past).transpose(1, 2) + self.place[: x.shape[1]]


class Block(nn.Module):
    """Causal self-attention, then two layers, each added to what came in."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.ask, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.think = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        n, t, _ = x.shape
        parts = self.ask(self.first(x)).view(n, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        seen = F.scaled_dot_product_attention(*parts, is_causal=True)
        x = x + self.out(seen.transpose(1, 2).reshape(n, t, -1))
        return x + self.think(self.second(x))


def _build(
    *, width: int, layers: int, heads: int, context: int, window: int, seed: int
) -> nn.Sequential:
    """A chain that ends in a normalisation without gain and nn.Linear."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        k = len(ALPHABET)
        return nn.Sequential(
            Embedding(k, width, context, window),
            *(Block(width, heads) for _ in range(layers)),
            nn.LayerNorm(width, elementwise_affine=False),
            nn.Linear(width, k),
        )


def _corpus(packages: tuple[str, ...]) -> tuple[Tensor, Tensor]:
    """The docstrings as characters 0 … k − 1; every twentieth file is held out."""
    paths = []
    for package in packages:
        name = {"scikit-learn": "sklearn"}.get(package, package)
        root = Path(importlib.util.find_spec(name).origin).parent
        paths += sorted(p for p in root.rglob("*.py") if "tests" not in p.relative_to(root).parts)
    parts = [_characters(p) for p in paths]
    parts = [p for p in parts if len(p) > 200]
    held = torch.cat(parts[::20])
    return torch.cat([p for i, p in enumerate(parts) if i % 20]), held


def _characters(path: Path) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of escapes in other people's strings
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except SyntaxError:  # a file for a newer Python
            tree = ast.Module([], [])
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
    texts = [ast.get_docstring(n) or "" for n in ast.walk(tree) if isinstance(n, kinds)]
    place = {letter: i for i, letter in enumerate(ALPHABET)}
    text = " ".join(" ".join(texts).lower().split()) + " "
    return torch.tensor([place.get(letter, len(ALPHABET) - 1) for letter in text])


def _baselines(train: Tensor, held: Tensor) -> dict[str, float]:
    """Bits per held-out character of two tables of counts."""
    k = len(ALPHABET)
    pairs = torch.bincount(k * train[:-1] + train[1:], minlength=k * k).view(k, k) + 1.0
    single, pair = pairs.sum(0) / pairs.sum(), pairs / pairs.sum(1, keepdim=True)
    return {"unigram": -single[held].log2().mean().item(),
            "bigram": -pair[held[:-1], held[1:]].log2().mean().item()}  # fmt: skip


def _fit(
    model: nn.Module, train: Tensor, *, steps: int, batch: int, lr: float, weight_decay: float,
    seed: int,
) -> list[float]:  # fmt: skip
    """AdamW, a warm start, then down to 0 in a line; the mean loss of each tenth, in bits."""
    gen = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=lr, weight_decay=weight_decay, betas=(0.9, 0.98)
    )
    pace = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda s: min(1, (s + 1) / 100) * (1 - s / steps)
    )
    span = torch.arange(len(model[0].place) + 1)
    seen = torch.empty(steps)
    for step in range(steps):
        at = torch.randint(len(train) - len(span), (batch, 1), generator=gen)
        rows = train[at + span]
        logits = model(_onehot(rows[:, :-1]))
        loss = F.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten())
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        pace.step()
        seen[step] = loss.item() / math.log(2)
    return [round(part.mean().item(), 4) for part in seen.chunk(10)]


@torch.no_grad()
def _bits(model: nn.Module, held: Tensor, context: int) -> float:
    """Bits per held-out character, over all places of a context."""
    rows = held[: len(held) // (context + 1) * (context + 1)].view(-1, context + 1)
    logits = torch.cat([model(_onehot(r[:, :-1])) for r in rows.split(256)])
    return F.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten()).item() / math.log(2)


def _attacked(
    model: nn.Sequential, held: Tensor, *, n: int, prompt: int, target: int, steps: int, tried: int,
    best: int, sure: float, unsure: float, seed: int,
) -> dict:  # fmt: skip
    """Held-out passages where the model is sure, or unsure, how its text goes on."""
    rows = held[: len(held) // (prompt + target) * (prompt + target)].view(-1, prompt + target)
    start, own = rows[:, :prompt], rows[:, prompt:]
    aim = own.roll(1, 0)  # what stood after another passage
    with torch.no_grad():
        p = torch.cat([model(_onehot(s))[:, -1].softmax(1) for s in start.split(256)])
    other = (p.argmax(1) != aim[:, 0]) & (own[:, 0] != aim[:, 0])
    groups = {}
    for name, group in (("sure", p.amax(1) >= sure), ("unsure", p.amax(1) <= unsure)):
        there = (group & other).nonzero()[:, 0]
        at = there[torch.linspace(0, len(there) - 1, min(n, len(there))).long()]
        paths = {
            "attack": _gcg(model, start[at], aim[at], steps, tried, best, seed),
            "chance": _walk(start[at], steps, seed),
        }
        groups[name] = {"of": len(there)} | {
            kind: _told(model, path, aim[at], own[at]) for kind, path in paths.items()
        }
    return groups


def _gcg(
    model: nn.Module, prompt: Tensor, aim: Tensor, steps: int, tried: int, best: int, seed: int
) -> Tensor:
    """Greedy coordinate gradient: [steps + 1, n, prompt]; the target's loss never rises."""
    gen = torch.Generator().manual_seed(seed)
    n, length = prompt.shape
    rows = torch.arange(n)
    now, low = prompt, _target_loss(model, _onehot(prompt), aim)
    path = [now]
    for _ in range(steps):
        point = _onehot(now).requires_grad_()
        (slope,) = torch.autograd.grad(_target_loss(model, point, aim).sum(), point)
        good = slope.topk(best, dim=2, largest=False).indices
        place = torch.randint(length, (n, tried), generator=gen)
        pick = torch.randint(best, (n, tried), generator=gen)
        new = now[:, None].repeat(1, tried, 1)
        new.scatter_(2, place[..., None], good[rows[:, None], place, pick][..., None])
        with torch.no_grad():
            loss = torch.cat([
                _target_loss(model, _onehot(a.flatten(0, 1)), b.repeat_interleave(tried, 0))
                for a, b in zip(new.split(8), aim.split(8), strict=True)
            ]).view(n, tried)  # fmt: skip
        least, which = loss.min(1)
        now = torch.where((least < low)[:, None], new[rows, which], now)
        low = torch.minimum(least, low)
        path.append(now)
    return torch.stack(path)


def _walk(prompt: Tensor, steps: int, seed: int) -> Tensor:
    """A random character at a random place, at each step: nothing is aimed at."""
    gen = torch.Generator().manual_seed(seed)
    path = [prompt]
    for _ in range(steps):
        now = path[-1].clone()
        place = torch.randint(now.shape[1], (len(now), 1), generator=gen)
        now.scatter_(1, place, torch.randint(len(ALPHABET), place.shape, generator=gen))
        path.append(now)
    return torch.stack(path)


@torch.no_grad()
def _told(model: nn.Sequential, path: Tensor, aim: Tensor, own: Tensor) -> dict:
    """Quartiles over the prompts, an entry an iterate; and how many paths show a hump."""
    head, columns = model[-1], []
    k, size = head.weight.shape
    for now in path:
        phi = model[:-1](_onehot(torch.cat([now, aim[:, :-1]], 1)))[:, now.shape[1] - 1 :]
        kappa = flatness.relative_sharpness(head.weight, phi.flatten(0, 1), bias=head.bias)
        logp = head(phi).log_softmax(2)
        columns.append((
            -logp.gather(2, aim[..., None])[..., 0],
            kappa.view(aim.shape) / (head.weight.square().sum() * size),
            logp.exp().amax(2),
            -logp[:, 0].gather(1, own[:, :1]),
        ))  # fmt: skip
    loss, unit, confidence, lost = (torch.stack(c) for c in zip(*columns, strict=True))
    q = torch.exp(-loss)
    first, mean = unit[..., 0], unit.mean(2)
    series = {"loss": loss.sum(2), "own_loss": lost[..., 0], "first": first, "mean": mean,
              "first_confidence": confidence[..., 0],
              "confidence": confidence.mean(2)}  # fmt: skip
    bands = {name: _quartiles(values) for name, values in series.items()}
    between = ((q[..., 0] >= 0.25) & (q[..., 0] <= 0.75)).any(0)
    crossed = (q[0, :, 0] < 0.25) & (q[-1, :, 0] > 0.75)
    return {
        "n": aim.shape[0],
        "k": k,
        **bands,
        "hump_first": int(_hump(first).sum()),
        "hump_mean": int(_hump(mean).sum()),
        "flatter_first": int((first[-1] < first[0]).sum()),
        "flatter_mean": int((mean[-1] < mean[0]).sum()),
        "said_first": int((q[-1, :, 0] > 0.5).sum()),
        "said": int((q[-1] > 0.5).all(1).sum()),
        "crossed": int(crossed.sum()),
        "jumped": int((crossed & ~between).sum()),
        "rank_correlation": _spearman(first.flatten(), confidence[..., 0].flatten()),
        "changed": (path[-1] != path[0]).sum(1).double().median().item(),
    }


def _hump(unit: Tensor) -> Tensor:
    """Sharper on the way, by half, than at the start and than at the end."""
    return unit.amax(0) > 1.5 * torch.maximum(unit[0], unit[-1])


def _quartiles(values: Tensor) -> list[list[float]]:
    at = torch.tensor([0.25, 0.5, 0.75], dtype=values.dtype)
    return [[round(v, 4) for v in row] for row in values.quantile(at, dim=1).tolist()]


def _spearman(a: Tensor, b: Tensor) -> float:
    ranks = torch.stack([t.argsort().argsort().double() for t in (a, b)])
    return round(torch.corrcoef(ranks)[0, 1].item(), 4)


def _target_loss(model: nn.Module, prompt: Tensor, aim: Tensor) -> Tensor:
    """−log of the probability that the model goes on with `aim`, given one-hot prompts."""
    logits = model(torch.cat([prompt, _onehot(aim[:, :-1])], 1))[:, prompt.shape[1] - 1 :]
    return F.cross_entropy(logits.transpose(1, 2), aim, reduction="none").sum(1)


def _onehot(x: Tensor) -> Tensor:
    return F.one_hot(x, len(ALPHABET)).float()
