"""Chapter 1. How far a point is from a linear rule, and what the worst change does to it: exactly.

A linear rule answers with the sign of w·x + b. For it distance, worst case and robust risk have
closed forms, and without a box one number decides them: the *dual* norm of w. Labels here are
signs, −1 or +1.
"""

import torch
from jaxtyping import Float, Num
from torch import Tensor

from .runtime import validate
from .threat import Threat, order


def distance(
    w: Float[Tensor, " d"], b: float | Float[Tensor, ""], x: Float[Tensor, " n *s"], norm: str
) -> Float[Tensor, " n"]:
    """The distance from each x to the hyperplane w·z + b = 0: |w·x + b| / ‖w‖_* (no box).

    Source: Mangasarian, "Arbitrary-norm separating plane", Oper. Res. Lett. 24 (1999).

    Raises:
        ValueError: an unknown norm, w = 0 (there is no hyperplane), another number of inputs, NaN.
    """
    validate(None, x.flatten(1) if isinstance(x, Tensor) and x.ndim > 2 else x, box=None)
    _weights(w, x)
    dual = torch.linalg.vector_norm(w, order(norm)[1])
    if dual == 0:
        raise ValueError("w is 0: the rule has no boundary to be distant from")
    return score(w, b, x).abs() / dual


def score(
    w: Float[Tensor, " d"], b: float | Float[Tensor, ""], x: Float[Tensor, " n *s"]
) -> Float[Tensor, " n"]:
    """w·x + b for each example."""
    return x.flatten(1) @ w + b


def worst_case(
    w: Float[Tensor, " d"], x: Float[Tensor, " n *s"], y: Num[Tensor, " n"], threat: Threat
) -> Float[Tensor, " n *s"]:
    """An allowed point at which y·(w·x) is least, exactly, also inside the box.

    Every coordinate moves in the direction −y·sign(w_i), at most to its wall. ℓ∞: by eps. ℓ2: by
    t·|w_i| with the one t that spends the budget. ℓ1: the largest |w_i| first, until eps is spent.

    Raises:
        ValueError: `y` is not of −1 and +1; or what `Threat.validate` refuses.
    """
    threat.validate(None, x)
    _weights(w, x)
    _signs(y, x)
    flat = x.flatten(1)
    away = -y[:, None].to(x.dtype) * w
    if threat.norm == "linf":
        low, high = threat.project(flat - threat.eps, flat), threat.project(flat + threat.eps, flat)
        return torch.where(away > 0, high, torch.where(away < 0, low, flat)).view_as(x)
    if threat.norm == "l2":
        # Far out along `away` the nearest allowed point is the extreme one, box or not.
        walls = 1.0 if threat.box is None else threat.box[1] - threat.box[0]
        exact, away = flat.double(), away.double()
        least = w[w != 0].abs().min().double() if w.any() else 1
        far = threat.project(exact + (walls + threat.eps) / least * away, exact)
        return far.to(x.dtype).view_as(x)
    return _spend(away, flat, threat).view_as(x)


def robust_risk(
    w: Float[Tensor, " d"],
    b: float | Float[Tensor, ""],
    x: Float[Tensor, " n *s"],
    y: Num[Tensor, " n"],
    threat: Threat,
) -> float:
    """The share of examples that some allowed change makes wrong: exact, with or without a box.

    A tie counts as wrong. Without a box it is the share with y(w·x + b) ≤ eps·‖w‖_*.
    """
    if threat.box is None:
        threat.validate(None, x)
        _weights(w, x)
        _signs(y, x)
        least = y * score(w, b, x) - threat.eps * threat.dual(w[None])
    else:
        least = y * score(w, b, worst_case(w, x, y, threat))
    return (~(least > 0)).double().mean().item()  # a NaN counts as wrong


def fit(
    x: Float[Tensor, " n *s"],
    y: Num[Tensor, " n"],
    threat: Threat,
    *,
    decay: float = 1e-3,
    steps: int = 3000,
) -> tuple[Float[Tensor, " d"], Float[Tensor, ""]]:
    """Adversarial training of a linear rule, exactly: returns (w, b).

    The worst loss over the ball is the loss at the worst point, so the inner maximum is free:

        min over w, b of  mean log(1 + exp(−(y(w·x + b) − eps·‖w‖_*))) + decay/2·‖w‖₂²

    a convex problem. The box is not used: with it the worst loss can only be smaller. Solved in
    float64 by Adam's steps along the subgradient, in closed form, with a rate that falls to 0.

    Source: Xu, Caramanis & Mannor, JMLR 10 (2009); Goodfellow, Shlens & Szegedy (2015), section 5.
    """
    threat.validate(None, x)
    _signs(y, x)
    rows, sign = x.detach().flatten(1).double(), y.double()
    signed = torch.cat([sign[:, None] * rows, sign[:, None]], 1)  # the last weight is b
    weights = rows.new_zeros(signed.shape[1])
    mean, square = torch.zeros_like(weights), torch.zeros_like(weights)
    dual = order(threat.norm)[1]
    for t in range(steps):
        w = weights[:-1]
        least = signed @ weights - threat.eps * torch.linalg.vector_norm(w, dual)
        pull = torch.sigmoid(-least) / len(rows)
        slope = -pull @ signed
        slope[:-1] += pull.sum() * threat.eps * threat.steepest(w[None])[0] + decay * w
        mean = 0.9 * mean + 0.1 * slope
        square = 0.999 * square + 0.001 * slope.square()
        size = (square / (1 - 0.999 ** (t + 1))).sqrt() + 1e-8
        weights = weights - 0.1 * (1 - t / steps) ** 2 * mean / (1 - 0.9 ** (t + 1)) / size
    return weights[:-1].to(x.dtype), weights[-1].to(x.dtype)


def _spend(away: Tensor, x: Tensor, threat: Threat) -> Tensor:
    """ℓ1: walk along the coordinates of `away`, largest first, each to its wall, for eps in all."""
    room = torch.full_like(x, threat.eps)
    if threat.box is not None:
        low, high = threat.box
        room = torch.where(away > 0, high - x, x - low)
    size, at = away.abs().sort(dim=1, descending=True)
    room = torch.where(size > 0, room.gather(1, at), 0)
    spent = room.cumsum(1) - room
    step = torch.minimum(room, (threat.eps - spent).clamp_min(0))
    moved = x + away.sign() * torch.zeros_like(x).scatter(1, at, step)
    return moved if threat.box is None else moved.clamp(*threat.box)


def _weights(w: Tensor, x: Tensor) -> None:
    if w.ndim != 1 or len(w) != x[0].numel():
        raise ValueError(
            f"w has shape {tuple(w.shape)}; each x has {x[0].numel()} inputs, so expected "
            f"({x[0].numel()},)"
        )
    if w.dtype != x.dtype:
        raise TypeError(f"w is {w.dtype}; x is {x.dtype}: use w.to(x)")
    if not w.isfinite().all():
        raise ValueError("w holds NaN or infinity")


def _signs(y: Tensor, x: Tensor) -> None:
    if not isinstance(y, Tensor):
        raise TypeError(f"y is {type(y).__name__}; expected a tensor [n] of signs")
    if y.shape != x.shape[:1]:
        raise ValueError(f"y has shape {tuple(y.shape)}; expected ({len(x)},), one an example")
    if not ((y == 1) | (y == -1)).all():
        raise ValueError(
            f"y holds {sorted(set(y.tolist()))[:4]}; linear rules take signs, −1 and +1: for "
            "classes 0 and 1 pass 2 * y - 1"
        )
