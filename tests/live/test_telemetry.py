"""Telemetry of live servers is what the simulators' is, or there is none.

Plants are dry here: nobody locks a clock, so GPUs are read only when a test asks for it.
"""

import asyncio
from types import ModuleType

import numpy as np
import pytest

from throttllem_env.envs import Observation
from throttllem_env.live.ledger import State
from throttllem_env.live.telemetry import AgeBounds, TelemetryError
from throttllem_env.prediction import Forecaster
from throttllem_env.prediction.lengths import LearnedLengths
from throttllem_env.types import InstanceState, Telemetry


def test_it_has_requests_tokens_blocks_clock_and_energy(rig: ModuleType, plant: ModuleType) -> None:
    async def scene() -> None:
        p = plant.Plant(writes=False)
        await p.node.look()
        p.sent(100, 20)
        p.clock.now_s += 1
        p.sent(50)
        p.report(running=2, kv_usage=10 / p.scenario.kv_blocks(4))
        p.clock.now_s += 1
        await p.node.look()
        t = p.telemeter.take()
        assert (t.time_s, t.previous_s, t.arrived, t.tokens_generated, t.recent.requests) == (
            2.0,
            0,
            2,
            20,
            2,
        )
        active = t.active
        assert (active.state, active.size, active.frequency_mhz, active.target_mhz) == (
            "active",
            4,
            1410,
            1410,
        )
        assert active.running.generated_tokens.tolist() == [20, 0]
        assert active.running.computed_tokens.tolist() == [119, 32]
        assert (active.kv_blocks_used, active.kv_blocks_total) == (10, p.scenario.kv_blocks(4) - 1)
        assert (t.energy_j, t.power_w) == (pytest.approx(4 * 100 * 2), pytest.approx(400))
        p.clock.now_s += 0.01  # not read since: power is what it was, not 0
        again = p.telemeter.take()
        assert (again.arrived, again.power_w, again.previous_s) == (0, pytest.approx(400), 2.0)

    rig.run(scene())


def test_lengths_that_requests_ask_for_change_nothing(rig: ModuleType, plant: ModuleType) -> None:
    """Through the real gateway: the same requests with max_tokens the other way round."""
    order = np.random.default_rng(0).permutation(12)

    async def shown(lengths: list[int]) -> tuple[Telemetry, bytes]:
        p = plant.Plant(writes=False)
        upstream = rig.FakeVllm(iteration_s=1000.0)
        async with rig.serving(upstream) as url, rig.fronted(p.gateway) as stage:
            server = p.activate(plant.Server(url, 4, (0, 1, 2, 3)))
            p.pool.draining = None
            tasks = []
            for number, length in enumerate(lengths):
                body = {"max_tokens": length, "min_tokens": length, "prompt": [1] * (number + 3)}
                tasks.append(asyncio.create_task(stage.post(**body)))
                await rig.eventually(lambda n=number: upstream.running == n + 1, "it is at the upstream")
            p.clock.now_s += 1
            for entry in p.ledger.running_entries(url)[:6]:
                p.ledger.count(entry, 3)
            p.report(server, running=10, waiting=2, kv_usage=0.01)
            await p.node.look()
            telemetry = p.telemeter.take()
            past = np.array([10, 20, 30])
            forecaster = Forecaster.of(
                p.scenario, p.scenario.latency_slo(), LearnedLengths(past, past, 1024, 4096)
            )
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            return telemetry, Observation(forecaster).flat(telemetry).tobytes()

    async def scene() -> None:
        lengths = [100 + 50 * i for i in range(12)]
        one, seen = await shown(lengths)
        other, seen_too = await shown([lengths[i] for i in order])
        assert len(one.active.running) == 10
        assert (repr(one), seen) == (repr(other), seen_too)

    rig.run(scene())


def test_others_warm_and_drain(rig: ModuleType, plant: ModuleType) -> None:
    async def scene() -> None:
        p = plant.Plant(writes=False)
        old = p.pool.active
        p.sent(30, 5)
        p.pool.warming = plant.Server("http://127.0.0.1:2", 2, (4, 5), InstanceState.WARMING, p.clock.now_s)
        p.clock.now_s += 3
        await p.node.look()
        p.report(running=1)
        t = p.telemeter.take()
        assert [(i.state, i.size) for i in t.others] == [("warming", 2)]
        new = p.activate(p.pool.warming)
        p.report(old)
        await p.node.look()
        t = p.telemeter.take()
        assert (t.active.size, len(t.active.running), t.active.since_s) == (2, 0, 3.0)
        assert [(i.state, len(i.running)) for i in t.others] == [("draining", 1)]
        assert p.pool.active is new

    rig.run(scene())


def test_what_is_missing_or_too_old_is_an_error(rig: ModuleType, plant: ModuleType) -> None:
    async def scene() -> None:
        p = plant.Plant(writes=False)

        def refused(source: str, words: str) -> None:
            with pytest.raises(TelemetryError, match=words) as caught:
                p.telemeter.take()
            assert caught.value.source == source

        refused("gpu", "the reading of GPU 0 is missing")
        await p.node.look()
        p.telemeter.take()
        p.clock.now_s += 3
        refused("gpu", r"3\.0 s old: at most 2 s")
        p.gpus.lost = {2}
        await p.node.look()
        refused("gpu", "GPU 2 is 3.0 s old")
        assert p.said == ["GPU 2 cannot be read: GPU 2: fell off the bus"]
        p.gpus.lost = set()
        entry = p.sent(10)
        p.clock.now_s += 4
        await p.node.look()
        p.telemeter.take()  # the engine is silent, but not yet for too long
        p.clock.now_s += 2
        await p.node.look()
        refused("engine", r"report is 6\.0 s old: at most 5 s")
        p.report(running=1)
        p.telemeter.take()
        p.ledger.end(entry, State.FINISHED)
        p.clock.now_s += 60
        await p.node.look()
        assert p.telemeter.take().active.kv_blocks_used == 0  # an idle engine has nothing to say
        p.pool.active = None
        refused("server", "no server is active")

    rig.run(scene())


def test_news_of_an_interval_without_telemetry_are_kept(rig: ModuleType, plant: ModuleType) -> None:
    async def scene() -> None:
        p = plant.Plant(writes=False)
        p.sent(10, 2)
        with pytest.raises(TelemetryError):
            p.telemeter.take()
        await p.node.look()
        assert p.telemeter.take().tokens_generated == 2

    rig.run(scene())


def test_a_parked_clock_says_nothing_and_the_slowest_gpu_rules(rig: ModuleType, plant: ModuleType) -> None:
    async def scene() -> None:
        p = plant.Plant(writes=False)
        await p.node.look()
        p.gpus.mhz[2] = 996  # the nearest that the scenario knows is 990
        await p.node.look()
        assert p.telemeter.take().active.frequency_mhz == 990
        p.gpus.reasons = frozenset({"idle"})
        await p.node.look()
        assert p.telemeter.take().active.frequency_mhz == 1410

    rig.run(scene())


def test_the_queues_head_is_looked_at_alone_and_takes_no_news(rig: ModuleType, plant: ModuleType) -> None:
    async def scene() -> None:
        p = plant.Plant(writes=False)
        await p.node.look()
        entries = [p.ledger.arrive(n) for n in (7, 8, 9)]
        assert p.telemeter.look(entries[1]).queue.prompt_tokens.tolist() == [8]
        assert p.telemeter.take().queue.prompt_tokens.tolist() == [7, 8, 9]

    rig.run(scene())


@pytest.mark.parametrize("bound", [0.0, float("inf"), float("nan")])
def test_bounds_that_cannot_be_are_refused(bound: float) -> None:
    with pytest.raises(ValueError, match="reading_s"):
        AgeBounds(reading_s=bound)
