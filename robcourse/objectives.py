"""Objectives: what a method of training changes, and all that it changes.

An objective is called as (model, x, y) -> a scalar loss, with the model in training mode. It has
two steps, which a method that moves the weights calls apart: `propose` makes the points to train
on (the images themselves, noisy ones, attacked ones), and `loss` is the loss there. Those whose
weights change over a run have `at(progress)`, which `training.fit` asks before every batch.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from . import bounds
from .runtime import frozen
from .threat import Threat


class Objective:
    """(model, x, y) -> a scalar: the loss of a batch."""

    def propose(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        """The points to train on."""
        return x

    def loss(self, model: nn.Module, x: Tensor, z: Tensor, y: Tensor) -> Tensor:
        """The loss at the proposed points z."""
        return F.cross_entropy(model(z), y)

    def __call__(
        self, model: nn.Module, x: Float[Tensor, " n *s"], y: Int[Tensor, " n"]
    ) -> Float[Tensor, ""]:
        return self.loss(model, x, self.propose(model, x, y), y)


@dataclass(frozen=True)
class standard(Objective):
    """The cross-entropy of the batch: training as if nobody attacked."""


@dataclass(frozen=True)
class noise(Objective):
    """Cross-entropy at x + N(0, sigma²), not clamped, so that it is the noise of smoothing.

    Source: Cohen, Rosenfeld & Kolter, ICML 2019, section 3.3.
    """

    sigma: float

    def propose(self, model, x, y):
        """Draws from the global generator, which `training.fit` sets."""
        return x + self.sigma * torch.randn_like(x)


@dataclass(frozen=True)
class adversarial(Objective):
    """Cross-entropy at the points that PGD finds from a random start in the threat.

    With steps=2 or 3 it is the fast form: Wong, Rice & Kolter, ICLR 2020. The attack sees the
    network in evaluation mode. `step` is 2.5·eps/steps unless it is given, but at most eps.

    Source: Madry et al., ICLR 2018, equation (2.1).
    """

    threat: Threat
    steps: int = 10
    step: float | None = None

    def propose(self, model, x, y):
        """Up the cross-entropy."""
        up = lambda logits: F.cross_entropy(logits, y, reduction="sum")
        return ascend(model, x, _start(x, self.threat), self.threat, up, self.steps, self.step)


@dataclass(frozen=True)
class trades(Objective):
    """CE(f(x), y) + beta · KL(f(x) ‖ f(z)), z the point of the threat where that KL is largest.

    The attack starts beside x, since at x the divergence has no slope, and knows no label.

    Source: Zhang et al., ICML 2019, equation (5) and its published code.
    """

    threat: Threat
    beta: float
    steps: int = 10
    step: float | None = None

    def propose(self, model, x, y):
        """Up the divergence."""
        with frozen(model), torch.no_grad():
            clean = model(x).softmax(1)
        up = lambda logits: F.kl_div(logits.log_softmax(1), clean, reduction="sum")
        start = self.threat.project(x + 1e-3 * torch.randn_like(x), x)
        return ascend(model, x, start, self.threat, up, self.steps, self.step)

    def loss(self, model, x, z, y):
        """Clean and moved points in two passes, as each has its own batch statistics."""
        clean, moved = model(x), model(z)
        divergence = F.kl_div(moved.log_softmax(1), clean.softmax(1), reduction="batchmean")
        return F.cross_entropy(clean, y) + self.beta * divergence


@dataclass(frozen=True)
class sam(Objective):
    """The loss of `base` at w + e, where e = rho · g / ‖g‖₂ and g is its gradient at w.

    Source: Foret et al., ICLR 2021, equations (2) and (3). The gradient is taken at w + e and
    handed to w, as there; batch statistics follow the pass at w alone.
    """

    rho: float
    base: Objective = standard()

    def propose(self, model, x, y):
        """What the base proposes."""
        return self.base.propose(model, x, y)

    def loss(self, model, x, z, y):
        """By one more pass, with the weights moved."""
        return _uphill(self.base, model, x, z, y, lambda ws, gs: _whole(gs, self.rho))


@dataclass(frozen=True)
class awp(Objective):
    """The loss of `base` at w + v, where each layer's v is gamma · ‖w‖ · g / ‖g‖, on one proposal.

    Vectors (biases, batch norm) stay. One step of ascent, as in the published code.

    Source: Wu, Xia & Wang, NeurIPS 2020, equations (7) to (10).
    """

    gamma: float
    base: Objective

    def propose(self, model, x, y):
        """What the base proposes at w."""
        return self.base.propose(model, x, y)

    def loss(self, model, x, z, y):
        """By one more pass, with the weights moved."""
        return _uphill(self.base, model, x, z, y, lambda ws, gs: _by_layer(ws, gs, self.gamma))


@dataclass(frozen=True)
class ibp(Objective):
    """kappa · CE(f(x), y) + (1 − kappa) · CE(worst logits by interval bounds, y).

    Up to `begin` (a share of the run) eps is 0 and kappa 1; up to `end` eps rises to the threat's
    and kappa falls to `kappa`, both linearly. The last layer is folded into the differences of
    logits, as in the paper.

    Source: Gowal et al., ICCV 2019, equations (11) to (13) and section 4.
    """

    threat: Threat
    kappa: float = 0.5
    begin: float = 0.05
    end: float = 0.5

    def at(self, progress: float) -> "ibp":
        """The objective at a share of the run."""
        t = min(max((progress - self.begin) / (self.end - self.begin), 0.0), 1.0)
        kappa, eps = 1 - (1 - self.kappa) * t, self.threat.eps * t
        return dataclasses.replace(self, threat=self.threat.at(eps), kappa=kappa)

    def loss(self, model, x, z, y):
        """Clean and worst, in this proportion."""
        clean = F.cross_entropy(model(x), y)
        if self.threat.eps == 0:
            return clean
        worst = -bounds.ibp_margins(model, x, y, self.threat)
        return self.kappa * clean + (1 - self.kappa) * F.cross_entropy(worst, y)


@dataclass(frozen=True)
class hinge(Objective):
    """For 1-Lipschitz networks: what is missing to a certified ℓ2 radius, mean over the classes.

    (1/k) Σ over j ≠ y of max(0, √2·radius − (f_y − f_j)), since the difference of two logits of a
    1-Lipschitz network is √2-Lipschitz.

    Source: Weston & Watkins, ESANN 1999; for these networks Anil, Lucas & Grosse, ICML 2019.
    """

    radius: float

    def loss(self, model, x, z, y):
        """Torch's multi-class hinge."""
        return F.multi_margin_loss(model(z), y, margin=2**0.5 * self.radius)


@dataclass(frozen=True)
class tempered(Objective):
    """For 1-Lipschitz networks: cross-entropy of (logits − √2·radius at the label)/temperature.

    Times the temperature t, so that for t → 0 it becomes what is missing of the worst class to a
    certified ℓ2 radius, max(0, √2·radius − min over j of (f_y − f_j)). A large t asks all examples
    for more margin, at the cost of those near the boundary. With radius 0 it is plain
    cross-entropy of scaled logits, which no constraint on the weights can do for itself.

    Source: Prach & Lampert, "Almost-orthogonal layers …", ECCV 2022 (offset and temperature).
    """

    temperature: float
    radius: float = 0.0

    def loss(self, model, x, z, y):
        """The label's logit is handicapped first."""
        logits = model(z)
        handicap = 2**0.5 * self.radius * F.one_hot(y, logits.shape[1]).to(logits)
        t = self.temperature
        return t * F.cross_entropy((logits - handicap) / t, y)


def ascend(
    model: nn.Module,
    x: Tensor,
    start: Tensor,
    threat: Threat,
    value: Callable[[Tensor], Tensor],
    steps: int,
    step: float | None,
) -> Tensor:
    """The last point of projected gradient ascent on value(logits): no judge, no restart.

    For training, where speed counts; to measure a network use `attacks`.
    """
    size = min(2.5 * threat.eps / steps, threat.eps) if step is None else step
    z = start
    with frozen(model), torch.enable_grad():
        for _ in range(steps):
            z = z.detach().requires_grad_()
            (slope,) = torch.autograd.grad(value(model(z)), z)
            z = threat.project(z.detach() + size * threat.steepest(slope), x)
    return z.detach()


def _start(x: Tensor, threat: Threat) -> Tensor:
    """A random point of the threat, drawn after the global generator."""
    return threat.sample(x, seed=int(torch.randint(2**31, ())))


def _uphill(base: Objective, model: nn.Module, x, z, y, move) -> Tensor:
    """The loss of `base` at moved weights, whose gradient goes to the weights as they are."""
    weights = {k: p for k, p in model.named_parameters() if p.requires_grad}
    slopes = torch.autograd.grad(base.loss(model, x, z, y), list(weights.values()))
    steps = move([w.detach() for w in weights.values()], slopes)
    moved = {k: w + e for (k, w), e in zip(weights.items(), steps, strict=True)}

    class Moved(nn.Module):
        def forward(self, inputs):
            return torch.func.functional_call(model, moved, (inputs,))

    with _statistics_kept(model):
        return base.loss(Moved(), x, z, y)


def _whole(slopes, rho: float) -> list[Tensor]:
    size = torch.sqrt(sum(g.square().sum() for g in slopes)).clamp_min(1e-12)
    return [rho * g / size for g in slopes]


def _by_layer(weights, slopes, gamma: float) -> list[Tensor]:
    scale = lambda w, g: gamma * w.norm() / g.norm().clamp_min(1e-12)
    return [
        scale(w, g) * g if w.ndim > 1 else torch.zeros_like(w)
        for w, g in zip(weights, slopes, strict=True)
    ]


@contextlib.contextmanager
def _statistics_kept(model: nn.Module) -> Iterator[None]:
    """Inside, batch norm normalises by the batch and remembers nothing of it."""
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    before = [(m.momentum, m.num_batches_tracked.clone()) for m in norms]
    for m in norms:
        m.momentum = 0.0
    try:
        yield
    finally:
        for m, (momentum, seen) in zip(norms, before, strict=True):
            m.momentum = momentum
            m.num_batches_tracked.copy_(seen)
