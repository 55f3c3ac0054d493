"""Chapter 6: distances between classes, transfer, and adversarial training watched."""

import json
import math
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from multiprocessing import get_context

import torch
from torch import Tensor, nn

from robcourse import attacks, data, risk, training
from robcourse.threat import Threat, margin
from robcourse.zoo import build, load
from robcourse.zoo.recipes import RECIPES


def class_distances() -> dict:
    """Chapter 6: how near images of different classes come in ℓ∞, and what floor follows."""
    return {"cifar10": _near_classes("cifar10", 84, (8, 4)),
            "fashion": _near_classes("fashion", 92, (4, 2))}  # fmt: skip


def transfer() -> dict:
    """Chapter 6: what each network keeps of its accuracy under five families of changes."""
    dataset = data.load("cifar10")
    x, y = dataset.test_x[:300], dataset.test_y[:300]
    names = [name for name in RECIPES if name.startswith("cifar10-")]
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:  # a network each
        right = list(pool.map(_moved, names, repeat(x), repeat(y)))
    return {
        "data": dataset.name,
        "data_sha256": dataset.sha256,
        "n": len(y),
        "families": {
            k: v if isinstance(v, str) else f"{v.norm} of {v.eps:.4g} in the box, {_TRIED}"
            for k, v in FAMILIES.items()
        },
        "right": dict(zip(names, right, strict=True)),
    }


def adversarial_data() -> dict:
    """Chapter 6: adversarial training on ever more images, watched epoch by epoch."""
    fit = {"epochs": 40, "lr": 3e-3, "batch": 128, "weight_decay": 5e-4, "warmup": 0.1}
    return _watched_runs({str(n): n for n in (1000, 4000)}, fit, every=3, augmented=True)


def robust_overfitting() -> dict:
    """Chapter 6: long adversarial training on few images, watched epoch by epoch."""
    fit = {"epochs": 80, "lr": 3e-3, "batch": 128, "weight_decay": 5e-4, "warmup": 0.1}
    return _watched_runs({"1000": 1000}, fit, every=8, augmented=False)


_TRIED = "APGD-CE and, towards two classes, APGD-T, 30 steps each"
#: What `transfer` tries: three norms, a rotation about the centre, a shift of all pixels.
FAMILIES: dict[str, Threat | str] = {
    "linf": Threat("linf", 8 / 255),
    "l2": Threat("l2", 0.5),
    "l1": Threat("l1", 12.0),
    "rotation": "31 angles from -30 to 30 degrees, bilinear, zeros outside",
    "brightness": "21 shifts of all pixels from -0.3 to 0.3, cut off at the box",
}


def _near_classes(name: str, most: int, blocks: tuple[int, int]) -> dict:
    """Pairs of different classes within `most` grey levels of 1/255 in ℓ∞, and the floor."""
    whole = data.load(name)
    images = [(255 * x).round().to(torch.uint8) for x in (whole.train_x, whole.test_x)]
    levels, pairs = _close(images[0], whole.train_y, images[0], whole.train_y, most, blocks)
    once = pairs[:, 0] < pairs[:, 1]
    levels, pairs = levels[once], pairs[once]
    across, across_pairs = _close(images[0], whole.train_y, images[1], whole.test_y, most, blocks)
    n = len(whole.train_y)
    same = sum(int((whole.train_y == c).sum()) ** 2 for c in range(len(whole.classes)))
    floors = []
    for reach in range(int(levels.min()) // 2, most // 2 + 1):
        found = risk.floor_of(pairs[levels <= 2 * reach], whole.train_y, seconds=60.0)
        floors.append({"eps": reach / 255, "conflicts": len(found.pairs), "exact": found.exact,
                       "lower": found.lower, "upper": found.upper})  # fmt: skip
    return {
        "data": whole.name,
        "data_sha256": whole.sha256,
        "classes": list(whole.classes),
        "n": n,
        "pairs": n * (n - 1) // 2,
        "pairs_of_different_classes": (n * n - same) // 2,
        "searched_to": most,
        "train_train": _nearest(levels, pairs, images[0], images[0], whole),
        "train_test": _nearest(across, across_pairs, images[0], images[1], whole),
        "pairs_within": {str(k): int((levels <= k).sum()) for k in range(0, most + 1, 4)},
        "floor": floors,
    }


def _nearest(levels: Tensor, pairs: Tensor, a: Tensor, b: Tensor, whole: data.Dataset) -> dict:
    """The pairs that are nearest, and where on the image they differ (a mean over 4×4 pixels)."""
    at = levels == levels.min()
    other = whole.train_y if a is b else whole.test_y
    shown = []
    for i, j in pairs[at].tolist():
        apart = (a[i].float() - b[j].float()).abs()
        shown.append({
            "indices": [i, j],
            "classes": [whole.classes[whole.train_y[i]], whole.classes[other[j]]],
            "l2": round((apart / 255).norm().item(), 4),
            "difference": nn.functional.avg_pool2d(apart.mean(0, keepdim=True), 4)[0]
            .round().int().tolist(),
        })  # fmt: skip
    return {"levels": int(levels.min()), "linf": int(levels.min()) / 255, "nearest": shown}


def _close(
    a: Tensor, ay: Tensor, b: Tensor, by: Tensor, most: int, blocks: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """All pairs of different labels at most `most` levels apart: their distances, and which.

    Means over blocks of pixels are never further apart than the pixels, so a pair whose coarse
    pictures are too far apart is settled without its pixels.
    """
    coarse = [[nn.functional.avg_pool2d(t.float(), k).flatten(1) for k in blocks] for t in (a, b)]
    distances, pairs = [], []
    for i in range(0, len(a), 500):
        part = torch.cdist(coarse[0][0][i : i + 500], coarse[1][0], torch.inf)
        at = ((part <= most + 1e-3) & (ay[i : i + 500, None] != by)).nonzero()
        at[:, 0] += i
        for some in at.split(100_000):
            near = (coarse[0][1][some[:, 0]] - coarse[1][1][some[:, 1]]).abs().amax(1)
            some = some[near <= most + 1e-3]
            for few in some.split(2_000):
                apart = (a[few[:, 0]].short() - b[few[:, 1]].short()).abs().flatten(1).amax(1)
                distances.append(apart[apart <= most])
                pairs.append(few[apart <= most])
    return torch.cat(distances), torch.cat(pairs)


def _moved(name: str, x: Tensor, y: Tensor) -> dict:
    """One network of the zoo, in a process of its own; done once for the weights that it has."""
    torch.set_num_threads(1)
    model, card = load(name)
    kept = data.folder() / "checkpoints" / f"transfer-{name}-{card.weights_sha256[:16]}.json"
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.with_suffix(".part").write_text(json.dumps(_families(model, x, y)), encoding="utf-8")
        kept.with_suffix(".part").replace(kept)
    return json.loads(kept.read_text(encoding="utf-8"))


def _families(model: nn.Module, x: Tensor, y: Tensor) -> dict:
    """How many are right untouched, and under each family: upper bounds."""
    model.to(memory_format=torch.channels_last)
    settle = lambda points: torch.cat([margin(model(p), y) <= 0 for p in points.split(len(y))])
    with torch.no_grad():
        wrong = settle(x)
        broken = {"rotation": wrong.clone(), "brightness": wrong.clone()}
        for angle in torch.linspace(-30, 30, 31).deg2rad().tolist():
            broken["rotation"] |= settle(_turned(x, angle))
        for shift in torch.linspace(-0.3, 0.3, 21).tolist():
            broken["brightness"] |= settle((x + shift).clamp(0, 1))
    for name, threat in FAMILIES.items():
        if isinstance(threat, Threat):
            first = attacks.apgd(model, x, y, threat, steps=30, loss="ce").success
            left = (~first).nonzero()[:, 0]
            broken[name] = first
            if len(left):
                aimed = attacks.apgd(model, x[left], y[left], threat, steps=30, targets=2)
                broken[name][left] = aimed.success
    return {"untouched": int((~wrong).sum()),
            **{name: int((~broken[name]).sum()) for name in FAMILIES}}  # fmt: skip


def _turned(x: Tensor, angle: float) -> Tensor:
    """The images turned about their centre by an angle in radians; zeros come in at the corners."""
    c, s = math.cos(angle), math.sin(angle)
    turn = torch.tensor([[c, -s, 0.0], [s, c, 0.0]]).expand(len(x), 2, 3)
    grid = nn.functional.affine_grid(turn, list(x.shape), align_corners=False)
    return nn.functional.grid_sample(x, grid, align_corners=False).clamp(0, 1)


def _watched_runs(sizes: dict[str, int], fit: dict, **more) -> dict:
    dataset, threat = data.load("cifar10"), Threat("linf", 8 / 255)
    return {
        "data": dataset.name,
        "data_sha256": dataset.sha256,
        "threat": repr(threat),
        "objective": "adversarial training, 2 steps from a random start",
        "fit": fit,
        **more,
        "watched_by": "PGD on the margin, 10 steps; held out are training images 40000 to 40399",
        "runs": {name: _watched(dataset, n, threat, fit, **more) for name, n in sizes.items()},
    }


def _watched(
    dataset: data.Dataset, n: int, threat: Threat, fit: dict, *, every: int, augmented: bool,
    few: int = 400,
) -> dict:  # fmt: skip
    """Adversarial training on the first n images; every so many epochs, what an attack leaves."""
    recipe = RECIPES["cifar10-linf"]
    model = build(recipe.architecture, {**recipe.arguments, "seed": 0})
    x, y = dataset.train_x, dataset.train_y
    watched = {"train": (x[:few], y[:few]), "held_out": (x[-10_000:][:few], y[-10_000:][:few]),
               "test": (dataset.test_x[:few], dataset.test_y[:few])}  # fmt: skip
    epochs: list[int] = []
    right: dict = {part: {"clean": [], "robust_upper": []} for part in watched}

    def watch(log: training.TrainLog) -> None:
        epoch = len(log.loss)
        if epoch % every and epoch != fit["epochs"]:
            return
        epochs.append(epoch)
        for part, (a, b) in watched.items():
            with torch.no_grad():
                right[part]["clean"].append(int((margin(model(a), b) > 0).sum()))
            found = attacks.pgd(model, a, b, threat, steps=10, loss="margin")
            right[part]["robust_upper"].append(int((~found.success).sum()))

    log = training.fit(
        model, x[:n], y[:n], training.adversarial(threat, steps=2), **fit, fast=True,
        augment=training.flips_and_shifts(4) if augmented else None, on_epoch=watch,
    )  # fmt: skip
    loss = [round(v, 4) for v in log.loss.tolist()]
    return {"n": few, "loss": loss, "epochs": epochs, "right": right}
