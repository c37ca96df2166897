"""Writes adapters over decoders of `make_newer_decoder_fixtures.py` that Hugging Face PEFT made.

    pip install torch transformers peft safetensors
    OMP_NUM_THREADS=1 python make_newer_decoder_adapter_fixtures.py

The same things are stored as by `make_decoder_adapter_fixtures.py`.
"""
from peft import LoraConfig, PrefixTuningConfig, PromptTuningConfig
from transformers import AutoModelForImageTextToText

from make_decoder_adapter_fixtures import LM, write

# Granite scales its virtual tokens too.
write("granite-prompt", "granite", PromptTuningConfig(num_virtual_tokens=4, **LM), virtual=4)
# Keys whose neighboring dimensions are rotated.
write("glm4-prefix", "glm4", PrefixTuningConfig(num_virtual_tokens=4, **LM))
write("glm4-lora", "glm4", LoraConfig(r=3, lora_alpha=6, target_modules=["q_proj", "gate_up_proj"], **LM),
      merged=["model.layers.0.mlp.gate_up_proj"])
# The text part below `model.language_model`.
write("qwen3_vl-lora", "qwen3_vl", LoraConfig(r=3, lora_alpha=6, target_modules=["q_proj", "v_proj", "down_proj"], **LM),
      merged=["model.language_model.layers.1.self_attn.q_proj"], maker=AutoModelForImageTextToText)
