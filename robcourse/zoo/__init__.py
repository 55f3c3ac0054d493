"""The models of the book, frozen: a number on a page must not depend on who trained it, or where.

Each model is a file of weights and a card, made by a recipe (`recipes.py`) and replaced together
by `make zoo ONLY=name`. Results too long for a page are records, read by `record`.
"""

import dataclasses
import hashlib
import io
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from robcourse import models

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Card:
    """Where a model comes from and what was measured of it.

    Attributes:
        name: of the model, for `load`.
        architecture, arguments: the builder in `robcourse.models` and what it was given.
        recipe: what was trained, in words.
        seed: of the initial weights and of the training.
        data, data_sha256: the data set, with its classes, and the hash of its raw bytes.
        epochs: passes over the training set.
        kept: the epoch, from 0, whose weights these are.
        seconds: wall time of the training.
        hardware, versions, date: where and when it ran.
        clean: accuracy on the test set: `accuracy`, `n`, and the exact two-sided interval
            [`low`, `high`] at `level`.
        spread: the same accuracy when the recipe is run with each of `seeds`.
        robust: for each threat the attacks that were tried on the first n test images, one after
            the other, with what each left of those right `untouched`; `accuracy_upper`, an upper
            bound on robust accuracy, and the interval of that share.
        certified: the other side: for each threat the share of the whole test set for which
            `method` proves the right answer, `accuracy_lower`, with its interval.
        weights_sha256, weights_bytes: of the file of weights, in half precision.
        note: what else a reader should know.
    """

    name: str
    architecture: str
    arguments: dict
    recipe: str
    seed: int
    data: str
    data_sha256: str
    epochs: int
    kept: int
    seconds: float
    hardware: str
    versions: dict
    date: str
    clean: dict
    spread: dict
    robust: list
    weights_sha256: str
    weights_bytes: int
    certified: list = dataclasses.field(default_factory=list)
    note: str = ""


def load(name: str, *, device: str | torch.device = "cpu") -> tuple[nn.Module, Card]:
    """A model in evaluation mode, in float32, and its card.

    Raises:
        ValueError: an unknown name, or weights that are not those of the card.
    """
    card = _card(name)
    raw = (HERE / "weights" / f"{name}.pt").read_bytes()
    if hashlib.sha256(raw).hexdigest() != card.weights_sha256:
        raise ValueError(
            f"the weights of {name!r} are not those of its card: the file is damaged, or only one "
            f"of the two was replaced. Make both again: make zoo ONLY={name}"
        )
    model = build(card.architecture, card.arguments)
    model.load_state_dict(unpack(raw), strict=True)
    return model.to(device).eval(), card


def cards() -> dict[str, Card]:
    """All cards, by name."""
    names = sorted(p.stem for p in (HERE / "cards").glob("*.json"))
    return {name: _card(name) for name in names}


def record(name: str) -> dict:
    """Numbers that took too long to compute on a page: counts, settings and a card.

    Raises:
        FileNotFoundError: there is no such record; the message says how to make it.
    """
    path = HERE / "records" / f"{name}.json"
    if not path.is_file():
        there = sorted(p.stem for p in path.parent.glob("*.json"))
        raise FileNotFoundError(
            f"there is no record {name!r} (there are: {', '.join(there) or 'none'}). Records are "
            "made, on the real data sets, by: ROBCOURSE_PROFILE=full make records"
        )
    return json.loads(path.read_text(encoding="utf-8"))


def build(architecture: str, arguments: dict) -> nn.Module:
    """The untrained network of a card: `robcourse.models`' builder of that name."""
    kept = {k: tuple(v) if isinstance(v, list) else v for k, v in arguments.items()}
    return getattr(models, architecture)(**kept)


def pack(model: nn.Module) -> bytes:
    """The model's state as the bytes of a checkpoint, numbers in half precision."""
    state = {k: v.cpu().half() if v.is_floating_point() else v.cpu()
             for k, v in model.state_dict().items()}  # fmt: skip
    buffer = io.BytesIO()  # not a file: torch.save writes the file's name into the checkpoint
    torch.save(state, buffer)
    return buffer.getvalue()


def unpack(raw: bytes) -> dict:
    """The state that `pack` wrote, in float32."""
    state = torch.load(io.BytesIO(raw), weights_only=True)
    return {k: v.float() if v.is_floating_point() else v for k, v in state.items()}


def write(card: Card, raw: bytes) -> None:
    """Replace card and weights. Each file is whole or the old one; `load` checks that they fit."""
    text = json.dumps(dataclasses.asdict(card), indent=2, ensure_ascii=False) + "\n"
    files = {
        HERE / "weights" / f"{card.name}.pt": raw,
        HERE / "cards" / f"{card.name}.json": text.encode(),
    }
    for path, data in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_name(path.name + ".part").write_bytes(data)
    for path in files:
        path.with_name(path.name + ".part").replace(path)


def _card(name: str) -> Card:
    path = HERE / "cards" / f"{name}.json"
    if not path.is_file():
        there = sorted(p.stem for p in path.parent.glob("*.json"))
        raise ValueError(f"name is {name!r}; allowed: {', '.join(map(repr, there))}")
    return Card(**json.loads(path.read_text(encoding="utf-8")))
