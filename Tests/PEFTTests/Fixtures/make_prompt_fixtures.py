"""Writes adapters with virtual tokens that Hugging Face PEFT made, with what it computes with them.

    pip install torch transformers peft safetensors
    OMP_NUM_THREADS=1 python make_prompt_fixtures.py

What P-tuning and projected prefixes store is what a network made, and the network is gone: the gradients and the curve
beside those adapters are those of the stored prompt, trained as it is. The curve of the network, from initial weights
that are stored with it, is in `networks/*.safetensors`, for `PromptNetworkTests`.
"""
import json
import pathlib

import torch
from peft import (MultitaskPromptTuningConfig, PrefixTuningConfig, PromptEncoderConfig, PromptTuningConfig,
                  get_peft_model)
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSeq2SeqLM

from hugging_face import MODELS, losses, write

HERE = pathlib.Path(__file__).parent
SEQ2SEQ = dict(task_type="SEQ_2_SEQ_LM")


def still(model):
    """Virtual tokens start random: they need no further move."""


def small(model):
    with torch.no_grad():
        model.prompt_encoder["default"].embedding.weight.mul_(0.5)


def mixed(model):
    """Task factors near one, so that prompts are not tiny."""
    with torch.no_grad():
        encoder = model.prompt_encoder["default"]
        encoder.prefix_task_cols.normal_(0, 1)
        encoder.prefix_task_rows.normal_(0, 0.5)


def network(plain, rate):
    """For `then`: the network's curve, then a model of the method `plain` with the stored prompt."""
    def then(model, data, folder):
        start = {k: v.detach().clone() for k, v in model.prompt_encoder["default"].state_dict().items()}
        curve = losses(model, data, rate)
        target = HERE / "networks" / f"{folder.name}.safetensors"
        target.parent.mkdir(exist_ok=True)
        base = model.peft_config["default"].base_model_name_or_path
        save_file(start, target, metadata={"curve": json.dumps(dict(losses=curve, rate=rate, base=base))})
        other = get_peft_model(
            AutoModelForSeq2SeqLM.from_pretrained(MODELS / base, dtype=torch.float32), plain).eval()
        with torch.no_grad():
            other.prompt_encoder["default"].embedding.weight.copy_(
                load_file(folder / "adapter_model.safetensors")["prompt_embeddings"])
        return other
    return then


write("prompt", "t5-v1.0", 3e-2, PromptTuningConfig(num_virtual_tokens=5, **SEQ2SEQ), move=small)
write("prompt-encoder", "t5-v1.1", 1e-3,
      PromptTuningConfig(num_virtual_tokens=4, num_transformer_submodules=1, prompt_tuning_init="SAMPLE_VOCAB",
                         **SEQ2SEQ), move=still)
for name, base, kind, stacks in [("p-tuning-mlp", "t5-v1.1", "MLP", 1), ("p-tuning-lstm", "t5-tied-gated", "LSTM", 2)]:
    write(name, base, 1e-2,
          PromptEncoderConfig(num_virtual_tokens=4, num_transformer_submodules=stacks, encoder_hidden_size=10,
                              encoder_reparameterization_type=kind, **SEQ2SEQ),
          move=still,
          then=network(PromptTuningConfig(num_virtual_tokens=4, num_transformer_submodules=stacks, **SEQ2SEQ), 5e-3))
# The number of layers is the decoder's; Hugging Face would take the encoder's.
write("prefix", "t5-v1.1", 1e-2, PrefixTuningConfig(num_virtual_tokens=4, num_layers=3, **SEQ2SEQ), move=still)
# Layers 0 and 2 share their prefix.
write("prefix-even", "t5-v1.0", 1e-2, PrefixTuningConfig(num_virtual_tokens=3, num_layers=4, **SEQ2SEQ), move=small)
write("prefix-projection", "t5-tied-gated", 1e-2,
      PrefixTuningConfig(num_virtual_tokens=4, num_layers=3, prefix_projection=True, encoder_hidden_size=10,
                         **SEQ2SEQ),
      move=still,
      then=network(PrefixTuningConfig(num_virtual_tokens=4, num_layers=3, **SEQ2SEQ), 5e-3))
write("multitask-both", "t5-v1.1", 1e-2,
      MultitaskPromptTuningConfig(num_virtual_tokens=4, num_tasks=2, num_ranks=2, **SEQ2SEQ), move=mixed)
write("multitask-encoder", "t5-v1.0", 1e-2,
      MultitaskPromptTuningConfig(num_virtual_tokens=4, num_tasks=3, num_ranks=1, num_transformer_submodules=1,
                                  **SEQ2SEQ), move=mixed)
