"""Section 3: throttling alone, every engine at its own rated load and its own p99 as SLO."""

from typing import TYPE_CHECKING

from throttllem_env.evaluation.document import Picture, Section, Table, percent
from throttllem_env.evaluation.reproduction import paper
from throttllem_env.evaluation.reproduction.tasks import Answers, RunTask

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ENGINES = {
    "Llama3-8B TP1": "llama3-8b-a100",
    "Llama2-13B TP1": "llama2-13b-tp1-a100",
    "Llama2-13B TP2": "llama2-13b-tp2-a100",
    "Llama2-13B TP4": "llama2-13b-tp4-a100",
    "Llama3-70B TP8": "llama3-70b-a100",
}
LENGTHS = {"0 %": "oracle", "15 %": "noisy-15", "30 %": "noisy-30", "learned": "learned"}
"""Length errors as the paper gives them, and the predictor that a real service would have."""

AGENTS = ("throttllem", "throttllem-energy")
TOP = "max-frequency"
SPLIT = "test"


def tasks() -> list[RunTask]:
    """All runs of the section."""
    top = [_task(scenario, TOP, "oracle") for scenario in ENGINES.values()]
    return top + [
        _task(scenario, agent, lengths)
        for scenario in ENGINES.values()
        for agent in AGENTS
        for lengths in LENGTHS.values()
    ]


def _task(scenario: str, agent: str, lengths: str) -> RunTask:
    return RunTask(scenario, agent, length_predictor=lengths, split=SPLIT)


def saving(answers: Answers, scenario: str, agent: str, lengths: str) -> float:
    """Energy saved against the top clock."""
    top = answers[_task(scenario, TOP, "oracle")]["energy_j"]
    return 1 - float(answers[_task(scenario, agent, lengths)]["energy_j"]) / float(top)


def section(answers: Answers) -> Section:
    """Savings and latencies."""
    from throttllem_env.scenario import load_scenario

    rows = []
    for engine, name in ENGINES.items():
        slo_s = load_scenario(name).latency_slo().e2e_s
        rows.append(_row(answers, engine, name, TOP, "oracle", slo_s, ""))
        rows += [
            _row(answers, engine, name, agent, predictor, slo_s, lengths)
            for agent in AGENTS
            for lengths, predictor in LENGTHS.items()
        ]
    return Section(
        "3. Throttling alone",
        "Conv, test blocks, scaled so that the busiest minute meets each engine's own rated load; the E2E "
        "SLO is the p99 of the same engine at its top clock and rated load. The paper reports a saving of "
        f"{percent(paper.THROTTLING_MEAN)} on average and up to {percent(paper.THROTTLING_BEST)}. "
        f"{_averages(answers)}\n\n*Difference:* engines on one and two GPUs save what the "
        "paper reports, those on four and eight less: more of their iteration is host time, and more of a "
        "GPU's power does not depend on the clock where several share the work (profiles). The paper finds "
        "that Llama2-13B on TP1 hardly gains; here it does, because with a cache of a few requests its batch "
        "is small, decode is bound by memory, and a low clock costs little time; but a few slow requests "
        "then keep the others waiting, and several of its entries miss the SLO. A length error costs energy "
        "because predictions are enlarged by it.",
        [
            Table(
                "Energy against the top clock:",
                [
                    "engine",
                    "controller",
                    "length error",
                    "energy",
                    "tokens/J",
                    "E2E p99 / SLO, s",
                    "TBT mean, ms",
                    "TTFT p99, s",
                    "attainment",
                ],
                rows,
            )
        ],
        [
            Picture(
                "reproduction-throttling",
                "Energy saved by throttling alone per engine and length error, for both controllers, with "
                "the paper's average and best",
                lambda: _figure(answers),
            )
        ],
    )


def _averages(answers: Answers) -> str:
    parts = []
    for agent in AGENTS:
        for name, lengths in (("0 %", "oracle"), ("30 %", "noisy-30")):
            values = [saving(answers, scenario, agent, lengths) for scenario in ENGINES.values()]
            mean, best = percent(sum(values) / len(values)), percent(max(values))
            parts.append(f"`{agent}` at a length error of {name} {mean} (up to {best})")
    return f"Ours: {', '.join(parts)}."


def _row(
    answers: Answers, engine: str, scenario: str, agent: str, predictor: str, slo_s: float, lengths: str
) -> list[str]:
    found = answers[_task(scenario, agent, predictor)]
    change = "" if agent == TOP else percent(-saving(answers, scenario, agent, predictor))
    attained = "" if found["slo_attained"] else " (missed)"
    return [
        engine,
        agent,
        lengths,
        change,
        f"{found['tokens_per_joule']:.3f}",
        f"{found['e2e_p99_s']:.1f} / {slo_s:.1f}" if found["e2e_p99_s"] is not None else "",
        f"{1000 * found['tbt_mean_s']:.0f}",
        f"{found['ttft_p99_s']:.2f}" if found["ttft_p99_s"] is not None else "",
        f"{percent(found['slo_attainment'], 2)}{attained}",
    ]


def _figure(answers: Answers) -> "Figure":
    from throttllem_env.evaluation.plots.style import FAINT, PALETTE, TARGET, blank, plain_axes

    figure = blank(10.0, 3.6)
    panels = figure.subplots(1, 2, sharey=True)
    for axes, agent in zip(panels, AGENTS, strict=True):
        for i, (lengths, predictor) in enumerate(LENGTHS.items()):
            values = [100 * saving(answers, name, agent, predictor) for name in ENGINES.values()]
            places = [place + 0.2 * (i - 1.5) for place in range(len(ENGINES))]
            label = lengths if lengths == "learned" else f"error {lengths}"
            axes.bar(places, values, 0.18, color=PALETTE[i + 1], label=label)
        axes.axhline(100 * paper.THROTTLING_MEAN, color=FAINT, linestyle="--", linewidth=1)
        axes.axhline(100 * paper.THROTTLING_BEST, color=TARGET, linestyle="--", linewidth=1)
        axes.set_xticks(range(len(ENGINES)), [name.replace(" ", "\n") for name in ENGINES], fontsize=8)
        axes.set_title(agent, fontsize=10, loc="left")
        plain_axes(axes)
    panels[0].set_ylabel("energy saved, %")
    panels[0].annotate(
        "paper, best", (4.5, 100 * paper.THROTTLING_BEST), fontsize=8, color=TARGET, va="bottom", ha="right"
    )
    panels[0].annotate(
        "paper, mean", (4.5, 100 * paper.THROTTLING_MEAN), fontsize=8, color=FAINT, va="bottom", ha="right"
    )
    panels[0].set_ylim(0, 42)
    panels[0].legend(frameon=False, fontsize=8, ncols=2, loc="upper left")
    return figure
