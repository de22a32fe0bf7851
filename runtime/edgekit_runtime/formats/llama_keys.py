"""Which keys of a GGUF llama.cpp reads, and as what; of the version that constraints.txt pins.

It ends the process over some keys that are stored as another type, and refuses the file over the others.  A test
compares this with its source.
"""

from __future__ import annotations

# After the architecture and a dot.
OF_ARCHITECTURE = {
    "U32": """
    adapters.count adapters.lora_rank attention.decay_lora_rank attention.gate_lora_rank attention.group_norm_groups
    attention.iclr_lora_rank attention.indexer.block_size attention.indexer.head_count attention.indexer.key_length
    attention.indexer.kpool attention.indexer.local_blocks attention.indexer.top_k attention.key_length
    attention.key_length_mla attention.key_length_mla_swa attention.key_length_swa attention.kv_lora_rank
    attention.kv_lora_rank_swa attention.output_group_count attention.output_lora_rank attention.q_lora_rank
    attention.relative_buckets_count attention.shared_kv_layers attention.sliding_window
    attention.temperature_length attention.value_length attention.value_length_mla attention.value_length_mla_swa
    attention.value_length_swa attention.value_residual_mix_lora_rank attn_res.block_size block_count block_size
    classifier.pooling_type context_length conv_group_size conv_kernel_size convnext.block_count
    convnext.embedding_length decoder_block_count decoder_start_token_id dense_2_feat_in dense_2_feat_out
    dense_3_feat_in dense_3_feat_out embedding_length embedding_length_out embedding_length_per_layer_input
    expert_chunk_feed_forward_length expert_count expert_gating_func expert_group_count expert_group_used_count
    expert_latent_length expert_shared_count expert_shared_feed_forward_length experts_per_group features_length
    full_attention_interval hash_layer_count hrm.h_cycles hrm.l_cycles hrm.layers_per_stack hyper_connection.count
    hyper_connection.low_rank hyper_connection.sinkhorn_iterations interleave_moe_layer_step kda.head_dim
    leading_dense_block_count moe_every_n_layers moe_latent_size n_deepstack_layers nextn_predict_layers num_loops
    ple.conv_kernel ple.eos_token_id ple.heads_per_ngram ple.image_token_id ple.ngram_size pooling_type
    posnet.block_count posnet.embedding_length rescale_every_n_layers rope.dimension_count rope.dimension_count_swa
    rope.scaling.original_context_length selector_rank selector_top_k shortconv.l_cache ssm.conv_kernel
    ssm.group_count ssm.inner_size ssm.state_size ssm.time_step_rank target_hidden_size time_decay_extra_dim
    time_mix_extra_dim token_shift_count vocab_size wkv.head_size
    """,
    "F32": """
    activation.situ_beta activation.situ_linear_beta adapters.router_gain attention.clamp_kqv
    attention.compress_rope_freq_base attention.group_norm_epsilon attention.layer_norm_epsilon
    attention.layer_norm_rms_epsilon attention.max_alibi_bias attention.output_scale attention.scale
    attention.temperature_scale attention.value_scale attn_logit_softcapping embedding_scale expert_group_scale
    expert_weights_scale final_logit_softcapping hyper_connection.epsilon hyper_connection.magnitude
    kda.gate_lower_bound logit_scale residual_scale rope.freq_base rope.freq_base_swa rope.scale_linear
    rope.scaling.alpha rope.scaling.attn_factor rope.scaling.factor rope.scaling.yarn_attn_factor
    rope.scaling.yarn_beta_fast rope.scaling.yarn_beta_slow rope.scaling.yarn_ext_factor
    rope.scaling.yarn_log_multiplier router_logit_softcapping
    """,
    "BOOL": """
    attention.causal attention.indexer.kpool_select_tail expert_weights_norm hrm.prefix_lm kda.safe_gate
    norm_before_fc norm_before_residual rope.scaling.finetuned skip_loop_final_norm ssm.dt_b_c_rms swin_norm
    use_parallel_residual
    """,
    "STRING": """
    hidden_activation rope.scaling.type
    """,
    "[STRING]": """
    classifier.output_labels
    """,
    "U32 or array": """
    attention.compress_ratios attention.head_count attention.head_count_kv attention.indexer.types
    attention.recurrent_layers attention.sliding_window_pattern expert_feed_forward_length expert_used_count
    feed_forward_length
    """,
    "F32 or array": """
    swiglu_clamp_exp swiglu_clamp_shexp
    """,
    "I32 or array": """
    rope.dimension_sections
    """,
    "array": """
    adapters.token_ids_activate adapters.token_ids_substitute attention.rope_pattern deepstack_mapping ple.layers
    target_layers
    """,
    "[U64]": """
    ple.head_offsets ple.head_vocab_sizes ple.layer_multipliers
    """,
}
# Of every file.
GENERAL = {
    "U32": """
    general.alignment general.file_type tokenizer.ggml.bos_token_id tokenizer.ggml.cls_token_id
    tokenizer.ggml.eom_token_id tokenizer.ggml.eos_token_id tokenizer.ggml.eot_token_id
    tokenizer.ggml.fim_mid_token_id tokenizer.ggml.fim_pad_token_id tokenizer.ggml.fim_pre_token_id
    tokenizer.ggml.fim_rep_token_id tokenizer.ggml.fim_sep_token_id tokenizer.ggml.fim_suf_token_id
    tokenizer.ggml.mask_token_id tokenizer.ggml.middle_token_id tokenizer.ggml.padding_token_id
    tokenizer.ggml.prefix_token_id tokenizer.ggml.seperator_token_id tokenizer.ggml.suffix_token_id
    tokenizer.ggml.token_type_count tokenizer.ggml.unknown_token_id
    """,
    "BOOL": """
    tokenizer.ggml.add_bos_token tokenizer.ggml.add_eos_token tokenizer.ggml.add_sep_token
    tokenizer.ggml.add_space_prefix tokenizer.ggml.normalizer.lowercase tokenizer.ggml.normalizer.strip_accents
    tokenizer.ggml.remove_extra_whitespaces
    """,
    "STRING": """
    general.architecture general.name general.type tokenizer.chat_template tokenizer.ggml.model
    tokenizer.ggml.pre
    """,
    "[STRING]": """
    general.tensor_extra.name tokenizer.ggml.merges tokenizer.ggml.tokens
    """,
    "[I32]": """
    tokenizer.ggml.suppress_tokens tokenizer.ggml.token_type
    """,
    "[F32] or [I32]": """
    tokenizer.ggml.scores
    """,
    "[I8] or [U8]": """
    tokenizer.ggml.precompiled_charsmap
    """,
    "U16": """
    split.count
    """,
    "F32 or array": """
    xielu.alpha_n xielu.alpha_p xielu.beta xielu.eps
    """,
}
# Of a projector; %s stands for what it reads.
PROJECTOR = {
    "U32": """
    clip.%s.attention.head_count clip.%s.attention.head_count_kv clip.%s.attention.head_dim clip.%s.block_count
    clip.%s.embedding_length clip.%s.feed_forward_length clip.%s.projection_dim clip.audio.chunk_size
    clip.audio.conv_kernel_size clip.audio.local_block_count clip.audio.local_group_size clip.audio.max_pos_emb
    clip.audio.num_mel_bins clip.audio.projector.downsample_rate clip.audio.projector.head_count
    clip.audio.projector.stack_factor clip.audio.projector.window_size clip.audio.rvq.num_quantizers
    clip.audio.subsampling_factor clip.audio.window_size clip.minicpmv_query_num clip.vision.expert_used_count
    clip.vision.image_max_pixels clip.vision.image_min_pixels clip.vision.image_size clip.vision.n_wa_pattern
    clip.vision.patch_size clip.vision.preproc_image_size clip.vision.preproc_max_tiles
    clip.vision.preproc_min_tiles clip.vision.projector.query_side clip.vision.projector.scale_factor
    clip.vision.projector.window_side clip.vision.sam.block_count clip.vision.sam.embedding_length
    clip.vision.sam.head_count clip.vision.spatial_merge_size clip.vision.window_size
    """,
    "I32": """
    clip.minicpmv_version
    """,
    "F32": """
    clip.%s.attention.layer_norm_epsilon clip.vision.swiglu_clamp
    """,
    "BOOL": """
    clip.has_audio_encoder clip.has_gen_audio_encoder clip.has_vision_encoder clip.use_gelu clip.use_silu
    """,
    "STRING": """
    clip.audio.projector_type clip.gen.audio.model_variant clip.gen.audio.projector_type clip.projector_type
    clip.vision.mm_patch_merge_type clip.vision.projector_type general.description general.name
    """,
    "[I32]": """
    clip.%s.feature_layer clip.audio.rvq.codebook_size clip.audio.wa_pattern_mode clip.vision.image_grid_pinpoints
    clip.vision.projector.spatial_offsets clip.vision.wa_layer_indexes clip.vision.wa_pattern_mode
    """,
    "[F32]": """
    clip.vision.image_mean clip.vision.image_std
    """,
}
# Architectures whose heads have one width, of keys, values and rotation.
SQUARE_HEADS = """
    apertus arcee arctic baichuan chameleon codeshell cogvlm cohere2moe dbrx deci deepseek dots1 dream exaone falcon
    granite grok grovemoe hunyuan-moe internlm2 jais2 llada llada-moe llama llama4 maincoder mellum mistral3 olmo
    olmo2 olmoe orion paddleocr plamo pockettts qwen2 qwen2moe qwen2vl qwen3 qwen3moe qwen3vl qwen3vlmoe rnd1
    smallthinker smollm3 starcoder2 xverse
    """
