"""Calls made on a Ray cluster, as tasks of one core each.

Ray's own joblib backend (`ray.util.joblib`) is not used: its pool of actors takes turns, so that a call waits
behind a long one while other cores idle; it gives results only when all are there; and an actor that died
fails every later call in its turn. As tasks, calls go to whichever core is free on whichever node.
"""

import logging
import os
import socket
import time
from collections.abc import Callable
from typing import Any, TypeVar

from throttllem_env.evaluation.sweeps.identity import source_digest
from throttllem_env.evaluation.sweeps.place import LostWorkerError
from throttllem_env.suggest import nearest

T = TypeVar("T")

CLUSTERS = ("ray",)
ADDRESS = "RAY_ADDRESS"
CONNECT_S = 5.0
CLOSE_S = 10.0
"""Longest wait for calls that were called off."""


def check_cluster(cluster: str | None) -> None:
    """Refuse what names no cluster.

    Args:
        cluster: `ray`, `ray:ADDRESS`, or None for this machine.

    Raises:
        ValueError: Names what is valid.
    """
    if cluster is None:
        return
    kind, colon, address = cluster.partition(":")
    if kind not in CLUSTERS:
        raise ValueError(f"cluster = {cluster!r}: unknown; {nearest(kind, CLUSTERS)}, or ray:ADDRESS")
    if colon and not address:
        raise ValueError(f"cluster = {cluster!r}: no address; an example is ray:10.0.0.1:6379")


def connect(cluster: str, jobs: int | None = None) -> "RayTasks":
    """Connect to a cluster that runs; none is ever started.

    Args:
        cluster: `ray` for the one at RAY_ADDRESS, or `ray:ADDRESS`.
        jobs: Calls at once; None for all cores that the cluster has now.

    Raises:
        ValueError: No such cluster, no Ray installed, or nodes with another version of this package.
    """
    check_cluster(cluster)
    address = cluster.partition(":")[2] or os.environ.get(ADDRESS, "")
    if not address:
        raise ValueError(f"cluster = {cluster!r}: {ADDRESS} is not set; set it, or give ray:ADDRESS")
    _check_reachable(cluster, address)
    ray = _import_ray(cluster, address)
    opened = not ray.is_initialized()
    if opened:
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise ValueError(f"cluster = {cluster!r}: cannot connect: {error}") from error
    place = RayTasks(address, jobs, disconnect=opened)
    try:
        place.check_sources(source_digest())
    except BaseException:
        place.close()
        raise
    return place


def _check_reachable(cluster: str, address: str) -> None:
    """Ask first: Ray itself would try for ten minutes."""
    host, _, port = address.rpartition(":")
    if not (host and port.isdecimal()):
        raise ValueError(f"cluster = {cluster!r}: expected an address such as 10.0.0.1:6379")
    try:
        socket.create_connection((host, int(port)), CONNECT_S).close()
    except OSError as error:
        raise ValueError(f"cluster = {cluster!r}: nothing answers at {address}: {error}") from error


def _import_ray(cluster: str, address: str) -> Any:
    """Ray, told before its import what it reads only then."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if address.startswith(("127.0.0.1:", "localhost:")):
        # Else Ray takes the machine's outer address, where a cluster on loopback does not listen.
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    try:
        import ray
    except ImportError:
        raise ValueError(f"cluster = {cluster!r}: needs Ray: pip install 'throttllem-env[ray]'") from None
    return ray


class RayTasks:
    """The cluster that this process is connected to."""

    shared_memory = False

    def __init__(self, address: str, jobs: int | None = None, *, disconnect: bool = True) -> None:
        """Take stock of it.

        Args:
            address: Where it is, for people.
            jobs: Calls at once; None for all its cores.
            disconnect: Whether closing ends the connection, which somebody else may have made.
        """
        import ray

        self._ray: Any = ray
        self._disconnect = disconnect
        self._nodes = [node for node in self._ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
        cores = int(sum(node["Resources"]["CPU"] for node in self._nodes))
        self.jobs = jobs or max(cores, 1)
        nodes = f"{len(self._nodes)} node{'s' if len(self._nodes) != 1 else ''}"
        self.description = f"Ray cluster at {address}: {nodes}, {cores} cores"
        # A call whose worker died may have been the reason, so Ray must not make it again.
        self._task: Any = ray.remote(num_cpus=1, max_retries=0, scheduling_strategy="SPREAD")(_call)
        self._running: set[Any] = set()

    def check_sources(self, ours: str) -> None:
        """Make sure that all nodes compute what this process would.

        Args:
            ours: What `source_digest` says here.

        Raises:
            ValueError: A node has another version of this package, or none.
        """
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        asked = {}
        for node in self._nodes:
            there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            asked[self._task.options(scheduling_strategy=there).remote(source_digest)] = node
        for ref, node in asked.items():
            where = f"node {node['NodeManagerHostname']} ({node['NodeManagerAddress']})"
            try:
                theirs = self._ray.get(ref)
            except self._ray.exceptions.RayError as error:
                text = str(error).strip().splitlines()[-1]
                raise ValueError(f"cluster: {where} cannot run throttllem-env: {text}") from None
            if theirs != ours:
                raise ValueError(f"cluster: {where} has another version of throttllem-env than this machine")

    def call(self, function: Callable[..., T], arguments: tuple[Any, ...]) -> T:
        """Make one call on a core that is free."""
        errors = self._ray.exceptions
        ref = self._task.remote(function, *arguments)
        self._running.add(ref)
        try:
            result: T = self._ray.get(ref)
        except errors.RayTaskError:
            raise
        except errors.RayError as error:
            text = " ".join(str(error).split()) or type(error).__name__
            raise LostWorkerError(f"the worker process died: {text}") from None
        finally:
            self._running.discard(ref)
        return result

    def share(self, value: T) -> T:
        """Put a value into the cluster's object store; nodes fetch it once."""
        ref: T = self._ray.put(value)
        return ref

    def close(self) -> None:
        """Call off what runs."""
        for ref in list(self._running):
            self._ray.cancel(ref, force=True)
        deadline_s = time.monotonic() + CLOSE_S
        while self._running and time.monotonic() < deadline_s:
            time.sleep(0.05)
        if self._disconnect:
            self._ray.shutdown()


def _call(function: Callable[..., T], *arguments: Any) -> T:
    return function(*arguments)
