"""The experiments whose results the pages read as records: too long, or too large, for a page.

`python -m robcourse.zoo.experiments [NAME ...]` (`make records`) runs them in the full profile, on
the real data sets, and writes `records/NAME.json`: counts and settings with a card, no images.
"""

import datetime
import json
import os
import sys
import time
from collections.abc import Callable

import torch

from robcourse import data, linear, runtime
from robcourse.threat import Threat

from . import HERE
from .recipes import versions


def linear_hypothesis() -> dict:
    """Chapter 1 on larger images: chosen against random signs, and exact robust training."""
    pairs = {"digits": (3, 8), "fashion": (0, 3), "cifar10": (0, 9)}
    return {name: _two_classes(name, classes) for name, classes in pairs.items()}


EXPERIMENTS: dict[str, Callable[[], dict]] = {"linear-hypothesis": linear_hypothesis}


def run(name: str) -> dict:
    """The result of an experiment, with its card."""
    start = time.perf_counter()
    result = EXPERIMENTS[name]()
    card = {
        "experiment": EXPERIMENTS[name].__doc__,
        "date": datetime.date.today().isoformat(),
        "seconds": round(time.perf_counter() - start, 1),
        "hardware": f"CPU, {os.cpu_count()} cores, threads used: {torch.get_num_threads()}",
        "versions": versions(),
        "command": f"ROBCOURSE_PROFILE=full make records ONLY={name}",
    }
    return {"card": card, **result}


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


def main(names: list[str]) -> int:
    """Run the named experiments (all, if none is named) and write their records."""
    unknown = [name for name in names if name not in EXPERIMENTS]
    if unknown or runtime.profile() != "full":
        print(f"run with ROBCOURSE_PROFILE=full; names: {', '.join(EXPERIMENTS)}", file=sys.stderr)
        return 2
    for name in names or EXPERIMENTS:
        path = HERE / "records" / f"{name}.json"
        part = path.with_suffix(".part")
        part.write_text(json.dumps(run(name), indent=1) + "\n", encoding="utf-8")
        part.replace(path)
        print(path.name)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
