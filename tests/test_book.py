"""The build: an old page never survives, a failure fails again, notebooks keep to their budgets.

The first half builds a tiny book with the real Makefile, configuration and extensions.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from bs4 import BeautifulSoup
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "_build"
#: Seconds a notebook may take, one thread, on the two cores that the book is made for.
BUDGET = {"chapters": 60, "solutions": 30}

needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
needs_book = pytest.mark.skipif(
    not (BUILD / "seconds.json").exists(), reason="_build is not there: `make book` first"
)


class Book:
    """One chapter that prints what one method of its own `robcourse` returns."""

    page = "_build/html/chapters/01_tiny.html"

    def __init__(self, root: Path):
        self.root = root
        for name in ("_config.yml", "Makefile", "requirements.txt", "pyproject.toml"):
            shutil.copy(ROOT / name, root)
        (root / "book").mkdir()
        shutil.copytree(ROOT / "book" / "_ext", root / "book" / "_ext")
        (root / "book" / "_static").mkdir()
        shutil.copy(ROOT / "book" / "references.bib", root / "book")
        for name in ("favicon.svg", "logo.svg"):
            shutil.copy(ROOT / "book" / "_static" / name, root / "book" / "_static")
        (root / "tools").mkdir()
        shutil.copy(ROOT / "tools" / "prefill.py", root / "tools")
        toc = "format: jb-book\nroot: intro\nchapters:\n- file: chapters/01_tiny\n"
        (root / "_toc.yml").write_text(toc)
        self.intro("Read [the chapter](chapters/01_tiny.ipynb).")
        (root / "robcourse").mkdir()
        self.method("41")
        (root / "chapters").mkdir()
        self.cell("from IPython.display import Markdown, display\nfrom robcourse import method\n\n"
                  "display(Markdown(f'The answer is **{method()}**.'))")  # fmt: skip

    def intro(self, text: str) -> None:
        (self.root / "intro.md").write_text(f"# Tiny\n\n{text}\n")

    def method(self, value: str) -> None:
        (self.root / "robcourse" / "__init__.py").write_text(f"def method():\n    return {value}\n")

    def cell(self, source: str) -> None:
        cells = [new_markdown_cell("# Tiny", id="title"), new_code_cell(source, id="run")]
        kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
        book = new_notebook(cells=cells, metadata={"kernelspec": kernel})
        nbformat.write(book, self.root / "chapters" / "01_tiny.ipynb")

    def make(self) -> subprocess.CompletedProcess:
        """`make book`, as a user types it, but with the environment that runs this test."""
        ours = ("PYTEST", "MAKE", "MFLAGS")  # what this test itself was started with
        env = {k: v for k, v in os.environ.items() if not k.startswith(ours)}
        env |= {"PYTHONPATH": str(self.root), "PYTHONDONTWRITEBYTECODE": "1"}
        stamp = f"{sys.prefix}/.installed"
        command = ["make", "book", f"VENV={sys.prefix}", "-o", stamp]
        return subprocess.run(command, cwd=self.root, env=env, capture_output=True, text=True)

    def text(self) -> str:
        page = BeautifulSoup((self.root / self.page).read_text(), "html.parser")
        return page.select_one(".bd-article").get_text()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    book = Book(tmp_path_factory.mktemp("tiny"))
    done = book.make()
    assert done.returncode == 0, done.stdout + done.stderr
    return book


@needs_make
def test_a_changed_method_changes_the_page(tiny):
    assert "The answer is 41." in tiny.text()
    tiny.method("42")
    assert tiny.make().returncode == 0
    assert "The answer is 42." in tiny.text()
    assert "41" not in tiny.text()


@needs_make
def test_nothing_is_run_twice_and_the_seconds_are_kept(tiny):
    tiny.method("43")
    assert "(just run)" in tiny.make().stdout
    again = tiny.make()
    assert again.returncode == 0
    assert "chapters/01_tiny.ipynb" in again.stdout
    assert "(just run)" not in again.stdout
    seconds = json.loads((tiny.root / "_build" / "seconds.json").read_text())
    assert 0 < seconds["chapters/01_tiny.ipynb"] < 60


@needs_make
def test_a_build_that_failed_on_a_warning_fails_again(tiny):
    tiny.intro("Read {doc}`nowhere`.")
    first, second = tiny.make(), tiny.make()
    tiny.intro("Read [the chapter](chapters/01_tiny.ipynb).")
    for done in (first, second):
        assert done.returncode != 0
        assert "nowhere" in done.stderr
    assert tiny.make().returncode == 0


@needs_make
@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("assert 1 + 1 == 3, 'a claim that does not hold'", "a claim that does not hold"),
        ("import warnings\nwarnings.warn('careless')", "stderr was found"),
    ],
)
def test_a_cell_that_fails_or_warns_fails_the_build_and_leaves_no_page(tiny, source, said):
    tiny.cell(source)
    done = tiny.make()
    assert done.returncode != 0
    assert said in done.stdout + done.stderr
    assert "The answer is" not in (tiny.text() if (tiny.root / tiny.page).exists() else "")
    assert tiny.make().returncode != 0


# The book itself.


@needs_book
def test_notebooks_keep_to_their_budgets():
    seconds = json.loads((BUILD / "seconds.json").read_text())
    assert set(seconds) == {
        p.relative_to(ROOT).as_posix() for room in BUDGET for p in (ROOT / room).glob("*.ipynb")
    }
    assert {n: s for n, s in seconds.items() if s > BUDGET[n.partition("/")[0]]} == {}


@needs_book
@pytest.mark.parametrize("path", sorted((ROOT / "chapters").glob("*.ipynb")), ids=lambda p: p.stem)
def test_the_page_shows_the_numbers_that_its_cells_computed(path):
    """Each sentence that a cell displays is on the page with a number in it, and rendered."""
    html = BUILD / "html" / "chapters" / f"{path.stem}.html"
    page = BeautifulSoup(html.read_text(), "html.parser")
    cells = nbformat.read(path, as_version=4).cells
    sentences = [
        c for c in cells if c.cell_type == "code" and re.search(r"display\(\s*Markdown\(", c.source)
    ]
    assert sentences
    for cell in sentences:
        shown = page.find(id=f"cell-{cell.id}").find_next("div", class_="cell")
        output = shown.select_one(".cell_output")
        for formula in output.select(".math"):
            formula.decompose()
        text = output.get_text()
        assert re.search(r"\d", text), f"{cell.id}: no number in {text[:80]!r}"
        raw = re.search(r"\$|\*\*|\{\w+[:}]|\bnan\b", text)
        assert not raw, f"{cell.id}: not rendered: {text[:200]!r}"
