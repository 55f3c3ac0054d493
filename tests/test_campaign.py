"""A run as a file: the same file however often it was stopped, and nothing lost or done twice."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from helpers import Half, rng

from robcourse import campaign, cli, smoothing
from robcourse.smoothing import Plan

PLAN = Plan(sigma=0.3, classes=2, n0=50, n=400, alpha=0.01)


class Counting(Half):
    """It counts the draws it has seen."""

    draws = 0

    def forward(self, x):
        Counting.draws += len(x)
        return super().forward(x)


@pytest.fixture
def images():
    x = torch.rand(12, 1, 2, 2, generator=rng(0))
    x[:, 0, 0, 0] = torch.linspace(0, 1, 12)
    return x, (x[:, 0, 0, 0] > 0.5).long(), list(range(5, 17))


def whole(path, images, plan=PLAN, **origin):
    x, y, numbers = images
    return campaign.certify(
        path, Counting().eval(), x, y, numbers, plan, {"model": "half"} | origin
    )


def test_a_file_holds_what_certify_returns(images, tmp_path):
    run = whole(tmp_path / "deep" / "run.jsonl", images)
    x, y, numbers = images
    direct = smoothing.certify(
        Counting().eval(), x, sigma=0.3, classes=2, n0=50, n=400, alpha=0.01, images=numbers
    )
    again = campaign.read(tmp_path / "deep" / "run.jsonl")
    for found in (run, again):
        assert torch.equal(found.certificate.radius, direct.radius)
        assert torch.equal(found.certificate.abstain, direct.abstain)
        assert torch.equal(found.y, y)
        assert found.missing == 0
    assert again.card["model"] == "half"
    _, *lines = (tmp_path / "deep" / "run.jsonl").read_text().splitlines()
    assert [json.loads(line)["image"] for line in lines] == numbers
    assert not list(tmp_path.rglob("*.part"))


def test_a_cut_file_is_finished_to_the_same_bytes_and_nothing_is_drawn_twice(images, tmp_path):
    path = tmp_path / "run.jsonl"
    whole(path, images)
    raw = path.read_bytes()
    Counting.draws = 0
    whole(path, images)
    assert path.read_bytes() == raw
    assert Counting.draws <= 2  # the validation's look at one image
    for cut in (len(raw) - 5, len(raw) // 2, raw.index(b"\n") + 1, raw.index(b"\n") + 30):
        path.write_bytes(raw[:cut])
        Counting.draws = 0
        whole(path, images)
        assert path.read_bytes() == raw
        assert 0 < Counting.draws < 12 * 450 + 10


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda raw: b"", "not the file of a run"),
        (lambda raw: b"image,label\n1,2\n", "not the file of a run"),
        (lambda raw: raw.replace(b'"hits"', b'"hists"', 1), "not the file of a run, or is damaged"),
        (lambda raw: raw.replace(b'"hits": ', b'"hits": 9', 1), "impossible counts"),
        (lambda raw: raw.replace(b'"label": ', b'"label": 7', 1), "impossible label"),
        (lambda raw: raw.replace(b'"y": 0', b'"y": null', 1), "expected whole numbers"),
        (lambda raw: raw.replace(b'"images": [', b'"pictures": [', 1), "not the file of a run"),
    ],
)
def test_what_is_no_file_of_a_run_is_refused_and_left_alone(images, tmp_path, spoil, words):
    path = tmp_path / "run.jsonl"
    whole(path, images)
    spoiled = spoil(path.read_bytes())
    path.write_bytes(spoiled)
    with pytest.raises(ValueError, match=words):
        campaign.read(path)
    with pytest.raises(ValueError, match=words):
        whole(path, images)
    assert path.read_bytes() == spoiled


def test_to_look_at_a_run_changes_nothing_and_only_one_writes_it(images, tmp_path):
    path = tmp_path / "run.jsonl"
    whole(path, images)
    cut = path.read_bytes()[:-5]
    path.write_bytes(cut)
    assert campaign.read(path).missing == 1
    assert path.read_bytes() == cut

    class Meanwhile(Counting):
        def forward(self, x):
            with pytest.raises(ValueError, match="another command is writing"):
                whole(path, images)
            return super().forward(x)

    x, y, numbers = images
    run = campaign.certify(path, Meanwhile().eval(), x, y, numbers, PLAN, {"model": "half"})
    assert run.missing == 0


@pytest.mark.parametrize(
    ("plan", "numbers", "words"),
    [
        (Plan(0.3, 5, n=100), range(12), "classes is 5; the model has 2"),
        (PLAN, [0] * 12, "expected each once"),
        (PLAN, range(-1, 11), "expected each once, from 0 up"),
    ],
)
def test_what_is_refused_leaves_no_file(images, tmp_path, plan, numbers, words):
    x, y, _ = images
    with pytest.raises(ValueError, match=words):
        campaign.certify(tmp_path / "run", Counting().eval(), x, y, numbers, plan, {})
    assert not (tmp_path / "run").exists()


def test_a_file_grows_with_the_images_that_are_asked_for(images, tmp_path):
    x, y, numbers = images
    path = tmp_path / "run.jsonl"
    whole(path, (x[::3], y[::3], numbers[::3]))
    Counting.draws = 0
    whole(path, images)
    assert Counting.draws < 9 * 450 + 10  # the first four are not drawn again
    whole(tmp_path / "at_once", images)
    assert path.read_bytes() == (tmp_path / "at_once").read_bytes()
    with pytest.raises(ValueError, match="differs in images"):
        whole(path, (x[::3], y[::3], numbers[::3]))  # it never shrinks


def test_a_file_of_another_run_is_refused(images, tmp_path):
    path = tmp_path / "run.jsonl"
    whole(path, images)
    with pytest.raises(ValueError, match="of another run: it differs in plan"):
        whole(path, images, Plan(0.5, 2, 50, 400, 0.01))
    with pytest.raises(ValueError, match="differs in weights_sha256"):
        whole(path, images, weights_sha256="other")
    x, y, numbers = images
    with pytest.raises(ValueError, match="differs in images"):
        whole(path, (x, y, [n + 1 for n in numbers]))


COMMAND = ["certify", "digits-3v8-conv", "--data", "digits", "--sigma", "0.25", "--n", "3000"]


def test_the_command_killed_and_typed_again_gives_the_same_file(tmp_path, capsys, monkeypatch):
    """On a network of ten classes; killed by SIGKILL in the middle."""
    command = [c.replace("digits-3v8-conv", "digits-conv") for c in COMMAND] + ["--limit", "30"]
    line = lambda name: [*command, "--out", str(tmp_path / name)]
    env = os.environ | {"TQDM_DISABLE": "1", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, "-m", "robcourse.cli", *line("killed")], env=env)
    until = time.monotonic() + 120
    count = lambda: (tmp_path / "killed").read_bytes().count(b"\n")
    while not ((tmp_path / "killed").exists() and count() > 3) and time.monotonic() < until:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = count() - 1
    assert 3 <= done < 30
    assert cli.main(line("killed")) == 0
    assert cli.main(line("whole")) == 0
    assert (tmp_path / "killed").read_bytes() == (tmp_path / "whole").read_bytes()
    capsys.readouterr()
    assert cli.main(["analyze", str(tmp_path / "whole"), "--radii", "0", "0.25"]) == 0
    told = capsys.readouterr().out
    assert "| ℓ2 radius | certified accuracy (≥)" in told
    assert "| 0.25 |" in told


def test_a_cluster_gives_the_same_file_also_when_a_worker_is_killed(tmp_path, cluster):
    """Two workers of Dask, one killed by SIGKILL as soon as some images are finished."""
    address, workers = cluster
    command = [c.replace("digits-3v8-conv", "digits-conv") for c in COMMAND] + ["--limit", "60"]
    line = lambda name: [*command, "--out", str(tmp_path / name)]
    env = os.environ | {"TQDM_DISABLE": "1", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "robcourse.cli", *line("shared"), "--scheduler", address], env=env
    )
    count = lambda: (tmp_path / "shared").read_bytes().count(b"\n")
    while not ((tmp_path / "shared").exists() and count() > 3) and process.poll() is None:
        time.sleep(0.01)
    workers[0].kill()
    assert count() - 1 < 60, "it was killed in the middle"
    assert process.wait(timeout=300) == 0
    assert cli.main(line("alone")) == 0
    assert (tmp_path / "shared").read_bytes() == (tmp_path / "alone").read_bytes()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (["--sigma", "-1"], "sigma is -1.0"),
        (["--n", "0"], "n is 0"),
        (["--alpha", "2"], "alpha is 2.0"),
        (["--data", "imagenet"], "name is 'imagenet'; allowed"),
        (["--limit", "2"], "classes is 10; the model has 2"),
        (["--seed", "-1"], "seed is -1"),
        (["--first", "5000"], "--first is 5000; digits has 899 test images"),
        (["--scheduler", "tcp://127.0.0.1:1"], "127.0.0.1:1"),
    ],
)
def test_the_command_refuses_in_a_line(tmp_path, capsys, change, words):
    out = tmp_path / "run"
    assert cli.main([*COMMAND, "--out", str(out), *change]) == 2
    said = capsys.readouterr().err
    assert words in said
    assert said.startswith("robcourse: ")


def test_a_model_of_ones_own_is_named_by_module_and_function(tmp_path, monkeypatch, capsys):
    (tmp_path / "mine_for_a_test.py").write_text(
        "from robcourse import models\n\ndef net():\n    return models.mlp(64, 10, seed=3)\n\n"
        "def number():\n    return 3\n\ndef broken():\n    return 1 / 0\n"
    )
    monkeypatch.chdir(tmp_path)
    line = ["certify", "mine_for_a_test:net", "--data", "digits", "--sigma", "0.5", "--n", "100"]
    assert cli.main([*line, "--limit", "3", "--out", "run"]) == 0
    assert "3 images in run" in capsys.readouterr().out
    assert cli.main(["analyze", "run", "--figure", "curve.png"]) == 0
    assert (tmp_path / "curve.png").stat().st_size > 1000
    line[1] = "mine_for_a_test:number"
    assert cli.main([*line, "--out", "other"]) == 2
    for name, words in (("nothing", "AttributeError"), ("broken", "ZeroDivisionError")):
        line[1] = f"mine_for_a_test:{name}"
        assert cli.main([*line, "--out", "other"]) == 2
        assert f"{line[1]} failed with {words}" in capsys.readouterr().err
    assert not Path("other").exists()
    card = campaign.read("run").card
    assert {"source_sha256", "weights_sha256", "device", "torch"} < set(card)
