"""The emulated GPU as vLLM sees it: an executor that answers with made-up tokens.

It knows the engine only through what any worker is sent, so that it can run in a server's process too. What
time does meanwhile is not its business: in virtual time `run` books the iteration; a server's would sleep
until the iteration's absolute deadline.
"""

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import torch
from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.executor.abstract import Executor
from vllm.v1.kv_cache_interface import FullAttentionSpec
from vllm.v1.outputs import ModelRunnerOutput

from throttllem_env.hardware import IterationWork

TOKEN = 5
"""What the emulated model says, always."""

HEAD_SIZE = 128

Run = Callable[[Any, IterationWork], None]
"""Spend the time and energy of an iteration: what vLLM scheduled (its `SchedulerOutput`), and the work."""


class EmulatedExecutor(Executor):  # type: ignore[misc]  # vLLM may be absent, and is untyped to mypy
    """Stands in for the GPUs of one instance. `executor_for` makes the class that vLLM builds.

    Attributes:
        run: Called once per iteration, between vLLM's schedule and its update.
        num_blocks: KV blocks that the modelled GPUs have room for.
        kv_bytes_per_token: KV cache of one token over all layers and GPUs.
    """

    supports_pp = False
    run: Run
    num_blocks: int
    kv_bytes_per_token: int

    def _init_executor(self) -> None:
        self._prompt_tokens: dict[str, int] = {}

    def get_kv_cache_specs(self) -> list[dict[str, Any]]:
        """One layer that has the whole model's KV cache; K and V in 2 bytes each."""
        spec = FullAttentionSpec(
            block_size=self.cache_config.block_size,
            num_kv_heads=self.kv_bytes_per_token // (4 * HEAD_SIZE),
            head_size=HEAD_SIZE,
            dtype=torch.bfloat16,
        )
        return [{"layers.0": spec}]

    def determine_available_memory(self) -> list[int]:
        """Bytes for the KV cache."""
        return [self.num_blocks * self.cache_config.block_size * self.kv_bytes_per_token]

    def initialize_from_config(self, kv_cache_configs: list[Any]) -> None:
        """Allocate nothing."""

    def compile_or_warm_up_model(self) -> float:
        """Compile nothing; took no time."""
        return 0.0

    def get_supported_kv_cache_layouts(self) -> list[list[str]]:
        """Any will do."""
        return [["NHD"]]

    def set_kv_cache_layout(self, layout_name: str) -> None:
        """Any will do."""

    @property
    def supported_tasks(self) -> tuple[str, ...]:
        """Text comes out."""
        return ("generate",)

    def collective_rpc(self, method: Any, *args: Any, single_value: bool = False, **kwargs: Any) -> Any:
        """There are no workers to call."""
        return None if single_value else [None]

    def check_health(self) -> None:
        """Never ill."""

    def shutdown(self) -> None:
        """Nothing to free."""

    def execute_model(self, scheduled: SchedulerOutput, non_block: bool = False) -> Any:
        """Spend an iteration's time, and give a token to whom all known tokens are computed.

        Args:
            scheduled: What vLLM's scheduler chose.
            non_block: Answer with a future.
        """
        known, computed = self._progress(scheduled)
        if scheduled.num_scheduled_tokens:
            self.run(scheduled, self._work(scheduled.num_scheduled_tokens, computed))
        output = _answer(scheduled.num_scheduled_tokens, known, computed)
        if not non_block:
            return output
        future: Future[ModelRunnerOutput] = Future()
        future.set_result(output)
        return future

    def _progress(self, scheduled: SchedulerOutput) -> tuple[dict[str, int], dict[str, int]]:
        """By request: tokens known (prompt and generated), and tokens computed before this iteration."""
        for done in scheduled.finished_req_ids:
            self._prompt_tokens.pop(done, None)
        known, computed = {}, {}
        for new in scheduled.scheduled_new_reqs:
            self._prompt_tokens[new.req_id] = known[new.req_id] = len(new.prompt_token_ids)
            computed[new.req_id] = new.num_computed_tokens
        cached = scheduled.scheduled_cached_reqs
        columns = (cached.req_ids, cached.num_computed_tokens, cached.num_output_tokens)
        for request, before, generated in zip(*columns, strict=True):
            known[request] = self._prompt_tokens[request] + generated
            computed[request] = before
        return known, computed

    def _work(self, tokens: dict[str, int], computed: dict[str, int]) -> IterationWork:
        """Decode is a single token of a request whose prompt is computed; everything else is prefill."""
        decode_batch = kv_tokens = prefill_tokens = attention = 0
        for request, count in tokens.items():
            before = computed[request]
            if count == 1 and before >= self._prompt_tokens[request]:
                decode_batch += 1
                kv_tokens += before + 1
            else:
                prefill_tokens += count
                attention += count * (2 * before + count)
        return IterationWork(decode_batch, kv_tokens, prefill_tokens, attention)


def _answer(tokens: dict[str, int], known: dict[str, int], computed: dict[str, int]) -> ModelRunnerOutput:
    """A preempted request recomputes what it had generated first, and says nothing meanwhile."""
    ids = list(tokens)
    sampled = [[TOKEN] if computed[i] + tokens[i] >= known[i] else [] for i in ids]
    return ModelRunnerOutput(
        req_ids=ids, req_id_to_index={r: k for k, r in enumerate(ids)}, sampled_token_ids=sampled
    )


def executor_for(run: Run, num_blocks: int, kv_bytes_per_token: int) -> type[EmulatedExecutor]:
    """The executor of one instance, as a class: vLLM wants to build it itself.

    Args:
        run: Spends an iteration's time and energy.
        num_blocks: KV blocks that the modelled GPUs have room for, vLLM's null block included.
        kv_bytes_per_token: KV cache of one token over all layers and GPUs.
    """
    attributes = {
        "run": staticmethod(run),
        "num_blocks": num_blocks,
        "kv_bytes_per_token": kv_bytes_per_token,
    }
    return type("EmulatedExecutor", (EmulatedExecutor,), attributes)
