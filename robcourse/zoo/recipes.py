"""How each model of the zoo is made: a recipe is data, and `make` follows it and measures."""

import datetime
import hashlib
import importlib.metadata
import os
import platform
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import nn

from robcourse import attacks, blackbox, bounds, data, intervals, lipschitz, orthogonal, training
from robcourse.threat import Threat, margin

from . import Card, build, load, pack, unpack

#: The attacks with which a card's upper bounds on robust accuracy are measured, one after the
#: other on what is left; an image that one of them breaks is broken. And what is affordable on
#: larger images.
ATTACKS = {
    "apgd-ce": {"steps": 100, "restarts": 1, "loss": "ce"},
    "apgd-targeted": {"steps": 100, "restarts": 1, "targets": 9},
    "square": {"queries": 1000},
}
CHEAPER = {
    "apgd-ce": {"steps": 50, "restarts": 1, "loss": "ce"},
    "apgd-targeted": {"steps": 50, "restarts": 1, "targets": 3},
    "square": {"queries": 300},
}


@dataclass(frozen=True)
class Recipe:
    """A model of the zoo, before it is trained.

    Attributes:
        data, classes: the data set and the classes kept; None keeps all.
        architecture, arguments: a builder of `robcourse.models` and what it is given.
        epochs, lr, batch, weight_decay, warmup, fast, seed: for `training.fit`.
        objective: what is trained.
        shifts: pixels by which images are shifted, after a coin for mirroring; None: as they are.
        held: the last of the training images, kept out of training to choose the epoch by robust
            accuracy in the first of `threats`; 0: the last epoch is kept.
        threats: what the attacks are tried with afterwards.
        attacks: those attacks, with their settings.
        measured: how many test images they get, the first ones; None: all.
        proofs: what is proved of it afterwards: for each method the threats.
        seeds: the recipe is also run with these, to see what of a number is chance.
    """

    data: str
    classes: tuple[int, ...] | None
    architecture: str
    arguments: dict
    epochs: int
    lr: float
    batch: int = 64
    weight_decay: float = 1e-2
    warmup: float = 0.0
    fast: bool = False
    seed: int = 0
    objective: Callable = field(default_factory=training.standard)
    shifts: int | None = None
    held: int = 0
    threats: tuple[Threat, ...] = field(
        default=(Threat("linf", 1 / 16), Threat("linf", 2 / 16), Threat("l2", 0.5))
    )
    attacks: dict = field(default_factory=lambda: ATTACKS)
    measured: int | None = None
    proofs: dict[str, tuple[Threat, ...]] = field(default_factory=dict)
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)

    def dataset(self) -> data.Dataset:
        """The data of this recipe."""
        whole = data.load(self.data)
        return whole if self.classes is None else whole.only(*self.classes)


_DIGITS = {"data": "digits", "lr": 1e-2}
_MLP = {"architecture": "mlp", "arguments": {"inputs": 64, "classes": 2, "hidden": (16, 16)}}


def _radii(*radii: float) -> tuple[Threat, ...]:
    return tuple(Threat("l2", r) for r in radii)


#: Of the literature on Lipschitz networks.
_GREY = _radii(36 / 255, 72 / 255, 108 / 255)
_CIFAR_MEAN, _CIFAR_SD = [0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616]
_LINF, _L2 = Threat("linf", 8 / 255), Threat("l2", 0.5)


def _cifar(objective, epochs: int, lr: float = 3e-3, **more) -> Recipe:
    """The network and the data are the same for all."""
    arguments = {"shape": (3, 32, 32), "classes": 10, "width": 32,
                 "mean": _CIFAR_MEAN, "std": _CIFAR_SD}  # fmt: skip
    return Recipe(
        "cifar10", None, epochs=epochs, lr=lr, objective=objective,
        **{"architecture": "small_conv", "arguments": arguments, "batch": 128,
           "weight_decay": 5e-2, "warmup": 0.2, "fast": True, "shifts": 4,
           "threats": (_LINF, _L2), "attacks": CHEAPER, "measured": 1000, "seeds": (0,)}
        | more,
    )  # fmt: skip


def _attacked(objective, *threats: Threat) -> Recipe:
    """Adversarially, in the fast form, with early stopping by the first of the threats."""
    return _cifar(objective, 15, held=1000, threats=threats or (_LINF, _L2))


def _fashion(objective, **more) -> Recipe:
    given = {
        "architecture": "small_conv", "arguments": {"shape": (1, 28, 28), "classes": 10},
        "epochs": 15, "lr": 3e-3, "batch": 128, "weight_decay": 1e-2, "warmup": 0.2, "fast": True,
        "threats": (Threat("linf", 0.1),), "attacks": CHEAPER, "measured": 1000, "seeds": (0,),
    }  # fmt: skip
    return Recipe("fashion", None, objective=objective, **given | more)


RECIPES = {
    "digits-3v8-standard": Recipe(classes=(3, 8), epochs=60, **_MLP, **_DIGITS),
    "digits-3v8-linf": Recipe(
        classes=(3, 8), epochs=60, warmup=0.2, **_MLP, **_DIGITS,
        objective=training.adversarial(Threat("linf", 2 / 16), steps=10),
    ),
    "digits-3v8-noise": Recipe(
        classes=(3, 8), epochs=60, **_MLP, **_DIGITS, objective=training.noise(0.25)
    ),
    "digits-3v8-ibp": Recipe(
        classes=(3, 8), epochs=100, warmup=0.5, **_MLP, **_DIGITS,
        objective=training.ibp(Threat("linf", 2 / 16)),
        proofs={"ibp": (Threat("linf", 1 / 16), Threat("linf", 2 / 16))},
    ),
    "digits-3v8-lipschitz": Recipe(
        classes=(3, 8), epochs=60, architecture="lipschitz_mlp",
        arguments={"inputs": 64, "classes": 2}, **_DIGITS,
        objective=training.tempered(0.1, 0.5), threats=_radii(0.25, 0.5, 0.75),
        proofs={"lipschitz": _radii(0.25, 0.5, 0.75)},
    ),
    "digits-3v8-conv": Recipe(
        classes=(3, 8), epochs=40, architecture="small_conv",
        arguments={"shape": (1, 8, 8), "classes": 2, "width": 4}, **_DIGITS,
    ),
    "digits-conv": Recipe(
        classes=None, epochs=60, architecture="small_conv",
        arguments={"shape": (1, 8, 8), "classes": 10, "width": 8}, **_DIGITS,
    ),
    "fashion-standard": _fashion(training.standard()),
    "fashion-linf": _fashion(training.adversarial(Threat("linf", 0.1), steps=3), held=1000),
    "fashion-ibp": _fashion(
        training.ibp(Threat("linf", 0.1)), lr=1e-3, fast=False, epochs=12,
        arguments={"shape": (1, 28, 28), "classes": 10, "width": 16, "batch_norm": False},
        proofs={"ibp": (Threat("linf", 0.1),)},
    ),
    "fashion-lipschitz": _fashion(
        training.tempered(0.25, 0.5), lr=1e-2, batch=256, warmup=0.1, fast=False,
        architecture="lipschitz_conv",
        arguments={"shape": (1, 28, 28), "classes": 10, "width": 16, "hidden": 128},
        threats=_GREY, proofs={"lipschitz": _GREY},
    ),
    "cifar10-standard": _cifar(training.standard(), 50),
    **{f"cifar10-noise-{s:.2f}": _cifar(training.noise(s), 20) for s in (0.12, 0.25, 0.50, 1.00)},
    "cifar10-lipschitz": _cifar(
        training.tempered(0.25, 0.5), 24, 1e-2, architecture="lipschitz_conv",
        arguments={"shape": (3, 32, 32), "classes": 10, "width": 32, "hidden": 128,
                   "mean": _CIFAR_MEAN},
        batch=256, weight_decay=1e-2, warmup=0.1, fast=False, threats=_GREY,
        proofs={"lipschitz": _GREY},
    ),
    "cifar10-sam": _cifar(training.sam(0.05), 20),
    "cifar10-linf": _attacked(training.adversarial(_LINF, steps=2)),
    **{f"cifar10-trades-beta{b:g}": _attacked(training.trades(_LINF, b, steps=2))
       for b in (1.0, 3.0, 6.0)},
    "cifar10-l2": _attacked(training.adversarial(_L2, steps=2), _L2, _LINF),
    "cifar10-awp": _attacked(training.awp(5e-3, training.adversarial(_LINF, steps=2))),
}  # fmt: skip


def make(name: str, note: str = "") -> tuple[bytes, Card]:
    """Train the model `name` and measure it: the bytes of its weights, and its card.

    `note` is printed on the card. A run that was stopped goes on where it was: its checkpoint
    lies beside the data.
    """
    recipe = RECIPES[name]
    dataset = recipe.dataset()
    runs = {seed: _train(name, recipe, dataset, seed) for seed in {*recipe.seeds, recipe.seed}}
    model, log = runs[recipe.seed]
    shares = [round(_clean(runs[s][0], dataset)["accuracy"], 4) for s in sorted(runs)]
    trained = {"seconds": round(log.seconds.sum().item(), 2), "kept": log.kept,
               "spread": {"seeds": sorted(runs), "accuracy": shares}}  # fmt: skip
    return measure(name, model, trained | {"note": note})


def measure(name: str, model: nn.Module | None = None, trained: dict | None = None):
    """The bytes and the card of a trained model; without one, of the weights that are there.

    Measured is what `load` will give: the weights after their rounding to half precision.
    """
    recipe = RECIPES[name]
    dataset = recipe.dataset()
    if model is None:
        model, old = load(name)
        trained = {k: getattr(old, k) for k in ("seconds", "spread", "kept", "note")}
    raw = pack(model)
    model = orthogonal.export(model, dataset.test_x.shape[1:])  # constraints are computed once
    model.to(memory_format=torch.channels_last)  # twice as fast
    card = Card(
        name=name,
        architecture=recipe.architecture,
        arguments=recipe.arguments,
        recipe=words(recipe),
        seed=recipe.seed,
        data=dataset.name,
        data_sha256=dataset.sha256,
        epochs=recipe.epochs,
        **trained,
        hardware=f"CPU, {os.cpu_count()} cores, threads used: {torch.get_num_threads()}",
        versions=versions(),
        date=datetime.date.today().isoformat(),
        clean=_clean(model, dataset),
        robust=[_robust(model, dataset, threat, recipe) for threat in recipe.threats],
        certified=_certified(model, dataset, recipe),
        weights_sha256=hashlib.sha256(raw).hexdigest(),
        weights_bytes=len(raw),
    )
    return raw, card


def checkpoint(name: str, seed: int):
    """Where an unfinished run is kept."""
    return data.folder() / "checkpoints" / f"{name}-{seed}.pt"


def _train(name: str, recipe: Recipe, dataset: data.Dataset, seed: int):
    """The trained model, rounded as it will be stored, and its log."""
    model = build(recipe.architecture, {**recipe.arguments, "seed": seed})
    cut = len(dataset.train_y) - recipe.held
    x, y = dataset.train_x, dataset.train_y
    early = {} if not recipe.held else {
        "validation": (x[cut:], y[cut:]), "robust": recipe.threats[0], "keep": "best",
    }  # fmt: skip
    augment = None if recipe.shifts is None else training.flips_and_shifts(recipe.shifts)
    log = training.fit(
        model, x[:cut], y[:cut], recipe.objective, epochs=recipe.epochs, lr=recipe.lr,
        batch=recipe.batch, weight_decay=recipe.weight_decay, warmup=recipe.warmup,
        augment=augment, fast=recipe.fast, seed=seed, **early,
        checkpoint=checkpoint(name, seed) if len(x) > 10_000 else None,
    )  # fmt: skip
    model.load_state_dict(unpack(pack(model)))
    return model, log


@torch.no_grad()
def _clean(model: nn.Module, dataset: data.Dataset) -> dict:
    parts = zip(dataset.test_x.split(1000), dataset.test_y.split(1000), strict=True)
    k = sum(int((margin(model(x), y) > 0).sum()) for x, y in parts)
    return _share(k, len(dataset.test_y), "accuracy")


def _robust(model: nn.Module, dataset: data.Dataset, threat: Threat, recipe: Recipe) -> dict:
    """Attack after attack on what is left, and what each leaves."""
    x, y = dataset.test_x[: recipe.measured], dataset.test_y[: recipe.measured]
    left, after = torch.arange(len(y)), {}
    for attack, settings in recipe.attacks.items():
        settings = dict(settings)
        if "targets" in settings:
            settings["targets"] = min(settings["targets"], len(dataset.classes) - 1)
        run = blackbox.square if attack == "square" else attacks.apgd
        found = [run(model, x[at], y[at], threat, seed=0, **settings).success
                 for at in left.split(250) if len(at)]  # fmt: skip
        left = left[~torch.cat(found)] if found else left
        after[attack] = {**settings, "left": len(left)}
    box = None if threat.box is None else list(threat.box)
    with torch.no_grad():
        untouched = sum(int((margin(model(a), b) > 0).sum())
                        for a, b in zip(x.split(1000), y.split(1000), strict=True))  # fmt: skip
    return {"norm": threat.norm, "eps": threat.eps, "box": box, "untouched": untouched,
            "attacks": after, **_share(len(left), len(y), "accuracy_upper")}  # fmt: skip


@torch.no_grad()
def _certified(model: nn.Module, dataset: data.Dataset, recipe: Recipe) -> list:
    """What is proved on the whole test set, by each method and for each threat."""
    x, y, found = dataset.test_x, dataset.test_y, []
    for method, threats in recipe.proofs.items():
        radii = lipschitz.certify(model, x) if method == "lipschitz" else None
        for threat in threats:
            proved = radii.holds(y, threat.eps) if radii else torch.cat([
                bounds.certified(model, a, b, threat, method=method)
                for a, b in zip(x.split(1000), y.split(1000), strict=True)
            ])  # fmt: skip
            share = _share(int(proved.sum()), len(y), "accuracy_lower")
            found.append({"norm": threat.norm, "eps": threat.eps, "method": method, **share})
    return found


def _share(k: int, n: int, name: str, level: float = 0.95) -> dict:
    low, high = intervals.clopper_pearson(k, n, 1 - level)
    return {name: round(k / n, 6), "n": n, "level": level, "low": low.item(), "high": high.item()}


def words(r: Recipe) -> str:
    """The recipe, as the card prints it."""
    parts = [
        f"{r.objective!r}",
        f"AdamW, {r.epochs} epochs, batch {r.batch}",
        f"lr {r.lr:g} falling to 0 on half a cosine"
        + (f" after a rise over {r.warmup:.0%} of the run" if r.warmup else ""),
        f"weight decay {r.weight_decay:g}",
    ]
    parts += [f"mirrored and shifted by up to {r.shifts} pixels"] if r.shifts is not None else []
    parts += ["bfloat16 arithmetic"] if r.fast else []
    parts += [f"best epoch by robust accuracy on {r.held} held-out images"] if r.held else []
    return "; ".join([*parts, "weights rounded to float16"])


def versions() -> dict:
    """The versions that a number may depend on."""
    names = ("torch", "numpy", "scikit-learn")
    found = {name: importlib.metadata.version(name) for name in names}
    return {"python": platform.python_version(), **found}
