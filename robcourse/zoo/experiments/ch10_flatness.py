"""Chapter 10: loss, curvature and gradients along attacks, on larger images."""

import copy
import math
from collections.abc import Callable

import numpy as np
import torch
from scipy.stats import rankdata
from torch import Tensor, nn

from robcourse import attacks, data, flatness, lipschitz, orthogonal
from robcourse.flatness import head_trace
from robcourse.runtime import frozen
from robcourse.threat import Threat, margin
from robcourse.zoo import load

#: What section 6.1 multiplies the last layer by.
SCALES = (0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 50.0)
#: The rise of the loss, in nats, that ends a basin.
RISE = 0.1
#: The budget of section 6.2 and appendix D, and its step.
LEVEL = 1 / 255
LINF = Threat("linf", 8 * LEVEL)


def basins(n: int = 1000) -> dict:
    """Chapter 10: how far the loss stays flat along ℓ2 attacks, and what tells it beforehand."""
    return {
        "scales": list(SCALES),
        "rise": RISE,
        "step": "eps / steps; the paths follow the loss of scale 1",
        "weak": {"cifar10-standard": _basins("cifar10-standard", 0.025, 25, n)},
        "strong": {
            name: _basins(name, 0.5, 50, n)
            for name in ("cifar10-standard", "cifar10-linf", "cifar10-sam", "cifar10-awp")
        },
        "far": {"cifar10-linf": _basins("cifar10-linf", 2.0, 50, n)},
        "slow": {"fashion-lipschitz": _basins("fashion-lipschitz", 1.0, 50, n)},
    }


def valley(n: int = 1000) -> dict:
    """Chapter 10: loss, curvature, confidence and gradients along ℓ∞ attacks."""
    grey = Threat("linf", 0.1)
    return {
        "quartiles": [0.25, 0.5, 0.75],
        "paper": {"cifar10-standard": _valley("cifar10-standard", LINF, 10, 2 * LEVEL, n)},
        "fine": {
            **{name: _valley(name, LINF, 20, LEVEL, n)
               for name in ("cifar10-standard", "cifar10-linf", "cifar10-sam", "cifar10-awp")},
            **{name: _valley(name, grey, 20, grey.eps / 8, n)
               for name in ("fashion-standard", "fashion-linf")},
        },
    }  # fmt: skip


def masking(n: int = 1000, few: int = 200) -> dict:
    """Chapter 10: what three attacks find when the last layer is multiplied."""
    scales, names = (1.0, 10.0, 100.0, 1000.0), ("cifar10-standard", "cifar10-linf")
    return {
        "threat": repr(LINF),
        "attack": "PGD, 10 steps of 2/255 from x",
        "scales": list(scales),
        "networks": {name: _masking(name, scales, n, few) for name in names},
    }


def layers(groups: int = 10, size: int = 10, probes: int = 12) -> dict:
    """Chapter 10: relative sharpness of earlier layers along an attack, by Hutchinson."""
    model, x, y, origin = network("cifar10-standard", groups * size)
    path = attack_path(model, x, y, LINF, 10, 2 * LEVEL)
    exact = copy.deepcopy(model).double().requires_grad_()
    chosen = [m for m in exact if isinstance(m, nn.Conv2d | nn.Linear)][-5:][::-1]
    sharp = torch.zeros(len(chosen), len(path), groups, dtype=torch.float64)
    closed = torch.zeros(len(path), groups, dtype=torch.float64)
    weight, bias = chosen[0].weight.detach(), chosen[0].bias.detach()
    for t, points in enumerate(path.double()):
        for g, some in enumerate(points.split(size)):
            label = y[g * size : (g + 1) * size]
            loss = nn.functional.cross_entropy(exact(some), label)
            for i, layer in enumerate(chosen):
                found = flatness.trace(loss, [layer.weight], probes=probes, seed=t * groups + g)
                sharp[i, t, g] = layer.weight.detach().square().sum() * found.value
            with torch.no_grad():
                at = head_trace(weight, exact[:-1](some), bias=bias).mean()
            closed[t, g] = weight.square().sum() * at
    return {
        **origin,
        "threat": repr(LINF),
        "attack": "PGD on cross-entropy, 10 steps of 2/255 from x",
        "n": groups * size,
        "probes": probes,
        "arithmetic": "float64",
        "layers": ["l", "l-1", "l-2", "l-3", "l-4"],
        "shapes": [list(layer.weight.shape) for layer in chosen],
        "norm_squared": [short(layer.weight.detach().square().sum()) for layer in chosen],
        "groups": groups,
        "mean": short(sharp.mean(2)),
        "standard_error": short(sharp.std(2) / math.sqrt(groups)),
        "closed_form_of_l": short(closed.mean(1)),
        "wrong": [int((margin(model(p), y) <= 0).sum()) for p in path],
    }


def network(name: str, n: int) -> tuple[nn.Sequential, Tensor, Tensor, dict]:
    """A network as a chain of plain layers that ends in nn.Linear, the first n test images."""
    model, card = load(name)
    dataset = data.load(card.data)
    x, y = dataset.test_x[:n], dataset.test_y[:n]
    chain = orthogonal.export(model, x.shape[1:]).requires_grad_(False)
    with torch.no_grad():
        torch.testing.assert_close(chain(x[:20]), model(x[:20]), rtol=1e-4, atol=1e-4)
    chain.to(memory_format=torch.channels_last)
    origin = {
        "weights_sha256": card.weights_sha256,
        "data": dataset.name,
        "data_sha256": dataset.sha256,
        "n": len(y),
    }
    return chain, x, y, origin


def attack_path(
    model: nn.Module, x: Tensor, y: Tensor, threat: Threat, steps: int, step: float
) -> Tensor:
    """The iterates of PGD from x, [steps + 1, n, ...]."""
    parts = [
        attacks.pgd(model, a, b, threat, steps=steps, step=step, keep_path=True).path
        for a, b in zip(x.split(250), y.split(250), strict=True)
    ]
    return torch.cat(parts, 1)


def _along(model: nn.Sequential, path: Tensor, y: Tensor) -> flatness.Trajectory:
    """`flatness.trajectory`, some images at a time."""
    parts = [
        flatness.trajectory(model, p, b)
        for p, b in zip(path.split(250, 1), y.split(250), strict=True)
    ]
    names = flatness.Trajectory.__dataclass_fields__
    return flatness.Trajectory(*(torch.cat([getattr(t, k) for t in parts], 1) for k in names))


@torch.no_grad()
def features(model: nn.Sequential, points: Tensor) -> Tensor:
    """What the last layer gets, of [t, n, ...] or [n, ...]."""
    flat = points.flatten(0, -4)
    found = torch.cat([model[:-1](p) for p in flat.split(500)])
    return found.view(*points.shape[:-3], -1)


def _scaled(model: nn.Sequential, s: float) -> nn.Sequential:
    """The same network, its last layer (bias included) times s."""
    scaled = copy.deepcopy(model)
    scaled[-1].weight.mul_(s)
    scaled[-1].bias.mul_(s)
    return scaled


def _basins(name: str, eps: float, steps: int, n: int) -> dict:
    model, x, y, origin = network(name, n)
    path = attack_path(model, x, y, Threat("l2", eps), steps, eps / steps)
    head, phi = model[-1], features(model, path)
    logits = head(phi).double()
    away = (path - path[0]).flatten(2).norm(dim=2).double()
    gap = _gaps(logits, y)
    ahead = -gap.amax(2)  # the margin
    right = ahead[0] > 0
    flipped, kept = right & (ahead[-1] <= 0), right & (ahead[-1] > 0)
    loss = {s: _loss(gap, s) for s in SCALES}
    trace = head_trace(head.weight, phi[0], bias=head.bias).double()
    with frozen(model):
        z = x.clone().requires_grad_()
        (slope,) = torch.autograd.grad(margin(model(z), y).sum(), z)
    first = (ahead[0] / slope.double().flatten(1).norm(dim=1)).clamp_min(0)
    result = {
        **origin,
        "threat": repr(Threat("l2", eps)),
        "steps": steps,
        "right": int(right.sum()),
        "flipped": int(flipped.sum()),
        "trace": _summary(trace[right]),
        "confidence": _quartiles(logits[0].softmax(1).amax(1)[right]),
        "increase": {
            f"{s:g}": {
                "kept": _quartiles((v[-1] - v[0])[kept]),
                "flipped": _quartiles((v[-1] - v[0])[flipped]),
                "mean": short((v[-1] - v[0])[right].mean()),
            }
            for s, v in loss.items()
        },
        "width": {},
    }
    boundary = torch.where((ahead <= 0).any(0), _first(away, ahead <= 0), torch.inf)
    for s in (1.0, 50.0):
        width = flatness.basin_width(loss[s], away, rise=RISE)
        out = right & width.isfinite()
        result["width"][f"{s:g}"] = {
            "took_off": int(out.sum()),
            "quartiles_where_it_took_off": _quartiles(width[out]),
            "all": _summary(torch.where(width.isfinite(), width, 2 * eps)[right]),
            "over_boundary": _quartiles((width / boundary)[out & boundary.isfinite()]),
            "rank_correlation": _correlations(
                width[out], {"trace": trace[out], "margin": ahead[0][out], "distance": first[out]}
            )
            if out.sum() > 30
            else None,
        }
        if name.endswith("lipschitz"):  # where the constant is known, so is a radius
            speed = lipschitz.product_bound(model[:-1], x.shape[1:])
            scaled = {"bias": s * head.bias, "lipschitz": speed}
            safe = flatness.loss_radius(s * head.weight, phi[0], y, RISE, **scaled).double()
            result["width"][f"{s:g}"] |= {
                "radius": _quartiles(safe[out]),
                "radius_over_width": _quartiles((safe / width)[out]),
                "below_radius": int((width < safe)[right].sum()),
                "lipschitz": speed,
            }
    return result


def _valley(name: str, threat: Threat, steps: int, step: float, n: int) -> dict:
    model, x, y, origin = network(name, n)
    path = attack_path(model, x, y, threat, steps, step)
    track = _along(model, path, y)
    right = track.margin[0] > 0
    wrong = (track.margin <= 0)[:, right]
    trace, slope = track.trace[:, right], track.slope[:, right]
    broken = wrong[-1]
    top, turn = trace.argmax(0), wrong.int().argmax(0)
    fields = ("loss", "trace", "sharpness", "confidence", "logit_slope", "slope")
    return {
        **origin,
        "threat": repr(threat),
        "steps": steps,
        "step": step,
        "right": int(right.sum()),
        "wrong": wrong.sum(1).tolist(),
        "wrong_at_the_end": {
            "n": int(broken.sum()),
            "peak_inside": int(((top > 0) & (top < steps))[broken].sum()),
            "peak_next_to_the_flip": int(((top - turn).abs() <= 1)[broken].sum()),
            "flatter_than_at_the_start": int((trace[-1] < trace[0])[broken].sum()),
            "steeper_than_at_the_start": int((slope[-1] > slope[0])[broken].sum()),
            "steeper_than_at_the_peak": int(
                (slope[-1] > slope.gather(0, top[None])[0])[broken].sum()
            ),
            "logit_slope_above_1.4": int((track.logit_slope[-1, right] > 1.4)[broken].sum()),
        },
        "along": {f: [_quartiles(row[right]) for row in getattr(track, f)] for f in fields},
    }


def _masking(name: str, scales: tuple[float, ...], n: int, few: int) -> dict:
    model, x, y, origin = network(name, n)
    with torch.no_grad():
        untouched = margin(logits_of(model, x), y) > 0
    rows, first = {}, pgd(model, x, y, LINF, "ce")
    for s in scales:
        net = _scaled(model, s)
        found = {loss: pgd(net, x, y, LINF, loss) for loss in ("ce", "margin", "dlr")}
        gradient = torch.cat(
            [_slope(net, a, b) for a, b in zip(x.split(250), y.split(250), strict=True)]
        )
        sharp = flatness.relative_sharpness(
            net[-1].weight, features(net, x), bias=net[-1].bias
        ).double()
        moved = margin(logits_of(net, first), y) <= 0
        exact = copy.deepcopy(net).double()
        again = pgd(exact, x[:few].double(), y[:few], LINF, "ce").float()
        rows[f"{s:g}"] = {
            "right": {
                loss: int((margin(logits_of(net, p), y) > 0).sum()) for loss, p in found.items()
            },
            "right_float64": int((margin(logits_of(net, again), y[:few]) > 0).sum()),
            "gradient_exactly_zero": int((gradient.flatten(1).abs().amax(1) == 0).sum()),
            "sharpness": _summary(sharp),
            "wrong_at_the_points_of_scale_1": int(moved.sum()),
        }  # fmt: skip
    return {**origin, "few": few, "untouched": int(untouched.sum()),
            "untouched_few": int(untouched[:few].sum()), "rows": rows}  # fmt: skip


def _correlations(width: Tensor, signs: dict[str, Tensor]) -> dict:
    """Spearman's of the width with each sign, and with one at a fixed other, with intervals."""
    columns = {k: v.numpy() for k, v in signs.items()} | {"width": width.numpy()}

    def plain(a, i):
        ranks = [rankdata(columns[k][i]) for k in ("width", a)]
        return np.corrcoef(*ranks)[0, 1]

    def partial(a, b, i):
        ranks = [rankdata(columns[k][i]) for k in ("width", a, b)]
        inverse = np.linalg.inv(np.corrcoef(ranks))
        return -inverse[0, 1] / math.sqrt(inverse[0, 0] * inverse[1, 1])

    wanted: dict[str, Callable] = {a: lambda i, a=a: plain(a, i) for a in signs}
    pairs = [("trace", "margin"), ("margin", "trace"), ("trace", "distance"), ("distance", "trace")]
    for a, b in pairs:
        wanted[f"{a} at fixed {b}"] = lambda i, a=a, b=b: partial(a, b, i)
    every = np.arange(len(width))
    return {
        "n": len(width),
        **{k: [short(f(every)), *resampled(f, len(width), 400)] for k, f in wanted.items()},
    }


def resampled(statistic: Callable, n: int, draws: int) -> tuple[float, float]:
    """The bootstrap's interval of level 95 %, images drawn with replacement."""
    gen = np.random.default_rng(0)
    values = [statistic(gen.integers(n, size=n)) for _ in range(draws)]
    low, high = np.quantile(values, [0.025, 0.975])
    return short(low), short(high)


def _gaps(logits: Tensor, y: Tensor) -> Tensor:
    """z_j − z_y for the other classes; −∞ for y itself."""
    label = y.expand(logits.shape[:-1])[..., None]
    return (logits - logits.gather(-1, label)).scatter(-1, label, -torch.inf)


def _loss(gap: Tensor, s: float) -> Tensor:
    """Cross-entropy where all logits are multiplied by s."""
    return nn.functional.softplus((s * gap).logsumexp(-1), threshold=700.0)


def logits_of(model: nn.Sequential, x: Tensor) -> Tensor:
    """The logits, some images at a time."""
    with torch.no_grad():
        return torch.cat([model(p) for p in x.split(500)])


def pgd(model: nn.Sequential, x: Tensor, y: Tensor, threat: Threat, loss: str) -> Tensor:
    """What PGD proposes with the settings of the paper."""
    return torch.cat([
        attacks.pgd(model, a, b, threat, steps=10, step=threat.eps / 4, loss=loss).x_adv
        for a, b in zip(x.split(250), y.split(250), strict=True)
    ])  # fmt: skip


def _slope(model: nn.Sequential, x: Tensor, y: Tensor) -> Tensor:
    """The gradient of cross-entropy in the input, as torch computes it."""
    with frozen(model), torch.enable_grad():
        z = x.clone().requires_grad_()
        loss = nn.functional.cross_entropy(model(z), y, reduction="sum")
        return torch.autograd.grad(loss, z)[0]


def _first(values: Tensor, where: Tensor) -> Tensor:
    """For each column the value in the first row where it holds."""
    return values.gather(0, where.int().argmax(0, keepdim=True))[0]


def _quartiles(values: Tensor) -> list[float] | None:
    if not len(values):
        return None
    return short(values.double().quantile(torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)))


def _summary(values: Tensor) -> dict:
    """Mean and median, each with the bootstrap's interval."""
    v = values.double().numpy()
    return {
        "mean": [short(v.mean()), *resampled(lambda i: v[i].mean(), len(v), 300)],
        "median": [short(np.median(v)), *resampled(lambda i: np.median(v[i]), len(v), 300)],
    }


def short(value):
    """Four digits of each number."""
    if isinstance(value, Tensor):
        value = value.tolist()
    if isinstance(value, list):
        return [short(v) for v in value]
    return float(f"{float(value):.4g}")
