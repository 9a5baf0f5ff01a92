"""docs/agents.md: everything that was computed, as tables."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from throttllem_env.evaluation.bootstrap import Interval
from throttllem_env.evaluation.document import Picture, Section, Table, write_page
from throttllem_env.training.study.contest import REFERENCE, Standing
from throttllem_env.training.study.learning import Training, draw_curves, mean_interval
from throttllem_env.training.study.recipes import RECIPES

COMMANDS = """    python scripts/train_agents.py train --traces ../shared/traces
    python scripts/train_agents.py evaluate --traces ../shared/traces
    python scripts/transfer_gap.py --traces ../shared/traces"""

HEAD = f"""# Learned agents

Agents that were trained, held to the reference on requests that they have never seen. Made by

{COMMANDS}

Trained on the train blocks of the Azure hours of 2023 and on drawn traces, chosen on validation blocks and
other draws, tested on test blocks ([design](design.md), Splits) and on a bursty trace (`bursty` of
`throttllem trace`, 30 minutes). Energies are relative to `throttllem`'s on the same requests, below 100 % is
less; *points* are percentage points of requests in time, above 0 is better. Intervals are 95 %: over 5-minute
blocks, paired, for a policy; over training seeds (Student's t) for a recipe. What was tried and failed stands
in [agents-notes.md](agents-notes.md).

Policies are chosen by held-out requests alone. But results on test blocks had been seen for four earlier
policies while the search was still being designed (bursts, price, weights, starting rule, steps,
generations), so the design is not innocent of them; and the rule that the search starts from was set by
hand."""


@dataclass(slots=True)
class Study:
    """All that the page is written from.

    Attributes:
        names: What tables call an agent.
        best: The agents that were chosen on validation blocks, one for each aim.
        test: Standings by case, then agent.
        seeds: Standings of each recipe's seeds: by recipe, then case, a list over seeds.
        trainings: Learning curves.
        robustness: Standings by condition, then agent.
        elsewhere: Standings of shipped policies by case of other scenarios, then agent.
    """

    names: Mapping[str, str]
    best: Sequence[str]
    test: Sequence[Mapping[str, Standing]]
    seeds: Mapping[str, Sequence[Sequence[Standing]]]
    trainings: Sequence[Training]
    robustness: Sequence[Mapping[str, Standing]] = field(default_factory=list)
    elsewhere: Sequence[Mapping[str, Standing]] = field(default_factory=list)


def write_agents_page(study: Study, transfer: Section | None, docs: Path) -> list[Path]:
    """Write `agents.md` and its picture.

    Args:
        study: What was found.
        transfer: What the policy does on vLLM's own engine; None if that has not been looked at.
        docs: Where to write.
    """
    sections = [_training(study), _test(study), _seeds(study), _elsewhere(study), _robustness(study)]
    if transfer:
        sections.append(transfer)
    return write_page(HEAD, sections, docs / "agents.md", docs / "images")


def _training(study: Study) -> Section:
    rows = [
        [
            training.recipe,
            f"{training.seed}",
            f"{training.steps[-1] / 1e6:.1f} M",
            f"{100 * training.saving[training.best]:.1f} %",
            f"{100 * training.attainment[training.best]:.2f} %",
            f"{-training.score[training.best]:.4f}",
        ]
        for training in study.trainings
    ]
    about = "\n".join(
        f"- `{name}` ({RECIPES[name].algo}): {RECIPES[name].about}." for name in _recipes(study)
    )
    heads = [
        "recipe",
        "seed",
        "steps",
        "saved against the top clock",
        "in time",
        "energy + price of lateness",
    ]
    table = Table("Held-out requests, at the look whose policy was kept:", heads, rows)
    picture = Picture(
        "agents-learning",
        "Worth on held-out requests against steps, a line for each training",
        lambda: draw_curves(study.trainings),
    )
    return Section("Training", f"{about}\n\nA policy: `throttllem_env/training/search`.", [table], [picture])


def _recipes(study: Study) -> list[str]:
    return list(dict.fromkeys(training.recipe for training in study.trainings))


def _test(study: Study) -> Section:
    agents = [agent for agent in study.test[0] if agent != REFERENCE]
    rows = []
    for standings in study.test:
        theirs = standings[REFERENCE]
        cells = [_cell(standings[agent]) for agent in agents]
        rows.append(
            [
                theirs.case.name,
                theirs.case.predictor,
                f"{theirs.requests}",
                percent(theirs.attainment),
                *cells,
            ]
        )
    heads = ["case", "lengths", "requests", f"{REFERENCE}: in time", *(study.names[a] for a in agents)]
    won = ", ".join(
        f"{sum(standings[agent].wins for standings in study.test)} with `{study.names[agent]}`"
        for agent in study.best
    )
    lead = (
        "Policies are those of all recipes and seeds that did best on held-out requests, one for each aim. "
        f"At least 5 % less energy at attainment not lower than `{REFERENCE}`'s (bold), of {len(study.test)} "
        f"cases: {won}. Every cell: energy [interval], requests in time (points against the reference)."
    )
    return Section("Test blocks", lead, [Table("All replicas together:", heads, rows)])


def _cell(standing: Standing) -> str:
    energy = f"{100 * standing.energy:.1f} %{_bounds(standing.energy_interval, 100)}"
    text = f"{energy}, {percent(standing.attainment)} ({standing.points:+.2f})"
    return f"**{text}**" if standing.wins else text


def _bounds(interval: Interval | None, factor: float = 1.0) -> str:
    return f" [{factor * interval[0]:.1f}, {factor * interval[1]:.1f}]" if interval else ""


def percent(share: float) -> str:
    """A share of requests, to the single request of some thousands."""
    return f"{100 * share:.2f} %"


def _seeds(study: Study) -> Section:
    tables = []
    for recipe, by_case in study.seeds.items():
        rows = []
        for standings in by_case:
            energy = mean_interval([100 * one.energy for one in standings])
            points = mean_interval([one.points for one in standings])
            rows.append(
                [
                    standings[0].case.name,
                    standings[0].case.predictor,
                    f"{energy[0]:.1f} % [{energy[1]:.1f}, {energy[2]:.1f}]",
                    f"{points[0]:+.2f} [{points[1]:+.2f}, {points[2]:+.2f}]",
                    f"{sum(one.wins for one in standings)} of {len(standings)}",
                ]
            )
        heads = ["case", "lengths", "energy", "points", "seeds that win"]
        tables.append(Table(f"`{recipe}`, training seeds {len(by_case[0])}:", heads, rows))
    lead = "The same cases, first replica, for every training seed: mean and interval over seeds."
    return Section("Training seeds", lead, tables)


def _elsewhere(study: Study) -> Section:
    if not study.elsewhere:
        return Section("Other scenarios", "No policies are shipped for others.")
    rows = []
    for standings in study.elsewhere:
        case, theirs = standings[REFERENCE].case, standings[REFERENCE]
        cells = [_cell(standing) for agent, standing in standings.items() if agent != REFERENCE]
        rows.append([case.scenario, case.name, percent(theirs.attainment), *cells])
    lead = (
        "What is shipped for other scenarios was trained in the same way, with one seed each, on loads that "
        "are rated for them. Test blocks, learned lengths, one replica."
    )
    agents = [agent for agent in study.elsewhere[0] if agent != REFERENCE]
    heads = ["scenario", "case", f"{REFERENCE}: in time", *agents]
    return Section("Other scenarios", lead, [Table("As above:", heads, rows)])


def _robustness(study: Study) -> Section:
    if not study.robustness:
        return Section("Robustness", "Not run.")
    agents = list(study.robustness[0])
    rows = [
        [
            standings[REFERENCE].case.name,
            *(_short(standings[agent], standings[REFERENCE].energy) for agent in agents),
        ]
        for standings in study.robustness
    ]
    case = next(iter(study.robustness[0].values())).case
    lead = (
        f"{case.name.capitalize()} means: conv, test blocks, load {case.load:g}, learned lengths. Energy "
        f"relative to `{REFERENCE}`'s under the same condition without a watchdog, and requests in time. "
        "`+watchdog`: the SLO watchdog takes the clock and the size away from an agent that misses deadlines "
        "or sees the past; in brackets the share of time for which it did, where it acted at all. "
        "`max-frequency` shows what it could buy at most: where many deadlines are missed there too, "
        "the load is beyond the hardware, and no watchdog helps. Answers have at most 1,024 tokens "
        "in all conditions."
    )
    heads = ["condition", *(study.names[agent] for agent in agents)]
    return Section("Robustness", lead, [Table("Energy, requests in time:", heads, rows)])


def _short(standing: Standing, reference_energy: float) -> str:
    text = f"{100 * standing.energy / reference_energy:.1f} %, {percent(standing.attainment)}"
    return f"{text} ({100 * standing.overruled:.0f} %)" if standing.overruled else text
