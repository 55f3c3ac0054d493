"""Training: one plain loop, and the objective is the only thing that a method changes.

Standard, adversarial and noisy training differ in the loss of a batch and in nothing else. So
`fit` takes an *objective*, a function (model, x, y) -> loss, and owns all the rest: the order of
the examples, the optimiser, the checkpoint, the log.
"""

import contextlib
import dataclasses
import io
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

from .runtime import frozen, validate
from .threat import margin

#: A loss of a batch, with the model in training mode: (model, x, y) -> a scalar.
Objective = Callable[[nn.Module, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class TrainLog:
    """What happened, an entry an epoch.

    Attributes:
        loss: the mean of the objective over the epoch's examples, while the weights moved.
        accuracy: on the validation set after the epoch, clean; None if there was none.
        seconds: wall time of the epoch, validation included.
    """

    loss: Float64[Tensor, " e"]
    accuracy: Float64[Tensor, " e"] | None
    seconds: Float64[Tensor, " e"]


def standard() -> Objective:
    """The cross-entropy of the batch: training as if nobody attacked."""

    def objective(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return nn.functional.cross_entropy(model(x), y)

    return objective


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
    validation: tuple[Float[Tensor, " m *s"], Int[Tensor, " m"]] | None = None,
    checkpoint: str | os.PathLike | None = None,
    seed: int = 0,
    on_epoch: Callable[[TrainLog], None] | None = None,
) -> TrainLog:
    """Train `model` in place; it is left in evaluation mode, without gradients.

    AdamW whose rate falls from `lr` to 0 on half a cosine, a step a batch. Each epoch visits every
    example once, in an order drawn from (seed, epoch) on the CPU, so that it is the same on every
    device; the n examples are cut into ⌈n/batch⌉ batches whose sizes differ by at most 1. What the
    model or the objective draw from torch's global generator (dropout, noise) follows from
    (seed, epoch) as well, and that generator is afterwards as it was.

    Args:
        model: logits `[n, *s] -> [n, k]`, on the device of `x`.
        x, y: the whole training set, as one tensor each; images `[n, c, h, w]` lie in [0, 1].
        objective: the loss of a batch, such as `standard()`; called in training mode.
        epochs, lr, batch, weight_decay: as usual.
        validation: (x, y), on which clean accuracy is measured after each epoch.
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
    model.eval()
    for a, b in ((x, y), *([] if validation is None else [validation])):
        validate(model, a, b, box=(0.0, 1.0) if a.ndim == 4 else None)
    chunks = -(-len(x) // batch)
    optimiser = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs * chunks)
    run = _Run(model, optimiser, schedule)
    settings = {"epochs": epochs, "lr": lr, "batch": batch, "weight_decay": weight_decay,
                "seed": seed, "objective": _name(objective), "data": _checksum(x, y)}  # fmt: skip
    rows = [] if checkpoint is None else _resume(Path(checkpoint), run, settings)
    with (
        _randomness_kept(x.device),
        _left_in_evaluation(model),
        tqdm(total=epochs * chunks, initial=len(rows) * chunks, unit="batch") as bar,
    ):
        for epoch in range(len(rows), epochs):
            start = time.perf_counter()
            torch.manual_seed(seed * 1_000_003 + epoch)
            order = torch.randperm(len(x)).to(x.device)
            loss = _epoch(run, objective, x, y, order.tensor_split(chunks), bar)
            if not torch.isfinite(torch.tensor(loss)):
                raise FloatingPointError(_diverged(loss, epoch, lr))
            model.eval()
            hits = None if validation is None else _accuracy(model, *validation)
            rows.append((loss, hits, time.perf_counter() - start))
            bar.set_postfix(epoch=epoch + 1, loss=f"{loss:.4g}", refresh=False)
            if checkpoint is not None:
                _save(Path(checkpoint), {"run": run.state(), "rows": rows, "settings": settings})
            if on_epoch is not None:
                on_epoch(_log(rows))
    return _log(rows)


@dataclass(frozen=True)
class _Run:
    """What a step changes."""

    model: nn.Module
    optimiser: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler

    def state(self) -> dict:
        return {f.name: getattr(self, f.name).state_dict() for f in dataclasses.fields(self)}

    def load(self, state: dict) -> None:
        for f in dataclasses.fields(self):
            getattr(self, f.name).load_state_dict(state[f.name])


def _epoch(run: _Run, objective: Objective, x: Tensor, y: Tensor, batches, bar) -> float:
    """One pass; the mean loss. Read from the device once, so that a GPU never waits."""
    run.model.train()
    total = torch.zeros((), dtype=torch.float64, device=x.device)
    with torch.enable_grad():
        for at in batches:
            loss = objective(run.model, x[at], y[at])
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


def _log(rows: list[tuple[float, float | None, float]]) -> TrainLog:
    loss, hits, seconds = zip(*rows, strict=True)
    column = lambda values: torch.tensor(values, dtype=torch.float64)
    return TrainLog(column(loss), None if hits[0] is None else column(hits), column(seconds))


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
