"""The whole way in one call, without a sandbox's cost: what is refused, and what is written."""

import json
from pathlib import Path

import pytest

from robcourse.grading import batch, intake, marking, run
from robcourse.grading.assignment import load
from robcourse.grading.names import roster
from robcourse.grading.table import Flag, Result, Row, Status, Verdict

ROOT = Path(__file__).resolve().parents[1]
NAME = "01_linear_hypothesis"


@pytest.fixture
def quick(monkeypatch):
    """Every notebook is graded at once: its bytes are its points for `distance`."""

    def marked(whole, found, executor, *, resume, log):
        done = []
        for s in found:
            row = marking.unmarked(s, whole.assignment, whole.seed)
            points = 0.0 if s.problem else float(s.read())
            first, *others = row.results
            one = Result(first.exercise, Verdict.RIGHT, points, 1.0)
            zero = [batch.replace(r, points=0.0) for r in others]
            status = s.problem[0] if s.problem else Status.OK
            done.append(marking.Marked(
                batch.replace(row, status=status, results=(one, *zero), flags=())
            ))  # fmt: skip
        return done

    monkeypatch.setattr(run.batch, "marked", marked)
    monkeypatch.setattr(run.selftest, "demand", lambda *a: None)


@pytest.fixture
def submissions(tmp_path):
    folder = tmp_path / "in"
    for name, points in (("alice", 1), ("bob", 0), ("carol", 1)):
        (folder / name).mkdir(parents=True)
        (folder / name / "hw.ipynb").write_text(f"{points}{' ' * (name == 'carol')}")
    return folder


def grade(submissions, out, **more) -> dict[str, Row]:
    rows = run.grade(submissions, NAME, out, course=ROOT, **more)
    return {r.student: r for r in rows}


def test_everything_is_written_and_pages_without_a_row_go(quick, submissions, tmp_path):
    out = tmp_path / "out"
    grade(submissions, out)
    pages = out / "feedback"
    assert sorted(p.name for p in pages.iterdir()) == ["alice.html", "bob.html", "carol.html"]
    for name in ("grades.csv", "canvas.csv", "moodle.csv", "report.html", "batch.json", "course"):
        assert (out / name).exists(), name
    (submissions / "carol/hw.ipynb").unlink()
    (submissions / "carol").rmdir()
    grade(submissions, out)
    assert sorted(p.name for p in pages.iterdir()) == ["alice.html", "bob.html"]


def test_the_output_is_never_graded(quick, submissions, tmp_path):
    for out in (submissions, submissions / "out"):
        with pytest.raises(ValueError, match="lies in the submissions"):
            grade(submissions, out)
    out = tmp_path / "out"
    (out / "results").mkdir(parents=True)
    grade_into = {"assignment": NAME, "seed": 1, "roster": None, "checks": None}
    (out / "batch.json").write_text(json.dumps(grade_into))
    with pytest.raises(ValueError, match="holds a batch of robcourse grade, no submissions"):
        grade(out, tmp_path / "other")


def test_nothing_of_somebody_elses_is_overwritten(quick, submissions, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "report.html").write_text("mine")
    with pytest.raises(ValueError, match="is not empty and holds no batch"):
        grade(submissions, out)
    assert (out / "report.html").read_text() == "mine"
    other = tmp_path / "other"
    grade(submissions, other)
    told = json.loads((other / "batch.json").read_text()) | {"assignment": "02_other"}
    (other / "batch.json").write_text(json.dumps(told))
    with pytest.raises(ValueError, match="holds a batch of 02_other"):
        grade(submissions, other)


def test_an_option_is_not_forgotten_half_way(quick, submissions, tmp_path):
    out, people = tmp_path / "out", tmp_path / "people.csv"
    people.write_text("student,name\nalice,Alice A\ndora,Dora D\n")
    rows = grade(submissions, out, roster=people)
    assert rows["dora"].status == Status.NOT_SUBMITTED
    assert rows["alice"].name == "Alice A"
    assert Flag.NOT_ON_ROSTER in rows["bob"].flags
    with pytest.raises(ValueError, match=r"was graded with --roster .*people.csv: give it again"):
        grade(submissions, out)


def test_a_roster_of_other_people_is_refused(quick, submissions, tmp_path):
    people = tmp_path / "people.csv"
    people.write_text("student\n12345\n")
    with pytest.raises(ValueError, match="it says '12345', the submissions say 'alice'"):
        grade(submissions, tmp_path / "out", roster=people)


def test_the_same_bytes_are_seen_where_they_earned_points(quick, submissions, tmp_path):
    (submissions / "dora").mkdir()
    (submissions / "dora/hw.ipynb").write_bytes((submissions / "alice/hw.ipynb").read_bytes())
    (submissions / "emil").mkdir()
    (submissions / "emil/hw.ipynb").write_bytes((submissions / "bob/hw.ipynb").read_bytes())
    rows = grade(submissions, tmp_path / "out")
    assert {s for s, r in rows.items() if Flag.SAME_FILE in r.flags} == {"alice", "dora"}


def test_the_published_solution_is_seen(tmp_path):
    assignment = load(ROOT, NAME)
    (tmp_path / "alice.ipynb").write_bytes(assignment.source.read_bytes())
    (found,) = intake.collect(tmp_path / "alice.ipynb", NAME)
    row = Row("alice", "a", Status.OK, sha256=found.sha256,
              results=(Result("distance", Verdict.RIGHT, 1.0, 1.0),))  # fmt: skip
    assert run._same([row], assignment)[0].flags == (Flag.SAME_FILE,)


def test_the_exports_of_the_platforms_are_rosters(tmp_path):
    path = tmp_path / "gradebook.csv"
    path.write_text(
        "Student,ID,SIS User ID,SIS Login ID,Section,Exercises (4711)\n"
        "    Points Possible,,,,,29\n"
        '"Smith, Jane",12345,s1,jane,A,\n"Student, Test",99,,,,\n'
    )
    (one,) = roster(path).values()
    assert (one.student, one.name) == ("12345", "Smith, Jane")
    path.write_text(
        "Identifier,Full name,Email address,Grade\nParticipant 123456,Jane Smith,j@x.org,\n"
    )
    (one,) = roster(path).values()
    assert (one.student, one.name, one.email) == ("123456", "Jane Smith", "j@x.org")
