"""The script that photographs TensorBoard: it says what is missing, and leaves no process behind."""

import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tensorboardX import SummaryWriter

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


@pytest.fixture(scope="module")
def script() -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(SCRIPTS))
        yield importlib.import_module("dashboard_screenshot")


@pytest.fixture
def logdir(tmp_path: Path) -> Path:
    """Two runs with a point each."""
    for name in ("one", "two"):
        with SummaryWriter(str(tmp_path / "out" / name)) as writer:
            writer.add_scalar("energy/megajoules", 1.0, 0)
    return tmp_path / "out"


def program(path: Path, script: str) -> Path:
    """An executable in a folder of its own."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


@pytest.fixture
def broken_chromium(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The only browser of this machine ends at once."""
    monkeypatch.setenv("PATH", str(program(tmp_path / "bin" / "chromium", "exit 3").parent))


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> "list[subprocess.Popen[bytes]]":
    """Every process that is started."""
    processes = []

    class Noted(subprocess.Popen[bytes]):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            processes.append(self)

    monkeypatch.setattr(subprocess, "Popen", Noted)
    return processes


def test_without_a_browser_it_says_how_to_get_one(
    script: Any,
    logdir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    picture = tmp_path / "a.png"
    assert script.main(["--logdir", str(logdir), "--picture", str(picture)]) == 2
    assert "none of chromium, chromium-browser, google-chrome is installed" in capsys.readouterr().out
    assert not picture.exists()


@pytest.mark.usefixtures("broken_chromium")
@pytest.mark.parametrize(("name", "says"), [("nowhere", "no such folder"), ("empty", "no events below")])
def test_without_events_nothing_is_started(
    script: Any,
    tmp_path: Path,
    started: "list[subprocess.Popen[bytes]]",
    capsys: pytest.CaptureFixture[str],
    name: str,
    says: str,
) -> None:
    (tmp_path / "empty").mkdir()
    assert script.main(["--logdir", str(tmp_path / name)]) == 2
    said = capsys.readouterr().out
    assert says in said
    assert str(tmp_path / name) in said
    assert started == []


def test_runs_are_the_folders_that_hold_events(script: Any, logdir: Path) -> None:
    (logdir / "plots").mkdir()
    assert script.count_runs(logdir) == 2


@pytest.mark.usefixtures("broken_chromium")
def test_a_tensorboard_that_ends_is_reported_with_what_it_said(
    script: Any,
    logdir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(
        sys, "executable", str(program(tmp_path / "fake" / "python", "echo out of luck; exit 4"))
    )
    assert script.main(["--logdir", str(logdir), "--picture", str(tmp_path / "a.png")]) == 1
    assert "TensorBoard ended with status 4: out of luck" in capsys.readouterr().out


@pytest.mark.usefixtures("broken_chromium")
def test_where_the_browser_fails_tensorboard_is_ended(
    script: Any,
    logdir: Path,
    tmp_path: Path,
    started: "list[subprocess.Popen[bytes]]",
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert script.main(["--logdir", str(logdir), "--picture", str(tmp_path / "a.png")]) == 1
    assert "Chromium ended with status 3" in capsys.readouterr().out
    tensorboard, chromium = started
    assert "tensorboard.main" in str(tensorboard.args)
    assert [process.poll() is None for process in (tensorboard, chromium)] == [False, False]
