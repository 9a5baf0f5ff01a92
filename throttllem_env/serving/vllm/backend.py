"""The node of the simulators, with vLLM's own engine in every instance."""

from throttllem_env.scenario import Scenario
from throttllem_env.serving.backend import AdmissionGate
from throttllem_env.serving.reference.backend import ReferenceBackend
from throttllem_env.serving.reference.instance import Instance
from throttllem_env.serving.reference.scheduler import Plan
from throttllem_env.serving.vllm.interface import require_vllm
from throttllem_env.serving.vllm.scheduler import EngineScheduler


class EngineInstance(Instance):
    """An `LLMEngine` on emulated GPUs."""

    scheduler: EngineScheduler

    def _start_engine(self, scenario: Scenario) -> None:
        self.scheduler = EngineScheduler(scenario, self.gpus)

    def _run_plan(self) -> Plan:
        """The engine's executor begins the iteration on the GPUs, as it would in a server."""
        return self.scheduler.plan()

    def close(self) -> None:
        """Stop the engine."""
        self.scheduler.close()


class EngineBackend(ReferenceBackend):
    """vLLM's engine on emulated GPUs in virtual time: one `step()` per iteration, deterministic."""

    instance_type = EngineInstance

    def __init__(self, scenario: Scenario, gate: AdmissionGate | None = None) -> None:
        """Describe the node; `reset` starts it.

        Args:
            scenario: What is served on what.
            gate: Decides when a request enters the engine; None leaves that to the engine.

        Raises:
            EngineUnavailableError: vLLM is missing or has changed.
        """
        require_vllm()
        super().__init__(scenario, gate)
