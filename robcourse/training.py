"""Training: one plain loop, and the objective is the only thing that a method changes.

Standard, adversarial and noisy training differ in the loss of a batch and in nothing else. So
`fit` takes an *objective*, a function (model, x, y) -> loss (see `objectives`), and owns all the
rest: the order of the examples, their augmentation, the optimiser, the checkpoint, the log.
"""

import contextlib
import copy
import dataclasses
import io
import math
import os
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor, nn
from tqdm.auto import tqdm

from . import attacks, models
from .objectives import adversarial, awp, hinge, ibp, noise, sam, standard, tempered, trades
from .runtime import frozen, quiet, validate
from .threat import Threat, margin

__all__ = [
    "Objective", "TrainLog", "adversarial", "awp", "fit", "flips_and_shifts", "hinge", "ibp",
    "noise", "sam", "standard", "tempered", "trades",
]  # fmt: skip

#: A loss of a batch, with the model in training mode: (model, x, y) -> a scalar.
Objective = Callable[[nn.Module, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class TrainLog:
    """What happened, an entry an epoch.

    Attributes:
        loss: the mean of the objective over the epoch's examples, while the weights moved.
        accuracy: on the validation set after the epoch, clean; None if there was none.
        robust_upper: there, an upper bound on robust accuracy by PGD; None if no threat was given.
        seconds: wall time of the epoch, validation included.
        kept: the epoch, from 0, whose weights the model has.
    """

    loss: Float64[Tensor, " e"]
    accuracy: Float64[Tensor, " e"] | None
    robust_upper: Float64[Tensor, " e"] | None
    seconds: Float64[Tensor, " e"]
    kept: int


def flips_and_shifts(pixels: int = 4, *, flip: bool = True) -> Callable[[Tensor], Tensor]:
    """The usual augmentation of images `[n, c, h, w]`, a batch at a time.

    Each image is mirrored with probability ½ and shifted by up to `pixels` in each direction over
    a border of zeros. Draws from the global generator, which `fit` sets.
    """

    def augment(x: Tensor) -> Tensor:
        n, _, height, width = x.shape
        if flip:
            mirrored = torch.rand(n, 1, 1, 1).to(x.device) < 0.5
            x = torch.where(mirrored, x.flip(-1), x)
        padded = nn.functional.pad(x, (pixels,) * 4)
        down, right = torch.randint(2 * pixels + 1, (2, n, 1)).to(x.device)
        rows = (down + torch.arange(height, device=x.device))[:, :, None]
        columns = (right + torch.arange(width, device=x.device))[:, None]
        at = torch.arange(n, device=x.device)[:, None, None]
        return padded.permute(0, 2, 3, 1)[at, rows, columns].permute(0, 3, 1, 2)

    return augment


def fit(
    model: nn.Module,
    x: Float[Tensor, " n *s"],
    y: Int[Tensor, " n"],
    objective: Objective,
    *,
    epochs: int,
    lr: float,
    batch: int = 128,
    weight_decay: float = 0.0,
    warmup: float = 0.0,
    augment: Callable[[Tensor], Tensor] | None = None,
    fast: bool = False,
    validation: tuple[Float[Tensor, " m *s"], Int[Tensor, " m"]] | None = None,
    robust: Threat | None = None,
    keep: str = "last",
    checkpoint: str | os.PathLike | None = None,
    seed: int = 0,
    on_epoch: Callable[[TrainLog], None] | None = None,
) -> TrainLog:
    """Train `model` in place; it is left in evaluation mode, without gradients.

    AdamW whose rate falls from `lr` to 0 on half a cosine, a step a batch, after it has risen to
    `lr` in a straight line over the first `warmup` of the run. Each epoch visits every example
    once, in an order drawn from (seed, epoch) on the CPU, so that it is the same on every device;
    the n examples are cut into ⌈n/batch⌉ batches whose sizes differ by at most 1. What the
    augmentation, the model or the objective draw from torch's global generator follows from
    (seed, epoch) as well, and that generator is afterwards as it was.

    Args:
        model: logits `[n, *s] -> [n, k]`, on the device of `x`.
        x, y: the whole training set, as one tensor each; images `[n, c, h, w]` lie in [0, 1].
        objective: the loss of a batch, such as `standard()`; called in training mode.
        epochs, lr, batch, weight_decay: as usual.
        warmup: a share of the run, from 0 to below 1.
        augment: what is done to each batch of images, such as `flips_and_shifts()`.
        fast: images in channels-last order and the network's arithmetic in bfloat16; its logits
            and the loss stay in float32. Half the time or less where the hardware knows it.
        validation: (x, y), on which clean accuracy is measured after each epoch.
        robust: also measure on it, by PGD of ten steps, an upper bound on robust accuracy.
        keep: "last", or "best": the weights of the epoch with the best robust accuracy on the
            validation set (without `robust`, the best clean one); early stopping by its result.
        checkpoint: a file, written after each epoch (whole or not at all). If it is there, the
            run goes on behind its last epoch, with the same bits as if it had never stopped.
        on_epoch: called after each epoch with the log so far, the model in evaluation mode.

    Raises:
        FloatingPointError: the loss of an epoch is NaN or infinite; the checkpoint, if any, still
            holds the epoch before.
        ValueError: an argument out of range, a checkpoint of another run, or what
            `runtime.validate` refuses.
    """
    _positive(epochs=epochs, lr=lr, batch=batch)
    _sensible(warmup, robust, keep, validation)
    model.eval()
    for a, b in ((x, y), *([] if validation is None else [validation])):
        validate(model, a, b, box=(0.0, 1.0) if a.ndim == 4 else None)
    chunks = -(-len(x) // batch)
    optimiser = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, _rate(epochs * chunks, warmup))
    run = _Run(model, optimiser, schedule, _Best(model))
    settings = {"epochs": epochs, "lr": lr, "batch": batch, "weight_decay": weight_decay,
                "warmup": warmup, "augment": augment is not None, "fast": fast, "keep": keep,
                "robust": repr(robust), "seed": seed, "objective": _name(objective),
                "data": _checksum(x, y)}  # fmt: skip
    rows = [] if checkpoint is None else _resume(Path(checkpoint), run, settings)
    trained = models.Bfloat16(model) if fast else model
    with (
        _randomness_kept(x.device),
        _left_in_evaluation(model),
        _layout_kept(model),
        tqdm(
            total=epochs * chunks, initial=len(rows) * chunks, unit="batch", disable=quiet()
        ) as bar,
    ):
        for epoch in range(len(rows), epochs):
            start = time.perf_counter()
            torch.manual_seed(seed * 1_000_003 + epoch)
            order = torch.randperm(len(x)).to(x.device)
            batches = order.tensor_split(chunks)
            loss = _epoch(run, trained, objective, x, y, batches, augment, epoch, epochs, bar)
            if not torch.isfinite(torch.tensor(loss)):
                raise FloatingPointError(_diverged(loss, epoch, lr))
            model.eval()
            hits = None if validation is None else _accuracy(trained, *validation)
            upper = None if robust is None else _robust(trained, *validation, robust)
            rows.append((loss, hits, upper, time.perf_counter() - start))
            run.best.see(epoch, hits if upper is None else upper)
            shown = {"clean": hits, "robust≤": upper}
            shown = {k: f"{v:.3f}" for k, v in shown.items() if v is not None}
            bar.set_postfix(epoch=epoch + 1, loss=f"{loss:.4g}", refresh=False, **shown)
            if checkpoint is not None:
                _save(Path(checkpoint), {"run": run.state(), "rows": rows, "settings": settings})
            if on_epoch is not None:
                on_epoch(_log(rows, epoch))
    kept = epochs - 1 if keep == "last" else run.best.restore()
    return _log(rows, kept)


class _Best:
    """The weights of the best epoch so far; of equal ones the first."""

    def __init__(self, model: nn.Module):
        self.model, self.epoch, self.value, self.weights = model, -1, -1.0, {}

    def see(self, epoch: int, value: float | None) -> None:
        if value is not None and value > self.value:
            self.epoch, self.value = epoch, value
            self.weights = copy.deepcopy(self.model.state_dict())

    def restore(self) -> int:
        self.model.load_state_dict(self.weights)
        return self.epoch

    def state_dict(self) -> dict:
        return {"epoch": self.epoch, "value": self.value, "weights": self.weights}

    def load_state_dict(self, state: dict) -> None:
        self.epoch, self.value, self.weights = state["epoch"], state["value"], state["weights"]


@dataclass(frozen=True)
class _Run:
    """What a step changes."""

    model: nn.Module
    optimiser: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    best: _Best

    def state(self) -> dict:
        return {f.name: getattr(self, f.name).state_dict() for f in dataclasses.fields(self)}

    def load(self, state: dict) -> None:
        for f in dataclasses.fields(self):
            getattr(self, f.name).load_state_dict(state[f.name])


def _epoch(
    run: _Run, model: nn.Module, objective: Objective, x, y, batches, augment, epoch, epochs, bar
) -> float:
    """One pass; the mean loss. Read from the device once, so that a GPU never waits.

    `model` is the run's, or its fast form.
    """
    model.train()
    total = torch.zeros((), dtype=torch.float64, device=x.device)
    share = 1 / (epochs * len(batches))
    with torch.enable_grad():
        for i, at in enumerate(batches, epoch * len(batches)):
            now = objective.at(i * share) if hasattr(objective, "at") else objective
            images = x[at] if augment is None else augment(x[at])
            loss = now(model, images, y[at])
            run.optimiser.zero_grad()
            loss.backward()
            run.optimiser.step()
            run.schedule.step()
            total += loss.detach().double() * len(at)
            bar.update()
    return (total / len(x)).item()


@torch.no_grad()
def _accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """The share answered rightly; ties count as wrong."""
    with frozen(model):
        pairs = zip(x.split(1000), y.split(1000), strict=True)
        return sum((margin(model(a), b) > 0).sum().item() for a, b in pairs) / len(x)


def _robust(model: nn.Module, x: Tensor, y: Tensor, threat: Threat) -> float:
    """An upper bound, by a PGD that is cheap enough for every epoch."""
    model.eval()
    parts = zip(x.split(500), y.split(500), strict=True)
    found = (attacks.pgd(model, a, b, threat, steps=10, loss="margin").success for a, b in parts)
    return 1 - sum(success.sum().item() for success in found) / len(x)


def _log(rows: list[tuple], kept: int) -> TrainLog:
    loss, hits, upper, seconds = zip(*rows, strict=True)
    column = lambda v: None if v[0] is None else torch.tensor(v, dtype=torch.float64)
    return TrainLog(column(loss), column(hits), column(upper), column(seconds), kept)


def _rate(steps: int, warmup: float) -> Callable[[int], float]:
    """The factor of the learning rate at each step."""

    def factor(step: int) -> float:
        if step < warmup * steps:
            return (step + 1) / (warmup * steps + 1)
        done = (step - warmup * steps) / (steps - warmup * steps)
        return 0.5 * (1 + math.cos(math.pi * done))

    return factor


def _sensible(warmup: float, robust: Threat | None, keep: str, validation) -> None:
    if not 0 <= warmup < 1:
        raise ValueError(f"warmup is {warmup}; expected a share of the run, from 0 to below 1")
    if keep not in ("last", "best"):
        raise ValueError(f"keep is {keep!r}; allowed: 'last', 'best'")
    if validation is None and (robust is not None or keep == "best"):
        raise ValueError("robust and keep='best' need a validation set: pass validation=(x, y)")


def _resume(path: Path, run: _Run, settings: dict) -> list:
    """The rows of the log so far; none if there is no checkpoint."""
    if not path.exists():
        return []
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(
            f"checkpoint {path} cannot be read: no checkpoint, or a damaged one; delete it "
            f"to start again ({type(error).__name__})"
        ) from error
    differs = [k for k, v in settings.items() if saved["settings"].get(k) != v]
    if differs:
        was, now = ({k: s.get(k) for k in differs} for s in (saved["settings"], settings))
        raise ValueError(
            f"checkpoint {path} is of another run: it had {was}, this one has {now}; "
            "name another file, or delete this one to start again"
        )
    run.load(saved["run"])
    return saved["rows"]


def _save(path: Path, state: dict) -> None:
    """All of the file or nothing: an interruption leaves the one before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    buffer = io.BytesIO()
    torch.save(state, buffer)
    part.write_bytes(buffer.getvalue())
    os.replace(part, path)


@contextlib.contextmanager
def _randomness_kept(device: torch.device) -> Iterator[None]:
    """The global generators, of the CPU and of this device, are afterwards as they were."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield


@contextlib.contextmanager
def _layout_kept(model: nn.Module) -> Iterator[None]:
    """Weights in the usual order again when it ends."""
    try:
        yield
    finally:
        model.to(memory_format=torch.contiguous_format)


@contextlib.contextmanager
def _left_in_evaluation(model: nn.Module) -> Iterator[None]:
    """Whatever happens, an interruption included, the model ends in evaluation mode."""
    try:
        yield
    finally:
        model.eval()
        model.zero_grad(set_to_none=True)


def _positive(**values: int | float) -> None:
    for name, value in values.items():
        if not value > 0:
            raise ValueError(f"{name} is {value}; expected a number > 0")


def _name(objective: Objective) -> str:
    """What a checkpoint calls an objective: with its parameters if it is a dataclass."""
    if dataclasses.is_dataclass(objective):
        return repr(objective)
    return getattr(objective, "__qualname__", type(objective).__qualname__)


def _checksum(*tensors: Tensor) -> int:
    value = 0
    for t in tensors:
        value = zlib.crc32(t.detach().cpu().contiguous().numpy(), value)
    return value


def _diverged(loss: float, epoch: int, lr: float) -> str:
    return (
        f"the loss is {loss} in epoch {epoch + 1}: training diverged. Use a smaller lr than "
        f"{lr:g}, or look for a log or a division by 0 in the objective"
    )
