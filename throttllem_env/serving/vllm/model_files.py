"""The model that emulated GPUs run, as files: a shape and a vocabulary, and no weights.

No weights are ever read, for the executor computes nothing. vLLM wants to know the shape of a model, and a
server needs a tokenizer, so that clients may send text.
"""

import json
from pathlib import Path
from typing import Any

VOCABULARY = 512
SPECIAL = ("<unk>", "<s>", "</s>")

MODEL = {
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


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")
