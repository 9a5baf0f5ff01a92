"""Calls go to processes, results come as they are there, and a process that dies takes one call along."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from throttllem_env.evaluation.sweeps.place import LostWorkerError, Place
from throttllem_env.evaluation.sweeps.workers import Processes, open_place, run_parallel, stream


@pytest.mark.parametrize("jobs", [1, 2, 5])
def test_results_are_in_order(jobs: int) -> None:
    assert run_parallel(pow, [(x, 2) for x in range(4)], jobs) == [0, 1, 4, 9]
    assert run_parallel(pow, [], jobs) == []


def test_one_job_stays_in_this_process() -> None:
    assert run_parallel(os.getpid, [()], 1) == [os.getpid()]


def test_jobs_are_processes_that_end_with_their_work(tmp_path: Path) -> None:
    # A nested function travels by value: workers cannot import a test module.
    def pid_of_two(folder: Path) -> int:
        """Waits for the other process, which may start much later."""
        (folder / str(os.getpid())).touch()
        until_s = time.monotonic() + 240
        while len(list(folder.iterdir())) < 2 and time.monotonic() < until_s:
            time.sleep(0.01)
        return os.getpid()

    with open_place(2) as place:
        pids = {pid for _, pid in stream(place, pid_of_two, [(tmp_path,)] * 3)}
    assert len(pids) == 2
    assert os.getpid() not in pids
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_results_come_as_they_are_there(tmp_path: Path) -> None:
    def after(folder: Path, others: int) -> None:
        """Returns when the results of others have come."""
        until_s = time.monotonic() + 240
        while len(list(folder.iterdir())) < others and time.monotonic() < until_s:
            time.sleep(0.01)

    came = []
    with open_place(2) as place:
        for index, _ in stream(place, after, [(tmp_path, 3), *[(tmp_path, 0)] * 3]):
            came.append(index)
            (tmp_path / str(index)).touch()
    assert came == [1, 2, 3, 0]


@pytest.fixture(params=[1, 2])
def processes(request: pytest.FixtureRequest) -> Iterator[Place]:
    place = Processes(request.param)
    yield place
    place.close()


def test_a_killed_process_takes_one_call_along(processes: Place) -> None:
    def perhaps(dies: bool) -> str:
        if dies:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.3)
        return "lives"

    results = dict(stream(processes, perhaps, [(False,), (True,), (False,), (False,), (True,), (False,)]))
    died = [index for index, result in results.items() if isinstance(result, LostWorkerError)]
    assert sorted(died) == [1, 4]
    assert "SIGKILL" in str(results[1])
    assert [results[index] for index in (0, 2, 3, 5)] == ["lives"] * 4


def test_run_parallel_says_that_a_process_died() -> None:
    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(LostWorkerError, match="SIGKILL"):
        run_parallel(die, [(), ()], 2)


def test_an_error_comes_as_it_is() -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        run_parallel(int, [("1",), ("one",)], 2)


def test_threads_of_a_worker_do_not_compete_with_the_others() -> None:
    assert run_parallel(os.getenv, [("OMP_NUM_THREADS",), ("OPENBLAS_NUM_THREADS",)], 2) == ["1", "1"]
