"""Everything that a comparison leaves in its folder."""

from pathlib import Path
from typing import Any

from throttllem_env.evaluation.compare import Comparison
from throttllem_env.evaluation.plots import write_plots
from throttllem_env.evaluation.plots.tradeoff import tradeoff_figure
from throttllem_env.evaluation.results import write_json
from throttllem_env.evaluation.tables import markdown
from throttllem_env.evaluation.tensorboard import write_tensorboard


def prepare_folder(out: Path) -> None:
    """Make the folder before long work begins, which would be lost without it.

    Args:
        out: The folder.

    Raises:
        ValueError: It cannot be made or written to.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        probe = out / ".throttllem-probe"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ValueError(
            f"out = {str(out)!r}: not a folder that can be written to: {error.strerror}"
        ) from error


def write_outputs(comparison: Comparison, document: dict[str, Any], out: Path) -> list[Path]:
    """Write `results.json`, `results.md`, plots and TensorBoard events.

    Plots and events of an earlier comparison in the folder are replaced.

    Args:
        comparison: The runs.
        document: What `results` returned for them.
        out: The folder.

    Returns:
        What was written, for people: files, and the folders of plots and events.
    """
    prepare_folder(out)
    write_json(document, out / "results.json")
    (out / "results.md").write_text(markdown(document), encoding="utf-8")
    written = [out / "results.json", out / "results.md"]
    for stale in (out / "plots").glob("*.png"):
        stale.unlink()
    if comparison.runs:
        written += write_plots(comparison, document, out / "plots")
        write_tensorboard(comparison, out / "tb", tradeoff_figure(document))
        written.append(out / "tb")
    return written
