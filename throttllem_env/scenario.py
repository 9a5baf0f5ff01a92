"""Scenarios: what is served, on what, for whom, and how it may be controlled.

A scenario is a YAML file. Shipped ones lie under `scenarios/`; rated loads, the E2E SLO and the reference
power in them are computed by `throttllem scenarios freeze` and never typed by hand.
"""

from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from throttllem_env.hardware import GPUS, MODELS, GpuSpec, ModelSpec, Physics, kv_blocks, load_profile
from throttllem_env.slo import Slo
from throttllem_env.suggest import nearest

Positive = Annotated[float, Field(gt=0)]

OWN_MODELS = ("shipped", "physics")
"""What `Scenario.ips_model` may name that is no folder."""


class ScenarioError(ValueError):
    """A scenario that cannot be used; the message names the field, the value and what is accepted."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class EngineConfig(_Section):
    """vLLM's settings, pinned (docs/design.md, vLLM).

    Attributes:
        block_size: Tokens per KV block.
        max_num_batched_tokens: Token budget of an iteration.
        max_num_seqs: Requests that run at once.
        max_model_len: Longest prompt plus output, tokens.
    """

    block_size: int = Field(16, ge=1)
    max_num_batched_tokens: int = Field(2048, ge=1)
    max_num_seqs: int = Field(256, ge=1)
    max_model_len: int = Field(4096, ge=2)


class SloConfig(_Section):
    """Latency targets; `e2e_s` is frozen by a command.

    Attributes:
        e2e_s: End-to-end SLO, seconds: p99 of the largest size at the top clock and rated load.
        tbt_s: Bound on the token-weighted mean time between tokens, seconds.
        attainment: Share of requests that must complete within `e2e_s`.
    """

    e2e_s: Positive | None = None
    tbt_s: Positive = 0.2
    attainment: float = Field(0.99, gt=0, le=1)


class RatedLoad(_Section):
    """What each size can carry; frozen by a command.

    Attributes:
        requests_rps: Rated load by size, requests per second.
        at_slo_scale: Rated loads of the sizes below the largest where the E2E SLO is scaled, by scale.
        reference_power_w: Mean power of the largest size at the top clock and its rated load.
        computed: When, with which command, on which lengths.
    """

    requests_rps: dict[int, Positive] = {}
    at_slo_scale: dict[Positive, dict[int, float]] = {}
    reference_power_w: Positive | None = None
    computed: str = ""


class Switching(_Section):
    """How long one GPU takes to change its clock: lognormal, the GPUs of an instance in turn.

    Attributes:
        median_s: Median, seconds.
        p99_s: 99th percentile, seconds; equal to the median for a constant.
    """

    median_s: float = Field(0.0045, ge=0)
    p99_s: float = Field(0.013, ge=0)

    @model_validator(mode="after")
    def _ordered(self) -> "Switching":
        if self.p99_s < self.median_s:
            raise ValueError(f"switching.p99_s = {self.p99_s}: must be at least median_s = {self.median_s}")
        return self


class WarmUp(_Section):
    """How long a new instance takes until it can serve: uniform between two times.

    Attributes:
        min_s: Shortest, seconds.
        max_s: Longest, seconds.
    """

    min_s: float = Field(20.0, ge=0)
    max_s: float = Field(30.0, ge=0)

    @model_validator(mode="after")
    def _ordered(self) -> "WarmUp":
        if self.max_s < self.min_s:
            raise ValueError(f"warm_up.max_s = {self.max_s}: must be at least min_s = {self.min_s}")
        return self


class Deviation(_Section):
    """How the hardware that serves differs from its profile, which forecasts go by: factors on it.

    Attributes:
        decode_time: On the time of everything but prefill.
        prefill_time: On the time of prefill.
        power: On every power.
    """

    decode_time: Positive = 1.0
    prefill_time: Positive = 1.0
    power: Positive = 1.0


class Scenario(_Section):
    """Model, GPU, sizes, SLOs, load and control.

    Attributes:
        name: Its name; the file's stem. Files are named by it, so it has letters, digits, dots, dashes only.
        version: Bumped whenever anything in it changes.
        description: One sentence for people.
        model: Key of a model.
        gpu: Key of a GPU.
        sizes: Tensor-parallel degrees that an instance may have, ascending.
        gpus_per_node: GPUs that all instances share.
        power_cap_w: Power limit set on every GPU, watts; the board's own when not given.
        lengths: Which request lengths the rated loads were computed with.
        engine: vLLM's settings.
        slo: Latency targets.
        rated: Rated loads and reference power.
        ips_model: What forecasts are made with: `shipped` for the M that comes with the package (the latency
            model itself where none suits), a folder that `throttllem fit` wrote, or `physics` for the
            latency model. In a file, the folder is relative to the file's own, and lies inside it.
        admission: Who decides when a request enters the engine: `vllm` itself, or the projection.
        over_length: What happens to requests longer than the model's limit.
        output_cap_tokens: Longest output that clients ask for; a request that outlives its prediction is
            assumed to reach it.
        idle_mhz: Clock that the reference controller sets when nothing runs.
        drain_s: How long after the trace's end energy is still charged and requests may finish; at least
            the E2E SLO.
        switching: Cost of a clock change.
        warm_up: Cost of a new instance.
        deviation: How the hardware that serves differs from its profile. Forecasts do not know of it: a
            test of controllers whose model is wrong.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    version: int = Field(ge=1)
    description: str
    model: str
    gpu: str
    sizes: tuple[int, ...] = Field(min_length=1)
    gpus_per_node: int = Field(ge=1)
    power_cap_w: Positive | None = None
    lengths: str
    engine: EngineConfig = EngineConfig()
    slo: SloConfig = SloConfig()
    rated: RatedLoad = RatedLoad()
    ips_model: str = "shipped"
    admission: Literal["vllm", "projected"] = "vllm"
    over_length: Literal["clip", "drop", "reject"] = "clip"
    output_cap_tokens: int = Field(1024, ge=1)
    idle_mhz: int
    drain_s: float = Field(60.0, ge=0)
    switching: Switching = Switching()
    warm_up: WarmUp = WarmUp()
    deviation: Deviation = Deviation()

    @model_validator(mode="after")
    def _consistent(self) -> "Scenario":
        for field, value, known in (("model", self.model, MODELS), ("gpu", self.gpu, GPUS)):
            if value not in known:
                raise ValueError(f"{field} = {value!r}: unknown; {nearest(value, known)}")
        profiled = load_profile(self.model, self.gpu).latency
        for size in self.sizes:
            if size not in profiled or size > self.gpus_per_node:
                raise ValueError(
                    f"sizes: {size} must be one of the profiled sizes {sorted(profiled)} "
                    f"and at most gpus_per_node = {self.gpus_per_node}"
                )
        if list(self.sizes) != sorted(set(self.sizes)):
            raise ValueError(f"sizes = {list(self.sizes)}: must ascend without repeats")
        if self.idle_mhz not in self.gpu_spec.clocks_mhz:
            hint = f"the nearest is {self.snap_mhz(self.idle_mhz)}"
            raise ValueError(f"idle_mhz = {self.idle_mhz}: not a clock of {self.gpu}; {hint}")
        if self.engine.max_model_len > self.model_spec.max_model_len:
            raise ValueError(
                f"engine.max_model_len = {self.engine.max_model_len}: "
                f"{self.model} takes at most {self.model_spec.max_model_len}"
            )
        return self

    @property
    def gpu_spec(self) -> GpuSpec:
        """The GPU's data sheet."""
        return GPUS[self.gpu]

    @property
    def model_spec(self) -> ModelSpec:
        """The model's card."""
        return MODELS[self.model]

    @property
    def top_mhz(self) -> int:
        """The highest clock."""
        return self.gpu_spec.top_mhz

    @property
    def largest_size(self) -> int:
        """The largest instance size."""
        return self.sizes[-1]

    @property
    def frozen(self) -> bool:
        """Whether rated loads, E2E SLO and reference power have been computed."""
        return bool(self.slo.e2e_s and self.rated.reference_power_w and self.rated.requests_rps)

    def latency_slo(self, scale: float = 1.0) -> Slo:
        """The latency targets.

        Args:
            scale: Multiplies both latencies.

        Raises:
            ScenarioError: The E2E SLO has not been computed yet.
        """
        if self.slo.e2e_s is None:
            raise ScenarioError(
                f"{self.name}: slo.e2e_s is not set; run `throttllem scenarios freeze {self.name}`"
            )
        return Slo(self.slo.e2e_s, self.slo.tbt_s, self.slo.attainment).scaled(scale)

    def rated_rps(self, size: int, slo_scale: float = 1.0) -> float:
        """Rated load of a size, requests per second.

        Args:
            size: One of the scenario's sizes.
            slo_scale: Factor on the latency SLOs. Smaller sizes carry less under a tighter one; between
                scales that were computed, the next tighter one holds.

        Raises:
            ScenarioError: It has not been computed yet.
        """
        if size not in self.rated.requests_rps:
            raise self._not_frozen(f"rated.requests_rps has no size {size}")
        if size == self.largest_size:
            return self.rated.requests_rps[size]
        by_scale = {1.0: self.rated.requests_rps, **self.rated.at_slo_scale}
        tighter = [scale for scale in by_scale if scale <= slo_scale]
        return by_scale[max(tighter, default=min(by_scale))].get(size, 0.0)

    @property
    def reference_power_w(self) -> float:
        """Mean power of the largest size at the top clock and rated load.

        Raises:
            ScenarioError: It has not been computed yet.
        """
        if self.rated.reference_power_w is None:
            raise self._not_frozen("rated.reference_power_w is not set")
        return self.rated.reference_power_w

    def _not_frozen(self, what: str) -> ScenarioError:
        command = f"throttllem scenarios freeze {self.name} --trace TRACE"
        return ScenarioError(f"{self.name}: {what}; compute it with `{command}` (or give the file's path)")

    def kv_blocks(self, size: int) -> int:
        """KV blocks of an instance, vLLM's null block included."""
        return kv_blocks(self.gpu_spec, self.model_spec, size, self.engine.block_size)

    def physics(self, size: int) -> Physics:
        """Time and energy of an instance's iterations, by the profile: what forecasts go by."""
        return self._physics(size, Deviation())

    def served_physics(self, size: int) -> Physics:
        """Time and energy of an instance's iterations as they are served; see `deviation`."""
        return self._physics(size, self.deviation)

    def _physics(self, size: int, deviation: Deviation) -> Physics:
        engine = self.engine
        limits = (engine.max_num_seqs, self.power_cap_w, engine.max_num_batched_tokens)
        return _physics(self.model, self.gpu, size, *limits, deviation)

    def snap_mhz(self, mhz: float) -> int:
        """The supported clock nearest to a value."""
        return min(self.gpu_spec.clocks_mhz, key=lambda clock: abs(clock - mhz))


@cache
def _physics(
    model: str,
    gpu: str,
    size: int,
    max_batch: int,
    power_cap_w: float | None,
    max_chunk_tokens: int,
    deviation: Deviation,
) -> Physics:
    """Shared by all who ask: its tables cost a millisecond per clock when a clock is first used."""
    profile = load_profile(model, gpu)
    if deviation != Deviation():
        profile = profile.scaled(**deviation.model_dump())
    return Physics(profile, GPUS[gpu], size, max_batch, power_cap_w, max_chunk_tokens)


def scenario_names() -> list[str]:
    """Names of the shipped scenarios."""
    folder = files("throttllem_env") / "scenarios"
    return sorted(f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name.endswith(".yaml"))


def load_scenario(spec: str | Path) -> Scenario:
    """Load a shipped scenario by name, or one of your own by path.

    Args:
        spec: A name that `throttllem scenarios` lists, or the path of a YAML file.

    Returns:
        The validated scenario.

    Raises:
        ScenarioError: It does not exist or is not valid; the message names each field.
    """
    import yaml

    path = Path(spec)
    if path.suffix in {".yaml", ".yml"}:
        if not path.is_file():
            raise ScenarioError(f"{path}: no such scenario file")
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise ScenarioError(f"{path}: not a text file in UTF-8: {error}") from error
    else:
        if str(spec) not in scenario_names():
            raise ScenarioError(f"scenario = {str(spec)!r}: unknown; {nearest(str(spec), scenario_names())}")
        text = (files("throttllem_env") / "scenarios" / f"{spec}.yaml").read_text(encoding="utf-8")
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ScenarioError(f"{spec}: not YAML: {error}") from error
    scenario = parse_scenario(data, str(spec))
    if scenario.ips_model in OWN_MODELS:
        return scenario
    return scenario.model_copy(update={"ips_model": str(_inside(path, scenario.ips_model))})


def _inside(scenario_file: Path, folder: str) -> Path:
    """A folder that a scenario's file names: whoever wrote the file does not lead its reader elsewhere."""
    home = scenario_file.parent
    if not (home / folder).resolve().is_relative_to(home.resolve()):
        raise ScenarioError(
            f"{scenario_file}: ips_model = {folder!r}: must lie in the folder of the scenario's file; "
            f"{' and '.join(OWN_MODELS)} are always there"
        )
    return home / folder


def parse_scenario(data: Any, origin: str) -> Scenario:
    """Validate a mapping.

    Args:
        data: What the YAML file holds.
        origin: Where it came from, for messages.

    Raises:
        ScenarioError: One line per invalid field.
    """
    if not isinstance(data, dict):
        raise ScenarioError(
            f"{origin}: holds {type(data).__name__}, not a dict of fields such as `name: mine`"
        )
    try:
        return Scenario.model_validate(data)
    except ValidationError as error:
        lines = [_explain(e) for e in error.errors()]
        raise ScenarioError(f"{origin}: " + "; ".join(lines)) from error


def _explain(error: Any) -> str:
    """One pydantic error: field, value, what is accepted."""
    field = ".".join(str(part) for part in error["loc"])
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        section: Any = Scenario
        for part in error["loc"][:-1]:
            section = section.model_fields[str(part)].annotation
        return f"{field}: unknown field; {nearest(str(error['loc'][-1]), section.model_fields)}"
    return f"{field} = {error['input']!r}: {message}" if field else message
