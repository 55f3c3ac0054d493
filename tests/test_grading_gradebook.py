"""Grading by hand: the course folder that formgrader opens, and the points that come back."""

import copy
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import replace
from pathlib import Path

import pytest
from bs4 import BeautifulSoup

from robcourse.grading import assignment as assignments
from robcourse.grading import gradebook, written
from robcourse.grading.assignment import Assignment, Item
from robcourse.grading.table import Flag, Result, Row, Status, Verdict

NAME = "07_small"
STUB = "*Write your answer here.*"
#: Texts that would do something in the page if formgrader showed them as they are.
LIVE = {
    "script": "<script>window.hacked = 1</script>",
    "script in a block": "words\n\n<div><script>window.hacked = 1</script></div>\n\nwords",
    "onerror": 'a <img src="x" onerror="window.hacked = 1"> b',
    "svg": "<svg onload='window.hacked = 1'><circle r=1></svg>",
    "svg script": "<svg><script>window.hacked = 1</script></svg>",
    "iframe": '<iframe srcdoc="<script>parent.hacked = 1</script>"></iframe>',
    "object": '<object data="data:text/html,<script>1</script>"></object>',
    "form": '<form action="/formgrader"><button>Full credit</button></form>',
    "style": "<style>.panel { display: none }</style>",
    "closes the panel": "</div></div></div></div> out of it",
    "a second field": '<input class="score" id="essay">',
    "link": "[see](javascript:window.hacked=1)",
    "link in entities": "[see](&#106;avascript:window.hacked=1)",
    "link to elsewhere": "[Full credit](/formgrader?path=/tmp/evil)",
    "reference": "[see][1]\n\n[1]: javascript:window.hacked=1",
    "short reference": "[see]\n\n[see]: <javascript:window.hacked=1>",
    "autolink": "<javascript:window.hacked=1>",
    "bare link": "http://localhost:8888/formgrader?path=/tmp/evil",
    "image of elsewhere": "![](http://127.0.0.1:9/seen)",
    "image that asks formgrader": "![](/formgrader?path=/tmp/evil)",
    "image of svg": "![](data:image/svg+xml;base64,PHN2Zy8+)",
    "attachment that is not there": "![proof](attachment:proof.png)",
    "mermaid": "```mermaid\n</pre><script>window.hacked = 1</script>\n```",
    "after a formula": "$a < b$ <script>window.hacked = 1</script> $c > d$",
    "link in a formula": r"$\href{javascript:window.hacked=1}{x}$",
    "heading with the id of a field": "# essay",
    "heading with the id of a field, underlined": "essay\n-----",
    "heading in a quote": "> # essay",
    "unclosed script": "<script>",
}
#: Texts that would merely look odd.
ODD = {
    "unclosed comment": "<!-- the rest of the page",
    "nested too deep": "> " * 3000 + "x",
    "entities": "&lt;script&gt;1&lt;/script&gt;",
    "a fence's name": '```"onload="1\nx\n```',
    "a fence in a fence": "````\n```\n<script>1</script>\n````",
    "html in a formula": "$$<script>1</script>$$",
    "html in an environment": "\\begin{align}<img src=x onerror=1>\\end{align}",
}
FOREIGN = ["script", "style", "iframe", "object", "embed", "svg", "math", "form", "input", "button"]
#: Texts of honest students, which stay as they are.
PROSE = [
    "By Hölder, $w\\cdot\\delta \\le \\lVert w\\rVert_q$ and $a<b$, $[0,1](x)$.",
    "# The report\n\n- one\n- two\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n$$\nx < y > z\n$$",
    "1. `if a<b:` & so on\n2. **bold**\n\n```python\nx = a < b\n```",
    "![photo](data:image/png;base64,iVBORw0KGgo=)",
]


def cell(id, source, **nbgrader):
    kind = "code" if source.startswith(("def", "check")) else "markdown"
    out = {"id": id, "cell_type": kind, "metadata": {}, "source": source.splitlines(True)}
    if nbgrader:
        meta = {"grade_id": id, "schema_version": 3, "task": False, "locked": False}
        out["metadata"]["nbgrader"] = meta | nbgrader
    return out | ({"outputs": [], "execution_count": None} if kind == "code" else {})


CELLS = [
    cell("title", "# Exercises: small"),
    cell("half", "## Half of it"),
    cell("half-answer", "def half(x):\n    ...", solution=True, grade=False),
    cell("half-check", "check(half)", solution=False, grade=True, points=2, locked=True),
    cell("proof-task", "Prove it."),
    cell("proof", STUB, solution=True, grade=True, points=3),
    cell("essay-task", "Say why."),
    cell("essay", STUB, solution=True, grade=True, points=4),
    cell("end", "That is all."),
]
ITEMS = (
    Item("half", 2.0, "half-check"),
    Item("proof", 3.0, "proof", True),
    Item("essay", 4.0, "essay", True),
    Item("own", 1.0, ""),
)
RELEASE = {
    "cells": CELLS,
    "metadata": {"kernelspec": {"name": "python3", "display_name": "Python 3"}},
    "nbformat": 4,
    "nbformat_minor": 5,
}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    source = tmp_path_factory.mktemp("solutions") / f"{NAME}.ipynb"
    source.write_text(json.dumps(RELEASE))
    return Assignment(NAME, ITEMS, RELEASE, source)


@pytest.fixture(scope="module")
def empty(tmp_path_factory, small):
    """A course folder in which nobody has handed in anything: copied, since making one is slow."""
    course = tmp_path_factory.mktemp("out") / "course"
    gradebook.publish(course, small, [])
    return course


@pytest.fixture
def course(tmp_path, empty):
    return shutil.copytree(empty, tmp_path / "course")


def notebook(**sources):
    """The released notebook, reduced, with other sources: half_answer="def …", proof="…"."""
    given = {k.replace("_", "-"): v for k, v in sources.items()}
    reduced = ((c["id"], c["cell_type"], "".join(c["source"])) for c in CELLS)
    return [{"id": i, "cell_type": k, "source": given.get(i, s)} for i, k, s in reduced]


def row(student="anna", points=2.0, sha256="1", status=Status.NEEDS_MANUAL, **more):
    verdict = Verdict.RIGHT if points else Verdict.WRONG
    results = (
        Result("half", verdict, points, 2.0, "said"),
        Result("proof", Verdict.BY_HAND, None, 3.0),
        Result("essay", Verdict.BY_HAND, None, 4.0),
        Result("own", Verdict.RIGHT, 1.0, 1.0, "said"),
    )
    file, flags = f"{student}/{NAME}.ipynb", (Flag.PROVISIONAL,)
    return Row(student, file, status, results=results, flags=flags, sha256=sha256, **more)


def give(course, student, cell, points=None, comment=None, extra=None, answer=""):
    """What formgrader does when a person has filled in its fields."""
    from nbgrader.api import Gradebook

    with Gradebook(f"sqlite:///{course}/gradebook.db", gradebook.COURSE) as book:
        grade = book.find_grade(cell, NAME, NAME, student)
        grade.manual_score, grade.extra_credit = points, extra
        grade.needs_manual_grade = points is None and grade.auto_score is None
        if comment is not None:
            book.find_comment(answer or cell, NAME, NAME, student).manual_comment = comment
        book.db.commit()


def waiting(course):
    """(student, cell) of what a person has to grade, as nbgrader sees it."""
    from nbgrader.api import Gradebook

    with Gradebook(f"sqlite:///{course}/gradebook.db", gradebook.COURSE) as book:
        grades = [g for s in book.assignment_submissions(NAME) for g in s.notebooks[0].grades]
        return {(g.student.id, g.name) for g in grades if g.needs_manual_grade}


def by_name(row):
    return {r.exercise: r for r in row.results}


def clean(course, student="anna"):
    path = course / f"autograded/{student}/{NAME}/{NAME}.ipynb"
    return {c["id"]: c for c in json.loads(path.read_text())["cells"]}


def test_points_and_comments_come_back_and_the_row_is_done(course, small):
    gradebook.publish(course, small, [(row(), notebook(proof="Because.", essay="I tried."))])
    assert waiting(course) == {("anna", "proof"), ("anna", "essay")}
    (before,) = gradebook.merge(course, small, [row()])
    assert before == replace(row(), reason="to be graded by hand: `proof`, `essay`")

    give(course, "anna", "proof", 2.5, "Say where w is not 0.")
    (half,) = gradebook.merge(course, small, [row()])
    assert (half.total, half.status, half.flags) == (5.5, Status.NEEDS_MANUAL, (Flag.PROVISIONAL,))

    give(course, "anna", "essay", 4.0, extra=0.5)
    (done,) = gradebook.merge(course, small, [row()])
    assert (done.total, done.status, done.flags) == (10.0, Status.OK, ())
    assert by_name(done)["proof"].comment == "Say where w is not 0."
    assert gradebook.merge(course, small, [done]) == [done]


def test_a_score_counts_though_nbgrader_still_asks_for_one(course, small):
    """A formgrader that ran while its gradebook was published sets the score, and not the mark."""
    from nbgrader.api import Gradebook

    gradebook.publish(course, small, [(row(), notebook(proof="Because."))])
    with Gradebook(f"sqlite:///{course}/gradebook.db", gradebook.COURSE) as book:
        book.find_grade("proof", NAME, NAME, "anna").manual_score = 1.0
        book.db.commit()
    assert waiting(course) == {("anna", "proof")}
    (done,) = gradebook.merge(course, small, [row()])
    assert (done.total, done.status) == (4.0, Status.OK)


def test_an_untouched_stub_gets_nothing_and_needs_nobody(course, small):
    gone = [c for c in notebook(proof=f"\n{STUB} \n") if c["id"] not in ("essay", "essay-task")]
    gradebook.publish(course, small, [(row(), gone)])
    assert waiting(course) == set()
    (done,) = gradebook.merge(course, small, [row()])
    assert (done.total, done.status) == (3.0, Status.OK)
    assert by_name(done)["proof"].message == "nothing was written here"


def test_a_person_may_overrule_a_check(course, small):
    gradebook.publish(course, small, [(row(points=0.0), notebook())])
    give(course, "anna", "half-check", 1.5, "A typo of ours.", answer="half-answer")
    (done,) = gradebook.merge(course, small, [row(points=0.0)])
    half = by_name(done)["half"]
    assert (half.points, half.comment) == (1.5, "A typo of ours.")
    assert half.message == "A person gave 1.5 points. The check had given 0: said"
    assert half.verdict == Verdict.OVERRULED
    assert gradebook.merge(course, small, [done]) == [done]


def test_other_trouble_than_hand_grading_keeps_its_status(course, small):
    late = row(status=Status.TIMEOUT)
    gradebook.publish(course, small, [(late, notebook())])
    (done,) = gradebook.merge(course, small, [late])
    assert (done.status, done.flags) == (Status.TIMEOUT, ())


def test_only_the_file_that_was_published_gets_its_points(course, small):
    gradebook.publish(course, small, [(row(), notebook(proof="Because."))])
    give(course, "anna", "proof", 3.0)
    other, old = row(sha256="2"), row().flagged(Flag.SUPERSEDED)
    failed, unknown = row(status=Status.INFRA_ERROR), row("bert")
    rows = [other, old, failed, unknown]
    assert gradebook.merge(course, small, rows) == rows


def test_nothing_is_merged_where_nothing_was_published(tmp_path, course, small):
    assert gradebook.merge(tmp_path, small, [row()]) == [row()]
    other = Assignment("08_other", ITEMS, RELEASE, small.source)
    assert gradebook.merge(course, other, [row()]) == [row()]


def test_what_does_not_count_is_not_published(course, small):
    superseded = row("a").flagged(Flag.SUPERSEDED)
    rows = [superseded, row("b", status=Status.NOT_SUBMITTED), row("c", status=Status.NOT_RUN)]
    gradebook.publish(course, small, [(r, notebook()) for r in rows])
    assert not (course / "autograded").exists()


def test_points_outlive_publishing_again_while_their_text_is_the_same(course, small):
    first = notebook(proof="Because.", essay="One.")
    gradebook.publish(course, small, [(row(), first), (row("bert"), first)])
    for student in ("anna", "bert"):
        give(course, student, "proof", 3.0, "Good.")
        give(course, student, "essay", 1.0, "Short.")
    second = notebook(proof="Because.", essay="Two.")
    gradebook.publish(course, small, [(row(sha256="2"), second)])

    assert waiting(course) == {("anna", "essay")}
    anna, bert = gradebook.merge(course, small, [row(sha256="2"), row("bert")])
    assert (by_name(anna)["proof"].points, by_name(anna)["proof"].comment) == (3.0, "Good.")
    assert (by_name(anna)["essay"].points, by_name(anna)["essay"].comment) == (None, "")
    assert anna.status is Status.NEEDS_MANUAL
    assert (bert.total, bert.status) == (7.0, Status.OK)


def test_the_grader_sees_what_the_text_had_got_before_it_changed(course, small):
    from nbgrader.api import Gradebook

    gradebook.publish(course, small, [(row(), notebook(essay="One."))])
    give(course, "anna", "essay", 1.0, "Short.")
    gradebook.publish(course, small, [(row(), notebook(essay="Two."))])
    with Gradebook(f"sqlite:///{course}/gradebook.db", gradebook.COURSE) as book:
        comment = book.find_comment("essay", NAME, NAME, "anna")
        assert comment.auto_comment == "Before the text changed: 1 points. Short."


def test_an_overruled_check_is_judged_afresh_when_its_answer_changes(course, small):
    wrong = row(points=0.0)
    gradebook.publish(course, small, [(wrong, notebook(half_answer="def half(x): return 1"))])
    give(course, "anna", "half-check", 2.0)
    gradebook.publish(course, small, [(wrong, notebook(half_answer="def half(x): return 1"))])
    assert by_name(gradebook.merge(course, small, [wrong])[0])["half"].points == 2.0
    gradebook.publish(course, small, [(wrong, notebook(half_answer="def half(x): return 2"))])
    assert by_name(gradebook.merge(course, small, [wrong])[0])["half"].points == 0.0


def test_a_crash_half_way_loses_nothing_and_can_be_repeated(course, small):
    gradebook.publish(course, small, [(row(), notebook(proof="Because."))])
    give(course, "anna", "proof", 3.0)
    (before,) = gradebook.merge(course, small, [row()])

    def broken():
        yield row("bert"), notebook(proof="Also.")
        yield row(sha256="2"), notebook(proof="Something else.")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        gradebook.publish(course, small, broken())
    assert gradebook.merge(course, small, [row(), row("bert")]) == [before, row("bert")]
    gradebook.publish(course, small, [(row("bert"), notebook(proof="Also."))])
    assert waiting(course) == {("bert", "proof")}


def test_a_crash_at_the_very_start_leaves_no_gradebook(tmp_path, small, monkeypatch):
    monkeypatch.setattr("nbgrader.api.get_alembic_version", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        gradebook.publish(tmp_path / "course", small, [])
    assert not list((tmp_path / "course").rglob("gradebook.db"))


def test_alembic_is_found_without_its_folder_in_path(tmp_path, small, monkeypatch):
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    gradebook.publish(tmp_path / "a + b?", small, [])
    assert (tmp_path / "a + b?/gradebook.db").stat().st_size > 0
    assert os.environ["PATH"] == "/usr/bin:/bin"


def test_the_notebook_is_the_released_one_with_the_students_texts(course, small):
    mine = notebook(half_answer="def half(x):\n    return x / 2", proof="Because.")
    mine[3]["source"] = "check(cheat)"
    extra = {"id": "mine", "cell_type": "code", "source": "import os"}
    stranger = {"id": ["half-check"], "cell_type": 7, "source": {"a": 1}}
    gradebook.publish(course, small, [(row(), [extra, *mine[::-1], *mine, stranger])])
    cells = clean(course)
    assert list(cells) == [c["id"] for c in CELLS]
    assert "".join(cells["half-answer"]["source"]) == "def half(x):\n    return x / 2"
    assert "".join(cells["proof"]["source"]) == "Because."
    assert cells["half-check"]["source"] == ["check(half)"]
    said = "right, 2 of 2: said\n"
    assert cells["half-check"]["outputs"] == [
        {"output_type": "stream", "name": "stdout", "text": [said]}
    ]
    for id in ("proof", "half-check"):
        assert cells[id]["metadata"] == next(c for c in CELLS if c["id"] == id)["metadata"]


def found(cells, id="proof"):
    return written.texts(RELEASE, cells)[id]


def test_every_different_copy_of_a_cell_is_shown_once():
    mine = notebook(proof="One.")
    copies = [{"id": "proof", "cell_type": "markdown", "source": s} for s in ("Two.", "One.", STUB)]
    assert found(mine + copies) == "One.\n\nTwo."


def test_a_text_in_a_new_cell_beside_the_stub_is_found():
    mine = notebook()
    mine.insert(6, {"id": "x1", "cell_type": "markdown", "source": "Here it is."})
    mine.insert(5, {"id": "x2", "cell_type": "code", "source": "x = 1"})
    assert found(mine) == "```\nx = 1\n```\n\nHere it is."
    assert found(mine, "essay") == ""


def test_without_ids_the_text_before_it_finds_an_answer():
    mine = [c | {"id": None} for c in notebook(proof="One.", half_answer="def half(x): 1")]
    assert (found(mine), found(mine, "essay")) == ("One.", "")
    assert found(mine, "half-answer") == "def half(x): 1"


def test_with_nothing_left_of_the_notebook_all_new_texts_are_shown():
    mine = [{"id": "a", "cell_type": "markdown", "source": ["One.", "\n", "Two."]}]
    assert found(mine) == found(mine, "essay") == "One.\nTwo."
    assert found(mine, "half-answer") == ""


def test_many_copies_take_no_time():
    copies = [{"id": "proof", "cell_type": "markdown", "source": f"{i}"} for i in range(50_000)]
    start = time.process_time()
    assert found(copies).count("\n\n") == 49_999
    assert time.process_time() - start < 5


@pytest.mark.parametrize(
    "student",
    ["Änne Müller", "a b", "../x", "x/y", "a+b", "*", "", ".", "<b>", "X", "\udcff", "x" * 300],
)
def test_student_ids_are_safe_and_differ(student):
    id = gradebook._student_id(student)
    assert id != student
    assert set(id) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
    assert len(id) < 64
    assert gradebook._student_id(id) != id  # nobody gets this id by calling himself so
    assert gradebook._student_id(student + "_") != id


def test_plain_student_ids_stay():
    assert [gradebook._student_id(s) for s in ("s123", "anna-b_c")] == ["s123", "anna-b_c"]


def page(path):
    """As formgrader shows it: its own template, and the exporter as it makes it."""
    from nbconvert.exporters import HTMLExporter
    from nbgrader.server_extensions.formgrader import handlers
    from traitlets.config import Config

    config = Config()
    config.HTMLExporter.template_name = "formgrade"
    config.HTMLExporter.extra_template_basedirs = [handlers.template_path]
    resources = {
        "assignment_id": NAME, "notebook_id": NAME, "submission_id": "0", "index": 0, "total": 1,
        "base_url": "", "student": "anna", "notebook_path": "./x",
    }  # fmt: skip
    return HTMLExporter(config=config).from_filename(str(path), resources=resources)[0]


def alive(html):
    """What in the page is not formgrader's, and not prose: nothing, it is hoped."""
    page = BeautifulSoup(html, "html.parser")
    wrong = [f"the field {i}" for i in ("proof", "essay") if len(page.select(f"#{i}")) != 1]
    for id in ("proof", "proof-comment", "essay", "essay-comment"):
        field = page.find(id=id)
        if field is None or not field.find_parent(class_="nbgrader_cell"):
            wrong.append(f"no panel round {id}")
    if page.select_one(".help") is None:
        wrong.append("the end of the page is gone")
    for text in page.select(".rendered_html"):
        for tag in text.find_all(True):
            if tag.name in [
                "script",
                "style",
                "iframe",
                "object",
                "embed",
                "svg",
                "math",
                "form",
                "input",
                "button",
            ]:
                wrong.append(tag.name)
            if tag.name == "img" and not str(tag.get("src")).startswith("data:image/png;"):
                wrong.append(f"image {tag.get('src')}")
            if tag.name == "a" and not str(tag.get("href")).startswith("#"):
                wrong.append(f"link {tag.get('href')}")
            wrong += [name for name in tag.attrs if name.startswith("on")]
        if "\\href" in text.get_text():
            wrong += [] if text.select_one("pre") else ["link in a formula"]
    return wrong


@pytest.mark.parametrize("kind", LIVE | ODD)
def test_no_text_is_alive_in_formgrader(course, small, kind):
    text = (LIVE | ODD)[kind]
    gradebook.publish(course, small, [(row(), notebook(proof=text))])
    path = course / f"autograded/anna/{NAME}/{NAME}.ipynb"
    assert alive(page(path)) == []
    words = "".join(c for c in "".join(clean(course)["proof"]["source"]) if c.isalnum())
    assert words == "".join(c for c in text if c.isalnum())  # the grader can still read it


@pytest.mark.parametrize("kind", LIVE)
def test_as_they_are_those_texts_would_be_alive(tmp_path, kind):
    """Else the test above could not fail."""
    raw = copy.deepcopy(RELEASE)
    raw["cells"][5]["source"] = LIVE[kind]
    path = tmp_path / "raw.ipynb"
    path.write_text(json.dumps(raw))
    try:
        html = page(path)
    except Exception:
        return  # formgrader answers with an error instead of a page: bad enough
    assert alive(html) != []


@pytest.mark.parametrize("text", PROSE)
def test_prose_formulas_and_pictures_stay_as_they_are(course, small, text):
    gradebook.publish(course, small, [(row(), notebook(proof=text))])
    assert "".join(clean(course)["proof"]["source"]) == text
    assert alive(page(course / f"autograded/anna/{NAME}/{NAME}.ipynb")) == []


def test_code_and_verdicts_are_not_alive_either(course, small):
    evil = "</pre><script>window.hacked = 1</script>"
    mine = notebook(half_answer=f"def half(x): '{evil}'")
    mine[2]["source"] += "\x1b[31m\udcff"
    mine[5]["source"] = "\x1b[31m\udcff"
    said = row()
    results = (
        Result("half", Verdict.WRONG, 0.0, 2.0, f"\x1b[31m{evil}\n✓ right"),
        *said.results[1:],
    )
    said = Row.of(said.plain() | {"results": [r.__dict__ for r in results]})
    gradebook.publish(course, small, [(said, mine)])
    html = page(course / f"autograded/anna/{NAME}/{NAME}.ipynb")
    assert "\x1b" not in html.encode().decode()
    scripts = BeautifulSoup(html, "html.parser").find_all("script")
    assert not any("hacked" in script.get_text() for script in scripts)
    assert clean(course)["half-check"]["outputs"][0]["text"][0].count("\n") == 1


def test_a_name_cannot_write_into_the_page(course, small):
    from nbgrader.api import Gradebook

    evil = "<script>1</script> \"x\" onload='1' Z"
    gradebook.publish(course, small, [(row(evil, name=evil, email=f"{evil}@x"), notebook())])
    with Gradebook(f"sqlite:///{course}/gradebook.db", gradebook.COURSE) as book:
        (student,) = book.students
        shown = f"{student.id}{student.first_name}{student.last_name}{student.email}"
    assert not set("<>\"'&`\\") & set(shown)


HOSTILE = {
    "ticks": "`" * 20_000,
    "brackets": "[" * 20_000,
    "stars": "*a " * 6_000,
    "dollars": "$" * 19_999,
    "tags": "<" * 20_000,
    "environments": "\\begin{a}" * 2_000,
    "lines": "\n" * 19_999 + "#",
    "long": "x" * 3_000_000,
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_text_takes_no_time_and_is_cut(text):
    start = time.process_time()
    shown = written.safe(text, {"proof"})
    assert time.process_time() - start < 10
    assert len(shown) < 200_000


def test_a_photograph_in_the_text_is_kept_and_costs_little():
    text = f"My proof:\n\n![][1]\n\n[1]: data:image/jpeg;base64,{'A+/b' * 500_000}=="
    start = time.process_time()
    assert written.safe(text, {"proof"}) == text
    assert time.process_time() - start < 1


def test_the_course_of_this_repository_can_be_published(tmp_path):
    root = Path(__file__).resolve().parents[1]
    real = assignments.load(root, "01_linear_hypothesis")
    results = tuple(
        Result(i.exercise, Verdict.BY_HAND if i.by_hand else Verdict.RIGHT,
               None if i.by_hand else i.maximum, i.maximum) for i in real.items
    )  # fmt: skip
    mine = [{k: c[k] for k in ("id", "cell_type", "source")} for c in real.release["cells"]]
    whole = Row("anna", "anna.ipynb", Status.NEEDS_MANUAL, results=results)
    gradebook.publish(tmp_path, real, [(whole, mine)])
    (done,) = gradebook.merge(tmp_path, real, [whole])
    assert done.status is Status.OK
    assert done.total == sum(i.maximum for i in real.items if not i.by_hand)


@pytest.fixture(scope="module")
def server(tmp_path_factory, empty, small):
    """A course with four students, and Jupyter with formgrader in its folder, as the guide says."""
    home = tmp_path_factory.mktemp("server")
    course = shutil.copytree(empty, home / "course")
    hostile = "\n\n".join(LIVE.values())
    pairs = [(row("anna", name="Anna Ameise"), notebook(proof="Because $a<b$.", essay="So."))]
    pairs += [(row("bert"), notebook(proof="Clearly.", essay="So."))]
    pairs += [(row("mallory"), notebook(proof=hostile, essay=LIVE["onerror"]))]
    pairs += [(row("raw"), notebook())]
    gradebook.publish(course, small, pairs)
    raw = copy.deepcopy(RELEASE)
    raw["cells"][5]["source"] = LIVE["onerror"]
    (course / f"autograded/raw/{NAME}/{NAME}.ipynb").write_text(json.dumps(raw))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folders = {f"JUPYTER_{k}_DIR": str(home / k) for k in ("CONFIG", "DATA", "RUNTIME")}
    command = [sys.executable, "-m", "jupyter_server", "--no-browser", "--allow-root",
               "--ServerApp.default_url=/formgrader", f"--port={port}",
               "--ServerApp.port_retries=0", "--IdentityProvider.token=secret"]  # fmt: skip
    with (home / "log").open("w") as log:
        process = subprocess.Popen(
            command, cwd=course, env=os.environ | folders, stdout=log, stderr=log
        )
    try:
        ask = lambda path, **put: _ask(f"http://127.0.0.1:{port}/formgrader/{path}", **put)
        for _ in range(300):
            try:
                ask("api/status")
                break
            except (urllib.error.URLError, ConnectionError):
                assert process.poll() is None, (home / "log").read_text()
                time.sleep(0.2)
        yield course, f"http://127.0.0.1:{port}/formgrader", ask
    finally:
        process.terminate()
        process.wait(20)


def _ask(url, **put):
    headers = {"Authorization": "token secret", "Content-Type": "application/json"}
    data = json.dumps(put).encode() if put else None
    request = urllib.request.Request(url, data, headers, method="PUT" if put else "GET")
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.loads(answer.read())


def test_points_given_over_formgraders_own_interface(server, small):
    course, _, ask = server
    (waits,) = [s for s in ask(f"api/submissions/{NAME}") if s["student"] == "anna"]
    assert waits["needs_manual_grade"]
    (one,) = [s for s in ask(f"api/submitted_notebooks/{NAME}/{NAME}") if s["student"] == "anna"]
    grades = {g["name"]: g for g in ask(f"api/grades?submission_id={one['id']}")}
    comments = {c["name"]: c for c in ask(f"api/comments?submission_id={one['id']}")}
    ask(f"api/comment/{comments['proof']['id']}", manual_comment="Nearly.")
    # The page sends what stands in the field, a string.
    ask(f"api/grade/{grades['proof']['id']}", manual_score="2.5", extra_credit=None)
    ask(f"api/grade/{grades['essay']['id']}", manual_score=4, extra_credit=1)
    (done,) = gradebook.merge(course, small, [row()])
    assert (done.status, done.total) == (Status.OK, 2 + 2.5 + 5 + 1)
    assert by_name(done)["proof"].comment == "Nearly."


def opened(browser, site, ask, student):
    """The page of a student's submission, with no way out of this machine."""
    tab = browser.new_context().new_page()
    asked = []
    tab.on("request", lambda r: asked.append(r.url))
    tab.route(lambda url: not url.startswith(site.removesuffix("/formgrader")), lambda r: r.abort())
    notebooks = ask(f"api/submitted_notebooks/{NAME}/{NAME}")
    (id,) = [n["id"] for n in notebooks if n["student"] == student]
    tab.goto(f"{site}?token=secret")  # the address that Jupyter prints
    tab.goto(f"{site}/submissions/{id}/")
    tab.wait_for_function("window.formgrader && formgrader.grades && formgrader.grades.loaded")
    tab.wait_for_function("formgrader.comments.loaded")
    return tab, asked


def test_a_person_grades_in_the_page(server, small, browser):
    course, site, ask = server
    tab, _ = opened(browser, site, ask, "bert")
    with tab.expect_response(lambda r: "/api/comment/" in r.url and r.request.method == "PUT"):
        tab.fill("#essay-comment", "Which norm?")
        tab.locator("#essay-comment").blur()
    with tab.expect_response(lambda r: "/api/grade/" in r.url and r.request.method == "PUT"):
        tab.fill("input#essay", "3")
        tab.locator("input#essay").blur()
    with tab.expect_response(lambda r: "/api/grade/" in r.url and r.request.method == "PUT"):
        tab.locator(".nbgrader_cell", has=tab.locator("input#proof")).get_by_text("Full").click()
    (done,) = gradebook.merge(course, small, [row("bert")])
    assert (done.status, done.total) == (Status.OK, 2 + 3 + 3 + 1)
    assert by_name(done)["essay"].comment == "Which norm?"


def test_no_script_runs_in_a_browser(server, browser):
    _, site, ask = server
    tab, asked = opened(browser, site, ask, "mallory")
    for link in tab.locator(".rendered_html a").all():
        assert link.get_attribute("href").startswith("#")
    assert tab.evaluate("window.hacked") is None
    assert not [url for url in asked if "evil" in url or "seen" in url]
    assert tab.locator("input.score").count() == 3
    tab, _ = opened(browser, site, ask, "raw")  # so that the test can fail
    assert tab.evaluate("window.hacked") == 1
