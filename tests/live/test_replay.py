"""A trace leaves on time, with the right counts, and what comes back is measured."""

import asyncio
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from throttllem_env.live.replay import LOWEST_TOKEN_ID, VOCABULARY, ReplayRecord, ReplaySettings, replay
from throttllem_env.live.replay_report import record_entry, report
from throttllem_env.serving.vllm import model_files
from throttllem_env.traces import Trace


def short_trace(requests: int = 30, duration_s: float = 1.0, output_tokens: int = 5) -> Trace:
    arrival_s = np.linspace(0.0, duration_s, requests)
    return Trace(arrival_s, np.arange(1, requests + 1), np.full(requests, output_tokens))


def played(rig: ModuleType, upstream: Any, trace: Trace, **settings: Any) -> list[ReplayRecord]:
    """Play a trace against an upstream."""
    records: list[ReplayRecord] = []

    async def scene() -> None:
        async with rig.serving(upstream) as url:
            records.extend(await replay(trace, ReplaySettings(url, **settings)))

    rig.run(scene())
    return records


def test_every_request_leaves_with_its_counts(rig: ModuleType) -> None:
    upstream, trace = rig.FakeVllm(), short_trace()
    records = played(rig, upstream, trace, vocabulary=100)
    # Those that a busy machine sends together may overtake each other.
    assert sorted(len(asked["prompt"]) for asked in upstream.asked) == trace.prompt_tokens.tolist()
    assert {asked["model"] for asked in upstream.asked} == {"tiny"}
    assert {asked["max_tokens"] for asked in upstream.asked} == {5}
    assert {(asked["min_tokens"], asked["ignore_eos"]) for asked in upstream.asked} == {(5, True)}
    ids = {token for asked in upstream.asked for token in asked["prompt"]}
    assert min(ids) >= 10
    assert max(ids) < 100
    assert [(record.received_tokens, record.status) for record in records] == [(5, 200)] * 30


def test_the_seed_gives_the_prompts(rig: ModuleType) -> None:
    prompts = []
    for seed in (0, 0, 1):
        upstream = rig.FakeVllm()
        played(rig, upstream, short_trace(3, 0.0), seed=seed)
        prompts.append(sorted(asked["prompt"] for asked in upstream.asked))
    assert prompts[0] == prompts[1] != prompts[2]


def test_requests_leave_whatever_became_of_the_others(rig: ModuleType) -> None:
    # Each takes 5 s and 20 are due within 0.2 s: a closed loop would never have them all there.
    upstream = rig.FakeVllm(iteration_s=1.0)
    records = played(rig, upstream, short_trace(20, 0.2))
    assert upstream.peak == 20
    assert max(record.lateness_s for record in records) < 5


def test_latencies_are_those_of_the_server(rig: ModuleType) -> None:
    figures = report(played(rig, rig.FakeVllm(iteration_s=0.1), short_trace(5, 0.2)))
    assert (figures.requests, figures.completed, figures.tokens) == (5, 5, 25)
    # Sleeps are never shorter than asked for; on a busy machine they are much longer.
    assert 0.1 <= figures.latencies_s["TTFT"][0] < 5
    assert 0.05 <= figures.latencies_s["TBT"][0] < 5
    assert 0.5 <= figures.latencies_s["E2E"][0] < 15
    assert 0.7 <= figures.duration_s < 20


def test_chunks_of_several_tokens_count_as_such(rig: ModuleType) -> None:
    upstream = rig.FakeVllm(iteration_s=0.12, tokens_per_chunk=4)
    (record,) = played(rig, upstream, short_trace(1, 0.0, output_tokens=12))
    assert record.received_tokens == 12
    assert len(record.gaps_s) == 11  # one per token but the first
    assert record.gaps_s[:3] == [0.0] * 3  # they came with it
    assert 0.15 <= sum(record.gaps_s) < 15  # two further chunks of 0.12 s


def test_lateness_is_the_replayers_own(rig: ModuleType) -> None:
    """A loop that is held up for 0.4 s sends what was due then late, and says so."""

    async def hold_up() -> None:
        import time

        await asyncio.sleep(0.1)
        time.sleep(0.4)

    records: list[ReplayRecord] = []

    async def scene() -> None:
        async with rig.serving(rig.FakeVllm()) as url:
            held = asyncio.create_task(hold_up())
            records[:] = await replay(short_trace(11, 1.0), ReplaySettings(url))
            await held

    late: list[list[float]] = []
    for _ in range(10):  # a busy machine may begin late, and hold it up a second time
        rig.run(scene())
        late.append([round(record.due_s, 1) for record in records if record.lateness_s > 0.1])
        if 0.2 in late[-1] and 0.9 not in late[-1]:
            assert report(records).latencies_s["lateness"][-1] > 0.1
            return
    pytest.fail(f"0.2 s, but not 0.9 s, was to be late in one of ten tries: {late}")


def test_prompts_are_of_token_ids_that_every_model_has_also_the_emulated_one(rig: ModuleType) -> None:
    upstream = rig.FakeVllm()
    played(rig, upstream, short_trace(60))
    ids = [token for asked in upstream.asked for token in asked["prompt"]]
    assert min(ids) >= LOWEST_TOKEN_ID
    assert VOCABULARY // 2 < max(ids) < VOCABULARY <= model_files.VOCABULARY


def test_what_goes_wrong_is_counted_and_the_rest_goes_on(rig: ModuleType) -> None:
    slow = Trace([0.0, 0.0, 0.1], [3, 3, 3], [4000, 2, 2])
    records = played(rig, rig.FakeVllm(iteration_s=0.05), slow, timeout_s=6.0)
    assert [record.completed for record in records] == [False, True, True]
    assert records[0].error == "not complete within 6 s"
    assert 0 < records[0].received_tokens < 4000
    assert report(records).errors == {"status 200: not complete within N s": 1}
    assert record_entry(records[0])["e2e_s"] is None


def test_refusals_are_recorded_with_their_status(rig: ModuleType) -> None:
    records: list[ReplayRecord] = []

    async def scene() -> None:
        async with rig.stage(rig.FakeVllm(iteration_s=0.5), max_running=1, max_queued=0) as stage:
            records.extend(await replay(short_trace(3, 0.0), ReplaySettings(stage.url)))

    rig.run(scene())
    assert sorted(record.status for record in records) == [200, 429, 429]
    assert all("queue is full" in record.error for record in records if record.status == 429)


def test_a_server_that_is_not_there_is_an_error_at_once(rig: ModuleType) -> None:
    with pytest.raises(OSError, match="cannot be reached"):
        rig.run(replay(short_trace(), ReplaySettings("http://127.0.0.1:9")))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"url": "http://203.0.113.5:8000"}, "is another machine"),
        ({"url": "127.0.0.1:8000"}, "expected an address such as"),
        ({"url": "http://localhost:1", "vocabulary": 5}, "vocabulary = 5"),
        ({"url": "http://localhost:1", "timeout_s": 0}, "timeout_s = 0"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ReplaySettings(**settings)


def test_another_machine_is_allowed_on_request() -> None:
    assert ReplaySettings("http://203.0.113.5:8000/v1", allow_remote=True).url == "http://203.0.113.5:8000"
