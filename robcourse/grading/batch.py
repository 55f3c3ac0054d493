"""A batch: every submission marked once, on one machine or many, whatever happens on the way.

What is done is one file each in OUT/results, written at once or not at all. So a batch that was
killed goes on where it stopped, and a worker that dies takes nothing with it.
"""

import contextlib
import fcntl
import hashlib
import importlib
import json
import multiprocessing
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from multiprocessing.connection import wait as wait_for
from pathlib import Path

from tqdm.auto import tqdm

import robcourse
from robcourse.grading import marking
from robcourse.grading.assignment import Assignment
from robcourse.grading.exports import write
from robcourse.grading.intake import Submission
from robcourse.grading.marking import Marked
from robcourse.grading.runner import LIBRARIES
from robcourse.grading.sandbox import Limits
from robcourse.grading.table import Row, Status

TRIES = 3  # of a submission whose failure is ours


class Busy(RuntimeError):
    """Another batch works in the same folder."""


@dataclass(frozen=True)
class Batch:
    """What is the same for every submission of a batch.

    Attributes:
        assignment: what is graded.
        out: the folder for everything that is written.
        seed: what the cases are made from.
        limits: what a submission may use.
        sandboxed: False only where the instructor insists.
    """

    assignment: Assignment
    out: Path
    seed: int
    limits: Limits
    sandboxed: bool = True

    def key(self, submission: Submission) -> str:
        """The name of its result: another notebook, seed, limit or code is another result."""
        parts = (
            submission.student, submission.file, submission.sha256, submission.superseded,
            self.assignment.name, self.assignment.variants, self.seed, self.limits.seconds,
            self.limits.memory, self.sandboxed, _code(),
        )  # fmt: skip
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def seed_of(out: Path, seed: int | None) -> int:
    """The seed of a batch: the one given, else that of the batch begun in `out`, else a new one."""
    path = out / "batch.json"
    if seed is None and path.exists():
        seed = json.loads(path.read_text())["seed"]
    return secrets.randbelow(2**31) if seed is None else seed


@contextlib.contextmanager
def alone(out: Path) -> Iterator[None]:
    """Hold the folder, so that no second batch writes into it.

    Raises:
        Busy: one does.
    """
    out.mkdir(parents=True, exist_ok=True)
    with open(out / ".lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Busy(f"another batch works in {out}: wait, or take another --out") from None
        yield


def marked(
    batch: Batch,
    submissions: list[Submission],
    executor: Callable[[], Executor],
    *,
    resume: bool = True,
    log: Callable[..., None] = lambda **_: None,
) -> list[Marked]:
    """Every submission's result, in their order. What `executor` makes runs `marking.mark`.

    A KeyboardInterrupt ends the batch: what was not reached has a row that says so.
    """
    folder = batch.out / "results"
    folder.mkdir(parents=True, exist_ok=True)
    known: dict[int, Marked] = {}
    for i, submission in enumerate(submissions):
        if submission.problem:
            known[i] = Marked(marking.unmarked(submission, batch.assignment, batch.seed))
        elif resume and (old := _stored(folder / f"{batch.key(submission)}.json")):
            known[i] = replace(old, row=_as_now(old.row, submission))
    todo = [i for i in range(len(submissions)) if i not in known]
    log(event="start", submissions=len(submissions), known=len(known), todo=len(todo))

    def keep(i: int, result: Marked) -> None:
        known[i] = result
        plain = {"row": result.row.plain(), "cells": result.cells, "cpu": result.cpu}
        if result.row.status != Status.INFRA_ERROR:
            write(folder / f"{batch.key(submissions[i])}.json", json.dumps(plain))
        row = result.row
        log(event="marked", student=row.student, file=row.file, status=row.status,
            reason=row.reason, total=row.total, seconds=row.seconds, cpu=result.cpu)  # fmt: skip

    try:
        _through(batch, submissions, todo, executor, keep, log)
    except KeyboardInterrupt:
        tqdm.write("stopping; what runs now is dropped. The same line goes on from here.")
        log(event="interrupted", left=len(submissions) - len(known))
    for i, submission in enumerate(submissions):
        if i not in known:
            known[i] = Marked(marking.unmarked(submission, batch.assignment, batch.seed))
    return [known[i] for i in range(len(submissions))]


def processes(workers: int) -> Executor:
    """A pool on this machine; its processes end when this one does, however it ends."""
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(workers, mp_context=context, initializer=_begin)


def _through(batch, submissions, todo, executor, keep, log) -> None:
    """Mark what is to do. After a failure of ours it is tried again, the last time alone."""
    with tqdm(total=len(todo), unit="submission", desc="grading", disable=not todo or None) as bar:
        for attempt in range(1, TRIES + 1):
            again, failed = [], {}
            groups = [[i] for i in todo] if attempt == TRIES else [todo] if todo else []
            for group in groups:
                for i, result in _run(batch, submissions, group, executor):
                    if result.row.status == Status.INFRA_ERROR:
                        log(event="failed", student=result.row.student, file=result.row.file,
                            attempt=attempt, reason=result.row.reason)  # fmt: skip
                        again.append(i)
                        failed[i] = result
                        continue
                    keep(i, result)
                    bar.update()
            todo = again
        for i in todo:
            keep(i, failed[i])
            bar.update()


def _run(batch, submissions, group, executor) -> Iterator[tuple[int, Marked]]:
    """The results of a group as they come. A pool that breaks fails what was not done."""
    with executor() as pool:
        width = 2 * (getattr(pool, "_max_workers", None) or 16)
        waiting, left = {}, list(reversed(group))
        try:
            while waiting or left:
                while left and len(waiting) < width:
                    i = left.pop()
                    waiting[_submit(pool, batch, submissions[i])] = i
                done, _ = wait(waiting, return_when=FIRST_COMPLETED)
                for future in done:
                    i = waiting.pop(future)
                    yield i, _result(future, batch, submissions[i])
        except BaseException:
            for future in waiting:
                future.cancel()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _submit(pool: Executor, batch: Batch, submission: Submission) -> Future:
    try:
        content = submission.read()
        return pool.submit(
            marking.mark, submission, content, batch.assignment,
            seed=batch.seed, limits=batch.limits, sandboxed=batch.sandboxed,
        )  # fmt: skip
    except (OSError, ValueError, RuntimeError) as error:  # BrokenProcessPool is a RuntimeError
        failed: Future = Future()
        failed.set_exception(error)
        return failed


def _result(future: Future, batch: Batch, submission: Submission) -> Marked:
    try:
        return future.result()
    except BrokenProcessPool:
        why = "the process that graded died"
    except Exception as error:
        why = f"{type(error).__name__}: {error}"
    broken = replace(submission, problem=(Status.INFRA_ERROR, why))
    return Marked(marking.unmarked(broken, batch.assignment, batch.seed))


def _stored(path: Path) -> Marked | None:
    """A result that was written before; None where there is none that can be read."""
    try:
        plain = json.loads(path.read_text())
        return Marked(Row.of(plain["row"]), plain["cells"], plain["cpu"])
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _as_now(row: Row, submission: Submission) -> Row:
    """A stored row with the names that the roster has today."""
    return replace(row, name=submission.name, email=submission.email)


def _code() -> str:
    """A hash of this package's code: what was graded by other code is graded again."""
    global _HASH
    if not _HASH:
        digest = hashlib.sha256()
        for path in sorted(Path(robcourse.__file__).parent.rglob("*.py")):
            digest.update(path.read_bytes())
        _HASH = digest.hexdigest()
    return _HASH


_HASH = ""


def _begin() -> None:
    """In a worker: end when the batch's own process ends; import what judging needs."""
    parent = multiprocessing.parent_process()

    def watch():
        wait_for([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    for name in LIBRARIES:
        importlib.import_module(name)


class Log:
    """OUT/log.jsonl: a line for each thing that happened, with the time."""

    def __init__(self, path: Path):
        self._path = path

    def __call__(self, **what) -> None:
        line = {"time": time.strftime("%Y-%m-%dT%H:%M:%S%z")} | what
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
