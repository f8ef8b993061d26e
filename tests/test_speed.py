"""apse_bench: what it says, what it writes, and the table that is committed. No test asserts a time."""
import math
import re
from pathlib import Path

import pytest
import torch
from conftest import run

from apse_nb.bench import measures, speed, steps
from apse_nb.tools.files import data_path
from apse_nb.bench.commands import apse_bench
from apse_nb.bench.speed import BENCHMARKS
from apse_nb.bench.stopwatch import SPEED_COLUMNS, GOALS, read_speeds, row


def check(table):
    "What holds for every table."
    assert list(table.columns) == SPEED_COLUMNS and table["figure"].is_unique and set(table["part"]) <= set(BENCHMARKS)
    for line in table.itertuples():
        if line.status.startswith("not measured: "):
            assert line.repeats == 0 and math.isnan(line.value), line.figure
            continue
        assert line.repeats >= 1 and line.low <= line.value <= line.high and line.low > 0, line.figure
        goal = GOALS.get(line.figure)
        assert (line.status in ("met", "missed")) == bool(line.goal) == bool(goal and goal.bound), line.figure
        if line.goal:
            kept = line.value <= goal.bound if goal.better == "lower" else line.value >= goal.bound
            assert line.status == ("met" if kept else "missed") and line.unit == goal.unit, line.figure
            assert f"{goal.bound:g}" in line.goal, line.figure
    for column in ("cpu", "cores", "threads", "torch", "python", "date", "commit"):
        assert table[column].astype(str).str.len().gt(0).all(), column


def test_help():
    result = run(apse_bench, "--help")
    assert result.exit_code == 0
    assert all(word in result.output for word in [*BENCHMARKS, "all", "speed.csv"])


def test_one_part_is_written_and_others_are_kept(tmp_path, monkeypatch):
    monkeypatch.setitem(BENCHMARKS, "losses", lambda: steps.losses(repeats=2))
    out = tmp_path/"new"/"speed.csv"
    result = run(apse_bench, "--part", "losses", "--out", out)
    assert result.exit_code == 0, result.output
    first = read_speeds(out)
    check(first)
    assert set(first["part"]) == {"losses"} and {"GEP", "loops / GEP"} <= set(first["figure"])
    assert str(out) in result.output
    monkeypatch.setitem(BENCHMARKS, "vector", lambda: [row("sentiment vector / step", [.01, .02, .03])])
    assert run(apse_bench, "--part", "vector", "--out", out).exit_code == 0
    both = read_speeds(out)
    check(both)
    kept = both[both["part"] == "losses"].reset_index(drop=True)
    assert kept["value"].tolist() == first["value"].tolist() and set(both["part"]) == {"losses", "vector"}
    assert [p.name for p in out.parent.iterdir()] == ["speed.csv"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU, which would be measured")
def test_what_needs_a_gpu_says_so(tmp_path):
    result = run(apse_bench, "--part", "gpu", "--out", tmp_path/"speed.csv")
    assert result.exit_code == 0 and "not measured: needs a GPU" in result.output
    table = read_speeds(tmp_path/"speed.csv")
    check(table)
    assert set(table["figure"]) == {name for name, goal in GOALS.items() if goal.part == "gpu"}
    assert set(table["status"]) == {"not measured: needs a GPU"}


def test_a_peer_that_is_missing_is_named(monkeypatch):
    monkeypatch.setattr(measures, "installed", lambda package: False)
    monkeypatch.setattr(measures, "evaluate_memory", lambda queries, gallery: 1.)
    lines = measures.measures(size=(16, 300), big=(4, 300), repeats=1)
    missing = {line["figure"] for line in lines if line["status"] == "not measured: not installed"}
    assert missing == {f"{name} / measures" for name in measures.PEERS}


@pytest.mark.parametrize("arguments", [["--part", "nothing"], ["--out", "list.txt"], ["--out", "."]])
def test_a_wrong_argument_is_one_sentence(arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("list.txt").write_text("a,b\n1,2\n")
    result = run(apse_bench, *arguments)
    assert result.exit_code == 2 and len(result.output.strip().splitlines()) == 1, result.output
    assert result.output.startswith("apse_bench: "), result.output
    assert Path("list.txt").read_text() == "a,b\n1,2\n"


def test_evaluate_memory_is_measured_in_a_process_of_its_own():
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("needs Linux's /proc")
    assert 0 < measures.evaluate_memory(20, 500) < 200


def test_the_committed_table_has_every_goal():
    table = read_speeds(data_path("results/speed_cpu.csv"))
    check(table)
    assert set(GOALS) <= set(table["figure"]) and set(table["part"]) == set(BENCHMARKS)
    on_gpu = table[table["part"] == "gpu"]
    assert set(on_gpu["status"]) == {"not measured: needs a GPU"}
    missing = table[table["status"].str.startswith("not measured") & (table["part"] != "gpu")]
    assert missing.empty, missing["figure"].tolist()
    value = table.set_index("figure")["value"]
    # a median of ratios and a ratio of medians
    assert abs(value["APSE step / plain step"]/(value["step: APSE"]/value["step: plain"]) - 1) < .1
    assert abs(value["measures / float64 limit"]/(value["measures: evaluate"]/value["measures: float64 limit"])
               - 1) < .1
    assert value["measures: float64 product"] < value["measures: float64 limit"]
    assert value["measures: float32 limit"] < value["measures: float64 limit"]


def test_the_notebook_shows_every_goal_of_the_issue():
    bounds = {(goal.part, goal.bound) for goal in GOALS.values()}
    wanted = {("measures", 2), ("measures", 700), ("losses", 1.5), ("losses", 80), ("pooling", 40), ("step", 1.10),
              ("gpu", 1.05), ("gpu", 1.10), ("gpu", 2500), ("gpu", 3200), ("gpu", 12), ("gpu", .15),
              ("vector", .05)}
    assert wanted <= bounds
    text = Path(speed.__file__).parents[2].joinpath("nbs", "bench", "speed.ipynb").read_text(encoding="utf-8")
    assert not re.search(r"/root/|/work/|/home/", text)