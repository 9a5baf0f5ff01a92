"""Drives a headless Chromium through its DevTools protocol: what a page says, shows and complains of.

For `dashboard_screenshot.py`, `report_screenshot.py`, and for tests of pages that the project makes.
"""

import asyncio
import base64
import json
import shutil
import subprocess
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--hide-scrollbars",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-port=0",
)
PATIENCE_S = 240.0
"""How long anything may take on the busiest machine."""
PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
READY = "document.body?.dataset.ready === 'yes'"
"""How a page of `throttllem report` says that it is ready."""


def find_chromium() -> str | None:
    """Where the first of `PROGRAMS` is, None if none is installed."""
    return next((path for name in PROGRAMS if (path := shutil.which(name))), None)


class Chromium:
    """A browser for as long as the context lasts; only the process started here is ended."""

    def __init__(self, program: str, profile: Path) -> None:
        """Start it.

        Args:
            program: The executable.
            profile: An empty folder for its files.
        """
        self._profile = profile
        command = [program, *FLAGS, f"--user-data-dir={profile}", "about:blank"]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self._process.terminate()
        try:
            self._process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def visit(
        self,
        url: str,
        width_px: int,
        look: "Callable[[Tab], Awaitable[Any]]",
        height_px: int = 844,
        ready: str = READY,
    ) -> Any:
        """Open a page in a new tab, and look at it when it is ready.

        Args:
            url: The page.
            width_px: Width of the window; below 600 it is a telephone's.
            look: Asks the tab, and returns what is returned here.
            height_px: Height of the window.
            ready: JavaScript that is true once the page is ready.

        Raises:
            RuntimeError: Chromium ended, or the page's JavaScript failed.
            TimeoutError: The page is not ready within `PATIENCE_S`.
        """
        return asyncio.run(self._visit(url, (width_px, height_px), ready, look))

    async def _visit(
        self, url: str, size_px: tuple[int, int], ready: str, look: "Callable[[Tab], Awaitable[Any]]"
    ) -> Any:
        port = self._port()
        async with aiohttp.ClientSession() as session:
            async with session.put(f"http://127.0.0.1:{port}/json/new?about:blank") as response:
                target = await response.json(content_type=None)
            async with session.ws_connect(target["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                tab = Tab(socket)
                await tab.open(url, size_px, ready)
                result = await look(tab)
                await tab.send("Page.close")
                return result

    def _port(self) -> int:
        """Chromium writes its port down once it listens."""
        file, end = self._profile / "DevToolsActivePort", time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            if self._process.poll() is not None:
                raise RuntimeError(f"Chromium ended with status {self._process.returncode}")
            if file.is_file() and (lines := file.read_text(encoding="utf-8").splitlines()):
                return int(lines[0])
            time.sleep(0.05)
        raise TimeoutError("Chromium does not listen")


class Tab:
    """One page.

    Attributes:
        complaints: Errors and warnings of the console, exceptions, and requests that went over a network.
    """

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        """Take over a tab's DevTools socket."""
        self.complaints: list[str] = []
        self._socket = socket
        self._number = 0

    async def open(self, url: str, size_px: tuple[int, int], ready: str) -> None:
        """Go to a page in a window of a given width and height, and wait until it is ready."""
        for domain in ("Page", "Runtime", "Log", "Network"):
            await self.send(f"{domain}.enable")
        width_px, height_px = size_px
        size = {"width": width_px, "height": height_px, "deviceScaleFactor": 1, "mobile": width_px < 600}
        await self.send("Emulation.setDeviceMetricsOverride", **size)
        await self.send("Page.navigate", url=url)
        await self.until(ready)

    async def send(self, method: str, **parameters: Any) -> Any:
        """Send a command; what else comes before its answer is noted."""
        self._number += 1
        await self._socket.send_json({"id": self._number, "method": method, "params": parameters})
        async with asyncio.timeout(PATIENCE_S):
            while True:
                received = await self._socket.receive()
                if received.type is not aiohttp.WSMsgType.TEXT:
                    raise RuntimeError(f"{method}: Chromium closed the tab")
                message = json.loads(received.data)
                if message.get("id") == self._number:
                    if "error" in message:
                        raise RuntimeError(f"{method}: {message['error']}")
                    return message["result"]
                self._note(message)

    async def ask(self, expression: str) -> Any:
        """The value of an expression in the page."""
        answer = await self.send(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{expression}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    async def until(self, expression: str) -> None:
        """Wait until an expression is true."""
        end = time.monotonic() + PATIENCE_S
        while not await self.ask(expression):
            if time.monotonic() > end:
                raise TimeoutError(f"never true: {expression}; {self.complaints}")
            await asyncio.sleep(0.05)

    async def press(self, key: str, code: int) -> None:
        """Press and release a key."""
        text = {"text": "\r"} if key == "Enter" else {}
        for kind in ("keyDown", "keyUp"):
            await self.send("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code, **text)

    async def picture(self, path: Path) -> None:
        """Save the whole page as a PNG."""
        shot = await self.send("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))

    async def pdf(self, path: Path) -> None:
        """Save the page as it is printed."""
        path.write_bytes(base64.b64decode((await self.send("Page.printToPDF"))["data"]))

    def _note(self, message: dict[str, Any]) -> None:
        what, details = message.get("method"), message.get("params", {})
        if what == "Runtime.exceptionThrown":
            self.complaints.append(str(details["exceptionDetails"]))
        elif what == "Runtime.consoleAPICalled" and details["type"] in ("error", "warning", "assert"):
            self.complaints.append(str(details["args"]))
        elif what == "Log.entryAdded" and details["entry"]["level"] in ("error", "warning"):
            self.complaints.append(details["entry"]["text"])
        elif what == "Network.requestWillBeSent":
            url = details["request"]["url"]
            if not url.startswith(("file:", "data:", "blob:", "about:")):
                self.complaints.append(f"asks the network for {url}")
