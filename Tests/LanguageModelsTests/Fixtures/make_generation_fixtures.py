"""Writes `generation.json`: what transformers generates under small generation configurations, and what its logits
processors make of random scores.

    pip install torch transformers safetensors
    python make_generation_fixtures.py

The models are those of the other scripts' folders beside this one. Each prompt is generated alone. Settings are those of
`generation_config.json`; `scores` are rows of logits with the tokens so far and what is sampled from (null for minus infinity).
"""
import copy
import json
import pathlib
import random

import torch
import transformers
from transformers import AutoModelForCausalLM, GenerationConfig, T5ForConditionalGeneration

transformers.utils.logging.set_verbosity_error()
HERE = pathlib.Path(__file__).parent
MODELS = ["llama", "gpt2", "qwen2", "t5-v1.1", "t5-tied-gated"]
VOCABULARY = 96


def load(name):
    family = T5ForConditionalGeneration if name.startswith("t5") else AutoModelForCausalLM
    model = family.from_pretrained(HERE / name, dtype=torch.float32).eval()
    # transformers' cache wants as many decoder as encoder layers.
    model.generation_config = GenerationConfig(use_cache=not name.startswith("t5"))
    return model


def prompts(name):
    rows = json.loads((HERE / name / "expected.json").read_text())["rows"]
    return [row[0] for row in rows][:3]


def generated(model, prompt, settings):
    ids = torch.tensor([prompt])
    config = GenerationConfig(**{"pad_token_id": 0, "bos_token_id": 0, "use_cache": model.generation_config.use_cache, **settings})
    with torch.no_grad():
        made = model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=config)[0].tolist()
    made = made[1:] if model.config.is_encoder_decoder else made[len(prompt):]
    ends = settings["eos_token_id"]
    end = next((i for i, id in enumerate(made) if id in (ends if isinstance(ends, list) else [ends])), len(made))
    return made[:end]


def fixed(name, first):
    """Settings of one kind each; `first` is what the model generates greedily for its first prompt."""
    is_pair = name.startswith("t5")
    a, b, c = first[1], first[3], first[5]
    settings = [
        {"eos_token_id": [1, c]}, {"eos_token_id": b}, {"repetition_penalty": 1.3}, {"repetition_penalty": 0.8},
        {"no_repeat_ngram_size": 2}, {"suppress_tokens": [a, b]}, {"begin_suppress_tokens": [first[0]]},
        {"bad_words_ids": [[a], [b, c], [first[0], first[1], first[2]]]}, {"min_new_tokens": 8, "eos_token_id": [1, b]},
        {"forced_eos_token_id": 7}, {"num_beams": 3, "length_penalty": 2.0, "eos_token_id": [1, b, c]},
        {"num_beams": 4, "early_stopping": True, "eos_token_id": [1, a, c]},
        {"num_beams": 3, "early_stopping": "never", "length_penalty": 1.5, "eos_token_id": [1, b, c]},
        {"num_beams": 3, "early_stopping": "never", "length_penalty": -0.5, "eos_token_id": [1, b, c]},
        {"num_beams": 3, "repetition_penalty": 1.4, "renormalize_logits": True},
        {"num_beams": 2, "forced_eos_token_id": [7, 9], "bad_words_ids": [[a]]},
        {"encoder_repetition_penalty": 1.6}, {"encoder_no_repeat_ngram_size": 2},
    ]
    if is_pair:
        settings += [
            {"decoder_start_token_id": 5}, {"forced_bos_token_id": 9}, {"forced_bos_token_id": 9, "num_beams": 3},
            {"forced_bos_token_id": 9, "begin_suppress_tokens": [first[0], a]}, {"max_length": 6}, {"min_length": 9, "eos_token_id": [1, b]},
        ]
    return settings


def drawn(rng, name, first):
    """Settings of several kinds at once."""
    settings = {"eos_token_id": rng.choice([1, [1, rng.choice(first)], [1, rng.choice(first), rng.choice(first)]])}
    choices = {
        "repetition_penalty": lambda: rng.choice([0.9, 1.1, 1.5, 2.0]), "no_repeat_ngram_size": lambda: rng.randint(1, 3),
        "suppress_tokens": lambda: rng.sample(first, 2), "begin_suppress_tokens": lambda: [rng.choice(first)],
        "bad_words_ids": lambda: [rng.sample(first, rng.randint(1, 2)) for _ in range(2)], "min_new_tokens": lambda: rng.randint(1, 9),
        "forced_eos_token_id": lambda: rng.randint(2, 90), "encoder_no_repeat_ngram_size": lambda: rng.randint(1, 3),
        "encoder_repetition_penalty": lambda: rng.choice([0.7, 1.2]), "renormalize_logits": lambda: True,
        "num_beams": lambda: rng.randint(2, 4),
    }
    if name.startswith("t5"):
        choices["forced_bos_token_id"] = lambda: rng.randint(2, 90)
    for key in rng.sample(list(choices), rng.randint(2, 4)):
        settings[key] = choices[key]()
    if "num_beams" in settings:
        settings["early_stopping"] = rng.choice([True, False, "never"])
        settings["length_penalty"] = rng.choice([-1.0, 0.5, 1.0, 2.0])
    return settings


def texts():
    result = []
    for name in MODELS:
        model, rng = load(name), random.Random(name)
        first = generated(model, prompts(name)[0], {"eos_token_id": 1, "max_new_tokens": 12, "suppress_tokens": [1]})
        for settings in fixed(name, first) + [drawn(rng, name, first) for _ in range(14)]:
            settings = {"eos_token_id": 1, **({} if "max_length" in settings else {"max_new_tokens": 12}), **settings}
            ids = [generated(model, prompt, copy.deepcopy(settings)) for prompt in prompts(name)]
            result.append({"model": name, "settings": settings, "ids": ids})
    return result


def scores():
    """Two texts each, with the prompt that they were made for, and what is sampled from."""
    generator, rng, result = torch.Generator().manual_seed(7), random.Random(7), []
    base = [
        {}, {"temperature": 0.7}, {"top_k": 5}, {"top_p": 0.8}, {"min_p": 0.1}, {"temperature": 1.5, "top_k": 12, "top_p": 0.9},
        {"temperature": 0.6, "top_k": 20, "top_p": 0.95, "min_p": 0.02}, {"top_k": 0, "top_p": 0.5, "repetition_penalty": 1.3},
        {"top_k": 0, "temperature": 2.0, "min_p": 0.3, "no_repeat_ngram_size": 2}, {"renormalize_logits": True, "top_k": 3},
        {"num_beams": 2, "top_k": 1, "top_p": 0.1, "min_p": 0.9},
        {"encoder_repetition_penalty": 1.5, "encoder_no_repeat_ngram_size": 2, "suppress_tokens": [3, 4, 500]},
    ]
    for name in ["llama", "t5-v1.1"]:
        model = load(name)
        for settings in base:
            settings = {"do_sample": True, "bos_token_id": 0, "eos_token_id": [1, 6], "max_new_tokens": 12, "bad_words_ids": [[8], [2, 3]], **settings}
            source = [[rng.randint(2, 20) for _ in range(6)] for _ in range(2)]
            made = [[rng.randint(2, 20) for _ in range(5)] for _ in range(2)]
            before = source if name == "llama" else [[0], [0]]
            logits = torch.randn(2, 32, generator=generator) * 3
            config = GenerationConfig(**settings)
            defaults = config._get_default_generation_params()
            config.update(**defaults, defaults_only=True)
            model._prepare_special_tokens(config, device="cpu")
            config.max_length = 12 + len(before[0])
            processors = model._get_logits_processor(
                config, input_ids_seq_length=len(before[0]), encoder_input_ids=torch.tensor(source), device="cpu", model_kwargs={})
            ids = torch.tensor([b + m for b, m in zip(before, made)])
            out = processors(ids, logits.clone())
            result.append({
                "model": name, "settings": settings, "source": source, "made": made, "logits": logits.tolist(),
                "scores": [[None if value == float("-inf") else value for value in row] for row in out.tolist()],
            })
    return result


if __name__ == "__main__":
    content = {"texts": texts(), "scores": scores()}
    lines = lambda rows: ",\n".join(json.dumps(row) for row in rows)
    (HERE / "generation.json").write_text(
        '{"texts": [\n%s\n], "scores": [\n%s\n]}\n' % (lines(content["texts"]), lines(content["scores"])))
    print(len(content["texts"]), "texts,", len(content["scores"]), "rows of scores")
