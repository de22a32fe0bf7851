"""Families too large for most devices, and what stands in the way of some.

As in ``base_families``: config.json where it decides how they compute.
"""

from __future__ import annotations

from base_families import SLIDING, Family, sizes, types

SIGMOID = {"scoring_func": "sigmoid", "topk_method": "noaux_tc"}
DRAFTER = "it drafts tokens from the states of a larger Gemma 4, and is no model by itself"
OTHER_NAMES = "llama.cpp's converter doesn't know the names that transformers gives its weights"

GIANTS = (
    Family(
        "afmoe",
        "Trinity",
        sizes(
            2048,
            6144,
            32,
            32,
            4,
            head_dim=128,
            global_attn_every_n_layers=4,
            layer_types=types("sssf", 32, **SLIDING),
            moe_intermediate_size=1024,
            mup_enabled=True,
            num_dense_layers=2,
            num_experts=128,
            num_experts_per_tok=8,
            num_shared_experts=1,
            route_norm=True,
            route_scale=2.826,
            score_func="sigmoid",
            sliding_window=2048,
            rope_theta=10000.0,
        ),
    ),
    Family("bitnet", "BitNet b1.58", obstacle=OTHER_NAMES),
    Family("dbrx", "DBRX", obstacle="transformers builds none of its default configuration"),
    Family("deepseek_v32", "DeepSeek-V3.2", {**SIGMOID}),
    Family("deepseek_v4", "DeepSeek-V4", obstacle=OTHER_NAMES),
    Family("dots3_note_text", "dots3 note", {**SIGMOID}),
    Family("exaone_moe", "K-EXAONE", {"scoring_func": "sigmoid", "topk_method": "noaux_tc"}),
    Family("gemma4_assistant", "Gemma 4's drafters", obstacle=DRAFTER),
    Family("gemma4_unified_assistant", "Gemma 4's drafters", obstacle=DRAFTER),
    Family(
        "glm4_moe",
        "GLM-4.5-Air",
        sizes(
            4096,
            10944,
            46,
            96,
            8,
            head_dim=128,
            partial_rotary_factor=0.5,
            attention_bias=True,
            first_k_dense_replace=1,
            moe_intermediate_size=1408,
            n_routed_experts=128,
            n_shared_experts=1,
            num_experts_per_tok=8,
            n_group=1,
            topk_group=1,
            norm_topk_prob=True,
            routed_scaling_factor=1.0,
            rope_theta=1000000,
        ),
    ),
    Family("glm4_moe_lite", "GLM-4.7-Flash", {"first_k_dense_replace": 1, **SIGMOID}),
    Family("glm_moe_dsa", "GLM-5", {"first_k_dense_replace": 3, **SIGMOID}),
    Family(
        "hunyuan_v1_moe",
        "Hunyuan-A13B",
        sizes(
            4096,
            3072,
            32,
            32,
            8,
            head_dim=128,
            attention_head_dim=128,
            moe_intermediate_size=[3072] * 32,
            moe_topk=[8] * 32,
            num_experts=64,
            num_shared_expert=[1] * 32,
            use_mixed_mlp_moe=True,
            use_qk_norm=True,
            rope_theta=10000.0,
            max_position_embeddings=32768,
            rope_scaling={"type": "dynamic", "alpha": 1000.0, "factor": 1.0, "beta_fast": 32, "beta_slow": 1},
        ),
    ),
    Family("hy_v4", "HYV4ForCausalLM", obstacle=OTHER_NAMES),
    Family("kimi_linear", "Kimi Linear", obstacle=OTHER_NAMES),
    Family("mellum", "Mellum 2", {"layer_types": types("sssf", 28, **SLIDING), "use_sliding_window": True}),
    Family("minimax_m2", "MiniMax-M2", {"rotary_dim": 64, "head_dim": 128, "use_qk_norm": True, **SIGMOID}),
    Family("qwen4_exp_text", "Qwen4ExpForCausalLM", obstacle="transformers builds none of its default configuration"),
    Family("solar_open", "Solar Open", {"partial_rotary_factor": 1.0, "first_k_dense_replace": 0}),
)
