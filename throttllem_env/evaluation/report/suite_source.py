"""What a suite's page is made from: the results of its cases."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from throttllem_env.evaluation.report.source import Source, read_document
from throttllem_env.evaluation.suites.run import CaseResult
from throttllem_env.evaluation.suites.suite import Case
from throttllem_env.traces import PUBLISHED_TRACES

PARTS = ("scenario", "trace", "load", "slo_scale", "length_predictor")


@dataclass(frozen=True, slots=True)
class SuiteSource:
    """A suite's folder.

    Attributes:
        folder: Where it lies.
        results: Of all cases, by the names of their folders.
        agents: All agents, in the order in which they were named.
        labels: What tells each case from the others, for people.
    """

    folder: Path
    results: tuple[CaseResult, ...]
    agents: tuple[str, ...]
    labels: tuple[str, ...]

    def source(self, number: int) -> Source:
        """One case, without its runs, agents in the colours that they have on all of the page."""
        result = self.results[number]
        return Source(result.folder, result.document, (), self.agents)


def is_suite(folder: Path) -> bool:
    """Whether a folder holds cases of a suite instead of results of its own."""
    return not (folder / "results.json").is_file() and any(folder.glob("*/results.json"))


def read_suite(folder: Path) -> SuiteSource:
    """Read a folder that `throttllem compare --suite` wrote.

    Args:
        folder: Has a folder with `results.json` for each case.

    Raises:
        ValueError: A case's results cannot be read.
    """
    results = []
    for path in sorted(folder.glob("*/results.json")):
        document = read_document(path.parent)
        settings = document["provenance"]["settings"]
        results.append(CaseResult(Case(*(settings[name] for name in PARTS)), path.parent, document))
    named = [agent for r in results for agent in r.document["provenance"]["settings"]["agents"]]
    present = {entry["agent"] for r in results for entry in r.document["summary"]}
    agents = tuple(agent for agent in dict.fromkeys(named) if agent in present)
    return SuiteSource(folder, tuple(results), agents, _labels([result.case for result in results]))


def _labels(cases: Sequence[Case]) -> tuple[str, ...]:
    """Trace and load, and whatever else differs."""
    said = [
        {
            "scenario": Path(case.scenario).stem if Path(case.scenario).suffix else case.scenario,
            "trace": _trace(case.trace),
            "load": f"load {case.load:g}",
            "slo_scale": f"SLO × {case.slo_scale:g}",
            "length_predictor": case.length_predictor,
        }
        for case in cases
    ]
    differing = [p for p in PARTS if p in ("trace", "load") or len({words[p] for words in said}) > 1]
    return tuple(", ".join(words[part] for part in differing) for words in said)


def _trace(trace: str) -> str:
    """A published trace by its name, another file without its folder."""
    name = Path(trace).name
    return next((n for n, published in PUBLISHED_TRACES.items() if published.filename == name), name)


def first_agent(document: dict[str, Any]) -> str:
    """Whom a case's savings are against."""
    agent: str = document["provenance"]["settings"]["agents"][0]
    return agent
