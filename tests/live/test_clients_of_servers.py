"""Clients before `throttllem serve` with vLLM on emulated GPUs: those that people have, and those that err.

One service serves them all, which is started with a key; the last test takes its engine away.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, ClientTimeout, TCPConnector

from throttllem_env.evaluation.full_stack.service import PATIENCE_S, Service
from throttllem_env.live.files import allow_many_files
from throttllem_env.live.gpus_of import emulated_gpus
from throttllem_env.scenario import load_scenario
from throttllem_env.serving.vllm.model_files import write_config, write_tokenizer

pytestmark = pytest.mark.live

KEY = "secret-of-the-test"
MODEL = load_scenario("llama2-13b-a100").model
MAX_LEN = load_scenario("llama2-13b-a100").engine.max_model_len
COMPLETIONS = "/v1/completions"


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    """A service at the top clock; it is told to stop in the end, and leaves nothing."""
    with tempfile.TemporaryDirectory(prefix="clients-") as name:
        folder = Path(name)
        (folder / "key").write_text(KEY)
        path = emulated_gpus(folder / "gpus", load_scenario("llama2-13b-a100"))
        options = ["--agent", "max-frequency", "--api-key-file", str(folder / "key")]
        with Service(path, folder / "logs", options) as started:
            started.await_serving()
            yield started
            started.process.send_signal(signal.SIGINT)
            assert started.process.wait(PATIENCE_S) == 0, "".join(started.lines[-20:])
            started.wait(lambda: not started.left(), "no process is left", alive=False)


@pytest.fixture
def call(service: Service) -> Any:
    """Runs a scene with a session of a client that has the key."""

    def called(scene: Any) -> Any:
        async def whole() -> Any:
            async with ClientSession(
                service.url,
                headers={"Authorization": f"Bearer {KEY}"},
                connector=TCPConnector(limit=0),
                timeout=ClientTimeout(total=PATIENCE_S),
            ) as session:
                return await scene(session)

        return asyncio.run(whole())

    return called


def body(**more: Any) -> dict[str, Any]:
    """A request that ends at its length."""
    return {"model": MODEL, "prompt": [5, 6, 7], "max_tokens": 4, "ignore_eos": True} | more


async def streamed(session: ClientSession, **more: Any) -> list[dict[str, Any]]:
    """The events of a stream that ends as it should."""
    asked = body(stream=True, stream_options={"include_usage": True}, **more)
    async with session.post(COMPLETIONS, json=asked) as reply:
        assert reply.status == 200, await reply.text()
        lines = (await reply.read()).decode().split("\n\n")
    assert lines[-2:] == ["data: [DONE]", ""]
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-2]]


def test_openais_client_works_unchanged(service: Service) -> None:
    openai = pytest.importorskip("openai")
    client = openai.OpenAI(base_url=f"{service.url}/v1", api_key=KEY, timeout=PATIENCE_S, max_retries=0)
    assert [model.id for model in client.models.list()] == [MODEL]
    more = {"ignore_eos": True}
    whole = client.completions.create(model=MODEL, prompt="t4 t5 t6", max_tokens=9, extra_body=more)
    assert (whole.usage.prompt_tokens, whole.usage.completion_tokens) == (3, 9)
    messages = [{"role": "user", "content": "t8 t9"}]
    chunks = list(
        client.chat.completions.create(
            model=MODEL,
            messages=messages,
            max_tokens=7,
            stream=True,
            stream_options={"include_usage": True},
            extra_body=more,
        )
    )
    assert chunks[-1].usage.completion_tokens == 7
    assert len("".join(c.choices[0].delta.content or "" for c in chunks[:-1]).split()) == 7
    with pytest.raises(openai.BadRequestError, match="maximum context length"):
        client.completions.create(model=MODEL, prompt=[7] * (MAX_LEN + 1), max_tokens=1)
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=f"{service.url}/v1", api_key="wrong", max_retries=0).models.list()


BENCH = """
import argparse
from vllm.benchmarks.serve import add_cli_args, main
parser = argparse.ArgumentParser()
add_cli_args(parser)
main(parser.parse_args())
"""


def test_vllms_own_benchmark_works_unchanged(service: Service, tmp_path: Path) -> None:
    write_config(tmp_path, MAX_LEN)
    write_tokenizer(tmp_path, MAX_LEN)
    asked = {
        "backend": "openai",
        "base-url": service.url,
        "model": MODEL,
        "tokenizer": tmp_path,
        "dataset-name": "random",
        "random-input-len": 40,
        "random-output-len": 12,
        "num-prompts": 20,
        "request-rate": 10,
        "result-filename": tmp_path / "result.json",
    }
    flags = [f"--{name}={value}" for name, value in asked.items()]
    ended = subprocess.run(
        [sys.executable, "-c", BENCH, *flags, "--ignore-eos", "--save-result", "--disable-tqdm"],
        env=os.environ | {"OPENAI_API_KEY": KEY, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    result = json.loads((tmp_path / "result.json").read_text())
    assert (result["completed"], result["total_output_tokens"]) == (20, 240)


def test_who_errs_is_told_and_others_are_served(service: Service, call: Any) -> None:
    async def scene(session: ClientSession) -> None:
        for data, headers, status in (
            (b"{no json", {}, 400),
            (json.dumps(body(prompt=[7] * MAX_LEN)).encode(), {}, 400),
            (json.dumps(body()).encode(), {"Authorization": "Bearer wrong"}, 401),
        ):
            async with session.post(COMPLETIONS, data=data, headers=headers) as reply:
                assert reply.status == status
                assert (await reply.json())["error"]["message"]
        assert (await streamed(session))[-1]["usage"]["completion_tokens"] == 4

    call(scene)


def test_a_client_that_leaves_frees_the_engine(service: Service, call: Any) -> None:
    aborted = 'throttllem_requests_total{outcome="aborted"}'
    before = service.metrics().get(aborted, 0.0)

    async def scene(session: ClientSession) -> None:
        async with session.post(COMPLETIONS, json=body(stream=True, max_tokens=MAX_LEN - 10)) as reply:
            await reply.content.readuntil(b"\n\n")

    call(scene)
    service.wait(lambda: service.metrics().get(aborted) == before + 1, "the abort is booked")
    service.wait(lambda: service.metrics()["throttllem_batch"] == 0, "the engine has dropped it")


def test_a_thousand_clients_at_once_get_what_they_asked_for(service: Service, call: Any) -> None:
    async def scene(session: ClientSession) -> list[int]:
        lengths = [1 + number % 3 for number in range(1000)]
        streams = await asyncio.gather(*(streamed(session, max_tokens=length) for length in lengths))
        assert [events[-1]["usage"]["completion_tokens"] for events in streams] == lengths
        return lengths

    allow_many_files()
    before = service.metrics()
    lengths = call(scene)
    name, tokens = 'throttllem_requests_total{outcome="finished"}', "throttllem_generated_tokens_total"
    # A client may have its last word a moment before that is booked.
    service.wait(
        lambda: service.metrics().get(name, 0.0) - before.get(name, 0.0) >= 1000, "all ends are booked"
    )
    after = service.metrics()
    assert after[name] - before.get(name, 0.0) == 1000
    assert after[tokens] - before[tokens] == sum(lengths)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_streams_of_an_engine_that_is_gone_or_stuck_are_told_and_the_service_recovers(
    service: Service, call: Any, number: signal.Signals
) -> None:
    name = "throttllem_servers_lost_total"
    lost = service.metrics()[name]

    async def scene(session: ClientSession) -> None:
        async with session.post(COMPLETIONS, json=body(stream=True, max_tokens=MAX_LEN - 10)) as reply:
            await reply.content.readuntil(b"\n\n")
            service.wait(lambda: len(cores(service)) == 1, "only the active server's engine is there")
            os.kill(cores(service)[0], number)
            told = time.monotonic()
            rest = await reply.read()
            assert b'"error"' in rest  # the gateway's, or vLLM's own if it notices before
            assert b'"finish_reason":"length"' not in rest
            assert time.monotonic() - told < PATIENCE_S / 2
        # Until then vLLM itself answers, with an error.
        service.wait(lambda: service.metrics()[name] == lost + 1, "the server is given up")
        waiting = await streamed(session)  # until the next server is there
        assert waiting[-1]["usage"]["completion_tokens"] == 4

    call(scene)
    assert service.metrics()[name] == lost + 1


def cores(service: Service) -> list[int]:
    """Engine cores of its servers."""
    return [pid for pid in service.left() if named(pid).startswith("VLLM::Engine")]


def named(pid: int) -> str:
    """A process's name; empty once it has ended."""
    try:
        return Path(f"/proc/{pid}/comm").read_text()
    except OSError:
        return ""
