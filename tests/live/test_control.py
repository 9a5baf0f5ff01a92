"""The control loop: when a controller is asked, what is carried out, and where errors lead."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import asynccontextmanager, suppress
from types import ModuleType
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from throttllem_env.controller import Assignment
from throttllem_env.controller.watchdog import Watchdog
from throttllem_env.live.control import ControlLoop, ControlSettings
from throttllem_env.live.control_metrics import ControlMetrics
from throttllem_env.live.control_watch import ControlWatch
from throttllem_env.live.ledger import State
from throttllem_env.prediction import Forecaster
from throttllem_env.prediction.lengths import LearnedLengths
from throttllem_env.types import Action, InstanceState, Telemetry


class Script:
    """A controller that does as a test says."""

    needs_observation = False

    def __init__(self, points: str = "events", period_s: float = 1000.0) -> None:
        self.control_points, self.period_s = points, period_s
        self.seen: list[Telemetry] = []
        self.answer: Callable[[Telemetry], Action] = lambda telemetry: Action(990, 4)

    def reset(self, assignment: Assignment) -> None:
        """Nothing to forget."""

    def act(self, observation: Any, telemetry: Telemetry) -> Action:
        self.seen.append(telemetry)
        return self.answer(telemetry)


def lengths() -> LearnedLengths:
    import numpy as np

    return LearnedLengths(np.array([10, 20]), np.array([800, 900]), 1024, 4096)


@asynccontextmanager
async def running(loop: ControlLoop) -> Any:
    task = asyncio.create_task(loop.run())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def made(plant: ModuleType, controller: Any, **settings: Any) -> tuple[Any, ControlLoop]:
    p = plant.Plant()
    bounds = ControlSettings(**({"answer_s": 60.0} | settings))
    loop = ControlLoop(controller, p.telemeter, p.node, p.ledger, bounds, watch=ControlWatch(p.say))
    return p, loop


def test_a_decision_is_carried_out(rig: ModuleType, plant: ModuleType) -> None:
    async def scene() -> None:
        controller = Script()
        p, loop = made(plant, controller)
        await p.node.look()
        controller.answer = lambda telemetry: Action(990, 2)
        async with running(loop):
            await rig.eventually(lambda: p.gpus.mhz[:4] == [990] * 4, "the active one's GPUs obey")
        assert (p.pool.asked, p.node.switches, p.gpus.mhz[4:]) == ([2], 1, [1410] * 4)
        await p.node.look()
        assert p.telemeter.take().active.target_mhz == 990

    rig.run(scene())


def test_arrivals_and_completions_are_control_points_and_tokens_are_not(
    rig: ModuleType, plant: ModuleType
) -> None:
    async def scene() -> None:
        controller = Script()
        p, loop = made(plant, controller)
        await p.node.look()
        async with running(loop):
            await rig.eventually(lambda: len(controller.seen) == 1, "it is asked at the start")
            entry = p.sent(10)
            await rig.eventually(lambda: len(controller.seen) == 2, "it is asked at an arrival")
            p.ledger.count(entry, 5)
            await asyncio.sleep(0.1)
            assert len(controller.seen) == 2
            p.ledger.end(entry, State.FINISHED)
            await rig.eventually(lambda: len(controller.seen) == 3, "it is asked at a completion")
        assert controller.seen[-1].tokens_generated == 5

    rig.run(scene())


def test_events_that_come_together_are_one_control_point(rig: ModuleType, plant: ModuleType) -> None:
    async def scene() -> None:
        controller = Script()
        p, loop = made(plant, controller)
        await p.node.look()
        async with running(loop):
            await rig.eventually(lambda: len(controller.seen) == 1, "it is asked at the start")
            for _ in range(50):
                p.ledger.arrive(1)
            await rig.eventually(lambda: sum(t.arrived for t in controller.seen) == 50, "all are seen")
        assert len(controller.seen) <= 3

    rig.run(scene())


def test_a_controller_of_periods_is_not_asked_at_events(rig: ModuleType, plant: ModuleType) -> None:
    async def scene() -> None:
        controller = Script("period", 0.05)
        p, loop = made(plant, controller)
        await p.node.look()
        async with running(loop):
            await rig.eventually(lambda: len(controller.seen) >= 3, "it is asked again and again")
        slow = Script("period")
        p, loop = made(plant, slow)
        await p.node.look()
        async with running(loop):
            await rig.eventually(lambda: len(slow.seen) == 1, "it is asked at the start")
            p.ledger.arrive(1)
            await asyncio.sleep(0.1)
            assert len(slow.seen) == 1

    rig.run(scene())


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda telemetry: 1 / 0, "ZeroDivisionError: division by zero"),
        (lambda telemetry: Action(1000, 4), "frequency_mhz = 1000: not supported; the nearest is 1005"),
        (lambda telemetry: Action(990, 3), "size = 3: not supported"),
    ],
    ids=["fails", "no clock", "no size"],
)
def test_a_bad_answer_leads_to_the_top_clock_and_a_good_one_back(
    rig: ModuleType, plant: ModuleType, answer: Any, words: str
) -> None:
    async def scene() -> None:
        controller = Script()
        p, loop = made(plant, controller)
        await p.node.look()
        async with running(loop):
            await rig.eventually(lambda: p.gpus.mhz[0] == 990, "it is obeyed")
            good, controller.answer = controller.answer, answer
            p.ledger.arrive(1)
            await rig.eventually(lambda: p.gpus.mhz[:4] == [1410] * 4, "the top clock is set")
            assert words in loop.safe_reason
            controller.answer = good
            p.ledger.arrive(1)
            await rig.eventually(lambda: p.gpus.mhz[0] == 990, "it is obeyed again")
        assert [line.split(":")[0] for line in p.said] == [
            "safe state, top clock",
            "the controller has control again",
        ]

    rig.run(scene())


def test_a_controller_that_hangs_holds_up_nothing(rig: ModuleType, plant: ModuleType) -> None:
    """The process's end neither: its thread is a daemon."""
    go_on = threading.Event()

    async def scene() -> None:
        controller = Script("period", 0.02)
        p, loop = made(plant, controller, answer_s=0.05)
        await p.node.look()

        def hang(telemetry: Telemetry) -> Action:
            go_on.wait(rig.BOUND_S)
            return Action(210, 1)

        async with running(loop):
            await rig.eventually(lambda: p.gpus.mhz[0] == 990, "it is obeyed")
            controller.answer = hang
            await rig.eventually(lambda: "an earlier control point" in loop.safe_reason, "it still thinks")
            await rig.eventually(lambda: p.gpus.mhz[0] == 1410, "the top clock is set")
            assert any("did not decide within 0.05 s" in line for line in p.said)
            controller.answer = lambda telemetry: Action(990, 4)
            go_on.set()
            await rig.eventually(lambda: p.gpus.mhz[0] == 990, "its later answers count")
        assert 210 not in [mhz for _, _, mhz in p.gpus.calls]

    rig.run(scene())


def test_stale_telemetry_leads_to_the_top_clock(rig: ModuleType, plant: ModuleType) -> None:
    async def scene() -> None:
        controller = Script("period", 0.02)
        p, loop = made(plant, controller)
        await p.node.look()
        async with running(loop):
            await rig.eventually(lambda: p.read_mhz(0) == 990, "it is obeyed, and read back")
            changed = len(p.gpus.calls)
            p.clock.now_s += 10
            # A change is read back, so that telemetry is fresh again, and the safe state may be over at once.
            await rig.eventually(lambda: len(p.gpus.calls) > changed, "another clock is set")
            assert p.gpus.calls[changed] == ("lock", (0, 1, 2, 3), 1410)
            assert "no telemetry: the reading of GPU 0 is 10.0 s old" in p.said[0]
            asked = len(controller.seen)
            await p.node.look()
            await rig.eventually(lambda: len(controller.seen) > asked, "it is asked again")
            await rig.eventually(lambda: p.gpus.calls[-1][2] == 990, "it is obeyed again")

    rig.run(scene())


def test_gpus_that_do_not_obey_are_left_at_the_top_for_a_while(rig: ModuleType, plant: ModuleType) -> None:
    async def scene() -> None:
        controller = Script("period", 0.02)
        p, loop = made(plant, controller)
        p.gpus.refusing = {1}
        await p.node.look()
        async with running(loop):
            await rig.eventually(lambda: bool(loop.safe_reason), "it is noticed")
            assert "a clock was not set: GPU 1: no permission" in loop.safe_reason
            await rig.eventually(lambda: p.gpus.mhz[0] == 1410, "the others go to the top clock")
            p.gpus.refusing = set()
            asked = len(controller.seen)
            await rig.eventually(lambda: len(controller.seen) > asked + 2, "it is asked, but not obeyed")
            assert p.gpus.mhz[:4] == [1410] * 4
            p.clock.now_s += 31
            await p.node.look()
            await rig.eventually(lambda: p.gpus.mhz[:4] == [990] * 4, "after the while it is obeyed")

    rig.run(scene())


def test_a_watchdog_inside_learns_how_old_telemetry_is(rig: ModuleType, plant: ModuleType) -> None:
    async def scene() -> None:
        controller = Watchdog(Script("period", 0.02), quiet_s=20.0)
        p, loop = made(plant, controller)
        slo = p.scenario.latency_slo()
        controller.reset(Assignment(p.scenario, slo, lengths(), 0))
        await p.node.look()
        async with running(loop):
            await rig.eventually(lambda: p.read_mhz(0) == 990, "the agent is obeyed, and the clock read back")
            p.clock.now_s += 15
            await rig.eventually(lambda: controller.overriding, "the watchdog takes over")
            await rig.eventually(lambda: p.gpus.mhz[0] == 1410, "the top clock is set")
            await p.node.look()
            await rig.eventually(lambda: not loop.safe_reason, "telemetry is there again")
            assert p.gpus.mhz[0] == 1410  # the watchdog's quiet time goes on
            for _ in range(
                14
            ):  # in steps that leave readings young, should it be asked before they are renewed
                p.clock.now_s += 1.5
                await p.node.look()
            await rig.eventually(lambda: p.gpus.mhz[0] == 990, "the agent has control again")
        assert any("watchdog takes over" in line for line in p.said)

    rig.run(scene())


def test_wishes_that_are_overtaken_never_reach_the_driver(rig: ModuleType, plant: ModuleType) -> None:
    async def scene() -> None:
        p = plant.Plant()
        await p.node.look()
        await rig.eventually(lambda: ("lock", (0, 1, 2, 3), 1410) in p.gpus.calls, "the first lock")
        hold, held = threading.Event(), threading.Event()

        def slow() -> None:
            held.set()
            hold.wait(rig.BOUND_S)

        p.gpus.before_lock = slow
        for mhz in (990, 1005, 1200, 705):
            p.node.apply(Action(mhz, 4))
            await asyncio.to_thread(held.wait, rig.BOUND_S)
        hold.set()
        await rig.eventually(lambda: p.gpus.mhz[0] == 705, "the last one is carried out")
        assert [mhz for _, _, mhz in p.gpus.calls] == [1410, 990, 705]
        assert p.node.switches == 4

    rig.run(scene())


def test_others_run_at_the_top_and_who_is_gone_gets_its_own_clock_back(
    rig: ModuleType, plant: ModuleType
) -> None:
    async def scene() -> None:
        p = plant.Plant()
        p.node.notice()
        p.node.apply(Action(990, 2))
        await rig.eventually(lambda: p.gpus.mhz[:4] == [990] * 4, "the active one obeys")
        p.pool.warming = plant.Server("http://127.0.0.1:2", 2, (4, 5), InstanceState.WARMING)
        p.activate(p.pool.warming)
        p.node.notice()
        await rig.eventually(lambda: p.gpus.mhz[:6] == [1410] * 6, "both run at the top clock")
        p.node.apply(Action(705, 2))
        await rig.eventually(lambda: p.gpus.mhz[4:6] == [705] * 2, "the new one obeys")
        p.pool.draining = None
        p.node.notice()
        await rig.eventually(lambda: ("reset", (0, 1, 2, 3), None) in p.gpus.calls, "it is released")
        assert [u.url for u in p.gateway.router.upstreams] == ["http://127.0.0.1:2"]
        await p.node.close()
        assert p.gpus.calls[-1] == ("reset", (4, 5), None)

    rig.run(scene())


def test_a_dry_run_changes_nothing(rig: ModuleType, plant: ModuleType) -> None:
    async def scene() -> None:
        p = plant.Plant(writes=False)
        controller = Script()
        loop = ControlLoop(controller, p.telemeter, p.node, p.ledger)
        await p.node.look()
        async with running(loop):
            await rig.eventually(lambda: len(controller.seen) >= 1, "it is asked")
        p.node.to_top()
        await p.node.close()
        assert (p.gpus.calls, p.pool.asked) == ([], [])
        assert controller.seen[0].active.target_mhz == 1410

    rig.run(scene())


def test_metrics_show_decisions_projections_clocks_and_energy(rig: ModuleType, plant: ModuleType) -> None:
    async def scene() -> None:
        p = plant.Plant()
        registry = CollectorRegistry()
        forecaster = Forecaster.of(p.scenario, p.scenario.latency_slo(), lengths())
        watch = ControlMetrics(registry, p.node, forecaster, p.say)
        controller = Script()
        patient = ControlSettings(answer_s=rig.BOUND_S)  # the first projection compiles
        loop = ControlLoop(controller, p.telemeter, p.node, p.ledger, patient, watch=watch)
        await p.node.look()
        p.sent(100, 5)
        p.report(running=1, kv_usage=0.01)
        await loop.decide()
        for _ in range(6):
            p.clock.now_s += 1
            p.report(running=1)
            await p.node.look()
            await loop.decide()
        page = generate_latest(registry).decode()
        shown = dict(line.rsplit(" ", 1) for line in page.splitlines() if not line.startswith("#"))
        wanted = {
            "throttllem_decisions_total": 7,
            "throttllem_decision_seconds_count": 7,
            "throttllem_decided_clock_mhz": 990,
            "throttllem_energy_joules_total": 4 * 100 * 6,
            "throttllem_gpu_seconds_total": 24,
            "throttllem_clock_changes_total": 1,
            'throttllem_gpu_clock_mhz{gpu="3"}': 990,
            'throttllem_instance_size{state="active",url="http://127.0.0.1:1"}': 4,
            'throttllem_clock_asked_mhz{state="active",url="http://127.0.0.1:1"}': 990,
            "throttllem_batch": 1,
            "throttllem_batch_projected": 1,
            "throttllem_safe_state": 0,
        }
        assert {name: float(shown[name]) for name in wanted} == pytest.approx(wanted)
        assert float(shown["throttllem_kv_blocks_projected"]) > 0
        loop.to_safety("because")
        page = generate_latest(registry).decode()
        assert 'throttllem_events_total{kind="safe"} 1.0' in page
        assert "throttllem_safe_state 1.0" in page

    rig.run(scene())
