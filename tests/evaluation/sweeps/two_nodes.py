"""A Ray cluster of two nodes on loopback, for tests: prints its address, ends with its standard input."""

import sys

from ray.cluster_utils import Cluster


def main() -> None:
    """Start it, and wait."""
    node = {"num_cpus": 1, "node_ip_address": "127.0.0.1", "object_store_memory": 100 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    cluster.add_node(**node)
    print(cluster.address, flush=True)
    sys.stdin.read()
    cluster.shutdown()


if __name__ == "__main__":
    main()
