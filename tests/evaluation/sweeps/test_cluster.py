"""A sweep on a real Ray cluster of two nodes: both work, a killed worker takes one run along."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest

from throttllem_env.evaluation.compare import compare
from throttllem_env.evaluation.reproduction import tasks
from throttllem_env.evaluation.results import results
from throttllem_env.evaluation.settings import Settings
from throttllem_env.evaluation.shares import Shares
from throttllem_env.evaluation.sweeps.cluster import RayTasks
from throttllem_env.evaluation.sweeps.sweep import Failed, sweep
from throttllem_env.evaluation.sweeps.workers import open_place, stream

# Not imported: Ray reads its environment when it is, and `connect` sets that first.
pytestmark = pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed")

MAIN = [sys.executable, "-c", "from throttllem_env.cli import main; main()"]
MARKER = f"two-nodes-of-{os.getpid()}"
LOOPBACK = ("0100007F", "0" * 24 + "01000000", "0" * 16 + "FFFF0000" + "0100007F")
TRACE = "\n".join(
    [
        "TIMESTAMP,ContextTokens,GeneratedTokens",
        *(f"2023-11-16 18:00:{1.3 * i:010.7f},{200 + 7 * i},{20 + i}" for i in range(40)),
    ]
)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Address of a cluster of two nodes with a core each, which ends with the tests."""
    script = Path(__file__).with_name("two_nodes.py")
    quiet = {
        "RAY_USAGE_STATS_ENABLED": "0",
        # Despite its name: keep the cluster on loopback.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "THROTTLLEM_TEST": MARKER,
    }
    process = subprocess.Popen(
        [sys.executable, str(script)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, **quiet},
        start_new_session=True,
    )
    with process:
        assert process.stdout
        yield process.stdout.readline().strip()
        process.communicate("", timeout=240)
    wait_until(lambda: not sockets(), "the cluster has ended")


def test_both_nodes_work(address: str, tmp_path: Path) -> None:
    def node(folder: Path) -> str:
        """Waits for the other node, whose worker may start much later."""
        import ray

        name = str(ray.get_runtime_context().get_node_id())
        (folder / name).touch()
        until_s = time.monotonic() + 240
        while len(list(folder.iterdir())) < 2 and time.monotonic() < until_s:
            time.sleep(0.01)
        return name

    with open_place(None, f"ray:{address}") as place:
        assert place.description == f"Ray cluster at {address}: 2 nodes, 2 cores"
        assert place.jobs == 2
        nodes = [found for _, found in stream(place, node, [(tmp_path,)] * 6)]
    assert len(nodes) == 6
    assert len(set(nodes)) == 2


def test_a_killed_worker_takes_one_call_along(address: str) -> None:
    def perhaps(number: int) -> int:
        if number == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        if number == 3:
            raise ZeroDivisionError("nothing to divide by")
        return number

    with open_place(None, f"ray:{address}") as place:
        done = sweep(place, perhaps, {str(i): (i,) for i in range(6)})
    killed, broken = done.pop("2"), done.pop("3")
    assert isinstance(killed, Failed)
    assert "worker died unexpectedly" in killed.error
    assert isinstance(broken, Failed)
    assert broken.error == "ZeroDivisionError: nothing to divide by"
    assert done == {"0": 0, "1": 1, "4": 4, "5": 5}


def test_a_call_does_not_wait_behind_a_long_one(address: str, tmp_path: Path) -> None:
    def after(folder: Path, others: int) -> None:
        """Returns when the results of others have come."""
        until_s = time.monotonic() + 240
        while len(list(folder.iterdir())) < others and time.monotonic() < until_s:
            time.sleep(0.01)

    ended = []
    with open_place(2, f"ray:{address}") as place:
        for index, _ in stream(place, after, [(tmp_path, 6), *[(tmp_path, 0)] * 6]):
            ended.append(index)
            (tmp_path / str(index)).touch()
    assert ended == [1, 2, 3, 4, 5, 6, 0]


def test_results_are_those_of_one_process(address: str, settings: Settings, tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text(TRACE, encoding="utf-8")
    small = replace(settings, trace=str(path), agents=("max-frequency", "throttllem"))
    here = results(compare(small), [])
    told: list[str] = []
    with Shares.of(4) as shares:
        there = compare(replace(small, cluster=f"ray:{address}", out=tmp_path / "out"), shares, told.append)
        assert shares.open().tolist() == [1.0] * 4
    assert results(there, [])["runs"] == here["runs"]
    assert results(there, [])["summary"] == here["summary"]
    assert told == [f"Ray cluster at {address}: 2 nodes, 2 cores"]
    assert len(list((tmp_path / "out" / "runs").glob("*.npz"))) == 4


def test_tasks_need_no_trace_where_they_run(address: str, tmp_path: Path) -> None:
    for name in tasks.TRACE_FILES.values():
        (tmp_path / name).write_text(TRACE, encoding="utf-8")
    wanted = [tasks.RunTask("llama3-8b-a100", agent, load=0.8) for agent in ("max-frequency", "throttllem")]
    here = tasks.answer(wanted, tmp_path, tmp_path / "here", 1)
    there = tasks.answer(wanted, tmp_path, tmp_path / "there", None, cluster=f"ray:{address}")
    assert there == here


def test_another_version_of_the_package_is_refused(address: str) -> None:
    with open_place(None, f"ray:{address}") as place:
        assert isinstance(place, RayTasks)
        with pytest.raises(ValueError, match=r"node .* has another version of throttllem-env"):
            place.check_sources("of another version")


@pytest.mark.parametrize("whole_group", [True, False])
def test_ctrl_c_ends_the_runs(address: str, scenario_file: Path, tmp_path: Path, whole_group: bool) -> None:
    arguments = ["compare", "--scenario", scenario_file, "--out", "out", "--cluster", f"ray:{address}"]
    process = subprocess.Popen(
        [*MAIN, *map(str, arguments), "--seeds", "4"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # In the background of a shell Ctrl-C is ignored, and by children too.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stderr
    assert process.stderr.readline().startswith("Ray cluster at")
    wait_until(lambda: len(busy()) == 2, "two runs have started")
    # A terminal signals the whole group, `kill -INT` the parent alone.
    (os.killpg if whole_group else os.kill)(process.pid, signal.SIGINT)
    _, stderr = process.communicate(timeout=240)
    assert process.returncode == 130
    assert stderr == "error: interrupted\n"
    wait_until(lambda: not busy(), "all runs have ended")
    wait_until(lambda: not there(process.pid), "no process of the group is left")


def wait_until(holds: Callable[[], bool], what: str) -> None:
    deadline_s = time.monotonic() + 240
    while time.monotonic() < deadline_s:
        if holds():
            return
        time.sleep(0.1)
    pytest.fail(f"not so after four minutes: {what}")


def there(group: int) -> bool:
    """Whether a group has processes; helpers follow their parent at once, not before."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def busy() -> list[int]:
    """Workers of this test's cluster that make a call."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            environment, title = (process / "environ").read_bytes(), (process / "cmdline").read_bytes()
        except OSError:
            continue
        if MARKER.encode() in environment and b"ray::_call" in title:
            found.append(int(process.name))
    return found


def test_the_cluster_listens_on_loopback_only(address: str) -> None:
    """Read from the kernel's table: state 0A listens, the inode says whose it is."""
    listening = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text(encoding="utf-8").splitlines()[1:]:
            where, state, inode = (line.split()[i] for i in (1, 3, 9))
            if state == "0A":
                listening.add((where.partition(":")[0], inode))
    ours = {inode for where, inode in listening if inode in sockets()}
    outside = {where for where, inode in listening if inode in ours and where not in LOOPBACK}
    assert ours
    assert not outside


def sockets() -> set[str]:
    """Inodes of the sockets of this test's cluster."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if MARKER.encode() in (process / "environ").read_bytes():
                links = [str(link.readlink()) for link in (process / "fd").iterdir()]
                found |= {link[8:-1] for link in links if link.startswith("socket:[")}
        except OSError:
            continue
    return found


@pytest.mark.parametrize(
    ("cluster", "message"),
    [
        ("rai", "cluster = 'rai': unknown; did you mean 'ray'"),
        ("ray:", "no address; an example is"),
        ("ray", "RAY_ADDRESS is not set; set it, or give ray:ADDRESS"),
        ("ray:somewhere", "expected an address such as"),
        ("ray:127.0.0.1:1", "nothing answers at 127.0.0.1:1"),
    ],
)
def test_a_cluster_that_is_not_there_is_refused(
    settings: Settings, cluster: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(ValueError, match=r"(?s).*") as caught:
        compare(replace(settings, cluster=cluster))
    assert message in str(caught.value)
