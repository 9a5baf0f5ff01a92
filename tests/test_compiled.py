"""Kernels are compiled once, and anew when any kernel changes."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from throttllem_env import compiled as module

CALLER = '''"""Calls another file's kernel."""
from tiny.compiled import {decorator}
from tiny.kernels.callee import step


@{decorator}
def run(x):
    return step(x) + 1
'''
CALLEE = '''"""Is called."""
from tiny.compiled import {decorator}


@{decorator}
def step(x):
    return {factor} * x
'''
PROGRAM = """
import numba
from tiny.kernels.caller import run
assert numba.config.CACHE_DIR == "", "other users of numba keep their cache"
value = run(10)
print(value, sum(run.stats.cache_hits.values()))
"""


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A package with the decorators of ours, and a kernel that calls one in another file."""
    package = tmp_path / "tiny"
    (package / "kernels").mkdir(parents=True)
    shutil.copy(module.__file__, package / "compiled.py")
    for folder in (package, package / "kernels"):
        (folder / "__init__.py").touch()
    return package


def write(package: Path, decorator: str, factor: int) -> None:
    (package / "kernels" / "caller.py").write_text(CALLER.format(decorator=decorator))
    (package / "kernels" / "callee.py").write_text(CALLEE.format(decorator=decorator, factor=factor))


def run(package: Path, **changes: str) -> tuple[int, int]:
    """Run the caller in a process of its own; returns its result and how often the cache served."""
    env = {k: v for k, v in os.environ.items() if k not in {"NUMBA_CACHE_DIR", "XDG_CACHE_HOME"}}
    env |= {"PYTHONPATH": str(package.parent), "XDG_CACHE_HOME": str(package.parent / "cache")} | changes
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    value, hits = done.stdout.split()
    return int(value), int(hits)


@pytest.mark.parametrize("decorator", ["compiled", "inlined"])
def test_a_kernel_is_taken_from_the_cache_until_one_that_it_calls_changes(tiny: Path, decorator: str) -> None:
    write(tiny, decorator, factor=2)
    assert run(tiny) == (21, 0)
    assert run(tiny) == (21, 1)
    caller = (tiny / "kernels" / "caller.py").stat().st_mtime_ns
    (tiny / "kernels" / "callee.py").write_text(CALLEE.format(decorator=decorator, factor=7))
    assert (tiny / "kernels" / "caller.py").stat().st_mtime_ns == caller
    assert run(tiny) == (71, 0)


def test_the_cache_lies_in_the_users_cache_folder(tiny: Path) -> None:
    write(tiny, "inlined", factor=2)
    run(tiny)
    assert list((tiny.parent / "cache" / "throttllem-env").rglob("*.nbc"))
    assert not list(tiny.rglob("*.nbc"))


def test_where_the_cache_cannot_be_written_a_temporary_folder_serves(tiny: Path) -> None:
    write(tiny, "inlined", factor=2)
    blocked = tiny.parent / "blocked"
    blocked.write_text("a file where a folder should be")
    spare = tiny.parent / "spare"
    spare.mkdir()
    changes = {"XDG_CACHE_HOME": str(blocked), "TMPDIR": str(spare)}
    assert run(tiny, **changes) == (21, 0)
    assert run(tiny, **changes) == (21, 1)
    assert list(spare.rglob("*.nbc"))
