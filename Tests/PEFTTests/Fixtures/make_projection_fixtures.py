"""Writes adapters over projections and norms that Hugging Face PEFT made (see hugging_face.py).

    pip install torch transformers peft safetensors
    OMP_NUM_THREADS=1 python make_projection_fixtures.py
"""
import json
import shutil

import torch
from peft import (AdaLoraConfig, BOFTConfig, IA3Config, LNTuningConfig, LoHaConfig, LoKrConfig, OFTConfig, VeraConfig,
                  get_peft_model)
from transformers import AutoModelForSeq2SeqLM

from hugging_face import HERE, MODELS, jitter, padded, write

SEQ2SEQ = dict(task_type="SEQ_2_SEQ_LM")
Q0 = "encoder.block.0.layer.0.SelfAttention.q"
WO1 = "decoder.block.1.layer.2.DenseReluDense.wo"

def adalora_schedule():
    """30 steps in which ranks are pruned: losses (the penalty left out), the masks at the end, and the file."""
    base, rate, steps = "t5-v1.1", 5e-3, 30
    torch.manual_seed(4)
    model = AutoModelForSeq2SeqLM.from_pretrained(MODELS / base, dtype=torch.float32)
    model.config._name_or_path = model.name_or_path = base
    data = json.loads((MODELS / base / "expected.json").read_text())["rows"]
    config = AdaLoraConfig(init_r=4, target_r=2, lora_alpha=8, tinit=4, tfinal=8, deltaT=3, beta1=0.8, beta2=0.7,
                           orth_reg_weight=0.1, total_step=steps, target_modules=["q", "wo"], **SEQ2SEQ)
    peft = get_peft_model(model, config).eval()
    with torch.no_grad():
        for key, parameter in peft.named_parameters():
            if "lora_E" in key:
                parameter.normal_(0, 0.5)
    folder = HERE / "schedules" / "adalora"
    shutil.rmtree(folder, ignore_errors=True)
    peft.peft_config["default"].base_model_name_or_path = base
    peft.save_pretrained(folder / "start")
    parameters = [p for p in peft.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.01)
    peft.train()
    losses = []
    for step in range(1, steps + 1):
        batch = padded([data[step % 3], data[(step + 1) % 3]])
        with torch.no_grad():
            losses.append(peft.base_model.model(**batch).loss.item())
        peft(**batch).loss.backward()
        optimizer.step()
        peft.base_model.update_and_allocate(step)
        optimizer.zero_grad()
    peft.save_pretrained(folder / "end")
    for part in ("start", "end"):
        (folder / part / "README.md").unlink()
    (folder / "expected.json").write_text(json.dumps(dict(base=base, rows=data, rate=rate, losses=losses), sort_keys=True) + "\n")
    kept = json.loads((folder / "end" / "adapter_config.json").read_text())["rank_pattern"]
    print("adalora schedule:", losses[0], losses[-1], sum(map(sum, kept.values())), "of", sum(map(len, kept.values())))


if __name__ == "__main__":
    adalora_schedule()
    write("adalora", "t5-v1.0", 2e-3,
          AdaLoraConfig(init_r=3, target_r=2, lora_alpha=6, orth_reg_weight=0.0, total_step=100, target_modules=["q", "v"],
                        **SEQ2SEQ), [Q0], lambda model: jitter(model, 0.3))
    write("oft", "t5-v1.1", 1e-3, OFTConfig(oft_block_size=6, target_modules=["q", "wo"], **SEQ2SEQ), [Q0, WO1])
    write("oft-exact", "t5-v1.0", 1e-3,
          OFTConfig(r=4, oft_block_size=0, use_cayley_neumann=False, block_share=True, target_modules=["k", "v"], **SEQ2SEQ),
          ["encoder.block.0.layer.0.SelfAttention.k"])
    write("coft", "t5-v1.0", 1e-3,
          OFTConfig(oft_block_size=8, coft=True, eps=0.05, num_cayley_neumann_terms=3, target_modules=["q"], **SEQ2SEQ), [Q0])
    write("boft", "t5-v1.1", 1e-3, BOFTConfig(boft_block_size=4, target_modules=["q", "wo"], **SEQ2SEQ), [Q0, WO1])
    write("vera", "t5-v1.1", 5e-3, VeraConfig(r=8, target_modules=["q", "wo"], projection_prng_key=7, **SEQ2SEQ), [Q0, WO1])
    # Without the shared matrices: a reader has to draw the same ones.
    write("vera-key", "t5-v1.0", 5e-3,
          VeraConfig(r=5, target_modules=["q", "v"], projection_prng_key=3, save_projection=False, d_initial=0.3,
                     layers_to_transform=[0], layers_pattern=["block"], **SEQ2SEQ), [Q0])
    write("loha", "t5-v1.1", 2e-3,
          LoHaConfig(r=3, alpha=6, target_modules=["q", "wo"], rank_pattern={"wo": 2}, alpha_pattern={"q": 5}, **SEQ2SEQ),
          [Q0, WO1], lambda model: jitter(model, 0.3))
    write("lokr", "t5-v1.1", 2e-3,
          LoKrConfig(r=2, alpha=3, target_modules=["q", "wo"], exclude_modules=["EncDecAttention.q"], **SEQ2SEQ), [Q0, WO1])
    write("lokr-both", "t5-v1.0", 2e-3,
          LoKrConfig(r=1, alpha=2, target_modules=["k", "wi"], decompose_both=True, decompose_factor=4,
                     init_weights="lycoris", **SEQ2SEQ), ["encoder.block.0.layer.0.SelfAttention.k"],
          lambda model: jitter(model, 0.3))
    write("ia3", "t5-v1.1", 5e-3, IA3Config(target_modules=["k", "v", "wo"], feedforward_modules=["wo"], **SEQ2SEQ),
          ["encoder.block.0.layer.0.SelfAttention.k", WO1], lambda model: jitter(model, 0.3))
    write("ia3-pattern", "t5-v1.0", 5e-3,
          IA3Config(target_modules=r".*block\.1.*\.(q|wi)", feedforward_modules=r".*\.wi", **SEQ2SEQ),
          ["encoder.block.1.layer.0.SelfAttention.q"], lambda model: jitter(model, 0.3))
    write("layer-norm", "t5-v1.1", 2e-3, LNTuningConfig(**SEQ2SEQ), (), lambda model: jitter(model, 0.2))
    write("layer-norm-final", "t5-v1.0", 2e-3, LNTuningConfig(target_modules=["final_layer_norm"], **SEQ2SEQ), (),
          lambda model: jitter(model, 0.2))
