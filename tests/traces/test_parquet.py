from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from throttllem_env.traces import Trace, TraceError, load_trace, write_parquet


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    st.lists(st.floats(0, 1e6), min_size=1, max_size=30),
    st.text(max_size=20).filter(lambda text: text.isprintable()),
    st.floats(0, 10),
)
def test_reading_gives_back_what_was_written(
    tmp_path: Path, times: list[float], name: str, rest_s: float
) -> None:
    count = len(times)
    trace = Trace(np.sort(times), np.arange(count) + 1, np.arange(count) + 7, name, max(times) + rest_s)
    write_parquet(trace, tmp_path / "t.parquet")
    back = load_trace(tmp_path / "t.parquet")
    assert back == trace
    assert back.name == name
    assert back.digest() == trace.digest()


def broken(folder: Path, metadata: dict[str, str] | None = None, **columns: list[object]) -> Path:
    good = {"arrival_s": [0.0, 1.0], "prompt_tokens": [1, 2], "output_tokens": [3, 4]}
    known = {"version": "1", "name": "x", "duration_s": (1.0).hex()} | (metadata or {})
    keyed = {f"throttllem.trace.{key}": value for key, value in known.items()}
    table = pa.table({key: value for key, value in (good | columns).items() if value})
    pq.write_table(table.replace_schema_metadata(keyed), str(folder / "t.parquet"))
    return folder / "t.parquet"


@pytest.mark.parametrize(
    ("metadata", "columns", "message"),
    [
        ({"version": "9"}, {}, "throttllem.trace.version = '9': expected '1'"),
        ({"duration_s": "soon"}, {}, "duration_s = b'soon'"),
        ({"duration_s": (0.5).hex()}, {}, "duration_s = 0.5"),
        ({}, {"output_tokens": []}, "column 'output_tokens' is missing"),
        ({}, {"arrival_s": [1.0, 0.0]}, "t.parquet:2: arrival_s = 0.0"),
        ({}, {"arrival_s": [0.0, None]}, "t.parquet:2: arrival_s = nan"),
        ({}, {"prompt_tokens": [1, 0]}, "t.parquet:2: prompt_tokens = 0"),
        ({}, {"prompt_tokens": [1, None]}, "t.parquet:2: prompt_tokens = nan"),
        ({}, {"output_tokens": ["a", "b"]}, "output_tokens = 'object': expected a column of numbers"),
    ],
)
def test_bad_files(
    tmp_path: Path, metadata: dict[str, str], columns: dict[str, list[object]], message: str
) -> None:
    with pytest.raises(TraceError) as caught:
        load_trace(broken(tmp_path, metadata, **columns))
    assert message in str(caught.value)


def test_a_file_without_requests_or_of_others_is_refused(tmp_path: Path) -> None:
    write_parquet(Trace([], [], []), tmp_path / "empty.parquet")
    with pytest.raises(TraceError, match=r"empty.parquet: the file has no requests"):
        load_trace(tmp_path / "empty.parquet")
    pq.write_table(pa.table({"a": [1]}), str(tmp_path / "other.parquet"))
    with pytest.raises(TraceError, match="write_parquet"):
        load_trace(tmp_path / "other.parquet")
