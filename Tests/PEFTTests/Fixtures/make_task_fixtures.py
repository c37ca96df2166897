"""Writes adapters over models with heads that Hugging Face PEFT made (see hugging_face.py).

    pip install torch transformers peft safetensors
    OMP_NUM_THREADS=1 python make_task_fixtures.py

The bases are the encoders and decoders of `make_head_fixtures.py`, each with a new head, which an adapter's file holds.
The same things are stored as for the seq2seq models, in folders `hugging-face/task-<family>-<task>-<method>`.
"""
import json
import shutil

import torch
from peft import IA3Config, LoraConfig, PromptTuningConfig, get_peft_model
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file
from transformers import AutoModel, AutoModelForSequenceClassification, AutoModelForTokenClassification

from hugging_face import HERE, MODELS, jitter

LABELS = 5
TYPES = {"embeddings": "FEATURE_EXTRACTION", "token-classification": "TOKEN_CLS"}


def rows(task):
    """Those of the Swift tests."""
    result = []
    for row in range(3):
        ids = [2 + (i * 7 + row) % 44 for i in range(5 + 2 * row)]
        target = [i % 5 if i % 2 == 0 else -100 for i in range(len(ids))] if task == "token-classification" else [row]
        result.append((ids, target))
    return result


def load(family, task):
    kind = dict(embeddings=AutoModel).get(task, AutoModelForSequenceClassification)
    kind = AutoModelForTokenClassification if task == "token-classification" else kind
    settings = {} if task == "embeddings" else dict(num_labels=1 if task == "regression" else LABELS)
    torch.manual_seed(3)
    model = kind.from_pretrained(MODELS / "heads" / family, dtype=torch.float32, **settings)
    model.name_or_path = model.config._name_or_path = f"{family}:{task}"
    return model.eval()


def run(model, task, data):
    """Loss and outputs."""
    width = max(len(x) for x, _ in data)
    pad = model.config.pad_token_id or 0
    batch = dict(input_ids=torch.tensor([x + [pad] * (width - len(x)) for x, _ in data]),
                 attention_mask=torch.tensor([[1] * len(x) + [0] * (width - len(x)) for x, _ in data]))
    if task == "embeddings":
        mask = batch["attention_mask"].unsqueeze(-1).float()
        states = model(**batch).last_hidden_state
        vectors = torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1), dim=1)
        loss = torch.nn.functional.cross_entropy(20 * vectors @ vectors.T, torch.arange(len(data)))
        return loss, vectors
    if task == "token-classification":
        labels = torch.tensor([y + [-100] * (width - len(y)) for _, y in data])
    else:
        labels = torch.tensor([float(y[0]) if task == "regression" else y[0] for _, y in data])
    if task != "token-classification":
        out = model(**batch, labels=labels)
        return out.loss, out.logits
    # With virtual tokens the logits are more than the labels, which PEFT leaves to its user.
    logits = model(**batch).logits[:, -width:][labels >= 0]
    return torch.nn.functional.cross_entropy(logits, labels[labels >= 0]), logits


def write(family, task, method, config, rate=1e-3):
    name = f"task-{family}-{task}-{method}"
    torch.manual_seed(sum(map(ord, name)))
    peft = get_peft_model(load(family, task), config).eval()
    peft.peft_config["default"].base_model_name_or_path = f"{family}:{task}"
    jitter(peft, 0.1)
    folder = HERE / "hugging-face" / name
    shutil.rmtree(folder, ignore_errors=True)
    peft.save_pretrained(folder)
    (folder / "README.md").unlink()
    data = rows(task)
    loss, outputs = run(peft, task, data)
    loss.backward()
    tensors = {"logits": outputs.detach()}
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
        part = run(peft, task, [data[step % 3], data[(step + 1) % 3]])[0]
        part.backward()
        optimizer.step()
        curve.append(part.item())
    save_file({k: v.contiguous() for k, v in tensors.items()}, folder / "expected.safetensors")
    (folder / "expected.json").write_text(
        json.dumps(dict(base=f"{family}:{task}", rows=data, loss=loss.item(), losses=curve, rate=rate), sort_keys=True)
        + "\n")
    print(name, curve[0], curve[-1])


def main():
    def lora(task, targets, **more):
        return LoraConfig(r=2, lora_alpha=4, target_modules=targets, task_type=TYPES.get(task, "SEQ_CLS"), **more)

    for family, task, targets in [
        ("roberta", "classification", ["query", "value"]), ("distilbert", "classification", ["q_lin", "lin2"]),
        ("distilbert", "token-classification", ["v_lin"]), ("bert", "token-classification", ["query"]),
        ("bert", "embeddings", ["query", "value"]), ("bert", "regression", ["value"]),
        ("llama", "classification", ["q_proj", "v_proj"]),
    ]:
        write(family, task, "lora", lora(task, targets))
    write("gpt2", "classification", "lora", lora("classification", ["c_attn"], fan_in_fan_out=True))
    write("roberta", "token-classification", "ia3", IA3Config(task_type="TOKEN_CLS"))
    shape = dict(token_dim=16, num_attention_heads=4, num_layers=2)  # PEFT finds them under other names alone
    write("distilbert", "classification", "prompt",
          PromptTuningConfig(num_virtual_tokens=3, task_type="SEQ_CLS", **shape))
    write("bert", "token-classification", "prompt", PromptTuningConfig(num_virtual_tokens=3, task_type="TOKEN_CLS"))


if __name__ == "__main__":
    main()
