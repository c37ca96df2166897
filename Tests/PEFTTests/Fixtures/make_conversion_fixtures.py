"""Writes adapters in older formats, with what the programs that made them compute.

    pip install torch transformers peft safetensors loralib
    OMP_NUM_THREADS=1 python make_conversion_fixtures.py

`conversions/loralib.pt` is a state dictionary of loralib over the small GPT-2 (queries and values of the fused
projection, and their biases), `conversions/loralib.safetensors` the scores. `conversions/older` is an adapter as early
versions of Hugging Face PEFT wrote it: a pickle, and settings that no longer exist; `conversions/older.safetensors` its
tensors. `conversions/pickled.bin` holds the tensors of `hugging-face/query-value`. The other `conversions/*.bin` are
pickles that must be refused.
"""
import json
import os
import pickle
import shutil
import zipfile

import loralib
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from hugging_face import HERE, MODELS

FOLDER = HERE / "conversions"
shutil.rmtree(FOLDER, ignore_errors=True)
FOLDER.mkdir()


def loralib_adapter():
    torch.manual_seed(3)
    model = AutoModelForCausalLM.from_pretrained(MODELS / "gpt2", dtype=torch.float32).eval()
    for block in model.transformer.h:
        old = block.attn.c_attn
        # loralib multiplies by the transpose where the weight lies [in, out].
        new = loralib.MergedLinear(24, 72, r=4, lora_alpha=8, enable_lora=[True, False, True], fan_in_fan_out=True,
                                   merge_weights=False)
        new.weight.data = old.weight.data.clone()
        new.bias.data = old.bias.data + 0.1 * torch.randn_like(old.bias)
        new.lora_A.data.normal_(0, 0.3)
        new.lora_B.data.normal_(0, 0.3)
        block.attn.c_attn = new
    model.eval()
    torch.save(loralib.lora_state_dict(model, bias="lora_only"), FOLDER / "loralib.pt")
    data = json.loads((MODELS / "gpt2" / "expected.json").read_text())["rows"]
    with torch.no_grad():
        logits = torch.cat([model(torch.tensor([x + y])).logits[0, len(x) - 1: len(x) + len(y) - 1] for x, y in data])
    save_file({"logits": logits}, FOLDER / "loralib.safetensors", metadata={"rows": json.dumps({"rows": data})})


def older_adapter():
    source = HERE / "hugging-face" / "query-value"
    (FOLDER / "older").mkdir()
    tensors = load_file(source / "adapter_model.safetensors")
    old = {k.replace(".weight", ".default.weight"): v for k, v in tensors.items()}
    # One is stored transposed, one in half precision, as a parameter.
    first, second = sorted(old)[:2]
    old[first] = old[first].T.contiguous().T
    old[second] = torch.nn.Parameter(old[second].half())
    tensors[second.replace(".default", "")] = old[second].detach()
    torch.save(old, FOLDER / "older" / "adapter_model.bin")
    config = json.loads((source / "adapter_config.json").read_text())
    early = {k: config[k] for k in ("base_model_name_or_path", "task_type", "r", "lora_alpha", "lora_dropout",
                                    "fan_in_fan_out", "bias", "target_modules", "modules_to_save")}
    early.update(peft_type="lora", enable_lora=None, merge_weights=False, inference_mode=True)
    (FOLDER / "older" / "adapter_config.json").write_text(json.dumps(early, indent=2, sort_keys=True) + "\n")
    save_file({k: v.contiguous() for k, v in tensors.items()}, FOLDER / "older.safetensors")


def pickled_adapter():
    torch.save(load_file(HERE / "hugging-face" / "query-value" / "adapter_model.safetensors"), FOLDER / "pickled.bin")


class Evil:
    def __reduce__(self):
        return os.system, ("true",)


def archive(name, pickled):
    with zipfile.ZipFile(FOLDER / name, "w", zipfile.ZIP_STORED) as zip:
        zip.writestr("archive/data.pkl", pickled)


loralib_adapter()
older_adapter()
pickled_adapter()
archive("evil.bin", pickle.dumps({"x": Evil()}, protocol=2))
archive("global.bin", pickle.dumps({"x": zipfile.ZipFile}, protocol=2))
archive("number.bin", pickle.dumps(7, protocol=2))
archive("cut.bin", pickle.dumps({"x": list(range(50))}, protocol=2)[:30])
