"""Data sets: hashes, splits, what an interrupted download leaves; families against brute force."""

import gzip
import hashlib
import math
import os
import pickle
import tarfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch
from helpers import untouched
from scipy.integrate import quad
from scipy.stats import norm

from robcourse import data, runtime
from robcourse.intervals import clopper_pearson
from robcourse.linear import robust_risk
from robcourse.threat import Threat

NORMS = ("linf", "l2", "l1")


def likely(k: int, n: int, p: float) -> bool:
    """Whether k of n is compatible with p; wrong with probability 1e-6."""
    low, high = clopper_pearson(k, n, 1e-6)
    return bool(low <= p <= high)


# --- digits ---------------------------------------------------------------------------------------


def test_digits_are_scikit_learns():
    from sklearn.datasets import load_digits

    d, raw = data.load("digits"), load_digits()
    assert (len(d.train_y), len(d.test_y)) == (898, 899)
    assert d.train_x.dtype == torch.float32
    assert d.train_y.dtype == torch.int64
    everything = torch.cat([d.train_x, d.test_x]).flatten(1) * 16
    labels = torch.cat([d.train_y, d.test_y])
    rows = lambda x, y: sorted((*map(int, a), int(b)) for a, b in zip(x, y, strict=True))
    assert rows(everything.tolist(), labels) == rows(raw.images.reshape(-1, 64), raw.target)
    # The split is part of every number in the book: these are the bytes it had on the first day.
    order = hashlib.sha256(d.test_x.numpy().tobytes() + d.test_y.numpy().tobytes()).hexdigest()
    assert order[:16] == "ca86fcc7f67856bb"


def test_only_keeps_and_relabels():
    d = data.load("digits")
    pair = d.only(8, 3)
    assert pair.classes == ("8", "3")
    assert pair.name == "digits-8v3"
    assert pair.sha256 == d.sha256
    for x, y, all_x, all_y in (
        (pair.train_x, pair.train_y, d.train_x, d.train_y),
        (pair.test_x, pair.test_y, d.test_x, d.test_y),
    ):
        expected = [(i, (8, 3).index(c)) for i, c in enumerate(all_y.tolist()) if c in (8, 3)]
        assert torch.equal(x, all_x[[i for i, _ in expected]])
        assert y.tolist() == [label for _, label in expected]


@pytest.mark.parametrize(
    ("classes", "message"),
    [((3,), "expected two or more"), ((3, 3), "different ones"), ((3, 10), "labels 0 … 9"),
     ((-1, 3), "labels 0 … 9")],
)  # fmt: skip
def test_only_refuses(classes, message):
    with pytest.raises(ValueError, match=message):
        data.load("digits").only(*classes)


def test_an_unknown_name_lists_the_allowed_ones():
    with pytest.raises(ValueError, match="'imagenet'; allowed: 'digits', 'mnist', 'fashion', 'cif"):
        data.load("imagenet")


# --- real data sets, through torchvision ----------------------------------------------------------


def test_the_quick_profile_touches_no_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("ROBCOURSE_DATA", str(tmp_path))
    monkeypatch.delenv("ROBCOURSE_PROFILE", raising=False)
    for name in ("mnist", "fashion", "cifar10"):
        with pytest.raises(RuntimeError, match="ROBCOURSE_PROFILE=full") as error:
            data.load(name)
        assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_the_folder_follows_the_platform(monkeypatch, tmp_path):
    monkeypatch.setenv("ROBCOURSE_DATA", "~/sets")
    assert data.folder() == data.Path.home() / "sets"
    monkeypatch.delenv("ROBCOURSE_DATA")
    monkeypatch.setattr(data.sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert data.folder() == tmp_path / "robcourse"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert data.folder() == data.Path.home() / ".cache" / "robcourse"


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture
def mirror(tmp_path):
    """A folder, and the address under which it is served; `stop` takes the network away."""
    (tmp_path / "mirror").mkdir()
    handler = partial(Quiet, directory=str(tmp_path / "mirror"))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()

    def stop():
        if thread.is_alive():
            server.shutdown()
            thread.join()
            server.server_close()

    yield tmp_path / "mirror", f"http://127.0.0.1:{server.server_port}/", stop
    stop()


@pytest.fixture
def home(monkeypatch, tmp_path):
    """An empty ROBCOURSE_DATA in the full profile."""
    monkeypatch.setenv("ROBCOURSE_PROFILE", "full")
    monkeypatch.setenv("ROBCOURSE_DATA", str(tmp_path / "home"))
    for proxy in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(proxy, raising=False)
    return tmp_path / "home"


def md5(raw: bytes) -> str:
    return hashlib.md5(raw, usedforsecurity=False).hexdigest()


@pytest.fixture
def mnist(mirror, home, monkeypatch):
    """A data set of 5 + 3 images in MNIST's format behind torchvision's own class."""
    folder, address, _ = mirror
    rng = np.random.default_rng(0)
    parts, resources = [], []
    for half, n in (("train", 5), ("t10k", 3)):
        images = rng.integers(0, 256, (n, 28, 28), dtype=np.uint8)
        labels = rng.integers(0, 10, n, dtype=np.uint8)
        parts += [images, labels]
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            head = bytes([0, 0, 8, array.ndim]) + b"".join(
                size.to_bytes(4, "big") for size in array.shape
            )
            raw = gzip.compress(head + array.tobytes(), mtime=0)
            name = f"{half}-{kind}-ubyte.gz"
            (folder / name).write_bytes(raw)
            resources.append((name, md5(raw)))
    digest = hashlib.sha256(b"".join(p.tobytes() for p in parts)).hexdigest()
    source = runtime.torchvision().datasets.MNIST
    monkeypatch.setattr(source, "mirrors", [address])
    monkeypatch.setattr(source, "resources", resources)
    monkeypatch.setitem(data._REAL, "mnist", (*data._REAL["mnist"][:2], digest))
    return parts


def test_mnist_is_downloaded_once(mnist, mirror, home):
    first = data.load("mnist")
    mirror[2]()
    again = data.load("mnist")  # without a network
    for d in (first, again):
        assert d.train_x.shape == (5, 1, 28, 28)
        assert d.train_x.dtype == torch.float32
        assert d.train_y.dtype == torch.int64
        for got, raw in zip((d.train_x, d.test_x), mnist[::2], strict=True):
            np.testing.assert_array_equal((got[:, 0].double() * 255).round().numpy(), raw)
            assert got.min() >= 0
            assert got.max() <= 1
        np.testing.assert_array_equal(d.train_y.numpy(), mnist[1])
        np.testing.assert_array_equal(d.test_y.numpy(), mnist[3])
        assert d.classes == tuple("0123456789")
        assert d.sha256 == hashlib.sha256(b"".join(p.tobytes() for p in mnist)).hexdigest()


def test_an_interrupted_download_is_taken_up_again(mnist, mirror, home):
    raw = home / "MNIST" / "raw"
    raw.mkdir(parents=True)
    whole = (mirror[0] / "train-images-idx3-ubyte.gz").read_bytes()
    (raw / "train-images-idx3-ubyte.gz").write_bytes(whole[: len(whole) // 2])
    assert len(data.load("mnist").train_x) == 5


def test_without_a_network_one_line_says_what_to_do(mnist, mirror, home):
    mirror[2]()
    with pytest.raises(RuntimeError, match="cannot be downloaded") as error:
        data.load("mnist")
    message = str(error.value)
    assert "\n" not in message
    assert str(home) in message
    assert "MNIST/raw/*-ubyte.gz" in message
    assert "ROBCOURSE_DATA" in message


@pytest.mark.parametrize("harm", ["cut", "flipped", "empty"])
@pytest.mark.parametrize("half", ["train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
def test_a_damaged_file_is_named(mnist, mirror, home, harm, half):
    """torchvision does not check the files that it has unpacked; an interruption leaves half."""
    data.load("mnist")
    path = home / "MNIST" / "raw" / half
    raw = bytearray(path.read_bytes())
    if harm == "flipped":
        raw[-1] ^= 1
    path.write_bytes(raw[: {"cut": len(raw) - 1, "empty": 0}.get(harm, len(raw))])
    with pytest.raises(RuntimeError, match=r"damaged.*delete them and load again") as error:
        data.load("mnist")
    assert str(path.parent) in str(error.value)
    assert "\n" not in str(error.value)
    path.unlink()
    assert len(data.load("mnist").train_x) == 5


@pytest.fixture
def cifar(mirror, home, monkeypatch):
    """A data set of 10 + 2 images in CIFAR-10's format behind torchvision's own class."""
    folder, address, _ = mirror
    rng = np.random.default_rng(0)
    batches, sums = [], {}
    (folder / "cifar-10-batches-py").mkdir()
    names = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    for name in names:
        pixels = rng.integers(0, 256, (2, 3072), dtype=np.uint8)
        labels = rng.integers(0, 10, 2).tolist()
        batches.append((pixels, labels))
        raw = pickle.dumps({"data": pixels, "labels": labels})
        (folder / "cifar-10-batches-py" / name).write_bytes(raw)
        sums[name] = md5(raw)
    meta = pickle.dumps({"label_names": [f"class {c}" for c in range(10)]})
    (folder / "cifar-10-batches-py" / "batches.meta").write_bytes(meta)
    archive = folder / "cifar-10-python.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder / "cifar-10-batches-py", "cifar-10-batches-py")
    source = runtime.torchvision().datasets.CIFAR10
    monkeypatch.setattr(source, "url", address + archive.name)
    monkeypatch.setattr(source, "tgz_md5", md5(archive.read_bytes()))
    monkeypatch.setattr(source, "train_list", [[n, sums[n]] for n in names[:5]])
    monkeypatch.setattr(source, "test_list", [["test_batch", sums["test_batch"]]])
    monkeypatch.setitem(source.meta, "md5", md5(meta))
    return batches


@pytest.mark.filterwarnings("ignore:Python 3.14 will, by default, filter:DeprecationWarning")
def test_cifar10_comes_channels_first_and_damage_is_mended(cifar, mirror, home):
    d = data.load("cifar10")
    assert d.train_x.shape == (10, 3, 32, 32)
    expected = np.concatenate([pixels for pixels, _ in cifar[:5]]).reshape(-1, 3, 32, 32)
    np.testing.assert_array_equal((d.train_x.double() * 255).round().numpy(), expected)
    assert d.test_y.tolist() == cifar[5][1]
    assert d.classes[3] == "class 3"
    half = home / "cifar-10-batches-py" / "data_batch_4"
    half.write_bytes(half.read_bytes()[:1000])
    assert data.load("cifar10").sha256 == d.sha256  # the archive is still there, and whole
    half.write_bytes(half.read_bytes()[:1000])
    (home / "cifar-10-python.tar.gz").unlink()
    mirror[2]()
    with pytest.raises(RuntimeError, match=r"not whole.*cifar-10-python.tar.gz"):
        data.load("cifar10")


@pytest.mark.skipif(
    os.environ.get("ROBCOURSE_PROFILE") != "full", reason="real data: ROBCOURSE_PROFILE=full"
)
@pytest.mark.parametrize("name", ["mnist", "fashion", "cifar10"])
def test_the_published_files(name):
    d = data.load(name)
    sizes = {"cifar10": (50_000, 10_000)}.get(name, (60_000, 10_000))
    assert (len(d.train_y), len(d.test_y)) == sizes
    assert d.test_y.bincount().tolist() == {
        "mnist": [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    }.get(name, [1000] * 10)


# --- families with known truth --------------------------------------------------------------------


@pytest.mark.parametrize(
    "family",
    [data.two_gaussians(torch.tensor([1.0, 0.5])), data.tsipras(5), data.spheres(3), data.moons()],
    ids=lambda f: type(f).__name__,
)
def test_samples_are_of_the_right_kind_and_reproducible(family):
    with untouched():
        x, y = family.sample(2000, seed=3)
    assert x.dtype == torch.float32
    assert y.dtype == torch.int64
    assert set(y.tolist()) == {0, 1}
    assert likely(int(y.sum()), 2000, 0.5)
    again = family.sample(2000, seed=3)
    assert torch.equal(x, again[0])
    assert torch.equal(y, again[1])
    assert not torch.equal(x, family.sample(2000, seed=4)[0])
    with pytest.raises(ValueError, match="n is 0"):
        family.sample(0)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("eps", [0.0, 0.2, 0.7, 1.1, 3.0])
def test_no_linear_rule_beats_the_robust_bayes_risk_of_two_gaussians(norm, eps):
    """In the plane, against every direction: the risk of each rule is Φ of its worst margin."""
    mean, sd = torch.tensor([1.0, -0.4]), 0.8
    family, threat = data.two_gaussians(mean, sd), Threat(norm, eps, None)
    angle = torch.linspace(0, 2 * math.pi, 100_001, dtype=torch.float64)
    w = torch.stack([angle.cos(), angle.sin()], 1)
    margin = w @ mean.double() - eps * threat.dual(w)
    best = torch.special.ndtr(-margin / sd).min().item()
    # 1e5 angles miss the best one by at most 3e-5, which costs at most that. Without any signal
    # the constant rule is the best one, with risk ½.
    assert family.bayes_risk(threat) == pytest.approx(min(best, 0.5), abs=4e-5)


@pytest.mark.parametrize("norm", NORMS)
def test_the_best_rule_reaches_the_robust_bayes_risk(norm):
    family = data.two_gaussians(torch.tensor([0.9, -0.2, 0.4, 0.0]), 1.1)
    threat = Threat(norm, 0.3, None)
    x, y = family.sample(40_000, seed=1)
    risk = robust_risk(family.direction(threat), 0.0, x, 2 * y - 1, threat)
    assert likely(round(risk * 40_000), 40_000, family.bayes_risk(threat))
    assert family.bayes_risk(threat) > family.bayes_risk()


def test_two_gaussians_in_closed_form():
    mean, sd = torch.tensor([1.0, -0.4, 0.1]), 0.7
    family = data.two_gaussians(mean, sd)
    # Natural: half the integral of the smaller density, along the mean.
    m = float(mean.double().norm())
    smaller = lambda t: min(norm.pdf(t, m, sd), norm.pdf(t, -m, sd)) / 2
    area = quad(smaller, -m - 12 * sd, 0)[0] + quad(smaller, 0, m + 12 * sd)[0]
    assert family.bayes_risk() == pytest.approx(area, abs=1e-8)
    # ℓ∞: the soft threshold; ℓ2: the mean loses eps of its length.
    soft = mean.sign() * (mean.abs() - 0.25).clamp_min(0)
    torch.testing.assert_close(family.direction(Threat("linf", 0.25, None)), soft)
    l2 = family.bayes_risk(Threat("l2", 0.25, None))
    assert l2 == pytest.approx(norm.cdf(-(m - 0.25) / sd), abs=1e-7)  # float32 mean
    assert family.bayes_risk(Threat("linf", 2.0, None)) == 0.5
    with pytest.raises(ValueError, match=r"box \(0.0, 1.0\).*box=None"):
        family.bayes_risk(Threat("linf", 0.1))
    with pytest.raises(ValueError, match="sd is 0"):
        data.two_gaussians(mean, 0.0)


@pytest.mark.parametrize("eps", [0.0, 0.3, 0.5, 0.9, 1.0, 1.5])
@pytest.mark.parametrize(("d", "p", "eta"), [(4, 0.8, 0.7), (9, 0.95, 1.2), (3, 1.0, 1.3)])
def test_the_robust_bayes_risk_of_tsipras_between_an_attack_and_a_rule(d, p, eta, eps):
    family, threat = data.tsipras(d, p=p, eta=eta), Threat("linf", eps, None)
    risk = family.bayes_risk(threat)
    # No rule does better: an allowed attack moves the weak means to ±(eta − eps), and x_1 to 0 if
    # it can. What is left has a Bayes risk, here by quadrature over the sum of the weak features.
    mean, sd = d * max(eta - eps, 0.0), math.sqrt(d)
    weights = [(0.5, 0.5)] if eps >= 1 else [(p / 2, (1 - p) / 2), ((1 - p) / 2, p / 2)]
    floor = 0.0
    for a, b in weights:
        cut = 0.0 if mean == 0 or min(a, b) == 0 else math.log(b / a) * sd**2 / (2 * mean)
        smaller = lambda s, a=a, b=b: min(a * norm.pdf(s, mean, sd), b * norm.pdf(s, -mean, sd))
        far = mean + 12 * sd
        for low, high in ((-far, min(max(cut, -far), far)), (min(max(cut, -far), far), far)):
            floor += quad(smaller, low, high)[0]
    assert risk == pytest.approx(floor, abs=1e-7)
    # And a rule reaches it: a weighted vote of sign(x_1) and the sum, under the worst attack.
    x, y = family.sample(40_000, seed=2)
    sign = 2.0 * y - 1
    total = x[:, 1:].sum(1) - sign * d * eps
    strong = torch.zeros(()) if eps >= 1 else x[:, 0].sign()
    vote = math.log(p / (1 - p)) / (2 * mean / d) if mean > 0 and p < 1 else 1e9
    wrong = ((total + vote * strong) * sign <= 0).sum()
    if mean > 0 or eps < 1:  # otherwise nothing is left to vote
        assert likely(int(wrong), 40_000, risk)
    else:
        assert risk == 0.5


def test_tsipras_moments_and_errors():
    family = data.tsipras(100)
    assert family.eta == pytest.approx(0.3)
    x, y = family.sample(20_000)
    sign = 2 * y - 1
    assert x.shape == (20_000, 101)
    assert set(x[:, 0].tolist()) == {-1.0, 1.0}
    assert likely(int((x[:, 0] == sign).sum()), 20_000, 0.95)
    weak = x[:, 1:] * sign[:, None]
    # 2 million standard normals: six standard errors are 0.0042 and, for the deviation, 0.003.
    assert weak.mean().item() == pytest.approx(0.3, abs=0.0042)
    assert weak.std().item() == pytest.approx(1.0, abs=0.003)
    # One of the two theorems of the construction: the average of the weak features, 99.87 %.
    assert likely(int((weak.mean(1) > 0).sum()), 20_000, float(norm.cdf(3)))
    with pytest.raises(ValueError, match="'l2'; the closed form is for 'linf'"):
        family.bayes_risk(Threat("l2", 0.1, None))
    for wrong in ({"d": 0}, {"d": 5, "p": 0.4}, {"d": 5, "eta": -1.0}):
        with pytest.raises(ValueError, match=r"expected d ≥ 1, p in \[½, 1\], eta ≥ 0"):
            data.tsipras(**wrong)


def test_spheres_keep_half_their_gap():
    family = data.spheres(20, inner=1.0, outer=1.5)
    x, y = family.sample(500)
    radius = torch.where(y == 1, 1.5, 1.0)
    torch.testing.assert_close(x.norm(dim=1), radius, rtol=1e-6, atol=0)
    assert x.mean(0).abs().max() < 6 * 1.5 / math.sqrt(20 * 500)  # no direction is preferred
    assert family.gap == 0.5
    # No two points of different spheres are nearer than the gap; one is there, on the same ray.
    assert torch.cdist(x[y == 0], x[y == 1]).min() > family.gap - 1e-6
    ray = x * torch.where(y == 1, 1 / 1.5, 1.5)[:, None]
    torch.testing.assert_close((x - ray).norm(dim=1), torch.full((500,), 0.5), rtol=0, atol=1e-6)
    # Just below half the gap a radius separates all that an attack can reach; from there on, the
    # two spheres can be moved onto each other.
    inside = x + 0.2499 * x / x.norm(dim=1, keepdim=True) * (1 - 2 * y)[:, None]
    assert ((inside.norm(dim=1) > 1.25) == (y == 1)).all()
    assert family.bayes_risk(Threat("l2", 0.2499, None)) == 0
    assert family.bayes_risk(Threat("l2", 0.25, None)) == 0.5
    assert family.bayes_risk() == 0
    with pytest.raises(ValueError, match="'linf'; the closed form is for 'l2'"):
        family.bayes_risk(Threat("linf", 0.1, None))
    with pytest.raises(ValueError, match="expected d ≥ 2, 0 < inner < outer"):
        data.spheres(3, inner=1.5)


def test_moons_have_the_gap_and_the_posterior_they_claim():
    t = torch.linspace(0, math.pi, 2001, dtype=torch.float64)
    one = torch.stack([t.cos(), t.sin()], 1)
    other = torch.stack([1 - t.cos(), 0.5 - t.sin()], 1)
    assert torch.cdist(one, other).min().item() == pytest.approx(data.moons().gap, abs=1e-6)
    x, y = data.moons(noise=0.0).sample(300)
    near = torch.where(y == 1, torch.cdist(x.double(), other).amin(1),
                       torch.cdist(x.double(), one).amin(1))  # fmt: skip
    assert near.max() < 1e-3  # the angles above are 1.6e-3 apart

    family = data.moons(noise=0.05)
    points = torch.tensor([[0.5, 0.25], [0.0, 0.5], [1.0, 0.25], [0.4, 0.3], [2.0, 0.2]]).double()
    for point, got in zip(points.tolist(), family.posterior(points).tolist(), strict=True):

        def density(t, label, point=point):
            a = (1 - math.cos(t), 0.5 - math.sin(t)) if label else (math.cos(t), math.sin(t))
            return math.exp((0.25**2 - math.dist(point, a) ** 2) / (2 * 0.05**2))

        p = [quad(density, 0, math.pi, args=(c,), epsabs=0, epsrel=1e-11, limit=500)[0]
             for c in (0, 1)]  # fmt: skip
        assert got == pytest.approx(p[1] / (p[0] + p[1]), abs=1e-9)
    # The posterior is calibrated on its own sample: its rule errs as often as it says.
    family = data.moons(noise=0.3)
    x, y = family.sample(20_000, seed=5)
    p = family.posterior(x)
    assert likely(int(((p > 0.5) != (y == 1)).sum()), 20_000, torch.minimum(p, 1 - p).mean().item())
    with pytest.raises(ValueError, match=r"noise is 0.01; the quadrature needs"):
        data.moons(noise=0.01).posterior(points)
    with pytest.raises(ValueError, match="noise is -1"):
        data.moons(noise=-1.0)


def test_the_traveller_is_a_plain_3():
    digits = data.load("digits").only(3, 8)
    image, label = digits.test_x[data.TRAVELLER], digits.test_y[data.TRAVELLER]
    assert digits.classes[int(label)] == "3"
    # Its neighbours in the training half agree, by a wide margin: a plain 3, whoever looks.
    apart = (digits.train_x - image).flatten(1).norm(dim=1)
    assert digits.train_y[apart.argsort()[:25]].sum() == 0
