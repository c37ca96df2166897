"""Adapters of AdapterHub's program with the logits of the small models: the folders of `adapterhub`.

    python make_adapterhub_fixtures.py [NAME…]        # adapters 1.3.0, transformers 4.57, torch 2.13

Every folder holds an adapter with random values as `save_adapter` writes it, and `expected.safetensors`: token ids and logits.
"""
import json
import os
import sys

import adapters
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertForSequenceClassification, LlamaConfig, LlamaForCausalLM

HERE = os.path.dirname(os.path.abspath(__file__))
MODELS = os.path.join(HERE, "..", "..", "LanguageModelsTests", "Fixtures")


def model(name):
    folder = os.path.join(MODELS, name)
    with open(os.path.join(folder, "config.json")) as file:
        settings = json.load(file)
    # Older versions of transformers have other keys.
    rope = settings.pop("rope_parameters", None)
    if rope:
        settings["rope_theta"] = rope.pop("rope_theta")
        settings["rope_scaling"] = rope
    classes = {"bert": (BertConfig, BertForSequenceClassification), "llama": (LlamaConfig, LlamaForCausalLM)}
    configuration, kind = classes[name]
    result = kind(configuration(**settings, attn_implementation="eager")).eval()
    missing, unexpected = result.load_state_dict(load_file(os.path.join(folder, "model.safetensors")), strict=False)
    assert not unexpected and not [name for name in missing if "rotary" not in name], (missing, unexpected)
    return result


def make(name, base, config):
    if sys.argv[1:] and name not in sys.argv[1:]:
        return
    torch.manual_seed(len(name))
    own = model(base)
    adapters.init(own)
    own.add_adapter("task", config=config)
    own.set_active_adapters("task")
    for key, value in own.named_parameters():
        if ".task." in key:
            value.data = torch.randn_like(value) * 0.3 + (1 if key.endswith("lora_B") and "ia3" in name else 0)
    folder = os.path.join(HERE, "adapterhub", name)
    os.makedirs(folder, exist_ok=True)
    own.save_adapter(folder, "task", with_head=False)
    ids = torch.tensor([[5, 17, 33, 60, 7, 21]])
    with torch.no_grad():
        logits = own(ids).logits
    save_file({"ids": ids, "logits": logits.squeeze(0)}, os.path.join(folder, "expected.safetensors"))
    for file in os.listdir(folder):
        if "head" in file:
            os.remove(os.path.join(folder, file))


if __name__ == "__main__":
    make("llama-lora", "llama", "lora[r=4,alpha=8,intermediate_lora=True]")
    make("llama-ia3", "llama", "ia3")
    make("llama-houlsby", "llama", "double_seq_bn[reduction_factor=8]")
    make("llama-pfeiffer", "llama", "seq_bn[reduction_factor=8]")
    make("bert-lora", "bert", "lora[r=2,alpha=6,output_lora=True]")
    make("bert-ia3", "bert", "ia3")
    make("bert-houlsby", "bert", "double_seq_bn[reduction_factor=8,non_linearity='gelu']")
    make("bert-parallel", "bert", "par_bn[reduction_factor=8]")
    make("bert-pfeiffer", "bert", "seq_bn[reduction_factor=8]")
    make("bert-compacter", "bert", "compacter[phm_dim=2,reduction_factor=6]")
    make("llama-parallel", "llama", "par_bn[reduction_factor=8]")
    make("llama-channel", "llama", "seq_bn[reduction_factor=8,scaling='channel']")
    make("llama-learned", "llama", "double_seq_bn[reduction_factor=8,scaling='learned']")
    make("llama-prefix", "llama", "prefix_tuning[prefix_length=3,bottleneck_size=4]")
    make("llama-prefix-flat", "llama", "prefix_tuning[prefix_length=2,flat=True]")
    make("bert-prefix", "bert", "prefix_tuning[prefix_length=2,flat=True]")
