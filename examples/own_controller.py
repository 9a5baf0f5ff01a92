"""A controller of your own, run without a package: the loop that evaluates every agent."""

from throttllem_env.controller import BaseController, make_controller
from throttllem_env.evaluation.runner import run_controller
from throttllem_env.scenario import load_scenario
from throttllem_env.serving.workload import prepare_workload
from throttllem_env.types import Action, ObservationArray, Telemetry


class NightShift(BaseController):
    """A lower clock and fewer GPUs while few requests come."""

    def act(self, observation: ObservationArray | None, telemetry: Telemetry) -> Action:
        """Decide by the rate of the last 30 s."""
        calm = telemetry.recent.request_rate_rps < 2
        return Action(frequency_mhz=990 if calm else 1410, size=2 if calm else 4)


def main() -> None:
    """Serve the same requests under it and under the reference."""
    scenario = load_scenario("llama2-13b-a100")
    workload = prepare_workload("azure-conv-like", scenario, load=0.5, seed=0, duration_s=300)
    for name, controller in (("night shift", NightShift()), ("throttllem", make_controller("throttllem"))):
        result = run_controller(controller, scenario, workload, slo=scenario.latency_slo())
        kwh, in_time = result.metrics["energy_j"] / 3.6e6, result.metrics["slo_attainment"]
        print(f"{name}: {kwh:.3f} kWh, {in_time:.2%} in time")


if __name__ == "__main__":
    main()
