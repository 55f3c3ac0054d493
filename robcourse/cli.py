"""The command `robcourse`: what an instructor types to grade, and anybody to certify a network."""

import argparse
import errno
import os
import sys
from collections import Counter
from pathlib import Path

GIB = 1 << 30


def main(arguments: list[str] | None = None) -> int:
    """Do what was typed; the exit status: 0 done, 1 some rows need a look or are missing, 2 not."""
    options = _parser().parse_args(arguments)
    if options.command == "certify":
        return _certify(options)
    if options.command == "analyze":
        return _analyze(options)
    try:
        return _selftest(options) if options.self_test else _grade(options)
    except ImportError as error:
        return _refuse(f"{error}. Grading needs more packages: pip install 'robcourse[grading]'")


def _certify(options) -> int:
    import torch

    from robcourse import campaign, data, models, runtime
    from robcourse.smoothing import Plan

    try:
        model, origin = _model(options.model)
        dataset = data.load(options.data)
        n = len(dataset.test_y)
        numbers = range(n)[options.first :: options.every][: options.limit]
        if not numbers:
            return _refuse(f"--first is {options.first}; {dataset.name} has {n} test images")
        x, y = dataset.test_x[list(numbers)], dataset.test_y[list(numbers)]
        plan = Plan(options.sigma, len(dataset.classes), options.n0, options.n, options.alpha,
                    options.batch, options.seed)  # fmt: skip
        if options.bfloat16:
            model = models.Bfloat16(model)
        origin["arithmetic"] = "bfloat16" if options.bfloat16 else "float32"
        device = runtime.device()
        origin |= {"data": dataset.name, "data_sha256": dataset.sha256}
        origin |= {"device": device.type, "torch": torch.__version__}
        with _pool(options) as executor:
            run = campaign.certify(
                options.out, model.to(device), x.to(device), y, numbers, plan, origin,
                executor=executor,
            )  # fmt: skip
    except (ImportError, AttributeError, LookupError, RuntimeError, ValueError, OSError) as error:
        return _refuse(_words(error))
    print(campaign.table(run, _radii(run)))
    print(f"{len(run.counted)} images in {options.out}")
    return _missing(run)


def _analyze(options) -> int:
    from robcourse import campaign

    try:
        run = campaign.read(options.file)
        if not run.counted:
            return _refuse(f"{options.file}: no image is finished yet")
        print(campaign.table(run, options.radii or _radii(run)))
        if options.figure:
            _draw(run, options.figure)
    except (ValueError, OSError) as error:
        return _refuse(_words(error))
    return _missing(run)


def _missing(run) -> int:
    if run.missing:
        print(f"{run.missing} images are missing: type the command that made the file again")
    return 1 if run.missing else 0


def _draw(run, path: Path) -> None:
    """The curve of certified accuracy, in a file of the kind that its name ends with."""
    import matplotlib.pyplot as plt

    from robcourse import plots, risk

    label = f"smoothing, σ = {run.card['plan']['sigma']:g}"
    ax = plots.curve(risk.curve(run.certificate, y=run.y, label=label), unit="ℓ2 radius")
    ax.set_ylabel("certified accuracy")
    ax.figure.savefig(path, dpi=150)
    plt.close(ax.figure)


def _radii(run) -> list[float]:
    """From 0 in quarters to the largest radius."""
    most = float(run.certificate.radius.max())
    return [k / 4 for k in range(int(4 * most) + 2)]


def _model(name: str):
    """A model of the zoo, or what one's own `module:function` returns; and where it is from."""
    import hashlib
    import importlib
    import io

    import torch

    from robcourse import zoo

    if ":" not in name:
        model, card = zoo.load(name)
        return model, {"model": name, "weights_sha256": card.weights_sha256}
    where, function = name.split(":", 1)
    sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(where)
        model = getattr(module, function)()
        source = Path(module.__file__).read_bytes()
    except Exception as error:
        raise ValueError(f"{name} failed with {type(error).__name__}: {error}") from error
    if not isinstance(model, torch.nn.Module):
        raise ValueError(f"{name} returned {type(model).__name__}; expected a torch.nn.Module")
    weights = io.BytesIO()
    torch.save(model.state_dict(), weights)
    digests = {"weights_sha256": weights.getvalue(), "source_sha256": source}
    return model.eval(), {"model": name} | {
        key: hashlib.sha256(content).hexdigest() for key, content in digests.items()
    }


def _pool(options):
    """Who draws: this process, several, or a Dask cluster."""
    from concurrent.futures import ProcessPoolExecutor
    from contextlib import nullcontext
    from multiprocessing import get_context

    if options.scheduler:
        return _cluster(options.scheduler)()
    if options.workers > 1:
        return ProcessPoolExecutor(options.workers, mp_context=get_context("spawn"))
    return nullcontext()


def _grade(options) -> int:
    from robcourse.grading.batch import Busy
    from robcourse.grading.run import grade
    from robcourse.grading.sandbox import Limits
    from robcourse.grading.selftest import NoSandbox
    from robcourse.grading.table import Status

    missing = [n for n in ("submissions", "assignment", "out") if getattr(options, n) is None]
    if missing:
        return _refuse(f"needed: {', '.join(missing)}; see robcourse grade --help")
    try:
        rows = grade(
            options.submissions,
            options.assignment,
            options.out,
            course=options.course,
            roster=options.roster,
            variants=options.checks,
            workers=options.workers,
            executor=_cluster(options.scheduler) if options.scheduler else None,
            limits=Limits(options.timeout, int(options.memory * GIB)),
            seed=options.seed,
            resume=not options.no_resume,
            sandboxed=not options.unsandboxed,
        )
    except (NoSandbox, Busy, LookupError, ValueError, OSError) as error:
        return _refuse(_words(error))
    for status, n in sorted(Counter(r.status for r in rows).items()):
        print(f"{n:5d} {status:21s} {status.meaning}")
    for flag, n in sorted(Counter(f for r in rows for f in r.flags).items()):
        print(f"{n:5d} {flag:21s} {flag.meaning}")
    print(f"{len(rows)} rows in {options.out / 'grades.csv'}; see {options.out / 'report.html'}")
    return 1 if {Status.INFRA_ERROR, Status.NOT_RUN} & {r.status for r in rows} else 0


def _selftest(options) -> int:
    from robcourse.grading.sandbox import Limits
    from robcourse.grading.selftest import NoSandbox, selftest

    try:
        limits = Limits(options.timeout, int(options.memory * GIB))
        found = selftest(sorted((options.course / "solutions").glob("*.ipynb")), limits)
    except (NoSandbox, ValueError) as error:
        return _refuse(error)
    for what, why in found.items():
        print(f"{'✗' if why else '✓'} {what}{f': {why}' if why else ''}")
    return 2 if any(found.values()) else 0


def _cluster(address: str):
    """What makes the executor of a Dask cluster."""
    from contextlib import contextmanager

    try:
        from distributed import Client
    except ImportError as error:
        raise ValueError("a cluster needs more: pip install 'robcourse[cluster]'") from error

    with Client(address, timeout=10):
        """It is there."""

    @contextmanager
    def executor():
        with Client(address) as client, client.get_executor(retries=2) as pool:
            yield pool

    return executor


def _words(error: Exception) -> str:
    """What the error says, and of which file."""
    if isinstance(error, OSError) and error.strerror:
        what = f"{error.filename}: " if error.filename else ""
        full = "; make room and type the same line again" * (error.errno == errno.ENOSPC)
        return f"{what}{error.strerror}{full}"
    return str(error.args[0] if isinstance(error, LookupError) else error)


def _refuse(why) -> int:
    print(f"robcourse: {why}", file=sys.stderr)
    return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="robcourse", description=__doc__)
    commands = parser.add_subparsers(required=True, dest="command", metavar="command")
    _parse_certify(commands)
    _parse_analyze(commands)
    grade = commands.add_parser(
        "grade",
        help="grade a folder or a zip of submissions",
        description="Grade a folder or a zip of submissions; the instructor's guide in the book "
        "says all of it.",
    )
    add = grade.add_argument
    add("submissions", nargs="?", type=Path, help="a folder or a zip of notebooks")
    add("--assignment", metavar="NAME", help="such as 01_linear_hypothesis")
    add("--out", type=Path, metavar="DIR", help="where everything is written")
    add("--course", type=Path, default=Path(), metavar="DIR",
        help="the folder with solutions/ and exercises/ (default: this one)")  # fmt: skip
    add("--roster", type=Path, metavar="FILE", help="CSV: student, and perhaps name, email")
    add("--workers", type=_from(1, 200), default=os.cpu_count() or 1, metavar="N",
        help="submissions at a time (default: one for each core)")  # fmt: skip
    add("--scheduler", metavar="ADDRESS", help="of a Dask cluster that does the work")
    add("--timeout", type=float, default=120.0, metavar="SECONDS",
        help="for a submission; a cell alone gets a quarter (default: 120)")  # fmt: skip
    add("--memory", type=float, default=6.0, metavar="GIB", help="for a submission (default: 6)")
    add("--seed", type=int, help="of the cases (default: that of the batch in DIR, or a new one)")
    add("--checks", type=Path, metavar="FILE", help="your own variants of the checks")
    add("--no-resume", action="store_true", help="grade again what was graded before")
    add("--unsandboxed", action="store_true",
        help="run the students' code with your own rights (stamped on the table)")  # fmt: skip
    add("--self-test", action="store_true", help="only try whether the sandbox holds")
    return parser


def _parse_certify(commands) -> None:
    certify = commands.add_parser(
        "certify",
        help="certify test images by randomized smoothing",
        description="Certify test images by randomized smoothing, into a file to which each image "
        "is appended as it is finished. The same line again goes on where it stopped.",
    )
    add = certify.add_argument
    add("model", help="of the zoo, or module:function that returns a torch.nn.Module")
    add("--data", required=True, help="digits, mnist, fashion or cifar10")
    add("--sigma", type=float, required=True, help="of the noise, in units of the pixels")
    add("--out", type=Path, required=True, metavar="FILE", help="the file of the run")
    add("--n", type=int, default=10_000, help="draws for counting (default: 10000)")
    add("--n0", type=int, default=100, help="draws for choosing the class (default: 100)")
    add("--alpha", type=float, default=1e-3, help="that a certificate fails (default: 0.001)")
    add("--first", type=_from(0), default=0, help="the first test image (default: 0)")
    add("--every", type=_from(1), default=1, help="then every so many (default: 1)")
    add("--limit", type=_from(1), help="so many images at most (default: all)")
    add("--batch", type=int, default=1000, help="draws in a forward pass (default: 1000)")
    add("--seed", type=int, default=0, help="of the draws (default: 0)")
    add("--bfloat16", action="store_true", help="certify the network in this arithmetic: faster")
    add("--workers", type=_from(1, 200), default=1, metavar="N", help="processes (default: 1)")
    add("--scheduler", metavar="ADDRESS", help="of a Dask cluster that draws")


def _parse_analyze(commands) -> None:
    analyze = commands.add_parser(
        "analyze", help="the table and the curve of such a file",
        description="Print certified accuracy at several radii from the file of a run.",
    )  # fmt: skip
    add = analyze.add_argument
    add("file", type=Path, help="what `robcourse certify` wrote")
    add("--radii", type=float, nargs="+", metavar="R", help="(default: quarters)")
    add("--figure", type=Path, metavar="FILE", help="draw the curve into this file")


def _from(low: int, high: int = sys.maxsize):
    """What reads a whole number of that range."""

    def read(text: str) -> int:
        if not text.isdecimal() or not low <= int(text) <= high:
            expected = f"from {low} to {high}" if high < sys.maxsize else f"of at least {low}"
            raise argparse.ArgumentTypeError(f"{text}: expected a number {expected}")
        return int(text)

    return read


if __name__ == "__main__":
    sys.exit(main())
