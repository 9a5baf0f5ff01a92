"""`throttllem compare` from end to end, also when it is interrupted."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from throttllem_env.evaluation import compare as module

Throttllem = Callable[..., Any]

TRACE = "poisson:rate_rps=3,duration_s=60"
MAIN = [sys.executable, "-c", "from throttllem_env.cli import main; main()"]


def test_it_prints_a_table_and_writes_everything(
    throttllem: Throttllem, scenario_file: Path, tmp_path: Path
) -> None:
    done = throttllem(
        *("compare", "--scenario", scenario_file, "--trace", TRACE, "--duration", 30, "--out", "out/x"),
        *("--agents", "static-frequency:mhz=990,size=4,throttllem", "--load", 0.8),
    )
    assert done.status == 0, done.stderr
    assert not done.stderr, "progress is for terminals"
    for agent in ("static-frequency:mhz=990,size=4", "throttllem"):
        assert any(line.split()[:1] == [agent] for line in done.stdout.splitlines())
    out = tmp_path / "out" / "x"
    written = [
        Path(line.split()[0]) for line in done.stdout.partition("Wrote:")[2].splitlines() if line.strip()
    ]
    assert all(path.exists() for path in written)
    assert {path.name for path in written} >= {"results.json", "results.md", "latencies.png", "tb"}
    document = json.loads((out / "results.json").read_text(encoding="utf-8"))
    assert document["summary"][0]["agent"] == "static-frequency:mhz=990,size=4"
    assert {entry["load"] for entry in document["runs"]} == {0.8}
    assert document["provenance"]["settings"]["duration_s"] == 30


def test_a_failed_run_is_status_1_and_the_rest_is_written(
    throttllem: Throttllem, scenario_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_one = module.run_one

    def sometimes(settings: Any, scenario: Any, agent: str, *others: Any) -> Any:
        if agent == "throttllem":
            raise ZeroDivisionError("nothing to divide by")
        return run_one(settings, scenario, agent, *others)

    monkeypatch.setattr(module, "run_one", sometimes)
    done = throttllem(
        *("compare", "--scenario", scenario_file, "--trace", TRACE, "--duration", 20, "--out", "out"),
        *("--agents", "max-frequency,throttllem"),
    )
    assert done.status == 1
    assert "throttllem, seed 0 failed: ZeroDivisionError: nothing to divide by" in done.stderr
    assert "max-frequency" in done.stdout
    assert "Failed runs" in (tmp_path / "out" / "results.md").read_text(encoding="utf-8")


def test_given_again_it_runs_only_what_is_missing(throttllem: Throttllem, scenario_file: Path) -> None:
    arguments = ("compare", "--scenario", scenario_file, "--trace", TRACE, "--duration", 10, "--out", "out")
    agent = ("--agents", "max-frequency")
    assert not throttllem(*arguments, *agent).stderr
    more = throttllem(*arguments, *agent, "--seeds", 2)
    assert more.stderr == "continuing: 1 of 2 runs were there\n"
    again = throttllem(*arguments, *agent, "--seeds", 2)
    assert again.stderr == "continuing: 2 of 2 runs were there\n"
    assert again.stdout == more.stdout
    assert not throttllem(*arguments, *agent, "--seeds", 2, "--fresh").stderr


def test_a_folder_that_cannot_be_made_is_refused_at_once(
    throttllem: Throttllem, scenario_file: Path, tmp_path: Path
) -> None:
    (tmp_path / "taken").touch()
    done = throttllem("compare", "--scenario", scenario_file, "--out", tmp_path / "taken" / "out")
    assert done.status == 2
    assert done.stderr.startswith("error: out = ")


def test_a_bad_scenario_names_its_fields(throttllem: Throttllem, scenario_file: Path) -> None:
    text = scenario_file.read_text(encoding="utf-8").replace("idle_mhz: 1170", "idle_mhz: 1171\nidle: 3")
    scenario_file.write_text(text, encoding="utf-8")
    done = throttllem("compare", "--scenario", scenario_file)
    assert done.status == 2
    assert "idle: unknown field; did you mean 'idle_mhz'?" in done.stderr


def test_the_exit_status_reaches_the_shell() -> None:
    done = subprocess.run([*MAIN, "compare", "--seeds", "0"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "error: seeds = 0: must be a whole number of at least 1\n"


START_S = 240.0
"""Longest wait for a run to begin: its kernels may have to be compiled first, on a busy machine."""


def hear_interrupts() -> None:
    """Tests that were started in the background of a shell ignore Ctrl-C, and so would their children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextmanager
def started(command: list[str], folder: Path, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """A command in a process group of its own, of which nothing is left behind, whatever a test finds."""
    process = subprocess.Popen(
        command,
        cwd=folder,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=hear_interrupts,
        **options,
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def wait_until_running(folder: Path) -> None:
    """Wait until a run has reported that it is under way."""
    deadline_s = time.monotonic() + START_S
    while time.monotonic() < deadline_s:
        for path in folder.glob("throttllem-*/shares"):
            if any(path.read_bytes()):
                return
        time.sleep(0.1)
    pytest.fail("no run has started")


SEEDS = 150
"""So many that a busy machine, on which the test looks late, has not made them all by then."""


def test_what_was_done_before_ctrl_c_is_not_done_again(scenario_file: Path, tmp_path: Path) -> None:
    arguments = ["compare", "--scenario", scenario_file, "--trace", TRACE, "--out", "out", "--jobs", 2]
    command = [*MAIN, *map(str, arguments), "--seeds", str(SEEDS), "--agents", "max-frequency"]
    runs = tmp_path / "out" / "runs"
    with started(command, tmp_path) as process:
        deadline_s = time.monotonic() + START_S
        while not list(runs.glob("*.npz")) and time.monotonic() < deadline_s:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=240)[1] == "error: interrupted\n"
    done = len(list(runs.glob("*.npz")))
    assert 0 < done < SEEDS
    again = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert again.stderr == f"continuing: {done} of {SEEDS} runs were there\n"
    assert len(list(runs.glob("*.npz"))) == SEEDS


def wait_until_gone(group: int) -> None:
    """Wait until no process of a group is left; joblib's trackers follow their parent at once, not before."""
    deadline_s = time.monotonic() + 240
    while time.monotonic() < deadline_s:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    pytest.fail("a process was left behind")


@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize("whole_group", [True, False])
def test_ctrl_c_ends_cleanly(scenario_file: Path, tmp_path: Path, jobs: int, whole_group: bool) -> None:
    arguments = ["compare", "--scenario", scenario_file, "--out", "out", "--jobs", jobs, "--seeds", 4]
    command = [*MAIN, *map(str, arguments)]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with started(command, tmp_path, stdout=subprocess.PIPE, env=environment) as process:
        wait_until_running(tmp_path)
        assert process.poll() is None
        # A terminal signals the whole group, `kill -INT` the parent alone.
        (os.killpg if whole_group else os.kill)(process.pid, signal.SIGINT)
        _, stderr = process.communicate(timeout=240)
        assert process.returncode == 130
        assert stderr == "error: interrupted\n"
        wait_until_gone(process.pid)
    assert not list(tmp_path.glob("throttllem-*"))


def test_bounds_are_shown_beside_the_results(
    throttllem: Throttllem, scenario_file: Path, tmp_path: Path
) -> None:
    done = throttllem(
        *("compare", "--scenario", scenario_file, "--trace", TRACE, "--duration", 30, "--out", "out"),
        *("--agents", "max-frequency", "--bound", 0),
    )
    assert done.status == 0, done.stderr
    assert "bounds of seed 0" in done.stderr
    document = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))
    assert document["summary"][0]["above"]["lower"] > document["summary"][0]["above"]["best"] > 0
    assert "above lower %" in (tmp_path / "out" / "results.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("options", "message"),
    [(("--bound", -1), "bound = -1"), (("--bound", -1, "--suite", "smoke"), "bound = -1")],
)
def test_bounds_that_make_no_sense_are_refused(
    throttllem: Throttllem, options: tuple[Any, ...], message: str
) -> None:
    done = throttllem("compare", *options)
    assert done.status == 2
    assert message in done.stderr
