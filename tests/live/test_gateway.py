"""What passes the gateway, and what does not."""

import asyncio
import json
from contextlib import AsyncExitStack
from types import ModuleType
from typing import Any

import pytest

from throttllem_env.live.gateway import Gateway
from throttllem_env.live.ledger import Entry, Ledger
from throttllem_env.live.settings import GatewaySettings

MESSAGES = [{"role": "user", "content": "hello there"}]
USAGE_ASKED = {"include_usage": True, "continuous_usage_stats": True}


@pytest.mark.parametrize("body", [{}, {"messages": MESSAGES}], ids=["completions", "chat"])
@pytest.mark.parametrize("options", [None, {"include_usage": True}, USAGE_ASKED], ids=["none", "end", "all"])
def test_streams_pass_byte_for_byte(
    rig: ModuleType, body: dict[str, Any], options: dict[str, bool] | None
) -> None:
    path = "/v1/chat/completions" if body else "/v1/completions"
    asked = body | {"max_tokens": 12, "stream_options": options}

    async def scene() -> None:
        async with rig.stage(rig.FakeVllm(tokens_per_chunk=2)) as stage:
            direct = await stage.post(path, url=stage.upstream_urls[0], **asked)
            through = await stage.post(path, **asked)
            assert through[:2] == direct[:2]
            assert through[2]["Content-Type"] == direct[2]["Content-Type"]
            (finished,) = stage.gateway.ledger.take_news().finished
            assert finished.generated_tokens == 12
            assert finished.prompt_tokens == (2 if body else 3)

    rig.run(scene())


def test_tokens_pass_when_they_come(rig: ModuleType) -> None:
    async def scene() -> None:
        async with rig.stage(rig.FakeVllm(iteration_s=0.1)) as stage:
            asked = stage.session.post(stage.url + "/v1/completions", json=rig.request_body(max_tokens=8))
            async with asked as reply:
                await reply.content.readuntil(b"\n\n")
                (running,) = stage.gateway.ledger.running_table().generated_tokens
                assert running < 8, "the gateway held tokens back"
                await reply.read()

    rig.run(scene())


def test_whole_answers_pass_and_are_counted(rig: ModuleType) -> None:
    async def scene() -> None:
        async with rig.stage() as stage:
            asked = {"stream": None, "prompt": "four words of text", "max_tokens": 6}
            direct = await stage.post(url=stage.upstream_urls[0], **asked)
            through = await stage.post(**asked)
            assert through[:2] == direct[:2]
            (finished,) = stage.gateway.ledger.take_news().finished
            assert (finished.prompt_tokens, finished.generated_tokens) == (4, 6)

    rig.run(scene())


def test_errors_of_the_upstream_pass_with_their_status(rig: ModuleType) -> None:
    async def scene() -> None:
        async with rig.stage() as stage:
            for stream in (True, None):
                direct = await stage.post(url=stage.upstream_urls[0], max_tokens=0, stream=stream)
                through = await stage.post(max_tokens=0, stream=stream)
                assert (through[0], through[1]) == (400, direct[1])
            news = stage.gateway.ledger.take_news()
            assert (news.arrived, news.rejected, news.aborted) == (2, 2, 0)

    rig.run(scene())


def test_models_and_health_are_the_upstreams(rig: ModuleType) -> None:
    async def scene() -> None:
        async with rig.stage() as stage:
            status, body = await stage.get("/v1/models")
            assert (status, json.loads(body)["data"][0]["id"]) == (200, "tiny")
            assert (await stage.get("/health"))[0] == 200
            stage.upstream.healthy = False
            assert (await stage.get("/health"))[0] == 503

    rig.run(scene())


@pytest.mark.parametrize("key", [None, "", "wrong", "secre", "secrett"])
def test_a_wrong_key_gets_401_and_is_not_forwarded(rig: ModuleType, key: str | None) -> None:
    async def scene() -> None:
        async with rig.stage(api_key="secret") as stage:
            status, body, _ = await stage.post(key=key)
            assert (status, json.loads(body)["error"]["code"]) == (401, 401)
            assert (await stage.get("/v1/models", key=key))[0] == 401
            assert not stage.upstream.asked

    rig.run(scene())


def test_the_right_key_opens_and_stays_here(rig: ModuleType) -> None:
    async def scene() -> None:
        async with rig.stage(api_key="secret", upstream_key="inner") as stage:
            assert (await stage.post(key="secret"))[0] == 200
            assert stage.upstream.headers[0]["Authorization"] == "Bearer inner"
        async with rig.stage(api_key="secret") as stage:
            await stage.post(key="secret")
            assert "Authorization" not in stage.upstream.headers[0]
        async with rig.stage() as stage:
            await stage.post(key="the upstream's")
            assert stage.upstream.headers[0]["Authorization"] == "Bearer the upstream's"

    rig.run(scene())


@pytest.mark.parametrize(
    ("data", "status"), [(b"{", 400), (b"[]", 400), (b"[" * 100_000, 400), (b"x" * 300_000, 413)]
)
def test_bad_bodies_get_an_error_of_openais_form(rig: ModuleType, data: bytes, status: int) -> None:
    async def scene() -> None:
        async with rig.stage(max_body_bytes=200_000) as stage:
            async with stage.session.post(stage.url + "/v1/completions", data=data) as reply:
                error = json.loads(await reply.read())["error"]
                assert (reply.status, error["code"]) == (status, status)
            assert not stage.upstream.asked
            assert (await stage.post())[0] == 200, "the next request is served"

    rig.run(scene())


def test_unknown_paths_get_404(rig: ModuleType) -> None:
    async def scene() -> None:
        async with rig.stage() as stage:
            status, body = await stage.get("/v1/nonsense")
            assert (status, json.loads(body)["error"]["code"]) == (404, 404)

    rig.run(scene())


def test_long_prompts_of_token_ids_pass(rig: ModuleType) -> None:
    async def scene() -> None:
        async with rig.stage() as stage:
            assert (await stage.post(prompt=[7] * 100_000))[0] == 200
            assert len(stage.upstream.asked[0]["prompt"]) == 100_000
            assert stage.gateway.ledger.recent().prompt_tokens == 100_000

    rig.run(scene())


def test_a_full_queue_gets_429_and_the_queued_are_served(rig: ModuleType) -> None:
    async def scene() -> None:
        async with rig.stage(rig.FakeVllm(iteration_s=0.05), max_running=2, max_queued=3) as stage:
            done = await asyncio.gather(*(stage.post() for _ in range(8)))
            assert sorted(status for status, _, _ in done) == [200] * 5 + [429] * 3
            assert {headers.get("Retry-After") for status, _, headers in done if status == 429} == {"1"}
            assert stage.upstream.peak == 2
            news = stage.gateway.ledger.take_news()
            assert (news.arrived, len(news.finished), news.rejected) == (8, 5, 3)

    rig.run(scene())


def test_an_answer_that_takes_too_long_is_cut_and_aborted(rig: ModuleType) -> None:
    async def begun() -> bool:
        async with rig.stage(rig.FakeVllm(iteration_s=0.1), request_timeout_s=3.0) as stage:
            asked = (stage.post(max_tokens=5000, stream=stream) for stream in (True, None))
            (status, body, _), whole = await asyncio.gather(*asked)
            if status != 200:
                return False
            assert b"longer than the gateway allows" in body
            assert not body.endswith(b"data: [DONE]\n\n")
            assert whole[0] == 504
            await rig.eventually(lambda: stage.upstream.aborted == 2, "both are aborted upstream")
            assert stage.gateway.ledger.take_news().aborted == 2
            return True

    async def scene() -> None:
        for _ in range(10):  # a machine that stands still for seconds may cut it before it has begun
            if await begun():
                return
        pytest.fail("it was cut before it had begun in ten tries")

    rig.run(scene())


def test_the_hook_decides_who_waits(rig: ModuleType) -> None:
    seen: list[tuple[int, int]] = []

    def one_at_a_time(ledger: Ledger, head: Entry) -> bool:
        seen.append((head.request_id, ledger.running))
        return ledger.running == 0

    async def scene() -> None:
        async with rig.stage(rig.FakeVllm(iteration_s=0.01), admit=one_at_a_time) as stage:
            done = await asyncio.gather(*(stage.post() for _ in range(5)))
            assert [status for status, _, _ in done] == [200] * 5
            assert stage.upstream.peak == 1

    rig.run(scene())
    assert {running for _, running in seen} == {0, 1}, "it is asked about everybody, the first one too"


def test_a_client_that_leaves_aborts_its_request(rig: ModuleType) -> None:
    async def scene() -> None:
        async with rig.stage(rig.FakeVllm(iteration_s=0.02)) as stage:
            asked = stage.session.post(stage.url + "/v1/completions", json=rig.request_body(max_tokens=5000))
            async with asked as reply:
                await reply.content.readuntil(b"\n\n")
                reply.close()
            await rig.eventually(lambda: stage.upstream.aborted == 1, "the upstream notices")
            await rig.eventually(lambda: stage.gateway.ledger.running == 0, "the books are closed")
            assert stage.gateway.ledger.take_news().aborted == 1
            assert (await stage.post())[0] == 200

    rig.run(scene())


def test_a_client_that_leaves_the_queue_makes_room(rig: ModuleType) -> None:
    async def scene() -> None:
        async with rig.stage(rig.FakeVllm(iteration_s=0.05), max_running=1, max_queued=1) as stage:
            first = asyncio.create_task(stage.post(max_tokens=60))
            await rig.eventually(lambda: stage.gateway.ledger.running == 1, "the first runs")
            queued = asyncio.create_task(stage.post())
            await rig.eventually(lambda: stage.gateway.ledger.queued == 1, "the second waits")
            queued.cancel()
            await rig.eventually(lambda: stage.gateway.ledger.queued == 0, "the second has left")
            assert [(await task)[0] for task in (first, asyncio.create_task(stage.post()))] == [200, 200]
            assert len(stage.upstream.asked) == 2

    rig.run(scene())


def test_a_death_in_the_middle_is_told_and_others_are_served(rig: ModuleType) -> None:
    async def scene() -> None:
        async with rig.stage(rig.FakeVllm(iteration_s=0.01)) as stage:
            other = asyncio.create_task(stage.post(max_tokens=50))
            await rig.eventually(lambda: stage.upstream.running == 1, "another is served")
            status, body, _ = await stage.post(dies_after=2)
            *tokens, told = body.decode().strip().split("\n\n")
            assert status == 200
            assert json.loads(told.removeprefix("data: "))["error"]["code"] == 502
            assert b"[DONE]" not in body
            assert "w0" in tokens[0]
            whole = (await other)[1]
            assert whole == b"".join(rig.events({"max_tokens": 50, "prompt": []}))
            news = stage.gateway.ledger.take_news()
            assert (len(news.finished), news.aborted) == (1, 1)

    rig.run(scene())


def test_an_error_that_vllm_streams_passes_and_is_no_success(rig: ModuleType) -> None:
    async def scene() -> None:
        async with rig.stage() as stage:
            _, body, _ = await stage.post(dies_after=1, fails_with="engine core died")
            assert b"engine core died" in body
            assert stage.gateway.ledger.take_news().aborted == 1

    rig.run(scene())


def test_an_upstream_that_is_not_there_gets_502(rig: ModuleType) -> None:
    async def scene() -> None:
        async with rig.stage() as stage:
            await stage.close_upstreams()
            assert (await stage.post())[0] == 502
            assert (await stage.get("/health"))[0] == 503
            assert stage.gateway.ledger.take_news().aborted == 1

    rig.run(scene())


def test_two_hundred_streams_at_once(rig: ModuleType) -> None:
    async def scene() -> None:
        async with rig.stage(rig.FakeVllm(iteration_s=0.05, gathers=200)) as stage:
            done = await asyncio.gather(*(stage.post(max_tokens=10 + i % 7) for i in range(200)))
            for i, (status, body, _) in enumerate(done):
                assert status == 200
                assert body == b"".join(rig.events({"max_tokens": 10 + i % 7, "prompt": []}))
            news = stage.gateway.ledger.take_news()
            assert news.tokens_generated == sum(10 + i % 7 for i in range(200))
            assert stage.upstream.peak == 200

    rig.run(scene())


def test_a_switch_under_load_loses_nothing(rig: ModuleType) -> None:
    async def scene() -> None:
        old, new = rig.FakeVllm(iteration_s=0.02), rig.FakeVllm(iteration_s=0.02)
        async with rig.stage(old, new) as stage:
            running = [asyncio.create_task(stage.post(max_tokens=30)) for _ in range(40)]
            await rig.eventually(lambda: old.running == 40, "the old one has them all")
            left = stage.gateway.router.switch(stage.upstream_urls[1])
            later = [asyncio.create_task(stage.post(max_tokens=30)) for _ in range(40)]
            await left.wait_idle()
            assert (old.running, old.completed) == (0, 40)
            wanted = b"".join(rig.events({"max_tokens": 30, "prompt": []}))
            assert [(await task)[1] for task in running + later] == [wanted] * 80
            assert (len(old.asked), len(new.asked), new.completed) == (40, 40, 40)

    rig.run(scene())


def test_clients_of_a_lost_server_are_told_and_the_next_one_serves_the_others(rig: ModuleType) -> None:
    """It may hang, too: nothing breaks off by itself."""

    async def scene() -> None:
        lost, new = rig.FakeVllm(iteration_s=0.05), rig.FakeVllm()
        async with rig.stage(lost, new) as stage:
            long = {"max_tokens": 5000}
            told = [asyncio.create_task(stage.post(**long, stream=stream)) for stream in (True, None)]
            await rig.eventually(lambda: lost.running == 2, "two run")
            books = stage.gateway.ledger
            await rig.eventually(lambda: books.news().tokens_generated > 0, "one streams")
            assert stage.gateway.lose(stage.upstream_urls[0], "server 1 is gone") == 2
            waiting = asyncio.create_task(stage.post())
            answers = [await task for task in told]
            assert [status for status, _, _ in answers] == [200, 502]
            assert all(b"server 1 is gone" in body for _, body, _ in answers)
            assert not answers[0][1].endswith(b"data: [DONE]\n\n")
            assert (await stage.get("/health"))[0] == (await stage.get("/v1/models"))[0] == 503
            assert stage.gateway.ledger.queued == 1
            stage.gateway.router.switch(stage.upstream_urls[1])
            stage.gateway.gate.retry()
            assert (await waiting)[0] == 200
            assert stage.gateway.lose(stage.upstream_urls[0], "again") == 0
            assert stage.gateway.ledger.take_news().aborted == 2

    rig.run(scene())


def test_draining_lets_streams_complete_and_takes_no_more(rig: ModuleType) -> None:
    async def scene() -> None:
        async with rig.stage(rig.FakeVllm(iteration_s=0.05), max_running=2) as stage:
            running = [asyncio.create_task(stage.post(max_tokens=8)) for _ in range(4)]
            await rig.eventually(lambda: stage.gateway.ledger.queued == 2, "two run, two wait")
            draining = asyncio.create_task(stage.gateway.drain())
            await asyncio.sleep(0)
            status, _, headers = await stage.post()
            assert (status, headers["Retry-After"]) == (503, "1")
            assert (await stage.get("/health"))[0] == 503
            assert await draining == 0
            assert [(await task)[0] for task in running] == [200] * 4

    rig.run(scene())


def test_a_drain_is_bounded_and_tells_those_it_cuts_off(rig: ModuleType) -> None:
    async def scene() -> None:
        upstream = rig.FakeVllm(iteration_s=0.02)
        async with rig.stage(upstream, drain_s=0.2, max_running=2) as stage:
            long = {"max_tokens": 5000}
            running = [asyncio.create_task(stage.post(**long, stream=stream)) for stream in (True, None)]
            await rig.eventually(lambda: upstream.running == 2, "two run")
            queued = asyncio.create_task(stage.post(**long))
            await rig.eventually(lambda: stage.gateway.ledger.queued == 1, "one waits")
            assert await stage.gateway.drain() == 3
            told = [await task for task in (*running, queued)]
            assert [status for status, _, _ in told] == [200, 503, 503]
            assert all(b"the gateway was stopped" in body for _, body, _ in told)
            assert not told[0][1].endswith(b"data: [DONE]\n\n")
            await rig.eventually(lambda: upstream.aborted == 2, "the upstream is told")
            assert stage.gateway.ledger.take_news().aborted == 3

    rig.run(scene())


def test_metrics_count_what_passed(rig: ModuleType) -> None:
    now_s = 0.0

    async def scene() -> None:
        nonlocal now_s
        async with AsyncExitStack() as stack:
            url = await stack.enter_async_context(rig.serving(upstream := rig.FakeVllm(iteration_s=0.02)))
            gateway = Gateway(GatewaySettings((url,), port=0, e2e_slo_s=4.0), clock=lambda: now_s)
            stage = await stack.enter_async_context(rig.fronted(gateway, [upstream], [url]))
            await asyncio.gather(*(stage.post(max_tokens=5) for _ in range(3)))
            late = stage.session.post(stage.url + "/v1/completions", json=rig.request_body(max_tokens=45))
            async with late as reply:
                await reply.content.readuntil(b"\n\n")
                now_s += 5
                await reply.read()
            await stage.post(max_tokens=0)
            wanted = {
                'throttllem_requests_total{outcome="finished"}': 4,
                'throttllem_requests_total{outcome="rejected"}': 1,
                "throttllem_generated_tokens_total": 60,
                "throttllem_prompt_tokens_total": 15,
                "throttllem_time_to_first_token_seconds_count": 4,
                "throttllem_time_between_tokens_seconds_count": 56,
                "throttllem_e2e_seconds_count": 4,
                'throttllem_slo_requests_total{result="met"}': 3,
                'throttllem_slo_requests_total{result="missed"}': 2,
                "throttllem_requests_running": 0,
                f'throttllem_upstream_active{{upstream="{stage.upstream_urls[0]}"}}': 1,
            }
            assert {line: await stage.metric(line) for line in wanted} == wanted
            assert await stage.metric("throttllem_sent_bytes_total") > 1000

    rig.run(scene())
