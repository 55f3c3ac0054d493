"""One call: from a folder of submissions to the table, the feedback and the report."""

import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from functools import partial
from pathlib import Path

from robcourse import checks
from robcourse.grading import batch, exports, gradebook, intake, marking, pages, selftest
from robcourse.grading.assignment import Assignment, load
from robcourse.grading.batch import Batch
from robcourse.grading.sandbox import Limits
from robcourse.grading.table import Flag, Row, Status


def grade(
    submissions: Path,
    name: str,
    out: Path,
    *,
    course: Path = Path(),
    roster: Path | None = None,
    variants: Path | None = None,
    workers: int = 1,
    executor: Callable[[], Executor] | None = None,
    limits: Limits | None = None,
    seed: int | None = None,
    resume: bool = True,
    sandboxed: bool = True,
) -> list[Row]:
    """Grade a folder or a zip of submissions of the assignment `name`; write the table into `out`.

    Args:
        course: the folder with `solutions/` and `exercises/`.
        roster: a CSV file with the column `student`, and perhaps `name` and `email`.
        variants: an instructor's own file of checks.
        workers: processes on this machine; or
        executor: makes the `concurrent.futures` executor that does the work, such as a cluster's.
        seed: of the cases; without one, that of the batch begun in `out`, or a new one.
        resume: keep what was graded before under the same conditions.
        sandboxed: False runs the students' code with your own rights.

    Raises:
        NoSandbox: there is no safe sandbox here. Nothing was run.
        Busy: another batch works in `out`.
        LookupError, ValueError, OSError: what was given cannot be used.
    """
    began, limits = time.time(), limits or Limits()
    _apart(submissions, out)
    told = _agreed(out, {"assignment": name, "roster": roster, "checks": variants})
    text = variants.read_text() if variants else ""
    assignment = load(course, name, text)
    people = intake.roster(roster) if roster else {}
    others = {*checks.chapters(), *(p.stem for p in (course / "exercises").glob("*.ipynb"))}
    found = intake.collect(submissions, name, others=sorted(others - {name}))
    if people and not any(s.student in people for s in found):
        raise ValueError(
            f"no submission is on the roster: it says {next(iter(people))!r}, the submissions say "
            f"{found[0].student!r}"
        )
    with batch.alone(out):
        whole = Batch(assignment, out, batch.seed_of(out, seed), limits, sandboxed)
        told |= {"seed": whole.seed}
        exports.write(out / "batch.json", json.dumps(told))
        if sandboxed:
            selftest.demand([assignment.source, out / "batch.json", submissions], limits)
        found = [_named(s, people) for s in found]
        log = batch.Log(out / "log.jsonl")
        done = batch.marked(
            whole, found, executor or partial(batch.processes, workers), resume=resume, log=log
        )
        rows = _same([m.row for m in done], assignment)
        if people:
            rows = [r if r.student in people else r.flagged(Flag.NOT_ON_ROSTER) for r in rows]
            rows += _absent(assignment, people, rows, whole.seed)
        if len(rows) - sum(r.status == Status.NOT_SUBMITTED for r in rows) != len(found):
            raise AssertionError(f"{len(found)} submissions gave {len(rows)} rows")
        cells = {id(r): m.cells for r, m in zip(rows, done, strict=False)}
        try:
            gradebook.publish(out / "course", assignment, [(r, cells.get(id(r), [])) for r in rows])
            rows = gradebook.merge(out / "course", assignment, rows)
        finally:  # whatever nbgrader does, the table is written
            _write(out, assignment, rows, told | _told(done, began, sandboxed))
        log(event="end", statuses=dict(Counter(r.status for r in rows)))
    return rows


def _apart(submissions: Path, out: Path) -> None:
    """Neither is in the other: what was written would be graded."""
    if (submissions / "batch.json").is_file() and (submissions / "results").is_dir():
        raise ValueError(f"{submissions} holds a batch of robcourse grade, no submissions")
    if submissions.is_dir() and submissions.resolve() in (out.resolve(), *out.resolve().parents):
        raise ValueError(
            f"--out {out} lies in the submissions: its own files would be graded. Give a folder "
            "beside it"
        )


def _agreed(out: Path, now: dict) -> dict:
    """What the batch in `out` was begun with, if there is one; it may not be forgotten half-way."""
    now = {k: None if v is None else str(v) for k, v in now.items()}
    path = out / "batch.json"
    if not path.exists():
        if out.is_dir() and any(p.name != ".lock" for p in out.iterdir()):
            raise ValueError(f"--out {out} is not empty and holds no batch: give another folder")
        return now
    before = json.loads(path.read_text())
    if before["assignment"] != now["assignment"]:
        raise ValueError(f"{out} holds a batch of {before['assignment']}: give another --out")
    for option in ("roster", "checks"):
        if before[option] and not now[option]:
            raise ValueError(
                f"the batch in {out} was graded with --{option} {before[option]}: give it again, "
                "or another --out"
            )
    return now


def _same(rows: list[Row], assignment: Assignment) -> list[Row]:
    """With a flag on what earned points with the bytes of another student's file."""
    whose = {hashlib.sha256(assignment.source.read_bytes()).hexdigest(): {""}}
    for row in rows:
        whose.setdefault(row.sha256, set()).add(row.student)
    return [r.flagged(Flag.SAME_FILE) if r.total and len(whose[r.sha256]) > 1 else r for r in rows]


def _named(submission: intake.Submission, people: Mapping[str, intake.Student]):
    """With the name and address that the roster has."""
    person = people.get(submission.student)
    if person is None:
        return submission
    return replace(submission, name=person.name or submission.name,
                   email=person.email or submission.email)  # fmt: skip


def _absent(assignment: Assignment, people, rows: Sequence[Row], seed: int) -> list[Row]:
    came = {r.student for r in rows}
    nothing = (Status.NOT_SUBMITTED, "nothing came in")
    absent = (
        intake.Submission(p.student, "", sha256="", name=p.name, email=p.email, problem=nothing)
        for p in people.values()
        if p.student not in came
    )
    return [marking.unmarked(s, assignment, seed) for s in absent]


def _told(done: Sequence[marking.Marked], began: float, sandboxed: bool) -> dict:
    """What the report says about the batch itself."""
    seconds = time.time() - began
    return {
        "date": time.strftime("%Y-%m-%d %H:%M", time.localtime(began)),
        "versions": marking.versions(),
        "sandboxed": sandboxed,
        "submissions": len(done),
        "seconds": round(seconds, 1),
        "submissions per minute": round(60 * len(done) / seconds, 1),
    }


def _write(out: Path, assignment: Assignment, rows: list[Row], told: dict) -> None:
    """The table, its forms for learning platforms, a page for each student, one for the class."""
    for make in (exports.grades, exports.canvas, exports.moodle):
        mark = "\ufeff" if make is exports.grades else ""  # or Excel takes it for another encoding
        exports.write(out / f"{make.__name__}.csv", mark + make(rows, assignment))
    folder = out / "feedback"
    folder.mkdir(exist_ok=True)
    for row in rows:
        if row.counts:
            earlier = [r for r in rows if r.student == row.student and r is not row]
            page = pages.feedback(row, assignment, others=earlier)
            exports.write(folder / pages.file_name(row.student), page)
    there = {pages.file_name(row.student) for row in rows}
    for old in folder.glob("*.html"):
        if old.name not in there:
            old.unlink()
    exports.write(out / "report.html", pages.report(rows, assignment, batch=told))
