"""What comes back from a sandbox is read strictly, judged here, and put into words."""

import json
import re
from pathlib import Path

import pytest

from robcourse import checks
from robcourse.grading import flags, marking, runner
from robcourse.grading.assignment import checks_of, load
from robcourse.grading.intake import Submission
from robcourse.grading.marking import Broken, Forged, mark
from robcourse.grading.sandbox import Ended, Limits
from robcourse.grading.table import Flag, Result, Row, Status, Verdict

ROOT = Path(__file__).resolve().parents[1]
NAME = "01_linear_hypothesis"
ORDER = {"exercises": {"distance": (), "fgsm": ()}}
TRUE = [
    {"alive": True},
    {"cells": [{"id": "a", "cell_type": "code", "source": "", "tags": [], "points": None}],
     "saved": {}, "uses": {}},
    {"imported": True, "there": []},
    {"errors": {}, "late": []},
    {"exercise": "distance", "answers": []},
    {"exercise": "fgsm", "undefined": True},
    {"end": {}},
]  # fmt: skip


def ended(lines, how="exit", code=0) -> Ended:
    text = "".join(json.dumps(line) + "\n" if not isinstance(line, str) else line for line in lines)
    return Ended(how, code, text.encode(), "words of bwrap", 1.0)


@pytest.fixture(scope="module")
def course():
    return load(ROOT, NAME)


@pytest.fixture(scope="module")
def solved():
    return json.loads((ROOT / f"solutions/{NAME}.ipynb").read_text())["cells"]


def test_a_true_transcript_is_read(course):
    said = marking._read(ended(TRUE), ORDER)
    assert said["ended"]
    assert said["answered"] == {"distance": {"answers": []}, "fgsm": {"undefined": True}}


@pytest.mark.parametrize("length", range(3, len(TRUE)))
def test_a_transcript_that_stops_is_not_ended_and_not_forged(length):
    said = marking._read(ended(TRUE[:length]), ORDER)
    assert not said["ended"]
    assert len(said["answered"]) == max(0, min(2, length - 4))


FORGED = {
    "twice": [*TRUE[:5], TRUE[4], *TRUE[5:]],
    "out of order": [*TRUE[:4], TRUE[5], TRUE[4], TRUE[6]],
    "after the end": [*TRUE, TRUE[4]],
    "points": [*TRUE[:4], {"exercise": "distance", "answers": [], "points": 9}],
    "unknown field": [*TRUE[:4], {"exercise": "distance", "right": True}],
    "another exercise": [*TRUE[:4], {"exercise": "pgd", "answers": []}],
    "a second beginning": [*TRUE[:3], TRUE[0]],
    "a list": [*TRUE[:4], "[]\n"],
    "no JSON": [*TRUE[:4], "right\n"],
    "no newline": [*TRUE, "x"],
    "deep": [*TRUE[:4], "[" * 100_000 + "\n"],
    "long": [*TRUE[:4], json.dumps({"exercise": "distance", "answers": ["x" * (9 << 20)]}) + "\n"],
    "a late cell that is not there": [*TRUE[:3], {"errors": {}, "late": [int("9" * 4000)]}],
    "a late cell twice": [*TRUE[:3], {"errors": {}, "late": [0, 0]}],
    "errors of another kind": [*TRUE[:3], {"errors": [], "late": []}],
    "a late cell of another kind": [*TRUE[:3], {"errors": {}, "late": ["1"]}],
}


@pytest.mark.parametrize("kind", FORGED)
def test_any_other_transcript_is_forged(kind):
    with pytest.raises(Forged):
        marking._read(ended(FORGED[kind]), ORDER)


def test_more_than_may_come_back_is_forged():
    with pytest.raises(Forged, match="more than 32 MiB"):
        marking._read(ended(TRUE, how="output"), ORDER)


@pytest.mark.parametrize("length", [0, 2])
def test_a_runner_that_does_not_start_is_our_failure(length):
    with pytest.raises(Broken, match="words of bwrap"):
        marking._read(ended(TRUE[:length], code=1), ORDER)


def test_a_notebook_that_kills_its_reader_is_not_our_failure():
    assert "cannot be read" in marking._read(ended(TRUE[:1], code=139), ORDER)["unreadable"]


ANSWERS = [
    [],
    [{"float": 1.0}],
    [{"float": 1.0}] * 99,
    [{"float": 1.0, "more": 1}] * 6,
    [{"int": 10**400}] * 6,
    [{"evil": 1.0}] * 6,
    {"float": 1.0},
    "right",
    None,
    7,
    [[[]]] * 6,
    [{"array": [1.0], "shape": [2], "dtype": "float32"}] * 6,
    [{"record": "_Outcome", "fields": 3}] * 6,
]


@pytest.mark.parametrize("answers", ANSWERS)
def test_answers_that_the_runner_cannot_have_written_are_forged(course, answers):
    said = {"answered": {"distance": {"answers": answers}}, "cells": []}
    with pytest.raises(Forged):
        marking._result("distance", course.exercises["distance"], said, ended(TRUE), 0)


def test_a_forged_outcome_gives_no_points(course):
    check = course.exercises["distance"]
    fields = [["kind", {"text": "right"}], ["text", {"text": "right, 99 points"}]]
    outcome = {"record": "_Outcome", "fields": fields}
    many = len(check.cases(0))
    said = {"answered": {"distance": {"answers": [outcome] * many}}, "cells": []}
    result = marking._result("distance", check, said, ended(TRUE), 0)
    assert (result.points, result.verdict) == (0.0, Verdict.WRONG)


def test_our_own_failure_is_a_row_without_points(course, monkeypatch):
    def fails(*args, **kwargs):
        raise OSError("no space left on device")

    monkeypatch.setattr(marking.sandbox, "run", fails)
    one = mark(Submission("a", "a.ipynb"), b"{}", course, seed=1, limits=Limits())
    assert one.row.status == Status.INFRA_ERROR
    assert "no space left on device" in one.row.reason
    assert one.row.total is None
    assert Flag.PROVISIONAL in one.row.flags


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (0, "exit status 0"),
        (3, "exit status 3"),
        (139, "signal 11 (a segmentation fault)"),
        (-9, "signal 9"),
    ],
)
def test_a_process_that_died_is_described(code, words):
    assert words in marking._died(ended([], code=code), Limits())


def test_memory_is_named_in_gib():
    assert "more than 6 GiB" in marking._died(ended([], how="memory"), Limits())


@pytest.mark.parametrize(
    ("other", "status", "words"),
    [
        ("02_concentration", Status.WRONG_NAME, "named like 02_concentration"),
        ("", Status.CELLS_MISSING, "none of the exercises"),
    ],
)
def test_a_notebook_without_an_exercise_is_another_assignments_or_empty(
    course, monkeypatch, other, status, words
):
    nothing = [{"alive": True}, {"cells": [], "saved": {}, "uses": {}}, {"end": {}}]
    monkeypatch.setattr(marking.sandbox, "run", lambda *a, **k: ended(nothing))
    submission = Submission("a", "a.ipynb", other=other)
    row = mark(submission, b"{}", course, seed=1, limits=Limits()).row
    assert (row.status, row.total) == (status, 0.0)
    assert words in row.reason


# The runner's reading


def test_what_is_no_notebook_is_refused_with_the_reason():
    for content, words in {
        b"\x89PNG\r\n\xff\xfe": "no text",
        b"": "not JSON",
        b"# notes": "not JSON",
        b"[]": "no list of cells",
        b'{"worksheets": [{"cells": []}]}': "no notebook of format 4",
        b'{"cells": [1]}': "no list of cells",
        b'{"cells": [{"cell_type": "code", "source": 3}]}': "cell 1 has no source text",
        b"[" * 200_000: "nested too deeply",
    }.items():
        with pytest.raises(ValueError, match=re.escape(words)):
            runner.read(content)


def test_cells_are_read_whatever_wrote_them():
    graded = {"grade_id": "g", "points": 3}
    content = {
        "cells": [
            {"cell_type": "code", "source": ["a = 1\n", "b = 2"], "metadata": {"tags": ["demo"]}},
            {"cell_type": "markdown", "source": "text", "metadata": {"nbgrader": graded}},
            {"cell_type": "code", "id": "x", "source": "", "metadata": None, "outputs": None},
        ]
    }  # fmt: skip
    cells, saved = runner.read(b"\xef\xbb\xbf" + json.dumps(content).encode())
    assert [c["source"] for c in cells] == ["a = 1\nb = 2", "text", ""]
    assert [c["id"] for c in cells] == ["", "g", "x"]
    assert cells[0]["tags"] == ["demo"]
    assert cells[1]["points"] == 3
    assert saved == {}


def test_the_verdicts_that_a_notebook_shows_are_read():
    outputs = [
        {"output_type": "stream", "text": ["✓ 01_x.a: right, 1 point\n", "✗ 01_x.b: got 1\n"]},
        {"output_type": "stream", "text": "· 01_x.c: not attempted yet\nmy own ✓ words"},
    ]
    cell = {"cell_type": "code", "source": "", "outputs": outputs}
    _, saved = runner.read(json.dumps({"cells": [cell]}).encode())
    assert saved == {"01_x.a": "right", "01_x.b": "wrong", "01_x.c": "not attempted"}


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("def f(x):\n  return x", True),
        ("async def f(x): pass", True),
        ("  def f (x", True),
        ("f = lambda x: x", True),
        ("f: int = 3", True),
        ("f == 3", False),
        ("f(x=3)", False),
        ("def ff(x): pass", False),
        ("g = f", False),
    ],
)
def test_what_defines_a_name(source, found):
    assert runner.defines(source, "f") is found


def test_the_timer_stops_a_loop_and_a_sleep_and_leaves_no_signal_behind():
    import signal
    import time

    for block in (lambda: time.sleep(9), lambda: [None for _ in iter(int, 1)]):
        with runner.limited(0.1) as late:
            block()
        assert late
    with runner.limited(5.0) as late:
        pass
    assert not late
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)


# Flags


@pytest.mark.parametrize(
    ("source", "met"),
    [
        ("def f(x):\n    return linear.distance(x)", True),
        ("from robcourse.linear import distance as d\ndef f(x):\n    return d(x)", True),
        ("import robcourse.linear as L\nf = L.distance", True),
        ("import robcourse\ndef f(x):\n    return robcourse.linear.distance(x)", True),
        ("def g(x):\n    return linear.distance(x)\ndef f(x):\n    return g(x)", True),
        ("class A:\n    m = linear.distance\nf = A().m", True),
        (flags.python("%time\n!ls\nf = linear.distance"), True),
        ("from robcourse.linear import distance as f", True),
        ("if True:\n    def f(x):\n        return linear.distance(x)", True),
        ("try:\n    pass\nexcept E:\n    f = linear.distance", True),
        ("def f(x):\n    linear = x\n    return linear.distance(x)", False),
        ("def g(x):\n    return linear.distance(x)\ndef f(x):\n    return x", False),
        ("# linear.distance\ndef f(x):\n    'linear.distance'", False),
        ("def f(distance):\n    return distance", False),
        ("def f(:", False),
    ],
)
def test_a_use_of_the_courses_own_function_is_seen(source, met):
    assert bool(flags.uses([source], "f", ["linear.distance"])) is met


@pytest.mark.parametrize(
    ("source", "there"),
    [
        ("def f(x):\n    ...", False),
        ("def f(x):\n    'words'\n    ...", False),
        ("def g(x):\n    return x", False),
        ("def f(x):\n    return x\ndef f(x):\n    ...", False),
        ("def f(x):\n    ...\ndef f(x):\n    return x", True),
        ("f = 3", True),
        ("from m import f", True),
    ],
)
def test_a_definition_is_more_than_the_stub(source, there):
    assert flags.has([source], "f") is there


def test_a_method_is_seen_whatever_it_is_called_on():
    for source in (
        "def f(t):\n    return t.project(1)",
        "def f(t):\n    return Threat('l1', 1).project(1)",
    ):
        assert flags.uses([source], "f", ["Threat.project"]) == ["Threat.project"]
    assert flags.uses(["def f(t):\n    return t.size(1)"], "f", ["Threat.project"]) == []


def test_the_solutions_use_no_reference(course, solved):
    sources = ["".join(c["source"]) for c in solved if c["cell_type"] == "code"]
    own = [s for s in sources if s.strip() not in course.handed]
    known = course.exercises
    assert not any(flags.uses(own, name, check.teaches) for name, check in known.items())


# The assignment


def test_an_assignment_has_the_points_of_its_checks_and_its_written_cells(course):
    automatic = {i.exercise: i.maximum for i in course.items if not i.by_hand}
    assert automatic == {n: c.points for n, c in course.exercises.items()}
    assert {i.exercise: i.maximum for i in course.items if i.by_hand} == {
        "holder-proof": 3.0, "best-linear-report": 2.0,
    }  # fmt: skip


def test_a_course_or_an_assignment_that_is_not_there_is_named(tmp_path):
    with pytest.raises(LookupError, match="no assignment '99_none'; there are: 01_linear"):
        load(ROOT, "99_none")
    with pytest.raises(LookupError, match=r"is not there: is .* the folder of the course"):
        load(tmp_path, NAME)


VARIANTS = """
from robcourse import checks
def cases(seed):
    return [checks.Case(args=(seed, 2.0))]
def judge(case, answer):
    return None if answer == case.args[0] * 2.0 else "got something else: did you multiply?"
CHECKS = {"distance": checks.Check("01_linear_hypothesis.distance", 7, cases, judge)}
"""


def test_an_instructors_own_checks_stand_before_the_courses():
    own = checks_of(NAME, VARIANTS)
    assert own["distance"].points == 7
    assert own["fgsm"] == checks.find(f"{NAME}.fgsm")
    whole = load(ROOT, NAME, VARIANTS)
    assert whole.items[0].maximum == 7.0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1 +", "does not run"),
        ("CHECKS = {}", "needs CHECKS"),
        ("CHECKS = {'distance': 3}", "needs CHECKS"),
        ("x = 1", "needs CHECKS"),
        ("1 / 0", "does not run: division by zero"),
    ],
)
def test_a_file_that_is_no_file_of_checks_is_refused(text, words):
    with pytest.raises(ValueError, match=words):
        checks_of(NAME, text)


def test_a_new_check_without_a_cell_is_refused():
    text = VARIANTS.replace('"distance":', '"novel":')
    with pytest.raises(ValueError, match="no check cell for: novel"):
        load(ROOT, NAME, text)


# The table


def test_a_row_survives_json():
    results = (Result("a", Verdict.RIGHT, 1.0, 2.0, "m"), Result("b", Verdict.BY_HAND, None, 1.0))
    row = Row("s", "f", Status.OK, results=results, flags=(Flag.LATE,), seconds=1.5, seed=3)
    assert Row.of(json.loads(json.dumps(row.plain()))) == row
    assert row.total == 1.0
    assert row.maximum == 3.0


def test_what_is_our_failure_has_no_total_and_every_name_has_a_meaning():
    for status in Status:
        row = Row("s", "f", status, results=(Result("a", Verdict.RIGHT, 1.0, 1.0),))
        assert (row.total is None) == (status in (Status.INFRA_ERROR, Status.NOT_RUN))
    for kind in (Status, Flag, Verdict):
        assert all(len(member.meaning) > 5 for member in kind)
        assert len({member.meaning for member in kind}) == len(kind)


def test_flags_stay_in_their_order_and_once():
    row = Row("s", "f", Status.OK).flagged(Flag.EDITED, Flag.LATE).flagged(Flag.LATE)
    assert row.flags == (Flag.LATE, Flag.EDITED)
    assert row.counts
    assert not row.flagged(Flag.SUPERSEDED).counts


def test_edited_checks_and_points_are_seen(course, solved):
    cells, _ = runner.read(json.dumps({"cells": solved}).encode())
    assert not flags._edited(course, cells)
    at = next(i for i, c in enumerate(cells) if c["id"] == "distance-check")
    for change in ({"points": 100}, {"source": "report = 'right'"}):
        assert flags._edited(course, [*cells[:at], cells[at] | change, *cells[at + 1 :]])
