"""Writes encodings.json beside this script: what Python's tokenizers makes of pairs of texts, of limits, and of texts
that are cut into words already, with every post-processor.

    python make_encoding_fixtures.py

needs tokenizers.
"""

import json

from make_fixtures import write
from tokenizers import Tokenizer, models, pre_tokenizers, processors

PAIRS = [["a b c d e", "b b b"], ["a", "b a b a b a"], ["a b c", ""], ["", ""], ["zz a", "c zz zz"], ["a b c d e", None]]
WORDS = [["a", "b c", "zz"], ["", "a", "", "bb"], [], ["a-b", "c"], [" a ", "b b"]]
CLS, SEP = ("[CLS]", 5), ("[SEP]", 6)
PROCESSORS = {
    "none": None,
    "ByteLevel": processors.ByteLevel(),
    "BertProcessing": processors.BertProcessing(SEP, CLS),
    "RobertaProcessing": processors.RobertaProcessing(SEP, CLS),
    "template": processors.TemplateProcessing(single="[CLS] $A:1 [SEP]:2", pair="[CLS] $B:3 $A:4 [SEP]:5", special_tokens=[CLS, SEP]),
    "end token": processors.TemplateProcessing(single="$A [SEP]", pair="$A [SEP] $B [SEP]", special_tokens=[SEP]),
    "sequence": processors.Sequence([processors.ByteLevel(), processors.BertProcessing(SEP, CLS)]),
}


def encoding(result):
    return {"ids": result.ids, "typeIDs": result.type_ids}


def case(name, processor):
    vocabulary = {piece: id for id, piece in enumerate(["a", "b", "c", "d", "u", "[CLS]", "[SEP]", "e", "-"])}
    tokenizer = Tokenizer(models.WordPiece({**vocabulary, "##b": 9}, unk_token="u"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    if processor:
        tokenizer.post_processor = processor
    content = json.loads(tokenizer.to_str())
    runs = []
    for text, pair in PAIRS:
        for special in [True, False]:
            added = tokenizer.num_special_tokens_to_add(pair is not None) if special else 0
            for strategy in ["longest_first", "only_first", "only_second"]:
                if not special and strategy != "longest_first":
                    continue
                for limit in [None, *range(added, added + 7)]:
                    # The reference takes a limit of 0 for none.
                    if limit == 0 or limit is None and strategy != "longest_first":
                        continue
                    tokenizer.no_truncation()
                    if limit:
                        tokenizer.enable_truncation(limit, strategy=strategy)
                    try:
                        result = tokenizer.encode(text, pair, add_special_tokens=special)
                    except Exception:  # A text would lose more than it has.
                        continue
                    run = {"text": text, "pair": pair, "limit": limit, "strategy": strategy, "special": special}
                    runs.append({**run, **encoding(result)})
    words = []
    for row in WORDS:
        for limit in [None, 3, 4]:
            tokenizer.no_truncation()
            if limit:
                tokenizer.enable_truncation(limit)
            result = tokenizer.encode(row, is_pretokenized=True)
            words.append({"words": row, "limit": limit, "indices": result.word_ids, **encoding(result)})
    return {"name": name, "tokenizer": content, "runs": runs, "words": words}


if __name__ == "__main__":
    write("encodings.json", [case(name, processor) for name, processor in PROCESSORS.items()])
