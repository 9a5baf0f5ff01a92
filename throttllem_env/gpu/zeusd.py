"""GPUs through zeusd, Zeus's daemon with the right to set clocks, for processes without root.

Reading needs no privilege and goes through NVML; only locks and resets go to the daemon, over its Unix
socket. Its interface is HTTP (https://ml.energy/zeus/zeusd/api/): `GET /discover`, and `POST
/gpu/set_gpu_locked_clocks` and `/gpu/reset_gpu_locked_clocks` with everything in the query. We speak it with
the standard library: the `zeus` package's own client would bring scikit-learn, pandas and AMD's libraries.
"""

import http.client
import json
import os
import socket
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlencode

from throttllem_env.gpu.actuator import DRIVER_TIMEOUT_S, ActuatorError, Trouble
from throttllem_env.gpu.nvml import NvmlActuator

DEFAULT_SOCKET = "/var/run/zeusd.sock"
MAX_ANSWER_BYTES = 1 << 16
STATUS_TROUBLES = {
    400: Trouble.NOT_SUPPORTED,
    401: Trouble.NO_PERMISSION,
    403: Trouble.NO_PERMISSION,
    404: Trouble.NOT_SUPPORTED,
}


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class ZeusdClient:
    """Our side of zeusd's socket protocol. Every call has a connection of its own.

    Args:
        path: The socket; by default what ZEUSD_SOCK_PATH names, else `/var/run/zeusd.sock`.
        token: For daemons that want one; by default ZEUSD_TOKEN.
        timeout_s: How long an answer may take, seconds.

    Attributes:
        path: The socket.
    """

    def __init__(
        self, path: str | None = None, token: str | None = None, timeout_s: float = DRIVER_TIMEOUT_S
    ) -> None:
        """Remember where the daemon is; nothing is sent yet."""
        self.path = path or os.environ.get("ZEUSD_SOCK_PATH") or DEFAULT_SOCKET
        token = token or os.environ.get("ZEUSD_TOKEN")
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._timeout_s = timeout_s

    def discover(self) -> dict[str, Any]:
        """Ask what the daemon can do: `gpus`, `enabled_api_groups`, `auth_required`.

        Raises:
            ActuatorError: There is no daemon, or it does not speak as documented.
        """
        answer = self._call("GET", "/discover", {}, None)
        if not isinstance(answer, dict) or not isinstance(answer.get("gpus"), list):
            raise ActuatorError(Trouble.UNKNOWN, f"zeusd at {self.path}: /discover names no gpus")
        return answer

    def scopes(self) -> frozenset[str]:
        """Ask what our token allows; for daemons that require one.

        Raises:
            ActuatorError: There is no valid token.
        """
        return frozenset(self._call("GET", "/auth/whoami", {}, None).get("scopes", ()))

    def lock(self, gpu: int, min_mhz: int, max_mhz: int) -> None:
        """Lock a GPU's clock and wait until it is done.

        Args:
            gpu: The driver's index.
            min_mhz: Least clock.
            max_mhz: Highest clock.

        Raises:
            ActuatorError: The daemon or the driver behind it refused.
        """
        clocks = {"min_clock_mhz": min_mhz, "max_clock_mhz": max_mhz}
        self._call("POST", "/gpu/set_gpu_locked_clocks", {"gpu_ids": gpu, **clocks, "block": "true"}, gpu)

    def reset(self, gpu: int) -> None:
        """Take the lock off a GPU and wait until it is done.

        Args:
            gpu: The driver's index.

        Raises:
            ActuatorError: The daemon or the driver behind it refused.
        """
        self._call("POST", "/gpu/reset_gpu_locked_clocks", {"gpu_ids": gpu, "block": "true"}, gpu)

    def _call(self, method: str, path: str, query: dict[str, Any], gpu: int | None) -> Any:
        connection = _UnixConnection(self.path, self._timeout_s)
        try:
            target = f"{path}?{urlencode(query)}" if query else path
            connection.request(method, target, headers=self._headers)
            answer = connection.getresponse()
            body = answer.read(MAX_ANSWER_BYTES)
        except TimeoutError as error:
            message = f"zeusd at {self.path}: no answer within {self._timeout_s:g} s"
            raise ActuatorError(Trouble.TIMEOUT, message, gpu) from error
        except PermissionError as error:
            message = f"zeusd at {self.path}: this user may not use the socket (zeusd --socket-permissions)"
            raise ActuatorError(Trouble.NO_PERMISSION, message, gpu) from error
        except (OSError, http.client.HTTPException) as error:
            message = f"zeusd at {self.path}: {error}; is it running? ZEUSD_SOCK_PATH names its socket"
            raise ActuatorError(Trouble.UNAVAILABLE, message, gpu) from error
        finally:
            connection.close()
        return self._judged(answer.status, body, path, gpu)

    def _judged(self, status: int, body: bytes, path: str, gpu: int | None) -> Any:
        if status == 200:
            try:
                return json.loads(body) if body else None
            except ValueError as error:
                raise ActuatorError(Trouble.UNKNOWN, f"zeusd's answer to {path}: {error}", gpu) from error
        words = body.decode(errors="replace")[:300]
        trouble = STATUS_TROUBLES.get(status, Trouble.UNKNOWN)
        if "lost" in words.lower():
            trouble = Trouble.LOST
        raise ActuatorError(trouble, f"zeusd refused {path} with status {status}: {words}", gpu)


class ZeusdActuator(NvmlActuator):
    """Reads through NVML, sets through zeusd.

    Args:
        gpus: Driver's indices or UUIDs; None for all that CUDA_VISIBLE_DEVICES leaves.
        restore_mhz: Least and highest clock that a reset locks; None for the driver's default.
        timeout_s: How long one change may take, seconds.
        client: The daemon; None for the one that the environment names.

    Raises:
        ActuatorError: There is no driver, GPU or daemon; the daemon has other GPUs than the driver, or
            does not let us set clocks.
        ValueError: `restore_mhz` does not suit.
    """

    name = "zeusd"

    def __init__(
        self,
        gpus: Sequence[int | str] | None = None,
        *,
        restore_mhz: tuple[int, int] | None = None,
        timeout_s: float = DRIVER_TIMEOUT_S,
        client: ZeusdClient | None = None,
    ) -> None:
        """Open the driver and ask the daemon what it can do."""
        self._client = client or ZeusdClient(timeout_s=timeout_s)
        super().__init__(gpus, restore_mhz=restore_mhz, timeout_s=timeout_s)
        try:
            self._check(self._client.discover())
        except BaseException:
            self.close()
            raise

    def _check(self, found: dict[str, Any]) -> None:
        if "gpu-control" not in found.get("enabled_api_groups", ("gpu-control",)):
            raise ActuatorError(
                Trouble.NOT_SUPPORTED, f"zeusd at {self._client.path} runs without gpu-control"
            )
        if found.get("auth_required") and "gpu-control" not in self._client.scopes():
            raise ActuatorError(Trouble.NO_PERMISSION, "zeusd: ZEUSD_TOKEN lacks the scope gpu-control")
        theirs = {entry.get("id"): entry for entry in found["gpus"]}
        for info in self.gpus:
            self._check_same(info.index, info.name, theirs.get(info.index))

    def _check_same(self, gpu: int, name: str, theirs: dict[str, Any] | None) -> None:
        """Its number must mean the same GPU to the daemon as to the driver."""
        address = self._maybe(lambda: self._nvml.nvmlDeviceGetPciInfo(self._handles[gpu]).busId, gpu)
        if theirs is None:
            raise ActuatorError(Trouble.UNAVAILABLE, f"zeusd at {self._client.path} does not have it", gpu)
        same = theirs.get("name") in (None, name)
        if address is not None and "pci_address" in theirs:
            same = same and _pci(address) == _pci(theirs["pci_address"])
        if not same:
            raise ActuatorError(Trouble.UNAVAILABLE, f"zeusd knows another GPU by this number: {theirs}", gpu)

    def _set(self, gpu: int, min_mhz: int, max_mhz: int) -> None:
        self._client.lock(gpu, min_mhz, max_mhz)

    def _clear(self, gpu: int) -> None:
        self._client.reset(gpu)


def _pci(address: str | bytes) -> tuple[int, str]:
    """A PCI address without regard to case and to the width of its domain."""
    text = address.decode() if isinstance(address, bytes) else address
    domain, _, rest = text.lower().partition(":")
    return int(domain, 16), rest
