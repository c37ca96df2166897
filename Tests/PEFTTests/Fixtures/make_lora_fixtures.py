"""Writes LoRA adapters that Hugging Face PEFT made, with what it computes with them.

    pip install torch transformers peft safetensors
    OMP_NUM_THREADS=1 python make_lora_fixtures.py

The base models are those of `Tests/LanguageModelsTests/Fixtures`. Each folder `hugging-face/*` holds an adapter as
`save_pretrained` writes it, `expected.json` (base model, rows, loss, losses of 20 AdamW steps, learning rate) and
`expected.safetensors` (logits of the target positions, gradients of every A and B, some merged weights).
"""
import json
import pathlib
import shutil

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from transformers import T5ForConditionalGeneration

HERE = pathlib.Path(__file__).parent
MODELS = HERE.parent.parent / "LanguageModelsTests" / "Fixtures"
VARIANTS = {
    # name: base model, learning rate, configuration, projections whose merged weights are stored
    "query-value": ("t5-v1.0", 2e-3, dict(r=4, lora_alpha=8, target_modules=["q", "v"]),
                    ["encoder.block.0.layer.0.SelfAttention.q", "decoder.block.2.layer.1.EncDecAttention.v"]),
    "all-linear": ("t5-v1.1", 1e-3, dict(r=3, lora_alpha=6, use_rslora=True, target_modules="all-linear"),
                   ["decoder.block.1.layer.2.DenseReluDense.wo"]),
    "patterns": ("t5-tied-gated", 2e-3,
                 dict(r=4, lora_alpha=8, target_modules=["q", "k", "v", "o", "wo"],
                      # The first pattern that matches counts. In the order of the file, which is sorted: PEFT can't
                      # read its own file again where another order gave other ranks.
                      rank_pattern={r".*DenseReluDense\.wo": 1, "SelfAttention.q": 3,
                                    r"decoder\.block\.1\..*\.q": 5, "encoder.block.1.layer.0.SelfAttention.q": 6, "k": 2},
                      alpha_pattern={"layer.1.EncDecAttention.q": 2.5, "v": 3}, layers_to_transform=[1],
                      layers_pattern=["block"], exclude_modules=["encoder.block.1.layer.0.SelfAttention.o"]),
                 ["encoder.block.1.layer.0.SelfAttention.q"]),
    "layers": ("t5-v1.0", 2e-3,
               dict(r=2, lora_alpha=4, target_modules=["q", "v", "query_key_value"], layers_to_transform=[0, 2],
                    exclude_modules=r".*EncDecAttention\.v"),
               ["decoder.block.2.layer.0.SelfAttention.v"]),
    "expression": ("t5-half", 2e-3,
                   dict(r=4, lora_alpha=4, target_modules=r"decoder\.block\.[02]\..*\.(q|wi_0|wi_1)"),
                   ["decoder.block.0.layer.1.EncDecAttention.q"]),
    "output-layer": ("t5-v1.1", 2e-3, dict(r=2, lora_alpha=4, target_modules=["q", "lm_head"]), ["lm_head"]),
}


def padded(data):
    width, depth = max(len(x) for x, _ in data), max(len(y) for _, y in data)
    ids = torch.tensor([x + [0] * (width - len(x)) for x, _ in data])
    mask = torch.tensor([[1] * len(x) + [0] * (width - len(x)) for x, _ in data])
    labels = torch.tensor([y + [-100] * (depth - len(y)) for _, y in data])
    return dict(input_ids=ids, attention_mask=mask, labels=labels)


def losses(model, data, rate, perturbation=0.0):
    """20 steps; `perturbation` moves the adapter first, to see how well the curve is conditioned."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    start = [p.detach().clone() for p in parameters]
    with torch.no_grad():
        for p in parameters:
            p.add_(torch.randn_like(p) * perturbation * p.abs().mean())
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.01)
    model.train()
    result = []
    for step in range(20):
        optimizer.zero_grad()
        loss = model(**padded([data[step % 3], data[(step + 1) % 3]])).loss
        loss.backward()
        optimizer.step()
        result.append(loss.item())
    optimizer.zero_grad()
    model.eval()
    with torch.no_grad():
        for p, value in zip(parameters, start):
            p.copy_(value)
    return result


def main():
    shutil.rmtree(HERE / "hugging-face", ignore_errors=True)
    for name, (base, rate, settings, merged) in VARIANTS.items():
        torch.manual_seed(sum(map(ord, name)))
        model = T5ForConditionalGeneration.from_pretrained(MODELS / base, dtype=torch.float32)
        model.config._name_or_path = model.name_or_path = base
        data = json.loads((MODELS / base / "expected.json").read_text())["rows"]
        peft = get_peft_model(model, LoraConfig(task_type="SEQ_2_SEQ_LM", **settings)).eval()
        peft.peft_config["default"].base_model_name_or_path = base
        with torch.no_grad():
            for key, parameter in peft.named_parameters():
                if "lora_B" in key:
                    parameter.normal_(0, 0.1)
        folder = HERE / "hugging-face" / name
        peft.save_pretrained(folder)
        (folder / "README.md").unlink()
        out = peft(**padded(data))
        out.loss.backward()
        tensors = {"logits": torch.cat([out.logits[i, : len(y)] for i, (_, y) in enumerate(data)]).detach()}
        for key, parameter in peft.named_parameters():
            if parameter.requires_grad:
                tensors["gradient." + key.replace(".default", "")] = parameter.grad.clone()
        peft.zero_grad()
        curve, moved = losses(peft, data, rate), losses(peft, data, rate, 1e-7)
        drift = max(abs(a - b) for a, b in zip(curve, moved)) / max(curve)
        assert drift < 2e-5, f"{name}: the curve is badly conditioned ({drift})"
        expected = dict(base=base, rows=data, loss=out.loss.item(), losses=curve, rate=rate)
        whole = peft.merge_and_unload().state_dict()
        for path in merged:
            tensors["merged." + path] = whole[path + ".weight"].contiguous()
        save_file({k: v.contiguous() for k, v in tensors.items()}, folder / "expected.safetensors")
        (folder / "expected.json").write_text(json.dumps(expected, sort_keys=True) + "\n")
        print(f"{name}: loss {expected['loss']:.4f}, after 20 steps {curve[-1]:.4f}, drift {drift:.1e}")


if __name__ == "__main__":
    main()
