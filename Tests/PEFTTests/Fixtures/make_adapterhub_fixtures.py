"""Adapters of AdapterHub's program with the logits of the small models: the folders of `adapterhub`.

    python make_adapterhub_fixtures.py [NAME…]        # adapters 1.3.0, transformers 4.57, torch 2.13

Every folder holds an adapter with random values as `save_adapter` writes it, and `expected.safetensors`: token ids and logits.
Folders of compositions (`save_adapter_setup`) also have the gradients of the loss with the fusion's penalty, and the losses of 20 steps
in which the last level is trained.
"""
import json
import os
import sys

import adapters
import adapters.composition as composition
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


def compose(name, base, members, setup, fusion=None, **settings):
    """A stack or a fusion of bottleneck adapters."""
    if sys.argv[1:] and name not in sys.argv[1:]:
        return
    torch.manual_seed(len(name))
    own = model(base)
    adapters.init(own)
    for member, config in members.items():
        own.add_adapter(member, config=config)
    fused = setup if isinstance(setup, composition.Fuse) else next(
        (child for child in setup.children if isinstance(child, composition.Fuse)), None)
    if fused:
        own.add_adapter_fusion(fused, adapters.AdapterFusionConfig.load(fusion, **settings))
        own.train_adapter_fusion(fused)
    else:
        own.train_adapter(setup.children[-1])
    own.set_active_adapters(setup)
    own.eval()
    for key, value in own.named_parameters():
        if any(f".{member}." in key for member in members):
            value.data = torch.randn_like(value) * 0.3
        elif "adapter_fusion_layer" in key:
            value.data = torch.randn_like(value) * 0.2 + (torch.eye(len(value)) if ".value." in key else 0)
    folder = os.path.join(HERE, "adapterhub", name)
    os.makedirs(folder, exist_ok=True)
    own.save_adapter_setup(folder, setup, use_safetensors="llama" in name)
    for path, _, files in os.walk(folder):
        for file in files:
            if "head" in file:
                os.remove(os.path.join(path, file))
    ids = torch.tensor([[5, 17, 33, 60, 7, 21]])

    def loss():
        logits = own(ids).logits
        if base == "bert":
            value = torch.nn.functional.cross_entropy(logits, torch.tensor([1]))
        else:
            value = torch.nn.functional.cross_entropy(logits[0, 2:5], ids[0, 3:])
        if fused and settings.get("regularization", fusion == "dynamic"):
            value = value + own.base_model.get_fusion_regularization_loss()
        return value

    trained = {key: value for key, value in own.named_parameters() if value.requires_grad and "classifier" not in key}
    with torch.no_grad():
        logits = own(ids).logits
    loss().backward()
    saved = {"ids": ids, "logits": logits.squeeze(0)}
    for key, value in trained.items():
        # One tensor of each kind, of the last layer.
        if ".1." in key:
            saved["gradient." + key] = value.grad.clone()
    optimizer = torch.optim.AdamW(trained.values(), lr=5e-3, weight_decay=0.01)
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        value = loss()
        value.backward()
        optimizer.step()
        losses.append(value.item())
    saved["losses"] = torch.tensor(losses)
    save_file(saved, os.path.join(folder, "expected.safetensors"))


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
    three = {"a": "seq_bn[reduction_factor=8]", "b": "seq_bn[reduction_factor=6,non_linearity='gelu']", "c": "seq_bn[reduction_factor=12]"}
    compose("bert-fusion", "bert", three, composition.Fuse("a", "b", "c"), "dynamic")
    compose("llama-fusion", "llama", three, composition.Fuse("a", "b", "c"), "dynamic")
    compose(
        "bert-fusion-static", "bert", {key: config.replace("seq", "double_seq") for key, config in three.items()},
        composition.Fuse("b", "a"), "static", query_before_ln=True)
    compose("llama-fusion-residual", "llama", three, composition.Fuse("a", "b"), "dynamic", residual_before=True,
            regularization=False, value_before_softmax=False)
    compose("llama-stack", "llama", {"a": "double_seq_bn[reduction_factor=8]", "b": three["b"]}, composition.Stack("a", "b"))
    compose("bert-stack-fusion", "bert", three, composition.Stack("c", composition.Fuse("a", "b")), "dynamic")
