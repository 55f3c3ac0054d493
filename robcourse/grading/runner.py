"""In the sandbox: run the notebook's cells, call the student's functions, write down what they
answer. Judges nothing.

Standard input holds one line of JSON (see `marking`), then the notebook. Standard output gets a
line of JSON for each step: that this program runs; the notebook's cells, before any of its code has
run; that everything is imported; what the cells raised; the answers to each exercise; the end, with
the processor time of each part. The student's code runs in this very process and can write there
too: so nothing in these lines is believed, only judged.
"""

import importlib
import json
import os
import re
import resource
import signal
import sys
import time
from contextlib import contextmanager

from robcourse.grading.flags import has, python, uses

PROCESSES, FILE_BYTES = 64, 64 << 20
KEPT = 6_000_000  # letters of the cells' sources that are sent back
LIBRARIES = {  # and the words that make them needed; an optimiser loads `torch._dynamo`
    "torch": ("",),
    "torch._dynamo": ("optim.", "training."),
    "scipy.stats": ("scipy", "sklearn", "data."),
    "sklearn.datasets": ("sklearn", "data."),
    "sklearn.linear_model": ("sklearn",),
    "matplotlib.pyplot": ("matplotlib", "plots"),
}
MARKS = {"✓": "right", "✗": "wrong", "·": "not attempted"}


class TookTooLong(BaseException):
    """Raised in the student's code when its time is over."""


def main() -> None:
    """Do one submission, and leave the process."""
    order = json.loads(sys.stdin.buffer.readline())
    confine(order["memory"])
    send = _channel()
    clock = {"start": time.process_time()}
    send({"alive": True})
    try:
        cells, saved = read(sys.stdin.buffer.read())
    except ValueError as error:
        send({"unreadable": str(error)})
        os._exit(0)
    sources = [c["source"] for c in cells if c["cell_type"] == "code"]
    own = [python(s) for s in sources if s.strip() not in order["handed"]]
    used = {name: uses(own, name, taught) for name, taught in order["exercises"].items()}
    send({"cells": _shown(cells), "saved": saved, "uses": used})
    if any(defines(source, name) for source in sources for name in used):
        _work(order, cells, sources, own, send, clock)
    send({"end": clock})
    os._exit(0)


def confine(memory: int) -> None:
    """Limit this process and its children, for good: memory in bytes, processes, file sizes."""
    limits = {
        resource.RLIMIT_AS: memory,
        resource.RLIMIT_NPROC: PROCESSES,
        resource.RLIMIT_FSIZE: FILE_BYTES,
        resource.RLIMIT_CORE: 0,
    }
    for what, most in limits.items():
        resource.setrlimit(what, (most, most))


def read(content: bytes) -> tuple[list[dict], dict[str, str]]:
    """The cells of a notebook, and the verdicts that its saved outputs show.

    Raises:
        ValueError: it is no notebook, and why.
    """
    try:
        notebook = json.loads(content.decode("utf-8-sig"))
    except RecursionError:
        raise ValueError("its JSON is nested too deeply") from None
    except MemoryError:
        raise ValueError("it is too big to read") from None
    except UnicodeDecodeError:
        raise ValueError("it is no text: not a notebook, or one that was damaged") from None
    except ValueError as error:
        raise ValueError(f"it is not JSON ({error}): damaged, or saved as something else") from None
    cells = notebook.get("cells") if isinstance(notebook, dict) else None
    if not isinstance(cells, list) or not all(isinstance(c, dict) for c in cells):
        raise ValueError("it is JSON, but no notebook of format 4: it has no list of cells")
    saved = {}
    for cell in cells:
        saved |= _verdicts(cell)
    return [_plain(cell, i) for i, cell in enumerate(cells)], saved


def defines(source: str, name: str) -> bool:
    """Whether the text of a cell seems to define `name`, even if it does not run."""
    wanted = re.escape(name)
    function = rf"^[ \t]*(async[ \t]+)?(def|class)[ \t]+{wanted}\b"
    value = rf"^{wanted}\b[^=\n(]*=(?!=)"
    return bool(re.search(f"{function}|{value}", source, re.M))


@contextmanager
def limited(seconds: float):
    """Raise `TookTooLong` in the block when its time is over, again and again until it ends.

    Yields a list that is no longer empty once that has happened.
    """
    fired = []

    def ring(*_):
        fired.append(True)
        raise TookTooLong

    signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds, 0.05)
    try:
        yield fired
    except TookTooLong:
        pass
    finally:
        _quiet()


def _quiet() -> None:
    """Stop the timer; a last signal may arrive while that is done."""
    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    signal.setitimer(signal.ITIMER_REAL, 0)


def _work(order: dict, cells, sources: list[str], own: list[str], send, clock: dict) -> None:
    shell, checks, asks = _libraries(order, "\n".join(sources))
    clock["libraries"] = time.process_time()
    send({"imported": True, "there": [name for name in order["exercises"] if has(own, name)]})
    os.dup2(1, 2)
    errors, slow = {}, []
    for i, cell in enumerate(cells):
        if cell["cell_type"] != "code" or "demo" in cell["tags"]:
            continue
        with limited(order["limit"]) as late:
            ran = shell.run_cell(cell["source"], store_history=False, silent=True)
        if late:
            slow.append(i)
            errors[i] = f"it ran longer than {order['limit']:g} s and was stopped"
        elif error := ran.error_before_exec or ran.error_in_exec:
            errors[i] = _words(error)
    clock["cells"] = time.process_time()
    send({"errors": errors, "late": slow})
    for name in order["exercises"]:
        send({"exercise": name} | _exercise(shell, checks[name], name, asks, order))
    clock["cases"] = time.process_time()


def _libraries(order: dict, text: str):
    """The libraries that the notebook's text speaks of, the shell, and the checks."""
    for name, words in LIBRARIES.items():
        if any(word in text for word in words):
            importlib.import_module(name)
    from IPython.core.interactiveshell import InteractiveShell

    import robcourse
    from robcourse import checks
    from robcourse.grading.assignment import checks_of

    class Shell(InteractiveShell):
        def enable_gui(self, gui=None):
            """For `%matplotlib inline`, which asks for one."""

    shell = Shell.instance(colors="nocolor", cache_size=0, history_load_length=0)
    shell.history_manager.enabled = False
    known = checks_of(order["assignment"], order["variants"])
    asks = checks.placeholder, checks.answers
    # What the student imports is another copy than what asks here, so that nobody changes it by
    # chance or by a simple patch.
    for name in [n for n in sys.modules if n.startswith(("robcourse.checks", "robcourse.grading"))]:
        del sys.modules[name]
    del robcourse.checks, robcourse.grading
    theirs = importlib.import_module("robcourse.checks")
    # The judge stands outside: in here a check says nothing, and what it would reward is not run.
    theirs.run = lambda name, answer: theirs.Report(
        str(name), theirs.Status.NOT_ATTEMPTED, 0, "it is judged after the notebook has run"
    )
    return shell, known, asks


def _exercise(shell, check, name: str, asks, order: dict) -> dict:
    placeholder, answers = asks
    if name not in shell.user_ns:
        return {"undefined": True}
    if placeholder(shell.user_ns[name]):
        return {"stub": True}
    given = None
    with limited(order["limit"]) as late:
        try:
            given = answers(check, shell.user_ns[name], order["seed"])
        except TookTooLong:
            raise
        except BaseException as error:
            return {"failed": _words(error)}
    return {"timeout": order["limit"]} if late or given is None else {"answers": given}


def _words(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {str(error)[:1000]}"
    except BaseException:
        return "an exception that cannot be printed"


def _channel():
    """Where the lines go. What the student prints from now on goes nowhere."""
    out = os.dup(1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    write, dumps = os.write, json.dumps

    def send(line: dict) -> None:
        data = dumps(line).encode() + b"\n"
        while data:
            data = data[write(out, data) :]

    return send


def _plain(cell: dict, i: int) -> dict:
    """A cell without its outputs, whatever wrote it."""
    meta = cell.get("metadata")
    meta = meta if isinstance(meta, dict) else {}
    grader = meta.get("nbgrader")
    grader = grader if isinstance(grader, dict) else {}
    tags = meta.get("tags")
    source = cell.get("source", "")
    if isinstance(source, list) and all(isinstance(s, str) for s in source):
        source = "".join(source)
    if not isinstance(source, str):
        raise ValueError(f"cell {i + 1} has no source text")
    points = grader.get("points")
    return {
        "id": str(grader.get("grade_id") or cell.get("id") or "")[:100],
        "cell_type": str(cell.get("cell_type"))[:20],
        "source": source,
        "tags": [t for t in tags if isinstance(t, str)] if isinstance(tags, list) else [],
        "points": points if type(points) in (int, float) else None,
    }


def _shown(cells: list[dict]) -> list[dict]:
    """The cells, and no more text than a person would read (or look at, in pictures)."""
    out, left = [], KEPT
    for cell in cells:
        out.append(cell | {"source": cell["source"][:left]})
        left -= len(out[-1]["source"])
    return out


def _verdicts(cell: dict) -> dict[str, str]:
    """From the printed outputs of a cell: {"01_linear_hypothesis.distance": "right"}."""
    found = {}
    outputs = cell.get("outputs")
    for output in outputs if isinstance(outputs, list) else []:
        text = output.get("text", "") if isinstance(output, dict) else ""
        lines = text if isinstance(text, list) else str(text).splitlines()
        for line in lines[:1000]:
            match = re.match(r"([✓✗·]) (\w+\.\w+): ", str(line))
            if match:
                found[match[2]] = MARKS[match[1]]
    return found


if __name__ == "__main__":
    main()
