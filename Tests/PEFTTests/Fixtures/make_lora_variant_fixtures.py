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


def widen_gaps(model, rank=3):
    """Sets the first singular values of q and v well apart, from each other and from the rest.

    PEFT decomposes in single precision. Where singular values lie close together their vectors, and with them all that is
    computed from A and B, depend on how the processor's libraries round.
    """
    for name, module in model.named_modules():
        if name.split(".")[-1] in ("q", "v"):
            u, s, vh = torch.linalg.svd(module.weight.detach().double(), full_matrices=False)
            s = torch.cat([s[0] * torch.tensor([1.0, 0.8, 0.6], dtype=s.dtype), s[rank:] * 0.05])
            module.weight.data.copy_(u @ s.diag() @ vh)


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
          ["encoder.block.0.layer.0.SelfAttention.q"], move, prepare=widen_gaps)
    write("olora", "t5-v1.0", 3e-4,
          LoraConfig(r=3, lora_alpha=3, init_lora_weights="olora", target_modules=["k", "wo"], **COMMON),
          ["decoder.block.1.layer.0.SelfAttention.k"], move)
