"""Reading the CSV formats: Azure 2023 and 2024, and BurstGPT."""

from __future__ import annotations

import csv
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from throttllem_env.traces.columns import (
    MAX_TOKENS,
    Column,
    elapsed_s,
    parse_numbers,
    parse_timestamps,
    parse_tokens,
)
from throttllem_env.traces.errors import TraceError, nearest_hint
from throttllem_env.traces.trace import Trace

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["AZURE", "BURSTGPT", "CsvFormat", "read_csv"]


@dataclass(frozen=True, slots=True)
class CsvFormat:
    """The columns of one published CSV format.

    Attributes:
        title: Name for messages.
        time: Column of arrivals.
        prompt: Column of prompt lengths.
        output: Column of output lengths.
        clock_is_dates: Whether times are dates; else they are seconds.
        zero_output_is_failure: Whether an output length of 0 marks a failed request.
    """

    title: str
    time: str
    prompt: str
    output: str
    clock_is_dates: bool
    zero_output_is_failure: bool

    @property
    def columns(self) -> tuple[str, str, str]:
        """The columns that must be there: time, prompt, output."""
        return (self.time, self.prompt, self.output)


AZURE: Final = CsvFormat("Azure 2023/2024 CSV", "TIMESTAMP", "ContextTokens", "GeneratedTokens", True, False)
"""AzurePublicDataset, AzureLLMInferenceDataset2023 and 2024 (the latter's times have an offset)."""

BURSTGPT: Final = CsvFormat("BurstGPT CSV", "Timestamp", "Request tokens", "Response tokens", False, True)
"""BurstGPT (HPMLL/BurstGPT); its documentation says that 0 response tokens are a failure."""

_FORMATS: Final = (AZURE, BURSTGPT)


def read_csv(path: Path, *, drop_failed: bool = False) -> tuple[Trace, int]:
    """Read a CSV trace in whichever known format its header shows.

    Args:
        path: The file, UTF-8.
        drop_failed: Leave out requests that the format marks as failed (BurstGPT).

    Returns:
        The trace, named after the file, its first arrival at 0 s; and how many failed
        requests were left out.

    Raises:
        TraceError: Naming file, line, field, value and what is accepted.
    """
    header = _read_header(path)
    layout = _recognise(path, header)
    frame = _read_rows(path, header)
    lines = np.arange(len(frame), dtype=np.int64) + 2
    failed = _failed_rows(frame, layout) if drop_failed else np.zeros(len(frame), np.bool_)
    frame, lines = frame.loc[~failed], lines[~failed]
    if frame.empty:
        raise TraceError(f"{path.name}: the file has no requests below its header", file=path.name)
    return _to_trace(path, layout, frame, lines), int(failed.sum())


def _to_trace(path: Path, layout: CsvFormat, frame: pd.DataFrame, lines: NDArray[np.int64]) -> Trace:
    column = {field: Column(path.name, field, frame[field], lines) for field in layout.columns}
    if layout.clock_is_dates:
        arrival_s = parse_timestamps(frame[layout.time], column[layout.time])
    else:
        arrival_s = elapsed_s(parse_numbers(frame[layout.time]), column[layout.time])
    prompt_tokens = parse_tokens(parse_numbers(frame[layout.prompt]), column[layout.prompt])
    accepted = _output_accepted(layout)
    output_tokens = parse_tokens(parse_numbers(frame[layout.output]), column[layout.output], accepted)
    return Trace(arrival_s, prompt_tokens, output_tokens, path.stem)


def _output_accepted(layout: CsvFormat) -> str | None:
    if not layout.zero_output_is_failure:
        return None
    return f"a whole number from 1 to {MAX_TOKENS:,} (0 marks a failed request: drop_failed leaves those out)"


def _failed_rows(frame: pd.DataFrame, layout: CsvFormat) -> NDArray[np.bool_]:
    if not layout.zero_output_is_failure:
        return np.zeros(len(frame), np.bool_)
    return np.equal(parse_numbers(frame[layout.output]), 0.0)


def _read_header(path: Path) -> list[str]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        line = file.readline().rstrip("\r\n")
    return [name.strip() for name in next(csv.reader([line]), [])]


def _recognise(path: Path, header: list[str]) -> CsvFormat:
    layout = max(_FORMATS, key=lambda known: len(set(known.columns) & set(header)))
    missing = [name for name in layout.columns if name not in header]
    accepted = "; ".join(f"{known.title} ({', '.join(known.columns)})" for known in _FORMATS)
    if missing:
        hint = nearest_hint(missing[0], header)
        message = (
            f"{path.name}:1: column {missing[0]!r} is missing{hint}; the columns here are "
            f"{header!r}; accepted: {accepted}; Mooncake JSON lines; this project's Parquet"
        )
        raise TraceError(message, file=path.name, line=1, field=missing[0], value=header, accepted=accepted)
    if len(set(header)) < len(header):
        raise TraceError.at(path.name, 1, "header", header, "each column once")
    return layout


def _read_rows(path: Path, header: list[str]) -> pd.DataFrame:
    import pandas as pd

    try:
        with warnings.catch_warnings():
            # pandas merely warns when the first row is longer than the header.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            frame = pd.read_csv(
                path,
                dtype=str,
                header=0,
                names=header,
                index_col=False,
                na_filter=False,  # "NaN" stays text, so that errors can show it
                skip_blank_lines=False,  # rows keep their line numbers
                quoting=csv.QUOTE_NONE,  # an open quote must not swallow lines
                encoding="utf-8-sig",
            )
    except (pd.errors.ParserError, pd.errors.ParserWarning) as error:
        raise _ragged(path, header, str(error)) from error
    except UnicodeDecodeError as error:
        raise TraceError(f"{path.name}: the file is not UTF-8 text: {error}", file=path.name) from error
    return _without_blank_end(frame)


def _ragged(path: Path, header: list[str], reason: str) -> TraceError:
    match = re.search(r"in line (\d+), saw (\d+)", reason)
    line, found = (int(match[1]), f"{match[2]} fields") if match else (2, "more fields")
    return TraceError.at(path.name, line, "row", found, f"{len(header)} fields, as in the header")


def _without_blank_end(frame: pd.DataFrame) -> pd.DataFrame:
    filled = np.flatnonzero((frame != "").to_numpy().any(axis=1))
    return frame.iloc[: int(filled[-1]) + 1 if len(filled) else 0]
