"""An entry of `results.json` can be run again, and the same comes out."""

import json
from pathlib import Path
from typing import Any

import pytest

from throttllem_env.evaluation.compare import Comparison
from throttllem_env.evaluation.replay import replay_entry
from throttllem_env.evaluation.results import results, write_json


@pytest.fixture
def file(comparison: Comparison, tmp_path: Path) -> Path:
    path = tmp_path / "results.json"
    write_json(results(comparison, ["throttllem", "compare"]), path)
    return path


def altered(file: Path, change: Any) -> Path:
    document = json.loads(file.read_text(encoding="utf-8"))
    change(document)
    file.write_text(json.dumps(document), encoding="utf-8")
    return file


@pytest.mark.parametrize("entry", [0, 3, 5])
def test_the_same_comes_out_to_the_last_bit(file: Path, entry: int) -> None:
    replay = replay_entry(file, entry)
    assert replay.differences == {}
    assert replay.repeated == replay.recorded


def test_another_energy_is_seen(file: Path) -> None:
    def change(document: dict[str, Any]) -> None:
        document["runs"][1]["metrics"]["energy_j"] *= 1 + 1e-15

    replay = replay_entry(altered(file, change), 1)
    assert set(replay.differences) == {"energy_j"}


def test_other_settings_are_seen(file: Path) -> None:
    def change(document: dict[str, Any]) -> None:
        document["provenance"]["settings"]["load"] = 0.5

    assert "config_hash" in replay_entry(altered(file, change), 0).differences


def test_what_is_not_there_is_refused(file: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has 6 runs, from 0 on"):
        replay_entry(file, 6)
    other = tmp_path / "other.json"
    for content in ("[]", "{", '{"format": 99}'):
        other.write_text(content, encoding="utf-8")
        with pytest.raises(ValueError, match=r"no JSON|no results\.json of format"):
            replay_entry(other, 0)
