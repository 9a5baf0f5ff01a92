"""Fitted coefficients of one model on one GPU, with their source and error.

A profile is a YAML file under `profiles/`, written by `scripts/fit_hardware.py`.
"""

from dataclasses import asdict, dataclass, replace
from functools import cache
from importlib.resources import files
from typing import Any

from throttllem_env.suggest import nearest


@dataclass(frozen=True, slots=True)
class LatencyCoefficients:
    """Iteration time of one instance size at the top clock, for b requests, KV tokens, n prompt tokens.

    decode = host_s + host_per_request_s b + (weights_s^4 + (compute_per_request_s b)^4)^(1/4)
             + per_request_s b + per_kv_token_s KV
    prefill = (prefill_floor_s^4 + (prefill_fixed_s + prefill_per_token_s n
              + prefill_bend_s m/(1 + m))^4)^(1/4) + prefill_per_token2_s n context,  m = n/1000

    Attributes:
        host_s: Host time per iteration (launch, scheduling, sampling) that no kernel hides.
        host_per_request_s: Host time per decoding request.
        weights_s: Reading the weights once.
        compute_per_request_s: Multiplying with them, which overlaps with reading them.
        per_request_s: Other kernel time per decoding request.
        per_kv_token_s: Attention time per KV token read.
        prefill_floor_s: Kernel time of the shortest prefill: reading the weights.
        prefill_fixed_s: Kernel time of any prefill besides.
        prefill_per_token_s: Kernel time per prefilled token of a long chunk.
        prefill_bend_s: What a long chunk takes besides, because short ones communicate faster per token.
        prefill_per_token2_s: Attention time per (token x context) of a prefill.
    """

    host_s: float
    host_per_request_s: float
    weights_s: float
    compute_per_request_s: float
    per_request_s: float
    per_kv_token_s: float
    prefill_floor_s: float
    prefill_fixed_s: float
    prefill_per_token_s: float
    prefill_bend_s: float
    prefill_per_token2_s: float


@dataclass(frozen=True, slots=True)
class ResponseCoefficients:
    """How decode kernels slow down with the clock.

    time(f) / time(top) = [(1 + (x top/f)^q) / (1 + x^q)]^(1/q),
    x = clock_bound + clock_bound_per_request b/size

    Attributes:
        exponent: q; large: memory-bound and clock-bound time overlap fully.
        clock_bound: x at batch 0: the clock-bound time relative to the memory-bound time.
        clock_bound_per_request: Growth of x per decoding request and GPU.
    """

    exponent: float
    clock_bound: float
    clock_bound_per_request: float


@dataclass(frozen=True, slots=True)
class PowerCoefficients:
    """Power of one GPU; r = f/top, g(r) = r max(1, r/knee)^knee_exponent.

    decode(f, b) = base_w + dynamic_w size^-size_exponent h(b) g(r),
    h(b) = 1 + batch_gain (1 - e^(-b/(size batch_scale)))
    prefill(f, n) = base_w + prefill_dynamic_w size^-prefill_size_exponent l(n) g(r),
    l(n) = 1 - prefill_short_share e^(-n/(size prefill_short_tokens))
    idle(f) = idle_w + idle_dynamic_w g(r), with a knee of its own

    Attributes:
        base_w: Busy power that does not depend on the clock.
        dynamic_w: Clock-dependent power at batch 0 and size 1.
        size_exponent: Decline of the dynamic power with the size (time spent in communication).
        batch_gain: Growth of the dynamic power from batch 0 to a large batch.
        batch_scale: Batch per GPU at which 63 % of that growth is reached.
        knee: Relative clock above which the voltage rises.
        knee_exponent: Exponent of the rise.
        prefill_dynamic_w: Clock-dependent power of a long prefill at size 1.
        prefill_size_exponent: Its decline with the size.
        prefill_short_share: Share of it that a very short prefill does not reach.
        prefill_short_tokens: Tokens per GPU at which 63 % of that share are reached.
        idle_w: Power with a model loaded and no work, extrapolated to clock 0.
        idle_dynamic_w: Its growth with the clock.
        idle_knee: Relative clock above which it grows faster.
        idle_knee_exponent: Exponent of that.
    """

    base_w: float
    dynamic_w: float
    size_exponent: float
    batch_gain: float
    batch_scale: float
    knee: float
    knee_exponent: float
    prefill_dynamic_w: float
    prefill_size_exponent: float
    prefill_short_share: float
    prefill_short_tokens: float
    idle_w: float
    idle_dynamic_w: float
    idle_knee: float
    idle_knee_exponent: float


@dataclass(frozen=True, slots=True)
class HardwareProfile:
    """Physics of one model on one GPU.

    Attributes:
        name: `MODEL_GPU`.
        latency: Coefficients by instance size.
        response: Frequency response of decode.
        power: Power of a GPU.
    """

    name: str
    latency: dict[int, LatencyCoefficients]
    response: ResponseCoefficients
    power: PowerCoefficients

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "HardwareProfile":
        """Build a profile from the mapping that the YAML file holds."""
        return cls(
            data["name"],
            {int(size): LatencyCoefficients(**row) for size, row in data["latency"].items()},
            ResponseCoefficients(**data["response"]),
            PowerCoefficients(**data["power"]),
        )

    def scaled(
        self, decode_time: float = 1.0, prefill_time: float = 1.0, power: float = 1.0
    ) -> "HardwareProfile":
        """The profile of hardware that is slower or hungrier than this one.

        Args:
            decode_time: Factor on the time of everything but prefill.
            prefill_time: Factor on the time of prefill.
            power: Factor on every power.
        """
        latency = {size: _scaled_latency(c, decode_time, prefill_time) for size, c in self.latency.items()}
        watts = {name: getattr(self.power, name) * power for name in WATTS}
        return replace(self, latency=latency, power=replace(self.power, **watts))


WATTS = ("base_w", "dynamic_w", "prefill_dynamic_w", "idle_w", "idle_dynamic_w")
"""Coefficients that are powers."""


def _scaled_latency(c: LatencyCoefficients, decode_time: float, prefill_time: float) -> LatencyCoefficients:
    factors = {name: prefill_time if name.startswith("prefill") else decode_time for name in asdict(c)}
    return LatencyCoefficients(**{name: value * factors[name] for name, value in asdict(c).items()})


@cache
def load_profile(model: str, gpu: str) -> HardwareProfile:
    """Load the shipped profile of a model on a GPU.

    Args:
        model: Model key, for example `llama2-13b`.
        gpu: GPU key, for example `a100-40gb`.

    Returns:
        The profile.

    Raises:
        ValueError: There is none; the message names the nearest one.
    """
    import yaml

    folder = files("throttllem_env.hardware") / "profiles"
    name = f"{model}_{gpu}"
    known = sorted(f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name.endswith(".yaml"))
    if name not in known:
        raise ValueError(f"hardware profile = {name!r}: not shipped; {nearest(name, known)}")
    return HardwareProfile.from_dict(yaml.safe_load((folder / f"{name}.yaml").read_text(encoding="utf-8")))
