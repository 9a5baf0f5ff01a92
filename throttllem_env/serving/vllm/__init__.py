"""vLLM's own engine over emulated GPUs. Only this package imports vLLM, and only when it is asked to serve."""
