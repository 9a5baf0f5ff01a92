"""Profiles a backend over sizes and clocks; what is done stays done when interrupted.

A cell is a size at a clock. Each is written to a file of its own beside the profile as soon as it is
measured, with randomness of its own, so that the order of cells and interruptions change nothing.
"""

import datetime
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

from throttllem_env.evaluation.profiling.measuring import MAX_DECODE_ROWS, Cell, measure_cell
from throttllem_env.evaluation.sweeps.workers import run_parallel
from throttllem_env.prediction.ips import (
    Noise,
    Profile,
    ProfileError,
    ProfileInfo,
    Samples,
    read_profile,
    write_profile,
)
from throttllem_env.scenario import Scenario
from throttllem_env.serving import is_real_time, make_backend
from throttllem_env.suggest import nearest

SIMULATOR_NOISE = Noise(iteration_sigma=0.03, counter_sigma=0.01)
"""Fixed beforehand for simulators, which measure without error; live backends bring their own."""

LIVE_S = 60.0
"""How long a cell is measured on live servers."""


def profile_backend(
    scenario: Scenario,
    out: Path,
    *,
    backend: str = "simulator",
    sizes: tuple[int, ...] | None = None,
    clocks: int | None = None,
    seed: int = 0,
    jobs: int = 1,
    seconds: float = LIVE_S,
    command: str = "",
    on_start: Callable[[Path, int, int], None] = lambda *_: None,
) -> Profile:
    """Measure all cells that are not there yet, then join them.

    Args:
        scenario: What to profile.
        out: The profile to write. An unfinished one of the same settings is continued.
        backend: One of `BACKENDS`.
        sizes: Instance sizes; default all of the scenario.
        clocks: How many clocks, evenly spaced, both ends included; default all.
        seed: Seeds load and noise.
        jobs: Processes; 1 on live servers.
        seconds: On live servers, how long each cell is measured.
        command: For the profile's metadata.
        on_start: Told the folder in which cells appear as files, how many are there, and of how many.

    Returns:
        The profile as written.

    Raises:
        ProfileError: A setting that is not valid, or rows of other settings in the way.
    """
    chosen_sizes = sizes or scenario.sizes
    chosen_mhz = choose_clocks(scenario.gpu_spec.clocks_mhz, clocks)
    info = _describe(scenario, backend, _checked_sizes(chosen_sizes, scenario), seed, command)
    if out.exists():
        raise ProfileError(f"out = {str(out)!r}: is there already; delete it or choose another name")
    parts = parts_folder(out)
    _claim(parts, info)
    cells = [
        Cell(_alone(scenario, size), info, mhz, parts / f"tp{size}-{mhz}mhz.parquet")
        for size in chosen_sizes
        for mhz in chosen_mhz
    ]
    missing = [cell for cell in cells if not cell.path.exists()]
    on_start(parts, len(cells) - len(missing), len(cells))
    if not is_real_time(backend):
        run_parallel(measure_cell, [(cell,) for cell in missing], jobs)
    elif jobs > 1:
        raise ProfileError(f"jobs = {jobs}: backend {backend!r} runs in real time, one at a time")
    else:
        from throttllem_env.evaluation.profiling.live import measure_live

        measure_live(missing, seconds)
    joined = Samples.concatenate([read_profile(cell.path).samples for cell in cells])
    profile = Profile(info, joined)
    write_profile(profile, out)
    shutil.rmtree(parts)
    return profile


def parts_folder(out: Path) -> Path:
    """Where the cells of an unfinished profile are."""
    return out.with_name(f"{out.name}.parts")


def choose_clocks(clocks_mhz: tuple[int, ...], count: int | None) -> tuple[int, ...]:
    """Evenly spaced clocks, both ends included.

    Raises:
        ProfileError: Fewer than 2, or more than there are.

    Example:
        >>> choose_clocks((210, 225, 240, 255, 270), 3)
        (210, 240, 270)
    """
    if count is None:
        return clocks_mhz
    if not 2 <= count <= len(clocks_mhz):
        raise ProfileError(f"clocks = {count}: accepted: 2 to {len(clocks_mhz)}")
    picked = np.linspace(0, len(clocks_mhz) - 1, count).round().astype(int)
    return tuple(clocks_mhz[i] for i in picked)


def _checked_sizes(sizes: tuple[int, ...], scenario: Scenario) -> tuple[int, ...]:
    for size in sizes:
        if size not in scenario.sizes:
            known = [str(s) for s in scenario.sizes]
            raise ProfileError(f"sizes: {size} is not one of {scenario.name}; {nearest(str(size), known)}")
    if len(set(sizes)) < len(sizes):
        raise ProfileError(f"sizes = {list(sizes)}: must not repeat")
    return sizes


def _alone(scenario: Scenario, size: int) -> Scenario:
    """The scenario with one size, so that it serves from the start."""
    return scenario.model_copy(update={"sizes": (size,), "admission": "vllm"})


def _describe(
    scenario: Scenario, backend: str, sizes: tuple[int, ...], seed: int, command: str
) -> ProfileInfo:
    from throttllem_env import __version__

    made = make_backend(backend, scenario)
    capabilities = made.capabilities
    made.close()
    return ProfileInfo(
        scenario=scenario.name,
        scenario_version=scenario.version,
        model=scenario.model,
        gpu=scenario.gpu,
        block_size=scenario.engine.block_size,
        max_num_seqs=scenario.engine.max_num_seqs,
        kv_blocks={size: scenario.kv_blocks(size) - 1 for size in sorted(sizes)},  # less vLLM's null block
        clocks_mhz=capabilities.clocks_mhz,
        backend=backend,
        seed=seed,
        noise=SIMULATOR_NOISE if capabilities.virtual_time else Noise(),
        package_version=__version__,
        command=command,
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
        power_cap_w=scenario.power_cap_w,
    )


def _claim(parts: Path, info: ProfileInfo) -> None:
    """Make the folder of cells, or see that what is in it belongs to this profile."""
    parts.mkdir(parents=True, exist_ok=True)
    for path in sorted(parts.glob("tp*.parquet")):
        if not read_profile(path).info.measured_alike(info):
            raise ProfileError(
                f"{parts}: holds an unfinished profile of other settings (scenario, backend, sizes or seed); "
                "continue that one, delete the folder, or choose another --out"
            )


__all__ = ["LIVE_S", "MAX_DECODE_ROWS", "choose_clocks", "parts_folder", "profile_backend"]
