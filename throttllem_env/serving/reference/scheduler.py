"""vLLM V1's scheduler, stated plainly (docs/design.md, vLLM).

First come first served, chunked prefill, preemption by recomputation, no prefix cache, no async scheduling.
The engine asks for a plan, runs it, and reports it complete; this class keeps the KV blocks.
"""

import math
from collections import deque
from dataclasses import dataclass

from throttllem_env.hardware import IterationWork
from throttllem_env.scenario import EngineConfig
from throttllem_env.serving.backend import require_room


@dataclass(slots=True, eq=False)
class EngineRequest:
    """A request on its way through the backend.

    Attributes:
        request_id: Index in the trace.
        arrival_s: Arrival, seconds.
        prompt_tokens: Tokens of the prompt.
        stop_tokens: Output tokens after which it stops. Only the engine may read this.
        lost: Admitted although its own deadline cannot be met.
        computed: Tokens whose KV is stored.
        generated: Output tokens so far.
        blocks: KV blocks held.
        preemptions: How often its blocks were taken.
        scheduled_s: When it first entered an iteration; nan before.
        first_token_s: When its first token appeared; nan before.
        last_token_s: When its latest token appeared; nan before.
        finish_s: When its last token appeared; nan before.
    """

    request_id: int
    arrival_s: float
    prompt_tokens: int
    stop_tokens: int
    lost: bool = False
    computed: int = 0
    generated: int = 0
    blocks: int = 0
    preemptions: int = 0
    scheduled_s: float = math.nan
    first_token_s: float = math.nan
    last_token_s: float = math.nan
    finish_s: float = math.nan

    @property
    def known_tokens(self) -> int:
        """Prompt and generated tokens: all that must be computed before the next token appears."""
        return self.prompt_tokens + self.generated

    @property
    def finished(self) -> bool:
        """Whether all its tokens have appeared."""
        return self.generated >= self.stop_tokens


Plan = list[tuple[EngineRequest, int]]
"""An iteration: which requests, and how many tokens of each."""


class Scheduler:
    """Decides what each iteration computes.

    Attributes:
        waiting: Queue of the engine, head first.
        running: The batch, in admission order.
        free_blocks: KV blocks that nobody holds.
        total_blocks: KV blocks that requests can hold at most.
        preemptions: How often a request lost its blocks.
    """

    def __init__(self, engine: EngineConfig, num_gpu_blocks: int) -> None:
        """Start empty.

        Args:
            engine: Block size, token budget and limits.
            num_gpu_blocks: KV blocks of the instance; one of them is vLLM's null block.

        Raises:
            ValueError: A single request of the longest length would not fit (vLLM refuses to start too).
        """
        self.total_blocks = self.free_blocks = num_gpu_blocks - 1
        self.waiting: deque[EngineRequest] = deque()
        self.running: list[EngineRequest] = []
        self.preemptions = 0
        self._block_size = engine.block_size
        self._token_budget = engine.max_num_batched_tokens
        self._max_num_seqs = engine.max_num_seqs
        self._max_model_len = engine.max_model_len
        require_room(engine, num_gpu_blocks)

    def add(self, request: EngineRequest) -> None:
        """Queue a request; it is seen by the next plan."""
        self.waiting.append(request)

    def take_waiting(self) -> list[EngineRequest]:
        """Give up the requests of the queue that have no token yet, in order.

        Preempted ones have streamed tokens to their clients already, so they stay.
        """
        moved = [r for r in self.waiting if not r.generated]
        self.waiting = deque(r for r in self.waiting if r.generated)
        return moved

    def plan(self) -> Plan:
        """Choose the next iteration's work and allocate its blocks.

        Running requests come first; the queue gets what is left, unless somebody was preempted.
        """
        plan, budget, preempted = self._plan_running()
        if not preempted:
            self._plan_waiting(plan, budget)
        return plan

    def _plan_running(self) -> tuple[Plan, int, bool]:
        """Give each running request its tokens, in admission order, preempting from the tail."""
        plan: Plan = []
        budget, preempted = self._token_budget, False
        block_size, limit = self._block_size, self._max_model_len - 1
        index = 0
        while index < len(self.running) and budget > 0:
            request = self.running[index]
            computed = request.computed
            tokens = min(request.prompt_tokens + request.generated - computed, budget, limit - computed)
            needed = -(-(computed + tokens) // block_size) - request.blocks
            if needed > 0:
                while needed > self.free_blocks:
                    preempted = True
                    if self._preempt_tail() is request:
                        return plan, budget, preempted
                self.free_blocks -= needed
                request.blocks += needed
            budget -= tokens
            plan.append((request, tokens))
            index += 1
        return plan, budget, preempted

    def _preempt_tail(self) -> EngineRequest:
        """Take all blocks from the request admitted last and put it at the head of the queue."""
        victim = self.running.pop()
        self.free_blocks += victim.blocks
        victim.blocks = victim.computed = 0
        victim.preemptions += 1
        self.preemptions += 1
        self.waiting.appendleft(victim)
        return victim

    def _plan_waiting(self, plan: Plan, budget: int) -> None:
        """Admit from the queue, first come first served; a head that does not fit blocks the rest.

        All known tokens must fit in the free blocks, though only the first chunk's are allocated.
        """
        while budget > 0 and self.waiting and len(self.running) < self._max_num_seqs:
            request = self.waiting[0]
            if self._blocks_for(request.known_tokens) > self.free_blocks:
                break
            tokens = min(request.known_tokens, budget)
            request.blocks = self._blocks_for(tokens)
            self.free_blocks -= request.blocks
            budget -= tokens
            self.running.append(self.waiting.popleft())
            plan.append((request, tokens))

    def _blocks_for(self, tokens: int) -> int:
        return -(-tokens // self._block_size)

    def complete(self, plan: Plan) -> list[EngineRequest]:
        """Account for an iteration that has run.

        A token appears only when all known tokens are computed: a preempted request recomputes its
        outputs first. Requests with their last token leave and free their blocks; that token's KV is
        never stored.

        Args:
            plan: What `plan` returned.

        Returns:
            The requests that got a token, finished ones included.
        """
        emitted = []
        finished = False
        for request, tokens in plan:
            request.computed += tokens
            if request.computed >= request.prompt_tokens + request.generated:
                request.generated += 1
                emitted.append(request)
                if request.generated >= request.stop_tokens:
                    finished = True
                    self.free_blocks += request.blocks
                    request.blocks = 0
        if finished:
            self.running = [r for r in self.running if r.generated < r.stop_tokens]
        return emitted


def work_of(plan: Plan) -> IterationWork:
    """Summarise a plan for the latency model.

    A single token of a request whose prompt is computed is decode; everything else is prefill.
    """
    decode_batch = kv_tokens = prefill_tokens = attention = 0
    for request, tokens in plan:
        computed = request.computed
        if tokens == 1 and computed >= request.prompt_tokens:
            decode_batch += 1
            kv_tokens += computed + 1
        else:
            prefill_tokens += tokens
            attention += tokens * (2 * computed + tokens)
    return IterationWork(decode_batch, kv_tokens, prefill_tokens, attention)
