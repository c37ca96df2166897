"""Writes small random models of further families in Hugging Face's layout, with what transformers computes with them.

    pip install torch transformers safetensors
    OMP_NUM_THREADS=1 python make_family_fixtures.py

Each folder holds a model and `expected.json` (rows, loss, logits of the target positions, losses of 20 training steps
and, for models that write, generated ids) and `gradients.safetensors`. Dropout is 0.
"""
import json
import pathlib
import shutil

import torch
from safetensors.torch import save_file
from transformers import (AutoModelForCausalLM, AutoModelForSequenceClassification, BertConfig, GPT2Config, LlamaConfig,
                          Qwen2Config, Qwen3Config)

HERE = pathlib.Path(__file__).parent
END = 1
SHAPE = dict(vocab_size=96, hidden_size=24, intermediate_size=40, num_hidden_layers=3, num_attention_heads=4,
             num_key_value_heads=2, max_position_embeddings=128, eos_token_id=END, bos_token_id=0, pad_token_id=0)
CAUSAL = {
    "llama": LlamaConfig(**SHAPE, tie_word_embeddings=False, rms_norm_eps=1e-5,
                         rope_parameters=dict(rope_type="llama3", rope_theta=500.0, factor=4.0, low_freq_factor=1.0,
                                              high_freq_factor=4.0, original_max_position_embeddings=32)),
    "qwen2": Qwen2Config(**SHAPE, tie_word_embeddings=True),
    "qwen3": Qwen3Config(**SHAPE, head_dim=8, tie_word_embeddings=True),
    "gpt2": GPT2Config(vocab_size=96, n_embd=24, n_layer=3, n_head=4, n_positions=128, eos_token_id=END, bos_token_id=0,
                       resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0),
}


def randomize(model):
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            norm = "norm" in key.lower() or ".ln_" in key
            scale = 0.4 if "embed" in key or "wte" in key or "wpe" in key else 0.25
            parameter.copy_(torch.randn_like(parameter) * scale + (1 if norm and key.endswith("weight") else 0))


def save(model, folder, config):
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    state = {k: v.detach().clone().contiguous() for k, v in model.state_dict().items()}
    if config.tie_word_embeddings:
        state.pop("lm_head.weight", None)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    settings = {k: v for k, v in config.to_dict().items() if v is not None and k not in ("transformers_version",)}
    (folder / "config.json").write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n")


def causal_rows():
    generator = torch.Generator().manual_seed(5)
    return [([*torch.randint(2, 96, (n,), generator=generator).tolist()],
             [*torch.randint(2, 96, (m - 1,), generator=generator).tolist(), END]) for n, m in [(13, 5), (6, 9), (20, 1)]]


def causal_inputs(data):
    width = max(len(x) + len(y) for x, y in data)
    ids = torch.tensor([x + y + [0] * (width - len(x) - len(y)) for x, y in data])
    mask = torch.tensor([[1] * (len(x) + len(y)) + [0] * (width - len(x) - len(y)) for x, y in data])
    labels = torch.tensor([[-100] * len(x) + y + [-100] * (width - len(x) - len(y)) for x, y in data])
    return dict(input_ids=ids, attention_mask=mask, labels=labels)


def train(model, inputs, data):
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01)
    start = [p.detach().clone() for p in model.parameters()]
    result = []
    for step in range(20):
        optimizer.zero_grad()
        loss = model(**inputs([data[step % len(data)], data[(step + 1) % len(data)]])).loss
        loss.backward()
        optimizer.step()
        result.append(loss.item())
    with torch.no_grad():
        for p, value in zip(model.parameters(), start):
            p.copy_(value)
    model.zero_grad()
    return result


def write(name, model, config, data, inputs, logits):
    folder = HERE / name
    save(model, folder, config)
    model.zero_grad()
    out = model(**inputs(data))
    out.loss.backward()
    save_file({k: p.grad.contiguous() for k, p in model.named_parameters() if p.grad is not None},
              folder / "gradients.safetensors")
    expected = dict(rows=data, loss=out.loss.item(), logits=logits(out).tolist(), losses=train(model, inputs, data))
    return folder, expected


def main():
    for name, config in CAUSAL.items():
        torch.manual_seed(sum(map(ord, name)))
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
        randomize(model)
        data = causal_rows()
        folder, expected = write(
            name, model, config, data, causal_inputs,
            lambda out: torch.cat([out.logits[i, len(x) - 1: len(x) + len(y) - 1].detach() for i, (x, y) in enumerate(data)]))
        for key, settings in dict(greedy={}, beams=dict(num_beams=3), blocked=dict(no_repeat_ngram_size=2)).items():
            texts = []
            for x, _ in data:
                ids = model.generate(torch.tensor([x]), attention_mask=torch.ones(1, len(x), dtype=torch.long),
                                     max_new_tokens=12, do_sample=False, **settings)[0, len(x):].tolist()
                texts.append(ids[: ids.index(END)] if END in ids else ids)
            expected[key] = texts
        (folder / "expected.json").write_text(json.dumps(expected, sort_keys=True) + "\n")
        print(name, expected["loss"], expected["losses"][-1])
    name = "bert"
    config = BertConfig(vocab_size=96, hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4,
                        max_position_embeddings=64, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
                        num_labels=5)
    torch.manual_seed(9)
    model = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32).eval()
    randomize(model)
    generator = torch.Generator().manual_seed(5)
    data = [([*torch.randint(2, 96, (n,), generator=generator).tolist()], [label]) for n, label in [(13, 4), (6, 0), (20, 2)]]

    def inputs(rows):
        width = max(len(x) for x, _ in rows)
        return dict(input_ids=torch.tensor([x + [0] * (width - len(x)) for x, _ in rows]),
                    attention_mask=torch.tensor([[1] * len(x) + [0] * (width - len(x)) for x, _ in rows]),
                    labels=torch.tensor([y[0] for _, y in rows]))

    folder, expected = write(name, model, config, data, inputs, lambda out: out.logits.detach())
    (folder / "expected.json").write_text(json.dumps(expected, sort_keys=True) + "\n")
    print(name, expected["loss"], expected["losses"][-1])


if __name__ == "__main__":
    main()
