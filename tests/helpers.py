"""What several test files use; it imports nothing of the package."""

import contextlib
import os
from collections.abc import Iterator

import jaxtyping
import numpy as np
import pytest
import torch
from torch import Tensor, nn


def rng(seed: int = 0) -> torch.Generator:
    """A generator of the test's own: the global random state belongs to nobody here."""
    return torch.Generator().manual_seed(seed)


class Half(nn.Module):
    """Class 1 where the first input exceeds ½: the probability of each class is known."""

    def forward(self, x):
        first = x.flatten(1)[:, :1]
        return torch.cat([0.5 - first, first - 0.5], 1)


def random_state() -> list:
    """torch's global random state on every device, and NumPy's.

    Python's own is not watched: beartype draws from it to check the items of a list.
    """
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    _, keys, *rest = np.random.get_state()  # noqa: NPY002
    return [torch.get_rng_state(), *cuda, torch.from_numpy(keys.astype(np.int64)), rest]


def same(a, b) -> bool:
    """Whether two lists of random states are the same, bit for bit."""
    return len(a) == len(b) and all(
        torch.equal(s, t) if isinstance(s, Tensor) else s == t for s, t in zip(a, b, strict=True)
    )


@contextlib.contextmanager
def unchecked() -> Iterator[None]:
    """Without the type checker of the tests: the package's own messages, as its user gets them."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", before)


@contextlib.contextmanager
def untouched(model=None, *tensors: Tensor) -> Iterator[None]:
    """Fails if the body changes global random state, `model` (a module or not) or `tensors`.

    Of a module: the mode of each submodule, parameters and buffers, requires_grad and gradients.
    Of a tensor: its values, requires_grad and gradient.
    """
    module = model if isinstance(model, nn.Module) else nn.Module()
    state = random_state()
    modes = [(m, m.training) for m in module.modules()]
    watched = [*module.state_dict(keep_vars=True).values(), *module.parameters(), *tensors]
    before = [(t, t.detach().clone(), t.requires_grad, _copy(t.grad)) for t in watched]
    yield
    assert same(state, random_state()), "the global random state was changed"
    for m, mode in modes:
        assert m.training == mode, f"{type(m).__name__} was left in another mode"
    for t, value, flag, grad in before:
        assert torch.equal(t, value) or _same_with_nan(t, value), "a tensor was changed"
        assert t.requires_grad == flag, "requires_grad was changed"
        assert (t.grad is None) == (grad is None), "a gradient appeared or went away"
        assert grad is None or torch.equal(t.grad, grad), "a gradient was changed"


def _copy(grad: Tensor | None) -> Tensor | None:
    return None if grad is None else grad.clone()


def _same_with_nan(a: Tensor, b: Tensor) -> bool:
    return a.is_floating_point() and torch.equal(a.nan_to_num(7.0), b.nan_to_num(7.0))


def missing(what: str) -> None:
    """Skip, or fail where the run must be complete."""
    if os.environ.get("ROBCOURSE_REQUIRE_BROWSER") == "1":
        pytest.fail(what)
    pytest.skip(what)
