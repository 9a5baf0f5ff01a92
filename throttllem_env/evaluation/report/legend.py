"""Which symbol stands for which agent, as small drawings in HTML."""

from collections.abc import Sequence
from dataclasses import dataclass

from throttllem_env.evaluation.report.look import agent_name, colours, dashes, marker_names

SHAPES = {
    "circle": "M14 3 a5 5 0 1 0 0.01 0 Z",
    "square": "M9.5 3.5 h9 v9 h-9 Z",
    "triangle": "M14 2.5 L19.5 12.5 H8.5 Z",
    "diamond": "M14 2 L19.5 8 L14 14 L8.5 8 Z",
    "inverted_triangle": "M14 13.5 L19.5 3.5 H8.5 Z",
    "plus": "M14 2 V14 M8 8 H20",
    "x": "M9.5 3.5 L18.5 12.5 M18.5 3.5 L9.5 12.5",
    "star": "M14 1.5 L15.6 6 H20.3 L16.5 8.9 L17.9 13.5 L14 10.8 L10.1 13.5 L11.5 8.9 L7.7 6 H12.4 Z",
}
"""Paths in a box of 28 by 16."""

DASH_ARRAYS = {"solid": "none", "dashed": "6 3", "dotted": "2 3", "dotdash": "2 3 6 3"}


@dataclass(frozen=True, slots=True)
class AgentKey:
    """One agent's symbol.

    Attributes:
        name: Of what is drawn for it.
        agent: The agent.
        colour: As CSS writes it.
        dash: SVG's dash array of its lines.
        shape: SVG's path of its marker.
    """

    name: str
    agent: str
    colour: str
    dash: str
    shape: str


def agent_keys(agents: Sequence[str]) -> list[AgentKey]:
    """The symbols of all agents, in order.

    Args:
        agents: In the order in which colours are dealt out.
    """
    colour, dash, marker = colours(agents), dashes(agents), marker_names(agents)
    return [
        AgentKey(agent_name(agents, a), a, colour[a], DASH_ARRAYS[dash[a]], SHAPES[marker[a]]) for a in agents
    ]
