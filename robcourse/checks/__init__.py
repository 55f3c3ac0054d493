"""One mechanism for the notebook and the grader: an answer is run, written down as plain data, and
judged by something that never saw the student's objects.

In the notebook `run` does all three. A grader does the first two (`answers`) in a sandbox and the
third (`judge`) in another process, on another seed. What is judged is whether a function is right:
so nothing here is secret, and knowing it helps nobody. With one exception: where a rule is judged
on held-out data, those data are public, and a function could look them up. What the judge keeps is
out of its reach while it runs, and `Check.teaches` names what a grader should flag.

One file a chapter holds its checks, under `CHECKS`. A check makes its inputs from a seed and
nothing else, and its judge compares with an oracle that is not the function being taught.
"""

import ast
import enum
import importlib
import inspect
import io
import json
import pkgutil
import random
import sys
import textwrap
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from . import messages
from .plain import NotPlain, Record, decode, encode

__all__ = [
    "Accepted", "Case", "Check", "Report", "Status",
    "answers", "chapters", "decode", "encode", "find", "judge", "names", "placeholder", "run",
    "untouched",
]  # fmt: skip


class Status(enum.StrEnum):
    """How an exercise stands."""

    RIGHT = "right"
    WRONG = "wrong"
    NOT_ATTEMPTED = "not attempted"
    ERROR = "error"


class Accepted(str):
    """What a judge returns to accept an answer and say something about it."""


@dataclass(frozen=True)
class Case:
    """One set of arguments for the student's function.

    Attributes:
        args: the arguments; () where the answer is a value.
        label: what is special about the case, shown with its message.
        shown: whether the exercise's text prints this very case.
        kept: what only the judge needs, such as the held-out half of the data.
    """

    args: tuple = ()
    label: str = ""
    shown: bool = False
    kept: tuple = ()


@dataclass(frozen=True)
class Check:
    """An exercise: its inputs, and the judge of what was answered on them.

    Attributes:
        name: "01_linear_hypothesis.distance".
        points: for a right answer.
        cases: from a seed; the same seed gives the same cases in any process.
        judge: (case, decoded answer) -> the sentence that names the mistake, or None, or Accepted.
        teaches: what a grader should flag in an answer: the package's own names for what is asked,
            or a way to data that were held out.
        seeded: whether a case hands out a seed. Then a draw from a global random state is wrong;
            else it is the student's affair, and made repeatable.
        together: (cases, decoded answers) -> like `judge`, asked after it has accepted each answer:
            for what no answer shows alone, such as a mean over splits.
    """

    name: str
    points: int
    cases: Callable[[int], list[Case]]
    judge: Callable[[Case, Any], str | None]
    teaches: tuple[str, ...] = ()
    seeded: bool = False
    together: Callable[[list[Case], list[Any]], str | None] | None = None


@dataclass(frozen=True)
class Report:
    """What became of one exercise."""

    exercise: str
    status: Status
    points: int
    message: str

    def __str__(self):
        mark = {"right": "✓", "wrong": "✗", "error": "✗", "not attempted": "·"}[self.status]
        return f"{mark} {self.exercise}: {self.message}"

    def _ipython_display_(self):
        """`run` has printed it."""


@dataclass(frozen=True)
class _Outcome:
    """In the place of an answer: "not attempted", "raised", "changed" or "not plain"."""

    kind: str
    text: str


def run(name: str, answer) -> Report:
    """Judge an answer (a function, or a value), print the verdict, return it.

    Raises nothing but the KeyboardInterrupt of a user who has waited long enough.
    """
    try:
        check = find(name)
        given = json.loads(json.dumps(answers(check, answer, 0), allow_nan=False))
        report = judge(check, [decode(a) for a in given], 0)
    except LookupError as error:
        report = Report(str(name), Status.ERROR, 0, error.args[0])
    except Exception as error:
        why = f"the check itself failed, not your code ({type(error).__name__}: {error})"
        report = Report(str(name), Status.ERROR, 0, why)
    print(report)
    return report


def answers(check: Check, answer, seed: int) -> list[dict]:
    """Call the student's function on each case; what it answers, encoded. Judges nothing.

    A value stands as the answer of every case. An exception, an input changed in place and an
    answer that is no plain data are written down in the place of the answer. A KeyboardInterrupt
    is not: it leaves this function. The random states of torch, NumPy and Python are the same
    before every case, and are put back after it.
    """
    # The student's code can read the frames that call it: what the judge keeps is not in them.
    handed, fresh = ([replace(c, kept=()) for c in check.cases(seed)] for _ in range(2))
    if placeholder(answer):
        return [encode(_Outcome("not attempted", ""))] * len(handed)
    pairs = zip(handed, fresh, strict=True)
    return [_answer(answer, a, b, check.seeded) for a, b in pairs]


def judge(check: Check, given: list, seed: int) -> Report:
    """The verdict on decoded answers, by cases that are made again from the seed.

    Raises:
        ValueError: there are not as many answers as cases.
    """
    cases = check.cases(seed)
    if len(given) != len(cases):
        raise ValueError(f"{len(given)} answers for {len(cases)} cases of {check.name}")
    if all(_outcome(g) == "not attempted" for g in given):
        return Report(check.name, Status.NOT_ATTEMPTED, 0, "not attempted yet")
    remarks = []
    for i, (case, got) in enumerate(zip(cases, given, strict=True)):
        if kind := _outcome(got):
            status = Status.ERROR if kind == "raised" else Status.WRONG
            return Report(check.name, status, 0, _line(got.fields.get("text")) + _label(case))
        said = _said(check.judge, case, got)
        if isinstance(said, Accepted):
            remarks.append(said)
        elif said:
            if i and cases[0].shown and encode(got) == encode(given[0]):
                said = f"{said}; {messages.CASES}"
            return Report(check.name, Status.WRONG, 0, _line(said) + _label(case))
    said = _said(check.together, cases, given) if check.together else None
    if isinstance(said, Accepted):
        remarks.append(said)
    elif said:
        return Report(check.name, Status.WRONG, 0, _line(said))
    points = f"right, {check.points} point{'s' if check.points != 1 else ''}"
    said = f"{points}. {remarks[-1]}" if remarks else points
    return Report(check.name, Status.RIGHT, check.points, said)


def find(name: str) -> Check:
    """The check of an exercise; LookupError, with the names there are, if there is none."""
    chapter, _, exercise = str(name).partition(".")
    if chapter not in chapters():
        raise LookupError(f"there is no chapter {chapter!r}; there are: {', '.join(chapters())}")
    checks = importlib.import_module(f"{__name__}.ch{chapter}").CHECKS
    if exercise not in checks:
        there = ", ".join(f"{chapter}.{e}" for e in checks)
        raise LookupError(f"there is no exercise {name!r}; this chapter has: {there}")
    return checks[exercise]


def names(chapter: str) -> list[str]:
    """The exercises of a chapter, in order: "01_linear_hypothesis.distance", …"""
    module = importlib.import_module(f"{__name__}.ch{chapter}")
    return [check.name for check in module.CHECKS.values()]


def chapters() -> list[str]:
    """The chapters that have checks: "01_linear_hypothesis", …"""
    found = (m.name for m in pkgutil.iter_modules(__path__))
    return sorted(name[2:] for name in found if name.startswith("ch") and name[2:4].isdigit())


def untouched(source: str, name: str | None = None) -> bool:
    """Whether the function `name` (or the first one) in `source` is only a docstring and `...`."""
    try:
        tree = ast.parse(textwrap.dedent(source))
    except (SyntaxError, ValueError):
        return False
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    defined = [n for n in ast.walk(tree) if isinstance(n, kinds) and name in (None, n.name)]
    if not defined:
        return False
    body = [n.value if isinstance(n, ast.Expr) else n for n in defined[-1].body]
    body = body[1:] if ast.get_docstring(defined[-1], clean=False) is not None else body
    return bool(body) and all(isinstance(n, ast.Constant) and n.value is ... for n in body)


def placeholder(answer) -> bool:
    """Whether an answer is the untouched stub: None, `...`, or a function of nothing else."""
    if answer is None or answer is ...:
        return True
    try:
        return inspect.isfunction(answer) and untouched(inspect.getsource(answer), answer.__name__)
    except Exception:  # no source, or a function that misleads `inspect`
        return False


def _said(judge, *args) -> str | None:
    """What a judge says. Numbers that overflow give NaN, which no comparison refuses: so neither
    is let through."""
    try:
        with np.errstate(over="raise", invalid="raise", divide="raise"):
            return judge(*args)
    except FloatingPointError:
        return messages.said("numbers too large or too small to compute with", "moderate ones")


def _line(text) -> str:
    """One line: a text of the student's must not look like a verdict of ours."""
    return "".join(c if c.isprintable() else " " for c in str(text)).strip()


def _answer(answer, case: Case, fresh: Case, seeded: bool) -> dict:
    """The encoded answer to one case. What the student's code does is caught here and only here."""
    if not callable(answer) and case.args:
        got = "a value / expected your function itself: pass it without calling it"
        return encode(_Outcome("not plain", f"got {got}"))
    printed, before = _Printed(), _global_state()
    _seed_all()
    start = _global_state()
    try:
        with printed:
            value = answer(*case.args) if callable(answer) else answer
            if value is None and inspect.isfunction(answer):
                raise NotPlain(f"your function returned None: {messages.RETURN}")
            encoded = encode(value)
        changed = _changed(case.args, fresh.args, "argument") or _state_changed(start, seeded)
    except KeyboardInterrupt:
        raise
    except NotPlain as error:
        encoded, changed = encode(_Outcome("not plain", str(error))), None
    except BaseException as error:
        encoded, changed = encode(_Outcome("raised", _describe(error))), None
    finally:
        _restore(before)
        printed.show()
    return encode(_Outcome("changed", changed)) if changed else encoded


class _Printed(io.StringIO):
    """Stands in for the terminal: keeps the first lines of what is printed, since a flood would
    bury the verdict, and has nothing to read, so that `input()` does not wait for ever."""

    most = 2_000

    def __enter__(self):
        self._kept = sys.stdout, sys.stderr, sys.stdin
        sys.stdout, sys.stderr, sys.stdin = self, self, io.StringIO()
        return self

    def __exit__(self, *_):
        sys.stdout, sys.stderr, sys.stdin = self._kept

    def write(self, text):
        room = self.most - self.tell()
        if room > 0:
            super().write(text[:room])
            if len(text) > room:
                super().write("\n… (the rest of what your code prints is left out)\n")
        return len(text)

    def close(self):
        """Stays open, whatever the student's code does."""

    def show(self):
        if self.tell():
            print(self.getvalue(), end="" if self.getvalue().endswith("\n") else "\n")


def _describe(error: BaseException) -> str:
    """The exception and the student's line, by means that cannot raise."""
    try:
        frames = traceback.extract_tb(error.__traceback__)
        line = next((f for f in frames if f.filename != __file__), None)
        where = f" (line {line.lineno}: `{line.line}`)" if line and line.line else ""
        return f"your code raised {type(error).__name__}: {str(error)[:1000]}{where}"
    except KeyboardInterrupt:
        raise
    except BaseException:
        return "your code raised an exception that cannot be printed"


def _changed(a, b, name: str) -> str | None:
    """What differs between an argument that was handed out and one that was not."""
    if isinstance(b, tuple | list):
        parts = enumerate(zip(a, b, strict=True), 1)
        return next((c for i, (u, v) in parts if (c := _changed(u, v, f"{name} {i}"))), None)
    if isinstance(b, torch.nn.Module) and not _same_model(a, b):
        return messages.said("another model", "the model as it was", messages.STATE)
    if isinstance(b, torch.Tensor):
        if a.shape != b.shape or not torch.equal(a.detach(), b):
            return messages.said(f"{name} changed", "it as it was", messages.COPY)
        if a.requires_grad:
            return messages.said(f"{name} that asks for gradients", "it as it was", messages.GRAD)
    return None


def _same_model(a, b) -> bool:
    modes = [m.training for m in a.modules()] == [m.training for m in b.modules()]
    ours, theirs = dict(a.named_parameters()), dict(b.named_parameters())
    grads = all((p.grad is None, p.requires_grad) == (q.grad is None, q.requires_grad)
                for p, q in zip(ours.values(), theirs.values(), strict=True))  # fmt: skip
    hooks = [_hooks(m) for m in a.modules()] == [_hooks(m) for m in b.modules()]
    hooks &= all(bool(p._backward_hooks) == bool(q._backward_hooks)
                 for p, q in zip(ours.values(), theirs.values(), strict=True))  # fmt: skip
    a, b = a.state_dict(), b.state_dict()
    kinds = lambda state: {k: (v.dtype, v.device, v.shape) for k, v in state.items()}
    same = kinds(a) == kinds(b) and all(torch.equal(a[k], b[k]) for k in b)
    return modes and grads and hooks and same


def _hooks(module) -> list[int]:
    """How many there are of each kind: PyTorch has no public way to ask."""
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return [len(getattr(module, kind)) for kind in kinds]


_START = 48_271


def _global_state():
    flags = (torch.is_grad_enabled(), torch.get_default_dtype())
    drawn = np.random.get_state()  # noqa: NPY002 - watched, not used
    return torch.get_rng_state(), drawn, flags, random.getstate()


def _seed_all() -> None:
    """So that an answer that draws from a global random state is the same every time."""
    # No round number, so that a student's own `manual_seed(0)` is seen. Of torch the CPU's only.
    torch.default_generator.manual_seed(_START)
    np.random.seed(_START)  # noqa: NPY002
    random.seed(_START)


def _state_changed(before, seeded: bool) -> str | None:
    """Of the random states, torch's and NumPy's: other libraries draw from Python's own."""
    now = _global_state()
    keys, old = now[1][1:3], before[1][1:3]
    same = np.array_equal(keys[0], old[0]) and keys[1] == old[1]
    if seeded and not (same and torch.equal(now[0], before[0])):
        return messages.said("another global random state", "it as it was", messages.SEED)
    if now[2] != before[2]:
        return messages.said("gradients or dtype of torch switched", "them as they were")
    return None


def _restore(state) -> None:
    torch.set_rng_state(state[0])
    np.random.set_state(state[1])  # noqa: NPY002
    random.setstate(state[3])
    torch.set_grad_enabled(state[2][0])
    torch.set_default_dtype(state[2][1])


def _outcome(got) -> str | None:
    """The kind of an `_Outcome` that stands in the place of an answer, else None."""
    is_one = isinstance(got, Record) and got.name == "_Outcome"
    return str(got.fields.get("kind")) if is_one else None


def _label(case: Case) -> str:
    return f" [{case.label}]" if case.label else ""
