"""Writes adapters of Hugging Face PEFT over the matrices of the vocabulary: tied ones, resized ones, some of their rows.

    pip install torch transformers peft safetensors
    OMP_NUM_THREADS=1 python make_vocabulary_fixtures.py

Each folder `vocabulary/*` holds an adapter as `save_pretrained` writes it, and `expected.safetensors` with the logits of
the target positions of rows that are in its metadata, as are the base's name and whether the merged model is tied.
"""
import json
import shutil
import sys
import warnings

import torch
from peft import LoraConfig, PromptTuningConfig, TrainableTokensConfig, get_peft_model
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

from hugging_face import HERE, MODELS

warnings.filterwarnings("ignore")
FOLDER = HERE / "vocabulary"
GROWN = 99


def grow(model):
    torch.manual_seed(9)
    model.resize_token_embeddings(GROWN, mean_resizing=False)
    with torch.no_grad():
        for matrix in (model.get_input_embeddings(), model.get_output_embeddings()):
            matrix.weight[96:] = 0.2 * torch.randn(3, matrix.weight.shape[1])


def grow_by_mean(model):
    torch.manual_seed(9)
    model.resize_token_embeddings(GROWN)
    with torch.no_grad():
        matrix = model.get_input_embeddings()
        matrix.weight[96:] = 0.2 * torch.randn(3, matrix.weight.shape[1])


def shrink(model):
    model.resize_token_embeddings(90)


def write(name, base, config, prepare=None, tied=None, rows=None, **save):
    torch.manual_seed(sum(map(ord, name)))
    seq2seq = base.startswith("t5")
    load = AutoModelForSeq2SeqLM if seq2seq else AutoModelForCausalLM
    model = load.from_pretrained(MODELS / base, dtype=torch.float32, attn_implementation="eager")
    # PEFT compares the vocabulary with the base's own configuration.
    model.config._name_or_path = model.name_or_path = str(MODELS / base)
    if prepare:
        prepare(model)
    data = rows or json.loads((MODELS / base / "expected.json").read_text())["rows"]
    peft = get_peft_model(model, config).eval()
    with torch.no_grad():
        for parameter in peft.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    peft.peft_config["default"].base_model_name_or_path = str(MODELS / base)
    folder = FOLDER / name
    shutil.rmtree(folder, ignore_errors=True)
    peft.save_pretrained(folder, **save)
    (folder / "README.md").unlink()
    file = folder / "adapter_config.json"
    settings = json.loads(file.read_text()) | {"base_model_name_or_path": base}
    file.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n")
    virtual = getattr(config, "num_virtual_tokens", 0)
    logits = []
    with torch.no_grad():
        for x, y in data:
            if seq2seq:
                logits.append(peft(input_ids=torch.tensor([x]), labels=torch.tensor([y])).logits[0])
            else:
                out = peft(input_ids=torch.tensor([x + y])).logits[0]
                logits.append(out[virtual + len(x) - 1: virtual + len(x + y) - 1])
    tied = model.config.tie_word_embeddings if tied is None else tied
    save_file({"logits": torch.cat(logits).contiguous()}, folder / "expected.safetensors",
              metadata={"base": base, "rows": json.dumps({"rows": data}), "tied": json.dumps(tied)})
    print(name)


def lora(targets, **settings):
    return LoraConfig(**{**dict(task_type="CAUSAL_LM", r=2, lora_alpha=4, target_modules=targets), **settings})


if __name__ == "__main__":
    new = [[[3, 96, 17, 40, 98], [97, 11, 96]], [[96, 5, 98], [2, 97]]]
    old = [[[3, 17, 40, 60], [80, 11, 5]], [[50, 5, 30], [2, 70]]]
    # Each use of a tied matrix apart.
    write("tied-output", "qwen2", lora(["q_proj", "lm_head"]), tied=False)
    write("tied-output-dora", "qwen2", lora(["q_proj", "lm_head"], use_dora=True), tied=False)
    write("tied-embedding", "qwen2", lora(["q_proj", "embed_tokens"]), tied=False)
    write("tied-both", "qwen2", lora(["q_proj", "embed_tokens", "lm_head"]), tied=False)
    write("tied-output-saved", "qwen2", lora(["q_proj"], modules_to_save=["lm_head"]), tied=False)
    write("tied-embedding-saved", "qwen2", lora(["q_proj"], modules_to_save=["embed_tokens"]), tied=False)
    write("tied-both-saved", "qwen2", lora(["q_proj"], modules_to_save=["embed_tokens", "lm_head"]), tied=False)
    write("tied-tokens-apart", "qwen2",
          lora(["q_proj"], trainable_token_indices={"embed_tokens": [5, 6], "lm_head": [7]}), tied=False)
    write("tied-output-tokens", "qwen2", TrainableTokensConfig(
        task_type="CAUSAL_LM", token_indices=[5, 8], target_modules=["lm_head"]), tied=False)
    write("tied-gpt2-output", "gpt2", lora(["c_attn", "lm_head"], fan_in_fan_out=True), tied=False)
    write("tied-t5-output", "t5-tied-gated", lora(["q", "lm_head"], task_type="SEQ_2_SEQ_LM"), tied=False)
    # Both uses together.
    write("tied-together", "qwen2", lora(["q_proj", "embed_tokens"], ensure_weight_tying=True))
    write("tied-together-expression", "qwen2", lora(r"(.*\.)?(q_proj|embed_tokens)", ensure_weight_tying=True))
    # Hugging Face compares an expression with the bare names, which this one doesn't match.
    write("tied-apart-expression", "qwen2", lora(r".*\.(q_proj|embed_tokens)", ensure_weight_tying=True), tied=False)
    write("tied-together-saved", "qwen2",
          lora(["q_proj"], modules_to_save=["lm_head"], ensure_weight_tying=True))
    write("tied-tokens", "qwen2", lora(["q_proj"], trainable_token_indices=[5, 6]))
    # Rows of an output layer, and DoRA over a table.
    write("output-tokens", "llama", lora(["q_proj"], trainable_token_indices={"embed_tokens": [5], "lm_head": [7, 3]}))
    write("embedding-dora", "llama", lora(["q_proj", "embed_tokens"], use_dora=True))
    # Other vocabularies.
    for base in ("qwen2", "llama"):
        write(f"grown-{base}", base, lora(["q_proj"]), grow, rows=new)
        write(f"grown-saved-{base}", base, lora(["q_proj"], modules_to_save=["embed_tokens", "lm_head"]), grow,
              tied=False, rows=new)
        write(f"grown-tokens-{base}", base, lora(["q_proj"], trainable_token_indices=[96, 98]), grow, rows=new)
        if base == "qwen2":  # of an untied model the output layer isn't stored
            write(f"grown-trainable-{base}", base, TrainableTokensConfig(
                task_type="CAUSAL_LM", token_indices=[97, 3]), grow, rows=new)
        write(f"grown-saved-together-{base}", base,
              lora(["q_proj"], modules_to_save=["embed_tokens"], ensure_weight_tying=True), grow,
              tied=base == "qwen2", rows=new)
        # Of an untied model the output layer isn't stored.
        write(f"grown-embedding-{base}", base, lora(["q_proj", "embed_tokens"]),
              grow_by_mean if base == "llama" else grow, tied=False, rows=new)
        write(f"shrunk-embedding-{base}", base, lora(["q_proj", "embed_tokens"]), shrink, tied=False, rows=old)
        write(f"grown-both-{base}", base, lora(["q_proj", "embed_tokens", "lm_head"]), grow, tied=False, rows=new)
        write(f"shrunk-{base}", base, lora(["q_proj"]), shrink, rows=old)
        write(f"stored-{base}", base, lora(["q_proj"]), rows=old, save_embedding_layers=True)
    write("grown-prompt", "llama", PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3), grow, rows=new)
    # Patterns and biases that Hugging Face takes as they are.
    write("named-group", "llama", lora(r".*\.(?P<part>self_attn|mlp)\.(q_proj|up_proj)"), rows=old)
    write("no-biases", "llama", lora(["q_proj"], bias="lora_only"), rows=old)
