"""Grading by hand: a course folder for nbgrader's formgrader, and the points that come back.

nbgrader executes nothing here, and nothing of a student's reaches it as it was: each notebook in
`autograded/` is the released one with the student's texts pasted in. `submitted/` is not written,
so that nbgrader finds nothing to run.
"""

import contextlib
import copy
import hashlib
import json
import os
import re
import sys
import tempfile
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from . import written
from .assignment import Assignment
from .exports import write
from .table import Flag, Result, Row, Status, Verdict, to_do

COURSE = "robcourse"

_CONFIG = """\
c = get_config()  # noqa: F821
c.CourseDirectory.course_id = "{course}"
c.ClearSolutions.code_stub = {{"python": "..."}}
c.ClearSolutions.text_stub = "*Write your answer here.*"
# The configuration is shown on a page of formgrader's otherwise.
c.FormgradeExtension.debug = False
"""

#: What these hand in has no text that a person could grade.
_UNGRADED = (
    Status.INFRA_ERROR, Status.NOT_RUN, Status.NOT_SUBMITTED, Status.NOT_A_NOTEBOOK,
    Status.WRONG_NAME,
)  # fmt: skip

#: Where nbgrader has no place for it: which text was graded, and of which file (cell "").
_TABLE = """CREATE TABLE IF NOT EXISTS robcourse_text
(notebook VARCHAR(32), cell VARCHAR(128), sha256 VARCHAR(64), PRIMARY KEY (notebook, cell))"""


def publish(course: Path, assignment: Assignment, graded: Iterable[tuple[Row, list[dict]]]) -> None:
    """Write, or bring up to date, a course folder that formgrader opens.

    Each pair is a row and the cells of its notebook, as {"id", "cell_type", "source"}. A row that
    does not count, or that has nothing to grade, is passed over.

    A student's answer is found by the cell's id. Of several cells with that id, all that differ
    from the stub are shown. So is what the student put in new cells beside it: what stands after
    the released cell before it (known by its id, or by its text) and is no released cell. Where a
    notebook has lost both cells, all its new text cells are shown. A hand-graded cell without any
    of that gets 0, and needs nobody.

    Points given by hand stay as long as the text that they were given for is the same. If it has
    changed, they do not count any more, and stand in the cell's comment box for the grader to see.
    For an automatic check that text is the answer before it.

    The gradebook is written in one step, after the notebooks: publishing can be repeated after
    whatever stopped it. Stop formgrader first: it remembers what it has read.
    """
    course.mkdir(parents=True, exist_ok=True)
    config = course / "nbgrader_config.py"
    if not config.exists():
        write(config, _CONFIG.format(course=COURSE))
    name = assignment.name
    write(course / f"source/{name}/{name}.ipynb", assignment.source.read_text(encoding="utf-8"))
    write(course / f"release/{name}/{name}.ipynb", _json(assignment.release))
    parts = _parts(assignment)
    with _gradebook(course) as book:
        _declare(book, assignment)
        records = _Records(book, assignment)
        for row, cells in graded:
            if row.counts and row.status not in _UNGRADED:
                texts = written.texts(assignment.release, cells)
                student = _student_id(row.student)
                clean = _clean(assignment, row, texts)
                write(course / f"autograded/{student}/{name}/{name}.ipynb", _json(clean))
                records.put(row, student, texts, parts)
        book.db.commit()


def merge(course: Path, assignment: Assignment, rows: list[Row]) -> list[Row]:
    """The rows with what was given by hand in formgrader: points, extra credit and comments.

    A row is left alone unless this very file of the student's was published. A score that a person
    put in the place of an automatic one counts, and the message says so.
    """
    if not (course / "gradebook.db").exists():
        return rows
    parts = _parts(assignment)
    with _gradebook(course) as book:
        if assignment.name not in {known.name for known in book.assignments}:
            return rows
        given = _Records(book, assignment).given(parts)
    merged = []
    for row in rows:
        sha256, grades = given.get(_student_id(row.student), ("", {}))
        if row.counts and row.status not in _UNGRADED and grades and sha256 == row.sha256:
            row = _merged(row, assignment, grades)
        merged.append(row)
    return merged


@dataclass(frozen=True)
class _Given:
    """What the gradebook holds for one graded cell of one student."""

    auto: float | None
    manual: float | None
    extra: float | None
    comment: str


class _Records:
    """The submissions of one assignment in a gradebook. Nothing is committed here."""

    def __init__(self, book, assignment: Assignment):
        from nbgrader import api
        from sqlalchemy import text
        from sqlalchemy.orm import selectinload

        self.api, self.text, self.db, self.items = api, text, book.db, assignment.items
        self.notebook = book.find_notebook(assignment.name, assignment.name)
        self.graded = {c.name: c.id for c in self.notebook.grade_cells}
        self.answers = {c.name: c.id for c in self.notebook.solution_cells}
        self.students = {s.id: s for s in book.students}
        found = self.db.query(api.SubmittedNotebook).filter_by(notebook_id=self.notebook.id)
        load = (
            selectinload(api.SubmittedNotebook.grades),
            selectinload(api.SubmittedNotebook.comments),
            selectinload(api.SubmittedNotebook.assignment),
        )
        self.known = {n.assignment.student_id: n for n in found.options(*load)}
        self.db.execute(text(_TABLE))
        rows = self.db.execute(text("SELECT notebook, cell, sha256 FROM robcourse_text"))
        self.seen = {(notebook, cell): sha256 for notebook, cell, sha256 in rows}

    def put(self, row: Row, student: str, texts: dict[str, str], parts: dict) -> None:
        """One submission, new or again."""
        with self.db.no_autoflush:
            notebook = self._notebook(row, student)
            grades = {g.cell_id: g for g in notebook.grades}
            comments = {c.cell_id: c for c in notebook.comments}
            for grade in grades.values():
                grade.needs_manual_grade = False
            for item in self.items:
                if not item.cell:
                    continue
                grade = grades[self.graded[item.cell]]
                noted = [comments[self.answers[p]] for p in parts[item.cell]]
                if self._changed(notebook.id, item.cell, [texts[p] for p in parts[item.cell]]):
                    _set_aside(grade, noted)
                points = {r.exercise: r.points for r in row.results}.get(item.exercise)
                if item.by_hand:
                    points = None if texts[item.cell] else 0.0
                grade.auto_score = points
                waits = item.by_hand and points is None and grade.manual_score is None
                grade.needs_manual_grade = waits
            self._changed(notebook.id, "", None, row.sha256)

    def given(self, parts: dict) -> dict[str, tuple[str, dict[str, _Given]]]:
        """By student: the hash of the published file, and by cell what was given."""
        out = {}
        for student, notebook in self.known.items():
            comments = {c.cell_id: c.manual_comment or "" for c in notebook.comments}
            by_cell = {g.cell_id: g for g in notebook.grades}
            grades = {}
            for cell, id in self.graded.items():
                if (g := by_cell.get(id)) and cell in parts:
                    said = [comments.get(self.answers.get(p), "") for p in parts[cell]]
                    said = "\n\n".join(s.strip() for s in said if s.strip())
                    grades[cell] = _Given(g.auto_score, g.manual_score, g.extra_credit, said)
            out[student] = self.seen.get((notebook.id, ""), ""), grades
        return out

    def _notebook(self, row: Row, student: str):
        """The student's records, with a grade and a comment for every cell."""
        api = self.api
        if student not in self.students:
            self.students[student] = api.Student(id=student)
            self.db.add(self.students[student])
        name = written.plain(row.name)
        last, _, first = name.partition(", ") if ", " in name else name.rpartition(" ")[::-1]
        if first:
            self.students[student].first_name = first
            self.students[student].last_name = last
        if row.email:
            self.students[student].email = written.plain(row.email)
        notebook = self.known.get(student)
        if notebook is None:
            submission = api.SubmittedAssignment(
                assignment_id=self.notebook.assignment_id, student=self.students[student]
            )
            id = api.new_uuid()
            notebook = api.SubmittedNotebook(
                id=id, notebook_id=self.notebook.id, assignment=submission
            )
            self.db.add(submission)
            self.known[student] = notebook
        for kind, there, cells in (
            (api.Grade, notebook.grades, self.graded),
            (api.Comment, notebook.comments, self.answers),
        ):
            has = {x.cell_id for x in there}
            for id in cells.values():
                if id not in has:
                    there.append(kind(cell_id=id))
        return notebook

    def _changed(self, notebook: str, cell: str, texts: list[str] | None, sha256="") -> bool:
        """Whether this is another text than the last one; from now on it is the last one."""
        if texts is not None:
            sha256 = hashlib.sha256(json.dumps(texts).encode()).hexdigest()
        before = self.seen.get((notebook, cell))
        if before != sha256:
            self.seen[notebook, cell] = sha256
            self.db.execute(
                self.text("INSERT OR REPLACE INTO robcourse_text VALUES (:n, :c, :s)"),
                {"n": notebook, "c": cell, "s": sha256},
            )
        return before is not None and before != sha256


def _declare(book, assignment: Assignment) -> None:
    """The assignment and its cells."""
    name = assignment.name
    book.update_or_create_assignment(name, course_id=COURSE)
    kernel = json.dumps(assignment.release["metadata"].get("kernelspec", {}))
    book.update_or_create_notebook(name, name, kernelspec=kernel)
    maxima = {item.cell: item.maximum for item in assignment.items}
    for cell in assignment.release["cells"]:
        if not (meta := cell["metadata"].get("nbgrader")):
            continue
        id, kind = meta["grade_id"], cell["cell_type"]
        if id in maxima:
            book.update_or_create_grade_cell(id, name, name, max_score=maxima[id], cell_type=kind)
        if meta["solution"]:
            book.update_or_create_solution_cell(id, name, name)
        source = "".join(cell["source"])
        book.update_or_create_source_cell(
            id, name, name, cell_type=kind, locked=meta["locked"], source=source
        )


def _set_aside(grade, comments: list) -> None:
    """Take back what was given for another text; nbgrader shows the auto_comment in the empty
    comment box, and `merge` does not read it."""
    said = [c.manual_comment for c in comments if c.manual_comment]
    if grade.manual_score is not None or grade.extra_credit or said:
        points = (grade.manual_score or 0.0) + (grade.extra_credit or 0.0)
        words = " ".join([f"Before the text changed: {points:g} points.", *said])
        for comment in comments[-1:]:
            comment.auto_comment = words
    grade.manual_score = grade.extra_credit = None
    for comment in comments:
        comment.manual_comment = None


def _merged(row: Row, assignment: Assignment, grades: dict[str, _Given]) -> Row:
    cells = {item.exercise: item.cell for item in assignment.items}
    by_hand = {item.exercise for item in assignment.items if item.by_hand}
    results = tuple(
        _result(r, grades.get(cells.get(r.exercise, "")), r.exercise in by_hand)
        for r in row.results
    )
    status, reason, flags = row.status, row.reason, row.flags
    if all(r.points is not None for r in results):
        flags = tuple(f for f in flags if f is not Flag.PROVISIONAL)
        if status is Status.NEEDS_MANUAL:
            status, reason = Status.OK, ""
    elif status is Status.NEEDS_MANUAL:
        reason = to_do(results)
    return replace(row, results=results, status=status, reason=reason, flags=flags)


def _result(result: Result, given: _Given | None, by_hand: bool) -> Result:
    if given is None:
        return result
    comment = given.comment or result.comment
    # Not nbgrader's own mark for this, which a formgrader that runs meanwhile may leave as it was.
    if by_hand and given.auto is None and given.manual is None:
        return replace(result, points=None, comment=comment)
    message, untouched = result.message, given.manual is None and not given.extra
    if untouched and not by_hand:
        return replace(result, comment=comment)
    base = given.auto or 0.0
    points = (base if given.manual is None else given.manual) + (given.extra or 0.0)
    if not by_hand:
        note = f"A person gave {points:g} point{'s' if points != 1 else ''}."
        said = f"{note} The check had given {base:g}:"
        message = message if message.startswith(said) else f"{said} {message}"
        return replace(
            result, verdict=Verdict.OVERRULED, points=points, message=message, comment=comment
        )
    elif untouched and given.auto is not None:
        message = message or "nothing was written here"
    return replace(result, points=points, message=message, comment=comment)


def _parts(assignment: Assignment) -> dict[str, list[str]]:
    """By graded cell, the answer cells that its points are about."""
    graded = {item.cell for item in assignment.items}
    parts, answers = {}, []
    for cell in assignment.release["cells"]:
        if meta := cell["metadata"].get("nbgrader"):
            id = meta["grade_id"]
            if meta["solution"] and id in graded:
                parts[id] = [id]
            elif meta["solution"]:
                answers.append(id)
            elif id in graded:
                parts[id], answers = answers, []
    return parts


def _clean(assignment: Assignment, row: Row, texts: dict[str, str]) -> dict:
    """The released notebook with the student's texts and our verdicts in it."""
    notebook = copy.deepcopy(assignment.release)
    items = {item.cell: item for item in assignment.items}
    results = {result.exercise: result for result in row.results}
    ids = {c["metadata"]["nbgrader"]["grade_id"] for c in notebook["cells"]
           if "nbgrader" in c["metadata"]}  # fmt: skip
    for cell in notebook["cells"]:
        if not (meta := cell["metadata"].get("nbgrader")):
            continue
        id = meta["grade_id"]
        if text := texts.get(id):
            markdown = cell["cell_type"] == "markdown"
            shown = written.safe(text, ids) if markdown else written.cut(text)
            cell["source"] = shown.splitlines(keepends=True)
        if item := items.get(id):
            meta["points"] = item.maximum
            result = results.get(item.exercise)
            if result and not item.by_hand:
                points = "?" if result.points is None else f"{result.points:g}"
                said = f"{result.verdict}, {points} of {result.maximum:g}: {result.message}"
                text = [f"{written.line(said)}\n"]
                cell["outputs"] = [{"output_type": "stream", "name": "stdout", "text": text}]
    return notebook


def _student_id(student: str) -> str:
    """An id that is safe as a folder, in an address and in formgrader's pages.

    Lower case ASCII stays as it is. Else a hash makes it unlike any other, also where the file
    system does not tell cases apart; nobody can choose a name that takes another's id.
    """
    good = re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,60}", student)
    if good and not re.search(r"-[0-9a-f]{16}$", student):
        return student
    ascii = unicodedata.normalize("NFKD", student).encode("ascii", "ignore").decode().lower()
    words = re.sub(r"[^a-z0-9]+", "-", ascii).strip("-")[:40]
    sha256 = hashlib.sha256(student.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return f"{words or 'student'}-{sha256}"


def _json(notebook: dict) -> str:
    return json.dumps(notebook, indent=1, sort_keys=True) + "\n"


@contextlib.contextmanager
def _gradebook(course: Path) -> Iterator:
    """The gradebook; what was not committed is rolled back."""
    from nbgrader.api import Gradebook
    from sqlalchemy import URL

    url = lambda path: URL.create("sqlite", database=str(path.resolve()))
    path = course / "gradebook.db"
    if not path.exists():
        with tempfile.TemporaryDirectory(dir=course) as folder, _alembic():
            Gradebook(url(Path(folder) / path.name), COURSE).close()
            (Path(folder) / path.name).replace(path)
    with Gradebook(url(path), COURSE) as book:
        yield book


@contextlib.contextmanager
def _alembic() -> Iterator[None]:
    """nbgrader runs `alembic` from PATH, where this Python's programs may not be."""
    before = os.environ.get("PATH", "")
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{before}"
    try:
        yield
    finally:
        os.environ["PATH"] = before
