"""Writes rare-stages.json beside this script: what Python's tokenizers makes of text with stages that few files name.

    python make_rare_stage_fixtures.py

needs tokenizers.
"""

from make_fixtures import write
from make_subword_fixtures import LINES, O200K, case
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

WORDS = ["<unk>", "the", "a", "b", "x", "Hello", "漢字", "wo", "rld", ",", "|", "<pad>", "é", "x x", "   "]
LETTERS = [chr(code) for code in range(0x20, 0x7F)]


def word_level(pre_tokenizer=None, decoder=None, normalizer=None, words=WORDS):
    tokenizer = Tokenizer(models.WordLevel({word: id for id, word in enumerate(words)}, unk_token="<unk>"))
    if pre_tokenizer:
        tokenizer.pre_tokenizer = pre_tokenizer
    if decoder:
        tokenizer.decoder = decoder
    if normalizer:
        tokenizer.normalizer = normalizer
    return tokenizer


def letters(stage=None, normalizer=None):
    """Ids show where pieces begin."""
    pieces = ["[UNK]", *LETTERS, *("##" + letter for letter in LETTERS)]
    tokenizer = Tokenizer(models.WordPiece({piece: id for id, piece in enumerate(pieces)}, unk_token="[UNK]"))
    if stage:
        tokenizer.pre_tokenizer = stage
    if normalizer:
        tokenizer.normalizer = normalizer
    return tokenizer


def tokenizers():
    yield "WordLevel", word_level(pre_tokenizers.Whitespace())
    yield "WordLevel without a pre-tokenizer", word_level()
    yield "CTC", word_level(pre_tokenizers.FixedLength(1), decoders.CTC(pad_token="<pad>", word_delimiter_token="|"), words=["<unk>", "<pad>", "|", *LETTERS[:60], *LETTERS[65:90], " .", " do not", "<pad>a", "a|<pad>"])
    yield "CTC without clean-up", word_level(pre_tokenizers.FixedLength(1), decoders.CTC(pad_token="x", word_delimiter_token="|", cleanup=False))
    yield "CTC, then others", word_level(pre_tokenizers.Whitespace(), decoders.Sequence([decoders.CTC(pad_token="<pad>"), decoders.Fuse(), decoders.Strip("a", 2, 0)]))
    yield "Strip all", word_level(pre_tokenizers.FixedLength(1), decoders.Sequence([decoders.Fuse(), decoders.Strip("x", 3, 0)]))
    yield "Strip each", word_level(pre_tokenizers.Whitespace(), decoders.Strip("x", 1, 0))
    yield "BPEDecoder", word_level(pre_tokenizers.Whitespace(), decoders.BPEDecoder("b"))
    yield "BPEDecoder, then others", word_level(pre_tokenizers.Whitespace(), decoders.Sequence([decoders.BPEDecoder("b"), decoders.Replace("l", "LL"), decoders.Metaspace("x", "always")]))
    yield "Fuse, then Replace over ends", word_level(pre_tokenizers.Whitespace(), decoders.Sequence([decoders.Fuse(), decoders.Replace("worl", "-"), decoders.WordPiece("a")]))
    for length in [1, 2, 5]:
        yield f"FixedLength {length}", letters(pre_tokenizers.FixedLength(length))
    yield "words, then FixedLength", letters(pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.FixedLength(3)]))
    yield "Nmt", letters(None, normalizers.Nmt())
    yield "Nmt and words", letters(pre_tokenizers.WhitespaceSplit(), normalizers.Sequence([normalizers.Nmt(), normalizers.NFKC()]))
    yield "Nmt and Metaspace first", letters(pre_tokenizers.Metaspace("_", "first"), normalizers.Nmt())

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: id for id, letter in enumerate(alphabet)}
    merges = [("t", "h"), ("th", "e"), ("Ġ", "the"), ("a", "a"), ("l", "l"), ("Ð", "°"), ("Ġ", "Ġ"), ("x", "x")]
    for pair in merges:
        vocabulary["".join(pair)] = len(vocabulary)
    vocabulary["Ġother"] = len(vocabulary)
    byte_level = pre_tokenizers.ByteLevel
    split = pre_tokenizers.Split(Regex(O200K), "isolated")
    stages = {
        "byte level": byte_level(add_prefix_space=False),
        "byte level with a prefix": byte_level(add_prefix_space=True),
        "byte level without an expression": byte_level(add_prefix_space=False, use_regex=False),
        "byte level with a prefix, without an expression": byte_level(add_prefix_space=True, use_regex=False),
        "GPT-4o": pre_tokenizers.Sequence([split, byte_level(add_prefix_space=False, use_regex=False)]),
        "GPT-4o with prefixes": pre_tokenizers.Sequence([split, byte_level(add_prefix_space=True, use_regex=False)]),
        "digits, then byte level": pre_tokenizers.Sequence([pre_tokenizers.Digits(True), byte_level(add_prefix_space=False)]),
        "GPT-4o inverted, then byte level": pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(O200K), "removed", invert=True), byte_level(add_prefix_space=False)]),
        "sequences in sequences": pre_tokenizers.Sequence([pre_tokenizers.Sequence([pre_tokenizers.Punctuation()]), pre_tokenizers.Sequence([split, byte_level(add_prefix_space=False, use_regex=False)])]),
        "bytes twice": pre_tokenizers.Sequence([byte_level(add_prefix_space=False), byte_level(add_prefix_space=False)]),
        "bytes, then words": pre_tokenizers.Sequence([byte_level(add_prefix_space=False, use_regex=False), pre_tokenizers.Whitespace()]),
        "spaces marked, then bytes": pre_tokenizers.Sequence([pre_tokenizers.Metaspace(), byte_level(add_prefix_space=False)]),
    }
    for name, stage in stages.items():
        for whole in [False, True] if name in ["byte level", "GPT-4o"] else [False]:
            tokenizer = Tokenizer(models.BPE(vocabulary, merges, ignore_merges=whole))
            tokenizer.pre_tokenizer = stage
            tokenizer.decoder = decoders.ByteLevel()
            tokenizer.post_processor = processors.ByteLevel()
            tokenizer.add_tokens([AddedToken("Hello", lstrip=True), AddedToken("9", single_word=True)])
            yield name + (", whole words" if whole else ""), tokenizer

    # Some merges reach over the beginning of a word, or none does; characters may be unknown.
    for name, over in [("words together", [("b", "▁"), ("b▁", "a")]), ("words apart", [])]:
        pieces = ["<unk>", "▁", *"abcdehlot", "<0xC3>", "<0xA9>"]
        list_of_merges = [("▁", "▁"), ("▁", "a"), ("t", "h"), ("th", "e"), ("▁", "the"), ("l", "l"), *over]
        pieces += ["".join(pair) for pair in list_of_merges]
        for fallback in [False, True]:
            model = models.BPE({piece: id for id, piece in enumerate(pieces)}, list_of_merges, unk_token="<unk>", fuse_unk=True, byte_fallback=fallback)
            tokenizer = Tokenizer(model)
            tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
            tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
            yield name + (", bytes" if fallback else ""), tokenizer


if __name__ == "__main__":
    # Long ones show nothing that short ones don't.
    lines = [line for line in LINES if len(line) < 45][::4] + ["aB c'S DON'T x/\n/ y", "the  a the\u200b\x01 theother", "é a漢 b▁a  ▁b "]
    cases = [case(name, tokenizer, lines=lines, sample_count=8) for name, tokenizer in tokenizers()]
    content = {"texts": lines, "cases": cases}
    write("rare-stages.json", content)
