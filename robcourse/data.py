"""Data with a name and a hash, and families of which the truth is known.

The embedded data set is scikit-learn's digits: every page of the book runs on it, with no
network. MNIST, Fashion-MNIST and CIFAR-10 come through torchvision, in the full profile only.
On real data nobody knows the least possible risk; for the families at the end it is known.
"""

import dataclasses
import hashlib
import math
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from scipy.special import roots_legendre
from torch import Tensor

from .runtime import generator, profile, torchvision
from .threat import Threat

#: The image that travels through the book, a plain 3: its place among the test images of
#: `load("digits").only(3, 8)`.
TRAVELLER = 111


@dataclass(frozen=True)
class Dataset:
    """A training and a test set: images `[n, c, h, w]` in [0, 1], labels int64 `[n]`.

    Attributes:
        train_x, train_y, test_x, test_y: float32 and int64, on the CPU.
        classes: the name of each label.
        name: of the data set, with the classes kept: "digits-3v8".
        sha256: of the raw bytes of the whole data set, whatever was kept of it.
    """

    train_x: Float[Tensor, " n c h w"]
    train_y: Int[Tensor, " n"]
    test_x: Float[Tensor, " m c h w"]
    test_y: Int[Tensor, " m"]
    classes: tuple[str, ...]
    name: str
    sha256: str

    def only(self, *classes: int) -> "Dataset":
        """The examples of these classes, relabelled 0, 1, … in the order given.

        Raises:
            ValueError: fewer than two classes, one twice, or one that is not there.
        """
        k = len(self.classes)
        if len(set(classes)) != len(classes) or len(classes) < 2:
            raise ValueError(f"classes are {classes}; expected two or more different ones")
        if not all(0 <= c < k for c in classes):
            raise ValueError(f"classes are {classes}; {self.name} has the labels 0 … {k - 1}")

        def pick(x, y):
            keep = torch.isin(y, torch.tensor(classes))
            new = torch.stack([y[keep] == c for c in classes]).int().argmax(0)
            return x[keep], new

        names = tuple(self.classes[c] for c in classes)
        return dataclasses.replace(
            self,
            **dict(zip(("train_x", "train_y"), pick(self.train_x, self.train_y), strict=True)),
            **dict(zip(("test_x", "test_y"), pick(self.test_x, self.test_y), strict=True)),
            classes=names,
            name=f"{self.name}-{'v'.join(names)}",
        )


def load(name: str) -> Dataset:
    """A data set by name; the same bits every time.

    `"digits"`: 1797 grey images of 8×8 with 17 grey values, half for training, drawn once with
    seed 0; embedded in scikit-learn. `"mnist"`, `"fashion"`, `"cifar10"`: the published training
    and test sets, through torchvision, kept in the folder `ROBCOURSE_DATA` (default: `robcourse`
    in the platform's cache folder) and downloaded if they are not there.

    Raises:
        ValueError: an unknown name.
        RuntimeError: real data in the quick profile; data that are not there and cannot be
            downloaded; files that are damaged. The message is one line and says what to do.
    """
    if name == "digits":
        return _digits()
    if name not in _REAL:
        raise ValueError(f"name is {name!r}; allowed: {', '.join(map(repr, ('digits', *_REAL)))}")
    if profile() != "full":
        raise RuntimeError(
            f"data.load({name!r}) needs the real data set, and the quick profile touches neither "
            "network nor disk: set ROBCOURSE_PROFILE=full before Python starts"
        )
    return _real(name, folder())


def folder() -> Path:
    """Where the real data sets live: `ROBCOURSE_DATA`, or the platform's cache folder."""
    if chosen := os.environ.get("ROBCOURSE_DATA"):
        return Path(chosen).expanduser()
    if sys.platform == "win32":
        cache = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        cache = Path.home() / "Library" / "Caches"
    else:
        cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "robcourse"


@dataclass(frozen=True)
class Gaussians:
    """Label 1 is N(mean, sd²·I), label 0 is N(−mean, sd²·I); both are equally likely."""

    mean: Float[Tensor, " d"]
    sd: float

    def sample(self, n: int, *, seed: int = 0) -> tuple[Float[Tensor, "n d"], Int[Tensor, " n"]]:
        """n independent examples (x, y)."""
        gen = generator(seed, self.mean)
        y = _labels(n, gen)
        noise = torch.randn(
            n, len(self.mean), generator=gen, device=gen.device, dtype=self.mean.dtype
        )
        return (2 * y - 1)[:, None] * self.mean + self.sd * noise, y

    def direction(self, threat: Threat) -> Float[Tensor, " d"]:
        """The w of the best robust rule, "1 if w·x > 0": the mean without its projection.

        What the attacker can cancel of the mean is its nearest point in the ball; the rest is w.
        In ℓ∞ this is the soft threshold sign(μ)·max(|μ| − eps, 0). It is 0 where nothing is left.

        Raises:
            ValueError: a threat with a box; Gaussian inputs are unbounded.
        """
        _unbounded(threat)
        mean = self.mean.double()
        lost = threat.project(mean[None], torch.zeros_like(mean)[None])[0]
        return (mean - lost).to(self.mean.dtype)

    def bayes_risk(self, threat: Threat | None = None) -> float:
        """The least risk of any rule, under attack if a threat is given: Φ(−min ‖mean − δ‖₂/sd).

        The minimum is over the δ of the ball; without a threat, over δ = 0.

        Source: Bhagoji, Cullina & Mittal, "Lower Bounds on Adversarial Robustness from Optimal
        Transport" (2019).
        """
        w = self.mean if threat is None else self.direction(threat)
        return _phi(-w.double().norm().item() / self.sd)


def two_gaussians(mean: Float[Tensor, " d"], sd: float = 1.0) -> Gaussians:
    """Two Gaussians around ±mean, the model in which robust risk has a closed form."""
    if not sd > 0:
        raise ValueError(f"sd is {sd}; expected a number > 0")
    return Gaussians(mean, sd)


@dataclass(frozen=True)
class Tsipras:
    """One strong feature and d weak ones, with y = ±1 equally likely (labels 1 and 0).

    x_1 = y with probability p, else −y; x_2 … x_{d+1} are N(eta·y, 1), all independent given y.
    """

    d: int
    p: float
    eta: float

    def sample(self, n: int, *, seed: int = 0) -> tuple[Float[Tensor, "n d"], Int[Tensor, " n"]]:
        """n independent examples (x, y); x has d + 1 columns."""
        gen = torch.Generator().manual_seed(seed)
        y = _labels(n, gen)
        sign = (2.0 * y - 1)[:, None]
        strong = torch.where(torch.rand(n, 1, generator=gen) < self.p, sign, -sign)
        weak = sign * self.eta + torch.randn(n, self.d, generator=gen)
        return torch.cat([strong, weak], 1), y

    def bayes_risk(self, threat: Threat | None = None) -> float:
        """The least risk of any rule, under an ℓ∞ attack if a threat is given.

        An attack with eps < 1 cannot change the sign of x_1, only shrink the means of the weak
        features to eta − eps; with eps ≥ 1 it erases x_1 as well. Once eps ≥ eta, nothing is left
        of the weak features.

        Raises:
            ValueError: a threat that is not ℓ∞, or has a box.
        """
        eps = 0.0
        if threat is not None:
            _unbounded(threat)
            if threat.norm != "linf":
                raise ValueError(f"the threat is {threat.norm!r}; the closed form is for 'linf'")
            eps = threat.eps
        signal = math.sqrt(self.d) * max(self.eta - eps, 0.0)
        if eps >= 1:
            return _phi(-signal)
        if signal == 0 or self.p == 1:
            return 1 - self.p
        # Given x_1, two Gaussians at ±signal with weights p and 1 − p: the best cut is off centre.
        shift = math.log(self.p / (1 - self.p)) / (2 * signal)
        return self.p * _phi(-signal - shift) + (1 - self.p) * _phi(-signal + shift)


def tsipras(d: int, *, p: float = 0.95, eta: float | None = None) -> Tsipras:
    """The distribution on which accuracy and robustness pull apart; eta is 3/√d unless given.

    Source: Tsipras et al., "Robustness May Be at Odds with Accuracy" (2019), section 2.
    """
    eta = 3 / math.sqrt(max(d, 1)) if eta is None else eta
    if d < 1 or not 0.5 <= p <= 1 or eta < 0:
        raise ValueError(f"got d = {d}, p = {p}, eta = {eta}; expected d ≥ 1, p in [½, 1], eta ≥ 0")
    return Tsipras(d, p, eta)


@dataclass(frozen=True)
class Spheres:
    """Two concentric spheres in d dimensions, uniform: label 0 is the inner, 1 the outer one."""

    d: int
    inner: float
    outer: float

    def sample(self, n: int, *, seed: int = 0) -> tuple[Float[Tensor, "n d"], Int[Tensor, " n"]]:
        """n independent examples (x, y), both labels equally likely."""
        gen = torch.Generator().manual_seed(seed)
        y = _labels(n, gen)
        x = torch.randn(n, self.d, generator=gen)
        radius = torch.where(y == 1, self.outer, self.inner)
        return x * (radius / x.norm(dim=1))[:, None], y

    @property
    def gap(self) -> float:
        """The ℓ2 distance of every example to the other class; a rule can keep half of it."""
        return self.outer - self.inner

    def bayes_risk(self, threat: Threat | None = None) -> float:
        """The least risk of any rule: 0 while eps < gap/2, and ½ from there on (ℓ2).

        With eps ≥ gap/2 both classes can be moved onto the sphere half-way, where they are the
        same.

        Raises:
            ValueError: a threat that is not ℓ2, or has a box.
        """
        if threat is None:
            return 0.0
        _unbounded(threat)
        if threat.norm != "l2":
            raise ValueError(f"the threat is {threat.norm!r}; the closed form is for 'l2'")
        return 0.0 if threat.eps < self.gap / 2 else 0.5


def spheres(d: int, *, inner: float = 1.0, outer: float = 1.3) -> Spheres:
    """Two spheres of different radii around 0: separable, with a margin known at every point.

    Source: Gilmer et al., "Adversarial Spheres" (2018).
    """
    if d < 2 or not 0 < inner < outer:
        raise ValueError(
            f"got d = {d}, inner = {inner}, outer = {outer}; expected d ≥ 2, 0 < inner < outer"
        )
    return Spheres(d, inner, outer)


@dataclass(frozen=True)
class Moons:
    """Two interleaved half circles in the plane, uniform in angle, plus N(0, noise²·I).

    Label 0 is (cos t, sin t), label 1 is (1 − cos t, ½ − sin t), for t in [0, π].
    """

    noise: float

    def sample(self, n: int, *, seed: int = 0) -> tuple[Float[Tensor, "n d"], Int[Tensor, " n"]]:
        """n independent examples (x, y), both labels equally likely."""
        gen = torch.Generator().manual_seed(seed)
        y = _labels(n, gen)
        arc = _arc(math.pi * torch.rand(n, generator=gen), y)
        return arc + self.noise * torch.randn(n, 2, generator=gen), y

    @property
    def gap(self) -> float:
        """The ℓ2 distance of the two half circles, before the noise: ½, reached at two points."""
        return 0.5

    def posterior(self, x: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        """P(label 1 | x), by Gauss–Legendre quadrature over the angle; exact to 1e-9.

        Raises:
            ValueError: a noise below 0.05, which 400 angles do not resolve.
        """
        if self.noise < 0.05:
            raise ValueError(f"noise is {self.noise}; the quadrature needs at least 0.05")
        node, weight = (torch.as_tensor(a) for a in roots_legendre(400))
        t, points = math.pi * (node + 1) / 2, x.double().cpu()
        log = []
        for label in (0, 1):
            far = torch.cdist(points, _arc(t, torch.full_like(t, label)))
            log.append((weight.log() - far**2 / (2 * self.noise**2)).logsumexp(1))
        return torch.sigmoid(log[1] - log[0]).to(x)


def moons(*, noise: float = 0.1) -> Moons:
    """Two half circles that no line separates; the posterior is known to any accuracy."""
    if not noise >= 0:
        raise ValueError(f"noise is {noise}; expected a number ≥ 0")
    return Moons(noise)


def _digits() -> Dataset:
    from sklearn.datasets import load_digits

    raw = load_digits()
    x = torch.tensor(raw.images, dtype=torch.float32)[:, None] / 16
    y = torch.tensor(raw.target).long()
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(0))
    train, test = order[: len(y) // 2], order[len(y) // 2 :]
    digest = hashlib.sha256(raw.images.tobytes() + raw.target.tobytes()).hexdigest()
    return Dataset(x[train], y[train], x[test], y[test], tuple("0123456789"), "digits", digest)


#: torchvision's class; what it looks for; and the hash of the content where torchvision does not
#: check the files that it unpacked: training images, training labels, test images, test labels.
_REAL = {
    "mnist": (
        "MNIST",
        "MNIST/raw/*-ubyte.gz",
        "06b0d1f124c4e5fa796686ade41a9b778edacc8622f2195a352ef479ad44fc16",
    ),
    "fashion": (
        "FashionMNIST",
        "FashionMNIST/raw/*-ubyte.gz",
        "ca3ab2a37f845e1b8ae23cab1b51749a3011ba3bf1d9016176d75cbaabac376f",
    ),
    "cifar10": ("CIFAR10", "cifar-10-python.tar.gz", None),
}


def _real(name: str, root: Path) -> Dataset:
    kind, files, expected = _REAL[name]
    source = getattr(torchvision().datasets, kind)
    try:  # torchvision checks the md5 of what it downloads, and downloads only what is not there
        halves = [source(root, train=train, download=True) for train in (True, False)]
        parts = [_part(half) for half in halves]
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        if isinstance(error, OSError) or str(error).startswith("Error downloading"):
            raise RuntimeError(
                f"{name!r} is not whole in {root} and cannot be downloaded: put {files} there, or "
                f"set ROBCOURSE_DATA to a folder that has it ({reason})"
            ) from error
        raise RuntimeError(_damaged(name, root / files, reason)) from error
    digest = hashlib.sha256()
    for part in parts:
        for t in part:
            digest.update(t.numpy())
    if expected is not None and digest.hexdigest() != expected:
        raise RuntimeError(_damaged(name, root / files, "the hash of their content is wrong"))
    train, test = ((x.float() / 255, y.long()) for x, y in parts)
    classes = tuple(c.split(" - ")[0] for c in halves[0].classes)  # MNIST's are "3 - three"
    return Dataset(*train, *test, classes, name, digest.hexdigest())


def _part(half) -> tuple[Tensor, Tensor]:
    """Images `[n, c, h, w]` and labels, as the bytes that they are on disk."""
    x = torch.as_tensor(half.data)
    x = x[:, None] if x.ndim == 3 else x.permute(0, 3, 1, 2).contiguous()
    return x, torch.as_tensor(half.targets).to(torch.uint8)


def _damaged(name: str, files: Path, reason: str) -> str:
    return (
        f"the files of {name!r} in {files.parent} are damaged, perhaps by an interrupted download: "
        f"delete them and load again ({reason})"
    )


def _labels(n: int, gen: torch.Generator) -> Tensor:
    """n labels, 0 or 1 with probability ½ each."""
    if n < 1:
        raise ValueError(f"n is {n}; expected at least 1 example")
    return torch.randint(2, (n,), generator=gen, device=gen.device)


def _arc(t: Tensor, y: Tensor) -> Tensor:
    upper = torch.stack([t.cos(), t.sin()], 1)
    lower = torch.stack([1 - t.cos(), 0.5 - t.sin()], 1)
    return torch.where(y[:, None] == 1, lower, upper)


def _unbounded(threat: Threat) -> None:
    if threat.box is not None:
        raise ValueError(f"the threat has the box {threat.box}; these inputs have none: box=None")


def _phi(z: float) -> float:
    """The standard normal distribution function."""
    return 0.5 * math.erfc(-z / math.sqrt(2))
