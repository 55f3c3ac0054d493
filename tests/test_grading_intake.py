"""Intake: every layout, every trick, and nobody lost."""

import hashlib
import io
import os
import pickle
import re
import socket
import stat
import struct
import time
import warnings
import zipfile
from collections import Counter

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from robcourse.grading import files, intake
from robcourse.grading.intake import collect, roster
from robcourse.grading.table import Status

NAME = "01_linear_hypothesis"
BODY = b'{"cells": [], "nbformat": 4}'
MARCH = (2026, 3, 1, 12, 0, 0)
APRIL = (2026, 4, 1, 12, 0, 0)


def make_folder(root, *paths, **contents):
    """Files below root; a path that ends in a slash is an empty folder."""
    for path in paths:
        place = root / path
        if path.endswith("/"):
            place.mkdir(parents=True)
        else:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(contents.get("body", BODY))
    return root


def make_zip(path, *entries, body=BODY):
    """Entries are names, (name, time), or ZipInfo's; a name that ends in a slash is a folder."""
    with zipfile.ZipFile(path, "w") as archive:
        for entry in entries:
            if not isinstance(entry, zipfile.ZipInfo):
                entry = zipfile.ZipInfo(*((entry, MARCH) if isinstance(entry, str) else entry))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # a name twice
                folder = entry.filename.endswith("/")
                archive.writestr(entry, b"" if folder else body, zipfile.ZIP_DEFLATED)
    return path


def packed(*entries, body=BODY) -> bytes:
    stream = io.BytesIO()
    make_zip(stream, *entries, body=body)
    return stream.getvalue()


def link(name, kind=stat.S_IFLNK):
    info = zipfile.ZipInfo(name, MARCH)
    info.create_system, info.external_attr = 3, (kind | 0o777) << 16
    return info


def patched(path, at, offset, form, value):
    """A zip with a field changed in the n-th header of that magic number."""
    content = bytearray(path.read_bytes())
    place = content.index(at) + offset
    content[place : place + struct.calcsize(form)] = struct.pack(form, value)
    path.write_bytes(content)
    return path


def students(found):
    return {s.file: s.student for s in found}


def only(found):
    assert len(found) == 1, found
    return found[0]


BOTH = pytest.mark.parametrize("packing", ["folder", "zip"])


def laid_out(tmp_path, packing, *paths):
    if packing == "folder":
        return make_folder(tmp_path / "in", *paths)
    return make_zip(tmp_path / "in.zip", *paths)


# Layouts.


@BOTH
def test_canvas_flat_names(tmp_path, packing):
    found = collect(
        laid_out(
            tmp_path,
            packing,
            f"smithjane_LATE_12345_678910_{NAME}-1.ipynb",
            f"müllerzoë_23456_678911_{NAME}.ipynb",
            f"anon_x7Qf2_678912_{NAME}.ipynb",
            f"LATE_anon_b3Kd9_678913_{NAME}.ipynb",
            "doejohn_34567_text.html",
            "roejohn_LATE_34568_link.html",
        ),
        NAME,
    )
    got = {s.student: (s.name, s.late, s.problem and s.problem[0]) for s in found}
    assert got == {
        "12345": ("smithjane", True, None),
        "23456": ("müllerzoë", False, None),
        "anon_x7Qf2": ("", False, None),
        "anon_b3Kd9": ("", True, None),
        "34567": ("doejohn", False, Status.NOT_A_NOTEBOOK),
        "34568": ("roejohn", True, Status.NOT_A_NOTEBOOK),
    }


def test_a_date_and_a_time_are_no_user_of_canvas(tmp_path):
    make_folder(tmp_path, "alice_20260301_120000_hw.ipynb", "bob_20260301_120000_hw.ipynb")
    found = collect(tmp_path, NAME)
    assert len({s.student for s in found}) == 2
    assert not any(s.superseded for s in found)


@BOTH
def test_moodle_folders_and_flat_names(tmp_path, packing):
    found = collect(
        laid_out(
            tmp_path,
            packing,
            "Jane Smith_123456_assignsubmission_file_/hw.ipynb",
            "Jane Smith_123456_assignsubmission_onlinetext_/onlinetext.html",
            "Zoë de la Cruz_123457_assignsubmission_file/01_linear.ipynb",
            "Group A-Li Wei_123458_assignsubmission_file_hw_9_assignsubmission_file_x.ipynb",
        ),
        NAME,
    )
    assert [(s.student, s.name, s.problem) for s in found] == [
        ("123456", "Jane Smith", None),
        ("123457", "Zoë de la Cruz", None),
        ("123458", "Group A-Li Wei", None),
    ]


METADATA = """---
submission_1001:
  :submitters:
  - :name: First Last
    :sid: '0123'
    :email: first@example.org
  :created_at: 2026-04-26 17:34:00.861687000 Z
submission_1002:
  :submitters:
  - :name: Pair One
    :sid:
    :email: one@example.org
  - :name: Pair Two
    :sid: 456
submission_1003:
  :submitters: []
submission_1004:
  :submitters:
  - :name: Leading Zero
    :sid: 007
"""


@BOTH
def test_gradescope_reads_who_submitted(tmp_path, packing):
    places = [f"assignment_9_export/submission_{n}/hw.ipynb" for n in range(1001, 1006)]
    if packing == "folder":
        path = make_folder(tmp_path / "in", *places)
        (path / "assignment_9_export/submission_metadata.yml").write_text(METADATA)
    else:
        path = make_zip(tmp_path / "in.zip", *places)
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr("assignment_9_export/submission_metadata.yml", METADATA)
    found = {s.file.split("/")[1]: (s.student, s.name, s.email) for s in collect(path, NAME)}
    assert found == {
        "submission_1001": ("0123", "First Last", "first@example.org"),
        "submission_1002": ("one@example.org", "Pair One", "one@example.org"),
        "submission_1003": ("submission_1003", "", ""),
        "submission_1004": ("007", "Leading Zero", ""),
        "submission_1005": ("submission_1005", "", ""),
    }


@pytest.mark.parametrize(
    "metadata", ["", "[", "- 1", "a: b", "[" * 100_000, "!!python/object/apply:os.abort []", "\0"]
)
def test_broken_metadata_costs_nobody_the_row(tmp_path, metadata):
    make_folder(tmp_path, "submission_1/a.ipynb", "submission_2/a.ipynb")
    (tmp_path / "submission_metadata.yml").write_text(metadata)
    assert [s.student for s in collect(tmp_path, NAME)] == ["submission_1", "submission_2"]


@BOTH
def test_folders_name_the_student(tmp_path, packing):
    places = ["alice/hw.ipynb", f"bob/{NAME}/{NAME}.ipynb", "Zoë Ng/a b/c.IPYNB", "j.doe/x.ipynb"]
    found = collect(laid_out(tmp_path, packing, *places), NAME)
    assert [s.student for s in found] == ["Zoë Ng", "alice", "bob", "j.doe"]
    assert all(s.problem is None and not s.superseded for s in found)


@pytest.mark.parametrize(
    ("file", "student"),
    [
        ("alice.ipynb", "alice"),
        ("Copy of alice.ipynb", "alice"),
        ("Copy of Copy of alice (1).ipynb", "alice"),
        ("alice (1).ipynb", "alice"),
        ("alice(12).ipynb", "alice"),
        ("alice-Copy1.ipynb", "alice"),
        ("alice - Copy (2).ipynb", "alice"),
        ("alice - Kopie.ipynb", "alice"),
        ("alice copy 2.ipynb", "alice"),
        ("Kopie von alice.ipynb", "alice"),
        ("Copie de alice.ipynb", "alice"),
        ("Copia de alice.ipynb", "alice"),
        ("alice.ipynb.txt", "alice"),
        ("alice.pdf", "alice"),
        ("01_linear_hypothesis_alice.ipynb", "alice"),
        ("alice_01_linear_hypothesis.ipynb", "alice"),
        ("alice - 01_linear_hypothesis.ipynb", "alice"),
        ("alice_01_linear_hypothesis-1.ipynb", "alice"),
        ("Alice Lee 01-Linear Hypothesis (3).ipynb", "Alice Lee"),
        ("Copy of 01_linear_hypothesis_s1234567 (1).ipynb", "s1234567"),
        ("alice_2026_01_linear_hypothesis.ipynb", "alice_2026"),
        ("02_attacks_alice.ipynb", "alice"),
        ("01_linear_hypothesis.ipynb", "01_linear_hypothesis"),
        ("01_linear_hypothesis (2).ipynb", "01_linear_hypothesis (2)"),
        ("01_linear_hypothesis-2.ipynb", "01_linear_hypothesis-2"),
        ("Copy of 01_linear_hypothesis.ipynb", "Copy of 01_linear_hypothesis"),
        ("group-1.ipynb", "group-1"),
        ("john.smith.ipynb", "john.smith"),
        ("Copy of .ipynb", "Copy of"),
        ("(1).ipynb", "(1)"),
        ("Zoe\u0308.ipynb", "Zoë"),
        ("李雷.ipynb", "李雷"),
        ("copenhagen.ipynb", "copenhagen"),
    ],
)
def test_a_files_name_names_the_student(tmp_path, file, student):
    make_folder(tmp_path, file)
    assert only(collect(tmp_path, NAME, ["02_attacks"])).student == student


def test_twins_named_after_the_assignment_stay_two(tmp_path):
    make_folder(tmp_path, f"{NAME}.ipynb", f"{NAME} (1).ipynb", f"{NAME} (2).ipynb")
    assert not any(s.superseded for s in collect(tmp_path, NAME))


@pytest.mark.parametrize(
    ("places", "expected"),
    [
        (["submissions/alice/a.ipynb"], ["alice"]),
        ([f"{NAME}/alice.ipynb"], ["alice"]),
        ([f"submitted/{NAME}/alice/a.ipynb", f"submitted/{NAME}/bob/a.ipynb"], ["alice", "bob"]),
        (["week 3/alice/a.ipynb", "week 3/bob/b.ipynb", "README.md"], ["alice", "bob"]),
        (["week 3/alice.ipynb", "week 3/bob.ipynb", "week 3/carol/"], ["alice", "bob", "carol"]),
        (["week 3/smithjane_12_345_a.ipynb"], ["12"]),
        (["week 3/Al_12_assignsubmission_file_/a.ipynb"], ["12"]),
        (["export/submission_5/a.ipynb"], ["submission_5"]),
        (["submissions/week 3/alice/a.ipynb", "submissions/week 3/bob/a.ipynb"], ["alice", "bob"]),
        (["submissions/alice/a.ipynb", "submissions/alice/b.ipynb"], ["alice", "alice"]),
        (["submissions/alice/a.ipynb", "dave.ipynb"], ["dave", "submissions"]),
        # One folder that may well be a student's.
        (["alice/a.ipynb"], ["alice"]),
        (["alice/"], ["alice"]),
        (["alice/a.ipynb", "alice/old/b.ipynb"], ["alice", "alice"]),
        (["alice/01_linear_hypothesis/a.ipynb", "alice/02_attacks/a.ipynb"], ["alice", "alice"]),
        ([f"alice/{NAME}.ipynb", f"alice/Copy of {NAME}.ipynb"], ["alice", "alice"]),
        (
            ["Al_12_assignsubmission_file_/a.ipynb", "Al_12_assignsubmission_file_/b.ipynb"],
            ["12"] * 2,
        ),
    ],
)
@BOTH
def test_a_folder_around_everything_is_nobody(tmp_path, packing, places, expected):
    found = collect(laid_out(tmp_path, packing, *places), NAME, ["02_attacks"])
    assert [s.student for s in found] == expected


def test_one_notebook_is_one_submission(tmp_path):
    make_folder(tmp_path, "alice.ipynb", "bob.ipynb")
    found = only(collect(tmp_path / "alice.ipynb", NAME))
    assert (found.student, found.file, found.read()) == ("alice", "alice.ipynb", BODY)


# What came in, and what counts.


@BOTH
def test_bytes_are_read_when_asked_for(tmp_path, packing):
    one = only(collect(laid_out(tmp_path, packing, "alice/hw.ipynb"), NAME))
    assert one.sha256 == hashlib.sha256(BODY).hexdigest()
    assert pickle.loads(pickle.dumps(one)).read() == BODY


def test_a_file_that_changed_since_is_not_read(tmp_path):
    make_folder(tmp_path, "alice/hw.ipynb")
    one = only(collect(tmp_path, NAME))
    (tmp_path / "alice/hw.ipynb").write_bytes(b"{}")
    with pytest.raises(OSError, match="changed since"):
        one.read()
    (tmp_path / "alice/hw.ipynb").unlink()
    (tmp_path / "alice/hw.ipynb").symlink_to("/etc/hostname")
    with pytest.raises(OSError, match="cannot be read any more"):
        one.read()


def test_the_size_is_checked_again_when_read(tmp_path, monkeypatch):
    make_folder(tmp_path, "alice/hw.ipynb")
    one = only(collect(tmp_path, NAME))
    monkeypatch.setattr(files, "MAX_FILE", 10)
    with pytest.raises(OSError, match="more than"):
        one.read()


def test_the_later_of_two_counts(tmp_path):
    make_folder(tmp_path, "alice/b.ipynb", "alice/a.ipynb", "bob/x.ipynb")
    os.utime(tmp_path / "alice/a.ipynb", ns=(2, 2))
    os.utime(tmp_path / "alice/b.ipynb", ns=(1, 1))
    found = collect(tmp_path, NAME)
    assert [(s.file, s.superseded) for s in found] == [
        ("alice/b.ipynb", True),
        ("alice/a.ipynb", False),
        ("bob/x.ipynb", False),
    ]


def test_in_a_zip_the_time_of_the_entry_counts(tmp_path):
    path = make_zip(tmp_path / "in.zip", ("alice (1).ipynb", MARCH), ("alice.ipynb", APRIL))
    assert [(s.file, s.superseded) for s in collect(path, NAME)] == [
        ("alice (1).ipynb", True),
        ("alice.ipynb", False),
    ]


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        ("smithjane_12_1000_a.ipynb", "smithjane_12_999999_a.ipynb"),  # the platform's number
        ("smithjane_12_99999999_z.ipynb", "smithjane_12_100000000_a.ipynb"),
        ("alice.ipynb", "alice (1).ipynb"),
        ("alice (9).ipynb", "Copy of alice (10).ipynb"),
        ("submissions/alice/hw-9.ipynb", "submissions/alice/hw-10.ipynb"),
        ("Al_7_assignsubmission_file_/p9b.ipynb", "Al_7_assignsubmission_file_/p10a.ipynb"),
    ],
)
def test_ties_are_broken_by_number_and_name(tmp_path, earlier, later):
    for order in (earlier, later), (later, earlier):
        found = collect(make_zip(tmp_path / "in.zip", *order), NAME)
        assert [(s.file, s.superseded) for s in found] == [(earlier, True), (later, False)]


def test_what_cannot_be_graded_never_supersedes(tmp_path):
    path = make_zip(
        tmp_path / "in.zip",
        ("alice/hw.ipynb", MARCH),
        ("../alice/hw2.ipynb", APRIL),
        link("alice/z.ipynb"),
    )
    found = {s.file: (s.student, s.superseded) for s in collect(path, NAME)}
    assert found == {
        "alice/hw.ipynb": ("alice", False),
        "../alice/hw2.ipynb": ("alice", True),
        "alice/z.ipynb": ("alice", True),
    }
    path = make_zip(tmp_path / "flat.zip", "lee_12_345_hw.ipynb", ("lee_12_999_fig.png", APRIL))
    found = {s.file: s.superseded for s in collect(path, NAME)}
    assert found == {"lee_12_345_hw.ipynb": False, "lee_12_999_fig.png": True}


def test_our_failure_does_not_make_an_older_file_count(tmp_path, monkeypatch):
    make_folder(tmp_path, "alice/a.ipynb", "alice/b.ipynb", "bob/b.ipynb")
    os.utime(tmp_path / "alice/a.ipynb", ns=(1, 1))
    opened = os.open

    def failing(path, *args, **kwargs):
        if str(path).endswith("alice/b.ipynb"):
            raise PermissionError(13, "Permission denied")
        return opened(path, *args, **kwargs)

    monkeypatch.setattr(os, "open", failing)
    a, b, bob = collect(tmp_path, NAME)
    assert b.problem == (
        Status.INFRA_ERROR,
        "it cannot be read on this machine: Permission denied",
    )
    assert (a.superseded, b.superseded, bob.problem) == (True, False, None)


def test_a_folder_that_cannot_be_read_is_a_row(tmp_path, monkeypatch):
    make_folder(tmp_path, "j.doe/a.ipynb", "bob/b.ipynb")
    scan = os.scandir

    def failing(path):
        if str(path).endswith("doe"):
            raise PermissionError(13, "Permission denied")
        return scan(path)

    monkeypatch.setattr(os, "scandir", failing)
    bob, doe = collect(tmp_path, NAME)
    assert (doe.student, doe.problem[0], bob.problem) == ("j.doe", Status.INFRA_ERROR, None)


@pytest.mark.parametrize(
    ("file", "other"),
    [
        ("alice/02_attacks.ipynb", "02_attacks"),
        ("alice/Copy of 02_attacks (1).ipynb", "02_attacks"),
        ("alice/02_attacks/hw.ipynb", "02_attacks"),
        ("02_attacks_alice.ipynb", "02_attacks"),
        ("smithjane_12_345_02-Attacks-1.ipynb", "02_attacks"),
        ("alice/02_attacks/01_linear_hypothesis.ipynb", ""),
        ("alice/02_attacks_black_box.ipynb", "02_attacks_black_box"),
        ("alice/hw.ipynb", ""),
    ],
)
def test_a_file_called_after_another_assignment_says_so(tmp_path, file, other):
    make_folder(tmp_path, file)
    others = [NAME, "02_attacks", "02_attacks_black_box"]
    assert only(collect(tmp_path, NAME, others)).other == other


def test_another_assignments_notebook_does_not_supersede(tmp_path):
    make_folder(tmp_path, "alice/01_linear_hypothesis.ipynb", "alice/02_attacks.ipynb", "bob/")
    os.utime(tmp_path / "alice/01_linear_hypothesis.ipynb", ns=(1, 1))
    found = collect(tmp_path, NAME, ["02_attacks"])
    assert [s.superseded for s in found if s.student == "alice"] == [False, True]


@pytest.mark.parametrize(
    ("places", "file", "words"),
    [
        (["bob/homework.pdf"], "bob/homework.pdf", "homework.pdf is no notebook"),
        (["bob/x.ipynb.txt"], "bob/x.ipynb.txt", "x.ipynb.txt is no notebook"),
        (["bob/a.py", "bob/b/c.py"], "bob", "no .ipynb in what was handed in: a.py, b/c.py"),
        ([f"bob/{n}.py" for n in range(9)], "bob", "0.py, 1.py, 2.py and 6 more"),
        (["bob/"], "bob", "the folder is empty"),
        (["bob/sub/"], "bob", "the folder is empty"),
        (["bob/.ipynb_checkpoints/x.ipynb"], "bob", "hidden files are passed over"),
        (["bob.pdf"], "bob.pdf", "bob.pdf is no notebook"),
        (["bob"], "bob", "bob is no notebook"),
    ],
)
@BOTH
def test_who_handed_in_no_notebook_has_one_row(tmp_path, packing, places, file, words):
    if packing == "zip" and places[0].startswith("bob/."):
        places = ["bob/", *places]
    bob = collect(laid_out(tmp_path, packing, "alice/hw.ipynb", *places), NAME)[1:]
    one = only(bob)
    assert (one.student, one.file, one.problem[0]) == ("bob", file, Status.NOT_A_NOTEBOOK)
    assert words in one.problem[1]
    with pytest.raises(ValueError, match="has a problem"):
        one.read()


@BOTH
def test_what_a_system_leaves_behind_is_passed_over(tmp_path, packing):
    rubbish = [
        "__MACOSX/alice/._hw.ipynb",
        "alice/.ipynb_checkpoints/hw-checkpoint.ipynb",
        "alice/._hw.ipynb",
        "alice/.DS_Store",
        ".DS_Store",
        "Thumbs.db",
        "desktop.ini",
        "README.md",
        "alice/.git/x.ipynb",
    ]
    found = collect(laid_out(tmp_path, packing, "alice/hw.ipynb", "bob/hw.ipynb", *rubbish), NAME)
    assert [s.file for s in found] == ["alice/hw.ipynb", "bob/hw.ipynb"]


def test_a_file_beside_the_folders_is_a_submission(tmp_path):
    make_folder(tmp_path, "alice/hw.ipynb", "carol.ipynb", "dave.pdf")
    assert [s.student for s in collect(tmp_path, NAME)] == ["alice", "carol", "dave"]


# A student's own zip.


@BOTH
def test_a_students_own_zip_is_looked_into(tmp_path, packing):
    inner = packed("hw.ipynb", "data/x.csv", "__MACOSX/._hw.ipynb", "old/hw (1).ipynb")
    if packing == "folder":
        path = make_folder(tmp_path / "in", "alice/work.zip", "bob.zip", body=inner)
    else:
        path = make_zip(tmp_path / "in.zip", "alice/work.zip", "bob.zip", body=inner)
    found = collect(path, NAME)
    assert students(found) == {
        "alice/work.zip/hw.ipynb": "alice",
        "alice/work.zip/old/hw (1).ipynb": "alice",
        "bob.zip/hw.ipynb": "bob",
        "bob.zip/old/hw (1).ipynb": "bob",
    }
    assert [s.read() for s in found] == [BODY] * 4
    assert sum(not s.superseded for s in found) == 2


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (packed("a.py", "b/c.txt"), "work.zip holds no .ipynb, but a.py, b/c.txt"),
        (packed("inner.zip", body=packed("hw.ipynb")), "holds no .ipynb, but inner.zip"),
        (packed(), "but nothing"),
        (b"PK\3\4 rubbish", "damaged"),
        (b"", "the file is empty"),
        (packed(*[f"{n}.py" for n in range(intake.MAX_OWN_ENTRIES + 1)]), "more than 5000 files"),
    ],
    ids=["no notebook", "zip in zip in folder", "empty zip", "rubbish", "no bytes", "too many"],
)
@pytest.mark.parametrize("file", ["alice/work.zip", "lee_12_345_work.zip"])
def test_an_own_zip_without_a_notebook_is_one_row(tmp_path, file, content, words):
    make_folder(tmp_path, file, body=content)
    one = only(collect(tmp_path, NAME))
    assert (one.student, one.file) == ("alice" if "/" in file else "12", file)
    assert one.problem[0] is Status.NOT_A_NOTEBOOK
    assert words in one.problem[1]


def test_the_time_of_an_own_zip_goes_before_the_times_in_it(tmp_path):
    make_folder(tmp_path, "alice/", "bob/hw.ipynb")
    make_zip(tmp_path / "alice/first.zip", ("b.ipynb", APRIL), ("a.ipynb", (2026, 5, 1, 0, 0, 0)))
    make_zip(tmp_path / "alice/again.zip", ("c.ipynb", MARCH))
    os.utime(tmp_path / "alice/first.zip", ns=(1, 1))
    found = [s.file.rpartition("/")[2] for s in collect(tmp_path, NAME)]
    assert found == ["b.ipynb", "a.ipynb", "c.ipynb", "hw.ipynb"]


def test_an_own_zip_cannot_reach_another_student(tmp_path):
    make_folder(tmp_path, "bob/hw.ipynb")
    inner = packed("../bob/hw.ipynb", "../../bob/hw2.ipynb", "/bob/hw3.ipynb")
    make_folder(tmp_path, "alice/work.zip", body=inner)
    found = collect(tmp_path, NAME)
    assert Counter(s.student for s in found) == {"alice": 3, "bob": 1}
    assert all(s.problem[0] is Status.SUSPECT for s in found if s.student == "alice")
    assert found[-1].problem is None
    assert not found[-1].superseded


# Hostile zips.


@pytest.mark.parametrize(
    ("name", "student", "words"),
    [
        ("../evil/x.ipynb", "evil", "leads out of the zip"),
        ("evil/../../bob/x.ipynb", "evil", "leads out of the zip"),
        ("/etc/x.ipynb", "etc", "is absolute"),
        ("C:/evil/x.ipynb", "C:", "names a drive"),
        ("evil\\x.ipynb", "evil", "has a backslash"),
        ("..\\evil\\x.ipynb", "evil", "leads out of the zip"),
        ("../.ssh/authorized_keys", "ssh", "leads out of the zip"),
        ("..", "unnamed", "leads out of the zip"),
        ("e/" + "x" * 2000 + ".ipynb", "e", "more than 1000 characters"),
    ],
)
def test_a_path_trick_is_a_row_and_nothing_else(tmp_path, name, student, words):
    path = make_zip(tmp_path / "in.zip", "alice/hw.ipynb", name, "bob/hw.ipynb")
    before = sorted(tmp_path.rglob("*"))
    found = {s.student: s for s in collect(path, NAME)}
    assert set(found) == {"alice", "bob", student}
    assert found[student].problem[0] is Status.SUSPECT
    assert words in found[student].problem[1]
    assert found["alice"].read() == found["bob"].read() == BODY
    assert sorted(tmp_path.rglob("*")) == before


def test_a_null_character_in_a_name(tmp_path):
    path = make_zip(tmp_path / "in.zip", "alice/hw.ipynb", "bob/hwX.ipynb")
    path.write_bytes(path.read_bytes().replace(b"hwX.ipynb", b"hw\0.ipynb"))
    alice, bob = collect(path, NAME)
    assert (alice.problem, bob.problem[0]) == (None, Status.SUSPECT)


def test_a_path_trick_does_not_hide_the_folder_around(tmp_path):
    path = make_zip(
        tmp_path / "in.zip", "submissions/alice.ipynb", "../evil/x.ipynb", "../submissions"
    )
    found = collect(path, NAME)
    assert [s.student for s in found] == ["alice", "evil", "submissions"]


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_links_and_devices_in_a_zip(tmp_path, kind):
    path = make_zip(tmp_path / "in.zip", "alice/hw.ipynb", link("bob/hw.ipynb", kind))
    alice, bob = collect(path, NAME)
    assert (alice.problem, bob.problem[0]) == (None, Status.SUSPECT)


def test_a_name_twice_is_suspect_and_two_rows(tmp_path):
    path = make_zip(tmp_path / "in.zip", "alice/hw.ipynb", "bob/hw.ipynb", "bob/hw.ipynb")
    alice, *bob = collect(path, NAME)
    assert alice.problem is None
    assert [s.file for s in bob] == ["bob/hw.ipynb", "bob/hw.ipynb#2"]
    assert {s.problem[0] for s in bob} == {Status.SUSPECT}


def _encrypted(path):
    return patched(patched(path, b"PK\1\2", 8, "<H", 1), b"PK\3\4", 6, "<H", 1)


def _method(path):
    return patched(patched(path, b"PK\1\2", 10, "<H", 99), b"PK\3\4", 8, "<H", 99)


@pytest.mark.parametrize(
    ("break_", "words"),
    [
        (_encrypted, "encrypted: hand it in without"),
        (_method, "packed by a method"),
        (lambda p: patched(p, b"PK\1\2", 16, "<I", 7), "damaged"),  # the checksum
        (lambda p: patched(p, b"PK\3\4", 0, "<I", 7), "damaged"),  # no header
        (lambda p: patched(p, b"PK\1\2", 42, "<I", 2**31), "damaged"),  # begins nowhere
        (lambda p: patched(p, b"PK\1\2", 24, "<I", 10), "damaged"),  # announces fewer bytes
        (lambda p: patched(p, b"PK\1\2", 24, "<I", 10_000), "damaged"),  # announces more
        (lambda p: patched(p, b"PK\1\2", 24, "<I", 2**31), "2048 MB, more than the 256 MB"),
        (lambda p: patched(p, b"PK\1\2", 24, "<I", 0), "damaged"),
        (lambda p: patched(p, b"PK\1\2", 20, "<I", 10_000), "damaged"),  # reaches into the next
    ],
)
@pytest.mark.parametrize("inside", [False, True])
def test_damaged_entries_are_rows_and_the_rest_goes_on(tmp_path, break_, words, inside):
    path = break_(make_zip(tmp_path / "in.zip", "bad/hw.ipynb", "good/hw.ipynb"))
    if inside:
        content = path.read_bytes()
        path = make_folder(tmp_path / "in", "alice/work.zip", body=content)
    bad, good = sorted(collect(path, NAME), key=lambda s: s.file)
    assert bad.problem[0] is Status.NOT_A_NOTEBOOK
    assert words in bad.problem[1]
    assert good.problem is None
    assert good.read() == BODY


def test_entries_that_begin_before_the_zip_are_damaged(tmp_path):
    path = make_zip(tmp_path / "in.zip", "alice/hw.ipynb")
    one = only(collect(patched(path, b"PK\5\6", 16, "<I", 100_000), NAME))
    assert one.problem[0] is Status.NOT_A_NOTEBOOK


def test_files_that_share_their_bytes_are_a_bomb(tmp_path):
    path = make_zip(tmp_path / "in.zip", "aaaa/hw.ipynb", "bbbb/hw.ipynb", "good/hw.ipynb")
    content = path.read_bytes()
    second = content.index(b"PK\1\2", content.index(b"PK\1\2") + 1)
    path.write_bytes(content[: second + 42] + struct.pack("<I", 0) + content[second + 46 :])
    found = {s.student: s.problem for s in collect(path, NAME)}
    assert found["aaaa"][0] is found["bbbb"][0] is Status.NOT_A_NOTEBOOK
    assert found["good"] is None


@pytest.fixture(scope="module")
def bomb() -> bytes:
    return packed("hw.ipynb", body=bytes(300 * 2**20))


def test_a_zip_bomb_is_not_read(tmp_path, bomb):
    assert len(bomb) < 2**20
    make_folder(tmp_path, "evil/work.zip", body=bomb)
    make_folder(tmp_path, "alice/hw.ipynb")
    begun = time.process_time()
    alice, evil = collect(tmp_path, NAME)
    assert evil.problem == (
        Status.NOT_A_NOTEBOOK,
        "300 MB, more than the 256 MB that are read: clear its outputs",
    )
    assert alice.problem is None
    assert time.process_time() - begun < 1


def test_a_bomb_that_lies_about_its_size_is_not_read(tmp_path, bomb):
    lying = patched(make_folder(tmp_path, "b", body=bomb) / "b", b"PK\1\2", 24, "<I", 1000)
    one = only(collect(make_zip(tmp_path / "in.zip", "evil/b.zip", body=lying.read_bytes()), NAME))
    assert one.problem[0] is Status.NOT_A_NOTEBOOK
    assert "damaged" in one.problem[1]


def test_what_one_student_hands_in_has_a_limit_together(tmp_path, monkeypatch):
    monkeypatch.setattr(intake, "MAX_STUDENT", 3 * len(BODY))
    names = [f"evil/{n}.ipynb" for n in range(5)]
    found = collect(make_zip(tmp_path / "in.zip", *names, "alice/hw.ipynb"), NAME)
    assert [s.problem is None for s in found] == [True, True, True, True, False, False]
    assert "of one student" in found[-1].problem[1]


def test_only_so_many_notebooks_of_one_student_are_executed(tmp_path):
    names = [f"evil/{n}.ipynb" for n in range(intake.MAX_NOTEBOOKS + 3)]
    found = collect(make_zip(tmp_path / "in.zip", *names, "alice/hw.ipynb"), NAME)[1:]
    assert [s.problem is None for s in found] == [False] * 3 + [True] * intake.MAX_NOTEBOOKS
    assert [s.superseded for s in found] == [True] * (len(found) - 1) + [False]


def test_a_zip_of_too_many_entries_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(intake, "MAX_ENTRIES", 2)
    with pytest.raises(ValueError, match=r"holds 3 files.*unpack it"):
        collect(make_zip(tmp_path / "in.zip", "a.ipynb", "b.ipynb", "c.ipynb"), NAME)


@pytest.mark.parametrize("name", ["Zoë/hw.ipynb", "Zoe\u0308/hw.ipynb"])
def test_names_in_a_zip_that_does_not_say_utf8(tmp_path, name):
    plain = name.encode()
    path = make_zip(tmp_path / "in.zip", "a" * len(plain), "x/y.ipynb")
    path.write_bytes(path.read_bytes().replace(b"a" * len(plain), plain))
    assert [s.student for s in collect(path, NAME)] == ["Zoë", "x"]


def test_names_in_a_zip_of_the_old_code_page(tmp_path):
    path = make_zip(tmp_path / "in.zip", "aaaa.ipynb", "b.ipynb")
    path.write_bytes(path.read_bytes().replace(b"aaaa", "Zoë1".encode("cp437")))
    assert [s.student for s in collect(path, NAME)] == ["Zoë1", "b"]


# Hostile folders.


def test_links_are_never_followed(tmp_path):
    outside = make_folder(tmp_path / "outside", "secret.ipynb", "secret.zip")
    root = make_folder(tmp_path / "in", "alice/hw.ipynb", "bob/")
    (root / "bob/hw.ipynb").symlink_to(outside / "secret.ipynb")
    (root / "bob/loop").symlink_to(root)
    (root / "carol").symlink_to(outside)
    (root / "dave.zip").symlink_to(outside / "secret.zip")
    found = collect(root, NAME)
    assert students(found) == {
        "alice/hw.ipynb": "alice",
        "bob/hw.ipynb": "bob",
        "bob/loop": "bob",
        "carol": "carol",
        "dave.zip": "dave",
    }
    assert [s.problem and s.problem[0] for s in found] == [None] + [Status.SUSPECT] * 4


def test_pipes_and_sockets_are_never_opened(tmp_path):
    make_folder(tmp_path, "alice/hw.ipynb", "bob/", "carol/")
    os.mkfifo(tmp_path / "bob/hw.ipynb")
    with socket.socket(socket.AF_UNIX) as one:
        here = os.getcwd()
        os.chdir(tmp_path / "carol")  # the path of a socket is short
        try:
            one.bind("hw.ipynb")
        finally:
            os.chdir(here)
        found = collect(tmp_path, NAME)
    assert [s.problem and s.problem[0] for s in found] == [None] + [Status.SUSPECT] * 2


def test_a_file_that_became_a_pipe_does_not_hang(tmp_path):
    make_folder(tmp_path, "alice/hw.ipynb")
    one = only(collect(tmp_path, NAME))
    (tmp_path / "alice/hw.ipynb").unlink()
    os.mkfifo(tmp_path / "alice/hw.ipynb")
    with pytest.raises(OSError, match="pipe"):
        one.read()


def test_sizes(tmp_path):
    make_folder(tmp_path, "empty/a.ipynb", "huge/a.ipynb", "large/a.ipynb", body=b"")
    for student, size in (("huge", 257 * 2**20), ("large", 100 * 2**20)):
        with open(tmp_path / student / "a.ipynb", "wb") as file:
            file.truncate(size)
    empty, huge, large = collect(tmp_path, NAME)
    assert empty.problem == (Status.NOT_A_NOTEBOOK, "the file is empty")
    assert "257 MB, more than the 256 MB" in huge.problem[1]
    assert large.problem is None
    assert (empty.sha256, huge.sha256, len(large.read())) == ("", "", 100 * 2**20)


@pytest.mark.parametrize(
    ("name", "student"),
    [
        (b"a\x01b\n.ipynb", "a_b"),
        (b"a\xff.ipynb", "a_"),
        ("a\u202eb.ipynb".encode(), "a_b"),
        (b"a\\b.ipynb", "a_b"),
        (b" .ipynb", "_ipynb"),
        (b" ...ipynb", "_"),
        (("é" * 120 + ".ipynb").encode(), None),
    ],
)
def test_an_id_can_stand_in_the_name_of_a_file(tmp_path, name, student):
    with open(os.fsencode(tmp_path) + b"/" + name, "wb") as file:
        file.write(BODY)
    one = only(collect(tmp_path, NAME))
    assert student is None or one.student == student
    (tmp_path / f"{one.student}.html").write_text(f"{one.student} {one.file}", encoding="utf-8")
    assert one.read() == BODY


# What is no batch.


def test_what_is_no_batch_says_so(tmp_path):
    with pytest.raises(FileNotFoundError, match="typing slip"):
        collect(tmp_path / "gone", NAME)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no submission"):
        collect(tmp_path / "empty", NAME)
    with pytest.raises(ValueError, match="no submission"):
        collect(make_zip(tmp_path / "none.zip", "README.md"), NAME)
    (tmp_path / "in.tar.gz").write_bytes(b"\x1f\x8b")
    with pytest.raises(ValueError, match="unpack any other archive"):
        collect(tmp_path / "in.tar.gz", NAME)
    (tmp_path / "broken.zip").write_bytes(b"PK\3\4")
    with pytest.raises(ValueError, match="download it again"):
        collect(tmp_path / "broken.zip", NAME)
    os.mkfifo(tmp_path / "pipe.ipynb")
    with pytest.raises(ValueError, match="expected a folder, a zip"):
        collect(tmp_path / "pipe.ipynb", NAME)


def test_a_thousand_small_files_take_a_moment(tmp_path):
    make_folder(tmp_path / "in", *(f"s{n}/hw.ipynb" for n in range(1000)))
    path = make_zip(tmp_path / "in.zip", *(f"s{n}/hw.ipynb" for n in range(1000)))
    for place in (tmp_path / "in", path):
        begun = time.process_time()
        assert len(collect(place, NAME)) == 1000
        assert time.process_time() - begun < 2


def test_a_long_name_of_blanks_takes_a_moment(tmp_path):
    names = ["a" + " " * 900 + "b.ipynb", "(" * 900 + ".ipynb", "1_" * 400 + ".ipynb"]
    begun = time.process_time()
    assert len(collect(make_zip(tmp_path / "in.zip", *names), NAME)) == 3
    assert time.process_time() - begun < 2


# Whatever the names are.

LETTERS = st.text(
    st.one_of(
        st.sampled_from("ab12_-. ()/\\:\n\x7f\u202e\u0308é李"),
        st.characters(codec="utf-8", exclude_characters="\0"),
    ),
    max_size=12,
)
WORDS = st.sampled_from(
    ["alice", NAME, "Copy of ", " (1)", "_12_345_", "_9_assignsubmission_file_", "submission_7",
     "submissions", "/", "../", ".ipynb", ".zip", ".pdf", "README", ".DS_Store", "LATE_", "anon_x"]
)  # fmt: skip
ENTRY = st.lists(st.one_of(WORDS, LETTERS), min_size=1, max_size=5).map("".join)


@given(st.lists(st.tuples(ENTRY, st.sampled_from(["", ".ipynb"])), min_size=1, max_size=6))
@example([("..", ""), ("/", ""), ("a/b", ".ipynb")])
@example([("submissions/x#2", ".ipynb"), ("submissions/x#2", ".ipynb")])
@example([("9" * 5000, ".ipynb"), ("(" + "9" * 900 + ")", ".ipynb")])
def test_whatever_the_names_are_nobody_is_lost(tmp_path_factory, names):
    names = [a + b for a, b in names]
    path = make_zip(tmp_path_factory.mktemp("in") / "in.zip", *names)
    with zipfile.ZipFile(path) as archive:
        names = [i.orig_filename for i in archive.infolist()]
    try:
        found = collect(path, NAME, ["02_attacks"])
    except ValueError as error:
        assert not any(re.fullmatch(r"\w+\.ipynb", n) for n in names), error  # noqa: PT017
        return
    assert len({s.file for s in found}) == len(found)
    assert len({s.student for s in found}) == sum(not s.superseded for s in found)
    for one in found:
        assert one.student.isprintable()
        assert one.student.strip(". ")
        assert "/" not in one.student
        assert len(one.student.encode()) <= 120
        assert one.problem or one.read() == BODY
    hidden = re.compile(r"(^|[/\\])(\.(?![/\\]|\.[/\\])|__MACOSX|Thumbs|desktop)", re.I)
    visible = [n for n in names if n.strip().lower().endswith(".ipynb") and not hidden.search(n)]
    visible = [n for n in visible if len(n) < 1000]
    rows = [s.file for s in found if re.search(r"\.ipynb\s*(#\d+)?$", s.file, re.I)]
    assert len(rows) >= len(visible)
    safe = {n for n in names if re.fullmatch(r"[a-z0-9]+/[a-z0-9]+\.ipynb", n)}
    assert safe <= {s.file for s in found}
    assert collect(path, NAME, ["02_attacks"]) == found


@given(st.lists(ENTRY, min_size=1, max_size=4), st.binary(max_size=200))
def test_whatever_an_own_zip_holds_the_batch_goes_on(tmp_path_factory, names, noise):
    root = tmp_path_factory.mktemp("in")
    content = packed(*names)
    middle = len(content) // 2
    content = content[:middle] + noise + content[middle + len(noise) :]
    make_folder(root, "evil/work.zip", body=content)
    make_folder(root, "good/hw.ipynb")
    found = collect(root, NAME)
    assert {s.student for s in found} == {"evil", "good"}
    assert found[-1].read() == BODY


# The roster.


@pytest.mark.parametrize(
    "text",
    [
        "student,name,email\n12,Jane Smith,j@x.org\nzoe,,\n",
        "Student;Name;E-Mail;Email\r\n12;Jane Smith;;j@x.org\r\n\r\nzoe;;;\r\n",
        "\ufeffname\tSTUDENT\temail\nJane Smith\t 12 \tj@x.org\n\tzoe\t\n",
        'email,"student",name\nj@x.org,12,"Jane Smith"\n,zoe\n',
    ],
)
def test_a_roster_is_read(tmp_path, text):
    path = tmp_path / "roster.csv"
    path.write_text(text, encoding="utf-8", newline="")
    found = roster(path)
    assert list(found) == ["12", "zoe"]
    assert found["12"] == intake.Student("12", "Jane Smith", "j@x.org")
    assert found["zoe"] == intake.Student("zoe")


def test_a_roster_and_a_folder_agree_on_an_id(tmp_path):
    make_folder(tmp_path / "in", "Zoe\u0308/hw.ipynb")
    (tmp_path / "r.csv").write_text("student\nZoë\n", encoding="utf-8")
    assert only(collect(tmp_path / "in", NAME)).student in roster(tmp_path / "r.csv")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"name,email\nJane,j@x.org\n", "line 1: no column `student`, only: name, email"),
        (b"", "line 1: no column `student`, only: nothing"),
        (b"student\n", "line 1: there are no students"),
        (b"student,name\na,A\n,B\n", "line 3: the id of the student is empty"),
        (b"student\na\nb\na\n", "line 4: a is there already, in line 2"),
        (b"student,name\na,Smith, Jane\n", "line 2: 3 cells in 2 columns"),
        ("student\na\nZoë\n".encode("latin-1"), "line 3: not UTF-8"),
        ("student\na\n".encode("utf-16"), "line 1: not UTF-8"),
        (b'student,name\na,"' + b"x" * 200_000 + b'"\n', "line 2: field larger"),
    ],
)
def test_a_roster_with_a_mistake_names_the_line(tmp_path, content, words):
    path = tmp_path / "roster.csv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(words)):
        roster(path)
