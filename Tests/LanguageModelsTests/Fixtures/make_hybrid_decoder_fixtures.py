"""Writes small random decoders with gated delta nets into `decoders/`, in the form of `make_expert_decoder_fixtures.py`.

    pip install torch transformers safetensors
    OMP_NUM_THREADS=1 python make_hybrid_decoder_fixtures.py [NAME...]

Only the named ones, if there are any. A norm of the first outputs of a delta net, which are tiny, is badly conditioned with a small ε.
"""
import sys

import torch

import make_decoder_fixtures
from make_decoder_fixtures import END, SHAPE, VOCABULARY, load_state, main
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
}


def long_rows(seq2seq):
    """Rows of several chunks of the scan."""
    generator = torch.Generator().manual_seed(7)
    ids = lambda n: torch.randint(2, VOCABULARY, (n,), generator=generator).tolist()
    return [(ids(n), ids(m - 1) + [END]) for n, m in [(61, 5), (128, 9), (64, 1)]]


if __name__ == "__main__":
    chosen = {name: model for name, model in MODELS.items() if name in sys.argv[1:] or not sys.argv[1:]}
    rows = make_decoder_fixtures.rows
    for name, model in chosen.items():
        make_decoder_fixtures.rows = long_rows if name.endswith("-long") else rows
        main({name: model}, load if "num_experts" in model[0] else load_state, save)
