"""What a comparison compares: agents, seeds, and everything that is common to them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from throttllem_env.evaluation.sweeps.cluster import check_cluster
from throttllem_env.serving import is_real_time, require_backend
from throttllem_env.serving.workload import Part
from throttllem_env.suggest import nearest

CONTROLS = ("own", "events", "period")
"""`own` gives each controller its own control points, the others force one kind on all."""

OF_A_RUN = ("load", "slo_scale", "length_predictor", "control", "backend", "split", "duration_s")
"""Fields that matter to a run, besides scenario, trace, agent and seed, which enter by their content."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What `throttllem compare` takes.

    Attributes:
        agents: Controllers, each `name` or `name:key=value,...`; savings are against the first.
        scenario: Name of a shipped scenario, or path of a YAML file.
        trace: Path, or name as `throttllem trace` takes it.
        seeds: How many replicas of the trace every agent serves: seeds 0 to `seeds` - 1.
        load: Share of the rated load of the largest size.
        slo_scale: Multiplies the latency SLOs.
        length_predictor: `learned`, `noisy-P` or `oracle`.
        control: `own`, `events` or `period`.
        backend: Name of the backend.
        split: Which blocks of the trace: `all`, `train`, `validation` or `test`.
        duration_s: Serve only this much of the trace, seconds; None for all of it.
        jobs: Runs at once, each in a process of its own when above 1; None for 1, or for all cores of the
            cluster.
        out: Folder for the results; None to write nothing.
        cluster: `ray` for the Ray cluster at RAY_ADDRESS, `ray:ADDRESS` for another, None for this machine.
        fresh: Run again what is in the folder.
    """

    agents: tuple[str, ...]
    scenario: str = "llama2-13b-a100"
    trace: str = "azure-conv-like"
    seeds: int = 1
    load: float = 1.0
    slo_scale: float = 1.0
    length_predictor: str = "learned"
    control: str = "own"
    backend: str = "simulator"
    split: str = "all"
    duration_s: float | None = None
    jobs: int | None = None
    out: Path | None = None
    cluster: str | None = None
    fresh: bool = False

    def check(self) -> None:
        """Refuse what cannot be run, whatever the scenario and the trace are.

        Raises:
            ValueError: Names the field, the value, and the nearest valid choice.
        """
        if not self.agents:
            raise ValueError("agents = '': name at least one, such as max-frequency,throttllem")
        for agent in self.agents:
            if self.agents.count(agent) > 1:
                raise ValueError(f"agents: {agent!r} is named twice; each may be named once")
        for field, choices in (("control", CONTROLS), ("split", get_args(Part))):
            value = getattr(self, field)
            if value not in choices:
                raise ValueError(f"{field} = {value!r}: unknown; {nearest(value, choices)}")
        require_backend(self.backend)
        if is_real_time(self.backend) and ((self.jobs or 1) > 1 or self.cluster is not None):
            raise ValueError(f"jobs = {self.jobs}: backend {self.backend!r} runs in real time, one at a time")
        for field in ("seeds", "jobs"):
            count = getattr(self, field)
            if count is not None and count < 1:
                raise ValueError(f"{field} = {count}: must be a whole number of at least 1")
        for field in ("load", "slo_scale", "duration_s"):
            value = getattr(self, field)
            if value is not None and not 0 < value < float("inf"):
                raise ValueError(f"{field} = {value}: must be a finite number above 0")
        check_cluster(self.cluster)

    def of_a_run(self) -> dict[str, Any]:
        """What determines the result of a run, whoever else takes part and wherever it runs."""
        return {name: getattr(self, name) for name in OF_A_RUN}


def split_agents(text: str) -> tuple[str, ...]:
    """Take a list of controllers apart, whose own parameters are separated by commas as well.

    Args:
        text: `name,name:key=value,key=value,name`.

    Returns:
        One spec per controller, in order.

    Example:
        >>> split_agents("max-frequency,static-frequency:mhz=990,size=2,throttllem")
        ('max-frequency', 'static-frequency:mhz=990,size=2', 'throttllem')
    """
    specs: list[str] = []
    for part in (piece.strip() for piece in text.split(",")):
        # `key=value` without a name before it belongs to the controller to its left.
        if specs and "=" in part.partition(":")[0]:
            specs[-1] += f",{part}"
        elif part:
            specs.append(part)
    return tuple(specs)
