"""Emulated GPUs in real time, on a clock that stands still unless somebody sleeps."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from throttllem_env.gpu import DeviceFile
from throttllem_env.hardware import IterationWork
from throttllem_env.scenario import ScenarioError, load_scenario
from throttllem_env.serving.realtime_gpus import MAX_LAG_NS, Emulation, RealTimeGpus

BASE = load_scenario("llama2-13b-a100")
WORK = IterationWork(decode_batch=8, kv_tokens=4000, prefill_tokens=0, prefill_attention=0)
MIXED = IterationWork(decode_batch=8, kv_tokens=4000, prefill_tokens=500, prefill_attention=250_000)


class Clock:
    """Time passes by sleeping, and by what a test says."""

    def __init__(self) -> None:
        self.now_ns = 10**12
        self.slept_ns: list[int] = []
        self.oversleep_ns = 0

    def read(self) -> int:
        return self.now_ns

    def sleep(self, seconds: float) -> None:
        self.slept_ns.append(round(seconds * 1e9))
        self.now_ns += self.slept_ns[-1] + self.oversleep_ns


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def device(tmp_path: Path) -> Iterator[DeviceFile]:
    physics = BASE.physics(1)
    idle_w = {mhz: physics.at(mhz).idle_w for mhz in BASE.gpu_spec.clocks_mhz}
    device = DeviceFile.create(tmp_path / "gpus", idle_w, 4)
    yield device
    device.close()


@pytest.fixture
def gpus(device: DeviceFile, clock: Clock) -> Iterator[RealTimeGpus]:
    emulation = Emulation(device.path, (1, 3), "llama2-13b-a100")
    gpus = RealTimeGpus(emulation, clock.read, clock.sleep)
    yield gpus
    gpus.close()


def takes_ns(work: IterationWork, mhz: int) -> int:
    return int(BASE.physics(2).at(mhz).iteration(work).total_s * 1e9)


def test_an_iteration_takes_what_the_slowest_of_its_gpus_needs(
    gpus: RealTimeGpus, device: DeviceFile, clock: Clock
) -> None:
    gpus.run(WORK, continues=False)
    device.lock_clocks(0, 210, 210)  # not one of its own
    device.lock_clocks(3, 705, 705)
    gpus.run(WORK, continues=True)
    assert clock.slept_ns == [takes_ns(WORK, 1410), takes_ns(WORK, 705)]


def test_deadlines_are_absolute(gpus: RealTimeGpus, device: DeviceFile, clock: Clock) -> None:
    """What the engine does in between, and how late a sleep ends, do not add up."""
    start_ns, clock.oversleep_ns = clock.now_ns, 60_000
    for iteration in range(50):
        gpus.run(WORK, continues=iteration > 0)
        clock.now_ns += 1_000_000
    spent_ns = clock.now_ns - 1_000_000 - clock.oversleep_ns - start_ns
    assert spent_ns == 50 * takes_ns(WORK, 1410)
    assert device.gpus["late"].tolist() == [0, 0, 0, 0]


def test_an_idle_engine_owes_nothing(gpus: RealTimeGpus, device: DeviceFile, clock: Clock) -> None:
    gpus.run(WORK, continues=False)
    clock.now_ns += 10**10
    gpus.run(WORK, continues=False)
    assert clock.slept_ns == [takes_ns(WORK, 1410)] * 2
    assert device.gpus["given_up_ns"].sum() == 0


def test_lag_is_caught_up_within_a_bound_and_counted_beyond(
    gpus: RealTimeGpus, device: DeviceFile, clock: Clock
) -> None:
    one_ns = takes_ns(WORK, 1410)
    gpus.run(WORK, continues=False)
    clock.now_ns += MAX_LAG_NS + 7_000_000  # a machine that is too busy
    late = 0
    while len(clock.slept_ns) < 2:
        gpus.run(WORK, continues=True)
        late += len(clock.slept_ns) < 2
    assert late == MAX_LAG_NS // one_ns
    assert clock.slept_ns[1] == (late + 1) * one_ns - MAX_LAG_NS
    assert device.gpus["late"].tolist() == [0, late, 0, late]
    assert device.gpus["given_up_ns"].tolist() == [0, 7_000_000, 0, 7_000_000]
    assert int(device.gpus[1]["late_max_ns"]) == MAX_LAG_NS - one_ns


def test_each_gpu_books_the_power_of_its_own_clock(
    gpus: RealTimeGpus, device: DeviceFile, clock: Clock
) -> None:
    device.lock_clocks(3, 705, 705)
    gpus.run(MIXED, continues=False)
    taken = BASE.physics(2).at(705).iteration(MIXED)
    for gpu, mhz in ((1, 1410), (3, 705)):
        table, record = BASE.physics(2).at(mhz), device.gpus[gpu]
        expected_j = (
            table.idle_w * taken.host_s
            + table.decode_power_w(8) * taken.decode_s
            + table.prefill_power_w(500) * taken.prefill_s
        )
        assert float(record["iteration_j"]) == pytest.approx(expected_j)
        assert float(record["busy_j"]) == pytest.approx(expected_j - table.idle_w * taken.total_s)
        assert float(record["iteration_s"]) == pytest.approx(taken.total_s)
        assert int(record["busy_until_ns"]) == clock.now_ns
    assert device.gpus["iterations"].tolist() == [0, 1, 0, 1]


def test_what_it_is_told_stands_in_three_variables(tmp_path: Path) -> None:
    emulation = Emulation(tmp_path / "gpus", (2, 3), "llama2-13b-a100")
    variables = emulation.variables()
    assert len(variables) == 3
    assert Emulation.from_variables(variables) == emulation
    for name in variables:
        with pytest.raises(ValueError, match=f"{name} is not set"):
            Emulation.from_variables(variables | {name: ""})
    with pytest.raises(ValueError, match=r"THROTTLLEM_DEVICE_GPUS = '0;1': expected e\.g\. 0,1"):
        Emulation.from_variables(variables | {"THROTTLLEM_DEVICE_GPUS": "0;1"})


@pytest.mark.parametrize(
    ("gpus", "scenario", "expected"),
    [
        ((0, 1, 2), "llama2-13b-a100", r"names 3 GPUs: llama2-13b-a100 has sizes \(1, 2, 4\)"),
        ((0, 7), "llama2-13b-a100", r"\[0, 7\]: .* has GPUs 0 to 3, each to be named once"),
        ((1, 1), "llama2-13b-a100", r"\[1, 1\]: .* has GPUs 0 to 3, each to be named once"),
    ],
)
def test_gpus_that_do_not_go_with_the_scenario_are_refused(
    device: DeviceFile, gpus: tuple[int, ...], scenario: str, expected: str
) -> None:
    with pytest.raises(ValueError, match=expected):
        RealTimeGpus(Emulation(device.path, gpus, scenario))


def test_an_unknown_scenario_is_refused(device: DeviceFile) -> None:
    with pytest.raises(ScenarioError, match="unknown"):
        RealTimeGpus(Emulation(device.path, (0,), "llama9"))
