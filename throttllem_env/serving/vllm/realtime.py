"""The executor of a server on emulated GPUs; vLLM is given its name, and builds it in the engine's process.

    --distributed-executor-backend throttllem_env.serving.vllm.realtime.RealTimeExecutor

Everything it is told stands in three environment variables (`throttllem_env.serving.realtime_gpus`).
"""

import os
from typing import Any

from vllm.v1.core.sched.output import SchedulerOutput

from throttllem_env.hardware import IterationWork
from throttllem_env.serving.realtime_gpus import Emulation, RealTimeGpus
from throttllem_env.serving.vllm.executor import EmulatedExecutor


class RealTimeExecutor(EmulatedExecutor):
    """Stands in for the GPUs of a server: answers when the modelled GPUs would have."""

    def _init_executor(self) -> None:
        self._gpus = RealTimeGpus(Emulation.from_variables(os.environ))
        scenario = self._gpus.scenario
        self.num_blocks = scenario.kv_blocks(self._gpus.size)
        self.kv_bytes_per_token = scenario.model_spec.kv_bytes_per_token
        self._continues = False
        super()._init_executor()

    def _progress(self, scheduled: SchedulerOutput) -> tuple[dict[str, int], dict[str, int]]:
        """As every emulated executor; requests that were there before have kept the engine busy."""
        there = self._prompt_tokens.keys() - scheduled.finished_req_ids
        self._continues = bool(there)
        return super()._progress(scheduled)

    def run(self, scheduled: Any, work: IterationWork) -> None:
        """Sleep until the iteration's end."""
        self._gpus.run(work, continues=self._continues)
