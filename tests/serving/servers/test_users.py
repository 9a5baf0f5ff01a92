"""Servers of another user: where we are root they need not be."""

import os
import pwd
import stat
from pathlib import Path
from types import ModuleType

import pytest

from throttllem_env.serving.vllm.servers import PoolSettings, ServerCommand
from throttllem_env.serving.vllm.servers.process import ServerProcess
from throttllem_env.serving.vllm.servers.settings import require_user
from throttllem_env.serving.vllm.servers.stats_socket import StatsSocket

USER = "nobody"
SAY = """
grep -E "^(Uid|Gid):" /proc/self/status
echo home $HOME of $USER
exec sleep 600
"""
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a process of somebody else")


@needs_root
def test_a_server_has_no_rights_but_its_users_and_ends_all_the_same(rig: ModuleType, tmp_path: Path) -> None:
    entry = pwd.getpwnam(USER)

    async def scene() -> None:
        command = ServerCommand(("/bin/sh", "-c", SAY), "none")
        process = ServerProcess(command, tmp_path / "log", 4096, USER)
        try:
            await rig.until(lambda: len(process.tail) == 3)
            told = [line.split() for line in process.tail]
            assert told[0] == ["Uid:", *[str(entry.pw_uid)] * 4]
            assert told[1] == ["Gid:", *[str(entry.pw_gid)] * 4]
            assert told[2] == ["home", entry.pw_dir, "of", USER]
            assert process.members()
        finally:
            await process.stop(rig.BOUND_S)
        assert process.members() == []

    rig.run(scene)


@needs_root
def test_that_user_may_write_to_the_engines_socket_and_nobody_else_may(rig: ModuleType) -> None:
    async def scene() -> None:
        stats = StatsSocket(lambda server, said: None, USER)
        try:
            found, folder = stats.path.stat(), stats.path.parent.stat()
            assert (found.st_uid, stat.S_IMODE(found.st_mode)) == (pwd.getpwnam(USER).pw_uid, 0o600)
            assert (folder.st_uid, stat.S_IMODE(folder.st_mode)) == (os.geteuid(), 0o711)
        finally:
            stats.close()

    rig.run(scene)


def test_without_a_user_the_socket_is_ours_alone(rig: ModuleType) -> None:
    async def scene() -> None:
        stats = StatsSocket(lambda server, said: None)
        try:
            assert stat.S_IMODE(stats.path.parent.stat().st_mode) == 0o700
        finally:
            stats.close()

    rig.run(scene)


def test_a_user_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="user = 'no such one': there is no such user"):
        PoolSettings(tmp_path, user="no such one")


def test_who_is_not_root_can_start_servers_as_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(ValueError, match="only root can start servers as somebody else"):
        require_user(USER)
