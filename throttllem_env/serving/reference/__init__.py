"""The plain reference simulator."""

from throttllem_env.serving.reference.backend import ReferenceBackend

__all__ = ["ReferenceBackend"]
