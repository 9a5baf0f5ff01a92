"""One run of the full stack, from the first lock to the GPUs that nobody holds any more."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from throttllem_env.evaluation.full_stack import figures
from throttllem_env.evaluation.full_stack.service import Service
from throttllem_env.evaluation.full_stack.watch import Sample, Watch
from throttllem_env.gpu import DeviceFile
from throttllem_env.gpu.guardian.state import VARIABLE
from throttllem_env.live.gpus_of import emulated_gpus
from throttllem_env.live.replay import ReplayRecord, ReplaySettings, replay
from throttllem_env.live.replay_report import report
from throttllem_env.scenario import Scenario
from throttllem_env.traces import Trace

READ = """
import json, sys, pynvml
pynvml.nvmlInit()
handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
print("ready", flush=True)
for _ in sys.stdin:
    energies = [pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1e3 for handle in handles]
    print(json.dumps(energies), flush=True)
"""


@dataclass(frozen=True, slots=True)
class Stack:
    """What is run.

    Attributes:
        scenario: What is served on what.
        trace: The load.
        agent: Who decides.
        folder: Where GPUs, logs and the guardian's books lie; its path must be short.
        environment: Variables of processes that see the double of NVML over a file.
    """

    scenario: Scenario
    trace: Trace
    agent: str
    folder: Path
    environment: Callable[[Path], Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it.

    Attributes:
        samples: The service and its GPUs, side by side.
        records: What became of the requests.
        metered_j: Energy of all GPUs by the driver's counters, read by a process of its own.
        accounted_j: The same by the executors' own account, and idling.
        held_metered_j: Energy of the GPUs that servers had, as the service read it from the driver.
        held_accounted_j: The same by the executors' account.
        sets: Locks that the driver carried out.
        decided: Clock changes that the controller asked for.
        restored_s: From SIGKILL of the service until every GPU was at its restore setting.
        gone_s: From then until none of its processes was left.
        said: What the service said.
    """

    samples: list[Sample]
    records: list[ReplayRecord]
    metered_j: float
    accounted_j: float
    held_metered_j: float
    held_accounted_j: float
    sets: int
    decided: float
    restored_s: float
    gone_s: float
    said: list[str]


def run(stack: Stack) -> Outcome:
    """Serve a trace over the double of NVML, then kill the service.

    Args:
        stack: What.

    Raises:
        RuntimeError: The service ended by itself.
        TimeoutError: Something did not happen at all.
    """
    device = DeviceFile(emulated_gpus(stack.folder / "gpus", stack.scenario))
    environment = {**stack.environment(device.path), VARIABLE: str(stack.folder / "books")}
    options = ["--gpus", "nvml", "--agent", stack.agent]
    with Service(device.path, stack.folder / "logs", options, environment) as service:
        service.await_serving()
        with Watch(service, device) as watch, _counters(environment) as counters_j:
            first, first_j = watch.take(), counters_j()
            records = asyncio.run(_load(service.url, stack))
            time.sleep(1.0)
            last, last_j = watch.take(), counters_j()
        decided = service.metrics()["throttllem_clock_changes_total"]
        restored_s, gone_s = _killed(service, device)
    samples = [first, *(s for s in watch.samples if first.time_s < s.time_s < last.time_s), last]
    every = range(stack.scenario.gpus_per_node)
    outcome = Outcome(
        samples,
        records,
        sum(last_j) - sum(first_j),
        figures.account_j(samples, device.idle_w, every),
        last.energy_j - first.energy_j,
        figures.held_j(samples, device.idle_w),
        int(device.gpus["sets"].sum()),
        decided,
        restored_s,
        gone_s,
        list(service.lines),
    )
    device.close()
    return outcome


async def _load(url: str, stack: Stack) -> list[ReplayRecord]:
    settings = ReplaySettings(url, stack.scenario.model)
    return await replay(stack.trace, settings)


@contextmanager
def _counters(environment: Mapping[str, str]) -> Iterator[Callable[[], list[float]]]:
    """Reads the driver's energy counter of every GPU, with pynvml, in a process that is there already.

    A start takes seconds on a busy machine, in which GPUs draw what no sample has seen.
    """
    command = [sys.executable, "-c", READ]
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        asking, told = process.stdin, process.stdout

        def read() -> list[float]:
            asking.write("\n")
            asking.flush()
            counters: list[float] = json.loads(told.readline())
            return counters

        if told.readline() != "ready\n":
            raise RuntimeError("the driver's counters cannot be read")
        yield read


def _killed(service: Service, device: DeviceFile) -> tuple[float, float]:
    """Kill the service; gives after how long GPUs were restored, and no process was left."""
    killed_s = time.monotonic()
    os.kill(service.process.pid, signal.SIGKILL)
    service.process.wait()
    restored_s = service.wait(
        lambda: not device.gpus["locked_max_mhz"].any(), "every GPU is restored", alive=False
    )
    gone_s = service.wait(lambda: not service.left(), "no process is left", alive=False)
    return restored_s - killed_s, gone_s - killed_s


def document(stack: Stack, outcome: Outcome) -> dict[str, Any]:
    """Everything, for a file.

    Args:
        stack: What was run.
        outcome: What came of it.
    """
    played = report(outcome.records)
    return {
        "scenario": stack.scenario.name,
        "trace": stack.trace.name,
        "duration_s": stack.trace.duration_s,
        "agent": stack.agent,
        "requests": played.requests,
        "completed": played.completed,
        "tokens": played.tokens,
        "latencies_s": played.entry()["latencies_s"],
        "clocks": figures.clocks(outcome.samples)
        | {"changes_asked": outcome.decided, "locks_carried_out": outcome.sets},
        "size_changes": sum("is active" in line for line in outcome.said) - 1,
        "tbt_by_clock": figures.tbt(outcome.samples),
        "energy": {
            "all_gpus": _compared(outcome.metered_j, outcome.accounted_j),
            "held_gpus": _compared(outcome.held_metered_j, outcome.held_accounted_j),
        },
        "after_sigkill": {"restored_s": outcome.restored_s, "no_process_left_s": outcome.gone_s},
    }


def _compared(metered_j: float, accounted_j: float) -> dict[str, float]:
    return {"nvml_j": metered_j, "executors_j": accounted_j, "gap": metered_j / accounted_j - 1}
