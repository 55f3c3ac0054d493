"""Every refusal in its own words; models, gradients and random state left as they were found."""

import os
import subprocess
import sys
import textwrap

import pytest
import torch
from helpers import rng, unchecked, untouched
from torch import nn

from robcourse import models, runtime
from robcourse.attacks import fgsm
from robcourse.runtime import frozen, generator, validate
from robcourse.threat import Threat

X = torch.full((3, 1, 8, 8), 0.25)
Y = torch.tensor([0, 1, 2])
NAN = X.clone()
NAN[1, 0, 0, 0] = torch.nan
INF = X.clone()
INF[0, 0, 0, 0], INF[2, 0, 7, 7] = torch.inf, -torch.inf


def returns(value):
    """A model that returns the same whatever it gets."""
    return lambda x: value


def in_training():
    return models.small_conv((1, 8, 8), width=4).train()


def half_in_training():
    """The whole is in evaluation mode, one batch norm inside is not."""
    model = models.small_conv((1, 8, 8), width=4)
    model[2].train()
    return model


MODEL = models.mlp(64, 3)
REFUSED = {
    # name: (model, x, y, error, words of the message)
    "NaN": (MODEL, NAN, Y, ValueError, "x holds NaN or infinity in 1 of 3 examples"),
    "inf": (MODEL, INF, Y, ValueError, "x holds NaN or infinity in 2 of 3 examples"),
    "0-255": (MODEL, X * 1000, Y, ValueError,
              r"x runs from 250 to 250; the box is \[0, 1\]: divide by 255"),
    "normalised": (MODEL, (X - 0.5) / 0.5, Y, ValueError,
                   r"x runs from -0.5 .* put normalisation inside the model"),
    "normalised, above 2": (MODEL, torch.linspace(-2, 2.6, 192).view(3, 64), Y, ValueError,
                            r"x runs from -2 to 2.6; .* put normalisation inside the model"),
    "uint8": (MODEL, (X * 255).to(torch.uint8), Y, TypeError,
              r"x is a torch.uint8 tensor; expected a floating-point .* x.float\(\) / 255"),
    "list": (MODEL, X.tolist(), Y, TypeError, "x is list; expected a floating-point tensor"),
    "array": (MODEL, X.numpy(), Y, TypeError, "x is ndarray; expected a floating-point tensor"),
    "none": (MODEL, None, Y, TypeError, "x is NoneType; expected"),
    "empty batch": (MODEL, X[:0], Y[:0], ValueError, r"shape \(0, 1, 8, 8\): the batch is empty"),
    "empty examples": (MODEL, X.flatten(1)[:, :0], Y, ValueError,
                       r"x has shape \(3, 0\): each example is empty"),
    "one-dimensional": (MODEL, X[0, 0, 0], Y, ValueError,
                        r"x has shape \(8,\); expected a batch .* use x\[None\]"),
    "zero-dimensional": (MODEL, torch.tensor(0.5), Y, ValueError, r"x has shape \(\); expected a"),
    "labels too large": (MODEL, X, Y + 1, ValueError,
                         "y runs from 1 to 3; the model has 3 classes, so labels are 0 … 2"),
    "negative labels": (MODEL, X, Y - 1, ValueError, "y runs from -1 to 1; the model has 3"),
    "float labels": (MODEL, X, Y.float(), TypeError,
                     r"y is a torch.float32 tensor; expected an int64 tensor .* use y.long\(\)"),
    "int32 labels": (MODEL, X, Y.int(), TypeError, r"y is a torch.int32 tensor; .* y.long\(\)"),
    "list of labels": (MODEL, X, [0, 1, 2], TypeError, "y is list; expected an int64 tensor"),
    "too few labels": (MODEL, X, Y[:2], ValueError,
                       r"y has shape \(2,\); x has 3 examples, so expected \(3,\)"),
    "one-hot labels": (MODEL, X, torch.eye(3).long(), ValueError, r"y has shape \(3, 3\); x has 3"),
    "training": (in_training(), X, Y, ValueError, r"training mode, .* call model.eval\(\) first"),
    "half in training": (half_in_training(), X, Y, ValueError, "the model is in training mode"),
    "1-D logits": (returns(torch.zeros(3)), X, Y, ValueError,
                   r"the model gave \(3,\) for one example; expected logits \[1, k\] with k ≥ 2"),
    "3-D logits": (returns(torch.zeros(1, 3, 1)), X, Y, ValueError, r"gave \(1, 3, 1\) for one"),
    "one class": (returns(torch.zeros(1, 1)), X, Y, ValueError, r"gave \(1, 1\) for one example"),
    "two rows": (returns(torch.zeros(2, 3)), X, Y, ValueError, r"gave \(2, 3\) for one example"),
    "a tuple": (returns((torch.zeros(1, 3), 0)), X, Y, ValueError, "gave tuple for one example"),
    "labels, not logits": (returns(torch.zeros(1, 3).long()), X, Y, ValueError,
                           "the model gave torch.int64; expected floating-point logits"),
    "nothing": (returns(None), X, Y, ValueError, "gave NoneType for one example"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_validate_refuses_in_words(name):
    model, x, y, error, words = REFUSED[name]
    with unchecked(), pytest.raises(error, match=words):
        validate(model, x, y)


@pytest.mark.parametrize("name", ["NaN", "0-255", "empty batch", "one-dimensional", "training",
                                  "labels too large", "1-D logits", "list"])  # fmt: skip
def test_an_attack_says_the_same(name):
    model, x, y, error, words = REFUSED[name]
    with unchecked(), pytest.raises(error, match=words):
        fgsm(model, x, y, Threat("linf", 0.1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_validate_accepts_what_is_right(dtype):
    model, x = models.mlp(64, 3).to(dtype), X.to(dtype, copy=True).requires_grad_()
    with untouched(model, x, Y):
        validate(model, x, Y)
        validate(None, x)
        validate(model, x)
        validate(lambda x: x.flatten(1)[:, :3], x, Y)


def test_validate_takes_the_walls_of_the_box_themselves():
    validate(None, torch.tensor([[0.0, 1.0]]))
    up = torch.nextafter(torch.tensor([[0.0, 1.0]]), torch.tensor(2.0))
    with pytest.raises(ValueError, match="the box is"):
        validate(None, up)
    validate(None, torch.tensor([[-3.0, 300.0]]), box=(-3.0, 300.0))


def test_pixels_without_a_box_are_warned_of_where_the_caller_stands():
    with pytest.warns(UserWarning, match="box is None, but x looks like images with pixels in"):
        Threat("linf", 0.1, None).validate(None, X)
    code = """
        import torch
        from robcourse import attacks, models, threat
        x, y = torch.rand(2, 1, 8, 8), torch.tensor([0, 1])
        attacks.pgd(models.mlp(64, 2), x, y, threat.Threat("linf", 0.1, None))
    """
    status, _, err = python(code)
    assert status == 0
    assert err.startswith("<string>:5: UserWarning: threat.box is None"), err
    # No images: no warning (any warning is an error here).
    validate(None, X.flatten(1), box=None)
    validate(None, X - 1, box=None)


def test_unknown_norm_and_eps_in_grey_values():
    with pytest.raises(ValueError, match="norm is 'L∞'; allowed: 'linf', 'l2', 'l1'"):
        Threat("L∞", 0.1)
    with pytest.raises(ValueError, match=r"eps is 8, .* so write 8/255"):
        Threat("linf", 8.0)
    for norm in ("l2", "l1"):
        with pytest.raises(ValueError, match="eps is 100, but two inputs are at most"):
            fgsm(MODEL, X, Y, Threat(norm, 100.0))


# frozen.


def mixed_model():
    """Submodules in modes of their own, parameters with flags of their own, one gradient."""
    model = models.small_conv((1, 8, 8), width=4)
    for i, m in enumerate(model.modules()):
        m.training = i % 3 == 0
    for i, p in enumerate(model.parameters()):
        p.requires_grad_(i % 2 == 0)
    next(model.parameters()).grad = torch.ones_like(next(model.parameters()))
    return model


def test_frozen_restores_each_mode_and_each_flag():
    model = mixed_model()
    with untouched(model), frozen(model) as inside:
        assert inside is model
        assert not any(m.training for m in model.modules())
        assert not any(p.requires_grad for p in model.parameters())
        with frozen(model):  # one inside the other, as attack and judge are
            model(X)
        assert not any(p.requires_grad for p in model.parameters())


def test_frozen_restores_also_when_the_body_raises():
    model = mixed_model()
    with untouched(model), pytest.raises(RuntimeError, match="mine"), frozen(model):
        raise RuntimeError("mine")


def test_frozen_keeps_batch_statistics_and_gives_a_gradient_in_x_only():
    model = models.small_conv((1, 8, 8), width=4).train()
    with untouched(model):
        with frozen(model):
            z = X.clone().requires_grad_()
            model(z).sum().backward()
        assert z.grad is not None


def test_frozen_takes_a_plain_function():
    f = returns(1)
    with frozen(f) as inside:
        assert inside is f


# Seeds, devices, profile.


def test_generator_is_its_own_and_follows_seed_and_device():
    x = torch.zeros(2)
    with untouched():
        a, b, c = (torch.rand(5, generator=generator(s, x)) for s in (7, 7, 8))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    assert torch.equal(a, torch.rand(5, generator=rng(7)))
    assert generator(0, x).device == x.device
    assert runtime.device().type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.gpu
def test_generator_on_a_gpu():
    x = torch.zeros(2, device="cuda")
    with untouched():
        a, b = (torch.rand(5, generator=generator(7, x), device="cuda") for _ in range(2))
    assert torch.equal(a, b)
    validate(models.mlp(64, 3).cuda(), X.cuda(), Y.cuda())


def test_profile_is_quick_full_or_an_error(monkeypatch):
    monkeypatch.delenv("ROBCOURSE_PROFILE", raising=False)
    assert runtime.profile() == "quick"
    for name in ("quick", "full"):
        monkeypatch.setenv("ROBCOURSE_PROFILE", name)
        assert runtime.profile() == name
    monkeypatch.setenv("ROBCOURSE_PROFILE", "Full")
    with pytest.raises(ValueError, match="ROBCOURSE_PROFILE is 'Full'; allowed: 'quick', 'full'"):
        runtime.profile()


# torchvision.


def python(code, **env):
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True, text=True, env={**os.environ, **env}, timeout=120,
    )  # fmt: skip
    return done.returncode, done.stdout.strip(), done.stderr.strip()


def test_torchvision_can_be_used_here():
    code = """
        from robcourse import runtime
        tv = runtime.torchvision()
        assert runtime.torchvision() is tv
        from torchvision import datasets, transforms
        import torch
        assert transforms.functional.hflip(torch.tensor([[[1, 2]]])).tolist() == [[[2, 1]]]
        print(len(datasets.FakeData(3, (1, 4, 4))))
    """
    assert python(code)[:2] == (0, "3")


def fake_torchvision(folder, body):
    """A package of that name, to be found first, that counts how often it is imported."""
    (folder / "torchvision").mkdir()
    count = f"with open({str(folder / 'count')!r}, 'a') as f:\n    f.write('x')\n"
    (folder / "torchvision" / "__init__.py").write_text(count + textwrap.dedent(body))
    return lambda: len((folder / "count").read_text())


@pytest.fixture
def no_torchvision(monkeypatch, tmp_path):
    """A folder that is searched first, and nothing of torchvision imported yet."""
    for name in [n for n in sys.modules if n.split(".")[0] == "torchvision"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(runtime, "_TORCHVISION", [])
    yield tmp_path
    sys.modules.pop("torchvision", None)


@pytest.mark.parametrize(
    ("error", "words"),
    [(RuntimeError, "out of memory"), (ImportError, "no _C"), (ValueError, "torchvision::nms")],
)
def test_another_failure_of_torchvision_is_passed_on_unchanged(no_torchvision, error, words):
    imports = fake_torchvision(no_torchvision, f"raise {error.__name__}({words!r})")
    with pytest.raises(error, match=words):
        runtime.torchvision()
    assert imports() == 1
    assert runtime._TORCHVISION == []  # no operator was declared


def test_torchvision_that_imports_is_left_alone(no_torchvision):
    imports = fake_torchvision(no_torchvision, "answer = 42")
    assert runtime.torchvision().answer == 42
    assert imports() == 1
    assert runtime._TORCHVISION == []


def torchvision_elsewhere(folder, body):
    """[the answers to two calls, operators declared, imports] in a process of its own."""
    imports = fake_torchvision(folder, body)
    code = """
        from robcourse import runtime
        for _ in range(2):
            try:
                print(runtime.torchvision().answer)
            except RuntimeError as e:
                print(e)
        print(len(runtime._TORCHVISION))
    """
    status, out, err = python(code, PYTHONPATH=str(folder))
    assert status == 0, err
    return [*out.splitlines(), imports()]


def test_missing_operators_are_declared_only_after_that_very_failure(tmp_path):
    """The fake fails as the real one does: it registers a fake kernel of an undeclared operator."""
    body = """
        import torch
        @torch.library.register_fake("torchvision::nms")
        def _(dets, scores, threshold):
            return dets
        answer = 42
    """
    assert torchvision_elsewhere(tmp_path, body) == ["42", "42", "1", 2]


def test_a_second_failure_of_the_same_kind_is_passed_on(tmp_path):
    body = "raise RuntimeError('operator torchvision::other does not exist')"
    words = "operator torchvision::other does not exist"
    assert torchvision_elsewhere(tmp_path, body) == [words, words, "1", 3]


def test_models_may_be_plain_functions_or_modules():
    model = nn.Sequential(nn.Flatten(), nn.Identity()).eval()
    validate(model, X)
    validate(model.forward, X)


@pytest.mark.parametrize(("value", "off"), [(None, False), ("", False), ("0", False), ("1", True)])
def test_progress_bars_are_off_where_the_environment_says_so(monkeypatch, value, off):
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    if value is not None:
        monkeypatch.setenv("TQDM_DISABLE", value)
    assert runtime.quiet() is off
