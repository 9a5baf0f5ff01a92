"""vLLM's engine in this process, with every setting that changes its schedule pinned."""

import tempfile
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from throttllem_env.scenario import Scenario
from throttllem_env.serving.vllm.interface import BACKEND, SUPPORTED, EngineUnavailableError, require_vllm
from throttllem_env.serving.vllm.model_files import write_config

if TYPE_CHECKING:
    from throttllem_env.serving.vllm.executor import Run

PINNED: dict[str, Any] = {
    "generation_config": "vllm",  # else a model's own file may change how it samples
    "enable_prefix_caching": False,  # preempted requests would hit their own blocks
    "enable_chunked_prefill": True,
    "async_scheduling": False,  # lags one iteration behind
    "scheduling_policy": "fcfs",
    "scheduler_reserve_full_isl": True,  # the whole prompt must fit, though a chunk is allocated
    "watermark": 0.0,
    "seed": 0,
}
"""Settings that no scenario changes, of every engine and server."""

EMULATED: dict[str, Any] = {"dtype": "bfloat16", "enforce_eager": True}
"""What else engines on emulated GPUs are told: there is nothing to compile."""


def build_engine(scenario: Scenario, size: int, run: "Run") -> Any:
    """Start an engine on emulated GPUs.

    Args:
        scenario: Gives limits and the KV cache's size.
        size: Tensor-parallel degree of the modelled instance; to vLLM it is a single device.
        run: Spends an iteration's time and energy.

    Returns:
        An `LLMEngine` whose core runs in this process.

    Raises:
        EngineUnavailableError: vLLM is missing or has changed.
    """
    require_vllm()
    from vllm.engine.arg_utils import EngineArgs
    from vllm.v1.engine.llm_engine import LLMEngine

    from throttllem_env.serving.vllm.executor import executor_for

    blocks = scenario.kv_blocks(size)
    executor = executor_for(run, blocks, scenario.model_spec.kv_bytes_per_token)
    with tempfile.TemporaryDirectory() as folder:
        write_config(Path(folder), scenario.engine.max_model_len)
        arguments = EngineArgs(
            model=folder,
            distributed_executor_backend=executor,
            skip_tokenizer_init=True,
            **scenario.engine.model_dump(),
            **PINNED,
            **EMULATED,
        )
        config = arguments.create_engine_config()
        engine = LLMEngine(config, executor, log_stats=False, multiprocess_mode=False)
    _require_as_asked(config, scenario, blocks)
    return engine


def _require_as_asked(config: Any, scenario: Scenario, blocks: int) -> None:
    """Whether vLLM took the settings as they are: it adjusts some silently."""
    asked = {**scenario.engine.model_dump(), "num_gpu_blocks": blocks, "enable_prefix_caching": False}
    sections = (config.cache_config, config.scheduler_config, config.model_config)
    for name, value in asked.items():
        taken = next(getattr(s, name) for s in sections if hasattr(s, name))
        if taken != value:
            raise EngineUnavailableError(f"{BACKEND}: vLLM made {name} = {taken} of {value}")


def scheduler_of(engine: Any) -> Any:
    """The scheduler inside an `LLMEngine`, whose queues and blocks we read.

    Raises:
        EngineUnavailableError: It is not where it was, or lacks what we read.
    """
    try:
        scheduler = engine.engine_core.engine_core.scheduler
        attrgetter("running", "waiting", "requests", "kv_cache_manager.block_pool")(scheduler)
    except AttributeError as error:
        raise EngineUnavailableError(f"{BACKEND}: {error} in this vLLM; supported: {SUPPORTED}") from error
    return scheduler
