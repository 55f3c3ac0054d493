"""Feedback and report: the right words and numbers, nothing of anybody else, and no markup of a
student's."""

import functools
import re
import statistics
import unicodedata
from collections import Counter
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote

import pytest
import torch
from bs4 import BeautifulSoup
from hypothesis import given
from hypothesis import strategies as st

from robcourse import checks
from robcourse.checks import messages
from robcourse.grading import pages
from robcourse.grading.assignment import Assignment, Item, load
from robcourse.grading.table import Flag, Result, Row, Status, Verdict

ROOT = Path(__file__).resolve().parents[1]
COURSE = load(ROOT, "01_linear_hypothesis")
ITEMS = COURSE.items
BATCH = {"seed": 7, "versions": "torch 2.9", "sandboxed": True, "submissions_per_minute": 25.71}
ATTACKS = (
    "<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "' onmouseover='alert(1)",
    "</style><svg onload=alert(1)>", "{{ 7 * 7 }}{% raw %}", "`<b>x</b>`", "&lt;i&gt;",
    "javascript:alert(1)", "</title><meta http-equiv=refresh content=0>",
)  # fmt: skip


def row(student="ada", status=Status.OK, kinds="", **more) -> Row:
    """A row of the whole assignment; `kinds` gives the first verdicts by their letters."""
    of = {"r": Verdict.RIGHT, "w": Verdict.WRONG, "e": Verdict.ERROR, "n": Verdict.NOT_ATTEMPTED,
          "m": Verdict.MISSING, "t": Verdict.TIMEOUT, "x": Verdict.NOT_RUN}  # fmt: skip
    letters = kinds.ljust(len(ITEMS), "r")
    results = []
    for item, letter in zip(ITEMS, letters, strict=True):
        verdict = Verdict.BY_HAND if item.by_hand and letter == "r" else of[letter]
        points = item.maximum if letter == "r" else 0.0
        results.append(Result(item.exercise, verdict, points, item.maximum, f"said {letter}"))
    given = {"file": f"{student}/hw.ipynb", "sha256": "ab" * 32, "seed": 7, "versions": "torch 2.9",
             "results": tuple(results)}  # fmt: skip
    return Row(student=student, status=status, **(given | more))


def changed(given: Row, at: int, **what) -> Row:
    results = list(given.results)
    results[at] = replace(results[at], **what)
    return replace(given, results=tuple(results))


def soup(text: str) -> BeautifulSoup:
    return BeautifulSoup(text, "html.parser")


def words(text: str) -> str:
    return " ".join(soup(text).get_text(" ").split())


def entries(text: str) -> dict[str, str]:
    """The page's exercises: name → everything said of it."""
    found = soup(text).select(".exercises > li")
    return {li.select_one("h3 code").text: " ".join(li.get_text(" ").split()) for li in found}


# Feedback.


def test_a_page_says_what_was_right_and_what_was_wrong_and_why():
    why = "got 2 / expected 1: `b` is missing [random, ℓ1]"
    given = changed(row(kinds="wen"), 0, message=why)
    text = pages.feedback(given, COURSE)
    said = entries(text)
    assert list(said) == [i.exercise for i in ITEMS]
    assert said["distance"] == (
        "Distance to a linear rule distance ✗ wrong 0 of 1 got 2 / expected 1: b is missing "
        "[random, ℓ1]"
    )
    assert "! error" in said["worst_case"]
    assert "○ not attempted" in said["sign_shifts"]
    assert "✓ right" in said["fgsm"]
    assert said["fgsm"].startswith("FGSM, with its clamp fgsm ✓ right 2 of 2")
    total = sum(i.maximum for i in ITEMS[3:])
    assert f"{total:g} of {sum(i.maximum for i in ITEMS):g} points" in words(text)
    assert "so far" not in words(text)
    head = words(text)
    assert "The book that checks itself Exercises: the linear hypothesis" in head
    assert Status.OK.meaning in head
    assert "ab" * 32 in head


def test_a_written_part_has_the_heading_before_it_and_the_words_of_its_reader():
    at = [i.exercise for i in ITEMS].index("holder-proof")
    waiting = changed(row(flags=(Flag.PROVISIONAL,)), at, points=None)
    said = entries(pages.feedback(waiting, COURSE))["holder-proof"]
    assert (
        said == "A witness for Hölder · the written part holder-proof ¶ waits for a person – of 3"
    )
    assert "so far" in words(pages.feedback(waiting, COURSE))
    graded = changed(row(), at, points=2.0, comment="Right idea.\nThe ℓ1 case is missing.")
    said = entries(pages.feedback(graded, COURSE))["holder-proof"]
    assert "¶ graded by hand 2 of 3" in said
    assert said.endswith("From the person who graded it Right idea. The ℓ1 case is missing.")


@pytest.mark.parametrize(
    ("verdict", "message", "rest"),
    [
        (Verdict.RIGHT, "right, 1 point", ""),
        (Verdict.RIGHT, "right, 12 points. Measured: 95.9 % of 512", " Measured: 95.9 % of 512"),
        (Verdict.NOT_ATTEMPTED, "not attempted yet", ""),
        (Verdict.WRONG, "got 1 / expected right, 1 point", " got 1 / expected right, 1 point"),
    ],
)
def test_nothing_is_said_twice(verdict, message, rest):
    given = changed(row(), 0, verdict=verdict, message=message)
    said = entries(pages.feedback(given, COURSE))["distance"]
    assert (
        said == f"Distance to a linear rule distance {pages.SIGNS[verdict]} {verdict} 1 of 1{rest}"
    )


def test_what_a_person_decided_is_neither_right_nor_wrong():
    assert len(set(pages.SIGNS.values())) == len(Verdict)
    why = "A person gave 1 point. The check had given 0: got 2 / expected 1: a slip"
    given = changed(row(kinds="w"), 0, verdict=Verdict.OVERRULED, points=1.0, message=why)
    text = pages.feedback(given, COURSE)
    assert entries(text)["distance"].endswith(f"✎ decided by a person 1 of 1 {why}")
    assert soup(text).select(".exercises > li")[0]["class"] == ["decided-by-a-person"]
    text = pages.report([given], COURSE, batch=BATCH)
    head, first, *_ = table(text, "Verdicts by exercise")
    counts = dict(zip(head, first, strict=True))
    assert counts["✎ decided by a person"] == "1"
    assert counts["✓ right"] == "·"
    assert "✗ wrong" not in counts
    assert (
        "distance: 1 decided by a person; "
        in soup(text).find_all("svg", role="img")[1]["aria-label"]
    )
    assert "Nobody made one that a check could name." in words(text)


@pytest.mark.parametrize("status", Status)
def test_every_status_is_put_into_words(status):
    text = pages.feedback(row(status=status, reason="reason-in-words"), COURSE)
    assert status.value not in soup(text).get_text() or status.value in ("ok",)
    line = soup(text).find("dt", string="Status").find_next("dd").get_text(" ")
    assert len(line) > 8
    ours = status in (Status.SUSPECT, Status.INFRA_ERROR, Status.NOT_RUN)
    assert ("reason-in-words" in line) != ours
    assert ("Not graded yet" in words(text)) == ours


def test_flags_are_explained_where_the_student_can_act_and_never_as_a_charge():
    plain = words(pages.feedback(row(), COURSE))
    told = words(pages.feedback(row(flags=(Flag.LATE, Flag.DIFFERS)), COURSE))
    assert "late" in told
    assert "saved in your notebook" in told
    hidden = (Flag.USES_REFERENCE, Flag.NO_SOURCE, Flag.SAME_FILE, Flag.EDITED,
              Flag.NOT_ON_ROSTER, Flag.UNSANDBOXED)  # fmt: skip
    assert words(pages.feedback(row(flags=hidden), COURSE)) == plain


def test_a_page_holds_nobody_else():
    old = row(file="ada/first.ipynb", kinds="w", flags=(Flag.SUPERSEDED,))
    text = words(pages.feedback(row(), COURSE, others=[old]))
    assert "ada/first.ipynb · 28 of 29 points" in text
    stranger = row("bob-the-other")
    with pytest.raises(ValueError, match="other than the page's") as caught:
        pages.feedback(row(), COURSE, others=[stranger])
    assert "bob" not in str(caught.value)


def test_the_page_tells_how_to_repeat_the_grading(capsys):
    code = soup(pages.feedback(row(seed=4711), COURSE)).pre.get_text()

    def distance(w, b, x, norm):
        order = {"linf": 1, "l2": 2, "l1": torch.inf}[norm]
        return (x @ w + b).abs() / torch.linalg.vector_norm(w, order)

    exec(code, {"distance": distance})
    assert capsys.readouterr().out == "✓ 01_linear_hypothesis.distance: right, 1 point\n"
    assert code.count("seed=4711") == 2
    assert soup(pages.feedback(row(), replace(COURSE, variants="x"))).pre is None


def test_a_row_without_results_still_has_its_page():
    text = pages.feedback(row(status=Status.NOT_RUN, results=()), COURSE)
    assert all("– not run" in said for said in entries(text).values())


# Hostile text.


def hostile(attack: str) -> Row:
    given = row(attack, name=f"{attack} too", email=attack, file=attack, sha256=attack,
                reason=attack, versions=attack, kinds="we", flags=(Flag.EDITED,))  # fmt: skip
    given = changed(given, 0, message=attack, comment=attack)
    return changed(given, 1, message=f"your code raised {attack}: {attack}")


def shape(text: str) -> Counter:
    """How many of which elements, with the names of their attributes."""
    return Counter((e.name, *sorted(e.attrs)) for e in soup(text).find_all(True))


@pytest.mark.parametrize("attack", ATTACKS)
def test_what_comes_from_a_student_is_never_markup(attack):
    """Whatever is written, the elements of the page are those of a page on plain words."""
    make = (
        lambda r: pages.feedback(r, COURSE, others=[replace(r, file=r.student)]),
        lambda r: pages.report([r], COURSE, batch=BATCH | {"host": r.name}),
    )
    for page in make:
        text = page(hostile(attack))
        calm = page(hostile("`calm`" if "`" in attack else "calm"))
        assert shape(text) == shape(calm)
        shown = soup(text).get_text()
        assert (attack.strip("`") if "`" in attack else attack) in shown
        assert not soup(text).find_all(["script", "iframe", "object", "embed", "img", "base"])


def test_a_page_forbids_scripts_and_asks_for_nothing():
    for text in (pages.feedback(row(), COURSE), pages.report([row()], COURSE, batch=BATCH)):
        policy = soup(text).find("meta", attrs={"http-equiv": "Content-Security-Policy"})
        assert policy["content"].startswith("default-src 'none'; style-src 'unsafe-inline'")
        assert "script" not in policy["content"]
        addresses = [v for e in soup(text).find_all(True) for k, v in e.attrs.items()
                     if k in ("src", "href", "xlink:href", "action", "data")]  # fmt: skip
        assert [a for a in addresses if not a.startswith(("#", "feedback/"))] == []
        assert "url(" not in text.replace("url(#", "")
        assert "@import" not in text


def test_control_characters_are_seen():
    given = changed(row("ada\u202e\x00", kinds="w"), 0, message="a\x1b[31m\u2028b\ud800")
    text = pages.feedback(given, COURSE)
    assert text.encode()
    assert "ada⟨U+202E⟩⟨U+0000⟩" in text
    assert "a⟨U+001B⟩[31m⟨U+2028⟩b⟨U+D800⟩" in text


# File names.

ALIKE = st.text(alphabet="aAáÁsSßſẞiIİıkKσςΣ.~_ -\u0301\u200d/\\:conCON01\ud800", max_size=12)


def on_any_system(name: str) -> set[str]:
    """What some file system may take the name for."""
    forms = [unicodedata.normalize(f, name) for f in ("NFC", "NFD")]
    folds = (str.casefold, str.lower, str.upper, lambda s: s.upper().lower())
    return {unicodedata.normalize("NFC", fold(form)) for form in forms for fold in folds}


@given(st.one_of(st.text(), ALIKE), st.one_of(st.text(), ALIKE))
def test_two_students_never_share_a_page(one, other):
    near = (one.upper(), one.lower(), f"{one} ", unicodedata.normalize("NFD", one))
    pairs = [(one, two) for two in (other, *near, pages.file_name(one).removesuffix(".html"))]
    for a, b in pairs:
        if a != b:
            assert not on_any_system(pages.file_name(a)) & on_any_system(pages.file_name(b))


@given(st.one_of(st.text(), ALIKE, st.text("aé", min_size=80, max_size=300)))
def test_a_page_can_be_written_on_any_system(student):
    name = pages.file_name(student)
    assert name == pages.file_name(student)
    assert len(name.encode()) <= 120
    assert name.endswith(".html")
    assert not set(name) & set('/\\:*?"<>|\0')
    assert name.isprintable()
    assert not name.startswith((".", "-", "~", " "))
    assert unicodedata.is_normalized("NFC", name)
    assert not re.match(r"(?i)(con|prn|aux|nul|(com|lpt)[0-9¹²³])\.", name)


@pytest.mark.parametrize("student", ["ada", "ada.b-c_2@uni.edu", "müller", "李明", "123456"])
def test_an_ordinary_name_is_kept(student):
    assert pages.file_name(student) == f"{student}.html"


@pytest.mark.parametrize(
    "student",
    ["Ada", "con", "nul.x", "../x", "a b", ".x", "-x", "", "a" * 101, "e\u0301", "ı", "ꭰ"],
)
def test_any_other_name_gets_a_hash(student):
    assert re.fullmatch(r"[^~./]+~[0-9a-f]{16}\.html", pages.file_name(student))


# The names of mistakes.


@pytest.mark.parametrize(
    ("message", "name"),
    [
        (f"got 1.6 at example 0 / expected 1.25: {messages.DUAL} [w = (3, 4), ℓ∞]", messages.DUAL),
        ("got inputs from -0.1 to 1 / expected [0, 1]: x_adv leaves [0, 1] by 0.1: "
         f"{messages.BOX} [ℓ∞]", messages.BOX),
        (f"got 2 / expected 1: {messages.MEAN}; {messages.CASES} [x]", messages.CASES),
        ("random: got a mean of 0.2 / expected about 0: a sign is fair", "random: a sign is fair"),
        ("got 3.1 / expected 2.9 [random]", "a wrong answer that is none of the known slips"),
        ("got shape (6, 1) / expected shape (6,): one distance an example [a]",
         "shape: one distance an example"),
        ("got a list of 6 / expected a floating tensor of shape (6,): one distance an example: "
         "torch.stack or torch.tensor makes one",
         "a list: one distance an example: torch.stack or torch.tensor makes one"),
        ('got None / expected a dict {"random": (low, high), "chosen": (low, high)}', "None"),
        (f"your function returned None: {messages.RETURN} [x]",
         f"your function returned None: {messages.RETURN}"),
        ("", "no message"),
    ],
)  # fmt: skip
def test_a_mistake_has_a_name(message, name):
    assert pages.mistake(Result("distance", Verdict.WRONG, 0.0, 1.0, message)) == name


@pytest.mark.parametrize(
    ("message", "name"),
    [
        ("your code raised ValueError: got 3 / expected 4 (line 2: `x`) [a]", "raised ValueError"),
        ("the cell that defines `f` does not run: SyntaxError: invalid (line 3)",
         "raised SyntaxError"),
        ("your code could not be called: 3 times", "your code could not be called: … times"),
    ],
)  # fmt: skip
def test_an_exception_has_a_name(message, name):
    assert pages.mistake(Result("distance", Verdict.ERROR, 0.0, 1.0, message)) == name


def test_one_slip_has_one_name_whatever_the_case_and_the_numbers():
    """The same wrong answer, judged on other seeds."""
    check = checks.find("01_linear_hypothesis.distance")

    def own_norm(w, b, x, norm):
        order = {"linf": torch.inf, "l2": 2, "l1": 1}[norm]
        return (x @ w + b).abs() / torch.linalg.vector_norm(w, order)

    said = []
    for seed in range(4):
        given = [checks.decode(a) for a in checks.answers(check, own_norm, seed)]
        for case, got in zip(check.cases(seed), given, strict=True):
            if why := check.judge(case, got):
                said.append(f"{why} [{case.label}]")
    assert len(set(said)) > 8
    assert {pages.mistake(Result("x", Verdict.WRONG, 0.0, 1.0, s)) for s in said} == {messages.DUAL}


# The report.


def classroom() -> list[Row]:
    slip = "got {} / expected 1: the same slip [case {}]"
    rows = [row(f"s{k}", kinds="wnemtr"[k % 6] * (k % 4 + 1)) for k in range(17)]
    rows = [changed(r, 0, message=slip.format(k, k)) for k, r in enumerate(rows)]
    rows[2] = replace(rows[2], flags=(Flag.USES_REFERENCE, Flag.LATE))
    rows[3] = row("s3", Status.SUSPECT, kinds="x" * len(ITEMS), reason="line 3 is out of order")
    ours = row("s4", Status.INFRA_ERROR, kinds="x" * len(ITEMS))
    rows[4] = replace(ours, results=tuple(replace(r, points=None) for r in ours.results))
    rows.append(row("s5", kinds="w" * len(ITEMS), flags=(Flag.SUPERSEDED,), file="s5/old.ipynb"))
    rows.append(
        row("gone", Status.NOT_SUBMITTED, kinds="x" * len(ITEMS), file="", name="Left Early")
    )
    return rows


def table(text: str, label: str) -> list[list[str]]:
    found = soup(text).find(attrs={"aria-label": label})
    return [
        [" ".join(c.get_text(" ").split()) for c in tr.find_all(["th", "td"])]
        for tr in found.find_all("tr")
    ]


def test_the_counts_are_those_of_the_rows_that_count():
    rows = classroom()
    text = pages.report(rows, COURSE, batch=BATCH)
    mine = [r for r in rows if r.file != "s5/old.ipynb"]
    statuses = {name: int(n) for name, n, _ in table(text, "Counts by status")[1:]}
    assert statuses == Counter(str(r.status) for r in mine)
    assert {m for _, _, m in table(text, "Counts by status")[1:]} == {
        Status(s).meaning for s in statuses
    }
    here = [r for r in mine if r.student != "gone"]
    head, *lines = table(text, "Verdicts by exercise")
    for at, (name, *cells) in enumerate(lines):
        assert name == ITEMS[at].exercise
        wanted = Counter(str(r.results[at].verdict) for r in here)
        shown = {h.split(" ", 1)[1]: c for h, c in zip(head[1:-1], cells, strict=False)}
        assert {h: int(c) for h, c in shown.items() if c != "·"} == wanted
        known = [r.results[at].points for r in here if r.results[at].points is not None]
        mean = sum(known) / len(known)
        assert float(cells[-1].split(" of ")[0]) == pytest.approx(mean, abs=0.006)
    assert "Nothing came in from: gone ( Left Early ) ." in words(text)
    assert "1 earlier file is superseded" in words(text)


def test_the_pictures_say_their_numbers():
    rows = classroom()
    text = pages.report(rows, COURSE, batch=BATCH)
    histogram, bars = (svg["aria-label"] for svg in soup(text).find_all("svg", role="img"))
    totals = sorted(r.total for r in rows[:17] if r.total is not None)
    assert f"the totals ({len(totals)}) out of 29 points" in histogram
    assert f"lowest {totals[0]:g}, median {statistics.median(totals):g}, highest 29" in histogram
    for low, high, n in re.findall(r"(\d+) to (?:below )?(\d+): (\d+)", histogram):
        inside = [t for t in totals if int(low) <= t < int(high) + (int(high) == 29)]
        assert len(inside) == int(n)
    assert sum(int(n) for n in re.findall(r"\d: (\d+)", histogram)) == len(totals)
    wrong = sum(r.results[0].verdict is Verdict.WRONG for r in rows[:17])
    assert (
        f"distance: {sum(r.results[0].verdict is Verdict.RIGHT for r in rows[:17])} right, " in bars
    )
    assert f", {wrong} wrong" in bars
    assert "holder-proof: " in bars
    svgs = " ".join(map(str, soup(text).find_all("svg")))
    ids = re.findall(r'\bid="([^"]+)"', svgs)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:href="#|url\(#)([^")]+)', svgs)) <= set(ids)
    assert "currentColor" in svgs


def test_who_has_all_points_stands_in_the_last_bar():
    own = Assignment("own", (Item("a", 4.0, ""),), {"cells": []}, Path("solutions/own.ipynb"))
    given = row(results=(Result("a", Verdict.RIGHT, 4.0, 4.0),))
    alt = soup(pages.report([given], own, batch={})).svg["aria-label"]
    assert alt.endswith("lowest 4, median 4, highest 4. 3 to 4: 1.")


def test_the_commonest_mistakes_come_first():
    rows = [changed(row(f"s{k}", kinds="w"), 0, message=f"got {k} / expected 1: often [c {k}]")
            for k in range(3)]  # fmt: skip
    rows += [changed(row("t", kinds="w"), 0, message="got 1 / expected 2: seldom")]
    old = changed(
        row("t", kinds="w", flags=(Flag.SUPERSEDED,)), 0, message="got 1 / expected 2: no"
    )
    text = pages.report([*rows, old], COURSE, batch=BATCH)
    (found,) = soup(text).select(".mistakes")
    assert [" ".join(li.get_text(" ").split()) for li in found.find_all("li")] == [
        "3 × often",
        "1 × seldom",
    ]


def listed(text: str, label: str) -> list[list[str]]:
    found = soup(text).find(attrs={"aria-label": label})
    lines = found.find_all("li") if found else []
    return [[" ".join(p.get_text(" ").split()) for p in li.find_all("p") or [li]] for li in lines]


def cards(text: str) -> list[str]:
    return [" ".join(c.get_text(" ").split()) for c in soup(text).select(".card")]


def test_what_failed_or_is_flagged_is_listed_with_a_link_to_its_page():
    failed = [row("Zoë & co", Status.WRONG_NAME), row("slow", Status.TIMEOUT, name="Slow Sam"),
              row("dead", Status.KERNEL_DIED, flags=(Flag.LATE,))]  # fmt: skip
    text = pages.report([*failed, *classroom()], COURSE, batch=BATCH)
    lines = listed(text, "Failed or flagged")
    who = [name for name, *_ in lines]
    assert who == ["s3", "s4", "Zoë & co", "slow ( Slow Sam )", "dead", "s2"]
    assert ["s3", "suspect", "line 3 is out of order s3/hw.ipynb"] in lines
    assert ["s2", "ok · uses_reference · late", "s2/hw.ipynb"] in lines
    links = [unquote(a["href"]) for a in soup(text).select(".people a")]
    names = [name.split(" ( ")[0] for name in who]
    assert links == [f"feedback/{pages.file_name(name)}" for name in names]
    assert listed(text, "To be graded by hand") == []
    assert cards(text)[-1] == "6 rows need a person"


def test_who_is_to_be_graded_by_hand_comes_first_and_nobody_is_counted_twice():
    at = [i.exercise for i in ITEMS].index("holder-proof")
    wait = lambda *args, **more: changed(row(*args, **more), at, points=None)
    rows = [
        row("fine"),
        wait("ada", Status.NEEDS_MANUAL, name="Ada L"),
        wait("bob", Status.NEEDS_MANUAL, flags=(Flag.SAME_FILE,)),
        wait("slow", Status.TIMEOUT),
        wait("bob", Status.NEEDS_MANUAL, flags=(Flag.SUPERSEDED,), file="bob/old.ipynb"),
        row("eve", flags=(Flag.NO_SOURCE,)),
    ]
    text = pages.report(rows, COURSE, batch=BATCH)
    assert listed(text, "To be graded by hand") == [["ada ( Ada L )"], ["bob"], ["slow"]]
    links = [a["href"] for a in soup(text).select(".names a")]
    assert links == ["feedback/ada.html", "feedback/bob.html", "feedback/slow.html"]
    assert [name for name, *_ in listed(text, "Failed or flagged")] == ["slow", "bob", "eve"]
    assert "Failed or flagged: 3 (2 also to be graded by hand)" in words(text)
    assert text.index("To be graded by hand: 3") < text.index("Failed or flagged: 3")
    assert cards(text)[-1] == "4 rows need a person"
    assert "Nothing." in words(pages.report([row()], COURSE, batch=BATCH))


def test_the_mean_of_what_waits_is_not_known():
    at = [i.exercise for i in ITEMS].index("holder-proof")
    empty = changed(row("bob"), at, verdict=Verdict.NOT_ATTEMPTED, points=0.0)
    mean = lambda *rows: table(pages.report(rows, COURSE, batch=BATCH), "Verdicts by exercise")[
        at + 1
    ][-1]
    assert mean(changed(row("ada"), at, points=None), empty) == "– of 3"
    assert mean(changed(row("ada"), at, points=3.0), empty) == "1.5 of 3"


def test_the_run_is_shown_and_no_sandbox_is_stamped():
    text = pages.report(classroom(), COURSE, batch=BATCH)
    assert "submissions per minute 25.71" in words(text)
    assert "sandboxed yes" in words(text)
    assert soup(text).select(".stamp") == []
    bare = pages.report(classroom(), COURSE, batch=BATCH | {"sandboxed": False})
    assert "UNSANDBOXED 19 of 19 rows" in words(bare)
    one = [row(), row("bob", flags=(Flag.UNSANDBOXED,))]
    assert "UNSANDBOXED 1 of 2 rows" in words(pages.report(one, COURSE, batch=BATCH))


OURS = replace(row(status=Status.INFRA_ERROR, kinds="x" * len(ITEMS)), results=())


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([], "There is no submission, and no student on a roster."),
        ([row()], "1 total: from 29 to 29 of 29 points, median 29, mean 29."),
        ([OURS, replace(OURS, student="bob")], "No total is known yet."),
        ([row(status=Status.NOT_SUBMITTED, kinds="x" * len(ITEMS))], "There is nothing to count."),
    ],
)
def test_a_small_class_has_a_sensible_page(rows, said):
    assert said in words(pages.report(rows, COURSE, batch={}))


def test_the_same_rows_give_the_same_page():
    assert len({pages.report(classroom(), COURSE, batch=BATCH) for _ in range(2)}) == 1


def test_an_assignment_of_ones_own_needs_no_headings():
    items = (Item("my_own", 2.0, ""), Item("half", 0.5, ""))
    own = Assignment("own", items, {"cells": []}, Path("nowhere/solutions/own.ipynb"), "text")
    results = (Result("my_own", Verdict.RIGHT, 2.0, 2.0), Result("half", Verdict.WRONG, 0.0, 0.5))
    given = row(results=results)
    assert "my own my_own ✓ right 2 of 2" in entries(pages.feedback(given, own))["my_own"]
    assert "2 of 2.5 points" in words(pages.feedback(given, own))
    assert "1 total: from 2 to 2 of 2.5 points" in words(pages.report([given], own, batch={}))


# In a browser.


@functools.cache
def built(name: str) -> str:
    bad = hostile(ATTACKS[0] + "x" * 300)
    if name == "feedback":
        at = [i.exercise for i in ITEMS].index("holder-proof")
        given = row(kinds="wenmtx", flags=(Flag.LATE, Flag.DIFFERS, Flag.PROVISIONAL))
        given = changed(given, at, points=2.0, comment="Right idea.")
        return pages.feedback(given, COURSE, others=[replace(given, file="old.ipynb")])
    if name == "hostile":
        return pages.feedback(bad, COURSE)
    waits = [row(f"waits-{k}", Status.NEEDS_MANUAL, name="Some Body") for k in range(9)]
    waits.append(changed(row("kurt"), 0, verdict=Verdict.OVERRULED))
    return pages.report([*classroom(), bad, *waits], COURSE, batch=BATCH | {"sandboxed": False})


@pytest.mark.page
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("name", ["feedback", "hostile", "report"])
def test_a_page_is_open_to_everyone(browser, tmp_path, name, width):
    from axe_playwright_python.sync_playwright import Axe

    path = tmp_path / "page.html"
    path.write_text(built(name), encoding="utf-8")
    context = browser.new_context(viewport={"width": width, "height": 900})
    tab = context.new_page()
    wrong, asked = [], []
    tab.on("console", lambda m: m.type == "error" and wrong.append(m.text))
    tab.on("pageerror", lambda e: wrong.append(str(e)))
    tab.on("dialog", lambda d: wrong.append("a script ran"))
    tab.on("request", lambda r: asked.append(r.url))
    tab.goto(path.as_uri())
    grounds = set()
    for theme in ("light", "dark"):
        tab.emulate_media(color_scheme=theme)
        grounds.add(tab.evaluate("getComputedStyle(document.body).backgroundColor"))
        beyond = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        assert tab.evaluate(beyond) <= 0, f"{theme}: the page is wider than the window"
        violations = Axe().run(tab).response["violations"]
        assert [(v["id"], [n["html"][:120] for n in v["nodes"]]) for v in violations] == []
    assert len(grounds) == 2
    assert wrong == []
    assert asked == [path.as_uri()]
    context.close()
