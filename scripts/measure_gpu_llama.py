"""The work that `measure_gpu.py` measures: one iteration of a Llama-shaped model with random weights."""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

Step = Callable[[], Any]


@dataclass(frozen=True)
class Shape:
    """A Llama-like decoder: layers, widths, heads and vocabulary."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    intermediate: int
    vocabulary: int

    @property
    def head_size(self) -> int:
        """Width of a head."""
        return self.hidden // self.heads

    @property
    def layer_weights(self) -> int:
        """Parameters of a layer."""
        attention = self.hidden * (2 * self.heads + 2 * self.kv_heads) * self.head_size
        return attention + 3 * self.hidden * self.intermediate

    def bytes_needed(self, layers: int, cached_tokens: int) -> int:
        """Memory for weights and KV cache in bf16."""
        weights = layers * self.layer_weights + 2 * self.vocabulary * self.hidden
        return 2 * (weights + layers * 2 * cached_tokens * self.kv_heads * self.head_size)


SHAPES = {
    "llama3-8b": Shape(32, 4096, 32, 8, 14336, 128256),
    "llama2-13b": Shape(40, 5120, 40, 40, 13824, 32000),
    "tiny": Shape(4, 64, 4, 2, 128, 256),
}


@dataclass(frozen=True)
class Cell:
    """One iteration: decode of `batch` requests with `context` tokens each, or a prompt of `tokens`."""

    model: str
    phase: str
    batch: int
    context: int
    tokens: int

    @property
    def cached_tokens(self) -> int:
        """Tokens whose keys and values it holds."""
        return self.batch * self.context + self.tokens


class Llama:
    """Random weights, and one iteration over the first so many layers."""

    def __init__(self, shape: Shape, layers: int, device: torch.device) -> None:
        """Draw the weights; every layer has its own, so that no cache holds them."""
        self.shape, self.device = shape, device
        self._generator = torch.Generator(device).manual_seed(0)
        width, kv = shape.heads * shape.head_size, shape.kv_heads * shape.head_size
        self._blocks = [
            (
                self._draw(width + 2 * kv, shape.hidden),
                self._draw(shape.hidden, width),
                self._draw(2 * shape.intermediate, shape.hidden),
                self._draw(shape.hidden, shape.intermediate),
            )
            for _ in range(layers)
        ]
        self._embedding = self._draw(shape.vocabulary, shape.hidden)
        self._head = self._draw(shape.vocabulary, shape.hidden)

    def _draw(self, rows: int, columns: int) -> Tensor:
        kind = torch.bfloat16
        drawn = torch.randn(rows, columns, generator=self._generator, device=self.device, dtype=kind)
        return drawn / math.sqrt(columns)

    def step(self, cell: Cell, layers: int) -> Step:
        """An iteration as a function without arguments, its cache allocated."""
        rows, new = (cell.batch, 1) if cell.phase == "decode" else (1, cell.tokens)
        ids = torch.randint(self.shape.vocabulary, (rows, new), generator=self._generator, device=self.device)
        cache = [self._cache(cell) for _ in range(layers)] if cell.phase == "decode" else [None] * layers

        def run() -> Tensor:
            x = F.embedding(ids, self._embedding)
            for block, kept in zip(self._blocks, cache, strict=False):
                x = self._layer(x, block, kept)
            return (self._norm(x[:, -1]) @ self._head.T).argmax(-1)

        return run

    def _cache(self, cell: Cell) -> tuple[Tensor, Tensor]:
        size = (cell.batch, self.shape.kv_heads, cell.context, self.shape.head_size)
        made = (torch.randn(size, generator=self._generator, device=self.device) for _ in range(2))
        keys, values = (part.to(torch.bfloat16) for part in made)
        return keys, values

    def _norm(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, (self.shape.hidden,))

    def _layer(self, x: Tensor, block: tuple[Tensor, ...], cache: tuple[Tensor, Tensor] | None) -> Tensor:
        shape, (rows, new, _) = self.shape, x.shape
        qkv, out, gate_up, down = block
        projected = (self._norm(x) @ qkv.T).view(rows, new, -1, shape.head_size).transpose(1, 2)
        heads = [shape.heads, shape.kv_heads, shape.kv_heads]
        query, keys, values = torch.split(projected, heads, dim=1)
        if cache is not None:
            cache[0][:, :, -1:], cache[1][:, :, -1:] = keys, values
            keys, values = cache
        with self._flash():
            mixed = F.scaled_dot_product_attention(
                query, keys, values, is_causal=cache is None, enable_gqa=shape.heads != shape.kv_heads
            )
        x = x + mixed.transpose(1, 2).reshape(rows, new, -1) @ out.T
        gate, up = (self._norm(x) @ gate_up.T).chunk(2, dim=-1)
        return x + (F.silu(gate) * up) @ down.T

    def _flash(self) -> AbstractContextManager[None]:
        """Flash attention or an error: the plain one would copy every key for every head."""
        if self.device.type == "cpu":
            return nullcontext()
        from torch.nn.attention import SDPBackend, sdpa_kernel

        return sdpa_kernel(SDPBackend.FLASH_ATTENTION)
