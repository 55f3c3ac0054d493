"""Records: what can be recomputed here is, and what cannot at least makes sense."""

import itertools
import json

import pytest
import torch

from robcourse import data, linear, models, runtime, smoothing, zoo
from robcourse.intervals import clopper_pearson
from robcourse.threat import Threat
from robcourse.zoo import experiments
from robcourse.zoo.experiments import ch01_linear_hypothesis as ch01
from robcourse.zoo.experiments import ch06_tradeoff as ch06
from robcourse.zoo.experiments.__main__ import main

RECORD = zoo.record("linear-hypothesis")
NEAR, MOVED, LONG, MORE = (
    zoo.record(name)
    for name in ("class-distances", "transfer", "robust-overfitting", "adversarial-data")
)


def test_every_experiment_has_its_record_and_every_record_its_experiment():
    there = {path.stem for path in (zoo.HERE / "records").glob("*.json")}
    assert there == set(experiments.EXPERIMENTS)


def test_the_digits_of_the_record_come_out_again():
    fresh, kept = ch01._two_classes("digits", (3, 8)), RECORD["digits"]
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
    assert ch01._by_chance(w, b, x, y, 0.0) == int((y * (x.sum(1) - 20) > 0).sum())
    got = ch01._by_chance(w, b, x, y, 0.5, draws=30)
    with_their_own_tosses = []
    for seed in range(30):
        toss = torch.rand(x.shape, generator=runtime.generator(100 + seed, x)).round() - 0.5
        with_their_own_tosses.append(int((y * ((x + toss).clamp(0, 1).sum(1) - 20) > 0).sum()))
    assert got == pytest.approx(sum(with_their_own_tosses) / 30, abs=3)
    worst = 1 - linear.robust_risk(w, b, x, y, Threat("linf", 0.5))
    assert ch01._right(w, b, x, y, 0.5) == round(worst * len(y)) < got


def test_the_command_refuses_the_quick_profile_and_unknown_names(monkeypatch, capsys):
    monkeypatch.setenv("ROBCOURSE_PROFILE", "quick")
    assert main(["linear-hypothesis"]) == 2
    monkeypatch.setenv("ROBCOURSE_PROFILE", "full")
    assert main(["no-such-thing"]) == 2
    assert "ROBCOURSE_PROFILE=full" in capsys.readouterr().err


def test_a_record_is_whole_or_the_old_one(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("ROBCOURSE_PROFILE", "full")
    monkeypatch.setattr("robcourse.zoo.experiments.__main__.HERE", tmp_path)
    (tmp_path / "records").mkdir()
    old = tmp_path / "records" / "tiny.json"
    old.write_text('{"old": 1}')

    def breaks() -> dict:
        """An experiment that is cut off."""
        raise KeyboardInterrupt

    monkeypatch.setitem(experiments.EXPERIMENTS, "tiny", breaks)
    with pytest.raises(KeyboardInterrupt):
        main(["tiny"])
    assert json.loads(old.read_text()) == {"old": 1}

    def works() -> dict:
        """A tiny experiment."""
        return {"answer": 42}

    monkeypatch.setitem(experiments.EXPERIMENTS, "tiny", works)
    assert main(["tiny"]) == 0
    new = json.loads(old.read_text())
    assert new["answer"] == 42
    assert new["card"]["experiment"] == "A tiny experiment."
    assert new["card"]["command"].endswith("ONLY=tiny")
    assert capsys.readouterr().out == "tiny.json\n"


def test_the_search_for_near_pairs_misses_none():
    """Against all pairs, with duplicates and near duplicates put in by hand."""
    gen = runtime.generator(0, torch.zeros(1))
    a = torch.randint(0, 40, (120, 3, 32, 32), generator=gen).to(torch.uint8)
    b = torch.randint(0, 256, (80, 3, 32, 32), generator=gen).to(torch.uint8)
    ya, yb = torch.arange(120) % 2, torch.arange(80) % 3
    a[5], b[3], b[4] = a[8], a[11], a[12] + 3
    for other, labels in ((a, ya), (b, yb)):
        apart = (a[:, None].short() - other[None].short()).abs().flatten(2).amax(2)
        for most in (0, 3, 38):
            levels, pairs = ch06._close(a, ya, other, labels, most, (8, 4))
            wanted = ((apart <= most) & (ya[:, None] != labels)).nonzero()
            assert sorted(pairs.tolist()) == wanted.tolist()
            assert torch.equal(levels.int(), apart[pairs[:, 0], pairs[:, 1]].int())


@pytest.mark.parametrize("name", ["cifar10", "fashion"])
def test_the_record_of_distances_holds_together(name):
    r = NEAR[name]
    assert r["pairs"] == r["n"] * (r["n"] - 1) // 2
    assert r["n"] % 10 == 0  # ten classes of one size
    assert r["pairs_of_different_classes"] == 45 * (r["n"] // 10) ** 2
    within = list(r["pairs_within"].values())
    assert within == sorted(within)
    nearest = r["train_train"]
    for found in nearest["nearest"]:
        assert found["classes"][0] != found["classes"][1]
        blocks = torch.tensor(found["difference"])
        assert blocks.min() >= 0
        assert blocks.max() <= nearest["levels"]
    before = 0.0
    for floor in r["floor"]:
        assert before <= floor["lower"] <= floor["upper"] <= 0.9
        assert floor["exact"] == (floor["lower"] == floor["upper"])
        assert (floor["conflicts"] > 0) == (2 * 255 * floor["eps"] >= nearest["levels"] - 1e-6)
        assert floor["upper"] * r["n"] <= floor["conflicts"]
        before = floor["lower"]


def test_the_smallest_distances_are_those_that_others_found():
    """Yang et al. 2020, table 1, print 0.212 and 0.220; 20 test images here are stand-ins."""
    assert (NEAR["cifar10"]["train_train"]["levels"], NEAR["cifar10"]["train_test"]["levels"]) == (
        54,
        56,
    )
    assert NEAR["cifar10"]["train_train"]["nearest"][0]["indices"] == [33862, 38299]


def test_no_family_gives_back_what_was_wrong():
    names = {name for name in zoo.cards() if name.startswith("cifar10-")}
    assert set(MOVED["right"]) == names - {"cifar10-lipschitz"}  # made after the record
    for name, right in MOVED["right"].items():
        assert set(right) == {"untouched", *MOVED["families"]}
        assert all(0 <= k <= right["untouched"] <= MOVED["n"] for k in right.values()), name
    linf, plain = MOVED["right"]["cifar10-linf"], MOVED["right"]["cifar10-standard"]
    assert linf["linf"] > plain["linf"]


def test_an_image_turned_by_nothing_is_itself_and_by_a_quarter_is_rot90():
    x = torch.rand(3, 3, 8, 8, generator=runtime.generator(1, torch.zeros(1)))
    torch.testing.assert_close(ch06._turned(x, 0.0), x, atol=1e-5, rtol=0)
    turned = ch06._turned(x, torch.pi / 2)
    either = [(turned - x.rot90(k, (2, 3))).abs().max() < 1e-4 for k in (1, 3)]
    assert sum(either) == 1


def test_families_are_searched_for_an_ordinary_network():
    """A rule that looks at the mean brightness alone: shifts break it, turns hardly do."""

    class Bright(torch.nn.Module):
        def forward(self, x):
            mean = x.flatten(1).mean(1, keepdim=True)
            return torch.cat([0.5 - mean, mean - 0.5, mean - 5], 1)

    x = torch.full((4, 3, 8, 8), 0.5) + torch.tensor([-0.4, -0.1, 0.1, 0.4])[:, None, None, None]
    found = ch06._families(Bright().eval(), x, torch.tensor([0, 0, 1, 1]))
    assert found["untouched"] == 4
    assert found["brightness"] == 2
    assert found["linf"] == 4


@pytest.mark.parametrize("record", [LONG, MORE], ids=["long", "more"])
def test_the_watched_runs_are_possible(record):
    for n, run in record["runs"].items():
        assert int(n) >= run["n"]
        assert run["epochs"][-1] == record["fit"]["epochs"] == len(run["loss"])
        assert all(b - a <= record["every"] for a, b in itertools.pairwise(run["epochs"]))
        for counts in run["right"].values():
            assert len(counts["clean"]) == len(counts["robust_upper"]) == len(run["epochs"])
            pairs = zip(counts["clean"], counts["robust_upper"], strict=True)
            assert all(0 <= robust <= clean <= run["n"] for clean, robust in pairs)


GROWN = zoo.record("concentration")


def test_the_sets_that_were_found_are_possible():
    assert GROWN["network"]["name"] in zoo.cards()
    for row in GROWN["rows"]:
        assert 0 <= row["broken"] <= GROWN["attack"]["n"]
        assert {e["found"].split()[-1] for e in row["sets"]} <= {"half-space", "ball", "balls"}
        for e in row["sets"]:
            assert (e["eps"], e["norm"], e["n"]) == (row["eps"], row["norm"], GROWN["network"]["n"])
            assert 0 < e["inside"] <= e["expanded"] <= e["n"]
    for norm in ("l2", "linf"):
        rows = [row for row in GROWN["rows"] if row["norm"] == norm]
        assert [r["eps"] for r in rows] == sorted(r["eps"] for r in rows)
        assert [r["broken"] for r in rows] == sorted(r["broken"] for r in rows)


@pytest.mark.parametrize("sigma", ["0.12", "0.25", "0.50", "1.00"])
def test_the_counts_of_the_certificates_are_possible(sigma):
    record, card = zoo.record(f"certified-{sigma}"), zoo.cards()[f"cifar10-noise-{sigma}"]
    plan = smoothing.Plan(**record["plan"])
    assert plan.sigma == float(sigma)
    assert record["weights_sha256"] == card.weights_sha256
    assert record["columns"] == ["image", "y", "label", "hits", "drawn"]
    images = [row[0] for row in record["counted"]]
    assert images == sorted(set(images))
    spare = plan.n - plan.fewest()
    for _, y, label, hits, drawn in record["counted"]:
        assert 0 <= min(y, label) <= max(y, label) < plan.classes
        assert 0 <= hits <= drawn <= plan.n
        assert (drawn == plan.n) == (drawn - hits <= spare) or drawn - hits <= spare + 100
    share = sum(row[1] == row[2] for row in record["counted"]) / len(images)
    low, high = clopper_pearson(round(share * len(images)), len(images), 1e-6)
    assert low - 0.2 < card.clean["accuracy"] < high + 0.2  # other inputs, not another network


@pytest.mark.parametrize("sigma", ["0.25", "1.00"])
def test_counts_come_out_again_from_the_real_data(sigma):
    """Two images of a record, drawn again: the same seeds, perhaps another arithmetic."""
    if runtime.profile() != "full":
        pytest.skip("cifar10 is read in the full profile only")
    record, images = zoo.record(f"certified-{sigma}"), data.load("cifar10").test_x
    net = models.Bfloat16(zoo.load(f"cifar10-noise-{sigma}")[0])
    plan = smoothing.Plan(**record["plan"])
    rows = {row[0]: row for row in record["counted"][:2]}
    for c in smoothing.count(net, images[list(rows)], plan, list(rows)):
        _, _, label, hits, drawn = rows[c.image]
        assert c.label == label
        assert abs(c.drawn - drawn) <= 0.01 * plan.n
        assert abs(c.hits - hits) <= 0.01 * plan.n
