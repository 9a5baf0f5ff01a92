import time
from pathlib import Path

import numpy as np
import pytest

from throttllem_env.traces import Trace, TraceError, load_trace, read_trace, write_parquet

AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
BURSTGPT = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
GOOD = "2023-11-16 18:15:46.6805900,374,44\n"
COUNT = "expected a whole number from 1 to 10,000,000"


def written(folder: Path, content: str | bytes, name: str = "trace.csv") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_azure_2023(tmp_path: Path) -> None:
    trace = load_trace(written(tmp_path, AZURE + GOOD + "2023-11-16 18:15:50.9951690,396,109\n\n"))
    assert trace.arrival_s.tolist() == [0.0, 4.314579]
    assert trace.prompt_tokens.tolist() == [374, 396]
    assert trace.output_tokens.tolist() == [44, 109]
    assert trace.name == "trace"


def test_azure_2024_with_offsets_and_whole_seconds(tmp_path: Path) -> None:
    rows = "2024-05-10 00:00:00.009930+00:00,2162,5\n2024-05-10 02:00:01+02:00,2399,6\n"
    trace = load_trace(str(written(tmp_path, "\ufeff" + AZURE.replace("\n", "\r\n") + rows)))
    assert trace.arrival_s.tolist() == [0.0, 0.99007]


def test_burstgpt_with_failures(tmp_path: Path) -> None:
    rows = "5,GPT,472,18,490,Conversation log\n45,GPT-4,100,0,100,API log\n118.5,GPT,1087,230,1317,API log\n"
    path = written(tmp_path, BURSTGPT + rows)
    with pytest.raises(TraceError, match=r"trace.csv:3: Response tokens = '0': .*drop_failed"):
        load_trace(path)
    trace, failed = read_trace(path, drop_failed=True)
    assert (trace.arrival_s.tolist(), trace.output_tokens.tolist(), failed) == ([0.0, 113.5], [18, 230], 1)
    assert load_trace(f"{path}:drop_failed=true") == load_trace(path, drop_failed=True) == trace


def test_errors_below_dropped_rows_keep_their_lines(tmp_path: Path) -> None:
    path = written(tmp_path, BURSTGPT + "5,m,1,0,1,x\n6,m,1,0,1,x\n7,m,-3,1,1,x\n")
    with pytest.raises(TraceError, match=r"trace.csv:4: Request tokens = '-3'"):
        load_trace(path, drop_failed=True)


def test_mooncake(tmp_path: Path) -> None:
    rows = (
        '{"timestamp": 3000, "input_length": 6758, "output_length": 500, "hash_ids": [0, 1]}\n\n'
        '{"timestamp": 4500, "input_length": 7322, "output_length": 490, "hash_ids": []}\n'
    )
    trace = load_trace(written(tmp_path, rows, "mooncake.jsonl"))
    assert trace.arrival_s.tolist() == [0.0, 1.5]
    assert trace.prompt_tokens.tolist() == [6758, 7322]


def test_the_format_is_found_by_content_not_name(tmp_path: Path) -> None:
    path = written(tmp_path, '{"timestamp": 0, "input_length": 6, "output_length": 5}', "misnamed.csv")
    assert len(load_trace(path)) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (AZURE + GOOD + "2023-11-16 18:15:47,1,abc\n", f":3: GeneratedTokens = 'abc': {COUNT}"),
        (AZURE + GOOD + "2023-11-16 18:15:47,-4,1\n", f":3: ContextTokens = '-4': {COUNT}"),
        (AZURE + GOOD + "2023-11-16 18:15:47,4,0\n", f":3: GeneratedTokens = '0': {COUNT}"),
        (AZURE + GOOD + "2023-11-16 18:15:47,NaN,1\n", f":3: ContextTokens = 'NaN': {COUNT}"),
        (AZURE + GOOD + "2023-11-16 18:15:47,inf,1\n", f":3: ContextTokens = 'inf': {COUNT}"),
        (AZURE + GOOD + "2023-11-16 18:15:47,2.5,1\n", f":3: ContextTokens = '2.5': {COUNT}"),
        (AZURE + GOOD + "2023-11-16 18:15:47,1000000000,1\n", f":3: ContextTokens = '1000000000': {COUNT}"),
        (AZURE + GOOD + "2023-11-16 18:15:47,1\n", f":3: GeneratedTokens = '': {COUNT}"),
        (AZURE + GOOD + "\n" + GOOD, ":3: TIMESTAMP = '': expected a date and time"),
        (AZURE + "yesterday,1,1\n", ":2: TIMESTAMP = 'yesterday': expected a date and time"),
        (AZURE + "2023-13-40 18:15:47,1,1\n", ":2: TIMESTAMP = '2023-13-40 18:15:47': expected"),
        (
            AZURE + GOOD + "2023-11-16 18:15:46,1,1\n",
            ":3: TIMESTAMP = '2023-11-16 18:15:46': expected a time not before",
        ),
        (AZURE + GOOD + "2023-11-16 18:15:47,1,1,9\n", ":3: row = '4 fields': expected 3 fields"),
        (AZURE + "2023-11-16 18:15:47,1,1,9\n", ":2: row = 'more fields': expected 3 fields"),
        (AZURE + '2023-11-16 18:15:46,"1,1\n' + GOOD, ":2: ContextTokens = '\"1'"),
        (AZURE, ": the file has no requests below its header"),
        (AZURE + "\n\n", ": the file has no requests below its header"),
        ("", ": the file is empty; accepted: Azure"),
        (" \n\n", ": the file is empty; accepted: Azure"),
        (b"\x89PNG\r\n\x1a\n\x00\x01\x02", ": the file is binary"),
        (b"\xff\xfe\xfa\xfb" * 20, ": the file is binary"),
        (b"PAR1 but no more", ": not a readable Parquet file"),
        (AZURE + GOOD * 4000 + "\udcff".encode("utf-8", "surrogatepass").decode("latin-1"), ":4002: "),
        (BURSTGPT + "5,m,1,1,2,x\n4,m,1,1,2,x\n", ":3: Timestamp = '4': expected a time not before"),
        (BURSTGPT + "soon,m,1,1,2,x\n", ":2: Timestamp = 'soon': expected a finite number of at least 0"),
        (BURSTGPT + "nan,m,1,1,2,x\n", ":2: Timestamp = 'nan': expected a finite number of at least 0"),
        (BURSTGPT + "-5,m,1,1,2,x\n", ":2: Timestamp = '-5': expected a finite number of at least 0"),
        ("TIMESTAMP,TIMESTAMP,ContextTokens,GeneratedTokens\n", ":1: header = "),
    ],
)
def test_bad_csv_content(tmp_path: Path, content: str | bytes, message: str) -> None:
    with pytest.raises(TraceError) as caught:
        load_trace(written(tmp_path, content))
    assert str(caught.value).startswith("trace.csv")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{not json", ":2: line = '{not json': expected a JSON object with timestamp"),
        ("[1, 2]", ":2: line = '[1, 2]': expected a JSON object"),
        (
            '{"timestamp": 1, "input_len": 1, "output_length": 1}',
            "'input_length' is missing (did you mean 'input_len'?)",
        ),
        ('{"timestamp": 1, "input_length": 0, "output_length": 1}', f":2: input_length = 0: {COUNT}"),
        ('{"timestamp": 1, "input_length": true, "output_length": 1}', f":2: input_length = True: {COUNT}"),
        ('{"timestamp": 1, "input_length": "7", "output_length": 1}', f":2: input_length = '7': {COUNT}"),
        (
            '{"timestamp": 1, "input_length": 1, "output_length": 1' + "0" * 400 + "}",
            ":2: output_length = 1000",
        ),
        (
            '{"timestamp": NaN, "input_length": 1, "output_length": 1}',
            ":2: timestamp = nan: expected a finite number",
        ),
        ('{"timestamp": null, "input_length": 1, "output_length": 1}', ":2: timestamp = None: expected"),
        ('{"timestamp": -1, "input_length": 1, "output_length": 1}', ":2: timestamp = -1: expected"),
    ],
)
def test_bad_json_lines(tmp_path: Path, line: str, message: str) -> None:
    first = '{"timestamp": 0, "input_length": 1, "output_length": 1}\n'
    with pytest.raises(TraceError) as caught:
        load_trace(written(tmp_path, first + line + "\n", "mooncake.jsonl"))
    assert message in str(caught.value)


def test_an_error_has_its_parts_as_attributes(tmp_path: Path) -> None:
    with pytest.raises(TraceError) as caught:
        load_trace(written(tmp_path, AZURE + GOOD + "2023-11-16 18:15:47,1,abc\n", "conv.csv"))
    error = caught.value
    assert str(error) == f"conv.csv:3: GeneratedTokens = 'abc': {COUNT}"
    assert (error.file, error.line, error.field, error.value) == ("conv.csv", 3, "GeneratedTokens", "abc")
    assert error.accepted == "a whole number from 1 to 10,000,000"


def test_a_missing_column_names_what_is_there_and_what_is_accepted(tmp_path: Path) -> None:
    path = written(tmp_path, "TIMESTAMP,ContextTokens,GeneratedToken\n" + GOOD)
    with pytest.raises(TraceError) as caught:
        load_trace(path)
    message = str(caught.value)
    assert "trace.csv:1: column 'GeneratedTokens' is missing (did you mean 'GeneratedToken'?)" in message
    for part in ("'ContextTokens'", "Azure 2023/2024 CSV", "BurstGPT CSV", "Mooncake", "Parquet"):
        assert part in message


def test_a_missing_file_names_the_nearest(tmp_path: Path) -> None:
    written(tmp_path, AZURE + GOOD, "conv.csv")
    with pytest.raises(TraceError, match=r"there is no such trace file \(did you mean 'conv.csv'\?\)"):
        load_trace(tmp_path / "cnov.csv")
    with pytest.raises(TraceError, match="no such trace file"):
        load_trace(str(tmp_path / "missing" / "conv.csv"))
    with pytest.raises(TraceError, match="cannot be read"):
        load_trace(tmp_path)


def test_the_published_traces_are_read_fast_and_whole(shared_traces: Path) -> None:
    import pandas  # noqa: F401  (importing it is not what is timed)

    start_s = time.process_time()
    conv = load_trace(shared_traces / "AzureLLMInferenceTrace_conv.csv")
    assert time.process_time() - start_s < 0.5
    code = load_trace(shared_traces / "AzureLLMInferenceTrace_code.csv")
    assert (len(conv), len(code)) == (19_366, 8_819)
    assert (conv.duration_s, code.duration_s) == pytest.approx((3501.721937, 3435.948056), abs=1e-6)
    assert (int(conv.prompt_tokens.max()), int(code.output_tokens.max())) == (14_050, 1_899)


def test_three_hundred_thousand_rows_cost_no_python_loop(tmp_path: Path) -> None:
    stamps = np.datetime64("2024-05-10T00:00:00.000000") + np.arange(300_000) * np.timedelta64(13_700, "us")
    rows = "".join(f"{stamp}+00:00,7,9\n" for stamp in stamps.astype(str))
    path = written(tmp_path, AZURE + rows)
    start_s = time.process_time()
    trace: Trace = load_trace(path)
    assert time.process_time() - start_s < 3.0
    assert len(trace) == 300_000
    write_parquet(trace, tmp_path / "trace.parquet")
    assert load_trace(tmp_path / "trace.parquet") == trace
