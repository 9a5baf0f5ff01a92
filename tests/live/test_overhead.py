"""What the gateway costs, measured side by side with direct access in one run."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

import numpy as np

from throttllem_env.live.replay import ReplaySettings, replay
from throttllem_env.live.replay_report import report
from throttllem_env.traces import Trace

STREAMS, TOKENS, ITERATION_S = 30, 25, 0.04
PROBE = """
import sys, threading, time
ended, late_s = threading.Event(), []
threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
while not (late_s and ended.is_set()):
    due_s = time.monotonic() + 0.005
    time.sleep(0.005)
    late_s.append(time.monotonic() - due_s)
print(sum(late_s) / len(late_s))
"""


@contextmanager
def waiting_for_a_core() -> Iterator[list[float]]:
    """Adds how long, on average, a process of this machine waited for a core during the block, seconds."""
    found: list[float] = []
    command = [sys.executable, "-S", "-c", PROBE]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as probe:
        yield found
        found.append(float(probe.communicate()[0]))


def test_the_gateway_adds_little(rig: ModuleType) -> None:
    """Staggered streams of 40 ms iterations, half of them through the gateway, at the same time.

    Everything (clients, gateway, servers) shares one event loop here, so the bound is a loose one.
    """
    rng = np.random.default_rng(3)
    arrival_s = np.sort(rng.uniform(0.0, 1.0, STREAMS))
    trace = Trace(arrival_s, np.full(STREAMS, 200), np.full(STREAMS, TOKENS))

    costs: list[tuple[float, float]] = []

    async def scene() -> None:
        upstream = rig.FakeVllm(iteration_s=ITERATION_S)
        async with rig.stage(upstream) as stage:
            urls = (stage.upstream_urls[0], stage.url)
            runs = await asyncio.gather(*(replay(trace, ReplaySettings(url, seed=1)) for url in urls))
        direct, through = (report(records).latencies_s for records in runs)
        assert all(record.completed for records in runs for record in records)
        added_s, factor = through["TTFT"][0] - direct["TTFT"][0], through["TBT"][0] / direct["TBT"][0]
        costs.append((added_s, factor))

    # Other work on the machine only ever adds to it, so the best of some tries counts; and where every step
    # has to wait for a core, the gateway's few more of them wait, too.
    with waiting_for_a_core() as waited_s:
        for _ in range(10):
            rig.run(scene())
            if costs[-1][0] < 0.02 and costs[-1][1] < 1.1:
                break
    allowed_s = 20 * waited_s[0]
    assert any(a < 0.02 + allowed_s and f < 1.1 + allowed_s / ITERATION_S for a, f in costs), (
        f"added to TTFT p50, seconds, and TBT p50, as a factor: {costs}; {waited_s} s for a core"
    )
