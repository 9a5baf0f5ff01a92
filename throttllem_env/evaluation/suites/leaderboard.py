"""The leaderboard: where every agent stands in every case of a suite, as a page."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

from throttllem_env.evaluation.suites.run import CaseResult
from throttllem_env.evaluation.suites.suite import Suite
from throttllem_env.evaluation.tables import MISSING, number


def leaderboard(suite: Suite, results: Sequence[CaseResult], command: str) -> str:
    """The page, in Markdown.

    Args:
        suite: What was run.
        results: Of all its cases.
        command: What makes the page.
    """
    agents = list(dict.fromkeys(e["agent"] for r in results for e in r.document["summary"]))
    versions = results[0].document["provenance"]["versions"]
    lines = [
        f"# Leaderboard: suite `{suite.name}`, version {suite.version}",
        "",
        suite.description,
        "",
        f"Savings are energy against `{suite.agents[0]}` in the same case, over {suite.seeds} "
        f"{'replica' if suite.seeds == 1 else 'replicas'} of each trace. Agents that hold the SLOs in more "
        "cases come first, then those that save more on average. A saving in brackets was bought by missing "
        "an SLO and does not count.",
        "",
        *_overall(agents, results),
        "",
        "## Case by case",
        "",
        *_matrix(agents, results),
        "",
        *_winners(results),
        "",
        f"Made by throttllem-env {versions['throttllem-env']} with",
        "",
        f"    {command}",
        "",
        "Every entry can be run again: `throttllem report --replay CASE/results.json --entry N`.",
        "",
    ]
    return "\n".join(lines)


def _entries(agent: str, results: Sequence[CaseResult]) -> list[dict[str, Any] | None]:
    """An agent's summary in each case, None where it has no run."""
    found = []
    for result in results:
        by_agent = {entry["agent"]: entry for entry in result.document["summary"]}
        found.append(by_agent.get(agent))
    return found


def _saved(entry: dict[str, Any] | None) -> float:
    """Share of energy saved; nan where there is nothing to compare."""
    saving = entry["saving"] if entry else None
    return math.nan if saving is None or saving["energy"] is None else float(saving["energy"])


def standing(agent: str, results: Sequence[CaseResult]) -> tuple[int, float]:
    """In how many cases an agent holds the SLOs, and what it saves on average in those.

    Args:
        agent: As it was named.
        results: Of all cases.
    """
    held = [e for e in _entries(agent, results) if e and e["slo_attained"]]
    savings = [s for s in map(_saved, held) if not math.isnan(s)]
    return len(held), sum(savings) / len(savings) if savings else math.nan


def _overall(agents: list[str], results: Sequence[CaseResult]) -> Iterator[str]:
    rows = [(agent, *standing(agent, results)) for agent in agents]
    rows.sort(key=lambda row: (-row[1], -row[2] if not math.isnan(row[2]) else math.inf))
    yield "| | agent | SLOs held in | mean saving there |"
    yield "|--:|---|--:|--:|"
    for rank, (agent, held, saving) in enumerate(rows, start=1):
        shown = MISSING if math.isnan(saving) else f"{100 * saving:.1f} %"
        yield f"| {rank} | `{agent}` | {held} of {len(results)} | {shown} |"


def _matrix(agents: list[str], results: Sequence[CaseResult]) -> Iterator[str]:
    """A row per agent and a column per case: saving and attainment."""
    yield "Saving, and the share of requests in time, both in %."
    yield ""
    yield f"| agent | {' | '.join(_head(r) for r in results)} |"
    yield f"|---|{'--:|' * len(results)}"
    for agent in agents:
        yield f"| `{agent}` | {' | '.join(_cell(e) for e in _entries(agent, results))} |"


def _head(result: CaseResult) -> str:
    """A case as the head of a column, without what all cases share by default."""
    case = result.case
    slo = "" if case.slo_scale == 1 else f"<br>SLO × {case.slo_scale:g}"
    return f"{case.scenario}<br>{case.trace}<br>load {case.load:g}{slo}<br>{case.length_predictor}"


def _cell(entry: dict[str, Any] | None) -> str:
    if entry is None:
        return MISSING
    saved = _saved(entry)
    saving = MISSING if math.isnan(saved) else f"{100 * saved:.1f}"
    attainment = number(entry["means"]["slo_attainment"], 100, 2)
    return f"{saving} · {attainment}" if entry["slo_attained"] else f"({saving}) · {attainment}"


def _above(entry: dict[str, Any]) -> str:
    """How far an agent is from the best possible, where that was asked for."""
    above = entry.get("above")
    if not above:
        return ""
    best, lower = (number(above[name], 100, 1) for name in ("best", "lower"))
    return f", {best} % above the best schedule found in hindsight, {lower} % above the lower bound"


def _winners(results: Sequence[CaseResult]) -> Iterator[str]:
    """Who used the least energy of those that hold the SLOs, in words, case by case."""
    yield "Least energy of all that hold the SLOs:"
    yield ""
    for result in results:
        held = [e for e in result.document["summary"] if e["slo_attained"]]
        if held:
            best = min(held, key=lambda entry: entry["means"]["energy_j"])
            yield f"- {result.case.name}: `{best['agent']}`{_above(best)}"
        else:
            yield f"- {result.case.name}: nobody holds them"
