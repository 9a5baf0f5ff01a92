"""What telemetry costs a server: two servers on emulated GPUs under the same load at once, one without it.

    python scripts/telemetry_cost.py --seconds 30

One server's plugin tells the pool of every iteration, the other's vLLM loads no plugin. Iterations come from
the mapped file of GPUs, CPU time from /proc. Needs vLLM (`make live` makes an environment), and a machine
that is otherwise idle.
"""

import argparse
import asyncio
import os
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import aiohttp
import numpy as np

from throttllem_env.gpu import DeviceFile
from throttllem_env.scenario import load_scenario
from throttllem_env.serving.vllm.servers import PoolSettings, Server, ServerCommand, ServerPool
from throttllem_env.serving.vllm.servers.launch import EmulatedLaunch

SETTLE_S = 3.0


class SilentLaunch(EmulatedLaunch):
    """Servers whose vLLM loads no plugin."""

    def __call__(self, size: int, gpus: tuple[int, ...], port: int) -> ServerCommand:
        """Describe a server."""
        command = super().__call__(size, gpus, port)
        return replace(command, environment={**command.environment, "VLLM_PLUGINS": ""})


def cpu_s(server: Server) -> float:
    """CPU time that all processes of a server have used, seconds."""
    ticks = 0
    for pid in server.pids:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


async def keep_busy(server: Server, session: aiohttp.ClientSession) -> None:
    """One request after another, for as long as it is let."""
    body = {"model": server.model, "prompt": [7] * 100, "max_tokens": 2000, "ignore_eos": True}
    while True:
        async with session.post(f"{server.url}/v1/completions", json=body) as reply:
            reply.raise_for_status()
            await reply.read()


async def measured(
    servers: Sequence[Server], device: DeviceFile, requests: int, seconds: float
) -> np.ndarray:
    """Load them all at once.

    Returns:
        float64[servers, 2], iterations per second and CPU seconds per second.
    """
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None)) as session:
        load = [asyncio.create_task(keep_busy(s, session)) for s in servers for _ in range(requests)]
        await asyncio.sleep(SETTLE_S)

        def counts() -> np.ndarray:
            iterations = device.gpus["iterations"].astype(np.float64)
            return np.array([[iterations[s.gpus[0]], cpu_s(s)] for s in servers])

        loop = asyncio.get_running_loop()
        before, start_s = counts(), loop.time()
        await asyncio.sleep(seconds)
        rates: np.ndarray = (counts() - before) / (loop.time() - start_s)
        for task in load:
            task.cancel()
        await asyncio.gather(*load, return_exceptions=True)
    return rates


async def compare(scenario: str, requests: int, seconds: float, repeats: int, folder: Path) -> None:
    """Start both servers, measure, print."""
    known = load_scenario(scenario)
    size, physics = known.sizes[0], known.physics(known.sizes[0])
    idle_w = {mhz: physics.at(mhz).idle_w for mhz in known.gpu_spec.clocks_mhz}
    device = DeviceFile.create(folder / "gpus", idle_w, 2 * size)
    ways = {"with": EmulatedLaunch, "without": SilentLaunch}
    servers = []
    async with AsyncExitStack() as stack:
        for number, (way, kind) in enumerate(ways.items()):
            launch = kind(scenario, folder / "gpus", folder / "model")
            gpus = range(number * size, (number + 1) * size)
            (folder / way).mkdir()
            pool = ServerPool(launch, gpus, PoolSettings(folder / way))
            servers.append(await (await stack.enter_async_context(pool)).start(size))
        runs = np.array([await measured(servers, device, requests, seconds) for _ in range(repeats)])
    told = [server.told for server in servers]
    if told != [True, False]:
        raise SystemExit(f"expected telemetry of the first server alone, had it of {told}")
    for way, rates in zip(ways, runs.mean(axis=0), strict=True):
        print(f"{way:8} telemetry: {rates[0]:8.2f} iterations/s, {rates[1]:.4f} CPU seconds per second")
    ratios = 1 - runs[:, 0, 0] / runs[:, 1, 0]
    extra_us = 1e6 * (runs[:, 0, 1] - runs[:, 1, 1]) / runs[:, 0, 0]
    print(f"cost: {ratios.mean():.3%} of iterations/s (runs: {', '.join(f'{r:.3%}' for r in ratios)})")
    print(f"CPU: {extra_us.mean():.0f} µs per iteration (runs: {', '.join(f'{u:.0f}' for u in extra_us)})")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--scenario", default="llama3-8b-h100", help="short iterations (default: %(default)s)"
    )
    parser.add_argument("--requests", type=int, default=8, help="at once, each way (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each run (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="runs (default: %(default)s)")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        arguments = (given.scenario, given.requests, given.seconds, given.repeats)
        asyncio.run(compare(*arguments, Path(folder)))


if __name__ == "__main__":
    main()
