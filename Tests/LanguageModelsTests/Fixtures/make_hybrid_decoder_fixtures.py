"""Writes small random decoders with gated delta nets, short convolutions or state spaces into `decoders/`, in the form of `make_expert_decoder_fixtures.py`.

    pip install torch transformers safetensors
    OMP_NUM_THREADS=1 python make_hybrid_decoder_fixtures.py [NAME...]

Only the named ones, if there are any. A norm of the first outputs of a delta net, which are tiny, is badly conditioned with a small ε.
"""
import json
import sys

import torch

import make_decoder_fixtures
from make_decoder_fixtures import END, HERE, SHAPE, VOCABULARY, load_state, main
from make_expert_decoder_fixtures import LOSS, load, save
from make_newer_decoder_fixtures import IDS, QWEN_IDS, TEXT

LINEAR = dict(head_dim=8, linear_key_head_dim=6, linear_value_head_dim=4, linear_num_key_heads=2, linear_num_value_heads=4,
              rms_norm_eps=1e-3)
ROPE = dict(rope_type="default", rope_theta=500.0, mrope_section=[1, 0, 0], mrope_interleaved=True, partial_rotary_factor=0.25)
EXPERTS = dict(num_experts=4, num_experts_per_tok=2, moe_intermediate_size=8, shared_expert_intermediate_size=12)
QWEN3_5 = dict(SHAPE, **LINEAR, model_type="qwen3_5_text", full_attention_interval=3, rope_parameters=ROPE)
MIXED = ["linear_attention", "full_attention", "linear_attention"]
MOE = dict({k: v for k, v in SHAPE.items() if k != "intermediate_size"}, **LINEAR, **EXPERTS, model_type="qwen3_5_moe_text",
           num_hidden_layers=2, full_attention_interval=2, rope_parameters=ROPE)
NEXT = dict(SHAPE, **LINEAR, **EXPERTS, model_type="qwen3_next", full_attention_interval=3, rope_theta=500.0)
VISION = dict(depth=1, hidden_size=8, intermediate_size=8, num_heads=2, out_hidden_size=16, patch_size=2,
              temporal_patch_size=1, num_position_embeddings=16)
LFM2 = dict({k: v for k, v in SHAPE.items() if k != "intermediate_size"}, model_type="lfm2", rope_theta=500.0)
LFM2_MOE = dict(SHAPE, model_type="lfm2_moe", num_hidden_layers=2, layer_types=["conv", "full_attention"], num_experts=4,
                num_experts_per_tok=2, moe_intermediate_size=8, num_dense_layers=1, rope_theta=500.0)
STATES = dict(mamba_n_heads=4, mamba_d_head=8, mamba_n_groups=2, mamba_d_state=6, mamba_chunk_size=4)
SCALED = dict(embedding_multiplier=3.0, residual_multiplier=0.4, attention_multiplier=0.3, logits_scaling=1.7)
GRANITE = dict(SHAPE, **STATES, **SCALED, model_type="granitemoehybrid", intermediate_size=8, num_local_experts=4,
               num_experts_per_tok=2, shared_intermediate_size=12, layer_types=["mamba", "attention", "mamba"],
               position_embedding_type="nope", tie_word_embeddings=True)
FALCON = dict(SHAPE, **STATES, model_type="falcon_h1", num_hidden_layers=2, mamba_d_ssm=32, mamba_rms_norm=True,
              mamba_norm_before_gate=False, rope_theta=500.0, embedding_multiplier=3.0, lm_head_multiplier=0.6, key_multiplier=0.7,
              attention_in_multiplier=0.8, attention_out_multiplier=0.9, ssm_in_multiplier=1.2, ssm_out_multiplier=1.3,
              mlp_multipliers=[0.8, 1.4], ssm_multipliers=[0.6, 1.1, 0.9, 1.2, 0.7])
NEMOTRON = dict({k: v for k, v in SHAPE.items() if k != "num_hidden_layers"}, model_type="nemotron_h", head_dim=4, mamba_num_heads=4,
                mamba_head_dim=6, n_groups=2, ssm_state_size=5, chunk_size=4, n_routed_experts=4, num_experts_per_tok=2, n_group=2,
                topk_group=1, moe_intermediate_size=8, moe_shared_expert_intermediate_size=12, routed_scaling_factor=1.5)


def wrapped(text, model_type):
    own = {k: v for k, v in text.items() if k in TEXT or k not in SHAPE}
    return dict(model_type=model_type, tie_word_embeddings=False, vision_config=dict(VISION, model_type=model_type),
                text_config=dict(own, **IDS), **QWEN_IDS, **IDS)


MODELS = {
    # name: configuration, the model whose weights it uses
    "qwen3_5_text": (dict(QWEN3_5), None),
    "qwen3_5_text-long": (dict(QWEN3_5), "qwen3_5_text"),
    "qwen3_5_text-types": (dict(
        {k: v for k, v in QWEN3_5.items() if k not in ("full_attention_interval", "rope_parameters")}, layer_types=MIXED,
        linear_num_key_heads=4, linear_conv_kernel_dim=3, attention_bias=True, tie_word_embeddings=True, rope_theta=500.0,
        partial_rotary_factor=0.5, hidden_act="gelu"), None),
    "qwen3_5": (wrapped(QWEN3_5, "qwen3_5"), None),
    "qwen3_5_moe_text": (dict(MOE), None),
    "qwen3_5_moe_text-loss": (dict(MOE, **LOSS, num_experts_per_tok=3), "qwen3_5_moe_text"),
    "qwen3_5_moe": (wrapped(MOE, "qwen3_5_moe"), None),
    "qwen3_next": (dict(NEXT), None),
    "qwen3_next-types": (dict(NEXT, layer_types=MIXED, mlp_only_layers=[1], norm_topk_prob=False), None),
    "lfm2": (dict(LFM2, block_ff_dim=31, block_multiple_of=4, block_ffn_dim_multiplier=0.9, block_auto_adjust_ff_dim=True,
                  full_attn_idxs=[1], tie_embedding=True), None),
    "lfm2-biases": (dict(LFM2, intermediate_size=20, block_auto_adjust_ff_dim=False, conv_bias=True, conv_L_cache=4,
                         layer_types=["conv", "conv", "full_attention"], tie_word_embeddings=False, num_key_value_heads=1), None),
    "lfm2_moe": (dict(LFM2_MOE), None),
    "lfm2_moe-unbiased": (dict(LFM2_MOE, use_expert_bias=False, norm_topk_prob=False, routed_scaling_factor=1.5,
                               num_dense_layers=0, num_experts_per_tok=3), None),
    "granitemoehybrid": (dict(GRANITE), None),
    "granitemoehybrid-loss": (dict(GRANITE, **LOSS, time_step_limit=[0.6, 0.8], num_experts_per_tok=3), "granitemoehybrid"),
    "granitemoehybrid-dense": (dict(
        GRANITE, num_local_experts=0, layer_types=["linear_attention", "full_attention", "linear_attention"],
        position_embedding_type="rope", rope_theta=500.0, mamba_conv_bias=False, mamba_proj_bias=True, mamba_d_head="auto",
        mamba_n_groups=1, mamba_expand=1, mamba_d_conv=3, tie_word_embeddings=False, attention_bias=True, hidden_act="gelu"),
        None),
    "falcon_h1": (dict(FALCON), None),
    "falcon_h1-norm-first": (dict(FALCON, mamba_norm_before_gate=True, time_step_limit=[0.5, 0.9]), "falcon_h1"),
    "falcon_h1-biases": (dict(
        {k: v for k, v in FALCON.items() if "multiplier" not in k}, num_hidden_layers=1, mamba_d_ssm=None, mamba_expand=1,
        mamba_d_head="auto", mamba_n_groups=1, mamba_rms_norm=False, attention_bias=True, mlp_bias=True, projectors_bias=True,
        mamba_proj_bias=True, tie_word_embeddings=True, head_dim=6), None),
    "nemotron_h": (dict(NEMOTRON, hybrid_override_pattern="M-*E"), None),
    "nemotron_h-latent": (dict(
        NEMOTRON, layers_block_type=["moe", "mamba", "attention"], moe_latent_size=8, mlp_bias=True, use_bias=True, use_conv_bias=False,
        mamba_d_conv=3, mlp_hidden_act="silu", norm_topk_prob=False, n_group=1, num_key_value_heads=1), None),
    "nemotron_h-dense": (dict(
        {k: v for k, v in NEMOTRON.items() if "moe" not in k and "exp" not in k and "group" not in k}, n_groups=1,
        layers_block_type=["linear_attention", "mlp", "full_attention", "mlp"], time_step_min=0.6), None),
    "granitemoehybrid-long": (dict(GRANITE, mamba_chunk_size=256), "granitemoehybrid"),
}
# transformers computes the padding before a prompt, too: a bias makes it the convolution's input.
ALONE = ["lfm2-biases", "granitemoehybrid-dense", "falcon_h1-biases", "nemotron_h-latent"]
# transformers forgets the bounds of the step sizes in decode steps.
UNCACHED = ["granitemoehybrid-loss", "falcon_h1-norm-first", "nemotron_h-dense"]


def long_rows(seq2seq):
    """Rows of several chunks of the scan."""
    generator = torch.Generator().manual_seed(7)
    ids = lambda n: torch.randint(2, VOCABULARY, (n,), generator=generator).tolist()
    return [(ids(n), ids(m - 1) + [END]) for n, m in [(61, 5), (128, 9), (64, 1)]]


EXPERT_KEYS = {"num_experts", "num_local_experts", "n_routed_experts"}


def uncached(call):
    """Without a cache, transformers computes all tokens as in training."""
    def apply(model, *others):
        call(model, *others)
        model.generation_config.use_cache = False
    return apply


if __name__ == "__main__":
    chosen = {name: model for name, model in MODELS.items() if name in sys.argv[1:] or not sys.argv[1:]}
    rows = make_decoder_fixtures.rows
    for name, model in chosen.items():
        make_decoder_fixtures.rows = long_rows if name.endswith("-long") else rows
        load_weights = load if EXPERT_KEYS & set(model[0]) else load_state
        change = uncached if name in UNCACHED else lambda call: call
        main({name: model}, change(load_weights), change(save))
        if name in ALONE:
            path = HERE / name / "expected.json"
            expected = json.loads(path.read_text())
            del expected["together"]
            path.write_text(json.dumps(expected, sort_keys=True) + "\n")
