"""What every chapter's cases are made with: seeded draws, and tensors as plain numbers."""

import numpy as np
import torch
from torch import Tensor


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


def _mixed(seed: int, exercise: int) -> int:
    return (seed * 1009 + exercise) % 2**63
