import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from throttllem_env.traces import Split, Trace, TraceError
from throttllem_env.traces.splits import block_spans

SPLITS: tuple[Split, ...] = ("train", "validation", "test")


def each_second(duration_s: int) -> Trace:
    """One request a second whose prompt length is its second, plus 1."""
    seconds = np.arange(duration_s + 1)
    return Trace(seconds.astype(float), seconds + 1, np.ones(duration_s + 1), "seconds")


def seconds_of(trace: Trace) -> list[int]:
    return [int(tokens) - 1 for tokens in trace.prompt_tokens]


def test_the_blocks_of_an_hour_are_frozen() -> None:
    starts = {split: [start for start, _ in block_spans(3600.0, split)] for split in SPLITS}
    assert starts == {
        "train": [30.0, 630.0, 1230.0, 1830.0, 2430.0, 3030.0],
        "validation": [330.0, 1530.0, 2730.0],
        "test": [930.0, 2130.0, 3330.0],
    }


def test_blocks_lose_their_guard_and_start_at_zero() -> None:
    first, second = each_second(3600).blocks("train")[:2]
    assert seconds_of(first) == list(range(30, 300))
    assert seconds_of(second) == list(range(630, 900))
    assert (second.arrival_s[0], second.duration_s) == (0.0, 270.0)


def test_the_pattern_repeats_every_hour() -> None:
    spans = block_spans(7200.0, "validation")
    assert spans[3:] == [(start + 3600.0, end + 3600.0) for start, end in spans[:3]]


def test_the_last_block_may_be_short_and_holds_the_very_last_arrival() -> None:
    last = each_second(3500).blocks("test")[-1]
    assert seconds_of(last) == list(range(3330, 3501))
    assert last.duration_s == 170.0
    assert len(each_second(920).blocks("test")) == 0  # its fourth block is all guard


@given(st.integers(0, 9000))
def test_splits_are_disjoint_and_guarded(duration_s: int) -> None:
    trace = each_second(duration_s)
    seen: list[int] = []
    for split in SPLITS:
        for block in trace.blocks(split):
            seen += seconds_of(block)
        assert seconds_of(trace.split(split)) == [s for b in trace.blocks(split) for s in seconds_of(b)]
    assert len(set(seen)) == len(seen)
    assert all(second % 300 >= 30 or second == duration_s for second in seen)


def test_a_split_joins_its_blocks() -> None:
    split = each_second(3600).split("validation")
    assert (split.name, split.duration_s, len(split)) == ("seconds/validation", 810.0, 810)


def test_an_unknown_split_names_the_nearest() -> None:
    with pytest.raises(TraceError, match=r"'trian'.*did you mean 'train'"):
        each_second(10).blocks("trian")  # type: ignore[arg-type]
