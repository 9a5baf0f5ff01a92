"""The model that emulated GPUs run, as files: a shape and a vocabulary.

The emulated executor computes nothing and reads no weights. vLLM wants to know the shape of a model, and a
server needs a tokenizer, so that clients may send text. With random weights added, vLLM's own executors serve
it too, on any machine.
"""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np

VOCABULARY = 512
SPECIAL = ("<unk>", "<s>", "</s>")

MODEL: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": VOCABULARY,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "torch_dtype": "bfloat16",
}

CHAT_TEMPLATE = "{% for m in messages %}{{ m['content'] }} {% endfor %}"


def write_config(folder: Path, max_model_len: int) -> None:
    """Write the model's shape.

    Args:
        folder: Where.
        max_model_len: Longest prompt plus output, tokens.
    """
    _write(folder / "config.json", MODEL | {"max_position_embeddings": max_model_len})


def write_tokenizer(folder: Path, max_model_len: int) -> None:
    """Write a tokenizer whose words are `t3`, `t4` and so on: one each, named by its id.

    Args:
        folder: Where.
        max_model_len: Longest prompt plus output, tokens.
    """
    words = [*SPECIAL, *(f"t{i}" for i in range(len(SPECIAL), VOCABULARY))]
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    tokenizer: dict[str, Any] = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": i, "content": word, **plain} for i, word in enumerate(SPECIAL)],
        "normalizer": None,
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": None,
        "decoder": None,
        "model": {
            "type": "WordLevel",
            "vocab": {word: i for i, word in enumerate(words)},
            "unk_token": SPECIAL[0],
        },
    }
    _write(folder / "tokenizer.json", tokenizer)
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": SPECIAL[0],
        "bos_token": SPECIAL[1],
        "eos_token": SPECIAL[2],
        "model_max_length": max_model_len,
        "chat_template": CHAT_TEMPLATE,
    }
    _write(folder / "tokenizer_config.json", settings)


def write_random_weights(folder: Path, seed: int = 0) -> None:
    """Write weights that say nothing in particular, in the form of safetensors, float32.

    Args:
        folder: Where.
        seed: Of the weights.
    """
    rng = np.random.default_rng(seed)
    tensors = {name: 0.05 * rng.standard_normal(shape, np.float32) for name, shape in _shapes().items()}
    header, end = {}, 0
    for name, tensor in tensors.items():
        start, end = end, end + tensor.nbytes
        header[name] = {"dtype": "F32", "shape": tensor.shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    data = b"".join(tensor.tobytes() for tensor in tensors.values())
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)


def _shapes() -> dict[str, tuple[int, ...]]:
    """Tensors of a Llama of that shape; all heads have keys of their own."""
    hidden, inner = MODEL["hidden_size"], MODEL["intermediate_size"]
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (VOCABULARY, hidden),
        "model.norm.weight": (hidden,),
        "lm_head.weight": (VOCABULARY, hidden),
    }
    for layer in range(MODEL["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        for norm in ("input_layernorm", "post_attention_layernorm"):
            shapes[f"{prefix}{norm}.weight"] = (hidden,)
        for part in "qkvo":
            shapes[f"{prefix}self_attn.{part}_proj.weight"] = (hidden, hidden)
        for part in ("gate", "up"):
            shapes[f"{prefix}mlp.{part}_proj.weight"] = (inner, hidden)
        shapes[f"{prefix}mlp.down_proj.weight"] = (hidden, inner)
    return shapes


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")
