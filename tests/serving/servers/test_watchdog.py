"""What the watchdog calls stuck."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from throttllem_env.serving.vllm.servers.watchdog import Watchdog
from throttllem_env.serving.vllm.stats import EngineStats

STATS = EngineStats(0.0, 3, 0, 0.25, 100, 2000, 300, 0)


class Processes(dict[int, str]):
    """State letters by process."""

    def stat(self, pid: int) -> tuple[str, int, int] | None:
        return (self[pid], 1, 1) if pid in self else None


@pytest.fixture
def processes() -> Processes:
    return Processes({1: "S", 2: "R"})


@pytest.fixture
def dog(processes: Processes) -> Watchdog:
    return Watchdog([1, 2], stopped_timeout_s=3.0, stall_timeout_s=30.0, stat=processes.stat)


def test_a_server_that_works_is_left_alone(dog: Watchdog) -> None:
    for second in range(100):
        assert dog.look(second, 5, replace(STATS, iterations=second // 29)) is None


def test_a_server_without_requests_may_rest(dog: Watchdog) -> None:
    assert [dog.look(second, 0, STATS) for second in (0, 1000, 1010, 1029)] == [None] * 4
    assert [dog.look(second, 1, STATS) for second in (1030, 1058)] == [None] * 2


def test_requests_of_which_nothing_comes_are_a_stall(dog: Watchdog) -> None:
    assert [dog.look(second, 2, STATS) for second in (0, 29)] == [None] * 2
    assert dog.look(30, 2, STATS) == "has 2 requests in flight and made no progress for 30 s"


def test_a_server_that_never_said_anything_can_stall_too(dog: Watchdog) -> None:
    assert [dog.look(second, 1, None) for second in (0, 29)] == [None] * 2
    assert dog.look(31, 1, None)


@pytest.mark.parametrize("state", ["Z", "X", ""])
def test_a_process_that_is_gone_is_noticed_at_once(dog: Watchdog, processes: Processes, state: str) -> None:
    assert dog.look(0, 0, None) is None
    processes[2] = state
    if not state:
        del processes[2]
    assert dog.look(0.1, 0, None) == "lost its process 2"


def test_a_process_may_be_stopped_for_a_moment(dog: Watchdog, processes: Processes) -> None:
    processes[2] = "T"
    assert dog.look(0, 0, None) is None
    processes[2] = "S"
    assert dog.look(2, 0, None) is None
    processes[2] = "T"
    assert [dog.look(second, 0, None) for second in (4, 6.9)] == [None] * 2
    assert dog.look(7, 0, None) == "has its process 2 stopped for 3 s"


def test_real_processes_are_seen_to_stop_and_to_die(rig: ModuleType) -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    dog = Watchdog([child.pid], stopped_timeout_s=0.0, stall_timeout_s=30.0)

    async def scene() -> None:
        assert dog.look(0, 0, None) is None
        os.kill(child.pid, signal.SIGSTOP)
        await rig.until(lambda: "stopped" in (dog.look(0, 0, None) or ""))
        os.kill(child.pid, signal.SIGKILL)
        await rig.until(lambda: "lost" in (dog.look(0, 0, None) or ""))

    try:
        rig.run(scene)
    finally:
        child.communicate()


@pytest.mark.parametrize("fault", ["stop", "stall"])
def test_a_stuck_server_is_replaced_and_its_requests_are_told(
    rig: ModuleType, tmp_path: Path, fault: str
) -> None:
    async def scene() -> None:
        bounds = {"stopped_timeout_s": 0.3} if fault == "stop" else {"stall_timeout_s": 0.3}
        async with rig.Rig(tmp_path, **bounds) as stage:
            pool, traffic = stage.pool, stage.traffic
            old = await pool.start(1)
            if fault == "stop":
                old.signal(signal.SIGSTOP)
            else:
                traffic.requests[1] = 4
            await rig.until(lambda: pool.active not in (old, None))
            await pool.settled()
            assert rig.left(old) == []
            assert [number for number, _ in traffic.lost] == [1]
            assert (pool.counts.failures, pool.counts.restarts) == (1, 1)

    rig.run(scene)
