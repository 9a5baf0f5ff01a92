"""The page `/metrics` of a vLLM server: a fallback for, and a check on, what its plugin tells."""

import time
from collections.abc import Iterator

from throttllem_env.serving.vllm.stats import EngineStats

METRICS = {
    "running": "vllm:num_requests_running",
    "waiting": "vllm:num_requests_waiting",
    "kv_usage": "vllm:kv_cache_usage_perc",
    "iterations": "vllm:iteration_tokens_total_count",
    "prompt_tokens": "vllm:prompt_tokens_total",
    "generated_tokens": "vllm:generation_tokens_total",
    "preemptions": "vllm:num_preemptions_total",
}
"""Where each field of `EngineStats` stands."""


def read_metrics(page: str) -> EngineStats:
    """Read a page. Lines that are of no interest here may be as malformed as they like.

    Args:
        page: Text in Prometheus' format.

    Raises:
        ValueError: One of `METRICS` is missing or malformed; the message names it.
    """
    values = {field: _value(page, name) for field, name in METRICS.items()}
    gauges = (int(values["running"]), int(values["waiting"]), values["kv_usage"])
    names = ("iterations", "prompt_tokens", "generated_tokens", "preemptions")
    return EngineStats(time.monotonic(), *gauges, *(int(values[name]) for name in names))


def _value(page: str, name: str) -> float:
    """A metric, summed over its labels."""
    # Not one whose name is longer.
    lines = [line for line in page.splitlines() if line.startswith((name + "{", name + " "))]
    if not lines:
        raise ValueError(f"{name} is missing")
    try:
        total = sum(value for line in lines for value in _samples(line))
        int(total)  # neither infinite nor no number
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{name} is malformed: {error}") from error
    return total


def _samples(line: str) -> Iterator[float]:
    """Values of a line: one, unless it is malformed."""
    from prometheus_client.parser import text_string_to_metric_families

    for family in text_string_to_metric_families(line + "\n"):
        yield from (sample.value for sample in family.samples)
