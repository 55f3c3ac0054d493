"""Chapter 1. Attacks propose points; `threat.measure` judges them.

One step along the gradient is exact for a linear rule (FGSM); many small ones, each followed by
the projection back into what is allowed, are the attack for everything else (PGD).
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .runtime import frozen
from .threat import AttackResult, Threat, margin, measure


def fgsm(
    model: Callable,
    x: Float[Tensor, " n *s"],
    y: Int[Tensor, " n"],
    threat: Threat,
    *,
    loss: str = "ce",
) -> AttackResult:
    """The fast gradient sign method: one steepest step of size eps, cut off at the box.

    Exact for linear models in ℓ∞. In ℓ2 and ℓ1 the step is the steepest one of that norm.

    Source: Goodfellow, Shlens & Szegedy, "Explaining and Harnessing Adversarial Examples" (2015).
    """
    threat.validate(model, x, y)
    objective = _loss(loss)
    with frozen(model):
        _, g = _ascent(model, x, y, objective)
    x_adv = threat.project(x + threat.eps * threat.steepest(g), x)
    return measure(model, x_adv, x, y, threat)


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

    Source: Madry et al., "Towards Deep Learning Models Resistant to Adversarial Attacks" (2018).
    """
    threat.validate(model, x, y)
    objective = _loss(loss)
    step = 2.5 * threat.eps / steps if step is None else step
    best, least = x.clone(), torch.full((len(x),), torch.inf, device=x.device, dtype=x.dtype)
    with frozen(model):
        for restart in range(restarts):
            z = threat.sample(x, seed=seed + restart) if restart else x
            for _ in range(steps):
                z_logits, g = _ascent(model, z, y, objective)
                best, least = _keep(best, least, z, margin(z_logits, y))
                z = threat.project(z + step * threat.steepest(g), x)
            with torch.no_grad():
                best, least = _keep(best, least, z, margin(model(z), y))
    return measure(model, best, x, y, threat)


def _ascent(model, z, y, objective):
    with torch.enable_grad():
        z = z.detach().requires_grad_(True)
        logits = model(z)
        (g,) = torch.autograd.grad(objective(logits, y).sum(), z)
    return logits.detach(), g


def _keep(best, least, z, m):
    better = m < least
    return torch.where(better.view(-1, *[1] * (z.ndim - 1)), z, best), torch.where(better, m, least)


def _loss(name):
    if name == "ce":
        return lambda logits, y: torch.nn.functional.cross_entropy(logits, y, reduction="none")
    if name == "margin":
        return lambda logits, y: -margin(logits, y)
    raise ValueError(f"loss is {name!r}; allowed: 'ce', 'margin'")
