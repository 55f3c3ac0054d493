"""From one submission to one row: run it in a sandbox, judge here what came back."""

import json
import platform
import re
import signal
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import version

import numpy as np
import torch

from robcourse import checks
from robcourse.grading import flags, sandbox, written
from robcourse.grading.assignment import Assignment, Item
from robcourse.grading.intake import Submission
from robcourse.grading.runner import defines
from robcourse.grading.sandbox import Ended, Limits
from robcourse.grading.table import Flag, Result, Row, Status, Verdict, to_do


@dataclass(frozen=True)
class Marked:
    """What a submission became.

    Attributes:
        row: its row of the table.
        cells: its cells without outputs, for whoever grades by hand: id, cell_type, source.
        cpu: processor seconds by part: start, libraries, cells, cases, judging.
    """

    row: Row
    cells: list[dict] = field(default_factory=list)
    cpu: dict[str, float] = field(default_factory=dict)


LINE = 8 << 20  # bytes of a line, but for the one with the notebook's cells


class Forged(ValueError):
    """What came back is not what the runner writes."""


class Broken(RuntimeError):
    """Our own failure."""


def mark(
    submission: Submission,
    content: bytes,
    assignment: Assignment,
    *,
    seed: int,
    limits: Limits,
    sandboxed: bool = True,
) -> Marked:
    """Run and judge one submission. Never raises: a failure of ours is a row that says so."""
    started = time.monotonic()
    try:
        marked = _mark(submission, content, assignment, seed, limits, sandboxed)
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        why = f"{type(error).__name__}: {error} ({where.name}, line {where.lineno})"
        marked = Marked(_row(submission, assignment, Status.INFRA_ERROR, why, seed))
    row = marked.row if sandboxed else marked.row.flagged(Flag.UNSANDBOXED)
    seconds = round(time.monotonic() - started, 3)
    return replace(marked, row=replace(row, seconds=seconds, versions=versions()))


def unmarked(submission: Submission, assignment: Assignment, seed: int) -> Row:
    """The row of what cannot be run, or was not."""
    status, why = submission.problem or (Status.NOT_RUN, "the batch was stopped before its turn")
    return replace(_row(submission, assignment, status, why, seed), versions=versions())


def versions() -> str:
    """What graded, in one line."""
    parts = {"robcourse": version("robcourse"), "torch": torch.__version__}
    parts |= {"numpy": np.__version__, "Python": platform.python_version()}
    return ", ".join(f"{name} {number}" for name, number in parts.items())


def _mark(submission, content, assignment, seed, limits, sandboxed) -> Marked:
    known = assignment.exercises
    asked = [i.exercise for i in assignment.items if not i.by_hand]
    order = {
        "assignment": assignment.name,
        "exercises": {name: known[name].teaches for name in asked},
        "seed": seed,
        "limit": limits.seconds / 4,
        "memory": limits.memory,
        "variants": assignment.variants,
        "handed": assignment.handed,
    }
    stdin = json.dumps(order).encode() + b"\n" + content
    ended = sandbox.run("robcourse.grading.runner", stdin, limits, sandboxed=sandboxed)
    clock = time.process_time()
    try:
        said = _read(ended, order)
    except Forged as error:
        why = f"what came back is not what the runner writes: {error}"
        return Marked(_row(submission, assignment, Status.SUSPECT, why, seed))
    if "unreadable" in said:
        row = _row(submission, assignment, Status.NOT_A_NOTEBOOK, said["unreadable"], seed)
        return Marked(row)
    cells = said["cells"]
    if "answered" not in said:
        return Marked(_row(submission, assignment, *_another(submission), seed), cells)
    try:
        automatic = {
            name: _result(name, known[name], said, ended, seed) for name in order["exercises"]
        }
    except Forged as error:
        why = f"the answer to an exercise is not what the runner writes: {error}"
        return Marked(_row(submission, assignment, Status.SUSPECT, why, seed), cells)
    texts = written.texts(assignment.release, cells)
    results = tuple(
        _by_hand(i, texts[i.cell]) if i.by_hand else automatic[i.exercise] for i in assignment.items
    )
    status, reason = _status(said, ended, limits, results)
    row = _row(submission, assignment, status, reason, seed)
    row = replace(row, results=results)
    row = row.flagged(*flags.of(row, assignment, said))
    return Marked(row, cells, _cpu(said, clock))


def _another(submission: Submission) -> tuple[Status, str]:
    if submission.other:
        return Status.WRONG_NAME, f"it is named like {submission.other}, and holds none of this one"
    return Status.CELLS_MISSING, "none of the exercises is in the notebook"


def _row(submission, assignment, status, reason, seed) -> Row:
    """A row without points; what nobody could judge is nobody's 0 if the failure is ours."""
    points = None if status in (Status.INFRA_ERROR, Status.NOT_RUN) else 0.0
    results = tuple(
        Result(i.exercise, Verdict.NOT_RUN, points, i.maximum) for i in assignment.items
    )
    ours = (Flag.PROVISIONAL,) if points is None else ()
    came = {Flag.SUPERSEDED: submission.superseded, Flag.LATE: submission.late}
    noted = [flag for flag, on in came.items() if on]
    row = Row(
        submission.student,
        submission.file,
        status,
        reason,
        name=submission.name,
        email=submission.email,
        sha256=submission.sha256,
        results=results,
        seed=seed,
    )
    return row.flagged(*noted, *ours)


def _read(ended: Ended, order: dict) -> dict:
    """The runner's lines, in their order and form; what is missing at the end is left out.

    Raises:
        Forged: a line is not what the runner writes.
        Broken: the runner did not come as far as the student's code.
    """
    if ended.how == "output":
        raise Forged(f"more than {sandbox.OUTPUT >> 20} MiB")
    *lines, rest = ended.stdout.split(b"\n")
    if rest and ended.how == "exit":
        raise Forged("a broken line")
    said = [_line(text, LINE if i != 1 else sandbox.OUTPUT) for i, text in enumerate(lines)]
    kinds = [next(iter(s)) for s in said]
    start = ["alive", "cells", "imported", "errors"]
    wanted = [*start, *["exercise"] * len(order["exercises"]), "end"]
    if kinds in (["alive", "unreadable"], ["alive", "cells", "end"]):
        return said[1]
    if kinds == ["alive"]:
        return {"unreadable": "it cannot be read within the limits on time and memory"}
    if len(said) < 3:
        raise Broken(f"the runner did not start ({ended.how}, {ended.code}): {ended.stderr}")
    if kinds != wanted[: len(kinds)]:
        raise Forged(f"line {len(kinds)} is out of order")
    out, answered = {}, {}
    for line, name in zip(said[4:], order["exercises"], strict=False):
        if line.pop("exercise") != name or len(line) != 1:
            raise Forged(f"not an answer to {name}")
        answered[name] = line
    for line in said:
        out |= line
    late, errors = out.get("late", []), out.get("errors", {})
    if not isinstance(errors, dict) or not isinstance(late, list):
        raise Forged("the list of errors")
    places = range(len(out.get("cells", ())))
    if not all(type(i) is int and i in places for i in late) or len(set(late)) < len(late):
        raise Forged("the list of cells that ran too long")
    return out | {"answered": answered, "ended": kinds == wanted}


_FIELDS = {
    ("alive",),
    ("unreadable",),
    ("cells", "saved", "uses"),
    ("imported", "there"),
    ("errors", "late"),
    ("exercise", "answers"),
    ("exercise", "undefined"),
    ("exercise", "stub"),
    ("exercise", "failed"),
    ("exercise", "timeout"),
    ("end",),
}


def _line(text: bytes, most: int) -> dict:
    if len(text) > most:
        raise Forged(f"a line of {len(text) >> 20} MiB")
    try:
        line = json.loads(text)
    except (ValueError, RecursionError):
        raise Forged("a line that is not JSON") from None
    if not isinstance(line, dict) or tuple(line) not in _FIELDS:
        raise Forged("a line with unknown fields")
    return line


def _result(name: str, check, said: dict, ended: Ended, seed: int) -> Result:
    """One exercise, judged.

    Raises:
        Forged: the answers are no encoded answers, or too few.
    """
    make = lambda verdict, why: Result(name, verdict, 0.0, float(check.points), why)
    match said["answered"].get(name):
        case None:
            return make(Verdict.NOT_RUN, "the notebook was stopped before this was asked")
        case {"timeout": _}:
            return make(Verdict.TIMEOUT, "your code ran too long and was stopped: does a loop end?")
        case {"failed": why}:
            return make(Verdict.ERROR, f"your code could not be called: {_short(why)}")
        case {"stub": _}:
            return make(Verdict.NOT_ATTEMPTED, "not attempted yet")
        case {"undefined": _}:
            return make(*_undefined(name, said))
        case {"answers": answers}:
            try:
                given = [checks.decode(a) for a in answers]
                report = checks.judge(check, given, seed)
            except (TypeError, ValueError) as error:
                raise Forged(f"{name}: {error}") from error
    points = float(report.points)
    return Result(name, Verdict(report.status), points, float(check.points), report.message)


def _undefined(name: str, said: dict) -> tuple[Verdict, str]:
    """Why the notebook's names do not hold `name` after all cells have run."""
    code = [(i, c["source"]) for i, c in enumerate(said["cells"]) if c["cell_type"] == "code"]
    where = [i for i, source in code if defines(source, name)]
    if not where:
        return Verdict.MISSING, f"the notebook defines no `{name}`: was its cell deleted?"
    raised = said.get("errors", {}).get(str(where[-1]))
    why = _short(raised) if raised else "its name was deleted, or its cell is a demonstration"
    return Verdict.ERROR, f"the cell that defines `{name}` does not run: {why}"


def _by_hand(item: Item, text: str) -> Result:
    if not text:
        why = "nothing is written there"
        return Result(item.exercise, Verdict.NOT_ATTEMPTED, 0.0, item.maximum, why)
    return Result(item.exercise, Verdict.BY_HAND, None, item.maximum, "a person grades this")


def _status(said: dict, ended: Ended, limits: Limits, results) -> tuple[Status, str]:
    if ended.how == "timeout":
        left = sum(r.verdict == Verdict.NOT_RUN for r in results)
        return Status.TIMEOUT, (
            f"stopped after {limits.seconds:g} s; {left} exercise{'s' if left != 1 else ''} "
            "not reached"
        )
    if not said["ended"]:
        return Status.KERNEL_DIED, _died(ended, limits)
    slow = [f"cell {i + 1}" for i in said["late"]]
    slow += [f"`{r.exercise}`" for r in results if r.verdict == Verdict.TIMEOUT]
    if slow:
        most = f"{limits.seconds / 4:g} s"
        return Status.TIMEOUT, f"longer than {most}: {', '.join(slow)}; the rest was graded"
    if missing := [f"`{r.exercise}`" for r in results if r.verdict == Verdict.MISSING]:
        return Status.CELLS_MISSING, f"not in the notebook: {', '.join(missing)}"
    waiting = to_do(results)
    return (Status.NEEDS_MANUAL, waiting) if waiting else (Status.OK, "")


def _died(ended: Ended, limits: Limits) -> str:
    if ended.how == "memory":
        return f"it used more than {limits.memory / 2**30:g} GiB of memory"
    number = -ended.code if ended.code < 0 else ended.code - 128
    if number > 0:
        fault = " (a segmentation fault)" if number == signal.SIGSEGV else ""
        return f"its process was killed by signal {number}{fault}"
    return f"its code ended the process (exit status {ended.code}) before it had answered"


def _cpu(said: dict, judging_since: float) -> dict[str, float]:
    """Processor seconds by part, as the runner's own clock has them."""
    clock = said.get("end")
    names = ("start", "libraries", "cells", "cases")
    if not isinstance(clock, Mapping) or not all(type(clock.get(n)) is float for n in names):
        return {}
    before = (0.0, *(clock[n] for n in names))
    parts = {n: round(clock[n] - b, 3) for n, b in zip(names, before, strict=False)}
    return parts | {"judging": round(time.process_time() - judging_since, 3)}


def _short(text) -> str:
    """A line, whatever the student's exception says."""
    line = "".join(c if c.isprintable() else " " for c in str(text)[:1000])
    return re.sub(r"<ipython-input-[0-9a-f-]+>, line", "line", line)
