"""Help teaches, wrong input gets one line and status 2."""

import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

Throttllem = Callable[..., Any]

OPTIONS = ["scenario", "trace", "agents", "seeds", "load", "slo-scale", "length-predictor", "control"]
OPTIONS += ["backend", "split", "duration", "jobs", "out"]
COMMANDS = [
    [],
    ["compare"],
    ["trace"],
    ["trace", "describe"],
    ["trace", "generate"],
    ["trace", "fetch"],
    ["scenarios"],
    ["scenarios", "show"],
    ["scenarios", "freeze"],
    ["serve"],
    ["replay"],
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_explains_and_gives_an_example(throttllem: Throttllem, command: list[str]) -> None:
    done = throttllem(*command, "--help")
    assert done.status == 0
    assert f"Usage: {' '.join(['throttllem', *command])}" in done.stdout
    assert "throttllem " in done.stdout.partition("Options")[2] or "Names:" in done.stdout
    assert "[/" not in done.stdout, "markup is shown as it stands"


def test_every_option_of_compare_is_explained(throttllem: Throttllem) -> None:
    text = throttllem("compare", "--help").stdout
    for option in OPTIONS:
        assert f"--{option} " in text


def test_without_a_command_help_is_shown(throttllem: Throttllem) -> None:
    for command in ([], ["trace"]):
        done = throttllem(*command)
        assert done.status == 0
        assert "Usage:" in done.stdout
        assert not done.stderr


def test_version(throttllem: Throttllem) -> None:
    done = throttllem("--version")
    assert (done.status, done.stdout.split()) == (0, ["throttllem-env", version("throttllem-env")])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--nonsense"], "error: throttllem: No such option: --nonsense"),
        (["comprae"], "No such command 'comprae'"),
        (["compare", "--agent", "x"], "error: throttllem compare: No such option: --agent"),
        (["compare", "--load", "high"], "Invalid value for '--load'"),
        (["compare", "--control", "evnts"], "control = 'evnts': unknown; did you mean 'events'? Valid: own"),
        (["compare", "--scenario", "llama3"], "scenario = 'llama3': unknown"),
        (["compare", "--scenario", "gone.yaml"], "gone.yaml: no such scenario file"),
        (["scenarios", "show", "llama2-13b"], "did you mean 'llama2-13b-a100'"),
        (["scenarios", "freeze", "llama2-13b-a100"], "Missing option '--trace'"),
        (["trace", "describe", "azure-conf-like"], "did you mean 'azure-conv-like'"),
        (["trace", "describe", "gone.csv"], "gone.csv: there is no such trace file"),
        (["trace", "generate", "poisson:rate_rps=-1"], "rate_rps = '-1': expected a finite number"),
        (["trace", "generate", "poisson:duration_s=long"], "duration_s = 'long': expected a number"),
        (["trace", "fetch", "azure"], "did you mean 'azure-2023-co"),
        (["profile", "--sizes", "two"], "sizes = 'two': expected whole numbers, separated by commas"),
        (["profile", "--sizes", "3"], "sizes: 3 is not one of llama2-13b-a100"),
        (["profile", "--clocks", "1"], "clocks = 1: accepted: 2 to 81"),
        (["profile", "--backend", "vlm"], "backend = 'vlm': unknown"),
        (["profile", "--scenario", "llama3"], "scenario = 'llama3': unknown"),
        (["serve", "--upstream", "localhost"], "upstreams = 'localhost': expected an address such as"),
        (["serve", "--upstream", "http://a:1", "--host", "0.0.0.0"], "it needs an API key"),
        (["serve", "--upstream", "http://a:1", "--api-key-file", "/dev/null"], "expected one line, the key"),
        (["replay", "--url", "http://192.0.2.1:80"], "is another machine"),
        (["replay", "--url", "http://127.0.0.1:9", "--duration", "0"], "duration = 0"),
        (["replay", "--url", "http://127.0.0.1:9", "--speed", "-1"], "window = (0.0, -60.0)"),
        (["fit"], "Missing argument 'PROFILE'"),
        (["fit", "gone.parquet"], "gone.parquet: there is no such profile; make one with"),
    ],
)
def test_wrong_input_is_one_line_with_status_2(
    throttllem: Throttllem, arguments: list[str], message: str
) -> None:
    done = throttllem(*arguments)
    assert done.status == 2
    assert message in done.stderr
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert not done.stdout


def test_developers_can_see_the_traceback(throttllem: Throttllem, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THROTTLLEM_TRACEBACK", "1")
    with pytest.raises(ValueError, match="unknown"):
        throttllem("scenarios", "show", "nothing")


def test_a_failing_disk_is_status_1(throttllem: Throttllem, tmp_path: Path) -> None:
    done = throttllem("trace", "generate", "poisson:duration_s=10", "--out", tmp_path)
    assert done.status == 1
    assert done.stderr.startswith("error: ")


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from throttllem_env.cli import app\n"
        "try:\n"
        "    app(['compare', '--help'])\n"
        "except SystemExit:\n"
        "    pass\n"
        "heavy = {'pandas', 'pyarrow', 'matplotlib', 'torch', 'numba', 'tensorboard', 'joblib'}\n"
        "sys.exit(sorted(heavy & set(sys.modules)).__repr__() if heavy & set(sys.modules) else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_missing_extra_is_named(throttllem: Throttllem, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    monkeypatch.delitem(sys.modules, "throttllem_env.live.server", raising=False)
    done = throttllem("serve", "--upstream", "http://127.0.0.1:9")
    assert done.status == 2
    assert "pip install 'throttllem-env[serve]'" in done.stderr
