"""The books of the guardians can be trusted, or are refused."""

import json
import os
from pathlib import Path

import pytest

from throttllem_env.gpu.guardian import Driver, StateError, StateFolder, Ward, default_folder
from throttllem_env.gpu.guardian.state import LOG_BYTES, new_entry


@pytest.fixture
def state(tmp_path: Path):
    state = StateFolder(tmp_path / "state")
    yield state
    state.close()


ENTRY = new_entry(Ward("GPU-0", 0, (810, 1410)), Driver("emulated", "gpus"), 42)


def test_what_is_written_is_read(state):
    state.write(ENTRY)
    assert state.read("GPU-0") == ENTRY
    state.remove("GPU-0")
    assert state.read("GPU-0") is None


def test_nobody_else_can_enter_or_read(state):
    state.write(ENTRY)
    os.close(state.claim("GPU-0"))
    os.close(state.open_log())
    assert state.path.stat().st_mode & 0o777 == 0o700
    assert {file.stat().st_mode & 0o777 for file in state.path.iterdir()} == {0o600}


def test_a_folder_that_others_can_enter_is_refused(tmp_path):
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o755)  # whatever the umask is
    with pytest.raises(StateError, match=r"others have access \(mode 755\); run: chmod go= "):
        StateFolder(tmp_path / "open")


def test_a_folder_of_somebody_else_is_refused(tmp_path, monkeypatch):
    (tmp_path / "theirs").mkdir(mode=0o700)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(StateError, match="belongs to user"):
        StateFolder(tmp_path / "theirs")


@pytest.mark.parametrize("target", ["there", "missing"])
def test_a_link_in_place_of_the_folder_is_refused(tmp_path, target):
    (tmp_path / "there").mkdir(mode=0o700)
    (tmp_path / "state").symlink_to(tmp_path / target)
    with pytest.raises(StateError, match="is no folder, or a link"):
        StateFolder(tmp_path / "state")
    assert not (tmp_path / "missing").exists()


@pytest.mark.parametrize(
    ("name", "use"),
    [
        ("GPU-0.json", lambda state: state.read("GPU-0")),
        ("GPU-0.lock", lambda state: state.claim("GPU-0")),
        ("guardian.log", lambda state: state.open_log()),
    ],
)
def test_a_link_in_place_of_a_file_is_not_followed(state, tmp_path, name, use):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (state.path / name).symlink_to(victim)
    with pytest.raises(OSError, match="symbolic link"):
        use(state)
    assert victim.read_text() == "precious"


def test_a_writer_replaces_a_link_and_leaves_its_target(state, tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    for name in ("GPU-0.json", "GPU-0.json.new"):
        (state.path / name).symlink_to(victim)
    state.write(ENTRY)
    assert victim.read_text() == "precious"
    assert state.read("GPU-0") == ENTRY


def test_a_file_that_others_can_write_is_refused(state):
    state.write(ENTRY)
    (state.path / "GPU-0.json").chmod(0o666)
    with pytest.raises(StateError, match="others have access"):
        state.read("GPU-0")


def test_a_pipe_in_place_of_a_file_is_refused_and_blocks_nobody(state):
    os.mkfifo(state.path / "GPU-0.json", 0o600)
    with pytest.raises(StateError, match="is no plain file"):
        state.read("GPU-0")


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", json.dumps({"ward": {"uuid": "../x", "index": 0, "restore_mhz": None}})]
)
def test_a_journal_that_is_none_says_what_to_do(state, text):
    path = state.path / "GPU-0.json"
    path.touch(mode=0o600)
    path.write_text(text)
    with pytest.raises(StateError, match="run nvidia-smi -i GPU-0 -rgc"):
        state.read("GPU-0")


@pytest.mark.parametrize("uuid", ["", "../GPU", "a/b", ".hidden", "x" * 101, "GPU\n"])
def test_a_name_that_leads_elsewhere_is_no_gpu(uuid):
    with pytest.raises(ValueError, match="expected letters, digits"):
        Ward(uuid, 0)


@pytest.mark.parametrize("clocks", [(0, 810), (810, 210), (-1, 1)])
def test_restore_clocks_must_ascend(clocks):
    with pytest.raises(ValueError, match="expected MIN,MAX"):
        Ward("GPU-0", 0, clocks)


def test_a_failed_write_leaves_the_old_journal(state, monkeypatch):
    state.write(ENTRY)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        state.write(new_entry(Ward("GPU-0", 0), Driver(), 1))
    assert state.read("GPU-0") == ENTRY


def test_a_long_log_is_put_aside(state):
    fd = state.open_log()
    os.write(fd, b"x" * LOG_BYTES)
    os.close(fd)
    os.close(state.open_log())
    assert (state.path / "guardian.log").stat().st_size == 0
    assert (state.path / "guardian.log.1").stat().st_size == LOG_BYTES


def test_where_the_books_lie_can_be_told(monkeypatch, tmp_path):
    monkeypatch.setenv("THROTTLLEM_STATE_DIR", str(tmp_path))
    assert default_folder() == tmp_path
    monkeypatch.delenv("THROTTLLEM_STATE_DIR")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    assert default_folder() == tmp_path / "run" / "throttllem"
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_folder() == tmp_path / ".local" / "state" / "throttllem"
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert default_folder() == Path("/run/throttllem")
