"""Folders that transformers writes with bitsandbytes, and the logits of those models: bitsandbytes/.

    python make_bitsandbytes_fixtures.py              # bitsandbytes 0.50, transformers 5.24, torch 2.15, on a CPU
    python make_bitsandbytes_fixtures.py --check F    # loads a folder that peft quantize made of bitsandbytes/dense

The 4-bit models compute in float32. transformers' int8 models round x too, which this program does not: their logits
are those of a model whose weights are the numbers that the int8 stand for. All rows are whole blocks: where they aren't,
bitsandbytes' kernels for a CPU take another block's scale.
"""
import argparse
import json
import os
import shutil
import sys

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, GPT2Config, LlamaConfig

here = os.path.join(os.path.dirname(os.path.abspath(__file__)), "bitsandbytes")
rows = [([1, 5, 9, 33, 2], [7, 11, 40]), ([3, 44], [12, 6])]


def logits(model):
    parts = []
    for prompt, target in rows:
        ids = torch.tensor([prompt + target])
        parts.append(model(ids).logits[0, len(prompt) - 1:-1])
    return torch.cat(parts).detach().contiguous()


def dense(folder, config, generator):
    torch.manual_seed(generator)
    model = AutoModelForCausalLM.from_config(config)
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.15)
    model.save_pretrained(folder)


def widened(folder):
    """The int8 folder's tensors as a plain checkpoint."""
    tensors = load_file(os.path.join(folder, "model.safetensors"))
    plain = {}
    for name, tensor in tensors.items():
        if name.endswith((".SCB", ".weight_format")):
            continue
        scale = tensors.get(name.removesuffix("weight") + "SCB")
        plain[name] = tensor.float() * (scale / 127).unsqueeze(1) if scale is not None else tensor
    return plain


def main():
    shutil.rmtree(here, ignore_errors=True)
    llama = LlamaConfig(vocab_size=48, hidden_size=64, intermediate_size=128, num_hidden_layers=1,
                        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64)
    gpt2 = GPT2Config(vocab_size=48, n_embd=64, n_layer=1, n_head=2, n_positions=32)
    dense(os.path.join(here, "dense"), llama, 1)
    dense(os.path.join(here, "dense-gpt2"), gpt2, 2)
    four = dict(load_in_4bit=True, bnb_4bit_compute_dtype=torch.float32)
    kinds = {
        "nf4": ("dense", four | dict(bnb_4bit_quant_type="nf4")),
        "nf4-double": ("dense", four | dict(bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True)),
        "fp4-some": ("dense", four | dict(bnb_4bit_quant_type="fp4",
                                          llm_int8_skip_modules=["lm_head", "q_proj", "up_proj"])),
        "int8": ("dense", dict(load_in_8bit=True)),
        "gpt2": ("dense-gpt2", four | dict(bnb_4bit_quant_type="nf4")),
    }
    for name, (source, settings) in kinds.items():
        model = AutoModelForCausalLM.from_pretrained(
            os.path.join(here, source), quantization_config=BitsAndBytesConfig(**settings), dtype=torch.float32,
            device_map={"": "cpu"})
        folder = os.path.join(here, name)
        model.save_pretrained(folder)
        if name == "int8":
            model = AutoModelForCausalLM.from_pretrained(os.path.join(here, source), dtype=torch.float32)
            model.load_state_dict(widened(folder), strict=False)
        save_file({"logits": logits(model)}, os.path.join(folder, "expected.safetensors"))
        with open(os.path.join(folder, "expected.json"), "w") as file:
            json.dump({"rows": rows}, file)
    shutil.rmtree(os.path.join(here, "dense-gpt2"))
    for path, _, files in os.walk(here):
        for file in files:
            os.chmod(os.path.join(path, file), 0o644)
            if file == "generation_config.json":
                os.remove(os.path.join(path, file))


def check(folder):
    model = AutoModelForCausalLM.from_pretrained(folder, device_map={"": "cpu"})
    own = logits(model)
    config = model.config.quantization_config
    config = config if isinstance(config, dict) else config.to_dict()
    name = "int8" if config["load_in_8bit"] else config["bnb_4bit_quant_type"]
    name += "-double" if config["bnb_4bit_use_double_quant"] else ""
    expected = load_file(os.path.join(here, name, "expected.safetensors"))["logits"]
    difference = ((own - expected).abs().max() / expected.abs().max()).item()
    print(f"{name}: {difference:.2e}")
    # There x is rounded to int8.
    sys.exit(difference > (5e-2 if name == "int8" else 1e-5))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--check")
    arguments = parser.parse_args()
    check(arguments.check) if arguments.check else main()
