"""Writes what Hugging Face PEFT's CorDA and LoRA-GA compute over the small Llama: the files of `calibration`.

    pip install torch transformers peft safetensors attrs
    OMP_NUM_THREADS=1 python make_calibration_fixtures.py

Each file holds A and B of all adapted projections after the pass over the rows, under `MODULE.lora_A` and `MODULE.lora_B`,
the losses of 20 AdamW steps from there (`losses`), and in its metadata the configuration, the rows and the learning rate.
"""
import json

import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora.config import CordaConfig, LoraGAConfig
from peft.tuners.lora.corda import preprocess_corda
from peft.tuners.lora.loraga import preprocess_loraga
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

from hugging_face import HERE, MODELS

RATE = 1e-3


def inputs(data):
    width = max(len(x + y) for x, y in data)
    pad = lambda lists, value: torch.tensor([x + [value] * (width - len(x)) for x in lists])
    return dict(input_ids=pad([x + y for x, y in data], 0), attention_mask=pad([[1] * len(x + y) for x, y in data], 0),
                labels=pad([[-100] * len(x) + y for x, y in data], -100))


def write(name, config):
    model = AutoModelForCausalLM.from_pretrained(MODELS / "llama", dtype=torch.float32, attn_implementation="eager")
    rows = json.loads((MODELS / "llama" / "expected.json").read_text())["rows"]
    if config.init_lora_weights == "corda":
        def run():
            # The last target is no input.
            for x, y in rows:
                model(input_ids=torch.tensor([(x + y)[:-1]]))

        preprocess_corda(model, config, run_model=run)
    else:
        def step():
            for index in range(len(rows)):
                model(**inputs([rows[index], rows[(index + 1) % len(rows)]])).loss.backward()

        preprocess_loraga(model, config, train_step=step)
    peft = get_peft_model(model, config)
    tensors = {}
    for key, value in peft.state_dict().items():
        for part in ("lora_A", "lora_B"):
            if f".{part}." in key:
                tensors[key.removeprefix("base_model.model.").split(f".{part}.")[0] + f".{part}"] = value.clone()
    parameters = [p for p in peft.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=RATE, weight_decay=0.01)
    losses = []
    for number in range(20):
        optimizer.zero_grad()
        loss = peft(**inputs([rows[number % 3], rows[(number + 1) % 3]])).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    tensors["losses"] = torch.tensor(losses)
    settings = config.lora_ga_config or config.corda_config
    options = {k: v for k, v in vars(settings).items() if k in ("corda_method", "direction", "scale", "stable_gamma")}
    folder = HERE / "calibration"
    folder.mkdir(exist_ok=True)
    save_file({k: v.contiguous() for k, v in tensors.items()}, folder / f"{name}.safetensors",
              metadata=dict(init=config.init_lora_weights, rank=str(config.r), alpha=str(config.lora_alpha),
                            targets=",".join(sorted(config.target_modules)), settings=json.dumps(options, sort_keys=True),
                            rows=json.dumps(rows), rate=str(RATE)))
    print(name, losses[0], losses[-1], [(k, tuple(v.shape)) for k, v in tensors.items()][:2])


if __name__ == "__main__":
    common = dict(task_type="CAUSAL_LM", r=3, lora_alpha=6, target_modules=["q_proj", "down_proj"])
    for method in ("ipm", "kpm"):
        write(f"corda-{method}", LoraConfig(init_lora_weights="corda", corda_config=CordaConfig(corda_method=method), **common))
    for name, direction, scale in [
        ("stable", "ArB2r", "stable"), ("alternating", "ArBr", "unit"), ("second", "A2rBr", "gd_scale"),
    ]:
        settings = LoraGAConfig(direction=direction, scale=scale, stable_gamma=8)
        # With 4 r at least the smallest size of the weights, the decomposition is exact.
        write(f"lora-ga-{name}", LoraConfig(init_lora_weights="lora_ga", lora_ga_config=settings, **common | dict(r=6)))
