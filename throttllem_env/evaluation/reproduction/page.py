"""The page: everything computed, then written."""

from pathlib import Path
from typing import NamedTuple

from throttllem_env.evaluation.document import write_page
from throttllem_env.evaluation.reproduction import clocks, engines, projections, sizes, throttling
from throttllem_env.evaluation.reproduction.engines import Reports
from throttllem_env.evaluation.reproduction.tasks import Answers, Task

COMMAND = "python scripts/reproduce_paper.py --traces ../shared/traces --calibration ../shared/calibration"
HEAD = f"""# The paper's evaluation, reproduced

throttLL'eM (Kakolyris et al., HPCA 2025, arXiv 2408.05235) reports its savings for A100-40GB GPUs under
Triton and TensorRT-LLM. This page runs the same experiments on our simulator of vLLM with physics that were
fitted to published measurements ([fidelity](fidelity.md)), on the Azure traces of 2023. Made by

    {COMMAND}

Every section gives the paper's figure, ours, and what the difference comes from. `throttllem` is the paper's
controller, `throttllem-energy` our own; both forecast with M's shipped tables ([M](ips.md)). A length error
of 0 % means true lengths (`oracle`), 30 % means `noisy-30`; `learned` is what a real service would have."""


class Found(NamedTuple):
    """All that the page is written from.

    Attributes:
        reports: M's, by scenario.
        answers: Results of all tasks.
    """

    reports: Reports
    answers: Answers


def tasks() -> list[Task]:
    """Everything that is simulated."""
    return [*projections.tasks(), *throttling.tasks(), *sizes.tasks()]


def write_reproduction(found: Found, calibration: Path, docs: Path) -> list[Path]:
    """Write `reproduction.md` and its pictures.

    Args:
        found: All results.
        calibration: Folder with the calibration figures.
        docs: Where to write.

    Returns:
        The files written.
    """
    sections = [
        engines.section(found.reports),
        projections.section(found.answers),
        throttling.section(found.answers),
        sizes.section(found.answers),
        clocks.section(calibration),
    ]
    return write_page(HEAD, sections, docs / "reproduction.md", docs / "images")
