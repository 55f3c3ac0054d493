"""The table as files: what is unknown stays empty, and no cell runs."""

import csv
import io
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robcourse.grading import exports
from robcourse.grading.assignment import Assignment, Item
from robcourse.grading.table import Flag, Result, Row, Status, Verdict

ITEMS = (Item("distance", 1.0, "distance-check"), Item("proof", 3.0, "proof", True))
ASSIGNMENT = Assignment("01_linear_hypothesis", ITEMS, {"cells": []}, Path("solutions/x.ipynb"))


def row(student="ada", points=(1.0, 2.5), status=Status.OK, **more) -> Row:
    verdicts = (Verdict.RIGHT, Verdict.BY_HAND)
    results = tuple(
        Result(i.exercise, v, p, i.maximum) for i, v, p in zip(ITEMS, verdicts, points, strict=True)
    )
    given = {"file": f"{student}.ipynb", "seed": 7, "seconds": 1.25, "results": results}
    return Row(student=student, status=status, **(given | more))


def read(text: str) -> list[dict]:
    return list(csv.DictReader(io.StringIO(text)))


def test_every_row_comes_back_from_the_table():
    given = row(name="Ada, Countess", sha256="ab" * 32, versions="torch 2.9, numpy 2.4",
                reason='he said "no"', flags=(Flag.LATE, Flag.EDITED))  # fmt: skip
    assert read(exports.grades([given], ASSIGNMENT)) == [{
        "student": "ada", "name": "Ada, Countess", "file": "ada.ipynb", "sha256": "ab" * 32,
        "status": "ok", "reason": 'he said "no"', "points_distance": "1", "points_proof": "2.5",
        "total": "3.5", "maximum": "4", "flags": "late edited", "seconds": "1.25", "seed": "7",
        "versions": "torch 2.9, numpy 2.4",
    }]  # fmt: skip


def test_the_header_is_the_enum_with_a_column_for_each_exercise():
    header = next(csv.reader(io.StringIO(exports.grades([], ASSIGNMENT))))
    at = header.index("points_distance")
    assert [*header[:at], "points_…", *header[at + len(ITEMS) :]] == list(exports.COLUMNS)
    assert all(column.meaning for column in exports.COLUMNS)


def test_what_nobody_knows_is_empty_and_not_0():
    waiting = row(points=(1.0, None), status=Status.NEEDS_MANUAL)
    ours = row("bob", points=(None, None), status=Status.INFRA_ERROR)
    first, second = read(exports.grades([waiting, ours], ASSIGNMENT))
    assert (first["points_proof"], first["total"]) == ("", "1")
    assert (second["points_distance"], second["total"], second["maximum"]) == ("", "", "4")


def test_the_order_does_not_depend_on_who_was_graded_first():
    old = row("bob", file="a.ipynb", flags=(Flag.SUPERSEDED,))
    rows = [row("Zoe"), row("bob", file="b.ipynb"), old, row("ada")]
    texts = {exports.grades(order, ASSIGNMENT) for order in (rows, rows[::-1])}
    assert len(texts) == 1
    files = [r["file"] for r in read(texts.pop())]
    assert files == ["ada.ipynb", "b.ipynb", "a.ipynb", "Zoe.ipynb"]


@pytest.mark.parametrize(
    "attack", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", " =1", "＝1", "\ufeff=1"]
)
@pytest.mark.parametrize("make", [exports.grades, exports.canvas, exports.moodle])
def test_no_cell_runs_as_a_formula(make, attack):
    hostile = row(attack, name=attack, email=attack, reason=attack, file=attack, versions=attack)
    cells = [c for line in csv.reader(io.StringIO(make([hostile], ASSIGNMENT))) for c in line]
    assert not [c for c in cells if c.strip()[:1] in tuple("=+-@＝")]
    assert [c for c in cells if c.startswith("'") and c.endswith(attack.strip("\t\r\n\ufeff "))]


def test_a_cell_is_one_line_and_can_be_written():
    hostile = row("a\nb", reason="first\r\nsecond\x00\u2028\x1b[31m", file="\udc80.ipynb")
    text = exports.grades([hostile], ASSIGNMENT)
    assert text.encode()
    assert len(text.splitlines()) == 2
    (only,) = read(text)
    assert (only["student"], only["file"]) == ("a b", " .ipynb")
    assert only["reason"] == "first  second   [31m"


@given(st.lists(st.text(max_size=8), min_size=5, max_size=5))
def test_any_text_keeps_the_table_whole(texts):
    student, name, reason, file, versions = texts
    hostile = row(student, name=name, reason=reason, file=file, versions=versions)
    (only,) = read(exports.grades([hostile], ASSIGNMENT))
    assert (only["total"], only["seed"], only["status"]) == ("3.5", "7", "ok")
    assert None not in only
    assert None not in only.values()


def test_letters_that_need_joiners_keep_them():
    (only,) = read(exports.grades([row(name="می\u200cخواهم")], ASSIGNMENT))
    assert only["name"] == "می\u200cخواهم"


# Learning platforms.

CLASS = [
    row("ada"),
    row("old", flags=(Flag.SUPERSEDED,)),
    row("wait", points=(1.0, None), status=Status.NEEDS_MANUAL, flags=(Flag.PROVISIONAL,)),
    row("odd", points=(0.0, 0.0), status=Status.SUSPECT),
    row("ours", points=(None, None), status=Status.INFRA_ERROR),
    row("not-run", points=(None, None), status=Status.NOT_RUN),
    row("absent", points=(0.0, 0.0), status=Status.NOT_SUBMITTED, file=""),
    row("junk", points=(0.0, 0.0), status=Status.NOT_A_NOTEBOOK),
]


def test_canvas_gets_settled_totals_only():
    lines = read(exports.canvas(CLASS, ASSIGNMENT, column="Exercises 1 (4711)"))
    assert list(lines[0]) == [
        "Student", "ID", "SIS User ID", "SIS Login ID", "Section", "Exercises 1 (4711)",
    ]  # fmt: skip
    points = {line["Student"]: line["Exercises 1 (4711)"] for line in lines}
    assert points == {"    Points Possible": "4", "ada": "3.5", "junk": "0"}
    assert lines[1]["SIS User ID"] == lines[1]["SIS Login ID"] == "ada"
    assert lines[0] != lines[1]


def test_canvas_heads_its_column_with_the_assignment():
    assert exports.canvas([], ASSIGNMENT).splitlines()[0].endswith(",01_linear_hypothesis")


def test_moodle_gets_the_same_students():
    lines = read(exports.moodle(CLASS, ASSIGNMENT))
    assert {"Identifier", "Grade", "Last modified (grade)"} <= set(lines[0])
    assert {r["Username"]: (r["Grade"], r["Maximum grade"]) for r in lines} == {
        "ada": ("3.5", "4"), "junk": ("0", "4"),
    }  # fmt: skip


@pytest.mark.parametrize("make", [exports.canvas, exports.moodle])
def test_what_waits_for_a_person_is_written_on_demand(make):
    text = make(CLASS, ASSIGNMENT, provisional=True)
    names = {line.split(",")[0] or line.split(",")[1] for line in text.splitlines()}
    assert {"ada", "junk", "odd", "wait"} <= names
    assert not {"old", "ours", "not-run", "absent"} & names


@pytest.mark.parametrize(
    ("make", "file", "column", "there"),
    [
        (exports.canvas, "doejane_LATE_123_678910_hw.ipynb", "ID", "123"),
        (exports.canvas, "submissions/doejane_123_678910_hw.zip/hw.ipynb", "ID", "123"),
        (exports.moodle, "Jane Doe_123_assignsubmission_file_/hw.ipynb", "Identifier",
         "Participant 123"),
        (exports.moodle, "Jane_Doe_123_assignsubmission_file_hw.ipynb", "Identifier",
         "Participant 123"),
    ],
)  # fmt: skip
def test_the_platform_finds_its_student_again(make, file, column, there):
    assert read(make([row("123", file=file)], ASSIGNMENT))[-1][column] == there


@pytest.mark.parametrize("make", [exports.canvas, exports.moodle])
def test_a_file_cannot_choose_whose_grade_is_written(make):
    """A folder "mallory" with a file that looks like the platform's for student 99."""
    for file in ("mallory/x_99_1_hw.ipynb", "mallory/x_99_assignsubmission_file_hw.ipynb"):
        text = make([row("mallory", file=file)], ASSIGNMENT)
        assert "99" not in text
        line = read(text)[-1]
        assert line.get("ID", line.get("Identifier")) == ""
        assert line.get("SIS Login ID", line.get("Username")) == "mallory"


def test_a_student_cannot_pose_as_the_line_of_maxima():
    lines = read(exports.canvas([row(name="x Points Possible")], ASSIGNMENT))
    assert [line["Student"] for line in lines] == ["    Points Possible", "x Points-Possible"]


# Numbers and files.


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, ""), (0.0, "0"), (3.0, "3"), (2.5, "2.5"), (0.1 + 0.2, "0.3"), (7, "7"),
     (120.0, "120"), (9.99999, "10")],
)  # fmt: skip
def test_numbers_are_written_as_people_do(value, text):
    assert exports.number(value) == text


def test_a_file_is_replaced_as_a_whole(tmp_path):
    path = tmp_path / "grades.csv"
    exports.write(path, "one\n")
    exports.write(path, "zwei ü \udc80\n")
    assert path.read_text(encoding="utf-8") == "zwei ü \\udc80\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [p.name for p in tmp_path.iterdir()] == ["grades.csv"]


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "grades.csv"
    exports.write(path, "one\n")

    def full(*args):
        raise OSError("no space left")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="no space left"):
        exports.write(path, "two\n")
    assert path.read_text() == "one\n"
    assert [p.name for p in tmp_path.iterdir()] == ["grades.csv"]
