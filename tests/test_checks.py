"""The exercises' mechanism: the tables of every chapter, the wire, and whoever tries to cheat."""

import dataclasses
import importlib
import json
import linecache
import math
import random
import re
import sys
import types
from pathlib import Path

import cvxpy
import hypothesis.strategies as st
import matplotlib
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis.extra import numpy as hnp

from robcourse import checks, linear, models
from robcourse.checks import Case, Check, Status, messages, oracles
from robcourse.checks import ch01_linear_hypothesis as ch01
from robcourse.threat import AttackResult, Threat

ROOT = Path(__file__).parents[1]
CHAPTERS = checks.chapters()
NAMES = [name for chapter in CHAPTERS for name in checks.names(chapter)]
WRONG = [
    (f"{chapter}.{exercise}", answer, words)
    for chapter in CHAPTERS
    for exercise, answer, words in importlib.import_module(f"wrong.ch{chapter}").WRONG
]


def execute(path: Path, wrap=None) -> dict:
    """The names that a notebook defines, and `reports`: each cell is a file to `inspect`.

    `wrap` is put around each answer before its check, which the cells after it then use, too.
    """
    matplotlib.use("Agg")
    names = {"__name__": "notebook", "reports": []}
    run = checks.run
    for cell in json.loads(path.read_text())["cells"]:
        if cell["cell_type"] == "code" and cell["id"] != "install":
            source, file = "".join(cell["source"]), f"<{path.parent.name} {cell['id']}>"
            linecache.cache[file] = (len(source), None, source.splitlines(True), file)
            spy = types.SimpleNamespace(
                run=lambda *a: names["reports"].append(run(*a)) or names["reports"][-1]
            )
            if "checks" in names:
                names["checks"] = spy
            if wrap and (asked := re.search(r"checks\.run\(\s*\"\w+\.(\w+)\"", source)):
                names[asked[1]] = wrap(asked[1], names[asked[1]])
            exec(compile(source, file, "exec"), names)
    matplotlib.pyplot.close("all")
    return names


@pytest.fixture(scope="module")
def solved():
    return {c: execute(ROOT / "solutions" / f"{c}.ipynb") for c in CHAPTERS}


@pytest.fixture(scope="module")
def untouched():
    return {c: execute(ROOT / "exercises" / f"{c}.ipynb") for c in CHAPTERS}


@pytest.mark.parametrize("name", NAMES)
def test_the_reference_passes_and_the_stub_is_not_attempted(name, solved, untouched):
    chapter = name.split(".")[0]
    right = {r.exercise: r for r in solved[chapter]["reports"]}[name]
    assert right.status is Status.RIGHT
    assert right.points == checks.find(name).points
    stub = {r.exercise: r for r in untouched[chapter]["reports"]}[name]
    assert (stub.status, stub.points) == (Status.NOT_ATTEMPTED, 0)


@pytest.mark.parametrize("name", NAMES)
def test_the_reference_passes_on_fresh_seeds_in_two_processes(name, solved):
    """By the grader's way: answers, JSON, judge. Other seeds, too: a tolerance must not be luck."""
    chapter, exercise = name.split(".")
    check = checks.find(name)
    for seed in (1, 2**40, -5):
        wire = json.dumps(checks.answers(check, solved[chapter][exercise], seed), allow_nan=False)
        given = [checks.decode(a) for a in json.loads(wire)]
        report = checks.judge(check, given, seed)
        assert report.status is Status.RIGHT, (seed, report.message)


@pytest.mark.parametrize(
    ("name", "answer", "words"),
    WRONG,
    ids=[f"{n}-{getattr(a, '__name__', w)}" for n, a, w in WRONG],
)
def test_a_wrong_answer_is_told_its_mistake(name, answer, words, capsys):
    report = checks.run(name, answer)
    assert report.status is Status.WRONG
    assert report.points == 0
    assert words in report.message
    assert report.message in capsys.readouterr().out


@pytest.mark.long
@pytest.mark.parametrize("name", NAMES)
def test_no_planted_answer_passes_by_luck(name):
    """By the grader's way, on fifty seeds: the cases have to tell a slip from the truth."""
    check = checks.find(name)
    for answer in (a for n, a, _ in WRONG if n == name):
        for seed in range(50):
            wire = json.dumps(checks.answers(check, answer, seed), allow_nan=False)
            given = [checks.decode(a) for a in json.loads(wire)]
            report = checks.judge(check, given, seed)
            assert report.status is not Status.RIGHT, (getattr(answer, "__name__", answer), seed)


def test_every_exercise_has_three_planted_wrong_answers():
    count = {name: sum(n == name for n, _, _ in WRONG) for name in NAMES}
    assert {n: k for n, k in count.items() if k < 3} == {}
    assert {n for n, _, _ in WRONG} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_cases_come_from_the_seed_and_nothing_else(name, global_random):
    check = checks.find(name)
    first = check.cases(5)
    torch.rand(3)
    again, other = check.cases(5), check.cases(6)
    same = [checks._changed(a.args, b.args, "argument") for a, b in zip(first, again, strict=True)]
    assert same == [None] * len(first)
    if any(case.args for case in first):
        differs = [checks._changed(a.args, b.args, "") for a, b in zip(first, other, strict=True)]
        assert any(d is not None for d in differs)


# right answers of other styles


def adam(x, y):
    """Adversarial training of an nn.Linear, which starts from the global random state."""
    layer = torch.nn.Linear(64, 1)
    optimiser = torch.optim.Adam(layer.parameters(), 0.05)
    for _ in range(300):
        w, b = layer.weight[0], layer.bias
        loss = torch.nn.functional.softplus(-(y * (x @ w + b) - 0.08 * w.abs().sum())).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return layer.weight[0], layer.bias.item()


def liblinear(x, y):
    from sklearn.svm import LinearSVC

    rule = LinearSVC(penalty="l1", dual=False, C=0.5).fit(x, y)
    return rule.coef_[0], rule.intercept_[0]


def shuffled(x, y):
    order = torch.randperm(len(x))
    w, b = linear.fit(x[order], y[order], Threat("linf", 0.08), steps=300)
    return w, b


def split_at_random(x, y):
    from sklearn.model_selection import train_test_split

    train_test_split(x, y)
    w, b = linear.fit(x, y, Threat("linf", 2 / 16), steps=300)
    return w.numpy(), np.float32(b)


def whole_numbers(w, norm):
    if norm == "l2":
        return (w / w.norm()).tolist() and w / w.norm()
    delta = Threat(norm, 1.0, None).steepest(w[None])[0]
    return delta.int()


RIGHT = [
    ("more_radius", adam),
    ("more_radius", liblinear),
    ("more_radius", shuffled),
    ("best_linear", split_at_random),
    ("holder_witness", whole_numbers),
    ("random_vs_chosen", {"random": (0.8, 1.0), "chosen": [0.14, 0.34]}),
    ("random_vs_chosen", {"random": (0.85, 0.97), "chosen": (0.16, 0.36)}),
]


@pytest.mark.parametrize(("exercise", "answer"), RIGHT)
def test_right_answers_of_other_styles(exercise, answer):
    report = checks.run(f"01_linear_hypothesis.{exercise}", answer)
    assert report.status is Status.RIGHT, report.message


def graded(name, answer, seed):
    check = checks.find(f"01_linear_hypothesis.{name}")
    wire = json.dumps(checks.answers(check, answer, seed), allow_nan=False)
    return checks.judge(check, [checks.decode(a) for a in json.loads(wire)], seed)


def test_intervals_of_exactly_a_fifth_are_no_wider():
    for k in range(81):
        answer = (k / 100, round(k / 100 + 0.2, 2))
        assert ch01._refuse_interval(answer) is None
        assert ch01._refuse_interval(list(answer)) is None
    assert "commit yourself" in ch01._refuse_interval((0.1, 0.301))


@pytest.mark.parametrize("name", ["more_radius", "best_linear"])
@pytest.mark.parametrize(
    "seeds", [range(10), pytest.param(range(10, 60), marks=pytest.mark.long)], ids=["10", "50"]
)
def test_the_reference_does_not_pass_by_luck_of_the_split(name, seeds, solved):
    answer = solved["01_linear_hypothesis"][name]
    assert [s for s in seeds if graded(name, answer, s).status is not Status.RIGHT] == []


SLIPS = ["pgd_step_ignored", "pgd_a_step_short", "pgd_gradients_add_up", "pgd_without_x"]
SLIPS = [("pgd", s) for s in SLIPS] + [("sign_shifts", "zeros_and_ones")]
SLIPS += [("worst_case", "halved_between_0_and_1"), ("distance", "signed_weights")]


@pytest.mark.parametrize(("exercise", "slip"), SLIPS, ids=[s for _, s in SLIPS])
def test_a_slip_is_named_on_every_seed(exercise, slip):
    answer, words = next((a, w) for n, a, w in WRONG if getattr(a, "__name__", "") == slip)
    for seed in range(10):
        report = graded(exercise, answer, seed)
        assert report.status is Status.WRONG, seed
        assert words in report.message, seed


def test_the_shares_of_the_slips_of_robust_risk_are_distinct():
    case = ch01.robust_risk_cases(0)[0]
    said = [ch01.robust_risk_judge(case, k / 20) for k in range(21)]
    named = [s.partition(": ")[2] for s in said if s]
    assert sum(s is None for s in said) == 1
    assert len([s for s in named if s]) == 9  # ABS twice, MEAN is no share, ℓ2 is its own dual
    assert sum(messages.ABS in s for s in named) == 2


NUMPY = [
    ("numpy", lambda v: v.numpy() if isinstance(v, torch.Tensor) else np.float64(v)),
    ("float64", lambda v: v.double() if isinstance(v, torch.Tensor) else v),
]


@pytest.mark.parametrize("turn", [t for _, t in NUMPY], ids=[n for n, _ in NUMPY])
@pytest.mark.parametrize("chapter", CHAPTERS)
def test_the_cells_after_a_check_take_what_the_check_takes(chapter, turn):
    def wrap(name, answer):
        if not callable(answer):
            return answer

        def answers(*args):
            value = answer(*args)
            return tuple(map(turn, value)) if isinstance(value, tuple) else turn(value)

        return answers

    reports = execute(ROOT / "solutions" / f"{chapter}.ipynb", wrap)["reports"]
    assert {r.status for r in reports} == {Status.RIGHT}


# the wire

plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats()
    | st.text(max_size=20)
    | hnp.arrays(
        st.sampled_from([bool, np.uint8, np.int32, np.int64, np.float16, np.float32, np.float64]),
        hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3),
    ),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)


def same(a, b) -> bool:
    """Equal in type and value; NaN equals NaN, −0.0 does not equal 0.0."""
    if type(a) is not type(b):
        return False
    if isinstance(a, np.ndarray):
        return (a.shape, a.dtype) == (b.shape, b.dtype) and np.array_equal(
            a, b, equal_nan=a.dtype.kind == "f"
        )
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, float) and not math.isnan(a):
        return a == b and math.copysign(1, a) == math.copysign(1, b)
    if isinstance(a, float):
        return math.isnan(b)
    return a == b


def through(value):
    return checks.decode(json.loads(json.dumps(checks.encode(value), allow_nan=False)))


@given(plain)
@settings(deadline=None, max_examples=200)
def test_plain_data_comes_back(value):
    assert same(through(value), value)


def test_tensors_and_results_come_back_as_plain_data():
    for dtype in (torch.float32, torch.float64, torch.int64, torch.bool, torch.float16):
        t = torch.tensor([[0.0, 1.0], [2.0, 3.0]]).to(dtype)
        back = through(t)
        assert type(back) is np.ndarray
        assert back.dtype == t.numpy().dtype
        assert (back == t.numpy()).all()
    assert through(torch.ones(2, dtype=torch.bfloat16, requires_grad=True)).dtype == np.float32
    assert through(torch.eye(2).to_sparse()).tolist() == [[1, 0], [0, 1]]
    x = torch.tensor([[math.nan, math.inf]])
    threat = Threat("linf", 0.1)
    back = through(AttackResult(x, torch.tensor([True]), torch.tensor([-1.0]), threat))
    assert back.name == "AttackResult"
    assert np.isnan(back.fields["x_adv"][0, 0])
    assert back.fields["x_adv"][0, 1] == np.inf
    assert back.fields["threat"] == checks.plain.Record("Threat", dataclasses.asdict(threat))
    assert through(back.fields["threat"]) == back.fields["threat"]


FIELDS = ["none", "bool", "int", "float", "text", "tuple", "list", "dict", "record", "fields"]
FIELDS += ["array", "shape", "dtype"]
json_data = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(json_data)
@settings(deadline=None, max_examples=300)
def test_a_forged_answer_is_decoded_or_refused(data):
    try:
        value = checks.decode(data)
    except ValueError:
        return
    assert same(through(value), value) or isinstance(value, checks.plain.Record)


FORGED = [
    {"array": [1.0, 2.0, 3.0], "shape": [2, 2], "dtype": "float32"},
    {"array": [1.0], "shape": [1], "dtype": "object"},
    {"array": [300], "shape": [1], "dtype": "uint8"},
    {"array": ["nan"], "shape": [1], "dtype": "int64"},
    {"array": [], "shape": [-1, 0], "dtype": "float32"},
    {"float": "1e5"},
    {"int": True},
    {"none": True, "more": 1},
    {"dict": [["a", {"none": True}], ["a", {"none": True}]]},
    {"text": "x" * 20_000},
    {"record": "x" * 2000, "fields": []},
    {"dict": [["x" * 2000, {"none": True}]]},
    {"tuple": [{"text": "x" * 6000}] * 2},
    "os.system('true')",
    None,
]


@pytest.mark.parametrize("data", FORGED, ids=lambda d: str(d)[:50])
def test_decode_refuses(data):
    with pytest.raises(ValueError, match="encoded"):
        checks.decode(data)


def test_decode_refuses_what_is_nested_too_deep():
    data = {"none": True}
    for _ in range(50):
        data = {"tuple": [data]}
    with pytest.raises(ValueError, match="not an encoded answer"):
        checks.decode(data)


# whoever tries to cheat

X = "01_linear_hypothesis.distance"


def judge_plain(case, answer):
    if isinstance(answer, np.ndarray) and answer.tolist() == [2.0, 2.0]:
        return None
    return f"got {messages.named(answer)}"


PLAIN = Check("test.plain", 2, lambda seed: [Case((torch.ones(2),))], judge_plain)


def verdict(answer, check=PLAIN):
    given = json.loads(json.dumps(checks.answers(check, answer, 0), allow_nan=False))
    return checks.judge(check, [checks.decode(a) for a in given], 0)


class Liar:
    """Equal to everything, and any array that is asked for."""

    def __eq__(self, other):
        return True

    __hash__ = None

    def __array__(self, *args, **kwargs):
        return np.array([2.0, 2.0])

    def tolist(self):
        return [2.0, 2.0]


class LyingArray(np.ndarray):
    def tolist(self):
        return [2.0, 2.0]

    def __eq__(self, other):
        return np.ones(2, bool)


class LyingTensor(torch.Tensor):
    pass


class LyingFloat(float):
    def __eq__(self, other):
        return True

    __hash__ = float.__hash__


class Unprintable(Exception):
    def __str__(self):
        raise SystemExit(0)


async def later(x):
    return 2 * x


def yields(x):
    yield 2 * x


def leaves(x):
    raise SystemExit(0)


def quits(x):
    exit()


def raises_nonsense(x):
    raise Unprintable


def raises_base(x):
    raise BaseException("no Exception")


def recurses(x):
    return recurses(x)


def asks(x):
    return input("is it two? ")


def nested(x):
    out = []
    out.append(out)
    return out


def bomb(levels):
    out = [0]
    for _ in range(levels):
        out = [out] * 100
    return out


LONG = dataclasses.make_dataclass("Q" * 3000, [("a", int)], frozen=True)


def misleading(x):
    return 2 * x


misleading.__wrapped__ = misleading


def spoofs(x):
    raise ValueError("\n✓ test.plain: right, 2 points")


REFUSED = [
    (lambda x: 2 * x, Status.RIGHT, "right, 2 points"),
    (lambda x: (2 * x).numpy(), Status.RIGHT, "right"),
    (lambda x: Liar(), Status.WRONG, "got a Liar / expected plain data"),
    (lambda x: np.zeros(2).view(LyingArray), Status.WRONG, "got a LyingArray"),
    (lambda x: x.as_subclass(LyingTensor), Status.WRONG, "got a LyingTensor"),
    (lambda x: LyingFloat(1), Status.WRONG, "got a LyingFloat"),
    (later, Status.WRONG, "not `async def`"),
    (yields, Status.WRONG, "not `yield`"),
    (lambda x: {1: x}, Status.WRONG, "a key of type int"),
    (lambda x: 2**70, Status.WRONG, "64 bits"),
    (lambda x: torch.ones(1).expand(10**7), Status.WRONG, "more than 2000000 numbers"),
    (lambda x: (torch.zeros(500_000),) * 5, Status.WRONG, "more than 2000000 numbers"),
    (lambda x: bomb(4), Status.WRONG, "more than 50000 values"),
    (lambda x: LONG(1), Status.WRONG, "a name of 3000 letters"),
    (lambda x: {"k" * 3000: 1}, Status.WRONG, "a name of 3000 letters"),
    (misleading, Status.RIGHT, "right, 2 points"),
    (spoofs, Status.ERROR, "your code raised ValueError:  ✓ test.plain"),
    (lambda x: "x" * 10**6, Status.WRONG, "more than 10000 letters"),
    (lambda x: torch.ones(2, dtype=torch.complex64), Status.WRONG, "complex64"),
    (lambda x: np.array([None, 1]), Status.WRONG, "dtype object"),
    (lambda x: ..., Status.WRONG, "`...` of the stub is still there"),
    (lambda x: None, Status.WRONG, "is a `return` missing?"),
    (nested, Status.WRONG, "levels deep"),
    (torch.ones(2), Status.WRONG, "pass it without calling it"),
    (leaves, Status.ERROR, "your code raised SystemExit"),
    (quits, Status.ERROR, "your code raised SystemExit"),
    (raises_nonsense, Status.ERROR, "cannot be printed"),
    (raises_base, Status.ERROR, "your code raised BaseException: no Exception"),
    (recurses, Status.ERROR, "RecursionError"),
    (asks, Status.ERROR, "EOFError"),
    (lambda x: x.add_(1), Status.WRONG, "in place"),
    (lambda x, y: x, Status.ERROR, "missing 1 required positional argument"),
]


@pytest.mark.parametrize(("answer", "status", "words"), REFUSED, ids=[w for _, _, w in REFUSED])
def test_whatever_the_answer_does_there_is_a_verdict(answer, status, words):
    report = verdict(answer)
    assert report.status is status
    assert words in report.message
    assert len(str(report).splitlines()) == 1


def test_what_the_judge_keeps_is_in_no_frame_of_the_answer():
    def peeks(x):
        frame, found = sys._getframe(), []
        while frame := frame.f_back:
            found += [v for v in frame.f_locals.values() if isinstance(v, Case) and v.kept]
        return torch.tensor(float(len(found)))

    check = dataclasses.replace(PLAIN, cases=lambda seed: [Case((torch.ones(2),), kept=(7,))],
                                judge=lambda case, got: None if (got, case.kept) == (0, (7,))
                                else "seen")  # fmt: skip
    assert verdict(peeks, check).status is Status.RIGHT


def test_numbers_that_overflow_are_no_right_answer():
    def judge(case, got):
        return "no" if np.sum(got * 1e308) - np.sum(got * 1e308) > 0 else None

    report = verdict(lambda x: 100 * x, dataclasses.replace(PLAIN, judge=judge))
    assert report.status is Status.WRONG
    assert "too large" in report.message


def test_an_error_names_the_students_line():
    def wrong_name(x):
        return 2 * z  # noqa: F821

    report = verdict(wrong_name)
    assert "NameError: name 'z' is not defined" in report.message
    assert "`return 2 * z  # noqa: F821`" in report.message


def test_a_keyboard_interrupt_is_the_users():
    def waits(x):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        checks.run(X, lambda w, b, x, norm: waits(x))


def test_a_flood_of_prints_is_cut_and_the_verdict_follows(capsys):
    def floods(w, b, x, norm):
        print("spam\n" * 100_000)  # noqa: T201
        return torch.zeros(len(x))

    checks.run(X, floods)
    out = capsys.readouterr().out
    assert len(out) < 20_000
    assert "left out" in out
    assert out.splitlines()[-1].startswith("✗")


def test_the_global_state_is_watched_and_put_back():
    def reseeds(x):
        torch.manual_seed(0)
        np.random.seed(0)  # noqa: NPY002
        torch.set_default_dtype(torch.float64)
        torch.set_grad_enabled(False)
        return 2 * x

    seeded = dataclasses.replace(PLAIN, seeded=True)
    before = checks._global_state()
    assert messages.SEED in verdict(reseeds, seeded).message
    assert checks._state_changed(before, True) is None
    # beartype draws from Python's own, so its state moves; but it is not the one that was set.
    assert random.getstate() != random.Random(checks._START).getstate()
    assert (torch.get_default_dtype(), torch.is_grad_enabled()) == (torch.float32, True)
    draws = (
        lambda x: 2 * x + 0 * torch.rand(2),
        lambda x: 2 * x + 0 * np.random.rand(),  # noqa: NPY002
    )
    for draw in draws:
        assert messages.SEED in verdict(draw, seeded).message
        assert verdict(draw).status is Status.RIGHT
    assert checks._state_changed(before, True) is None
    assert (
        "gradients or dtype" in verdict(lambda x: (torch.set_grad_enabled(False), 2 * x)[1]).message
    )


def touch(model):
    model[2].weight.grad = torch.ones_like(model[2].weight)


@pytest.mark.parametrize("touches", [
    lambda m: m.train(),
    lambda m: m.requires_grad_(False),
    lambda m: m[2].weight.data.mul_(2),
    touch,
    lambda m: m.double(),
    lambda m: m[2].register_forward_hook(print),
    lambda m: m[2].register_full_backward_hook(print),
    lambda m: m[2].weight.register_hook(print),
], ids=["mode", "freeze", "weights", "grad", "dtype", "hook", "back", "tensor"])  # fmt: skip
def test_a_changed_model_is_noticed(touches):
    check = Check(
        "test.model", 1, lambda seed: [Case((models.mlp(3, 2),))], lambda case, answer: None
    )
    assert verdict(lambda model: 1, check).status is Status.RIGHT
    assert messages.STATE in verdict(lambda model: (touches(model), 1)[1], check).message


def test_the_judge_never_sees_what_was_handed_out():
    """With the handed-out x it would be convinced: 0 = 2·0."""
    judge = lambda case, answer: None if np.allclose(answer, 2 * case.args[0].numpy()) else "no"
    check = dataclasses.replace(PLAIN, judge=judge)
    assert verdict(lambda x: 2 * x, check).status is Status.RIGHT
    assert verdict(lambda x: x.mul_(0), check).status is Status.WRONG


def test_hard_coded_answers_are_called_so():
    assert (
        messages.CASES
        in checks.run(
            X, importlib.import_module("wrong.ch01_linear_hypothesis").from_the_text
        ).message
    )


def test_unknown_names_say_what_there_is(capsys):
    report = checks.run("01_linear_hypothesis.distnace", print)
    assert report.status is Status.ERROR
    assert all(name in report.message for name in checks.names("01_linear_hypothesis"))
    assert "01_linear_hypothesis" in checks.run("99_none.x", print).message


def test_a_broken_check_blames_itself(monkeypatch):
    def broken(case, answer):
        raise ZeroDivisionError

    check = dataclasses.replace(checks.find(X), judge=broken)
    monkeypatch.setitem(ch01.CHECKS, "distance", check)
    report = checks.run(X, lambda w, b, x, norm: 0)
    assert report.status is Status.ERROR
    assert "the check itself failed, not your code" in report.message
    with pytest.raises(ZeroDivisionError):  # a grader must not count our failure as a 0
        checks.judge(check, [1] * 6, 0)


def test_missing_answers_are_no_verdict():
    with pytest.raises(ValueError, match="0 answers for 1 cases"):
        checks.judge(PLAIN, [], 0)


STUBS = [
    ("def f(x):\n    ...", True),
    ('def f(x):\n    """Says what it does."""\n    ...', True),
    ('def f(x):\n    """Says what it does."""', False),
    ("def f(x):\n    pass", False),
    ("def f(x):\n    ...\n    return x", False),
    ("def f(x):\n    return ...", False),
    ("  def f(x):\n      ...", True),
    ("def f(x:", False),
    ("f = 3", False),
    ("def g(x):\n    ...\ndef f(x):\n    return x", False),
]


@pytest.mark.parametrize(("source", "expected"), STUBS)
def test_untouched_is_a_matter_of_syntax(source, expected):
    assert checks.untouched(source, "f") is expected


def test_the_report_shows_itself_once(capsys):
    report = checks.run(X, None)
    assert capsys.readouterr().out == f"· {X}: not attempted yet\n"
    assert report._ipython_display_() is None
    assert capsys.readouterr().out == ""
    assert report.status == "not attempted"


@pytest.mark.parametrize("name", NAMES)
@given(value=plain)
@settings(deadline=None, max_examples=15, suppress_health_check=list(HealthCheck))
def test_a_judge_has_a_sentence_for_any_plain_data(name, value):
    check = checks.find(name)
    said = check.judge(CASES.setdefault(name, check.cases(0)[0]), value)
    assert type(said) is str
    assert said.startswith(("got ", "chosen: got", "random: got", "w: got", "b: got"))


CASES = {}


# the oracles, by a third way


def test_the_network_oracle_agrees_with_autograd():
    model = models.mlp(6, 3, hidden=(8, 5), seed=3).double()
    x = torch.rand(7, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = torch.tensor([0, 1, 2, 0, 1, 2, 0])
    z = x.clone().requires_grad_()
    logits = model(z)
    (g,) = torch.autograd.grad(torch.nn.functional.cross_entropy(logits, y, reduction="sum"), z)
    net = oracles.Network(model)
    assert np.allclose(net.logits(x.numpy()), logits.detach().numpy(), atol=1e-12)
    assert np.allclose(net.gradient(x.numpy(), y.numpy()), g.numpy(), atol=1e-12)
    with pytest.raises(TypeError, match="Tanh"):
        oracles.Network(torch.nn.Sequential(torch.nn.Tanh()))


@pytest.mark.parametrize("case", ch01.worst_case_cases(3), ids=lambda c: c.label)
def test_the_worst_case_oracle_agrees_with_a_convex_program(case):
    w, x, y, threat = case.args
    order = {"linf": "inf", "l2": 2, "l1": 1}[threat.norm]
    for row, s in zip(x.double().numpy(), y.numpy(), strict=True):
        v = s * w.double().numpy()
        z = cvxpy.Variable(len(row))
        limits = [cvxpy.norm(z - row, order) <= threat.eps]
        limits += [] if threat.box is None else [z >= threat.box[0], z <= threat.box[1]]
        least = cvxpy.Problem(cvxpy.Minimize(v @ z), limits).solve(solver=cvxpy.CLARABEL)
        assert ch01._largest_fall(v, row, threat) == pytest.approx(v @ row - least, abs=1e-5)
