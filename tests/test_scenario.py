"""Scenarios: what is shipped is sound, and what is wrong is named."""

from pathlib import Path

import pytest
import yaml

from throttllem_env.hardware import IterationWork
from throttllem_env.scenario import (
    Deviation,
    RatedLoad,
    ScenarioError,
    load_scenario,
    parse_scenario,
    scenario_names,
)

GOOD = {
    "name": "mine",
    "version": 1,
    "description": "A test.",
    "model": "llama2-13b",
    "gpu": "a100-40gb",
    "sizes": [1, 2, 4],
    "gpus_per_node": 8,
    "lengths": "none",
    "idle_mhz": 1170,
}


@pytest.mark.parametrize("name", scenario_names())
def test_shipped_scenarios_are_frozen_and_consistent(name: str) -> None:
    scenario = load_scenario(name)
    assert scenario.name == name
    assert scenario.frozen
    assert scenario.rated.computed
    rated = [scenario.rated_rps(size) for size in scenario.sizes]
    assert rated == sorted(rated)
    assert rated[0] > 0
    assert 0 < scenario.reference_power_w <= scenario.largest_size * scenario.gpu_spec.power_limit_w
    for size in scenario.sizes:
        assert scenario.kv_blocks(size) * scenario.engine.block_size > scenario.engine.max_model_len


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gpu": "a100-4gb"}, "gpu = 'a100-4gb'.*did you mean 'a100-40gb'"),
        ({"model": "llama2-13"}, "did you mean 'llama2-13b'"),
        ({"sizes": [1, 3]}, "3 must be one of the profiled sizes"),
        ({"sizes": [4, 2]}, "must ascend"),
        ({"gpus_per_node": 2}, "at most gpus_per_node = 2"),
        ({"idle_mhz": 1000}, "nearest is 1005"),
        ({"engine": {"max_model_len": 8192}}, "takes at most 4096"),
        ({"engine": {"blok_size": 16}}, "engine.blok_size: unknown field; did you mean 'block_size'"),
        ({"gpus": 8}, "gpus: unknown field; did you mean"),
        ({"version": 0}, "version = 0: .*greater than or equal to 1"),
        ({"slo": {"attainment": 1.5}}, r"slo.attainment = 1.5"),
        ({"switching": {"median_s": 0.2, "p99_s": 0.1}}, "p99_s = 0.1: must be at least"),
        ({"warm_up": {"min_s": 40.0}}, "max_s = 30.0: must be at least"),
        ({"admission": "projecte"}, "admission = 'projecte': .*'vllm' or 'projected'"),
    ],
)
def test_wrong_fields_are_named_with_what_is_valid(change: dict[str, object], message: str) -> None:
    with pytest.raises(ScenarioError, match=message):
        parse_scenario(GOOD | change, "mine.yaml")


@pytest.mark.parametrize("field", ["name", "model", "sizes", "idle_mhz"])
def test_missing_fields_are_named(field: str) -> None:
    data = {k: v for k, v in GOOD.items() if k != field}
    with pytest.raises(ScenarioError, match=field):
        parse_scenario(data, "mine.yaml")


def test_a_scenario_of_ones_own_is_loaded_by_path(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(GOOD), encoding="utf-8")
    scenario = load_scenario(path)
    assert scenario.sizes == (1, 2, 4)
    assert not scenario.frozen
    with pytest.raises(ScenarioError, match="throttllem scenarios freeze mine"):
        scenario.latency_slo()


@pytest.mark.parametrize("name", ["../mine", "a/b", "", ".hidden", "a b"])
def test_a_name_that_leads_elsewhere_is_refused(name: str) -> None:
    """`throttllem scenarios freeze` writes a file of that name."""
    with pytest.raises(ScenarioError, match="name = "):
        parse_scenario(GOOD | {"name": name}, "mine.yaml")


@pytest.mark.parametrize("folder", ["..", "../other", "/etc", "inner/../../other", "link"])
def test_a_folder_outside_the_scenarios_own_is_refused(tmp_path: Path, folder: str) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "link").symlink_to(tmp_path)
    (home / "mine.yaml").write_text(yaml.safe_dump(GOOD | {"ips_model": folder}), encoding="utf-8")
    with pytest.raises(ScenarioError, match="must lie in the folder of the scenario's file"):
        load_scenario(home / "mine.yaml")


@pytest.mark.parametrize("model", ["shipped", "physics", "fitted/13b"])
def test_a_folder_beside_the_scenarios_file_is_found_from_anywhere(tmp_path: Path, model: str) -> None:
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(GOOD | {"ips_model": model}), encoding="utf-8")
    expected = str(tmp_path / model) if "/" in model else model
    assert load_scenario(tmp_path / "mine.yaml").ips_model == expected


def test_unknown_names_and_broken_files(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match="did you mean 'llama2-13b-a100'"):
        load_scenario("llama2-13b-a10")
    with pytest.raises(ScenarioError, match="no such scenario file"):
        load_scenario(tmp_path / "none.yaml")
    broken = tmp_path / "broken.yaml"
    broken.write_text("a: [1,", encoding="utf-8")
    with pytest.raises(ScenarioError, match="not YAML"):
        load_scenario(broken)
    broken.write_text("- 1", encoding="utf-8")
    with pytest.raises(ScenarioError, match="dict"):
        load_scenario(broken)


def test_smaller_sizes_carry_what_the_next_tighter_slo_lets_them() -> None:
    scenario = load_scenario("llama2-13b-a100")
    rated = RatedLoad(
        requests_rps={1: 0.3, 2: 3.0, 4: 7.0},
        at_slo_scale={0.75: {1: 0.1, 2: 2.0}, 1.5: {1: 0.4, 2: 3.5}},
    )
    scenario = scenario.model_copy(update={"rated": rated})
    assert [scenario.rated_rps(2, scale) for scale in (0.5, 0.75, 0.9, 1.0, 1.2, 2.0)] == [
        2.0,
        2.0,
        2.0,
        3.0,
        3.0,
        3.5,
    ]
    assert scenario.rated_rps(4, 0.5) == 7.0


def test_a_power_cap_reaches_the_physics() -> None:
    scenario = load_scenario("llama2-13b-a100")
    capped = scenario.model_copy(update={"power_cap_w": 250.0})
    assert capped.physics(4).at(1410).prefill_w <= 250.0 < scenario.physics(4).at(1410).prefill_w


def test_a_deviation_is_served_and_forecasts_do_not_know_of_it() -> None:
    plain = load_scenario("llama2-13b-a100")
    wrong = plain.model_copy(update={"deviation": Deviation(decode_time=1.1, prefill_time=1.2, power=0.9)})
    before, after = plain.served_physics(2).at(1005), wrong.served_physics(2).at(1005)
    decode = IterationWork(16, 10_000, 0, 0)
    assert after.iteration(decode).total_s == pytest.approx(1.1 * before.iteration(decode).total_s)
    chunk = IterationWork(0, 0, 512, 512**2)
    assert after.iteration(chunk).prefill_s == pytest.approx(
        1.2 * before.iteration(chunk).prefill_s, rel=1e-3
    )
    assert after.decode_power_w(16) == pytest.approx(0.9 * before.decode_power_w(16))
    assert after.idle_w == pytest.approx(0.9 * before.idle_w)
    assert wrong.physics(2) is plain.physics(2) is plain.served_physics(2)
