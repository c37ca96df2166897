"""Writes adapters that Hugging Face PEFT made with random bases, sparse entries, transforms, rotations and reflections
(see hugging_face.py), over the small Llama and, with other settings, over a T5.

    pip install torch transformers peft safetensors
    OMP_NUM_THREADS=1 python make_random_basis_fixtures.py [NAME ...]
"""
import json
import shutil
import sys

import peft.tuners.c3a.layer as c3a
import torch
from peft import (C3AConfig, DeloraConfig, FourierFTConfig, GraloraConfig, HiraConfig, HRAConfig, MissConfig,
                  PveraConfig, RandLoraConfig, RoadConfig, ShiraConfig, VBLoRAConfig, WaveFTConfig, get_peft_model)
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

from hugging_face import HERE, MODELS, jitter, padded

LLAMA = dict(base="llama", task_type="CAUSAL_LM", target_modules=["q_proj", "down_proj"],
             merged=["model.layers.0.self_attn.q_proj", "model.layers.1.mlp.down_proj"])
T5 = dict(base="t5-v1.1", task_type="SEQ_2_SEQ_LM", target_modules=["q", "wo"],
          merged=["encoder.block.0.layer.0.SelfAttention.q", "decoder.block.1.layer.2.DenseReluDense.wo"])


class Convolution:
    """C3A's forward pass without its own backward pass: in PEFT 0.21.2 that gives x the gradient of the transposed blocks."""

    @staticmethod
    def apply(x, kernels):
        x = torch.fft.ifft(x.reshape(*x.shape[:-1], kernels.shape[1], kernels.shape[2]))
        return torch.fft.fft(torch.einsum("...nb,mnb->...mb", x, torch.fft.fft(kernels))).real.flatten(-2)


c3a.BlockCircularConvolution = Convolution


def causal(data):
    """Rows of a decoder, padded on the right."""
    width = max(len(x + y) for x, y in data)
    row = lambda x, y, value: torch.tensor([x + y + [value] * (width - len(x + y))])
    return dict(input_ids=torch.cat([row(x, y, 0) for x, y in data]),
                attention_mask=torch.cat([row([1] * len(x), [1] * len(y), 0) for x, y in data]),
                labels=torch.cat([row([-100] * len(x), y, -100) for x, y in data]))


def write(name, kind, setup, rate=2e-3, deviation=0.1, drift_limit=2e-5, **settings):
    """Dropout and sampling are off: PyTorch's masks are not those of other programs."""
    if sys.argv[1:] and name not in sys.argv[1:]:
        return
    torch.manual_seed(sum(map(ord, name)))
    setup = dict(setup)
    base, merged = setup.pop("base"), setup.pop("merged")
    is_decoder = base == "llama"
    loader = AutoModelForCausalLM if is_decoder else AutoModelForSeq2SeqLM
    model = loader.from_pretrained(MODELS / base, dtype=torch.float32)
    model.config._name_or_path = model.name_or_path = base
    data = json.loads((MODELS / base / "expected.json").read_text())["rows"]
    peft = get_peft_model(model, kind(**(setup | settings))).eval()
    peft.peft_config["default"].base_model_name_or_path = base
    jitter(peft, deviation)
    inputs = causal if is_decoder else padded
    with torch.no_grad(), peft.disable_adapter():
        plain = peft(**inputs(data)).logits
    folder = HERE / "hugging-face" / name
    shutil.rmtree(folder, ignore_errors=True)
    peft.save_pretrained(folder)
    (folder / "README.md").unlink()
    out = peft(**inputs(data))
    change = ((out.logits - plain).norm() / plain.norm()).item()
    assert change > 0.02, f"{name}: the adapter changes little ({change})"
    out.loss.backward()
    if is_decoder:
        logits = [out.logits[i, len(x) - 1: len(x + y) - 1] for i, (x, y) in enumerate(data)]
    else:
        logits = [out.logits[i, : len(y)] for i, (_, y) in enumerate(data)]
    tensors = {"logits": torch.cat(logits).detach()}
    parameters = [p for p in peft.parameters() if p.requires_grad]
    values = {p.data_ptr(): p for p in parameters}
    for key, value in get_peft_model_state_dict(peft, save_embedding_layers=False).items():
        if value.data_ptr() in values:
            tensors["gradient." + key] = values[value.data_ptr()].grad.reshape(value.shape).clone()
    assert len(tensors) == len(parameters) + 1, name
    start = [p.detach().clone() for p in parameters]

    def curve(perturbation):
        """Losses of 20 steps; `perturbation` moves the adapter first, to see how well the curve is conditioned."""
        torch.manual_seed(3)
        with torch.no_grad():
            for p, value in zip(parameters, start):
                p.copy_(value + torch.randn_like(p) * perturbation * value.abs().mean())
        optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.01)
        result = []
        for step in range(20):
            optimizer.zero_grad()
            loss = peft(**inputs([data[step % 3], data[(step + 1) % 3]])).loss
            loss.backward()
            optimizer.step()
            result.append(loss.item())
        return result

    moved, losses = curve(1e-7), curve(0)
    drift = max(abs(a - b) for a, b in zip(losses, moved)) / max(losses)
    assert drift < drift_limit, f"{name}: the curve is badly conditioned ({drift}); lower the rate"
    with torch.no_grad():
        for p, value in zip(parameters, start):
            p.copy_(value)
    whole = peft.merge_and_unload().state_dict()
    tensors |= {"merged." + path: whole[path + ".weight"] for path in merged}
    save_file({k: v.contiguous() for k, v in tensors.items()}, folder / "expected.safetensors")
    expected = dict(base=base, rows=data, loss=out.loss.item(), losses=losses, rate=rate)
    (folder / "expected.json").write_text(json.dumps(expected, sort_keys=True) + "\n")
    size = sum(f.stat().st_size for f in folder.iterdir())
    print(f"{name}: loss {expected['loss']:.4f}, change {change:.2f}, steps {losses[0]:.4f} to {losses[-1]:.4f}, drift {drift:.1e}, {size} bytes")


if __name__ == "__main__":
    write("miss", MissConfig, LLAMA, r=5)
    write("miss-bat", MissConfig, T5, r=4, init_weights="bat")
    write("miss-mini", MissConfig, T5, r=7, mini_r=4, init_weights="mini", exclude_modules=["EncDecAttention.q"])
    write("hira", HiraConfig, LLAMA, r=3, deviation=0.3)
    write("hira-patterns", HiraConfig, T5, r=3, rank_pattern={"wo": 2}, init_weights="gaussian", layers_to_transform=[0],
          layers_pattern=["block"], deviation=0.3)
    write("shira", ShiraConfig, LLAMA, r=1, random_seed=7)
    write("shira-unseeded", ShiraConfig, T5, r=2)
    write("gralora", GraloraConfig, LLAMA, r=4, alpha=8)
    write("gralora-hybrid", GraloraConfig, T5, r=8, gralora_k=4, hybrid_r=2, alpha=10)
    write("c3a", C3AConfig, LLAMA, rate=1e-2, block_size=8, deviation=0.3)
    write("c3a-patterns", C3AConfig, T5, block_size=4, block_size_pattern={"wo": 8}, init_weights=True, deviation=0.3)
    write("randlora", RandLoraConfig, LLAMA, r=5, randlora_alpha=10, deviation=0.02)
    write("randlora-key", RandLoraConfig, T5, r=7, randlora_alpha=10, save_projection=False, projection_prng_key=3,
          deviation=0.02)
    write("randlora-sparse", RandLoraConfig, T5, r=24, randlora_alpha=10, sparse=True, save_projection=False,
          deviation=0.02)
    write("randlora-very-sparse", RandLoraConfig, T5, r=12, randlora_alpha=10, very_sparse=True, save_projection=False,
          projection_prng_key=5, layers_to_transform=[1], layers_pattern=["block"], deviation=0.02)
    write("delora", DeloraConfig, LLAMA, r=3)
    write("delora-patterns", DeloraConfig, T5, rate=3e-4, r=3, delora_lambda=10, rank_pattern={"wo": 2}, lambda_pattern={"q": 6})
    write("road", RoadConfig, LLAMA, group_size=8)
    write("road-2", RoadConfig, T5, variant="road_2", group_size=4)
    write("road-4", RoadConfig, T5, variant="road_4", group_size=6)
    write("fourierft", FourierFTConfig, LLAMA, rate=1e-2, n_frequency=30, scaling=30.0)
    write("fourierft-patterns", FourierFTConfig, T5, n_frequency=20, n_frequency_pattern={"wo": 25}, random_loc_seed=3,
          init_weights=True, scaling=60.0, deviation=0.3)
    write("waveft", WaveFTConfig, LLAMA, n_frequency=50, scaling=3.0)
    write("waveft-db2", WaveFTConfig, T5, n_frequency=50, wavelet_family="db2", proportional_parameters=True,
          random_loc_seed=3, scaling=3.0)
    write("waveft-sym3", WaveFTConfig, T5, n_frequency=50, wavelet_family="sym3", n_frequency_pattern={"wo": 60},
          scaling=3.0)
    write("waveft-sparse", WaveFTConfig, LLAMA, n_frequency=50, use_idwt=False, scaling=3.0)
    write("vblora", VBLoRAConfig, LLAMA, rate=1e-2, r=2, num_vectors=7, vector_length=8)
    write("vblora-topk", VBLoRAConfig, T5, r=3, num_vectors=9, vector_length=4, topk=3)
    write("pvera", PveraConfig, LLAMA, rate=1e-2, r=5, projection_prng_key=7)
    write("pvera-key", PveraConfig, T5, r=4, projection_prng_key=3, save_projection=False, d_initial=0.3)
    write("hra", HRAConfig, LLAMA, r=4)
    write("hra-orthogonal", HRAConfig, T5, r=3, apply_GS=True)
