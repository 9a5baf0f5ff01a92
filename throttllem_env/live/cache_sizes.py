"""How many KV blocks servers really have: what vLLM measured at its start, not what a scenario supposes."""

import asyncio
import re
from collections.abc import Callable

import aiohttp

from throttllem_env.live.node_parts import Pool, PoolServer
from throttllem_env.scenario import Scenario

BLOCKS = re.compile(r'^vllm:cache_config_info\{[^}]*num_gpu_blocks="(\d+)"', re.MULTILINE)
LOOK_S = 0.5
ANSWER_S = 5.0


class CacheSizes:
    """Asks every server that becomes active once, on its page of metrics.

    Args:
        scenario: What stands until a server has answered, and for one that says nothing.
        say: Told in a line where a server has another size than the scenario supposes.
    """

    def __init__(self, scenario: Scenario, say: Callable[[str], None] = lambda line: None) -> None:
        self._scenario, self._say = scenario, say
        self._found: dict[PoolServer, int] = {}

    def of(self, server: PoolServer) -> int:
        """KV blocks that a server's requests can hold at most; one of all is vLLM's null block."""
        return self._found.get(server, self._supposed(server)) - 1

    def _supposed(self, server: PoolServer) -> int:
        return self._scenario.kv_blocks(server.size)

    async def run(self, pool: Pool) -> None:
        """Look after the servers of a pool until cancelled."""
        timeout = aiohttp.ClientTimeout(total=ANSWER_S)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            while True:
                if pool.active is not None and pool.active not in self._found:
                    await self._ask(session, pool.active)
                self._found = {s: blocks for s, blocks in self._found.items() if s in pool.servers}
                await asyncio.sleep(LOOK_S)

    async def _ask(self, session: aiohttp.ClientSession, server: PoolServer) -> None:
        """Read a server's page; one that does not answer is asked again."""
        try:
            async with session.get(f"{server.url}/metrics") as reply:
                page = await reply.text()
        except (aiohttp.ClientError, TimeoutError):
            return
        found = BLOCKS.search(page)
        supposed = self._supposed(server)
        self._found[server] = int(found.group(1)) if found else supposed
        if self._found[server] != supposed:
            self._say(
                f"{server.url} has {self._found[server]} KV blocks; {self._scenario.name} supposes {supposed}"
            )
