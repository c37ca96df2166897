"""Writes LoRA adapters that Hugging Face PEFT made, with what it computes with them.

    pip install torch transformers peft safetensors
    OMP_NUM_THREADS=1 python make_lora_fixtures.py

"""
import torch
from peft import LoraConfig

from hugging_face import write

VARIANTS = {
    # name: base model, learning rate, configuration, projections whose merged weights are stored
    "query-value": ("t5-v1.0", 2e-3, dict(r=4, lora_alpha=8, target_modules=["q", "v"]),
                    ["encoder.block.0.layer.0.SelfAttention.q", "decoder.block.2.layer.1.EncDecAttention.v"]),
    "all-linear": ("t5-v1.1", 1e-3, dict(r=3, lora_alpha=6, use_rslora=True, target_modules="all-linear"),
                   ["decoder.block.1.layer.2.DenseReluDense.wo"]),
    "patterns": ("t5-tied-gated", 2e-3,
                 dict(r=4, lora_alpha=8, target_modules=["q", "k", "v", "o", "wo"],
                      # The first pattern that matches counts. In the order of the file, which is sorted: PEFT can't
                      # read its own file again where another order gave other ranks.
                      rank_pattern={r".*DenseReluDense\.wo": 1, "SelfAttention.q": 3,
                                    r"decoder\.block\.1\..*\.q": 5, "encoder.block.1.layer.0.SelfAttention.q": 6, "k": 2},
                      alpha_pattern={"layer.1.EncDecAttention.q": 2.5, "v": 3}, layers_to_transform=[1],
                      layers_pattern=["block"], exclude_modules=["encoder.block.1.layer.0.SelfAttention.o"]),
                 ["encoder.block.1.layer.0.SelfAttention.q"]),
    "layers": ("t5-v1.0", 2e-3,
               dict(r=2, lora_alpha=4, target_modules=["q", "v", "query_key_value"], layers_to_transform=[0, 2],
                    exclude_modules=r".*EncDecAttention\.v"),
               ["decoder.block.2.layer.0.SelfAttention.v"]),
    "expression": ("t5-half", 2e-3,
                   dict(r=4, lora_alpha=4, target_modules=r"decoder\.block\.[02]\..*\.(q|wi_0|wi_1)"),
                   ["decoder.block.0.layer.1.EncDecAttention.q"]),
    "output-layer": ("t5-v1.1", 2e-3, dict(r=2, lora_alpha=4, target_modules=["q", "lm_head"]), ["lm_head"]),
}


def move(model):
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if "lora_B" in key:
                parameter.normal_(0, 0.1)


if __name__ == "__main__":
    for name, (base, rate, settings, merged) in VARIANTS.items():
        write(name, base, rate, LoraConfig(task_type="SEQ_2_SEQ_LM", **settings), merged, move)
