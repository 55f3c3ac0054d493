"""How each model of the zoo is made: a recipe is data, and `make` follows it and measures."""

import datetime
import hashlib
import importlib.metadata
import os
import platform
from dataclasses import dataclass, field

import torch
from torch import nn

from robcourse import attacks, data, intervals, training
from robcourse.threat import Threat, margin

from . import Card, build, pack, unpack


@dataclass(frozen=True)
class Recipe:
    """A model of the zoo, before it is trained.

    Attributes:
        data, classes: the data set and the classes kept; None keeps all.
        architecture, arguments: a builder of `robcourse.models` and what it is given.
        epochs, lr, batch, weight_decay, seed: for `training.fit`.
        threats: what PGD is tried with afterwards.
    """

    data: str
    classes: tuple[int, ...] | None
    architecture: str
    arguments: dict
    epochs: int
    lr: float
    batch: int = 64
    weight_decay: float = 1e-2
    seed: int = 0
    threats: tuple[Threat, ...] = field(
        default=(Threat("linf", 1 / 16), Threat("linf", 2 / 16), Threat("l2", 0.5))
    )

    def dataset(self) -> data.Dataset:
        """The data of this recipe."""
        whole = data.load(self.data)
        return whole if self.classes is None else whole.only(*self.classes)


#: The attack with which a card's upper bounds on robust accuracy are measured.
ATTACK = {"steps": 50, "restarts": 5, "loss": "margin", "seed": 0}

RECIPES = {
    "digits-3v8-standard": Recipe(
        "digits", (3, 8), "mlp", {"inputs": 64, "classes": 2, "hidden": (16, 16)}, 60, 1e-2
    ),
    "digits-3v8-conv": Recipe(
        "digits", (3, 8), "small_conv", {"shape": (1, 8, 8), "classes": 2, "width": 4}, 40, 1e-2
    ),
    "digits-conv": Recipe(
        "digits", None, "small_conv", {"shape": (1, 8, 8), "classes": 10, "width": 8}, 60, 1e-2
    ),
}


#: The recipe is also run with these seeds, to see what of a number is chance.
SEEDS = (0, 1, 2, 3, 4)


def make(name: str) -> tuple[bytes, Card]:
    """Train the model `name` and measure it: the bytes of its weights, and its card.

    Measured is what `load` will give: the weights after their rounding to half precision.
    """
    recipe = RECIPES[name]
    dataset = recipe.dataset()
    runs = {seed: _train(recipe, dataset, seed) for seed in sorted({*SEEDS, recipe.seed})}
    model, seconds = runs[recipe.seed]
    raw = pack(model)
    shares = [round(_clean(run, dataset)["accuracy"], 4) for run, _ in runs.values()]
    card = Card(
        name=name,
        architecture=recipe.architecture,
        arguments=recipe.arguments,
        recipe=_words(recipe),
        seed=recipe.seed,
        data=dataset.name,
        data_sha256=dataset.sha256,
        epochs=recipe.epochs,
        seconds=round(seconds, 2),
        hardware=f"CPU, {os.cpu_count()} cores, threads used: {torch.get_num_threads()}",
        versions=versions(),
        date=datetime.date.today().isoformat(),
        clean=_clean(model, dataset),
        spread={"seeds": list(runs), "accuracy": shares},
        robust=[_robust(model, dataset, threat) for threat in recipe.threats],
        weights_sha256=hashlib.sha256(raw).hexdigest(),
        weights_bytes=len(raw),
    )
    return raw, card


def _train(recipe: Recipe, dataset: data.Dataset, seed: int) -> tuple[nn.Module, float]:
    """The trained model, rounded as it will be stored, and the seconds that it took."""
    model = build(recipe.architecture, {**recipe.arguments, "seed": seed})
    log = training.fit(
        model, dataset.train_x, dataset.train_y, training.standard(), epochs=recipe.epochs,
        lr=recipe.lr, batch=recipe.batch, weight_decay=recipe.weight_decay, seed=seed,
    )  # fmt: skip
    model.load_state_dict(unpack(pack(model)))
    return model, log.seconds.sum().item()


@torch.no_grad()
def _clean(model: nn.Module, dataset: data.Dataset, level: float = 0.95) -> dict:
    k = int((margin(model(dataset.test_x), dataset.test_y) > 0).sum())
    n = len(dataset.test_y)
    low, high = intervals.clopper_pearson(k, n, 1 - level)
    return {
        "accuracy": round(k / n, 6),
        "n": n,
        "level": level,
        "low": low.item(),
        "high": high.item(),
    }


def _robust(model: nn.Module, dataset: data.Dataset, threat: Threat) -> dict:
    result = attacks.pgd(model, dataset.test_x, dataset.test_y, threat, **ATTACK)
    return {"attack": "pgd", **ATTACK, "norm": threat.norm, "eps": threat.eps,
            "box": list(threat.box), "n": len(dataset.test_y),
            "accuracy_upper": round(result.robust_accuracy_upper, 6)}  # fmt: skip


def _words(r: Recipe) -> str:
    return (
        f"cross-entropy on the training half, AdamW, {r.epochs} epochs, batch {r.batch}, "
        f"lr {r.lr:g} falling to 0 on half a cosine, weight decay {r.weight_decay:g}; "
        "weights rounded to float16"
    )


def versions() -> dict:
    """The versions that a number may depend on."""
    names = ("torch", "numpy", "scikit-learn")
    found = {name: importlib.metadata.version(name) for name in names}
    return {"python": platform.python_version(), **found}
