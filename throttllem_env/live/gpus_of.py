"""Opens the GPUs of a node: an actuator that can be trusted, with a guardian beside it."""

from collections.abc import Callable
from pathlib import Path

from throttllem_env.gpu import Caution, SafeActuator
from throttllem_env.gpu.actuator import Actuator
from throttllem_env.gpu.choice import make_actuator
from throttllem_env.gpu.device_file import DeviceFile
from throttllem_env.gpu.events import GpuEvent
from throttllem_env.gpu.guardian import Driver, GuardedActuator, Guardian, GuardianSettings
from throttllem_env.live.node_plan import NodePlan
from throttllem_env.scenario import Scenario


def emulated_gpus(path: Path, scenario: Scenario) -> Path:
    """Make the file of a scenario's emulated GPUs, idle at their top clock; returns its path."""
    physics, spec = scenario.physics(scenario.sizes[0]), scenario.gpu_spec
    DeviceFile.create(
        path,
        {mhz: physics.at(mhz).idle_w for mhz in spec.clocks_mhz},
        scenario.gpus_per_node,
        name=f"Emulated {scenario.gpu}",
        power_limit_w=spec.power_limit_w,
        set_delay_s=scenario.switching.median_s,
    ).close()
    return path


def open_gpus(
    plan: NodePlan,
    device_file: Path | None,
    say: Callable[[str], None],
    on_event: Callable[[GpuEvent], None],
    on_lapse: Callable[[], None],
) -> SafeActuator:
    """Open the GPUs of a plan; nothing is set yet, and a guardian starts with the first lock.

    Args:
        plan: Which, and who may set clocks.
        device_file: The emulated ones.
        say: Told in a line what the guardian does.
        on_event: Told what GPUs do that they should not, in any thread.
        on_lapse: Told in any thread that the guardian gave clocks back unasked.

    Raises:
        ActuatorError: There is no driver, no daemon or no such GPU.
        ValueError: Too few GPUs for the scenario's largest size, or `restore_mhz` does not suit them.
    """
    in_file = device_file if plan.actuator in ("emulated", "observe") else None
    plain = make_actuator(plan.actuator, plan.gpu_ids, restore_mhz=plan.restore_mhz, device_file=in_file)
    try:
        least = plan.scenario.largest_size
        if len(plain.gpus) < least:
            raise ValueError(f"{len(plain.gpus)} GPUs are there: {plan.scenario.name} needs {least}")
        guarded = plain if not plain.writes else _guarded(plan, plain, in_file, say, on_lapse)
        return SafeActuator(guarded, Caution(restore_mhz=plan.restore_mhz, force=plan.force), on_event)
    except BaseException:
        plain.close()
        raise


def _guarded(
    plan: NodePlan,
    plain: Actuator,
    in_file: Path | None,
    say: Callable[[str], None],
    on_lapse: Callable[[], None],
) -> Actuator:
    """The same actuator, with a guardian that gives GPUs back whatever happens to this process."""
    driver = Driver(plan.actuator, None if in_file is None else str(in_file))
    folder = plan.folder / "guardian" if in_file is not None else None  # real GPUs: one place per user
    if folder is not None:
        folder.mkdir(mode=0o700, exist_ok=True)
    settings = GuardianSettings(driver, folder)
    guarded = GuardedActuator(
        plain, lambda: Guardian(settings, report=say), restore_mhz=plan.restore_mhz, report=say
    )
    guarded.on_lapse = on_lapse
    return guarded
