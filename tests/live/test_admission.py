"""First come, first served; who gives up leaves no trace."""

import asyncio
from types import ModuleType

import pytest

from throttllem_env.live.admission import AdmissionHook, Gate, QueueFullError, admit_all
from throttllem_env.live.ledger import Entry, Ledger
from throttllem_env.live.upstreams import NoUpstreamError, Router

URL = "http://127.0.0.1:1"


class Passage:
    """A gate with its books, and who is inside."""

    def __init__(self, max_running: int, max_queued: int = 10, admit: AdmissionHook = admit_all) -> None:
        self.ledger, self.router = Ledger(), Router((URL,))
        self.gate = Gate(self.ledger, self.router, max_running, max_queued, admit)
        self.order: list[int] = []
        self.exits: dict[int, asyncio.Event] = {}

    def come(self, wait_s: float = 600.0) -> asyncio.Task[None]:
        return asyncio.create_task(self._visit(self.ledger.arrive(1), wait_s))

    async def _visit(self, entry: Entry, wait_s: float) -> None:
        leave = self.exits[entry.request_id] = asyncio.Event()
        async with self.gate.passed(entry, asyncio.get_running_loop().time() + wait_s):
            self.order.append(entry.request_id)
            await leave.wait()


async def settle() -> None:
    """Let every task go as far as it can."""
    for _ in range(10):
        await asyncio.sleep(0)


def test_first_come_first_served(rig: ModuleType) -> None:
    async def scene() -> None:
        passage = Passage(max_running=2)
        tasks = [passage.come() for _ in range(5)]
        await settle()
        assert passage.order == [0, 1]
        for i in (1, 0, 2, 3, 4):
            passage.exits[i].set()
            await settle()
        await asyncio.gather(*tasks)
        assert passage.order == [0, 1, 2, 3, 4]
        assert passage.router.active.in_flight == passage.ledger.running == 0

    rig.run(scene())


def test_waiting_ends_with_the_deadline(rig: ModuleType) -> None:
    async def scene() -> None:
        passage = Passage(max_running=1)
        first, second = passage.come(), passage.come(wait_s=0.05)
        with pytest.raises(TimeoutError):
            await second
        third = passage.come()
        passage.exits[0].set()
        await settle()
        passage.exits[2].set()
        await asyncio.gather(first, third)
        assert passage.order == [0, 2]

    rig.run(scene())


def test_a_full_queue_refuses(rig: ModuleType) -> None:
    async def scene() -> None:
        passage = Passage(max_running=1, max_queued=1)
        tasks = [passage.come() for _ in range(3)]
        await settle()
        with pytest.raises(QueueFullError):
            await tasks[2]
        assert passage.order == [0]
        for i in (0, 1):
            passage.exits[i].set()
            await settle()
        await asyncio.gather(*tasks[:2])

    rig.run(scene())


@pytest.mark.parametrize("settled", [False, True], ids=["at the same moment", "before"])
def test_who_gives_up_blocks_nobody(rig: ModuleType, settled: bool) -> None:
    async def scene() -> None:
        passage = Passage(max_running=1)
        tasks = [passage.come() for _ in range(3)]
        await settle()
        tasks[1].cancel()
        if settled:
            await settle()
        passage.exits[0].set()
        await settle()
        assert passage.order == [0, 2]
        passage.exits[2].set()
        await asyncio.gather(tasks[0], tasks[2])
        assert passage.router.active.in_flight == passage.ledger.running == 0

    rig.run(scene())


def test_who_is_cancelled_as_he_is_admitted_leaves_the_inside(rig: ModuleType) -> None:
    async def scene() -> None:
        passage = Passage(max_running=1)
        tasks = [passage.come() for _ in range(3)]
        await settle()
        passage.exits[0].set()
        while passage.ledger.running_table().request_id.tolist() != [1]:
            await asyncio.sleep(0)
        tasks[1].cancel()  # admitted, but not yet awake
        await settle()
        assert passage.order == [0, 2]
        passage.exits[2].set()
        await asyncio.gather(tasks[0], tasks[2])
        assert passage.router.active.in_flight == 0

    rig.run(scene())


def test_the_head_blocks_those_behind_until_it_is_tried_again(rig: ModuleType) -> None:
    async def scene() -> None:
        open_for: set[int] = {2}
        passage = Passage(max_running=9, admit=lambda ledger, head: head.request_id in open_for)
        tasks = [passage.come() for _ in range(3)]
        await settle()
        assert passage.order == [0], "the first finds nothing running; the second blocks the third"
        open_for.add(1)
        passage.gate.retry()
        await settle()
        assert passage.order == [0, 1, 2]
        for leave in passage.exits.values():
            leave.set()
        await asyncio.gather(*tasks)

    rig.run(scene())


def test_a_switch_sends_the_next_elsewhere_and_counts_both() -> None:
    router = Router((URL, "http://127.0.0.1:2"))
    old = router.take()
    assert router.switch("http://127.0.0.1:2") is old
    new = router.take()
    assert (old.in_flight, new.in_flight, new.url) == (1, 1, "http://127.0.0.1:2")
    old.count(-1)
    assert (old.in_flight, new.in_flight) == (0, 1)
    with pytest.raises(ValueError, match=r"valid: http://127\.0\.0\.1:1, "):
        router.switch("http://127.0.0.1:3")


OTHER = "http://127.0.0.1:2"


def test_servers_come_and_go_and_the_active_one_may_be_lost() -> None:
    router = Router((URL,))
    lost = router.take()
    assert router.add(OTHER).in_flight == 0
    with pytest.raises(ValueError, match="is there already"):
        router.add(OTHER)
    assert (router.active.url, len(router.upstreams)) == (URL, 2)
    router.remove(URL)
    assert not router.ready
    with pytest.raises(NoUpstreamError):
        router.take()
    with pytest.raises(ValueError, match=f"valid: {OTHER}"):
        router.switch(URL)
    assert router.switch(OTHER) is None
    assert router.take().url == OTHER
    assert lost.in_flight == 1


def test_everybody_waits_while_no_server_is_active_and_goes_to_the_next(rig: ModuleType) -> None:
    async def scene() -> None:
        passage = Passage(max_running=10)
        first = passage.come()
        await settle()
        passage.router.remove(URL)
        waiting = [passage.come() for _ in range(2)]
        await settle()
        assert passage.order == [0]
        passage.exits[0].set()  # as its connection breaks
        await first
        assert passage.order == [0]
        passage.router.add(OTHER)
        passage.router.switch(OTHER)
        passage.gate.retry()
        await settle()
        assert passage.order == [0, 1, 2]
        for i in (1, 2):
            passage.exits[i].set()
        await asyncio.gather(*waiting)
        assert passage.router.active.in_flight == 0

    rig.run(scene())


def test_a_server_that_is_empty_takes_the_head_though_another_still_has_requests(rig: ModuleType) -> None:
    """After a change of size the hook's no must not wait for a completion that comes elsewhere."""

    async def scene() -> None:
        passage = Passage(max_running=10, admit=lambda ledger, entry: False)
        first = passage.come()
        await settle()
        second = passage.come()
        await settle()
        assert passage.order == [0]
        passage.router.add(OTHER)
        passage.router.switch(OTHER)
        passage.gate.retry()
        await settle()
        assert passage.order == [0, 1]
        for i in (0, 1):
            passage.exits[i].set()
        await asyncio.gather(first, second)

    rig.run(scene())
