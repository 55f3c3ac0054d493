"""Chapter 2: is Fashion-MNIST concentrated?"""

import dataclasses

import torch
from torch import Tensor

from robcourse import attacks, concentration, data
from robcourse.threat import Threat, margin
from robcourse.zoo import load


def growth() -> dict:
    """Chapter 2: how little error sets on Fashion-MNIST can grow, and what a network loses."""
    dataset = data.load("fashion")
    x, y = dataset.test_x, dataset.test_y
    net, few, alpha = load("fashion-standard")[0], 500, 0.1
    with torch.no_grad():
        wrong = sum(int((margin(net(x[i : i + 500]), y[i : i + 500]) <= 0).sum())
                    for i in range(0, len(y), 500))  # fmt: skip
    budgets = {"l2": (0.5, 1.0, 2.0), "linf": (0.05, 0.1, 0.2)}
    return {
        "data": dataset.name,
        "data_sha256": dataset.sha256,
        "alpha": alpha,
        "network": {"name": "fashion-standard", "wrong": wrong, "n": len(y)},
        "searched": {"half-space": "20000 training images, 64 directions", "balls": "4000"},
        "attack": {"apgd": {"steps": 30}, "n": few},
        "round_radius": _size(dataset.train_x),
        "largest_sd": {k: concentration.largest_sd(dataset.train_x[:20_000], k) for k in budgets},
        "rows": [
            {
                "norm": norm,
                "eps": eps,
                "sets": [dataclasses.asdict(e) for e in _sets(dataset, alpha, eps, norm)],
                "broken": int(
                    attacks.apgd(net, x[:few], y[:few], Threat(norm, eps), steps=30).success.sum()
                ),
            }
            for norm, radii in budgets.items()
            for eps in radii
        ],
    }


def _size(x: Tensor) -> float:
    """The root mean square distance to the mean image."""
    flat = x.flatten(1).double()
    return (flat - flat.mean(0)).norm(dim=1).square().mean().sqrt().item()


def _sets(dataset: data.Dataset, alpha: float, eps: float, norm: str) -> list:
    """A half-space, one ball and five, found on training images, counted on all test images."""
    train, test = dataset.train_x, dataset.test_x
    few = [concentration.balls(train[:4000], test, alpha, eps, norm=norm, count=k) for k in (1, 5)]
    return [concentration.half_space(train[:20_000], test, alpha, eps, norm=norm), *few]
