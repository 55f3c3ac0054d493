"""Pages of HTML that stand alone: a student's feedback, the report on a class.

Whatever came from a student is escaped, and its control characters are made visible. No page
holds a script or asks for another file, and its own policy forbids both. A feedback page holds
nobody else's data.
"""

import functools
import hashlib
import io
import re
import statistics
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from urllib.parse import quote

import jinja2
import yaml
from markupsafe import Markup, escape
from matplotlib.figure import Figure

from robcourse import plots
from robcourse.checks import messages
from robcourse.grading.assignment import Assignment, Item
from robcourse.grading.exports import maximum, number
from robcourse.grading.table import Flag, Result, Row, Status, Verdict

#: Never by its colour alone: each verdict has a sign beside its word.
SIGNS = dict(zip(Verdict, "✓✗○!…?–¶✎", strict=True))
#: Rows that a person should look at, in the order of the report; then those with a flag.
LOOK_AT = (Status.SUSPECT, Status.INFRA_ERROR, Status.NOT_RUN, Status.WRONG_NAME,
           Status.NOT_A_NOTEBOOK, Status.CELLS_MISSING, Status.TIMEOUT,
           Status.KERNEL_DIED)  # fmt: skip
LOOK_AT_FLAGS = (Flag.LATE, Flag.USES_REFERENCE, Flag.NO_SOURCE, Flag.SAME_FILE, Flag.DIFFERS,
                 Flag.EDITED, Flag.NOT_ON_ROSTER)  # fmt: skip

# A flag such as `uses_reference` is a question to a person, who has not answered it yet: on the
# student's page it would read as a charge. The reason of our own failure names our files.
_TOLD = {
    Flag.LATE: "The learning platform calls this file late.",
    Flag.SUPERSEDED: "You handed in a later file, and that one counts.",
    Flag.DIFFERS: "The verdicts saved in your notebook are not those below. That happens where a "
    "cell was changed after its check ran, or where an answer is right on the notebook's inputs "
    "and not on others. What stands here counts.",
}
_TO_STUDENT = {
    Status.KERNEL_DIED: "your code's process ended before it had answered everything",
    Status.SUSPECT: "not settled yet: a person looks at it first",
    Status.INFRA_ERROR: "our failure, not yours: you lose nothing, and it is tried again",
    Status.NOT_RUN: "not graded yet",
    Status.NOT_SUBMITTED: "nothing came in",
}
_OURS = (Status.SUSPECT, Status.INFRA_ERROR, Status.NOT_RUN)


def feedback(row: Row, assignment: Assignment, *, others: Sequence[Row] = ()) -> str:
    """One student's page.

    Args:
        row: what is shown.
        others: the same student's superseded files, which are listed.

    Raises:
        ValueError: a row of another student.
    """
    if strangers := [r for r in others if r.student != row.student]:
        raise ValueError(f"others holds {len(strangers)} row(s) of students other than the page's")
    nothing = {i.exercise: _nothing(i) for i in assignment.items}
    first = next((i.exercise for i in assignment.items if not i.by_hand), "")
    return _environment().get_template("feedback.html").render(
        course=_course(assignment),
        title=_heading(assignment),
        assignment=assignment,
        row=row,
        status=_TO_STUDENT.get(row.status, row.status.meaning),
        reason=[] if row.status in _OURS else row.reason.splitlines(),
        titles=_titles(assignment),
        results=nothing | {r.exercise: r for r in row.results},
        maximum=maximum(assignment),
        told=[text for flag, text in _TOLD.items() if flag in row.flags],
        settled=row.status not in _OURS,
        others=others,
        example="" if assignment.variants else first,
    )  # fmt: skip


def report(rows: Sequence[Row], assignment: Assignment, *, batch: Mapping[str, object]) -> str:
    """The class on one page, for its instructor.

    Args:
        rows: all of them; only those that count, and of which something came in, are counted.
        batch: what to say of the run (seed, versions, date, seconds, …), each under its name;
            "sandboxed" is a bool.
    """
    counting = [r for r in rows if r.counts]
    here = [r for r in counting if r.status is not Status.NOT_SUBMITTED]
    totals = [r.total for r in here if r.total is not None]
    by_hand = [r for r in here if r.status is Status.NEEDS_MANUAL or any(map(_waits, r.results))]
    look_at = [r for r in rows if r.status in LOOK_AT or set(LOOK_AT_FLAGS) & set(r.flags)]
    look_at.sort(key=lambda r: (*LOOK_AT, r.status).index(r.status))
    unsandboxed = sum(Flag.UNSANDBOXED in r.flags for r in rows)
    if batch.get("sandboxed") is False:
        unsandboxed = len(rows)
    titles = _titles(assignment)
    exercises = [_exercise(i, here, titles[i.exercise]) for i in assignment.items]
    return _environment().get_template("report.html").render(
        course=_course(assignment),
        title=_heading(assignment),
        rows=rows,
        counting=counting,
        here=here,
        absent=sorted((r for r in counting if r not in here), key=lambda r: r.student),
        statuses=_counts(Status, (r.status for r in counting)),
        flags=_counts(Flag, (f for r in rows for f in r.flags)),
        verdicts=[v for v in Verdict if any(e["counts"][v] for e in exercises)],
        exercises=exercises,
        totals=totals,
        median=statistics.median(totals) if totals else None,
        mean=statistics.fmean(totals) if totals else None,
        maximum=maximum(assignment),
        provisional=sum(Flag.PROVISIONAL in r.flags for r in here),
        unsandboxed=unsandboxed,
        batch=[(name.replace("_", " "), _plain(value)) for name, value in batch.items()],
        distribution=_distribution(totals, maximum(assignment)),
        bars=_bars(exercises) if any(e["counts"] for e in exercises) else "",
        by_hand=by_hand,
        look_at=look_at,
        both=sum(r in by_hand for r in look_at),
        page_of=lambda student: "feedback/" + quote(file_name(student)),
    )  # fmt: skip


def file_name(student: str) -> str:
    """The name of a student's page: "ada.html"; two students never share one, on any file system.

    A name that a file system may change, refuse or take for another is cleaned and gets a hash
    behind a tilde, which no other name holds. That is so for capitals: "Ada" is "ada" to some.
    """
    kept = "".join(c if _letter(c) or c in "-_.@+" else "_" for c in student)
    steady = (kept, unicodedata.normalize("NFC", kept), kept.casefold(), kept.upper().lower())
    short = len(kept.encode()) <= 100 and kept[:1].isalnum()
    if short and set(steady) == {student} and not _RESERVED.match(kept):
        return f"{kept}.html"
    digest = hashlib.sha256(student.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    start = unicodedata.normalize("NFC", kept).replace(".", "_").encode()[:60]
    return f"{start.decode(errors='ignore') or '_'}~{digest}.html"


def mistake(result: Result) -> str:
    """What went wrong, by name: the message without its case, its numbers and what came."""
    text = re.sub(r" \[[^\[\]]*\]$", "", result.message)
    if result.verdict is Verdict.ERROR:
        raised = re.search(r"your code raised (\w+)", text) or re.search(_EXCEPTION, text)
        return f"raised {raised[1]}" if raised else _general(text)
    if messages.CASES in text:
        return messages.CASES
    got, expected, want = text.partition(" / expected ")
    if not expected:
        return _general(text)
    part = got.partition("got ")[0]
    kind = re.search(rf"got (shape|dtype|NaN|infinity|None|{_KINDS})\b", got)
    why = re.split(r"(?<![\"']): ", want, maxsplit=1)[1:]
    if why:
        return _general(part + (f"{kind[1]}: " if kind else "") + why[0])
    return f"{part}{kind[1] if kind else 'a wrong answer that is none of the known slips'}"


_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])(\.|$)")
_EXCEPTION = r"\b([A-Z]\w*(?:Error|Exception|Exit|Interrupt|Iteration|Warning))\b"
_KINDS = r"(?:a|the) (?:list|tuple|dict|tensor|result|number|text|value)"
_NUMBER = r"(?<![\w.])[-−+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?(?!\w)"
_SLIPS = tuple(v for k, v in vars(messages).items() if k.isupper() and isinstance(v, str))


def _general(text: str) -> str:
    """Without numbers, which differ from student to student."""
    out = re.sub(_NUMBER, "…", text)
    known = (slip for slip in _SLIPS if out != text and out.endswith(slip))
    return next(known, out if len(out) <= 160 else out[:159] + "…") or "no message"


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("robcourse.grading"), autoescape=True,
        undefined=jinja2.StrictUndefined, finalize=_visible, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {"number": number, "ticks": _ticks, "word": _word, "said": _said}
    environment.globals["signs"] = SIGNS
    return environment


def _visible(value: object) -> object:
    """Whatever a template shows passes here: control and direction characters get a name."""
    if not isinstance(value, str) or isinstance(value, Markup) or value.isprintable():
        return value
    return "".join(c if c.isprintable() else _named(c) for c in value)


def _ticks(text: str) -> Markup:
    """What stands between `ticks` as code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(_visible(text)))))


def _named(c: str) -> str:
    if unicodedata.category(c) == "Zs" or c in "\u200c\u200d":  # joiners belong to scripts
        return c
    return f"⟨U+{ord(c):04X}⟩"


def _letter(c: str) -> bool:
    return unicodedata.category(c)[0] in "LMN"


def _plain(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return number(round(value, 2)) if isinstance(value, float) else str(value)


def _nothing(item: Item) -> Result:
    return Result(item.exercise, Verdict.NOT_RUN, None, item.maximum)


def _word(result: Result) -> str:
    if _waits(result):
        return "waits for a person"
    return "graded by hand" if result.verdict is Verdict.BY_HAND else str(result.verdict)


def _waits(result: Result) -> bool:
    return result.verdict is Verdict.BY_HAND and result.points is None


def _said(result: Result) -> str:
    """What the check said, but for what the verdict and the points beside it say, too."""
    said = re.sub(r"^(right, \d+ points?|not attempted yet)(\. |$)", "", result.message)
    return "" if result.verdict is Verdict.BY_HAND else said


def _source(cell: dict) -> str:
    return "".join(cell["source"])


def _titles(assignment: Assignment) -> dict[str, str]:
    """For each exercise the heading before its cell, or its own name."""
    titles = {i.exercise: i.exercise.replace("_", " ") for i in assignment.items}
    cells = {i.cell: i.exercise for i in assignment.items if i.cell}
    heading = ""
    for cell in assignment.release.get("cells", ()):
        if cell["cell_type"] == "markdown":
            heading = next(iter(re.findall(r"^## +(.+?) *$", _source(cell), re.M)), heading)
        exercise = cells.get(cell["metadata"].get("nbgrader", {}).get("grade_id"))
        if exercise and heading:
            titles[exercise] = heading
    return titles


def _heading(assignment: Assignment) -> str:
    """The title of the notebook that was handed out."""
    cells = assignment.release.get("cells", ())
    words = "\n".join(_source(c) for c in cells if c["cell_type"] == "markdown")
    return next(iter(re.findall(r"^# +(.+?) *$", words, re.M)), assignment.name)


def _course(assignment: Assignment) -> str:
    return _course_at(assignment.source.absolute().parent.parent / "_config.yml")


@functools.cache
def _course_at(path) -> str:
    """The title of the book, as its fork calls it."""
    if not path.is_file():
        return ""
    return str(yaml.safe_load(path.read_text(encoding="utf-8")).get("title", ""))


def _counts(kind: type[Status] | type[Flag], found) -> list[tuple[Status | Flag, int]]:
    counted = Counter(found)
    return [(member, counted[member]) for member in kind if counted[member]]


def _exercise(item: Item, rows: Sequence[Row], title: str) -> dict:
    """What the class did with one exercise."""
    results = [r for row in rows for r in row.results if r.exercise == item.exercise]
    points = [r.points for r in results if r.points is not None]
    wrong = Counter(mistake(r) for r in results if r.verdict in (Verdict.WRONG, Verdict.ERROR))
    ranked = sorted(wrong.items(), key=lambda kv: (-kv[1], kv[0]))
    waiting = sum(map(_waits, results))
    return {
        "item": item,
        "title": title,
        "counts": Counter(r.verdict for r in results),
        "waiting": waiting,
        "mean": statistics.fmean(points) if points and not waiting else None,
        "mistakes": ranked[:5],
        "more": sum(n for _, n in ranked[5:]),
    }


# Pictures. What is drawn in this ink takes the colour of the text around it, light or dark.
_INK = "#010203"
_LOOKS = {
    Verdict.RIGHT: (plots.CERTIFICATE, "", "white"),
    Verdict.WRONG: (plots.ATTACK, "", "black"),
    Verdict.ERROR: (plots.CLASSES[1], "///", "black"),
    Verdict.TIMEOUT: (plots.CLASSES[1], "\\\\\\", "black"),
    Verdict.BY_HAND: (plots.CLASSES[0], "", "black"),
    Verdict.OVERRULED: (plots.ESTIMATE, "...", "black"),
    Verdict.NOT_ATTEMPTED: (plots.ESTIMATE, "", "black"),
    Verdict.MISSING: (plots.ESTIMATE, "xxx", "black"),
    Verdict.NOT_RUN: ("none", "", _INK),
}


def _distribution(totals: Sequence[float], most: float) -> Markup:
    """A histogram of the totals; nothing where there are none."""
    if not totals or most <= 0:
        return Markup("")
    steps = (k * 10**e for e in range(9) for k in (1, 2, 3, 5))
    step = next((s for s in steps if most / s <= 12), most)
    bins = max(1, -int(-most // step))
    fell = Counter(min(bins - 1, int(t // step)) for t in totals)
    counts = [fell[k] for k in range(bins)]
    figure, ax = _figure(4.8, 2.3)
    ax.bar([(k + 0.5) * step for k in range(bins)], counts, width=0.9 * step,
           color=plots.CERTIFICATE)  # fmt: skip
    for k, n in enumerate(counts):
        if n:
            ax.annotate(f"{n}", ((k + 0.5) * step, n), xytext=(0, 2), ha="center", fontsize=9,
                        textcoords="offset points", color=_INK)  # fmt: skip
    ax.set(xticks=[k * step for k in range(bins + 1)], yticks=[], ylim=(0, 1.15 * max(counts)))
    ax.set_xlabel(f"points, of {number(most)}")
    ax.set_ylabel("students")
    said = "; ".join(
        f"{number(k * step)} to {'' if k == bins - 1 else 'below '}"
        f"{number(min(most, (k + 1) * step))}: {n}"
        for k, n in enumerate(counts)
        if n
    )
    low, middle, high = map(number, (min(totals), statistics.median(totals), max(totals)))
    alt = (f"Histogram of the totals ({len(totals)}) out of {number(most)} points: lowest {low}, "
           f"median {middle}, highest {high}. {said}.")  # fmt: skip
    return _svg(figure, "totals", alt)


def _bars(exercises: Sequence[dict]) -> Markup:
    """For each exercise a bar, cut by verdict."""
    figure, ax = _figure(4.8, 1.0 + 0.27 * len(exercises))
    names = [e["item"].exercise for e in exercises]
    widest = max(1, *(e["counts"].total() for e in exercises))
    left = [0] * len(exercises)
    for verdict, (colour, hatch, ink) in _LOOKS.items():
        widths = [e["counts"][verdict] for e in exercises]
        if not any(widths):
            continue
        ax.barh(range(len(names)), widths, left=left, height=0.74, color=colour, hatch=hatch,
                edgecolor=_INK, lw=0.5, label=str(verdict))  # fmt: skip
        for y, (start, n) in enumerate(zip(left, widths, strict=True)):
            if n >= 0.05 * widest:
                back = {"facecolor": colour, "edgecolor": "none", "pad": 1}
                ax.text(start + n / 2, y, f"{n}", ha="center", va="center", fontsize=9, color=ink,
                        bbox=back if hatch and colour != "none" else None)  # fmt: skip
        left = [a + b for a, b in zip(left, widths, strict=True)]
    ax.set(yticks=range(len(names)), xlim=(0, widest), xticks=[])
    ax.set_yticklabels(names, parse_math=False)
    ax.tick_params(axis="y", length=0)
    ax.margins(y=0.01)
    ax.invert_yaxis()
    ax.set_xlabel("students")
    figure.legend(loc="outside upper left", ncols=3, frameon=False, fontsize=9, labelcolor=_INK)
    said = "; ".join(
        f"{e['item'].exercise}: "
        + (", ".join(f"{n} {v}" for v in Verdict if (n := e["counts"][v])) or "nobody")
        for e in exercises
    )
    return _svg(figure, "verdicts", f"Bars, one an exercise, cut by verdict. {said}.")


def _figure(width: float, height: float):
    figure = Figure(figsize=(width, height), layout="constrained")
    ax = figure.add_subplot()
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.spines[:].set_color(_INK)
    ax.tick_params(colors=_INK)
    ax.xaxis.label.set_color(_INK)
    ax.yaxis.label.set_color(_INK)
    return figure, ax


def _svg(figure: Figure, name: str, alt: str) -> Markup:
    """Inline, without a ground of its own; its ids begin with `name` and are the same each time."""
    out = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(out, format="svg", transparent=True, metadata=nothing)
    svg = out.getvalue()
    ids = {old: f"{name}-{k}" for k, old in enumerate(re.findall(r'\bid="([^"]+)"', svg))}
    swap = lambda found: found[1] + ids[found[2]] + found[3]
    svg = re.sub(r'(\bid="|href="#|url\(#)([^")]+)(["\)])', swap, svg).replace(_INK, "currentColor")
    head, inner = svg[svg.index("<svg") :].split(">", 1)
    view = re.search(r'viewBox="[^"]+"', head)[0]
    start = Markup('<svg xmlns:xlink="http://www.w3.org/1999/xlink" role="img" aria-label="{}" ')
    return start.format(alt) + Markup(f"{view}>{inner}")
