"""Models from config.json files of transformers and diffusers (sizes as published)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from simattn.facts import UserError
from simattn.simulator import question
from simattn.workloads import models

LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "max_position_embeddings": 131072,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
}
DEEPSEEK = {
    "hidden_size": 7168,
    "intermediate_size": 18432,
    "kv_lora_rank": 512,
    "max_position_embeddings": 163840,
    "num_attention_heads": 128,
    "num_hidden_layers": 61,
    "num_key_value_heads": 128,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
}
WAN = {
    "_class_name": "WanTransformer3DModel",
    "attention_head_dim": 128,
    "ffn_dim": 13824,
    "num_attention_heads": 40,
    "num_layers": 40,
    "text_dim": 4096,
}
FLUX = {
    "_class_name": "FluxTransformer2DModel",
    "attention_head_dim": 128,
    "num_attention_heads": 24,
    "num_layers": 19,
    "num_single_layers": 38,
}


def written(folder: Path, config: Any) -> str:
    path = folder / "config.json"
    path.write_text(config if isinstance(config, str) else json.dumps(config))
    return str(path)


@pytest.mark.parametrize(
    ("config", "shipped"), [(LLAMA, "llama-3.1-8b"), (DEEPSEEK, "deepseek-v3.2"), (WAN, "wan2.1-14b"), (FLUX, "flux-dev")]
)
def test_sizes_are_those_of_the_shipped_model(tmp_path: Path, config: dict[str, Any], shipped: str) -> None:
    read, known = models.load(written(tmp_path, config)), models.load(shipped)
    for field in ("kind", "layers", "hidden", "q_heads", "kv_heads", "head_dim", "ffn_hidden", "phase", "causal", "cross_text"):
        assert getattr(read, field) == getattr(known, field), field
    assert (read.head_dim_v or read.head_dim) == (known.head_dim_v or known.head_dim)


def test_language_model_runs_at_32k_by_default(tmp_path: Path) -> None:
    asked = question("causal", model=written(tmp_path, LLAMA))
    assert (asked.problem.seq_q, asked.problem.kv_heads) == (32768, 8)


def test_diffusion_model_needs_a_grid(tmp_path: Path) -> None:
    path = written(tmp_path, WAN)
    with pytest.raises(UserError, match="does not say how many tokens it has: give its grid"):
        question("dense", model=path)
    asked = question("radial", model=path, grid=(18, 48, 80), text=0)
    assert (asked.problem.seq_q, asked.problem.q_heads) == (69120, 40)


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ("[1]", "must be a JSON object, got list"),
        ("{", "is no JSON"),
        ({"hidden_size": 64}, "lacks num_attention_heads"),
        ({**WAN, "_class_name": "UNet2DConditionModel"}, "model class UNet2DConditionModel is not known; known: Cog"),
        ({**LLAMA, "num_hidden_layers": "many"}, "layers"),
    ],
)
def test_bad_configs_are_said_in_one_line(tmp_path: Path, config: Any, says: str) -> None:
    with pytest.raises(UserError, match=says) as error:
        models.load(written(tmp_path, config))
    assert "\n" not in str(error.value)


def test_missing_file() -> None:
    with pytest.raises(UserError, match=r"cannot read model config nowhere\.json: No such file"):
        models.load("nowhere.json")
