"""Writes `space-cleaning.json`: texts as transformers cleans them after decoding (`clean_up_tokenization_spaces`).

    pip install transformers
    python make_cleaning_fixtures.py
"""
import json
import pathlib
import random

from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"a": 0}, "a")))
rng = random.Random(5)
parts = [" ", " ", " ", ".", "?", "!", ",", "'", "n't", "'m", "'s", "'ve", "'re", "n", "t", "a", "word", "é", "\u0301", "\n"]
texts = ["".join(rng.choices(parts, k=rng.randint(0, 24))) for _ in range(400)]
texts += ["it 's , isn 't it ? do n't ' you ' . ", " n ' t", "  .", " . . ", " ' ' ", "we 've 're 'm"]
rows = [[text, tokenizer.clean_up_tokenization(text)] for text in texts]
(pathlib.Path(__file__).parent / "space-cleaning.json").write_text(json.dumps(rows, ensure_ascii=True) + "\n")
