"""Writes new-tokens.json beside this script: the ids and texts of tokenizers after the `add_tokens` of Python's transformers.

    python make_new_token_fixtures.py

needs transformers and tokenizers.
"""

import json
import pathlib
import tempfile

from make_configuration_fixtures import tokenizer
from make_fixtures import write
from transformers import PreTrainedTokenizerFast

TINY_T5 = pathlib.Path(__file__).resolve().parents[3] / "Models/tiny-t5"
TOKENS = ["<search>", "Zorbl", "naïve x", "Zorbl", "<search>2", "a\"b\\c"]
TEXTS = ["a <search> b", "xZorblx Zorbl", "naïve x naive x", "<search>2 <search>", "a\"b\\c", "a<tool> b", ""]


def case(name, folder):
    # As the file says: transformers' T5Tokenizer replaces the stages of tokenizer.json by its own.
    loaded = PreTrainedTokenizerFast.from_pretrained(folder)
    before = len(loaded)
    added = loaded.add_tokens(TOKENS)
    encoded = [loaded(text)["input_ids"] for text in TEXTS]
    return {
        "name": name, "added": added, "size": len(loaded), "first": before,
        "tokens": [loaded.convert_tokens_to_ids(token) for token in TOKENS], "ids": encoded,
        "decoded": [loaded.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False) for ids in encoded],
    }  # fmt: skip


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        tokenizer().save(folder + "/tokenizer.json")
        pathlib.Path(folder, "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
        cases = [case("bytes", folder), case("tiny-t5", TINY_T5)]
    write("new-tokens.json", {
        "tokenizer": json.loads(tokenizer().to_str()), "list": TOKENS, "texts": TEXTS, "cases": cases
    })
