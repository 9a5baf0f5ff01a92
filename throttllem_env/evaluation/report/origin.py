"""What made the results: command, versions, settings."""

from typing import Any

from throttllem_env.evaluation.report.parts import Section, Table
from throttllem_env.evaluation.report.source import Source
from throttllem_env.evaluation.tables import targets


def origin(source: Source) -> Section:
    """Say how to come to the same results.

    Args:
        source: The comparison.
    """
    made = source.document["provenance"]
    replay = f"throttllem report --replay {source.folder / 'results.json'} --entry 0"
    lead = [
        f"Made {made['created']} on {made['platform']}. The first command makes these results again; the "
        "second runs one entry again and compares it to the last bit."
    ]
    return Section(
        "origin",
        "Where the numbers come from",
        [*lead, *_caveats(made)],
        tables=[
            Table("Versions.", ["package", "version"], [list(item) for item in made["versions"].items()]),
            Table("Settings.", ["setting", "value"], _settings(source.document)),
        ],
        code=[made["command"], replay],
    )


def _caveats(made: dict[str, Any]) -> list[str]:
    backend = made["settings"]["backend"]
    texts = [f"Intervals: {made['interval']}."]
    if backend != "live":
        texts.append(
            f"GPUs are modelled (backend {backend}), fitted to published measurements; the documentation's "
            "page on fidelity says how far the models are off."
        )
    return texts


def _settings(document: dict[str, Any]) -> list[list[str]]:
    made = document["provenance"]
    scenario, settings = made["scenario"], made["settings"]
    pairs = {
        "scenario": f"{scenario['name']} v{scenario['version']}",
        "model, GPU": f"{scenario['model']}, {scenario['gpu']}",
        "sizes": ", ".join(str(size) for size in scenario["sizes"]) + " GPUs",
        "targets": targets(document).removeprefix("SLOs: "),
        "trace": settings["trace"].rsplit("/", 1)[-1],
    }
    skipped = {"agents", "out", "jobs", "cluster", "fresh", "scenario", "trace"}
    rest = {name: str(value) for name, value in settings.items() if name not in skipped and value is not None}
    return [[name.replace("_", " "), value] for name, value in (pairs | rest).items()]
