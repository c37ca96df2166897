"""Writes adapters over the mixtures of experts of `make_expert_decoder_fixtures.py` that Hugging Face PEFT made.

    pip install torch transformers peft==0.21.2 safetensors
    OMP_NUM_THREADS=1 python make_expert_adapter_fixtures.py [NAME...]

The same things are stored as by `make_decoder_adapter_fixtures.py`.
"""
import sys

from peft import LoraConfig

from make_decoder_adapter_fixtures import LM, write

BOTH = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
CASES = {
    "mixtral-experts": ("mixtral", LoraConfig(r=2, lora_alpha=4, target_modules=[], target_parameters=BOTH, **LM),
                        ["model.layers.0.mlp.experts.gate_up_proj", "model.layers.1.mlp.experts.down_proj"]),
    # One of two tensors, beside a module; the scale differs.
    "mixtral-gate-up": ("mixtral", LoraConfig(
        r=2, lora_alpha=4, target_modules=["v_proj"], target_parameters=["experts.gate_up_proj"], use_rslora=True,
        rank_pattern={"layers.1.mlp.experts.gate_up_proj": 3}, **LM), ["model.layers.0.mlp.experts.gate_up_proj"]),
    # Names of transformers before version 5, which PEFT rewrites.
    "qwen3_moe-renamed": ("qwen3_moe", LoraConfig(
        r=2, lora_alpha=6, target_modules=["q_proj", "gate_proj", "up_proj", "down_proj"], **LM),
        ["model.layers.0.mlp.experts.gate_up_proj"]),
    "olmoe-all-linear": ("olmoe", LoraConfig(r=2, lora_alpha=4, target_modules="all-linear", **LM),
                         ["model.layers.0.mlp.gate", "model.layers.1.mlp.experts.gate_up_proj"]),
    "granitemoe-router": ("granitemoe", LoraConfig(
        r=2, lora_alpha=4, target_modules=["q_proj"], target_parameters=["router.weight", "experts.down_proj"], **LM),
        ["model.layers.0.block_sparse_moe.router", "model.layers.1.block_sparse_moe.experts.down_proj"]),
    # The shared network has the old names of the experts.
    "qwen2_moe-shared": ("qwen2_moe", LoraConfig(r=2, lora_alpha=4, target_modules=["gate_proj", "up_proj"], **LM),
                         ["model.layers.0.mlp.gate_proj", "model.layers.1.mlp.shared_expert.up_proj"]),
}

if __name__ == "__main__":
    for name, (base, config, merged) in CASES.items():
        if name in sys.argv[1:] or not sys.argv[1:]:
            write(name, base, config, merged=merged)
