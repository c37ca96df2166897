"""Writes small random decoders of the families with shared keys and per-layer embeddings into `decoders/`, in the form of
`make_decoder_fixtures.py`.

    pip install torch transformers safetensors
    OMP_NUM_THREADS=1 python make_shared_key_decoder_fixtures.py [NAME...]

Only the named ones, if there are any.
"""
import sys

import torch

import make_decoder_fixtures
from make_decoder_fixtures import END, SHAPE, main

S, F = "sliding_attention", "full_attention"
# Published files have these keys, which transformers saves as `per_layer_config`.
GEMMA4 = dict(SHAPE, model_type="gemma4_text", num_hidden_layers=6, head_dim=4, global_head_dim=8, sliding_window=5,
              layer_types=[S, F, S, S, F, F], num_kv_shared_layers=3, vocab_size_per_layer_input=96,
              hidden_size_per_layer_input=4, use_double_wide_mlp=True, rope_parameters={
                  F: dict(rope_type="proportional", partial_rotary_factor=0.25, rope_theta=1e3),
                  S: dict(rope_type="default", rope_theta=100.0)})
EXPERTS = dict(GEMMA4, num_hidden_layers=2, layer_types=[S, F], num_kv_shared_layers=0, hidden_size_per_layer_input=0,
               attention_k_eq_v=True, num_global_key_value_heads=1, enable_moe_block=True, num_experts=4, top_k_experts=2,
               moe_intermediate_size=8, use_double_wide_mlp=False, use_bidirectional_attention="vision")
IDS = dict(bos_token_id=0, eos_token_id=END, pad_token_id=0)
VISION4 = dict(model_type="gemma4_vision", hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2,
               num_key_value_heads=2, head_dim=4, patch_size=2, position_embedding_size=4)
TOWERS = dict(vision_config=VISION4, image_token_id=100, video_token_id=101, audio_token_id=102, boi_token_id=103,
              eoi_token_id=104, boa_token_id=105, eoa_token_index=106)
GEMMA3N = dict(SHAPE, model_type="gemma3n_text", num_hidden_layers=5, head_dim=6, sliding_window=5, vocab_size_per_layer_input=80,
               layer_types=[S, F, S, S, F], num_kv_shared_layers=3, hidden_size_per_layer_input=4, laurel_rank=3,
               altup_num_inputs=3, intermediate_size=[20, 24, 20, 20, 20],
               activation_sparsity_pattern=[0.7, 0.0, 0.4, 0.0, 0.0], rope_theta=1e3, rope_local_base_freq=100.0)
MODELS = {
    # name: configuration, the model whose weights it uses
    "gemma4": (dict(GEMMA4), None),
    "gemma4-capped": (dict(GEMMA4, final_logit_softcapping=3.0, layer_types=[S, F, S, S, F, S], per_layer_config={
        "1": {"head_dim": 8}, "4": {"head_dim": 8}, "5": {"head_dim": 8}}, rope_parameters={
            F: dict(rope_type="proportional", factor=2.0, rope_theta=500.0),
            S: dict(rope_type="linear", factor=3.0, rope_theta=300.0)}), "gemma4"),
    "gemma4-experts": (dict(EXPERTS), None),
    "gemma4_vision": (dict(TOWERS, **IDS, model_type="gemma4", text_config=dict(
        GEMMA4, num_hidden_layers=3, layer_types=[S, F, F], num_kv_shared_layers=1)), None),
}
MODELS["gemma3n"] = (dict(GEMMA3N), None)
MODELS["gemma3n-unscaled"] = (dict(GEMMA3N, altup_correct_scale=False, altup_active_idx=2, activation_sparsity_pattern=[0.0] * 5),
                              "gemma3n")
MODELS["gemma3n-unshared"] = (dict(
    GEMMA3N, num_kv_shared_layers=0, num_hidden_layers=2, layer_types=[S, F], intermediate_size=20,
    activation_sparsity_pattern=[0.0, 0.9], altup_active_idx=1, final_logit_softcapping=2.0,
    attention_bias=True, tie_word_embeddings=False, rope_parameters={
        F: dict(rope_type="linear", factor=3.0, rope_theta=1e3), S: dict(rope_type="default", rope_theta=50.0)}), None)
del MODELS["gemma3n-unshared"][0]["rope_theta"], MODELS["gemma3n-unshared"][0]["rope_local_base_freq"]
del MODELS["gemma4-capped"][0]["global_head_dim"]


def build(name, settings):
    model = make_decoder_fixtures.random_model(name, settings)
    torch.manual_seed(7)
    with torch.no_grad():
        # These norms scale by w, unlike those of Gemma 1 to 3. Those of queries and keys are small, as nothing else scales scores.
        for key, parameter in model.named_parameters():
            if "norm" in key and "q_norm" not in key and "k_norm" not in key:
                parameter.add_(0.6)
        for key, buffer in model.named_buffers():
            if key.endswith("layer_scalar"):
                buffer.copy_(torch.rand_like(buffer) + 0.5)
    return model


if __name__ == "__main__":
    make_decoder_fixtures.random_model, make_decoder_fixtures.build = make_decoder_fixtures.build, build
    main({name: model for name, model in MODELS.items() if name in sys.argv[1:] or not sys.argv[1:]})
