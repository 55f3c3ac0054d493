"""The repository as its users find it: the map is true, rooms are small, walls hold."""

import ast
import io
import os
import re
import shutil
import subprocess
import sys
import tokenize
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
MODULES = sorted((ROOT / "robcourse").rglob("*.py"))
CHECKS = re.compile(r"ch\d\d_\w+\.py")
LAYOUT = [
    "README.md", "LICENSE", "LICENSE-TEXT", "CITATION.cff", "CHANGELOG.md", "CONTRIBUTING.md",
    "Makefile", "pyproject.toml", "requirements.txt", "_config.yml", "_toc.yml", "book", "chapters",
    "exercises", "solutions", "robcourse", "tools", "tests", "tests/wrong", ".ci/run",
    ".github/workflows",
]  # fmt: skip


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def tracked() -> list[Path]:
    """What git holds; in a copy without git, everything that is not made by the build."""
    if (ROOT / ".git").exists():
        out = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
        files = (ROOT / f for f in out.stdout.decode().split("\0") if f)
    else:
        ignored = (ROOT / ".gitignore").read_text().split()
        made = {entry.strip("/") for entry in ignored}
        files = (p for p in ROOT.rglob("*") if not made & set(p.relative_to(ROOT).parts))
    return [p for p in files if p.is_file()]


def lines_of_code(source: str) -> int:
    """Lines that hold code: no blanks, no comments, no docstrings."""
    skip = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}
    lines = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in skip and token.string:
            lines.update(range(token.start[0], token.end[0] + 1))
    documented = ast.Module | ast.ClassDef | ast.FunctionDef
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, documented) and ast.get_docstring(node):
            lines -= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    return len(lines)


@pytest.mark.parametrize("path", LAYOUT)
def test_the_layout_is_there(path):
    assert (ROOT / path).exists()


def test_nothing_else_lies_at_the_root():
    known = {Path(path).parts[0] for path in LAYOUT} | {".gitignore", ".pre-commit-config.yaml"}
    assert {path.relative_to(ROOT).parts[0] for path in tracked()} <= known


def test_the_readme_names_every_room():
    readme = (ROOT / "README.md").read_text()
    rooms = {p.name for p in ROOT.iterdir() if p.is_dir() and not p.name.startswith((".", "_"))}
    rooms -= {"robcourse.egg-info", "build"}
    assert [room for room in sorted(rooms) if f"`{room}/`" not in readme] == []


def test_no_large_file_is_tracked():
    """3 MB; the widget bundle (1.9 MB) is the largest there should ever be."""
    assert [name(p) for p in tracked() if p.stat().st_size > 3_000_000] == []


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_a_room_can_be_read_in_one_sitting(path):
    """300 lines of code; a chapter's checks, a table of small judges, may have twice as many."""
    most = 600 if CHECKS.match(path.name) else 300
    assert lines_of_code(path.read_text()) <= most


def test_small_is_a_feature():
    """All rooms together; docstrings and blanks do not count.

    Apart from checks and grading, and from the scripts that make records: nobody imports those.
    A room is a chapter's method; two certifying chapters took more than was first allowed for.
    """
    rooms = [p for p in MODULES if not {"checks", "grading", "experiments"} & set(p.parts)]
    assert sum(lines_of_code(p.read_text()) for p in rooms) < 6000


def test_lines_of_code_are_counted_right():
    source = '"""One\ntwo."""\n\n# three\nx = 1  # four\n\n'
    source += 'def f():\n    """Five."""\n    return [\n        1,\n    ]\n'
    assert lines_of_code(source) == 5


@pytest.mark.parametrize("path", [p for p in MODULES if p.stem != "__main__"], ids=name)
def test_what_is_public_says_what_it_does(path):
    tree = ast.parse(path.read_text())
    assert path.read_text().strip() == "" or ast.get_docstring(tree), "the module has no docstring"
    silent = []
    # torch says what `forward` is; the exercise says what its cases and its judge are.
    told = re.compile(r"forward|\w+_(cases|judge)" if CHECKS.match(path.name) else r"forward")

    classes = {c.name: c for c in tree.body if isinstance(c, ast.ClassDef)}

    def inherits(name, node) -> bool:
        """What a method of a base in this file does is said there."""
        bases = [classes.get(getattr(b, "id", "")) for b in getattr(node, "bases", [])]
        return any(
            name in [getattr(f, "name", "") for f in base.body] or inherits(name, base)
            for base in filter(None, bases)
        )

    def look(node, inside=""):
        for child in node.body:
            if isinstance(child, ast.FunctionDef | ast.ClassDef) and not (
                child.name.startswith("_") or told.fullmatch(child.name)
            ):
                if not ast.get_docstring(child) and not inherits(child.name, node):
                    silent.append(inside + child.name)
                if isinstance(child, ast.ClassDef):
                    look(child, f"{child.name}.")

    look(tree)
    assert silent == []


# Walls: import-linter on a copy, so that a planted breach can be seen.


@pytest.fixture
def house(tmp_path):
    made = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "robcourse", tmp_path / "robcourse", ignore=made)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def lint(house: Path) -> subprocess.CompletedProcess:
    command = [Path(sys.executable).parent / "lint-imports", "--no-cache"]
    env = {**os.environ, "PYTHONPATH": str(house)}
    return subprocess.run(command, cwd=house, env=env, capture_output=True, text=True)


def test_the_walls_hold(house):
    done = lint(house)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("room", "breach", "contract"),
    [
        ("models", "from robcourse import data", "imports go down only"),  # the same floor
        ("runtime", "from robcourse import linear", "imports go down only"),  # upwards
        ("linear", "from robcourse import data", "methods get tensors"),
        ("plots", "import torch", "a figure cannot compute"),
        ("annex", "", "imports go down only"),  # a room without a floor
    ],
)
def test_a_planted_breach_is_named(house, room, breach, contract):
    path = house / "robcourse" / f"{room}.py"
    path.write_text((path.read_text() if path.exists() else '"""New."""\n') + f"\n\n{breach}\n")
    done = lint(house)
    assert done.returncode != 0
    broken = re.findall(r"^(.*) BROKEN$", done.stdout, flags=re.MULTILINE)
    no_floor = room == "annex" and "annex" in done.stdout
    assert any(line.startswith(contract) for line in broken) or no_floor


# A fork publishes under its own address with no edit by hand.


def test_the_address_is_written_once():
    url = yaml.safe_load((ROOT / "_config.yml").read_text())["repository"]["url"]
    assert re.fullmatch(r"https://github\.com/[\w.-]+/[\w.-]+", url)
    lines = (ROOT / "_config.yml").read_text().splitlines()
    assert [line for line in lines if "github.com" in line] == [f"  url: {url}"]


def test_the_publishing_workflow_writes_the_forks_address(tmp_path):
    workflow = yaml.safe_load((ROOT / ".github/workflows/publish.yml").read_text())
    steps = [s for job in workflow["jobs"].values() for s in job["steps"]]
    command = next(s["run"] for s in steps if "_config.yml" in s.get("run", ""))
    shutil.copy(ROOT / "_config.yml", tmp_path)
    env = {**os.environ, "GITHUB_REPOSITORY": "somebody/their-course", "GITHUB_REF_NAME": "trunk"}
    sed = [line for line in command.splitlines() if line.startswith("sed")]
    subprocess.run(["bash", "-euc", "\n".join(sed)], cwd=tmp_path, env=env, check=True)
    made = yaml.safe_load((tmp_path / "_config.yml").read_text())
    assert made["repository"]["url"] == "https://github.com/somebody/their-course"
    assert made["repository"]["branch"] == "trunk"
    before = yaml.safe_load((ROOT / "_config.yml").read_text())
    assert {k: v for k, v in made.items() if k != "repository"} == {
        k: v for k, v in before.items() if k != "repository"
    }


@pytest.mark.parametrize("path", sorted((ROOT / ".github/workflows").glob("*.yml")), ids=name)
def test_workflows_run_commands_that_exist(path):
    """Every `make` target that a workflow runs is one, and every script is there."""
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    jobs = yaml.safe_load(path.read_text())["jobs"].values()
    runs = "\n".join(step.get("run", "") for job in jobs for step in job["steps"])
    assert runs.strip()
    assert set(re.findall(r"\bmake ([a-z]+)", runs)) <= targets
    scripts = re.findall(r"(?:^|\s)((?:\.ci|tools|tests)/[\w./]+)", runs)
    assert [s for s in scripts if not (ROOT / s).exists()] == []


def test_ci_can_be_run():
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    subprocess.run(["bash", "-n", ROOT / ".ci" / "run"], check=True)
    assert "ROBCOURSE_REQUIRE_BROWSER=1" in (ROOT / ".ci" / "run").read_text()
