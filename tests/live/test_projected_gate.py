"""Admission by projection on live telemetry: what the simulators' gate says, or everybody."""

from types import ModuleType
from typing import Any

import pytest

from throttllem_env.live.projected_gate import ProjectedGate
from throttllem_env.types import Telemetry


class Judge:
    """A gate that says as a test says, and remembers what it was shown."""

    def __init__(self) -> None:
        self.says = (True, False)
        self.shown: list[Telemetry] = []

    def __call__(self, telemetry: Telemetry) -> tuple[bool, bool]:
        self.shown.append(telemetry)
        return self.says


@pytest.mark.parametrize("says", [(True, False), (True, True), (False, False)])
def test_the_head_is_judged_and_marked(rig: ModuleType, plant: ModuleType, says: tuple[bool, bool]) -> None:
    async def scene() -> None:
        judge = Judge()
        gate = ProjectedGate(judge)
        p = plant.Plant(admit=gate)
        gate.telemeter = p.telemeter
        await p.node.look()
        running = p.sent(100, 5)
        p.report(running=1)
        judge.says = says
        head = p.ledger.arrive(70)
        assert gate(p.ledger, head) is says[0]
        assert head.lost is says[1]
        (shown,) = judge.shown
        assert shown.queue.prompt_tokens.tolist() == [70]
        assert shown.active.running.request_id.tolist() == [running.request_id]

    rig.run(scene())


def test_without_telemetry_everybody_is_let_in_and_that_is_said_once(
    rig: ModuleType, plant: ModuleType
) -> None:
    async def scene() -> None:
        judge, said = Judge(), list[str]()
        judge.says = (False, False)
        gate = ProjectedGate(judge, said.append)
        p = plant.Plant(admit=gate)
        entry: Any = p.ledger.arrive(1)
        assert gate(p.ledger, entry)  # nobody has said where telemetry comes from
        gate.telemeter = p.telemeter
        assert gate(p.ledger, entry)
        assert gate(p.ledger, entry)
        await p.node.look()
        assert not gate(p.ledger, entry)
        assert len(said) == 2
        assert "everybody is admitted: the reading of GPU 0 is missing" in said[0]

    rig.run(scene())
