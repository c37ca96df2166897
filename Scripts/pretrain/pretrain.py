#!/usr/bin/env python3
"""Continues the pretraining of tiny-t5 on tasks built from texts and dialogues that require the source. See README.md.

    python3 pretrain.py --base FOLDER --vocabulary FOLDER --texts FOLDER --out FOLDER --minutes 60
"""

import argparse
import json
import math
import os
import random
import shutil
import time
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from transformers import T5Config, T5ForConditionalGeneration
from transformers.initialization import no_init_weights

import initialize
import tasks
from texts import Dialogues, Recorder, paragraphs

TIED = {"encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight"}


def new_model(base, vocabulary, seed):
    config = T5Config.from_pretrained(base)
    tokenizers = Tokenizer.from_file(f"{base}/tokenizer.json"), Tokenizer.from_file(f"{vocabulary}/tokenizer.json")
    config.vocab_size = tokenizers[1].get_vocab_size()
    config.dropout_rate = 0.0
    with no_init_weights():
        model = T5ForConditionalGeneration(config)
    model.tie_weights()
    generator = torch.Generator().manual_seed(seed)
    table = load_file(f"{base}/model.safetensors")["shared.weight"].float()
    initialize.initialize(model, initialize.embeddings(table, *tokenizers, generator), seed)
    return model


def save(model, base, vocabulary, out, note):
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    state = {name: tensor for name, tensor in model.state_dict().items() if name not in TIED}
    save_file({name: tensor.to(torch.bfloat16).contiguous() for name, tensor in state.items()}, out / "model.safetensors", {"format": "pt"})
    config = json.loads(Path(base, "config.json").read_text()) | {"vocab_size": model.config.vocab_size}
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    for name in ("tokenizer_config.json", "generation_config.json"):
        shutil.copy(Path(base, name), out)
    shutil.copy(Path(vocabulary, "tokenizer.json"), out)
    (out / "pretraining.json").write_text(json.dumps(note, indent=1) + "\n")


class Batches:
    """Batches of examples of similar length."""

    def __init__(self, source, tokenizer, size):
        self.source, self.tokenizer, self.size, self.ready = source, tokenizer, size, []

    def next(self):
        if not self.ready:
            drawn = [self.source.draw() for _ in range(self.size * 12)]
            sources = self.tokenizer.encode_batch([source for _, source, _ in drawn])
            targets = self.tokenizer.encode_batch([target for _, _, target in drawn])
            pairs = [
                (name, source.ids[:127] + [1] if len(source.ids) > 128 else source.ids, target.ids[:56])
                for (name, _, _), source, target in zip(drawn, sources, targets)
                if len(target.ids) > 1
            ]
            pairs.sort(key=lambda pair: (len(pair[1]) // 12, len(pair[2])))
            self.ready = [pairs[start : start + self.size] for start in range(0, len(pairs), self.size)]
            self.source.rng.shuffle(self.ready)
        return tensors(self.ready.pop())


def tensors(pairs):
    width, height = max(len(source) for _, source, _ in pairs), max(len(target) for _, _, target in pairs)
    inputs = torch.zeros(len(pairs), width, dtype=torch.long)
    labels = torch.full((len(pairs), height), -100)
    for row, (_, source, target) in enumerate(pairs):
        inputs[row, : len(source)] = torch.tensor(source)
        labels[row, : len(target)] = torch.tensor(target)
    return inputs, labels, [name for name, _, _ in pairs]


def losses(model, inputs, labels):
    """The summed loss of each example, and its number of tokens."""
    logits = model(input_ids=inputs, attention_mask=(inputs != 0).long(), labels=labels).logits
    each = torch.nn.functional.cross_entropy(logits.transpose(1, 2), labels, reduction="none")
    return each.sum(1), (labels >= 0).sum(1)


def evaluate(model, batches):
    """By task: the loss with the right input, and with another example's input."""
    totals = {}
    model.eval()
    with torch.no_grad():
        for inputs, labels, names in batches:
            right, count = losses(model, inputs, labels)
            wrong, _ = losses(model, inputs.roll(1, 0), labels)
            for name, r, w, c in zip(names, right, wrong, count):
                t = totals.setdefault(name, [0.0, 0.0, 0])
                t[0], t[1], t[2] = t[0] + r.item(), t[1] + w.item(), t[2] + c.item()
    model.train()
    return {name: (r / c, w / c) for name, (r, w, c) in sorted(totals.items())}


def main():
    parser = argparse.ArgumentParser()
    for option in ("base", "vocabulary", "texts", "out"):
        parser.add_argument(f"--{option}", required=True)
    parser.add_argument("--resume")
    parser.add_argument("--minutes", type=float, required=True, help="wall-clock training time")
    parser.add_argument("--copy-share", type=float, default=0.08, help="fraction of the time for tasks that teach copying")
    parser.add_argument("--decay", type=float, default=0.6, help="fraction of the time in which the learning rate decays to 0")
    parser.add_argument("--lr", type=float, default=6e-4)
    parser.add_argument("--embedding-lr", type=float, default=1.2e-3)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    torch.set_num_threads(int(os.environ.get("THREADS", 1)))

    tokenizer = Tokenizer.from_file(f"{options.vocabulary}/tokenizer.json")
    words = [p[1:] for p in tokenizer.get_vocab() if len(p) > 3 and p[0] == "▁" and p[1:].isalpha() and p[1:].islower()]
    texts, names = paragraphs(options.texts), {name for name, _ in Recorder(random.Random(0)).names}
    print(len(words), "words", {name: len(part) for name, part in texts.items()}, len(names), "names", flush=True)
    source = tasks.Tasks(texts, Dialogues(options.seed + 100), sorted(words), names, options.seed)
    held = tasks.Tasks(texts, Dialogues(7), sorted(words), names, 7)
    held.weights = tasks.STAGES["read"]
    held_batches = Batches(held, tokenizer, 24)
    held_batches = [held_batches.next() for _ in range(4)]

    state = torch.load(options.resume) if options.resume else None
    model = new_model(options.base, options.vocabulary, options.seed)
    if state:
        model.load_state_dict(state["model"])
    table = model.shared.weight
    groups = [
        {"params": [table], "peak": options.embedding_lr},
        {"params": [p for p in model.parameters() if p is not table], "peak": options.lr},
    ]
    optimizer = torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.98), weight_decay=0.0, fused=True)
    if state and "optimizer" in state:
        optimizer.load_state_dict(state["optimizer"])
        for group, new in zip(optimizer.param_groups, groups):
            group["peak"] = new["peak"]
    step, tokens, running, saved, begun = 0, 0, [], time.time(), time.time()
    batches = Batches(source, tokenizer, options.batch)
    control = Path(options.out, "minutes")  # write a number to it to change the training time
    control.parent.mkdir(parents=True, exist_ok=True)
    control.write_text(str(options.minutes))
    print("   " + "  ".join(f"{n} {r:.2f}/{w:.2f}" for n, (r, w) in evaluate(model, held_batches).items()), flush=True)
    while True:
        minutes = (time.time() - begun) / 60
        if step % 10 == 0:
            total = float(control.read_text())
        if minutes >= total:
            break
        source.weights = tasks.STAGES["copy" if minutes < options.copy_share * total else "read"]
        rate = min(1, (step + 1) / 60) * min(1, max(0.0, (total - minutes) / (options.decay * total)) + 0.01)
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * rate
        inputs, labels, _ = batches.next()
        loss = model(input_ids=inputs, attention_mask=(inputs != 0).long(), labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        step, tokens = step + 1, tokens + int((inputs != 0).sum() + (labels >= 0).sum())
        running.append(loss.item())
        if step % 20 == 0:
            print(f"step {step} {minutes:.1f} min loss {sum(running) / len(running):.3f} {tokens / 1e6:.2f} M tokens "
                  f"{tokens / (60 * minutes + 1e-9):.0f}/s cpu {time.process_time():.0f} s {time.strftime('%H:%M:%S')}", flush=True)  # fmt: skip
            running = []
        if step % 300 == 0:
            print("   " + "  ".join(f"{n} {r:.2f}/{w:.2f}" for n, (r, w) in evaluate(model, held_batches).items()), flush=True)
        if time.time() - saved > 240:
            saved = time.time()
            save(model, options.base, options.vocabulary, options.out, {"steps": step, "tokens": tokens})
            torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, f"{options.out}/state.pt")
    final = evaluate(model, held_batches)
    print("final", final, flush=True)
    note = {"steps": step, "tokens": tokens, "processor_minutes": round(time.process_time() / 60, 1), "held_out_loss": {n: round(r, 3) for n, (r, _) in final.items()},
            "held_out_loss_with_another_input": {n: round(w, 3) for n, (_, w) in final.items()}}  # fmt: skip
    save(model, options.base, options.vocabulary, options.out, note)
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, f"{options.out}/state.pt")


if __name__ == "__main__":
    main()
