"""The reproduction computes each piece once, and its sections say what was found."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from throttllem_env.evaluation.reproduction import clocks, engines, projections, sizes, tasks, throttling
from throttllem_env.evaluation.reproduction.limits import LimitTask, least_powers, minute_rates
from throttllem_env.evaluation.reproduction.page import Found, write_reproduction
from throttllem_env.evaluation.reproduction.page import tasks as all_tasks
from throttllem_env.evaluation.reproduction.tasks import Answers, ProjectionTask, RunTask, answer
from throttllem_env.evaluation.sweeps import identity
from throttllem_env.prediction.steady import SteadyLoad
from throttllem_env.scenario import load_scenario

TASK = RunTask("llama3-8b-a100", "max-frequency", load=0.8)


@pytest.fixture
def traces(tmp_path: Path) -> Path:
    """Traces of 40 requests in the format of Azure 2023."""
    folder = tmp_path / "traces"
    folder.mkdir()
    rows = [f"2023-11-16 18:00:{1.3 * i:010.7f},{200 + 7 * i},{20 + i}" for i in range(40)]
    text = "\n".join(["TIMESTAMP,ContextTokens,GeneratedTokens", *rows]) + "\n"
    for name in tasks.TRACE_FILES.values():
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def test_what_is_there_is_not_computed_again(traces: Path, tmp_path: Path) -> None:
    told: list[tuple[Path, int, int]] = []

    def on_start(*numbers: Any) -> None:
        told.append(numbers)

    first = answer([TASK, TASK], traces, tmp_path / "runs", 1, on_start)
    (path,) = (tmp_path / "runs").glob("*.json")
    assert first[TASK]["completed"] == 40
    assert first[TASK]["iteration_time"].startswith("M ")
    document = json.loads(path.read_text())
    document["result"]["completed"] = 41
    path.write_text(json.dumps(document))
    assert answer([TASK], traces, tmp_path / "runs", 1, on_start)[TASK]["completed"] == 41
    assert [numbers[1:] for numbers in told] == [(0, 1), (1, 1)]


def test_other_data_source_or_settings_are_computed_again(
    traces: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {tasks.key(TASK, traces)}
    before.add(tasks.key(RunTask("llama3-8b-a100", "max-frequency", load=0.9), traces))
    before.add(tasks.key(RunTask("llama3-8b-h100", "max-frequency", load=0.8), traces))
    before.add(tasks.key(ProjectionTask("llama3-8b-a100", "max-frequency", load=0.8), traces))
    monkeypatch.setattr(identity, "source_digest", lambda: "other")
    before.add(tasks.key(TASK, traces))
    monkeypatch.undo()
    with (traces / tasks.TRACE_FILES["conv"]).open("a", encoding="utf-8") as file:
        file.write("2023-11-16 18:01:59.0000000,5,5\n")
    before.add(tasks.key(TASK, traces))
    assert len(before) == 6


def test_results_of_other_sources_are_thrown_away(traces: Path, tmp_path: Path) -> None:
    stale = tmp_path / "runs" / "0123.json"
    stale.parent.mkdir()
    stale.write_text("{}")
    answer([], traces, stale.parent, 1)
    assert not stale.exists()


def test_a_projection_task_gives_both_reaches(traces: Path, tmp_path: Path) -> None:
    task = ProjectionTask("llama3-8b-a100", "throttllem", duration_s=30.0)
    found = answer([task], traces, tmp_path / "runs", 1)[task]
    assert set(found) == set(projections.REACHES)


def metrics(task: Any) -> dict[str, Any]:
    """Plausible results: the reference saves 30 %, our controller 40 %, the static clock misses the SLO."""
    if isinstance(task, ProjectionTask):
        drift = {"ignore": 0.02, "pending": 0.0002, "expected": 0.01}
        error = {"iterations": 1000, "batch": 0.0, "kv": 0.001, "drift_s": drift, "bias_s": drift}
        return dict.fromkeys(projections.REACHES, error)
    if isinstance(task, LimitTask):
        return {"clock": 0.2, "size": 0.3, "both": 0.45}
    share = {"throttllem": 0.7, "throttllem-energy": 0.6, "max-frequency": 1.0}.get(task.agent, 0.9)
    missed = task.agent.startswith("static")
    return {
        "energy_j": 1e6 * share,
        "tokens_per_joule": 0.7 / share,
        "e2e_p99_s": 20.0,
        "ttft_p99_s": None,
        "tbt_mean_s": 0.03,
        "slo_attainment": 0.98 if missed else 0.999,
        "slo_attained": not missed,
        "slo_violations": 20 if missed else 1,
        "requests": 1000,
    }


@pytest.fixture
def answers() -> Answers:
    return {task: metrics(task) for task in all_tasks()}


def test_savings_are_against_the_top_clock(answers: Answers) -> None:
    rows = sizes.section(answers).tables[0].rows
    cells = {(row[0], row[1]): row[2:] for row in rows}
    assert cells["0.5", "throttllem"] == ["30.0 % (99.90 %)"] * 3
    assert cells["1", "throttllem-energy"][0] == "40.0 % (99.90 %)"
    assert cells["0.5", "max-frequency"] == ["0.0 % (99.90 %)", "", ""]
    assert cells["0.5", sizes.STATIC][0] == "10.0 % (98.00 %, missed)"


def test_all_cases_of_the_issue_are_there(answers: Answers) -> None:
    scaled = {(row[0], row[1]) for row in sizes.section(answers).tables[3].rows}
    assert scaled == {(s, load) for s in ("0.75", "1.5") for load in ("0.5", "0.7", "0.9", "1")}
    engines_shown = {row[0] for row in throttling.section(answers).tables[0].rows}
    assert engines_shown == set(throttling.ENGINES)


def test_the_bound_stands_beside_what_was_reached(answers: Answers) -> None:
    rows = sizes.section(answers).tables[2].rows
    assert rows[0] == ["conv", "0.5", "20.0 %", "30.0 %", "45.0 %", "30.0 %", "40.0 %"]
    assert [row[0] for row in rows] == ["conv"] * 4 + ["code"] * 2


def test_rates_are_of_minutes() -> None:
    assert minute_rates(np.array([0.0, 59.0, 60.0, 120.0]), 120.0).tolist() == [2 / 60, 2 / 60]
    assert minute_rates(np.array([0.0, 10.0]), 20.0).tolist() == [0.1]


def test_the_bound_leaves_out_sizes_that_do_not_carry_the_load() -> None:
    scenario = load_scenario("llama2-13b-a100")
    clocks_mhz = scenario.gpu_spec.clocks_mhz[::-3]
    light = SteadyLoad(rate_rps=0.1, prompt_tokens=1000, output_tokens=200, context_tokens=1100)
    for size in scenario.sizes:
        at_top, at_best = least_powers(scenario, size, light, clocks_mhz)
        assert 0 < at_best < at_top < size * scenario.gpu_spec.power_limit_w
    heavy = light.at_rate(5.0)
    assert least_powers(scenario, 1, heavy, clocks_mhz) == (float("inf"), float("inf"))
    assert least_powers(scenario, 4, heavy, clocks_mhz)[1] < least_powers(scenario, 4, heavy, clocks_mhz)[0]


def test_more_is_saved_where_the_load_is_lower(traces: Path) -> None:
    bounds = [LimitTask("llama2-13b-a100", load=load).run(traces) for load in (0.4, 1.0)]
    assert bounds[0]["both"] > bounds[1]["both"] > 0
    assert all(bound["both"] >= max(bound["clock"], bound["size"]) for bound in bounds)


def test_where_our_controller_is_worse_is_said(answers: Answers) -> None:
    assert "in 30 of 30 cases of this section." in sizes.section(answers).lead
    worse = sizes._task(sizes.ENERGY, 0.7, "oracle")
    answers[worse] = {**answers[worse], "slo_violations": 3}
    found = sizes.section(answers)
    assert "in 29 of 30 cases" in found.lead
    assert found.tables[-1].rows == [["conv", "0.7", "oracle", "1", "-14.29 %", "+2 of 1,000"]]


def test_curves_are_relative_to_the_top_clock() -> None:
    curve = clocks.modelled(4, 128, 600)
    assert 600 < curve.mhz[np.argmax(curve.efficiency)] < 1200
    assert np.all(np.diff(curve.rate) > -1e-9)


def test_the_page_has_all_sections_and_pictures(
    answers: Answers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    score = {"train_share": 0.9, "r2": 0.999, "mae_ips": 0.1, "mape": 0.005, "worst_decile_mape": 0.01}
    sizes_of = {"llama3-8b-a100": (1,), "llama2-13b-a100": (1, 2, 4), "llama3-70b-a100": (8,)}
    reports = {
        name: {
            "scores": [
                {**score, "size": size, "train_share": share, "model": model, "against": against}
                for size in sizes_of[name]
                for share in (0.9, 0.1)
                for model, against in (("M", "noise-free"), ("paper's M", "measured"))
            ]
        }
        for name in engines.PROFILED
    }
    calibration = tmp_path / "calibration"
    calibration.mkdir()
    rows = [
        f"{size},128,64,{mhz},{batch},{40 * 1410 / mhz},{1e5 / mhz},{2e5 / mhz},1,1,{size * (100 + mhz / 5)}"
        for size, batch in clocks.MEASURED
        for mhz in (210, 450, 690, 930, 1170, 1410)
    ]
    head = "tensor_parallel,input_tokens,output_tokens,frequency_mhz,batch_size,tpot_ms,attention_layer_us"
    head += ",ffn_layer_us,attention_layer_mj,ffn_layer_mj,power_w_all_gpus"
    (calibration / "a800_decode_frequency.csv").write_text("\n".join([head, *rows]) + "\n")
    page, *pictures = write_reproduction(Found(reports, answers), calibration, tmp_path / "docs")
    text = page.read_text()
    assert [line[3] for line in text.splitlines() if line.startswith("## ")] == list("12345")
    assert len(pictures) == 5
    assert all(picture.stat().st_size > 5000 for picture in pictures)
    assert text.count("*Difference:*") == 5
