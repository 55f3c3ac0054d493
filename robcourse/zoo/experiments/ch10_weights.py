"""Chapter 10: clean and robust loss when the weights move, for four ways of training."""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robcourse.flatness import head_trace
from robcourse.threat import margin

from .ch10_flatness import LEVEL, LINF, attack_path, features, logits_of, network, pgd, short

NETWORKS = ("cifar10-standard", "cifar10-sam", "cifar10-linf", "cifar10-awp")
#: How far each layer moves, relative to its norm; the second is what AWP was trained with.
MOVES = (0.0025, 0.005, 0.01)


def weights(n: int = 1000) -> dict:
    """Chapter 10: what one step of the weights uphill does to the clean and to the robust loss."""
    return {
        "threat": repr(LINF),
        "points": "the last iterates of PGD on cross-entropy, 10 steps of 2/255, for the weights "
        "as they are",
        "small": "right under PGD on the margin, 10 steps of eps/4, at so many levels of 1/255",
        "move": "each layer by gamma · norm of its weights, along its gradient of that loss",
        "networks": {name: _moved(name, n) for name in NETWORKS},
    }


def _moved(name: str, n: int) -> dict:
    model, x, y, origin = network(name, n)
    attacked = attack_path(model, x, y, LINF, 10, 2 * LEVEL)[-1]
    head = model[-1]
    trace = head_trace(head.weight, features(model, x), bias=head.bias).double()
    rows = {}
    for kind, points in (("clean", x), ("robust", attacked)):
        there = _measured(model, points, y)
        rows[kind] = {"here": there} | {
            f"{gamma:g}": _measured(_uphill(model, points, y, gamma), points, y) for gamma in MOVES
        }
    small = {
        str(k): _measured(model, pgd(model, x, y, LINF.at(k * LEVEL), "margin"), y)["right"]
        for k in (1, 2)
    }
    return {**origin, "trace_mean": short(trace.mean()), "trace_median": short(trace.median()),
            "small": small, "loss": rows}  # fmt: skip


def _measured(model: nn.Sequential, points: Tensor, y: Tensor) -> dict:
    logits = logits_of(model, points).double()
    each = F.cross_entropy(logits, y, reduction="none")
    error = each.std() / len(y) ** 0.5
    right = int((margin(logits, y) > 0).sum())
    return {"loss": short(each.mean()), "standard_error": short(error), "right": right}


def _uphill(model: nn.Sequential, points: Tensor, y: Tensor, gamma: float) -> nn.Sequential:
    """A copy whose matrices and kernels each moved by gamma of their norm, up the mean loss."""
    moved = copy.deepcopy(model)
    chosen = [p.requires_grad_() for p in moved.parameters() if p.ndim > 1]
    slopes = [torch.zeros_like(p) for p in chosen]
    for a, b in zip(points.split(250), y.split(250), strict=True):
        loss = F.cross_entropy(moved(a), b, reduction="sum")
        for total, part in zip(slopes, torch.autograd.grad(loss, chosen), strict=True):
            total += part
    with torch.no_grad():
        for p, g in zip(chosen, slopes, strict=True):
            p += gamma * p.norm() * g / g.norm().clamp_min(torch.finfo(g.dtype).tiny)
    return moved.requires_grad_(False)
