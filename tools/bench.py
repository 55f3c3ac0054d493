"""What attacks, certificates and grading cost beyond what they cannot avoid: `make bench`.

One table, `BENCHMARKS`: a row is a name, a goal and a function that measures. The value of an
attack or a certificate is a ratio of CPU times on one thread, the median over repetitions in which
the two sides alternate, so that a change of clock speed meets both. `book/measured.json` gets
value, goal, unit and card of each; the exit status is 1 if a goal is missed.

The process keeps the memory that it frees (`MEMORY`). Left to itself, glibc hands it back and
faults the pages in again, for a sixth of the time, more on one side or the other by chance of
the heap's layout: enough to move a ratio by 0.03 from one process to the next.

    python tools/bench.py            all rows, a few minutes
    python tools/bench.py --quick    a tiny case, written to --out only: that the tool works

`--only NAME` picks rows by the beginning of their name.
"""

import argparse
import contextlib
import dataclasses
import datetime
import functools
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch

from robcourse import attacks, bounds, data, flatness, models, smoothing, training, verify
from robcourse.grading import batch, intake
from robcourse.grading.assignment import load
from robcourse.grading.sandbox import Limits
from robcourse.runtime import frozen
from robcourse.threat import Threat

MEMORY = {"MALLOC_TRIM_THRESHOLD_": "2000000000", "MALLOC_MMAP_THRESHOLD_": "2000000000"}
ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "book" / "measured.json"


@dataclasses.dataclass(frozen=True)
class Size:
    """How large a measurement is."""

    batch: int
    repetitions: int
    copies: int  # submissions
    draws: int  # of noise, for each of four images
    shared: int  # images that processes share out


FULL = Size(batch=64, repetitions=15, copies=60, draws=900, shared=160)
QUICK = Size(batch=4, repetitions=2, copies=2, draws=100, shared=4)


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """A row: what `measure` gives is to be at least `goal`, or at most if it is a cost."""

    name: str
    goal: float | None  # None: printed and stored, not required
    unit: str
    measure: Callable[[Size], float]
    cost: bool = False

    def missed(self, value: float) -> bool:
        if self.goal is None:
            return False
        return value > self.goal if self.cost else value < self.goal


def network(name: str) -> torch.nn.Module:
    builds = {
        "small_conv": lambda: models.small_conv(width=32),
        "small_resnet": lambda: models.small_resnet(width=16),
    }
    return builds[name]()


class Passes(torch.nn.Module):
    """Counts the examples that go through a model forwards, and those that come back."""

    def __init__(self, model):
        super().__init__()
        self.model, self.forward_only, self.both = model, [], []

    def forward(self, x):
        (self.both if x.requires_grad else self.forward_only).append(len(x))
        return self.model(x)


def bare(model, x, y, both: int, forward_only: list[int]) -> None:
    """So many forward-backward passes, and forward passes of so many examples; nothing else."""
    with frozen(model):
        z = x.clone().requires_grad_()
        for _ in range(both):
            loss = torch.nn.functional.cross_entropy(model(z), y, reduction="sum")
            torch.autograd.grad(loss, z)
        with torch.no_grad():
            for count in forward_only:
                model(x[:count])


def pgd_against(net: str, *, own: bool):
    """PGD-10 in ℓ∞ against the passes it makes (`own`), or against ten forward-backward ones."""

    def measure(size: Size) -> float:
        model, threat = network(net), Threat("linf", 8 / 255)
        x = torch.rand(size.batch, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        y = torch.arange(size.batch) % 10
        counter = Passes(model).eval()
        attacks.pgd(counter, x, y, threat, steps=10)
        if counter.both != [size.batch] * 10:
            raise RuntimeError(f"PGD-10 made {counter.both} forward-backward passes")
        extra = counter.forward_only if own else []
        return ratio(
            size,
            lambda: attacks.pgd(model, x, y, threat, steps=10),
            lambda: bare(model, x, y, 10, extra),
        )

    return measure


SIGMA = 0.25


def four_images(device: str = "cpu") -> torch.Tensor:
    gen = torch.Generator().manual_seed(0)
    return torch.rand(4, 3, 32, 32, generator=gen).to(device)


def certifying(
    net: str,
    *,
    certify: Callable = smoothing.certify,
    device: str = "cpu",
    layout: torch.memory_format = torch.contiguous_format,
):
    """The forward passes that certifying makes, bare, against certifying."""

    def measure(size: Size) -> float:
        model, x = network(net).to(device), four_images(device)
        if device == "cuda":
            model = models.Bfloat16(model)
        counter = Passes(model).eval()
        options = {"sigma": SIGMA, "classes": 10, "n0": 100, "n": size.draws, "batch": 1000}
        certify(counter, x, **options)
        if sum(counter.forward_only) < 4 * (100 + size.draws):
            raise RuntimeError(f"too few draws: {counter.forward_only}")
        noisy = x[0].repeat(max(counter.forward_only), 1, 1, 1).contiguous(memory_format=layout)

        def passes() -> None:
            with torch.no_grad(), frozen(model):
                for count in counter.forward_only:
                    model(noisy[:count])

        return ratio(size, lambda: certify(model, x, **options), passes, device=device)

    return measure


def published_loop(model, x, *, sigma, classes, n0, n, batch) -> None:
    """Certification as published code does it: an image at a time, counts made in Python.

    After the code of Cohen, Rosenfeld & Kolter 2019: each pass repeats the image, adds fresh noise
    and takes the answers to the CPU, where a loop counts them.
    """
    gen = torch.Generator().manual_seed(0)
    for image in x:
        for draws in (n0, n):
            counts = [0] * classes
            while draws:
                size = min(batch, draws)
                draws -= size
                copies = image.repeat(size, 1, 1, 1)
                with torch.no_grad():
                    noise = torch.randn(copies.shape, generator=gen) * sigma
                    answers = model(copies + noise).argmax(1)
                for answer in answers.cpu().numpy():
                    counts[answer] += 1


def bounding(bound: Callable):
    """Bounds for a batch in forward passes of it: small_conv, ℓ∞ 2/255, every class."""

    def measure(size: Size) -> float:
        model, threat = network("small_conv"), Threat("linf", 2 / 255)
        x = torch.rand(size.batch, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        y = torch.arange(size.batch) % 10
        one = [size.batch]
        return ratio(size, lambda: bare(model, x, y, 0, one), lambda: bound(model, x, y, threat))

    return measure


def sharpness_gain(size: Size) -> float:
    """CPU time of Hutchinson with 100 probes / of the closed form: the head of a ResNet-18's size.

    The closed form gives the trace of each example, the estimate their sum.
    """
    gen = torch.Generator().manual_seed(0)
    features = torch.randn(size.batch, 512, generator=gen).relu()
    weight = (torch.randn(10, 512, generator=gen) / 20).requires_grad_()
    y = torch.arange(size.batch) % 10

    def estimated() -> flatness.Trace:
        logits = torch.nn.functional.linear(features, weight)
        loss = torch.nn.functional.cross_entropy(logits, y, reduction="sum")
        return flatness.trace(loss, [weight], probes=100)

    def closed() -> torch.Tensor:
        with torch.no_grad():
            return flatness.head_trace(weight, features)

    found, exact = estimated(), closed().sum().item()
    if not abs(found.value - exact) < 6 * found.error:
        raise RuntimeError(f"{found} for a trace of {exact}")
    return ratio(size, lambda: [closed() for _ in range(100)], estimated) * 100


@functools.cache
def decided(size: Size) -> dict[str, list[tuple[int, str, float]]]:
    """Branch and bound and MILP on the same examples: which, status and CPU seconds of each.

    The network has 128 + 128 ReLUs and is trained by PGD, here, in seconds; the examples are the
    first test digits that neither an attack nor CROWN decides at ℓ∞ 1/16. So each solver gets
    only what takes a solver, and MILP is asked for no more than the sign.
    """
    digits, threat = data.load("digits"), Threat("linf", 1 / 16)
    model = models.mlp(64, 10, hidden=(128, 128))
    objective = training.adversarial(threat, steps=5)
    training.fit(model, digits.train_x, digits.train_y, objective, epochs=20, lr=3e-3, batch=64)
    x, y = digits.test_x, digits.test_y
    open_ = (bounds.margins(model, x, y, threat).amin(1) <= 0) & ~attacks.pgd(
        model, x, y, threat, restarts=2
    ).success
    found, (examples, seconds) = {}, (50, 20.0) if size == FULL else (2, 20.0)
    for solver in (verify.branch_and_bound, verify.milp):
        found[solver.__name__] = []
        for i in open_.nonzero()[:examples, 0].tolist():
            start = time.process_time()
            (verdict,) = solver(model, x[i : i + 1], y[i : i + 1], threat, seconds=seconds)
            spent = time.process_time() - start
            found[solver.__name__].append((i, verdict.status, spent))
    return found


def deciding_share(size: Size) -> float:
    """How much of what MILP decides branch and bound decides as well, and the same way."""
    ours, theirs = ({i: s for i, s, _ in v} for v in decided(size).values())
    known = [i for i, status in theirs.items() if status != "unknown"]
    if wrong := [i for i in known if ours[i] not in (theirs[i], "unknown")]:
        raise RuntimeError(f"branch and bound and MILP contradict each other on {wrong}")
    return sum(ours[i] == theirs[i] for i in known) / len(known)


def deciding_gain(size: Size) -> float:
    ours, theirs = (statistics.median(t for *_, t in v) for v in decided(size).values())
    return theirs / ours


@functools.cache
def certified(images: int, workers: int) -> float:
    """Images a second by so many processes, which have started before."""
    model = network("small_conv")
    x = torch.rand(images, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    plan = smoothing.Plan(SIGMA, 10, n=1000)
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        list(smoothing.count(model, x[: 8 * workers], plan, range(8 * workers)[:images], pool))
        start = time.perf_counter()
        list(smoothing.count(model, x, plan, range(images), pool))
        return images / (time.perf_counter() - start)


@functools.cache
def graded(copies: int, workers: int) -> tuple[float, dict[str, float]]:
    """Copies of the solved notebook, a sandbox each: submissions a minute; CPU seconds by part."""
    name = "01_linear_hypothesis"
    with tempfile.TemporaryDirectory() as folder, batch.processes(workers) as pool:
        path = ROOT / f"solutions/{name}.ipynb"
        for i in range(copies):
            copy = Path(folder) / f"class/student {i}" / path.name
            copy.parent.mkdir(parents=True)
            copy.write_bytes(path.read_bytes())
        whole = batch.Batch(load(ROOT, name), Path(folder) / "out", 0, Limits())
        list(pool.map(time.sleep, [1] * workers))  # they have started, and imported what they need
        start = time.perf_counter()
        found = intake.collect(Path(folder) / "class", name)
        done = batch.marked(whole, found, lambda: contextlib.nullcontext(pool))
        minutes = (time.perf_counter() - start) / 60
    if wrong := [m.row for m in done if m.row.total != 24]:
        raise RuntimeError(f"a right notebook got {wrong[0].total} points: {wrong[0].reason}")
    parts = {part: statistics.median(m.cpu[part] for m in done) for part in done[0].cpu}
    return copies / minutes, parts


def grading_part(*parts: str):
    return lambda size: sum(graded(size.copies, 2)[1][part] for part in parts)


def grading_gain(size: Size) -> float:
    return graded(size.copies, 2)[0] / graded(size.copies, 1)[0]


BENCHMARKS = [
    Benchmark(
        f"pgd10_{net}_{'own' if own else 'ten'}",
        0.97 if own else None,
        "CPU time of PGD's own passes, bare / of PGD-10"
        if own
        else "CPU time of ten bare forward-backward passes / of PGD-10",
        pgd_against(net, own=own),
    )
    for net in ("small_conv", "small_resnet")
    for own in (True, False)
]
BENCHMARKS += [
    *(Benchmark(f"certify_{net}", goal, "CPU time of the forward passes, bare / of certifying",
                certifying(net)) for net, goal in (("small_conv", 0.8), ("small_resnet", 0.97))),
    *(Benchmark(f"certify_{net}_channels_last", None, "CPU time of the forward passes, bare and "
                "channels-last / of certifying",
                certifying(net, layout=torch.channels_last))
      for net in ("small_conv", "small_resnet")),
    *(Benchmark(f"published_loop_{net}", None, "CPU time of the forward passes, bare / of the "
                "loop in published code",
                certifying(net, certify=published_loop)) for net in ("small_conv", "small_resnet")),
    *([Benchmark("certify_gpu_bfloat16", 0.9, "time of the passes, bare / of certifying, on a GPU",
                 certifying("small_resnet", device="cuda"))] if torch.cuda.is_available() else []),
    Benchmark("certify_two_processes", 1.7, "images a second, two processes / one",
              lambda size: certified(size.shared, 2) / certified(size.shared, 1)),
]  # fmt: skip
BENCHMARKS += [
    Benchmark("ibp_small_conv", 2.5, "forward passes for interval bounds of the logits",
              bounding(lambda model, x, y, threat: bounds.ibp(model, x, threat)), cost=True),
    Benchmark("crown_small_conv", 300, "forward passes for CROWN margins, intervals inside",
              bounding(functools.partial(bounds.margins, inner="ibp")), cost=True),
]  # fmt: skip
BENCHMARKS += [
    Benchmark("flatness_closed_form", 50, "CPU time of Hutchinson, 100 probes / of the closed form",
              sharpness_gain),
    Benchmark("verify_decided", 0.95, "of what MILP decides in 20 s, branch and bound decides",
              deciding_share),
    Benchmark("verify_gain", 5, "median CPU time of MILP / of branch and bound", deciding_gain),
]  # fmt: skip
OWN = ("cells", "cases", "judging")
BENCHMARKS += [
    Benchmark("grading_a_minute", 20, "submissions a minute, two workers",
              lambda size: graded(size.copies, 2)[0]),
    Benchmark("grading_two_workers", 1.7, "submissions a minute, two workers / one", grading_gain),
    *(Benchmark(f"grading_{part}", None, f"CPU seconds of a submission: {part}", grading_part(part))
      for part in ("start", "libraries", *OWN)),
    Benchmark("grading_own", 1.5, f"CPU seconds of a submission: {', '.join(OWN)}",
              grading_part(*OWN), cost=True),
]  # fmt: skip


def ratio(size: Size, *sides: Callable[[], object], device: str = "cpu") -> float:
    """The median over repetitions of time(second side) / time(first side)."""

    def clock() -> float:
        if device == "cpu":
            return time.process_time()
        torch.cuda.synchronize()
        return time.perf_counter()

    for side in sides:
        side()
    ratios = []
    for repetition in range(size.repetitions):
        seconds = {}
        for which in (0, 1) if repetition % 2 else (1, 0):
            start = clock()
            sides[which]()
            seconds[which] = clock() - start
        ratios.append(seconds[1] / seconds[0])
    return statistics.median(ratios)


def card(size: Size) -> dict:
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "cpu": processor(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "batch": size.batch,
        "repetitions": size.repetitions,
        "copies": size.copies,
        "draws": size.draws,
        "shared": size.shared,
        "memory": "kept" if MEMORY.items() <= os.environ.items() else "as the allocator likes",
        "command": "make bench",
    }


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(li.split(":", 1)[1].strip() for li in lines if li.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a tiny case; no goal is required")
    parser.add_argument("--only", default="", help="rows whose name begins so")
    parser.add_argument("--out", type=Path, help="where the numbers go")
    args = parser.parse_args(arguments)
    if args.quick and args.out is None:
        parser.error("--quick needs --out: its numbers do not belong in the book")
    rows = [b for b in BENCHMARKS if b.name.startswith(args.only)]
    if not rows:
        parser.error(f"--only {args.only!r}: rows are {', '.join(b.name for b in BENCHMARKS)}")
    size, out = QUICK if args.quick else FULL, args.out or OUT
    torch.set_num_threads(1)
    os.environ["TQDM_DISABLE"] = "1"
    found = json.loads(out.read_text()) if out.exists() else {}
    missed = []
    for b in rows:
        value = b.measure(size)
        missed += [b.name] * b.missed(value)
        goal = "no goal" if b.goal is None else f"goal {'≤' if b.cost else '≥'} {b.goal:g}"
        print(f"{b.name:24} {value:.3f}  {goal}{'  MISSED' * b.missed(value)}  ({b.unit})")
        found[b.name] = {
            "value": round(value, 4), "goal": b.goal, "cost": b.cost, "unit": b.unit,
            "card": card(size),
        }  # fmt: skip
        sys.stdout.flush()
    partial = out.with_name(out.name + ".part")
    partial.write_text(json.dumps(found, indent=1, ensure_ascii=False, sort_keys=True) + "\n")
    os.replace(partial, out)
    return 1 if missed and not args.quick else 0


if __name__ == "__main__":
    if not MEMORY.items() <= os.environ.items():  # glibc reads them when a process starts
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | MEMORY)
    raise SystemExit(main())
