"""Seeds of the fuzz targets: small valid inputs, made here or copied from the tests' fixtures."""
import io
import json
import pickle
import struct
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
TESTS = ROOT / "Tests"
LARGEST = 20_000


def files(*patterns: str) -> list:
    """The small fixtures that match a pattern, at most 60."""
    found = [file for pattern in patterns for file in sorted(TESTS.glob(pattern))]
    return [file.read_bytes() for file in found if file.is_file() and file.stat().st_size <= LARGEST][:60]


def tokenizers() -> list:
    """Tokenizers with one stage of each type, over a vocabulary of a few words."""
    words = {word: index for index, word in enumerate(["<s>", "</s>", "<unk>", "a", "b", "ab", "h", "e", "l", "o", "▁", "Ġ"])}
    models = [
        {"type": "BPE", "vocab": words, "merges": [["a", "b"]], "unk_token": "<unk>", "byte_fallback": False},
        {"type": "WordPiece", "vocab": words, "unk_token": "<unk>", "continuing_subword_prefix": "##",
         "max_input_chars_per_word": 100},
        {"type": "WordLevel", "vocab": words, "unk_token": "<unk>"},
        {"type": "Unigram", "vocab": [[word, -1.0] for word in words], "unk_id": 2, "byte_fallback": False},
    ]
    normalizers = [
        None, {"type": "NFC"}, {"type": "NFKD"}, {"type": "Lowercase"}, {"type": "StripAccents"}, {"type": "Nmt"},
        {"type": "Strip", "strip_left": True, "strip_right": True}, {"type": "Prepend", "prepend": "▁"},
        {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": "▁"},
        {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None, "lowercase": True},
        {"type": "Sequence", "normalizers": [{"type": "NFD"}, {"type": "Replace", "pattern": {"String": "a"}, "content": ""}]},
    ]
    splits = [
        None, {"type": "Whitespace"}, {"type": "WhitespaceSplit"}, {"type": "BertPreTokenizer"},
        {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True},
        {"type": "Split", "pattern": {"Regex": r"\s+|\p{L}+"}, "behavior": "Isolated", "invert": False},
        {"type": "Punctuation", "behavior": "Isolated"}, {"type": "Digits", "individual_digits": True},
        {"type": "UnicodeScripts"}, {"type": "FixedLength", "length": 3},
    ]
    decoders = [
        None, {"type": "ByteLevel"}, {"type": "WordPiece", "prefix": "##", "cleanup": True},
        {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always"}, {"type": "ByteFallback"}, {"type": "Fuse"},
        {"type": "BPEDecoder", "suffix": "</w>"},
        {"type": "CTC", "pad_token": "<s>", "word_delimiter_token": "a", "cleanup": True},
        {"type": "Strip", "content": "a", "start": 1, "stop": 0},
    ]
    template = {
        "type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<s>": {"id": "<s>", "ids": [0], "tokens": ["<s>"]}},
    }
    made = []
    for number in range(11):
        made.append(json.dumps({
            "version": "1.0", "truncation": None, "padding": None,
            "added_tokens": [{"id": 0, "content": "<s>", "single_word": False, "lstrip": False, "rstrip": True,
                              "normalized": False, "special": True}],
            "normalizer": normalizers[number], "pre_tokenizer": splits[number], "post_processor": template if number % 2 else None,
            "decoder": decoders[number % len(decoders)], "model": models[number % len(models)]}, ensure_ascii=False).encode())
    return made


def field(number: int, value) -> bytes:
    """A field of a Protocol Buffers message."""
    if isinstance(value, int):
        return variable(number << 3) + variable(value)
    if isinstance(value, float):
        return variable(number << 3 | 5) + struct.pack("<f", value)
    return variable(number << 3 | 2) + variable(len(value)) + value


def variable(value: int) -> bytes:
    result = b""
    while value >= 128:
        result, value = result + bytes([value & 127 | 128]), value >> 7
    return result + bytes([value])


def sentence_pieces() -> list:
    made = []
    for model, fallback in ((1, 0), (2, 0), (2, 1)):
        pieces = [("<unk>", 2), ("<s>", 3), ("</s>", 3), ("▁", 1), ("a", 1), ("▁a", 1), ("ab", 1), ("b", 1)]
        pieces += [(f"<0x{byte:02X}>", 6) for byte in range(256)] if fallback else []
        data = b"".join(field(1, field(1, text.encode()) + field(2, -1.0 - i) + field(3, kind)) for i, (text, kind) in enumerate(pieces))
        data += field(2, field(3, model) + field(35, fallback))
        made.append(data + field(3, field(1, b"identity") + field(3, 1) + field(4, 1) + field(5, 1)))
    return made


def gguf() -> list:
    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value.encode())) + value.encode()

    def strings(values: list) -> bytes:
        return struct.pack("<IQ", 8, len(values)) + b"".join(map(text, values))

    words = ["<unk>", "<s>", "</s>", "▁", "a", "b", "ab", "▁ab"]
    made = []
    for model in ("llama", "gpt2", "bert", "t5"):
        settings = [
            ("general.architecture", 8, text("llama")), ("general.alignment", 4, struct.pack("<I", 32)),
            ("tokenizer.ggml.model", 8, text(model)), ("tokenizer.ggml.pre", 8, text("default")),
            ("tokenizer.ggml.tokens", 9, strings(words)), ("tokenizer.ggml.merges", 9, strings(["a b", "▁ ab"])),
            ("tokenizer.ggml.scores", 9, struct.pack("<IQ8f", 6, 8, *(-float(i) for i in range(8)))),
            ("tokenizer.ggml.token_type", 9, struct.pack("<IQ8i", 5, 8, 2, 3, 3, 1, 1, 1, 1, 1)),
            ("tokenizer.ggml.bos_token_id", 4, struct.pack("<I", 1)), ("tokenizer.ggml.eos_token_id", 4, struct.pack("<I", 2)),
        ]
        data = b"GGUF" + struct.pack("<IQQ", 3, 1, len(settings))
        data += b"".join(text(name) + struct.pack("<I", kind) + value for name, kind, value in settings)
        data += text("blk.0.attn_q.weight") + struct.pack("<IQQIQ", 2, 4, 2, 0, 0)
        made.append(data + bytes(-len(data) % 32) + bytes(32))
    return made


def tensor_pickle(key: str) -> bytes:
    """The pickle of a dictionary with one tensor, as `torch.save` writes it."""
    return (b"\x80\x02}q\x00X\x01\x00\x00\x00wq\x01ctorch._utils\n_rebuild_tensor_v2\nq\x02((X\x07\x00\x00\x00storageq\x03"
            b"ctorch\nFloatStorage\nq\x04X\x01\x00\x00\x00" + key.encode() + b"q\x05X\x03\x00\x00\x00cpuq\x06K\x06tq\x07QK\x00K\x02K\x03"
            b"\x86q\x08K\x03K\x01\x86q\x09\x89ccollections\nOrderedDict\nq\n)Rq\x0btq\x0cRq\rs.")


def archives() -> list:
    made = [pickle.dumps({"a": [1, 2.5, None, True, "x", (1,), {"b": b"c"}]}, protocol) for protocol in (0, 2, 4)]
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("archive/data.pkl", tensor_pickle("0"))
        archive.writestr("archive/byteorder", "little")
        archive.writestr("archive/data/0", struct.pack("<6f", *range(6)))
        archive.writestr("archive/version", "3\n")
    return made + [content.getvalue()]


def npy() -> list:
    made = []
    for version, order, shape in ((1, "False", "(2, 3)"), (2, "True", "(6,)"), (1, "False", "()")):
        header = f"{{'descr': '<f4', 'fortran_order': {order}, 'shape': {shape}, }}".encode()
        size = struct.pack("<H" if version == 1 else "<I", len(header))
        made.append(b"\x93NUMPY" + bytes([version, 0]) + size + header + struct.pack("<6f", *range(6)))
    return made


def safetensors() -> list:
    header = json.dumps({"__metadata__": {"format": "pt"}, "a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
                         "b": {"dtype": "BF16", "shape": [0], "data_offsets": [24, 24]}}).encode()
    return [struct.pack("<Q", len(header)) + header + bytes(24)]


SCHEMAS = [
    {"type": "object", "properties": {"a": {"type": "string", "pattern": "^[a-z]{2,4}$"}, "n": {"type": "integer", "minimum": -3,
     "maximum": 120}}, "required": ["a"], "additionalProperties": False},
    {"type": "array", "items": {"type": "number", "exclusiveMinimum": 0}, "minItems": 1, "maxItems": 3},
    {"anyOf": [{"type": "null"}, {"enum": ["x", "y", 3, None]}, {"const": {"k": [1]}}]},
    {"$defs": {"node": {"type": "object", "properties": {"next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}}}},
     "$ref": "#/$defs/node"},
    {"type": "string", "format": "date-time", "minLength": 2, "maxLength": 9},
    {"allOf": [{"type": "object", "properties": {"a": True}}, {"properties": {"b": False}}], "oneOf": [{"required": ["a"]}]},
    {"type": "object", "patternProperties": {"^x": {"type": "boolean"}}, "propertyNames": {"maxLength": 3}},
]
TEMPLATES = [
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message.content | trim }}{% endfor %}",
    "{%- set ns = namespace(n=0) -%}{% for m in messages if m.role != 'x' %}{% set ns.n = ns.n + loop.index %}{% else %}no{% endfor %}{{ ns.n }}",
    "{% macro f(a, b=2) %}{{ a ~ b }}{% endmacro %}{{ f(1) }}{{ f('x', b=[1, 2][0]) | upper }}",
    "{{ messages | tojson(indent=2) }}{{ messages | map(attribute='role') | join(', ') }}{{ '%05d|%s' % (n, bos_token) }}",
    "{% if n is divisibleby 3 and n not in [1, 2] %}{{ (n ** 2 // 4) % 3 }}{% elif true %}{{ 1 if n else 2 }}{% endif %}",
    "{% filter indent(2) %}{{ 'a\\nb'.split('\\n') | last }}{% endfilter %}{% raw %}{{ x }}{% endraw %}{# c #}",
    "{% generation %}{{ messages[0]['content'][1:-1:2] }}{% endgeneration %}{{ range(3) | list | sum }}{{ strftime_now('%d %b %Y') }}",
    "{{ raise_exception('no') }}", "{{ dict(a=1, b=2).items() | list | sort(reverse=true) }}{{ 'abc' | replace('b', 'd') | wordcount }}",
]
JSONS = ['{"a": [1, -2.5e3, true, null, "x\\u00e9\\n"], "b": {"c": {}}}', "[[]]", '"\\ud83d\\ude00"', "1e308", "-0.0", "12345678901234567890"]
CSVS = ['a,b\n1,"x ""y""\nz"\n2,w\n', "a;b\r\n1;2\r\n", "a\tb\n\"1\t2\n", '"a","b"\n"1","2"']


def made(target: str) -> list:
    if target in ("json", "jsonl", "json-rows"):
        rows = '{"q": "Tom", "a": ["x", 1]}\n{"q": "ran", "a": {"b": null}}\n'
        more = ['{"q": [1, 2], "a": [3, 4]}', '{"columns": ["a"], "index": [0], "data": [[1]]}', '{"train": [{"a": 1}], "test": []}',
                '{"q": {"0": 1, "1": 2}}', '[["a", 1], ["b", 2]]', '[{"a": 1}, {"a": 2}]']
        return [text.encode() for text in JSONS + [rows] + more]
    if target == "template":
        return [f"{text}\n".encode() + b'{"q": "Tom", "a": {"b": [1, 2]}}\n' for text in ("Say {q}: {a.b}", "{{x}} {q}", "{a[0]}")]
    if target in ("csv", "tsv"):
        return [text.encode() for text in CSVS]
    if target == "schema":
        return [json.dumps(schema).encode() + b'\n{"a": "xy", "n": 12}' for schema in SCHEMAS]
    if target == "response-format":
        return [json.dumps({"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}).encode() for schema in SCHEMAS]
    if target == "jinja":
        return [text.encode() for text in TEMPLATES] + files("**/*.jinja")
    if target == "expression":
        return [b"(a+)+b\naaaaaaaaaaaaaaac", b"\\p{L}+|\\s{2,}(?!\\S)\nHello  world", b"[^\\r\\n\\p{N}]?\\p{Lu}*\nABC 12"]
    if target == "tokenizer":
        return tokenizers()
    makers = {"sentencepiece": sentence_pieces, "gguf": gguf, "safetensors": safetensors, "pickle": archives, "npy": npy}
    return makers[target]()


def make_seeds(target: str, folder: Path) -> None:
    for number, seed in enumerate(made(target)):
        file = folder / f"seed-{number:02}"
        if not file.exists():
            file.write_bytes(seed)
