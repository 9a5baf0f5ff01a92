"""Which GPUs are meant: indices, UUIDs and CUDA_VISIBLE_DEVICES."""

import os
from collections.abc import Mapping, Sequence

from throttllem_env.gpu.actuator import ActuatorError, Trouble


def choose_gpus(
    wanted: Sequence[int | str] | None,
    uuids: Sequence[str],
    environment: Mapping[str, str] | None = None,
    names: Sequence[str] = (),
) -> list[int]:
    """Find the driver's indices of the GPUs that somebody named.

    Args:
        wanted: Driver's indices or UUIDs (or unambiguous beginnings of them); None for all visible ones.
        uuids: UUID of each GPU, in the driver's order.
        environment: Where CUDA_VISIBLE_DEVICES may stand; by default the process's.
        names: The products' names, in the driver's order. On a node of unlike GPUs the numbers in
            CUDA_VISIBLE_DEVICES are the driver's only with CUDA_DEVICE_ORDER=PCI_BUS_ID.

    Returns:
        Their indices, in the order in which they were named.

    Raises:
        ActuatorError: One does not exist, is not visible, or is a slice of a GPU (MIG); or it is not
            clear which ones CUDA_VISIBLE_DEVICES means.

    Examples:
        >>> choose_gpus(["GPU-b", 0], ["GPU-aaa", "GPU-bbb"], {})
        [1, 0]
        >>> choose_gpus(None, ["GPU-aaa", "GPU-bbb"], {"CUDA_VISIBLE_DEVICES": "1"})
        [1]
    """
    environment = os.environ if environment is None else environment
    if len(set(names)) > 1:
        _insist_on_bus_order(environment)
    found = visible_gpus(uuids, environment)
    if wanted is None:
        if not found:
            raise ActuatorError(
                Trouble.UNAVAILABLE, "there is no GPU, or CUDA_VISIBLE_DEVICES hides them all"
            )
        return found
    chosen = [_index(entry, uuids) for entry in wanted]
    for index in chosen:
        if index not in found:
            seen = ", ".join(map(str, found)) or "none"
            raise ActuatorError(
                Trouble.UNAVAILABLE,
                f"hidden by CUDA_VISIBLE_DEVICES; visible (driver's index): {seen}",
                index,
            )
    return list(dict.fromkeys(chosen))


def visible_gpus(uuids: Sequence[str], environment: Mapping[str, str]) -> list[int]:
    """Find the GPUs that CUDA_VISIBLE_DEVICES leaves visible, as CUDA reads it.

    Args:
        uuids: UUID of each GPU, in the driver's order.
        environment: Where it may stand. Its numbers are taken for the driver's.

    Returns:
        Their indices. CUDA stops reading at the first entry that names no GPU; so does this.

    Raises:
        ActuatorError: It names a slice of a GPU.
    """
    value = environment.get("CUDA_VISIBLE_DEVICES")
    if value is None:
        return list(range(len(uuids)))
    found: list[int] = []
    for entry in value.split(","):
        try:
            found.append(_index(entry.strip(), uuids))
        except ActuatorError as error:
            if error.trouble is Trouble.NOT_SUPPORTED:
                raise
            break
    return found


def _insist_on_bus_order(environment: Mapping[str, str]) -> None:
    """CUDA numbers unlike GPUs by speed unless it is told not to; the driver never does."""
    value = environment.get("CUDA_VISIBLE_DEVICES", "")
    numbers = any(entry.strip().isdigit() for entry in value.split(","))
    if numbers and environment.get("CUDA_DEVICE_ORDER") != "PCI_BUS_ID":
        raise ActuatorError(
            Trouble.UNAVAILABLE,
            f"CUDA_VISIBLE_DEVICES = {value}: ambiguous, since GPUs differ and CUDA numbers them by speed; "
            "set CUDA_DEVICE_ORDER=PCI_BUS_ID, or name GPUs by UUID",
        )


def _index(entry: int | str, uuids: Sequence[str]) -> int:
    """The driver's index of the GPU that an index or UUID names."""
    text = str(entry)
    if text.startswith("MIG-"):
        raise ActuatorError(
            Trouble.NOT_SUPPORTED,
            f"gpu = {text}: a MIG slice has no clock of its own; name a whole GPU without MIG",
        )
    if text.isascii() and text.isdigit() and int(text) < len(uuids):
        return int(text)
    matches = [index for index, uuid in enumerate(uuids) if text.startswith("GPU-") and uuid.startswith(text)]
    if len(matches) == 1:
        return matches[0]
    what = "is ambiguous" if matches else "does not exist"
    known = ", ".join(f"{index} ({uuid})" for index, uuid in enumerate(uuids)) or "none"
    raise ActuatorError(Trouble.UNAVAILABLE, f"gpu = {text}: {what}; GPUs: {known}")
