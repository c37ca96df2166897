"""Writes small random decoders of the newer families into `decoders/`, in the form of `make_decoder_fixtures.py`.

    pip install torch transformers safetensors
    OMP_NUM_THREADS=1 python make_newer_decoder_fixtures.py [NAME...]

Only the named ones, if there are any.
"""
import sys

from make_decoder_fixtures import END, SHAPE, main

ARCEE = dict(SHAPE, model_type="arcee", rms_norm_eps=1e-5, rope_theta=500.0)
SEED = dict(SHAPE, model_type="seed_oss", head_dim=6, attention_dropout=0.0, residual_dropout=0.0)
GRANITE = dict(SHAPE, model_type="granite", embedding_multiplier=3.0, residual_multiplier=0.4, attention_multiplier=0.3,
               logits_scaling=1.7)
SMOLLM3 = dict(SHAPE, model_type="smollm3", no_rope_layer_interval=2)
OLMO2 = dict(SHAPE, model_type="olmo2", rope_theta=500.0)
OLMO3 = dict(SHAPE, model_type="olmo3", sliding_window=5,
             layer_types=["sliding_attention", "full_attention", "sliding_attention"])
YARN = dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=32)
ERNIE = dict(SHAPE, model_type="ernie4_5", head_dim=6)
HUNYUAN = dict(SHAPE, model_type="hunyuan_v1_dense", head_dim=6)
GLM4 = dict(SHAPE, model_type="glm4", head_dim=8)
COHERE2 = dict(SHAPE, model_type="cohere2", logit_scale=0.4, sliding_window=5)
MINISTRAL = dict(SHAPE, model_type="ministral3", head_dim=6)
GROWING = dict(type="yarn", rope_theta=500.0, factor=4.0, original_max_position_embeddings=8, mscale=1.0,
               mscale_all_dim=1.0, beta_fast=32.0, beta_slow=1.0, llama_4_scaling_beta=0.4)
# Text parts of multimodal models; the vision parts are as small as they can be.
TEXT = {k: v for k, v in SHAPE.items() if k not in ("bos_token_id", "eos_token_id", "pad_token_id")}
IDS = dict(bos_token_id=0, eos_token_id=END, pad_token_id=0)
SIGLIP = dict(model_type="siglip_vision_model", hidden_size=8, intermediate_size=8, num_hidden_layers=1,
              num_attention_heads=2, image_size=16, patch_size=8)
GEMMA3 = dict(model_type="gemma3", vision_config=SIGLIP, mm_tokens_per_image=1, image_token_index=90, boi_token_index=91,
              eoi_token_index=92, text_config=dict(
                  TEXT, **IDS, model_type="gemma3_text", head_dim=8, query_pre_attn_scalar=12, sliding_window=5,
                  sliding_window_pattern=3, rope_scaling=dict(rope_type="linear", factor=8.0)), **IDS)
PIXTRAL = dict(model_type="pixtral", hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2,
               head_dim=4, image_size=16, patch_size=8)
MISTRAL3 = dict(model_type="mistral3", vision_config=PIXTRAL, image_token_index=90, tie_word_embeddings=False,
                text_config=dict(TEXT, **IDS, model_type="mistral", head_dim=6, sliding_window=5, rope_theta=500.0), **IDS)
QWEN_IDS = dict(image_token_id=90, video_token_id=91, vision_start_token_id=92, vision_end_token_id=93)
QWEN_TEXT = dict(TEXT, rms_norm_eps=1e-6, use_sliding_window=False, rope_theta=500.0,
                 rope_scaling=dict(type="mrope", mrope_section=[1, 1, 0]))
QWEN2_5_VISION = dict(depth=1, hidden_size=8, intermediate_size=8, num_heads=2, out_hidden_size=16, patch_size=2,
                      temporal_patch_size=1, window_size=8, fullatt_block_indexes=[0])
QWEN3_VISION = dict(model_type="qwen3_vl", depth=1, hidden_size=8, intermediate_size=8, num_heads=2, out_hidden_size=16,
                    patch_size=2, temporal_patch_size=1, num_position_embeddings=16, deepstack_visual_indexes=[0])
MODELS = {
    # name: configuration, the model whose weights it uses
    "arcee": (dict(ARCEE), None),
    "arcee-silu": (dict(ARCEE, hidden_act="silu"), "arcee"),
    "arcee-biases": (dict(ARCEE, num_hidden_layers=1, attention_bias=True, mlp_bias=True, tie_word_embeddings=True), None),
    "seed_oss": (dict(SEED), None),
    "seed_oss-biases": (dict(SEED, num_hidden_layers=1, attention_out_bias=True, mlp_bias=True), None),
    "granite": (dict(GRANITE, tie_word_embeddings=True), None),
    "granite-biases": (dict(GRANITE, num_hidden_layers=1, attention_bias=True, mlp_bias=True), None),
    "smollm3": (dict(SMOLLM3), None),
    "smollm3-windows": (dict(SMOLLM3, no_rope_layers=[1, 0, 0], use_sliding_window=True, sliding_window=4,
                             rope_theta=500.0), "smollm3"),
    "smollm3-default": (dict(SHAPE, model_type="smollm3"), "smollm3"),
    "olmo2": (dict(OLMO2), None),
    "olmo2-biases": (dict(OLMO2, num_hidden_layers=1, attention_bias=True, tie_word_embeddings=True), None),
    "olmo3": (dict(OLMO3, rope_theta=300.0, rope_scaling=YARN), None),
    "olmo3-new-keys": (dict(OLMO3, rope_parameters=dict(
        full_attention=dict(rope_type="linear", factor=3.0, rope_theta=400.0),
        sliding_attention=dict(rope_type="default", rope_theta=200.0))), "olmo3"),
    "ernie4_5": (dict(ERNIE, rope_theta=500.0), None),
    "ernie4_5-biases": (dict(ERNIE, num_hidden_layers=1, use_bias=True, tie_word_embeddings=False), None),
    "hunyuan_v1_dense": (dict(HUNYUAN, rope_parameters=dict(
        rope_type="dynamic", alpha=50.0, factor=1.0, rope_theta=100.0)), None),
    "hunyuan_v1_dense-biases": (dict(HUNYUAN, num_hidden_layers=1, attention_bias=True, tie_word_embeddings=True), None),
    "glm4": (dict(GLM4, rope_theta=500.0), None),
    "glm4-whole": (dict(GLM4, rope_parameters=dict(rope_type="default", rope_theta=500.0, partial_rotary_factor=1.0)),
                   "glm4"),
    "cohere2": (dict(COHERE2, sliding_window_pattern=3, rope_theta=500.0), None),
    "cohere2-types": (dict(COHERE2, layer_types=["full_attention", "sliding_attention"], num_hidden_layers=2,
                           attention_bias=True, tie_word_embeddings=False), None),
    "ministral3": (dict(MINISTRAL, rope_parameters=GROWING), None),
    "ministral3-windows": (dict(MINISTRAL, sliding_window=5, rope_parameters=dict(GROWING, rope_type="default")),
                           "ministral3"),
    "gemma3_vision": (GEMMA3, None),
    "mistral3": (MISTRAL3, None),
    "mistral3-ministral": (dict(MISTRAL3, text_config=dict(
        MINISTRAL, num_hidden_layers=1, rope_parameters=GROWING), tie_word_embeddings=True), None),
    # The keys of the text part beside the others, as in published files.
    "qwen2_5_vl": (dict(QWEN_TEXT, **IDS, **QWEN_IDS, model_type="qwen2_5_vl", vision_config=QWEN2_5_VISION), None),
    "qwen3_vl": (dict(QWEN_IDS, **IDS, model_type="qwen3_vl", vision_config=QWEN3_VISION, tie_word_embeddings=True,
                      text_config=dict(QWEN_TEXT, model_type="qwen3_vl_text", head_dim=6, attention_bias=True,
                                       eos_token_id=END, rope_scaling=dict(
                                           rope_type="default", mrope_interleaved=True, mrope_section=[1, 1, 1]))),
                 None),
}

if __name__ == "__main__":
    main({name: model for name, model in MODELS.items() if name in sys.argv[1:] or not sys.argv[1:]})
