"""The package as a whole: cheap to import, every room reachable, and checked under the tests."""

import importlib
import subprocess
import sys
from pathlib import Path

import jaxtyping
import pytest
import torch

import robcourse
from robcourse.threat import Certificate, Threat, margin

HERE = Path(robcourse.__file__).parent
ROOMS = [n for n in robcourse.__all__ if (HERE / f"{n}.py").exists() or (HERE / n).is_dir()]
HEAVY = ("torch", "numpy", "matplotlib", "sklearn", "scipy", "torchvision", "jaxtyping")


def python(*arguments):
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, timeout=120, cwd=HERE.parent
    )


def test_import_is_cheap_and_loads_no_torch():
    code = (
        "import sys, time; t = time.perf_counter(); import robcourse; "
        "print(time.perf_counter() - t); "
        f"print([m for m in {HEAVY!r} if m in sys.modules])"
    )
    answers = [python("-c", code).stdout.split("\n") for _ in range(5)]
    assert {loaded for _, loaded, *_ in answers} == {"[]"}
    assert min(float(seconds) for seconds, *_ in answers) < 0.1


def test_torch_comes_with_the_first_room_that_needs_it():
    code = (
        "import sys, robcourse; dir(robcourse); robcourse.__version__; "
        "assert 'torch' not in sys.modules; robcourse.threat; assert 'torch' in sys.modules; "
        "print(robcourse.threat.Threat('l2', 0.5).eps)"
    )
    done = python("-W", "error", "-c", code)
    assert (done.returncode, done.stdout.strip()) == (0, "0.5"), done.stderr


@pytest.mark.parametrize("room", ROOMS)
def test_every_room_can_be_imported_and_says_what_it_is(room):
    module = getattr(robcourse, room)
    assert module is importlib.import_module(f"robcourse.{room}")
    assert (module.__doc__ or "").strip()


def test_every_file_is_a_room_that_is_named():
    rooms = {p.stem for p in HERE.glob("*.py")} | {p.parent.name for p in HERE.glob("*/*.py")}
    assert rooms - {"__init__"} <= set(robcourse.__all__)
    assert set(robcourse.__all__) <= set(dir(robcourse))
    assert robcourse.__all__ == sorted(robcourse.__all__)


def test_an_unknown_room_is_named_with_those_there_are():
    with pytest.raises(AttributeError, match=r"robcourse has no module 'atacks'; it has attacks, "):
        _ = robcourse.atacks
    assert not hasattr(robcourse, "torch")


def test_the_ground_floor_imports_without_a_warning():
    code = "import robcourse.threat, robcourse.linear, robcourse.models, robcourse.attacks"
    done = python("-W", "error", "-c", code)
    assert done.returncode == 0, done.stderr


def test_a_wrong_shape_is_caught_by_the_type_checker():
    """If this fails, shapes go unchecked in every test: the hook is off.

    Run with --jaxtyping-packages=robcourse,beartype.beartype, and import the package in no
    conftest.py: what is imported before the hook is installed is not checked.
    """
    y = torch.zeros(3, dtype=torch.int64)
    with pytest.raises(jaxtyping.TypeCheckError):
        margin(torch.zeros(2, 3), y)  # two answers, three labels
    with pytest.raises(jaxtyping.TypeCheckError):
        Threat("l2", 0.1).contains(torch.zeros(2, 3), torch.zeros(2, 4))  # methods
    with pytest.raises(jaxtyping.TypeCheckError):
        Certificate(y, torch.zeros(2), "l2")  # the fields of a result


@pytest.mark.parametrize("room", ROOMS)
def test_every_function_that_takes_a_tensor_is_checked(room):
    """`jaxtyped` marks what it wraps: no module slipped in before the hook."""
    module = importlib.import_module(f"robcourse.{room}")
    own = [f for f in vars(module).values() if callable(f) and not isinstance(f, type)
           and getattr(f, "__module__", "") == module.__name__]  # fmt: skip
    takes = [f for f in own if "Tensor" in str(getattr(f, "__annotations__", {}))]
    assert all(hasattr(f, "__wrapped__") for f in takes), takes
