"""What a gateway is told at its start."""

import math
from dataclasses import dataclass, field
from ipaddress import ip_address
from urllib.parse import urlsplit

MIB = 2**20


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """Addresses, keys and limits of a gateway.

    Attributes:
        upstreams: OpenAI-compatible servers that run already, `http://host:port`; the first is active. Two
            at most; none where servers are started later.
        host: Address to bind to. Others than loopback need an API key.
        port: Port to bind to; 0 takes a free one.
        api_key: What clients must present; None asks for none.
        upstream_key: What the gateway presents to the upstreams; None passes the client's own on,
            where the gateway asks for none.
        max_body_bytes: Larger requests get 413.
        max_running: Requests at the active upstream at once; further ones are queued.
        max_queued: Requests queued at once; further ones get 429.
        request_timeout_s: From arrival to the last byte.
        connect_timeout_s: For an upstream to accept a connection.
        drain_s: How long running requests may go on after a stop.
        e2e_slo_s: E2E SLO that attainment is counted against; None counts none.

    Raises:
        ValueError: If a value cannot be; it names the field and what would be valid.
    """

    upstreams: tuple[str, ...]
    host: str = "127.0.0.1"
    port: int = 8000
    api_key: str | None = field(default=None, repr=False)  # whatever prints settings prints no keys
    upstream_key: str | None = field(default=None, repr=False)
    max_body_bytes: int = 16 * MIB
    max_running: int = 256
    max_queued: int = 1024
    request_timeout_s: float = 600.0
    connect_timeout_s: float = 5.0
    drain_s: float = 30.0
    e2e_slo_s: float | None = None

    def __post_init__(self) -> None:
        urls = tuple(base_url("upstreams", url) for url in self.upstreams)
        object.__setattr__(self, "upstreams", urls)
        if not len(set(urls)) == len(urls) <= 2:
            raise ValueError(f"upstreams = {urls}: expected at most two different addresses")
        if self.api_key == "":
            raise ValueError("api_key is empty: expected a key, or none at all")
        if self.api_key is None and not is_loopback(self.host):
            raise ValueError(f"host = {self.host!r} can be reached from elsewhere: it needs an API key")
        self._check_limits()

    def _check_limits(self) -> None:
        for name in ("request_timeout_s", "connect_timeout_s", "e2e_slo_s"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"{name} = {value}: expected a finite number above 0")
        for name, least in (("max_body_bytes", 1), ("max_running", 1), ("max_queued", 0), ("drain_s", 0)):
            if not getattr(self, name) >= least:
                raise ValueError(f"{name} = {getattr(self, name)}: expected at least {least}")


def base_url(name: str, url: str) -> str:
    """Check a server's address, and take a path `/v1` or `/` off it.

    Args:
        name: What to call it in an error.
        url: Such as `http://127.0.0.1:8001` or `http://127.0.0.1:8001/v1`.

    Returns:
        Scheme, host and port.

    Raises:
        ValueError: If it is none.

    Example:
        >>> base_url("url", "http://localhost:8001/v1/")
        'http://localhost:8001'
    """
    parts = urlsplit(url)
    valid = parts.scheme in ("http", "https") and parts.hostname and parts.path in ("", "/", "/v1", "/v1/")
    if not valid or parts.query or parts.username:
        raise ValueError(f"{name} = {url!r}: expected an address such as http://127.0.0.1:8001")
    return f"{parts.scheme}://{parts.netloc}"


def is_loopback(host: str) -> bool:
    """Whether a host is this machine alone.

    Example:
        >>> is_loopback("127.0.0.1"), is_loopback("::1"), is_loopback("0.0.0.0")
        (True, True, False)
    """
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
