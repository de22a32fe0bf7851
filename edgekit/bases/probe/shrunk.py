"""A base's configuration with everything small that only makes it large.

What decides *how* it computes stays: heads' sizes, rotary embeddings, scales, caps, biases, the order of layers.
Windows become shorter than the probe's prompt, so that they do something.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import transformers

WINDOW = 16
VOCABULARY = 320
WIDE = 512  # hidden size; more takes long
FEW_LAYERS, MANY_LAYERS = 2, 8
# The engine takes these architectures' largest models, known by their number of layers, to scale queries by
# hidden / heads; shrunk, they are scaled by their heads' size like the others.
BY_HIDDEN = {"gemma2": 46, "gemma3_text": 62}
# Inner sizes that the converter takes as four times the hidden size, whatever the config says.
FOUR_TIMES = {"phi": "intermediate_size", "falcon": "ffn_hidden_size"}
LAYER_LISTS = ("layer_types", "layers_block_type", "mlp_layer_types", "block_types", "no_rope_layers")
LAYER_OFFSETS = ("attn_layer_offset", "expert_layer_offset")  # number of the first of a kind
LAYER_NUMBERS = ("full_attn_idxs", "attn_layer_indices", "mlp_only_layers")
LAYER_PATTERNS = ("hybrid_override_pattern",)
LAYER_COUNTS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
HEADS = ("num_attention_heads", "n_head", "n_heads")
HIDDEN = ("hidden_size", "n_embd", "d_model")
SIZES = {  # largest value of what has no meaning but its size
    "intermediate_size": 192,
    "n_inner": 192,
    "ffn_hidden_size": 192,
    "block_ff_dim": 192,
    "mlp_hidden_size": 192,
    "moe_intermediate_size": 64,
    "expert_intermediate_size": 64,
    "expert_ffn_hidden_size": 64,
    "shared_expert_intermediate_size": 96,
    "shared_intermediate_size": 96,
    "moe_shared_expert_intermediate_size": 96,
    "intermediate_size_mlp": 192,
    "num_experts": 4,
    "n_routed_experts": 4,
    "num_local_experts": 4,
    "moe_num_experts": 4,
    "num_experts_per_tok": 2,
    "num_experts_per_token": 2,
    "moe_topk": 2,
    "moe_k": 2,
    "moe_top_k": 2,
    "top_k_experts": 2,
    "n_group": 2,
    "topk_group": 1,
    "num_expert_group": 2,
    "q_lora_rank": 64,
    "kv_lora_rank": 64,
    "first_k_dense_replace": 1,
    "num_dense_layers": 1,
    "hidden_size_per_layer_input": 32,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "num_kv_heads": 2,
    "num_ssm_heads": 4,
    "vocab_size": VOCABULARY,
    "vocab_size_per_layer_input": VOCABULARY,
    "sliding_window": WINDOW,
    "sliding_window_size": WINDOW,
    "num_nextn_predict_layers": 0,
    "mtp_num_hidden_layers": 0,
}


def shrunk(raw: Mapping[str, Any]) -> dict[str, Any]:
    """A small configuration that computes as ``raw`` does: seconds of work instead of hours.

    What ``raw`` says stays under the names that it says it by, as converters read those.

    Args:
        raw: ``config.json`` of a causal language model.
    """
    config = known(raw)
    whole = config.to_dict()
    made = dict(whole)
    kind = config.model_type
    layers_key = next((key for key in LAYER_COUNTS if key in made), "num_hidden_layers")
    layers = int(made.get(layers_key) or len(made["layers_block_type"]))
    all_count = _counts_all(made)
    kept = layers if all_count else _prefix(made, layers)
    if made.get("num_kv_shared_layers") and not all_count:
        kept = min(layers, 2 * kept)  # the first half has one of each kind to share
        made["num_kv_shared_layers"] = kept // 2
    counted_by_list = layers_key not in made
    if not counted_by_list:
        made[layers_key] = kept
    _shrink_sizes(made, whole, kind, layers)
    _shrink_heads(made, config)
    _shrink_state_space(made, kind)
    other_names = getattr(config, "attribute_map", {})
    result = {}
    for key, value in raw.items():
        name = key if key in made else other_names.get(key, key)
        result[key] = made[name] if name in made and made[name] != whole[name] else value
    if counted_by_list and layers_key in raw:
        result[layers_key] = kept
    said = {other_names.get(key, key) for key in raw} | set(raw)
    result |= {key: value for key, value in made.items() if key not in said and value != whole[key]}
    for key, value in (*result.items(), *((key, value) for key, value in made.items() if key not in said)):
        if isinstance(value, list) and len(value) == layers > kept:
            result[key] = value[:kept]
        elif isinstance(value, list) and key in LAYER_NUMBERS:
            result[key] = [each for each in value if each < kept]
        elif isinstance(value, str) and key in LAYER_PATTERNS:
            result[key] = value[:kept]
        elif isinstance(value, dict) and key == "per_layer_config":
            result[key] = {number: each for number, each in value.items() if int(number) < kept}
    return result


def known(raw: Mapping[str, Any]) -> Any:
    """``config.json`` as transformers' configuration."""
    return type(transformers.AutoConfig.for_model(raw["model_type"])).from_dict(dict(raw))


def _counts_all(config: dict[str, Any]) -> bool:
    """Whether the engine computes it with constants that count all layers, or knows it by their number."""
    if config["model_type"] == "deepseek_v2":
        return config.get("q_lora_rank") is None  # the Lite ones
    return config["model_type"] in ("gemma3n_text", "exaone4") and bool(config.get("sliding_window"))


def _prefix(config: dict[str, Any], layers: int) -> int:
    """How many of the first layers have one of each kind."""
    needed = FEW_LAYERS
    for key in LAYER_LISTS:
        kinds = config.get(key)
        if isinstance(kinds, list) and kinds:
            needed = max(needed, *(kinds.index(kind) + 1 for kind in set(kinds)))
    needed = max(needed, *(int(config.get(key) or 0) + 1 for key in LAYER_OFFSETS))
    for key in LAYER_NUMBERS:
        if config.get(key):
            needed = max(needed, min(config[key]) + 1)
    dense = min(int(config.get("first_k_dense_replace") or config.get("num_dense_layers") or 0), 1)
    return min(layers, max(needed, dense + 1), max(MANY_LAYERS, needed))


def _shrink_sizes(made: dict[str, Any], whole: dict[str, Any], kind: str, layers: int) -> None:
    for key, most in SIZES.items():
        value = made.get(key)
        if isinstance(value, list):
            made[key] = [min(each, most) for each in value]
        elif isinstance(value, int) and not isinstance(value, bool) and value > 0:
            made[key] = min(value, most)
    if kind == "gemma3n_text":  # a constant of the engine
        made["hidden_size_per_layer_input"] = whole["hidden_size_per_layer_input"]
    for key, value in made.items():
        if key.endswith("token_id"):
            made[key] = None if isinstance(value, list) else min(value, VOCABULARY - 1) if value is not None else None
    if whole.get("mlp_layer_types") and whole.get("first_k_dense_replace"):  # one says what the other does
        made["first_k_dense_replace"] = whole["first_k_dense_replace"]
    if whole.get("shared_intermediate_size") and whole["shared_intermediate_size"] == whole.get(
        "intermediate_size"
    ):  # Granite 4 H without experts
        made["intermediate_size"] = made["shared_intermediate_size"]
    if kind == "ernie4_5_moe":  # the engine's width of shared experts is this one's share of a key-value head
        made["intermediate_size"] = 2 * made["moe_intermediate_size"] * made["moe_num_shared_experts"]
    if made.get("n_group") == 1 or made.get("num_expert_group") == 1:
        made["topk_group"] = 1
    hidden, heads = whole.get("hidden_size"), whole.get("num_attention_heads")
    if layers == BY_HIDDEN.get(kind) and hidden and heads and made["query_pre_attn_scalar"] == hidden / heads:
        made["query_pre_attn_scalar"] = made["head_dim"]


def _shrink_heads(made: dict[str, Any], config: Any) -> None:
    heads_key = next((key for key in HEADS if made.get(key)), None)
    hidden_key = next(key for key in HIDDEN if made.get(key))
    hidden = int(made[hidden_key])
    if heads_key is None:
        made[hidden_key] = min(hidden, 128)
        return
    heads = int(made[heads_key])
    groups = made.get("num_key_value_heads") or made.get("num_kv_heads") or heads
    size = int(made.get("head_dim") or hidden // heads)
    if isinstance(groups, int):
        few = min(groups, 2)
        ratio = min(max(heads // groups, 1), 2) if groups < heads else 1
        made[heads_key] = few * ratio
        if made.get("num_key_value_heads"):
            made["num_key_value_heads"] = few
    if made.get("num_global_key_value_heads"):
        made["num_global_key_value_heads"] = 1
    width = made[heads_key] * size
    own_size = made.get("head_dim") is not None  # not hidden / heads
    separate = own_size and (hidden != heads * size or width > WIDE)
    made[hidden_key] = (192 if width != 192 else 256) if separate else width
    if config.model_type in FOUR_TIMES:
        made[FOUR_TIMES[config.model_type]] = 4 * made[hidden_key]
    if "embedding_size" in made:
        made["embedding_size"] = made[hidden_key]


def _shrink_state_space(made: dict[str, Any], kind: str) -> None:
    """Mamba's inner width is a multiple of the hidden size, and its heads fill it."""
    hidden = int(next(made[key] for key in HIDDEN if made.get(key)))
    if kind == "falcon_h1":
        made["mamba_n_heads"] = 4
        made["mamba_d_ssm"] = 4 * int(made["mamba_d_head"])
    elif made.get("mamba_n_heads"):
        made["mamba_n_heads"] = int(made["mamba_expand"]) * hidden // int(made["mamba_d_head"])
    elif kind == "nemotron_h":
        made["mamba_num_heads"] = 4
        made["n_groups"] = min(int(made.get("n_groups", 1)), 2)
    elif kind in ("mamba", "falcon_mamba"):
        made["intermediate_size"] = int(made["expand"]) * hidden
        made["time_step_rank"] = math.ceil(hidden / 16)
    elif kind == "mamba2":
        made["num_heads"] = int(made["expand"]) * hidden // int(made["head_dim"])
        made["n_groups"] = min(int(made["n_groups"]), 2)
    elif kind == "jamba":
        made["mamba_dt_rank"] = math.ceil(hidden / 16)
