"""The command says what is wrong with what was typed, and the guide says what it can do."""

import re
from pathlib import Path

import pytest
import torch

from robcourse import checks, cli
from robcourse.grading.assignment import checks_of

ROOT = Path(__file__).resolve().parents[1]
GUIDE = (ROOT / "book/instructor.md").read_text()
NAME = "01_linear_hypothesis"


@pytest.fixture
def submissions(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "alice.ipynb").write_text("{}")
    return folder


def said(capsys, *words: str) -> str:
    """What the command says when it refuses; nothing is written before it knows."""
    assert cli.main(["grade", *words]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert len(shown.err.splitlines()) == 1
    assert shown.err.startswith("robcourse: ")
    return shown.err


def test_what_is_missing_is_named(capsys, submissions):
    assert "needed: submissions, assignment, out" in said(capsys)
    assert "needed: out;" in said(capsys, str(submissions), "--assignment", NAME)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"--assignment": "1"}, "no assignment '1'; there are: 01_linear_hypothesis"),
        ({"--course": "/nowhere"}, "is /nowhere the folder of the course?"),
        ({"": "/nowhere"}, "/nowhere, which is not there"),
        ({"--roster": "/nowhere.csv"}, "/nowhere.csv"),
        ({"--checks": "/nowhere.py"}, "/nowhere.py"),
        ({"--timeout": "0"}, "seconds is 0.0: expected at least 1"),
        ({"--memory": "0.1"}, "expected at least 1 GiB"),
        ({"--scheduler": "nonsense"}, "nonsense"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line(
    capsys, monkeypatch, submissions, tmp_path, change, words
):
    monkeypatch.setattr("robcourse.grading.selftest.demand", lambda *a: None)
    given = {"": str(submissions), "--assignment": NAME, "--out": str(tmp_path / "out"),
             "--course": str(ROOT)} | change  # fmt: skip
    line = [w for option, value in given.items() for w in (option, value) if w]
    assert words in said(capsys, *line)
    assert not (tmp_path / "out/grades.csv").exists()


@pytest.mark.parametrize("workers", ["0", "-1", "many", "1000"])
def test_a_number_of_workers_that_makes_no_sense_is_refused(capsys, workers):
    with pytest.raises(SystemExit):
        cli.main(["grade", "x", "--workers", workers])
    assert "expected a number from 1 to 200" in capsys.readouterr().err


def test_the_guide_names_every_option_and_no_other(capsys):
    with pytest.raises(SystemExit):
        cli.main(["grade", "--help"])
    there = set(re.findall(r"--[a-z][a-z-]+", capsys.readouterr().out)) - {"--help"}
    rows = "\n".join(line for line in GUIDE.splitlines() if line.startswith("| `--"))
    typed = [block for block in re.findall(r"```sh\n(.*?)```", GUIDE, re.S) if "grade" in block]
    ours = (line for block in typed for line in re.findall(r"robcourse grade(?:.*\\\n)*.*", block))
    told = set(re.findall(r"--[a-z][a-z-]+", rows + "\n".join(ours)))
    assert told == there


def test_the_guides_variant_is_right_about_right_and_wrong():
    text = next(t for t in re.findall(r"```python\n(.*?)```", GUIDE, re.S) if "variants.py" in t)
    check = checks_of(NAME, text)["distance"]

    def right(w, b, x, norm):
        return (x @ w + b).abs() / w.norm()

    def wrong(w, b, x, norm):
        return (x @ w + b).abs() / torch.linalg.vector_norm(w, 1)

    for f, status in ((right, "right"), (wrong, "wrong"), (lambda *a: 3.0, "wrong")):
        given = [checks.decode(a) for a in checks.answers(check, f, 5)]
        assert checks.judge(check, given, 5).status == status
