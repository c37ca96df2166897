"""Training speed and memory against Hugging Face PEFT: the same weights, rows, adapter and hyperparameters.

    make bench            # makes the environment outside the checkout and runs this

    python training.py [--rounds 3] [--steps 8] [--batch 8] [--dialogues FILE.jsonl] [--padding dynamic|lab]

The model has FLAN-T5-small's shape and random weights, LoRA r 32 on q and v, dropout 0.1 in the model and 0.05 in LoRA.
Row lengths are those of the dialogues' words, times 1.35 as subwords. Each round runs one side and then the other, each
in a process of its own; the first two steps of a process warm up and don't count. A tokens/s counts real tokens only.
Before timing, both sides train a few steps without dropout, and their losses have to agree to 1e-3.
"""
import argparse
import json
import os
import pathlib
import platform
import random
import statistics
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent
SHAPE = dict(vocab_size=32128, d_model=512, d_kv=64, d_ff=1024, num_layers=8, num_decoder_layers=8, num_heads=6,
             feed_forward_proj="gated-gelu", decoder_start_token_id=0, eos_token_id=1, pad_token_id=0)


def make_inputs(folder, dialogues, count, dropout):
    """A random model, a fresh adapter and rows of random ids, as both sides read them."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import T5Config, T5ForConditionalGeneration

    torch.manual_seed(0)
    random.seed(0)
    config = T5Config(**SHAPE, dropout_rate=dropout, tie_word_embeddings=False)
    model = T5ForConditionalGeneration(config)
    model.lm_head.weight = torch.nn.Parameter(torch.randn(SHAPE["vocab_size"], SHAPE["d_model"]) * 0.05)
    (folder / "model").mkdir(parents=True)
    from safetensors.torch import save_file
    state = {k: v.detach().clone() for k, v in model.state_dict().items() if "embed_tokens" not in k}
    save_file(state, folder / "model" / "model.safetensors", metadata={"format": "pt"})
    settings = dict(SHAPE, model_type="t5", tie_word_embeddings=False, dropout_rate=dropout)
    (folder / "model" / "config.json").write_text(json.dumps(settings))
    lora = LoraConfig(r=32, lora_alpha=32, target_modules=["q", "v"], lora_dropout=0.05 if dropout else 0.0,
                      task_type="SEQ_2_SEQ_LM")
    get_peft_model(model, lora).save_pretrained(folder / "adapter")
    lengths = []
    for line in open(dialogues):
        row = json.loads(line)
        lengths.append((min(512, int(len(row["dialogue"].split()) * 1.35) + 12),
                        int(len(row["summary"].split()) * 1.35) + 2))
    random.shuffle(lengths)
    ids = lambda n: [random.randrange(2, 32000) for _ in range(n - 1)] + [1]
    rows = [dict(input=ids(n), target=ids(m)) for n, m in (lengths * (count // len(lengths) + 1))[:count]]
    (folder / "rows.json").write_text(json.dumps(rows))


def peer(folder, steps, batch, padding):
    """Hugging Face PEFT's side; prints one line of JSON."""
    import resource
    import time

    import torch
    from peft import PeftModel
    from safetensors.torch import load_file
    from transformers import T5Config, T5ForConditionalGeneration

    torch.set_num_threads(os.cpu_count())
    config = T5Config(**json.loads((folder / "model" / "config.json").read_text()))
    model = T5ForConditionalGeneration(config)
    state = load_file(folder / "model" / "model.safetensors")
    model.lm_head.weight = torch.nn.Parameter(torch.empty_like(state["lm_head.weight"]))
    model.load_state_dict(state, strict=False)
    model.config.scale_decoder_outputs = False
    model = PeftModel.from_pretrained(model, folder / "adapter", is_trainable=True)
    model.train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3, weight_decay=0.01)
    rows = json.loads((folder / "rows.json").read_text())
    losses, seconds, tokens = [], [], []
    for step in range(steps):
        part = rows[step * batch:(step + 1) * batch]
        width = 512 if padding == "lab" else max(len(r["input"]) for r in part)
        depth = 512 if padding == "lab" else max(len(r["target"]) for r in part)
        start = time.perf_counter()
        data = dict(
            input_ids=torch.tensor([r["input"] + [0] * (width - len(r["input"])) for r in part]),
            attention_mask=torch.tensor([[1] * len(r["input"]) + [0] * (width - len(r["input"])) for r in part]),
            labels=torch.tensor([r["target"] + [-100] * (depth - len(r["target"])) for r in part]))
        loss = model(**data).loss
        loss.backward()
        losses.append(loss.item())
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.perf_counter() - start)
        tokens.append(sum(len(r["input"]) + len(r["target"]) for r in part))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    print(json.dumps(dict(losses=losses, seconds=seconds, tokens=tokens, peakBytes=peak)))


def ours(folder, steps, batch):
    program = ROOT / ".build/release/training-benchmark"
    return json.loads(subprocess.run([program, folder, str(steps), str(batch)], check=True, capture_output=True,
                                     text=True).stdout)


def theirs(folder, steps, batch, padding):
    command = [sys.executable, __file__, "--peer", folder, "--steps", str(steps), "--batch", str(batch), "--padding",
               padding]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def speed(result):
    return sum(result["tokens"][2:]) / sum(result["seconds"][2:])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--padding", choices=["dynamic", "lab"], default="dynamic")
    parser.add_argument("--dialogues", default=str(ROOT / "Examples/dialogues/train.jsonl"))
    parser.add_argument("--peer", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peer:
        return peer(pathlib.Path(options.peer), options.steps, options.batch, options.padding)
    with tempfile.TemporaryDirectory() as temporary:
        plain, timed = pathlib.Path(temporary) / "plain", pathlib.Path(temporary) / "timed"
        rows = options.batch * max(options.steps, 4)
        make_inputs(plain, options.dialogues, rows, dropout=0.0)
        make_inputs(timed, options.dialogues, rows, dropout=0.1)
        a, b = ours(plain, 4, options.batch)["losses"], theirs(plain, 4, options.batch, "dynamic")["losses"]
        difference = max(abs(x - y) / y for x, y in zip(a, b))
        print(f"losses of 4 steps without dropout: ours {a}, theirs {b}; largest relative difference {difference:.1e}")
        if difference > 1e-3:
            sys.exit("the losses differ: nothing is measured")
        speeds, memories = [], []
        for number in range(options.rounds):
            mine = ours(timed, options.steps, options.batch)
            other = theirs(timed, options.steps, options.batch, options.padding)
            speeds.append((speed(mine), speed(other)))
            memories.append((mine["peakBytes"], other["peakBytes"]))
            print(f"round {number + 1}: ours {speeds[-1][0]:.0f} tokens/s, {memories[-1][0] / 1e9:.2f} GB; "
                  f"Hugging Face PEFT {speeds[-1][1]:.0f} tokens/s, {memories[-1][1] / 1e9:.2f} GB", flush=True)
        ratios = sorted(x / y for x, y in speeds)
        shares = sorted(x / y for x, y in memories)
        print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} threads, padding: {options.padding}")
        print(f"tokens/s: {statistics.median(ratios):.2f}x (from {ratios[0]:.2f} to {ratios[-1]:.2f})")
        print(f"peak memory: {statistics.median(shares):.2f}x (from {shares[0]:.2f} to {shares[-1]:.2f})")


main()
