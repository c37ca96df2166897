"""Writes the angles per position that transformers' rotary embeddings have, for each family and kind of positions.

    pip install torch transformers
    python make_rope_fixtures.py

`rope.json` is a list of configurations as files have them, each with `inv_freq`, `attention_scaling` and, for longrope,
`long` (the angles of longer texts).
"""
import copy
import json
import pathlib

import torch
from transformers import AutoConfig
from transformers.models.gemma.modeling_gemma import GemmaRotaryEmbedding
from transformers.models.gemma2.modeling_gemma2 import Gemma2RotaryEmbedding
from transformers.models.gemma3.modeling_gemma3 import Gemma3RotaryEmbedding
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding
from transformers.models.mistral.modeling_mistral import MistralRotaryEmbedding
from transformers.models.phi3.modeling_phi3 import Phi3RotaryEmbedding
from transformers.models.qwen2.modeling_qwen2 import Qwen2RotaryEmbedding
from transformers.models.qwen3.modeling_qwen3 import Qwen3RotaryEmbedding

CLASSES = dict(llama=LlamaRotaryEmbedding, mistral=MistralRotaryEmbedding, qwen2=Qwen2RotaryEmbedding,
               qwen3=Qwen3RotaryEmbedding, gemma=GemmaRotaryEmbedding, gemma2=Gemma2RotaryEmbedding,
               gemma3_text=Gemma3RotaryEmbedding, phi3=Phi3RotaryEmbedding)
PAIRS = 10
SHORT, LONG = [1 + 0.1 * i for i in range(PAIRS)], [1.5 + 2.3 * i for i in range(PAIRS)]
KINDS = [
    dict(rope_type="default"),
    dict(rope_type="linear", factor=4.0),
    dict(rope_type="dynamic", factor=2.0),
    dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=32768),
    dict(rope_type="yarn", factor=40.0, original_max_position_embeddings=4096, beta_fast=16, beta_slow=2, mscale=0.7,
         mscale_all_dim=1.0, truncate=False),
    dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=8192, attention_factor=1.3),
    dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=8192),
    dict(rope_type="longrope", short_factor=SHORT, long_factor=LONG, original_max_position_embeddings=4096),
    dict(rope_type="longrope", short_factor=SHORT, long_factor=LONG, original_max_position_embeddings=4096, factor=8.0),
    dict(rope_type="longrope", short_factor=SHORT, long_factor=LONG, original_max_position_embeddings=4096,
         attention_factor=1.1),
]


def digits(x):
    return [float(f"{value:.7g}") for value in x.tolist()]


cases = []
for family, maker in CLASSES.items():
    for number, kind in enumerate(KINDS):
        base = dict(model_type=family, vocab_size=8, hidden_size=2 * 2 * PAIRS, num_attention_heads=2,
                    num_key_value_heads=1, num_hidden_layers=6, intermediate_size=8, max_position_embeddings=131072)
        if family != "phi3":
            base["head_dim"] = 2 * PAIRS
        if family == "phi3":
            if kind["rope_type"] not in ("default", "longrope"):
                continue
            base["original_max_position_embeddings"] = 4096
        older = number % 2 == 0
        parameters = dict(kind) if older else dict(kind, rope_theta=5e5)
        if family == "gemma3_text":
            if older:
                settings = dict(base, rope_theta=5e5, rope_local_base_freq=2e4, rope_scaling=parameters)
            else:
                settings = dict(base, rope_parameters=dict(full_attention=parameters, sliding_attention=dict(
                    rope_type="default", rope_theta=2e4)))
        elif older:
            settings = dict(base, rope_theta=5e5, rope_scaling=parameters)
        else:
            settings = dict(base, rope_parameters=parameters)
        config = AutoConfig.for_model(**copy.deepcopy(settings))
        rotary = maker(config)
        prefix = "full_attention_" if family == "gemma3_text" else ""
        case = dict(configuration=settings, inv_freq=digits(getattr(rotary, prefix + "inv_freq")),
                    attention_scaling=getattr(rotary, prefix + "attention_scaling"))
        if family == "gemma3_text":
            case["local"] = digits(rotary.sliding_attention_inv_freq)
        if kind["rope_type"] == "longrope":
            options = dict(layer_type="full_attention") if family == "gemma3_text" else {}
            rotary(torch.zeros(1), torch.tensor([[0, 5000]]), **options)
            case["long"] = digits(getattr(rotary, prefix + "inv_freq"))
        cases.append(case)
(pathlib.Path(__file__).parent / "rope.json").write_text(json.dumps(cases, sort_keys=True) + "\n")
print(len(cases), "configurations")
