"""Chapter 3: certificates on CIFAR-10, as many draws as the literature takes."""

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from robcourse import campaign, data, models
from robcourse.smoothing import Plan
from robcourse.zoo import load


def certified(sigma: str) -> dict:
    """Chapter 3: every 40th test image of CIFAR-10, 100 000 draws each, counted."""
    dataset, (model, card) = data.load("cifar10"), load(f"cifar10-noise-{sigma}")
    numbers = range(0, len(dataset.test_y), 40)
    plan = Plan(float(sigma), len(dataset.classes), n0=100, n=100_000, alpha=1e-3, batch=200)
    origin = {
        "model": f"cifar10-noise-{sigma}",
        "weights_sha256": card.weights_sha256,
        "arithmetic": "bfloat16",
        "data": dataset.name,
        "data_sha256": dataset.sha256,
    }
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        run = campaign.certify(
            data.folder() / "checkpoints" / f"certified-{sigma}.jsonl",
            models.Bfloat16(model),
            dataset.test_x[list(numbers)],
            dataset.test_y[list(numbers)],
            numbers,
            plan,
            origin,
            executor=pool,
        )
    counted = [
        [c.image, y, c.label, c.hits, c.drawn]
        for c, y in zip(run.counted, run.y.tolist(), strict=True)
    ]
    settings = {k: v for k, v in run.card.items() if k != "images"}
    return {**settings, "columns": ["image", "y", "label", "hits", "drawn"], "counted": counted}
