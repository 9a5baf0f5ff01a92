"""Fetching published traces from their publisher, since this project does not ship them."""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final
from urllib.parse import urlsplit

from throttllem_env.traces.errors import TraceError, nearest_hint

__all__ = ["PUBLISHED_TRACES", "PublishedTrace", "cache_folder", "cached_trace", "fetch_trace"]

_AZURE_URL: Final = "https://raw.githubusercontent.com/Azure/AzurePublicDataset/master/data/"
_AZURE_CITATION: Final = (
    "Azure LLM inference trace 2023, AzurePublicDataset; cite Patel et al., Splitwise: Efficient "
    "generative LLM inference using phase splitting, ISCA 2024"
)
_TIMEOUT_S: Final = 30.0
_CHUNK_BYTES: Final = 65536

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PublishedTrace:
    """A trace that somebody else publishes.

    Attributes:
        url: Where, over http or https.
        sha256: Of the file, in hex.
        size_bytes: Of the file; a longer answer is cut off and refused.
        licence: SPDX identifier.
        citation: What to cite.
    """

    url: str
    sha256: str
    size_bytes: int
    licence: str
    citation: str

    @property
    def filename(self) -> str:
        """Name under which the file is kept: the last part of its address."""
        return urlsplit(self.url).path.rsplit("/", 1)[-1]


PUBLISHED_TRACES: Final[Mapping[str, PublishedTrace]] = {
    "azure-2023-conv": PublishedTrace(
        f"{_AZURE_URL}AzureLLMInferenceTrace_conv.csv",
        "2f1e5b666d4e3055fdbba98598ce2ec307767b9064e03e2fa46676dbcc7d0bf8",
        719_188,
        "CC-BY-4.0",
        _AZURE_CITATION,
    ),
    "azure-2023-code": PublishedTrace(
        f"{_AZURE_URL}AzureLLMInferenceTrace_code.csv",
        "54e9a6d2a4bd06ba1e060304b900abbc74cbea53de96506e60fe5bb4f2277fb6",
        320_117,
        "CC-BY-4.0",
        _AZURE_CITATION,
    ),
}
"""What `fetch_trace` knows, by name."""


def cache_folder() -> Path:
    """Return where fetched traces lie: $THROTTLLEM_CACHE, else ~/.cache/throttllem."""
    chosen = os.environ.get("THROTTLLEM_CACHE")
    return Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "throttllem"


def cached_trace(
    name: str, *, folder: Path | None = None, table: Mapping[str, PublishedTrace] = PUBLISHED_TRACES
) -> Path:
    """Return a published trace's file, which must have been fetched before.

    Args:
        name: A key of `table`.
        folder: Where it was put; by default `cache_folder()`.
        table: Known traces.

    Returns:
        The file.

    Raises:
        TraceError: If the name is unknown or the file not there; it says how to fetch it.
    """
    path = (folder or cache_folder()) / _entry(name, table).filename
    if not path.is_file():
        message = f"{name}: not fetched yet (no {path}); run: throttllem trace fetch {name}"
        raise TraceError(message, file=path.name, field="trace", value=name)
    return path


def fetch_trace(
    name: str,
    *,
    folder: str | Path | None = None,
    progress: Callable[[int, int], None] | None = None,
    table: Mapping[str, PublishedTrace] = PUBLISHED_TRACES,
) -> Path:
    """Download a published trace, unless it is there already, and check it.

    The file appears under its name only when its checksum is right. A text file beside it
    has its licence and citation, which are logged as well.

    Args:
        name: A key of `table`.
        folder: Where to put it, made if need be; by default `cache_folder()`.
        progress: Called with the bytes received so far and the bytes in all.
        table: Known traces.

    Returns:
        The file.

    Raises:
        TraceError: If the name is unknown, the network fails, the content is not the
            published one, or the folder cannot be written.
    """
    from http.client import HTTPException

    entry = _entry(name, table)
    path = Path(folder or cache_folder()) / entry.filename
    try:
        if not (path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == entry.sha256):
            path.parent.mkdir(parents=True, exist_ok=True)
            _download(name, entry, path, progress)
        _write_notice(entry, path)
    except (OSError, HTTPException) as error:
        # urllib's errors, time-outs and broken connections are OSErrors, like those of the disk.
        message = f"{name}: cannot fetch {entry.url} to {path}: {error}"
        raise TraceError(message, file=path.name, field="trace", value=name) from error
    return path


def _entry(name: str, table: Mapping[str, PublishedTrace]) -> PublishedTrace:
    if name not in table:
        accepted = f"one of {', '.join(table)}{nearest_hint(name, table)}"
        raise TraceError.at(None, None, "trace", name, accepted)
    return table[name]


def _download(
    name: str, entry: PublishedTrace, path: Path, progress: Callable[[int, int], None] | None
) -> None:
    from urllib.request import urlopen

    if urlsplit(entry.url).scheme not in ("http", "https"):
        raise TraceError.at(None, None, f"{name}: url", entry.url, "an http or https address")
    # A temporary file in the same folder can be renamed atomically.
    descriptor, part = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file, urlopen(entry.url, timeout=_TIMEOUT_S) as answer:
            found = _copy(answer, file, entry.size_bytes, progress)
        if found != entry.sha256:
            raise TraceError.at(path.name, None, "sha256", found, f"{entry.sha256} (from {entry.url})")
        Path(part).replace(path)
    finally:
        Path(part).unlink(missing_ok=True)


def _copy(
    source: IO[bytes], target: IO[bytes], size_bytes: int, progress: Callable[[int, int], None] | None
) -> str:
    sha256, done = hashlib.sha256(), 0
    # One byte more than expected is enough to make the checksum wrong.
    while done <= size_bytes and (chunk := source.read(min(_CHUNK_BYTES, size_bytes + 1 - done))):
        target.write(chunk)
        sha256.update(chunk)
        done += len(chunk)
        if progress is not None:
            progress(min(done, size_bytes), size_bytes)
    return sha256.hexdigest()


def _write_notice(entry: PublishedTrace, path: Path) -> None:
    notice = f"{entry.filename}\nSource: {entry.url}\nLicence: {entry.licence}\nCitation: {entry.citation}\n"
    path.with_suffix(".licence.txt").write_text(notice, encoding="utf-8")
    _log.info("%s: licence %s; %s", path.name, entry.licence, entry.citation)
