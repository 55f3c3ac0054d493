"""Exact intervals for a share: how far k of n may be from the truth, and with what probability.

A count from a sample is no probability. The bounds of Clopper and Pearson hold for every n and
every true share, without an approximation; where k = n the lower one is α^(1/n), not 1.

Source: Clopper & Pearson, "The use of confidence or fiducial limits illustrated in the case of
the binomial", Biometrika 26 (1934).
"""

from collections.abc import Callable

import torch
from jaxtyping import Float64, Int
from scipy.special import betainccinv, betaincinv
from torch import Tensor


def clopper_pearson_lower(
    k: int | Int[Tensor, "..."], n: int | Int[Tensor, "..."], alpha: float
) -> Float64[Tensor, "..."]:
    """The one-sided lower bound of level 1 − α: above the true share with probability ≤ α.

    It is the α-quantile of Beta(k, n − k + 1), rounded down, and 0 where k = 0.

    Args:
        k: successes, 0 … n: a number or a tensor of any shape.
        n: trials, at least 1; `k` and `n` broadcast.
        alpha: in (0, 1).

    Returns:
        A float64 tensor of the common shape, on the device of `k` or `n`.

    Raises:
        TypeError: `k` or `n` is not made of integers.
        ValueError: k outside 0 … n, n < 1, alpha outside (0, 1).
    """
    k, n = _counts(k, n, alpha)
    bound = _beta(betaincinv, k.clamp_min(1), n - k + 1, alpha) * (1 - _ROUNDING)
    return torch.where(k > 0, bound, 0.0)


def clopper_pearson_upper(
    k: int | Int[Tensor, "..."], n: int | Int[Tensor, "..."], alpha: float
) -> Float64[Tensor, "..."]:
    """The one-sided upper bound of level 1 − α: below the true share with probability ≤ α.

    It is the (1 − α)-quantile of Beta(k + 1, n − k), rounded up, and 1 where k = n. Arguments and
    errors are those of `clopper_pearson_lower`.
    """
    k, n = _counts(k, n, alpha)
    bound = _beta(betainccinv, k + 1, (n - k).clamp_min(1), alpha) * (1 + _ROUNDING)
    return torch.where(k < n, bound.clamp_max(1), 1.0)


def clopper_pearson(
    k: int | Int[Tensor, "..."], n: int | Int[Tensor, "..."], alpha: float
) -> tuple[Float64[Tensor, "..."], Float64[Tensor, "..."]]:
    """The two-sided interval of level 1 − α: the pair (low, high), each with a tail of α/2.

    Arguments and errors are those of `clopper_pearson_lower`.
    """
    _counts(k, n, alpha)
    return clopper_pearson_lower(k, n, alpha / 2), clopper_pearson_upper(k, n, alpha / 2)


def text(k: int, n: int, *, alpha: float = 0.05) -> str:
    """A share as the book prints it: per cent, the interval of level 1 − α, and n.

    >>> text(172, 175)
    '98.3 % [95.1, 99.6] of 175'
    """
    low, high = clopper_pearson(k, n, alpha)
    return f"{100 * k / n:.1f} % [{100 * low:.1f}, {100 * high:.1f}] of {n}"


#: SciPy's quantiles are exact to about 1e-12 of their value; bounds are moved outward by more.
_ROUNDING = 1e-11


def _beta(quantile: Callable, a: Tensor, b: Tensor, alpha: float) -> Tensor:
    """A quantile of Beta(a, b), from below or from above, in float64."""
    value = quantile(a.double().cpu().numpy(), b.double().cpu().numpy(), alpha)
    return torch.as_tensor(value, dtype=torch.float64, device=a.device)


def _counts(k: int | Tensor, n: int | Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """`k` and `n` as int64 tensors of one shape, after they were looked at."""
    if not 0 < alpha < 1:
        raise ValueError(f"alpha is {alpha}; expected a probability strictly between 0 and 1")
    where = next((v.device for v in (k, n) if isinstance(v, Tensor)), None)
    pair = []
    for name, value in (("k", k), ("n", n)):
        t = torch.as_tensor(value, device=where)
        if t.is_floating_point() or t.is_complex() or t.dtype == torch.bool:
            raise TypeError(f"{name} is of {t.dtype}; expected whole counts, such as mask.sum()")
        pair.append(t.long())
    successes, trials = torch.broadcast_tensors(*pair)
    if (trials < 1).any():
        raise ValueError(f"n is {int(trials.min())}; expected at least 1 trial")
    if (successes < 0).any() or (successes > trials).any():
        at = ((successes < 0) | (successes > trials)).flatten().nonzero()[0]
        got, of = int(successes.flatten()[at]), int(trials.flatten()[at])
        raise ValueError(f"k is {got} of n = {of}; expected 0 ≤ k ≤ n")
    return successes, trials
