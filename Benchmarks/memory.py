"""Accuracy of the memory estimates of `peft plan` against the peak memory of `peft train`.

    swift build -c release
    python Benchmarks/memory.py [--only TEXT] [--write]      # needs torch and safetensors, for the models' weights

Each case trains a few steps in a fresh process and compares its peak resident memory with the plan's total for the same
model, method, batch size and lengths. Models are `tiny-t5`, which comes with the project (bf16), and others with random
weights; prompts are words of one token each, so that all examples have exactly the given length.
`--write` writes the table to Benchmarks/MEMORY.md.
"""
import argparse
import json
import os
import pathlib
import platform
import random
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
PEFT = ROOT / ".build/release/peft"
STEPS = 4
T5 = dict(model_type="t5", decoder_start_token_id=0, eos_token_id=1, pad_token_id=0, tie_word_embeddings=False,
          feed_forward_proj="gated-gelu", dropout_rate=0.1)
MODELS = {
    "T5 77M (FLAN-T5-small's shape)": dict(
        T5, vocab_size=32128, d_model=512, d_kv=64, d_ff=1024, num_layers=8, num_decoder_layers=8, num_heads=6),
    "T5 23M, narrow and deep": dict(
        T5, vocab_size=8192, d_model=256, d_kv=32, d_ff=1024, num_layers=8, num_decoder_layers=8, num_heads=8),
    "Llama 25M": dict(
        model_type="llama", vocab_size=8192, hidden_size=384, intermediate_size=1024, num_hidden_layers=8,
        num_attention_heads=6, num_key_value_heads=2, tie_word_embeddings=False, eos_token_id=1,
        max_position_embeddings=2048),
    "Llama 134M (768 × 12)": dict(
        model_type="llama", vocab_size=32000, hidden_size=768, intermediate_size=2048, num_hidden_layers=12,
        num_attention_heads=12, num_key_value_heads=12, tie_word_embeddings=False, eos_token_id=1,
        max_position_embeddings=2048),
    "Llama 1.1B": dict(
        model_type="llama", vocab_size=32000, hidden_size=2048, intermediate_size=5632, num_hidden_layers=22,
        num_attention_heads=32, num_key_value_heads=4, tie_word_embeddings=False, eos_token_id=1,
        max_position_embeddings=2048),
    "GPT-2 19M": dict(
        model_type="gpt2", vocab_size=8192, n_embd=384, n_layer=8, n_head=6, n_positions=1024, eos_token_id=1,
        resid_pdrop=0.1, embd_pdrop=0.1, attn_pdrop=0.1),
}
SMALL, NARROW, LLAMA, WIDE, BILLION, GPT2 = MODELS
# model, method with its options, batch, prompt and target lengths, optimizer, further options of train and plan
CASES = [
    ("tiny-t5", "lora --rank 8", 8, 128, 32, "adamw"),
    ("tiny-t5", "full", 4, 256, 64, "adamw"),
    ("tiny-t5", "houlsby", 16, 256, 32, "adamw"),
    (SMALL, "lora --rank 32 --targets q,v", 8, 256, 64, "adamw"),
    (SMALL, "lora --rank 8 --targets q,k,v,o,wi_0,wi_1,wo", 4, 512, 64, "adamw"),
    (SMALL, "lora --rank 64 --targets q,v", 1, 64, 64, "adamw"),
    (SMALL, "lora --rank 16 --targets q,v", 16, 128, 128, "adafactor"),
    (SMALL, "full", 1, 64, 64, "adamw"),
    (SMALL, "full", 8, 256, 64, "adamw"),
    (SMALL, "full", 4, 128, 64, "adafactor"),
    (SMALL, "ia3", 8, 256, 64, "adamw"),
    (SMALL, "houlsby", 4, 512, 128, "adamw"),
    (SMALL, "prompt", 8, 256, 64, "adamw"),
    (SMALL, "layernorm", 16, 256, 64, "adamw"),
    (NARROW, "lora --rank 32 --targets q,v", 16, 512, 128, "adamw"),
    (NARROW, "full", 2, 512, 512, "adamw"),
    (LLAMA, "lora --rank 16", 8, 192, 64, "adamw"),
    (LLAMA, "full", 4, 448, 64, "adamw"),
    (GPT2, "lora --rank 16", 8, 192, 64, "adamw"),
    (GPT2, "full", 4, 192, 64, "adamw"),
    (LLAMA, "lora --rank 16", 8, 192, 64, "adamw", "--checkpoint-activations"),
    (LLAMA, "full", 4, 448, 64, "adamw", "--checkpoint-activations"),
    (SMALL, "lora --rank 32 --targets q,v", 8, 256, 64, "adamw", "--checkpoint-activations"),
    (LLAMA, "lora --rank 16", 8, 192, 64, "adamw", "--offload-activations"),
    (LLAMA, "full", 4, 448, 64, "adamw", "--page-optimizer"),
    (LLAMA, "full", 4, 448, 64, "adamw8bit"),
    (SMALL, "full", 4, 128, 64, "adamw8bit"),
    (LLAMA, "lora --rank 16", 8, 192, 64, "adamw", "--weights nf4"),
    (LLAMA, "lora --rank 16", 8, 192, 64, "adamw", "--weights int8"),
    (LLAMA, "lora --rank 16", 8, 192, 64, "adamw", "--weights bf16"),
    (WIDE, "lora --rank 16 --targets all-linear", 4, 448, 64, "adamw"),
    (WIDE, "lora --rank 16 --targets all-linear", 4, 448, 64, "adamw", "--weights bf16"),
    (WIDE, "lora --rank 16 --targets all-linear", 4, 448, 64, "adamw", "--weights int8"),
    (WIDE, "lora --rank 16 --targets all-linear", 4, 448, 64, "adamw", "--weights nf4"),
    (WIDE, "lora --rank 16 --targets all-linear", 4, 448, 64, "adamw", "--weights nf4", "--checkpoint-activations"),
    (BILLION, "lora --rank 16 --targets all-linear", 1, 448, 64, "adamw", "--weights nf4-double",
     "--checkpoint-activations"),
]


def parameters(config):
    """Names and shapes of a checkpoint of this configuration."""
    described = subprocess.run([PEFT, "inspect", config, "--tensors", "--json"], check=True, capture_output=True,
                               text=True)
    return json.loads(described.stdout)["tensors"]


def make_model(folder, settings):
    import torch
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(settings))
    torch.manual_seed(0)
    weights = {}
    for name, shape in parameters(folder / "config.json").items():
        is_norm = len(shape) == 1 and not name.endswith("bias")
        weights[name] = torch.ones(shape) if is_norm else torch.randn(shape) * 0.02
    if sum(tensor.numel() for tensor in weights.values()) > 5e8:
        weights = {name: tensor.to(torch.bfloat16) for name, tensor in weights.items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(ROOT / "Models/tiny-t5" / name, folder / name)


def make_rows(file, rows, prompt, target, ends):
    """Examples of a given number of tokens, of which the tokenizer adds `ends`."""
    random.seed(1)
    vocabulary = json.loads((ROOT / "Models/tiny-t5/tokenizer.json").read_text())["model"]["vocab"]
    pieces = [piece[0] if isinstance(piece, list) else piece for piece in vocabulary]
    words = [piece[1:] for piece in pieces if piece.startswith("▁") and piece[1:].isascii() and piece[1:].isalpha()]
    text = lambda count: " ".join(random.choice(words) for _ in range(count))
    with open(file, "w") as out:
        for _ in range(rows):
            out.write(json.dumps(dict(prompt=text(prompt - ends[0]), target=text(target - ends[1]))) + "\n")


def megabytes(count):
    return f"{count / 1e6:,.0f} MB"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="run only the cases whose description contains this text")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--measured", help="file that caches measured peaks between runs, while estimates change")
    options = parser.parse_args()
    known = {}
    if options.measured and os.path.exists(options.measured):
        known = json.loads(pathlib.Path(options.measured).read_text())
    lines = ["| model | method | optimizer | batch × lengths | plan | measured | difference |",
             "|---|---|---|---|---:|---:|---:|"]
    worst, errors = 0, []
    with tempfile.TemporaryDirectory() as temporary:
        work = pathlib.Path(temporary)
        for number, (name, method, batch, prompt, target, optimizer, *extra) in enumerate(CASES):
            label = f"{name} | {method.replace(' --targets', '').replace(' --rank', ' r')} | {optimizer}"
            label += "".join(f", {option.removeprefix('--')}" for option in extra) + f" | {batch} × {prompt} + {target}"
            if options.only not in label:
                continue
            model = "tiny-t5"
            if name in MODELS:
                model = work / f"model-{list(MODELS).index(name)}"
                if not model.exists():
                    make_model(model, MODELS[name])
            rows, out = work / f"rows-{number}.jsonl", work / f"out-{number}"
            make_rows(rows, batch * STEPS, prompt, target, (1, 1))
            fields = ["--prompt", "{prompt}", "--target", "{target}"]
            shared = ["--model", model, "--method", *method.split(), "--batch-size", str(batch), "--optimizer",
                      optimizer, *" ".join(extra).split(), "--json"]
            peak = known.get(label)
            if peak is None:
                trained = subprocess.run(
                    [PEFT, "train", *shared, *fields, "--data", rows, "--steps", str(STEPS), "--output", out, "--quiet"],
                    capture_output=True, text=True, cwd=ROOT)
                if trained.returncode:
                    sys.exit(trained.stderr)
                result = json.loads(trained.stdout)
                peak = result["peakBytes"]
                print(f"{label}: {result['tokensPerSecond']:.0f} tokens/s", file=sys.stderr)
                known[label] = peak
                shutil.rmtree(out)
                if options.measured:
                    pathlib.Path(options.measured).write_text(json.dumps(known, indent=1))
            planned = subprocess.run(
                [PEFT, "plan", *shared, "--prompt-tokens", str(prompt), "--target-tokens", str(target)],
                capture_output=True, text=True, cwd=ROOT)
            if planned.returncode:
                print(f"{label}: {megabytes(peak)}; {planned.stderr.strip()}", file=sys.stderr)
                continue
            plan = json.loads(planned.stdout)["plans"][0]
            error = plan["totalBytes"] / peak - 1
            errors.append(abs(error))
            lines.append(f"| {label} | {megabytes(plan['totalBytes'])} | {megabytes(peak)} | {error:+.1%} |")
            print(lines[-1], {k: round(v / 1e6, 1) for k, v in plan["memory"].items()}, flush=True)
    if not errors:
        sys.exit("no case was compared")
    summary = (f"{len(errors)} combinations; the largest difference is {max(errors):.1%}, the mean "
               f"{sum(errors) / len(errors):.1%}.")
    print(summary)
    if options.write:
        text = f"""# Estimated and measured memory

Made by `python Benchmarks/memory.py --write` on {platform.machine()} with {os.cpu_count()} threads, {platform.system()}.
The plan's total (`peft plan --json`, no weights read) beside the peak of resident memory that `peft train` reports
after {STEPS} steps in a fresh process. Lengths are tokens of prompt + target.

{chr(10).join(lines)}

{summary}
"""
        (ROOT / "Benchmarks/MEMORY.md").write_text(text)


main()
