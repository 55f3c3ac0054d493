"""Chapter 11, used from chapter 1 on. An attack that sees answers only: no gradient to hide.

A defence that spoils gradients stops every attack of `attacks` without being robust. Random
search needs none: it changes a square of the image at random and keeps the change if the margin
fell.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .runtime import frozen, generator
from .threat import AttackResult, Threat, margin, measure

#: After these shares of the queries the area of the squares is halved (Andriushchenko et al.).
HALVINGS = (0.001, 0.005, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8)


def square(
    model: Callable,
    x: Float[Tensor, " n *s"],
    y: Int[Tensor, " n"],
    threat: Threat,
    *,
    queries: int = 5000,
    p_init: float = 0.8,
    seed: int = 0,
) -> AttackResult:
    """Square Attack: random search with squares that shrink, on the margin, without gradients.

    In ℓ∞ it starts from vertical stripes of ±eps and sets a square to ±eps, one sign a channel.
    In ℓ2 it starts from a chequerboard of bumps and moves the budget of one window to another,
    in the shape of two bumps of opposite sign. Inputs that are not images `[n, c, h, w]` are
    taken as one row of pixels, and squares are segments of it.

    Args:
        model: logits `[n, *s] -> [n, k]`, in evaluation mode; only its logits are used.
        x, y: the examples and their labels.
        threat: ℓ∞ or ℓ2.
        queries: how many points the model may see for each example, x included. An example that
            is broken is asked about no more.
        p_init: the share of the pixels in the first squares, in (0, 1].
        seed: of all random choices.

    Raises:
        ValueError: ℓ1; queries below 1; p_init outside (0, 1]; what `Threat.validate` refuses.

    Source: Andriushchenko, Croce, Flammarion & Hein, "Square Attack: a query-efficient black-box
    adversarial attack via random search" (ECCV 2020).
    """
    threat.validate(model, x, y)
    if threat.norm == "l1":
        raise ValueError("norm is 'l1'; square knows 'linf' and 'l2'")
    if not isinstance(queries, int) or queries < 1:
        raise ValueError(f"queries is {queries!r}; expected a whole number ≥ 1")
    if not 0 < p_init <= 1:
        raise ValueError(f"p_init is {p_init}; expected a share of the pixels in (0, 1]")
    gen = generator(seed, x)
    x = x.detach()
    images = x if x.ndim == 4 else x.reshape(len(x), 1, 1, -1)
    start, change = (_stripes, _paint) if threat.norm == "linf" else (_bumps, _move)
    with frozen(model), torch.no_grad():
        clean = _ask(model, x, y)
        best, least = images.clone(), clean.clone()
        for query in range(1, queries):
            rows = (least > 0).nonzero()[:, 0]
            if not len(rows):
                break
            if query == 1:
                delta = start(images, threat.eps, gen)[rows]
            else:
                area = p_init * 0.5 ** sum(query > share * queries for share in HALVINGS)
                sides = _sides(images.shape[2:], area, 1 if threat.norm == "linf" else 2)
                delta = change((best - images)[rows], len(images), rows, sides, threat.eps, gen)
            z = _allowed(images[rows], delta, threat)
            m = _ask(model, z.reshape(-1, *x.shape[1:]), y[rows])
            # The first point is the start, whatever x itself said: search goes on from there.
            better = m < (torch.inf if query == 1 else least[rows])
            best[rows[better]], least[rows[better]] = z[better], m[better]
        best[least > clean] = images[least > clean]
    return measure(model, best.reshape(x.shape), x, y, threat)


def _ask(model: Callable, z: Tensor, y: Tensor) -> Tensor:
    """The margin; −∞ where a logit is NaN, which counts as wrong."""
    m = margin(model(z), y)
    return torch.where(m.isnan(), -torch.inf, m)


def _allowed(x: Tensor, delta: Tensor, threat: Threat) -> Tensor:
    if threat.norm == "linf":
        return threat.project(x + delta, x)
    z = x + delta * (threat.eps / _norm(delta, (1, 2, 3)))  # all of the budget, then the box
    return z if threat.box is None else z.clamp(*threat.box)


def _sides(shape: tuple[int, ...], area: float, least: int) -> tuple[int, int]:
    """Height and width of a square with that share of the pixels; in one row, a segment.

    `least` is its side at least: two opposite bumps need two pixels.
    """
    h, w = shape
    side = max(least, round(area * w if h == 1 else (area * h * w) ** 0.5))
    return min(side, h), min(side, w)


def _stripes(x: Tensor, eps: float, gen: torch.Generator) -> Tensor:
    return eps * _signs((len(x), x.shape[1], 1, x.shape[3]), x, gen).expand_as(x)


def _paint(delta, n, rows, sides, eps, gen):
    """ℓ∞: a square of each image gets eps times one sign a channel."""
    at = _window(delta, n, rows, sides, gen)
    delta = delta.clone()
    delta[at] = eps * _signs((n, delta.shape[1], 1, 1), delta, gen)[rows]
    return delta


def _bumps(x: Tensor, eps: float, gen: torch.Generator) -> Tensor:
    """ℓ2: tiles of a fifth of the image, each a bump with a sign of its own a channel."""
    n, c, h, w = x.shape
    a, b = max(1, h // 5), max(1, w // 5)
    signs = _signs((n, c, -(-h // a), -(-w // b)), x, gen)
    tiles = signs.repeat_interleave(a, 2).repeat_interleave(b, 3)
    return tiles[:, :, :h, :w] * _bump(a, b, x).repeat(-(-h // a), -(-w // b))[:h, :w]


def _move(delta, n, rows, sides, eps, gen):
    """ℓ2: one window gives its budget, and what is unspent, to another, as two opposite bumps."""
    here, there = (_window(delta, n, rows, sides, gen) for _ in range(2))
    shape = _pair(*sides, delta)
    if sides[0] == sides[1] and torch.rand((), generator=gen, device=delta.device) < 0.5:
        shape = shape.T
    signs = _signs((n, delta.shape[1], 1, 1), delta, gen)[rows]
    emptied = delta.clone()
    emptied[here], emptied[there] = 0, 0
    spare = (eps**2 - delta.square().sum((1, 2, 3), keepdim=True)).clamp_min(0) / delta.shape[1]
    freed = (delta - emptied).square().sum((2, 3), keepdim=True)
    new = signs * shape + delta[here] / _norm(delta[here], (2, 3))
    emptied[here] = new / _norm(new, (2, 3)) * (spare + freed).sqrt()
    return emptied


def _window(delta, n, rows, sides, gen):
    """Indices of one window an image; drawn for all n, so that a row's draws are its own."""
    corner = torch.rand(2, n, generator=gen, device=delta.device)[:, rows]
    (h, w), (a, b) = delta.shape[2:], sides
    top, left = (corner[0] * (h - a + 1)).long(), (corner[1] * (w - b + 1)).long()
    i = torch.arange(len(rows), device=delta.device).view(-1, 1, 1, 1)
    j = torch.arange(delta.shape[1], device=delta.device).view(1, -1, 1, 1)
    down = top.view(-1, 1, 1, 1) + torch.arange(a, device=delta.device).view(1, 1, -1, 1)
    right = left.view(-1, 1, 1, 1) + torch.arange(b, device=delta.device).view(1, 1, 1, -1)
    return i, j, down, right


def _pair(h: int, w: int, like: Tensor) -> Tensor:
    """Two bumps of opposite sign, one above (in one row: before) the other, of norm 1."""
    if h == 1:
        halves = _bump(1, w // 2, like), -_bump(1, w - w // 2, like)
        both = torch.cat(halves, 1)
    else:
        both = torch.cat((_bump(h // 2, w, like), -_bump(h - h // 2, w, like)), 0)
    return both / _norm(both, (0, 1))


def _bump(h: int, w: int, like: Tensor) -> Tensor:
    """Nested rectangles: at r rings from the middle, the sum of 1/(k + 1)² over k ≥ r."""
    middle = [(torch.arange(s, device=like.device) - s // 2).abs() for s in (h, w)]
    ring = torch.maximum(middle[0][:, None], middle[1][None, :])
    rings = torch.arange(1, max(h, w) + 2, device=like.device, dtype=like.dtype) ** -2
    return rings.flip(0).cumsum(0).flip(0)[ring]


def _signs(shape: tuple[int, ...], like: Tensor, gen: torch.Generator) -> Tensor:
    coins = torch.randint(0, 2, shape, generator=gen, device=like.device)
    return (2 * coins - 1).to(like.dtype)


def _norm(t: Tensor, dims: tuple[int, ...]) -> Tensor:
    """The ℓ2 norm over these dimensions, kept; at least a tiny number, to divide by."""
    return t.square().sum(dims, keepdim=True).sqrt().clamp_min(torch.finfo(t.dtype).tiny)
