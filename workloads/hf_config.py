"""Models from a `config.json` as Hugging Face writes it: language models, and the transformers of diffusers pipelines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from ..facts import Provenance, UserError, convert
from .model import Model

LONGEST_DEFAULT = 32768
"""Tokens of the default shape of a language model, at most."""

FAMILIES = {
    "FluxTransformer2DModel": "mmdit",
    "HunyuanVideoTransformer3DModel": "mmdit",
    "CogVideoXTransformer3DModel": "mmdit",
    "MochiTransformer3DModel": "mmdit",
    "WanTransformer3DModel": "dit",
    "CosmosTransformer3DModel": "dit",
    "LTXVideoTransformer3DModel": "dit",
}
"""Kinds of the diffusers classes: text inside of self-attention, or beside it."""


def read_config(path: str) -> Model:
    """The model that a `config.json` describes.

    Diffusion configs do not say how many tokens an image or a video has: a call then needs its grid.

    Raises
    ------
    UserError
        The file cannot be read, is no model config, or is of a class that is not known.

    References
    ----------
    Field names: transformers (`PretrainedConfig` of Llama, Qwen2, DeepSeek-V3) and diffusers (`ConfigMixin`).
    """
    try:
        config = msgspec.json.decode(Path(path).read_bytes())
    except OSError as error:
        raise UserError(f"cannot read model config {path}: {error.strerror}") from None
    except msgspec.DecodeError as error:
        raise UserError(f"model config {path} is no JSON: {error}") from None
    if not isinstance(config, dict):
        raise UserError(f"model config {path} must be a JSON object, got {type(config).__name__}")
    try:
        document = _diffusion(config) if "_class_name" in config else _language(config)
    except KeyError as error:
        raise UserError(f"model config {path} lacks {error.args[0]}") from None
    origin = Provenance(kind="code", source=path)
    named = {"name": Path(path).stem, "title": str(config.get("_name_or_path") or Path(path).parent.name or path), **document}
    return convert({**named, "meta": {"sizes": msgspec.to_builtins(origin)}}, Model, f"model config {path}")


def _language(config: dict[str, Any]) -> dict[str, Any]:
    heads, hidden = config["num_attention_heads"], config["hidden_size"]
    width = config.get("head_dim") or hidden // heads
    values = width
    if config.get("kv_lora_rank"):
        # Multi-head latent attention, in the form of the prefill: every head has keys and values of its own.
        width, values = config["qk_nope_head_dim"] + config["qk_rope_head_dim"], config["v_head_dim"]
    tokens = min(config.get("max_position_embeddings") or LONGEST_DEFAULT, LONGEST_DEFAULT)
    return {
        "kind": "llm",
        "layers": config["num_hidden_layers"],
        "hidden": hidden,
        "q_heads": heads,
        "kv_heads": config.get("num_key_value_heads") or heads,
        "head_dim": width,
        "head_dim_v": values,
        "ffn_hidden": config["intermediate_size"],
        "phase": "prefill",
        "causal": True,
        "default": "config",
        "shapes": {"config": {"grid": [tokens]}},
    }


def _diffusion(config: dict[str, Any]) -> dict[str, Any]:
    kind = FAMILIES.get(config["_class_name"])
    if kind is None:
        raise UserError(f"model class {config['_class_name']} is not known; known: {', '.join(sorted(FAMILIES))}")
    heads, width = config["num_attention_heads"], config["attention_head_dim"]
    hidden = heads * width
    return {
        "kind": kind,
        "layers": config["num_layers"] + (config.get("num_single_layers") or 0),
        "hidden": hidden,
        "q_heads": heads,
        "kv_heads": heads,
        "head_dim": width,
        "ffn_hidden": config.get("ffn_dim") or round(hidden * (config.get("mlp_ratio") or 4)),
        "phase": "diffusion",
        "cross_text": config.get("text_len") or 512 if kind == "dit" else 0,
        "default": "",
        "shapes": {},
    }
