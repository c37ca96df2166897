"""Writes small random T5 models in Hugging Face's layout, with what transformers computes with them.

    pip install torch transformers safetensors
    python make_t5_fixtures.py

transformers' cache wants as many decoder as encoder layers, hence use_cache=False.

Each folder t5-* holds a model, `expected.json` (rows, loss, logits, generated ids, losses of 20 training steps) and
`gradients.safetensors`. Dropout is 0. Rows have different lengths: transformers pads and masks them.
"""
import json
import pathlib
import shutil

import torch
from safetensors.torch import save_file
from transformers import Adafactor, T5Config, T5ForConditionalGeneration

HERE = pathlib.Path(__file__).parent
SHAPE = dict(vocab_size=96, d_model=24, d_kv=6, d_ff=40, num_layers=2, num_decoder_layers=3, num_heads=4,
             relative_attention_num_buckets=8, relative_attention_max_distance=20, dropout_rate=0.0,
             decoder_start_token_id=0)
VARIANTS = {
    # name: feed-forward, own output layer, scaled output, stored type, shard size
    "t5-v1.0": ("relu", False, True, torch.float32, None),
    "t5-v1.1": ("gated-gelu", True, False, torch.float32, "30KB"),
    "t5-tied-gated": ("gated-gelu", False, True, torch.bfloat16, None),
    "t5-half": ("gated-silu", True, False, torch.float16, None),
}


def rows(generator):
    lengths = [(23, 5), (7, 9), (31, 1)]
    return [([*torch.randint(2, 96, (n - 1,), generator=generator).tolist(), 1],
             [*torch.randint(2, 96, (m - 1,), generator=generator).tolist(), 1]) for n, m in lengths]


def padded(data):
    width, depth = max(len(x) for x, _ in data), max(len(y) for _, y in data)
    ids = torch.tensor([x + [0] * (width - len(x)) for x, _ in data])
    mask = torch.tensor([[1] * len(x) + [0] * (width - len(x)) for x, _ in data])
    labels = torch.tensor([y + [-100] * (depth - len(y)) for _, y in data])
    return dict(input_ids=ids, attention_mask=mask, labels=labels)


def build(name):
    feed_forward, own_head, scaled, dtype, shard = VARIANTS[name]
    torch.manual_seed(sum(map(ord, name)))
    config = T5Config(**SHAPE, feed_forward_proj=feed_forward, tie_word_embeddings=scaled)
    model = T5ForConditionalGeneration(config).eval()
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            scale = 0.4 if "shared" in key or "relative" in key else 0.25
            parameter.copy_(torch.randn_like(parameter) * scale + (1 if "norm" in key else 0))
        if own_head:
            model.lm_head.weight = torch.nn.Parameter(torch.randn(96, 24) * 0.3)
    # What is stored in half precision is what has to be computed with.
    model = model.to(dtype).to(torch.float32)
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    state = {k: v.detach().clone().to(dtype).contiguous() for k, v in model.state_dict().items()
             if "embed_tokens" not in k and (own_head or k != "lm_head.weight")}
    if shard:
        names = sorted(state)
        halves = [names[::2], names[1::2]]
        index = {}
        for i, part in enumerate(halves):
            file = f"model-{i + 1:05d}-of-00002.safetensors"
            save_file({k: state[k] for k in part}, folder / file, metadata={"format": "pt"})
            index.update({k: file for k in part})
        (folder / "model.safetensors.index.json").write_text(
            json.dumps({"metadata": {}, "weight_map": index}, indent=1, sort_keys=True))
    else:
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    settings = dict(SHAPE, model_type="t5", architectures=["T5ForConditionalGeneration"],
                    feed_forward_proj=feed_forward, tie_word_embeddings=not own_head, eos_token_id=1, pad_token_id=0,
                    layer_norm_epsilon=1e-6, torch_dtype=str(dtype).split(".")[1])
    (folder / "config.json").write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n")
    return model, folder


def losses(model, data, optimizer):
    """20 steps. The rates are small on purpose: at 1e-3 transformers itself, its weights changed by one part in
    10⁷, leaves its own curve by 0.6 % (Adafactor turns the rounding of near-zero gradients into whole steps)."""
    model.train()
    result = []
    for step in range(20):
        batch = padded([data[step % 3], data[(step + 1) % 3]])
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        result.append(loss.item())
    return result


for name in VARIANTS:
    model, folder = build(name)
    data = rows(torch.Generator().manual_seed(7))
    batch = padded(data)
    out = model(**batch)
    out.loss.backward()
    gradients = {k: p.grad.contiguous() for k, p in model.named_parameters() if p.grad is not None}
    save_file(gradients, folder / "gradients.safetensors")
    logits = [out.logits[i, : len(y)].flatten().tolist() for i, (_, y) in enumerate(data)]
    inputs = dict(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
    generate = lambda **options: [[t for t in row[1:].tolist()] for row in model.generate(
        **inputs, max_new_tokens=12, do_sample=False, use_cache=False, **options)]
    expected = {
        "rows": data, "loss": out.loss.item(), "logits": logits, "greedy": generate(num_beams=1),
        "beam4": generate(num_beams=4), "beam3Long": generate(num_beams=3, length_penalty=2.0),
        "greedyNoRepeat2": generate(num_beams=1, no_repeat_ngram_size=2),
        "beam3NoRepeat1": generate(num_beams=3, no_repeat_ngram_size=1),
        "greedyAtLeast9": generate(num_beams=1, min_new_tokens=9),
        "beam3AtLeast9": generate(num_beams=3, min_new_tokens=9),
        "beam3Early": generate(num_beams=3, early_stopping=True, length_penalty=0.5),
    }
    model.zero_grad()
    state = {k: v.clone() for k, v in model.state_dict().items()}
    unique = list(model.parameters())
    expected["adamw"] = losses(model, data, torch.optim.AdamW(unique, lr=1e-3, weight_decay=0.01))
    model.load_state_dict(state)
    expected["adafactor"] = losses(model, data, Adafactor(unique, lr=2e-4, relative_step=False, warmup_init=False,
                                                          scale_parameter=False, weight_decay=0.01))
    model.load_state_dict(state)
    expected["adafactorScaled"] = losses(model, data, Adafactor(unique, lr=5e-4, relative_step=False,
                                                                warmup_init=False, scale_parameter=True))
    (folder / "expected.json").write_text(json.dumps(expected))
    print(name, expected["loss"], expected["greedy"][0], expected["adamw"][-1], expected["adafactor"][-1])
