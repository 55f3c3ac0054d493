"""The exercises' mechanism: the tables of every chapter, the wire, and whoever tries to cheat."""

import dataclasses
import importlib
import json
import linecache
import math
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

from robcourse import checks, models
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


def execute(path: Path) -> dict:
    """The names that a notebook defines, and `reports`: each cell is a file to `inspect`."""
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
    "os.system('true')",
    None,
]


@pytest.mark.parametrize("data", FORGED, ids=str)
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
    (lambda x: torch.ones(1).expand(10**7), Status.WRONG, "10000000 numbers"),
    (lambda x: "x" * 10**6, Status.WRONG, "1000000 letters"),
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

    before = checks._global_state()
    assert messages.SEED in verdict(reseeds).message
    assert checks._state_changed(before) is None
    assert (torch.get_default_dtype(), torch.is_grad_enabled()) == (torch.float32, True)
    draws = (
        lambda x: 2 * x + 0 * torch.rand(2),
        lambda x: 2 * x + 0 * np.random.rand(),  # noqa: NPY002
    )
    for draw in draws:
        assert messages.SEED in verdict(draw).message
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
], ids=["mode", "requires_grad", "weights", "grad"])  # fmt: skip
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
