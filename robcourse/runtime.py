"""What every method shares and no chapter is about: device, profile, seeds, and checked input.

A number can only be trusted if what went in was what was meant. So every method that takes a
model and a batch calls `validate` first, runs inside `frozen`, and draws from `generator`: the
model, its gradients and the global random state are left as they were found.
"""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


def device() -> torch.device:
    """The device that notebooks put their tensors on: CUDA if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def profile() -> str:
    """`"quick"` (the default: embedded data, on a CPU) or `"full"`, from `ROBCOURSE_PROFILE`.

    Raises ValueError for any other value of the variable.
    """
    name = os.environ.get("ROBCOURSE_PROFILE", "quick")
    if name not in ("quick", "full"):
        raise ValueError(f"ROBCOURSE_PROFILE is {name!r}; allowed: 'quick', 'full'")
    return name


def generator(seed: int, x: Tensor) -> torch.Generator:
    """A generator of its own on the device of `x`, seeded with `seed`."""
    return torch.Generator(device=x.device).manual_seed(seed)


@contextlib.contextmanager
def frozen(model: Callable) -> Iterator[Callable]:
    """`model` in evaluation mode with parameters that take no gradient; as it was afterwards."""
    if not isinstance(model, nn.Module):
        yield model
        return
    modes = [(m, m.training) for m in model.modules()]
    flags = [(p, p.requires_grad) for p in model.parameters()]
    try:
        model.eval().requires_grad_(False)
        yield model
    finally:
        for module, mode in modes:
            module.training = mode
        for p, flag in flags:
            p.requires_grad_(flag)


def quiet() -> bool:
    """Whether progress bars are off: TQDM_DISABLE, which tqdm's bars in notebooks do not read."""
    return os.environ.get("TQDM_DISABLE", "") not in ("", "0")


def validate(
    model: Callable | None,
    x: Float[Tensor, " n *s"],
    y: Int[Tensor, " n"] | None = None,
    *,
    box: tuple[float, float] | None = (0.0, 1.0),
) -> None:
    """Refuse a batch that does not mean what it should; nothing is returned.

    Args:
        model: logits for a batch, `[n, *s] -> [n, k]`; None if there is none.
        x: examples, batch first, floating point, within `box`.
        y: labels, int64, one an example, in 0 … k − 1; None if there are none.
        box: the range of every input; None for unbounded inputs.

    Raises:
        TypeError: `x` or `y` is not a tensor of the right dtype.
        ValueError: anything else that is wrong; the message names it and the likely slip.
    """
    if not isinstance(x, Tensor) or not x.is_floating_point():
        got = f"a {x.dtype} tensor" if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(
            f"x is {got}; expected a floating-point tensor [n, ...]: use x.float() / 255"
        )
    if x.ndim < 2:
        raise ValueError(
            f"x has shape {tuple(x.shape)}; expected a batch [n, ...]: for one example use x[None]"
        )
    if x.numel() == 0:
        what = "each example" if len(x) else "the batch"
        raise ValueError(f"x has shape {tuple(x.shape)}: {what} is empty")
    low, high = x.detach().aminmax()  # carries NaN and infinity through, in one pass
    if not (low.isfinite() and high.isfinite()):
        bad = int((~x.flatten(1).isfinite()).any(1).sum())
        raise ValueError(f"x holds NaN or infinity in {bad} of {len(x)} examples")
    if box is not None:
        if low < box[0] or high > box[1]:  # as tensors: a wall is rounded as x was
            bytes_ = low >= box[0] and high > 2 * box[1]
            slip = "divide by 255" if bytes_ else "put normalisation inside the model"
            raise ValueError(
                f"x runs from {low.item():.4g} to {high.item():.4g}; the box is "
                f"[{box[0]:g}, {box[1]:g}]: {slip}, or give the threat the right box"
            )
    elif x.ndim == 4 and low >= 0 and high <= 1:
        _warn_pixels()
    if y is not None:
        _validate_labels(x, y)
    if model is not None:
        _validate_model(model, x, y)


def validate_layers(model: nn.Module, known: tuple[type, ...]) -> None:
    """Refuse a model that computes something else than the classes of its layers say.

    For what reads a network layer by layer. What is no instance of `known` is left to the caller.

    Raises:
        ValueError: hooks, or a layer of a known class with a forward of its own.
    """
    for name, layer in model.named_modules():
        if "parametrizations" in name.split("."):  # these make weights, and weights are read
            continue
        kind = type(layer)
        place = f"layer {name}: {kind.__name__}" if name else kind.__name__
        if layer._forward_hooks or layer._forward_pre_hooks:
            raise ValueError(f"{place} has hooks, which may change what it computes")
        own = "forward" in vars(layer) or kind.__call__ is not nn.Module.__call__
        if isinstance(layer, known) and (own or all(kind.forward is not k.forward for k in known)):
            raise ValueError(f"{place} has a forward of its own; its class says something else")


def _warn_pixels() -> None:
    import warnings

    warnings.warn(
        "threat.box is None, but x looks like images with pixels in [0, 1]: the attack may leave "
        "the pixel range. Use box=(0.0, 1.0), or flatten x if unbounded inputs are meant",
        stacklevel=5,  # who called the attack, which called Threat.validate
    )


def _validate_labels(x: Tensor, y: Tensor) -> None:
    if not isinstance(y, Tensor) or y.dtype != torch.int64:
        got = f"a {y.dtype} tensor" if isinstance(y, Tensor) else type(y).__name__
        raise TypeError(f"y is {got}; expected an int64 tensor [n] of labels: use y.long()")
    if y.shape != x.shape[:1]:
        raise ValueError(
            f"y has shape {tuple(y.shape)}; x has {len(x)} examples, so expected ({len(x)},)"
        )


def _validate_model(model: Callable, x: Tensor, y: Tensor | None) -> None:
    if isinstance(model, nn.Module) and any(m.training for m in model.modules()):
        raise ValueError(
            "the model is in training mode, where dropout and batch norm make its answers depend "
            "on chance and on the batch: call model.eval() first"
        )
    with frozen(model), torch.no_grad():
        logits = model(x[:1].clone())  # an inplace layer would write into it
    got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
    if len(got) != 2 or got[0] != 1 or got[1] < 2:
        raise ValueError(
            f"the model gave {got} for one example; expected logits [1, k] with k ≥ 2 classes"
        )
    if not logits.is_floating_point():
        raise ValueError(f"the model gave {logits.dtype}; expected floating-point logits")
    k = logits.shape[1]
    if y is not None and (y.min() < 0 or y.max() >= k):
        raise ValueError(
            f"y runs from {int(y.min())} to {int(y.max())}; the model has {k} classes, so labels "
            f"are 0 … {k - 1}"
        )


_TORCHVISION: list[torch.library.Library] = []


def torchvision():
    """The torchvision package, imported on first use.

    A CPU build of torch beside a CUDA build of torchvision (what PyPI serves to some machines)
    cannot load torchvision's compiled operators, and then *any* import of it fails with
    "operator torchvision::nms does not exist". Data sets, transforms and models need none of
    them. So, only after a plain import has failed in just this way, the two missing operators
    are declared and the import is tried again.
    """
    try:
        import torchvision
    except RuntimeError as error:
        if "torchvision::" not in str(error) or _TORCHVISION:
            raise
        for name in [n for n in sys.modules if n.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "FRAGMENT")
        library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _TORCHVISION.append(library)  # the declarations live as long as the library object
        import torchvision
    return torchvision
