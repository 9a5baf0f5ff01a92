import subprocess
import sys
from pathlib import Path

import pytest

from throttllem_env.traces import TraceError, generate, load_trace, parse_spec, trace_names


@pytest.mark.parametrize(
    ("spec", "name", "parameters"),
    [
        ("poisson", "poisson", {}),
        ("poisson:rate_rps=5,lengths=code", "poisson", {"rate_rps": "5", "lengths": "code"}),
        ("C:/traces/a.csv", "C:/traces/a.csv", {}),
        ("a:b/c.csv:drop_failed=yes", "a:b/c.csv", {"drop_failed": "yes"}),
        ("folder=1/c.csv", "folder=1/c.csv", {}),
    ],
)
def test_specs_are_taken_apart(spec: str, name: str, parameters: dict[str, str]) -> None:
    assert parse_spec(spec) == (name, parameters)


@pytest.mark.parametrize(
    "spec", ["poisson:rate_rps=", "poisson:rate_rps=1,rate_rps=2", "poisson:rate_rps=1,x"]
)
def test_malformed_parameters(spec: str) -> None:
    with pytest.raises(TraceError, match="key=value"):
        parse_spec(spec)


def test_synthetic_names_take_parameters_duration_and_seed() -> None:
    assert load_trace("poisson:rate_rps=2,duration_s=60", seed=7) == generate(
        "poisson", 60.0, 7, rate_rps=2.0
    )
    assert load_trace("bursty:seed=3,duration_s=60", seed=7) == generate("bursty", 60.0, 3)
    assert load_trace("azure-conv-like").duration_s == 3600.0
    with pytest.raises(TraceError, match="poisson: seed"):
        load_trace("poisson:seed=1.5")
    with pytest.raises(TraceError, match="poisson: duration_s = 'long'"):
        load_trace("poisson:duration_s=long")


def test_an_unknown_name_comes_with_the_nearest() -> None:
    with pytest.raises(TraceError, match=r"'azure-conv-lik'.*did you mean 'azure-conv-like'"):
        load_trace("azure-conv-lik")
    assert trace_names()[0] == "azure-conv-like"


def test_a_trace_not_fetched_yet_says_how_to_fetch_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THROTTLLEM_CACHE", str(tmp_path))
    with pytest.raises(TraceError, match="run: throttllem trace fetch azure-2023-conv"):
        load_trace("azure-2023-conv")


def test_a_fetched_trace_is_found_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared_traces: Path
) -> None:
    source = shared_traces / "AzureLLMInferenceTrace_code.csv"
    (tmp_path / source.name).write_bytes(source.read_bytes())
    monkeypatch.setenv("THROTTLLEM_CACHE", str(tmp_path))
    assert load_trace("azure-2023-code") == load_trace(source)
    with pytest.raises(TraceError, match="drop_failed only"):
        load_trace("azure-2023-code:speed=2")
    with pytest.raises(TraceError, match="true or false"):
        load_trace("azure-2023-code:drop_failed=maybe")


def test_importing_the_room_is_light() -> None:
    heavy = "pandas pyarrow matplotlib pydantic scipy urllib.request"
    code = (
        "import sys, throttllem_env.traces\n"
        f"print([name for name in {heavy!r}.split() if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
