"""Before a batch starts: does the sandbox hold?"""

import json
import os
import secrets
import socket
import tempfile
from pathlib import Path

from robcourse.grading import sandbox


class NoSandbox(RuntimeError):
    """There can be no safe grading here; the text says why, and the way out."""


def selftest(files: list[Path], limits: sandbox.Limits) -> dict[str, str | None]:
    """Try in a sandbox what a hostile notebook would; None where it held, else what was possible.

    `files` are what a submission must not see: solutions, gradebook, other submissions.

    Raises:
        NoSandbox: none can be made here.
    """
    if why := sandbox.missing():
        raise NoSandbox(f"{why}. Or grade with --unsandboxed, at your own risk")
    secret = secrets.token_hex(16)
    with socket.create_server(("127.0.0.1", 0)) as server, tempfile.TemporaryDirectory() as folder:
        hidden = Path(folder) / "gradebook.db"
        hidden.write_text(secret)
        # Somebody else's process, by a word in its command line; a variable of the grader's.
        sleeper = os.spawnvp(os.P_NOWAIT, "sleep", ["sleep-" + secret, "60"])
        os.environ["ROBCOURSE_SELFTEST"] = secret
        try:
            order = {
                "files": [str(f.absolute()) for f in (*files, hidden, Path.home() / ".ssh")],
                "port": server.getsockname()[1],
                "process": secret,
                "memory": limits.memory,
                "secret": secret,
            }
            stdin = json.dumps(order).encode() + b"\n"
            ended = sandbox.run("robcourse.grading.probe", stdin, limits)
        finally:
            del os.environ["ROBCOURSE_SELFTEST"]
            os.kill(sleeper, 9)
            os.waitpid(sleeper, 0)
    try:
        found = json.loads(ended.stdout)
    except ValueError:
        raise NoSandbox(
            f"the self-test did not end well ({ended.how}, status {ended.code}): {ended.stderr}"
        ) from None
    return found


def demand(files: list[Path], limits: sandbox.Limits) -> None:
    """Raise `NoSandbox` unless every line of the self-test held."""
    broken = {what: why for what, why in selftest(files, limits).items() if why}
    if broken:
        said = "; ".join(f"{what}: {why}" for what, why in broken.items())
        raise NoSandbox(f"the sandbox does not hold here ({said}). Nothing was graded")
