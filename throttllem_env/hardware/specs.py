"""What data sheets and model cards say: GPUs, models, and the KV cache that fits."""

from dataclasses import dataclass

GIB = 1024**3


@dataclass(frozen=True, slots=True)
class GpuSpec:
    """A GPU as its data sheet and driver describe it.

    Attributes:
        name: Key by which scenarios name it.
        memory_bytes: Device memory.
        clocks_mhz: Supported SM clocks, ascending, MHz.
        power_limit_w: Board power limit (TDP).
        released_w: Power of a GPU that holds no model.
    """

    name: str
    memory_bytes: int
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


# A100 SXM: 210 to 1410 MHz in steps of 15 (81 clocks, as NVML lists them); empty it draws 59 to 63 W
# (shared calibration notes), 400 W is its limit.
GPUS = {
    "a100-40gb": GpuSpec("a100-40gb", 40 * GIB, tuple(range(210, 1411, 15)), 400.0, 61.0),
}

# Llama2-13B: 40 layers x 5120 x (K and V) x 2 bytes.
MODELS = {
    "llama2-13b": ModelSpec("llama2-13b", 26_030_000_000, 40 * 5120 * 2 * 2, 4096),
}

# vLLM's gpu_memory_utilization, and what activations, CUDA graphs and NCCL take of it on each GPU.
# 4.4 GB gives the published capacities of Llama2-13B on A100-40GB: about 10k, 50k and 130k tokens.
MEMORY_UTILIZATION = 0.9
RESERVED_BYTES_PER_GPU = 4_400_000_000


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
    usable = size * (gpu.memory_bytes * MEMORY_UTILIZATION - RESERVED_BYTES_PER_GPU) - model.weights_bytes
    blocks = int(usable // (model.kv_bytes_per_token * block_size))
    if blocks < 2:
        raise ValueError(f"size = {size}: {model.name} does not fit on {size} x {gpu.name}; take more GPUs")
    return blocks
