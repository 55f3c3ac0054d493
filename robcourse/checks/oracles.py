"""What the checks compare with: the book's networks and attacks again, in NumPy and float64.

Nothing here calls the package's own methods, so a mistake in one is not repeated in the other.
"""

import numpy as np
from numpy.linalg import norm as _norm


class Network:
    """A network of `models.mlp` in float64: logits, margins and the gradient of its loss."""

    def __init__(self, model):
        self.layers = []
        self.mean, self.std = np.asarray(0.0), np.asarray(1.0)
        for layer in model:
            kind = type(layer).__name__
            if kind == "Normalize":
                self.mean, self.std = (float(v) for v in (layer.mean, layer.std))
            elif kind == "Linear":
                parts = (layer.weight, layer.bias)
                self.layers.append(tuple(p.detach().cpu().double().numpy() for p in parts))
            elif kind not in ("Flatten", "ReLU"):
                raise TypeError(f"the oracle knows no layer of kind {kind}")

    def logits(self, x):
        """`[n, d] -> [n, k]`."""
        return self._forward(x)[-1]

    def margin(self, x, y):
        """z_y − max over the other classes, one an example."""
        z = self.logits(x)
        rows = np.arange(len(z))
        true = z[rows, y].copy()
        z[rows, y] = -np.inf
        return true - z.max(1)

    def gradient(self, x, y):
        """Of each example's cross-entropy with respect to its own input, `[n, d]`."""
        return self._pull(x, softmax(self.logits(x)) - np.eye(self.classes)[y])

    def gradient_of_softmax_twice(self, x, y):
        """Of the cross-entropy of probabilities that were taken for logits: a common slip."""
        p = softmax(self.logits(x))
        v = softmax(p) - np.eye(self.classes)[y]
        return self._pull(x, p * (v - (p * v).sum(1, keepdims=True)))

    @property
    def classes(self):
        """How many logits there are."""
        return len(self.layers[-1][1])

    def _pull(self, x, v):
        """The gradient of v·logits with respect to x."""
        hidden = self._forward(x)[:-1]
        for (weight, _), h in zip(self.layers[:0:-1], hidden[:0:-1], strict=True):
            v = (v @ weight) * (h > 0)
        return v @ self.layers[0][0] / self.std

    def _forward(self, x):
        out = [(x - self.mean) / self.std]
        for i, (weight, bias) in enumerate(self.layers):
            z = out[-1] @ weight.T + bias
            out.append(np.maximum(z, 0) if i < len(self.layers) - 1 else z)
        return out


def softmax(z):
    """Row by row."""
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def steepest(g, norm):
    """Of size 1 in `norm` ("linf" or "l2"), and furthest along g."""
    return np.sign(g) if norm == "linf" else g / np.maximum(_norm(g, axis=1, keepdims=True), 1e-300)


def into_ball(z, x, threat):
    """The nearest point of ball ∩ box in ℓ∞; in ℓ2 the nearest of the ball, then of the box."""
    delta = z - x
    if threat.norm == "linf":
        delta = delta.clip(-threat.eps, threat.eps)
    else:
        delta *= np.minimum(1, threat.eps / np.maximum(_norm(delta, axis=1, keepdims=True), 1e-300))
    return into_box(x + delta, threat)


def into_box(z, threat):
    """Each coordinate clamped."""
    return z if threat.box is None else z.clip(*threat.box)


def pgd(
    net,
    x,
    y,
    threat,
    steps,
    step,
    *,
    project=into_ball,
    sign=1,
    last=False,
    sums=False,
    from_x=True,
):
    """Projected gradient ascent from x; the best point, or the last. The rest are its slips:
    gradients that add up over the steps, and x not among the candidates."""
    z = best = x
    least, total = net.margin(x, y) if from_x else np.full(len(x), np.inf), 0
    for _ in range(steps):
        g = net.gradient(z, y)
        total = total + g if sums else g
        z = project(z + sign * step * steepest(total, threat.norm), x, threat)
        m = net.margin(z, y)
        best, least = np.where((m < least)[:, None], z, best), np.minimum(m, least)
    return z if last else best
