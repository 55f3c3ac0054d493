"""What an assignment asks: its exercises in order, their points, and the notebook handed out."""

import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path

from robcourse import checks


@dataclass(frozen=True)
class Item:
    """One line of the table of points.

    Attributes:
        exercise: its short name, "distance", or the id of a hand-graded cell, "holder-proof".
        maximum: the points to be had.
        cell: the grade id of its cell in the notebook, or "" where a check of one's own has none.
        by_hand: whether a person grades it.
    """

    exercise: str
    maximum: float
    cell: str
    by_hand: bool = False


@dataclass(frozen=True)
class Assignment:
    """An assignment of a course folder.

    Attributes:
        name: "01_linear_hypothesis".
        items: its exercises and hand-graded cells, in the order of the notebook.
        release: the notebook that students get, as JSON.
        source: the solved notebook, in nbgrader's source format.
        variants: the text of an instructor's own file of checks, or "".
    """

    name: str
    items: tuple[Item, ...]
    release: dict
    source: Path
    variants: str = ""

    @property
    def exercises(self) -> dict[str, checks.Check]:
        """The checks by the names that a notebook defines: {"distance": Check, …}."""
        return checks_of(self.name, self.variants)

    @property
    def handed(self) -> list[str]:
        """The code cells as they were handed out."""
        code = (c["source"] for c in self.release["cells"] if c["cell_type"] == "code")
        return ["".join(source).strip() for source in code]


def checks_of(name: str, variants: str = "") -> dict[str, checks.Check]:
    """The checks of an assignment; those of an instructor's own file stand before the course's.

    Raises:
        LookupError: there are none.
        ValueError: the text of `variants` is not a file of checks.
    """
    known = {}
    if name in checks.chapters():
        known = {n.partition(".")[2]: checks.find(n) for n in checks.names(name)}
    if variants:
        known |= _own(name, variants)
    if not known:
        there = ", ".join(checks.chapters())
        raise LookupError(f"there is no assignment {name!r}; there are: {there}")
    return known


def load(course: Path, name: str, variants: str = "") -> Assignment:
    """The assignment `name` of a course folder (with `solutions/` and `exercises/`).

    Raises:
        LookupError: the course has no such assignment.
        ValueError: its notebooks and its checks do not fit together.
    """
    known = checks_of(name, variants)
    source, release = course / f"solutions/{name}.ipynb", course / f"exercises/{name}.ipynb"
    for path in (source, release):
        if not path.is_file():
            raise LookupError(
                f"{path} is not there: is {course} the folder of the course? Give it with --course"
            )
    notebook = json.loads(release.read_text())
    graded = [c for c in notebook["cells"] if c["metadata"].get("nbgrader", {}).get("grade")]
    items = []
    for cell in graded:
        meta = cell["metadata"]["nbgrader"]
        if meta["solution"]:
            items.append(Item(meta["grade_id"], float(meta["points"]), meta["grade_id"], True))
        else:
            exercise = meta["grade_id"].removesuffix("-check").replace("-", "_")
            if exercise not in known:
                raise ValueError(f"cell {meta['grade_id']} of {release}: no check {exercise!r}")
            items.append(Item(exercise, float(known[exercise].points), meta["grade_id"]))
    if missing := set(known) - {i.exercise for i in items}:
        raise ValueError(f"{release} has no check cell for: {', '.join(sorted(missing))}")
    return Assignment(name, tuple(items), notebook, source, variants)


def _own(name: str, text: str) -> dict[str, checks.Check]:
    spec = importlib.util.spec_from_loader(f"own_checks_{name}", loader=None)
    module = importlib.util.module_from_spec(spec)
    try:
        exec(compile(text, "the file of --checks", "exec"), module.__dict__)
    except Exception as error:
        raise ValueError(f"the file of --checks does not run: {error}") from error
    own = getattr(module, "CHECKS", None)
    good = isinstance(own, dict) and all(isinstance(c, checks.Check) for c in own.values())
    if not own or not good:
        raise ValueError("the file of --checks needs CHECKS, a dict of name to checks.Check")
    return own
