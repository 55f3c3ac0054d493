"""Chapter 1 on larger images than a page holds."""

import torch

from robcourse import data, linear, runtime
from robcourse.threat import Threat


def linear_hypothesis() -> dict:
    """Chapter 1 on larger images: chosen against random signs, and exact robust training."""
    pairs = {"digits": (3, 8), "fashion": (0, 3), "cifar10": (0, 9)}
    return {name: _two_classes(name, classes) for name, classes in pairs.items()}


def _two_classes(name: str, classes: tuple[int, int]) -> dict:
    whole = data.load(name).only(*classes)
    train, test = whole.train_x.flatten(1), whole.test_x.flatten(1)
    signs, y = 2 * whole.train_y - 1, 2 * whole.test_y - 1
    budgets = [0.0, *(2**k / 255 for k in range(6))]
    trained_at = {"standard": 0.0, "mild": 4 / 255, "robust": 16 / 255}
    settings = {"decay": 1e-3, "steps": 3000}
    rules = {
        kind: linear.fit(train, signs, Threat("linf", eps), **settings)
        for kind, eps in trained_at.items()
    }
    w, b = rules["standard"]
    return {
        "data": whole.name,
        "classes": list(whole.classes),
        "data_sha256": whole.sha256,
        "n": len(y),
        "d": test.shape[1],
        "fit": settings,
        "trained_at": trained_at,
        "eps": budgets,
        "right": {kind: [_right(*rule, test, y, eps) for eps in budgets]
                  for kind, rule in rules.items()},
        "right_by_chance": [_by_chance(w, b, test, y, eps) for eps in budgets],
        "l1_over_l2": {kind: (u.abs().sum() / u.norm()).item() for kind, (u, _) in rules.items()},
    }  # fmt: skip


def _right(w, b, x, y, eps: float) -> int:
    """How many are right at the exact worst point of the ℓ∞ ball in the box."""
    return round(len(y) * (1 - linear.robust_risk(w, b, x, y, Threat("linf", eps))))


def _by_chance(w, b, x, y, eps: float, *, draws: int = 20, seed: int = 0) -> float:
    """How many are right, on average, when each pixel moves by ±eps at the toss of a coin."""
    gen = runtime.generator(seed, x)
    right = 0
    for _ in range(draws):
        toss = 2.0 * torch.randint(0, 2, x.shape, generator=gen, device=x.device) - 1
        right += int((y * linear.score(w, b, (x + eps * toss).clamp(0, 1)) > 0).sum())
    return right / draws
