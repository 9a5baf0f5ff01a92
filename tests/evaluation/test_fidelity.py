"""The fidelity page says what the fits and the shipped profiles give."""

from pathlib import Path

import pytest

from throttllem_env.evaluation.document import Picture, Section, Table, write_page
from throttllem_env.evaluation.fidelity.clocks import sweet_spot_section
from throttllem_env.evaluation.fidelity.engines import engine_section, live_section
from throttllem_env.evaluation.plots.style import blank

DOCS = Path(__file__).parents[2] / "docs"


def test_a_page_has_its_tables_and_pictures(tmp_path: Path) -> None:
    section = Section(
        "Clocks",
        "What is shown.",
        [Table("Errors:", ["what", "error"], [["time", "5.1 %"]])],
        [Picture("clocks", "a curve", lambda: blank(2.0, 2.0))],
    )
    written = write_page("# Head", [section], tmp_path / "page.md", tmp_path / "images")
    text = (tmp_path / "page.md").read_text()
    assert "| what | error |\n|---|---|\n| time | 5.1 % |" in text
    assert "![a curve](images/clocks.png)" in text
    assert [path.name for path in written] == ["page.md", "clocks.png"]
    assert all(path.stat().st_size for path in written)


def test_the_sweet_spot_lies_inside_the_clock_range() -> None:
    """As the paper reports: far more tokens per joule at 1050 MHz for few tokens per second less."""
    _, *ours = sweet_spot_section().tables[0].rows
    for row in ours:
        rate, efficiency, lowest = (float(row[i].removesuffix(" %")) for i in (2, 3, 7))
        assert -10 < rate < 0
        assert efficiency > 15
        assert lowest < 0
        assert 500 < int(row[4]) < 1100


@pytest.mark.parametrize("row", sweet_spot_section().tables[0].rows[1:])
def test_the_page_in_the_repository_is_of_the_shipped_profiles(row: list[str]) -> None:
    assert f"| {' | '.join(row)} |" in (DOCS / "fidelity.md").read_text()


def test_the_page_sums_up_what_was_found_of_vllms_engine(tmp_path: Path) -> None:
    rows = engine_section(DOCS / "engine.md").tables[0].rows
    assert len(rows) >= 2
    for row in rows:
        assert int(row[1]) >= 8
        assert int(row[2].replace(",", "")) >= 2000 * int(row[1])
        assert row[5:] == ["0", "0", "no"]
        assert f"| {' | '.join(row)} |" in (DOCS / "fidelity.md").read_text()
    differing = (DOCS / "engine.md").read_text().replace("| 0 | 0 | no |", "| 3 | 1 | yes |", 1)
    (tmp_path / "engine.md").write_text(differing)
    assert engine_section(tmp_path / "engine.md").tables[0].rows[0][5:] == ["3", "1", "in 1 cases"]
    (tmp_path / "engine.md").write_text("nothing")
    with pytest.raises(ValueError, match="has no section of a release"):
        engine_section(tmp_path / "engine.md")


def test_the_page_shows_what_was_measured_of_real_servers(tmp_path: Path) -> None:
    section = live_section(DOCS / "measurements")
    assert section is not None
    for table in section.tables:
        for row in table.rows:
            assert f"| {' | '.join(row)} |" in (DOCS / "fidelity.md").read_text()
    assert live_section(tmp_path) is None
