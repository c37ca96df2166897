"""Writes small random mixtures of experts into `decoders/`, in the form of `make_decoder_fixtures.py`, with weights named
and arranged as transformers saves them and published files have them.

    pip install torch transformers safetensors
    OMP_NUM_THREADS=1 python make_expert_decoder_fixtures.py [NAME...]

Only the named ones, if there are any.
"""
import json
import pathlib
import shutil
import sys
import tempfile

import torch
from transformers import AutoModelForCausalLM

from make_decoder_fixtures import HERE, SHAPE, main

LOSS = dict(output_router_logits=True, router_aux_loss_coef=0.05)
MIXTRAL = dict(SHAPE, model_type="mixtral", rms_norm_eps=1e-5, num_local_experts=4, num_experts_per_tok=2, num_hidden_layers=2,
               intermediate_size=12, sliding_window=None)
QWEN2 = dict(SHAPE, model_type="qwen2_moe", num_experts=5, num_experts_per_tok=3, moe_intermediate_size=8,
             shared_expert_intermediate_size=12, mlp_only_layers=[], decoder_sparse_step=2)
QWEN3 = dict(SHAPE, model_type="qwen3_moe", head_dim=6, num_experts=5, num_experts_per_tok=2, moe_intermediate_size=8,
             mlp_only_layers=[1], norm_topk_prob=True)
OLMOE = dict(SHAPE, model_type="olmoe", num_experts=4, num_experts_per_tok=2, intermediate_size=8, num_hidden_layers=2)
GRANITE = dict(SHAPE, model_type="granitemoe", num_local_experts=4, num_experts_per_tok=2, intermediate_size=8,
               num_hidden_layers=2, embedding_multiplier=3.0, residual_multiplier=0.4, attention_multiplier=0.3,
               logits_scaling=1.7)
GLM = dict(SHAPE, model_type="glm4_moe", head_dim=8, n_routed_experts=4, num_experts_per_tok=2, moe_intermediate_size=8,
           num_hidden_layers=2, first_k_dense_replace=1, n_shared_experts=2, rope_theta=500.0)
LATENT = dict(SHAPE, num_key_value_heads=4, n_routed_experts=6, num_experts_per_tok=2, moe_intermediate_size=8, kv_lora_rank=8,
              q_lora_rank=12, qk_nope_head_dim=4, qk_rope_head_dim=4, v_head_dim=6, first_k_dense_replace=1, num_hidden_layers=2)
DEEPSEEK2 = dict(LATENT, model_type="deepseek_v2", n_shared_experts=2, routed_scaling_factor=1.5)
DEEPSEEK3 = dict(LATENT, model_type="deepseek_v3", n_shared_experts=1, n_group=3, topk_group=1, routed_scaling_factor=1.5)
SCALED = dict(type="yarn", factor=4.0, original_max_position_embeddings=32, mscale=1.0, mscale_all_dim=0.7, beta_fast=32,
              beta_slow=1)
LLAMA4 = dict(SHAPE, model_type="llama4_text", head_dim=4, num_local_experts=3, num_experts_per_tok=1, intermediate_size=8,
              intermediate_size_mlp=12, num_hidden_layers=2, interleave_moe_layer_step=2, no_rope_layers=[1, 0],
              attention_chunk_size=64, floor_scale=64)
GPT_OSS = dict(SHAPE, model_type="gpt_oss", head_dim=4, num_local_experts=4, num_experts_per_tok=2, intermediate_size=8,
               num_hidden_layers=2, sliding_window=6, swiglu_limit=0.7, rope_scaling=dict(
                   rope_type="yarn", factor=4.0, original_max_position_embeddings=32, beta_fast=32.0, beta_slow=1.0,
                   truncate=False))
MODELS = {
    # name: configuration, the model whose weights it uses
    "mixtral": (dict(MIXTRAL), None),
    "mixtral-loss": (dict(MIXTRAL, **LOSS, sliding_window=5, rope_theta=500.0), "mixtral"),
    "qwen2_moe": (dict(QWEN2), None),
    "qwen2_moe-windows": (dict(QWEN2, **LOSS, norm_topk_prob=True, use_sliding_window=True, sliding_window=4,
                               max_window_layers=2), "qwen2_moe"),
    "qwen3_moe": (dict(QWEN3), None),
    "qwen3_moe-windows": (dict(QWEN3, **LOSS, norm_topk_prob=False, use_sliding_window=True, sliding_window=5), "qwen3_moe"),
    "olmoe": (dict(OLMOE), None),
    "olmoe-clipped": (dict(OLMOE, **LOSS, norm_topk_prob=True, clip_qkv=0.6), "olmoe"),
    "granitemoe": (dict(GRANITE, tie_word_embeddings=True), None),
    "granitemoe-loss": (dict(GRANITE, **LOSS, tie_word_embeddings=True, attention_multiplier=0.5), "granitemoe"),
    "glm4_moe": (dict(GLM), None),
    "glm4_moe-norms": (dict(GLM, use_qk_norm=True, attention_bias=True, n_group=2, topk_group=1, norm_topk_prob=False,
                            routed_scaling_factor=1.7), None),
    "deepseek_v2": (dict(DEEPSEEK2), None),
    "deepseek_v2-groups": (dict(DEEPSEEK2, topk_method="group_limited_greedy", n_group=3, topk_group=2, rope_scaling=SCALED),
                           "deepseek_v2"),
    "deepseek_v3": (dict(DEEPSEEK3, rope_scaling=SCALED), None),
    "deepseek_v3-direct": (dict(DEEPSEEK3, q_lora_rank=None, v_head_dim=10, topk_group=2, norm_topk_prob=False,
                                attention_bias=True, rope_interleave=False), None),
    "llama4_text": (dict(LLAMA4), None),
    "llama4_text-growth": (dict(LLAMA4, num_experts_per_tok=2, floor_scale=4, attn_scale=0.3, use_qk_norm=False), "llama4_text"),
    "gpt_oss": (dict(GPT_OSS), None),
    "gpt_oss-loss": (dict(GPT_OSS, **LOSS, layer_types=["full_attention", "sliding_attention"], swiglu_alpha=1.2), "gpt_oss"),
}
# transformers counts the padding before a prompt as positions there.
ALONE = ["llama4_text-growth"]


def save(model, folder, name):
    prepare(model)
    with tempfile.TemporaryDirectory() as temporary:
        model.save_pretrained(temporary)
        shutil.copy(pathlib.Path(temporary) / "model.safetensors", folder)


def load(model, folder):
    other = AutoModelForCausalLM.from_pretrained(folder)
    model.load_state_dict(other.state_dict())
    generate = model.generate

    def without_loss(*arguments, **options):
        """transformers can't compute the loss in a decode step, where the mask is longer than the input."""
        model.config.output_router_logits, wanted = False, model.config.output_router_logits
        try:
            return generate(*arguments, **options)
        finally:
            model.config.output_router_logits = wanted

    model.generate = without_loss


def prepare(model):
    """Buffers that training in other programs sets."""
    for name, buffer in model.named_buffers():
        if name.endswith(("e_score_correction_bias", "expert_bias")):
            buffer.copy_(torch.randn_like(buffer) * 0.3)


if __name__ == "__main__":
    chosen = {name: model for name, model in MODELS.items() if name in sys.argv[1:] or not sys.argv[1:]}
    main(chosen, load, save)
    for name in set(ALONE) & set(chosen):
        path = HERE / name / "expected.json"
        expected = json.loads(path.read_text())
        del expected["together"]
        path.write_text(json.dumps(expected, sort_keys=True) + "\n")
