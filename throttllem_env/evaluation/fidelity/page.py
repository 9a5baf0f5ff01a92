"""The page: its head and the order of its sections."""

from pathlib import Path

from throttllem_env.evaluation.document import write_page
from throttllem_env.evaluation.fidelity.clocks import a800_section, sweet_spot_section
from throttllem_env.evaluation.fidelity.engines import engine_section, live_section
from throttllem_env.evaluation.fidelity.kernels import kernel_section, splitwise_section
from throttllem_env.evaluation.fidelity.measured import measured_section
from throttllem_env.evaluation.fidelity.powers import a100_prefill_section, h100_section, serving_section

COMMAND = "python scripts/fidelity.py --calibration ../shared/calibration"
HEAD = f"""# Fidelity of the hardware models

Every model of time and power against every data set that it can be held to. Made by

    {COMMAND}

which refits everything, holds data out, and then holds the shipped profiles
(`throttllem_env/hardware/profiles/`, written by `scripts/fit_hardware.py`) to figures that nothing was
fitted to. Errors are mean absolute relative errors. What no data support is listed under `assumed` in every
profile: above all H100 latency against the clock, sizes 4 and 8 of the A100 against the clock, and the
memory of the A100-40GB. A result of `scripts/measure_gpu.py` in `docs/measurements/` makes one more
section; there is one only if somebody had a GPU.

First how the simulators compare with the engine that they simulate, last with real servers: results of other
commands, which are named there."""


def write_fidelity(calibration: Path, docs: Path) -> list[Path]:
    """Write `fidelity.md` and its pictures.

    Args:
        calibration: Folder with the calibration figures.
        docs: Where to write. Measurements are looked for in its folder `measurements`, and what
            vLLM's engine was found to do in its page `engine.md`.

    Returns:
        The files written.
    """
    sections = [
        engine_section(docs / "engine.md"),
        kernel_section(calibration),
        a800_section(calibration),
        h100_section(calibration),
        a100_prefill_section(calibration),
        sweet_spot_section(),
        splitwise_section(calibration),
        serving_section(calibration),
    ]
    measured = measured_section(docs / "measurements")
    live = live_section(docs / "measurements")
    sections += [each for each in (measured, live) if each]
    return write_page(HEAD, sections, docs / "fidelity.md", docs / "images")
