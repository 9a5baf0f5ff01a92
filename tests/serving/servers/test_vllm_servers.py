"""Real vLLM servers: on emulated GPUs, and a tiny model on the CPU, through faults that vLLM does not report.

Each test starts one server and has the pool replace it once: starts are what takes the time.
"""

import contextlib
import json
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import aiohttp
import pytest

from throttllem_env.gpu import DeviceFile
from throttllem_env.live.gateway import Gateway
from throttllem_env.live.server import listening
from throttllem_env.live.settings import GatewaySettings
from throttllem_env.scenario import load_scenario
from throttllem_env.serving.vllm.model_files import write_config, write_random_weights, write_tokenizer
from throttllem_env.serving.vllm.servers import Launch, PoolSettings, Server, ServerPool
from throttllem_env.serving.vllm.servers.keeper import session_members

pytestmark = pytest.mark.live

SCENARIO = "llama2-13b-a100"
BASE = load_scenario(SCENARIO)
MAX_LEN = 4096


class Stage:
    """A pool of real servers, and a client. It replaces one server, then gives up."""

    def __init__(self, rig: ModuleType, folder: Path, launch: Launch, gpus: int) -> None:
        settings = PoolSettings(
            folder, start_timeout_s=300.0, max_restarts=1, stopped_timeout_s=1.0, stall_timeout_s=60.0
        )
        self.traffic, self.said, self.rig = rig.FakeTraffic(), list[str](), rig
        self.pool = ServerPool(launch, range(gpus), settings, traffic=self.traffic, say=self.said.append)
        self.seen: list[Server] = []

    @asynccontextmanager
    async def started(self, size: int) -> AsyncIterator[Server]:
        """Start the first server; at the end nothing is left of any."""
        timeout = aiohttp.ClientTimeout(total=self.rig.BOUND_S)
        async with aiohttp.ClientSession(timeout=timeout) as self.session, self.pool:
            self.seen.append(await self.pool.start(size))
            yield self.seen[0]
        left = [pid for server in self.seen for pid in session_members(server.session or 0)]
        assert left == [], self.said

    async def post(self, server: Server, path: str, **asked: Any) -> dict[str, Any]:
        """A whole answer."""
        async with self.session.post(server.url + path, json={"model": server.model} | asked) as reply:
            assert reply.status == 200, await reply.text()
            answer: dict[str, Any] = await reply.json()
            return answer

    @asynccontextmanager
    async def streaming(self, server: Server, **asked: Any) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
        """The events of a stream."""
        options = {"include_usage": True, "continuous_usage_stats": True}
        body = {"model": server.model, "stream": True, "stream_options": options, "ignore_eos": True} | asked
        async with self.session.post(server.url + "/v1/completions", json=body) as reply:
            assert reply.status == 200, await reply.text()
            yield self._events(reply)

    async def _events(self, reply: aiohttp.ClientResponse) -> AsyncIterator[dict[str, Any]]:
        async for line in reply.content:
            if line.startswith(b"data: {"):
                yield json.loads(line.removeprefix(b"data: "))

    async def fault(self, server: Server, process: str, number: int) -> None:
        """Send a signal to a process amid a stream; the pool gives the server up, and the stream ends."""
        async with self.streaming(server, prompt="t4 t5", max_tokens=MAX_LEN - 20) as events:
            assert await anext(events)
            (pid,) = (pid for pid in server.pids if comm(pid).startswith(process))
            os.kill(pid, number)
            if number == signal.SIGSTOP:
                async with self.session.get(server.url + "/health") as reply:
                    assert reply.status == 200  # all is well, says vLLM
            tokens = 0
            with contextlib.suppress(aiohttp.ClientError):  # or with an error as its last event
                async for event in events:
                    tokens = event.get("usage", {}).get("completion_tokens", tokens)
        assert tokens < MAX_LEN - 20
        await self.rig.until(lambda: server.number in dict(self.traffic.lost))

    async def replaced(self, server: Server) -> Server:
        """The server that comes in a given-up one's place."""
        await self.rig.until(lambda: self.pool.failed or self.pool.active not in (server, None))
        assert self.pool.active is not None, self.said
        self.seen.append(self.pool.active)
        return self.pool.active


def comm(pid: int) -> str:
    """A process's name."""
    return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8")


def emulated_gpus(path: Path, count: int) -> DeviceFile:
    """GPUs of the scenario."""
    physics = BASE.physics(1)
    return DeviceFile.create(path, {mhz: physics.at(mhz).idle_w for mhz in BASE.gpu_spec.clocks_mhz}, count)


async def spent(stage: Stage, server: Server, device: DeviceFile, tokens: int) -> tuple[float, float]:
    """Serve a request alone; returns wall-clock and modelled seconds."""
    modelled_s, start_s = float(device.gpus[1]["iteration_s"]), time.monotonic()
    answer = await stage.post(server, "/v1/completions", prompt=[9] * 50, max_tokens=tokens, ignore_eos=True)
    assert answer["usage"] == answer["usage"] | {"prompt_tokens": 50, "completion_tokens": tokens}
    return time.monotonic() - start_s, float(device.gpus[1]["iteration_s"]) - modelled_s


async def check_clock(stage: Stage, server: Server, device: DeviceFile) -> None:
    """A request takes what the slowest GPU needs at its clock, and no less time really passes."""
    fast_wall_s, fast_s = await spent(stage, server, device, 30)
    device.lock_clocks(0, 210, 210)
    slow_wall_s, slow_s = await spent(stage, server, device, 30)
    at = BASE.physics(2).at
    slow_one_s, fast_one_s = (float(at(mhz).decode_fixed_s[1] + at(mhz).host_s[1]) for mhz in (210, 1410))
    assert slow_s / fast_s == pytest.approx(slow_one_s / fast_one_s, rel=0.1)
    assert fast_wall_s >= 0.95 * fast_s
    assert slow_wall_s >= 0.95 * slow_s


async def check_energy(stage: Stage, server: Server, device: DeviceFile) -> None:
    """The meter agrees with the engine's own account of iterations, and idling besides, within 1 %."""
    before = (device.energy_j(0), device.gpus[0].copy())
    await spent(stage, server, device, 30)
    after = (device.energy_j(0), device.gpus[0])
    passed_s = (int(after[1]["idle_until_ns"]) - int(before[1]["idle_until_ns"])) / 1e9
    idle_s = passed_s - float(after[1]["iteration_s"] - before[1]["iteration_s"])
    account_j = float(after[1]["iteration_j"] - before[1]["iteration_j"]) + device.idle_w(210) * idle_s
    assert after[0] - before[0] == pytest.approx(account_j, rel=0.01)


async def check_statistics(stage: Stage, server: Server) -> None:
    """Plugin and page agree once nothing runs; an aborted request leaves the engine."""
    async with stage.streaming(server, prompt=[7] * 100, max_tokens=2000) as events:
        await anext(events)
        await stage.rig.until(lambda: server.stats and server.stats.running == 1)
        assert server.stats.kv_usage > 0
    await stage.rig.until(lambda: server.stats.running == server.stats.waiting == server.stats.kv_usage == 0)
    async with stage.session.get(server.url + "/metrics") as reply:
        assert f'num_gpu_blocks="{BASE.kv_blocks(2)}"' in await reply.text()
    page = await server.read_stats(stage.session)
    assert server.told
    for name in ("running", "waiting", "kv_usage", "prompt_tokens", "generated_tokens", "preemptions"):
        assert getattr(page, name) == getattr(server.stats, name), name


async def check_interface(stage: Stage, server: Server) -> None:
    """Text and chats are served, and nothing that is meant for development."""
    text = await stage.post(server, "/v1/completions", prompt="t4 t5 t6", max_tokens=3)
    assert (text["usage"]["prompt_tokens"], text["choices"][0]["text"].split()) == (3, ["t5"] * 3)
    messages = [{"role": "user", "content": "t8 t9"}]
    chat = await stage.post(server, "/v1/chat/completions", messages=messages, max_tokens=2)
    assert chat["choices"][0]["message"]["content"].split() == ["t5"] * 2
    for path in ("/reset_prefix_cache", "/sleep", "/collective_rpc"):
        async with stage.session.post(server.url + path, json={}) as reply:
            assert reply.status == 404, path


async def check_gateway(stage: Stage, server: Server) -> None:
    """Through the gateway a stream has the very tokens that come directly, and the books count them."""
    gateway = Gateway(GatewaySettings((server.url,), port=0))
    asked = {"prompt": [5, 6, 7], "max_tokens": 30, "temperature": 0.0}
    direct = await stage.post(server, "/v1/completions", **asked, ignore_eos=True)
    async with listening(gateway, "127.0.0.1", 0) as url:
        body = asked | {"model": server.model, "stream": True, "ignore_eos": True, "return_token_ids": True}
        async with stage.session.post(url + "/v1/completions", json=body) as reply:
            assert reply.status == 200
            lines = (await reply.read()).decode().split("\n\n")
    assert lines[-2:] == ["data: [DONE]", ""]
    events = [json.loads(line.removeprefix("data: ")) for line in lines[:-2]]
    assert all("usage" not in event or event["usage"] is None for event in events)  # nobody asked for it
    choices = [event["choices"][0] for event in events]
    assert "".join(choice["text"] for choice in choices) == direct["choices"][0]["text"]
    tokens = sum(len(choice["token_ids"] or ()) for choice in choices)
    news = gateway.ledger.take_news()
    (finished,) = news.finished
    assert (finished.prompt_tokens, finished.generated_tokens) == (3, 30)
    assert (tokens, news.tokens_generated) == (30, 30)


def test_a_server_on_emulated_gpus_keeps_time_and_is_replaced_when_its_engine_is_stuck(
    rig: ModuleType, tmp_path: Path
) -> None:
    from throttllem_env.serving.vllm.servers.launch import EmulatedLaunch

    async def scene() -> None:
        device = emulated_gpus(tmp_path / "gpus", 2)
        stage = Stage(rig, tmp_path, EmulatedLaunch(SCENARIO, tmp_path / "gpus", tmp_path / "model"), 2)
        async with stage.started(2) as server:
            await check_interface(stage, server)
            await check_clock(stage, server, device)
            await check_energy(stage, server, device)
            await check_statistics(stage, server)
            await stage.fault(server, "VLLM::Engine", signal.SIGSTOP)
            server = await stage.replaced(server)
            await check_interface(stage, server)
            await stage.fault(server, "VLLM::Engine", signal.SIGKILL)
            await rig.until(lambda: stage.pool.failed)
        device.close()

    rig.run(scene)


def test_a_tiny_model_on_the_cpu_streams_every_token_and_is_replaced_when_a_worker_is_stuck(
    rig: ModuleType, tmp_path: Path
) -> None:
    from throttllem_env.serving.vllm.servers.launch import RealLaunch

    async def scene() -> None:
        write_config(tmp_path, MAX_LEN)
        write_tokenizer(tmp_path, MAX_LEN)
        write_random_weights(tmp_path)
        # vLLM's own attention on CPUs wants larger blocks.
        more = ("--block-size", "128", "--dtype", "float32", "--enforce-eager")
        more += ("--max-model-len", str(MAX_LEN), "--num-gpu-blocks-override", "64")
        quiet = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
        launch = RealLaunch(BASE, str(tmp_path), more, quiet | {"VLLM_CPU_KVCACHE_SPACE": "1"})
        stage = Stage(rig, tmp_path, launch, 1)
        async with stage.started(1) as server:
            async with stage.streaming(server, prompt=[5, 6, 7], max_tokens=40, temperature=0.0) as events:
                usages = [event["usage"]["completion_tokens"] async for event in events]
            assert usages == sorted(usages)
            assert usages[-1] == 40
            await check_gateway(stage, server)
            await stage.fault(server, "VLLM::Worker", signal.SIGSTOP)
            server = await stage.replaced(server)
            await stage.fault(server, "VLLM::Worker", signal.SIGKILL)
            await rig.until(lambda: stage.pool.failed)

    rig.run(scene)
