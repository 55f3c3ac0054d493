"""What every chapter's cases are made with: seeded draws, and tensors as plain numbers."""

import numpy as np
import torch
from torch import Tensor

from . import Case


def generator(seed: int, exercise: int) -> torch.Generator:
    """PyTorch's draws for the cases of one exercise of a chapter."""
    return torch.Generator().manual_seed(_mixed(seed, exercise))


def numpy_generator(seed: int, exercise: int) -> np.random.Generator:
    """NumPy's draws for the cases of one exercise of a chapter."""
    return np.random.default_rng(_mixed(seed, exercise))


def arrays(*args) -> tuple:
    """Tensors as NumPy arrays: floating ones in float64, the others in their dtype."""
    turn = lambda a: a.double().numpy() if a.is_floating_point() else a.numpy()
    return tuple(turn(a) if isinstance(a, Tensor) else a for a in args)


def numbers(*args) -> tuple:
    """Tensors as NumPy arrays of float64, the rest as they are."""
    return tuple(a.double().numpy() if isinstance(a, Tensor) else a for a in args)


def tensor(values) -> Tensor:
    """Numbers as a tensor of float64."""
    return torch.tensor(np.asarray(values, float))


def until_distinct(draw, table, count, label, far) -> list[Case]:
    """`count` cases from `draw` whose slips can all be told apart.

    `table` gives of a case's numbers the right parts and the slips, each with its message. Slips
    with different messages must differ by `far` (of two flat arrays), and each from what is right.

    Raises:
        RuntimeError: 10 000 draws were not enough.
    """
    flat = lambda parts: np.hstack([np.ravel(p).astype(float) for p in parts])
    cases = []
    for _ in range(10_000):
        args = draw()
        want, slips = table(*arrays(*args))
        each = [(flat(parts), why) for parts, why in [*slips, (want, "right")]]
        pairs = ((a, b) for i, (a, x) in enumerate(each) for b, y in each[:i] if x != y)
        if all(far(a, b).any() for a, b in pairs):
            cases.append(Case(args, label))
        if len(cases) == count:
            return cases
    raise RuntimeError(f"{len(cases)} of {count} cases in 10 000 draws: {label}")


def _mixed(seed: int, exercise: int) -> int:
    return (seed * 1009 + exercise) % 2**63
