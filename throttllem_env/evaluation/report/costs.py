"""What the energy costs, and what it emits, at the user's price and grid intensity."""

import math
from dataclasses import dataclass
from typing import Any

from throttllem_env.evaluation.report.parts import Cell, Section, Table, number
from throttllem_env.evaluation.report.source import Source

JOULES_PER_KWH = 3.6e6
YEAR_S = 365.25 * 24 * 3600
THOUSAND = 1000


@dataclass(frozen=True, slots=True)
class Tariff:
    """What a kWh costs and emits.

    Attributes:
        price_per_kwh: In the currency; None if it does not matter.
        currency: For people: a code or a sign.
        grid_g_per_kwh: Grams of CO2e per kWh; None if it does not matter.
    """

    price_per_kwh: float | None = None
    currency: str = "EUR"
    grid_g_per_kwh: float | None = None

    def check(self) -> None:
        """Refuse what is no price.

        Raises:
            ValueError: Names the option, the value, and what is valid.
        """
        for name in ("price_per_kwh", "grid_g_per_kwh"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:
                raise ValueError(f"{name} = {value}: must be a finite number, at least 0")


@dataclass(frozen=True, slots=True)
class Unit:
    """A column: what a kWh stands for.

    Attributes:
        label: With its unit.
        per_kwh: How much of it a kWh is.
    """

    label: str
    per_kwh: float


def costs(source: Source, tariff: Tariff) -> Section:
    """Money and CO2e of each agent.

    Args:
        source: The comparison.
        tariff: What a kWh costs and emits.
    """
    units = _units(tariff)
    if len(units) == 1:
        lead = [
            "No price and no grid intensity were given. Make the page again with yours, for example with "
            "--price-per-kwh 0.25 --currency EUR --grid-g-per-kwh 350."
        ]
        return Section("costs", "Money and CO2e", lead, tables=[_table(source, units)])
    given = []
    if tariff.price_per_kwh is not None:
        given.append(f"a kWh costs {tariff.price_per_kwh:g} {tariff.currency}")
    if tariff.grid_g_per_kwh is not None:
        given.append(f"a kWh emits {tariff.grid_g_per_kwh:g} g CO2e")
    lead = [
        f"As given: {' and '.join(given)}. Energy is that of the allocated GPUs; neither the rest of the "
        "machine nor cooling is counted. A year is a year of nothing but this load, an extrapolation."
    ]
    return Section("costs", "Money and CO2e", lead, tables=[_table(source, units)])


def _units(tariff: Tariff) -> list[Unit]:
    units = [Unit("kWh", 1.0)]
    if tariff.price_per_kwh is not None:
        units.append(Unit(tariff.currency, tariff.price_per_kwh))
    if tariff.grid_g_per_kwh is not None:
        units.append(Unit("kg CO2e", tariff.grid_g_per_kwh / 1000))
    return units


def _table(source: Source, units: list[Unit]) -> Table:
    heads = [
        "agent",
        *(f"{u.label} per 1,000 requests" for u in units),
        *(f"{u.label} per year" for u in units),
    ]
    rows = [_row(entry, units) for entry in source.document["summary"]]
    return Table("Of one node that serves this load, means over an agent's runs.", heads, rows)


def _row(entry: dict[str, Any], units: list[Unit]) -> list[Cell]:
    means = entry["means"]
    kwh = means["energy_j"] / JOULES_PER_KWH
    completed, per_year = means["completed"], YEAR_S / means["duration_s"]
    thousand = [None if not completed else kwh * u.per_kwh / completed * THOUSAND for u in units]
    year = [kwh * u.per_kwh * per_year for u in units]
    return [
        entry["agent"],
        *(number(value, 1, 3 if value is None or value < 10 else 1) for value in thousand),
        *(number(value, 1, 0 if value >= 100 else 1) for value in year),
    ]
