"""Chapter 5: a network that was trained on its boxes, bounded image by image."""

import torch

from robcourse import bounds, data
from robcourse.threat import Threat, margin
from robcourse.zoo import load

MODEL = "fashion-ibp"


def verified() -> dict:
    """Chapter 5: test images of Fashion-MNIST, proved by boxes, and what they leave by CROWN."""
    dataset, (model, card) = data.load("fashion"), load(MODEL)
    attacked = card.robust[0]
    n, threat = attacked["n"], Threat(attacked["norm"], attacked["eps"])
    x, y = dataset.test_x[:n], dataset.test_y[:n]
    by_boxes = bounds.certified(model, x, y, threat, method="ibp")
    with torch.no_grad():
        open_ = ~by_boxes & (margin(model(x), y) > 0)
    by_lines = [
        bounds.certified(model, a, b, threat).sum()
        for a, b in zip(x[open_].split(5), y[open_].split(5), strict=True)
    ]
    return {
        "model": MODEL,
        "weights_sha256": card.weights_sha256,
        "data": dataset.name,
        "data_sha256": dataset.sha256,
        "norm": threat.norm,
        "eps": threat.eps,
        "n": n,
        "boxes": int(by_boxes.sum()),
        "either": int(by_boxes.sum() + sum(by_lines)),
    }
