"""How vLLM is started: on emulated GPUs, or on real ones (or a CPU)."""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from throttllem_env.scenario import Scenario, load_scenario
from throttllem_env.serving.realtime_gpus import Emulation
from throttllem_env.serving.vllm.engine import EMULATED, PINNED
from throttllem_env.serving.vllm.interface import server_module
from throttllem_env.serving.vllm.model_files import write_config, write_tokenizer
from throttllem_env.serving.vllm.servers.command import ServerCommand
from throttllem_env.serving.vllm.servers.ports import HOST

EXECUTOR = "throttllem_env.serving.vllm.realtime.RealTimeExecutor"

SHUTDOWN_S = 5
"""How long vLLM lets requests finish after SIGTERM; the pool has let them finish before."""

QUIET: dict[str, str | None] = {
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_SERVER_DEV_MODE": None,  # no development endpoint is opened
    "PYTHONUNBUFFERED": "1",
}
"""Environment of every server."""

DRIVER = "libnvidia-ml.so.1"


def flags(settings: Mapping[str, Any]) -> list[str]:
    """Settings as vLLM's command line takes them.

    Example:
        >>> flags({"block_size": 16, "async_scheduling": False, "enforce_eager": True})
        ['--block-size', '16', '--no-async-scheduling', '--enforce-eager']
    """
    parts: list[str] = []
    for name, value in settings.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            parts.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            parts += [f"--{flag}", str(value)]
    return parts


def _argv(model: str, name: str, port: int, settings: Mapping[str, Any]) -> tuple[str, ...]:
    every = {
        "model": model,
        "served_model_name": name,
        "host": HOST,
        "port": port,
        "shutdown_timeout": SHUTDOWN_S,
        "disable_uvicorn_access_log": True,
        "enable_log_requests": False,
    }
    return (sys.executable, "-m", server_module(), *flags(every | PINNED | dict(settings)))


def without_drivers(path: str) -> str:
    """A library path without folders that hold a driver of GPUs, such as NVML's test double.

    A vLLM for CPUs that finds a driver takes itself for one on GPUs, and dies.

    Args:
        path: As in LD_LIBRARY_PATH.
    """
    return ":".join(part for part in path.split(":") if part and not Path(part, DRIVER).exists())


class EmulatedLaunch:
    """Servers of a scenario on the emulated GPUs of a mapped file.

    Args:
        scenario: Name of a scenario, or path of its YAML file.
        device_file: The GPUs (`throttllem_env.gpu.DeviceFile.create`).
        model_folder: Where the model's shape and tokenizer are written; it must last as long as the servers.

    Raises:
        ScenarioError: There is no such scenario.
        EngineUnavailableError: vLLM is not installed.
    """

    def __init__(self, scenario: str, device_file: Path, model_folder: Path) -> None:
        self.scenario: Scenario = load_scenario(scenario)
        self._spec, self._device_file, self._folder = scenario, device_file, model_folder
        server_module()
        model_folder.mkdir(parents=True, exist_ok=True)
        write_config(model_folder, self.scenario.engine.max_model_len)
        write_tokenizer(model_folder, self.scenario.engine.max_model_len)

    def __call__(self, size: int, gpus: tuple[int, ...], port: int) -> ServerCommand:
        """Describe a server; to vLLM it is a single device, whatever its size."""
        settings = self.scenario.engine.model_dump() | EMULATED | {"distributed_executor_backend": EXECUTOR}
        emulation = Emulation(self._device_file, gpus, self._spec)
        environment: dict[str, str | None] = QUIET | {
            **emulation.variables(),
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",  # nothing is computed
            "LD_LIBRARY_PATH": without_drivers(os.environ.get("LD_LIBRARY_PATH", "")) or None,
        }
        name = self.scenario.model
        return ServerCommand(_argv(str(self._folder), name, port, settings), name, environment)


class RealLaunch:
    """Servers of a scenario on real GPUs, or of any model on a CPU: vLLM's own executors.

    Args:
        scenario: Limits and sizes.
        model: Folder or name of the model's weights.
        more: Further flags, such as `("--gpu-memory-utilization", "0.9")`; they come last and win.
        environment: Further variables.

    Raises:
        EngineUnavailableError: vLLM is not installed.
    """

    def __init__(
        self,
        scenario: Scenario,
        model: str,
        more: Sequence[str] = (),
        environment: Mapping[str, str | None] | None = None,
    ) -> None:
        self.scenario, self._model = scenario, model
        self._more, self._environment = tuple(more), dict(environment or {})
        server_module()

    def __call__(self, size: int, gpus: tuple[int, ...], port: int) -> ServerCommand:
        """Describe a server over its GPUs."""
        settings = self.scenario.engine.model_dump() | {"tensor_parallel_size": size}
        environment: dict[str, str | None] = {
            **QUIET,
            "CUDA_DEVICE_ORDER": "PCI_BUS_ID",  # as NVML counts them
            "CUDA_VISIBLE_DEVICES": ",".join(map(str, gpus)),
            **self._environment,
        }
        name = self.scenario.model
        argv = _argv(self._model, name, port, settings) + self._more
        return ServerCommand(argv, name, environment)
