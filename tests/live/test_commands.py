"""`throttllem serve` and `throttllem replay`, as processes."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from throttllem_env.live.settings import GatewaySettings

LIMIT_S = 300
"""No wait here is longer: on a busy machine, starting a command alone takes many seconds."""


@contextmanager
def upstream_thread(rig: ModuleType, upstream: Any) -> Iterator[str]:
    """An upstream in a thread of its own, since the commands block this one."""
    import asyncio

    loop, ready, address = asyncio.new_event_loop(), threading.Event(), []
    stop = asyncio.Event()

    async def live() -> None:
        async with rig.serving(upstream) as url:
            address.append(url)
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(live()))
    thread.start()
    try:
        assert ready.wait(LIMIT_S)
        yield address[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(LIMIT_S)
        loop.close()


@contextmanager
def serve_process(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The gateway as a process, and its address."""
    command = [sys.executable, "-m", "throttllem_env", "serve", "--port", "0", *arguments]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    watchdog = threading.Timer(LIMIT_S, process.kill)
    watchdog.start()
    try:
        assert process.stderr is not None
        while not (found := re.search(r"serving (http://[\d.:]+)/v1", line := process.stderr.readline())):
            assert line, "it ended before it served"
        yield process, found.group(1)
    finally:
        watchdog.cancel()
        process.kill()
        process.communicate()


def throttllem(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "throttllem_env", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, cwd=folder, check=False)


def test_a_trace_through_the_gateway(rig: ModuleType, tmp_path: Path) -> None:
    upstream, key = rig.FakeVllm(iteration_s=0.002), tmp_path / "key.txt"
    key.write_text("secret\n")
    with (
        upstream_thread(rig, upstream) as upstream_url,
        serve_process("--upstream", upstream_url, "--api-key-file", str(key)) as (process, url),
    ):
        replayed = ["replay", "--url", url, "--trace", "poisson:rate_rps=20", "--duration", "1"]
        done = throttllem(*replayed, "--api-key-file", str(key), "--json", "o/r.json", folder=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "lateness" in done.stdout
        document = json.loads((tmp_path / "o/r.json").read_text())
        figures = document["figures"]
        assert figures["completed"] == figures["requests"] == len(upstream.asked) == len(document["requests"])
        refused = throttllem(*replayed, folder=tmp_path)
        assert (refused.returncode, "status 401" in refused.stderr) == (1, True)
        process.send_signal(signal.SIGTERM)
        assert process.wait(LIMIT_S) == 0
        assert process.stderr is not None
        assert "stopped: 0 requests were cut off" in process.stderr.read()


@pytest.mark.parametrize("signals", [[signal.SIGTERM], [signal.SIGINT, signal.SIGINT]], ids=["once", "twice"])
def test_a_stop_is_bounded(rig: ModuleType, signals: list[signal.Signals]) -> None:
    import asyncio

    drain_s = "0.3" if len(signals) == 1 else "1000"

    async def client(url: str, process: subprocess.Popen[str]) -> None:
        from aiohttp import ClientSession

        async with ClientSession() as session:
            asked = rig.request_body(max_tokens=100_000)
            async with session.post(url + "/v1/completions", json=asked) as reply:
                await reply.content.readuntil(b"\n\n")
                process.send_signal(signals[0])
                # Two signals at once may be taken for one: the second follows when the first was heard.
                assert process.stderr is not None
                assert "stopping" in await asyncio.to_thread(process.stderr.readline)
                for number in signals[1:]:
                    process.send_signal(number)
                assert b"the gateway was stopped" in await reply.read()

    with (
        upstream_thread(rig, rig.FakeVllm(iteration_s=0.01)) as upstream_url,
        serve_process("--upstream", upstream_url, "--drain", drain_s) as (process, url),
    ):
        rig.run(client(url, process))
        assert process.wait(LIMIT_S) == 0


def test_a_signal_switches_to_the_other_upstream(rig: ModuleType, tmp_path: Path) -> None:
    first, second = rig.FakeVllm(), rig.FakeVllm()
    replayed = ["replay", "--trace", "poisson:rate_rps=20", "--duration", "0.5", "--url"]
    with (
        upstream_thread(rig, first) as one,
        upstream_thread(rig, second) as two,
        serve_process("--upstream", f"{one},{two}") as (process, url),
    ):
        process.send_signal(signal.SIGUSR1)
        assert process.stderr is not None
        assert two in process.stderr.readline()
        assert throttllem(*replayed, url, folder=tmp_path).returncode == 0
    assert (len(first.asked), len(second.asked) > 0) == (0, True)


def test_a_port_that_is_taken_is_said(rig: ModuleType, tmp_path: Path) -> None:
    with upstream_thread(rig, rig.FakeVllm()) as url:
        port = url.rsplit(":", 1)[1]
        done = throttllem("serve", "--upstream", "http://127.0.0.1:9", "--port", port, folder=tmp_path)
    assert done.returncode == 1
    assert "address already in use" in done.stderr


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"upstreams": ("http://a:1", "http://a:1/v1")}, "expected at most two different"),
        ({"api_key": ""}, "api_key is empty"),
        ({"max_running": 0}, "max_running = 0: expected at least 1"),
        ({"request_timeout_s": float("nan")}, "request_timeout_s = nan"),
        ({"drain_s": -1}, "drain_s = -1"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        GatewaySettings(**({"upstreams": ("http://127.0.0.1:1",)} | settings))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "model is missing: name the weights to serve, or emulate"),
        (["--upstream", " , "], "upstream is empty"),
        (["--upstream", "http://127.0.0.1:9", "--emulate"], "--emulate does not go with --upstream"),
        (["--upstream", "http://127.0.0.1:9", "--gpus", "nvml"], "--gpus does not go with --upstream"),
        (["--emulate", "--gpus", "amd"], "gpus = 'amd': unknown"),
        (["--model", "m", "--gpus", "emulated"], "only emulated servers run on those"),
        (["--emulate", "--server-user", "nobody"], "server_user = 'nobody': emulated servers write our"),
        (["--model", "m", "--server-user", "no such one"], "user = 'no such one': there is no such user"),
        (["--upstream", "http://127.0.0.1:9", "--server-user", "nobody"], "--server-user does not go with"),
        (["--emulate", "--restore-mhz", "210"], "expected two clocks such as 210,1410"),
        (["--emulate", "--agent", "nobody"], "agent = 'nobody': unknown"),
        (["--emulate", "--watchdog", "bound=2"], "watchdog: bound = 2"),
        (["--emulate", "--scenario", "none"], "scenario = 'none': unknown"),
    ],
)
def test_what_cannot_be_served_is_said_before_anything_starts(
    options: list[str], words: str, tmp_path: Path
) -> None:
    done = throttllem("serve", *options, folder=tmp_path)
    assert done.returncode == 2, done.stderr
    assert words in done.stderr


def test_no_process_is_left() -> None:
    """Whatever these tests started has ended: no child of this process lives."""
    children = subprocess.run(
        ["ps", "-o", "args=", "--ppid", str(os.getpid())], capture_output=True, text=True, check=False
    )
    assert "throttllem_env serve" not in children.stdout
