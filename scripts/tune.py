"""Choose the parameters of rules on the blocks of a trace that are meant for it.

    python scripts/tune.py static  --trace TRACE [--load 1.0]       # train blocks
    python scripts/tune.py margins --trace TRACE [--loads 0.5,1.0]  # validation blocks
    python scripts/tune.py energy  --trace TRACE [--split train]    # train and validation blocks

`static` finds the static clock of least energy that attains the SLOs. `margins` finds the deadline margin
and the autoscaler's headroom of `throttllem`: among those that attain the SLOs at every load, the least
energy summed over the loads, relative to the top clock. `energy` holds candidates of `throttllem-energy` to
`throttllem` over loads, length predictors and SLO scales: the best is no worse in the most cases (no more
energy, no more violations), then of least energy. Test blocks are never looked at.
"""

import argparse
import itertools

from throttllem_env.agents.energy_autoscaler import HEADROOM, HYSTERESIS, PATIENCE
from throttllem_env.agents.throttllem_energy import DOUBT, HASTE, MARGIN, TOLERANCE
from throttllem_env.evaluation.compare import Comparison, compare
from throttllem_env.evaluation.settings import Settings
from throttllem_env.scenario import load_scenario

MARGINS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
HEADROOMS = (0.1, 0.2)
LOADS = (0.5, 0.7, 0.9, 1.0)


REFERENCE = "throttllem"
PLURALS = {"hysteresis": "hystereses"}


def run(
    arguments: argparse.Namespace,
    agents: list[str],
    split: str,
    load: float,
    length_predictor: str | None = None,
    slo_scale: float = 1.0,
) -> Comparison:
    """Run agents on some blocks; the first is the top clock, which savings refer to."""
    return compare(
        Settings(
            agents=("max-frequency", *agents),
            scenario=arguments.scenario,
            trace=arguments.trace,
            load=load,
            slo_scale=slo_scale,
            length_predictor=length_predictor or arguments.length_predictor,
            split=split,
            jobs=arguments.jobs,
        )
    )


def outcome(comparison: Comparison, agent: str) -> tuple[float, float, bool]:
    """Energy relative to the top clock, attainment, and whether the SLOs are attained."""
    (top,), (one,) = comparison.of("max-frequency"), comparison.of(agent)
    metrics = one.result.metrics
    relative = float(metrics["energy_j"]) / float(top.result.metrics["energy_j"])
    return relative, float(metrics["slo_attainment"]), bool(metrics["slo_attained"])


def tune_static(arguments: argparse.Namespace) -> None:
    """Sweep the static clock on the train blocks."""
    scenario = load_scenario(arguments.scenario)
    clocks = [mhz for mhz in scenario.gpu_spec.clocks_mhz if mhz >= arguments.from_mhz][:: arguments.every]
    agents = {f"static-frequency:mhz={mhz}": mhz for mhz in clocks}
    comparison = run(arguments, list(agents), "train", arguments.load)
    print("| clock MHz | energy / top clock | SLO attainment | attained |\n|---:|---:|---:|---|")
    attained = {}
    for agent, mhz in agents.items():
        energy, attainment, ok = outcome(comparison, agent)
        print(f"| {mhz} | {energy:.4f} | {attainment:.4f} | {'yes' if ok else 'no'} |")
        if ok:
            attained[mhz] = energy
    best = min(attained, key=lambda mhz: attained[mhz]) if attained else scenario.top_mhz
    print(f"\nTUNED at load {arguments.load}: {best} MHz")


def tune_margins(arguments: argparse.Namespace) -> None:
    """Sweep deadline margin and headroom on the validation blocks."""
    agents = [
        f"throttllem:margin={margin},headroom={headroom}"
        for margin, headroom in itertools.product(MARGINS, arguments.headrooms)
    ]
    rows = {load: run(arguments, agents, "validation", load) for load in arguments.loads}
    head = " | ".join(f"load {load:g}: energy, attainment" for load in arguments.loads)
    print(f"| agent | {head} | sum |\n|---|{'---|' * (len(arguments.loads) + 1)}")
    attained = {}
    for agent in agents:
        found = [outcome(rows[load], agent) for load in arguments.loads]
        total = sum(energy for energy, _, _ in found)
        cells = " | ".join(f"{e:.4f}, {a:.4f}{'' if ok else ' (missed)'}" for e, a, ok in found)
        print(f"| {agent} | {cells} | {total:.4f} |")
        if all(ok for *_, ok in found):
            attained[agent] = total
    best = min(attained, key=lambda agent: attained[agent]) if attained else "none attains the SLOs"
    print(f"\nBest: {best}")


def duel(comparison: Comparison, agent: str) -> tuple[float, int]:
    """Energy relative to the reference's, and how many more requests are late."""
    (theirs,), (ours,) = comparison.of(REFERENCE), comparison.of(agent)
    relative = float(ours.result.metrics["energy_j"]) / float(theirs.result.metrics["energy_j"])
    more_late = int(ours.result.metrics["slo_violations"]) - int(theirs.result.metrics["slo_violations"])
    return relative, more_late


def tune_energy(arguments: argparse.Namespace) -> None:
    """Hold candidates of the energy controller to the reference, case by case."""
    parameters = ("margin", "haste", "doubt", "tolerance", "headroom", "hysteresis", "patience")
    grid = itertools.product(*(getattr(arguments, PLURALS.get(name, f"{name}s")) for name in parameters))
    agents = [
        "throttllem-energy:" + ",".join(f"{n}={v:g}" for n, v in zip(parameters, values, strict=True))
        for values in grid
    ]
    cases = list(itertools.product(arguments.loads, arguments.predictors, arguments.scales))
    found: dict[str, list[tuple[float, int]]] = {agent: [] for agent in agents}
    for load, lengths, scale in cases:
        comparison = run(arguments, [REFERENCE, *agents], arguments.split, load, lengths, scale)
        for agent in agents:
            found[agent].append(duel(comparison, agent))
            relative, more_late = found[agent][-1]
            print(f"{load:g} {lengths} x{scale:g} {agent}: {relative:.4f}, {more_late:+d}", flush=True)
    print("\n| agent | no worse | energy / throttllem: mean, worst | late: sum, worst |\n|---|---|---|---|")
    for agent in sorted(agents, key=lambda one: standing(found[one])):
        energies, late = zip(*found[agent], strict=True)
        cells = f"{sum(energies) / len(cases):.4f}, {max(energies):.4f} | {sum(late):+d}, {max(late):+d}"
        print(f"| {agent} | {-standing(found[agent])[0]:.0f} of {len(cases)} | {cells} |")


def standing(duels: list[tuple[float, int]]) -> tuple[float, float]:
    """Sorts candidates: cases in which they are no worse, then energy."""
    no_worse = sum(relative <= 1 and more_late <= 0 for relative, more_late in duels)
    return -no_worse, sum(relative for relative, _ in duels)


def numbers(text: str) -> tuple[float, ...]:
    """Parse `a,b,c`."""
    return tuple(float(part) for part in text.split(","))


def names(text: str) -> tuple[str, ...]:
    """Parse `a,b,c` as text."""
    return tuple(text.split(","))


def main() -> None:
    """Parse the command line and tune."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("static", "margins", "energy"))
    parser.add_argument("--scenario", default="llama2-13b-a100", help="scenario (default: %(default)s)")
    parser.add_argument("--trace", required=True, help="trace to tune on: a path or a name")
    parser.add_argument("--length-predictor", default="learned", help="default: %(default)s")
    parser.add_argument("--load", type=float, default=1.0, help="static: share of the rated load")
    parser.add_argument("--from-mhz", type=int, default=600, help="static: lowest clock tried")
    parser.add_argument("--every", type=int, default=2, help="static: try every so many clocks")
    parser.add_argument("--loads", type=numbers, default=LOADS, help="margins, energy: 0.5,0.7,...")
    parser.add_argument("--headrooms", type=numbers, help="margins, energy: 0.1,0.2,...")
    energy = parser.add_argument_group("energy: the cases, and the values to combine")
    energy.add_argument("--split", choices=("train", "validation"), default="train")
    energy.add_argument("--predictors", type=names, default=("oracle", "noisy-30", "learned"))
    energy.add_argument("--scales", type=numbers, default=(0.75, 1.0, 1.5), help="factors on the SLOs")
    energy.add_argument("--margins", type=numbers, default=(MARGIN,))
    energy.add_argument("--hastes", type=numbers, default=(HASTE,))
    energy.add_argument("--doubts", type=numbers, default=(DOUBT,))
    energy.add_argument("--tolerances", type=numbers, default=(TOLERANCE,))
    energy.add_argument("--hystereses", type=numbers, default=(HYSTERESIS,))
    energy.add_argument("--patiences", type=numbers, default=(PATIENCE,))
    parser.add_argument("--jobs", type=int, default=2, help="processes (default: %(default)s)")
    arguments = parser.parse_args()
    if arguments.headrooms is None:
        arguments.headrooms = (HEADROOM,) if arguments.what == "energy" else HEADROOMS
    {"static": tune_static, "margins": tune_margins, "energy": tune_energy}[arguments.what](arguments)


if __name__ == "__main__":
    main()
