"""The script that measures GPUs, tried out on a CPU and on a driver made up here."""

import importlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from throttllem_env.evaluation.fidelity.measured import read_measurement
from throttllem_env.hardware import MODELS

torch = pytest.importorskip("torch")
SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
TINY = ["--device", "cpu", "--models", "tiny", "--batches", "1,3", "--contexts", "8", "--prompts", "4"]
QUICK = [*TINY, "--cell-s", "0", "--out"]


@pytest.fixture(scope="module")
def scripts() -> Iterator[SimpleNamespace]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(SCRIPTS))
        names = {"main": "measure_gpu", "llama": "measure_gpu_llama", "nvml": "measure_gpu_nvml"}
        yield SimpleNamespace(**{short: importlib.import_module(name) for short, name in names.items()})


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "results" / "cpu.json"


def cells(path: Path) -> dict[tuple[str, int], dict[str, Any]]:
    """The cells of a result file by phase and batch."""
    return {(c["phase"], c["batch"]): c for c in json.loads(path.read_text())["cells"]}


def test_every_cell_is_measured_and_the_file_says_on_what(scripts: SimpleNamespace, out: Path) -> None:
    assert scripts.main.main([*QUICK, str(out)]) == 0
    document = read_measurement(out)
    assert set(cells(out)) == {("decode", 1), ("decode", 3), ("prefill", 0)}
    for cell in document["cells"]:
        assert cell["whole"]["how"] == "measured"
        assert cell["whole"]["iteration_s"] == cell["depths"]["4"]["iteration_s"]["median"] > 0
        assert cell["depths"]["4"]["iteration_s"]["count"] >= 5
        assert "energy_j" not in cell["whole"]
    assert document["gpu"]["power"] == "not measured: on a CPU there is no power to be read"
    assert document["versions"]["torch"] == torch.__version__
    assert document["date"] <= document["last"]


def test_it_stops_within_its_budget_and_goes_on_where_it_stopped(
    scripts: SimpleNamespace, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert scripts.main.main([*QUICK, str(out), "--budget-s", "0"]) == 3
    assert all(not cell["depths"] for cell in cells(out).values())
    measured: list[int] = []

    def measure(_: Any, step: Any) -> dict[str, Any]:
        if len(measured) == 2:
            raise KeyboardInterrupt
        measured.append(1)
        return {"iteration_s": {"median": 1.0}}

    with monkeypatch.context() as patch:
        patch.setattr(scripts.main.Bench, "measure", measure)
        with pytest.raises(KeyboardInterrupt):
            scripts.main.main([*QUICK, str(out)])
    assert sum(bool(cell["depths"]) for cell in cells(out).values()) == 2
    assert scripts.main.main([*QUICK, str(out)]) == 0
    times_s = [cell["whole"]["iteration_s"] for cell in cells(out).values()]
    assert len(times_s) == 3
    assert times_s.count(1.0) == 2, "what was there is kept"


def test_a_file_of_another_gpu_is_not_continued(scripts: SimpleNamespace, out: Path) -> None:
    scripts.main.main([*QUICK, str(out), "--budget-s", "0"])
    out.write_text(out.read_text().replace("none: CPU", "NVIDIA H100 80GB HBM3"))
    with pytest.raises(SystemExit, match=r"H100.*name another file"):
        scripts.main.main([*QUICK, str(out)])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["--models", "llama3-7b"], "choose from llama3-8b"),
        (["--device", "tpu"], "invalid choice"),
        (["--batches", "1,x"], "invalid numbers value: '1,x'"),
        (["--layers", "al"], "--layers al: must be auto, all, or whole numbers"),
        (["--layers", "1,5"], "--layers 5: must be from 1 to 4"),
    ],
)
def test_wrong_input_is_named(
    scripts: SimpleNamespace, out: Path, capsys: pytest.CaptureFixture[str], wrong: list[str], message: str
) -> None:
    with pytest.raises(SystemExit):
        scripts.main.main([*QUICK, str(out), *wrong])
    assert message in capsys.readouterr().err


def reading(seconds: float, joules: float | None = None) -> dict[str, Any]:
    return {"iteration_s": {"median": seconds}} | ({} if joules is None else {"energy_j": joules})


def test_layers_that_were_not_measured_are_scaled_to_by_a_straight_line(scripts: SimpleNamespace) -> None:
    """Two layers take 2 s and six take 4 s: half a second per layer, and one that does not grow."""
    found = scripts.main.whole({2: reading(2.0, 20.0), 6: reading(4.0, 60.0)}, 10)
    assert found == {"how": "scaled from 2 and 6 of 10 layers", "iteration_s": 6.0, "energy_j": 100.0}


def test_where_all_layers_were_measured_the_error_of_scaling_is_told(scripts: SimpleNamespace) -> None:
    found = scripts.main.whole({2: reading(2.0), 6: reading(4.0), 10: reading(5.0)}, 10)
    assert found == {"how": "measured", "iteration_s": 5.0, "scaling_error": pytest.approx(0.2)}


def test_one_depth_is_not_scaled(scripts: SimpleNamespace) -> None:
    assert set(scripts.main.whole({2: reading(2.0)}, 10)) == {"how"}


def test_layers_are_left_out_only_where_all_do_not_fit(scripts: SimpleNamespace) -> None:
    shape = scripts.llama.SHAPES["llama2-13b"]
    cell = scripts.llama.Cell("llama2-13b", "decode", 64, 1024, 0)
    sizes_gb = {200: [40], 80: [10, 20], 20: []}  # 26 GB of weights and 54 GB of cache
    for free_gb, expected in sizes_gb.items():
        assert scripts.main.depths_of(shape, ["auto"], free_gb * 1e9, cell) == expected
    assert scripts.main.depths_of(shape, ["8", "all", "4"], 80e9, cell) == [4, 8]


@pytest.mark.parametrize("name", ["llama3-8b", "llama2-13b"])
def test_shapes_are_those_of_the_models(scripts: SimpleNamespace, name: str) -> None:
    shape, model = scripts.llama.SHAPES[name], MODELS[name]
    assert shape.bytes_needed(shape.layers, 0) == pytest.approx(model.weights_bytes, rel=0.002)
    cached = shape.bytes_needed(shape.layers, 1000) - shape.bytes_needed(shape.layers, 0)
    assert cached == 1000 * model.kv_bytes_per_token


@pytest.mark.parametrize(("phase", "layers"), [("decode", 1), ("decode", 3), ("prefill", 2)])
def test_an_iteration_multiplies_by_every_weight_once_per_token(
    scripts: SimpleNamespace, phase: str, layers: int
) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    shape = scripts.llama.SHAPES["tiny"]
    cell = scripts.llama.Cell("tiny", phase, *((5, 16, 0) if phase == "decode" else (0, 0, 7)))
    step = scripts.llama.Llama(shape, 3, torch.device("cpu")).step(cell, layers)
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        chosen = step()
    rows, tokens = (5, 5) if phase == "decode" else (1, 7)
    expected = 2 * (tokens * layers * shape.layer_weights + rows * shape.vocabulary * shape.hidden)
    assert counter.get_flop_counts()["Global"][torch.ops.aten.mm] == expected
    assert chosen.shape == (rows,)


class Driver:
    """NVML as `measure_gpu.py` may use it: getters alone, time that it makes itself, a counter in steps."""

    NVML_CLOCK_SM, NVML_TEMPERATURE_GPU = 1, 0

    class NVMLError(Exception):
        """What pynvml raises."""

    def __init__(self, silent: str = "") -> None:
        self.now_s, self.asked, self.silent = 0.0, set[str](), silent
        self.extra_mj = 0.0

    def clock(self) -> float:
        self.now_s += 0.001
        return self.now_s

    def __getattr__(self, name: str) -> Any:
        if not re.fullmatch(r"nvml(Init|System|Device)(Get\w+)?", name):
            raise AssertionError(f"{name} is called")
        self.asked.add(name)
        return lambda *_: self._answer(name)

    def _answer(self, name: str) -> Any:
        if self.silent and self.silent in name:
            raise self.NVMLError("Not Supported")
        answers = {
            "nvmlDeviceGetTotalEnergyConsumption": int(self.now_s / 0.1) * 30_000 + self.extra_mj,
            "nvmlDeviceGetPowerUsage": 300_000 + int(self.now_s / 0.02),
            "nvmlDeviceGetClockInfo": 1755,
            "nvmlDeviceGetCurrentClocksEventReasons": 4,
            "nvmlSystemGetDriverVersion": "550.54.15",
            "nvmlDeviceGetEnforcedPowerLimit": 700_000,
            "nvmlDeviceGetMaxClockInfo": 1980,
        }
        return answers.get(name, 50)


def test_update_periods_and_the_cost_of_reads_are_measured(scripts: SimpleNamespace) -> None:
    driver = Driver()
    nvml = scripts.nvml.Nvml(driver, "GPU-0", driver.clock)
    assert nvml.update_period_s("energy_mj") == pytest.approx(0.1, abs=0.002)
    assert nvml.update_period_s("power_mw") == pytest.approx(0.02, abs=0.002)
    assert nvml.update_period_s("clock_mhz") is None, "it never changes"
    assert {name: cost["median"] for name, cost in nvml.cost_us().items()} == pytest.approx(
        dict.fromkeys(("energy_mj", "power_mw", "clock_mhz", "event_reasons", "temperature_c"), 1000.0)
    )
    assert nvml.describe() == {"driver": "550.54.15", "power_limit_w": 700.0, "top_mhz": 1980}


def test_nothing_is_ever_set(scripts: SimpleNamespace) -> None:
    driver = Driver()
    nvml = scripts.nvml.Nvml(driver, "GPU-0", driver.clock)
    nvml.describe()
    nvml.sample()
    assert driver.asked
    for file in SCRIPTS.glob("measure_gpu*.py"):
        text = file.read_text()
        assert not re.search(r"nvml\w*(Set|Reset|Clear|Register)", text)
        assert "subprocess" not in text


def test_a_busy_loop_counts_its_iterations_and_the_energy_of_each(
    scripts: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver, done = Driver(), []
    nvml = scripts.nvml.Nvml(driver, "GPU-0", driver.clock)
    fixed = driver.now_s

    def replay() -> None:
        done.append(1)
        driver.extra_mj += 500.0

    bench = scripts.main.Bench(torch.device("cpu"), nvml, 0.0, 0.02)
    event = SimpleNamespace(record=lambda: None, synchronize=lambda: None)
    monkeypatch.setattr(scripts.main.Bench, "_event", staticmethod(lambda: event))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    found = bench._busy(replay, 0.01, nvml)
    assert driver.now_s == fixed, "nothing but the iterations makes energy"
    assert done
    assert found["energy_j"] == pytest.approx(0.5)
    assert found["power_w"] * found["window_s"] == pytest.approx(0.5 * len(done))
    assert (found["energy_from"], found["clock_mhz"], found["event_reasons"]) == ("counter", 1755, [4])


def test_without_a_counter_energy_is_power_times_time(scripts: SimpleNamespace) -> None:
    driver = Driver(silent="TotalEnergy")
    nvml = scripts.nvml.Nvml(driver, "GPU-0", driver.clock)
    assert nvml.update_period_s("energy_mj") is None
    sample = nvml.sample()
    found = scripts.nvml.energy_of(sample, sample, [sample], 2.0, 10)
    assert found["energy_from"] == "power samples"
    assert found["energy_j"] == pytest.approx(300.0 * 2.0 / 10)


def test_a_driver_that_tells_nothing_gives_no_energy(scripts: SimpleNamespace) -> None:
    assert scripts.nvml.energy_of({}, {}, [{}], 2.0, 10) == {
        "energy_from": "nothing",
        "event_reasons": [],
        "window_s": 2.0,
    }
