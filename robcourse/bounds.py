"""Interval bounds: how far each logit can move while the input moves within the threat.

Every layer maps a box of inputs to a box that holds all its outputs. That is sound and loose, and
loose above all because a box forgets which of its corners go together.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from .models import Normalize
from .threat import Threat


@dataclass(frozen=True)
class Bounds:
    """Of the logits over the threat around each example: lower ≤ logits ≤ upper."""

    lower: Float[Tensor, "n k"]
    upper: Float[Tensor, "n k"]


def ibp(model: nn.Sequential, x: Float[Tensor, " n *s"], threat: Threat) -> Bounds:
    """Interval bound propagation through a chain of layers, the box respected.

    Differentiable in the weights. In float32 as computed: not rounded outward.

    Raises:
        ValueError: a norm other than ℓ∞, or a layer that has no rule here.

    Source: Gowal et al., ICCV 2019, section 3.
    """
    center, radius = _through(list(model), *_box(x, threat))
    return Bounds(center - radius, center + radius)


def ibp_margins(
    model: nn.Sequential, x: Float[Tensor, " n *s"], y: Int[Tensor, " n"], threat: Threat
) -> Float[Tensor, "n k"]:
    """Lower bounds of logit_y − logit_j for each class j; 0 for j = y.

    The last linear layer is folded into the differences, which is tighter than subtracting bounds.
    """
    *body, last = model
    if not isinstance(last, nn.Linear):
        raise ValueError(f"the last layer is {type(last).__name__}; expected Linear")
    center, radius = _through(body, *_box(x, threat))
    weight = last.weight[y][:, None] - last.weight[None]  # [n, k, features]
    low = torch.einsum("nkd,nd->nk", weight, center)
    low = low - torch.einsum("nkd,nd->nk", weight.abs(), radius)
    if last.bias is not None:
        low = low + last.bias[y][:, None] - last.bias
    return low.scatter(1, y[:, None], 0.0)


def _box(x: Tensor, threat: Threat) -> tuple[Tensor, Tensor]:
    if threat.norm != "linf":
        raise ValueError(f"threat.norm is {threat.norm!r}; interval bounds take 'linf'")
    low, high = x - threat.eps, x + threat.eps
    if threat.box is not None:
        low, high = low.clamp(*threat.box), high.clamp(*threat.box)
    return (low + high) / 2, (high - low) / 2


def _through(layers: list[nn.Module], center: Tensor, radius: Tensor) -> tuple[Tensor, Tensor]:
    for layer in layers:
        match layer:
            case Normalize():
                center, radius = layer(center), radius / layer.std
            case nn.Flatten():
                center, radius = layer(center), layer(radius)
            case nn.Linear():
                center, radius = layer(center), F.linear(radius, layer.weight.abs())
            case nn.Conv2d():
                spread = F.conv2d(
                    radius, layer.weight.abs(), None, layer.stride, layer.padding,
                    layer.dilation, layer.groups,
                )  # fmt: skip
                center, radius = layer(center), spread
            case nn.BatchNorm2d() if not layer.training:
                scale = layer.weight / torch.sqrt(layer.running_var + layer.eps)
                center, radius = layer(center), radius * scale.abs()[:, None, None]
            case nn.ReLU():
                low, high = (center - radius).relu(), (center + radius).relu()
                center, radius = (low + high) / 2, (high - low) / 2
            case _:
                raise ValueError(
                    f"there is no interval rule for {type(layer).__name__}"
                    + (" in training mode" if layer.training else "")
                )
    return center, radius
