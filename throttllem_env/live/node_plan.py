"""What a node of live servers is to be made of."""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from throttllem_env.gpu.choice import ACTUATORS
from throttllem_env.live.telemetry import AgeBounds
from throttllem_env.scenario import Scenario, load_scenario
from throttllem_env.serving.vllm.servers.settings import require_user
from throttllem_env.suggest import nearest


@dataclass(frozen=True)
class NodePlan:
    """Servers, GPUs, and who may set clocks.

    Attributes:
        scenario_spec: What is served on what: a scenario's name, or its YAML file.
        folder: Where servers write their logs, and emulated GPUs lie; it must exist.
        actuator: One of `ACTUATORS`; `observe` sets nothing and resizes nothing.
        emulate: Have vLLM run on emulated GPUs, at the speed and power of the scenario's.
        model: Weights to serve, a folder or a name; where nothing is emulated.
        vllm_args: Further arguments of every vLLM server.
        gpu_ids: GPUs that may be used, the driver's indices or UUIDs; None for all.
        device_file: File of emulated GPUs that exists already; None makes one.
        restore_mhz: Least and highest clock that GPUs are given back with; None for the driver's default.
        force: Override locks that somebody else seems to hold.
        ages: How old what telemetry is made of may be.
        start_timeout_s: How long a server may take to start.
        server_user: Whose the servers' processes are, where we are root; None for our own.

    Raises:
        ValueError: If they do not go together; it names the field and what would be valid.
    """

    scenario_spec: str
    folder: Path
    actuator: str = "observe"
    emulate: bool = False
    model: str | None = None
    vllm_args: tuple[str, ...] = ()
    gpu_ids: tuple[int | str, ...] | None = None
    device_file: Path | None = None
    restore_mhz: tuple[int, int] | None = None
    force: bool = False
    ages: AgeBounds = field(default_factory=AgeBounds)
    start_timeout_s: float = 900.0
    server_user: str | None = None

    def __post_init__(self) -> None:
        if self.actuator not in ACTUATORS:
            raise ValueError(f"gpus = {self.actuator!r}: unknown; {nearest(self.actuator, ACTUATORS)}")
        if not (self.emulate or self.model):
            raise ValueError("model is missing: name the weights to serve, or emulate")
        if self.actuator == "emulated" and not self.emulate:
            raise ValueError("gpus = 'emulated': only emulated servers run on those; take nvml or observe")
        if self.server_user is not None:
            self._check_user(self.server_user)
        if self.device_file is not None and not self.emulate:
            raise ValueError(f"device_file = {self.device_file}: only emulated servers have one")

    def _check_user(self, user: str) -> None:
        if self.emulate:
            raise ValueError(f"server_user = {user!r}: emulated servers write our GPUs' file; leave it out")
        require_user(user)

    @cached_property
    def scenario(self) -> Scenario:
        """What is served on what.

        Raises:
            ScenarioError: It does not exist or is not valid.
        """
        return load_scenario(self.scenario_spec)
