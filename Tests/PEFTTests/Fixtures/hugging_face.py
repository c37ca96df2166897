"""What the scripts that write fixtures from Hugging Face PEFT share.

Each folder `hugging-face/*` holds an adapter as `save_pretrained` writes it, `expected.json` (base model, rows, loss,
losses of 20 AdamW steps, learning rate) and `expected.safetensors` (logits of the target positions, gradients of all
that is trained under their names in the adapter's file, some merged weights, and as `base.*` those weights of the base that
were changed before). `HuggingFaceTests` runs over all folders.
"""
import json
import pathlib
import shutil

import torch
from peft import get_peft_model
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file
from transformers import AutoModelForSeq2SeqLM

HERE = pathlib.Path(__file__).parent
MODELS = HERE.parent.parent / "LanguageModelsTests" / "Fixtures"


def padded(data):
    width, depth = max(len(x) for x, _ in data), max(len(y) for _, y in data)
    ids = torch.tensor([x + [0] * (width - len(x)) for x, _ in data])
    mask = torch.tensor([[1] * len(x) + [0] * (width - len(x)) for x, _ in data])
    labels = torch.tensor([y + [-100] * (depth - len(y)) for _, y in data])
    return dict(input_ids=ids, attention_mask=mask, labels=labels)


def inputs(model, data):
    """What a PEFT model is called with. Rows belong to task 0 where a method asks for tasks."""
    batch = padded(data)
    if model.active_peft_config.peft_type in ("MULTITASK_PROMPT_TUNING", "POLY"):
        batch["task_ids"] = torch.zeros(len(data), dtype=torch.long)
    return batch


def losses(model, data, rate, perturbation=0.0):
    """20 steps; `perturbation` moves the adapter first, to see how well the curve is conditioned."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    torch.manual_seed(3)
    start = [p.detach().clone() for p in parameters]
    with torch.no_grad():
        for p in parameters:
            p.add_(torch.randn_like(p) * perturbation * p.abs().mean())
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.01)
    model.train()
    result = []
    for step in range(20):
        optimizer.zero_grad()
        loss = model(**inputs(model, [data[step % 3], data[(step + 1) % 3]])).loss
        loss.backward()
        optimizer.step()
        result.append(loss.item())
    optimizer.zero_grad()
    model.eval()
    with torch.no_grad():
        for p, value in zip(parameters, start):
            p.copy_(value)
    return result


def jitter(model, deviation=0.1):
    """Moves all that is trained, as if it had been."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * deviation)


def write(name, base, rate, config, merged=(), move=jitter, gradients=True, load=AutoModelForSeq2SeqLM,
          prepare=None, drift_limit=2e-5, then=None):
    """Makes an adapter of `config` over the small model `base`, and stores what it computes.

    move: changes the fresh adapter, so that it does something. prepare(model) changes the base before.
    merged: paths of projections whose merged weights are stored. gradients: False for methods whose file doesn't
    hold what is trained (P-tuning).
    """
    torch.manual_seed(sum(map(ord, name)))
    model = load.from_pretrained(MODELS / base, dtype=torch.float32)
    model.config._name_or_path = model.name_or_path = base
    stored = {key: value.clone() for key, value in model.state_dict().items()}
    if prepare:
        prepare(model)
    changed = {key: value.clone() for key, value in model.state_dict().items()
               if key in stored and not torch.equal(value, stored[key])}
    data = json.loads((MODELS / base / "expected.json").read_text())["rows"]
    peft = get_peft_model(model, config).eval()
    peft.peft_config["default"].base_model_name_or_path = base
    move(peft)
    folder = HERE / "hugging-face" / name
    shutil.rmtree(folder, ignore_errors=True)
    peft.save_pretrained(folder)
    (folder / "README.md").unlink()
    if then:
        peft = then(peft, data, folder)
    out = peft(**inputs(peft, data))
    out.loss.backward()
    depth = max(len(y) for _, y in data)
    first = out.logits.shape[1] - depth  # virtual tokens of a decoder come before
    tensors = {"logits": torch.cat([out.logits[i, first:][: len(y)] for i, (_, y) in enumerate(data)]).detach()}
    tensors |= {"base." + key: value for key, value in changed.items()}
    if gradients:
        values = {p.data_ptr(): p for p in peft.parameters() if p.requires_grad}
        stored = get_peft_model_state_dict(peft, save_embedding_layers=False)
        for key, value in stored.items():
            if value.data_ptr() in values:
                tensors["gradient." + key] = values[value.data_ptr()].grad.reshape(value.shape).clone()
            elif key == "prompt_embeddings":  # stored as a copy
                tensors["gradient." + key] = peft.prompt_encoder["default"].embedding.weight.grad.clone()
    peft.zero_grad()
    curve, moved = losses(peft, data, rate), losses(peft, data, rate, 1e-7)
    drift = max(abs(a - b) for a, b in zip(curve, moved)) / max(curve)
    assert drift < drift_limit, f"{name}: the curve is badly conditioned ({drift}); lower the rate"
    expected = dict(base=base, rows=data, loss=out.loss.item(), losses=curve, rate=rate)
    if merged:
        whole = peft.merge_and_unload().state_dict()
        for path in merged:
            tensors["merged." + path] = whole[path + ".weight"]
    save_file({k: v.contiguous() for k, v in tensors.items()}, folder / "expected.safetensors")
    (folder / "expected.json").write_text(json.dumps(expected, sort_keys=True) + "\n")
    print(f"{name}: loss {expected['loss']:.4f}, after 20 steps {curve[-1]:.4f}, drift {drift:.1e}")
