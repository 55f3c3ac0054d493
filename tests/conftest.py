"""What holds for every test: repeatable examples, and no draw from the global random state.

The package is not imported here: jaxtyping's hook is installed after this file is read, and a
module that was imported before goes unchecked.
"""

import json
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from helpers import missing, random_state, same
from hypothesis import HealthCheck, settings

settings.register_profile(
    "robcourse",
    deadline=None,
    derandomize=True,
    max_examples=60,
    database=None,
    # The autouse fixture below looks at the random state before and after all examples together.
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
settings.load_profile("robcourse")


def pytest_collection_modifyitems(items):
    if torch.cuda.is_available():
        return
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="needs CUDA"))


@pytest.fixture
def global_random():
    """For a test that must draw from the global random state, as another library may: put back."""
    numpy = np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng():
        yield
    np.random.set_state(numpy)  # noqa: NPY002


#: As root and on a closed network; nothing that Chromium asks of its makers is a fault of the page.
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update",
]  # fmt: skip


@pytest.fixture(scope="module")
def browser():
    """Chromium, without a window."""
    try:
        from playwright.sync_api import Error, sync_playwright
    except ImportError:
        missing("playwright is not installed: pip install -r requirements.txt")
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    found = next(filter(None, map(shutil.which, names)), None)  # else playwright's own, if any
    with sync_playwright() as playwright:
        try:
            chromium = playwright.chromium.launch(executable_path=found, args=FLAGS)
        except Error as e:
            missing(f"no browser: apt-get install chromium ({str(e).splitlines()[0]})")
        yield chromium
        chromium.close()


@pytest.fixture(autouse=True)
def _random_state_is_kept():
    before = random_state()
    yield
    assert same(before, random_state()), (
        "the global random state was changed: draw from helpers.rng(seed) in tests, from "
        "runtime.generator in the package; where another library must draw, ask for the fixture "
        "`global_random`"
    )


@pytest.fixture
def cluster(tmp_path):
    """A Dask scheduler's address and its two workers, processes of their own."""
    scratch = tmp_path / "dask"
    scratch.mkdir()
    quiet = {"cwd": scratch, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    known = scratch / "scheduler.json"
    dask = [sys.executable, "-m", "distributed.cli.dask_scheduler"]
    scheduler = subprocess.Popen(
        [*dask, "--port", "0", "--no-dashboard", "--scheduler-file", str(known)], **quiet
    )
    workers = [
        subprocess.Popen(
            [sys.executable, "-m", "distributed.cli.dask_worker", "--scheduler-file", str(known),
             "--nthreads", "1", "--no-nanny", "--no-dashboard"],
            **quiet,
        )
        for _ in range(2)
    ]  # fmt: skip
    try:
        deadline = time.monotonic() + 60
        while not known.exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        yield json.loads(known.read_text())["address"], workers
    finally:
        for one in (*workers, scheduler):
            one.kill()
            one.wait()
