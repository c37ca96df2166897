"""Writes QA-LoRA adapters that Hugging Face PEFT made over a GPTQ base, with what it computes.

    pip install torch transformers peft safetensors
    OMP_NUM_THREADS=1 python make_qalora_fixtures.py

The same things are stored as by the other scripts (see hugging_face.py), in folders `hugging-face/qalora*`.
"""
import json
import shutil

import torch
from peft import LoraConfig, get_peft_model
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file

from hugging_face import HERE, MODELS, jitter
from quantized_base import load, packed


def write(name, base, config, rate):
    torch.manual_seed(sum(map(ord, name)))
    data = json.loads((MODELS / base / "expected.json").read_text())["rows"]
    peft = get_peft_model(load(base), config).eval()
    peft.peft_config["default"].base_model_name_or_path = base
    jitter(peft, 0.1)
    folder = HERE / "hugging-face" / name
    shutil.rmtree(folder, ignore_errors=True)
    peft.save_pretrained(folder)
    (folder / "README.md").unlink()
    out = peft(**packed(data))
    out.loss.backward()
    logits = torch.cat([out.logits[i, len(x) - 1: len(x + y) - 1] for i, (x, y) in enumerate(data)])
    tensors = {"logits": logits.detach()}
    values = {p.data_ptr(): p for p in peft.parameters() if p.requires_grad}
    for key, value in get_peft_model_state_dict(peft, save_embedding_layers=False).items():
        tensors["gradient." + key] = values[value.data_ptr()].grad.clone()
    peft.zero_grad()

    def losses(perturbation):
        parameters = [p for p in peft.parameters() if p.requires_grad]
        torch.manual_seed(3)
        start = [p.detach().clone() for p in parameters]
        with torch.no_grad():
            for p in parameters:
                p.add_(torch.randn_like(p) * perturbation * p.abs().mean())
        optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.01)
        result = []
        for step in range(20):
            optimizer.zero_grad()
            loss = peft(**packed([data[step % 3], data[(step + 1) % 3]])).loss
            loss.backward()
            optimizer.step()
            result.append(loss.item())
        with torch.no_grad():
            for p, value in zip(parameters, start):
                p.copy_(value)
        return result

    curve, moved = losses(0), losses(1e-7)
    drift = max(abs(a - b) for a, b in zip(curve, moved)) / max(curve)
    assert drift < 2e-5, f"{name}: the curve is badly conditioned ({drift}); lower the rate"
    save_file({k: v.contiguous() for k, v in tensors.items()}, folder / "expected.safetensors")
    expected = dict(base=base, rows=data, loss=out.loss.item(), losses=curve, rate=rate)
    (folder / "expected.json").write_text(json.dumps(expected, sort_keys=True) + "\n")
    print(f"{name}: loss {expected['loss']:.4f}, after 20 steps {curve[-1]:.4f}, drift {drift:.1e}")


write("qalora", "gptq/plain", LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"], use_qalora=True,
                                         qalora_group_size=32, task_type="CAUSAL_LM"), 2e-3)
write("qalora-16", "gptq/plain", LoraConfig(r=2, lora_alpha=5, target_modules=["k_proj", "down_proj"],
                                            use_qalora=True, rank_pattern={"down_proj": 3}, task_type="CAUSAL_LM"), 2e-3)
