"""Chapter 1. Attacks propose points; `threat.measure` judges them.

One step along the gradient is exact for a linear rule (FGSM); many small ones, none of which
leaves what is allowed, are the attack for everything else (PGD). APGD chooses its own step, and
`minimal` looks for the nearest wrong answer instead of the worst one in a ball. All of them only
find: what they do not find may still be there.

An attack follows `x.device` and `x.dtype`, leaves the model and the global random state as they
were, and with the same seed returns the same bits.
"""

import dataclasses
import math
from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .runtime import frozen, generator
from .threat import AttackResult, Threat, margin, measure, order

#: What an attack may climb: cross-entropy, minus the margin, minus the margin in units of the
#: logits' spread (the difference of logits ratio, Croce & Hein 2020).
LOSSES = ("ce", "margin", "dlr")


def fgsm(
    model: Callable,
    x: Float[Tensor, " n *s"],
    y: Int[Tensor, " n"],
    threat: Threat,
    *,
    loss: str = "ce",
) -> AttackResult:
    """The fast gradient method: the allowed point that is worst for the tangent of the loss at x.

    In ℓ∞ that is x + eps·sign(g), cut off at the box; in ℓ2 the far end of the ball along g, in
    ℓ1 the largest |g_i| first, each moved to its wall until eps is spent. So it is exact for
    linear models, in every norm, with and without a box. One forward and one backward pass.

    Args:
        model: logits `[n, *s] -> [n, k]`, in evaluation mode.
        x, y: the examples and their labels.
        threat: what is allowed; eps in units of x.
        loss: `"ce"`, `"margin"` or `"dlr"` (three classes or more).

    Raises:
        ValueError: an unknown loss; `"dlr"` with two classes; what `Threat.validate` refuses.

    Source: Goodfellow, Shlens & Szegedy, "Explaining and Harnessing Adversarial Examples" (2015).
    """
    threat.validate(model, x, y)
    x, objective = x.detach(), _objective(loss)
    with frozen(model):
        _, _, g = _ascent(model, x, y, objective)
    return measure(model, _extreme(threat, x, g), x, y, threat)


def pgd(
    model: Callable,
    x: Float[Tensor, " n *s"],
    y: Int[Tensor, " n"],
    threat: Threat,
    *,
    steps: int = 20,
    step: float | None = None,
    restarts: int = 1,
    loss: str = "ce",
    keep_path: bool = False,
    seed: int = 0,
) -> AttackResult:
    """Projected gradient ascent on a loss; of all points visited, the one with the least margin.

    The first restart begins at x, the others at `threat.sample`; what is broken is not attacked
    again. In ℓ∞ and ℓ2 a step is the steepest one, projected onto ball ∩ box. In ℓ1 the steepest
    step moves a single coordinate and stalls once that has met the box; there a step goes a
    length of `step` towards the vertex of ball ∩ box that is worst for the tangent, which spends
    the budget on the coordinates with most gradient that still have room (conditional gradient,
    Frank & Wolfe 1956; Chen et al., AAAI 2020). It needs no projection and is exact for linear
    models.

    Args:
        model, x, y, threat, loss: as for `fgsm`.
        steps: gradient steps in each restart; 1 or more.
        step: the length of a step in the threat's norm, in units of x; None: 2.5·eps/steps, in ℓ1
            7.5·eps/steps.
        restarts: independent runs; the best point of all is kept.
        keep_path: keep the iterates, x first, in `result.path`, `[steps + 1, n, *s]`.
        seed: of the random starts.

    Raises:
        ValueError: steps or restarts below 1; a step that is not positive; a path of more than
            one restart; what `fgsm` refuses.

    Source: Madry et al., "Towards Deep Learning Models Resistant to Adversarial Attacks" (2018).
    """
    threat.validate(model, x, y)
    x, objective = x.detach(), _objective(loss)
    _whole(steps=steps, restarts=restarts)
    if step is None:
        step = (7.5 if threat.norm == "l1" else 2.5) * threat.eps / steps
    elif not 0 < step < math.inf:
        raise ValueError(f"step is {step}; expected a length > 0 in units of the input, or None")
    if keep_path and restarts > 1:
        raise ValueError(f"keep_path is True with restarts={restarts}; a path needs restarts=1")
    path: list[Tensor] | None = [] if keep_path else None

    def climb(rows: Tensor, z: Tensor, run: int) -> tuple[Tensor, Tensor]:
        return _climb(model, x[rows], y[rows], z[rows], threat, objective, steps, step, path)

    with frozen(model):
        best = _best_of(climb, x, threat, restarts, seed)
    result = measure(model, best, x, y, threat)
    return result if path is None else dataclasses.replace(result, path=torch.stack(path))


def apgd(
    model: Callable,
    x: Float[Tensor, " n *s"],
    y: Int[Tensor, " n"],
    threat: Threat,
    *,
    steps: int = 100,
    restarts: int = 1,
    loss: str | None = None,
    targets: int = 0,
    seed: int = 0,
) -> AttackResult:
    """AutoPGD: projected gradient ascent with momentum that chooses its own step length.

    It starts with steps of 2·eps. At checkpoints that come closer and closer it halves the step
    of each example whose loss rose in fewer than three quarters of the steps, or whose best loss
    and step are those of the last checkpoint, and sends it back to its best point. In ℓ1 the
    step is that of `pgd`, without momentum (as in the ℓ1 form of Croce & Hein, "Mind the box",
    ICML 2021, whose sparse step is another).

    With `targets` > 0 it is APGD-T: one run for each of the likeliest wrong classes at x, towards
    that class.

    Args:
        model, x, y, threat: as for `fgsm`.
        steps: gradient steps in each run.
        restarts: runs (for each target); the very first starts at x, the others at
            `threat.sample`. What is broken is not attacked again.
        loss: `"ce"`, `"margin"` or `"dlr"`; None: `"ce"`, and with targets `"dlr"` (for fewer
            than four classes `"margin"`). With targets each has its targeted form.
        targets: how many wrong classes are aimed at, at most k − 1; 0: none.
        seed: of the random starts.

    Raises:
        ValueError: steps or restarts below 1, targets outside 0 … k − 1, `"dlr"` with fewer than
            three classes (targeted: four), or what `fgsm` refuses.

    Source: Croce & Hein, "Reliable evaluation of adversarial robustness with an ensemble of
    diverse parameter-free attacks" (ICML 2020).
    """
    threat.validate(model, x, y)
    x, _ = x.detach(), _objective(loss or "ce")
    _whole(steps=steps, restarts=restarts)
    with frozen(model):
        aims = _aims(model, x, y, targets)

        def climb(rows: Tensor, z: Tensor, run: int) -> tuple[Tensor, Tensor]:
            aim = aims[rows, run % targets] if targets else None
            objective = _objective(loss or "ce") if aim is None else _towards(aim, loss)
            return _auto(model, x[rows], y[rows], z[rows], threat, objective, steps)

        best = _best_of(climb, x, threat, restarts * max(targets, 1), seed)
    return measure(model, best, x, y, threat)


def minimal(
    model: Callable,
    x: Float[Tensor, " n *s"],
    y: Int[Tensor, " n"],
    norm: str,
    *,
    box: tuple[float, float] | None = (0.0, 1.0),
    steps: int = 200,
    seed: int = 0,
) -> AttackResult:
    """The nearest wrong answer that can be found: an upper bound on each example's distance.

    A point runs along the gradient inside a ball that shrinks while the answer is wrong and grows
    while it is right, so it settles where the decision boundary is nearest. Half of the steps
    climb minus the margin, from x; the other half cross-entropy, from a random point of the
    sphere that was reached; at last the line from x is bisected.

    The distances are `result.threat.size(result.x_adv - x)`: 0 for an example that is wrong
    already, and where nothing was found x_adv is x and `success` False, so write
    `torch.where(result.success, result.threat.size(result.x_adv - x), torch.inf)`.

    Args:
        model, x, y: as for `fgsm`.
        norm: `"l2"` or `"linf"`.
        box: the range of every coordinate; None for unbounded inputs.
        steps: forward and backward passes in all; 2 or more.
        seed: of the random points.

    Returns:
        A result whose threat has the widest eps that the box allows (without a box, the largest
        distance found), so that no point is refused for being far.

    Raises:
        ValueError: another norm, steps below 2, or what `Threat.validate` refuses.

    Source: after Pintor, Roli, Brendel & Biggio, "Fast Minimum-norm Adversarial Attacks through
    Adaptive Norm Constraints" (NeurIPS 2021); here steps are relative to the radius.
    """
    if norm not in ("l2", "linf"):
        raise ValueError(f"norm is {norm!r}; a minimal attack knows 'l2' and 'linf'")
    _whole(steps=steps)
    if steps < 2:
        raise ValueError(f"steps is {steps}; two halves need 2 or more")
    widest = 1.0 if box is None else (box[1] - box[0]) * x[0].numel() ** (1 / order(norm)[0])
    threat = Threat(norm, widest, box)
    threat.validate(model, x, y)
    x = x.detach()
    found = x, torch.full((len(x),), torch.inf, device=x.device, dtype=x.dtype)
    with frozen(model):
        found = _shrink(model, x, y, x, found, threat, _objective("margin"), steps // 2, 2.0)
        start = _on_sphere(x, found[1].nan_to_num(posinf=widest), threat, seed)
        half = steps - steps // 2
        found = _shrink(model, x, y, start, found, threat, _objective("ce"), half, 1.0)
        near = _bisect(model, x, y, found[0])
    if box is None:
        threat = threat.at(threat.size(near - x).max().item())
    return measure(model, near, x, y, threat)


def _aims(model: Callable, x: Tensor, y: Tensor, targets: int) -> Tensor:
    """The likeliest wrong classes at x, `[n, targets]`."""
    with torch.no_grad():
        logits = model(x).scatter(1, y[:, None], -torch.inf)
    if not isinstance(targets, int) or not 0 <= targets < logits.shape[1]:
        raise ValueError(
            f"targets is {targets!r}; the model has {logits.shape[1]} classes, so 0 (untargeted) "
            f"to {logits.shape[1] - 1} wrong ones can be aimed at"
        )
    return logits.argsort(1, descending=True)[:, :targets]


def _best_of(climb: Callable, x: Tensor, threat: Threat, runs: int, seed: int) -> Tensor:
    """The best point of several runs on what is not broken yet; the first starts at x."""
    best, least = x.clone(), torch.full((len(x),), torch.inf, device=x.device, dtype=x.dtype)
    for run in range(runs):
        rows = (least > 0).nonzero()[:, 0]
        if not len(rows):
            break
        # Far apart, so that neighbouring seeds share no start.
        z = threat.sample(x, seed=seed + 1_000_003 * run) if run else x
        found, m = climb(rows, z, run)
        better = m < least[rows]
        best[rows[better]], least[rows[better]] = found[better], m[better]
    return best


def _climb(model, x, y, z, threat, objective, steps, step, path):
    """PGD from z: the point with the least margin, and that margin."""
    move = _mover(threat, x)
    best, least = z.clone(), torch.full((len(x),), torch.inf, device=x.device, dtype=x.dtype)
    for _ in range(steps):
        _, m, g = _ascent(model, z, y, objective)
        best, least = _keep(best, least, z, m)
        if path is not None:
            path.append(z.clone())
        z = move(z, g, step, out=z)
    if path is not None:
        path.append(z.clone())
    _, m, _ = _ascent(model, z, y, objective, slope=False)
    return _keep(best, least, z, m)


def _auto(model, x, y, z, threat, objective, steps):
    """AutoPGD from z: the point with the least margin, and that margin."""
    move, checkpoints = _mover(threat, x), _checkpoints(steps)
    length = torch.full((len(x),), 2 * threat.eps, device=x.device, dtype=x.dtype)
    value, least, g = _ascent(model, z, y, objective)
    best, before = z.clone(), z
    top, top_value, top_g = z, value, g
    seen, halved, rises, last = value, torch.ones_like(value, dtype=torch.bool), 0, 0
    for k in range(1, steps + 1):
        ahead = move(z, g, _rows(length, x))
        if k > 1 and threat.norm != "l1":  # momentum would smear out steps that are sparse
            ahead = threat.project(z + 0.75 * (ahead - z) + 0.25 * (z - before), x)
        before, z, old = z, ahead, value
        value, m, g = _ascent(model, z, y, objective, slope=k < steps)
        best, least = _keep(best, least, z, m)
        rises = rises + (value > old)
        higher = value > top_value
        top, top_g = (_pick(higher, a, b) for a, b in ((z, top), (g, top_g)))
        top_value = torch.where(higher, value, top_value)
        if k in checkpoints:
            few, stuck = rises < 0.75 * (k - last), ~halved & (top_value <= seen)
            halved, seen, rises, last = few | stuck, top_value, 0, k
            length = torch.where(halved, length / 2, length)
            z, before, g = (_pick(halved, a, b) for a, b in ((top, z), (top, before), (top_g, g)))
            value = torch.where(halved, top_value, value)
    return best, least


def _shrink(model, x, y, z, found, threat, objective, steps, stride):
    """From z, inside a ball that follows the boundary: the nearest wrong points, their sizes."""
    near, least = found
    for k in range(steps):
        _, m, g = _ascent(model, z, y, objective)
        g = g.nan_to_num(nan=0.0)
        wrong, size = m <= 0, threat.size(z - x)
        closer = wrong & (size < least)
        near, least = _pick(closer, z, near), torch.where(closer, size, least)
        if k == 0:  # until an example is broken: the distance by the tangent, then ever more
            tangent = m.clamp_min(0) / threat.dual(g)
            radius = torch.where(least < torch.inf, least, tangent.nan_to_num(posinf=threat.eps))
        cooling = (1 + math.cos(math.pi * k / steps)) / 2
        rate = 0.001 + 0.049 * cooling
        shorter = torch.minimum(radius, least) * (1 - rate)
        longer = torch.where(
            least < torch.inf, torch.minimum(radius * (1 + rate), least), radius * 1.1
        )
        radius = torch.where(wrong, shorter, longer)
        step = _rows(stride * (0.01 + 0.99 * cooling) * radius, x)
        z = _into(z + step * threat.steepest(g), x, radius, threat)
    _, m, _ = _ascent(model, z, y, objective, slope=False)
    size = threat.size(z - x)
    closer = (m <= 0) & (size < least)
    return _pick(closer, z, near), torch.where(closer, size, least)


def _into(z: Tensor, x: Tensor, radius: Tensor, threat: Threat) -> Tensor:
    """z, moved into the ball of each example's own radius and then into the box."""
    delta, radius = z - x, _rows(radius, x)
    if threat.norm == "linf":
        delta = torch.minimum(torch.maximum(delta, -radius), radius)
    else:
        size = _rows(threat.size(delta), x).clamp_min(torch.finfo(x.dtype).tiny)
        delta = delta * (radius / size).clamp_max(1)
    return x + delta if threat.box is None else (x + delta).clamp(*threat.box)


def _on_sphere(x: Tensor, radius: Tensor, threat: Threat, seed: int) -> Tensor:
    """A random point at that distance from each x, moved into the box."""
    gen = generator(seed, x)
    if threat.norm == "linf":
        way = 2 * torch.rand(x.shape, generator=gen, device=x.device, dtype=x.dtype) - 1
    else:
        way = torch.randn(x.shape, generator=gen, device=x.device, dtype=x.dtype)
    return _into(x + way * _rows(radius / threat.size(way), x), x, radius, threat)


@torch.no_grad()
def _bisect(model, x, y, near):
    """The last wrong point on the way from `near` back to x, to a thousandth of the way."""
    low, high = x.new_zeros(len(x)), x.new_ones(len(x))
    for _ in range(10):
        middle = (low + high) / 2
        wrong = ~(margin(model(x + _rows(middle, x) * (near - x)), y) > 0)
        low, high = torch.where(wrong, low, middle), torch.where(wrong, middle, high)
    return _pick(high < 1, x + _rows(high, x) * (near - x), near)


def _checkpoints(steps: int) -> set[int]:
    """After which steps AutoPGD looks back: at 22 %, then ever sooner, down to every 6 %."""
    at, marks = [0.0, 0.22], set()
    while at[-1] <= 1:
        marks.add(math.ceil(round(at[-1] * steps, 6)))
        at.append(at[-1] + max(at[-1] - at[-2] - 0.03, 0.06))
    return marks


def _mover(threat: Threat, x: Tensor) -> Callable:
    """The step of a norm: (z, g, length) -> the next point, allowed around x.

    In ℓ∞ it can be written over `out`: fresh memory is what costs there.
    """
    if threat.norm == "linf":
        low, high = threat.project(x - threat.eps, x), threat.project(x + threat.eps, x)
        step = torch.empty_like(x)

        def move(z, g, length, out=None):
            torch.sign(g, out=step).mul_(length)  # the sign of NaN is 0
            return torch.add(z, step, out=out).clamp_(low, high)

    elif threat.norm == "l2":

        def move(z, g, length, out=None):
            return threat.project(z + length * threat.steepest(g.nan_to_num(nan=0.0)), x)

    else:

        def move(z, g, length, out=None):
            flat = (g.nan_to_num(nan=0.0) != 0).flatten(1).any(1)
            way = torch.where(_rows(flat, x), _extreme(threat, x, g) - z, 0)
            share = length / _rows(threat.size(way), x).clamp_min(torch.finfo(x.dtype).tiny)
            return threat.project(z + way * share.clamp_max(1), x)

    return move


def _extreme(threat: Threat, x: Tensor, g: Tensor) -> Tensor:
    """The allowed point with the largest ⟨g, z⟩; x where g = 0, and a NaN counts as 0."""
    g = g.nan_to_num(nan=0.0)
    if threat.norm == "linf":
        return threat.project(x + threat.eps * g.sign(), x)
    # The nearest allowed point to one far out along g; its rounding is 1e-6 of the largest entry.
    unit = g / _rows(g.flatten(1).abs().amax(1), x).clamp_min(torch.finfo(x.dtype).tiny)
    return threat.project(x + 1e6 * threat.eps * unit, x)


def _ascent(model, z, y, objective, *, slope=True):
    """The loss and the margin of each example at z, and the gradient of the loss."""
    with torch.set_grad_enabled(slope):
        z = z.detach().requires_grad_(slope)
        logits = model(z)
        value = objective(logits, y)
        g = torch.autograd.grad(value.sum(), z)[0] if slope else z
    m = margin(logits.detach(), y)
    return value.detach(), torch.where(m.isnan(), -torch.inf, m), g


def _objective(name: str) -> Callable:
    """A loss by its name: (logits, y) -> one number an example, to be climbed."""
    if name == "ce":
        return lambda logits, y: torch.nn.functional.cross_entropy(logits, y, reduction="none")
    if name == "margin":
        return lambda logits, y: -margin(logits, y)
    if name == "dlr":
        return _dlr
    raise ValueError(f"loss is {name!r}; allowed: {', '.join(map(repr, LOSSES))}")


def _dlr(logits: Tensor, y: Tensor) -> Tensor:
    top = _largest(logits, 3)
    return -margin(logits, y) / (top[:, 0] - top[:, 2] + 1e-12)


def _towards(aim: Tensor, name: str | None) -> Callable:
    """The targeted form of a loss: climbed, it leads from y to `aim`."""

    def loss(logits, y):
        if name == "ce":
            return -torch.nn.functional.cross_entropy(logits, aim, reduction="none")
        ahead = (logits.gather(1, aim[:, None]) - logits.gather(1, y[:, None]))[:, 0]
        if name == "margin" or (name is None and logits.shape[1] < 4):
            return ahead
        top = _largest(logits, 4)
        return ahead / (top[:, 0] - (top[:, 2] + top[:, 3]) / 2 + 1e-12)

    return loss


def _largest(logits: Tensor, count: int) -> Tensor:
    if logits.shape[1] < count:
        raise ValueError(
            f"loss is 'dlr', which here needs {count} classes or more; the model has "
            f"{logits.shape[1]}: use loss='margin'"
        )
    return logits.topk(count, dim=1).values


def _keep(best, least, z, m):
    """The better of two points, example by example; written over `best`, for speed."""
    better = m < least
    return torch.where(_rows(better, z), z, best, out=best), torch.where(better, m, least)


def _pick(rows: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """a in these rows, b in the others."""
    return torch.where(_rows(rows, a), a, b)


def _rows(values: Tensor, like: Tensor) -> Tensor:
    """One value an example, shaped to meet a batch like `like`."""
    return values.view(-1, *[1] * (like.ndim - 1))


def _whole(**counts: int) -> None:
    for name, value in counts.items():
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} is {value!r}; expected a whole number ≥ 1")
