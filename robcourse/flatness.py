"""Chapter 10. Flatness is confidence: what holds within a radius is decided by the margin.

The curvature of cross-entropy in the weights of the last layer has a closed form,
Λ(p) ⊗ φφᵀ with Λ(p) = diag(p) − ppᵀ. The label is not in it: a confident answer is flat, right or
wrong. What the loss can gain when the features move has an exact bound too, and its radius tends
to the certificate of chapter 4 as the network is scaled up. Flatness was the margin.

The last layer is `weight` [k, d], logits W·φ + b; `features` [n, d] are what it gets. The bias b is
held fixed: curvature and sharpness are those of W alone.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from .runtime import frozen, generator, validate
from .threat import margin


def head_trace(
    weight: Float[Tensor, "k d"],
    features: Float[Tensor, "n d"],
    *,
    bias: Float[Tensor, " k"] | None = None,
) -> Float[Tensor, " n"]:
    """Tr H = (1 − Σ p_j²)·‖φ‖², the trace of the Hessian of each example's cross-entropy in W.

    1 − Σ p_j² is summed as Σ_{i≠j} p_i·p_j, from terms ≥ 0: nothing cancels where one class has
    nearly all of p. It becomes 0 only where the other probabilities lie below the smallest number
    of the dtype: beyond a margin of 87 to 104 in float32, 708 to 746 in float64.

    Raises:
        TypeError: `weight` or `bias` of another dtype than `features`, or not floating point.
        ValueError: shapes that do not go together, fewer than two classes, NaN.

    Source: Böhning (1992), for the Hessian.
    """
    p = F.softmax(_logits(weight, features, bias), 1)
    return _spread(p, 1 - torch.eye(len(weight)).to(p)) * features.square().sum(1)


def relative_sharpness(
    weight: Float[Tensor, "k d"],
    features: Float[Tensor, "n d"],
    *,
    bias: Float[Tensor, " k"] | None = None,
) -> Float[Tensor, " n"]:
    """‖W‖_F²·Tr H for each example: the same for W·c and φ/c, another for W + 1cᵀ.

    Adding one row c to all rows of W changes no probability and changes ‖W‖_F: compare networks
    after centring the rows, or by `full_sharpness`.

    Raises:
        TypeError, ValueError: as for `head_trace`.

    Source: a simplified form of the measure in Petzka et al., "Relative flatness and
    generalization" (NeurIPS 2021); the norm is squared.
    """
    return weight.square().sum() * head_trace(weight, features, bias=bias)


def full_sharpness(
    weight: Float[Tensor, "k d"],
    features: Float[Tensor, "n d"],
    *,
    bias: Float[Tensor, " k"] | None = None,
) -> Float[Tensor, " n"]:
    """Σ_{s,t} ⟨w_s, w_t⟩·Tr H_{st} = Tr(WᵀΛW)·‖φ‖²: at most `relative_sharpness`.

    The same for W·c and φ/c, and the same for W + 1cᵀ: Tr(WᵀΛW) = ½ Σ_{i,j} p_i·p_j·‖w_i − w_j‖².

    Raises:
        TypeError, ValueError: as for `head_trace`.

    Source: Petzka et al. (NeurIPS 2021).
    """
    p = F.softmax(_logits(weight, features, bias), 1)
    apart = torch.cdist(weight, weight, compute_mode="donot_use_mm_for_euclid_dist").square()
    return _spread(p, apart) / 2 * features.square().sum(1)


@dataclass(frozen=True)
class Trace:
    """An estimate of the trace of a Hessian.

    Attributes:
        value: unbiased.
        error: its standard error, from how the probes differ.
        products: how many Hessian-vector products it took.
    """

    value: float
    error: float
    products: int


@torch.enable_grad()
def trace(
    loss: Float[Tensor, ""],
    parameters: Sequence[Tensor],
    *,
    probes: int,
    sketch: int = 0,
    seed: int = 0,
) -> Trace:
    """The trace of the Hessian of `loss` in `parameters`: the mean of vᵀHv over random signs v.

    Its variance is 2(‖H‖_F² − Σ H_ii²)/probes. With a sketch it is Hutch++: an orthonormal basis Q
    of H·S, S so many random sign vectors, gives Tr(QᵀHQ) exactly, and the probes estimate the rest.
    Of a Hessian of rank below `sketch` nothing is left but rounding, unless the signs are unlucky.

    Args:
        loss: with its graph; the graph is kept.
        parameters: what to differentiate by; their gradients are not touched.
        probes: sign vectors, at least 2; a Hessian-vector product each.
        sketch: the columns of S; two Hessian-vector products each. Equal to `probes` in Hutch++.

    Raises:
        ValueError: no parameters, too few probes, a sketch wider than the parameters, a loss
            that has no graph.

    Source: Hutchinson, Commun. Stat. Simul. Comput. 18 (1989); Meyer, Musco, Musco & Woodruff,
    "Hutch++: optimal stochastic trace estimation" (SOSA 2021).
    """
    parameters = tuple(parameters)
    total = sum(p.numel() for p in parameters)
    if probes < 2:
        raise ValueError(f"probes is {probes}; expected at least 2: their spread is the error")
    if not total:
        raise ValueError("parameters is empty; expected tensors that the loss depends on")
    if not 0 <= sketch <= total:
        raise ValueError(f"sketch is {sketch}; expected 0 … {total}, the number of parameters")
    if not loss.requires_grad:
        raise ValueError("loss has no graph: was it made under no_grad, detached, or by .item()?")
    slopes = torch.autograd.grad(loss, parameters, create_graph=True, materialize_grads=True)
    slope = torch.cat([g.flatten() for g in slopes])
    gen = generator(seed, slope)

    def times(v: Tensor) -> Tensor:
        if not slope.requires_grad:  # the loss is linear
            return torch.zeros_like(v)
        rows = torch.autograd.grad(slope, parameters, v, retain_graph=True, materialize_grads=True)
        return torch.cat([r.flatten() for r in rows])

    def signs() -> Tensor:
        return torch.randint(2, slope.shape, generator=gen, device=slope.device).to(slope) * 2 - 1

    exact, basis = 0.0, slope.new_zeros(total, 0)
    if sketch:
        basis = torch.linalg.qr(torch.stack([times(signs()) for _ in range(sketch)], 1)).Q
        exact = sum((q @ times(q)).item() for q in basis.T)
    values = torch.empty(probes, dtype=torch.float64)
    for i in range(probes):
        v = signs()
        v = v - basis @ (basis.T @ v)
        values[i] = v @ times(v)
    error = values.std().item() / math.sqrt(probes)
    return Trace(exact + values.mean().item(), error, probes + 2 * sketch)


@torch.no_grad()
def loss_radius(
    weight: Float[Tensor, "k d"],
    features: Float[Tensor, "n d"],
    y: Int[Tensor, " n"],
    eps: float,
    *,
    lipschitz: float = 1.0,
    bias: Float[Tensor, " k"] | None = None,
) -> Float[Tensor, " n"]:
    """The ℓ2 radius of a closed ball on which each example's cross-entropy rises by at most eps.

    Where the features move by at most s, z_j − z_y grows by at most D_j·s, D_j = ‖w_j − w_y‖₂, so

        Δℓ ≤ log(p_y + Σ_{j≠y} p_j·exp(D_j·s)),

    which is eps where Σ_{j≠y} p_j·(exp(D_j·s) − 1) = exp(eps) − 1. That is solved by halving, in
    logarithms, and s/lipschitz is the radius. With two classes, and features that can move by
    lipschitz·r in every direction, no larger radius is right. If W and b are multiplied by c → ∞
    and the rows of W differ, it tends to min_j max(z_y − z_j, 0)/(D_j·lipschitz), the radius of
    chapter 4. It bounds the loss and not the label: of three classes the answer may change while
    the loss falls.

    Computed in float64 and rounded down, by more than its own rounding, which changes the radius by
    at most its relative size. It speaks of these features and of the layer in exact arithmetic.

    Args:
        weight, features: of the last layer; `bias` if it has one.
        y: the labels.
        eps: how much the loss may rise, > 0, in nats.
        lipschitz: the features move by at most this times what x moves, ℓ2 to ℓ2, anywhere in
            the ball, > 0. `lipschitz.product_bound` of the layers before is valid everywhere.

    Returns:
        The radius, in units of the input; infinite where every row of W equals w_y.

    Raises:
        TypeError: as for `head_trace`; labels that are no int64.
        ValueError: as for `head_trace`; eps or lipschitz that is not positive and finite; labels
            out of range.
    """
    for name, value in (("eps", eps), ("lipschitz", lipschitz)):
        if not 0 < value < math.inf:
            raise ValueError(f"{name} is {value}; expected a finite number > 0")
    _logits(weight, features, bias)
    validate(lambda f: F.linear(f, weight, bias), features, y, box=None)
    w, phi = weight.double(), features.double()
    b = w.new_zeros(len(w)) if bias is None else bias.double()
    logp = F.log_softmax(F.linear(phi, w, b), 1).scatter(1, y[:, None], -torch.inf)
    speed = (w[y][:, None] - w).norm(dim=2)  # [n, k], 0 for j = y
    goal = eps + math.log(-math.expm1(-eps))  # log(exp(eps) − 1)

    def rise(s: Tensor) -> Tensor:
        x = speed * s[:, None]
        return torch.logsumexp(logp + x + torch.log(-torch.expm1(-x)), 1)

    moves = speed > 0
    zero = torch.zeros_like(logp)
    each = torch.where(moves, torch.logaddexp(zero, goal - logp) / speed, torch.inf)
    high = each.amin(1)  # what class j alone allows
    low = torch.logaddexp(zero[:, 0], goal - logp.logsumexp(1)) / speed.amax(1)
    for _ in range(100):
        middle = torch.minimum(low + (high - low) / 2, high)
        below = rise(middle) <= goal
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    bulk = F.linear(phi.abs(), w.abs(), b.abs()).amax(1)  # the size of what the logits sum up
    room = 4e-15 * sum(w.shape) * (100 + bulk + eps)  # logarithms of floats are below 750
    radius = torch.where(moves.any(1), low / lipschitz * (1 - room).clamp_min(0), torch.inf)
    rounded = radius.to(features.dtype)
    return torch.where(rounded > radius, rounded.nextafter(torch.zeros_like(rounded)), rounded)


@dataclass(frozen=True)
class Trajectory:
    """What an attack passes through: each field is [t, n], a row an iterate, x first.

    Attributes:
        away: the ℓ2 distance from the first iterate.
        loss: cross-entropy with the true label, in nats.
        margin: of the true label.
        confidence: the largest probability.
        trace: `head_trace`.
        sharpness: `relative_sharpness`.
        logit_slope: ‖p − e_y‖₂, the gradient's length in the logits, below √2.
        slope: ‖∇_x loss‖₂, the gradient's length in the input.
    """

    away: Float[Tensor, "t n"]
    loss: Float[Tensor, "t n"]
    margin: Float[Tensor, "t n"]
    confidence: Float[Tensor, "t n"]
    trace: Float[Tensor, "t n"]
    sharpness: Float[Tensor, "t n"]
    logit_slope: Float[Tensor, "t n"]
    slope: Float[Tensor, "t n"]


@torch.enable_grad()
def trajectory(
    model: nn.Sequential, path: Float[Tensor, "t n *s"], y: Int[Tensor, " n"]
) -> Trajectory:
    """Loss, curvature and gradients at each iterate of a path, such as `attacks.pgd` keeps.

    The loss is log(1 + Σ_{j≠y} exp(z_j − z_y)), and 1 − p_y is Σ_{j≠y} p_j: at a confident right
    answer neither is rounded to 0 before its terms are.

    Args:
        model: a chain whose last layer is linear, in evaluation mode.
        path: the iterates, x first.
        y: the true labels.

    Raises:
        TypeError: the model is no chain that ends in nn.Linear.
        ValueError: a path of another shape or with NaN; what `runtime.validate` refuses.
    """
    if not (isinstance(model, nn.Sequential) and len(model) and isinstance(model[-1], nn.Linear)):
        raise TypeError("model is no nn.Sequential that ends in nn.Linear: which are its features?")
    if path.ndim < 3:
        raise ValueError(f"path is {tuple(path.shape)}; expected [t, n, ...], as pgd keeps it")
    validate(None, path.flatten(2).flatten(0, 1), box=None)
    validate(model, path[0], y, box=(path.min().item(), path.max().item()))
    with frozen(model):
        rows = [_measured(model, x, y, (x - path[0]).flatten(1).norm(dim=1)) for x in path]
    return Trajectory(*(torch.stack(column) for column in zip(*rows, strict=True)))


def basin_width(
    loss: Float[Tensor, "t n"], away: Float[Tensor, "t n"], *, rise: float
) -> Float[Tensor, " n"]:
    """How far each path is from its start where the loss first exceeds its first value by `rise`.

    Infinite where it never does: the path was too short to say.

    Args:
        loss, away: of a `Trajectory`.
        rise: in nats, > 0.

    Raises:
        ValueError: a rise that is not positive; another shape.
    """
    if not rise > 0:
        raise ValueError(f"rise is {rise}; expected a number > 0, in nats")
    if loss.shape != away.shape or loss.ndim != 2:
        raise ValueError(f"loss is {tuple(loss.shape)}, away {tuple(away.shape)}; expected [t, n]")
    out = loss - loss[0] > rise
    first = out.int().argmax(0, keepdim=True)
    return torch.where(out.any(0), away.gather(0, first)[0], torch.inf)


def _measured(model: nn.Sequential, x: Tensor, y: Tensor, away: Tensor) -> tuple[Tensor, ...]:
    """A row of each field of `Trajectory`."""
    head, true = model[-1], y[:, None]
    x = x.detach().clone().requires_grad_()
    features = model[:-1](x)
    logits = head(features)
    behind = logits.scatter(1, true, -torch.inf).logsumexp(1) - logits.gather(1, true)[:, 0]
    loss = -F.logsigmoid(-behind)
    (slope,) = torch.autograd.grad(loss.sum(), x)
    features, logits, weight = features.detach(), logits.detach(), head.weight.detach()
    p = F.softmax(logits, 1)
    others = p.scatter(1, true, 0)
    curvature = head_trace(weight, features, bias=head.bias)
    return (
        away,
        loss.detach(),
        margin(logits, y),
        p.amax(1),
        curvature,
        weight.square().sum() * curvature,
        (others.square().sum(1) + others.sum(1).square()).sqrt(),
        slope.flatten(1).norm(dim=1),
    )


def _spread(p: Tensor, apart: Tensor) -> Tensor:
    """Σ_{i,j} p_i·p_j·apart_ij, every term ≥ 0."""
    return (p @ apart * p).sum(1)


def _logits(weight: Tensor, features: Tensor, bias: Tensor | None) -> Tensor:
    """W·φ + b; what does not go together is refused."""
    shapes = f"weight is {tuple(weight.shape)}, features {tuple(features.shape)}"
    if weight.ndim != 2 or features.ndim != 2 or weight.shape[1] != features.shape[1]:
        raise ValueError(
            f"{shapes}; expected [k, d] and [n, d]: features are what the last layer gets, and "
            "weight is layer.weight, not its transpose"
        )
    if len(weight) < 2:
        raise ValueError(f"{shapes}; expected at least two classes, a row of weight each")
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"bias is {tuple(bias.shape)}; expected ({len(weight)},), one a class")
    given = [weight, features] + ([] if bias is None else [bias])
    kinds = {t.dtype for t in given}
    if len(kinds) > 1 or not features.is_floating_point():
        raise TypeError(f"weight, features and bias are of {kinds}; expected one float dtype")
    logits = F.linear(features, weight, bias)
    if not logits.isfinite().all():
        raise ValueError("a logit is NaN or infinite: weight, features or bias holds such a number")
    return logits
