"""The loop: against an independent optimum, and the same bits however often it was stopped."""

import copy
import math
import os
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from helpers import random_state, rng, same, unchecked, untouched
from scipy.optimize import minimize
from torch import nn

from robcourse import data, models, objectives, training
from robcourse.threat import Threat
from robcourse.training import fit, standard


@pytest.fixture
def small():
    """60 images of 1×4×4 in three classes that a network can tell apart."""
    x = torch.rand(60, 1, 4, 4, generator=rng(0))
    return x, x.flatten(1)[:, :3].argmax(1)


def network(seed: int = 0) -> nn.Sequential:
    """With all that depends on mode and chance: batch norm and dropout."""
    conv = models.small_conv((1, 4, 4), 3, width=2, seed=seed)
    return nn.Sequential(*conv[:-1], nn.Dropout(0.3), conv[-1]).eval()


def line(inputs: int) -> nn.Sequential:
    """Two logits, affine in the inputs."""
    return models.mlp(inputs, 2, hidden=(), mean=0.0, std=1.0)


def bits(model: nn.Module) -> list[torch.Tensor]:
    return [v.clone() for v in model.state_dict().values()]


def equal(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    return all(torch.equal(s, t) for s, t in zip(a, b, strict=True))


def test_finds_the_optimum_that_scipy_finds():
    """Ridge-penalised logistic regression has one optimum; here in float64 by two methods."""
    x, y = data.two_gaussians(torch.tensor([0.6, -0.3, 0.1])).sample(300)
    x, penalty = x.double(), 0.05

    def objective(model, x, y):
        loss = nn.functional.cross_entropy(model(x), y)
        return loss + penalty * sum(p.square().sum() for p in model.parameters())

    model = line(3).double()
    fit(model, x, y, objective, epochs=300, lr=0.05, batch=300)

    rows, labels = x.numpy(), y.numpy()

    def loss(flat):
        z = rows @ flat[:6].reshape(2, 3).T + flat[6:]
        top = z.max(1, keepdims=True)
        log = top[:, 0] + np.log(np.exp(z - top).sum(1))
        return (log - z[np.arange(300), labels]).mean() + penalty * (flat**2).sum()

    best = minimize(loss, np.zeros(8), method="BFGS", options={"gtol": 1e-8}).x
    found = torch.cat([p.flatten() for p in model.parameters()]).detach().numpy()
    # BFGS with numeric gradients is exact to about 1e-6; the loop's rate ends at 0.
    np.testing.assert_allclose(found, best, atol=1e-4)


def test_weight_decay_shrinks_what_the_loss_does_not_hold():
    model = line(4)
    with torch.no_grad():
        for p in model.parameters():
            p.fill_(1.0)
    x, y = torch.rand(10, 4, generator=rng()), torch.zeros(10, dtype=torch.int64)
    nothing = lambda model, x, y: 0 * model(x).sum()
    fit(model, x, y, nothing, epochs=4, lr=0.5, weight_decay=0.1, batch=10)
    # Decoupled decay: each step multiplies by 1 − rate·decay, and the rate is 0.5·½(1 + cos(πt/4)).
    rates = [0.25 * (1 + np.cos(np.pi * t / 4)) for t in range(4)]
    expected = np.prod([1 - 0.1 * r for r in rates])
    assert model[-1].weight[0, 0].item() == pytest.approx(expected, rel=1e-5)


def test_every_example_once_an_epoch_in_even_batches():
    x = torch.arange(23.0)[:, None].repeat(1, 2)
    y = torch.zeros(23, dtype=torch.int64)

    def orders(seed):
        seen, model = [], line(2)

        def objective(model, x, y):
            assert model.training
            seen.append(x[:, 0].tolist())
            return 0 * model(x).sum() + x[:, 0].mean()

        log = fit(model, x, y, objective, epochs=3, lr=0.1, batch=8, seed=seed)
        # The mean over examples, not over batches, whose sizes differ.
        assert log.loss.tolist() == pytest.approx([11.0] * 3, rel=1e-6)
        return seen

    seen = orders(0)
    assert [len(b) for b in seen] == [8, 8, 7] * 3
    epochs = [[*seen[i], *seen[i + 1], *seen[i + 2]] for i in (0, 3, 6)]
    assert all(sorted(e) == list(range(23)) for e in epochs)
    assert len({tuple(e) for e in epochs}) == 3
    assert seen == orders(0)
    assert seen != orders(1)


def test_leaves_the_random_state_alone_and_the_model_in_evaluation_mode(small):
    x, y = small
    model = network()
    state = random_state()
    with untouched(None, x, y):
        fit(model, x, y, standard(), epochs=2, lr=0.01, validation=(x, y))
    assert same(state, random_state())
    assert not any(m.training for m in model.modules())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


def test_what_was_drawn_before_changes_nothing(small, global_random):
    runs = []
    for draws in (0, 7):
        torch.rand(draws)
        model = network()
        fit(model, *small, standard(), epochs=2, lr=0.01)
        runs.append(bits(model))
    assert equal(*runs)
    model = network()
    fit(model, *small, standard(), epochs=2, lr=0.01, seed=1)
    assert not equal(runs[0], bits(model))


def test_learns_and_says_so(small):
    x, y = small
    model = network()
    modes = []
    log = fit(
        model, x, y, standard(), epochs=60, lr=0.02, batch=16, validation=(x, y),
        on_epoch=lambda log: modes.extend(m.training for m in model.modules()),
    )  # fmt: skip
    assert modes
    assert not any(modes)
    assert log.loss.shape == log.accuracy.shape == log.seconds.shape == (60,)
    assert log.loss[-1] < 0.7 * log.loss[0]
    assert (log.seconds > 0).all()
    with torch.no_grad():
        share = (model(x).argmax(1) == y).double().mean()
    assert log.accuracy[-1] == share
    assert share > 0.9
    assert fit(model, x, y, standard(), epochs=1, lr=0.01).accuracy is None


class Stop(KeyboardInterrupt):
    pass


@pytest.mark.parametrize("where", ["between epochs", "within an epoch"])
def test_interrupted_and_resumed_is_uninterrupted_to_the_bit(small, tmp_path, where):
    x, y = small
    options = {"epochs": 6, "lr": 0.02, "batch": 16, "weight_decay": 0.01, "validation": (x, y)}
    whole = network()
    expected = fit(whole, x, y, noisy, **options)

    calls = 0

    def interrupt(*args):
        nonlocal calls
        calls += 1
        if calls == 3:
            raise Stop

    def interrupted(model, x, y):
        nonlocal calls
        calls += 0.25  # four batches an epoch
        if calls == 2.5:
            raise Stop
        return noisy(model, x, y)

    path = tmp_path / "deep" / "run.pt"
    broken = network()
    if where == "between epochs":
        objective, hook = noisy, interrupt
    else:
        objective, hook = interrupted, None
        interrupted.__qualname__ = noisy.__qualname__  # the same objective, as far as a run knows
    with pytest.raises(Stop):
        fit(broken, x, y, objective, checkpoint=path, on_epoch=hook, **options)
    assert not any(m.training for m in broken.modules())
    assert all(p.grad is None for p in broken.parameters())

    resumed, seen = network(seed=5), []
    log = fit(resumed, x, y, noisy, checkpoint=path, on_epoch=seen.append, **options)
    assert len(seen) == (3 if where == "between epochs" else 4)
    assert equal(bits(resumed), bits(whole))
    assert torch.equal(log.loss, expected.loss)
    assert torch.equal(log.accuracy, expected.accuracy)
    assert [p.name for p in path.parent.iterdir()] == ["run.pt"]  # no half-written file is left

    done = network(seed=6)
    again = fit(done, x, y, noisy, checkpoint=path, on_epoch=lambda log: 1 / 0, **options)
    assert equal(bits(done), bits(whole))
    assert torch.equal(again.seconds, log.seconds)


RUN = """
import sys, time, torch
from robcourse import models, training
from robcourse.threat import Threat
torch.set_num_threads(1)
path, out, pause = sys.argv[1], sys.argv[2], float(sys.argv[3])
gen = torch.Generator().manual_seed(0)
x = torch.rand(60, 1, 4, 4, generator=gen)
y = x.flatten(1)[:, :3].argmax(1)
net = models.small_conv((1, 4, 4), 3, width=2)
training.fit(
    net, x, y, training.trades(Threat("linf", 0.05), 1.0, steps=2), epochs=6, lr=0.02, batch=16,
    validation=(x, y), robust=Threat("linf", 0.05), keep="best",
    augment=training.flips_and_shifts(1), checkpoint=path or None,
    on_epoch=lambda log: time.sleep(pause),
)
torch.save(net.state_dict(), out)
"""


def test_a_run_that_was_killed_reaches_the_same_weights(tmp_path):
    """SIGKILL: nothing in the process has a chance to tidy up."""

    def start(checkpoint, out, pause):
        command = [sys.executable, "-c", RUN, str(checkpoint), str(tmp_path / out), str(pause)]
        return subprocess.Popen(command, env=os.environ | {"TQDM_DISABLE": "1"})

    checkpoint = tmp_path / "run.pt"
    killed = start(checkpoint, "killed.pt", 60.0)
    until = time.monotonic() + 60
    while not checkpoint.exists() and time.monotonic() < until:
        time.sleep(0.05)
    killed.kill()
    assert killed.wait() == -9
    assert checkpoint.exists()
    assert not (tmp_path / "killed.pt").exists()
    runs = [start(checkpoint, "resumed.pt", 0.0), start("", "whole.pt", 0.0)]
    assert [run.wait(timeout=120) for run in runs] == [0, 0]
    resumed, whole = (torch.load(tmp_path / f"{n}.pt") for n in ("resumed", "whole"))
    assert equal(list(resumed.values()), list(whole.values()))


def noisy(model, x, y):
    """An objective that draws, as training with noise does."""
    return nn.functional.cross_entropy(model(x + 0.1 * torch.randn_like(x)), y)


def test_a_crash_while_writing_leaves_the_checkpoint_before(small, tmp_path, monkeypatch):
    x, y = small
    path, options = tmp_path / "run.pt", {"epochs": 3, "lr": 0.02}

    def crash(log):
        monkeypatch.setattr(training.os, "replace", fail)

    def fail(*args):
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fit(network(), x, y, standard(), checkpoint=path, on_epoch=crash, **options)
    monkeypatch.undo()
    epochs = []
    fit(network(), x, y, standard(), checkpoint=path, on_epoch=epochs.append, **options)
    assert [len(log.loss) for log in epochs] == [2, 3]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_stops_the_run(small, tmp_path, value):
    x, y = small
    model, path, calls = network(), tmp_path / "run.pt", []

    def diverges(model, x, y):
        calls.append(1)
        loss = nn.functional.cross_entropy(model(x), y)
        return loss * value if len(calls) == 8 else loss  # the last batch of epoch 2

    with pytest.raises(FloatingPointError, match=rf"loss is {value} in epoch 2.*smaller lr than"):
        fit(model, x, y, diverges, epochs=3, lr=0.02, batch=16, checkpoint=path)
    assert not any(m.training for m in model.modules())
    saved = torch.load(path, weights_only=True)
    assert len(saved["rows"]) == 1
    assert all(v.isfinite().all() for v in saved["run"]["model"].values())


def test_a_checkpoint_of_another_run_is_refused(small, tmp_path):
    x, y = small
    path = tmp_path / "run.pt"
    options = {"epochs": 2, "lr": 0.02, "checkpoint": path}
    fit(network(), x, y, standard(), **options)
    before = path.read_bytes()
    changes = [
        ({"lr": 0.01}, "lr"), ({"epochs": 3}, "epochs"), ({"batch": 7}, "batch"),
        ({"seed": 1}, "seed"), ({"weight_decay": 0.1}, "weight_decay"),
    ]  # fmt: skip
    for change, name in changes:
        with pytest.raises(ValueError, match=rf"of another run: it had {{'{name}'"):
            fit(network(), x, y, standard(), **(options | change))
    with pytest.raises(ValueError, match=r"of another run: it had {'objective'"):
        fit(network(), x, y, noisy, **options)
    with pytest.raises(ValueError, match=r"of another run: it had {'data'"):
        fit(network(), x, (y + 1) % 3, standard(), **options)
    assert path.read_bytes() == before
    path.write_bytes(before[: len(before) // 2])
    with pytest.raises(ValueError, match="cannot be read: no checkpoint, or a damaged one"):
        fit(network(), x, y, standard(), **options)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"epochs": 0}, ValueError, "epochs is 0; expected a number > 0"),
        ({"lr": -0.1}, ValueError, "lr is -0.1"),
        ({"lr": float("nan")}, ValueError, "lr is nan"),
        ({"batch": 0}, ValueError, "batch is 0"),
        ({"x": torch.full((60, 1, 4, 4), 255.0)}, ValueError, "divide by 255"),
        ({"x": torch.full((60, 1, 4, 4), torch.nan)}, ValueError, "NaN"),
        ({"y": torch.full((60,), 3)}, ValueError, "3 classes"),
        ({"y": torch.zeros(60)}, TypeError, "int64"),
        ({"validation": (torch.rand(9, 1, 4, 4, generator=rng()), torch.full((9,), 7))},
         ValueError, "3 classes"),
    ],
)  # fmt: skip
def test_refuses_bad_input(small, change, error, message):
    x, y = change.pop("x", small[0]), change.pop("y", small[1])
    with unchecked(), pytest.raises(error, match=message):
        fit(network(), x, y, standard(), **({"epochs": 1, "lr": 0.1} | change))


def test_a_wrong_shape_is_caught_by_the_annotations(small):
    x, y = small
    with pytest.raises(Exception, match="Type-check error"):
        fit(network(), x, y[:, None], standard(), epochs=1, lr=0.1)


def test_standard_is_the_mean_cross_entropy(small):
    x, y = small
    model = network()
    with torch.no_grad():
        expected = -torch.log_softmax(model(x).double(), 1).gather(1, y[:, None]).mean()
    torch.testing.assert_close(standard()(model, x, y).double(), expected, rtol=1e-5, atol=0)


@pytest.mark.gpu
def test_trains_and_resumes_on_cuda(small, tmp_path):
    x, y = (t.cuda() for t in small)
    whole = network().cuda()
    state = random_state()
    fit(whole, x, y, noisy, epochs=4, lr=0.02)
    path, broken = tmp_path / "run.pt", copy.deepcopy(network()).cuda()
    stop = lambda log: 1 / 0 if len(log.loss) == 2 else None
    with pytest.raises(ZeroDivisionError):
        fit(broken, x, y, noisy, epochs=4, lr=0.02, checkpoint=path, on_epoch=stop)
    resumed = network(seed=3).cuda()
    fit(resumed, x, y, noisy, epochs=4, lr=0.02, checkpoint=path)
    assert same(state, random_state())
    # cuDNN may choose another algorithm from run to run, so not bit for bit.
    for a, b in zip(bits(whole), bits(resumed), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


# What a run may also do


def test_flips_and_shifts_move_each_image_as_a_whole(global_random):
    x = torch.rand(64, 2, 6, 5, generator=rng(0)) + 0.1
    torch.manual_seed(0)
    moved = training.flips_and_shifts(2)(x)
    assert moved.shape == x.shape
    padded = torch.nn.functional.pad(x, (2,) * 4)
    kinds = set()
    for image, whole in zip(moved, padded, strict=True):
        found = [
            (flip, i, j)
            for flip in (False, True)
            for i in range(5)
            for j in range(5)
            if torch.equal(image, (whole.flip(-1) if flip else whole)[:, i : i + 6, j : j + 5])
        ]
        assert len(found) == 1, "each image is one crop of its padded self, mirrored or not"
        kinds.add(found[0])
    assert {flip for flip, _, _ in kinds} == {False, True}
    assert len({(i, j) for _, i, j in kinds}) > 15
    still = training.flips_and_shifts(0, flip=False)(x)
    assert torch.equal(still, x)


def test_the_rate_rises_in_a_line_and_falls_on_half_a_cosine():
    rate = training._rate(100, 0.2)
    rises = [rate(t) for t in range(20)]
    assert rises == pytest.approx([(t + 1) / 21 for t in range(20)])
    falls = [rate(t) for t in (20, 60, 99)]
    assert falls == pytest.approx([1.0, 0.5, 0.5 * (1 + math.cos(math.pi * 79 / 80))])
    plain = training._rate(10, 0.0)
    assert [plain(t) for t in range(10)] == pytest.approx(
        [0.5 * (1 + math.cos(math.pi * t / 10)) for t in range(10)]
    )


@pytest.fixture
def images():
    x = torch.rand(60, 1, 8, 8, generator=rng(0))
    y = (x[:, 0, :4].mean((1, 2)) > x[:, 0, 4:].mean((1, 2))).long()
    return x, y


def test_the_fast_form_learns_the_same_and_leaves_an_ordinary_model(images):
    x, y = images
    logs = {}
    for fast in (False, True):
        model = models.small_conv((1, 8, 8), 2, width=4)
        logs[fast] = fit(model, x, y, standard(), epochs=6, lr=1e-2, batch=20, fast=fast)
        assert {p.dtype for p in model.parameters()} == {torch.float32}
        assert all(p.is_contiguous() for p in model.parameters())
        assert model(x).dtype == torch.float32
    assert logs[True].loss.tolist() == pytest.approx(logs[False].loss.tolist(), rel=0.1)
    assert logs[True].loss.tolist() != logs[False].loss.tolist(), "it is another arithmetic"


def test_the_best_epoch_is_kept_and_a_resumed_run_knows_it(images, tmp_path):
    x, y = images
    threat = Threat("linf", 0.05)
    options = {"epochs": 6, "lr": 3e-2, "batch": 20, "robust": threat, "keep": "best",
               "validation": (x[40:], y[40:]), "augment": training.flips_and_shifts(1)}  # fmt: skip
    new = lambda: models.small_conv((1, 8, 8), 2, width=2)
    snapshots, whole = [], new()
    keep = lambda log: snapshots.append({k: v.clone() for k, v in whole.state_dict().items()})
    log = fit(whole, x[:40], y[:40], standard(), on_epoch=keep, **options)
    assert log.robust_upper.shape == (6,)
    assert (log.robust_upper <= log.accuracy + 1e-12).all()
    assert log.kept == int(log.robust_upper.argmax()), "of equal ones the first"
    for name, value in whole.state_dict().items():
        assert torch.equal(value, snapshots[log.kept][name]), name

    def stop(log):
        if len(log.loss) == 4:
            raise KeyboardInterrupt

    path, again = tmp_path / "run.pt", new()
    with pytest.raises(KeyboardInterrupt):
        fit(again, x[:40], y[:40], standard(), checkpoint=path, on_epoch=stop, **options)
    again = new()
    other = fit(again, x[:40], y[:40], standard(), checkpoint=path, **options)
    assert (other.kept, other.robust_upper.tolist()) == (log.kept, log.robust_upper.tolist())
    for name, value in again.state_dict().items():
        assert torch.equal(value, whole.state_dict()[name]), name


def test_an_objective_is_told_how_far_the_run_is(images):
    x, y = images
    seen = []

    class Told(objectives.Objective):
        def at(self, progress):
            seen.append(progress)
            return self

    fit(models.mlp(64, 2), x, y, Told(), epochs=3, lr=1e-2, batch=20)
    assert seen == pytest.approx([i / 9 for i in range(9)])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"warmup": 1.0}, "warmup is 1.0"),
        ({"warmup": -0.1}, "warmup is -0.1"),
        ({"keep": "first"}, "keep is 'first'; allowed: 'last', 'best'"),
        ({"keep": "best"}, "need a validation set"),
        ({"robust": Threat("linf", 0.1)}, "need a validation set"),
    ],
)
def test_options_that_make_no_sense_are_refused(images, options, words):
    with pytest.raises(ValueError, match=words):
        fit(models.mlp(64, 2), *images, standard(), epochs=1, lr=1e-2, **options)
