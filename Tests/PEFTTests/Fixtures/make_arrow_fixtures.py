"""Writes LoRA adapters with Arrow's routing among them, as Hugging Face PEFT saves them, and what it computes with them.

    pip install torch transformers peft safetensors
    OMP_NUM_THREADS=1 python make_arrow_fixtures.py

`arrow/NAME` holds `arrow_router`, a folder of each adapter, and `expected.safetensors`: logits of the target positions of the base's
rows. The routing must matter: the script checks that the mean of the adapters, and another seed, give other logits.
"""
import json
import shutil
import tempfile

import torch
from peft import LoraConfig, create_arrow_model, get_peft_model
from peft.tuners.lora import ArrowConfig
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

from hugging_face import HERE, MODELS

BASE = "llama"


def base():
    model = AutoModelForCausalLM.from_pretrained(MODELS / BASE, dtype=torch.float32)
    model.config._name_or_path = model.name_or_path = BASE
    return model


def adapter(folder, number):
    torch.manual_seed(10 + number)
    peft = get_peft_model(base(), LoraConfig(
        r=3, lora_alpha=4 + number, target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM"))
    with torch.no_grad():
        for key, parameter in peft.named_parameters():
            if "lora_" in key:
                parameter.normal_(0, 0.3)
    peft.save_pretrained(folder)
    return str(folder)


def logits(peft, rows):
    result = []
    for x, y in rows:
        ids = torch.tensor([x + y])
        with torch.no_grad():
            result.append(peft(input_ids=ids).logits[0, len(x) - 1 : -1])
    return torch.cat(result)


def write(name, tasks, general, **settings):
    folder = HERE / "arrow" / name
    shutil.rmtree(folder, ignore_errors=True)
    rows = json.loads((MODELS / BASE / "expected.json").read_text())["rows"]
    with tempfile.TemporaryDirectory() as temporary:
        paths = [adapter(f"{temporary}/{number}", number) for number in range(tasks + general)]

        def routed(**changed):
            config = ArrowConfig(**{**settings, "use_gks": general > 0, **changed})
            return create_arrow_model(base(), paths[:tasks], config, paths[tasks:] or None).eval()

        model = routed()
        for config in model.peft_config.values():
            config.base_model_name_or_path = BASE
        # Saved before the first forward pass, which subtracts the general adapters from the others.
        model.save_pretrained(folder)
        for readme in folder.rglob("README.md"):
            readme.unlink()
        expected = logits(model, rows)
        other = logits(routed(router_temperature=5.0, top_k=tasks), rows)
        assert (expected - other).abs().max() > 1e-2 * expected.abs().max(), "the routing makes no difference"
    save_file({"logits": expected.contiguous()}, folder / "expected.safetensors")


write("two-of-three", 3, 0, top_k=2, router_temperature=0.7, rng_seed=3)
write("general", 2, 2, top_k=1, router_temperature=1.0, rng_seed=5)
