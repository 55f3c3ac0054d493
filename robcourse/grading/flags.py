"""What a person may want to look at, found by reading: nothing here changes a point."""

import ast
from collections.abc import Mapping, Sequence

from robcourse.grading.table import Flag, Row, Verdict


def of(row: Row, assignment, cells: list[dict], saved: Mapping, uses: Mapping) -> list[Flag]:
    """The flags of a judged row, from its notebook's cells and saved outputs."""
    right = {f"{assignment.name}.{r.exercise}": r.verdict == Verdict.RIGHT for r in row.results}
    shown = {name: said == "right" for name, said in saved.items() if name in right}
    found = {
        Flag.PROVISIONAL: any(r.points is None for r in row.results),
        Flag.USES_REFERENCE: any(uses.values()),
        Flag.DIFFERS: any(right[name] != said for name, said in shown.items()),
        Flag.EDITED: _edited(assignment, cells),
    }
    return [flag for flag, on in found.items() if on]


def uses(sources: Sequence[str], exercise: str, teaches: Sequence[str]) -> list[str]:
    """Which of the names in `teaches` the definition of `exercise` refers to, by the syntax tree.

    A name such as "linear.distance" is met whatever it was imported as, and also in what else of
    the student's the exercise uses; "Threat.project" is any method `project`. `sources` are the
    cells that the student changed: what was handed out may use anything.
    """
    defined, aliases = _definitions(sources)
    todo, done, met = [exercise], set(), set()
    while todo:
        name = todo.pop()
        if name in done:
            continue
        done.add(name)
        for node in defined.get(name, ()):
            local = _local(node)
            for part in ast.walk(node):
                dotted = _dotted(part, aliases)
                if dotted and dotted.partition(".")[0] not in local:
                    met.add(dotted)
                    todo.append(dotted)
                elif "." in dotted:
                    met.add("?" + dotted[dotted.rindex(".") :])
    return [t for t in teaches if any(_is(dotted, t) for dotted in met)]


def _is(dotted: str, taught: str) -> bool:
    owner, _, name = taught.rpartition(".")
    if owner[:1].isupper():
        return dotted.endswith(f".{name}")
    return dotted == taught or dotted.endswith(f".{taught}")


def _definitions(sources: Sequence[str]) -> tuple[dict[str, list[ast.AST]], dict[str, str]]:
    """What each top-level name of a notebook stands for, and what each import is called."""
    defined: dict[str, list[ast.AST]] = {}
    aliases: dict[str, str] = {}
    for source in sources:
        lines = ("" if s.lstrip().startswith(("%", "!")) else s for s in source.splitlines())
        try:
            tree = ast.parse("\n".join(lines))
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                aliases |= {a.asname: a.name for a in node.names if a.asname}
            elif isinstance(node, ast.ImportFrom):
                aliases |= {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
        for node in tree.body:
            for name in _names(node):
                defined.setdefault(name, []).append(node)
    return defined, aliases


def _names(node: ast.stmt) -> list[str]:
    """The names that a top-level statement gives a meaning to."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [node.name]
    stored = (n for n in ast.walk(node) if isinstance(n, ast.Name))
    return [n.id for n in stored if isinstance(n.ctx, ast.Store)]


def _local(node: ast.stmt) -> set[str]:
    """The names that belong to a function: its arguments, and what it assigns."""
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return set()
    stored = {
        n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
    }
    return stored | {n.arg for n in ast.walk(node) if isinstance(n, ast.arg)}


def _dotted(node: ast.AST, aliases: dict[str, str]) -> str:
    """`linear.distance` gives "robcourse.linear.distance", `f().project` gives "?.project"."""
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if isinstance(node, ast.Name):
        parts.append(aliases.get(node.id, node.id))
    elif parts:
        parts.append("?")
    return ".".join(reversed(parts))


def _edited(assignment, cells: list[dict]) -> bool:
    """Whether a check cell has another text, or a graded cell other points, than was handed out."""
    handed = {c["id"]: c for c in assignment.release["cells"]}
    for cell in cells:
        item = next((i for i in assignment.items if i.cell == cell["id"]), None)
        if item is None:
            continue
        original = "".join(handed[item.cell]["source"]).strip()
        points = handed[item.cell]["metadata"]["nbgrader"]["points"]
        if cell["points"] not in (None, points):
            return True
        if not item.by_hand and cell["source"].strip() != original:
            return True
    return False
