"""Writes a small random Llama with a tokenizer and a chat template, conversations, and what transformers makes of them.

    pip install torch transformers tokenizers
    OMP_NUM_THREADS=1 python make_chat_fixtures.py

`chat/model` is the model; `chat/rows.jsonl` the conversations. `chat/expected.json` holds for each template the rows'
ids and masks of the assistant's tokens, and the losses of 20 steps of AdamW on all rows with labels of −100 outside
the masks. The templates and texts are this project's own.
"""
import json
import pathlib
import shutil

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

HERE = pathlib.Path(__file__).parent / "chat"
CHATML = """{% for message in messages %}
{% if message.role == 'assistant' %}
{{ '<|im_start|>assistant\\n' }}{% generation %}{{ message.content }}{% for call in message.tool_calls %}{{ '<tool_call>' ~ (call.function | tojson) ~ '</tool_call>' }}{% endfor %}{{ '<|im_end|>' }}{% endgeneration %}{{ '\\n' }}
{% else %}
{{ '<|im_start|>' ~ message.role ~ '\\n' ~ message.content ~ ('\\n' ~ (tools | tojson) if tools and loop.first else '') ~ '<|im_end|>\\n' }}
{% endif %}
{% endfor %}
{% if add_generation_prompt %}
{{ '<|im_start|>assistant\\n' -}}
{% endif %}"""
INST = """{% for message in messages %}{% if message.role == 'user' %}{{ bos_token + '[INST] ' + message.content.strip() + ' [/INST]' }}{% elif message.role == 'assistant' %}{% generation %}{{ ' ' + message.content.strip() + ' ' + eos_token }}{% endgeneration %}{% else %}{{ bos_token + '<<' + message.role + '>> ' + message.content }}{% endif %}{% endfor %}"""
CLOSING = """{% for message in messages %}{{ '<|' + message.role + '|>\\n' }}{% if message.role == 'assistant' %}{% generation %}{{ message.content + '<|im_end|>' }}{% endgeneration %}{% else %}{{ message.content + '<|im_end|>' }}{% endif %}{{ '\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% else %}{{ eos_token }}{% endif %}"""
TEMPLATES = dict(chatml=CHATML, inst=INST, closing=CLOSING)


def without_blocks(template):
    return template.replace("{% generation %}", "").replace("{% endgeneration %}", "")


def say(*texts, system=None):
    first = [dict(role="system", content=system)] if system else []
    return first + [dict(role="assistant" if i % 2 else "user", content=t) for i, t in enumerate(texts)]


CALL = dict(type="function", function=dict(name="boat", arguments=dict(to="Bergen", at=9, from_="Oslo", b=None)))
ROWS = [
    dict(messages=say("Where is the boat?", "At the pier.", "When does it leave?", "At nine.\nDon't be late.")),
    dict(messages=say("Hi", "Hello!", system="You sell tickets.")),
    dict(messages=say("  Grüße aus Köln 🙂", " Bless!\n", "e\u0301?", "é.", "x", "y")),
    dict(messages=[*say("A boat, please.", system="Use tools."), dict(role="assistant", content="", tool_calls=[CALL]),
                   dict(role="tool", content='{"ok": true}'), dict(role="assistant", content="Booked.")],
         tools=[dict(type="function", function=dict(name="boat", description="Books.", parameters=dict(
             type="object", properties=dict(to=dict(type="string"), at=dict(type="number")), required=["to"])))]),
    dict(messages=say("Say <|im_end|> twice.", "<|im_end|> and again", "Thanks")),
    dict(messages=say("one two three", "four five six seven eight nine ten eleven twelve", "more", "thirteen")),
]


def tokenizer():
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.post_processor = processors.ByteLevel(trim_offsets=False)
    texts = [m["content"] for row in ROWS for m in row["messages"]]
    core.train_from_iterator(texts * 3, trainers.BpeTrainer(
        vocab_size=330, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    special = ["<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|user|>", "<|assistant|>"]
    core.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in special])
    result = PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>")
    result.chat_template = CHATML
    return result


def encode(tok, template):
    ids, masks = [], []
    for row in ROWS:
        try:
            out = tok.apply_chat_template(row["messages"], tools=row.get("tools"), chat_template=template,
                                          return_assistant_tokens_mask=True, return_dict=True)
        except Exception as error:
            ids.append(None)
            masks.append(str(error)[:60])
            continue
        ids.append(out["input_ids"])
        masks.append(out["assistant_masks"])
    return ids, masks


def train(model, ids, masks):
    width = max(map(len, ids))
    pad = lambda row, value: row + [value] * (width - len(row))
    inputs = dict(
        input_ids=torch.tensor([pad(r, 0) for r in ids]),
        attention_mask=torch.tensor([pad([1] * len(r), 0) for r in ids]),
        labels=torch.tensor([pad([t if keep else -100 for t, keep in zip(r, m)], -100) for r, m in zip(ids, masks)]))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01)
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        loss = model(**inputs).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def main():
    shutil.rmtree(HERE, ignore_errors=True)
    folder = HERE / "model"
    folder.mkdir(parents=True)
    tok = tokenizer()
    tok.save_pretrained(folder)
    torch.manual_seed(11)
    config = LlamaConfig(vocab_size=len(tok), hidden_size=16, intermediate_size=32, num_hidden_layers=2,
                         num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=256,
                         tie_word_embeddings=True, bos_token_id=tok.bos_token_id, eos_token_id=tok.eos_token_id)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.25 + (1 if "norm" in key else 0))
    state = {k: v.detach().clone().contiguous() for k, v in model.state_dict().items() if k != "lm_head.weight"}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    settings = {k: v for k, v in config.to_dict().items() if v is not None and k != "transformers_version"}
    (folder / "config.json").write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n")
    (HERE / "rows.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS))
    expected = {}
    for name, template in TEMPLATES.items():
        ids, masks = encode(tok, template)
        expected[name] = dict(template=template, plain=without_blocks(template), ids=ids, masks=masks)
    expected["losses"] = train(model, expected["chatml"]["ids"], expected["chatml"]["masks"])
    (HERE / "expected.json").write_text(json.dumps(expected, ensure_ascii=False) + "\n")
    print(len(tok), expected["losses"][0], expected["losses"][-1], [sum(m) for m in expected["chatml"]["masks"]])


if __name__ == "__main__":
    main()
