"""The compiled simulator: the same node as the plain one, a thousand times as fast."""

from throttllem_env.serving.compiled.backend import CompiledBackend

__all__ = ["CompiledBackend"]
