"""The sandbox holds, ends what runs too long, and its self-test sees each hole."""

import itertools
import os
import struct
import subprocess
import sys
import time

import psutil
import pytest

from robcourse import cli
from robcourse.grading import sandbox, seccomp
from robcourse.grading.sandbox import Limits
from robcourse.grading.selftest import NoSandbox, demand, selftest

needs_sandbox = pytest.mark.skipif(
    sandbox.missing() is not None and not os.environ.get("ROBCOURSE_REQUIRE_SANDBOX"),
    reason=f"no sandbox here: {sandbox.missing()}",
)
root = pytest.mark.skipif(os.getuid() != 0, reason="of root's way only")


def python(code: str, **limits) -> sandbox.Ended:
    """Run lines of Python in a sandbox, by the standard library's console."""
    return sandbox.run("code", code.encode() + b"\n", Limits(**limits))


@needs_sandbox
def test_the_self_test_holds_and_the_command_says_so(tmp_path, capsys):
    (tmp_path / "solutions").mkdir()
    (tmp_path / "solutions/secret.ipynb").write_text("{}")
    assert cli.main(["grade", "--self-test", "--course", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 15
    assert all(line.startswith("✓ ") for line in lines)


@needs_sandbox
@root
@pytest.mark.parametrize("what", ["sees no other process", "reads no file outside", "fills no disk",
                                  "does not reach this machine's own ports",
                                  "makes no namespace of its own",
                                  "holds no memory that is nobody's"])  # fmt: skip
def test_the_self_test_sees_a_hole(monkeypatch, tmp_path, what):
    hidden = tmp_path / "solution.ipynb"
    hidden.write_text("{}")
    whole, parents = sandbox._bwrap, [p for p in reversed(hidden.parents) if len(p.parts) > 2]

    def holed(uid, visible):
        words = whole(uid, visible)
        at = words.index("--remount-ro")
        match what:
            case "sees no other process":
                return [w for w in words if w not in ("--unshare-pid", "--die-with-parent")]
            case "reads no file outside":
                open_parents = (("--perms", "0755", "--dir", str(p)) for p in parents)
                seen = ["--ro-bind", str(hidden), str(hidden)]
                return [*words[:at], *itertools.chain(*open_parents), *seen, *words[at:]]
            case "fills no disk":
                return [*words[:at], "--perms", "1777", "--tmpfs", "/dev/shm", *words[at:]]
            case _:
                return [w for w in words if w != "--unshare-net"]

    allow = struct.pack("HBBI", 6, 0, 0, 0x7FFF0000)
    if what in ("makes no namespace of its own", "holds no memory that is nobody's"):
        monkeypatch.setattr(seccomp, "program", lambda: allow)
    else:
        monkeypatch.setattr(sandbox, "_bwrap", holed)
    found = selftest([hidden], Limits())
    assert found[what], found
    with pytest.raises(NoSandbox, match=f"does not hold here.*{what}.*Nothing was graded"):
        demand([hidden], Limits())


HOG = "b = bytearray(2 << 30); b[::4096] = b'1' * len(b[::4096])\n"


def left() -> list[psutil.Process]:
    """The processes that this module's sandboxes have left.

    A killed process that has a gigabyte to give back is there for a moment more.
    """
    wanted = ["-m", "code"]
    running = psutil.process_iter(["cmdline"])
    ours = [p for p in running if (p.info["cmdline"] or [])[-2:] == wanted]
    return psutil.wait_procs(ours, timeout=3)[1]


@needs_sandbox
@pytest.mark.parametrize(
    ("code", "how"),
    [
        ("while True: pass\n\n", "timeout"),
        ("import time; time.sleep(600)", "timeout"),
        (f"{HOG}import time; time.sleep(60)", "memory"),
        ("while True: print('x' * 100_000)\n\n", "output"),
        ("import os; os._exit(3)", "exit"),
        ("import os; os.kill(os.getpid(), 11)", "exit"),
    ],
)  # fmt: skip
def test_whatever_runs_in_it_ends(code, how):
    began, seconds = time.monotonic(), 4.0 if how == "timeout" else 30.0
    ended = python(code, seconds=seconds, memory=1 << 30)
    assert ended.how == how
    assert time.monotonic() - began < seconds + 6
    assert len(ended.stdout) <= sandbox.OUTPUT
    assert ended.code == {
        "import os; os._exit(3)": 3,
        "import os; os.kill(os.getpid(), 11)": 139,
    }.get(code)
    assert not left()


@needs_sandbox
def test_children_that_hide_end_too():
    code = "import os, time\nif os.fork() == 0: (os.setsid(), os.fork(), time.sleep(600))\n\n"
    ended = python(code + "os._exit(0)", seconds=20.0)
    assert ended.how == "exit"
    assert ended.seconds < 10
    assert not left()


@needs_sandbox
@root
def test_sandboxes_at_the_same_time_have_numbers_of_their_own():
    with sandbox._slot() as one, sandbox._slot() as two:
        assert one != two
    with sandbox._slot() as again:
        assert again == one


def test_without_a_sandbox_it_is_still_ended_and_cleaned():
    ended = sandbox.run("code", b"while True: pass\n\n", Limits(seconds=2.0), sandboxed=False)
    assert ended.how == "timeout"
    assert not left()


def test_the_student_sees_nothing_of_the_environment(monkeypatch):
    monkeypatch.setenv("SECRET_TOKEN", "abc")
    code = b"import os; print(sorted(os.environ))\n"
    ended = sandbox.run("code", code, Limits(), sandboxed=False)
    assert b"'HOME'" in ended.stdout
    assert b"SECRET_TOKEN" not in ended.stdout


def test_where_there_is_no_sandbox_it_says_why_and_the_way_out(monkeypatch, tmp_path, capsys):
    with monkeypatch.context() as m:
        m.setattr(sys, "platform", "darwin")
        assert "needs Linux, and this is darwin" in sandbox.missing()
    with monkeypatch.context() as m:
        m.setattr(sandbox.shutil, "which", lambda name: None)
        assert "bwrap is not installed: `sudo apt install bubblewrap`" in sandbox.missing()
        args = [
            "grade",
            str(tmp_path / "alice.ipynb"),
            "--assignment",
            "01_linear_hypothesis",
            "--out",
            str(tmp_path / "out"),
        ]
        (tmp_path / "alice.ipynb").write_text("{}")
        assert cli.main(args) == 2
        said = capsys.readouterr().err
        assert "bwrap is not installed" in said
        assert "--unsandboxed, at your own risk" in said
        assert not (tmp_path / "out/grades.csv").exists()
    with monkeypatch.context() as m:
        refusal = subprocess.CompletedProcess([], 1, "", "No permissions to create new namespace")
        m.setattr(sandbox.subprocess, "run", lambda *a, **k: refusal)
        m.setattr(sandbox.shutil, "which", lambda name: name)
        assert "No permissions to create new namespace" in sandbox.missing()
        assert "docker run --privileged" in sandbox.missing()


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"seconds": 0.0}, "seconds is 0.0: expected at least 1"),
        ({"seconds": float("nan")}, "seconds is nan"),
        ({"seconds": float("inf")}, "seconds is inf"),
        ({"memory": 6}, "was it meant in GiB"),
    ],
)
def test_limits_that_make_no_sense_are_refused(limits, words):
    with pytest.raises(ValueError, match=words):
        Limits(**limits)
