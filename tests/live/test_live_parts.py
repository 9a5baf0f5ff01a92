"""Small parts of the live room: threads that may hang, energy of allocated GPUs, plans that cannot be."""

import asyncio
import threading
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from throttllem_env.gpu.actuator import GpuInfo, GpuReading
from throttllem_env.gpu.energy import EnergyMeter
from throttllem_env.live.assembly import running
from throttllem_env.live.cache_sizes import CacheSizes
from throttllem_env.live.control_plan import ControlPlan, decider
from throttllem_env.live.energy_account import EnergyAccount, Holding
from throttllem_env.live.ledger import Ledger, State
from throttllem_env.live.loop_thread import LoopThread
from throttllem_env.live.node_plan import NodePlan
from throttllem_env.live.replay import ReplayRecord
from throttllem_env.live.run_records import run_records
from throttllem_env.live.worker import Worker
from throttllem_env.scenario import load_scenario
from throttllem_env.serving import Outcome
from throttllem_env.traces import Trace

BOUND_S = 60.0


def test_a_worker_answers_with_results_and_errors(rig: ModuleType) -> None:
    async def scene() -> None:
        worker = Worker("test")
        assert await worker.call(divmod, 7, 2) == (3, 1)
        with pytest.raises(ZeroDivisionError):
            await worker.call(divmod, 7, 0)
        worker.call(divmod, 7, 0)  # an error that nobody looks at is no matter
        assert await worker.call(len, "abc") == 3
        worker.end()

    rig.run(scene())


def test_nobody_waits_for_a_worker_that_hangs(rig: ModuleType) -> None:
    go_on, ended = threading.Event(), threading.Event()

    async def scene() -> None:
        worker = Worker("test")
        answer = worker.call(go_on.wait, BOUND_S)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await answer
        worker.call(ended.set)

    rig.run(scene())  # its loop is closed by the time the answer comes
    go_on.set()
    assert ended.wait(BOUND_S)


def test_a_loop_in_a_thread_does_what_it_is_told_and_is_closed() -> None:
    thread = LoopThread("test")
    seen: list[str] = []

    async def forever() -> None:
        try:
            await asyncio.sleep(1000)
        finally:
            seen.append("cancelled")

    async def begin() -> str:
        asyncio.get_running_loop().create_task(forever()).add_done_callback(lambda task: None)
        await asyncio.sleep(0)
        return "begun"

    assert thread.call(begin()) == "begun"
    with pytest.raises(TimeoutError):
        thread.call(asyncio.sleep(1000), bound_s=0.02)
    thread.close()
    assert seen == ["cancelled"]


def reading(gpu: int, time_s: float, energy_j: float) -> GpuReading:
    return GpuReading(gpu, time_s, 1410, 100.0, energy_j)


def test_energy_counts_while_a_gpu_is_held_and_by_what_its_instance_does() -> None:
    infos = [GpuInfo(gpu, f"GPU-{gpu}", "x", (1410,)) for gpu in range(2)]
    account = EnergyAccount(EnergyMeter(infos, read=lambda gpu: reading(gpu, 0.0, 0.0)))

    def at(time_s: float, *holdings: Holding) -> None:
        account.add([reading(gpu, time_s, 100 * time_s) for gpu in range(2)], holdings)

    at(10.0, Holding((0,), warming=True, busy=False))
    at(11.0, Holding((0,), warming=True, busy=False))
    at(13.0, Holding((0,), warming=False, busy=False), Holding((1,), warming=False, busy=True))
    at(14.0, Holding((0,), warming=False, busy=True), Holding((1,), warming=False, busy=True))
    at(20.0)
    at(21.0, Holding((1,), warming=False, busy=True))
    assert (account.total_j, account.warming_j, account.idle_j) == pytest.approx((500, 100, 200))
    assert account.gpu_seconds == pytest.approx(5)
    assert (account.opened_s, account.time_s) == (10.0, 21.0)


def test_new_books_are_opened_only_when_the_old_ones_are_done() -> None:
    now_s = [5.0]
    ledger = Ledger(lambda: now_s[0])
    ledger.archive = []
    entry = ledger.arrive(1)
    with pytest.raises(ValueError, match="1 queued and 0 running"):
        ledger.restart()
    ledger.end(entry, State.ABORTED)
    now_s[0] = 9.0
    ledger.restart()
    assert (ledger.now_s, ledger.recent().requests, ledger.news().arrived, ledger.arrive(1).request_id) == (
        0.0,
        0,
        0,
        0,
    )
    assert ledger.archive == [entry]


def test_records_have_what_the_client_saw_and_when_the_engine_got_it() -> None:
    scenario, trace = load_scenario("llama2-13b-a100"), Trace([0.0, 1.0, 2.0, 3.0], [10, 20, 30, 40], [3] * 4)
    done = ReplayRecord(0, 0.0, 0.001, 10, 3, 200, "", 3, ttft_s=0.5, e2e_s=1.5, gaps_s=[0.4, 0.6])
    refused = ReplayRecord(1, 1.0, 0.001, 20, 3, 400, "too long")
    under_way = ReplayRecord(2, 2.0, 0.001, 30, 3, 200, received_tokens=1, ttft_s=0.25)
    ledger = Ledger(lambda: 0.0)
    entries = [ledger.arrive(10), ledger.arrive(20), ledger.arrive(30)]
    for entry, start_s in zip(entries, (0.1, 1.1, 2.1), strict=True):
        entry.start_s = start_s
    account = EnergyAccount(EnergyMeter([], read=lambda gpu: reading(gpu, 0.0, 0.0)))
    account.total_j, account.idle_j, account.warming_j, account.gpu_seconds = 100.0, 30.0, 20.0, 8.0
    records = run_records(scenario, trace, [done, refused, under_way], entries, account, now_s=2.0)
    requests = records.requests
    assert requests.outcome.tolist() == [
        Outcome.COMPLETED,
        Outcome.REJECTED,
        Outcome.UNFINISHED,
        Outcome.UNFINISHED,
    ]
    assert requests.generated_tokens.tolist() == [3, 0, 1, 0]
    assert requests.scheduled_s.tolist() == pytest.approx([0.1, float("nan"), 2.1, float("nan")], nan_ok=True)
    assert requests.e2e_s.tolist() == [1.5, float("inf"), float("inf"), float("inf")]
    assert requests.ttft_s.tolist() == [0.5, float("inf"), 0.25, float("inf")]
    assert (records.tbt_tokens.sum(), records.tbt_mean_s) == (2, pytest.approx(0.5))
    energy = records.energy
    assert (energy.decode_j, energy.idle_j, energy.warming_j, energy.total_j) == (50, 30, 20, 100)
    assert energy.released_j == pytest.approx((8 * 2.0 - 8.0) * scenario.gpu_spec.released_w)


def test_a_servers_kv_blocks_are_its_own_where_it_says_so(rig: ModuleType, plant: ModuleType) -> None:
    pages = ['vllm:cache_config_info{block_size="16",num_gpu_blocks="501",x="y"} 1.0', "of_others 1"]

    async def scene() -> None:
        from aiohttp import web

        scenario, said = load_scenario("llama2-13b-a100"), list[str]()
        for page in pages:

            async def metrics(request: web.Request, page: str = page) -> web.Response:
                return web.Response(text=f"# HELP\n{page}\n")

            app = web.Application()
            app.router.add_get("/metrics", metrics)
            runner = web.AppRunner(app)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            server = plant.Server(f"http://127.0.0.1:{runner.addresses[0][1]}", 4, (0, 1, 2, 3))
            sizes = CacheSizes(scenario, said.append)
            assert sizes.of(server) == scenario.kv_blocks(4) - 1
            async with running(sizes.run(plant.Pool(server)), said.append):
                if "501" in page:
                    await rig.eventually(lambda: sizes.of(server) == 500, "it was asked")  # noqa: B023
                else:
                    await asyncio.sleep(0.05)
                    assert sizes.of(server) == scenario.kv_blocks(4) - 1
            await runner.cleanup()
        assert len(said) == 1
        assert "has 501 KV blocks; llama2-13b-a100 supposes" in said[0]

    rig.run(scene())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "model is missing"),
        ({"emulate": True, "actuator": "nvidia"}, "gpus = 'nvidia': unknown"),
        ({"model": "x", "actuator": "emulated"}, "only emulated servers run on those"),
        ({"model": "x", "device_file": Path("f")}, "only emulated servers have one"),
    ],
)
def test_plans_that_cannot_be_are_refused(options: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=words):
        NodePlan("llama2-13b-a100", tmp_path, **options)


def test_a_decider_is_prepared_and_knows_no_true_lengths() -> None:
    scenario = load_scenario("llama2-13b-a100").model_copy(update={"admission": "projected"})
    ready = decider(ControlPlan("throttllem+watchdog", slo_scale=2.0), scenario)
    assert ready.slo.e2e_s == pytest.approx(2 * 30.73)
    assert ready.gate is not None
    assert ready.observer is None
    with pytest.raises(ValueError, match="live requests have no known lengths"):
        decider(ControlPlan("throttllem", length_predictor="oracle"), scenario)
