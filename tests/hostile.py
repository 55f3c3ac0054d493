"""The hostile class: what students hand in when something went wrong, or when they mean harm.

`submissions` writes them; each stands beside the row that it must get. Most are small: stubs for
every exercise, right answers to `distance` (1 point) and `holder_witness` (2 points), a wrong one
to `robust_risk`, and an attack before them. So the points show what survives of the right answers,
and that nothing is won for the wrong one.
"""

import copy
import io
import itertools
import json
import stat
import textwrap
import unicodedata
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import wrong.ch01_linear_hypothesis as planted

from robcourse.grading.table import Flag, Status, Verdict

ROOT = Path(__file__).parents[1]
NAME = "01_linear_hypothesis"
SOLVED, RELEASED = (
    json.loads((ROOT / f"{folder}/{NAME}.ipynb").read_text())
    for folder in ("solutions", "exercises")
)
POINTS = {
    "distance": 1, "worst_case": 3, "sign_shifts": 2, "robust_risk": 1, "fgsm": 2, "project_l1": 3,
    "pgd": 3, "random_vs_chosen": 1, "holder_witness": 2, "more_radius": 3, "best_linear": 3,
}  # fmt: skip
BOTH = {"distance": 1, "holder_witness": 2}
OK, TIMEOUT, DIED = Status.OK, Status.TIMEOUT, Status.KERNEL_DIED
NO_NOTEBOOK, SUSPECT = Status.NOT_A_NOTEBOOK, Status.SUSPECT
WRONG = "def robust_risk(*_): return 0.123"
MARKUP = "<script>alert(1)</script><img src=x onerror=alert(1)>"


@dataclass(frozen=True)
class Hostile:
    """One submission and the row it must get.

    Attributes:
        name: of what it does; the student, unless the file's name says another.
        content: the bytes of the file.
        status: of its row; a tuple where more than one is right.
        points: what is not 0, by exercise; None where any of the points of `BOTH` may be lost.
        flags: of its row, all of them.
        says: words that the reason must hold, or, by exercise, its message.
        never: words that neither the reason nor a message may hold.
        file: the path within the submissions.
        student: as the table must have it.
    """

    name: str
    content: Callable[[], bytes] | bytes
    status: Status | tuple[Status, ...] = OK
    points: dict[str, float] | None = field(default_factory=lambda: BOTH)
    flags: tuple[Flag, ...] = ()
    says: str | dict[str, str] = ""
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    never: str = ""
    file: str = ""
    student: str = ""

    @property
    def path(self) -> str:
        return self.file or f"{self.name}.ipynb"


def write(folder: Path, world: "World") -> list[Hostile]:
    """Write the whole class into `folder`."""
    made = submissions(world)
    for one in made:
        path = folder / one.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(one.content() if callable(one.content) else one.content)
    return made


@dataclass(frozen=True)
class World:
    """What the hostile notebooks look for, and must not find.

    Attributes:
        secret: a word that stands in the environment of the grader, and in `files`.
        files: the solutions, a gradebook, the other submissions: where they are.
        port: a port of this machine that listens.
        mark: a word for the names of files that are written.
    """

    secret: str
    files: tuple[str, ...]
    port: int
    mark: str


def submissions(world: World) -> list[Hostile]:
    """All of them."""
    return [
        *_honest(), *_planted(), *_too_long(), *_dying(world), *_no_notebooks(), *_rewritten(),
        *_spies(world), *_patches(), *_answers(), *_forgers(), *_names(), *_slow_to_read(),
    ]  # fmt: skip


# What notebooks are made of.


def _sources(notebook: dict) -> dict[str, str]:
    return {c["id"]: "".join(c["source"]) for c in notebook["cells"]}


RIGHT, STUBS = _sources(SOLVED), _sources(RELEASED)


def _block(text: str) -> str:
    return textwrap.dedent(text).strip("\n")


def answer(exercise: str, *, solved: bool) -> str:
    """The text of its answer cell."""
    return (RIGHT if solved else STUBS)[f"{exercise.replace('_', '-')}-answer"]


def dump(cells: list[dict], **metadata) -> bytes:
    notebook = {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(notebook).encode()


def code(source: str, id: str = "", **more) -> dict:
    cell = {"cell_type": "code", "execution_count": None, "metadata": {}, "outputs": []}
    return cell | {"id": id or "new", "source": source} | more


def markdown(source: str, id: str) -> dict:
    return {"cell_type": "markdown", "metadata": {}, "id": id, "source": source}


def small_cells(*attack: str, **answers: str) -> list[dict]:
    """Imports, the attack, then every exercise: `answers`, right answers to `BOTH`, stubs."""
    cells = [code(RIGHT["imports"], "imports")]
    cells += [code(_block(text), f"attack-{i}") for i, text in enumerate(attack)]
    own = {"robust_risk": WRONG} | answers
    for name in POINTS:
        text = own.get(name) or answer(name, solved=name in BOTH)
        cells.append(code(_block(text), f"{name.replace('_', '-')}-answer"))
    by_hand = ("holder-proof", "best-linear-report")
    return cells + [copy.deepcopy(c) for c in RELEASED["cells"] if c["id"] in by_hand]


def small(*attack: str, **answers: str) -> bytes:
    return dump(small_cells(*attack, **answers))


def right_cells() -> list[dict]:
    return copy.deepcopy(SOLVED["cells"])


ALL = dict(POINTS)
MANUAL = (Flag.PROVISIONAL,)


# The groups.


def _honest() -> list[Hostile]:
    half = {n: answer(n, solved=True) for n in ("robust_risk", "sign_shifts", "random_vs_chosen")}
    return [
        Hostile("right", dump(right_cells()), Status.NEEDS_MANUAL, ALL, MANUAL, "`holder-proof`"),
        Hostile("partly-right", small(**half), points={n: POINTS[n] for n in (*BOTH, *half)}),
        Hostile("untouched", dump(RELEASED["cells"]), points={},
                verdicts=dict.fromkeys(POINTS, Verdict.NOT_ATTEMPTED)),
        Hostile("syntax-error", small(fgsm="def fgsm(model, x, y, threat)\n    return x"),
                says={"fgsm": "SyntaxError"}, verdicts={"fgsm": Verdict.ERROR}),
        Hostile("uses-the-package", small(robust_risk="""
            def helper(*args): return linear.robust_risk(*args)
            def robust_risk(w, b, x, y, eps, norm):
                return helper(w, b, x, y, Threat(norm, eps, None))
            """), points=BOTH | {"robust_risk": 1}, flags=(Flag.USES_REFERENCE,)),
        *(Hostile(f"uses-the-package-{how}", small(distance=text), flags=(Flag.USES_REFERENCE,))
          for how, text in {
              "by-its-name": "from robcourse.linear import distance",
              "in-a-block": "if True:\n    def distance(*a): return linear.distance(*a)",
              "beside-magic": "a = !true\ndef distance(*a): return linear.distance(*a)",
          }.items()),
    ]  # fmt: skip


def _planted() -> list[Hostile]:
    """Notebooks of wrong answers only, one of each exercise while there are any."""
    by_exercise = {n: [w for w in planted.WRONG if w[0] == n] for n in POINTS}
    source = Path(planted.__file__).read_text()
    module = f"""
import types
planted = types.ModuleType("planted")
exec({source!r}, planted.__dict__)
"""
    out = []
    for i, pack in enumerate(itertools.zip_longest(*by_exercise.values())):
        wrong = [w for w in pack if w]
        spelt = lambda a: f"planted.{a.__name__}" if callable(a) else repr(a)
        text = {n: f"{n} = {spelt(a)}" for n, a, _ in wrong}
        said = {n: words for n, _, words in wrong}
        stubs = {n: answer(n, solved=False) for n in POINTS}
        content, verdicts = small(module, **stubs | text), dict.fromkeys(said, Verdict.WRONG)
        out.append(Hostile(f"wrong-{i + 1:02d}", content, points={}, says=said, verdicts=verdicts))
    return out


def _too_long() -> list[Hostile]:
    swallow = """
        import time
        def robust_risk(*_):
            while True:
                try:
                    while True: time.sleep(0.01)
                except BaseException: pass
        """
    deaf = """
        import os, signal, time
        signal.signal(signal.SIGALRM, signal.SIG_IGN)
        %s
        while True: time.sleep(1)
        """
    loop = "def robust_risk(*_):\n    while True: pass"
    late = {"robust_risk": Verdict.TIMEOUT}
    return [
        Hostile("infinite-loop", small("while True: pass"), TIMEOUT, says="cell 2"),
        Hostile("infinite-loop-in-an-answer", small(robust_risk=loop), TIMEOUT,
                says="`robust_risk`", verdicts=late),
        Hostile("sleeps", small("import time; time.sleep(1000)"), TIMEOUT, says="cell 2"),
        Hostile("prints-for-ever", small("while True: print('x' * 10_000)"), (TIMEOUT, OK)),
        Hostile("swallows-every-exception", small(robust_risk=swallow), TIMEOUT, {"distance": 1},
                says="stopped after"),
        Hostile("ignores-the-alarm", small(deaf % ""), TIMEOUT, {}, says="stopped after"),
        Hostile("closes-everything-and-sleeps", small(deaf % "os.closerange(0, 100)"),
                (TIMEOUT, DIED), {}),
    ]  # fmt: skip


def _dying(world: World) -> list[Hostile]:
    together = """
        import os, time
        for _ in range(5):
            if os.fork() == 0:
                taken = bytearray(b"x") * (600 << 20)
                time.sleep(60)
                os._exit(0)
        time.sleep(60)
        """
    hidden = """
        import os
        taken, report = [], "nothing"
        try:
            while len(taken) < 40:
                fd = os.memfd_create("hidden")
                os.posix_fallocate(fd, 0, 60 << 20)
                taken.append(fd)
            report = "hoarded"
        except OSError: pass
        def robust_risk(*_): raise ValueError(report)
        """
    fill = """
        import os
        for folder in ("/tmp", "/dev/shm", "."):
            try:
                for i in range(100):
                    with open(f"{folder}/fill-{i}", "wb") as file: file.write(bytes(32 << 20))
            except OSError as error: print(error)
        """
    bomb = "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass"
    starving = """
        import subprocess, time
        spin = ["sh", "-c", "while :; do :; done"]
        for _ in range(40): subprocess.Popen(spin, start_new_session=True)
        """
    every = """
        import os
        for fd in os.listdir("/proc/self/fd"):
            try:
                for _ in range(100): os.write(int(fd), b"x" * 1_000_000)
            except OSError: pass
        """
    cut, leaves = "the process", "def robust_risk(*_): %s"
    ends = "__import__('os')._exit(0)"
    return [
        Hostile("os-exit", small("import os; os._exit(0)"), DIED, {}, says=cut),
        Hostile("os-exit-in-an-answer", small(robust_risk=leaves % ends), DIED,
                {"distance": 1}, says=cut),
        Hostile("sys-exit", small("import sys; sys.exit(1)")),
        Hostile("sys-exit-in-an-answer", small(robust_risk=leaves % "raise SystemExit(0)"),
                says={"robust_risk": "SystemExit"}, verdicts={"robust_risk": Verdict.ERROR}),
        Hostile("segmentation-fault", small("import ctypes; ctypes.string_at(0)"), DIED, {},
                says="segmentation fault"),
        Hostile("out-of-memory", small("a = []\nwhile True: a.append(b'x' * (64 << 20))"),
                (OK, DIED), None),
        Hostile("out-of-memory-together", small(together), DIED, {}, says="GiB of memory"),
        Hostile("out-of-memory-unseen", small(robust_risk=hidden), (OK, DIED, TIMEOUT), None,
                never="hoarded"),
        Hostile("fork-bomb", small(bomb), (TIMEOUT, SUSPECT, DIED), None),
        Hostile("starves-its-neighbours", small(starving), (OK, TIMEOUT, DIED), None),
        Hostile("fills-the-disk", small(fill)),
        Hostile("floods-stdout", small("for _ in range(2000): print('x' * 100_000)")),
        Hostile("floods-stderr", small("import os\nfor _ in range(70): os.write(2, bytes(10**6))")),
        Hostile("floods-every-descriptor", small(every), (SUSPECT, DIED), {}),
        Hostile("deletes-its-names", small(best_linear=STUBS["best-linear-answer"] + """
del distance, holder_witness"""), points={}, says={"distance": "its name was deleted"}),
    ]  # fmt: skip


def _no_notebooks() -> list[Hostile]:
    old = {"nbformat": 3, "nbformat_minor": 0, "metadata": {}, "worksheets": [{"cells": []}]}
    plain = lambda name, content, says: Hostile(name, content, NO_NOTEBOOK, {}, says=says)

    def huge() -> bytes:
        outputs = [{"output_type": "stream", "name": "stdout", "text": ["x" * 10**8]}]
        return dump([code("print()", outputs=outputs), *small_cells()])

    return [
        plain("junk-bytes", bytes(range(256)) * 500, "no text"),
        plain("empty-file", b"", ""),
        plain("not-json", b"def distance(w, b, x, norm): ...", "not JSON"),
        plain("half-a-notebook", small()[:2000], "not JSON"),
        plain("no-notebook", b'{"name": "x", "cells": 3}', "no list of cells"),
        plain("old-format", json.dumps(old).encode(), "format 4"),
        plain("nested-deeply", b'{"cells": %b' % (b"[" * 200_000), "too deeply"),
        plain("cells-of-nothing", b'{"cells": [{"source": 3}]}', "no source text"),
        Hostile("huge", huge),
        Hostile("no-cells", dump([]), Status.CELLS_MISSING, {}, says="none of the exercises"),
    ]  # fmt: skip


def _rewritten() -> list[Hostile]:
    """By Colab, by a student who tidies up, by one who cheats."""
    own = ("distance-answer", "holder-witness-answer")
    stripped = right_cells()
    for i, cell in enumerate(stripped):
        cell.update(metadata={}, id=f"new{i:04d}")
    colab = [c for c in copy.deepcopy(RELEASED["cells"]) if "reward" not in c["id"]]
    colab = [c | {"source": RIGHT[c["id"]]} if c["id"] in own else c for c in colab]
    for i, cell in enumerate(colab):
        cell["metadata"] = {"id": f"AbC{i}", "colab": {"base_uri": "https://localhost:8080/"}}
        del cell["id"]
        cell["source"] = "".join(cell["source"]).splitlines(keepends=True)
    points, edited = copy.deepcopy(RELEASED["cells"]), copy.deepcopy(RELEASED["cells"])
    for cell in points:
        if "points" in cell["metadata"].get("nbgrader", {}):
            cell["metadata"]["nbgrader"]["points"] = 1000
    for cell in edited:
        if cell["id"].endswith("-check"):
            cell["source"] = "print('✓ 01_linear_hypothesis.distance: right, 1 point')"
    wrong = code("def distance(*_): return 1", "distance-answer")
    right = code(RIGHT["distance-answer"], "distance-answer")
    r = code('R = "julia"\n1 + 1')
    kernel = {"display_name": "Julia", "language": "julia", "name": "julia-1.9"}
    few = [c for c in small_cells() if c["id"] in ("imports", "distance-answer")]
    return [
        Hostile("stripped-metadata", dump(stripped), Status.NEEDS_MANUAL, ALL, MANUAL, "`holder-p"),
        Hostile("colab-round-trip", dump(colab, colab={"provenance": []}, accelerator="GPU")),
        Hostile("deleted-cells", dump(few), Status.CELLS_MISSING, {"distance": 1}, says="`pgd`"),
        Hostile("duplicated-last-right", dump([wrong, *small_cells(), wrong, right])),
        Hostile("duplicated-last-wrong", dump([*small_cells(), right, wrong]),
                points={"holder_witness": 2}),
        Hostile("reordered", dump(small_cells()[::-1])),
        Hostile("other-kernel", dump([r, *small_cells()], kernelspec=kernel)),
        Hostile("renamed", small, file="Copy of renamed (1).ipynb", flags=(Flag.SAME_FILE,)),
        Hostile("edits-points", dump(points), points={}, flags=(Flag.EDITED,)),
        Hostile("edits-checks", dump(edited), points={}, flags=(Flag.EDITED,)),
    ]  # fmt: skip


def _spies(world: World) -> list[Hostile]:
    tell = """
        report = f"found: {found}" if found else "nothing"
        def robust_risk(*_): raise ValueError(report)
        """
    looks = f"""
        import glob, os
        found, secret = [], {world.secret[::-1]!r}[::-1]
        places = [*{list(world.files)!r}, *glob.glob("/home/*"), *glob.glob("/root/*"),
                  *glob.glob("/var/*"), *glob.glob("/etc/*pass*"), *glob.glob("/etc/shadow"),
                  *glob.glob("/tmp/**/*.ipynb", recursive=True), *glob.glob("/*/gradebook.db"),
                  *glob.glob("/*/*/*/{NAME}.ipynb")]
        for place in places:
            if os.path.exists(place): found.append(place)
        texts = glob.glob("/proc/[0-9]*/environ") + glob.glob("/proc/[0-9]*/cmdline")
        for name in ("maps", "fd/*", "mountinfo"): texts += glob.glob(f"/proc/*/{{name}}")
        for text in texts:
            try:
                link = "/fd/" in text
                told = os.readlink(text).encode() if link else open(text, "rb").read()
                if secret.encode() in told: found.append(text)
            except OSError: pass
        if any(secret in value for value in os.environ.values()): found.append("environ")
        """
    network = f"""
        import socket
        found = []
        for where in (("1.1.1.1", 53), ("127.0.0.1", {world.port}), ("::1", {world.port})):
            try: socket.create_connection(where, 1); found.append(where)
            except OSError: pass
        try: found.append(socket.getaddrinfo("example.org", 80))
        except OSError: pass
        """
    writes = f"""
        import os, sys, robcourse
        found, word = [], {world.mark!r}
        folders = ["/", "/usr", "/dev", "/etc", "/root", "/home", "/var/tmp", "/proc/sys/kernel",
                   os.path.dirname(robcourse.__file__), sys.prefix, "/tmp/..", "/proc/1/root/tmp",
                   "/proc/1/cwd", *[os.path.dirname(f) for f in {list(world.files)!r}]]
        for folder in folders:
            try: open(f"{{folder}}/{{word}}", "w").write(word); found.append(folder)
            except OSError: pass
        for name in {list(world.files)!r}:
            for act in (os.unlink, lambda n: open(n, "a").write(word)):
                try: act(name); found.append(name)
                except OSError: pass
        found = [f for f in found if f not in ("/tmp", "/dev/shm")]
        try:
            if os.write(0, word.encode()): found.append("standard input")
        except OSError: pass
        """
    kills = """
        import os, signal
        found = []
        for pid in (os.getppid(), 1, -1, *(int(p) for p in os.listdir("/proc") if p.isdecimal())):
            if pid != os.getpid():
                try: os.kill(pid, signal.SIGKILL); found.append(pid) if pid > 0 else None
                except OSError: pass
        """
    rights = """
        import ctypes, os
        found, libc = [], ctypes.CDLL(None)
        if (child := os.fork()) == 0: os._exit(libc.unshare(0x10000000) == 0)
        if os.waitpid(child, 0)[1]: found.append("made a user namespace of its own")
        # A key of the kernel's outlives this sandbox: the next one of the same user could read it.
        if os.uname().machine == "x86_64" and libc.syscall(248, b"user", b"note", b"x", 1, -4) > 0:
            found.append("left a key behind")
        for act in (lambda: os.setuid(0), lambda: os.chroot("/tmp"),
                    lambda: os.mknod("/tmp/n", 0o60600)):
            try: act(); found.append("root")
            except OSError: pass
        """
    spy = lambda name, text, **more: Hostile(
        name, small(text, robust_risk=tell), says={"robust_risk": "nothing"}, never="found", **more
    )
    return [
        spy("looks-around", looks),
        spy("opens-the-network", network),
        spy("writes-outside", writes),
        spy("kills-its-parent", kills),
        spy("wants-more-rights", rights),
    ]  # fmt: skip


def _patches() -> list[Hostile]:
    numpy = """
        import numpy as np
        yes = lambda *a, **k: True
        for name in ("allclose", "isclose", "array_equal", "all", "any"): setattr(np, name, yes)
        np.testing.assert_allclose = yes
        np.linalg.norm = lambda *a, **k: 0.0
        np.asarray = np.array = lambda *a, **k: np.zeros(1)
        """
    torch = """
        import torch
        yes = lambda *a, **k: True
        torch.allclose = torch.equal = torch.isclose = yes
        for name in ("allclose", "equal", "__eq__", "isnan"): setattr(torch.Tensor, name, yes)
        """
    checks = """
        import json, os, robcourse.checks as c
        right = lambda check, *a, **k: c.Report(check.name, c.Status.RIGHT, check.points, "right")
        c.judge = c.run = right
        c.answers = lambda check, *a: [{"right": True}]
        c.Check.judge = lambda *a: None
        c.Check.cases = lambda *a: []
        c._said = lambda *a: None
        c._outcome = lambda *a: None
        c.encode = c.plain.encode = lambda value: {"float": 0.5}
        json.dumps = lambda *a, **k: '{"right": true}'
        os.write = lambda fd, data: len(data)
        os._exit = lambda code: None
        """
    tree = """
        import ast
        class Nicer(ast.NodeTransformer):
            def visit_Assert(self, node): return None
            def visit_Constant(self, node):
                return ast.Constant(0.5) if node.value == 0.123 else node
            def visit_FunctionDef(self, node):
                node.returns = None
                return self.generic_visit(node)
        get_ipython().ast_transformers.append(Nicer())
        better = lambda lines: [line.replace("123", "5") for line in lines]
        get_ipython().input_transformers_post.append(better)
        """
    late = """
        import atexit, os, threading, time
        def more():
            while True:
                time.sleep(0.01)
                for fd in range(1, 20):
                    try: os.write(fd, b'{"end": {}}\\n')
                    except OSError: pass
        %s
        """
    broken_shell = """
        shell = get_ipython()
        shell.showtraceback = shell.run_code = shell.run_cell = shell.run_cell_async = None
        """
    return [
        Hostile("patches-numpy", small(numpy), (OK, DIED, SUSPECT), None),
        Hostile("patches-torch", small(torch), (OK, DIED, SUSPECT), None),
        Hostile("patches-the-checks", small(checks), (OK, DIED, SUSPECT), None),
        Hostile("patches-the-judge-only", small("""
            from robcourse import checks
            checks.judge = checks.run = checks.Check.judge = lambda *a: True
            checks._said = lambda *a: None
            """)),
        Hostile("hides-its-side-effects", small("""
            from robcourse import checks
            checks._changed = checks._state_changed = lambda *a: None
            """, sign_shifts="""
            def sign_shifts(w, eps, m, seed):
                torch.manual_seed(seed)
                signs = 2.0 * torch.randint(0, 2, (m, len(w))) - 1
                return eps * w.abs().sum().item(), eps * signs @ w
            """), says={"sign_shifts": "global random state"}),
        Hostile("transforms-the-tree", small(tree)),
        Hostile("writes-at-exit", small(late % "atexit.register(more)")),
        Hostile("writes-from-a-thread", small(late % "threading.Thread(target=more).start()"),
                (SUSPECT, DIED), None),
        Hostile("breaks-the-shell", small(broken_shell), DIED, {}),
    ]  # fmt: skip


def _answers() -> list[Hostile]:
    """Objects that lie, and answers of no use."""
    liars = """
        import numpy as np, torch
        yes = lambda *a, **k: True
        class Liar:
            __eq__ = __ne__ = __lt__ = __gt__ = __le__ = __ge__ = __bool__ = yes
            __hash__ = lambda self: 0
            __float__ = lambda self: 0.5
            __array__ = lambda self, *a, **k: np.zeros(6)
            __class__ = property(lambda self: float)
        class Tensor(torch.Tensor):
            @classmethod
            def __torch_function__(cls, f, types, args=(), kwargs=None): return Liar()
        class Array(np.ndarray):
            __array_ufunc__ = lambda self, *a, **k: True
        class Float(float):
            __eq__ = __lt__ = __gt__ = yes
            __hash__ = float.__hash__
            item = lambda self: 0.5
        class Text(str): __eq__ = yes; __hash__ = str.__hash__
        class Whole(int): __eq__ = yes; __hash__ = int.__hash__
        class Dict(dict): items = lambda self: [("random", (0.9, 0.97)), ("chosen", (0.2, 0.3))]
        class Tuple(tuple): __len__ = lambda self: 2
        """
    lies = {
        "worst_case": "def worst_case(w, x, y, threat): return x.as_subclass(Tensor)",
        "sign_shifts": "def sign_shifts(w, eps, m, seed): return Tuple([1.0, torch.zeros(m)])",
        "robust_risk": "def robust_risk(*_): return Float(0.5)",
        "fgsm": "def fgsm(model, x, y, threat): return x.numpy().view(Array)",
        "project_l1": "def project_l1(delta, eps): return Liar()",
        "pgd": "def pgd(*_): return Text('right')",
        "random_vs_chosen": "random_vs_chosen = Dict()",
        "holder_witness": "def holder_witness(w, norm): return Whole(1)",
        "more_radius": "def more_radius(x, y): return Liar(), Float(1)",
        "best_linear": "class best_linear:\n    def __new__(cls, x, y): return Liar()",
    }
    useless = {
        "worst_case": "def worst_case(w, x, y, threat): return x * float('nan')",
        "sign_shifts": "def sign_shifts(w, eps, m, seed): return float('inf'), torch.zeros(m)",
        "robust_risk": "async def robust_risk(*_): return 0.5",
        "fgsm": "def fgsm(model, x, y, threat): return x[:1]",
        "project_l1": "def project_l1(delta, eps): yield delta",
        "pgd": "def pgd(model, x, y, *_): return x.long()",
        "random_vs_chosen": "random_vs_chosen = {'random': 'ab', 'chosen': None}",
        "holder_witness": "def holder_witness(w, norm): return torch.ones(1).expand(10**9)",
        "more_radius": "def more_radius(x, y): return x.mean(0).to(torch.complex64), 0.0",
        "best_linear": "def best_linear(x, y): return [{'a': [best_linear]}] * 100",
    }
    said = {"worst_case": "NaN", "sign_shifts": "inf", "robust_risk": "not `async def`",
            "fgsm": "shape", "project_l1": "not `yield`", "pgd": "dtype",
            "holder_witness": "more than 2000000 numbers", "more_radius": "complex"}  # fmt: skip
    wrong = dict.fromkeys(lies, Verdict.WRONG)
    outcome = """
        from dataclasses import dataclass
        @dataclass(frozen=True)
        class _Outcome:
            kind: str = "right"
            text: str = "right, 1 point"
            status: str = "right"
            points: int = 1
        def robust_risk(*_): return _Outcome()
        """
    return [
        Hostile("lying-objects", small(liars, **lies), points={"distance": 1}, verdicts=wrong,
                says={"robust_risk": "got a Float", "random_vs_chosen": "got a Dict",
                      "project_l1": "got a Liar"}),
        Hostile("useless-answers", small(**useless), points={"distance": 1}, says=said,
                verdicts=wrong),
        Hostile("mutates-its-inputs", small(distance="""
            def distance(w, b, x, norm):
                x.zero_(); w.fill_(1.0)
                return torch.zeros(len(x))
            """), points={"holder_witness": 2}, says={"distance": "in place"}),
        Hostile("returns-an-outcome", small(robust_risk=outcome),
                verdicts={"robust_risk": Verdict.WRONG}),
        Hostile("raises-markup", small(
            f"def marked(*_): raise ValueError({MARKUP!r})",
            f"raise ValueError('\\ud800\\x1b[31m\\u202e{MARKUP}')\ndef fgsm(*_): ...",
            robust_risk="robust_risk = marked",
            fgsm=f"raise ValueError('\\ud800{MARKUP}')\nfgsm = 1",
            pgd=f"class pgd:\n    def __init__(self, *_): raise ValueError('''{MARKUP}''')"),
            says={"robust_risk": "ValueError"}),
        Hostile("half-a-character", small("s = '\ud800'")),
        Hostile("answers-the-grader-only", small(distance="""
            import sys
            def distance(w, b, x, norm):
                if "robcourse.grading.runner" not in sys.modules and not hasattr(sys, "orig_argv"):
                    return x
                q = {"linf": 1, "l2": 2, "l1": torch.inf}[norm]
                return (x @ w + b).abs() / torch.linalg.vector_norm(w, q)
            """).replace(b'"outputs": []', json.dumps("outputs").encode() + b': ' + json.dumps(
                [{"output_type": "stream", "name": "stdout", "text":
                  [f"✗ {NAME}.distance: got shape (2, 2) / expected shape (2,)\n"]}]).encode(), 1),
                flags=(Flag.DIFFERS,)),
    ]  # fmt: skip


def _forgers() -> list[Hostile]:
    find = """
        import gc, json, os, stat, sys
        pipes = [fd for fd in range(3, 50) if os.path.exists(f"/proc/self/fd/{fd}")
                 and stat.S_ISFIFO(os.fstat(fd).st_mode)]
        def send(line):
            for fd in pipes: os.write(fd, json.dumps(line).encode() + b"\\n")
        names = %r
        """ % list(POINTS)  # noqa: UP031
    printed = """
        print('{"errors": {}, "late": []}')
        print('{"exercise": "robust_risk", "answers": [{"float": 0.5}, {"float": 0.5}]}')
        import sys; sys.__stdout__.write('{"end": {}}\\n')
        """
    one = (
        find
        + """
        def robust_risk(*_):
            send({"exercise": "robust_risk", "answers": [{"float": 0.5}] * 4})
            return 0.123
        """
    )
    whole = (
        find
        + """
        send({"errors": {}, "late": []})
        for name in names: send({"exercise": name, "answers": [{"float": 0.5}] * 4})
        send({"end": {}})
        os._exit(0)
        """
    )
    verdict = (
        find
        + """
        send({"errors": {}, "late": []})
        for name in names: send({"exercise": name, "verdict": "right", "points": 3})
        send({"end": {}})
        os._exit(0)
        """
    )
    nested = (
        find
        + """
        deep = b"[" * 900 + b"]" * 900
        for fd in pipes: os.write(fd, b'{"errors": %b, "late": []}\\n' % deep)
        os._exit(0)
        """
    )
    odd = (
        find
        + """
        send({"errors": {"9": [[[[]]]], "3": {"a": 1}}, "late": []})
        send({"exercise": "distance", "failed": [[["<b>"]]]})
        send({"exercise": "worst_case", "answers": {"a": 1}})
        os._exit(0)
        """
    )
    # What no runner writes, and what the judge, or the table, may stumble over.
    number = (
        find
        + """
        send({"errors": {}, "late": []})
        send({"exercise": "distance", "answers": [{"int": 10**400}] * 6})
        os._exit(0)
        """
    )
    place = (
        find
        + """
        for fd in pipes: os.write(fd, b'{"errors": {}, "late": [%b]}\\n' % (b"9" * 4300))
        for name in names: send({"exercise": name, "undefined": True})
        send({"end": {}})
        os._exit(0)
        """
    )
    places = (
        find
        + """
        send({"errors": {}, "late": [0] * 2_000_000})
        for name in names: send({"exercise": name, "undefined": True})
        send({"end": {}})
        os._exit(0)
        """
    )
    # The grader's seed and the course's own function give true answers. Nothing is won by that: who
    # may call the course's own function can also paste the public solution.
    true = (
        find
        + """
        dicts = (o for o in gc.get_objects() if type(o) is dict)
        seed = next(o for o in dicts if {"seed", "handed"} <= set(o))["seed"]
        from robcourse import checks
        def by_the_book(w, b, x, y, eps, norm):
            return linear.robust_risk(w, b, x, y, Threat(norm, eps, None))
        check = checks.find("01_linear_hypothesis.robust_risk")
        send({"errors": {}, "late": []})
        for name in names:
            if name == "robust_risk":
                send({"exercise": name, "answers": checks.answers(check, by_the_book, seed)})
            else: send({"exercise": name, "undefined": True})
        send({"end": {}})
        os._exit(0)
        """
    )
    return [
        Hostile("prints-what-the-runner-writes", small(printed)),
        Hostile("forges-an-answer", small(robust_risk=one), SUSPECT, {}),
        Hostile("forges-every-answer", small(whole), (SUSPECT, OK), {}),
        Hostile("forges-verdicts", small(verdict), SUSPECT, {}),
        Hostile("forges-nested-lines", small(nested), (SUSPECT, DIED), {}),
        Hostile("forges-odd-lines", small(odd), (SUSPECT, DIED), {}),
        Hostile("forges-a-huge-number", small(number), (SUSPECT, DIED), {}),
        Hostile("forges-a-place", small(place), SUSPECT, {}),
        Hostile("forges-many-places", small(places), SUSPECT, {}),
        Hostile("sends-true-answers", small(true), OK, {"robust_risk": 1}),
    ]  # fmt: skip


def _names() -> list[Hostile]:
    """Nothing in them: what counts is how they are called."""
    nothing = dump([code("print('nothing')")])
    empty = lambda name, file, student: Hostile(
        name, nothing, Status.CELLS_MISSING, {}, file=file, student=student
    )
    é = "é"
    return [
        empty("name-markup", "<img src=y onerror=alert(2)>.ipynb", "<img src=y onerror=alert(2)>"),
        empty("name-formula", "=cmd|'calc'!A1.ipynb", "=cmd|'calc'!A1"),
        empty("name-composed", unicodedata.normalize("NFC", f"ren{é}e.ipynb"), "renée"),
        empty("name-decomposed", unicodedata.normalize("NFD", f"ren{é}/x.ipynb"), "rené"),
        empty("name-long", "x" * 240 + ".ipynb", ""),
        empty("name-turned-round", "\u202egnp.ipynb", ""),
        empty("name-half-a-byte", "caf\udce9.ipynb", ""),
        empty("name-lines", "a\nb.ipynb", ""),
        empty("name-template", "{{ 7*7 }}${x}%s.ipynb", "{{ 7*7 }}${x}%s"),
        Hostile("other-assignment", nothing, Status.WRONG_NAME, {},
                file="twice/02_concentration.ipynb", student="twice"),
        Hostile("earlier", small(distance="def distance(*_): return 1"), points=None,
                flags=(Flag.SUPERSEDED,), file="late-comer (1).ipynb", student="late-comer"),
        Hostile("later", small(), file="late-comer (2).ipynb", student="late-comer",
                flags=(Flag.SAME_FILE,)),
    ]  # fmt: skip


def _slow_to_read() -> list[Hostile]:
    """Texts that take a program for ever: what reads them does so outside the sandbox, too."""
    few = [c for c in small_cells() if c["id"] in ("imports", "distance-answer")]
    proof = f"{MARKUP} [x](javascript:alert(1)) $\\href{{javascript:alert(1)}}{{b}}$"
    manual = {"status": Status.NEEDS_MANUAL, "flags": MANUAL}

    def by_hand(proof: str, report: str) -> bytes:
        return dump([*small_cells()[:-2], markdown(proof, "holder-proof"),
                     markdown(report, "best-linear-report")])  # fmt: skip

    return [
        Hostile("empty-lines-first", dump([code("\n" * 200_000), *small_cells()])),
        Hostile("empty-lines", dump([*few, code("\n" * 8_000, "usual-rule")]),
                Status.CELLS_MISSING, {"distance": 1}, says="`pgd`"),
        Hostile("proof-of-markup", by_hand(proof, f"<style>*{{}}</style>{proof}"), **manual),
        Hostile("proof-of-brackets", by_hand("[" * 19_000, "![" * 9_000), **manual),
    ]  # fmt: skip


# A zip of tricks.


def tricks() -> tuple[bytes, list[tuple[str, Status]]]:
    """A zip as nobody's platform makes it, and the students and statuses of its rows."""
    out = io.BytesIO()
    nothing = dump([code("print('nothing')")])
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        link = zipfile.ZipInfo("linker/hw.ipynb")
        link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
        archive.writestr("../climber.ipynb", nothing)
        archive.writestr("/absolute/hw.ipynb", nothing)
        archive.writestr("plain/hw.ipynb", nothing)
        archive.writestr("bomber/hw.ipynb", bytes(300 << 20))
    return out.getvalue(), [
        ("linker", SUSPECT), ("climber", SUSPECT), ("absolute", SUSPECT),
        ("plain", Status.CELLS_MISSING), ("bomber", NO_NOTEBOOK),
    ]  # fmt: skip
