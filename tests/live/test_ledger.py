"""The books hold what a live server can know, and nothing of unfinished outputs."""

from typing import Any

import pytest

from throttllem_env.live.ledger import Entry, Ledger, State


class Clock:
    """Time as the test says."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ledger(clock: Clock) -> Ledger:
    return Ledger(clock)


def served(ledger: Ledger, clock: Clock, gaps_s: list[float], prompt_tokens: int = 10) -> Entry:
    """A request whose tokens come after these gaps."""
    entry = ledger.arrive(prompt_tokens)
    ledger.start(entry, "a")
    for generated, gap_s in enumerate(gaps_s, start=1):
        clock.now_s += gap_s
        ledger.count(entry, generated)
    return entry


def test_tables_say_where_requests_stand(ledger: Ledger, clock: Clock) -> None:
    running = served(ledger, clock, [1.0, 0.5])
    clock.now_s += 1
    ledger.arrive(7)
    table, queue = ledger.running_table(), ledger.queue_table()
    assert (table.request_id.tolist(), queue.request_id.tolist()) == ([0], [1])
    assert (table.arrival_s.tolist(), queue.arrival_s.tolist()) == ([0.0], [2.5])
    assert (table.generated_tokens.tolist(), queue.generated_tokens.tolist()) == ([2], [0])
    # As in the simulators: the last token's KV is not stored yet.
    assert (table.computed_tokens.tolist(), queue.computed_tokens.tolist()) == ([11], [0])
    assert running.state is State.RUNNING


def test_running_requests_stand_in_the_order_in_which_they_were_sent(ledger: Ledger) -> None:
    first, second = ledger.arrive(1), ledger.arrive(2)
    ledger.start(second, "a")
    ledger.start(first, "b")
    assert ledger.running_table().request_id.tolist() == [1, 0]
    assert ledger.running_table("b").request_id.tolist() == [0]


def test_finished_requests_end_with_their_last_token(ledger: Ledger, clock: Clock) -> None:
    entry = served(ledger, clock, [1.0, 0.5, 0.5])
    clock.now_s += 0.25  # the end of the stream comes later than its last token
    ledger.end(entry, State.FINISHED)
    (finished,) = ledger.take_news().finished
    assert (finished.arrival_s, finished.first_token_s, finished.finish_s) == (0.0, 1.0, 2.0)
    assert (finished.prompt_tokens, finished.generated_tokens) == (10, 3)
    assert not len(ledger.running_table())


def test_mean_time_between_tokens_is_weighted_by_tokens(ledger: Ledger, clock: Clock) -> None:
    entry = served(ledger, clock, [1.0, 0.1])
    clock.now_s += 0.9
    ledger.count(entry, 5)  # three tokens in one chunk
    news = ledger.take_news()
    assert news.tokens_generated == 5
    assert news.tbt_mean_s == pytest.approx((0.1 + 0.9) / 4)


def test_news_are_told_once(ledger: Ledger, clock: Clock) -> None:
    ledger.end(served(ledger, clock, [1.0]), State.FINISHED)
    ledger.end(ledger.arrive(1), State.REJECTED)
    with ledger.closing(ledger.arrive(1)):
        pass
    first = ledger.take_news()
    clock.now_s += 5
    second = ledger.take_news()
    assert (first.arrived, len(first.finished), first.rejected, first.aborted) == (3, 1, 1, 1)
    assert (second.arrived, second.finished, second.tokens_generated, second.tbt_mean_s) == (0, (), 0, 0.0)
    assert second.since_s == 1.0


def test_arrivals_are_forgotten_after_thirty_seconds(ledger: Ledger, clock: Clock) -> None:
    for _ in range(40):
        clock.now_s += 1
        ledger.arrive(100)
    recent = ledger.recent()
    assert (recent.window_s, recent.requests, recent.prompt_tokens) == (30.0, 30, 3000)
    assert recent.request_rate_rps == 1.0


def test_a_text_prompt_counts_once_the_upstream_has_counted_it(ledger: Ledger, clock: Clock) -> None:
    entry = ledger.arrive(None)
    ledger.start(entry, "a")
    assert ledger.recent().prompt_tokens == 0
    ledger.count(entry, 1, prompt_tokens=42)
    assert ledger.recent().prompt_tokens == 42
    assert ledger.running_table().computed_tokens.tolist() == [42]


def test_a_count_never_goes_back(ledger: Ledger, clock: Clock) -> None:
    entry = served(ledger, clock, [1.0, 1.0, 1.0])
    ledger.count(entry, 2)
    assert entry.generated_tokens == 3
    assert ledger.take_news().tokens_generated == 3


def test_observers_hear_of_tokens_and_ends(clock: Clock) -> None:
    heard: list[Any] = []

    class Listener:
        def on_tokens(self, entry: Entry, tokens: int, gap_s: float | None) -> None:
            heard.append((tokens, gap_s))

        def on_end(self, entry: Entry) -> None:
            heard.append(entry.state)

    ledger = Ledger(clock, Listener())
    ledger.end(served(ledger, clock, [1.0, 0.5]), State.FINISHED)
    assert heard == [(1, None), (1, 0.5), State.FINISHED]


def test_news_may_be_looked_at_without_being_taken(ledger: Ledger, clock: Clock) -> None:
    served(ledger, clock, [1.0])
    assert ledger.news() == ledger.news() == ledger.take_news()
    assert ledger.news().arrived == 0


def test_arrivals_and_ends_are_events_and_tokens_are_not(ledger: Ledger, clock: Clock) -> None:
    events: list[float] = []
    ledger.on_event = lambda: events.append(clock.now_s)
    entry = served(ledger, clock, [1.0, 1.0])
    assert events == [100.0]
    ledger.end(entry, State.FINISHED)
    assert events == [100.0, 102.0]


def test_a_trace_that_is_played_brings_its_own_numbers(ledger: Ledger) -> None:
    ids = [ledger.arrive(1, number).request_id for number in (4, 2, None)]
    assert ids == [4, 2, 5]
