import hashlib
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from throttllem_env.traces import PUBLISHED_TRACES, PublishedTrace, TraceError, fetch_trace, load_trace

CONTENT = b"TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.6805900,374,44\n"


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def publisher(tmp_path: Path) -> Iterator[str]:
    folder = tmp_path / "published"
    folder.mkdir()
    (folder / "small.csv").write_bytes(CONTENT)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=str(folder)))
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def table(url: str, content: bytes = CONTENT) -> dict[str, PublishedTrace]:
    digest = hashlib.sha256(content).hexdigest()
    return {"small": PublishedTrace(url, digest, len(content), "CC-BY-4.0", "cite me")}


def test_a_trace_is_downloaded_once_and_checked(tmp_path: Path, publisher: str) -> None:
    seen: list[tuple[int, int]] = []
    known = table(f"{publisher}/small.csv")
    path = fetch_trace(
        "small", folder=tmp_path / "cache", table=known, progress=lambda *now: seen.append(now)
    )
    assert path == tmp_path / "cache" / "small.csv"
    assert len(load_trace(path)) == 1
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    calls = len(seen)
    fetch_trace("small", folder=tmp_path / "cache", table=known, progress=lambda *now: seen.append(now))
    assert len(seen) == calls
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["small.csv", "small.licence.txt"]
    assert "Licence: CC-BY-4.0\nCitation: cite me" in path.with_suffix(".licence.txt").read_text()


def test_a_damaged_file_is_fetched_again(tmp_path: Path, publisher: str) -> None:
    (tmp_path / "small.csv").write_bytes(b"damaged")
    path = fetch_trace("small", folder=tmp_path, table=table(f"{publisher}/small.csv"))
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize("expected", [b"other content", CONTENT[:-1], CONTENT + b"more"])
def test_a_file_that_is_not_the_published_one_never_appears(
    tmp_path: Path, publisher: str, expected: bytes
) -> None:
    cache = tmp_path / "cache"
    with pytest.raises(TraceError, match=r"small.csv: sha256 = '.*': expected"):
        fetch_trace("small", folder=cache, table=table(f"{publisher}/small.csv", expected))
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize("path", ["/missing.csv", ":1/small.csv"])
def test_network_errors_are_clear(tmp_path: Path, publisher: str, path: str) -> None:
    url = publisher + path if path.startswith("/") else f"http://127.0.0.1{path}"
    with pytest.raises(TraceError, match=r"small: cannot fetch http://127.0.0.1.* to .*: .+"):
        fetch_trace("small", folder=tmp_path / "cache", table=table(url))
    assert list((tmp_path / "cache").iterdir()) == []


def test_names_schemes_and_folders_are_checked(tmp_path: Path, publisher: str) -> None:
    with pytest.raises(TraceError, match="did you mean 'azure-2023-conv'"):
        fetch_trace("azure-2023-cnov", folder=tmp_path)
    with pytest.raises(TraceError, match="an http or https address"):
        fetch_trace("small", folder=tmp_path, table=table("file:///etc/hostname"))
    (tmp_path / "file").touch()
    with pytest.raises(TraceError, match="cannot fetch"):
        fetch_trace("small", folder=tmp_path / "file", table=table(f"{publisher}/small.csv"))


def test_the_table_has_the_checksums_of_the_published_files(shared_traces: Path) -> None:
    for published in PUBLISHED_TRACES.values():
        content = (shared_traces / published.filename).read_bytes()
        assert hashlib.sha256(content).hexdigest() == published.sha256
        assert len(content) == published.size_bytes
