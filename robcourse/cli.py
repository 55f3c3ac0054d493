"""The command `robcourse`: what an instructor types."""

import argparse
import errno
import os
import sys
from collections import Counter
from pathlib import Path

GIB = 1 << 30


def main(arguments: list[str] | None = None) -> int:
    """Do what was typed; the exit status: 0 done, 1 some rows need a look, 2 nothing was done."""
    options = _parser().parse_args(arguments)
    try:
        return _selftest(options) if options.self_test else _grade(options)
    except ImportError as error:
        return _refuse(f"{error}. Grading needs more packages: pip install 'robcourse[grading]'")


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

    from distributed import Client

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
    commands = parser.add_subparsers(required=True, metavar="command")
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
    add("--workers", type=_workers, default=os.cpu_count() or 1, metavar="N",
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


def _workers(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 200:
        raise argparse.ArgumentTypeError(f"{text}: expected a number from 1 to 200")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
