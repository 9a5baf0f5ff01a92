"""A sweep keeps results as they come, goes on where it stopped, and knows what it must compute again."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from throttllem_env.evaluation import compare as comparing
from throttllem_env.evaluation.compare import Comparison, compare
from throttllem_env.evaluation.reproduction import tasks
from throttllem_env.evaluation.results import results
from throttllem_env.evaluation.settings import Settings
from throttllem_env.evaluation.sweeps import identity
from throttllem_env.evaluation.sweeps.identity import agent_identity
from throttllem_env.evaluation.sweeps.sweep import Failed, Shelf, sweep
from throttllem_env.evaluation.sweeps.workers import Here
from throttllem_env.scenario import load_scenario


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf[int]:
    return Shelf(tmp_path / "kept", ".json", lambda number: json.dumps(number).encode(), json.loads)


CALLS: dict[str, tuple[Any, ...]] = {"one": ("1",), "two": ("two",), "three": ("3",)}


def test_what_ended_is_kept_and_what_failed_is_tried_again(shelf: Shelf[int]) -> None:
    done = sweep(Here(), int, CALLS, shelf)
    assert list(done) == ["one", "two", "three"]
    assert isinstance(done["two"], Failed)
    assert done["two"].error.startswith("ValueError: invalid literal")
    assert "Traceback" in done["two"].traceback
    assert sorted(path.name for path in shelf.folder.iterdir()) == ["one.json", "three.json"]
    there: list[set[str]] = []
    again = sweep(Here(), float, {**CALLS, "two": ("2",)}, shelf, on_start=there.append)
    assert again == {"one": 1, "two": 2.0, "three": 3}
    assert there == [{"one", "three"}]


def test_fresh_computes_everything_again(shelf: Shelf[int]) -> None:
    sweep(Here(), int, {"one": ("1",)}, shelf)
    assert sweep(Here(), int, {"one": ("11",)}, shelf, fresh=True) == {"one": 11}
    assert shelf.find("one") == 11


def test_half_a_file_is_computed_again(shelf: Shelf[int]) -> None:
    sweep(Here(), int, {"one": ("1",)}, shelf)
    shelf.path("one").write_text("{", encoding="utf-8")
    assert sweep(Here(), int, {"one": ("1",)}, shelf) == {"one": 1}
    assert shelf.find("one") == 1


def test_results_are_kept_before_an_interruption(shelf: Shelf[int]) -> None:
    def interrupted(text: str) -> int:
        if text == "3":
            raise KeyboardInterrupt
        return 1

    with pytest.raises(KeyboardInterrupt):
        sweep(Here(), interrupted, CALLS, shelf)
    assert sorted(path.name for path in shelf.folder.iterdir()) == ["one.json", "two.json"]


Count = Callable[[Settings], int]


@pytest.fixture
def runs_made(monkeypatch: pytest.MonkeyPatch) -> Count:
    """How many runs a comparison really makes."""
    made: list[tuple[str, int]] = []
    run_one = comparing.run_one

    def counted(settings: Settings, scenario: Any, agent: str, seed: int, *others: Any) -> Any:
        made.append((agent, seed))
        return run_one(settings, scenario, agent, seed, *others)

    monkeypatch.setattr(comparing, "run_one", counted)

    def count(settings: Settings) -> int:
        made.clear()
        compare(settings)
        return len(made)

    return count


@pytest.fixture
def kept(settings: Settings, tmp_path: Path) -> Settings:
    return replace(settings, agents=("max-frequency",), duration_s=10.0, out=tmp_path / "out")


def test_a_comparison_goes_on_where_it_stopped(
    settings: Settings, comparison: Comparison, tmp_path: Path
) -> None:
    told: list[str] = []
    kept = replace(settings, out=tmp_path)
    compare(replace(kept, agents=settings.agents[:2], seeds=1), notify=told.append)
    again = compare(replace(kept, jobs=2), notify=told.append)
    assert told == ["continuing: 2 of 6 runs were there"]
    for part in ("runs", "summary"):
        assert results(again, [])[part] == results(comparison, [])[part]


def test_more_agents_and_seeds_run_only_what_is_missing(kept: Settings, runs_made: Count) -> None:
    assert runs_made(kept) == 2
    assert runs_made(kept) == 0
    assert runs_made(replace(kept, seeds=3, jobs=1)) == 1
    assert runs_made(replace(kept, agents=("static-frequency:mhz=990", "max-frequency"))) == 2
    assert runs_made(replace(kept, fresh=True)) == 2


@pytest.mark.parametrize(
    "changes",
    [
        {"load": 0.9},
        {"slo_scale": 2.0},
        {"length_predictor": "oracle"},
        {"control": "events"},
        {"duration_s": 11.0},
        {"trace": "poisson:rate_rps=4,duration_s=60"},
    ],
)
def test_other_settings_are_run_again(kept: Settings, runs_made: Count, changes: dict[str, Any]) -> None:
    assert runs_made(kept) == 2
    assert runs_made(replace(kept, **changes)) == 2
    assert runs_made(kept) == 0


def test_other_source_scenario_or_requests_are_run_again(
    kept: Settings, runs_made: Count, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenario, trace = tmp_path / "mine.yaml", tmp_path / "trace.csv"
    text = Path(kept.scenario).read_text(encoding="utf-8")
    scenario.write_text(text, encoding="utf-8")
    rows = [f"2023-11-16 18:00:{i:010.7f},{200 + i},20" for i in range(20)]
    trace.write_text("\n".join(["TIMESTAMP,ContextTokens,GeneratedTokens", *rows]), encoding="utf-8")
    mine = replace(kept, scenario=str(scenario), trace=str(trace), seeds=1, duration_s=None)
    assert runs_made(mine) == 1
    moved = trace.rename(tmp_path / "moved.csv")
    assert runs_made(replace(mine, trace=str(moved))) == 0
    moved.write_text(moved.read_text(encoding="utf-8").replace(",219,", ",218,"), encoding="utf-8")
    mine = replace(mine, trace=str(moved))
    assert runs_made(mine) == 1
    scenario.write_text(text.replace("idle_mhz: 1170", "idle_mhz: 1155"), encoding="utf-8")
    assert runs_made(mine) == 1
    monkeypatch.setattr(identity, "source_digest", lambda: "other")
    assert runs_made(mine) == 1


def test_a_controller_from_elsewhere_counts_with_its_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "my_controllers_of_a_test.py"
    code = "from throttllem_env.baselines.max_frequency import MaxFrequency\nclass Mine(MaxFrequency): pass\n"
    file.write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    from importlib import import_module

    mine = import_module("my_controllers_of_a_test").Mine
    monkeypatch.setattr("throttllem_env.controller.make_controller", lambda _: mine())
    before = agent_identity("mine")
    file.write_text(f"{code}# changed\n", encoding="utf-8")
    assert agent_identity("mine") != before


def test_a_file_that_an_agent_is_given_counts_with_its_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from throttllem_env.baselines.max_frequency import MaxFrequency

    monkeypatch.setattr("throttllem_env.controller.make_controller", lambda _: MaxFrequency())
    model = tmp_path / "model.zip"
    spec = f"mine:model={model}"
    model.write_bytes(b"weights")
    before = agent_identity(spec)
    model.write_bytes(b"other weights")
    assert agent_identity(spec) != before


def test_the_room_of_real_servers_counts_where_they_serve_and_nowhere_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert identity.backend_identity("simulator") == ""
    assert len(identity.backend_identity("vllm")) == 64
    monkeypatch.setattr(identity, "_sources", lambda folder: [(f"{folder.name}/changed", tmp_path / "file")])
    (tmp_path / "file").write_text("changed", encoding="utf-8")
    changed = identity.backend_identity("vllm")
    (tmp_path / "file").write_text("changed again", encoding="utf-8")
    assert identity.backend_identity("vllm") != changed


def test_a_backend_from_elsewhere_counts_with_its_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "my_backends_of_a_test.py"
    file.write_text("class Mine: pass\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    from importlib import import_module

    mine = import_module("my_backends_of_a_test").Mine
    monkeypatch.setattr(identity, "backend_type", lambda _: mine)
    before = identity.backend_identity("mine:speed=2")
    file.write_text("class Mine: changed = 1\n", encoding="utf-8")
    assert identity.backend_identity("mine:speed=2") != before


def test_the_source_of_every_room_counts() -> None:
    assert len(identity.source_digest()) == 64
    names = [name for name, _ in identity._sources(Path(identity.__file__).parents[2] / "prediction")]
    assert "steady.py" in names
    assert any(name.endswith(".npz") for name in names)


def test_failed_tasks_are_listed_when_all_others_are_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [f"2023-11-16 18:00:{i:010.7f},{200 + i},20" for i in range(20)]
    text = "\n".join(["TIMESTAMP,ContextTokens,GeneratedTokens", *rows])
    (tmp_path / tasks.TRACE_FILES["conv"]).write_text(text, encoding="utf-8")
    good = tasks.RunTask("llama3-8b-a100", "max-frequency")
    bad = tasks.RunTask("llama3-8b-a100", "static-frequency:mhz=991")
    with pytest.raises(tasks.FailedTasksError) as caught:
        tasks.answer([bad, good], tmp_path, tmp_path / "runs", 1)
    (line,) = caught.value.lines()
    assert "static-frequency:mhz=991" in line
    assert "mhz = 991: not supported" in line
    there: list[int] = []
    tasks.answer([good], tmp_path, tmp_path / "runs", 1, lambda _, done, __: there.append(done))
    assert there == [1]
    assert load_scenario(good.scenario).name == good.scenario
