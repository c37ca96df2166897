"""Loads the adapters that swift-peft wrote in Hugging Face PEFT, and stores what they compute there.

    PEFT_WRITE_FIXTURES=1 swift test --filter InterchangeTests
    pip install torch transformers peft safetensors
    OMP_NUM_THREADS=1 python check_interchange.py [NAME…]

Fails if a tensor of an adapter was missing, left over or not used.
"""
import json
import pathlib
import sys

import torch
from peft import PeftModel
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, T5ForConditionalGeneration

import make_task_fixtures as tasks

from hugging_face import MODELS, inputs, padded
from quantized_base import load as load_quantized

HERE = pathlib.Path(__file__).parent


def packed(data):
    """Rows of a decoder, padded on the right."""
    width = max(len(x + y) for x, y in data)
    return dict(input_ids=torch.tensor([x + y + [0] * (width - len(x + y)) for x, y in data]),
                attention_mask=torch.tensor([[1] * len(x + y) + [0] * (width - len(x + y)) for x, y in data]))


for folder in sorted(p for p in (HERE / "interchange").iterdir() if p.is_dir() and p.name in (sys.argv[1:] or [p.name])):
    base = json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"]
    if ":" in base:
        family, task = base.split(":")
        rows = tasks.rows(task)
        model = PeftModel.from_pretrained(tasks.load(family, task), folder).eval()
        stored = load_file(folder / "adapter_model.safetensors")
        loaded = get_peft_model_state_dict(model, save_embedding_layers=False)
        assert stored.keys() == loaded.keys(), (folder.name, stored.keys() ^ loaded.keys())
        assert all(torch.equal(stored[k], loaded[k]) for k in stored), folder.name
        with torch.no_grad():
            kept = tasks.run(model, task, rows)[1]
        save_file({"logits": kept.contiguous()}, HERE / "interchange" / f"{folder.name}.expected.safetensors",
                  metadata={"rows": json.dumps({"rows": rows})})
        print(folder.name, base, len(stored), "tensors")
        continue
    rows = json.loads((MODELS / base / "expected.json").read_text())["rows"]
    is_decoder = base.startswith(("decoders/", "gptq/"))
    maker = AutoModelForCausalLM if is_decoder else T5ForConditionalGeneration
    is_quantized = base.startswith("gptq/")
    model = load_quantized(base) if is_quantized else maker.from_pretrained(MODELS / base, dtype=torch.float32)
    with torch.no_grad():
        plain = model.eval()(**(packed if is_decoder else padded)(rows)).logits
    # AdaLoRA's forward pass with labels asks for an adapter in training.
    model = PeftModel.from_pretrained(model, folder, is_trainable="adalora" in folder.name).eval()
    stored = load_file(folder / "adapter_model.safetensors")
    loaded = get_peft_model_state_dict(model, save_embedding_layers=False)
    loaded = {k: v for k, v in loaded.items() if "base_layer" not in k}
    # RandLoRA's shared bases are listed for each projection too.
    loaded = {k: v for k, v in loaded.items() if not k.endswith((".randlora_A", ".randlora_B")) or k.count(".") == 1}
    assert stored.keys() == loaded.keys(), (folder.name, stored.keys() ^ loaded.keys())
    assert all(torch.equal(stored[k], loaded[k]) for k in stored), folder.name
    with torch.no_grad():
        logits = model(**(packed(rows) if is_decoder else inputs(model, rows))).logits
    assert (logits[:, -plain.shape[1]:] - plain).abs().max() > 0.01 * plain.abs().max(), folder.name
    first = logits.shape[1] - max(len(y) for _, y in rows)  # virtual tokens of a decoder come before
    kept = torch.cat([logits[i, first:][: len(y)] for i, (_, y) in enumerate(rows)])
    if is_decoder:
        first = logits.shape[1] - plain.shape[1]
        kept = torch.cat([logits[i, first + len(x) - 1: first + len(x + y) - 1] for i, (x, y) in enumerate(rows)])
    # A one-field object, as safetensors' metadata holds strings.
    save_file({"logits": kept}, HERE / "interchange" / f"{folder.name}.expected.safetensors",
              metadata={"rows": json.dumps({"rows": rows})})
    print(folder.name, base, len(stored), "tensors")
