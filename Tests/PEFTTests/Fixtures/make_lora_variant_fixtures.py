"""Writes adapters of LoRA's variants that Hugging Face PEFT made (see hugging_face.py).

    pip install torch transformers peft safetensors
    OMP_NUM_THREADS=1 python make_lora_variant_fixtures.py
"""
import torch
from peft import LoraConfig

from hugging_face import write

COMMON = dict(task_type="SEQ_2_SEQ_LM")


def move(model, deviation=0.05):
    """B and the magnitudes away from where they begin."""
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if "lora_B" in key or "magnitude" in key:
                parameter.add_(torch.randn_like(parameter) * deviation)


if __name__ == "__main__":
    write("dora", "t5-v1.1", 1e-3,
          LoraConfig(r=4, lora_alpha=6, use_dora=True, target_modules=["q", "v", "wo"], **COMMON),
          ["encoder.block.0.layer.0.SelfAttention.q", "decoder.block.1.layer.2.DenseReluDense.wo"], move)
    write("dora-rslora", "t5-v1.0", 1e-3,
          LoraConfig(r=2, lora_alpha=2, use_dora=True, use_rslora=True, target_modules="all-linear", **COMMON),
          ["encoder.block.0.layer.0.SelfAttention.q"], move)
    # Read again, these decompose the weight as they did when they were made.
    write("pissa", "t5-v1.1", 3e-4,
          LoraConfig(r=3, lora_alpha=6, init_lora_weights="pissa", target_modules=["q", "v"], **COMMON),
          ["encoder.block.0.layer.0.SelfAttention.q"], move)
    write("olora", "t5-v1.0", 3e-4,
          LoraConfig(r=3, lora_alpha=3, init_lora_weights="olora", target_modules=["k", "wo"], **COMMON),
          ["decoder.block.1.layer.0.SelfAttention.k"], move)
