"""The scoreboard: for every request, when its next token appears and how many are left.

Iterations are counted from the next one, j = 0. A request that has computed its prompt and everything it
knows but one token decodes: its next token appears at j = 0. The others must first be prefilled, and when
that is done follows from replaying the engine's token budget (docs/design.md, The projection).
"""

from dataclasses import dataclass

import numpy as np

from throttllem_env.scenario import EngineConfig
from throttllem_env.types import FloatArray, InstanceTelemetry, IntArray, RequestTable


@dataclass(frozen=True, slots=True)
class Scoreboard:
    """Requests of one instance with their predicted futures, as columns of length n.

    The requests are those running, then those waiting, in the engine's order.

    Attributes:
        requests: Who they are.
        running: How many of them run already.
        known_tokens: int64[n], prompt plus generated: |q| of a request that re-enters after preemption.
        pending_tokens: int64[n], known tokens still to compute before the next token (1: it decodes).
        remaining_tokens: int64[n], predicted tokens still to come, at least 1.
        kv_blocks_total: KV blocks that they can hold at most.
    """

    requests: RequestTable
    running: int
    known_tokens: IntArray
    pending_tokens: IntArray
    remaining_tokens: IntArray
    kv_blocks_total: int


@dataclass(frozen=True, slots=True)
class Projection:
    """The future of the batch and the KV cache if nobody else arrives.

    Attributes:
        batch: int64[h], B[j]: requests that get a token in iteration j.
        kv_blocks: int64[h], KV[j]: blocks held while iteration j runs.
        prefills: int64[h], how many of `batch` get their token by prefill.
        prefill_tokens: float64[h], prompt tokens computed in iteration j.
        prefill_attention: float64[h], their sum of n (2 computed + n).
        first_iteration: int64[n], s_i: where each request's next token appears.
        end_iteration: int64[n], one past the iteration of its last token.
        fits: Whether KV[j] stays within capacity throughout.
    """

    batch: IntArray
    kv_blocks: IntArray
    prefills: IntArray
    prefill_tokens: FloatArray
    prefill_attention: FloatArray
    first_iteration: IntArray
    end_iteration: IntArray
    fits: bool

    def __len__(self) -> int:
        """Iterations until the last request ends."""
        return len(self.batch)

    @property
    def decode_batch(self) -> IntArray:
        """int64[h], requests that decode in iteration j."""
        return self.batch - self.prefills


def build_scoreboard(
    instance: InstanceTelemetry, waiting: RequestTable, predicted_tokens: IntArray
) -> Scoreboard:
    """Put an instance's requests on the scoreboard.

    Args:
        instance: The instance.
        waiting: Requests that wait for it, head first.
        predicted_tokens: int64[n], predicted output length of running then waiting requests, each larger
            than what has been generated.

    Returns:
        The scoreboard.
    """
    requests = RequestTable.concatenate([instance.running, waiting])
    known = requests.prompt_tokens + requests.generated_tokens
    return Scoreboard(
        requests,
        len(instance.running),
        known,
        known - requests.computed_tokens,
        np.maximum(predicted_tokens - requests.generated_tokens, 1),
        instance.kv_blocks_total,
    )


def project(board: Scoreboard, engine: EngineConfig) -> Projection:
    """Project B[j] and KV[j] (paper, section IV-B; prefill by replay).

    B[j] = #{i : s_i <= j < s_i + r_i}, KV[j] = sum over those of ceil((|q_i| + j - s_i) / N), plus
    ceil(computed / N) while a prompt is being prefilled.

    Args:
        board: The requests.
        engine: Block size N, token budget and batch limit.

    Returns:
        The projection until the last request ends.
    """
    future = _Future(board, engine)
    # A prompt whose last token alone is left is still in prefill.
    prompt_done = board.requests.computed_tokens >= board.requests.prompt_tokens
    decoding = ((board.pending_tokens <= 1) & prompt_done)[: board.running]
    future.add_decoding(np.flatnonzero(decoding))
    for row in np.flatnonzero(~decoding).tolist():
        future.replay_prefill(row, admitted=True)
    for row in range(board.running, len(board.requests)):
        future.replay_prefill(row, admitted=False)
    return future.projection()


class _Future:
    """B and KV under construction: requests that decode first, then one prefill after another."""

    def __init__(self, board: Scoreboard, engine: EngineConfig) -> None:
        self._board, self._engine = board, engine
        n = len(board.requests)
        self._first = np.zeros(n, np.int64)
        self._length = 0
        capacity = int(board.remaining_tokens.max(initial=1)) + 64
        self._batch = np.zeros(capacity, np.int64)
        self._kv = np.zeros(capacity, np.int64)
        self._prefills = np.zeros(capacity, np.int64)
        self._tokens = np.zeros(capacity)
        self._attention = np.zeros(capacity)
        self._at = 0  # the iteration that the prefill replay has come to

    def _reserve(self, length: int) -> None:
        if length > len(self._batch):
            extra = max(length - len(self._batch), len(self._batch))
            for name in ("_batch", "_kv", "_prefills", "_tokens", "_attention"):
                old = getattr(self, name)
                setattr(self, name, np.concatenate([old, np.zeros(extra, old.dtype)]))
        self._length = max(self._length, length)

    def add_decoding(self, rows: IntArray) -> None:
        """Requests whose next token appears at j = 0, all at once."""
        if not len(rows):
            return
        known, remaining = self._board.known_tokens[rows], self._board.remaining_tokens[rows]
        self._reserve(int(remaining.max()))
        ends = np.bincount(remaining, minlength=self._length + 1)
        self._batch[: self._length] = len(rows) - np.cumsum(ends)[: self._length]
        self._kv[: self._length] = decode_blocks(known, remaining, self._engine.block_size, self._length)

    def replay_prefill(self, row: int, *, admitted: bool) -> None:
        """Give a request the tokens that the budget leaves, iteration by iteration, then let it decode."""
        block_size = self._engine.block_size
        known = int(self._board.known_tokens[row])
        pending = int(self._board.pending_tokens[row])
        if not admitted:
            self._at = self._admission_iteration(-(-known // block_size))
        while True:
            self._reserve(self._at + 1)
            budget = self._budget(self._at)
            chunk = min(pending, budget)
            if chunk:
                computed = known - pending
                self._tokens[self._at] += chunk
                self._attention[self._at] += chunk * (2 * computed + chunk)
                pending -= chunk
            if not pending:
                break
            self._kv[self._at] += -(-(known - pending) // block_size)
            self._at += 1
        self._decode_from(row, known)

    def _budget(self, iteration: int) -> int:
        """Tokens left in an iteration after everyone that decodes and what was already prefilled."""
        decoding = self._batch[iteration] - self._prefills[iteration]
        return max(int(self._engine.max_num_batched_tokens - decoding - self._tokens[iteration]), 0)

    def _admission_iteration(self, blocks: int) -> int:
        """First iteration, from where the replay stands, with free blocks, a free seat and budget."""
        self._reserve(self._at + 1)
        here = slice(self._at, self._length)
        free = self._board.kv_blocks_total - self._kv[here]
        budget = (
            self._engine.max_num_batched_tokens - (self._batch - self._prefills)[here] - self._tokens[here]
        )
        open_ = (free >= blocks) & (self._batch[here] < self._engine.max_num_seqs) & (budget > 0)
        found = np.flatnonzero(open_)
        return self._at + int(found[0]) if len(found) else self._length

    def _decode_from(self, row: int, known: int) -> None:
        """The prompt is done in the current iteration: tokens appear from here on."""
        start, remaining = self._at, int(self._board.remaining_tokens[row])
        self._reserve(start + remaining)
        self._first[row] = start
        self._prefills[start] += 1
        self._batch[start : start + remaining] += 1
        steps = np.arange(known, known + remaining)
        self._kv[start : start + remaining] += -(-steps // self._engine.block_size)

    def projection(self) -> Projection:
        h = self._length
        return Projection(
            self._batch[:h],
            self._kv[:h],
            self._prefills[:h],
            self._tokens[:h],
            self._attention[:h],
            self._first,
            self._first + self._board.remaining_tokens,
            bool(self._kv[:h].max(initial=0) <= self._board.kv_blocks_total),
        )


def decode_blocks(known: IntArray, remaining: IntArray, block_size: int, length: int) -> IntArray:
    """KV blocks of requests that decode from j = 0 on.

    KV[j] = sum over i of ceil((known_i + j) / N) while j < remaining_i.

    Walks over changes instead of over requests and iterations: a request adds its blocks at j = 0, one
    block whenever known + j - 1 is a multiple of N, and takes all of them away when it ends.

    Args:
        known: int64[n], tokens held at j = 0.
        remaining: int64[n], iterations that each lasts.
        block_size: N.
        length: Number of iterations.

    Returns:
        int64[length].
    """
    first_growth = 1 + (-known) % block_size
    growths = np.maximum(0, -(-(remaining - first_growth) // block_size))
    start = -(-known // block_size)
    change = np.zeros(length + 1, np.int64)
    change[0] = start.sum()
    owner = np.repeat(np.arange(len(known)), growths)
    nth = np.arange(len(owner)) - np.repeat(np.cumsum(growths) - growths, growths)
    change += np.bincount(first_growth[owner] + nth * block_size, minlength=length + 1)
    change -= np.bincount(remaining, weights=start + growths, minlength=length + 1).astype(np.int64)
    return np.cumsum(change)[:length]
