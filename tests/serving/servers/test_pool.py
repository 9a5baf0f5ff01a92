"""The pool, on servers that are no vLLM but behave like one where it matters here."""

import asyncio
import os
import signal
import socket
from pathlib import Path
from types import ModuleType

import pytest

from throttllem_env.serving.vllm.servers import Answer, ServerError
from throttllem_env.serving.vllm.servers.ports import free_port
from throttllem_env.types import InstanceState


def test_a_size_change_warms_in_the_shadow_hands_over_and_drains(rig: ModuleType, tmp_path: Path) -> None:
    async def scene() -> None:
        async with rig.Rig(tmp_path) as stage:
            pool, traffic = stage.pool, stage.traffic
            old = await pool.start(4)
            assert (old.state, old.gpus, traffic.switches) == (InstanceState.ACTIVE, (0, 1, 2, 3), [1])
            traffic.requests[1] = 2
            assert pool.resize(2) is Answer.STARTED
            assert (pool.active, pool.warming.gpus) == (old, (4, 5))
            await rig.until(lambda: pool.draining)
            assert (pool.draining, pool.active.size, traffic.switches) == (old, 2, [1, 2])
            assert pool.resize(1) is Answer.IGNORED
            assert old.exit_code is None
            traffic.requests[1] = 0
            await pool.settled()
            assert (pool.servers, rig.left(old), old.exit_code) == ((pool.active,), [], 0)
            assert (pool.counts.size_changes, pool.counts.ignored, pool.counts.failures) == (1, 1, 0)
            last = pool.active
        assert rig.left(last) == []
        assert traffic.lost == []
        assert traffic.switches == [1, 2, None]

    rig.run(scene)


def test_a_larger_wish_restarts_the_warm_up_and_the_active_size_calls_it_off(
    rig: ModuleType, tmp_path: Path
) -> None:
    async def scene() -> None:
        async with rig.Rig(tmp_path) as stage:
            pool, stage.launch.faults = stage.pool, {2: ("ill",)}
            first = await pool.start(1)
            assert pool.resize(2) is Answer.STARTED
            second = pool.warming
            await rig.until(lambda: second.pids)
            assert (pool.resize(2), pool.resize(1)) == (Answer.UNCHANGED, Answer.CALLED_OFF)
            assert pool.resize(2) is Answer.STARTED
            third = pool.warming
            await rig.until(lambda: third.pids)
            assert pool.resize(4) is Answer.RESTARTED
            await rig.until(lambda: pool.active is not first)
            assert pool.active.size == 4
            await pool.settled()
            assert rig.left(first, second, third) == []
            assert (pool.counts.size_changes, pool.counts.ignored) == (3, 0)

    rig.run(scene)


def test_a_size_that_does_not_fit_beside_the_old_one_is_refused(rig: ModuleType, tmp_path: Path) -> None:
    async def scene() -> None:
        async with rig.Rig(tmp_path, gpus=4) as stage:
            await stage.pool.start(2)
            assert stage.pool.resize(4) is Answer.REFUSED
            expected = "a server of size 4 beside TP2 does not fit the node: 2 of its 4 GPUs are free"
            assert stage.pool.refusal == expected
            assert stage.pool.counts.ignored == 1

    rig.run(scene)


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ("dies", r"ended with exit code 1; it said last:\n.*GPUs 0\n +out of memory, says the fake"),
        ("ill", r"was not well within 1\.5 s; it said last:\n +(starting on|\(nothing\))"),
        ("mute", r"did not (warm up within|answer its first request)"),
    ],
)
def test_a_server_that_does_not_come_up_says_why_and_is_gone(
    rig: ModuleType, tmp_path: Path, fault: str, expected: str
) -> None:
    async def scene() -> None:
        stage = rig.Rig(tmp_path, start_timeout_s=1.5 if fault == "ill" else 60.0, warm_up_timeout_s=1.5)
        stage.launch.faults = {1: (fault,)}
        with pytest.raises(ServerError, match=expected):
            await stage.pool.start(1)
        await stage.pool.close()
        assert stage.pool.servers == ()

    rig.run(scene)


def test_the_old_server_goes_on_when_the_new_one_does_not_come_up(rig: ModuleType, tmp_path: Path) -> None:
    async def scene() -> None:
        async with rig.Rig(tmp_path) as stage:
            pool, stage.launch.faults = stage.pool, {2: ("dies",)}
            old = await pool.start(1)
            assert pool.resize(2) is Answer.STARTED
            await rig.until(lambda: pool.warming is None)
            assert (pool.active, pool.counts.failures, pool.counts.restarts) == (old, 1, 0)
            assert any("out of memory, says the fake" in line for line in stage.said)
            assert pool.resize(4) is Answer.STARTED

    rig.run(scene)


def test_a_server_that_was_killed_is_replaced_and_its_requests_are_told(
    rig: ModuleType, tmp_path: Path
) -> None:
    async def scene() -> None:
        async with rig.Rig(tmp_path) as stage:
            pool, traffic = stage.pool, stage.traffic
            old = await pool.start(2)
            traffic.requests[1] = 3
            old.signal(signal.SIGKILL)
            await rig.until(lambda: pool.active not in (old, None))
            assert (pool.active.size, pool.active.gpus) == (2, old.gpus)
            assert traffic.switches == [1, None, 2]
            ((number, why),) = traffic.lost
            assert (number, why[:15]) == (1, "server 1 (TP2) ")
            assert "ended with exit code 137" in why or "lost its process" in why
            await pool.settled()
            assert rig.left(old) == []

    rig.run(scene)


def test_a_keeper_that_is_killed_takes_nothing_with_it_but_its_server(
    rig: ModuleType, tmp_path: Path
) -> None:
    async def scene() -> None:
        async with rig.Rig(tmp_path) as stage:
            pool = stage.pool
            old = await pool.start(1)
            os.kill(old.session, signal.SIGKILL)
            await rig.until(lambda: pool.active not in (old, None))
            await pool.settled()
            assert rig.left(old) == []
            assert pool.active.exit_code is None

    rig.run(scene)


def test_a_pool_gives_up_after_too_many_restarts(rig: ModuleType, tmp_path: Path) -> None:
    async def scene() -> None:
        async with rig.Rig(tmp_path, max_restarts=2) as stage:
            pool = stage.pool
            old = await pool.start(1)
            stage.launch.faults = {1: ("dies",)}
            old.signal(signal.SIGKILL)
            await rig.until(lambda: pool.failed)
            assert pool.failed == "no server is left after 2 restarts within 600 s"
            assert pool.counts.restarts == 2

    rig.run(scene)


def test_requests_that_do_not_finish_are_told_at_the_end_of_the_drain(
    rig: ModuleType, tmp_path: Path
) -> None:
    async def scene() -> None:
        async with rig.Rig(tmp_path, drain_timeout_s=0.2) as stage:
            await stage.pool.start(1)
            stage.traffic.requests[1] = 2
            stage.pool.resize(2)
            await rig.until(lambda: stage.traffic.lost)
            await stage.pool.settled()
            assert stage.traffic.lost == [(1, "2 requests did not finish within the drain's bound")]

    rig.run(scene)


def test_a_server_that_ignores_its_end_and_hides_a_child_leaves_nothing(
    rig: ModuleType, tmp_path: Path
) -> None:
    async def scene() -> None:
        stage = rig.Rig(tmp_path, stop_timeout_s=0.2)
        stage.launch.faults = {1: ("stubborn", "child")}
        server = await stage.pool.start(1)
        hidden = rig.descendants(server)
        assert len(hidden) == 2
        await stage.pool.close()
        assert [pid for pid in hidden if rig.alive(pid)] == rig.left(server) == []

    rig.run(scene)


def test_a_taken_port_is_passed_over_and_named_when_there_is_no_other(
    rig: ModuleType, tmp_path: Path
) -> None:
    async def scene() -> None:
        mine = free_port(rig.PORTS, set())
        other = free_port(rig.PORTS, {mine})
        with socket.create_server(("127.0.0.1", mine)), socket.create_server(("127.0.0.1", other)) as spare:
            stage = rig.Rig(tmp_path, ports=(mine, other))
            with pytest.raises(
                ServerError, match=rf"no free port on 127\.0\.0\.1: all of \[{mine}, {other}\]"
            ):
                await stage.pool.start(1)
            spare.close()
            async with stage:
                assert (await stage.pool.start(1)).port == other

    rig.run(scene)


def test_a_stranger_on_its_port_is_not_taken_for_the_server(rig: ModuleType, tmp_path: Path) -> None:
    """Somebody takes the port between the look and the start; his /health says 200."""

    async def scene() -> None:
        async with rig.Rig(tmp_path) as stage:
            stranger = await stage.pool.start(1)
            stage.launch.redirect = {2: stranger.port}
            stage.pool.resize(2)
            await rig.until(lambda: stage.pool.active is not stranger)
            assert stage.pool.active.size == 2
            assert any("its port was taken" in line for line in stage.said)

    rig.run(scene)


def test_a_pool_that_is_killed_leaves_no_server(rig: ModuleType, tmp_path: Path) -> None:
    killed, server_session = rig.killed_pool(tmp_path)
    assert killed == -signal.SIGKILL

    async def scene() -> None:
        await rig.until(lambda: not rig.session_members(server_session))

    rig.run(scene)


def test_a_full_disk_for_logs_stops_nobody(rig: ModuleType, tmp_path: Path) -> None:
    async def scene() -> None:
        for name in ("server-1-tp1.log", "server-2-tp1.log"):
            (tmp_path / name).symlink_to("/dev/full")
        async with rig.Rig(tmp_path, max_restarts=0) as stage:
            server = await stage.pool.start(1)
            await rig.until(lambda: server.last_lines)  # its keeper may pass them on late
            assert server.last_lines[0].startswith("starting on")
            server.signal(signal.SIGKILL)
            await rig.until(lambda: stage.pool.failed)
            assert any("starting on" in line for line in stage.said)

    rig.run(scene)


def test_a_log_is_bounded(rig: ModuleType, tmp_path: Path) -> None:
    async def scene() -> None:
        async with rig.Rig(tmp_path, log_bytes=100_000) as stage:
            stage.launch.faults = {1: ("talks",)}
            start = asyncio.create_task(stage.pool.start(1))
            await rig.until((tmp_path / "server-1-tp1.log.1").exists)
            start.cancel()

    rig.run(scene)
    sizes = {log.name: log.stat().st_size for log in tmp_path.iterdir()}
    assert set(sizes) == {"server-1-tp1.log", "server-1-tp1.log.1"}
    assert max(sizes.values()) <= 100_000


def test_closing_amid_a_change_leaves_nothing(rig: ModuleType, tmp_path: Path) -> None:
    async def scene() -> None:
        async with rig.Rig(tmp_path) as stage:
            stage.launch.faults = {2: ("ill",)}
            servers = [await stage.pool.start(1)]
            stage.pool.resize(2)
            servers.append(stage.pool.warming)
            await rig.until(lambda: servers[1].pids)
        assert rig.left(*servers) == []

    rig.run(scene)
