"""Who may set clocks here."""

import os
import stat
from pathlib import Path

from throttllem_env.gpu.probe import CAP_SYS_ADMIN, has_capability
from throttllem_env.gpu.zeusd import DEFAULT_SOCKET
from throttllem_env.live.doctor.findings import Finding, Verdict

ADVICE = (
    'as root: sudo --preserve-env=PATH,VIRTUAL_ENV env PATH="$PATH" throttllem serve ...',
    'with one capability instead of root: sudo setpriv --reuid "$(id -u)" --regid "$(id -g)" --init-groups '
    '--inh-caps +sys_admin --ambient-caps +sys_admin -- "$(command -v throttllem)" serve ...',
    "in a container: docker run --gpus all --cap-add SYS_ADMIN ...",
    "without any: cargo install zeusd, sudo zeusd serve --socket-path /var/run/zeusd.sock "
    "--socket-permissions 660, and serve with the actuator zeusd",
    "without control: the actuator observe needs no rights",
)


def socket_path() -> Path:
    """Where zeusd listens, if it does."""
    return Path(os.environ.get("ZEUSD_SOCK_PATH") or DEFAULT_SOCKET)


def is_root() -> bool:
    """Whether this process may do everything."""
    return os.geteuid() == 0


def examine_rights() -> Finding:
    """Whether this process may set clocks, as far as can be told without trying."""
    if is_root():
        return Finding("rights", Verdict.GOOD, "root: clocks may be set (tried only with --write)")
    if has_capability(CAP_SYS_ADMIN):
        return Finding("rights", Verdict.GOOD, "CAP_SYS_ADMIN: clocks may be set (tried only with --write)")
    if may_use_zeusd():
        return Finding(
            "rights", Verdict.GOOD, "not root, but zeusd sets clocks: serve with the actuator zeusd"
        )
    text = "neither root, nor CAP_SYS_ADMIN, nor zeusd: clocks cannot be set, only observed"
    return Finding("rights", Verdict.PROBLEM, text, ADVICE)


def may_use_zeusd() -> bool:
    """Whether zeusd's socket is there and open to this user."""
    path = socket_path()
    try:
        found = path.stat()
    except OSError:
        return False
    return stat.S_ISSOCK(found.st_mode) and os.access(path, os.W_OK)


def best_actuator() -> str | None:
    """What clocks can be set through, if through anything."""
    if is_root() or has_capability(CAP_SYS_ADMIN):
        return "nvml"
    return "zeusd" if may_use_zeusd() else None
