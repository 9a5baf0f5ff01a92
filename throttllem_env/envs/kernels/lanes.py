"""One environment as a record: where its arrays lie, what never changes, and where its episode stands."""

from typing import Any, NamedTuple

import numpy as np

from throttllem_env.compiled import opening
from throttllem_env.envs.kernels.inputs import Constants, Scratch
from throttllem_env.kernels.addresses import Addresses, address_dtype, carray, pointer
from throttllem_env.prediction.kernels.columns import Requests, TimeTables
from throttllem_env.prediction.kernels.opened import FUTURE_AT, LENGTHS_AT, TABLES_AT, future_at, tables_at
from throttllem_env.serving.kernels.opened import NODE_AT
from throttllem_env.types import BoolArray, IntArray

FRESH, READY, UNDER_WAY = range(3)
"""Stages: an episode that begins, one that waits for an action, one that was left while it was served."""

DRAWS, ROOM = 1, 2
"""What a lane may need before it can go on: more random draws, or a desk with room for more pieces."""

_ARRAYS = ("clocks_mhz", "horizons_s")

CONSTANTS_AT = np.dtype(
    [
        *address_dtype(clocks_mhz=1, horizons_s=1).descr,
        *((name, np.int64) for name in ("seats", "token_budget", "block_size", "prefill")),
        *(
            (name, np.float64)
            for name in (
                "top_mhz",
                "largest_size",
                "rated_rps",
                "backlog_tokens",
                "token_rate",
                "prompt_token_rate",
                "max_power_w",
                "warm_up_s",
                "e2e_s",
                "tbt_s",
                "margin",
            )
        ),
    ]
)
"""`Constants` with its arrays by address."""

LANE = np.dtype(
    [
        ("node", NODE_AT),
        ("lengths", LENGTHS_AT),
        ("constants", CONSTANTS_AT),
        ("tables", np.int64),  # address of TABLES_AT[sizes]
        # What never changes.
        ("control_period_s", np.float64),
        ("run_in_s", np.float64),
        ("horizon_s", np.float64),
        ("window_s", np.float64),  # how far back recent arrivals go
        ("gamma", np.float64),
        ("reward_per_j", np.float64),
        ("reward_per_violation", np.float64),
        ("events", np.int64),  # whether steps end at events too
        # Where the episode stands.
        ("stage", np.int64),
        ("needs", np.int64),
        ("until_s", np.float64),  # where the stretch under way ends
        ("next_deadline", np.int64),  # deadlines of requests below this one have passed
        ("masked_actions", np.int64),
    ]
)
"""An environment; see `throttllem_env.envs.lanes`."""

DESK_AT = np.dtype(
    [
        *address_dtype(counts=2, arrival_s=1, lost=1, late=1, predicted=1, deadline_s=1, ahead=2).descr,
        ("future", FUTURE_AT),
    ]
)
"""Addresses of a `Desk`."""


class Desk(NamedTuple):
    """Memory that all lanes work in, one after another.

    Attributes:
        counts: int64[4, n], see `report.gather_running`.
        requests: Its rows as columns, and more.
        late: bool[n].
        scratch: For the projection.
    """

    counts: IntArray
    requests: Requests
    late: BoolArray
    scratch: Scratch


@opening
def desk_at(at: Addresses) -> Desk:
    """The desk at the addresses of a DESK_AT."""
    counts = carray(pointer(at.counts), (at.counts_0, at.counts_1), np.int64)
    arrival_s = carray(pointer(at.arrival_s), (at.arrival_s_0,), np.float64)
    lost = carray(pointer(at.lost), (at.lost_0,), np.bool_)
    scratch = Scratch(
        future_at(at.future),
        carray(pointer(at.predicted), (at.predicted_0,), np.int64),
        carray(pointer(at.deadline_s), (at.deadline_s_0,), np.float64),
        carray(pointer(at.ahead), (at.ahead_0, at.ahead_1), np.float64),
    )
    requests = Requests(counts[0], arrival_s, counts[1], counts[2], counts[3], lost)
    return Desk(counts, requests, carray(pointer(at.late), (at.late_0,), np.bool_), scratch)


@opening
def constants_at(at: Addresses) -> Constants:
    """The constants at a CONSTANTS_AT."""
    return Constants(
        at.top_mhz,
        at.largest_size,
        at.seats,
        at.token_budget,
        at.block_size,
        at.rated_rps,
        at.backlog_tokens,
        at.token_rate,
        at.prompt_token_rate,
        at.max_power_w,
        at.warm_up_s,
        at.e2e_s,
        at.tbt_s,
        at.margin,
        at.prefill,
        carray(pointer(at.clocks_mhz), (at.clocks_mhz_0,), np.int64),
        carray(pointer(at.horizons_s), (at.horizons_s_0,), np.float64),
    )


@opening
def lanes_at(address: int, count: int) -> Any:
    """LANE[count] at an address."""
    return carray(pointer(address), (count,), LANE)


@opening
def tables_of(lane: Any, size_index: int, sizes: int) -> TimeTables:
    """Iteration times of a lane at a size."""
    return tables_at(carray(pointer(lane.tables), (sizes,), TABLES_AT)[size_index])
