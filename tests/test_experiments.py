"""Records: what can be recomputed here is, and what cannot at least makes sense."""

import json

import pytest
import torch

from robcourse import data, linear, runtime, zoo
from robcourse.threat import Threat
from robcourse.zoo import experiments

RECORD = zoo.record("linear-hypothesis")


def test_every_experiment_has_its_record_and_every_record_its_experiment():
    there = {path.stem for path in (zoo.HERE / "records").glob("*.json")}
    assert there == set(experiments.EXPERIMENTS)


def test_the_digits_of_the_record_come_out_again():
    fresh, kept = experiments._two_classes("digits", (3, 8)), RECORD["digits"]
    for name in ("data", "classes", "data_sha256", "n", "d", "fit", "trained_at", "eps"):
        assert json.loads(json.dumps(fresh[name])) == kept[name]
    # Other versions of BLAS may move a score that is near 0: two images of 175, in each count.
    for kind, counts in kept["right"].items():
        assert fresh["right"][kind] == pytest.approx(counts, abs=2)
    assert fresh["right_by_chance"] == pytest.approx(kept["right_by_chance"], abs=2)
    assert fresh["l1_over_l2"] == pytest.approx(kept["l1_over_l2"], rel=0.02)


@pytest.mark.parametrize("name", ["digits", "fashion", "cifar10"])
def test_the_counts_of_a_record_are_possible(name):
    r = RECORD[name]
    assert r["eps"] == sorted(r["eps"])
    assert r["eps"][0] == 0
    for counts in r["right"].values():
        assert counts == sorted(counts, reverse=True)  # a larger ball never helps
        assert 0 <= counts[-1] <= counts[0] <= r["n"]
    for worst, chance in zip(r["right"]["standard"], r["right_by_chance"], strict=True):
        assert worst <= chance + 1e-9  # chance is one of the choices
    assert all(1 <= ratio <= r["d"] ** 0.5 for ratio in r["l1_over_l2"].values())


def test_chance_is_a_toss_for_every_pixel():
    digits = data.load("digits").only(3, 8)
    x, y = digits.test_x.flatten(1), 2 * digits.test_y - 1
    w, b = torch.ones(64), torch.tensor(-20.0)
    assert experiments._by_chance(w, b, x, y, 0.0) == int((y * (x.sum(1) - 20) > 0).sum())
    got = experiments._by_chance(w, b, x, y, 0.5, draws=30)
    with_their_own_tosses = []
    for seed in range(30):
        toss = torch.rand(x.shape, generator=runtime.generator(100 + seed, x)).round() - 0.5
        with_their_own_tosses.append(int((y * ((x + toss).clamp(0, 1).sum(1) - 20) > 0).sum()))
    assert got == pytest.approx(sum(with_their_own_tosses) / 30, abs=3)
    worst = 1 - linear.robust_risk(w, b, x, y, Threat("linf", 0.5))
    assert experiments._right(w, b, x, y, 0.5) == round(worst * len(y)) < got


def test_the_command_refuses_the_quick_profile_and_unknown_names(monkeypatch, capsys):
    monkeypatch.setenv("ROBCOURSE_PROFILE", "quick")
    assert experiments.main(["linear-hypothesis"]) == 2
    monkeypatch.setenv("ROBCOURSE_PROFILE", "full")
    assert experiments.main(["no-such-thing"]) == 2
    assert "ROBCOURSE_PROFILE=full" in capsys.readouterr().err


def test_a_record_is_whole_or_the_old_one(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("ROBCOURSE_PROFILE", "full")
    monkeypatch.setattr(experiments, "HERE", tmp_path)
    (tmp_path / "records").mkdir()
    old = tmp_path / "records" / "tiny.json"
    old.write_text('{"old": 1}')

    def breaks() -> dict:
        """An experiment that is cut off."""
        raise KeyboardInterrupt

    monkeypatch.setitem(experiments.EXPERIMENTS, "tiny", breaks)
    with pytest.raises(KeyboardInterrupt):
        experiments.main(["tiny"])
    assert json.loads(old.read_text()) == {"old": 1}

    def works() -> dict:
        """A tiny experiment."""
        return {"answer": 42}

    monkeypatch.setitem(experiments.EXPERIMENTS, "tiny", works)
    assert experiments.main(["tiny"]) == 0
    new = json.loads(old.read_text())
    assert new["answer"] == 42
    assert new["card"]["experiment"] == "A tiny experiment."
    assert new["card"]["command"].endswith("ONLY=tiny")
    assert capsys.readouterr().out == "tiny.json\n"
