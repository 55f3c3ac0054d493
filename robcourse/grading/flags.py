"""What a person may want to look at, found by reading: nothing here changes a point."""

import ast
from collections.abc import Iterator, Mapping, Sequence

from IPython.core.inputtransformer2 import TransformerManager

from robcourse.grading.table import Flag, Row, Verdict


def of(row: Row, assignment, said: Mapping) -> list[Flag]:
    """The flags of a judged row, from what was said of its notebook before any of it ran."""
    cells, saved, uses = said["cells"], said["saved"], said["uses"]
    right = {f"{assignment.name}.{r.exercise}": r.verdict == Verdict.RIGHT for r in row.results}
    shown = {name: verdict == "right" for name, verdict in saved.items() if name in right}
    scored = [r.exercise for r in row.results if r.verdict == Verdict.RIGHT]
    found = {
        Flag.PROVISIONAL: any(r.points is None for r in row.results),
        Flag.USES_REFERENCE: any(uses.values()),
        Flag.NO_SOURCE: any(name not in said["there"] for name in scored),
        Flag.DIFFERS: any(right[name] != verdict for name, verdict in shown.items()),
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
        met.add(aliases.get(name, name))
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


def has(sources: Sequence[str], exercise: str) -> bool:
    """Whether the notebook's text gives the exercise's name a meaning beyond the stub."""
    from robcourse.checks import untouched  # it loads torch

    defined, aliases = _definitions(sources)
    last = defined.get(exercise, [None])[-1]
    stub = isinstance(last, ast.FunctionDef) and untouched(ast.unparse(last), exercise)
    return exercise in aliases or (last is not None and not stub)


def python(source: str) -> str:
    """A cell as Python, its magics and shell lines as calls."""
    try:
        return TransformerManager().transform_cell(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return source


def _is(dotted: str, taught: str) -> bool:
    owner, _, name = taught.rpartition(".")
    if owner[:1].isupper():
        return dotted.endswith(f".{name}")
    return dotted == taught or dotted.endswith(f".{taught}")


def _definitions(sources: Sequence[str]) -> tuple[dict[str, list[ast.AST]], dict[str, str]]:
    """What each name of a notebook stands for, and what each import is called."""
    defined: dict[str, list[ast.AST]] = {}
    aliases: dict[str, str] = {}
    for source in sources:
        try:
            tree = ast.parse(source)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                aliases |= {a.asname: a.name for a in node.names if a.asname}
            elif isinstance(node, ast.ImportFrom):
                aliases |= {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
        for node in _statements(tree.body):
            for name in _names(node):
                defined.setdefault(name, []).append(node)
    return defined, aliases


def _statements(body: list) -> Iterator[ast.AST]:
    """Also those under an `if`, a loop, a `with` or a `try`; not those inside a function."""
    for node in body:
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            for part in ("body", "handlers", "orelse", "finalbody"):
                inner = getattr(node, part, [])
                yield from _statements(inner if isinstance(inner, list) else [])


def _names(node: ast.AST) -> list[str]:
    """The names that a top-level statement gives a meaning to."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [node.name]
    stored = (n for n in ast.walk(node) if isinstance(n, ast.Name))
    return [n.id for n in stored if isinstance(n.ctx, ast.Store)]


def _local(node: ast.AST) -> set[str]:
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
