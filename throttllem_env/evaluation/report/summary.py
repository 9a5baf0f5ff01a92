"""What came out, in words and in one table."""

from typing import Any

from throttllem_env.evaluation.report.parts import Cell, Number, Section, Table, number
from throttllem_env.evaluation.report.source import Source
from throttllem_env.evaluation.report.tradeoff import bound_means
from throttllem_env.evaluation.tables import MISSING, energy_unit, targets


def headline(source: Source) -> str:
    """The result in one sentence."""
    best = best_entry(source.document)
    if best is None:
        return "No agent saves energy while it attains the SLOs"
    saved, against = best["saving"]["energy"], best["saving"]["against"]
    return f"{best['agent']} uses {100 * saved:.1f}\u00a0% less energy than {against} and attains the SLOs"


def best_entry(document: dict[str, Any]) -> dict[str, Any] | None:
    """The agent that saves most of those that attain the SLOs in all runs; None if nobody saves."""
    savers = [
        e
        for e in document["summary"]
        if e["slo_attained"] and e["saving"] and (e["saving"]["energy"] or 0) > 0
    ]
    return max(savers, key=lambda entry: entry["saving"]["energy"], default=None)


def summary(source: Source) -> Section:
    """Say who saves how much, who misses an SLO, and how far the best is from the bounds.

    Args:
        source: The comparison.
    """
    words = [*_best(source), *_missed(source), *_failures(source)]
    return Section("summary", "In short", words, tables=[_table(source)])


def _best(source: Source) -> list[str]:
    best = best_entry(source.document)
    if best is None:
        return [f"{targets(source.document)}."]
    saving = best["saving"]
    sentence = (
        f"{headline(source)}: {100 * best['means']['slo_attainment']:.2f} % of its requests are in time"
    )
    if saving["interval"]:
        low, high = saving["interval"]
        sentence += f" (95\u00a0% interval of the saving: {100 * low:.1f} to {100 * high:.1f} %)"
    return [f"{sentence}. {targets(source.document)}.", *_distance(source, best)]


def _distance(source: Source, best: dict[str, Any]) -> list[str]:
    means = bound_means(source.document)
    if means is None:
        return []
    lower_j, best_j = means
    energy_j = best["means"]["energy_j"]
    text = f"It uses {_more(energy_j, lower_j)} than the proven lower bound"
    if best_j is not None:
        text += f", and {_more(energy_j, best_j)} than the best schedule found in hindsight"
    return [f"{text}."]


def _more(energy_j: float, bound_j: float) -> str:
    return f"{100 * (energy_j / bound_j - 1):.1f} % more energy"


def _missed(source: Source) -> list[str]:
    missed = [entry["agent"] for entry in source.document["summary"] if not entry["slo_attained"]]
    if not missed:
        return ["All agents attain the SLOs in all their runs."]
    return [
        f"The SLOs are missed, in at least one run, by: {', '.join(missed)}. What they save does not count."
    ]


def _failures(source: Source) -> list[str]:
    failures = source.document["failures"]
    texts = [f"{f['agent']}, seed {f['seed']}, failed: {f['error']}" for f in failures]
    if source.lost:
        texts.append(
            f"The files of {source.lost} of {len(source.document['runs'])} runs are not in the folder, so "
            "parts of this page lack them. The command at the end of the page makes them again."
        )
    return texts


def _table(source: Source) -> Table:
    unit, joules, digits = energy_unit(source.document)
    bounds = bound_means(source.document)
    heads = [
        "agent", f"energy, {unit}", "saving, %", "95 % interval", "in time, %", "SLOs", "tokens per J",
        "E2E p99, s", "between tokens, ms", "clock, MHz", "size changes",
    ]  # fmt: skip
    if bounds:
        heads[4:4] = ["above best, %", "above bound, %"]
    rows = []
    for entry in source.document["summary"]:
        cells = _row(entry, 1 / joules, digits)
        if bounds:
            cells[4:4] = _above(entry)
        rows.append(cells)
    caption = "Means over an agent's runs; agents in the order in which they were named."
    if bounds:
        caption += (
            " Above best: more energy than the best schedule found in hindsight; above bound: than the bound."
        )
    return Table(caption, heads, rows)


def _row(entry: dict[str, Any], factor: float, digits: int) -> list[Cell]:
    means = entry["means"]
    return [
        entry["agent"],
        number(means["energy_j"], factor, digits),
        number((entry["saving"] or {}).get("energy"), 100, 1),
        _interval(entry),
        number(means["slo_attainment"], 100, 2),
        "✓ held" if entry["slo_attained"] else "✗ missed",
        number(means["tokens_per_joule"], 1, 3),
        number(means["e2e_p99_s"], 1, 1),
        number(means["tbt_mean_s"], 1e3, 1),
        number(means["frequency_mean_mhz"], 1, 0),
        number(means["size_changes"], 1, 1),
    ]


def _interval(entry: dict[str, Any]) -> str:
    interval = (entry["saving"] or {}).get("interval")
    return f"{100 * interval[0]:.1f} … {100 * interval[1]:.1f}".replace("-", "−") if interval else MISSING


def _above(entry: dict[str, Any]) -> list[Number]:
    """By how much the energy lies above the best schedule found and above the lower bound."""
    above = entry.get("above") or {}
    return [number(above.get(name), 100, 1) for name in ("best", "lower")]
