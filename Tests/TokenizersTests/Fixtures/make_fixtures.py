"""Writes the fixtures beside this script: what Python's tokenizers makes of text.

    python make_fixtures.py [--shared FOLDER]

needs tokenizers and, for the SentencePiece file, transformers and sentencepiece. The real T5 tokenizer and
DialogSum are looked for in the folder `shared` beside the package. Nothing of either is copied: of DialogSum
only digests of ids are kept, and the nasty lines are made up here.
"""

import argparse
import json
import pathlib
import random
import shutil
import tempfile

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

HERE = pathlib.Path(__file__).resolve().parent
PACKAGE = HERE.parents[2]


def digest(ids):
    """64-bit FNV-1a over the ids, four bytes each, lowest first."""
    value = 0xCBF29CE484222325
    for identifier in ids:
        for byte in identifier.to_bytes(4, "little"):
            value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return f"{value:016x}"


def lines_of(content, depth):
    """JSON with one line for each item, down to `depth`, which keeps differences readable."""
    if depth == 0 or not isinstance(content, (list, dict)) or not content:
        return json.dumps(content, separators=(",", ":"))
    if isinstance(content, list):
        return "[\n" + ",\n".join(lines_of(item, depth - 1) for item in content) + "\n]"
    return "{\n" + ",\n".join(f"{json.dumps(key)}:{lines_of(item, depth - 1)}" for key, item in content.items()) + "\n}"


def write(name, content):
    (HERE / name).write_text(lines_of(content, 1 if isinstance(content, list) else 2) + "\n")


# --- lines -------------------------------------------------------------------------------------------------

WORDS = (
    "the quick brown fox jumps over a lazy dog while summarising the following conversation between two people "
    "who disagree about internationalisation counterrevolutionaries and Donaudampfschifffahrtsgesellschaft"
).split()

# Ranges that break tokenizers: scripts with marks, forms with compatibility mappings, invisible characters.
RANGES = [
    (0x20, 0x7E), (0x00, 0x1F), (0x7F, 0xA0), (0xA1, 0xFF), (0x100, 0x24F), (0x250, 0x2FF), (0x300, 0x36F),
    (0x370, 0x3FF), (0x400, 0x52F), (0x531, 0x58A), (0x591, 0x5F4), (0x600, 0x6FF), (0x700, 0x74F),
    (0x900, 0x97F), (0x980, 0x9FE), (0xA01, 0xA76), (0xB82, 0xBFA), (0xE01, 0xE5B), (0xF00, 0xFDA),
    (0x1000, 0x109F), (0x10A0, 0x10FF), (0x1100, 0x11FF), (0x1E00, 0x1FFE), (0x2000, 0x206F), (0x2070, 0x209C),
    (0x20A0, 0x20BF), (0x20D0, 0x20F0), (0x2100, 0x218B), (0x2190, 0x23FF), (0x2460, 0x24FF), (0x2500, 0x27BF),
    (0x2E80, 0x2FD5), (0x3000, 0x30FF), (0x3131, 0x318E), (0x3200, 0x33FF), (0x4E00, 0x9FEF), (0xA000, 0xA48C),
    (0xAC00, 0xD7A3), (0xE000, 0xE0FF), (0xF900, 0xFAD9), (0xFB00, 0xFB4F), (0xFB50, 0xFDFF), (0xFE00, 0xFE6B),
    (0xFE70, 0xFEFF), (0xFF01, 0xFFEE), (0xFFF9, 0xFFFD), (0x10000, 0x100FA), (0x1D400, 0x1D7FF),
    (0x1F100, 0x1F1FF), (0x1F200, 0x1F265), (0x1F300, 0x1F64F), (0x1F680, 0x1F6FA), (0x1F900, 0x1F9FF),
    (0x20000, 0x200FF), (0x2F800, 0x2FA1D), (0xE0001, 0xE007F), (0xE0100, 0xE01EF), (0x10FFFD, 0x10FFFF),
]  # fmt: skip


def hand_written():
    zwj, vs16, keycap = "\u200d", "\ufe0f", "\ufe0f\u20e3"
    yield from [
        "", " ", "  ", "   ", "\t", "\n", "\r", "\r\n", "\n\r", "\r\r\n", "\v", "\f", "\x00", "\x00\x00", "a\x00b",
        "\x00a", "a\x00", "\ufeff", "\ufeffHello", "Hello\ufeff", "He\ufeffllo", "\ufeff\ufeff Hello", "\x7f", "\x85",
        "\xa0", "\xa0Hello\xa0world\xa0", "\u200bHello", "Hel\u200blo", "Hello\u200b world", "\u200c", "\u200d",
        "a\u200db", "\u2060word", "\xad", "soft\xadhyphen", "\u180e", "\u2028line\u2029paragraph", "\u202eabc\u202c",
        "\u3000\u5168\u89d2\u3000", "\x1b[31mred\x1b[0m", "bell\x07", "back\bspace", "\x01\x02\x03", "a\x01\x02b",
        "\x01Hello", "\x01 Hello", " \x01Hello", "\u0085next", "tab\tseparated\tvalues", "line\nbreak", "two\n\nbreaks",
        "carriage\r\nreturn", "\n leading newline", "trailing newline \n", " leading", "  leading", "   leading",
        "trailing ", "trailing  ", "  both  ", "in  the  middle", "in   the   middle", " \t mixed \n white \r space ",
        "\xa0 \xa0", " \xa0 a \u2003 b \u3000 c ", "\u2003\u2002em en", "a b", "a  b", "a   b", "a\u00a0\u00a0b",
    ]  # fmt: skip
    yield from [
        "▁", "▁▁", "▁a", "a▁", "a▁b", "▁ a", " ▁a", "▁▁a", "a ▁ b", "a▁▁b", "▁▁▁", "▁the", " ▁the", "the▁", "_", "__a__",
        "</s>", "<s>", "<pad>", "<unk>", "<extra_id_0>", "<extra_id_99>", "<extra_id_100>", "<extra_id_1", "extra_id_1>",
        "a</s>b", "a </s> b", "</s></s>", "</s> </s>", " </s>", "</s> ", "<pad><pad>a", "<unk> known <unk>", "</S>",
        "The <extra_id_0> walks in <extra_id_1> park", "The<extra_id_0>walks", "<extra_id_0><extra_id_1>",
        "< extra_id_0 >", "<extra_id_<extra_id_0>", "<<extra_id_0>>", "</s", "/s>", "<\u200b/s>", "＜/s＞", "<ｅxtra_id_0>",
        "<extra_id_0\u0301>", "<extra_id_0>\u0301", "\u0301</s>", "e</s>\u0301", "</s>\u0301e", "<extra_id_01>",
        "<extra_id_0> ", " <extra_id_0>", "  <extra_id_0>  ", "\u00a0<extra_id_0>\u00a0", "<unk>☃<unk>", "☃<unk>☃",
    ]  # fmt: skip
    yield from [
        "é", "e\u0301", "e\u0301\u0301", "e\u0323\u0301", "e\u0301\u0323", "\u0301", "\u0301e", " \u0301", "a \u0301b", "\u0301\u0302",
        "ﬁ ﬂ ﬃ ﬅ", "ﷺ", "①②③ ⑩ ⒈ ⒜", "ｆｕｌｌ ｗｉｄｔｈ", "ﾊﾝｶｸ ｶﾞｷﾞｸﾞ ﾊﾟ", "㍿ ㌔ ㎏ ㏑", "½ ⅓ ⅞ 2⁵ H₂O", "™ ® © ℃ Å Ω K", "ĳ Ǆ ǆ ŉ ſ",
        "I\u0307stanbul", "ẞ ß", "ΑΣ ΟΔΥΣΣΕΥΣ", "Z̤͔ͧ̑̓ä͖̭̈̇lͮ̒ͫǧ̗͚̚o̙̔ͮ̇͐̇", "a" + "\u0301" * 40, "x" + "\u0323\u0301" * 30, "q\u0307\u0323", "q\u0323\u0307",
        "한국어", "한\u1100\u1161", "\u1112\u1161\u11ab\u1100\u116e\u11a8", "\u1100", "\u1161", "\u11a8", "ㄱㅏㄴ", "ﾡﾢ", "\uac00\u11a8", "\uac01\u11a8",
        "你好，世界。", "中文 和 English 混排", "日本語のテキスト", "ひらがな カタカナ", "か\u3099", "は\u309a", "𠮷野家", "豈更車", "㐀㐁", "⼀⼁", "〇〡〢",
        "العربية", "السَّلَامُ عَلَيْكُمْ", "لا إله", "ﻻ ﻼ ﺍ", "\u0600123", "\u06dd456", "עִבְרִית", "שָׁלוֹם", "\u202bmixed עברית and English\u202c", "فارسی می\u200cخواهم",
        "हिन्दी", "क्षत्रिय", "नमस्ते दुनिया", "বাংলা", "தமிழ் ஸ்ரீ", "తెలుగు", "ಕನ್ನಡ", "മലയാളം", "ไทย ภาษาไทย", "กำ น้ำ", "ລາວ", "བོད་ཡིག", "မြန်မာ", "ខ្មែរ", "ქართული",
        "አማርኛ", "Ελληνικά", "ά ΐ ᾳ ᾼ", "Русский текст", "Ё е\u0308 й и\u0306", "Українська ґ є ї", "Հայերեն", "Tiếng Việt ế ệ", "Việt", "Çeşitli Türkçe ğışİI",
        "Ærøskøbing Ångström", "naïve café", "nai\u0308ve cafe\u0301", "Übermaß", "pâté d'œuf", "“quotes” ‘single’ «guillemets» „low“", "en–dash em—dash …", "a\u0338 =\u0338 ≠",
        "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𝒻𝒶𝓃𝒸𝓎 𝟙𝟚𝟛", "𐍈 𐌰𐌱", "\U0001d15e\U0001d160", "\ue000\ue001", "\ufffd", "\ufffe", "\uffff", "\U0010ffff", "\U000e0041", "\u0378", "\U0001fae8", "\ua7f2", "\U00010781", "\u32ff",
    ]  # fmt: skip
    yield from [
        "😀", "😀😀", "😀 😀", "hi😀", "😀hi", "👍🏽", "👩" + zwj + "👩" + zwj + "👧" + zwj + "👦", "👨🏿" + zwj + "🚀", "🏳" + vs16 + zwj + "🌈", "🇩🇪🇫🇷", "🇩", "🇩🇪🇫", "1" + keycap, "#" + keycap,
        "*\u20e3", "❤" + vs16, "❤\ufe0e", "☃", "☃☃☃", "☃ ☃", "a☃b", "©" + vs16, "a" + zwj, zwj + "a", "👩" + zwj, zwj + "👩", "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f", "😀\u0301", "a\ufe0f", " \ufe0f",
        "🤷🏽" + zwj + "♀" + vs16 + " whatever", "🧑" + zwj + "💻 codes", "🥲", "🫠", "(╯°□°)╯︵ ┻━┻", "ʕ•ᴥ•ʔ", "¯\\_(ツ)_/¯", "♪♫", "→ ⇒ ∀x∈ℝ", "∑∏∫ √2", "░▒▓█", "─┼╬", "☑✓✗", "½🍕",
    ]  # fmt: skip
    yield from [
        "Hello, world!", "hello", "HELLO", "Hello world", "I'm can't won't", "don ' t", "#Person1#: Hi!", "#Person1#: Hi!\n#Person2#: Hello.", "1234567890", "3.14159", "1,000,000", "$5.99 €3 £2 ¥100", "50% off",
        "user@example.com", "https://example.com/a?b=c&d=e#f", "C:\\path\\file.txt", "/usr/local/bin", "snake_case camelCase kebab-case", "a.b.c", "...", "....", "!!!", "?!", "-- --- ----", "(a) [b] {c} <d>", "\"quoted\" 'single' `tick`",
        "~!@#$%^&*()_+", "a/b|c\\d", "def f(x):\n    return x\n", "if (a < b && c > d) { x = y; }", "<html><b>bold</b></html>", "{\"json\": [1, 2]}", "SELECT * FROM t;", "\\n \\t \\u0041", "summarize: the text", "translate English to German: Hello",
        "pneumonoultramicroscopicsilicovolcanoconiosis", "Llanfairpwllgwyngyllgogerychwyrndrobwllllantysiliogogogoch", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "ababababababababab", "x" * 300, "é" * 120, "漢" * 120, "😀" * 60, "-" * 200, " " * 100 + "a", "a" + " " * 100,
        "a" + " " * 50 + "b", "\t" * 20 + "b", "\n".join(["line"] * 30), "word " * 60, "Supercalifragilistic" * 12, "▁" * 40, "<" * 50, "</s" * 20, "<extra_id_" * 12,
    ]  # fmt: skip


def generated():
    """Seeded lines; `Random.random` and integer arithmetic are the same in every version of Python."""
    source = random.Random(20240607)

    def pick(items):
        return items[int(source.random() * len(items))]

    def scalar(ranges):
        low, high = pick(ranges)
        return chr(low + int(source.random() * (high - low + 1)))

    spaces = [" ", "  ", "\t", "\n", "\u00a0", "\u2009", "\u3000", "\u200b", ""]
    extras = ["</s>", "<pad>", "<unk>", "<extra_id_7>", "▁", "\u0301", "\ufe0f", "\u200d", "\r\n", "\x00", "☃"]
    for _ in range(90):  # words with odd glue
        yield "".join(pick(WORDS) + pick(spaces) for _ in range(1 + int(source.random() * 12)))
    for _ in range(90):  # words with one disturbance
        words = [pick(WORDS) for _ in range(1 + int(source.random() * 6))]
        words[int(source.random() * len(words))] += pick(extras) + pick(WORDS)
        yield " ".join(words)
    for _ in range(120):  # one range with ASCII
        ranges = [pick(RANGES), (0x20, 0x7E)]
        yield "".join(scalar(ranges) for _ in range(1 + int(source.random() * 24)))
    for _ in range(120):  # everything
        yield "".join(scalar(RANGES) for _ in range(1 + int(source.random() * 32)))
    marks = [(0x300, 0x36F), (0x591, 0x5BD), (0x64B, 0x652), (0x3099, 0x309A), (0x20D0, 0x20F0), (0x93C, 0x94D)]
    for _ in range(60):  # bases with marks
        yield "".join(scalar(RANGES[:10]) + "".join(scalar(marks) for _ in range(int(source.random() * 4))) for _ in range(8))
    for _ in range(40):  # short clusters
        yield scalar(RANGES) + scalar(marks)
    for _ in range(40):
        yield scalar(RANGES) + pick(spaces) + pick(extras) + scalar(RANGES)


def nasty_lines():
    lines = list(dict.fromkeys([*hand_written(), *generated()]))
    assert len(lines) >= 700, len(lines)
    return lines


# --- tokenizers --------------------------------------------------------------------------------------------


def random_ids(size):
    source = random.Random(7)
    return [[int(source.random() * (size + 5)) for _ in range(1 + int(source.random() * 20))] for _ in range(80)]


def nasty(tokenizer, lines):
    """Ids with special tokens, and the text of those ids where it isn't the line itself."""
    encoded = [tokenizer.encode(line).ids for line in lines]
    pairs = [[i, (i * 7 + 3) % len(lines)] for i in range(0, len(lines), 23)]
    samples = random_ids(tokenizer.get_vocab_size())
    blocks = ["\n".join(f"{c}\na{c}\n{c}b" for c in block) for block in scalar_blocks()]
    return {
        "vocabularySize": tokenizer.get_vocab_size(),
        "ids": encoded,
        "withoutSpecialTokens": digest([i for line in lines for i in tokenizer.encode(line, add_special_tokens=False).ids]),
        "decoded": [tokenizer.decode(ids) for ids in encoded],
        "decodedWithSpecialTokens": [tokenizer.decode(ids, skip_special_tokens=False) for ids in encoded[::5]],
        "pairs": [pair + tokenizer.encode(lines[pair[0]], lines[pair[1]]).ids for pair in pairs],
        "samples": samples,
        # Digests, since the text consists of pieces of a vocabulary that isn't ours.
        "decodedSamples": [digest(map(ord, tokenizer.decode(ids, skip_special_tokens=False))) for ids in samples],
        "normalized": [digest(map(ord, tokenizer.normalizer.normalize_str(line))) for line in lines],
        "normalizedScalars": [digest(map(ord, tokenizer.normalizer.normalize_str(text))) for text in blocks],
    }


def real(tokenizer, folder):
    """Digests of the ids of every text of DialogSum's validation and test sets, by file and field."""
    result = {}
    for name in ["dialogsum.dev.jsonl", "dialogsum.test.jsonl"]:
        rows = [json.loads(line) for line in (folder / name).read_text(encoding="utf-8").splitlines()]
        fields = [field for field in rows[0] if field == "dialogue" or field.startswith("summary")]
        result[name] = {field: [digest(tokenizer.encode(row[field]).ids) for row in rows] for field in fields}
    return result


def without_tokenizer_json(folder, lines, expected):
    """Lines for which `spiece.model` alone, read by transformers, gives other ids than `tokenizer.json`."""
    import sentencepiece
    import transformers

    with tempfile.TemporaryDirectory() as temporary:
        shutil.copy(folder / "spiece.model", temporary)
        shutil.copy(folder / "tokenizer_config.json", temporary)
        tokenizer = transformers.T5Tokenizer.from_pretrained(temporary)
        with_config = {i: tokenizer(line).input_ids for i, line in enumerate(lines)}
    differing = {str(i): ids for i, ids in with_config.items() if ids != expected[i]}
    processor = sentencepiece.SentencePieceProcessor(model_file=str(folder / "spiece.model"))
    other = sum(processor.encode(line) + [1] != with_config[i] for i, line in enumerate(lines))
    print(f"spiece.model: {len(differing)} lines differ from tokenizer.json; sentencepiece itself differs on {other}")
    return differing


# --- small tokenizers, one for each feature ----------------------------------------------------------------


def small_vocabulary(byte_fallback=False):
    pieces = [("<unk>", 0.0), ("<s>", 0.0), ("</s>", 0.0), ("▁", -3.0), ("▁hello", -2.0), ("▁world", -2.5), ("hello", -4.0)]
    pieces += [(letter, -6.0 - index / 10) for index, letter in enumerate("abcdefghijklmnopqrstuvwxyzé!.,' ")]
    pieces += [("▁▁", -4.5), ("lo▁wo", -1.0), ("llo", -5.0), ("day", -5.0), ("ab", -11.9), ("bc", -11.9), ("e\u0301", -5.0)]
    if byte_fallback:
        pieces += [(f"<0x{byte:02X}>", -20.0) for byte in range(256)]
    return pieces


TEXTS = [
    "", " ", "hello world", " hello world", "  hello   world  ", "Hello WORLD", "hello[M]world", "hello [M] world", "[M]", "[M][M]",
    "hello  [L]  world", "hello  [R]  world", "[L] [L]", " [R] [R] ", "[R] hello", "hello [L]", "day", "today day", "day day", "Day!", "DAY",
    "a[W]b", "a [W] b", "[W]", "[W]a", "[W][W]", "[W] [W]", "_[W]", "é[W]", "![W]!", "</s>hello", "hello</s>", "<s>hello world</s>", "▁hello", "he▁llo",
    "\u00e9", "e\u0301", "\u0301hello", "\u65e5\u672c", "a\u65e5b", "\U0001f600", "\U0001f600\U0001f601 hello", "abc", "abcabc", "hello\nworld", "\thello", "\u00a0hello\u00a0",
    "x  y   z", "x.y,z", "don't", "hello\u3000world", "Σ ς İ", "a\x00b", "\u200dhello", "hello lo wo", "[N]ay", "a [n] b [N] c",
]  # fmt: skip


def small_tokenizers():
    def make(byte_fallback=False, **stages):
        tokenizer = Tokenizer(models.Unigram(small_vocabulary(byte_fallback), 0, byte_fallback))
        for name, stage in stages.items():
            setattr(tokenizer, name, stage)
        return tokenizer

    space = pre_tokenizers.Metaspace
    yield "no stages", make()
    yield "metaspace always", make(pre_tokenizer=space(), decoder=decoders.Metaspace())
    yield "metaspace first", make(pre_tokenizer=space(prepend_scheme="first"), decoder=decoders.Metaspace(prepend_scheme="first"))
    yield "metaspace never", make(pre_tokenizer=space(prepend_scheme="never"), decoder=decoders.Metaspace(prepend_scheme="never"))
    yield "metaspace without split", make(pre_tokenizer=space(split=False), decoder=decoders.Metaspace())
    yield "metaspace first without split", make(pre_tokenizer=space(prepend_scheme="first", split=False))
    yield "whitespace", make(pre_tokenizer=pre_tokenizers.Whitespace())
    yield "whitespace split", make(pre_tokenizer=pre_tokenizers.WhitespaceSplit())
    words_first = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), space(prepend_scheme="first")])
    yield "words, metaspace first", make(pre_tokenizer=words_first)
    for name, normalizer in {
        "strip": normalizers.Strip(),
        "strip left": normalizers.Strip(left=True, right=False),
        "strip accents": normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents()]),
        "replaced run": normalizers.Replace(Regex(" {2,}"), "▁"),
        "removed spaces": normalizers.Replace(" ", ""),
        "prepended": normalizers.Prepend("▁"),
    }.items():
        yield name + ", words, metaspace first", make(normalizer=normalizer, pre_tokenizer=words_first)
    for name, normalizer in {
        "lowercase": normalizers.Lowercase(),
        "nfc": normalizers.NFC(),
        "nfd": normalizers.NFD(),
        "nfkc": normalizers.NFKC(),
        "nfkd": normalizers.NFKD(),
        "strip right": normalizers.Strip(left=False, right=True),
        "replaced string": normalizers.Replace("lo", "day"),
        "replaced expression": normalizers.Replace(Regex("[lo]+|\\s\\s"), "é"),
        "replaced empty matches": normalizers.Replace(Regex("l*"), "x"),
        "one or more": normalizers.Replace(Regex("l+"), "ab"),
    }.items():
        yield name, make(normalizer=normalizer, pre_tokenizer=space(), decoder=decoders.Metaspace())
    yield "byte fallback", make(
        True,
        normalizer=normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]),
        decoder=decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        ),
    )
    template = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $B </s> $A:1 </s>:1", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    yield "template", make(pre_tokenizer=space(), post_processor=template)
    yield "template in a sequence", make(pre_tokenizer=space(), post_processor=processors.Sequence([template]))
    for scheme in ["always", "first", "never"]:
        tokenizer = make(normalizer=normalizers.Lowercase(), pre_tokenizer=space(prepend_scheme=scheme), post_processor=template)
        tokenizer.decoder = decoders.Metaspace(prepend_scheme=scheme)
        tokenizer.add_special_tokens(["<s>", "</s>", "[M]", AddedToken("[L]", lstrip=True), AddedToken("[R]", rstrip=True)])
        tokenizer.add_tokens([AddedToken("Day", normalized=True, single_word=True), AddedToken("[W]", single_word=True, normalized=False)])
        tokenizer.add_tokens([AddedToken("[N]", normalized=True, lstrip=True, rstrip=True), "day!"])
        yield "added tokens, metaspace " + scheme, tokenizer


def small_cases():
    for name, tokenizer in small_tokenizers():
        encoded = [tokenizer.encode(text).ids for text in TEXTS]
        samples = random_ids(tokenizer.get_vocab_size())[:20]
        yield {
            "name": name,
            "tokenizer": json.loads(tokenizer.to_str()),
            "ids": encoded,
            "decoded": [tokenizer.decode(ids) for ids in encoded],
            "decodedWithSpecialTokens": [tokenizer.decode(ids, skip_special_tokens=False) for ids in encoded],
            "pairs": [tokenizer.encode(text, "hello").ids for text in TEXTS],
            "samples": samples,
            "decodedSamples": [tokenizer.decode(ids, skip_special_tokens=False) for ids in samples],
        }


# --- Unicode forms -----------------------------------------------------------------------------------------


def scalar_blocks():
    """The scalars of the first two planes, 512 at a time."""
    for start in range(0, 0x20000, 0x200):
        yield [chr(code) for code in range(start, start + 0x200) if not 0xD800 <= code < 0xE000]


def unicode_forms():
    """Digests of the scalars of each 512 scalars' normal form, one scalar a line, for the first two planes."""
    texts = ["\n".join(block) for block in scalar_blocks()]
    forms = {"NFC": normalizers.NFC(), "NFD": normalizers.NFD(), "NFKC": normalizers.NFKC(), "NFKD": normalizers.NFKD()}
    return {
        name: [digest(map(ord, form.normalize_str(text))) for text in texts]
        for name, form in forms.items()
    }


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--shared", type=pathlib.Path, default=PACKAGE.parent / "shared")
    shared = parser.parse_args().shared
    lines = nasty_lines()
    write("nasty-lines.json", lines)
    write("unicode-forms.json", unicode_forms())
    write("stages.json", {"texts": TEXTS, "cases": list(small_cases())})
    dialogsum = shared / "data" / "dialogsum"
    t5 = shared / "data" / "t5-tokenizer"
    for name, folder in {"t5": t5, "tiny-t5": PACKAGE / "Models" / "tiny-t5"}.items():
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        content = nasty(tokenizer, lines)
        if name == "t5":
            content["spieceDiffers"] = without_tokenizer_json(folder, lines, content["ids"])
        write(f"{name}.json", content)
        write(f"{name}-dialogsum.json", real(tokenizer, dialogsum))
    print(len(lines), "nasty lines")


if __name__ == "__main__":
    main()
