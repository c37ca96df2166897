"""Tokenizers against Hugging Face's `tokenizers`: equality of ids and text, and speed.

    PEFT_BENCHMARKS=1 swift build -c release --product tokenizer-benchmark
    python Benchmarks/tokenizer_speed.py --shared FOLDER [--minilm FOLDER] [--only NAME ...] [--rounds 5] [--check-only]

Requires tokenizers, transformers and sentencepiece. FOLDER holds DialogSum, E2E, WikiText-2, GSM8K, Banking77 and the
tokenizers of T5, GPT-2, RoBERTa, Llama 2 and TinyStories. Tokenizers with the regular expressions of Llama 3, Qwen 2 and GPT-4o
are trained here, on WikiText-2.

First the ids of at least 10,000 lines, and the text decoded from them, must be equal. Then both sides alternate on one thread,
with different text in each round, so that neither encodes a text twice; the reference's result is the fastest of `encode`,
`encode_batch` and `encode_batch_fast`. CPU times are compared, since machines are shared; for two threads, wall-clock times.
"""
import argparse
import csv
import json
import os
import pathlib
import random
import statistics
import struct
import subprocess
import sys
import tempfile
import time

os.environ["TOKENIZERS_PARALLELISM"] = "false"
HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent
# A folder next to this script has the same name as the package.
sys.path = [path for path in sys.path if pathlib.Path(path or ".").resolve() != HERE]
sys.path.append(str(ROOT / "Tests/TokenizersTests/Fixtures"))

from make_fixtures import RANGES, nasty_lines  # noqa: E402
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers  # noqa: E402

MODERN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|NUMBER| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
          r"\s+(?!\S)|\s+")
O200K = "|".join([
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"\p{N}{1,3}", r" ?[^\s\p{L}\p{N}]+[\r\n/]*", r"\s*[\r\n]+", r"\s+(?!\S)", r"\s+"])
PATTERNS = {"llama3": MODERN.replace("NUMBER", r"\p{N}{1,3}"), "qwen2": MODERN.replace("NUMBER", r"\p{N}"), "o200k": O200K}


# --- text ----------------------------------------------------------------------------------------------------


def rows(file):
    with open(file, encoding="utf-8", newline="") as handle:
        if file.suffix == ".csv":
            yield from csv.DictReader(handle)
        else:
            yield from map(json.loads, handle)


def wikitext(shared, part):
    return [line for line in (shared / f"wikitext-2/{part}.txt").read_text(encoding="utf-8").split("\n") if line.strip()]


def more_nasty_lines(count):
    """Scripts, marks, emoji, control characters and odd spaces between words, seeded."""
    source = random.Random(7)
    spaces = [" ", "  ", "\t", "\n", "\r\n", "\u00a0", "\u2009", "\u3000", "\u200b", "\u200d", "\u0301", "", "'s ", "'LL", "12345", "/\n"]
    emoji = ["👩‍👩‍👧‍👦", "👍🏽", "🏳️‍🌈", "🇩🇪", "1️⃣", "🤷🏽‍♀️", "☃", "🥲"]
    words = ["The", "quick", "BROWN", "McDonald", "straße", "naïve", "e\u0301te\u0301", "漢字", "한국어", "السلام", "שלום", "हिन्दी", "ภาษา", "Ещё", "x" * 70, "½", "Ⅷ", "№", "camelCase", "ABCd", "don't", "I'M"]
    for _ in range(count):
        line = ""
        for _ in range(1 + int(source.random() * 20)):
            draw = source.random()
            if draw < 0.5:
                line += words[int(source.random() * len(words))]
            elif draw < 0.6:
                line += emoji[int(source.random() * len(emoji))]
            else:
                low, high = RANGES[int(source.random() * len(RANGES))]
                line += "".join(chr(low + int(source.random() * (high - low + 1))) for _ in range(1 + int(source.random() * 4)))
            line += spaces[int(source.random() * len(spaces))]
        yield line


def lines_to_check(shared):
    lines = []
    train = list(rows(shared / "dialogsum/dialogsum.train.jsonl"))
    lines += [row["dialogue"] for row in train[::8]] + [row["summary"] for row in train[::16]]
    lines += [row[key] for row in list(rows(shared / "e2e_nlg/trainset.csv"))[::60] for key in ["mr", "ref"]]
    lines += wikitext(shared, "valid")[::2] + wikitext(shared, "test")
    lines += [row[key] for row in list(rows(shared / "gsm8k/train.jsonl"))[::8] for key in ["question", "answer"]]
    lines += [row["text"] for row in list(rows(shared / "banking77/train.csv"))[::5]]
    return lines + list(nasty_lines()) + list(more_nasty_lines(2500))


def lines_to_time(shared, rounds):
    """Two corpora, a quarter of each split into one part per round."""
    def parts(lines):
        return [lines[start::4 * rounds] for start in range(rounds)]
    dialogues = [row["dialogue"] for row in rows(shared / "dialogsum/dialogsum.train.jsonl")]
    return {"WikiText-2": parts(wikitext(shared, "train")), "DialogSum": parts(dialogues)}


# --- files that both sides read ------------------------------------------------------------------------------


def write_lines(file, lines):
    with open(file, "wb") as out:
        for line in lines:
            data = line.encode()
            out.write(struct.pack("<I", len(data)) + data)


def write_ids(file, lists):
    with open(file, "wb") as out:
        for ids in lists:
            out.write(struct.pack(f"<I{len(ids)}I", len(ids), *ids))


# --- tokenizers ----------------------------------------------------------------------------------------------


def trained(name, shared):
    """A byte-level tokenizer with one of the newer regular expressions."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC() if name == "qwen2" else None
    split = pre_tokenizers.Split(Regex(PATTERNS[name]), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|begin|>", "<|end|>"]
    trainer = trainers.BpeTrainer(vocab_size=16000, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(wikitext(shared, "train")[::2] + list(more_nasty_lines(500)), trainer)
    tokenizer.add_tokens([AddedToken("<tool>", lstrip=True), AddedToken("quick", single_word=True, normalized=True)])
    tokenizer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), processors.TemplateProcessing(
        single="<|begin|> $A", pair="<|begin|> $A <|end|>:1 $B:1", special_tokens=[("<|begin|>", 0), ("<|end|>", 1)])])
    content = json.loads(tokenizer.to_str())
    content["model"]["ignore_merges"] = name == "llama3"
    return content


def repaired_llama2(folder):
    """Repairs three merges of the file whose no-break space became a plain one, which the reference rejects."""
    content = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    vocabulary = content["model"]["vocab"]

    def pair(merge):
        cuts = [(merge[:i], merge[i + 1:]) for i, character in enumerate(merge) if character == " "]
        possible = [cut for cut in cuts if len(cuts) == 1 or all(piece in vocabulary for piece in [*cut, "".join(cut)])]
        return list(possible[0])

    content["model"]["merges"] = [pair(merge) if isinstance(merge, str) else merge for merge in content["model"]["merges"]]
    return content


def tokenizers(arguments, work):
    """Yields a name, the folder that we load and the reference's tokenizer."""
    shared = arguments.shared

    def folder(name, files):
        path = work / name
        path.mkdir(exist_ok=True)
        for target, source in files.items():
            (path / target).write_bytes(source.read_bytes() if isinstance(source, pathlib.Path) else json.dumps(source, ensure_ascii=False).encode())
        return path

    for name in ["gpt2", "t5", "roberta", "llama2"]:
        source = shared / f"{name}-tokenizer"
        content = repaired_llama2(source) if name == "llama2" else source / "tokenizer.json"
        path = folder(name, {"tokenizer.json": content})
        yield name, path, lambda path=path: Tokenizer.from_file(str(path / "tokenizer.json"))
    for name, source, files in [("gpt2-merges", "gpt2-tokenizer", ["encoder.json", "vocab.bpe"]), ("roberta-merges", "roberta-tokenizer", ["vocab.json", "merges.txt"])]:
        path = folder(name, {file: shared / source / file for file in files})
        yield name, path, lambda name=name: Tokenizer.from_file(str(work / name.split("-")[0] / "tokenizer.json"))
    for name, source, files in [("llama2-spm", "llama2-tokenizer", ["tokenizer.model", "tokenizer_config.json"]), ("t5-spm", "t5-tokenizer", ["spiece.model", "tokenizer_config.json"])]:
        path = folder(name, {file: shared / source / file for file in files})

        def converted(path=path, name=name):
            if name == "llama2-spm":
                # As the sentencepiece library does; transformers 5 orders the merges of spaces differently.
                from make_subword_fixtures import llama2_sentencepiece
                return llama2_sentencepiece(path)
            from transformers import T5TokenizerFast
            return T5TokenizerFast.from_pretrained(str(path), from_slow=True).backend_tokenizer
        yield name, path, converted
    source = shared / "tinystories-656k-hf"
    yield "tinystories", folder("tinystories", {"tokenizer.json": source / "tokenizer.json"}), lambda: Tokenizer.from_file(str(source / "tokenizer.json"))
    if arguments.minilm:
        source = arguments.minilm
        yield "minilm", folder("minilm", {"tokenizer.json": source / "tokenizer.json"}), lambda: Tokenizer.from_file(str(source / "tokenizer.json"))
    for name in PATTERNS:
        path = work / name
        if not (path / "tokenizer.json").exists():
            if arguments.only and name not in arguments.only:
                continue
            folder(name, {"tokenizer.json": trained(name, shared)})
        yield name, path, lambda path=path: Tokenizer.from_file(str(path / "tokenizer.json"))


# --- running -------------------------------------------------------------------------------------------------


class Program:
    """Our side: one process per tokenizer, which executes one command per input line."""

    def __init__(self, binary, folder):
        self.process = subprocess.Popen([binary, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, *words):
        self.process.stdin.write("\t".join(map(str, words)) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            sys.exit("tokenizer-benchmark ended")
        return json.loads(answer)

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def timed(body):
    start = time.process_time()
    body()
    return time.process_time() - start


def check(name, program, reference, lines, work):
    encoded = [encoding.ids for encoding in reference.encode_batch(lines)]
    write_ids(work / "ids.bin", encoded)
    write_lines(work / "decoded.bin", reference.decode_batch(encoded, skip_special_tokens=True))
    write_lines(work / "whole.bin", reference.decode_batch(encoded, skip_special_tokens=False))
    pairs = [reference.encode(lines[i], lines[(i * 7 + 3) % len(lines)]) for i in range(0, len(lines), 29)]
    write_ids(work / "pairs.bin", [pair.ids for pair in pairs])
    write_ids(work / "types.bin", [pair.type_ids for pair in pairs])
    result = program.ask("check", work)
    print(f"{name}: {len(lines)} lines, {sum(map(len, encoded))} tokens: {result['ids']} lines differ in ids, {result['decoded']} "
          f"in text, {result['pairs']} of {len(pairs)} pairs, {result['streamed']} in streamed text", flush=True)
    for line in result["examples"][:5]:
        print("   ", line)
    return result["ids"] + result["decoded"] + result["pairs"] + result["streamed"]


def measure(name, program, reference, corpora, rounds, work):
    for corpus, parts in corpora.items():
        ratios, ours, theirs, both, fastest = [], [], [], [], None
        for part in parts:
            write_lines(work / "text.bin", part)
            size = sum(len(line.encode()) for line in part) / 1e6
            ways = [lambda: [reference.encode(line) for line in part], lambda: reference.encode_batch(part),
                    lambda: reference.encode_batch_fast(part)]
            times = {way: timed(ways[way]) for way in (range(3) if fastest is None else [fastest])}
            fastest = min(times, key=times.get)
            seconds = times[fastest]
            own = program.ask("time", work / "text.bin", 1)["processor"]
            ratios.append(seconds / own)
            theirs.append(size / seconds)
            ours.append(size / own)
            both.append(size / program.ask("time", work / "text.bin", 2)["seconds"])
        print(f"{name}, {corpus}: {statistics.median(ours):.1f} MB/s against {statistics.median(theirs):.2f}: "
              f"{statistics.median(ratios):.1f}x ({min(ratios):.1f} … {max(ratios):.1f}); two threads, second time, "
              f"{statistics.median(both):.1f} MB/s", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=pathlib.Path, default=ROOT.parent / "shared/data")
    parser.add_argument("--minilm", type=pathlib.Path, help="a folder with MiniLM's tokenizer.json")
    parser.add_argument("--binary", type=pathlib.Path, default=ROOT / ".build/release/tokenizer-benchmark")
    parser.add_argument("--work", type=pathlib.Path, help="keep intermediate files in this folder")
    parser.add_argument("--only", nargs="*", help="names of tokenizers")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--check-only", action="store_true")
    parser.add_argument("--time-only", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = arguments.work or pathlib.Path(temporary)
        work.mkdir(exist_ok=True)
        lines = lines_to_check(arguments.shared)
        write_lines(work / "lines.bin", lines)
        corpora = lines_to_time(arguments.shared, arguments.rounds)
        failures = 0
        for name, folder, load in tokenizers(arguments, work):
            if arguments.only and name not in arguments.only:
                continue
            reference = load()
            reference.no_padding()
            reference.no_truncation()
            program = Program(arguments.binary, folder)
            if not arguments.time_only:
                failures += check(name, program, reference, lines, work)
            if not arguments.check_only and "-" not in name:
                measure(name, program, reference, corpora, arguments.rounds, work)
                own = sorted(program.ask("load")["processor"] for _ in range(5))[2]
                print(f"{name}: loaded in {own * 1000:.0f} ms against {1000 * sorted(timed(load) for _ in range(5))[2]:.0f}", flush=True)
            program.close()
        if failures:
            sys.exit(f"{failures} differences")


if __name__ == "__main__":
    main()
