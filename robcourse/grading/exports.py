"""The table as files: `grades.csv`, and what Canvas and Moodle import.

What nobody knows is left empty or left out; it is never written as a 0. Text that a spreadsheet
would run as a formula gets an apostrophe in front.
"""

import csv
import io
import os
import re
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from robcourse.grading.assignment import Assignment
from robcourse.grading.table import Flag, Named, Row, Status


class Column(Named):
    """The columns of grades.csv, in their order."""

    STUDENT = "student", "who, by the folder or the file's name; what the roster calls `student`"
    NAME = "name", "the name that the learning platform or the roster has, or empty"
    FILE = "file", "the path within the submissions; empty where nothing came in"
    SHA256 = "sha256", "the fingerprint of the file's bytes"
    STATUS = "status", "how the submission stands"
    REASON = "reason", "why it stands so, in words"
    POINTS = "points_…", "one column for each exercise: its points; empty while nobody knows them"
    TOTAL = "total", "the points so far; empty where the failure is ours"
    MAXIMUM = "maximum", "the points to be had"
    FLAGS = "flags", "what a person may want to look at, separated by spaces"
    SECONDS = "seconds", "wall time of this submission"
    SEED = "seed", "what the cases were made from: the same seed gives the same points"
    VERSIONS = "versions", "of robcourse, torch, numpy and Python"


#: What the guide prints: each with its `.meaning`.
COLUMNS = tuple(Column)


def grades(rows: Iterable[Row], assignment: Assignment) -> str:
    """The text of grades.csv: every row, also those that do not count, by student and file."""
    names = [i.exercise for i in assignment.items]
    header = []
    for column in COLUMNS:
        many = [f"points_{name}" for name in names]
        header += many if column is Column.POINTS else [str(column)]
    lines = [header]
    for row in _ordered(rows):
        points = {r.exercise: r.points for r in row.results}
        lines.append([
            row.student, row.name, row.file, row.sha256, str(row.status), row.reason,
            *(points.get(name) for name in names), row.total, maximum(assignment),
            " ".join(row.flags), row.seconds, row.seed, row.versions,
        ])  # fmt: skip
    return _csv(lines)


def canvas(
    rows: Iterable[Row], assignment: Assignment, *, column: str = "", provisional: bool = False
) -> str:
    """What Canvas imports as grades: a line for each student whose points are settled.

    Left out are superseded files, who handed in nothing (what that is worth is your rule, and a 0
    would overwrite "excused"), and points that nobody knows: for Canvas an empty cell deletes the
    grade that is there, a student who is not named keeps it. Also left out, so that nobody is
    shown a grade that still rises, is what waits for a person.

    Args:
        column: the heading of the assignment in your Canvas gradebook, as its export has it:
            "Exercises 1 (4711)". Without it Canvas offers to make a new assignment.
        provisional: whether to write the points so far of what waits for a person, too.
    """
    head = ["Student", "ID", "SIS User ID", "SIS Login ID", "Section", column or assignment.name]
    lines = [head, ["    Points Possible", "", "", "", "", maximum(assignment)]]
    for row in _settled(rows, provisional):
        # Canvas takes any line with these words for the line of maxima.
        who = (row.name or row.student).replace("Points Possible", "Points-Possible")
        number_there = _platform_id(row, _CANVAS_FILE)
        login = "" if number_there else row.student
        lines.append([who, number_there, login, login, "", row.total])
    return _csv(lines)


def moodle(rows: Iterable[Row], assignment: Assignment, *, provisional: bool = False) -> str:
    """What Moodle imports as grades; the lines and `provisional` are those of `canvas`.

    One file for both of Moodle's ways. *Upload grading worksheet* goes by "Identifier", which is
    known where the files have the names that Moodle's download gave them. The gradebook's CSV
    import lets you choose: map from "Email address" or "Username". A grade that was changed in
    Moodle is overwritten by the worksheet only if you tick the box that says so.
    """
    lines = [["Identifier", "Full name", "Username", "Email address", "Grade", "Maximum grade",
              "Last modified (grade)"]]  # fmt: skip
    for row in _settled(rows, provisional):
        number_there = _platform_id(row, _MOODLE_FILE)
        participant = f"Participant {number_there}" if number_there else ""
        login = "" if number_there else row.student
        lines.append([participant, row.name or row.student, login, row.email,
                      row.total, maximum(assignment), ""])  # fmt: skip
    return _csv(lines)


def maximum(assignment: Assignment) -> float:
    """The points to be had."""
    return float(sum(i.maximum for i in assignment.items))


def number(value: float | int | None) -> str:
    """A number as people write it, at most four decimals; "" for None."""
    if value is None:
        return ""
    return f"{value:.4f}".rstrip("0").rstrip(".") if value % 1 else f"{value:.0f}"


def write(path: Path, text: str) -> None:
    """Write a whole file or nothing: whoever reads it meanwhile gets the old one.

    Only its owner can read the file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".writing-", suffix=".tmp")
    try:
        # A file's name may hold half a character, which UTF-8 cannot: it becomes \udc80.
        with open(handle, "w", encoding="utf-8", errors="backslashreplace", newline="") as file:
            file.write(text)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


#: As Canvas names what it puts into its zip: doejane_LATE_<user>_<attachment>_homework.ipynb.
_CANVAS_FILE = re.compile(r"(?:^|/)\w*?_(?:LATE_)?(\d+)_\d+_[^/]")
#: As Moodle does: Jane Doe_<participant>_assignsubmission_file, a folder or a prefix.
_MOODLE_FILE = re.compile(r"(?:^|/)[^/]*?_(\d+)_assignsubmission_")


def _ordered(rows: Iterable[Row]) -> list[Row]:
    return sorted(rows, key=lambda r: (r.student.casefold(), r.student, not r.counts, r.file))


def _settled(rows: Iterable[Row], provisional: bool) -> list[Row]:
    """Of the rows that count, those whose total may go into a gradebook."""
    known = (r for r in rows if r.counts and r.total is not None)
    came = (r for r in known if r.status is not Status.NOT_SUBMITTED)
    return _ordered(r for r in came if provisional or not _waits(r))


def _waits(row: Row) -> bool:
    statuses = (Status.NEEDS_MANUAL, Status.SUSPECT)
    return row.status in statuses or Flag.PROVISIONAL in row.flags


def _platform_id(row: Row, pattern: re.Pattern) -> str:
    """The platform's own number of the student, where intake took it for the student, too.

    A file that only looks like the platform's must not choose whose grade is overwritten.
    """
    found = pattern.search(row.file)
    return row.student if found and found[1] == row.student else ""


def _csv(lines: Iterable[Sequence]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerows([_cell(value) for value in line] for line in lines)
    return out.getvalue()


def _cell(value: str | float | int | None) -> str:
    if not isinstance(value, str):
        return number(value)
    # What a spreadsheet skips before it looks for the sign is skipped here, too.
    text = "".join(c if c.isprintable() or c in "\u200c\u200d" else " " for c in value)
    runs = value[:1] in "\t\r\n" or text.strip()[:1] in tuple("=+-@＝＋－＠")
    return f"'{text}" if value and runs else text
