"""Writes adapters over the decoders of `make_older_decoder_fixtures.py` that Hugging Face PEFT made.

    pip install torch transformers peft safetensors
    OMP_NUM_THREADS=1 python make_older_decoder_adapter_fixtures.py

The same things are stored as by the other scripts (see hugging_face.py), in folders `hugging-face/<model>-<method>`.
"""
import json
import shutil

import torch
from peft import IA3Config, LNTuningConfig, LoraConfig, PrefixTuningConfig, PromptTuningConfig, VeraConfig, get_peft_model
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

from hugging_face import HERE, MODELS, jitter


def inputs(data):
    pad = lambda lists, value: torch.tensor([x + [value] * (max(map(len, lists)) - len(x)) for x in lists])
    return dict(input_ids=pad([x + y for x, y in data], 0), attention_mask=pad([[1] * len(x + y) for x, y in data], 0),
                labels=pad([[-100] * len(x) + y for x, y in data], -100))


def write(name, base, config, rate=1e-3, virtual=0, merged=()):
    torch.manual_seed(sum(map(ord, name)))
    path = f"decoders/{base}"
    # Falcon's attention that is written out adds linear biases twice.
    model = AutoModelForCausalLM.from_pretrained(
        MODELS / path, dtype=torch.float32, attn_implementation="sdpa" if "falcon" in base else "eager")
    model.config._name_or_path = model.name_or_path = path
    data = json.loads((MODELS / path / "expected.json").read_text())["rows"]
    peft = get_peft_model(model, config).eval()
    peft.peft_config["default"].base_model_name_or_path = path
    jitter(peft, 0.1)
    folder = HERE / "hugging-face" / name
    shutil.rmtree(folder, ignore_errors=True)
    peft.save_pretrained(folder)
    (folder / "README.md").unlink()
    peft.train()  # there is no dropout
    out = peft(**inputs(data))
    out.loss.backward()
    logits = torch.cat([out.logits[i, virtual + len(x) - 1: virtual + len(x + y) - 1] for i, (x, y) in enumerate(data)])
    tensors = {"logits": logits.detach()}
    values = {p.data_ptr(): p for p in peft.parameters() if p.requires_grad}
    for key, value in get_peft_model_state_dict(peft, save_embedding_layers=False).items():
        if value.data_ptr() in values:
            tensors["gradient." + key] = values[value.data_ptr()].grad.reshape(value.shape).clone()
        elif key == "prompt_embeddings":
            tensors["gradient." + key] = peft.prompt_encoder["default"].embedding.weight.grad.clone()
    peft.zero_grad()
    parameters = [p for p in peft.parameters() if p.requires_grad]
    start = [p.detach().clone() for p in parameters]
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.01)
    curve = []
    for step in range(20):
        optimizer.zero_grad()
        loss = peft(**inputs([data[step % 3], data[(step + 1) % 3]])).loss
        loss.backward()
        optimizer.step()
        curve.append(loss.item())
    if merged:
        with torch.no_grad():
            for p, value in zip(parameters, start):
                p.copy_(value)
        whole = peft.merge_and_unload().state_dict()
        for path in merged:
            tensors["merged." + path] = whole[path + ".weight"]
    save_file({k: v.contiguous() for k, v in tensors.items()}, folder / "expected.safetensors")
    (folder / "expected.json").write_text(
        json.dumps(dict(base=f"decoders/{base}", rows=data, loss=out.loss.item(), losses=curve, rate=rate),
                   sort_keys=True) + "\n")
    print(name, out.loss.item(), curve[0], curve[-1])


LM = dict(task_type="CAUSAL_LM")
write("gpt-neox-lora", "gpt-neox", LoraConfig(r=3, lora_alpha=6, **LM),
      merged=["gpt_neox.layers.0.attention.query_key_value"])
write("opt-prefix", "opt", PrefixTuningConfig(num_virtual_tokens=4, **LM))
write("opt-projected-lora", "opt-projected", LoraConfig(r=2, lora_alpha=4, target_modules="all-linear", **LM))
write("bloom-prefix", "bloom", PrefixTuningConfig(num_virtual_tokens=4, **LM))
write("bloom-prompt", "bloom", PromptTuningConfig(num_virtual_tokens=3, **LM), virtual=3)
write("bloom-norms", "bloom", LNTuningConfig(**LM))
write("phi-vera", "phi", VeraConfig(r=3, projection_prng_key=1, **LM))
write("phi-prefix", "phi-head-norms", PrefixTuningConfig(num_virtual_tokens=4, **LM))
write("falcon-ia3", "falcon", IA3Config(**LM))
write("falcon-prefix", "falcon-alibi", PrefixTuningConfig(num_virtual_tokens=3, **LM))
write("gptj-prefix", "gptj", PrefixTuningConfig(num_virtual_tokens=4, **LM))
write("gptj-output", "gptj", LoraConfig(r=2, lora_alpha=4, target_modules=["q_proj", "lm_head"], **LM))
