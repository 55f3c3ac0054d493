"""Batches that are killed, clusters that lose a worker, failures of ours: one table."""

import csv
import json
import os
import subprocess
import sys
import time
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from robcourse.grading import batch, intake, marking, sandbox
from robcourse.grading.assignment import load
from robcourse.grading.batch import Batch
from robcourse.grading.sandbox import Limits
from robcourse.grading.table import Status

ROOT = Path(__file__).resolve().parents[1]
NAME = "01_linear_hypothesis"
needs_sandbox = pytest.mark.skipif(
    sandbox.missing() is not None and not os.environ.get("ROBCOURSE_REQUIRE_SANDBOX"),
    reason=f"no sandbox here: {sandbox.missing()}",
)


@pytest.fixture(scope="module")
def small():
    """From the names of exercises, the text of a notebook that solves these."""
    cells = json.loads((ROOT / f"solutions/{NAME}.ipynb").read_text())["cells"]
    always = ("imports", "usual-rule")

    def make(*solved: str) -> str:
        wanted = {f"{name.replace('_', '-')}-answer" for name in solved}
        kept = [c for c in cells if c["id"] in always or c["id"] in wanted]
        return json.dumps({"cells": kept, "metadata": {}, "nbformat": 4, "nbformat_minor": 5})

    return make


@pytest.fixture(scope="module")
def classroom(tmp_path_factory, small):
    """Six students: five with one right answer each, one whose notebook is broken."""
    folder = tmp_path_factory.mktemp("class")
    for i, name in enumerate(("distance", "fgsm", "holder_witness", "robust_risk", "distance")):
        path = folder / f"student {i}" / "work.ipynb"
        path.parent.mkdir(parents=True)
        path.write_text(small(name))
    (folder / "broken").mkdir()
    (folder / "broken/work.ipynb").write_text("{")
    return folder


def command(classroom: Path, out: Path, *more: str) -> list[str]:
    return [
        sys.executable, "-m", "robcourse.cli", "grade", str(classroom), "--assignment", NAME,
        "--out", str(out), "--course", str(ROOT), "--seed", "11", "--workers", "2", *more,
    ]  # fmt: skip


def table(out: Path) -> list[dict]:
    """grades.csv without the column that measures time."""
    with (out / "grades.csv").open(newline="", encoding="utf-8-sig") as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


def marks(out: Path) -> list[str]:
    """The files that were marked, once for each time."""
    lines = (json.loads(line) for line in (out / "log.jsonl").read_text().splitlines())
    return [line["file"] for line in lines if line["event"] == "marked"]


def graded(classroom: Path, out: Path, *more: str) -> list[dict]:
    subprocess.run(command(classroom, out, *more), check=True, capture_output=True)
    return table(out)


@pytest.fixture(scope="module")
def undisturbed(classroom, tmp_path_factory):
    rows = graded(classroom, tmp_path_factory.mktemp("undisturbed"))
    assert [r["status"] for r in rows] == ["not_a_notebook"] + ["cells_missing"] * 5
    assert [float(r["total"]) for r in rows] == [0, 1, 2, 2, 1, 1]
    return rows


@needs_sandbox
def test_a_batch_that_was_killed_goes_on_and_ends_with_the_same_table(
    classroom, tmp_path, undisturbed
):
    out = tmp_path / "out"
    process = subprocess.Popen(
        command(classroom, out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while len(list(out.glob("results/*.json"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    below = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    done = marks(out)
    assert 2 <= len(done) < 6, "it was killed in the middle"
    _, alive = psutil.wait_procs(below, timeout=10)
    assert not alive, "its workers and sandboxes die with it"

    assert graded(classroom, out) == undisturbed
    assert sorted(marks(out)) == sorted(r["file"] for r in undisturbed), "nothing is marked twice"
    assert not list(out.glob("**/*.part")), "no half-written file is left"


@needs_sandbox
def test_a_cluster_gives_the_same_table_also_when_a_worker_is_killed(
    classroom, tmp_path, undisturbed, cluster
):
    address, workers = cluster
    assert graded(classroom, tmp_path / "whole", "--scheduler", address) == undisturbed

    out = tmp_path / "killed"
    process = subprocess.Popen(
        command(classroom, out, "--scheduler", address), stdout=subprocess.DEVNULL
    )
    while len(list(out.glob("results/*.json"))) < 2 and process.poll() is None:
        time.sleep(0.05)
    workers[0].kill()
    assert process.wait(timeout=300) == 0
    assert table(out) == undisturbed


class Flaky(ThreadPoolExecutor):
    """Fails each submission the first `times` times that it is asked for it."""

    asked: dict[str, int]
    times = 1

    def submit(self, do, submission, *args, **kwargs):
        self.asked[submission.student] = self.asked.get(submission.student, 0) + 1
        if self.asked[submission.student] <= self.times:
            failed: Future = Future()
            failed.set_exception(ConnectionError("the cable was pulled"))
            return failed
        return super().submit(marked_at_once, submission, *args, **kwargs)


def marked_at_once(submission, content, assignment, *, seed, limits, sandboxed):
    """In the place of `marking.mark`: no sandbox, no judge, the same kind of result."""
    broken = submission.problem
    row = marking.unmarked(submission, assignment, seed)
    assert not broken
    return marking.Marked(batch.replace(row, status=Status.OK, reason=content.decode()[:5]))


@pytest.fixture
def begun(tmp_path, classroom):
    found = intake.collect(classroom, NAME)
    return Batch(load(ROOT, NAME), tmp_path / "out", 3, Limits()), found


def flaky(times: int) -> type[Executor]:
    return type("Flaky", (Flaky,), {"times": times, "asked": {}})


def test_a_failure_of_ours_is_tried_again(begun):
    whole, found = begun
    kind = flaky(times=2)
    done = batch.marked(whole, found, lambda: kind(2))
    assert [m.row.status for m in done] == [Status.OK] * 6
    assert set(kind.asked.values()) == {3}


def test_a_failure_of_ours_that_stays_is_no_zero_and_is_tried_by_the_next_batch(begun):
    whole, found = begun
    done = batch.marked(whole, found, lambda: flaky(times=99)(2))
    assert [m.row.status for m in done] == [Status.INFRA_ERROR] * 6
    assert {m.row.total for m in done} == {None}
    assert all("the cable was pulled" in m.row.reason for m in done)
    assert not list((whole.out / "results").iterdir())
    done = batch.marked(whole, found, lambda: flaky(times=0)(2))
    assert [m.row.status for m in done] == [Status.OK] * 6


def test_what_was_marked_is_read_and_not_marked_again(begun):
    whole, found = begun
    first = batch.marked(whole, found, lambda: flaky(times=0)(1))
    again = batch.marked(whole, found, lambda: flaky(times=99)(1))
    assert again == first
    kind = flaky(times=0)
    batch.marked(whole, found, lambda: kind(1), resume=False)
    assert set(kind.asked.values()) == {1}


@pytest.mark.parametrize("damage", ["", "{", "null", '{"row": {}}'])
def test_a_damaged_result_is_marked_again(begun, damage):
    whole, found = begun
    first = batch.marked(whole, found, lambda: flaky(times=0)(1))
    victim = next((whole.out / "results").iterdir())
    victim.write_text(damage)
    kind = flaky(times=0)
    assert batch.marked(whole, found, lambda: kind(1)) == first
    assert len(kind.asked) == 1


def test_another_seed_limit_or_notebook_is_another_result(begun):
    whole, found = begun
    one = found[-1]
    keys = {
        whole.key(one),
        batch.replace(whole, seed=4).key(one),
        batch.replace(whole, limits=Limits(seconds=60.0)).key(one),
        batch.replace(whole, sandboxed=False).key(one),
        whole.key(batch.replace(one, sha256="0" * 64)),
        whole.key(batch.replace(one, superseded=True)),
        whole.key(batch.replace(one, student="somebody else")),
    }
    assert len(keys) == 7


def test_an_interrupted_batch_says_what_was_not_run(begun):
    whole, found = begun

    class Impatient(Flaky):
        asked, times = {}, 0

        def submit(self, *args, **kwargs):
            if len(self.asked) == 3:
                raise KeyboardInterrupt
            return super().submit(*args, **kwargs)

    done = batch.marked(whole, found, lambda: Impatient(1))
    statuses = [m.row.status for m in done]
    assert Status.NOT_RUN in statuses
    assert {m.row.total for m in done if m.row.status == Status.NOT_RUN} == {None}
    done = batch.marked(whole, found, lambda: flaky(times=0)(1))
    assert [m.row.status for m in done] == [Status.OK] * 6


def test_two_batches_do_not_write_into_one_folder(tmp_path):
    busy = pytest.raises(batch.Busy, match="another batch works in")
    with batch.alone(tmp_path), busy, batch.alone(tmp_path):
        pass
    with batch.alone(tmp_path):
        pass


def test_a_batch_goes_on_with_its_seed_unless_another_is_given(tmp_path):
    fresh = batch.seed_of(tmp_path, None)
    (tmp_path / "batch.json").write_text(json.dumps({"seed": fresh}))
    assert batch.seed_of(tmp_path, None) == fresh
    assert batch.seed_of(tmp_path, 5) == 5
    assert len({batch.seed_of(tmp_path / "none", None) for _ in range(5)}) > 1
