"""What a hostile notebook would try, tried in the sandbox before a batch starts.

Standard input is one line of JSON: files that must not be seen, a port of this machine that
listens, a process that must not be reached, the memory in bytes. Standard output is one line of
JSON: for each attempt, None where the sandbox held, else what was possible.
"""

import contextlib
import ctypes
import json
import mmap
import os
import signal
import socket
import sys
import tempfile
from pathlib import Path

from robcourse.grading.runner import PROCESSES, confine


def main() -> None:
    """Try everything, and say what was possible."""
    order = json.loads(sys.stdin.buffer.readline())
    confine(order["memory"])
    found = {
        "runs as a user without rights": rights(),
        "reads no file outside": reads(order["files"]),
        "writes no file outside": writes(order["files"]),
        "fills no disk": fills(),
        "writes no huge file": huge(),
        "has no network": network(),
        "does not reach this machine's own ports": port(order["port"]),
        "sees no other process": sees(order["process"]),
        "kills no other process": kills(order["process"]),
        "gets no more memory than allowed": memory(order["memory"]),
        "holds no memory that is nobody's": nobodys(),
        "makes no namespace of its own": namespace(),
        "takes no other processor": processor(),
        "cannot start 400 processes": forks(),
        "knows nothing of the environment": environment(order["secret"]),
    }
    sys.stdout.write(json.dumps(found) + "\n")


def rights() -> str | None:
    """No capability, and no way back to root."""
    status = Path("/proc/self/status").read_text()
    powers = next(line.split()[1] for line in status.splitlines() if line.startswith("CapEff"))
    if os.getuid() == 0 or int(powers, 16):
        return f"user {os.getuid()} with capabilities {powers}"
    with contextlib.suppress(OSError):
        os.setuid(0)
        return "became root"
    return None


def reads(files: list[str]) -> str | None:
    """None of the grader's files, and nothing of the system's that tells who is there."""
    seen = [f for f in files if Path(f).exists()]
    seen += [f for f in ("/etc/shadow", "/etc/passwd", "/home") if Path(f).exists()]
    return f"saw {', '.join(seen)}" if seen else None


def writes(files: list[str]) -> str | None:
    """Beside this package, in Python's folder, in the system, at the root, where files are not."""
    folders = {Path(f).parent for f in files} | {Path(__file__).parent, Path(sys.prefix)}
    folders.discard(Path(tempfile.gettempdir()))  # in here it is another one
    for folder in (*folders, Path("/"), Path("/usr"), Path("/dev"), Path("/proc/sys/kernel")):
        with contextlib.suppress(OSError):
            (folder / "robcourse-probe").write_text("written")
            return f"wrote in {folder}"
    return None


def fills() -> str | None:
    """2 GiB in many files, in every place that can be written."""
    for folder in (tempfile.gettempdir(), "/dev/shm"):
        written, names = 0, []
        try:
            for i in range(64):
                name = Path(folder) / f"fill-{i}"
                names.append(name)
                written += name.write_bytes(bytes(32 << 20))
        except OSError:
            pass
        finally:
            for name in names:
                name.unlink(missing_ok=True)
        if written > 1 << 30:
            return f"wrote {written >> 20} MiB to {folder}"
    return None


def huge() -> str | None:
    """One file of 100 MiB."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    with tempfile.TemporaryFile() as file, contextlib.suppress(OSError):
        file.write(bytes(100 << 20))
        file.flush()
        return "wrote a file of 100 MiB"
    return None


def network() -> str | None:
    """An address, or the name of one."""
    for address in (("1.1.1.1", 53), ("8.8.8.8", 443)):
        with contextlib.suppress(OSError), socket.socket() as s:
            s.settimeout(2)
            s.connect(address)
            return f"reached {address[0]}"
    with contextlib.suppress(OSError):
        socket.getaddrinfo("example.org", 80)
        return "looked up a name"
    return None


def port(number: int) -> str | None:
    """A port of this machine that is known to listen."""
    for address in ("127.0.0.1", "::1"):
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with contextlib.suppress(OSError), socket.socket(family) as s:
            s.settimeout(2)
            s.connect((address, number))
            return f"reached {address}:{number}"
    return None


def sees(process: str) -> str | None:
    """`process` is a word that stands in the command line of the grader's own process."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if process.encode() in path.read_bytes():
                return f"saw {path.parent.name}"
    return None


def kills(process: str) -> str | None:
    """Every process that it can see but itself, in the harmless way."""
    mine = {os.getpid(), 1}
    for path in Path("/proc").glob("[0-9]*"):
        if int(path.name) not in mine:
            with contextlib.suppress(OSError):
                line = (path / "cmdline").read_bytes()
                if process.encode() in line:
                    os.kill(int(path.name), 0)
                    return f"could have killed {path.name}"
    return None


def memory(most: int) -> str | None:
    """As much address space as the whole process may have."""
    with contextlib.suppress(OSError, MemoryError, ValueError):
        mmap.mmap(-1, most).close()
        return f"got {most >> 20} MiB"
    return None


def nobodys() -> str | None:
    """Memory files, which no limit counts."""
    with contextlib.suppress(OSError):
        os.close(os.memfd_create("probe"))
        return "made a memory file"
    return None


def namespace() -> str | None:
    """One in which it would be root."""
    new_user = 0x10000000
    child = os.fork()
    if child == 0:
        os._exit(ctypes.CDLL(None).unshare(new_user) == 0)
    _, status = os.waitpid(child, 0)
    return "made a user namespace" if status else None


def processor() -> str | None:
    """Each that there is, in turn."""
    for number in range(os.cpu_count() or 1):
        with contextlib.suppress(OSError):
            os.sched_setaffinity(0, {number})
            return f"chose processor {number}"
    return None


def forks() -> str | None:
    """400 processes that wait."""
    children = []
    try:
        for _ in range(400):
            child = os.fork()
            if child == 0:
                signal.pause()
                os._exit(0)
            children.append(child)
    except OSError:
        pass
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    return f"started {len(children)} processes" if len(children) > PROCESSES else None


def environment(secret: str) -> str | None:
    """A variable that the grader has set."""
    told = [name for name, value in os.environ.items() if secret in value]
    return f"read {', '.join(told)}" if told else None


if __name__ == "__main__":
    main()
