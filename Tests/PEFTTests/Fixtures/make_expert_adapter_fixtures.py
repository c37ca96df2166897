"""Writes adapters over the mixtures of experts of `make_expert_decoder_fixtures.py` that Hugging Face PEFT made.

    pip install torch transformers peft==0.21.2 safetensors
    OMP_NUM_THREADS=1 python make_expert_adapter_fixtures.py [NAME...]

The same things are stored as by `make_decoder_adapter_fixtures.py`. Those in `SEPARATE` are then written as PEFT did with
`transformers` before version 5, when experts were modules, and PEFT computes the same with them.
"""
import json
import re
import sys

import torch
from peft import LoraConfig, PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from hugging_face import HERE, MODELS
from make_decoder_adapter_fixtures import LM, inputs, write

BOTH = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
CASES = {
    "mixtral-experts": ("mixtral", LoraConfig(r=2, lora_alpha=4, target_modules=[], target_parameters=BOTH, **LM),
                        ["model.layers.0.mlp.experts.gate_up_proj", "model.layers.1.mlp.experts.down_proj"]),
    # One of two tensors, beside a module; the scale differs.
    "mixtral-gate-up": ("mixtral", LoraConfig(
        r=2, lora_alpha=4, target_modules=["v_proj"], target_parameters=["experts.gate_up_proj"], use_rslora=True,
        rank_pattern={"layers.1.mlp.experts.gate_up_proj": 3}, **LM), ["model.layers.0.mlp.experts.gate_up_proj"]),
    # Names of transformers before version 5, which PEFT rewrites.
    "qwen3_moe-renamed": ("qwen3_moe", LoraConfig(
        r=2, lora_alpha=6, target_modules=["q_proj", "gate_proj", "up_proj", "down_proj"], **LM),
        ["model.layers.0.mlp.experts.gate_up_proj"]),
    "olmoe-all-linear": ("olmoe", LoraConfig(r=2, lora_alpha=4, target_modules="all-linear", **LM),
                         ["model.layers.0.mlp.gate", "model.layers.1.mlp.experts.gate_up_proj"]),
    "granitemoe-router": ("granitemoe", LoraConfig(
        r=2, lora_alpha=4, target_modules=["q_proj"], target_parameters=["router.weight", "experts.down_proj"], **LM),
        ["model.layers.0.block_sparse_moe.router", "model.layers.1.block_sparse_moe.experts.down_proj"]),
    # The shared network has the old names of the experts.
    "qwen2_moe-shared": ("qwen2_moe", LoraConfig(r=2, lora_alpha=4, target_modules=["gate_proj", "up_proj"], **LM),
                         ["model.layers.0.mlp.gate_proj", "model.layers.1.mlp.shared_expert.up_proj"]),
}

# Names of an expert's projections (gate, up, down), and of its layer.
MIXTRAL, OLMOE = ("w1", "w3", "w2", "block_sparse_moe"), ("gate_proj", "up_proj", "down_proj", "mlp")
SEPARATE = {
    "mixtral-separate": ("mixtral", MIXTRAL, LoraConfig(
        r=2, lora_alpha=6, target_modules=["q_proj", "gate", "w1", "w2", "w3"], **LM),
        ["model.layers.0.mlp.experts.gate_up_proj", "model.layers.1.mlp.experts.down_proj"]),
    "olmoe-separate": ("olmoe", OLMOE, LoraConfig(
        r=2, lora_alpha=4, target_modules=["v_proj", "gate_proj", "up_proj", "down_proj"], **LM),
        ["model.layers.0.mlp.experts.gate_up_proj"]),
}


def separate(folder, names, targets, rank):
    """Splits the factors of all experts into those of each."""
    gate, up, down, layer = names
    result = {}
    for key, value in load_file(folder / "adapter_model.safetensors").items():
        key = key.replace(".mlp.", f".{layer}.")
        match = re.fullmatch(r"(.*\.experts)\.(base_layer\.)?lora_(A|B)\.weight", key)
        if not match:
            result[key] = value
            continue
        prefix, inner, factor = match.groups()
        parts = [gate, up] if inner else [down]
        count = value.shape[0 if factor == "A" else 1] // (rank * len(parts))
        for e in range(count):
            if factor == "A":
                own = value.reshape(count, len(parts) * rank, -1)[e]
                blocks = own.chunk(len(parts))
            else:
                own = value.reshape(value.shape[0], len(parts) * rank, count)[..., e]
                blocks = [b.chunk(len(parts), 1)[i] for i, b in enumerate(own.chunk(len(parts)))]
            for part, block in zip(parts, blocks):
                result[f"{prefix}.{e}.{part}.lora_{factor}.weight"] = block.contiguous().clone()
    save_file(result, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "adapter_config.json").read_text())
    config.update(target_modules=targets, target_parameters=None, rank_pattern={}, alpha_pattern={}, peft_version="0.17.0")
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2, sort_keys=True))


def keep_blocks(peft, rank):
    """Makes B of a fused projection block-diagonal, as if gate and up had been modules."""
    for name, value in peft.named_parameters():
        if name.endswith("experts.base_layer.lora_B.default.weight"):
            own = value.data.reshape(value.shape[0], 2, rank, -1)
            half = value.shape[0] // 2
            own[:half, 1] = 0
            own[half:, 0] = 0


def write_separate(name, base, names, config, merged):
    targets = sorted(config.target_modules)
    write(name, base, config, merged=merged, prepare=lambda peft: keep_blocks(peft, config.r))
    folder = HERE / "hugging-face" / name
    separate(folder, names, targets, config.r)
    expected = json.loads((folder / "expected.json").read_text())
    model = AutoModelForCausalLM.from_pretrained(
        MODELS / "decoders" / base, dtype=torch.float32, attn_implementation="eager")
    peft = PeftModel.from_pretrained(model, folder).eval()
    data = expected["rows"]
    out = peft(**inputs(peft, data))
    logits = torch.cat([out.logits[i, len(x) - 1: len(x + y) - 1] for i, (x, y) in enumerate(data)])
    known = load_file(folder / "expected.safetensors")["logits"]
    assert torch.allclose(logits, known, rtol=1e-5, atol=1e-6), (logits - known).abs().max()


if __name__ == "__main__":
    for name, (base, names, config, merged) in SEPARATE.items():
        if name in sys.argv[1:] or not sys.argv[1:]:
            write_separate(name, base, names, config, merged)
    for name, (base, config, merged) in CASES.items():
        if name in sys.argv[1:] or not sys.argv[1:]:
            write(name, base, config, merged=merged)
