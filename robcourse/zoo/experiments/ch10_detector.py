"""Chapter 10, appendix D.4: sharpness as a detector of attacks, and an attack that knows it."""

import numpy as np
import torch
from scipy.stats import rankdata
from torch import Tensor, nn

from robcourse.flatness import head_trace
from robcourse.threat import Threat, margin, measure

from .ch10_flatness import LEVEL, LINF, attack_path, features, logits_of, network, resampled, short


def detector(n: int = 1000) -> dict:
    """Chapter 10: a threshold on the sharpness as a detector, and an attack that knows it."""
    return {
        "attack": "PGD on cross-entropy, 10 steps of eps/4; the last point where it is wrong",
        "adaptive": "PGD, 40 steps of 0.5/255 at 8/255, stopped past the boundary where the trace "
        "is that of the clean image, by halving the step where it is crossed",
        "networks": {
            name: _detector(name, (1, 2, 4, 8), n) for name in ("cifar10-standard", "cifar10-linf")
        },
    }


def _detector(name: str, levels: tuple[int, ...], n: int) -> dict:
    model, x, y, origin = network(name, n)
    with torch.no_grad():
        right = margin(logits_of(model, x), y) > 0
    x, y = x[right], y[right]
    clean = _signs(model, x)
    rows = {}
    for k in levels:
        threat = Threat("linf", k * LEVEL)
        path = attack_path(model, x, y, threat, 10, threat.eps / 4)
        wrong, points = _last_wrong(model, path, y)
        moved = _signs(model, points)
        rows[str(k)] = {"wrong": int(wrong.sum())} | {
            sign: _told_apart(clean[sign][wrong], moved[sign][wrong]) for sign in clean
        }
        stumps = {sign: _stump(clean[sign][wrong], moved[sign][wrong]) for sign in clean}
    path = attack_path(model, x, y, LINF, 40, LEVEL / 2)
    points, wrong = _matched(model, path, y)
    judged = measure(model, points, x, y, LINF)
    moved = _signs(model, points)
    adaptive = {"wrong": int(wrong.sum()), "judged_wrong": int((judged.success & wrong).sum())}
    for sign, (cut, low) in stumps.items():  # those fitted to the attack at the largest budget
        flagged = lambda v, cut=cut, low=low: (v < cut) if low else (v >= cut)
        adaptive[sign] = _told_apart(clean[sign][wrong], moved[sign][wrong]) | {
            "flagged_clean": int(flagged(clean[sign][wrong]).sum()),
            "flagged_attacked": int(flagged(moved[sign][wrong]).sum()),
        }
    return {**origin, "right": len(y), "levels": rows, "adaptive": adaptive}


def _signs(model: nn.Sequential, points: Tensor) -> dict[str, Tensor]:
    """Two signs of an attack at each point: log Tr H, and the log-odds of the answer."""
    phi = features(model, points)
    head = model[-1]
    trace = head_trace(head.weight.double(), phi.double(), bias=head.bias.double())
    logits = head(phi).double()
    top, at = logits.max(1)
    rest = logits.scatter(1, at[:, None], -torch.inf).logsumexp(1)
    return {"sharpness": trace.log(), "confidence": top - rest}


def _last_wrong(model: nn.Sequential, path: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Which images the path breaks, and the last iterate at which each is wrong."""
    wrong = torch.stack([margin(logits_of(model, p), y) <= 0 for p in path])
    last = len(path) - 1 - wrong.flip(0).int().argmax(0)
    return wrong.any(0), path[last, torch.arange(len(y))]


def _matched(model: nn.Sequential, path: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """On each path past the boundary, the point whose trace is that of its start; else the last.

    Between two wrong iterates, one above that trace and the next below it, by halving: the points
    between two allowed ones are allowed.
    """
    trace = torch.stack([_signs(model, p)["sharpness"] for p in path])
    wrong = torch.stack([margin(logits_of(model, p), y) <= 0 for p in path])
    goal = trace[0]
    crossed = wrong[:-1] & wrong[1:] & (trace[:-1] > goal) & (trace[1:] <= goal)
    at, every = crossed.int().argmax(0), torch.arange(len(y))
    high, low = path[at, every], path[at + 1, every]
    for _ in range(12):
        middle = (high + low) / 2
        fine = (margin(logits_of(model, middle), y) <= 0) & (
            _signs(model, middle)["sharpness"] <= goal
        )
        low = _pick(fine, middle, low)
        high = _pick(fine, high, middle)
    broken, last = _last_wrong(model, path, y)
    return _pick(crossed.any(0), low, last), broken


def _told_apart(clean: Tensor, moved: Tensor) -> dict:
    """How well a threshold tells two samples of one size apart: AUC, and a stump in five folds."""
    a, b = clean.numpy(), moved.numpy()
    right, fold = 0, np.arange(len(a)) % 5
    shares = []
    for k in range(5):
        cut, low = _stump(clean[fold != k], moved[fold != k])
        one, other = a[fold == k], b[fold == k]
        hits = ((one >= cut) == low).sum() + ((other < cut) == low).sum()
        shares.append(short(hits / (2 * len(one))))
        right += int(hits)
    low, high = resampled(lambda i: _auc(a[i], b[i]), len(a), 300)
    return {"auc_lower_when_attacked": short(_auc(a, b)), "interval": [low, high],
            "stump_right": right, "of": 2 * len(a), "folds": shares}  # fmt: skip


def _auc(clean: np.ndarray, moved: np.ndarray) -> float:
    """The probability that an attacked point lies below a clean one, a tie counting one half."""
    ranks = rankdata(np.concatenate([moved, clean]))[len(moved) :]
    return float((ranks.sum() / len(clean) - (len(clean) + 1) / 2) / len(moved))


def _stump(clean: Tensor, moved: Tensor) -> tuple[float, bool]:
    """The threshold with fewest errors, and whether what lies below it counts as attacked."""
    values = torch.cat([clean, moved])
    order = values.argsort()
    sign = torch.cat([-torch.ones(len(clean)), torch.ones(len(moved))])[order]
    below = torch.cat([torch.zeros(1), sign.cumsum(0)])  # attacked minus clean below each cut
    change = torch.cat([torch.tensor([True]), values[order].diff() > 0, torch.tensor([True])])
    score = torch.where(change, below.abs(), -1.0)
    i = int(score.argmax())
    ordered = values[order]
    cut = ordered[0] - 1 if i == 0 else ordered[-1] + 1 if i == len(values) else (
        (ordered[i - 1] + ordered[i]) / 2
    )  # fmt: skip
    return float(cut), bool(below[i] > 0)


def _pick(rows: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return torch.where(rows.view(-1, *[1] * (a.ndim - 1)), a, b)
