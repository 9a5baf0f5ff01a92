"""The comparison's table for people: one set of columns, for the terminal and for `results.md`."""

from typing import Any

MISSING = "–"

LABELS = {
    "learned": "length predictor: learned on train blocks",
    "oracle": "length predictor: ORACLE (it sees the true output lengths)",
}


def headers(document: dict[str, Any]) -> list[str]:
    """Column heads with units, each in two lines."""
    unit = energy_unit(document)[0]
    return [
        "\nagent",
        f"energy\n{unit}",
        "saving %\n[95 %]",
        "tokens\nper J",
        "attain-\nment %",
        "SLOs\nheld",
        "E2E\np99 s",
        "TBT\nmean ms",
        "clock\nMHz",
        "size\nchanges",
        *(["above\nbest %", "above\nlower %"] if "bounds" in document else []),
    ]


def targets(document: dict[str, Any]) -> str:
    """What `SLOs held` means, on one line."""
    slo = document["provenance"]["slo"]
    return (
        f"SLOs: {slo['attainment']:.0%} of all requests within {slo['e2e_s']:.4g} s end to end, "
        f"mean time between tokens at most {slo['tbt_s'] * 1e3:.3g} ms"
    )


def rows(document: dict[str, Any]) -> list[list[str]]:
    """One row of text per agent."""
    unit = energy_unit(document)
    return [_row(entry, unit) for entry in document["summary"]]


def energy_unit(document: dict[str, Any]) -> tuple[str, float, int]:
    """Choose kWh where energies come near one, else kJ; with its joules and the digits to show."""
    most_j = max((entry["means"]["energy_j"] or 0.0 for entry in document["summary"]), default=0.0)
    return ("kWh", 3.6e6, 3) if most_j >= 3.6e5 else ("kJ", 1e3, 1)


def subtitle(document: dict[str, Any]) -> str:
    """What all agents have in common, on one line."""
    settings, scenario = document["provenance"]["settings"], document["provenance"]["scenario"]
    parts = [
        f"{scenario['name']} v{scenario['version']}",
        f"trace {settings['trace'].rsplit('/', 1)[-1]}",
        f"load {settings['load']:g}",
        f"{settings['seeds']} seed{'s' if settings['seeds'] > 1 else ''}",
        predictor_label(settings["length_predictor"]),
    ]
    if settings["split"] != "all":
        parts.insert(2, f"{settings['split']} blocks")
    if settings["duration_s"]:
        parts.insert(2, f"first {settings['duration_s']:g} s")
    if settings["slo_scale"] != 1.0:
        parts.append(f"SLOs x {settings['slo_scale']:g}")
    return ", ".join(parts)


def predictor_label(name: str) -> str:
    """Say plainly when a length predictor knows what no server could know."""
    return LABELS.get(name, f"length predictor: {name.upper()} (true output lengths with errors)")


def markdown(document: dict[str, Any]) -> str:
    """`results.md`.

    Args:
        document: What `results` returned.
    """
    heads = [head.replace("-\n", "").replace("\n", " ").strip() for head in headers(document)]
    lines = ["# Comparison", "", subtitle(document), ""]
    lines += [_line(heads), _line(["---", *["--:"] * (len(heads) - 1)])]
    lines += [_line(row) for row in rows(document)]
    lines += ["", *_notes(document), *_failed(document)]
    made = document["provenance"]
    versions = made["versions"]
    lines += ["", f"Made {made['created']} by throttllem-env {versions['throttllem-env']} with", ""]
    return "\n".join([*lines, f"    {made['command']}", ""])


def _line(cells: list[str]) -> str:
    escaped = [cell.replace("|", "\\|") for cell in cells]
    return f"| {' | '.join(escaped)} |"


def _row(entry: dict[str, Any], unit: tuple[str, float, int]) -> list[str]:
    means, saving = entry["means"], entry["saving"]
    tbt_s = means["tbt_mean_s"]
    return [
        entry["agent"],
        number(means["energy_j"], 1 / unit[1], unit[2]),
        _saving_text(saving),
        number(means["tokens_per_joule"], 1, 3),
        number(means["slo_attainment"], 100, 2),
        _attained_text(entry),
        number(means["e2e_p99_s"], 1, 1),
        number(tbt_s, 1e3, 1),
        number(means["frequency_mean_mhz"], 1, 0),
        number(means["size_changes"], 1, 0 if entry["runs"] == 1 else 1),
        *_above_texts(entry),
    ]


def _above_texts(entry: dict[str, Any]) -> list[str]:
    """By how much the energy lies above both bounds, where they were asked for and hold."""
    if "above" not in entry:
        return []
    above = entry["above"] or {"best": None, "lower": None}
    return [number(above["best"], 100, 1), number(above["lower"], 100, 1)]


def number(value: float | None, factor: float, digits: int) -> str:
    """A number for a table, or a dash where there is none."""
    return MISSING if value is None else f"{value * factor:.{digits}f}"


def _saving_text(saving: dict[str, Any] | None) -> str:
    if saving is None or saving["energy"] is None:
        return MISSING
    text = f"{saving['energy'] * 100:.1f}"
    if saving["interval"]:
        low, high = (bound * 100 for bound in saving["interval"])
        text += f" [{low:.1f}, {high:.1f}]"
    return text


def _attained_text(entry: dict[str, Any]) -> str:
    if entry["runs"] == 1 or entry["slo_attained"] or not entry["slo_attained_runs"]:
        return "✓" if entry["slo_attained"] else "✗"
    return f"✗ ({entry['slo_attained_runs']} of {entry['runs']})"


def _notes(document: dict[str, Any]) -> list[str]:
    return [
        f"{targets(document)}. Attainment counts all requests that arrived. "
        "Energy counts the allocated GPUs, idle included, until the trace's end and a fixed drain. "
        f"Brackets: {document['provenance']['interval']}.",
        *_bound_notes(document),
    ]


def _bound_notes(document: dict[str, Any]) -> list[str]:
    """What the bounds are, per replica."""
    if "bounds" not in document:
        return []
    unit, joules, digits = energy_unit(document)
    lines = ["", "Bounds for runs that hold the SLOs (docs/bound.md):", ""]
    for one in document["bounds"]:
        best = f"{number(one['best_j'], 1 / joules, digits)} {unit}, by {one['best_by']}"
        lines.append(
            f"- seed {one['seed']}: no less than {number(one['lower_j'], 1 / joules, digits)} {unit}; "
            f"best in hindsight {best} ({one['tried']} schedules tried)"
        )
    return lines


def _failed(document: dict[str, Any]) -> list[str]:
    if not document["failures"]:
        return []
    lines = [f"- {f['agent']}, seed {f['seed']}: {f['error']}" for f in document["failures"]]
    return ["", "Failed runs:", "", *lines]
