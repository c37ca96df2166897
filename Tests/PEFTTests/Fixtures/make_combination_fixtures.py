"""Writes two LoRA adapters and what Hugging Face PEFT makes of them together, method by method.

    pip install torch transformers peft safetensors
    OMP_NUM_THREADS=1 python make_combination_fixtures.py
"""
import json
import shutil

import torch
from peft import LoraConfig, get_peft_model
from peft.utils import merge_utils
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file
from transformers import AutoModelForSeq2SeqLM

from hugging_face import HERE, MODELS

BASE = "t5-v1.1"
METHODS = {
    "linear": dict(combination_type="linear"), "negative": dict(combination_type="linear"),
    "cat": dict(combination_type="cat"), "svd": dict(combination_type="svd", svd_rank=3),
    "ties": dict(combination_type="ties", density=0.4),
    "ties-frequency": dict(combination_type="ties", density=0.6, majority_sign_method="frequency"),
    "ties_svd": dict(combination_type="ties_svd", density=0.5, svd_rank=4),
    "magnitude_prune": dict(combination_type="magnitude_prune", density=0.3),
    "magnitude_prune_svd": dict(combination_type="magnitude_prune_svd", density=0.3),
    "svd-clamp": dict(combination_type="svd", svd_rank=4, svd_clamp=0.9),
    "dare_linear": dict(combination_type="dare_linear", density=0.5),
    "dare_ties": dict(combination_type="dare_ties", density=0.7),
    "dare_linear_svd": dict(combination_type="dare_linear_svd", density=0.6),
    "dare_ties_svd": dict(combination_type="dare_ties_svd", density=0.4),
}


def fixed(tensor, density, rescale):
    """Stands in for chance in DARE: what is kept is a function of the position."""
    index = torch.arange(tensor.numel())
    mask = ((index * 7919 + 13) % 101 < density * 101).reshape(tensor.shape).to(tensor.dtype)
    return tensor * mask / density


merge_utils.random_pruning = fixed
torch.manual_seed(1)
model = AutoModelForSeq2SeqLM.from_pretrained(MODELS / BASE, dtype=torch.float32)
model.config._name_or_path = model.name_or_path = BASE
settings = dict(target_modules=["q", "wo"], layers_to_transform=[0], layers_pattern=["block"], task_type="SEQ_2_SEQ_LM")
peft = get_peft_model(model, LoraConfig(r=3, lora_alpha=6, **settings), "a")
peft.add_adapter("b", LoraConfig(r=3, lora_alpha=4.5, **settings))
with torch.no_grad():
    for key, parameter in peft.named_parameters():
        if "lora_" in key:
            parameter.normal_(0, 0.3)
folder = HERE / "combinations"
shutil.rmtree(folder, ignore_errors=True)
for name in "ab":
    peft.peft_config[name].base_model_name_or_path = BASE
peft.save_pretrained(folder)
for readme in folder.rglob("README.md"):
    readme.unlink()
for name, options in METHODS.items():
    weights = [0.7, -0.3] if name == "negative" else [0.7, 0.4]
    peft.add_weighted_adapter(["a", "b"], weights, name, **options)
    state = get_peft_model_state_dict(peft, adapter_name=name, save_embedding_layers=False)
    updates = {k.replace(".lora_A.weight", ""): state[k.replace("lora_A", "lora_B")] @ state[k] for k in state if "lora_A" in k}
    save_file({k: v.contiguous() for k, v in updates.items()}, folder / f"{name}.safetensors",
              metadata={"options": json.dumps(dict(options, weights=weights))})
    print(name, len(updates))
