"""What engines say of themselves, by datagram and by page."""

import asyncio
import socket
import time
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from throttllem_env.serving.vllm.servers.metrics_page import METRICS, read_metrics
from throttllem_env.serving.vllm.servers.stats_socket import StatsSocket
from throttllem_env.serving.vllm.stats import STATS_NAME, STATS_SOCKET, EngineStats

STATS = EngineStats(12.5, 3, 4, 0.25, 100, 2000, 300, 5, 6)
PAGE = """
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 3.0
vllm:num_requests_waiting{engine="0",model_name="m"} 4.0
vllm:num_requests_waiting_by_reason{engine="0",model_name="m",reason="capacity"} 70.0
vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.25
vllm:iteration_tokens_total_bucket{engine="0",le="1.0",model_name="m"} 50.0
vllm:iteration_tokens_total_count{engine="0",model_name="m"} 100.0
vllm:prompt_tokens_total{engine="0",model_name="m"} 2000.0
vllm:prompt_tokens_by_source_total{engine="0",model_name="m",source="a"} 9000.0
vllm:generation_tokens_total{engine="0",model_name="m"} 300.0
vllm:num_preemptions_total{engine="0",model_name="m"} 5.0
"""


def test_a_datagram_holds_what_was_said() -> None:
    assert EngineStats.unpacked(STATS.packed(7)) == (7, STATS)


@pytest.mark.parametrize("datagram", [b"", b"x" * 30, b"XXXX" + STATS.packed(7)[4:]])
def test_other_datagrams_are_refused(datagram: bytes) -> None:
    with pytest.raises(ValueError, match="no engine's statistics"):
        EngineStats.unpacked(datagram)


def test_tokens_per_iteration_are_of_the_time_between() -> None:
    later = replace(STATS, iterations=110, generated_tokens=330)
    assert later.tokens_per_iteration(STATS) == 3.0
    assert STATS.tokens_per_iteration(STATS) == 0.0


def test_a_socket_takes_what_engines_say_and_counts_the_rest(rig: ModuleType) -> None:
    async def scene() -> None:
        taken: list[tuple[int, EngineStats]] = []
        stats = StatsSocket(lambda server, said: taken.append((server, said)))
        assert len(str(stats.path)) < 100
        assert stats.variables(7) == {STATS_SOCKET: str(stats.path), STATS_NAME: "7"}
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.connect(str(stats.path))
            sender.send(b"nonsense")
            sender.send(STATS.packed(7))
            await rig.until(lambda: taken)
        assert (taken, stats.received, stats.malformed) == ([(7, STATS)], 1, 1)
        stats.close()
        assert not stats.path.parent.exists()

    rig.run(scene)


def test_a_page_of_metrics_says_the_same() -> None:
    read = read_metrics(PAGE)
    assert read.time_s <= time.monotonic()
    assert replace(read, time_s=STATS.time_s, dropped=STATS.dropped) == STATS


def test_a_metric_that_is_of_no_interest_may_be_malformed() -> None:
    assert read_metrics(PAGE + 'vllm:spec_decode{="} three\n}{\nvllm:num_requests_running_too x y z w\n')


@pytest.mark.parametrize("name", METRICS.values())
@pytest.mark.parametrize(
    "bad", ['{engine="0"} many', '{engine="0} 1.0', '{engine="0"} NaN', " +Inf", "{} 1 2 x"]
)
def test_a_malformed_metric_is_named(name: str, bad: str) -> None:
    with pytest.raises(ValueError, match=f"{name} is malformed"):
        read_metrics(PAGE + name + bad + "\n")


@pytest.mark.parametrize("name", METRICS.values())
def test_a_missing_metric_is_named(name: str) -> None:
    page = "\n".join(line for line in PAGE.splitlines() if not line.startswith(name + "{"))
    with pytest.raises(ValueError, match=f"{name} is missing"):
        read_metrics(page)


def test_where_no_plugin_tells_the_page_is_read_and_a_malformed_one_changes_nothing(
    rig: ModuleType, tmp_path: Path
) -> None:
    async def scene() -> None:
        async with rig.Rig(tmp_path) as stage:
            stage.launch.environment["FAKE_METRICS"] = PAGE
            server = await stage.pool.start(1)
            await rig.until(lambda: server.stats)
            assert (server.stats.running, server.stats.generated_tokens, server.told) == (3, 300, False)
        async with rig.Rig(tmp_path) as stage:
            stage.launch.environment["FAKE_METRICS"] = PAGE + "vllm:num_requests_running{} many"
            server = await stage.pool.start(1)
            await rig.until(lambda: stage.pool.guard.malformed)
            await asyncio.sleep(0)
            assert (server.stats, stage.pool.active) == (None, server)

    rig.run(scene)
