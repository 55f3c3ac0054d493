"""Records: what can be recomputed here is, and what cannot at least makes sense."""

import itertools
import json

import pytest
import torch

from robcourse import data, linear, models, runtime, smoothing, zoo
from robcourse.intervals import clopper_pearson
from robcourse.threat import Threat, margin
from robcourse.zoo import experiments
from robcourse.zoo.experiments import ch01_linear_hypothesis as ch01
from robcourse.zoo.experiments import ch06_tradeoff as ch06
from robcourse.zoo.experiments import ch10_detector, ch10_language, ch10_weights
from robcourse.zoo.experiments import ch10_flatness as ch10
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


FLAT = {name: zoo.record(f"flatness-{name}")
        for name in ("basins", "valley", "masking", "detector", "layers", "weights")}  # fmt: skip


def leaves(value, path=()):
    """Every network's part of a record: the dictionaries that name their weights."""
    if isinstance(value, dict):
        if "weights_sha256" in value:
            yield path, value
        for key, part in value.items():
            yield from leaves(part, (*path, key))


@pytest.mark.parametrize("name", FLAT)
def test_the_networks_of_a_record_are_those_of_the_zoo(name):
    known = {card.weights_sha256: card for card in zoo.cards().values()}
    found = list(leaves(FLAT[name]))
    assert found
    for path, part in found:
        card = known[part["weights_sha256"]]
        assert card.name in path or name == "layers"
        assert (part["data"], part["data_sha256"]) == (card.data, card.data_sha256)


def test_the_basins_are_possible():
    for path, r in leaves(FLAT["basins"]):
        assert 0 <= r["flipped"] <= r["right"] <= r["n"]
        for s, grown in r["increase"].items():
            assert set(grown) == {"kept", "flipped", "mean"}, s
            for part in (grown["kept"], grown["flipped"]):
                assert part is None or part == sorted(part)
        for width in r["width"].values():
            assert width["took_off"] <= r["right"]
            for row in (width["rank_correlation"] or {}).values():
                if isinstance(row, list):
                    assert -1 <= row[1] <= row[2] <= 1
            # A radius that was proved is not longer than a basin that was found.
            assert width.get("below_radius", 0) == 0, path


def test_the_valleys_are_possible():
    for _, r in leaves(FLAT["valley"]):
        assert len(r["wrong"]) == r["steps"] + 1
        assert r["wrong"][0] == 0
        end = r["wrong_at_the_end"]
        assert r["wrong"][-1] == end["n"]
        assert all(0 <= count <= end["n"] for count in end.values())
        for rows in r["along"].values():
            assert len(rows) == r["steps"] + 1
            assert all(row == sorted(row) for row in rows)
        assert all(row[2] <= 2**0.5 + 1e-3 for row in r["along"]["logit_slope"])
        assert all(row[2] <= 1 for row in r["along"]["confidence"])


def test_an_attack_that_needs_no_softmax_does_not_feel_the_scale():
    for _, r in leaves(FLAT["masking"]):
        rows = [r["rows"][f"{s:g}"] for s in FLAT["masking"]["scales"]]
        for row in rows:
            assert abs(row["right"]["margin"] - rows[0]["right"]["margin"]) <= 0.01 * r["n"]
            assert all(0 <= k <= r["untouched"] for k in row["right"].values())
            assert row["right_float64"] <= r["untouched_few"]
            moved, first = (v["wrong_at_the_points_of_scale_1"] for v in (row, rows[0]))
            assert abs(moved - first) <= 0.002 * r["n"]
        silent = [row["gradient_exactly_zero"] for row in rows]
        assert silent == sorted(silent)


def test_the_detectors_are_possible():
    for _, r in leaves(FLAT["detector"]):
        for row in [*r["levels"].values(), r["adaptive"]]:
            assert 0 <= row["wrong"] <= r["right"] <= r["n"]
            for sign in ("sharpness", "confidence"):
                told = row[sign]
                assert told["of"] == 2 * row["wrong"]
                low, high = told["interval"]
                assert 0 <= low <= told["auc_lower_when_attacked"] <= high <= 1
                assert len(told["folds"]) == 5
                mean = sum(told["folds"]) / 5
                assert told["stump_right"] / told["of"] == pytest.approx(mean, abs=0.02)
        assert r["adaptive"]["judged_wrong"] == r["adaptive"]["wrong"]  # all of them allowed


def test_hutchinson_and_the_closed_form_of_the_last_layer_agree():
    r = FLAT["layers"]
    ratios = [a / b for a, b in zip(r["mean"][0], r["closed_form_of_l"], strict=True)]
    assert 0.6 < sorted(ratios)[len(ratios) // 2] < 1.6
    assert r["wrong"] == sorted(r["wrong"])


def test_moving_the_weights_uphill_raises_the_loss():
    for _, r in leaves(FLAT["weights"]):
        for rows in r["loss"].values():
            losses = [row["loss"] for row in rows.values()]
            assert losses == sorted(losses)


def test_losses_at_a_scale_are_those_of_torch():
    gen = runtime.generator(3, torch.zeros(1))
    logits = 6 * torch.randn(2, 40, 5, generator=gen, dtype=torch.float64)
    y = torch.randint(5, (40,), generator=gen)
    for s in (0.25, 1.0, 50.0):
        wanted = [torch.nn.functional.cross_entropy(s * z, y, reduction="none") for z in logits]
        torch.testing.assert_close(ch10._loss(ch10._gaps(logits, y), s), torch.stack(wanted))
    sure = ch10._gaps(torch.tensor([[900.0, 0.0, 0.0]], dtype=torch.float64), torch.tensor([0]))
    assert 0 < ch10._loss(sure / 2, 1.0).item() < 1e-190  # nothing is rounded to 0


def test_a_correlation_that_another_explains_is_gone_at_its_fixed_value():
    gen = runtime.generator(4, torch.zeros(1))
    hidden, a, b = torch.randn(3, 600, generator=gen, dtype=torch.float64)
    signs = {"trace": -hidden - 0.3 * a, "margin": hidden, "distance": hidden + 0.3 * b}
    found = ch10._correlations(hidden.exp() + 0.2 * torch.randn(600, generator=gen), signs)
    assert found["trace"][2] < -0.7
    assert found["trace at fixed margin"][1] < 0 < found["trace at fixed margin"][2]
    assert found["margin at fixed trace"][1] > 0.5
    for value, low, high in (v for v in found.values() if isinstance(v, list)):
        assert low <= value <= high


def test_the_area_counts_pairs_and_a_stump_makes_the_fewest_errors():
    gen = runtime.generator(5, torch.zeros(1))
    for trial in range(30):
        clean, moved = torch.randint(0, 8, (2, 15), generator=gen).double()
        pairs = (moved[:, None] < clean).double() + (moved[:, None] == clean).double() / 2
        got = ch10_detector._auc(clean.numpy(), moved.numpy())
        assert got == pytest.approx(pairs.mean().item(), abs=1e-12)
        cut, low = ch10_detector._stump(clean, moved)
        errors = [
            int(((clean < c) == way).sum() + ((moved < c) != way).sum())
            for c in torch.arange(-0.5, 9).tolist() for way in (True, False)
        ]  # fmt: skip
        got = int(((clean < cut) == low).sum() + ((moved < cut) != low).sum())
        assert got == min(errors), trial


def test_the_attack_that_knows_the_detector_stays_allowed_and_wrong():
    model, x, y, _ = ch10.network("digits-conv", 60)
    threat = Threat("linf", 3 / 16)
    path = ch10.attack_path(model, x, y, threat, 40, threat.eps / 16)
    points, wrong = ch10_detector._matched(model, path, y)
    assert threat.contains(points, x).all()
    assert torch.equal(margin(ch10.logits_of(model, points), y)[wrong] <= 0, wrong[wrong])
    sharp = [ch10_detector._signs(model, p)["sharpness"] for p in (x, points, path[-1])]
    before = (margin(ch10.logits_of(model, x), y) > 0) & wrong
    near, end = (((s - sharp[0]).abs() < 0.01)[before].sum() for s in sharp[1:])
    assert near > 0.25 * before.sum()  # the others' paths never come down to where they began
    assert end < 0.1 * before.sum()


def test_a_scaled_network_gives_the_same_answers_and_the_margin_attack_the_same_points():
    row = ch10._masking("digits-conv", (1.0, 100.0), 80, 20)
    one, hundred = row["rows"].values()
    assert abs(one["right"]["margin"] - hundred["right"]["margin"]) <= 1
    assert one["wrong_at_the_points_of_scale_1"] == hundred["wrong_at_the_points_of_scale_1"]
    assert hundred["gradient_exactly_zero"] > one["gradient_exactly_zero"]


def test_weights_moved_uphill_have_the_length_that_was_asked_for():
    model, x, y, _ = ch10.network("digits-conv", 40)
    moved = ch10_weights._uphill(model, x, y, 0.01)
    for a, b in zip(model.parameters(), moved.parameters(), strict=True):
        wanted = 0.01 * a.norm() if a.ndim > 1 else torch.zeros(())
        torch.testing.assert_close((b - a).norm(), wanted, rtol=1e-3, atol=0)
    before, after = (ch10_weights._measured(m, x, y)["loss"] for m in (model, moved))
    assert after > before


def test_the_prompts_of_the_record_are_possible():
    record = zoo.record("language-valley")
    assert {k: record["network"][k] for k in ch10_language.NETWORK} == ch10_language.NETWORK
    assert (record["fit"], record["attack"]) == (ch10_language.FIT, ch10_language.ATTACK)
    bits = record["bits"]
    assert 0 < bits["network"] < bits["bigram"] < bits["unigram"] < 5
    for group in record["groups"].values():
        for path in (group["attack"], group["chance"]):
            assert path["n"] <= min(group["of"], record["attack"]["n"])
            counts = ("hump_first", "hump_mean", "flatter_first", "said_first", "crossed")
            assert all(0 <= path[k] <= path["n"] for k in counts)
            low, middle, high = path["confidence"]
            assert len(middle) == record["attack"]["steps"] + 1
            assert all(a <= b <= c <= 1 for a, b, c in zip(low, middle, high, strict=True))
        falling = group["attack"]["loss"][1]  # the search never makes the target's loss worse
        assert all(b <= a + 1e-9 for a, b in itertools.pairwise(falling))
