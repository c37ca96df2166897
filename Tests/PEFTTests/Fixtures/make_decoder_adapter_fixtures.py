"""Writes adapters over the decoders and the mT5 of `make_decoder_fixtures.py` that Hugging Face PEFT made.

    pip install torch transformers peft safetensors
    OMP_NUM_THREADS=1 python make_decoder_adapter_fixtures.py

The same things are stored as by the other scripts (see hugging_face.py), in folders `hugging-face/<model>-<method>`.
"""
import json
import shutil

import torch
from peft import (AdaLoraConfig, IA3Config, LNTuningConfig, LoraConfig, PrefixTuningConfig, PromptTuningConfig,
                  TrainableTokensConfig, get_peft_model)
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

from hugging_face import HERE, MODELS, jitter


def inputs(model, data):
    pad = lambda lists, value: torch.tensor([x + [value] * (max(map(len, lists)) - len(x)) for x in lists])
    if model.config.is_encoder_decoder:
        return dict(input_ids=pad([x for x, _ in data], 0), attention_mask=pad([[1] * len(x) for x, _ in data], 0),
                    labels=pad([y for _, y in data], -100))
    return dict(input_ids=pad([x + y for x, y in data], 0), attention_mask=pad([[1] * len(x + y) for x, y in data], 0),
                labels=pad([[-100] * len(x) + y for x, y in data], -100))


def write(name, base, config, rate=1e-3, virtual=0, merged=(), maker=None, prepare=None):
    torch.manual_seed(sum(map(ord, name)))
    seq2seq = base == "mt5"
    path = f"decoders/{base}"
    model = (maker or (AutoModelForSeq2SeqLM if seq2seq else AutoModelForCausalLM)).from_pretrained(
        MODELS / path, dtype=torch.float32, attn_implementation="eager")
    model.config._name_or_path = model.name_or_path = path
    data = json.loads((MODELS / path / "expected.json").read_text())["rows"]
    peft = get_peft_model(model, config).eval()
    peft.peft_config["default"].base_model_name_or_path = path
    jitter(peft, 0.1)
    if prepare:
        prepare(peft)
    folder = HERE / "hugging-face" / name
    shutil.rmtree(folder, ignore_errors=True)
    peft.save_pretrained(folder)
    (folder / "README.md").unlink()
    peft.train()  # AdaLoRA asks for it; there is no dropout
    out = peft(**inputs(model, data))
    out.loss.backward()
    if seq2seq:
        logits = torch.cat([out.logits[i, : len(y)] for i, (_, y) in enumerate(data)])
    else:
        logits = torch.cat([out.logits[i, virtual + len(x) - 1: virtual + len(x + y) - 1] for i, (x, y) in enumerate(data)])
    tensors = {"logits": logits.detach()}
    values = {p.data_ptr(): p for p in peft.parameters() if p.requires_grad}
    for key, value in get_peft_model_state_dict(peft, save_embedding_layers=False).items():
        if value.data_ptr() in values:
            tensors["gradient." + key] = values[value.data_ptr()].grad.reshape(value.shape).clone()
        elif key == "prompt_embeddings":
            tensors["gradient." + key] = peft.prompt_encoder["default"].embedding.weight.grad.clone()
    peft.zero_grad()
    parameters = [p for p in peft.parameters() if p.requires_grad]
    start = [p.detach().clone() for p in parameters]
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.01)
    curve = []
    for step in range(20):
        optimizer.zero_grad()
        loss = peft(**inputs(model, [data[step % 3], data[(step + 1) % 3]])).loss
        loss.backward()
        optimizer.step()
        curve.append(loss.item())
    if merged:
        with torch.no_grad():
            for p, value in zip(parameters, start):
                p.copy_(value)
        whole = peft.merge_and_unload().state_dict()
        for path in merged:
            tensors["merged." + path] = whole[path if path in whole else path + ".weight"]
    save_file({k: v.contiguous() for k, v in tensors.items()}, folder / "expected.safetensors")
    (folder / "expected.json").write_text(
        json.dumps(dict(base=f"decoders/{base}", rows=data, loss=out.loss.item(), losses=curve, rate=rate),
                   sort_keys=True) + "\n")
    print(name, out.loss.item(), curve[0], curve[-1])


LM, S2S = dict(task_type="CAUSAL_LM"), dict(task_type="SEQ_2_SEQ_LM")


def main():
    write("gemma2-lora", "gemma2", LoraConfig(r=3, lora_alpha=6, **LM))
    write("gemma2-lora-tables", "gemma2", LoraConfig(r=2, lora_alpha=4, target_modules=["o_proj", "embed_tokens"], **LM))
    write("gemma2-prompt", "gemma2", PromptTuningConfig(num_virtual_tokens=4, **LM), virtual=4)
    write("gemma3-prefix", "gemma3", PrefixTuningConfig(num_virtual_tokens=7, **LM))
    write("gemma3-ia3", "gemma3", IA3Config(**LM))
    write("gemma3-tokens", "gemma3", TrainableTokensConfig(token_indices=[2, 5, 80], **LM))
    write("gemma3-norms", "gemma3", LNTuningConfig(**LM))
    write("qwen2-prefix", "qwen2", PrefixTuningConfig(num_virtual_tokens=3, **LM))
    write("qwen2-norms", "qwen2", LNTuningConfig(**LM))
    write("phi3-lora", "phi3", LoraConfig(r=3, lora_alpha=6, target_modules=["qkv_proj", "gate_up_proj"], **LM),
          merged=["model.layers.0.self_attn.qkv_proj"])
    write("phi3-prefix", "phi3", PrefixTuningConfig(num_virtual_tokens=4, **LM))
    write("mt5-ia3", "mt5", IA3Config(**S2S))
    write("mt5-adalora", "mt5", AdaLoraConfig(init_r=2, target_r=1, orth_reg_weight=0.0, total_step=1000, tinit=100, tfinal=100, **S2S))


if __name__ == "__main__":
    main()
