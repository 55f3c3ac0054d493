"""The benchmark runs on a tiny case, writes figures with their cards, and fails below a goal."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def bench():
    spec = importlib.util.spec_from_file_location("bench", ROOT / "tools" / "bench.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    threads = torch.get_num_threads()
    yield module
    torch.set_num_threads(threads)


CARD = {
    "date", "cpu", "torch", "threads", "batch", "repetitions", "copies", "draws", "shared",
    "memory", "command",
}  # fmt: skip


def test_a_tiny_case_of_every_row_is_measured(bench, tmp_path, capsys):
    out = tmp_path / "measured.json"
    assert bench.main(["--quick", "--out", str(out)]) == 0
    rows = json.loads(out.read_text())
    assert sorted(rows) == sorted(b.name for b in bench.BENCHMARKS)
    printed = capsys.readouterr().out
    for name, row in rows.items():
        assert set(row) == {"value", "goal", "cost", "unit", "card"}
        assert row["value"] > 0
        assert set(row["card"]) == CARD
        assert name in printed


def test_a_missed_goal_fails_and_a_row_that_is_not_measured_stays(bench, tmp_path):
    out = tmp_path / "measured.json"
    out.write_text(json.dumps({"older": {"value": 1.0}}))

    def twice(size):
        def work():
            return sum(range(300_000))

        return bench.ratio(size, work, work)

    bench.FULL = bench.Size(batch=1, repetitions=3, copies=1, draws=1, shared=1)
    met = ((1e-6, False, 0), (1e6, False, 1), (None, False, 0), (1e-6, True, 1), (1e6, True, 0))
    for goal, cost, status in met:
        bench.BENCHMARKS = [bench.Benchmark("twice the same", goal, "ratio", twice, cost)]
        assert bench.main(["--out", str(out)]) == status
    rows = json.loads(out.read_text())
    assert rows["older"] == {"value": 1.0}
    # Both sides do the same work. The clock of a shared machine is good to a factor of 2 here.
    assert 0.5 < rows["twice the same"]["value"] < 2


def test_quick_numbers_do_not_reach_the_book(bench):
    with pytest.raises(SystemExit):
        bench.main(["--quick"])


def test_the_book_has_a_figure_of_every_row_and_every_goal_was_met(bench):
    rows = json.loads((ROOT / "book" / "measured.json").read_text())
    for b in bench.BENCHMARKS:
        if b.name not in rows and "gpu" in b.name:
            continue  # the book's machine had none
        row = rows[b.name]
        assert row["goal"] == b.goal
        assert row["unit"] == b.unit
        assert row["card"]["threads"] == 1
        assert CARD - {"draws", "shared"} <= set(row["card"]) <= CARD  # older rows have neither
        assert row["cost"] == b.cost
        assert not b.missed(row["value"])
