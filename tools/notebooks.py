"""`make notebooks`: write everything in the notebooks that is made from something else.

- the first code cell of every notebook, which installs the package from the address in _config.yml;
- exercises/, from solutions/, by nbgrader's converter;
- in each chapter the table of its exercises (cell `exercises-table`, from the solutions' metadata)
  and the table of its ledger rows (cell `ledger-table`, from book/ledger.yml);
- the table in book/ledger.md, that of the speeds (book/measured.json) in book/about.md, those of
  columns, statuses and flags in book/instructor.md;
- one form for every notebook: no outputs, little metadata, sorted keys.

`--check` writes nothing, lists what would change, and exits 1 if anything would.
"""

import json
import logging
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path

import yaml

from robcourse.grading.exports import Column
from robcourse.grading.table import Flag, Status

ROOT = Path(__file__).parents[1]
INSTALL = """\
# Installs the course where it is missing; torch and the rest stay as they are.
import importlib.util

if importlib.util.find_spec("robcourse") is None:
    %pip install -q "git+{url}"\
"""
KERNEL = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
KEPT = {"deletable", "editable", "exercise", "mystnb", "nbgrader", "tags"}  # metadata of a cell
SLUG = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
VERDICTS = {
    "right": "right",
    "conditional": "conditional",
    "loose": "loose",
    "wrong": "wrong",
    "stripped": "lost in our copy",
    "open": "not reproducible here",
}
WRITTEN = "*Write your answer here.*"


def main(arguments: list[str]) -> int:
    if set(arguments) - {"--check"}:
        raise SystemExit(__doc__)
    changed = {p: text for p, text in wanted().items() if not p.exists() or p.read_text() != text}
    if "--check" in arguments:
        for path in changed:
            print(f"{path.relative_to(ROOT)} is not what `make notebooks` makes")
        return 1 if changed else 0
    for path, text in changed.items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        print(f"wrote {path.relative_to(ROOT)}")
    return 0


def wanted() -> dict[Path, str]:
    """Every file that this script makes, as it should be."""
    rows = yaml.safe_load((ROOT / "book/ledger.yml").read_text())
    install = INSTALL.format(url=address())
    out, solutions = {}, {}
    for path in sorted((ROOT / "solutions").glob("*.ipynb")):
        solutions[path.stem] = normal(read(path), install)
        out[path] = text_of(solutions[path.stem])
    for name, notebook in release(out).items():
        out[ROOT / "exercises" / name] = text_of(normal(notebook, install))
    for path in sorted((ROOT / "chapters").glob("*.ipynb")):
        notebook = normal(read(path), install)
        if path.stem in solutions:
            fill(notebook, "exercises-table", exercise_table(solutions[path.stem], path.stem))
        mine = [row for row in rows if row["chapter"] == path.stem]
        fill(notebook, "ledger-table", ledger_table(mine, ""))
        out[path] = text_of(notebook)
    for page, parts in {
        "ledger": {"ledger": whole_ledger(rows)},
        "about": {"speed": speeds()},
        "instructor": {
            "columns": meanings("column", Column),
            "statuses": meanings("status", Status),
            "flags": meanings("flag", Flag),
        },
    }.items():
        path = ROOT / f"book/{page}.md"
        text = path.read_text()
        for name, made in parts.items():
            text = between(text, name, made, page)
        out[path] = text
    return out


def address() -> str:
    """Where the package is installed from: written once, in _config.yml."""
    return yaml.safe_load((ROOT / "_config.yml").read_text())["repository"]["url"].rstrip("/")


def read(path: Path) -> dict:
    return json.loads(path.read_text())


def text_of(notebook: dict) -> str:
    return json.dumps(notebook, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def normal(notebook: dict, install: str) -> dict:
    """The notebook in the one form that is committed."""
    cells = [_cell(c) for c in notebook["cells"] if c["id"] != "install"]
    source = install.splitlines(keepends=True)
    first = {"cell_type": "code", "id": "install", "metadata": {"tags": ["hide-input"]}}
    cells.insert(1, first | {"source": source, "execution_count": None, "outputs": []})
    ids = [c["id"] for c in cells]
    bad = [i for i in ids if not SLUG.fullmatch(i) or ids.count(i) > 1]
    if bad:
        raise SystemExit(f"cell ids must be unique and of the form a-b-1: {', '.join(bad)}")
    return {"cells": cells, "metadata": KERNEL, "nbformat": 4, "nbformat_minor": 5}


def release(sources: dict[Path, str]) -> dict[str, dict]:
    """The student's notebooks: solutions cleared by nbgrader, what only teaches taken out."""
    # nbgrader runs `alembic` from PATH.
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    from nbgrader.apps import NbGraderAPI
    from traitlets.config import Config

    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        course = Path(folder)
        (course / "source/course").mkdir(parents=True)
        for path, text in sources.items():
            (course / "source/course" / path.name).write_text(text)
        config = Config()
        config.CourseDirectory.root = folder
        config.CourseDirectory.db_url = f"sqlite:///{course}/gradebook.db"
        config.ClearSolutions.code_stub = {"python": "..."}
        config.ClearSolutions.text_stub = WRITTEN
        result = NbGraderAPI(config=config).generate_assignment("course", force=True, create=True)
        if not result["success"]:
            raise SystemExit(result.get("log") or result.get("error"))
        made = sorted((course / "release/course").glob("*.ipynb"))
        notebooks = {path.name: read(path) for path in made}
        shutil.rmtree(course / "release")
    return {name: _student(notebook) for name, notebook in notebooks.items()}


def exercise_table(solution: dict, chapter: str) -> str:
    """Of the metadata `exercise` of a solution notebook."""
    lines = [
        f"The exercises have [their own page](../exercises/{chapter}.ipynb), with its own Colab "
        "button. Difficulty and importance go from ●○○○ to ●●●●.",
        "",
        "| exercise | kind | difficulty | importance | minutes | what it is for |",
        "|---|---|---|---|---|---|",
    ]
    for cell in solution["cells"]:
        if e := cell["metadata"].get("exercise"):
            title = cell["source"][0].lstrip("# ").strip()
            difficulty, importance = dots(e["difficulty"]), dots(e["importance"])
            row = (title, e["kind"], difficulty, importance, str(e["minutes"]), e["purpose"])
            lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines)


def ledger_table(rows: list[dict], page: str) -> str:
    """Of ledger rows; `page` is the address of their chapter, "" on the chapter itself."""
    lines = ["| | the claim, and where it stands | verdict | what is true |", "|---|---|---|---|"]
    for r in rows:
        link = f'<a href="{page}#cell-{r["cell"]}" title="the cell that shows it">{r["row"]}</a>'
        cells = (link, f"{r['claim']} ({r['source']})", VERDICTS[r["verdict"]], r["truth"])
        lines.append(f"| {' | '.join(' '.join(c.split()) for c in cells)} |")
    return "\n".join(lines)


def whole_ledger(rows: list[dict]) -> str:
    """One table a chapter, in the order of the file names."""
    parts = []
    for path in sorted((ROOT / "chapters").glob("*.ipynb")):
        mine = [r for r in rows if r["chapter"] == path.stem]
        if mine:
            title = read(path)["cells"][0]["source"][0].lstrip("# ").strip()
            parts.append(f"## {title}\n\n{ledger_table(mine, f'../chapters/{path.stem}.html')}")
    return "\n\n".join(parts)


def dots(n: int) -> str:
    return "●" * n + "○" * (4 - n)


def fill(notebook: dict, id: str, text: str) -> None:
    """Put a generated text under the heading of the cell with this id, where there is one."""
    for cell in notebook["cells"]:
        if cell["id"] == id:
            head = "".join(cell["source"][:1]).strip()
            text = f"{head}\n\n{text}" if head.startswith("#") else text
            cell["source"] = text.splitlines(keepends=True)


def meanings(name: str, kind) -> str:
    """Of an enum whose members say what they mean."""
    lines = [f"| `{member}` | {member.meaning} |" for member in kind]
    return "\n".join([f"| {name} | meaning |", "|:--|:--|", *lines])


def between(old: str, name: str, text: str, page: str) -> str:
    """A page with `text` between its lines `<!-- name:begin -->` and `<!-- name:end -->`."""
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    before, _, rest = old.partition(begin)
    _, found, after = rest.partition(end)
    if not found:
        raise SystemExit(f"book/{page}.md has no lines {begin} and {end}")
    return f"{before}{begin}\n\n{text}\n\n{end}{after}"


def speeds() -> str:
    """What `make bench` measured last, a row each."""
    rows = ["| measured | value | goal | on |", "|:--|:--|:--|:--|"]
    for name, row in json.loads((ROOT / "book/measured.json").read_text()).items():
        sign = "≤" if row["cost"] else "≥"
        goal = "" if row["goal"] is None else f"{sign} {row['goal']:g}"
        if goal and (row["value"] - row["goal"]) * (-1 if row["cost"] else 1) < 0:
            goal += ", missed"
        card = row["card"]
        where = f"{card['date']}, {card['cpu']}, {card['threads']} thread, torch {card['torch']}"
        rows.append(f"| `{name}`: {row['unit']} | {row['value']:.3f} | {goal} | {where} |")
    return "\n".join(rows)


def _cell(cell: dict) -> dict:
    meta = {k: v for k, v in cell["metadata"].items() if k in KEPT and v not in ([], {})}
    source = cell["source"]
    lines = source.splitlines(keepends=True) if isinstance(source, str) else source
    out = {"cell_type": cell["cell_type"], "id": cell["id"], "metadata": meta, "source": lines}
    if cell["cell_type"] == "code":
        out |= {"execution_count": None, "outputs": []}
    return out


def _student(notebook: dict) -> dict:
    cells = []
    for cell in notebook["cells"]:
        meta = cell["metadata"]
        tags = meta.get("tags", [])
        if "solution-only" in tags:
            continue
        if meta.get("nbgrader", {}).pop("checksum", None) and meta["nbgrader"].get("solution"):
            meta["tags"] = [t for t in tags if t != "hide-input"]
            # A value is set to None before its solution, since the stub alone would be no program.
            text = "".join(cell["source"])
            cell["source"] = re.sub(r"^(\w+) = None(.*)\n\.\.\.$", r"\1 = ...\2", text, flags=re.M)
        cells.append(cell)
    title = "".join(cells[0]["source"])
    cells[0]["source"] = title.replace("# Solutions:", "# Exercises:", 1)
    return notebook | {"cells": cells}


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
