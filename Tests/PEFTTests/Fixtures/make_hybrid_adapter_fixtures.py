"""Writes adapters over the hybrid models of `make_hybrid_decoder_fixtures.py` that Hugging Face PEFT made.

    pip install torch transformers peft==0.21.2 safetensors
    OMP_NUM_THREADS=1 python make_hybrid_adapter_fixtures.py [NAME...]

The same things are stored as by `make_decoder_adapter_fixtures.py`.
"""
import sys

from peft import LoraConfig

from make_decoder_adapter_fixtures import LM, write

CASES = {
    "qwen3_5-lora": ("qwen3_5_text", LoraConfig(
        r=2, lora_alpha=4, target_modules=["q_proj", "v_proj", "in_proj_qkv", "in_proj_z", "in_proj_a", "out_proj"], **LM),
        ["model.layers.0.linear_attn.in_proj_qkv", "model.layers.2.self_attn.q_proj"]),
    "lfm2-lora": ("lfm2", LoraConfig(
        r=2, lora_alpha=4, target_modules=["q_proj", "in_proj", "out_proj", "w1", "w2"], **LM),
        ["model.layers.0.conv.in_proj", "model.layers.1.self_attn.out_proj"]),
    "granitemoehybrid-lora": ("granitemoehybrid", LoraConfig(
        r=2, lora_alpha=4, target_modules=["q_proj", "in_proj", "out_proj", "input_linear"], **LM),
        ["model.layers.0.mamba.in_proj", "model.layers.1.shared_mlp.input_linear"]),
    "nemotron_h-lora": ("nemotron_h", LoraConfig(
        r=2, lora_alpha=4, target_modules=["q_proj", "o_proj", "in_proj", "up_proj", "down_proj"], **LM),
        ["model.layers.0.mixer.in_proj", "model.layers.3.mixer.shared_experts.up_proj"]),
    # Hugging Face PEFT rejects out_proj of these families.
    "falcon_h1-lora": ("falcon_h1", LoraConfig(
        r=2, lora_alpha=4, target_modules=["q_proj", "o_proj", "in_proj", "gate_proj", "down_proj"], **LM),
        ["model.layers.0.mamba.in_proj", "model.layers.1.self_attn.o_proj"]),
    # Names of the experts in files, which PEFT rewrites, although the network beside them has them, too.
    "qwen3_next-renamed": ("qwen3_next", LoraConfig(
        r=2, lora_alpha=4, target_modules=["in_proj_qkvz", "in_proj_ba", "gate_proj", "up_proj"], **LM),
        ["model.layers.0.linear_attn.in_proj_qkvz", "model.layers.0.mlp.experts.gate_up_proj"]),
}

if __name__ == "__main__":
    for name, (base, config, merged) in CASES.items():
        if name in sys.argv[1:] or not sys.argv[1:]:
            write(name, base, config, merged=merged)
