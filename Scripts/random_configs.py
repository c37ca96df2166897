#!/usr/bin/env python3
"""Compare random models of every supported family with transformers.

Usage: Scripts/random_configs.py [--draws 200] [--seed 1] [--log FILE] [FAMILY…]

needs torch, transformers 5.24, peft 0.21 and safetensors, and the tests, built (`swift build --build-tests`). For each family it draws
configurations from what the configuration class of transformers accepts, makes a small random model of each, and lets the
tests compute them (`RandomConfigurationTests`, many models per process). Each model is either equal (logits and loss to 1e-4
relative, greedy ids, and for a quarter of them logits and losses of a LoRA) or rejected by name in one line. Anything else is
written to the log, a JSON object per line with the configuration, and kept in the folder that the log names.

Draws that transformers itself can't build or run, and models whose logits rounding alone would change, are drawn again.
Exit status 1 if something differs.
"""

import argparse
import collections
import contextlib
import copy
import json
import os
import pathlib
import random
import re
import shutil
import subprocess
import sys
import tempfile
import warnings

warnings.filterwarnings("ignore")
os.environ.update(HF_HUB_OFFLINE="1", TQDM_DISABLE="1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import peft
import torch
import transformers
from safetensors.torch import save_file
from transformers import AutoConfig
from transformers.models.auto import configuration_auto

transformers.utils.logging.set_verbosity_error()
torch.set_num_threads(1)
ROOT = pathlib.Path(__file__).resolve().parent.parent
END, NEW_TOKENS, STEPS, RATE, LABELS = 1, 8, 5, 2e-3, 3
PLAIN_ACTIVATIONS = ["silu", "gelu", "gelu_new", "gelu_pytorch_tanh", "relu"]
# Rejected by name where they are unsupported.
OTHER_ACTIVATIONS = ["relu2", "gelu_fast", "quick_gelu", "tanh", "mish", "swish", "gelu_python", "leaky_relu", "linear",
                     "sigmoid", "relu6", "gelu_10", "laplace", "gelu_accurate"]  # fmt: skip
# Keys that change no value that is compared, or that belong to other heads and files.
UNDRAWN = re.compile(
    r"initializer|init_std|use_cache|dropout|pdrop|layerdrop|jitter|pretraining_tp|is_decoder|add_cross|summary|_token_id|"
    r"token_index|slow_but_exact|deterministic_flash|sparse_pred|legacy|num_nextn|num_mtp|transformers_version|dense_act_fn|"
    r"is_gated_act|scale_decoder_outputs|qk_head_dim|dtype|_sliding_window_pattern|moe_layers|decoder_bias|use_bidirectional|"
    r"vision|image|video|mm_tokens|projector|spatial_merge|use_sliding_window$|feed_forward_length|layer_norm_elementwise_affine")


# With "eager", transformers adds Falcon's linear biases twice.
ATTENTION = dict(falcon="sdpa")


def families():
    """The model types that the sources declare, in the order of their files."""
    names = []
    for file in sorted((ROOT / "Sources/LanguageModels/Models").glob("*.swift")):
        names += re.findall(r'(?:ModelFamily\(\s*name:|= bart\()\s*"([\w-]+)"', file.read_text())
    # Gemma 3n's and 4's text parts are drawn alone: transformers builds the towers of the first only where timm is installed.
    return [name for name in dict.fromkeys(names) if name not in ("gemma3n", "gemma4")]


class Draw:
    """One random configuration of a family, as the fields of its `config.json`."""

    def __init__(self, family, source):
        self.family, self.source = family, source
        self.defaults = AutoConfig.for_model(family).to_dict()
        common = transformers.PreTrainedConfig().to_dict()
        self.keys = [k for k in self.defaults if k not in common or k == "tie_word_embeddings"]
        self.fields = {}
        self.draw()

    def chance(self, p):
        return self.source.random() < p

    def one(self, *values):
        return self.source.choice(values)

    def has(self, key):
        return key in self.defaults

    def set(self, **fields):
        for key, value in fields.items():
            if self.has(key):
                self.fields[key] = value

    def activation(self):
        return self.one(*PLAIN_ACTIVATIONS) if self.chance(0.85) else self.one(*OTHER_ACTIVATIONS)

    def draw(self):
        heads = self.one(1, 2, 2, 3, 4, 4, 6)
        size = self.one(2, 4, 4, 6, 8, 8, 10, 16)
        if "partial_rotary_factor" in str(self.defaults):
            size = self.one(8, 8, 16)
        groups = self.one(*[n for n in range(1, heads + 1) if heads % n == 0])
        self.layers, self.heads = self.one(1, 2, 2, 3, 4), heads
        # Families whose head size follows from the width have no such key, or None.
        free = self.has("head_dim") and (self.defaults["head_dim"] is not None or self.chance(0.5))
        width = self.one(8, 12, 16, 18, 24, 32) if free else heads * size
        self.width, self.size = width, size
        inner = self.one(8, 12, 20, 32)
        self.set(vocab_size=self.one(48, 61, 96), hidden_size=width, d_model=width, dim=width, n_embd=width, intermediate_size=inner,
                 num_hidden_layers=self.layers, num_layers=self.layers, n_layer=self.layers, n_layers=self.layers,
                 encoder_layers=self.layers, num_attention_heads=heads, num_heads=heads, n_head=heads, n_heads=heads,
                 encoder_attention_heads=heads, hidden_dim=inner, ffn_dim=inner, d_ff=inner, encoder_ffn_dim=inner,
                 decoder_ffn_dim=self.one(8, 12, 20), decoder_layers=self.one(1, 2, 3), num_key_value_heads=groups,
                 d_kv=self.one(size, 5), intermediate_size_mlp=self.one(12, 20), moe_intermediate_size=self.one(6, 12),
                 shared_expert_intermediate_size=self.one(8, 12), shared_intermediate_size=self.one(8, 12))  # fmt: skip
        if self.has("decoder_attention_heads"):
            self.set(decoder_attention_heads=self.one(*[n for n in range(1, width + 1) if width % n == 0][:4]))
        if free:
            self.set(head_dim=size)
        length = self.one(64, 96, 128)
        self.set(max_position_embeddings=length, n_positions=length)
        self.length = length
        if self.has("num_decoder_layers") and self.chance(0.5):
            self.set(num_decoder_layers=self.one(1, 2, 3))
        for key in self.keys:
            if key in self.fields or UNDRAWN.search(key):
                if re.search("dropout|pdrop|layerdrop|jitter", key):
                    self.fields[key] = 0.0
                continue
            value = self.value(key)
            if value is not ...:
                self.fields[key] = value
        self.ids()
        hook = HOOKS.get(self.family)
        if hook:
            hook(self)

    def ids(self):
        self.fields.update(bos_token_id=0, eos_token_id=END, pad_token_id=0)
        if self.has("decoder_start_token_id"):
            self.set(decoder_start_token_id=self.one(0, 2))
        if self.has("forced_eos_token_id"):
            self.set(forced_eos_token_id=self.one(None, END))

    def value(self, key):
        """A value for a key; `...` keeps the default of the class."""
        default, one, chance = self.defaults[key], self.one, self.chance
        if key == "rope_parameters":
            return self.rope(default)
        if re.search(r"hidden_act$|hidden_activation$|^activation|activation_function|pooler_hidden_act|classifier_activation", key):
            # The default is the likeliest in published files.
            return ... if chance(0.3) else self.activation()
        if key == "feed_forward_proj":
            return one("relu", "gated-gelu", "gated-silu", "gelu", "gated-relu", "silu", "gated-gelu_new")
        if isinstance(default, bool):
            return ... if chance(0.3) else chance(0.5)
        if re.search(r"(norm|rms_norm|layer_norm)_eps(ilon)?$|^norm_eps", key):
            return ... if chance(0.5) else one(1e-6, 1e-5, 1e-3, 0.02)
        if key in ("n_inner", "ffn_hidden_size"):
            return one(12, 20, 24) if key != "n_inner" or chance(0.7) else None
        if key == "sliding_window":
            # The cache of transformers keeps all keys of a window of 1.
            return one(2, 3, 5, 8, 40, None) if default is None or chance(0.9) else ...
        if key == "max_window_layers":
            return one(*range(self.layers + 1))
        if key == "layer_types":
            if chance(0.4):
                return ...
            kinds = sorted(set(default or []))
            if len(kinds) < 2:
                kinds = ["full_attention", "sliding_attention"]
            return [one(*kinds) for _ in range(self.layers)]
        if key in ("num_experts", "num_local_experts", "n_routed_experts"):
            return one(2, 4, 6)
        if key == "num_experts_per_tok":
            return one(1, 2)
        if key == "routed_scaling_factor":
            return one(1.0, 2.5, 0.7)
        if key == "n_shared_experts":
            return one(1, 2)
        if key == "first_k_dense_replace":
            return one(*range(self.layers + 1))
        if key in ("decoder_sparse_step", "interleave_moe_layer_step", "no_rope_layer_interval"):
            return one(1, 2, 3)
        if key == "mlp_only_layers":
            return [i for i in range(self.layers) if chance(0.3)]
        if key == "router_aux_loss_coef":
            return one(0.001, 0.5)
        if key in ("embedding_multiplier", "residual_multiplier", "attention_multiplier", "logits_scaling", "logit_scale", "attn_scale"):
            return one(..., 0.3, 1.7, 1.0, 0.5)
        if key == "query_pre_attn_scalar":
            return one(4, 12, 256)
        if key.endswith("logit_softcapping"):
            return ... if default is None and key.startswith("attn") and chance(0.9) else one(None, 2.0, 30.0)
        if key == "clip_qkv":
            return one(None, 0.5, 2.0)
        if key in ("relative_attention_num_buckets",):
            return one(4, 8, 32)
        if key == "relative_attention_max_distance":
            return one(10, 20, 128)
        if key == "type_vocab_size":
            return one(1, 2, 3)
        if key == "embedding_size":
            return one(self.width, 6, 10)
        if key in ("num_hidden_groups", "inner_group_num"):
            return one(1, 2)
        if key == "local_attention":
            return one(2, 3, 6, 8, 20)
        if key == "classifier_pooling":
            return one("cls", "mean")
        if key in ("floor_scale", "attention_chunk_size"):
            # Longer sequences than a chunk are rejected.
            return one(4, 8, 16, 100) if key == "floor_scale" else one(40, 100)
        if key == "no_rope_layers":
            return [one(0, 1) for _ in range(self.layers)] if chance(0.5) else ...
        if key == "swiglu_limit":
            return one(7.0, 0.5)
        if key == "swiglu_alpha":
            return one(1.702, 1.0)
        if key == "rotary_dim":
            return one(2, self.size, max(2, self.size // 4 * 2), None)
        if key == "num_kv_heads":
            return one(*[n for n in range(1, self.heads + 1) if self.heads % n == 0])
        if key == "num_ln_in_parallel_attn":
            return one(None, 1, 2)
        if key == "original_max_position_embeddings":
            return one(16, self.length)
        if key == "word_embed_proj_dim":
            return one(self.width, 8)
        if key in ("kv_lora_rank", "q_lora_rank"):
            return one(4, 6, 8, None) if key[0] == "q" else one(4, 6, 8)
        if key in ("qk_nope_head_dim", "v_head_dim"):
            return one(4, 6, 8)
        if key == "qk_rope_head_dim":
            return one(2, 4, 8)
        if key in ("n_group", "topk_group"):
            return one(1, 2) if key == "n_group" else 1
        if key == "topk_method":
            return one("greedy", "group_limited_greedy")
        if key == "decoder_vocab_size":
            return ...
        if key in ("eos_token_id", "classifier_dropout", "text_config", "num_decoder_layers"):
            return ...
        UNKNOWN[self.family].add(key)
        return ...

    def rope(self, default):
        if default and any(isinstance(v, dict) for v in default.values()):
            return {k: self.rope(v) if isinstance(v, dict) else v for k, v in default.items()}
        one = self.one
        kind = one("default", "default", "default", "linear", "dynamic", "yarn", "longrope", "llama3")
        fields = dict(rope_type=kind, rope_theta=one(10000.0, 500.0, 100.0))
        before = one(16, 32)
        half = max(1, self.size // 2)
        if kind in ("linear", "dynamic", "yarn", "llama3", "longrope"):
            fields["factor"] = one(1.0, 2.0, 3.0, 8.0)
        if kind in ("yarn", "llama3", "longrope"):
            fields["original_max_position_embeddings"] = before
        if kind == "llama3":
            fields.update(low_freq_factor=one(1.0, 2.0), high_freq_factor=one(4.0, 8.0))
        if kind == "yarn":
            if self.chance(0.3):
                fields.update(beta_fast=one(4, 32, 16.0), beta_slow=one(1, 0.5))
            if self.chance(0.3):
                fields.update(mscale=one(0.7, 1.0), mscale_all_dim=one(0.0, 1.0, 1.2))
            if self.chance(0.2):
                fields["attention_factor"] = one(0.8, 1.3)
            if self.chance(0.2):
                fields["truncate"] = one(True, False)
        if kind == "longrope":
            if self.chance(0.5):
                del fields["factor"]
            partial = (default or {}).get("partial_rotary_factor", 1.0)
            half = max(1, int(self.size * partial) // 2)
            fields.update(short_factor=[round(1 + 0.2 * i, 2) for i in range(half)], long_factor=[round(1.3 + i, 2) for i in range(half)])
            if self.chance(0.2):
                fields["attention_factor"] = one(0.8, 1.3)
        if (default or {}).get("partial_rotary_factor") or self.chance(0.1):
            if kind != "longrope" and self.chance(0.7):
                fields["partial_rotary_factor"] = one(0.25, 0.5, 0.75, 1.0)
            elif (default or {}).get("partial_rotary_factor"):
                fields["partial_rotary_factor"] = default["partial_rotary_factor"]
        return fields


UNKNOWN = collections.defaultdict(set)


def sliding(d):
    if d.has("use_sliding_window"):
        d.set(use_sliding_window=d.chance(0.6))


def same_encoder_decoder(d):
    d.fields["is_encoder_decoder"] = True


def t5(d):
    same_encoder_decoder(d)
    d.fields["decoder_start_token_id"] = 0
    if d.chance(0.5):
        d.fields["num_decoder_layers"] = d.one(1, 2, 3)


def marian(d):
    same_encoder_decoder(d)
    d.set(decoder_start_token_id=0, share_encoder_decoder_embeddings=d.chance(0.9))
    if d.fields.get("share_encoder_decoder_embeddings", True) is False and d.chance(0.7):
        d.set(decoder_vocab_size=d.one(48, 70))
    else:
        d.set(decoder_vocab_size=d.fields["vocab_size"])


def deberta(d):
    d.set(hidden_size=d.heads * d.size, relative_attention=d.chance(0.8), pooler_hidden_size=d.heads * d.size)
    d.fields.update(max_relative_positions=d.one(-1, 9, 30), pos_att_type=d.one(["c2p", "p2c"], "p2c|c2p", ["c2p"], ["p2c"], [], None))
    if d.chance(0.5):
        d.fields["position_buckets"] = d.one(4, 6, -1)
    for key, values in dict(share_att_key=[True, False], norm_rel_ebd=["none", "layer_norm"], conv_kernel_size=[0, 3],
                            conv_act=["gelu", "tanh"]).items():  # fmt: skip
        if d.chance(0.5):
            d.fields[key] = d.one(*values)
    d.set(type_vocab_size=d.one(0, 2))


def experts(d):
    routed = next(k for k in ("n_routed_experts", "num_experts", "num_local_experts") if k in d.fields)
    count = d.fields[routed]
    if d.has("n_group"):
        groups = d.one(*[n for n in (1, 2, 3) if count % n == 0 and count // n >= 2])
        kept = d.one(*range(1, groups + 1))
        d.set(n_group=groups, topk_group=kept, num_experts_per_tok=d.one(*range(1, count // groups * kept + 1)))
    else:
        d.set(num_experts_per_tok=d.one(*range(1, count + 1)))
    d.set(output_router_logits=d.chance(0.3))
    sliding(d)


def latent(d):
    experts(d)
    d.fields.pop("head_dim", None)
    d.set(num_key_value_heads=d.heads)
    rope = d.fields.get("rope_parameters", {})
    if "short_factor" in rope:
        half = d.fields["qk_rope_head_dim"] // 2
        rope.update(short_factor=[1.0 + i for i in range(half)], long_factor=[2.0 + i for i in range(half)])


def llama4(d):
    experts(d)
    d.fields.update(pad_token_id=0)


def falcon(d):
    if d.fields.get("new_decoder_architecture"):
        d.fields.pop("multi_query", None)


def opt(d):
    d.set(layer_norm_elementwise_affine=d.chance(0.8))


def bart(d):
    same_encoder_decoder(d)
    if d.family == "m2m_100" and d.chance(0.9):
        d.set(decoder_start_token_id=2)
    d.fields["num_hidden_layers"] = d.layers


def mixed_layers(d, *kinds):
    """Types of layers, some of which have an attention, so that caches have a length."""
    types = [d.one(*kinds) for _ in range(d.layers)]
    types[d.source.randrange(d.layers)] = "full_attention"
    d.set(layer_types=types)


def lfm2(d):
    mixed_layers(d, "conv", "full_attention")
    d.fields.pop("full_attn_idxs", None)
    d.set(conv_L_cache=d.one(1, 2, 3, 5), block_multiple_of=d.one(1, 4, 16), block_ffn_dim_multiplier=d.one(0.7, 1.0, 1.5),
          conv_bias=False, num_dense_layers=d.one(*range(d.layers + 1)))  # fmt: skip
    if "num_experts" in d.fields:
        d.set(num_experts_per_tok=d.one(*range(1, d.fields["num_experts"] + 1)))


def delta(d):
    """Gated delta nets, with experts in some families."""
    mixed_layers(d, "linear_attention", "full_attention")
    keys = d.one(1, 2, 3)
    d.set(linear_num_key_heads=keys, linear_num_value_heads=keys * d.one(1, 2), linear_key_head_dim=d.one(2, 4, 8),
          linear_value_head_dim=d.one(2, 4, 6), linear_conv_kernel_dim=d.one(2, 3, 4))  # fmt: skip
    if "num_experts" in d.fields:
        experts(d)


def states(d, inner, heads="mamba_n_heads", size="mamba_d_head", groups="mamba_n_groups"):
    """Sizes of a state space with `inner` values."""
    count = d.one(*[n for n in range(1, inner + 1) if inner % n == 0 and n <= 8])
    d.set(**{heads: count, size: inner // count, groups: d.one(*[n for n in range(1, count + 1) if count % n == 0])})
    d.set(mamba_d_state=d.one(1, 4, 6, 16), mamba_d_conv=d.one(2, 3, 4), mamba_chunk_size=d.one(2, 8, 64), mamba_proj_bias=False)
    d.fields.pop("time_step_limit", None)


def granite_hybrid(d):
    mixed_layers(d, "linear_attention", "full_attention")
    expand = d.one(1, 2)
    d.set(mamba_expand=expand, num_local_experts=d.one(0, 2, 4), position_embedding_type=d.one(None, "rope"))
    states(d, expand * d.width)
    d.set(num_experts_per_tok=d.one(1, 2), output_router_logits=False)


def falcon_h1(d):
    expand = d.one(1, 2)
    inner = d.one(None, 8, 16, 24)
    d.set(mamba_expand=expand, mamba_d_ssm=inner, mlp_multipliers=[d.one(1.0, 0.6), d.one(1.0, 1.4)],
          ssm_multipliers=[d.one(1.0, 0.6, 1.5) for _ in range(5)])  # fmt: skip
    for key in ("lm_head_multiplier", "key_multiplier", "attention_in_multiplier", "attention_out_multiplier", "ssm_in_multiplier",
                "ssm_out_multiplier"):  # fmt: skip
        d.set(**{key: d.one(1.0, 0.6, 1.5)})
    states(d, expand * d.width if inner is None else inner)


def nemotron_h(d):
    types = [d.one("linear_attention", "full_attention", "mlp", "moe") for _ in range(d.layers)]
    types[d.source.randrange(d.layers)] = "full_attention"
    d.fields.pop("num_hidden_layers", None)
    d.set(layers_block_type=types, use_bias=False, moe_shared_expert_intermediate_size=d.one(8, 12), moe_latent_size=d.one(None, 8),
          moe_intermediate_size=d.one(8, 12), mlp_hidden_act=d.one("relu2", "relu2", "silu"), ssm_state_size=d.one(1, 4, 6),
          conv_kernel=d.one(2, 3, 4), chunk_size=d.one(2, 8, 64), time_step_min=0.001, mtp_layers_block_type=["full_attention", "moe"])  # fmt: skip
    states(d, d.one(8, 16, 24), "mamba_num_heads", "mamba_head_dim", "n_groups")
    experts(d)
    d.set(output_router_logits=False, sliding_window=None)


def window_none(d):
    sliding(d)
    if d.fields.get("sliding_window", 1) is None:
        d.fields.pop("layer_types", None)


def vision(kind, **options):
    return lambda d: wrap(d, kind, **options)


VISION = dict(
    gemma3=dict(model_type="siglip_vision_model", hidden_size=8, intermediate_size=8, num_hidden_layers=1,
                num_attention_heads=2, image_size=16, patch_size=8),
    mistral3=dict(model_type="pixtral", hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2,
                  head_dim=4, image_size=16, patch_size=8),
    qwen2_5_vl=dict(depth=1, hidden_size=8, intermediate_size=8, num_heads=2, out_hidden_size=16, patch_size=2,
                    temporal_patch_size=1, window_size=8, fullatt_block_indexes=[0]),
    qwen3_vl=dict(model_type="qwen3_vl", depth=1, hidden_size=8, intermediate_size=8, num_heads=2, out_hidden_size=16, patch_size=2,
                  temporal_patch_size=1, num_position_embeddings=16, deepstack_visual_indexes=[0]),
)  # fmt: skip
for kind in ("qwen3_5", "qwen3_5_moe"):
    VISION[kind] = dict(model_type=kind, depth=1, hidden_size=8, intermediate_size=8, num_heads=2, out_hidden_size=16, patch_size=2,
                        temporal_patch_size=1, num_position_embeddings=16)  # fmt: skip
TEXT = dict(qwen3_5=["qwen3_5_text"], qwen3_5_moe=["qwen3_5_moe_text"], gemma3=["gemma3_text"], mistral3=["mistral", "ministral3"], qwen2_5_vl=["qwen2_5_vl_text"], qwen3_vl=["qwen3_vl_text"])


def wrap(d):
    text = Draw(d.one(*TEXT[d.family]), d.source)
    fields = dict(text.fields, model_type=text.family, vocab_size=96)
    vision = dict(VISION[d.family])
    ids = dict(gemma3=dict(image_token_index=90, boi_token_index=91, eoi_token_index=92, mm_tokens_per_image=1),
               mistral3=dict(image_token_index=90)).get(
        d.family, dict(image_token_id=90, video_token_id=91, vision_start_token_id=92, vision_end_token_id=93))  # fmt: skip
    if "qwen" in d.family:
        vision["out_hidden_size"] = fields["hidden_size"]
        rope = fields.get("rope_parameters")
        half = text.size // 2 if "head_dim" in fields or "2_5" in d.family else 64
        first = d.one(*range(0, half + 1))
        section = [first, (half - first) // 2, half - first - (half - first) // 2]
        if rope and "3_5" not in d.family:
            rope["mrope_section"] = section
            if "3" in d.family:
                rope["mrope_interleaved"] = True
    tied = d.chance(0.5)
    fields["tie_word_embeddings"] = tied
    d.fields = dict(ids, vision_config=vision, text_config=fields, tie_word_embeddings=tied, bos_token_id=0, eos_token_id=END, pad_token_id=0)


HOOKS = dict(
    t5=t5, mt5=t5, umt5=t5, bart=bart, mbart=bart, pegasus=bart, marian=marian, m2m_100=bart, mixtral=experts, qwen2_moe=experts,
    qwen3_moe=experts, olmoe=experts, granitemoe=experts, glm4_moe=experts, deepseek_v2=latent, deepseek_v3=latent,
    llama4_text=llama4, gpt_oss=experts, falcon=falcon, opt=opt, qwen2=window_none, qwen3=window_none, smollm3=window_none,
    gemma3=wrap, qwen3_5=wrap, qwen3_5_moe=wrap, mistral3=wrap, qwen2_5_vl=wrap, qwen3_vl=wrap, lfm2=lfm2, lfm2_moe=lfm2,
    qwen3_next=delta, qwen3_5_text=delta, qwen3_5_moe_text=delta, granitemoehybrid=granite_hybrid, falcon_h1=falcon_h1, nemotron_h=nemotron_h, **{"deberta-v2": deberta},
)  # fmt: skip


def older_keys(fields):
    """The rotary settings as files before version 5 of transformers have them."""
    rope = fields.get("rope_parameters")
    if not rope or any(isinstance(v, dict) for v in rope.values()):
        return fields
    result = {k: v for k, v in fields.items() if k != "rope_parameters"}
    rope = dict(rope)
    result["rope_theta"] = rope.pop("rope_theta", 10000.0)
    if "partial_rotary_factor" in rope:
        result["partial_rotary_factor"] = rope.pop("partial_rotary_factor")
    if rope.get("rope_type") not in (None, "default"):
        rope["type"] = rope.pop("rope_type")
        result["rope_scaling"] = rope
    return result


def auto_class(config, source):
    if config.is_encoder_decoder:
        return "generate", transformers.AutoModelForSeq2SeqLM
    if hasattr(config, "vision_config"):
        return "generate", transformers.AutoModelForImageTextToText
    if type(config) in transformers.AutoModelForCausalLM._model_mapping and config.model_type not in ENCODERS:
        return "generate", transformers.AutoModelForCausalLM
    if source.random() < 0.6:
        return "classify", transformers.AutoModelForSequenceClassification
    return "tag", transformers.AutoModelForTokenClassification


ENCODERS = {"bert", "roberta", "xlm-roberta", "xlm-roberta-xl", "distilbert", "modernbert", "electra", "albert", "mpnet", "deberta-v2",
            "nomic_bert"}  # fmt: skip


def randomize(model, seed):
    torch.manual_seed(seed)
    center = 0 if "gemma" in model.config.model_type else 1
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if not parameter.requires_grad:
                continue
            norm = "norm" in key.lower() or ".ln_" in key
            scale = 0.4 if any(x in key for x in ("embed", "wte", "wpe", "shared", "relative")) else 0.25
            parameter.copy_(torch.randn_like(parameter) * scale + (center if norm and key.endswith("weight") else 0))
        for key, buffer in model.named_buffers():
            if key.endswith("e_score_correction_bias"):
                buffer.copy_(torch.randn_like(buffer) * 0.1)


def share_tables(model):
    """Of one in ten models of BART's kind, the stacks' tables stay different, which is rejected."""
    tables = [m for n, m in model.named_modules() if n.endswith(("encoder.embed_tokens", "decoder.embed_tokens"))]
    if len(tables) == 2 and hasattr(model.model, "shared"):
        with torch.no_grad():
            for table in tables:
                table.weight.copy_(model.model.shared.weight)


def rows(mode, vocabulary, source):
    first = 2
    ids = lambda n: [source.randrange(first, vocabulary) for _ in range(n)]
    if mode == "generate":
        return [(ids(n), ids(m - 1) + [END]) for n, m in [(13, 5), (6, 9), (20, 1)]]
    lengths = (13, 6, 20)
    if mode == "classify":
        return [(ids(n), [source.randrange(LABELS)]) for n in lengths]
    return [(ids(n), [source.randrange(LABELS) for _ in range(n)]) for n in lengths]


def padded(lists, value):
    return torch.tensor([x + [value] * (max(map(len, lists)) - len(x)) for x in lists])


def inputs(mode, config, data):
    mask = lambda lists: padded([[1] * len(x) for x in lists], 0)
    pad = config.get_text_config().pad_token_id or 0
    if mode == "generate" and not config.is_encoder_decoder:
        lists = [x + y for x, y in data]
        return dict(input_ids=padded(lists, pad), attention_mask=mask(lists),
                    labels=padded([[-100] * len(x) + y for x, y in data], -100))  # fmt: skip
    lists = [x for x, _ in data]
    labels = torch.tensor([y[0] for _, y in data]) if mode == "classify" else padded([y for _, y in data], -100)
    return dict(input_ids=padded(lists, pad), attention_mask=mask(lists), labels=labels)


def target_logits(mode, config, out, data):
    if mode == "classify":
        return out.logits
    if mode == "tag" or config.is_encoder_decoder:
        return torch.cat([out.logits[i, : len(y)] for i, (_, y) in enumerate(data)])
    return torch.cat([out.logits[i, len(x) - 1: len(x + y) - 1] for i, (x, y) in enumerate(data)])


def relative(a, b):
    return ((a - b).abs().max() / max(a.abs().max(), b.abs().max(), 1e-30)).item()


class Unfit(Exception):
    """A draw that transformers can't run, or that rounding alone changes."""


def greedy(model, data):
    """Greedy ids of each prompt, and the margin of each step: the difference of the two largest scores, relative."""
    results, margins = [], []
    for ids, _ in data:
        out = model.generate(torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.long), do_sample=False,
                             max_new_tokens=NEW_TOKENS, num_beams=1, return_dict_in_generate=True, output_scores=True)  # fmt: skip
        new = out.sequences[0, 1 if model.config.is_encoder_decoder else len(ids):].tolist()
        results.append(new[: new.index(END)] if END in new else new)
        tops = [s[0].topk(2).values for s in out.scores]
        # A forced token has the only finite score.
        margins.append([((t[0] - t[1]) / t.abs().max().clamp_min(1e-6)).item() if t.isfinite().all() else 1.0 for t in tops])
    return results, margins


def make(family, folder, seed):
    """Writes a model of a random configuration with what transformers computes.

    - Throws: Unfit for a draw that doesn't count.
    """
    source = random.Random(f"{family} {seed}")
    draw = Draw(family, source)
    fields = dict(draw.fields, model_type=family)
    if source.random() < 0.25:
        fields = older_keys(fields)
    try:
        config = AutoConfig.for_model(**copy.deepcopy(fields))
        mode, maker = auto_class(config, source)
        if mode != "generate":
            fields.update(id2label={str(i): f"l{i}" for i in range(LABELS)}, label2id={f"l{i}": i for i in range(LABELS)})
        (folder / "config.json").write_text(json.dumps(fields, indent=1))
        # What the file says, as it is read.
        config = AutoConfig.from_pretrained(folder)
        model = maker.from_config(config, dtype=torch.float32, attn_implementation=ATTENTION.get(family, "eager")).eval()
    except Exception as error:
        raise Unfit(f"not built: {type(error).__name__} {str(error)[:150]}") from None
    randomize(model, seed)
    if family in ("bart", "mbart", "pegasus", "marian", "m2m_100") and source.random() < 0.9:
        share_tables(model)
    data = rows(mode, config.get_text_config().vocab_size if family != "marian" else min(
        config.vocab_size, config.decoder_vocab_size or config.vocab_size), source)  # fmt: skip
    # Kinds of RoPE whose angles depend on the longest sequence of a batch.
    longest = any(kind in json.dumps(config.to_dict()) for kind in ("longrope", "dynamic"))
    tensors, expected = {}, dict(longest=longest, rows=[[list(x), list(y)] for x, y in data])
    try:
        with torch.no_grad():
            out = model(**inputs(mode, config, data))
            tensors["logits"] = target_logits(mode, config, out, data).contiguous()
            expected["loss"] = out.loss.item()
            if not torch.isfinite(tensors["logits"]).all():
                raise Unfit("infinite logits")
            if mode == "generate":
                # The cache of transformers has as many layers as the encoder, or the windows that it knows.
                with contextlib.suppress(Exception):
                    expected["greedy"], expected["margins"] = greedy(model, data)
                    expected["new_tokens"] = NEW_TOKENS
                # The positions that transformers gives generated padding tokens depend on the use of its cache.
                if family == "m2m_100" and any(0 in ids for ids in expected.get("greedy", [])):
                    for key in ("greedy", "margins", "new_tokens"):
                        del expected[key]
        model.save_pretrained(folder / "saved")
        os.replace(folder / "saved/model.safetensors", folder / "model.safetensors")
        # One of two files has all keys of the class, the other what was drawn.
        if source.random() < 0.3:
            written = json.loads((folder / "saved/config.json").read_text())
            written.pop("dtype", None)
            fields = written
        fields["architectures"] = [type(model).__name__]
        (folder / "config.json").write_text(json.dumps(fields, indent=1))
        shutil.rmtree(folder / "saved")
        state = copy.deepcopy(model.state_dict())
        with torch.no_grad():
            torch.manual_seed(2)
            for parameter in model.parameters():
                parameter.mul_(1 + 1e-6 * torch.randn_like(parameter))
            drift = relative(target_logits(mode, config, model(**inputs(mode, config, data)), data), tensors["logits"])
        model.load_state_dict(state)
        if drift > 3e-5:
            raise Unfit("ill-conditioned")
        if seed % 4 == 0:
            lora(model, mode, config, data, folder, tensors, expected, source)
    except Unfit:
        raise
    except Exception as error:
        raise Unfit(f"not run: {type(error).__name__} {str(error)[:150]}") from None
    (folder / "expected.json").write_text(json.dumps(expected))
    save_file({k: v.detach().clone().contiguous() for k, v in tensors.items()}, folder / "expected.safetensors")
    return fields


def lora(model, mode, config, data, folder, tensors, expected, source):
    kind = {"generate": "SEQ_2_SEQ_LM" if config.is_encoder_decoder else "CAUSAL_LM", "classify": "SEQ_CLS", "tag": "TOKEN_CLS"}[mode]
    names = sorted({n.split(".")[-1] for n, m in model.named_modules() if isinstance(m, torch.nn.Linear) and "vision" not in n})
    heads = ("lm_head", "classifier", "score", "embed_out", "out_proj" if mode != "generate" else "-", "dense" if mode != "generate" else "-",
             "pre_classifier", "router", "gate", "project_in", "project_out", "shared_expert_gate")  # fmt: skip
    names = [n for n in names if n not in heads]
    if config.model_type in ("falcon_h1", "nemotron_h"):  # Hugging Face PEFT rejects it
        names = [n for n in names if n != "out_proj"]
    if any("experts" in n for n, _ in model.named_modules()):
        names = [n for n in names if n not in ("gate_proj", "up_proj", "down_proj", "input_linear", "output_linear")]
    if not names or hasattr(config, "vision_config"):
        return
    chosen = source.sample(names, min(len(names), source.choice([1, 2, 3])))
    adapted = peft.get_peft_model(model, peft.LoraConfig(
        task_type=kind, r=source.choice([1, 2, 4]), lora_alpha=source.choice([4, 8]), target_modules=chosen,
        use_rslora=source.random() < 0.3, use_dora=source.random() < 0.2 and config.model_type not in ("deepseek_v2", "deepseek_v3")))  # fmt: skip
    torch.manual_seed(4)
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    adapted.eval()
    adapted.save_pretrained(folder / "adapter")
    with torch.no_grad():
        tensors["adapted"] = target_logits(mode, config, adapted(**inputs(mode, config, data)), data).contiguous()
    trained = [p for p in adapted.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=RATE, weight_decay=0.01)
    losses = []
    for step in range(STEPS):
        loss = adapted(**inputs(mode, config, [data[step % 3], data[(step + 1) % 3]])).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    expected.update(losses=losses, rate=RATE)


def judge(expected, result):
    """What is wrong with a model; empty if nothing is."""
    faults = []
    if "refused" in result:
        # One line that names a key or a value.
        text = result["refused"]
        return [] if "\n" not in text and re.search(r"'[^']+'|the model has \d+ positions", text) else [f"rejected without a name: {text}"]
    if "error" in result:
        return [f"error: {result['error']}"]
    number = lambda value: float(value) if not isinstance(value, str) else float("nan")
    if not number(result["logits"]) < 1e-4:
        faults.append(f"logits differ by {result['logits']}")
    if not abs(number(result["loss"]) - expected["loss"]) < 1e-4 * abs(expected["loss"]):
        faults.append(f"loss {result['loss']} for {expected['loss']}")
    if "greedy" in expected and not faults:
        # A pair of nearly equal scores may be ordered either way.
        def differ(a, b, margins):
            for step in range(max(len(a), len(b))):
                x, y = (l[step] if step < len(l) else END for l in (a, b))
                if x != y:
                    return step >= len(margins) or margins[step] > 1e-3
            return False

        if any(map(differ, result["greedy"], expected["greedy"], expected["margins"])):
            faults.append(f"greedy ids {result['greedy']} for {expected['greedy']}")
        elif not expected["longest"] and any(map(differ, result["together"], result["greedy"], expected["margins"])):
            faults.append(f"ids of one batch {result['together']} for {result['greedy']}")
    if "losses" in expected:
        if not number(result["adapted"]) < 1e-4:
            faults.append(f"LoRA's logits differ by {result['adapted']}")
        for step, (a, b) in enumerate(zip(result["losses"], expected["losses"])):
            if not abs(number(a) - b) < 1e-3 * abs(b):
                faults.append(f"LoRA's loss of step {step}: {a} for {b}")
                break
    return faults


def compute(command, folder):
    """The results of all models in a folder, by name. A model that ends the process is one of them."""
    results, moved = {}, []
    while True:
        (folder / "results.jsonl").unlink(missing_ok=True)
        (folder / "current").write_text("-")
        run = subprocess.run(command, env=os.environ | {"PEFT_RANDOM_MODELS": str(folder)}, capture_output=True, text=True, cwd=ROOT)
        for line in (folder / "results.jsonl").read_text().splitlines() if (folder / "results.jsonl").exists() else []:
            value = json.loads(line)
            results[value["name"]] = value
        current = (folder / "current").read_text()
        if not current:
            break
        if current == "-":
            sys.exit(f"error: the tests did not run; build them with 'swift build --build-tests'\n{(run.stdout + run.stderr)[-2000:]}")
        results[current] = dict(name=current, error=f"the process ended with {run.returncode}: {run.stderr[-400:]}")
        moved.append(current)
        os.rename(folder / current / "expected.json", folder / current / "expected.json.crashed")
        for name in list(results):
            if name != current and (folder / name / "expected.json").exists():
                os.rename(folder / name / "expected.json", folder / name / "expected.json.done")
        if not any((p / "expected.json").exists() for p in folder.iterdir() if p.is_dir()):
            break
    for file in folder.glob("*/expected.json.*"):
        os.replace(file, file.with_name("expected.json"))
    return results


def report(family, made, unfit, results, work, log):
    """Prints what became of a family's models and writes the findings, whose folders stay.

    Returns the number of findings.
    """
    counts, refusals = collections.Counter(), collections.Counter()
    for name, fields in made.items():
        expected = json.loads((work / name / "expected.json").read_text())
        result = results.get(name, {"error": "no result"})
        faults = judge(expected, result)
        counts["differ" if faults else "rejected" if "refused" in result else "equal"] += 1
        if "refused" in result:
            refusals[re.sub(r"\d+", "N", result["refused"])[:110]] += 1
        if faults:
            with open(log, "a") as file:
                finding = dict(family=family, seed=int(name[-5:]), faults=faults, folder=str(work / name), config=fields)
                file.write(json.dumps(finding) + "\n")
        else:
            shutil.rmtree(work / name)
    if not made:
        counts["differ"] = 1
    print(f"{family:18} {counts['equal']:4} equal {counts['rejected']:4} rejected {counts['differ']:4} differ"
          f"   ({sum(unfit.values())} drawn again)", flush=True)  # fmt: skip
    for text, count in refusals.most_common():
        print(f"    {count:3} rejected: {text}", flush=True)
    for text, count in unfit.most_common(3):
        print(f"    {count:3} again: {text[:140]}", flush=True)
    if UNKNOWN[family]:
        print(f"    keys that are not drawn: {', '.join(sorted(UNKNOWN[family]))}", flush=True)
    return counts["differ"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=200, help="configurations per family")
    parser.add_argument("--seed", type=int, default=1, help="first seed")
    parser.add_argument("--log", type=pathlib.Path, help="file of the findings (default: a new one)")
    parser.add_argument("--tests", default=str(ROOT / ".build/debug/swift-peftPackageTests.xctest"), help="the tests' program")
    parser.add_argument("families", nargs="*")
    given = parser.parse_args()
    command = [given.tests, "--testing-library", "swift-testing", "--filter", "RandomConfigurationTests"]
    if sys.platform == "darwin":
        command = ["swift", "test", "--skip-build", "--filter", "RandomConfigurationTests"]
    work = pathlib.Path(tempfile.mkdtemp(prefix="peft-random-"))
    log = given.log or work / "findings.jsonl"
    findings, waiting = 0, {}

    def finish():
        """Computes and judges the models that wait, in one process."""
        nonlocal findings
        results = compute(command, work) if any(made for made, _ in waiting.values()) else {}
        for family, (made, unfit) in waiting.items():
            findings += report(family, made, unfit, results, work, log)
        waiting.clear()

    for family in dict.fromkeys(given.families or families()):
        if family not in configuration_auto.CONFIG_MAPPING_NAMES:
            print(f"{family:18} transformers has no such configuration")
            continue
        made, unfit, seed = {}, collections.Counter(), given.seed - 1
        while len(made) < given.draws and sum(unfit.values()) < 20 + 5 * given.draws:
            seed += 1
            place = work / f"{family}-{seed:05}"
            place.mkdir()
            try:
                made[place.name] = make(family, place, seed)
            except Unfit as reason:
                unfit[str(reason)] += 1
                shutil.rmtree(place)
        waiting[family] = (made, unfit)
        if sum(len(made) for made, _ in waiting.values()) >= 300:
            finish()
    finish()
    if findings:
        print(f"{findings} findings in {log}")
    else:
        shutil.rmtree(work)
    sys.exit(1 if findings else 0)


if __name__ == "__main__":
    main()
