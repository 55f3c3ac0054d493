"""Installing the package in Colab replaces nothing that is there.

The versions are a dated table, so that the test needs no network; the weekly workflow installs
them.
"""

import datetime
import json
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).resolve().parents[1]
COLAB = json.loads((ROOT / "tests" / "colab_versions.json").read_text())
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CORE = [Requirement(line) for line in PROJECT["dependencies"]]


def replaced(requirements: list[Requirement], installed: dict[str, str]) -> list[str]:
    """The requirements that the installed versions do not meet: pip would replace these."""
    return [
        str(r)
        for r in requirements
        if r.name in installed and not r.specifier.contains(installed[r.name], prereleases=True)
    ]


def capped(requirements: list[Requirement]) -> list[str]:
    """The requirements that pin, or set an upper end."""
    open_ended = (">=", ">", "!=")
    return [str(r) for r in requirements if any(s.operator not in open_ended for s in r.specifier)]


def test_colabs_versions_are_in_range():
    assert {"torch", "torchvision", "numpy"} <= {r.name for r in CORE} <= {
        *COLAB["packages"], "jaxtyping", "tqdm",  # small, pure Python; need nothing of the others
    }  # fmt: skip
    assert replaced(CORE, COLAB["packages"]) == []
    assert SpecifierSet(PROJECT["requires-python"]).contains(COLAB["python"])


def test_nothing_is_pinned_from_above():
    assert capped(CORE) == []
    assert "<" not in PROJECT["requires-python"]


def test_the_tested_versions_are_in_range_too():
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    pins = [Requirement(line.partition("#")[0]) for line in lines if line.partition("#")[0].strip()]
    exact = {r.name: s.version for r in pins for s in r.specifier if s.operator == "=="}
    assert replaced(CORE, exact) == []
    assert {r.name for r in CORE} <= {r.name for r in pins}


@pytest.mark.parametrize(
    "slip", ["torch<2.10", "torch>=2.13", "numpy>=2.2", "ipywidgets>=8", "numpy==2.1.2"]
)
def test_a_requirement_that_would_replace_is_noticed(slip):
    assert replaced([*CORE, Requirement(slip)], COLAB["packages"]) == [slip]


@pytest.mark.parametrize("slip", ["torch<3", "numpy>=1.26,<3", "scipy~=1.12", "tqdm==4.67"])
def test_an_upper_end_is_noticed(slip):
    assert len(capped([Requirement(slip)])) == 1


def test_the_table_is_dated():
    assert datetime.date.fromisoformat(COLAB["date"]) >= datetime.date(2026, 8, 1)
    assert COLAB["source"]
