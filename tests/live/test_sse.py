"""Streams are cut, counted and shown as the client asked, wherever the network cuts them."""

from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from throttllem_env.live.sse import EventSplitter, StreamMeter, without_usage

CONTINUOUS = {"include_usage": True, "continuous_usage_stats": True}


@given(st.data())
def test_events_survive_any_cut(data: st.DataObject) -> None:
    events = data.draw(st.lists(st.sampled_from([b"data: a\n\n", b": ping\r\n\r\n", b"data: \xc3\xa9\n\n"])))
    stream, got, splitter = b"".join(events), [], EventSplitter()
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        got += list(splitter.feed(stream[:size]))
        stream = stream[size:]
    assert got == events


@pytest.mark.parametrize("chat", [False, True])
@pytest.mark.parametrize("tokens_per_chunk", [1, 3])
@pytest.mark.parametrize("options", [None, {"include_usage": True}, CONTINUOUS], ids=["none", "end", "all"])
def test_the_client_sees_what_it_would_have_seen(
    rig: ModuleType, options: dict[str, bool] | None, tokens_per_chunk: int, chat: bool
) -> None:
    asked = {"max_tokens": 8} | ({"messages": []} if chat else {"prompt": [1, 2]})
    wanted = rig.events(asked | ({"stream_options": options} if options else {}), tokens_per_chunk)
    meter = StreamMeter(shows_usage=options is not None, shows_continuous=options == CONTINUOUS)
    sent = rig.events(asked | {"stream_options": CONTINUOUS}, tokens_per_chunk)
    assert b"".join(meter.read(event) for event in sent) == b"".join(wanted)
    assert (meter.generated_tokens, meter.done, meter.failed) == (8, True, False)
    assert meter.prompt_tokens == 2


def test_an_end_that_nothing_follows_is_not_lost(rig: ModuleType) -> None:
    """Servers that send no usage chunk: the end of a choice comes with whatever follows it."""
    end = {"choices": [{"index": 0, "text": "", "finish_reason": "stop"}]}
    meter = StreamMeter(shows_usage=False, shows_continuous=False)
    assert meter.read(rig.sse(end | {"usage": rig.usage(1, 1)})) == b""
    assert meter.read(b": ping\n\n") == rig.sse(end) + b": ping\n\n"
    assert meter.read(b"data: [DONE]\n\n") == b"data: [DONE]\n\n"


def test_choices_are_counted_apart(rig: ModuleType) -> None:
    meter = StreamMeter(shows_usage=False, shows_continuous=False)
    for index, tokens in ((0, 1), (1, 1), (0, 2), (1, 5)):
        usage = rig.usage(3, tokens)
        meter.read(rig.sse({"choices": [{"index": index, "text": ""}], "usage": usage}))
    assert meter.generated_tokens == 7


@pytest.mark.parametrize(
    "payload",
    [
        {"error": {"message": "out of memory"}},
        {"choices": [{"index": 0, "text": "", "finish_reason": "abort"}]},
    ],
)
def test_an_upstream_that_gives_up_is_noticed(rig: ModuleType, payload: dict[str, object]) -> None:
    meter = StreamMeter(shows_usage=False, shows_continuous=False)
    event = rig.sse(payload)
    assert meter.read(event) == event
    assert meter.failed


@pytest.mark.parametrize("event", [b": ping\n\n", b"event: x\n\n", b"data: no json\n\n", b"data: [1]\n\n"])
def test_what_is_not_understood_passes(event: bytes) -> None:
    assert StreamMeter(shows_usage=False, shows_continuous=False).read(event) == event


def test_usage_is_taken_out_of_other_ways_of_writing_too() -> None:
    event, payload = b'data: {"usage": {"a": 1}, "b": "\xc3\xa9"}\n\n', {"usage": {"a": 1}, "b": "é"}
    assert without_usage(event, payload) == 'data: {"b":"é"}\n\n'.encode()
