"""What the scripts share that write fixtures of adapters over small decoders (see hugging_face.py)."""
import json

import torch
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file


def inputs(data, peft=None):
    """A batch; where a method asks for tasks, of the first task."""
    if peft is not None and peft.active_peft_config.peft_type == "POLY":
        return inputs(data) | dict(task_ids=torch.zeros(len(data), dtype=torch.long))
    pad = lambda lists, value: torch.tensor([x + [value] * (max(map(len, lists)) - len(x)) for x in lists])
    return dict(input_ids=pad([x + y for x, y in data], 0), attention_mask=pad([[1] * len(x + y) for x, y in data], 0),
                labels=pad([[-100] * len(x) + y for x, y in data], -100))


def losses(peft, data, rate, perturbation=0.0):
    """20 steps, after which all values are as before; `perturbation` shows how well the curve is conditioned."""
    values = [(p, p.detach().clone()) for p in peft.parameters()]
    parameters = [p for p in peft.parameters() if p.requires_grad]
    torch.manual_seed(3)
    with torch.no_grad():
        for p in parameters:
            p.add_(torch.randn_like(p) * perturbation * p.abs().mean())
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.01)
    curve = []
    for step in range(20):
        optimizer.zero_grad()
        loss = peft(**inputs([data[step % 3], data[(step + 1) % 3]], peft)).loss
        loss.backward()
        optimizer.step()
        curve.append(loss.item())
    optimizer.zero_grad()
    with torch.no_grad():
        for p, value in values:
            p.copy_(value)
    return curve


def target_logits(out, data):
    """The logits that predict the targets. Virtual tokens may come before the rows."""
    first = out.logits.shape[1] - inputs(data)["input_ids"].shape[1] - 1
    return torch.cat([out.logits[i, first + len(x): first + len(x + y)] for i, (x, y) in enumerate(data)]).detach()


def gradients(peft):
    """The gradients of all that is trained, under their names in the adapter's file."""
    trained = {p.data_ptr(): p for p in peft.parameters() if p.requires_grad}
    result = {}
    for key, value in get_peft_model_state_dict(peft, save_embedding_layers=False).items():
        parameter = trained.get(value.data_ptr())
        if parameter is not None and parameter.grad is not None:
            result["gradient." + key] = parameter.grad.reshape(value.shape).clone()
        elif key == "prompt_embeddings":  # a cartridge's, which is stored with its frozen tokens
            result["gradient." + key] = peft.prompt_encoder["default"].trainable_embedding.grad.clone()
    return result


def conditioned_losses(name, peft, data, rate):
    """The losses of 20 steps, and how far a small change of the start moves them."""
    curve, moved = losses(peft, data, rate), losses(peft, data, rate, 1e-7)
    drift = max(abs(a - b) for a, b in zip(curve, moved)) / max(curve)
    assert drift < 2e-5, f"{name}: the curve is badly conditioned ({drift}); lower the rate"
    return curve, drift


def store(folder, tensors, peft, merged, **expected):
    """Writes what is expected, with the merged weights of some projections."""
    if merged:
        whole = peft.merge_and_unload().state_dict()
        tensors |= {"merged." + path: whole[path + ".weight"] for path in merged}
    save_file({k: v.contiguous() for k, v in tensors.items()}, folder / "expected.safetensors")
    (folder / "expected.json").write_text(json.dumps(expected, sort_keys=True) + "\n")
