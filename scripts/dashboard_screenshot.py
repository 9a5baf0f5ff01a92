"""A picture of TensorBoard's custom scalars, taken in a headless Chromium.

    python scripts/dashboard_screenshot.py --logdir out --picture docs/images/tensorboard.png

docs/images/tensorboard.png, a training and a comparison in one TensorBoard, came of

    throttllem train --algo ppo --load 0.5 --steps 300000 --out out/ppo
    AGENTS=max-frequency,static-frequency:mhz=900,throttllem,throttllem-energy,learned,linucb,out/ppo/model.zip
    throttllem compare --load 0.5 --duration 1800 --agents $AGENTS --out out/compare
    python scripts/dashboard_screenshot.py --logdir out --picture docs/images/tensorboard.png

TensorBoard and Chromium are started for it and ended after it. Needs Chromium and the extra `dev`; nothing is
reached but this machine's loopback.
"""

import argparse
import asyncio
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

import aiohttp
from headless import PATIENCE_S, PROGRAMS, Chromium, Tab, find_chromium

EVENT_FILES = "events.out.tfevents.*"

DEEP = """
const deep = (root, selector) => [
    ...root.querySelectorAll(selector),
    ...[...root.querySelectorAll('*')].flatMap(e => e.shadowRoot ? deep(e.shadowRoot, selector) : []),
];
const one = (root, selector) => deep(root, selector)[0];
const dashboard = () => one(document, 'tf-custom-scalar-dashboard');
const cards = () => deep(dashboard().shadowRoot, 'tf-custom-scalar-multi-line-chart-card')
    .filter(card => card.getBoundingClientRect().top < innerHeight);
"""
"""TensorBoard is made of elements in elements' shadow roots, which a plain selector does not see."""

OPENED = f"(() => {{ {DEEP} return Boolean(dashboard() && cards().length); }})()"

PLAIN = f"""(() => {{ {DEEP}
    dashboard()._smoothingWeight = 0;
    dashboard()._ignoreYOutliers = false;
}})()"""
"""Curves as they are: neither smoothed nor cut off."""

DRAWN = f"""(() => {{ {DEEP} return cards().every(card => {{
    const data = one(card.shadowRoot, 'tf-line-chart-data-loader');
    const lines = deep(card.shadowRoot, 'path.line').filter(line => line.getAttribute('d'));
    const loaded = data && data.dataLoadedAtLeastOnce && !data.dataLoading;
    return loaded && lines.length >= card._seriesNames.length;
}}); }})()"""
"""Every chart that can be seen has its data, and a line for each run."""

CURVES = f"(() => {{ {DEEP} return cards().reduce((sum, card) => sum + card._seriesNames.length, 0); }})()"


def count_runs(logdir: Path) -> int:
    """Count the folders with events below a folder.

    Args:
        logdir: The folder.

    Returns:
        At least one.

    Raises:
        ValueError: It is no folder, or holds no events.
    """
    if not logdir.is_dir():
        raise ValueError(f"--logdir {logdir}: no such folder")
    runs = {path.parent for path in logdir.rglob(EVENT_FILES)}
    if not runs:
        raise ValueError(f"--logdir {logdir}: no events below; throttllem compare and train write some")
    return len(runs)


@contextmanager
def tensorboard(logdir: Path, log: Path) -> Iterator[str]:
    """Run TensorBoard on a free port of the loopback.

    It reads all events before it listens, so nothing appears later. Its process is ended whatever happens.

    Args:
        logdir: What it shows.
        log: Where its output goes.

    Yields:
        Its address, with a slash at the end.

    Raises:
        RuntimeError: It ended by itself.
        TimeoutError: It does not listen within `PATIENCE_S`.
    """
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(logdir), "--host", "127.0.0.1"]
    # Port 0: any free one. Without the data server, which would be a process more to end.
    command += ["--port", "0", "--load_fast", "false", "--reload_task", "blocking", "--reload_interval", "0"]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=os.environ | {"NO_COLOR": "1"})
    try:
        yield _address(process, log)
    finally:
        process.terminate()
        try:
            process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _address(process: "subprocess.Popen[bytes]", log: Path) -> str:
    """Wait for the line in which TensorBoard says where it listens, and until it does."""
    opener, end = build_opener(ProxyHandler({})), time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        ended = process.poll() is not None  # first: its last words are in the log by then
        said = log.read_text(encoding="utf-8", errors="replace")
        if ended:
            raise RuntimeError(f"TensorBoard ended with status {process.returncode}: {said}")
        if found := re.search(r"http://\S+:\d+/", said):
            try:
                opener.open(f"{found[0]}data/environment", timeout=PATIENCE_S).close()
                return found[0]
            except URLError:
                pass
        time.sleep(0.1)
    raise TimeoutError(f"TensorBoard does not listen after {PATIENCE_S:g} s: {log.read_text()}")


async def photograph(tab: Tab, picture: Path) -> int:
    """Save what the tab shows, once it shows all there is and nothing moves any more.

    Args:
        tab: At the custom scalars.
        picture: The PNG to write.

    Returns:
        Curves in the charts that can be seen.

    Raises:
        TimeoutError: The charts are not drawn, or move for ever.
    """
    await tab.ask(PLAIN)
    await tab.until(DRAWN)
    end, before = time.monotonic() + PATIENCE_S, b""
    while time.monotonic() < end:
        await asyncio.sleep(0.5)
        await tab.picture(picture)
        if (now := picture.read_bytes()) == before and await tab.ask(DRAWN):
            return int(await tab.ask(CURVES))
        before = now
    raise TimeoutError(f"the dashboard still moves after {PATIENCE_S:g} s")


def take(logdir: Path, picture: Path, program: str, size_px: tuple[int, int]) -> str:
    """Take the picture.

    Args:
        logdir: Events are below.
        picture: The PNG to write.
        program: Chromium's executable.
        size_px: Width and height of the window.

    Returns:
        What is in the picture, in words.

    Raises:
        OSError: The picture cannot be written.
        RuntimeError: TensorBoard or Chromium failed.
        TimeoutError: One of them never came so far.
        ValueError: There are no events.
    """
    runs = count_runs(logdir)
    picture.parent.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch,
        tensorboard(logdir, Path(scratch) / "tensorboard.log") as url,
        Chromium(program, Path(scratch) / "profile") as browser,
    ):
        curves = browser.visit(
            f"{url}#custom_scalars",
            size_px[0],
            lambda tab: photograph(tab, picture),
            height_px=size_px[1],
            ready=OPENED,
        )
    return f"{picture}: {curves} curves of {runs} runs, {picture.stat().st_size / 1000:.0f} kB"


def main(arguments: Sequence[str] | None = None) -> int:
    """Take a picture.

    Args:
        arguments: The command line without the program's name, by default the process's.

    Returns:
        Exit status: 0 done, 1 it failed, 2 wrong input.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--logdir", type=Path, default=Path("out"), help="events are below (%(default)s)")
    parser.add_argument("--picture", type=Path, default=Path("tensorboard.png"), help="PNG (%(default)s)")
    parser.add_argument("--width", type=int, default=1480, help="of the window, pixels (%(default)s)")
    parser.add_argument("--height", type=int, default=1150, help="of the window, pixels (%(default)s)")
    given = parser.parse_args(arguments)
    program = find_chromium()
    if program is None:
        print(f"No Chromium: none of {', '.join(PROGRAMS)} is installed; apt-get install chromium")
        return 2
    try:
        print(take(given.logdir, given.picture, program, (given.width, given.height)))
    except ValueError as error:
        print(error)
        return 2
    except (OSError, RuntimeError, aiohttp.ClientError) as error:
        print(f"No picture: {error}")
        return 1
    return 0


if __name__ == "__main__":
    # As an exception, so that what was started is ended.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    sys.exit(main())
