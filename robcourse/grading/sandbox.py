"""The sandbox: one program of ours, and what it runs of a student's, in bubblewrap.

Inside there is no network, no other process, no file but the system, Python and this package, all
read-only, and a small temporary folder; the user has no rights. Outside, a clock and a count of
memory and output end it. One sandbox holds one submission.
"""

import contextlib
import fcntl
import itertools
import os
import platform
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

import robcourse
from robcourse.grading import seccomp

OUTPUT = 32 << 20  # bytes that may come back
WORDS = 4000  # bytes of the error stream that are kept
DISK = 256 << 20  # bytes of the temporary folder
FIRST_UID, SLOTS = 60_000, 200  # each sandbox that runs at the same time has its own user
TICK = 0.2  # seconds between two looks at the memory


@dataclass(frozen=True)
class Limits:
    """What a submission may use.

    Attributes:
        seconds: wall time for all of it; a cell or an exercise alone gets a quarter.
        memory: bytes, of address space for each process and resident for all together.
    """

    seconds: float = 120.0
    memory: int = 6 << 30

    def __post_init__(self):
        if not 1 <= self.seconds < float("inf"):
            raise ValueError(f"seconds is {self.seconds}: expected at least 1")
        if self.memory < 1 << 30:
            raise ValueError(
                f"memory is {self.memory} bytes: expected at least 1 GiB; torch alone needs most "
                "of it (was it meant in GiB?)"
            )


@dataclass(frozen=True)
class Ended:
    """How a sandbox ended.

    Attributes:
        how: "exit", "timeout", "memory" or "output" (more than may come back).
        code: its exit status, negative for a signal; None where it was killed from here.
        stdout: what came back, at most `OUTPUT` bytes.
        stderr: the first words of it, for our own failures.
        seconds: wall time.
    """

    how: str
    code: int | None
    stdout: bytes
    stderr: str
    seconds: float


def missing() -> str | None:
    """Why there can be no sandbox here, and the way out; None where there can be one."""
    if sys.platform != "linux":
        return (
            f"bubblewrap needs Linux, and this is {sys.platform}: grade in a Linux machine, a "
            "container or WSL 2"
        )
    if not seccomp.known():
        return f"there is no list of system calls for {platform.machine()}: grade on x86_64 or ARM"
    needed = {"bwrap": "bubblewrap", "setpriv": "util-linux", "taskset": "util-linux"}
    for program, package in needed.items():
        if shutil.which(program) is None:
            return f"{program} is not installed: `sudo apt install {package}`, or your system's way"
    tried = subprocess.run(
        [*_bwrap(os.getuid(), ()), "true"], capture_output=True, text=True, check=False
    )
    if tried.returncode:
        return (
            f"bubblewrap does not start here ({tried.stderr.strip()}): in a container allow it to "
            "make namespaces (`docker run --privileged`, or `--cap-add SYS_ADMIN --security-opt "
            "seccomp=unconfined`); on Ubuntu see kernel.apparmor_restrict_unprivileged_userns"
        )
    return None


def run(module: str, stdin: bytes, limits: Limits, *, sandboxed: bool = True) -> Ended:
    """Run `python -m module` in a sandbox of its own, or without one.

    Raises:
        OSError: it could not be started.
    """
    with contextlib.ExitStack() as stack:
        given = stack.enter_context(_read_only(stdin))
        python, folder, rules = [sys.executable, "-P", "-m", module], None, ()
        if sandboxed:
            slot = stack.enter_context(_slot())
            rules = (stack.enter_context(_read_only(seccomp.program())).fileno(),)
            core = sorted(os.sched_getaffinity(0))[slot % len(os.sched_getaffinity(0))]
            held = _bwrap(FIRST_UID + slot if os.getuid() == 0 else os.getuid(), _visible())
            at = held.index("--chdir")
            held[at:at] = ["--seccomp", str(rules[0])]
            command = ["taskset", "--cpu-list", str(core), *held, *python]
        else:
            command, folder = python, stack.enter_context(tempfile.TemporaryDirectory())
        process = subprocess.Popen(
            command,
            stdin=given,
            pass_fds=rules,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=folder,
            env=_environment(folder or "/tmp"),
            start_new_session=True,
        )
        try:
            return _watch(process, limits)
        finally:
            _end(process)


def _watch(process, limits: Limits) -> Ended:
    """Collect what comes back until it ends, or its time, memory or output is over."""
    started, pipes = time.monotonic(), {process.stdout: bytearray(), process.stderr: bytearray()}
    how, looked = "exit", started
    with selectors.DefaultSelector() as waiting:
        for pipe in pipes:
            os.set_blocking(pipe.fileno(), False)
            waiting.register(pipe, selectors.EVENT_READ)
        while waiting.get_map() and how == "exit":
            for key, _ in waiting.select(TICK):
                data = key.fileobj.read(1 << 20)
                if data:
                    pipes[key.fileobj] += data
                    del pipes[process.stderr][WORDS:]
                elif data == b"":
                    waiting.unregister(key.fileobj)
            now = time.monotonic()
            if now - started > limits.seconds:
                how = "timeout"
            elif len(pipes[process.stdout]) > OUTPUT:
                how = "output"
            elif now - looked > TICK:
                looked = now
                how = "memory" if _memory(process.pid) > limits.memory else "exit"
    if how == "exit":  # whoever closes these pipes may go on without
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(max(0.0, started + limits.seconds - time.monotonic()))
        how = "timeout" if process.returncode is None else how
    if how != "exit":
        _end(process)
    out, err = pipes.values()
    return Ended(
        how,
        process.returncode if how == "exit" else None,
        bytes(out[:OUTPUT]),
        bytes(err).decode(errors="replace"),
        time.monotonic() - started,
    )


def _memory(pid: int) -> int:
    """Resident bytes of a process and all below it."""
    total = 0
    with contextlib.suppress(psutil.Error):
        root = psutil.Process(pid)
        for process in (root, *root.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                total += process.memory_info().rss
    return total


def _end(process) -> None:
    """No process is left. In a sandbox the whole of it dies with the first one."""
    with contextlib.suppress(psutil.Error):
        below = psutil.Process(process.pid).children(recursive=True)
        for one in below:
            with contextlib.suppress(psutil.Error):
                one.kill()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for pipe in (process.stdout, process.stderr):
        pipe.close()


def _visible() -> tuple[str, ...]:
    """The folders that are seen inside, read-only: the system, Python, and this package."""
    system = ("/usr", "/lib", "/lib64", "/bin", "/etc/ld.so.cache", "/etc/alternatives")
    package = str(Path(robcourse.__file__).parent)
    wanted = dict.fromkeys((*system, sys.base_prefix, sys.prefix, package))
    return tuple(p for p in wanted if Path(p).exists())


def _bwrap(uid: int, visible: tuple[str, ...]) -> list[str]:
    """The words before the program."""
    root = os.getuid() == 0
    visible = visible or tuple(p for p in ("/usr", "/lib", "/lib64", "/bin") if Path(p).exists())
    # bwrap makes the parents of what it binds for its own user alone.
    parents = sorted({str(q) for p in visible for q in Path(p).parents} - {"/", "/tmp"})
    isolation = (
        # Started by root, a user namespace would only rename root: the user is changed inside.
        "--unshare-pid --unshare-net --unshare-ipc --unshare-uts --unshare-cgroup-try "
        "--cap-drop ALL --cap-add CAP_SETUID --cap-add CAP_SETGID"
        if root
        else "--unshare-all"
    ).split()
    drop = ["setpriv", "--reuid", str(uid), "--regid", str(uid), "--clear-groups"]
    return [
        "bwrap", *isolation, "--die-with-parent", "--new-session",
        "--proc", "/proc", "--dev", "/dev",
        "--perms", "1777", "--size", str(DISK), "--tmpfs", "/tmp",
        "--perms", "1777", "--size", str(DISK), "--tmpfs", "/dev/shm",
        *(word for p in parents for word in ("--perms", "0755", "--dir", p)),
        *(word for p in visible for word in ("--ro-bind", p, p)),
        "--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/tmp",
        *([*drop, "--no-new-privs"] if root else []),
    ]  # fmt: skip


def _environment(home: str) -> dict[str, str]:
    """Nothing of ours: no tokens, no paths but Python's."""
    return {
        "HOME": home,
        "TMPDIR": home,
        "USER": "student",
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "PYTHONPATH": str(Path(robcourse.__file__).parents[1]),
        "PYTHONDONTWRITEBYTECODE": "1",
        "MPLBACKEND": "Agg",
        "OMP_NUM_THREADS": "1",
        "TQDM_DISABLE": "1",
    }


@contextlib.contextmanager
def _read_only(content: bytes):
    """A file of this content that nobody can write, and that has no name."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        again = open(file.name, "rb")  # noqa: SIM115
    with again:
        yield again


@contextlib.contextmanager
def _slot():
    """A number that no other sandbox has now, on this machine: limits are counted by user."""
    folder = Path(tempfile.gettempdir()) / f"robcourse-sandboxes-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        raise OSError(f"{folder} belongs to somebody else: remove it")
    for slot in itertools.cycle(range(SLOTS)):
        with open(folder / str(slot), "w") as lock:
            if _locked(lock):
                yield slot
                return
        time.sleep(0.01)


def _locked(file) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
