"""What data sheets and model cards say: GPUs, models, and the KV cache that fits."""

from dataclasses import dataclass

GIB = 1024**3


@dataclass(frozen=True, slots=True)
class GpuSpec:
    """A GPU as its data sheet and driver describe it.

    Attributes:
        name: Key by which scenarios name it.
        memory_bytes: Device memory.
        bandwidth_gb_s: Peak memory bandwidth, GB/s.
        bf16_tflops: Peak dense bf16 throughput, TFLOP/s.
        clocks_mhz: Supported SM clocks, ascending, MHz.
        power_limit_w: Board power limit (TDP).
        released_w: Power of a GPU that holds no model.
    """

    name: str
    memory_bytes: int
    bandwidth_gb_s: float
    bf16_tflops: float
    clocks_mhz: tuple[int, ...]
    power_limit_w: float
    released_w: float

    @property
    def top_mhz(self) -> int:
        """The highest supported SM clock."""
        return self.clocks_mhz[-1]


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A dense decoder model.

    Attributes:
        name: Key by which scenarios name it.
        weights_bytes: Size of the weights in bf16.
        kv_bytes_per_token: KV cache of one token over all layers, bf16.
        max_model_len: Longest prompt plus output, tokens.
    """

    name: str
    weights_bytes: int
    kv_bytes_per_token: int
    max_model_len: int


# Clocks in steps of 15 MHz as NVML lists them: A100 SXM 210 to 1410 (81 clocks), H100 SXM 345 to 1980
# (110). Empty, an A100 draws 59 to 63 W (shared calibration notes); 70 W is assumed of an empty H100.
_A100_CLOCKS_MHZ = tuple(range(210, 1411, 15))
GPUS = {
    "a100-40gb": GpuSpec("a100-40gb", 40 * GIB, 1555, 312, _A100_CLOCKS_MHZ, 400.0, 61.0),
    "a100-80gb": GpuSpec("a100-80gb", 80 * GIB, 2039, 312, _A100_CLOCKS_MHZ, 400.0, 61.0),
    "h100-80gb": GpuSpec("h100-80gb", 80 * GIB, 3350, 989, tuple(range(345, 1981, 15)), 700.0, 70.0),
}

# KV bytes per token: layers x KV heads x head size x (K and V) x 2 bytes.
MODELS = {
    "llama2-13b": ModelSpec("llama2-13b", 26_030_000_000, 40 * 40 * 128 * 2 * 2, 4096),
    "llama3-8b": ModelSpec("llama3-8b", 16_060_000_000, 32 * 8 * 128 * 2 * 2, 8192),
    "llama3-70b": ModelSpec("llama3-70b", 141_100_000_000, 80 * 8 * 128 * 2 * 2, 8192),
}

# vLLM's gpu_memory_utilization, and what activations, CUDA graphs and NCCL take of it on each GPU.
# 4.4 GB gives the published capacities of Llama2-13B on A100-40GB: about 10k, 50k and 130k tokens.
MEMORY_UTILIZATION = 0.9
RESERVED_BYTES_PER_GPU = 4_400_000_000


def kv_capacity_tokens(gpu: GpuSpec, model: ModelSpec, size: int) -> int:
    """Tokens of KV cache for which an instance has room; negative where not even the weights fit.

    Args:
        gpu: The GPU.
        model: The model.
        size: Tensor-parallel degree.
    """
    usable = size * (gpu.memory_bytes * MEMORY_UTILIZATION - RESERVED_BYTES_PER_GPU) - model.weights_bytes
    return int(usable // model.kv_bytes_per_token)


def kv_blocks(gpu: GpuSpec, model: ModelSpec, size: int, block_size: int) -> int:
    """KV blocks that an instance has room for, vLLM's null block included.

    Args:
        gpu: The GPU.
        model: The model.
        size: Tensor-parallel degree.
        block_size: Tokens per block.

    Returns:
        Number of blocks (vLLM's `num_gpu_blocks`).

    Raises:
        ValueError: The weights do not fit.
    """
    blocks = kv_capacity_tokens(gpu, model, size) // block_size
    if blocks < 2:
        raise ValueError(f"size = {size}: {model.name} does not fit on {size} x {gpu.name}; take more GPUs")
    return blocks
