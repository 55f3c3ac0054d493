"""The experiments whose results the pages read as records: too long, or too large, for a page.

`python -m robcourse.zoo.experiments [NAME ...]` (`make records`) runs them in the full profile, on
the real data sets, and writes `records/NAME.json`: counts and settings with a card, no images.
"""

import datetime
import os
import time
from collections.abc import Callable
from functools import partial

import torch

from robcourse.zoo.recipes import versions

from . import (
    ch01_linear_hypothesis,
    ch02_concentration,
    ch03_smoothing,
    ch05_verification,
    ch06_tradeoff,
    ch10_detector,
    ch10_flatness,
    ch10_language,
    ch10_weights,
)

EXPERIMENTS: dict[str, Callable[[], dict]] = {
    "linear-hypothesis": ch01_linear_hypothesis.linear_hypothesis,
    "concentration": ch02_concentration.growth,
    **{
        f"certified-{sigma}": partial(ch03_smoothing.certified, sigma)
        for sigma in ("0.12", "0.25", "0.50", "1.00")
    },
    "verified-fashion": ch05_verification.verified,
    "class-distances": ch06_tradeoff.class_distances,
    "transfer": ch06_tradeoff.transfer,
    "adversarial-data": ch06_tradeoff.adversarial_data,
    "robust-overfitting": ch06_tradeoff.robust_overfitting,
    "flatness-basins": ch10_flatness.basins,
    "flatness-valley": ch10_flatness.valley,
    "flatness-masking": ch10_flatness.masking,
    "flatness-detector": ch10_detector.detector,
    "flatness-layers": ch10_flatness.layers,
    "flatness-weights": ch10_weights.weights,
    "language-valley": ch10_language.language_valley,
}


def run(name: str, note: str = "") -> dict:
    """The result of an experiment, with its card."""
    start = time.perf_counter()
    result = EXPERIMENTS[name]()
    card = {
        "experiment": getattr(EXPERIMENTS[name], "func", EXPERIMENTS[name]).__doc__,
        "date": datetime.date.today().isoformat(),
        "seconds": round(time.perf_counter() - start, 1),
        "hardware": f"CPU, {os.cpu_count()} cores, threads used: {torch.get_num_threads()}",
        "versions": versions(),
        "command": f"ROBCOURSE_PROFILE=full make records ONLY={name}",
        "note": note,
    }
    return {"card": card, **result}
