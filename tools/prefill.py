"""Run the notebooks of the book, as many at a time as there are cores, before Jupyter Book does.

Jupyter Book runs them one after the other; it finds here, in its own cache, what has run already.
No old page survives: a change of what the numbers come from (`robcourse/`, the requirements, the
profile, the machine's Python) drops the whole of `_build`, because Sphinx would keep its pages even
if the cache were gone; and the pages themselves are made again each time, so a page that is there
belongs to the last build. A notebook that raises is printed with its traceback, and the exit is 1.

Each notebook's seconds go to `_build/seconds.json`; a test compares them with the budgets. They are
processor time: on a quiet machine nearly the clock's, on a busy one still the notebook's own.
"""

import hashlib
import json
import os
import platform
import shutil
import sys
from pathlib import Path

import attrs
import yaml
from jupyter_cache import get_cache
from jupyter_cache.executors.basic import ExecutionWorkerLocalMProc, JupyterExecutorLocalMproc

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "_build"
STAMP = BUILD / ".made-with"


def stamp() -> str:
    """A hash of everything but the notebooks that a number in the book can depend on."""
    profile = os.environ.get("ROBCOURSE_PROFILE", "quick")
    made_with = hashlib.sha256(f"{profile}\0{platform.python_version()}\0{sys.prefix}".encode())
    files = [ROOT / "requirements.txt", ROOT / "pyproject.toml", ROOT / "book" / "measured.json"]
    for path in [*files, *sorted((ROOT / "robcourse").rglob("*"))]:
        if path.is_file() and "__pycache__" not in path.parts:
            made_with.update(f"{path.relative_to(ROOT)}\0".encode() + path.read_bytes() + b"\0")
    return made_with.hexdigest()


def notebooks() -> list[Path]:
    """What the build runs: chapters and solutions. The untouched exercises are run by the tests."""
    return sorted(p for room in ("chapters", "solutions") for p in (ROOT / room).glob("*.ipynb"))


class Worker(ExecutionWorkerLocalMProc):
    """Runs one notebook, and notes the processor time of its kernel in place of the clock's."""

    @staticmethod
    def execute(project_nb, data):
        before = processor_time()
        result = ExecutionWorkerLocalMProc.execute(project_nb, data)
        return attrs.evolve(result, time=processor_time() - before or result.time)


class Executor(JupyterExecutorLocalMproc):
    """As many notebooks at a time as there are cores."""

    _EXECUTION_WORKER = Worker


def processor_time() -> float:
    """Seconds that ended children of this process have spent; 0 where the system does not say."""
    done = os.times()
    return done.children_user + done.children_system


def run(paths: list[Path], timeout: int) -> dict[str, str]:
    """Execute what is not in the cache; the traceback of each notebook that failed.

    Args:
        paths: the notebooks.
        timeout: the most seconds for one cell.
    """
    cache = get_cache(BUILD / ".jupyter_cache")
    for record in cache.list_project_records():  # those of notebooks that are gone would run, too
        cache.remove_nb_from_project(record.pk)
    for path in paths:
        cache.add_nb_to_project(str(path))
    result = Executor(cache).run_and_cache(timeout=timeout)
    said = {r.uri: r.traceback for r in cache.list_project_records() if r.traceback}
    failed = {str(uri): said.get(str(uri), "") for uri in [*result.excepted, *result.errored]}
    if not failed:
        records = {path: cache.get_cached_project_nb(str(path)) for path in paths}
        seconds = {
            path.relative_to(ROOT).as_posix(): record.data["execution_seconds"]
            for path, record in records.items()
        }
        (BUILD / "seconds.json").write_text(json.dumps(seconds, indent=1) + "\n")
        for name, value in seconds.items():
            new = " (just run)" if str(ROOT / name) in map(str, result.succeeded) else ""
            print(f"{name}: {value:.1f} s{new}")
    return failed


def main() -> int:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("TQDM_DISABLE", "1")
    before = stamp()
    if not STAMP.exists() or STAMP.read_text() != before:
        shutil.rmtree(BUILD, ignore_errors=True)
    shutil.rmtree(BUILD / "html", ignore_errors=True)
    BUILD.mkdir(exist_ok=True)
    STAMP.write_text(before)
    config = yaml.safe_load((ROOT / "_config.yml").read_text())
    failed = run(notebooks(), config["execute"]["timeout"])
    for name, traceback in failed.items():
        print(f"\n{name} failed:\n{traceback[-4000:]}", file=sys.stderr)
    if stamp() != before:
        STAMP.unlink()
        print("the code changed while the notebooks ran: run this again", file=sys.stderr)
        return 1
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
