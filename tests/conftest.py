"""What holds for every test: repeatable examples, and no draw from the global random state.

The package is not imported here: jaxtyping's hook is installed after this file is read, and a
module that was imported before goes unchecked.
"""

import numpy as np
import pytest
import torch
from helpers import random_state, same
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


@pytest.fixture(autouse=True)
def _random_state_is_kept():
    before = random_state()
    yield
    assert same(before, random_state()), (
        "the global random state was changed: draw from helpers.rng(seed) in tests, from "
        "runtime.generator in the package; where another library must draw, ask for the fixture "
        "`global_random`"
    )
