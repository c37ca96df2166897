"""Compares GGUF files that peft wrote with llama.cpp, by logits.

    pip install torch transformers tokenizers cyllama
    python check_llama_cpp.py make FOLDER [NAME...]    # small random models, with the logits of transformers
    for m in FOLDER/*/; do peft quantize --model $m --to gguf-f32 --output ${m%/}.gguf; done
    python check_llama_cpp.py check FOLDER
"""

import pathlib
import sys

import torch

mode, folder, names = sys.argv[1], pathlib.Path(sys.argv[2]), sys.argv[3:]


def ids(vocabulary):
    return [(7 * i + 3) % vocabulary for i in range(14)]


def make():
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import (ArceeConfig, AutoModelForCausalLM, BloomConfig, Cohere2Config, DeepseekV2Config,
                              DeepseekV3Config, Ernie4_5Config, FalconConfig, Gemma3TextConfig, Glm4Config,
                              GptOssConfig, GPTNeoXConfig, GraniteConfig, GraniteMoeConfig, GraniteMoeHybridConfig,
                              HunYuanDenseV1Config, Lfm2Config, Lfm2MoeConfig, LlamaConfig, MixtralConfig, Olmo2Config, Olmo3Config,
                              OlmoeConfig, PhiConfig, PreTrainedTokenizerFast, Qwen2MoeConfig, Qwen3Config,
                              Qwen3MoeConfig, SeedOssConfig, SmolLM3Config, StableLmConfig, Starcoder2Config)
    own = Tokenizer(models.BPE())
    own.pre_tokenizer, own.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    own.train_from_iterator(["A small model reads small texts."] * 5, trainers.BpeTrainer(
        vocab_size=270, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    own.add_special_tokens(["<s>", "</s>"])
    size = own.get_vocab_size()
    small = dict(vocab_size=size, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4,
                 num_key_value_heads=2, max_position_embeddings=64, bos_token_id=size - 2, eos_token_id=size - 1,
                 pad_token_id=size - 1)
    experts = dict(small, num_experts_per_tok=2)
    scaled = dict(embedding_multiplier=3.0, logits_scaling=2.0, residual_multiplier=0.7, attention_multiplier=0.3)
    plain = {k: v for k, v in small.items() if k not in ("intermediate_size", "num_key_value_heads")}
    latent = dict(small, num_key_value_heads=4, q_lora_rank=12, kv_lora_rank=8, qk_nope_head_dim=8, qk_rope_head_dim=8,
                  v_head_dim=12, n_routed_experts=8, num_experts_per_tok=2, n_shared_experts=2, moe_intermediate_size=16,
                  first_k_dense_replace=1, routed_scaling_factor=1.5)
    types = ["conv", "conv", "full_attention", "conv"]
    configurations = {
        "phi": PhiConfig(**small, partial_rotary_factor=0.5),
        "starcoder2": Starcoder2Config(**small, sliding_window=None, use_bias=True),
        "falcon": FalconConfig(**plain),
        "falcon_new": FalconConfig(**plain, new_decoder_architecture=True, num_kv_heads=2),
        "gpt_neox": GPTNeoXConfig(**plain, intermediate_size=48, rotary_pct=0.5),
        "bloom": BloomConfig(**plain | dict(n_layer=3, n_head=4)),
        "stablelm": StableLmConfig(**small, partial_rotary_factor=0.5),
        "stablelm_parallel": StableLmConfig(**small, partial_rotary_factor=0.5, use_parallel_residual=True,
                                            qk_layernorm=True, use_qkv_bias=True),
        "olmo3": Olmo3Config(**small | dict(num_hidden_layers=5), sliding_window=5),
        "gpt_oss": GptOssConfig(**experts | dict(hidden_size=64), num_local_experts=4, head_dim=16, sliding_window=5,
                                rope_parameters=dict(rope_type="default", rope_theta=150000.0)),
        "deepseek_v2": DeepseekV2Config(**latent),
        "deepseek_v3": DeepseekV3Config(**latent, n_group=4, topk_group=2),
        "granitemoehybrid": GraniteMoeHybridConfig(
            **experts, num_local_experts=4, shared_intermediate_size=24, layer_types=["mamba", "attention", "mamba"],
            mamba_n_heads=4, mamba_d_head=16, mamba_d_state=16, mamba_n_groups=1, mamba_expand=2,
            embedding_multiplier=3.0, logits_scaling=2.0, residual_multiplier=0.7, attention_multiplier=0.3,
            position_embedding_type="nope"),
        "lfm2": Lfm2Config(**small | dict(num_hidden_layers=4), layer_types=types, block_auto_adjust_ff_dim=False),
        "lfm2_moe": Lfm2MoeConfig(**small | dict(num_hidden_layers=4), layer_types=types, num_dense_layers=1,
                                  num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16),
        "mixtral": MixtralConfig(**experts, num_local_experts=4, sliding_window=None),
        "qwen2_moe": Qwen2MoeConfig(**experts, num_experts=4, moe_intermediate_size=16,
                                    shared_expert_intermediate_size=24, norm_topk_prob=False),
        "qwen3_moe": Qwen3MoeConfig(**experts, num_experts=4, moe_intermediate_size=16, norm_topk_prob=True, head_dim=16),
        "olmoe": OlmoeConfig(**experts | dict(num_key_value_heads=4), num_experts=4),
        "granitemoe": GraniteMoeConfig(**experts, num_local_experts=4, **scaled),
        "glm4": Glm4Config(**small, head_dim=16, partial_rotary_factor=0.5, attention_bias=True),
        "hunyuan": HunYuanDenseV1Config(**small, head_dim=16, rope_parameters=dict(
            rope_type="dynamic", alpha=100.0, rope_theta=10000.0, factor=1.0)),
        "cohere2": Cohere2Config(**small | dict(num_hidden_layers=5), sliding_window=5, logit_scale=0.25,
                                 attention_bias=False),
        "llama": LlamaConfig(**small),
        "qwen3": Qwen3Config(**small, head_dim=16),
        "smollm3": SmolLM3Config(**small | dict(num_hidden_layers=5)),
        "olmo2": Olmo2Config(**small),
        "granite": GraniteConfig(**small, **scaled),
        "gemma3": Gemma3TextConfig(**small | dict(num_hidden_layers=7), head_dim=16, query_pre_attn_scalar=16,
                                   sliding_window=5),
        "arcee": ArceeConfig(**small),
        "seed_oss": SeedOssConfig(**small, head_dim=16, attention_bias=True, attention_out_bias=False),
        "ernie4_5": Ernie4_5Config(**small),
    }
    for name, configuration in configurations.items():
        if names and name not in names: continue
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(configuration, dtype=torch.float32).eval()
        for key, p in model.named_parameters():
            torch.nn.init.normal_(p, std=0.2)
            if "norm" in key and key.endswith("weight") and "gemma" not in name: p.data += 1
        model.save_pretrained(folder / name)
        PreTrainedTokenizerFast(tokenizer_object=own, bos_token="<s>", eos_token="</s>").save_pretrained(folder / name)
        with torch.no_grad(): torch.save(model(torch.tensor([ids(size)])).logits[0], folder / name / "logits.pt")
        print(name, flush=True)


def logits(file, tokens, size):
    import numpy
    from cyllama.llama import llama_cpp

    class Model(llama_cpp.LlamaModel):
        @property
        def n_vocab(self): return size

    model = Model(path_model=str(file), params=llama_cpp.LlamaModelParams(), verbose=False)
    settings = llama_cpp.LlamaContextParams()
    settings.n_ctx = settings.n_batch = settings.n_ubatch = 64
    context = llama_cpp.LlamaContext(model=model, params=settings, verbose=False)
    context.set_n_threads(1, 1)
    batch = llama_cpp.LlamaBatch(n_tokens=64, embd=0, n_seq_max=1)
    batch.set_batch(tokens, 0, True)
    context.decode(batch)
    return torch.tensor(numpy.stack([numpy.array(context.get_logits_ith(i)) for i in range(len(tokens))]))


def check():
    for file in sorted(folder.glob("*.gguf")):
        expected = torch.load(folder / file.stem / "logits.pt")
        own = logits(file, ids(expected.shape[1]), expected.shape[1])
        difference = float((own - expected).abs().max() / expected.abs().max())
        print(file.stem, "differs by", difference, flush=True)
        # llama.cpp stores keys and values as F16.
        assert difference < 1e-2, file.stem


{"make": make, "check": check}[mode]()
