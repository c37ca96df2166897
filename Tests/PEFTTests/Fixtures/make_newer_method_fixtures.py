"""Writes adapters of PEFT's newer methods over small Llamas that Hugging Face PEFT made (see hugging_face.py).

    pip install torch transformers 'peft>=0.21' safetensors numpy
    OMP_NUM_THREADS=1 python make_newer_method_fixtures.py [NAME…]

The same things are stored as for the seq2seq models, in folders `hugging-face/<method>` and `hugging-face/<method>-<variant>`.
"""
import json
import shutil
import sys

import torch
from peft import (AdaptionPromptConfig, BeftConfig, CartridgeConfig, DeftConfig, FrodConfig, GloraConfig, OSFConfig, PeanutConfig, PolyConfig, PsoftConfig,
                  SupertuningConfig, TinyLoraConfig, UniLoraConfig, get_peft_model)
from transformers import AutoModelForCausalLM

from decoder_adapters import conditioned_losses, gradients, inputs, store, target_logits
from hugging_face import HERE, MODELS, jitter

Q, V, DOWN = (f"model.layers.0.{name}_proj" for name in ("self_attn.q", "self_attn.v", "mlp.down"))


def write(name, config, merged=(), base="llama", rate=1e-3, deviation=0.1):
    if len(sys.argv) > 1 and name not in sys.argv[1:]:
        return
    torch.manual_seed(sum(map(ord, name)))
    model = AutoModelForCausalLM.from_pretrained(MODELS / base, dtype=torch.float32, attn_implementation="eager")
    model.config._name_or_path = model.name_or_path = base
    data = json.loads((MODELS / base / "expected.json").read_text())["rows"]
    config.task_type = "CAUSAL_LM"
    peft = get_peft_model(model, config).eval()
    peft.peft_config["default"].base_model_name_or_path = base
    jitter(peft, deviation)
    folder = HERE / "hugging-face" / name
    shutil.rmtree(folder, ignore_errors=True)
    peft.save_pretrained(folder)
    (folder / "README.md").unlink()
    out = peft(**inputs(data, peft))
    out.loss.backward()
    tensors = {"logits": target_logits(out, data)} | gradients(peft)
    curve, drift = conditioned_losses(name, peft, data, rate)
    with torch.no_grad(), peft.disable_adapter():
        plain = peft(**inputs(data, peft)).loss.item()
    loss = out.loss.item()
    store(folder, tensors, peft, merged, base=base, rows=data, loss=loss, losses=curve, rate=rate)
    size = sum(f.stat().st_size for f in folder.iterdir()) // 1000
    print(f"{name}: loss {plain:.4f} -> {loss:.4f}, after 20 steps {curve[-1]:.4f} of {curve[0]:.4f}, "
          f"drift {drift:.1e}, {size} kB, {len(tensors)} tensors")


if __name__ == "__main__":
    biased = "decoders/llama-biases"
    write("beft", BeftConfig(), deviation=0.3)
    write("beft-biases", BeftConfig(target_modules=["v_proj", "o_proj"]), [V], base=biased, deviation=0.3)
    write("glora", GloraConfig(r=3), [Q, V])
    write("glora-biases", GloraConfig(r=2, target_modules=["q_proj", "v_proj", "o_proj"]), [Q, V], base=biased)
    write("glora-vectors", GloraConfig(config_A_B="vector", config_C="vector", config_D_E="vector",
                                       target_modules=["k_proj", "v_proj"]), [V], base=biased)
    write("glora-constants", GloraConfig(config_A_B="constant", config_C="none", target_modules=["v_proj", "down_proj"]),
          [V, DOWN], base=biased, deviation=0.3)
    write("deft", DeftConfig(r=3, alpha=6), [Q, V])
    write("deft-qr", DeftConfig(r=3, decomposition_method="qr", target_modules=["q_proj", "down_proj"]), [Q, DOWN], base=biased)
    write("deft-para", DeftConfig(r=2, para=True, target_modules=["v_proj"], layers_to_transform=[1]), [V], deviation=0.3)
    write("peanut", PeanutConfig(r=4), [Q, V], deviation=0.3)
    write("peanut-deep", PeanutConfig(r=4, depth=2, act_fn="silu", scaling=2.0, target_modules=["q_proj", "down_proj"]),
          [Q, DOWN], deviation=0.3)
    write("tinylora", TinyLoraConfig(r=2, u=4), [Q, V], deviation=0.5)
    write("tinylora-tied", TinyLoraConfig(r=4, u=5, weight_tying=0.6, save_projection=False, projection_seed=7,
                                          target_modules="all-linear", init_weights="uniform"), [Q, DOWN])
    write("unilora", UniLoraConfig(r=3, theta_d_length=100), [Q, V], deviation=0.5)
    write("unilora-indices", UniLoraConfig(r=2, theta_d_length=37, proj_seed=5, save_indices=True,
                                           target_modules=["down_proj", "k_proj"]), [DOWN], deviation=0.5)
    write("unilora-all", UniLoraConfig(r=1, target_modules="all-linear", proj_seed=0), [Q, DOWN], deviation=0.5)
    write("osf", OSFConfig(target_modules=["q_proj", "v_proj"]), [Q, V])
    write("osf-ranks", OSFConfig(effective_rank=0.75, rank_pattern={"v_proj": 3, "layers.2.*down": 0.9},
                                 target_modules=["v_proj", "down_proj"]), [V, DOWN])
    write("supertuning", SupertuningConfig(sparsity=0.9), [Q, V])
    write("supertuning-supra", SupertuningConfig(sparsity=0.95, select_top=False, r=2, lora_alpha=6.0, save_precomputed_indices=False,
                                                 target_modules=["q_proj", "down_proj"]), [Q, DOWN], deviation=0.2)
    write("psoft", PsoftConfig(r=6, psoft_alpha=12), [Q, V])
    write("psoft-series", PsoftConfig(r=5, use_cayley_neumann=True, num_cayley_neumann_terms=6, cayley_neumann_eps=0.4,
                                      psoft_mag_b=False, ab_svd_init="pissa_init", target_modules=["q_proj", "down_proj"]), [Q, DOWN],
          deviation=0.3)
    write("psoft-lowrank", PsoftConfig(r=4, psoft_orth=False, psoft_svd="lowrank", psoft_svd_lowrank_niter=3, random_seed=11,
                                       target_modules=["q_proj", "down_proj"]), [Q, DOWN])
    write("frod", FrodConfig(progressbar=False), [Q, V], deviation=0.03)
    write("frod-dense", FrodConfig(sparse_rate=0.1, progressbar=False, target_modules=["k_proj", "o_proj"]), ["model.layers.0.self_attn.k_proj"],
          base=biased, deviation=0.03)
    write("llama-adapter", AdaptionPromptConfig(adapter_len=4, adapter_layers=2), deviation=0.5)
    write("llama-adapter-all", AdaptionPromptConfig(adapter_len=3, adapter_layers=1), base="decoders/llama", deviation=0.5)
    write("cartridge", CartridgeConfig(num_virtual_tokens=5), deviation=0.3)
    write("cartridge-frozen", CartridgeConfig(num_virtual_tokens=4, num_frozen_tokens=2), base="decoders/qwen2", deviation=0.3)
    write("poly", PolyConfig(r=3), deviation=0.3)
    write("poly-splits", PolyConfig(r=2, n_tasks=3, n_skills=2, n_splits=2, target_modules=["q_proj", "down_proj"]), deviation=0.3)
