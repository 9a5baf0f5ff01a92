"""What the service shows and what its GPUs do, side by side, several times a second."""

import re
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from throttllem_env.evaluation.full_stack.service import Service
from throttllem_env.evaluation.sampling import Sampler
from throttllem_env.gpu import DeviceFile
from throttllem_env.types import FloatArray, IntArray

PERIOD_S = 0.1


@dataclass(frozen=True, slots=True)
class Sample:
    """A moment.

    Attributes:
        time_s: CLOCK_MONOTONIC.
        mhz: int64[gpus], the SM clocks.
        iterations: int64[gpus], iterations that the executors have run.
        iteration_s: float64[gpus], how long those took.
        iteration_j: float64[gpus], what those drew, by the executors' own account.
        held: GPUs that servers have.
        instances: How many servers there are.
        asked_mhz: Clock asked of the active one; NaN while there is none.
        energy_j: Energy of all held GPUs, as the service has read it from the driver.
        tbt_s: Sum of all times between tokens, as the gateway saw them pass.
        tbt_tokens: How many those were.
    """

    time_s: float
    mhz: IntArray
    iterations: IntArray
    iteration_s: FloatArray
    iteration_j: FloatArray
    held: frozenset[int]
    instances: int
    asked_mhz: float
    energy_j: float
    tbt_s: float
    tbt_tokens: float


class Watch(Sampler):
    """Takes samples for the length of a block.

    Attributes:
        samples: Those so far.
    """

    def __init__(self, service: Service, device: DeviceFile) -> None:
        super().__init__(PERIOD_S, "watch")
        self.samples: list[Sample] = []
        self._service, self._device = service, device

    def look(self, late_s: float) -> None:
        """Keep a sample; when it is taken stands in it."""
        with suppress(OSError):  # the service has ended
            self.samples.append(self.take())

    def take(self) -> Sample:
        """A sample of now, beside the others."""
        return sample(self._service.metrics(), self._device)


def sample(shown: dict[str, float], device: DeviceFile) -> Sample:
    """Put together what the service shows and what the GPUs do.

    Args:
        shown: Its page of metrics, just read.
        device: The GPUs.
    """
    gpus: Any = device.gpus
    asked = [value for name, value in shown.items() if re.match(r'.*_clock_asked_mhz\{state="active"', name)]
    held = [re.fullmatch(r'throttllem_gpu_clock_mhz\{gpu="(\d+)"\}', name) for name in shown]
    return Sample(
        time.monotonic(),
        gpus["sm_mhz"].astype(np.int64),
        gpus["iterations"].astype(np.int64),
        gpus["iteration_s"].copy(),
        gpus["iteration_j"].copy(),
        frozenset(int(match.group(1)) for match in held if match),
        sum(name.startswith("throttllem_instance_size") for name in shown),
        asked[0] if asked else float("nan"),
        shown["throttllem_energy_joules_total"],
        shown["throttllem_time_between_tokens_seconds_sum"],
        shown["throttllem_time_between_tokens_seconds_count"],
    )
