"""Writes `sampling.json`: rows of logits, the tokens before, sampling parameters, and the scores from which transformers
would sample (null for minus infinity), with the largest log-probabilities of the unprocessed logits.

    pip install torch transformers
    python make_sampling_fixtures.py

transformers has no frequency and presence penalties. Those are vLLM's: after the repetition penalty, the logits of
generated tokens are reduced by the frequency penalty times their count and by the presence penalty.
"""
import json
import pathlib
import random

import torch
from transformers.generation import logits_process as processes

HERE = pathlib.Path(__file__).parent
VOCABULARY = 48


def processed(logits, ids, made, p):
    scores = logits.clone()
    if p.get("logitBias"):
        bias = {(int(token),): value for token, value in p["logitBias"].items()}
        scores = processes.SequenceBiasLogitsProcessor(bias)(ids, scores)
    if p.get("repetitionPenalty", 1) != 1:
        scores = processes.RepetitionPenaltyLogitsProcessor(p["repetitionPenalty"])(ids, scores)
    counts = torch.zeros(VOCABULARY)
    for token in made:
        counts[token] += 1
    scores = scores - p.get("frequencyPenalty", 0) * counts - p.get("presencePenalty", 0) * (counts > 0)
    if p.get("temperature", 1) != 1:
        scores = processes.TemperatureLogitsWarper(p["temperature"])(ids, scores)
    if p.get("topK"):
        scores = processes.TopKLogitsWarper(p["topK"])(ids, scores)
    if p.get("topP", 1) < 1:
        scores = processes.TopPLogitsWarper(p["topP"])(ids, scores)
    if p.get("minP"):
        scores = processes.MinPLogitsWarper(p["minP"])(ids, scores)
    return scores


def main():
    generator, rng = torch.Generator().manual_seed(3), random.Random(3)
    fixed = [
        {}, {"temperature": 0.3}, {"temperature": 1.7}, {"topK": 1}, {"topK": 7}, {"topP": 0.05}, {"topP": 0.9}, {"minP": 0.05}, {"minP": 1.0},
        {"repetitionPenalty": 1.4}, {"repetitionPenalty": 0.7}, {"presencePenalty": 1.5}, {"presencePenalty": -2.0}, {"frequencyPenalty": 0.75},
        {"logitBias": {"3": 5.0, "7": -100.0}}, {"topK": 48}, {"topK": 40, "topP": 0.99999},
    ]
    choices = {
        "temperature": lambda: round(rng.uniform(0.2, 2), 2), "topK": lambda: rng.randint(1, 30), "topP": lambda: round(rng.uniform(0.1, 0.99), 2),
        "minP": lambda: round(rng.uniform(0.01, 0.5), 2), "repetitionPenalty": lambda: round(rng.uniform(0.7, 1.6), 2),
        "presencePenalty": lambda: round(rng.uniform(-2, 2), 2), "frequencyPenalty": lambda: round(rng.uniform(-2, 2), 2),
        "logitBias": lambda: {str(rng.randrange(VOCABULARY)): round(rng.uniform(-9, 9), 1) for _ in range(3)},
    }
    cases = fixed + [{key: choices[key]() for key in rng.sample(list(choices), rng.randint(3, 8))} for _ in range(23)]
    result = []
    for parameters in cases:
        prompt = [rng.randrange(VOCABULARY) for _ in range(6)]
        made = [rng.randrange(0, VOCABULARY, 3) for _ in range(rng.randint(1, 9))]
        logits = (torch.randn(1, VOCABULARY, generator=generator) * 3).to(torch.float32)
        scores = processed(logits, torch.tensor([prompt + made]), made, parameters)[0]
        top = torch.log_softmax(logits[0].double(), -1).topk(5)
        result.append({
            "parameters": parameters, "prompt": prompt, "generated": made, "logits": logits[0].tolist(),
            "scores": [None if value == float("-inf") else value for value in scores.tolist()],
            "top": [[token, value] for token, value in zip(top.indices.tolist(), top.values.tolist())],
        })
    (HERE / "sampling.json").write_text("[\n%s\n]\n" % ",\n".join(json.dumps(item) for item in result))
    print(len(result), "rows")


main()
