"""vLLM's scheduler behind the interface that instances know."""

from collections import deque
from typing import Any

import numpy as np

from throttllem_env.hardware import IterationWork
from throttllem_env.scenario import Scenario
from throttllem_env.serving.backend import require_room
from throttllem_env.serving.emulated_gpus import EmulatedGpus
from throttllem_env.serving.reference.scheduler import EngineRequest, Plan
from throttllem_env.serving.vllm.engine import build_engine, scheduler_of
from throttllem_env.serving.vllm.model_files import VOCABULARY

FIRST_TOKEN_ID = 3
"""Below lie the special ones."""


class EngineScheduler:
    """The queues and blocks of an `LLMEngine`, as of the moment that virtual time has reached.

    One `step()` of the engine is one iteration, and it is atomic; in virtual time it takes a while. So `plan`
    steps, shows what vLLM had scheduled when it called its executor, and keeps the outcome back until
    `complete`.

    Attributes:
        waiting: vLLM's queue, head first.
        running: vLLM's batch, in admission order.
        free_blocks: KV blocks that nobody holds.
        total_blocks: KV blocks that requests can hold at most.
    """

    def __init__(self, scenario: Scenario, gpus: EmulatedGpus) -> None:
        """Start an engine.

        Args:
            scenario: Gives its settings.
            gpus: What it runs on.

        Raises:
            ValueError: A single request of the longest length would not fit.
            EngineUnavailableError: vLLM is missing or has changed.
        """
        blocks = scenario.kv_blocks(gpus.size)
        require_room(scenario.engine, blocks)
        self._gpus = gpus
        self._engine = build_engine(scenario, gpus.size, self._run)
        self._core = scheduler_of(self._engine)
        self._pool = self._core.kv_cache_manager.block_pool
        self.total_blocks = self.free_blocks = blocks - 1
        self.waiting: deque[EngineRequest] = deque()
        self.running: list[EngineRequest] = []
        self._requests: dict[str, EngineRequest] = {}  # by vLLM's internal id
        self._plan: Plan = []
        self._emitted: list[tuple[EngineRequest, int, bool]] = []

    def add(self, request: EngineRequest) -> None:
        """Queue a request, with random token ids of the right number; it is seen by the next plan."""
        from vllm.sampling_params import RequestOutputKind, SamplingParams

        random = np.random.default_rng(request.request_id)
        prompt = random.integers(FIRST_TOKEN_ID, VOCABULARY, request.prompt_tokens).tolist()
        sampling = SamplingParams(
            max_tokens=request.stop_tokens,
            ignore_eos=True,
            temperature=0.0,
            detokenize=False,
            output_kind=RequestOutputKind.DELTA,
        )
        name = str(request.request_id)
        internal = self._engine.add_request(name, {"prompt_token_ids": prompt}, sampling)
        self._requests[internal or name] = request
        self.waiting.append(request)

    def take_waiting(self) -> list[EngineRequest]:
        """Abort the requests of the queue that have no token yet; returns them, in order."""
        moved = [r for r in self.waiting if not r.generated]
        self.waiting = deque(r for r in self.waiting if r.generated)
        self._engine.abort_request([str(r.request_id) for r in moved])
        self._forget()
        return moved

    def _forget(self) -> None:
        """Drop the requests that vLLM has dropped."""
        self._requests = {name: self._requests[name] for name in self._core.requests}

    def plan(self) -> Plan:
        """Let vLLM make a step; its executor begins the iteration on the GPUs."""
        outputs = self._engine.step()
        by_id = {request.request_id: request for request, _ in self._plan}
        self._emitted = [(by_id[int(o.request_id)], len(o.outputs[0].token_ids), o.finished) for o in outputs]
        return self._plan

    def _run(self, scheduled: Any, work: IterationWork) -> None:
        """What the executor calls amid vLLM's step: nobody has a new token yet, blocks are allocated."""
        before = self.running
        self._look()
        for request in set(before).difference(self.running):
            request.preemptions += 1
            request.computed = 0
        tokens = scheduled.num_scheduled_tokens
        self._plan = [(self._requests[name], count) for name, count in tokens.items()]
        self._gpus.run(work)

    def _look(self) -> None:
        """Take over vLLM's queues and its number of free blocks."""
        self.running = [self._requests[r.request_id] for r in self._core.running]
        self.waiting = deque(self._requests[r.request_id] for r in self._core.waiting)
        self.free_blocks = self._pool.get_num_free_blocks()

    def complete(self, plan: Plan) -> list[EngineRequest]:
        """Show the outcome of vLLM's step.

        Args:
            plan: What `plan` returned.

        Returns:
            The requests that got a token, finished ones included, in vLLM's order.

        Raises:
            RuntimeError: vLLM gave several tokens, or stopped a request elsewhere than asked.
        """
        for request, tokens, finished in self._emitted:
            request.generated += tokens
            if tokens != 1 or finished != request.finished:
                raise RuntimeError(
                    f"vLLM: request {request.request_id} has {request.generated} tokens after {tokens} more, "
                    f"{'finished' if finished else 'unfinished'}; to stop at {request.stop_tokens}"
                )
        self._look()
        for inside in self._core.running:
            self._requests[inside.request_id].computed = inside.num_computed_tokens
        self._forget()
        return [request for request, _, _ in self._emitted]

    def close(self) -> None:
        """Stop the engine."""
        self._engine.engine_core.shutdown()
