"""GPUs in a mapped file."""

import multiprocessing
import time
from pathlib import Path

import numpy as np
import pytest

from throttllem_env.gpu import DeviceFile
from throttllem_env.gpu.device_file import GPU, HEADER

IDLE_W = {210: 50.0, 810: 60.0, 1410: 80.0}


@pytest.fixture
def device(tmp_path: Path):
    device = DeviceFile.create(tmp_path / "gpus", IDLE_W, 2)
    yield device
    device.close()


def test_every_field_is_aligned_as_c_aligns_it():
    assert np.dtype(HEADER.descr, align=True) == HEADER
    assert np.dtype(GPU.descr, align=True) == GPU


def test_clocks_start_at_the_top_and_follow_locks(device):
    assert device.clocks_mhz == (210, 810, 1410)
    device.lock_clocks(1, 810, 810)
    assert device.gpus["sm_mhz"].tolist() == [1410, 810]
    device.reset_clocks(1)
    assert device.gpus[1]["sm_mhz"] == 1410
    assert device.gpus[1]["locked_max_mhz"] == 0


def test_another_mapping_sees_the_same_gpus(device):
    other = DeviceFile(device.path)
    other.lock_clocks(0, 210, 210)
    assert device.gpus[0]["sm_mhz"] == 210
    other.close()


def accounted_s(device: DeviceFile) -> float:
    """Until when idling is accounted for: what a busy machine did between two calls is in it."""
    return int(device.gpus[0]["idle_until_ns"]) / 1e9


def test_idling_draws_the_idle_power_of_each_clock(device):
    for mhz in (1410, 210):
        device.lock_clocks(0, mhz, mhz)
        start_j, start_s = float(device.gpus[0]["idle_j"]), accounted_s(device)
        time.sleep(0.01)
        idled_j = device.energy_j(0) - start_j
        assert idled_j == pytest.approx(IDLE_W[mhz] * (accounted_s(device) - start_s))
        assert idled_j >= IDLE_W[mhz] * 0.01


def test_an_iteration_counts_what_it_draws_and_no_idle_power_besides(device):
    start_j, start_s = device.energy_j(0), accounted_s(device)
    device.book_iteration(0, 30.0, time.monotonic_ns() + 100_000_000, 0.1)
    used_j = device.energy_j(0) - start_j
    assert used_j == pytest.approx(30.0 + IDLE_W[1410] * (accounted_s(device) - start_s - 0.1))


def test_power_is_that_of_the_iteration_under_way(device):
    device.book_iteration(0, 30.0, time.monotonic_ns() + 10**12, 0.1)
    assert device.power_w(0) == pytest.approx(300.0)
    device.book_iteration(0, 30.0, time.monotonic_ns(), 0.1)
    assert device.power_w(0) == IDLE_W[1410]


def _lock_often(path: Path, mhz: int) -> None:
    device = DeviceFile(path)
    for _ in range(300):
        device.lock_clocks(0, mhz, mhz)


def test_drivers_in_many_processes_lose_no_change(device):
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_lock_often, args=(device.path, mhz)) for mhz in (210, 810)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert device.gpus[0]["sets"] == 600


@pytest.mark.parametrize("content", [b"", b"no GPUs", bytes(10_000)])
def test_another_file_is_refused(tmp_path, content):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(ValueError, match="no file of emulated GPUs"):
        DeviceFile(tmp_path / "file")


@pytest.mark.parametrize(("count", "idle_w"), [(0, IDLE_W), (99, IDLE_W), (1, {})])
def test_what_does_not_fit_is_refused(tmp_path, count, idle_w):
    with pytest.raises(ValueError, match="expected 1 to"):
        DeviceFile.create(tmp_path / "gpus", idle_w, count)
