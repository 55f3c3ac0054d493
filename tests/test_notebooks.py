"""Every notebook: its one form, what is generated in it, and exercises that fit their checks."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from robcourse import checks

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tools"))
import notebooks as tool  # noqa: E402

PATHS = sorted(
    p for f in ("chapters", "exercises", "solutions") for p in (ROOT / f).glob("*.ipynb")
)
CHAPTERS = [p.stem for p in PATHS if p.parent.name == "chapters"]
SOLVED = [p.stem for p in PATHS if p.parent.name == "solutions"]
every = pytest.mark.parametrize("path", PATHS, ids=lambda p: f"{p.parent.name}-{p.stem}")


def cells(path: Path) -> list[dict]:
    return json.loads(path.read_text())["cells"]


def source(cell: dict) -> str:
    return "".join(cell["source"])


def test_there_is_something_to_test():
    assert CHAPTERS
    assert [p.stem for p in PATHS if p.parent.name == "exercises"] == SOLVED
    assert checks.chapters() == SOLVED


@every
def test_no_output_and_no_traces_of_a_run(path):
    notebook = json.loads(path.read_text())
    assert set(notebook["metadata"]) == {"kernelspec", "language_info"}
    for cell in notebook["cells"]:
        assert set(cell["metadata"]) <= tool.KEPT
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []
            assert cell["execution_count"] is None


@every
def test_ids_are_slugs_and_unique(path):
    ids = [cell["id"] for cell in cells(path)]
    assert len(ids) == len(set(ids))
    assert all(re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", i) for i in ids)


@every
def test_a_title_first_and_then_the_same_cell_everywhere(path):
    title, install, *rest = cells(path)
    assert source(title).startswith("# ")
    assert source(install) == tool.INSTALL.format(url=tool.address())
    assert not any("pip install" in source(c) for c in rest)
    assert source(install).count("https://") == 1


@every
def test_code_fits_the_page(path):
    most = 1000 if path.parent.name == "solutions" else 25
    for cell in cells(path):
        if cell["cell_type"] == "code":
            lines = source(cell).splitlines()
            assert len(lines) <= most, cell["id"]
            assert max(map(len, lines), default=0) <= 88, cell["id"]


@every
def test_words_that_talk_down(path):
    for cell in cells(path):
        if cell["cell_type"] == "markdown":
            assert not re.search(r"\b(simply|obviously|trivially)\b", source(cell), re.I), cell[
                "id"
            ]
            assert "```{" not in source(cell), "directives have colon fences"


@every
def test_figures_have_a_caption_and_an_alternative_text(path):
    for cell in cells(path):
        shown = cell["metadata"].get("mystnb")
        if shown and "figure" in shown:
            assert len(shown["figure"]["caption"]) > 20, cell["id"]
            of_its_own = "slider(" in source(cell)  # each frame says what it shows
            assert of_its_own or len(shown["image"]["alt"]) > 40, cell["id"]


def test_make_notebooks_would_change_nothing():
    """Also: the exercises come from the solutions, the tables from metadata and ledger."""
    done = subprocess.run(
        [sys.executable, ROOT / "tools/notebooks.py", "--check"],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_check_sees_a_difference(tmp_path, monkeypatch, capsys):
    path = tmp_path / "exercises" / "x.ipynb"
    path.parent.mkdir()
    path.write_text("old")
    monkeypatch.setattr(tool, "ROOT", tmp_path)
    monkeypatch.setattr(tool, "wanted", lambda: {path: "new"})
    assert tool.main(["--check"]) == 1
    assert "exercises/x.ipynb is not what" in capsys.readouterr().out
    assert path.read_text() == "old"
    assert tool.main([]) == 0
    assert path.read_text() == "new"
    assert tool.main(["--check"]) == 0


def test_a_bad_cell_id_is_refused():
    title = {"cell_type": "markdown", "id": "title", "metadata": {}, "source": "# T"}
    twice = {"cells": [title, title], "metadata": {}}
    with pytest.raises(SystemExit, match="unique and of the form"):
        tool.normal(twice, "x")


# exercises


@pytest.mark.parametrize("chapter", SOLVED)
def test_nothing_of_the_solutions_is_left(chapter):
    solution, exercise = (cells(ROOT / f / f"{chapter}.ipynb") for f in ("solutions", "exercises"))
    text = "\n".join(source(c) for c in exercise)
    assert "SOLUTION" not in text
    for cell in solution:
        if "solution-only" in cell["metadata"].get("tags", []):
            assert source(cell) not in text
            assert cell["id"] not in {c["id"] for c in exercise}
    for cell in exercise:
        role = cell["metadata"].get("nbgrader", {})
        if role.get("solution"):
            assert "hide-input" not in cell["metadata"].get("tags", [])
            if cell["cell_type"] == "markdown":
                assert source(cell) == tool.WRITTEN
            else:
                assert re.search(r"(^    \.\.\.$)|(^\w+ = \.\.\.)", source(cell), re.M)
            if cell["cell_type"] == "code":
                assert "### BEGIN SOLUTION" in source(match(solution, cell))


def match(found: list[dict], cell: dict) -> dict:
    return next(c for c in found if c["id"] == cell["id"])


@pytest.mark.parametrize("chapter", SOLVED)
def test_every_check_has_an_exercise_and_a_cell(chapter):
    """In one order; with points that agree; the metadata complete."""
    solution = cells(ROOT / "solutions" / f"{chapter}.ipynb")
    listed = [c["metadata"]["exercise"] for c in solution if "exercise" in c["metadata"]]
    assert [f"{chapter}.{e['name']}" for e in listed] == checks.names(chapter)
    for e in listed:
        assert set(e) == {"name", "kind", "difficulty", "importance", "minutes", "purpose"}
        assert e["kind"] in {"build", "break-it", "prediction", "proof step", "open task"}
        assert {e["difficulty"], e["importance"]} <= {1, 2, 3, 4}
        assert 0 < e["minutes"] <= 60
        cell = next(c for c in solution if f'"{chapter}.{e["name"]}"' in source(c))
        assert (
            cell["metadata"]["nbgrader"]["points"] == checks.find(f"{chapter}.{e['name']}").points
        )
        text = re.sub(r"\(\n    |\n\)", lambda w: w.group().strip(), source(cell))
        assert text == f'report_{e["name"]} = checks.run("{chapter}.{e["name"]}", {e["name"]})'

    assert {"build", "break-it", "prediction", "proof step", "open task"} == {
        e["kind"] for e in listed
    }
    assert len(listed) >= 6


@pytest.mark.parametrize("chapter", SOLVED)
def test_an_answer_is_used_only_where_it_is_right(chapter):
    """A cell after the check that calls an answer is guarded, so the untouched notebook runs."""
    exercise = cells(ROOT / "exercises" / f"{chapter}.ipynb")
    names = [c["metadata"]["exercise"]["name"] for c in exercise if "exercise" in c["metadata"]]
    for cell in exercise:
        if cell["cell_type"] != "code" or "nbgrader" in cell["metadata"]:
            continue
        if any(re.search(rf"(?<!\.)\b{name}\b", source(cell)) for name in names):
            used = [name for name in names if re.search(rf"(?<!\.)\b{name}\b", source(cell))]
            assert len(used) == 1, cell["id"]
            assert source(cell).startswith(f'if report_{used[0]}.status == "right":'), cell["id"]


@pytest.mark.parametrize("chapter", SOLVED)
def test_the_chapter_lists_its_exercises(chapter):
    if chapter in CHAPTERS:
        table = source(
            match(cells(ROOT / "chapters" / f"{chapter}.ipynb"), {"id": "exercises-table"})
        )
        assert table.count("\n| ") - 1 == len(checks.names(chapter))
        assert f"../exercises/{chapter}.ipynb" in table


# the ledger

ROWS = yaml.safe_load((ROOT / "book/ledger.yml").read_text())
FIELDS = {"row", "source", "chapter", "claim", "verdict", "truth", "cell"}


@pytest.mark.parametrize("row", ROWS, ids=lambda r: r["row"])
def test_a_ledger_row_is_whole_and_its_cell_exists(row):
    assert set(row) == FIELDS
    assert row["verdict"] in tool.VERDICTS
    assert not re.search(r"(?<!\\)\|", row["claim"] + row["truth"]), (
        "a bar would end the table's cell"
    )
    assert all(len(row[f]) > 10 for f in ("claim", "truth"))
    if row["chapter"] in CHAPTERS:
        path = ROOT / "chapters" / f"{row['chapter']}.ipynb"
        assert row["cell"] in {c["id"] for c in cells(path)}
        assert f'href="#cell-{row["cell"]}"' in source(match(cells(path), {"id": "ledger-table"}))
        assert (
            f"chapters/{row['chapter']}.html#cell-{row['cell']}"
            in (ROOT / "book/ledger.md").read_text()
        )


def test_the_rows_of_chapter_1_are_all_there():
    mine = {r["row"] for r in ROWS if r["chapter"] == "01_linear_hypothesis"}
    assert mine == {
        *(f"D{i}" for i in (1, 2, 3, 4, 5, 6, 14, 17)),
        *(f"L{i}" for i in range(1, 13)),
    }
    assert len({r["row"] for r in ROWS}) == len(ROWS)


def test_the_rows_of_chapter_2_are_all_there():
    mine = {r["row"] for r in ROWS if r["chapter"] == "02_concentration"}
    assert mine == {f"C{i}" for i in range(1, 12)}


def test_the_rows_of_chapter_3_are_all_there():
    mine = {r["row"] for r in ROWS if r["chapter"] == "03_smoothing"}
    plain = {f"S{i}" for i in range(1, 13)} - {"S4"}
    assert mine == plain | {"S4a", "S4b", "S4c", "S4d", "D7"}


def test_the_rows_of_chapter_4_are_all_there():
    mine = {r["row"] for r in ROWS if r["chapter"] == "04_lipschitz"}
    assert mine == {f"P{i}" for i in range(1, 15)} - {"P5"}  # chapter 6's


def test_the_rows_of_chapter_5_are_all_there():
    mine = {r["row"] for r in ROWS if r["chapter"] == "05_verification"}
    assert mine == {f"V{i}" for i in range(1, 15)} - {"V1", "V11"}  # chapter 6's


def test_the_rows_of_chapter_6_are_all_there():
    mine = {r["row"] for r in ROWS if r["chapter"] == "06_tradeoff"}
    plain = {f"T{i}" for i in range(1, 31)} - {"T16"}
    assert mine == plain | {"T16a", "T16b", "D8", "P5", "V1", "V11"}


def test_the_rows_of_chapter_10_are_all_there():
    mine = {r["row"] for r in ROWS if r["chapter"] == "10_flatness"}
    others = {f"D{i}" for i in (9, 10, 11, 12, 13, 15, 16)} | {"L13", "Z8", "Z9"}
    assert mine == {f"F{i}" for i in range(1, 79)} | others
