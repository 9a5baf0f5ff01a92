"""A scenario with round numbers, and the command in this process."""

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

SCENARIO = """\
name: small
version: 1
description: Rated loads [as] round numbers.
model: llama2-13b
gpu: a100-40gb
sizes: [1, 2, 4]
gpus_per_node: 8
lengths: azure-2023-conv
idle_mhz: 1170
slo: {e2e_s: 25.0}
rated: {requests_rps: {1: 0.5, 2: 3.0, 4: 7.0}, reference_power_w: 900}
"""


class Outcome:
    """What a command printed, and its exit status."""

    def __init__(self, status: int, stdout: str, stderr: str) -> None:
        self.status, self.stdout, self.stderr = status, stdout, stderr


Throttllem = Callable[..., Outcome]


@pytest.fixture
def throttllem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Throttllem:
    """Run the command in an empty folder."""
    from throttllem_env.cli import app

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "150")
    monkeypatch.delenv("THROTTLLEM_TRACEBACK", raising=False)

    def run(*arguments: object) -> Outcome:
        done = CliRunner().invoke(app, [str(argument) for argument in arguments], prog_name="throttllem")
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return Outcome(done.exit_code, done.stdout, done.stderr)

    return run


@pytest.fixture
def scenario_file(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(SCENARIO, encoding="utf-8")
    return path
