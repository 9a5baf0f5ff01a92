"""The features of an observation: a table of names, meanings, bounds and how each is computed.

Every value is divided by a constant of the scenario, so that 1 means "all there is" wherever that makes
sense, and is clipped to its bounds.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from throttllem_env.envs.actions import SIZE_SLOTS
from throttllem_env.envs.view import HORIZONS_S, View
from throttllem_env.scenario import Scenario


@dataclass(frozen=True, slots=True)
class Feature:
    """One number of the observation.

    Attributes:
        name: Its name.
        meaning: What it is, for people.
        value: Computes it; clipping to the bounds follows.
        low: Lower bound.
        high: Upper bound.
    """

    name: str
    meaning: str
    value: Callable[[View], float]
    low: float = 0.0
    high: float = 1.0


def feature_groups(scenario: Scenario, *, projections: bool) -> dict[str, tuple[Feature, ...]]:
    """All features by group, in the order of the observation.

    Args:
        scenario: Gives the sizes behind the slots.
        projections: Whether the projected ones are among them.
    """
    instance = _CLOCK + _slots(scenario.sizes) + _CHANGES
    groups = {"instance": instance, "engine": _ENGINE, "traffic": _TRAFFIC, "service": _SERVICE}
    return groups | {"projection": _PROJECTION + _AHEAD} if projections else groups


def _slots(sizes: tuple[int, ...]) -> tuple[Feature, ...]:
    """The active size, one-hot over the slots; padded slots stay 0."""
    padded = sizes + (0,) * (SIZE_SLOTS - len(sizes))
    return tuple(
        Feature(f"size_slot_{slot}", "1 for the slot of the active size", partial(_is_active, size))
        for slot, size in enumerate(padded)
    )


def _is_active(size: int, view: View) -> float:
    return view.active.size == size


def _projected_batch(index: int, view: View) -> float:
    return float(view.ahead[0][index]) / view.seats


def _projected_kv(index: int, view: View) -> float:
    return float(view.ahead[1][index]) / view.active.kv_blocks_total


_CLOCK = (
    Feature("clock", "ruling clock / top clock", lambda v: v.active.frequency_mhz / v.top_mhz),
    Feature("target_clock", "clock asked for / top clock", lambda v: v.active.target_mhz / v.top_mhz),
)

_CHANGES = (
    Feature("warming", "1 while an instance warms", lambda v: v.warming is not None),
    Feature("warming_size", "its size / largest size", lambda v: v.warming_size),
    Feature("warming_progress", "its time in warm-up / longest warm-up", lambda v: v.warming_progress),
    Feature("draining", "1 while an instance drains", lambda v: v.draining),
)

_ENGINE = (
    Feature("batch", "running requests / max_num_seqs", lambda v: len(v.active.running) / v.seats),
    Feature("prefilling", "those still in prefill / max_num_seqs", lambda v: v.prefilling / v.seats),
    Feature("kv_used", "KV blocks / total", lambda v: v.active.kv_blocks_used / v.active.kv_blocks_total),
    Feature("queue", "waiting requests / max_num_seqs", lambda v: len(v.telemetry.waiting) / v.seats),
    Feature(
        "queued_tokens",
        "their tokens / tokens of 16 full iterations",
        lambda v: v.queued_tokens / v.scales.backlog_tokens,
    ),
    Feature(
        "prefill_backlog",
        "tokens to prefill, running and waiting / tokens of 16 full iterations",
        lambda v: v.backlog_tokens / v.scales.backlog_tokens,
    ),
)

_TRAFFIC = (
    Feature(
        "request_rate",
        "requests per second of the last 30 s / rated load of the largest size",
        lambda v: v.telemetry.recent.request_rate_rps / v.rated_rps,
        high=2,
    ),
    Feature(
        "prompt_token_rate",
        "prompt tokens per second of the last 30 s / fastest prefill",
        lambda v: v.telemetry.recent.prompt_token_rate / v.scales.prompt_token_rate,
        high=2,
    ),
)

_SERVICE = (
    Feature(
        "power",
        "mean power of the last step / power limit of the node",
        lambda v: v.telemetry.power_w / v.scales.max_power_w,
    ),
    Feature(
        "token_rate",
        "output tokens per second in the last step / fastest decode",
        lambda v: v.token_rate / v.scales.token_rate,
    ),
    Feature(
        "tbt",
        "mean time between tokens in the last step / its SLO",
        lambda v: v.relative_tbt(v.telemetry.tbt_mean_s),
        high=2,
    ),
    Feature(
        "deadlines_missed",
        "deadlines that passed in the last step, per second / rated load",
        lambda v: v.missed_share,
        high=4,
    ),
)

_PROJECTION = (
    Feature(
        "slack_top",
        "least predicted slack at the top clock / E2E SLO",
        lambda v: v.relative_slack(v.at_top),
        low=-1,
    ),
    Feature("slack_now", "the same at the clock asked for", lambda v: v.relative_slack(v.at_present), low=-1),
    Feature(
        "tbt_top",
        "longest predicted time between tokens at the top clock / its SLO",
        lambda v: v.relative_tbt(v.at_top.tbt_s),
        high=2,
    ),
    Feature(
        "tbt_now", "the same at the clock asked for", lambda v: v.relative_tbt(v.at_present.tbt_s), high=2
    ),
    Feature("lowest_clock", "lowest feasible clock / top clock", lambda v: v.lowest[0] / v.top_mhz),
    Feature("feasible", "1 if some clock keeps every SLO", lambda v: v.lowest[1]),
    Feature("kv_fits", "1 if the projected KV fits throughout", lambda v: v.outlook.projection.fits),
    Feature("missing_share", "share of requests late even at the top clock", lambda v: v.missing_share),
)

_AHEAD = tuple(
    Feature(f"{name}_{horizon_s:g}s", f"{meaning} {horizon_s:g} s from now", partial(value, index), high=high)
    for name, meaning, value, high in (
        ("projected_batch", "projected batch / max_num_seqs", _projected_batch, 1),
        ("projected_kv", "projected KV blocks / total", _projected_kv, 2),
    )
    for index, horizon_s in enumerate(HORIZONS_S)
)
