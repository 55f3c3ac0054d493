"""The hostile class, graded once: every row as it must be, and nothing harmed on the way."""

import contextlib
import csv
import fcntl
import hashlib
import json
import os
import secrets
import socket
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import hostile
import psutil
import pytest
from bs4 import BeautifulSoup
from hostile import BOTH, NAME, ROOT, Hostile, World

from robcourse import cli
from robcourse.grading import sandbox
from robcourse.grading.run import grade
from robcourse.grading.table import Flag, Row, Status

REQUIRED = os.environ.get("ROBCOURSE_REQUIRE_SANDBOX") == "1"
pytestmark = [
    pytest.mark.alone,
    pytest.mark.skipif(
        not REQUIRED and sandbox.missing() is not None, reason=f"no sandbox: {sandbox.missing()}"
    ),
]
OPTIONS = ["--assignment", NAME, "--course", str(ROOT), "--seed", "5"]
LIMITS = ["--workers", "2", "--timeout", "20", "--memory", "2"]


@dataclass(frozen=True)
class Graded:
    """The class before and after."""

    world: World
    expected: dict[str, Hostile]
    rows: list[Row]
    submissions: Path
    out: Path
    seconds: float
    before: dict[str, str]

    def row(self, want: Hostile) -> Row:
        """The row of a submission; some names cannot be written as they are."""
        same = [r for r in self.rows if r.file == want.path]
        plain = lambda text: "".join(c for c in text if c.isascii() and c.isalnum())
        (row,) = same or [r for r in self.rows if plain(r.file) == plain(want.path)]
        return row

    @property
    def table(self) -> list[dict]:
        return list(csv.DictReader((self.out / "grades.csv").read_text("utf-8-sig").splitlines()))

    def log(self, event: str) -> list[dict]:
        lines = map(json.loads, (self.out / "log.jsonl").read_text().splitlines())
        return [line for line in lines if line["event"] == event]


@pytest.fixture(scope="module")
def graded(tmp_path_factory) -> Graded:
    folder = tmp_path_factory.mktemp("hostile")
    secret, out = f"secret-{secrets.token_hex(8)}", folder / "out"
    submissions = folder / "submissions"
    gradebook = folder / "elsewhere/gradebook.db"
    gradebook.parent.mkdir()
    gradebook.write_text(secret)
    with socket.create_server(("127.0.0.1", 0)) as server, _environment(secret):
        files = (gradebook, ROOT / f"solutions/{NAME}.ipynb", ROOT / "tests/hostile.py",
                 submissions / "right.ipynb", out / "grades.csv", out / "batch.json")  # fmt: skip
        port = server.getsockname()[1]
        world = World(secret, tuple(map(str, files)), port, f"written-{secret}")
        expected = {h.path: h for h in hostile.write(submissions, world)}
        before = _outside(gradebook)
        began = time.monotonic()
        limits = sandbox.Limits(20.0, 2 << 30)
        rows = grade(submissions, NAME, out, course=ROOT, workers=2, limits=limits, seed=5)
        seconds = time.monotonic() - began
    return Graded(world, expected, rows, submissions, out, seconds, before)


@contextlib.contextmanager
def _environment(secret: str):
    os.environ["ROBCOURSE_TEST_TOKEN"] = secret
    try:
        yield
    finally:
        del os.environ["ROBCOURSE_TEST_TOKEN"]


def _outside(*more: Path) -> dict[str, str]:
    """What nobody may change: the course, the package, a gradebook; by the hash of each."""
    kept = [p for d in ("robcourse", "solutions", "exercises") for p in (ROOT / d).rglob("*")]
    files = [p for p in (*kept, *more) if p.is_file() and p.suffix != ".pyc"]
    return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


MADE = hostile.submissions(World("s", (), 1, "m"))


def test_every_submission_has_exactly_one_row(graded):
    assert len(MADE) >= 40
    assert len(graded.table) == len(graded.rows) == len(graded.expected) == len(MADE)
    assert len({r.file for r in graded.rows}) == len(MADE)


@pytest.mark.parametrize("name", [h.name for h in MADE])
def test_the_row_is_as_it_must_be(graded, name):
    want = next(h for h in graded.expected.values() if h.name == name)
    row = graded.row(want)
    got = {r.exercise: r.points for r in row.results if r.points}
    messages = {r.exercise: r.message for r in row.results}
    statuses = want.status if not isinstance(want.status, Status) else (want.status,)
    seen = f"{row.status}: {row.reason} {got} {messages}"
    assert row.status in statuses, seen
    if want.points is None:
        assert got.items() <= BOTH.items(), seen
    else:
        assert got == want.points, seen
    assert row.flags == tuple(f for f in Flag if f in want.flags), seen
    if isinstance(want.says, str):
        assert want.says in row.reason, seen
    else:
        for exercise, words in want.says.items():
            assert words in messages[exercise], seen
    verdicts = {r.exercise: r.verdict for r in row.results}
    assert want.verdicts.items() <= verdicts.items(), seen
    if want.never:
        assert not any(want.never in text for text in (row.reason, *messages.values())), seen
    if want.student:
        assert row.student == want.student
    assert len(row.reason) < 1_000


def test_nothing_outside_was_written(graded):
    assert _outside(Path(graded.world.files[0])) == graded.before
    mark, home = graded.world.mark, Path.home()
    places = [
        Path("/"),
        home,
        Path(tempfile.gettempdir()),
        Path("/dev/shm"),
        Path(sys.prefix),
        ROOT,
    ]
    names = [str(p) for place in places if place.is_dir() for p in place.iterdir()]
    names += [str(p) for p in (ROOT / "robcourse").rglob("*")]
    assert not [n for n in names if mark in n]
    owned = (p for p in Path(tempfile.gettempdir()).iterdir() if not p.is_symlink())
    uids = range(sandbox.FIRST_UID, sandbox.FIRST_UID + sandbox.SLOTS)
    assert not [p for p in owned if _owner(p) in uids]


def _owner(path: Path) -> int:
    with contextlib.suppress(OSError):
        return path.lstat().st_uid
    return -1


def test_no_process_is_left(graded):
    ours = [p for p in psutil.Process().children(recursive=True) if _is_sandbox(p)]
    assert not ours
    for process in psutil.process_iter(["uids", "cmdline"]):
        uid = process.info["uids"].real if process.info["uids"] else -1
        if sandbox.FIRST_UID <= uid < sandbox.FIRST_UID + sandbox.SLOTS:
            # Another batch on this machine may run: then it holds the lock of this user.
            assert _is_taken(uid), process.info


def _is_sandbox(process) -> bool:
    with contextlib.suppress(psutil.Error):
        line = process.cmdline()
        return any("bwrap" in word or "robcourse.grading" in word for word in line)
    return False


def _is_taken(uid: int) -> bool:
    path = Path(tempfile.gettempdir()) / "robcourse-sandboxes" / str(uid)
    with contextlib.suppress(OSError), open(path) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return False
    return True


def test_no_page_holds_live_markup(graded):
    pages = [*graded.out.glob("feedback/*.html"), graded.out / "report.html"]
    assert len(pages) > 40
    for page in pages:
        soup = BeautifulSoup(page.read_text(), "html.parser")
        assert not soup.find_all(
            ["script", "iframe", "object", "embed", "form", "input", "base"]
        ), page
        live = [t for t in soup.find_all(True) if any(a.lower().startswith("on") for a in t.attrs)]
        assert not live, page
        links = [t.get("href") or t.get("src") or "" for t in soup.find_all(["a", "img", "link"])]
        assert not [a for a in links if ":" in a and not a.startswith("data:image/")], page


def test_a_feedback_page_names_no_other_student(graded):
    students = {row.student for row in graded.rows}
    pages = [BeautifulSoup(p.read_text(), "html.parser").get_text()
             for p in graded.out.glob("feedback/*.html")]  # fmt: skip
    assert len(pages) == len(students)
    for student in (s for s in students if len(s) > 12):  # a short one may be a word of ours
        told = sum(student in text for text in pages)
        assert told == sum(student in other for other in students), student


def test_no_point_is_won(graded):
    """Whatever a notebook tried, its points are those of its right functions."""
    for want in graded.expected.values():
        deserved = BOTH if want.points is None else want.points
        won = {r.exercise: r.points for r in graded.row(want).results if r.points}
        assert won.items() <= deserved.items(), want.name


def test_a_second_run_grades_nothing_again(graded, capsys):
    table = (graded.out / "grades.csv").read_bytes()
    marked = len(graded.log("marked"))
    command = ["grade", str(graded.submissions), "--out", str(graded.out), *OPTIONS, *LIMITS]
    assert cli.main(command) in (0, 1), capsys.readouterr().err
    assert graded.log("start")[-1]["todo"] == 0
    assert len(graded.log("marked")) == marked
    assert (graded.out / "grades.csv").read_bytes() == table


def test_it_is_quick(graded, record_property):
    """Loosely: the machine may be busy. What stands outside the sandbox must not be slowed."""
    record_property("seconds", graded.seconds)
    judging = {m["file"]: m["cpu"].get("judging", 0.0) for m in graded.log("marked")}
    assert max(judging.values()) < 5, max(judging, key=judging.get)
    assert graded.seconds < 900


def test_a_zip_of_tricks(tmp_path, capsys):
    archive, expected = hostile.tricks()
    path = tmp_path / "deep/er/class.zip"
    path.parent.mkdir(parents=True)
    path.write_bytes(archive)
    out = tmp_path / "out"
    code = cli.main(["grade", str(path), "--out", str(out), *OPTIONS, *LIMITS])
    assert code in (0, 1), capsys.readouterr().err
    rows = list(csv.DictReader((out / "grades.csv").read_text("utf-8-sig").splitlines()))
    assert sorted((r["student"], r["status"]) for r in rows) == sorted(expected)
    assert {p.name for p in tmp_path.iterdir()} == {"deep", "out"}
    assert [p.name for p in tmp_path.rglob("*.ipynb") if "out" not in p.parts] == []
    assert not Path("/absolute").exists()
    assert "root:" not in "".join(p.read_text() for p in (out / "feedback").iterdir())
