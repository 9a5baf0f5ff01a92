"""Command lines of vLLM servers, and the plugin that they load."""

import json
import subprocess
import sys
from importlib.machinery import ModuleSpec
from importlib.metadata import entry_points
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from throttllem_env.scenario import load_scenario
from throttllem_env.serving.realtime_gpus import Emulation
from throttllem_env.serving.vllm import interface
from throttllem_env.serving.vllm.engine import PINNED
from throttllem_env.serving.vllm.interface import SERVER_MODULES, EngineUnavailableError, server_module
from throttllem_env.serving.vllm.servers.launch import EmulatedLaunch, RealLaunch, flags, without_drivers
from throttllem_env.serving.vllm.servers.stats_socket import StatsSocket
from throttllem_env.serving.vllm.stats import STATS_SOCKET, EngineStats

SCENARIO = load_scenario("llama2-13b-a100")


@pytest.fixture
def vllm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is taken for vLLM's, with the newest server module."""
    folder = tmp_path / "vllm"
    for module in SERVER_MODULES:
        (folder / module).parent.mkdir(parents=True, exist_ok=True)
        (folder / f"{module}.py").touch()
    spec = ModuleSpec("vllm", None, is_package=True)
    spec.submodule_search_locations = [str(folder)]
    monkeypatch.setattr(interface, "find_spec", lambda name: spec)
    return folder


def options(argv: tuple[str, ...]) -> dict[str, str | None]:
    """Flags and their values; a later one wins, as in vLLM."""
    found: dict[str, str | None] = {}
    for part, after in zip(argv, (*argv[1:], "--"), strict=True):
        if part.startswith("--"):
            found[part] = None if after.startswith("--") else after
    return found


def test_every_setting_that_changes_a_schedule_is_pinned_in_every_command_line(
    vllm: Path, tmp_path: Path
) -> None:
    emulated = EmulatedLaunch("llama2-13b-a100", tmp_path / "gpus", tmp_path / "model")
    for launch in (emulated, RealLaunch(SCENARIO, "some/model")):
        command = launch(2, (4, 5), 8123)
        asked = options(command.argv)
        assert command.argv[:3] == (sys.executable, "-m", "vllm.entrypoints.launchers.api_server.entry")
        pinned = flags(PINNED | SCENARIO.engine.model_dump())
        assert {part for part in pinned if part.startswith("--")} <= asked.keys()
        assert "--no-async-scheduling" in asked
        assert "--no-enable-prefix-caching" in asked
        assert (asked["--block-size"], asked["--max-num-batched-tokens"]) == ("16", "2048")
        assert (asked["--host"], asked["--port"], asked["--watermark"]) == ("127.0.0.1", "8123", "0.0")
        assert (asked["--generation-config"], asked["--served-model-name"]) == ("vllm", "llama2-13b")
        assert int(asked["--shutdown-timeout"] or 0) > 0
        assert command.environment["VLLM_SERVER_DEV_MODE"] is None


def test_an_emulated_server_is_told_its_gpus_and_nothing_else(vllm: Path, tmp_path: Path) -> None:
    command = EmulatedLaunch("llama2-13b-a100", tmp_path / "gpus", tmp_path / "model")(2, (4, 5), 8123)
    expected = Emulation(tmp_path / "gpus", (4, 5), "llama2-13b-a100").variables()
    ours = {n: v for n, v in command.environment.items() if n.startswith("THROTTLLEM")}
    assert ours == expected
    assert "--tensor-parallel-size" not in command.argv
    config = json.loads((tmp_path / "model" / "config.json").read_text(encoding="utf-8"))
    assert config["max_position_embeddings"] == SCENARIO.engine.max_model_len


def test_a_real_server_sees_its_own_gpus_and_further_flags_win(vllm: Path) -> None:
    launch = RealLaunch(SCENARIO, "some/model", ("--block-size", "128"), {"EXTRA": "1"})
    command = launch(4, (0, 1, 2, 3), 8123)
    asked = options(command.argv)
    assert (asked["--tensor-parallel-size"], asked["--block-size"]) == ("4", "128")
    assert (command.environment["CUDA_VISIBLE_DEVICES"], command.environment["EXTRA"]) == ("0,1,2,3", "1")
    assert "--distributed-executor-backend" not in asked


def test_an_older_server_module_is_found_and_a_missing_one_named(
    vllm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (vllm / f"{SERVER_MODULES[0]}.py").unlink()
    assert server_module() == "vllm.entrypoints.openai.api_server"
    (vllm / f"{SERVER_MODULES[1]}.py").unlink()
    with pytest.raises(EngineUnavailableError, match=r"lacks entrypoints/openai/api_server\.py; supported"):
        server_module()
    monkeypatch.setattr(interface, "find_spec", lambda name: None)
    with pytest.raises(EngineUnavailableError, match=r"vLLM is not installed; .*live-cpu"):
        server_module()


def test_folders_with_a_driver_of_gpus_are_taken_off_the_library_path(tmp_path: Path) -> None:
    (tmp_path / "double").mkdir()
    (tmp_path / "double" / "libnvidia-ml.so.1").touch()
    assert without_drivers(f"/usr/lib:{tmp_path}/double::{tmp_path}") == f"/usr/lib:{tmp_path}"


def test_the_plugin_is_announced() -> None:
    (plugin,) = (p for p in entry_points(group="vllm.stat_logger_plugins") if p.name == "throttllem")
    assert plugin.value == "throttllem_env.serving.vllm.stat_logger:SocketStatLogger"


def test_the_plugin_imports_no_pool_and_no_client() -> None:
    """Every vLLM of the environment loads it."""
    code = (
        "import sys, types; m = types.ModuleType('vllm.v1.metrics.loggers'); m.StatLoggerBase = object;"
        "sys.modules |= {n: types.ModuleType(n) for n in ('vllm', 'vllm.v1', 'vllm.v1.metrics')};"
        "sys.modules[m.__name__] = m; import throttllem_env.serving.vllm.stat_logger;"
        "print([n for n in ('aiohttp', 'numba', 'torch', 'pandas') if n in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout == "[]\n"


def scheduler_stats(running: int) -> Any:
    return SimpleNamespace(num_running_reqs=running, num_waiting_reqs=1, kv_cache_usage=0.5)


def iteration_stats() -> Any:
    return SimpleNamespace(num_prompt_tokens=10, num_generation_tokens=4, num_preempted_reqs=1)


@pytest.mark.live
def test_the_plugin_is_inert_without_a_socket_and_never_raises(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from vllm.v1.metrics.loggers import StatLoggerBase, load_stat_logger_plugin_factories

    from throttllem_env.serving.vllm.stat_logger import SocketStatLogger

    assert SocketStatLogger in load_stat_logger_plugin_factories()
    assert issubclass(SocketStatLogger, StatLoggerBase)
    monkeypatch.delenv(STATS_SOCKET, raising=False)
    for path in (None, str(tmp_path / "nobody"), "x" * 300):
        if path:
            monkeypatch.setenv(STATS_SOCKET, path)
        plugin = SocketStatLogger(None, 0)
        plugin.record(scheduler_stats(1), iteration_stats())
        plugin.record(None, object())
        plugin.log()
        plugin.log_engine_initialized()
        assert plugin.dropped == 0


@pytest.mark.live
def test_the_plugin_says_what_happened_and_counts_what_it_could_not(
    monkeypatch: pytest.MonkeyPatch, rig: Any
) -> None:
    from throttllem_env.serving.vllm.stat_logger import SocketStatLogger

    async def scene() -> None:
        said: list[tuple[int, EngineStats]] = []
        stats = StatsSocket(lambda *each: said.append(each))
        for name, value in stats.variables(3).items():
            monkeypatch.setenv(name, value)
        plugin = SocketStatLogger(None, 0)
        plugin.record(scheduler_stats(2), None)  # a part of a prompt
        plugin.record(scheduler_stats(2), iteration_stats())
        plugin.record(scheduler_stats(0), None)  # a step without requests
        plugin.record(None, object())
        while not plugin.dropped > 1:  # nobody reads meanwhile: until the socket is full
            plugin.record(scheduler_stats(1), None)
        await rig.until(lambda: len(said) > 3)
        dropped = plugin.dropped
        plugin.record(scheduler_stats(1), None)
        await rig.until(lambda: said[-1][1].dropped == dropped)
        assert {server for server, _ in said} == {3}
        first = [(s.running, s.iterations, s.prompt_tokens, s.generated_tokens) for _, s in said[:3]]
        assert first == [(2, 1, 0, 0), (2, 2, 10, 4), (0, 2, 10, 4)]
        assert (said[1][1].waiting, said[1][1].kv_usage, said[1][1].preemptions) == (1, 0.5, 1)
        stats.close()

    rig.run(scene)
