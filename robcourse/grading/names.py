"""Who handed a file in, by the folder or the file's name, never by the notebook's text.

| layout | example | student |
|---|---|---|
| Canvas | `smithjane_LATE_12345_678910_hw-1.ipynb` | `12345`; `anon_x7Qf2` where names are hidden |
| Moodle | `Jane Smith_123456_assignsubmission_file_/hw.ipynb`, also flat | `123456` |
| Gradescope | `assignment_1_export/submission_98765/hw.ipynb` | the first submitter's `sid` |
| folders | `alice/hw.ipynb`, `alice/01_linear_hypothesis/hw.ipynb` | `alice` |
| files | `Copy of alice (1).ipynb`, `01_linear_hypothesis_alice.ipynb` | `alice` |

Gradescope says in `submission_metadata.yml` who submitted; without a `sid` it is the email, without
both the folder's name. What a group submitted has its first submitter as its student.
A file that is called after the assignment and nobody has its whole stem as its student.
"""

import contextlib
import csv
import hashlib
import io
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from .files import Thing, clean, printable

MAX_ID = 120  # bytes of a student's id: it names files


@dataclass(frozen=True)
class Student:
    """One line of a roster."""

    student: str
    name: str = ""
    email: str = ""


@dataclass(frozen=True)
class Owner:
    """Who handed a thing in.

    Attributes:
        student, name, email: as far as the layout tells.
        file: the thing's own name, without what the platform put before it.
        number: the platform's number of the submission, or "".
        late: whether the platform calls it late.
    """

    student: str
    file: str
    name: str = ""
    email: str = ""
    number: str = ""
    late: bool = False


class Names:
    """The assignments of a course, as files are called after them."""

    def __init__(self, assignment: str, others: Sequence[str] = ()):
        self.assignment = assignment
        self._patterns = {}
        for name in sorted({assignment, *others} - {""}, key=lambda n: (-len(n), n)):
            core = r"[\s_-]+".join(map(re.escape, re.split(r"[\s_-]+", name)))
            pattern = rf"(?:(.+?)[\s_.-]+)?{core}(?:[\s_.-]+(.+))?"
            self._patterns[name] = re.compile(pattern, re.I | re.S)

    def split(self, stem: str) -> tuple[str, str]:
        """(student, assignment) in a stem; "" for what is not in it."""
        plain = undecorated(stem)
        for name, pattern in self._patterns.items():
            if match := pattern.fullmatch(plain):
                before, after = match.groups()
                if re.fullmatch("[0-9]{1,2}", after or ""):  # "hw-1": the second of that name
                    after = None
                return plain if before and after else before or after or "", name
        return plain, ""

    def other(self, *path: str) -> str:
        """The other assignment that a file is called after, else a folder on its way; or ""."""
        named = [name for part in reversed(path) if (name := self.split(stem(part))[1])]
        return named[0] if named and named[0] != self.assignment else ""


def owners(things: Sequence[Thing], submitters: dict[str, Student], names: Names) -> list[Owner]:
    """Who handed in each of the things, whose paths begin with the student's folder or file."""
    canvas = [_CANVAS.fullmatch(t.parts[0]) if _flat(t) else None for t in things]
    called = defaultdict(set)
    for found in filter(None, canvas):
        called[found["id"]].add(found["name"])
    found = []
    for thing, match in zip(things, canvas, strict=True):
        # A user of Canvas has one name: "alice_20260301_120000_hw" and "bob_20260301_…" are dates.
        dated = match and match["id"] and len(called[match["id"]]) > 1
        found.append(_owner(thing, None if dated else match, submitters, names))
    return found


def wrapper(things: Sequence[Thing], names: Names) -> tuple[str, ...]:
    """The folders around everything else, which are no student's.

    A folder that holds all is one where it is called after the assignment, "submissions" or the
    like, where a platform's names are in it, or where the work of two students is: two folders with
    notebooks, or, but for a folder in another that is passed over, two notebooks of other names.
    """
    around = ()
    while True:
        paths = [(t.parts[len(around) :], t.folder) for t in things]
        paths = [(p, folder) for p, folder in paths if p and not readme(p)]
        tops = {p[0] for p, _ in paths}
        if len(tops) != 1 or any(len(p) == 1 and not folder for p, folder in paths):
            return around
        (top,) = tops
        if _MOODLE.fullmatch(top) or _GRADESCOPE.fullmatch(top):
            return around
        within = {p[1] for p, _ in paths if len(p) > 1}
        work = [p for p, folder in paths if not folder and ends(p[-1], ".ipynb", ".zip")]
        folders = {p[1] for p in work if len(p) > 2 and not names.split(p[1])[1]}
        files = {names.split(stem(p[1]))[0] for p in work if len(p) == 2} - {""}
        student, assignment = names.split(top)
        if not (
            _WRAPPER.fullmatch(top)
            or (assignment and not student)
            or any(p.fullmatch(n) for p in (_CANVAS, _MOODLE, _GRADESCOPE) for n in within)
            or len(folders) > 1
            or (len(files) > 1 and not around)
        ):
            return around
        around = (*around, top)


def submitters(metadata: bytes) -> dict[str, Student]:
    """Who handed in each folder of an export of Gradescope's; nobody where it does not say."""
    found = {}
    with contextlib.suppress(Exception):
        # It makes strings, never objects; its twin in C ends the process on deep nesting.
        for folder, entry in yaml.load(metadata, yaml.BaseLoader).items():
            with contextlib.suppress(Exception):
                first = {k.lstrip(":"): v.strip() for k, v in entry[":submitters"][0].items()}
                first = {k: "" if v in ("null", "~") else printable(v) for k, v in first.items()}
                sid, name, email = (first.get(k, "") for k in ("sid", "name", "email"))
                found[folder] = Student(harmless(sid or email or folder), name, email)
    return found


def roster(path: Path) -> dict[str, Student]:
    """The students of a course by id, in the order of the file.

    Args:
        path: a CSV file in UTF-8 with the column `student`, and `name` and `email` if there are
            any; between commas, semicolons or tabs. Or what Canvas exports as its gradebook
            (columns Student and ID), or Moodle as its grading worksheet (Identifier, Full name).

    Raises:
        ValueError: no such column, an id that is empty or there twice, another encoding.
    """
    content = Path(path).read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(f"{path}, line {line}: not UTF-8; save it as «CSV UTF-8»") from error
    head = text.partition("\n")[0]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=head.count))
    found, lines = {}, {}
    try:
        columns = [c.strip().lower() for c in next(reader, [])]
        for theirs in _EXPORTS:
            if set(theirs) <= set(columns):
                columns = [theirs.get(c, c) for c in columns]
        if "student" not in columns:
            raise ValueError(f"no column `student`, only: {', '.join(columns) or 'nothing'}")
        for cells in reader:
            if not any(c.strip() for c in cells):
                continue
            if any(c.strip() for c in cells[len(columns) :]):
                raise ValueError(f"{len(cells)} cells in {len(columns)} columns: quotes missing?")
            row = dict(zip(columns, map(str.strip, cells), strict=False))
            row["student"] = row.get("student", "").removeprefix("Participant ")
            if row.get("name") in _NOBODY:
                continue
            if not row["student"]:
                raise ValueError("the id of the student is empty")
            student = harmless(row["student"])
            if student in found:
                raise ValueError(f"{student} is there already, in line {lines[student]}")
            found[student] = Student(student, row.get("name", ""), row.get("email", ""))
            lines[student] = reader.line_num
        if not found:
            raise ValueError("there are no students in it")
    except (ValueError, csv.Error) as error:
        raise ValueError(f"{path}, line {max(reader.line_num, 1)}: {error}") from error
    return found


#: What the columns of a learning platform's own export are here.
_EXPORTS = (
    {"student": "name", "id": "student"},
    {"identifier": "student", "full name": "name", "email address": "email"},
)
_NOBODY = ("Points Possible", "Student, Test")  # lines of Canvas's export


def harmless(text: str) -> str:
    """An id that can stand in the name of a file."""
    text = re.sub(r"^\.+|[/\\]", "_", clean([text])[0].strip()) or "unnamed"
    if len(text.encode()) > MAX_ID:
        mark = hashlib.sha256(text.encode()).hexdigest()[:8]
        text = text.encode()[: MAX_ID - 9].decode(errors="ignore") + "~" + mark
    return text


def ends(name: str, *suffixes: str) -> bool:
    """Whether a file has one of these suffixes, in any case."""
    return name.strip().lower().endswith(suffixes)


def stem(name: str) -> str:
    """Without its suffix; of "hw.ipynb.txt" without both."""
    return re.sub(r"(?<=.)(\.ipynb)?\.[0-9A-Za-z]{1,8}$", "", name.strip())


def undecorated(stem: str) -> str:
    """Without "Copy of", "(1)" and the like."""
    before = None
    while before != stem:
        before, stem = stem, _AFTER.sub("", _BEFORE.sub("", stem, count=1)).strip() or stem
    return stem


def turn(name: str) -> int:
    """The number in "hw (2).ipynb", "hw-2.ipynb" or "hw-Copy2.ipynb"; else 0."""
    found = _TURN.search(stem(name))
    return int(found[1] or found[2]) if found else 0


def readme(parts: tuple[str, ...]) -> bool:
    """Whether it is the one file that explains the download."""
    return len(parts) == 1 and bool(_README.fullmatch(parts[0]))


_README = re.compile(r"readme(\.(md|txt|rst|html?))?", re.I)
_WRAPPER = re.compile(
    r"(all[\s_-]*)?(submissions?|submitted|handed[\s_-]?in|downloaded|downloads?|exports?)"
    r"|assignment_\d+_export",
    re.I,
)
# As Canvas's content_zipper writes it: the sortable name, LATE, the user, the attachment and the
# student's own name for it; or the user and what was typed in.
_CANVAS = re.compile(
    r"(?:(?P<late>LATE_)?(?P<anon>anon_[0-9A-Za-z]{1,20})"
    r"|(?P<name>\w*?)_(?P<named_late>LATE_)?(?P<id>[1-9][0-9]{0,19}))"
    r"_(?:(?P<number>[1-9][0-9]{2,19})_(?P<file>.+)|(?:text|link)\.html)",
    re.S,
)
_MOODLE = re.compile(
    r"(?P<name>.*?)_(?P<id>[0-9]{1,20})_assignsubmission_[a-z]+_?(?P<file>.*)", re.S
)
_GRADESCOPE = re.compile(r"submission_(?P<number>[0-9]{1,20})")
_COPY = "copy|kopie|copie|copia|cópia|kopia|kopi"
_BEFORE = re.compile(rf"(?:{_COPY})(?: \([0-9]{{1,9}}\))? (?:of|von|van|de|av|di) +(?=\S)", re.I)
_AFTER = re.compile(
    rf"(?<=\S)(?:\s{{0,3}}\([0-9]{{1,9}}\)|(?:\s?-\s?|\s)(?:{_COPY})\s?[0-9]{{0,9}})$", re.I
)
_TURN = re.compile(rf"(?:\(([0-9]{{1,9}})\)|[-\s](?:{_COPY})?\s?([0-9]{{1,9}}))$", re.I)


def _flat(thing: Thing) -> bool:
    return len(thing.parts) == 1 and not thing.folder


def _owner(thing: Thing, canvas, submitters: dict[str, Student], names: Names) -> Owner:
    top = thing.parts[0]
    if found := _MOODLE.fullmatch(top):
        return Owner(found["id"], found["file"] or top, found["name"])
    if canvas:
        late = bool(canvas["late"] or canvas["named_late"])
        student, file = canvas["anon"] or canvas["id"], canvas["file"] or top
        return Owner(student, file, canvas["name"] or "", "", canvas["number"] or "", late)
    if _flat(thing):
        return Owner(harmless(names.split(stem(top))[0] or stem(top)), top)
    if found := _GRADESCOPE.fullmatch(top):
        who = submitters.get(top, Student(top))
        return Owner(who.student, top, who.name, who.email, found["number"])
    return Owner(harmless(top), top)
