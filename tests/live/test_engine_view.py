"""Who runs, who waits and what is computed, from the books and from what the engine says."""

from types import ModuleType

import numpy as np
import pytest

from throttllem_env.live.engine_view import EngineView, engine_view
from throttllem_env.live.ledger import Entry, State
from throttllem_env.scenario import EngineConfig
from throttllem_env.serving.reference.scheduler import EngineRequest, Scheduler

BLOCKS = 1000


def entry(number: int, prompt: int | None, generated: int = 0, start_s: float = 1.0) -> Entry:
    return Entry(number, 0.5, prompt, State.RUNNING, "a", generated, start_s)


def view(entries: list[Entry], plant: ModuleType, said_s: float = 2.0, **report: float) -> EngineView:
    return engine_view(entries, plant.Report(said_s, **report), said_s, 16, BLOCKS)


def test_everybody_waits_until_the_engine_has_spoken(plant: ModuleType) -> None:
    shown = engine_view([entry(0, 10), entry(1, 10)], None, -np.inf, 16, BLOCKS)
    assert (len(shown.running), shown.waiting.request_id.tolist(), shown.kv_blocks_used) == (0, [0, 1], 0)


def test_who_was_sent_after_the_engine_spoke_waits_behind_the_others(plant: ModuleType) -> None:
    entries = [entry(0, 10, 3), entry(1, 10), entry(2, 10, start_s=2.5)]
    shown = view(entries, plant, running=1, waiting=1)
    assert (shown.running.request_id.tolist(), shown.waiting.request_id.tolist()) == ([0], [1, 2])


def test_those_sent_last_wait_first_come_first_served(plant: ModuleType) -> None:
    entries = [entry(0, 10, 3), entry(1, 10), entry(2, 10), entry(3, 10)]
    shown = view(entries, plant, running=2, waiting=2)
    assert (shown.running.request_id.tolist(), shown.waiting.request_id.tolist()) == ([0, 1], [2, 3])


def test_a_preempted_request_heads_the_queue_and_has_nothing_computed(plant: ModuleType) -> None:
    entries = [entry(0, 10, 5), entry(1, 10, 4), entry(2, 10)]
    shown = view(entries, plant, running=1, waiting=2)
    assert (shown.running.request_id.tolist(), shown.waiting.request_id.tolist()) == ([0], [1, 2])
    assert shown.waiting.computed_tokens.tolist() == [0, 0]
    assert shown.waiting.generated_tokens.tolist() == [4, 0]


def test_an_engine_that_says_more_than_the_books_know_is_no_matter(plant: ModuleType) -> None:
    shown = view([entry(0, 10, 5)], plant, running=7, waiting=9)
    assert (len(shown.running), shown.waiting.request_id.tolist()) == (0, [0])


@pytest.mark.parametrize(("used", "computed"), [(2, 0), (3, 16), (5, 48), (9, 99), (400, 99)])
def test_blocks_beyond_those_of_decoding_requests_are_the_prompts_(
    plant: ModuleType, used: int, computed: int
) -> None:
    """The first has 19 tokens computed, in two blocks; one token of a prompt is always left."""
    shown = view([entry(0, 10, 10), entry(1, 100)], plant, running=2, kv_usage=used / BLOCKS)
    assert shown.running.computed_tokens.tolist() == [19, computed]
    assert shown.kv_blocks_used == used


def test_a_prompt_that_nobody_has_counted_has_a_token(plant: ModuleType) -> None:
    shown = view([entry(0, None)], plant, running=1, kv_usage=0.01)
    assert (shown.running.prompt_tokens.tolist(), shown.running.computed_tokens.tolist()) == ([1], [0])


def test_it_is_what_the_scheduler_has_at_every_boundary(plant: ModuleType) -> None:
    """vLLM's rules, played through with chunks, a queue and preemptions: within a block of the truth."""
    rng = np.random.default_rng(3)
    engine = EngineConfig(max_num_batched_tokens=64, max_num_seqs=8, max_model_len=512)
    scheduler = Scheduler(engine, 41)
    total = scheduler.total_blocks
    requests = [
        EngineRequest(i, 0.0, int(rng.integers(20, 200)), int(rng.integers(5, 60))) for i in range(30)
    ]
    for request in requests:
        scheduler.add(request)
    seen_prefill = seen_preempted = 0
    while scheduler.running or scheduler.waiting:
        plan = scheduler.plan()
        scheduler.complete(plan)
        alive = [r for r in requests if not r.finished]
        entries = [entry(r.request_id, r.prompt_tokens, r.generated) for r in alive]
        used = (total - scheduler.free_blocks) / total
        report = plant.Report(2.0, len(scheduler.running), len(scheduler.waiting), used)
        shown = engine_view(entries, report, 2.0, engine.block_size, total)
        assert shown.kv_blocks_used == total - scheduler.free_blocks
        preempted = [r for r in scheduler.waiting if r.generated]
        seen_preempted += len(preempted)
        if sorted(r.request_id for r in scheduler.running) != sorted(shown.running.request_id.tolist()):
            assert preempted  # which of several was preempted nobody says
            continue
        truth = {r.request_id: r for r in scheduler.running}
        rows = zip(shown.running.request_id.tolist(), shown.running.computed_tokens.tolist(), strict=True)
        for number, computed in rows:
            if any(r.generated and r.computed < r.prompt_tokens + r.generated - 1 for r in truth.values()):
                continue  # recomputing after a preemption
            seen_prefill += 0 < truth[number].computed < truth[number].prompt_tokens
            assert abs(computed - truth[number].computed) <= engine.block_size
    assert seen_prefill
