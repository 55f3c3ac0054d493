"""Intake: a folder or a zip of submissions in, one entry for each submission out.

Every .ipynb is one submission, also one in a student's own zip. A student who handed in none has
one entry that says what came instead. At the top level every file is a submission, whatever it is,
but a README. Hidden files, `__MACOSX`, checkpoints and the like are passed over.

Of two submissions of one student the later counts. What cannot be read, or is called after another
assignment, counts only where there is nothing else. What could not be read through no fault of the
student is as good as read: a failure of ours changes nobody's grade.

Who handed in what is said in `names`, what is read and what is not in `files`.
"""

import hashlib
import io
import re
import zipfile
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from . import names as who
from .files import (
    MAX_FILE,
    Refused,
    Source,
    Thing,
    archived,
    damage,
    megabytes,
    on_disk,
    unread,
    walk,
)
from .names import Names, Owner, Student, roster
from .table import Status

__all__ = ["Student", "Submission", "collect", "roster"]

MAX_STUDENT = 4 * MAX_FILE  # bytes of all notebooks and zips of one student
MAX_NOTEBOOKS = 50  # of one student that are executed
MAX_ENTRIES = 100_000  # in SUBMISSIONS, where it is a zip
MAX_OWN_ENTRIES = 5_000  # in a student's own zip


@dataclass(frozen=True)
class Submission:
    """What one student handed in once.

    Attributes:
        student: who: the key of table, roster and feedback; it can stand in the name of a file.
        file: the path within the submissions, each once; "alice/work.zip/hw.ipynb" in an own zip.
        sha256: of the file's bytes; "" where it is not executed.
        name, email: as the learning platform has them, or "".
        late: whether the learning platform calls it late.
        superseded: whether another submission of the same student counts.
        other: the other assignment of the course that the file is called after, or "".
        problem: why it is not executed: the status of its row, and the reason in words.
    """

    student: str
    file: str
    sha256: str = ""
    name: str = ""
    email: str = ""
    late: bool = False
    superseded: bool = False
    other: str = ""
    problem: tuple[Status, str] | None = None
    _source: Source | None = field(default=None, repr=False)

    def read(self) -> bytes:
        """The bytes of the notebook, as they were when it was collected.

        Raises:
            ValueError: it has a problem, so there is nothing to read.
            OSError: it cannot be read any more, or has changed.
        """
        if self.problem or not self._source:
            raise ValueError(f"{self.file} is not read, it has a problem: {self.problem}")
        try:
            content = self._source.read()
        except Exception as error:
            raise OSError(f"{self.file} cannot be read any more: {error}") from error
        if hashlib.sha256(content).hexdigest() != self.sha256:
            raise OSError(f"{self.file} has changed since it was collected: start the batch again")
        return content


def collect(submissions: Path, assignment: str, others: Sequence[str] = ()) -> list[Submission]:
    """Everything that was handed in, by student, each in the order of time.

    Args:
        submissions: a folder, a zip, or one notebook.
        assignment: "01_linear_hypothesis".
        others: the other assignments of the course.

    Raises:
        FileNotFoundError: there is nothing of that name.
        ValueError: it is no folder, zip or notebook, cannot be read as one, or is empty.
    """
    path, names = Path(submissions).resolve(), Names(assignment, others)
    if path.is_dir():
        found = _sorted_out(list(walk(path)), names)
    elif not path.exists():
        raise FileNotFoundError(f"SUBMISSIONS is {submissions}, which is not there: a typing slip?")
    elif path.is_file() and who.ends(path.name, ".ipynb"):
        found = _sorted_out([on_disk(path, (path.name,))], names)
    elif path.is_file() and (who.ends(path.name, ".zip") or zipfile.is_zipfile(path)):
        found = _of_zip(path, names)
    else:
        raise ValueError(
            f"SUBMISSIONS is {submissions}; expected a folder, a zip or one .ipynb: unpack any "
            "other archive and give the folder"
        )
    if not found:
        raise ValueError(f"there is no submission in {submissions}: is it the right folder?")
    return found


def _of_zip(path: Path, names: Names) -> list[Submission]:
    try:
        archive = zipfile.ZipFile(path)
    except Exception as error:
        raise ValueError(
            f"SUBMISSIONS is {path}, a zip that cannot be read ({error}): download it again, or "
            "unpack it and give the folder"
        ) from error
    with archive:
        if (count := len(archive.infolist())) > MAX_ENTRIES:
            raise ValueError(
                f"{path} holds {count} files, more than the {MAX_ENTRIES} that are read from a "
                "zip: unpack it and give the folder"
            )
        return _sorted_out(list(archived(archive, Thing((), "", source=Source(path)))), names)


def _sorted_out(things: list[Thing], names: Names) -> list[Submission]:
    seen = [t for t in things if not t.hidden]
    trusted = [t for t in seen if not t.problem or t.problem[0] is not Status.SUSPECT]
    around = who.wrapper(trusted, names)
    seen = [_below(t, around) for t in seen if not _around(t, around)]
    seen = [t for t in seen if not who.readme(t.parts)]
    students = defaultdict(list)
    owners = who.owners(seen, _submitters(things, around), names)
    for thing, owner in zip(seen, owners, strict=True):
        students[owner.student].append((thing, owner))
    found, files = [], Counter()
    for student in sorted(students):
        for one in _of_student(students[student], names):
            file = one.file
            while file in files:  # a zip may hold a name twice
                files[one.file] += 1
                file = f"{one.file}#{files[one.file]}"
            files[file] += 1
            found.append(replace(one, file=file))
    return found


def _around(thing: Thing, around: tuple[str, ...]) -> bool:
    return thing.folder and thing.parts == around[: len(thing.parts)]


def _below(thing: Thing, around: tuple[str, ...]) -> Thing:
    depth = len(around)
    inside = thing.parts[:depth] == around and len(thing.parts) > depth
    return replace(thing, parts=thing.parts[depth:]) if inside else thing


def _submitters(things: list[Thing], around: tuple[str, ...]) -> dict[str, Student]:
    for thing in things:
        if thing.parts == (*around, "submission_metadata.yml") and not thing.problem:
            try:
                return who.submitters(b"".join(thing.blocks()))
            except Refused:
                break
    return {}


def _of_student(handed_in: list[tuple[Thing, Owner]], names: Names) -> list[Submission]:
    """The submissions of one student in the order of time; all but one are superseded."""
    rows, rest, spent = [], [], 0
    for thing, owner in handed_in:
        found, why = [], f"{_leaf(thing, owner)} is no notebook: hand in the .ipynb"
        if thing.problem or (who.ends(thing.parts[-1], ".ipynb") and not thing.folder):
            found = [thing]
        elif who.ends(thing.parts[-1], ".zip") and not thing.folder:
            thing, spent = _charged(thing, spent)
            found, why = _own_zip(thing)
        if not found and not thing.folder:
            rest.append((thing, why))
            if len(thing.parts) == 1:
                found = [replace(thing, problem=unread(why))]
        for one in found:
            one, spent = _charged(one, spent)
            rows.append((_order(one, owner), _submission(one, owner, names)))
    if not rows:
        rows = [((), _nothing(handed_in, rest))]
    return _superseded([row for _, row in sorted(rows, key=lambda row: row[0])])


def _charged(thing: Thing, spent: int) -> tuple[Thing, int]:
    """What is read of one student has a limit, whether it turns out well or not."""
    if thing.problem or thing.size > MAX_FILE:
        return thing, spent
    spent += thing.size
    if spent > MAX_STUDENT:
        most = f"more than the {megabytes(MAX_STUDENT)} that are read of one student"
        thing = replace(thing, problem=unread(f"{megabytes(spent)} with this one, {most}"))
    return thing, spent


def _own_zip(thing: Thing) -> tuple[list[Thing], str]:
    """The notebooks and the tricks in a student's own zip; and why there are none."""
    if thing.problem:
        return [thing], ""
    try:
        content = b"".join(thing.blocks())
        if content.count(b"PK\1\2") > MAX_OWN_ENTRIES:  # before a list of them is made
            many = f"a zip of more than {MAX_OWN_ENTRIES} files: hand in the notebook alone"
            raise Refused(unread(many))
        with damage():
            inner = list(archived(zipfile.ZipFile(io.BytesIO(content)), thing))
    except Refused as refused:
        return [replace(thing, problem=refused.problem)], ""
    inner = [t for t in inner if t.problem or not (t.folder or t.hidden)]
    listed = _listed([t.parts[len(thing.parts) :] for t in inner]) or "nothing"
    found = [t for t in inner if t.problem or who.ends(t.parts[-1], ".ipynb")]
    return found, f"{thing.parts[-1]} holds no .ipynb, but {listed}"


def _submission(thing: Thing, owner: Owner, names: Names) -> Submission:
    problem, digest = thing.problem, hashlib.sha256()
    if not problem:
        try:
            for block in thing.blocks():
                digest.update(block)
        except Refused as refused:
            problem = refused.problem
    return Submission(
        student=owner.student,
        file=thing.shown,
        sha256="" if problem else digest.hexdigest(),
        name=owner.name,
        email=owner.email,
        late=owner.late,
        other=names.other(*thing.parts[1:-1], _leaf(thing, owner)),
        problem=problem,
        _source=None if problem else thing.source,
    )


def _nothing(handed_in: list[tuple[Thing, Owner]], rest: list[tuple[Thing, str]]) -> Submission:
    """The submission of a student whose folder holds no notebook."""
    thing, owner = handed_in[0]
    file = thing.shown.rstrip("/")
    for _ in thing.parts[1:]:
        file = file.rpartition("/")[0]
    why = "the folder is empty; hidden files are passed over"
    if rest:
        why = f"no .ipynb in what was handed in: {_listed([t.parts[1:] for t, _ in rest])}"
    if len(rest) == 1:
        file, why = rest[0][0].shown, rest[0][1]
    return Submission(
        owner.student, file, "", owner.name, owner.email, owner.late, problem=unread(why)
    )


def _superseded(rows: list[Submission]) -> list[Submission]:
    def rank(at: int) -> tuple[bool, bool, int]:
        problem = rows[at].problem
        return not problem or problem[0] is Status.INFRA_ERROR, not rows[at].other, at

    ranked = sorted(range(len(rows)), key=rank, reverse=True)
    rows = [replace(row, superseded=at != ranked[0]) for at, row in enumerate(rows)]
    for at in [at for at in ranked if not rows[at].problem][MAX_NOTEBOOKS:]:
        why = f"more than {MAX_NOTEBOOKS} notebooks of one student: the earlier are not executed"
        rows[at] = replace(rows[at], problem=(Status.SUSPECT, why), sha256="", _source=None)
    return rows


def _leaf(thing: Thing, owner: Owner) -> str:
    return thing.parts[-1] if len(thing.parts) > 1 else owner.file


def _order(thing: Thing, owner: Owner) -> tuple:
    """By time; then by the platform's number, the number in "(1)", and the name."""
    name = thing.parts[-1]
    return thing.when, _natural(owner.number), who.turn(name), _natural(thing.shown)


def _natural(text: str) -> list:
    split = re.split("([0-9]+)", text)
    split[1::2] = [(len(n.lstrip("0")), n.lstrip("0")) for n in split[1::2]]
    return split


def _listed(paths: list[tuple[str, ...]]) -> str:
    more = f" and {len(paths) - 3} more" if len(paths) > 3 else ""
    return ", ".join("/".join(path) for path in paths[:3]) + more
