"""Writes adapters over decoder-only and encoder models that Hugging Face PEFT made (see hugging_face.py).

    pip install torch transformers peft safetensors
    OMP_NUM_THREADS=1 python make_architecture_fixtures.py

The same things are stored as for the seq2seq models, in folders `hugging-face/<model>-<method>`.
"""
import json
import shutil

import torch
from peft import (IA3Config, LoraConfig, PrefixTuningConfig, PromptTuningConfig, get_peft_model)
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from hugging_face import HERE, MODELS, jitter


def causal(data):
    width = max(len(x) + len(y) for x, y in data)
    return dict(input_ids=torch.tensor([x + y + [0] * (width - len(x) - len(y)) for x, y in data]),
                attention_mask=torch.tensor([[1] * (len(x) + len(y)) + [0] * (width - len(x) - len(y)) for x, y in data]),
                labels=torch.tensor([[-100] * len(x) + y + [-100] * (width - len(x) - len(y)) for x, y in data]))


def classes(data):
    width = max(len(x) for x, _ in data)
    return dict(input_ids=torch.tensor([x + [0] * (width - len(x)) for x, _ in data]),
                attention_mask=torch.tensor([[1] * len(x) + [0] * (width - len(x)) for x, _ in data]),
                labels=torch.tensor([y[0] for _, y in data]))


def write(name, base, config, rate, virtual=0):
    torch.manual_seed(sum(map(ord, name)))
    encoder = base == "bert"
    model = (AutoModelForSequenceClassification if encoder else AutoModelForCausalLM).from_pretrained(
        MODELS / base, dtype=torch.float32)
    model.config._name_or_path = model.name_or_path = base
    data = json.loads((MODELS / base / "expected.json").read_text())["rows"]
    inputs = classes if encoder else causal
    peft = get_peft_model(model, config).eval()
    peft.peft_config["default"].base_model_name_or_path = base
    jitter(peft, 0.1)
    folder = HERE / "hugging-face" / name
    shutil.rmtree(folder, ignore_errors=True)
    peft.save_pretrained(folder)
    (folder / "README.md").unlink()
    out = peft(**inputs(data))
    out.loss.backward()
    if encoder:
        logits = out.logits
    else:
        logits = torch.cat([out.logits[i, virtual + len(x) - 1: virtual + len(x) + len(y) - 1] for i, (x, y) in enumerate(data)])
    tensors = {"logits": logits.detach()}
    values = {p.data_ptr(): p for p in peft.parameters() if p.requires_grad}
    for key, value in get_peft_model_state_dict(peft, save_embedding_layers=False).items():
        if value.data_ptr() in values:
            tensors["gradient." + key] = values[value.data_ptr()].grad.reshape(value.shape).clone()
        elif key == "prompt_embeddings":
            tensors["gradient." + key] = peft.prompt_encoder["default"].embedding.weight.grad.clone()
    peft.zero_grad()
    optimizer = torch.optim.AdamW([p for p in peft.parameters() if p.requires_grad], lr=rate, weight_decay=0.01)
    curve = []
    for step in range(20):
        optimizer.zero_grad()
        loss = peft(**inputs([data[step % 3], data[(step + 1) % 3]])).loss
        loss.backward()
        optimizer.step()
        curve.append(loss.item())
    save_file({k: v.contiguous() for k, v in tensors.items()}, folder / "expected.safetensors")
    (folder / "expected.json").write_text(
        json.dumps(dict(base=base, rows=data, loss=out.loss.item(), losses=curve, rate=rate), sort_keys=True) + "\n")
    print(name, curve[0], curve[-1])


LM = dict(task_type="CAUSAL_LM")
CLS = dict(task_type="SEQ_CLS")
write("llama-lora", "llama", LoraConfig(r=3, lora_alpha=6, target_modules=["q_proj", "down_proj"], **LM), 1e-3)
write("llama-prompt", "llama", PromptTuningConfig(num_virtual_tokens=4, **LM), 1e-3, virtual=4)
write("llama-prefix", "llama", PrefixTuningConfig(num_virtual_tokens=4, **LM), 1e-3)
write("gpt2-lora", "gpt2", LoraConfig(r=3, lora_alpha=6, target_modules=["c_attn", "c_fc"], fan_in_fan_out=True, bias="lora_only", **LM), 1e-3)
write("gpt2-ia3", "gpt2", IA3Config(target_modules=["c_attn", "mlp.c_proj"], feedforward_modules=["mlp.c_proj"], fan_in_fan_out=True, **LM), 1e-3)
write("gpt2-prompt", "gpt2", PromptTuningConfig(num_virtual_tokens=3, **LM), 1e-3, virtual=3)
write("gpt2-prefix", "gpt2", PrefixTuningConfig(num_virtual_tokens=3, **LM), 1e-3)
write("bert-lora", "bert", LoraConfig(r=3, lora_alpha=6, target_modules=["query", "value"], bias="lora_only", **CLS), 1e-3)
write("bert-dora", "bert", LoraConfig(r=3, lora_alpha=6, use_dora=True, target_modules=["query", "output.dense"], **CLS), 1e-3)
write("bert-prompt", "bert", PromptTuningConfig(num_virtual_tokens=3, **CLS), 1e-3)
