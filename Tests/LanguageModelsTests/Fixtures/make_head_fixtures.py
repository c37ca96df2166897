"""Writes small random encoders in Hugging Face's layout, with what transformers computes with every head on them.

    pip install torch transformers safetensors sentence-transformers
    OMP_NUM_THREADS=1 python make_head_fixtures.py

A folder `heads/<family>` holds one model with the tensors of all heads, and for each task `<task>.json` (the
head's tensors, rows, loss, logits, of each gradient its length and its product with a fixed vector, and the losses of
20 steps of AdamW). Dropout is 0. A row is its ids, token types, target and, for embeddings, candidates. The loss of embeddings is
sentence-transformers' MultipleNegativesRankingLoss, whose scale is 20, or its CosineSimilarityLoss.
"""
import json
import pathlib
import shutil

import torch
from safetensors.torch import save_file
from transformers import (AutoModel, AutoModelForSequenceClassification, AutoModelForTokenClassification, BertConfig,
                          DistilBertConfig, GPT2Config, LlamaConfig, RobertaConfig)

HERE = pathlib.Path(__file__).parent / "heads"
LABELS = 5
SMALL = dict(vocab_size=48, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
             max_position_embeddings=40, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
FAMILIES = {
    "bert": BertConfig(**SMALL),
    "roberta": RobertaConfig(**SMALL | dict(type_vocab_size=1, layer_norm_eps=1e-5, pad_token_id=1)),
    "distilbert": DistilBertConfig(vocab_size=48, dim=16, hidden_dim=24, n_layers=2, n_heads=4,
                                   max_position_embeddings=40, dropout=0.0, attention_dropout=0.0,
                                   seq_classif_dropout=0.0),
    "llama": LlamaConfig(vocab_size=48, hidden_size=16, intermediate_size=24, num_hidden_layers=2,
                         num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=40, pad_token_id=0,
                         tie_word_embeddings=False),
    "gpt2": GPT2Config(vocab_size=48, n_embd=16, n_layer=2, n_head=4, n_positions=40, pad_token_id=0, resid_pdrop=0.0,
                       embd_pdrop=0.0, attn_pdrop=0.0),
}
CAUSAL = ["llama", "gpt2"]
PROBLEMS = {"classification": "single_label_classification", "multi-label": "multi_label_classification",
            "regression": "regression"}


def data(family, task, has_pairs, ending=()):
    """`ending`: the tokens that all texts end with, and no text has elsewhere."""
    generator = torch.Generator().manual_seed(11)
    ids = lambda n: torch.randint(2, 48, (n,), generator=generator).tolist()
    rows = []
    for number, length in enumerate([13, 6, 20]):
        row = dict(input=ids(length))
        if ending:
            row["input"] = [i for i in row["input"] if i not in ending] + list(ending)
        if has_pairs and task in PROBLEMS:  # a pair of texts
            row["segments"] = [0] * (length // 2) + [1] * (length - length // 2)
        if task == "classification":
            row["target"] = [[4, 0, 2][number]]
        elif task == "multi-label":
            row["target"] = [[1, 4], [], [0, 2, 3]][number]
        elif task == "regression":
            row["score"] = [0.25, -1.5, 3.0][number]
        elif task == "token-classification":
            row["target"] = [(i * 3 + number) % LABELS if i % 2 else -100 for i in range(length)]
        elif task == "embeddings":
            row["candidates"] = [ids(length - 2), ids(length + 3)]
        else:
            row["candidates"], row["score"] = [ids(length - 2)], [0.9, 0.1, -0.3][number]
        rows.append(row)
    return rows


def padded(texts, pad, segments=None):
    width = max(map(len, texts))
    batch = dict(input_ids=torch.tensor([x + [pad] * (width - len(x)) for x in texts]),
                 attention_mask=torch.tensor([[1] * len(x) + [0] * (width - len(x)) for x in texts]))
    if segments and any(segments):
        batch["token_type_ids"] = torch.tensor([s + [0] * (width - len(s)) for s in segments])
    return batch


def embed(model, texts, pad, pooling):
    batch = padded(texts, pad)
    states = model(**batch).last_hidden_state
    if pooling == "last-token":
        last = torch.stack([states[i, len(x) - 1] for i, x in enumerate(texts)])
        return torch.nn.functional.normalize(last, dim=1)
    mask = batch["attention_mask"].unsqueeze(-1).float()
    return torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1), dim=1)


def run(model, task, rows, pad, pooling="mean"):
    """Loss and outputs."""
    texts = [row["input"] for row in rows]
    if task in ("embeddings", "similarity"):
        depth = len(rows[0]["candidates"])
        columns = [texts] + [[row["candidates"][i] for row in rows] for i in range(depth)]
        vectors = [embed(model, column, pad, pooling) for column in columns]
        candidates = torch.cat(vectors[1:])
        if task == "similarity":
            wanted = torch.tensor([row["score"] for row in rows])
            loss = torch.nn.functional.mse_loss(torch.cosine_similarity(vectors[0], candidates), wanted)
        else:
            loss = torch.nn.functional.cross_entropy(vectors[0] @ candidates.T * 20.0, torch.arange(len(rows)))
        return loss, torch.cat(vectors)
    batch = padded(texts, pad, [row.get("segments", []) for row in rows])
    if task == "classification":
        labels = torch.tensor([row["target"][0] for row in rows])
    elif task == "multi-label":
        labels = torch.tensor([[float(i in row["target"]) for i in range(LABELS)] for row in rows])
    elif task == "regression":
        labels = torch.tensor([row["score"] for row in rows])
    else:
        width = max(map(len, texts))
        labels = torch.tensor([row["target"] + [-100] * (width - len(row["target"])) for row in rows])
    out = model(**batch, labels=labels)
    logits = out.logits[labels >= 0] if task == "token-classification" else out.logits
    return out.loss, logits


def fingerprint(gradient):
    """Length, and product with cos(0.37 i)."""
    flat = gradient.flatten().double()
    return [flat.norm().item(), (flat * torch.cos(torch.arange(len(flat)).double() * 0.37)).sum().item()]


def settings(task):
    changes = {}
    if task in PROBLEMS:
        changes["problem_type"] = PROBLEMS[task]
    if task in ("classification", "multi-label", "token-classification", "regression"):
        count = 1 if task == "regression" else LABELS
        changes["id2label"] = {str(i): f"label {i}" for i in range(count)}
        changes["label2id"] = {f"label {i}": i for i in range(count)}
    return changes


def main(families=FAMILIES, pairs=("bert",), embedders={}, only=None):
    """`embedders` are the families without other heads, with their pooling, and `only` those of the tasks."""
    for family, config in families.items():
        folder = HERE / family
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        tasks = list(PROBLEMS) + ([] if family in CAUSAL or config.is_encoder_decoder else ["token-classification", "embeddings", "similarity"])
        pooling = embedders.get(family, "mean")
        if family in embedders:
            tasks = ["embeddings", "similarity"]
        state = {}
        for task in [task for task in tasks if only is None or task in only]:
            kind = AutoModelForSequenceClassification if task in PROBLEMS else AutoModel
            kind = AutoModelForTokenClassification if task == "token-classification" else kind
            own = config.__class__.from_dict(config.to_dict() | settings(task))
            if task == "regression":
                own.num_labels = 1
            torch.manual_seed(sum(map(ord, family)))
            model = kind.from_config(own, dtype=torch.float32).eval()
            prefix = getattr(model, "base_model_prefix", "")
            # The encoder is the same for all tasks, a head's tensors have its task's values.
            for name, value in model.state_dict().items():
                if config.is_encoder_decoder and "embed_tokens" in name: continue  # the shared table
                full = name if task not in ("embeddings", "similarity") else f"{prefix}.{name}"
                key = full if full.startswith(prefix + ".") else f"{task}:{full}"
                if key not in state:
                    generator = torch.Generator().manual_seed(sum(map(ord, key)) * 7919 % 2**31)
                    norm = "norm" in name.lower() or ".ln_" in name
                    noise = torch.randn(value.shape, generator=generator) * 0.25
                    state[key] = noise + (1 if norm and name.endswith("weight") else 0)
                if value.is_floating_point():
                    value.copy_(state[key])
            language = [5] if family == "mbart" else []
            rows = data(family, task, family in pairs, [config.eos_token_id, *language] if config.is_encoder_decoder else ())
            pad = config.pad_token_id or 0
            loss, outputs = run(model, task, rows, pad, pooling)
            loss.backward()
            gradients = {n: fingerprint(p.grad) for n, p in model.named_parameters() if p.grad is not None}
            head = {n: dict(shape=list(v.shape), values=v.flatten().tolist()) for n, v in model.state_dict().items()
                    if task not in ("embeddings", "similarity") and not n.startswith(prefix + ".")}
            head = json.loads(json.dumps(head))
            model.zero_grad()
            optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01)
            curve = []
            for step in range(20):
                optimizer.zero_grad()
                part, _ = run(model, task, [rows[step % 3], rows[(step + 1) % 3]], pad, pooling)
                part.backward()
                optimizer.step()
                curve.append(part.item())
            expected = dict(rows=rows, loss=loss.item(), logits=outputs.detach().tolist(), losses=curve,
                            gradients=gradients, head=head, labels=list(settings(task).get("id2label", {}).values()))
            if pooling != "mean":
                expected["pooling"] = pooling
            (folder / f"{task}.json").write_text(json.dumps(expected, sort_keys=True) + "\n")
            print(family, task, round(loss.item(), 4), round(curve[-1], 4))
        encoder = {k: v.contiguous() for k, v in state.items() if ":" not in k}
        save_file(encoder, folder / "model.safetensors", metadata={"format": "pt"})
        kept = {k: v for k, v in config.to_dict().items() if v is not None and k not in ("transformers_version", "id2label", "label2id", "architectures")}
        (folder / "config.json").write_text(json.dumps(kept, indent=2, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
