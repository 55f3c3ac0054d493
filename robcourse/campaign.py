"""A certification run as a file: a line an image, appended as soon as it is finished.

The first line is the card of the run. A run that was stopped, however rudely, goes on where it
was: finished images are read back, a line that was cut off is dropped and its image drawn again.
When all are there the lines are put in order, so the same settings give the same file.
"""

import contextlib
import dataclasses
import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from . import risk, smoothing
from .smoothing import Counted, Plan
from .threat import Certificate


@dataclass(frozen=True)
class Run:
    """What a file of a run holds.

    Attributes:
        card: settings and origin; `plan` in it is that of `smoothing.Plan`.
        counted: what was drawn, in the order of the images' numbers.
        y: the true labels, in the same order.
        missing: how many images are still to be done.
    """

    card: dict
    counted: list[Counted]
    y: Int[Tensor, " m"]
    missing: int

    @property
    def certificate(self) -> Certificate:
        """What the counts prove."""
        return smoothing.certificate(self.counted, Plan(**self.card["plan"]))


def certify(
    path: str | os.PathLike,
    model: Callable,
    x: Float[Tensor, " m *s"],
    y: Int[Tensor, " m"],
    numbers: Sequence[int],
    plan: Plan,
    origin: dict,
    *,
    executor: Executor | None = None,
) -> Run:
    """Certify these images into a file, or finish the file that is there; it may have had fewer.

    Args:
        path: of the file; its folder is made.
        model, x, y: the base classifier, the images and their labels.
        numbers: of the images in their data set.
        plan: the settings.
        origin: what else the card says and what must be the same when the run goes on: names and
            hashes of model and data, arithmetic, versions. A file with
            another origin or plan, or with images that are not among these, is refused.
        executor: shares out the images, as in `smoothing.certify`.

    Raises:
        ValueError: the file is of another run, or is none, or is being written by another command;
            or what `smoothing.certify` refuses. Then the file is as it was.
    """
    path = Path(path)
    card = {"plan": dataclasses.asdict(plan), "images": list(numbers), **origin}
    card = json.loads(json.dumps(card))
    label = dict(zip(card["images"], y.tolist(), strict=True))
    path.parent.mkdir(parents=True, exist_ok=True)
    with _alone(path):
        old = _of_this_run(path, card) if path.exists() else Run(card, [], y[:0], len(label))
        done = {c.image for c in old.counted}
        rows = [row for row, number in enumerate(card["images"]) if number not in done]
        rest = [card["images"][row] for row in rows]
        found = smoothing.count(model, x[rows], plan, rest, executor) if rows else ()
        _write(path, card, old)  # not before all was found to be in order
        with path.open("a", encoding="utf-8") as file:
            for counted in found:
                line = {**dataclasses.asdict(counted), "y": label[counted.image]}
                file.write(json.dumps(line) + "\n")
                file.flush()
                os.fsync(file.fileno())
        run = read(path)
        _write(path, card, run)
    return run


def read(path: str | os.PathLike) -> Run:
    """What is in the file, also while it grows; a last line that was cut off counts for nothing.

    Raises:
        ValueError: not a file of a run, or damaged before its last line.
    """
    path = Path(path)
    raw = path.read_bytes()
    try:
        head, *lines = (json.loads(line) for line in raw[: raw.rfind(b"\n") + 1].splitlines())
        card = head["card"]
        plan = Plan(**card["plan"])
        found = {line["image"]: _line(line, plan) for line in lines}
        pairs = [found[i] for i in card["images"] if i in found]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} is not the file of a run, or is damaged: name another one, or move this one "
            f"out of the way ({type(error).__name__}: {error})"
        ) from error
    y = torch.tensor([label for _, label in pairs], dtype=torch.int64)
    return Run(card, [c for c, _ in pairs], y, len(card["images"]) - len(pairs))


def _line(line: dict, plan: Plan) -> tuple[Counted, int]:
    """What was drawn of an image, and its label."""
    if not all(type(value) is int for value in line.values()):
        raise ValueError(f"expected whole numbers: {line}")
    y = line["y"]
    counted = Counted(**{k: v for k, v in line.items() if k != "y"})
    if not 0 <= counted.hits <= counted.drawn <= plan.n:
        raise ValueError(f"impossible counts for image {counted.image}: {counted}")
    if not 0 <= min(y, counted.label) <= max(y, counted.label) < plan.classes:
        raise ValueError(f"impossible label for image {counted.image}: {counted}, y = {y}")
    return counted, y


def table(run: Run, radii: Sequence[float], *, alpha: float = 0.05) -> str:
    """Certified accuracy at each radius as a Markdown table: lower bounds, with intervals."""
    curve = risk.curve(
        run.certificate, y=run.y, radii=torch.tensor(list(radii), dtype=torch.float64), alpha=alpha
    )
    rows = ["| ℓ2 radius | certified accuracy (≥) | interval | n |", "|---|---|---|---|"]
    for r, v, low, high in zip(curve.eps, curve.value, curve.low, curve.high, strict=True):
        rows.append(f"| {r:.3g} | {v:.1%} | {low:.1%} to {high:.1%} | {curve.n} |")
    return "\n".join(rows)


def _of_this_run(path: Path, card: dict) -> Run:
    """The run in the file, if its images are among those of the card, and all else is the same."""
    old = read(path)
    differs = sorted(k for k in {*old.card, *card} if old.card.get(k) != card.get(k))
    grows = differs == ["images"] and set(old.card["images"]) <= set(card["images"])
    if differs and not grows:
        raise ValueError(
            f"{path} is of another run: it differs in {', '.join(differs)}; name another file, "
            "or move this one out of the way"
        )
    return old


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """While it lasts no other process writes this run (where the system has such locks)."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    with path.with_name(f".{path.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"another command is writing {path}: wait, or name another") from None
        yield


def _write(path: Path, card: dict, run: Run) -> None:
    pairs = zip(run.counted, run.y.tolist(), strict=True)
    _whole(path, [{"card": card}, *({**dataclasses.asdict(c), "y": y} for c, y in pairs)])


def _whole(path: Path, lines: list[dict]) -> None:
    """All of the file or nothing."""
    part = path.with_name(path.name + ".part")
    part.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    part.replace(path)
