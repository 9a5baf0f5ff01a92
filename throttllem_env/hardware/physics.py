"""Time and energy of an iteration, tabulated per clock.

At a fixed clock and batch a decode iteration is affine in the KV tokens it reads, so that spans of
iterations have closed forms and no power functions run in loops (docs/design.md, Physics). Prefill is
compute-bound (1/f); an iteration that does both is a roofline of the two, plus host time.
"""

from functools import cached_property
from typing import NamedTuple

import numpy as np

from throttllem_env.hardware.power import (
    Values,
    busy_w,
    capped_ratio,
    decode_dynamic_w,
    idle_w,
    prefill_dynamic_w,
    prefill_load,
)
from throttllem_env.hardware.profile import HardwareProfile, PowerCoefficients, ResponseCoefficients
from throttllem_env.hardware.specs import GpuSpec
from throttllem_env.types import FloatArray, IntArray

# Reading the weights and computing on them overlap: (memory^4 + compute^4)^(1/4), the form that fits
# the prefill grids best (calibration README).
ROOFLINE = 4.0


class IterationWork(NamedTuple):
    """What one forward pass has to do.

    Attributes:
        decode_batch: Requests that decode one token.
        kv_tokens: KV tokens that they read, their new ones included.
        prefill_tokens: Prompt tokens computed.
        prefill_attention: Sum over prefill chunks of n (2 computed + n), token²; n² for a whole prompt.
    """

    decode_batch: int
    kv_tokens: int
    prefill_tokens: int
    prefill_attention: int


class IterationTime(NamedTuple):
    """How long each part of an iteration takes, seconds."""

    host_s: float
    decode_s: float
    prefill_s: float

    @property
    def total_s(self) -> float:
        """Duration of the iteration."""
        return self.host_s + self.decode_s + self.prefill_s


def slowdown(
    response: ResponseCoefficients, clock_ratio: FloatArray, batch_per_gpu: FloatArray
) -> FloatArray:
    """Decode kernel time relative to the top clock.

    Args:
        response: Fitted coefficients.
        clock_ratio: Clock divided by the top clock, in (0, 1], same shape as the batch or one value.
        batch_per_gpu: Decoding requests per GPU, any shape.

    Returns:
        Factors of at least 1, same shape; 1 at the top clock.
    """
    x = response.clock_bound + response.clock_bound_per_request * batch_per_gpu
    q = response.exponent
    factor: FloatArray = ((1 + (x / clock_ratio) ** q) / (1 + x**q)) ** (1 / q)
    return factor


class ClockTable:
    """Coefficients of one instance size at one clock, indexed by the decode batch.

    Attributes:
        mhz: The clock that is asked for; where a power limit binds, GPUs run slower.
        host_s: float64[max_batch + 1], host time.
        decode_fixed_s: float64[max_batch + 1], kernel time without KV reads (0 at batch 0).
        decode_per_kv_token_s: float64[max_batch + 1].
        decode_w: float64[max_batch + 1], power of one GPU while decode kernels run.
        prefill_w: Power of one GPU while a long prefill runs.
        prefill_floor_s: Reading the weights, which is part of the time of a chunk.
        prefill_per_token2_s: Time per unit of `IterationWork.prefill_attention`.
        idle_w: Power of one GPU while it waits.
        decode_mhz: float64[max_batch + 1], the clock at which decode really runs.
        prefill_mhz: The clock at which a long prefill really runs.
    """

    def __init__(
        self,
        profile: HardwareProfile,
        gpu: GpuSpec,
        size: int,
        mhz: int,
        max_batch: int,
        limit_w: float,
        max_chunk_tokens: int,
    ) -> None:
        """Tabulate.

        Args:
            profile: Coefficients.
            gpu: Gives clocks and the board's power limit, under which the latencies were measured.
            size: Tensor-parallel degree, one that the profile has.
            mhz: The clock.
            max_batch: Largest batch that occurs.
            limit_w: Power limit that is set.
            max_chunk_tokens: Largest chunk that is tabulated.
        """
        self.mhz = mhz
        self._max_chunk_tokens = max_chunk_tokens
        batch = np.arange(max_batch + 1, dtype=np.float64)
        self._decode(profile, gpu, size, batch, limit_w)
        self._prefill(profile, gpu, size, limit_w)
        self.idle_w = idle_w(profile.power, mhz / gpu.top_mhz)

    def _ratios(
        self, power: PowerCoefficients, gpu: GpuSpec, dynamic_w: FloatArray, limit_w: float
    ) -> tuple[FloatArray, FloatArray]:
        """Clock ratios that GPUs reach: here, and at the top clock under the board's own limit."""
        lowest = gpu.clocks_mhz[0] / gpu.top_mhz
        here = capped_ratio(power, dynamic_w, self.mhz / gpu.top_mhz, limit_w, lowest)
        return here, capped_ratio(power, dynamic_w, 1.0, gpu.power_limit_w, lowest)

    def _decode(
        self, profile: HardwareProfile, gpu: GpuSpec, size: int, batch: FloatArray, limit_w: float
    ) -> None:
        c, power = profile.latency[size], profile.power
        dynamic_w = decode_dynamic_w(power, size, batch)
        ratio, reference = self._ratios(power, gpu, dynamic_w, limit_w)
        per_gpu = batch / size
        factor = slowdown(profile.response, ratio, per_gpu) / slowdown(profile.response, reference, per_gpu)
        weights_s = (c.weights_s**ROOFLINE + (c.compute_per_request_s * batch) ** ROOFLINE) ** (1 / ROOFLINE)
        self.host_s = c.host_s + c.host_per_request_s * batch
        self.decode_fixed_s = np.where(batch > 0, factor * (weights_s + c.per_request_s * batch), 0.0)
        self.decode_per_kv_token_s = factor * c.per_kv_token_s
        self.decode_w = busy_w(power, dynamic_w, ratio)
        self.decode_mhz = gpu.top_mhz * ratio
        self.prefill_floor_s = float(factor[0] * c.prefill_floor_s)

    def _prefill(self, profile: HardwareProfile, gpu: GpuSpec, size: int, limit_w: float) -> None:
        c, power = profile.latency[size], profile.power
        dynamic_w = np.array([prefill_dynamic_w(power, size)])
        here, reference = self._ratios(power, gpu, dynamic_w, limit_w)
        ratio = float(here[0] / reference[0])
        self._prefill_fixed_s = c.prefill_fixed_s / ratio
        self._prefill_per_token_s = c.prefill_per_token_s / ratio
        self._prefill_bend_s = c.prefill_bend_s / ratio
        self.prefill_per_token2_s = c.prefill_per_token2_s / ratio
        self.prefill_mhz = float(gpu.top_mhz * here[0])
        self.prefill_w = float(busy_w(power, dynamic_w, here)[0])
        self._power, self._size = power, size

    @cached_property
    def _rows(self) -> list[tuple[float, float, float]]:
        """Plain floats per batch: an iteration reads one row, and numpy scalars are slow."""
        columns = (self.host_s, self.decode_fixed_s, self.decode_per_kv_token_s)
        return list(zip(*(c.tolist() for c in columns), strict=True))

    @cached_property
    def _decode_w(self) -> list[float]:
        return [float(w) for w in self.decode_w]

    def iteration(self, work: IterationWork) -> IterationTime:
        """Time of an iteration, part by part.

        The weights are read once for both kinds of work: what decode already pays for them is not
        charged to prefill again.
        """
        host_s, fixed_s, per_kv_token_s = self._rows[work.decode_batch]
        decode_s = fixed_s + per_kv_token_s * work.kv_tokens
        if not work.prefill_tokens:
            return IterationTime(host_s, decode_s, 0.0)
        prefill_s = (
            self._chunk_row(work.prefill_tokens)[0] + self.prefill_per_token2_s * work.prefill_attention
        )
        return IterationTime(
            host_s, decode_s, prefill_s - (self.prefill_floor_s if work.decode_batch else 0.0)
        )

    @cached_property
    def chunk_linear_s(self) -> FloatArray:
        """float64[max_chunk_tokens + 1], time of a chunk without attention, the weights' reading included."""
        return self._chunk_linear_s(np.arange(self._max_chunk_tokens + 1, dtype=np.float64))

    @cached_property
    def chunk_w(self) -> FloatArray:
        """float64[max_chunk_tokens + 1], power of one GPU while a chunk of so many prompt tokens runs."""
        return self._chunk_w(np.arange(self._max_chunk_tokens + 1, dtype=np.float64))

    @cached_property
    def _chunk_rows(self) -> list[tuple[float, float]]:
        return list(zip(self.chunk_linear_s.tolist(), self.chunk_w.tolist(), strict=True))

    def _chunk_row(self, tokens: int) -> tuple[float, float]:
        """Time without attention, and power; chunks beyond the table are worked out."""
        if tokens <= self._max_chunk_tokens:
            return self._chunk_rows[tokens]
        return self._chunk_linear_s(float(tokens)), float(self._chunk_w(float(tokens)))

    def _chunk_linear_s(self, tokens: Values) -> Values:
        thousands = tokens / 1000
        compute_s = (
            self._prefill_fixed_s
            + self._prefill_per_token_s * tokens
            + self._prefill_bend_s * thousands / (1 + thousands)
        )
        linear_s: Values = (self.prefill_floor_s**ROOFLINE + compute_s**ROOFLINE) ** (1 / ROOFLINE)
        return linear_s

    def _chunk_w(self, tokens: Values) -> Values:
        base_w = self._power.base_w
        watts: Values = base_w + prefill_load(self._power, self._size, tokens) * (self.prefill_w - base_w)
        return watts

    @property
    def prefill_coefficients(self) -> tuple[float, float, float, float, float]:
        """Of the time of a chunk: floor, fixed, per token, bend (all in s) and per token of attention."""
        return (
            self.prefill_floor_s,
            self._prefill_fixed_s,
            self._prefill_per_token_s,
            self._prefill_bend_s,
            self.prefill_per_token2_s,
        )

    def decode_power_w(self, decode_batch: int) -> float:
        """Power of one GPU at this clock while decode kernels run."""
        return self._decode_w[decode_batch]

    def prefill_power_w(self, tokens: int) -> float:
        """Power of one GPU while a chunk of so many prompt tokens runs."""
        return self._chunk_row(tokens)[1]

    def decode_iterations_s(self, batch: IntArray, kv_tokens: FloatArray) -> FloatArray:
        """Decode iterations, many at once.

        Args:
            batch: int64[n], at most the largest batch.
            kv_tokens: float64[n].

        Returns:
            float64[n], seconds, host time included.
        """
        seconds: FloatArray = (
            self.host_s[batch] + self.decode_fixed_s[batch] + self.decode_per_kv_token_s[batch] * kv_tokens
        )
        return seconds

    def prefill_chunks_s(self, tokens: FloatArray, attention: FloatArray) -> FloatArray:
        """Time that prefill chunks add to iterations that decode as well.

        Args:
            tokens: float64[n], prompt tokens computed (0: none).
            attention: float64[n], as in `IterationWork.prefill_attention`.

        Returns:
            float64[n], seconds.
        """
        linear_s = self._chunk_linear_s(tokens)
        return np.where(
            tokens > 0, linear_s + self.prefill_per_token2_s * attention - self.prefill_floor_s, 0.0
        )


class Physics:
    """One instance size at all clocks.

    Example:
        >>> from throttllem_env.hardware import GPUS, IterationWork, Physics, load_profile
        >>> profile = load_profile("llama2-13b", "a100-40gb")
        >>> physics = Physics(profile, GPUS["a100-40gb"], size=4, max_batch=256)
        >>> work = IterationWork(decode_batch=32, kv_tokens=40_000, prefill_tokens=0, prefill_attention=0)
        >>> physics.at(1410).iteration(work).total_s < physics.at(1005).iteration(work).total_s
        True
    """

    def __init__(
        self,
        profile: HardwareProfile,
        gpu: GpuSpec,
        size: int,
        max_batch: int,
        power_cap_w: float | None = None,
        max_chunk_tokens: int = 2048,
    ) -> None:
        """Prepare the tables; they are filled when a clock is first used.

        Args:
            profile: Coefficients.
            gpu: The GPU's data sheet.
            size: Tensor-parallel degree.
            max_batch: Largest batch that occurs.
            power_cap_w: Power limit set on every GPU; None for the board's own.
            max_chunk_tokens: Token budget of an iteration: chunks up to it are tabulated.

        Raises:
            ValueError: The profile has no such size.
        """
        if size not in profile.latency:
            raise ValueError(f"size = {size}: profile {profile.name} has {sorted(profile.latency)}")
        self.gpu = gpu
        self.size = size
        self._profile = profile
        self._max_batch = max_batch
        self._max_chunk_tokens = max_chunk_tokens
        self._limit_w = min(power_cap_w or gpu.power_limit_w, gpu.power_limit_w)
        self._tables: dict[int, ClockTable] = {}

    def at(self, mhz: int) -> ClockTable:
        """The coefficients at a clock."""
        table = self._tables.get(mhz)
        if table is None:
            limits = (self._max_batch, self._limit_w, self._max_chunk_tokens)
            table = ClockTable(self._profile, self.gpu, self.size, mhz, *limits)
            self._tables[mhz] = table
        return table
