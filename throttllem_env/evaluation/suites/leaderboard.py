"""The leaderboard: where every agent stands in every case of a suite, as a page."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

from throttllem_env.evaluation.suites.run import CaseResult
from throttllem_env.evaluation.suites.suite import Suite
from throttllem_env.evaluation.tables import MISSING, number

OURS = ("throttllem", "learned")
AIM = 0.10
"""What our best should stay within of the best schedule in hindsight."""


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
        *_closeness(results),
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
    return [summary_of(result.document, agent) for result in results]


def summary_of(document: dict[str, Any], agent: str) -> dict[str, Any] | None:
    """An agent's summary in a case; None where it has no run.

    Args:
        document: Of the case.
        agent: As it was named.
    """
    return next((entry for entry in document["summary"] if entry["agent"] == agent), None)


def saved(entry: dict[str, Any] | None) -> float:
    """Share of energy saved; nan where there is nothing to compare.

    Args:
        entry: An agent's summary in a case; None where it has none.
    """
    saving = entry["saving"] if entry else None
    return math.nan if saving is None or saving["energy"] is None else float(saving["energy"])


def standing(agent: str, results: Sequence[CaseResult]) -> tuple[int, float]:
    """In how many cases an agent holds the SLOs, and what it saves on average in those.

    Args:
        agent: As it was named.
        results: Of all cases.
    """
    held = [e for e in _entries(agent, results) if e and e["slo_attained"]]
    savings = [s for s in map(saved, held) if not math.isnan(s)]
    return len(held), sum(savings) / len(savings) if savings else math.nan


def ranking(agents: Sequence[str], results: Sequence[CaseResult]) -> list[tuple[str, int, float]]:
    """Agents with their standings: more cases held first, then more saved on average.

    Args:
        agents: As they were named.
        results: Of all cases.
    """
    rows = [(agent, *standing(agent, results)) for agent in agents]
    return sorted(rows, key=lambda row: (-row[1], -row[2] if not math.isnan(row[2]) else math.inf))


def _overall(agents: list[str], results: Sequence[CaseResult]) -> Iterator[str]:
    known = any("bounds" in result.document for result in results)
    yield f"| | agent | SLOs held in | mean saving there |{' mean above the best |' if known else ''}"
    yield f"|--:|---|--:|--:|{'--:|' if known else ''}"
    for rank, (agent, held, saving) in enumerate(ranking(agents, results), start=1):
        shown = MISSING if math.isnan(saving) else f"{100 * saving:.1f} %"
        distance = f" {_percent(mean_above(agent, results))} |" if known else ""
        yield f"| {rank} | `{agent}` | {held} of {len(results)} | {shown} |{distance}"


def _percent(share: float | None) -> str:
    return MISSING if share is None else f"{100 * share:.1f} %"


def mean_above(agent: str, results: Sequence[CaseResult]) -> float | None:
    """By which share an agent's energy is above that of the best schedules found in hindsight.

    Args:
        agent: As it was named.
        results: Of all cases.

    Returns:
        The mean over the cases in which it holds the SLOs; None where no best schedule is known.
    """
    found = [entry["above"]["best"] for entry in _entries(agent, results) if entry and entry.get("above")]
    return sum(found) / len(found) if found else None


def _matrix(agents: list[str], results: Sequence[CaseResult]) -> Iterator[str]:
    """A row per agent and a column per case: saving, attainment, distance to the best schedule."""
    known = any("bounds" in result.document for result in results)
    more = ", and how far its energy is above that of the best schedule found in hindsight" if known else ""
    yield f"Saving, the share of requests in time{more}: all in %."
    yield ""
    yield f"| agent | {' | '.join(_head(r) for r in results)} |"
    yield f"|---|{'--:|' * len(results)}"
    for agent in agents:
        yield f"| `{agent}` | {' | '.join(_cell(e) for e in _entries(agent, results))} |"
    for what, name in (("best_j", "best schedule in hindsight"), ("lower_j", "lower bound")) if known else ():
        yield f"| *{name}* | {' | '.join(_bound_cell(r.document, what) for r in results)} |"


def _head(result: CaseResult) -> str:
    """A case as the head of a column, without what all cases share by default."""
    case = result.case
    slo = "" if case.slo_scale == 1 else f"<br>SLO × {case.slo_scale:g}"
    return f"{case.scenario}<br>{case.trace}<br>load {case.load:g}{slo}<br>{case.length_predictor}"


def _cell(entry: dict[str, Any] | None) -> str:
    if entry is None:
        return MISSING
    share = saved(entry)
    saving = MISSING if math.isnan(share) else f"{100 * share:.1f}"
    attainment = number(entry["means"]["slo_attainment"], 100, 2)
    above = entry.get("above")
    distance = f" · {number(above['best'], 100, 1)}" if above else ""
    return f"{saving} · {attainment}{distance}" if entry["slo_attained"] else f"({saving}) · {attainment}"


def bound_saving(document: dict[str, Any], what: str) -> float | None:
    """What a bound saves against the first agent.

    Args:
        document: Of a case.
        what: `best_j` or `lower_j`.

    Returns:
        The share; None where the bound is not known, or the first agent has no run.
    """
    bounds = [bound[what] for bound in document.get("bounds", ())]
    first = document["provenance"]["settings"]["agents"][0]
    energies = [e["means"]["energy_j"] for e in document["summary"] if e["agent"] == first]
    if not bounds or None in bounds or not energies:
        return None
    return float(1 - sum(bounds) / len(bounds) / energies[0])


def _bound_cell(document: dict[str, Any], what: str) -> str:
    return number(bound_saving(document, what), 100, 1)


def _above(entry: dict[str, Any]) -> str:
    """How far an agent is from the best possible, where that was asked for."""
    above = entry.get("above")
    if not above:
        return ""
    best, lower = (number(above[name], 100, 1) for name in ("best", "lower"))
    return f", {best} % above the best schedule found in hindsight, {lower} % above the lower bound"


def least(document: dict[str, Any], *, ours: bool = False) -> dict[str, Any] | None:
    """The entry of least energy of all that hold the SLOs; None if nobody does.

    Args:
        document: Of a case.
        ours: Among this project's own agents alone.
    """
    held = [e for e in document["summary"] if e["slo_attained"] and (not ours or is_ours(e["agent"]))]
    return min(held, key=lambda entry: entry["means"]["energy_j"], default=None)


def is_ours(agent: str) -> bool:
    """Whether an agent is one of this project's own: the paper's, its kin, and what was learned over it."""
    return agent.startswith(OURS)


def _winners(results: Sequence[CaseResult]) -> Iterator[str]:
    """Who used the least energy of those that hold the SLOs, in words, case by case."""
    yield "Least energy of all that hold the SLOs:"
    yield ""
    for result in results:
        best = least(result.document)
        said = f"`{best['agent']}`{_above(best)}" if best else "nobody holds them"
        yield f"- {result.case.name}: {said}"


def _closeness(results: Sequence[CaseResult]) -> Iterator[str]:
    """How our own agents do: against all others, and against what hindsight could have done."""
    found = [(result, best) for result in results if (best := least(result.document, ours=True))]
    if not found:
        return
    yield "## How close our own come"
    yield ""
    yield (
        f"Ours are those whose names begin with {' or '.join(f'`{name}`' for name in OURS)}. They shall "
        "use the least energy of all that hold the SLOs, and at most "
        f"{100 * AIM:.0f} % more than the best schedule in hindsight, which is the least that a search "
        "with full knowledge of the trace found or that any run "
        "used ([bound.md](bound.md))."
    )
    yield ""
    for result, best in found:
        yield f"- {result.case.name}: {closeness(result.document, best)}"
    yield ""


def closeness(document: dict[str, Any], best: dict[str, Any]) -> str:
    """One sentence about the best of ours in a case.

    Args:
        document: Of the case.
        best: Its entry.
    """
    winner = least(document) or best
    more = best["means"]["energy_j"] / winner["means"]["energy_j"] - 1
    lead = f"the best of ours is `{best['agent']}`"
    rank = (
        "the lowest of all that hold the SLOs"
        if winner is best
        else f"**not the lowest**: {100 * more:.1f} % above `{winner['agent']}`"
    )
    above = best.get("above")
    if not above:
        return f"{lead}, {rank}."
    within = "within" if above["best"] <= AIM else "**not within**"
    return (
        f"{lead}, {rank}; {number(above['best'], 100, 1)} % above the best schedule in hindsight, {within} "
        f"{100 * AIM:.0f} %, and {number(above['lower'], 100, 0)} % above the lower bound."
    )
