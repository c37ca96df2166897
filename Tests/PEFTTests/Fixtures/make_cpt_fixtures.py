"""Writes prompts of context-aware prompt tuning over a small Llama that Hugging Face PEFT made (see hugging_face.py).

    pip install torch transformers 'peft>=0.21' safetensors
    OMP_NUM_THREADS=1 python make_cpt_fixtures.py

The same things are stored as for the seq2seq models, in folders `hugging-face/cpt*`. The prompts have no labels: with labels
the loss includes them, which is not implemented. The targets' type, added to the prompt's largest, makes them labels.
"""
import json
import shutil

import torch
from peft import CPTConfig, get_peft_model
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

from hugging_face import HERE, MODELS

BASE = "llama"


def inputs(data, largest):
    """Right-padded rows whose target tokens have the type of a label."""
    pad = lambda lists, value: torch.tensor([x + [value] * (max(map(len, lists)) - len(x)) for x in lists])
    return dict(input_ids=pad([x + y for x, y in data], 0), attention_mask=pad([[1] * len(x + y) for x, y in data], 0),
                labels=pad([[-100] * len(x) + y for x, y in data], -100),
                input_type_mask=pad([[0] * len(x) + [8 - largest] * len(y) for x, y in data], 0))


def losses(peft, parameter, data, rate, largest, perturbation=0.0):
    start = parameter.detach().clone()
    torch.manual_seed(3)
    with torch.no_grad():
        parameter.add_(torch.randn_like(parameter) * perturbation)
    optimizer = torch.optim.AdamW([parameter], lr=rate, weight_decay=0.01)
    curve = []
    for step in range(20):
        optimizer.zero_grad()
        loss = peft(**inputs([data[step % 3], data[(step + 1) % 3]], largest)).loss
        loss.backward()
        optimizer.step()
        curve.append(loss.item())
    optimizer.zero_grad()
    with torch.no_grad():
        parameter.copy_(start)
    return curve


def write(name, rate, **settings):
    torch.manual_seed(sum(map(ord, name)))
    model = AutoModelForCausalLM.from_pretrained(MODELS / BASE, dtype=torch.float32, attn_implementation="eager")
    model.config._name_or_path = model.name_or_path = BASE
    data = json.loads((MODELS / BASE / "expected.json").read_text())["rows"]
    config = CPTConfig(task_type="CAUSAL_LM", cpt_mask=[1] * len(settings["cpt_token_ids"]), **settings)
    largest = max(config.cpt_tokens_type_mask)
    peft = get_peft_model(model, config).eval()
    peft.peft_config["default"].base_model_name_or_path = BASE
    encoder = peft.prompt_encoder["default"]
    with torch.no_grad():  # as if it had been trained
        encoder.delta_embedding.weight.add_(torch.randn_like(encoder.delta_embedding.weight))
    folder = HERE / "hugging-face" / name
    shutil.rmtree(folder, ignore_errors=True)
    peft.save_pretrained(folder)
    (folder / "README.md").unlink()
    # What is read again begins at the sum.
    with torch.no_grad():
        encoder.embedding.weight.copy_(peft.get_prompt_embedding_to_save("default"))
        encoder.delta_embedding.weight.zero_()
    out = peft(**inputs(data, largest))
    out.loss.backward()
    first = len(config.cpt_token_ids) - 1
    delta = encoder.delta_embedding.weight
    tensors = {"logits": torch.cat([out.logits[i, first + len(x): first + len(x + y)] for i, (x, y) in enumerate(data)]).detach(),
               "gradient.prompt_embeddings": delta.grad.clone()}
    peft.zero_grad()
    curve, moved = (losses(peft, delta, data, rate, largest, size) for size in (0.0, 1e-8))
    drift = max(abs(a - b) for a, b in zip(curve, moved)) / max(curve)
    assert drift < 2e-5, f"{name}: the curve is badly conditioned ({drift}); lower the rate"
    save_file({k: v.contiguous() for k, v in tensors.items()}, folder / "expected.safetensors")
    (folder / "expected.json").write_text(json.dumps(
        dict(base=BASE, rows=data, loss=out.loss.item(), losses=curve, rate=rate), sort_keys=True) + "\n")
    print(f"{name}: loss {out.loss.item():.4f}, after 20 steps {curve[-1]:.4f} of {curve[0]:.4f}, drift {drift:.1e}")


write("cpt", 1e-2, cpt_token_ids=[5, 17, 80, 33, 41, 9], cpt_tokens_type_mask=[1, 1, 2, 2, 3, 3], opt_projection_epsilon=20.0,
      opt_projection_format_epsilon=10.0)
# A bound that every step meets, and tokens that aren't trained.
write("cpt-bounded", 1e-1, cpt_token_ids=[5, 17, 80, 33], cpt_tokens_type_mask=[1, 0, 2, 3], opt_projection_epsilon=3.0,
      opt_projection_format_epsilon=2.0)
