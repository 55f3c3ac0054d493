"""The table: one row for each submission, its status, its flags and its results.

`Status`, `Flag` and `Verdict` are the only place where these are named; the instructor's guide
prints them from here, and the columns from `exports`.
"""

import enum
from dataclasses import asdict, dataclass, replace


class Named(enum.StrEnum):
    """A value with its meaning in words."""

    def __new__(cls, value, meaning):
        member = str.__new__(cls, value)
        member._value_ = value
        member.meaning = meaning
        return member


class Status(Named):
    """How a submission stands. Every submission has exactly one."""

    OK = "ok", "graded"
    NEEDS_MANUAL = "needs_manual", "graded as far as a program can; a person grades the rest"
    TIMEOUT = "timeout", "something ran too long and was stopped; the rest counts"
    KERNEL_DIED = "kernel_died", "the student's process ended before it had answered everything"
    NOT_A_NOTEBOOK = "not_a_notebook", "no notebook could be read in what was handed in"
    WRONG_NAME = "wrong_name", "the notebook of another assignment"
    CELLS_MISSING = "cells_missing", "an exercise of the assignment is nowhere in the notebook"
    SUSPECT = "suspect", "what came back is not what the runner writes: look at it"
    INFRA_ERROR = "infra_error", "our failure, not the student's: no points, and it is tried again"
    NOT_RUN = "not_run", "the batch was stopped before its turn: start it again"
    NOT_SUBMITTED = "not_submitted", "on the roster, and nothing came in"


class Flag(Named):
    """What a person may want to look at. A flag never changes the points."""

    SUPERSEDED = "superseded", "another file of the same student counts, the last good one"
    LATE = "late", "the learning platform calls it late"
    PROVISIONAL = "provisional", "points are still to be given by hand, or graded again"
    USES_REFERENCE = "uses_reference", "an answer calls the course's own function for what is asked"
    NO_SOURCE = "no_source", "an answer was right though the notebook's text defines only the stub"
    SAME_FILE = "same_file", "another student's file, or the published solution, has the same bytes"
    DIFFERS = "differs_from_notebook", "the notebook's saved verdicts are not the grader's"
    EDITED = "edited", "the checks, or the points of a cell, were changed in the notebook"
    NOT_ON_ROSTER = "not_on_roster", "the roster has no such student"
    UNSANDBOXED = "unsandboxed", "graded without a sandbox"


class Verdict(Named):
    """How one exercise stands."""

    RIGHT = "right", "all its cases were answered right"
    WRONG = "wrong", "a case was answered wrong"
    NOT_ATTEMPTED = "not attempted", "the stub is untouched"
    ERROR = "error", "the code raised an exception, or does not run"
    TIMEOUT = "timeout", "the code ran too long"
    MISSING = "missing", "the notebook does not define it"
    NOT_RUN = "not run", "there was no answer to judge"
    BY_HAND = "by hand", "a person grades it"
    OVERRULED = "decided by a person", "a person gave points in the place of the check's"


@dataclass(frozen=True)
class Result:
    """One exercise of one submission.

    Attributes:
        exercise: its short name, "distance", or the id of a hand-graded cell, "holder-proof".
        verdict: how it stands.
        points: None while nobody knows: to be graded by hand, or our own failure.
        maximum: the points to be had.
        message: why, in the words of the check.
        comment: the words of the person who graded by hand.
    """

    exercise: str
    verdict: Verdict
    points: float | None
    maximum: float
    message: str = ""
    comment: str = ""


def to_do(results: tuple[Result, ...]) -> str:
    """What is left to a person, in words; "" if nothing is."""
    waiting = [f"`{r.exercise}`" for r in results if r.points is None]
    return f"to be graded by hand: {', '.join(waiting)}" if waiting else ""


@dataclass(frozen=True)
class Row:
    """One submission: what the table, the feedback and the report are written from.

    Attributes:
        student: who, by the folder or the file's name; what the roster calls `student`.
        name, email: as the learning platform or the roster has them, or "".
        file: the path within the submissions, or "" where nothing came in.
        sha256: of the file's bytes, or "".
        status, reason: how it stands, and why in words.
        results: every exercise of the assignment, in its order.
        flags: in the order of `Flag`.
        seconds: wall time of this submission.
        seed: what the cases were made from.
        versions: of robcourse, torch, numpy and Python, in one line.
    """

    student: str
    file: str
    status: Status
    reason: str = ""
    name: str = ""
    email: str = ""
    sha256: str = ""
    results: tuple[Result, ...] = ()
    flags: tuple[Flag, ...] = ()
    seconds: float = 0.0
    seed: int = 0
    versions: str = ""

    @property
    def total(self) -> float | None:
        """The points so far; None where the failure is ours."""
        if self.status in (Status.INFRA_ERROR, Status.NOT_RUN):
            return None
        return sum((r.points or 0.0 for r in self.results), 0.0)

    @property
    def maximum(self) -> float:
        """The points to be had."""
        return sum((r.maximum for r in self.results), 0.0)

    @property
    def counts(self) -> bool:
        """Whether this is the row that the student is graded by."""
        return Flag.SUPERSEDED not in self.flags

    def flagged(self, *flags: Flag) -> "Row":
        """The same row with these flags, too."""
        return replace(self, flags=tuple(f for f in Flag if f in self.flags or f in flags))

    def plain(self) -> dict:
        """As JSON can hold it."""
        return asdict(self)

    @classmethod
    def of(cls, plain: dict) -> "Row":
        """The inverse of `plain`."""
        results = tuple(Result(**r | {"verdict": Verdict(r["verdict"])}) for r in plain["results"])
        flags = tuple(Flag(f) for f in plain["flags"])
        status = Status(plain["status"])
        return cls(**plain | {"status": status, "results": results, "flags": flags})
