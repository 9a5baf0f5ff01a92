"""vLLM's own engine over emulated GPUs. Only this package imports vLLM, and only where it is used."""
