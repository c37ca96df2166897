"""Generation against llama.cpp over the same GGUF files: prefill and decoding, tokens/s.

    PEFT_BENCHMARKS=1 swift build -c release --product generation-benchmark
    python llama_cpp.py [FORMAT …] [--shape 110m|1b] [--rounds 3] [--peer-python PYTHON] [--write RESULTS.json]

A Llama with random weights is written by `peft quantize` as f16, q8_0, q4_0 and q4_k_m (all by default). Both sides read
prompts of 64 random tokens and continue them, at batch sizes 1 and 8; the sides alternate, one process each. llama.cpp runs by the Python package
`cyllama`, which may be in another environment than torch and safetensors (--peer-python). Its tokens are chosen by this script outside of
the measured time, ours by the program within it. Prefill is the time to the first token.

Then 8 sequences with 8 different LoRAs (r 16 on all linear layers) in one batch. llama.cpp can't compute sequences with
different LoRAs together, and cyllama can't apply any, so it is given the base, one sequence after another, which is less work.
"""
import argparse
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile
import time

from generation import LINEARS, PROGRAM, case

ROOT = pathlib.Path(__file__).resolve().parent.parent
PEFT = os.environ.get("PEFT_PROGRAM", str(ROOT / ".build/release/peft"))
FORMATS = ["f16", "q8_0", "q4_0", "q4_k_m"]
ROWS = (1, 8)
LENGTH = 64


def run(command):
    result = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    if result.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))} failed:\n{result.stderr[-2000:]}")
    return result.stdout.splitlines()


def make_inputs(folder, shape):
    import random

    import peft
    import torch
    from safetensors.torch import save_file
    from serving_load import write_letters
    from transformers import AutoConfig, AutoModelForCausalLM
    from weights import SHAPES, make

    (folder / "model").mkdir(parents=True)
    make(folder / "model", shape)
    write_letters(folder / "model", 32000)
    # The adapters are made without the model's values.
    config = AutoConfig.for_model("llama", vocab_size=32000, **SHAPES[shape])
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    lora = peft.LoraConfig(r=16, lora_alpha=16, target_modules=LINEARS, init_lora_weights=False, task_type="CAUSAL_LM")
    adapted = peft.get_peft_model(model, lora)
    for number in range(8):
        torch.manual_seed(number)
        state = {}
        for name, value in peft.get_peft_model_state_dict(adapted).items():
            state[name] = torch.randn(value.shape) * 0.02
        adapted.peft_config["default"].base_model_name_or_path = "model"
        target = folder / f"lora-{number}"
        adapted.peft_config["default"].save_pretrained(target)
        save_file(state, target / "adapter_model.safetensors", metadata={"format": "pt"})
    random.seed(0)
    prompts = [[random.randrange(3, 32000) for _ in range(LENGTH)] for _ in range(max(ROWS))]
    (folder / "prompts.json").write_text(json.dumps(prompts))


def peer(folder, options):
    """llama.cpp's side; prints one line of JSON."""
    from cyllama.llama import llama_cpp

    llama_cpp.disable_logging()
    llama_cpp.ggml_backend_load_all()
    prompts = json.loads((folder / "prompts.json").read_text())
    model = llama_cpp.LlamaModel(str(folder / f"{options.formats[0]}.gguf"), llama_cpp.LlamaModelParams())
    settings = llama_cpp.LlamaContextParams()
    settings.n_ctx, settings.n_batch, settings.n_ubatch, settings.n_seq_max = 2048, 512, 512, max(ROWS)
    settings.n_threads = settings.n_threads_batch = options.threads
    context = llama_cpp.LlamaContext(model, settings)
    sampler = llama_cpp.LlamaSampler(llama_cpp.LlamaSamplerChainParams())
    sampler.add_greedy()
    cases = []
    for rows in ROWS:
        def decode(tokens, position, count):
            """The time of one call and each sequence's most probable next token."""
            batch = llama_cpp.LlamaBatch(n_tokens=512, embd=0, n_seq_max=max(ROWS))
            last = []
            for row in range(rows):
                for offset in range(count):
                    batch.add(tokens[row][offset], position + offset, [row], offset == count - 1)
                last.append(row * count + count - 1)
            start = time.perf_counter()
            context.decode(batch)
            context.synchronize()
            seconds = time.perf_counter() - start
            return seconds, [sampler.sample(context, index) for index in last]

        def generate(count):
            context.kv_cache_clear(True)
            first, chosen = decode(prompts[:rows], 0, LENGTH)
            texts, steps = [[token] for token in chosen], []
            for number in range(count - 1):
                seconds, chosen = decode([[token] for token in chosen], LENGTH + number, 1)
                steps.append(seconds)
                for text, token in zip(texts, chosen):
                    text.append(token)
            return first, steps, texts

        generate(4)
        first, steps, texts = generate(options.new_tokens)
        cases.append(dict(rows=rows, first=first, step=statistics.mean(steps), texts=texts))
    print(json.dumps(cases))


def ours(folder, options, kind, cases):
    (folder / "run.json").write_text(json.dumps(dict(
        cases=cases, rounds=1, threads=options.threads, new_tokens=options.new_tokens, model=f"{kind}.gguf",
        prompts=json.loads((folder / "prompts.json").read_text()))))
    result = json.loads(run([PROGRAM, folder])[-1])
    return {item["name"]: dict(
        step=item["stepSeconds"][0], texts=item["texts"],
        first=item["seconds"][0] - item["stepSeconds"][0] * (options.new_tokens - 1)) for item in result["cases"]}


def measure(folder, options, kind):
    """Alternating rounds over one file."""
    mixed = case("8 LoRAs", 8, [f"lora-{number}" for number in range(8)])
    cases = [case(str(rows), rows) for rows in ROWS] + [mixed]
    rounds = []
    for _ in range(options.rounds):
        lines = run([options.peer_python, __file__, kind, "--peer", folder, "--threads", options.threads, "--new-tokens",
                     options.new_tokens])
        theirs = {str(item["rows"]): item for item in json.loads(lines[-1])}
        rounds.append((ours(folder, options, kind, cases), theirs))
    report = []

    def line(name, mine, other):
        ratios = sorted(a / b for a, b in zip(mine, other))
        median = statistics.median
        report.append(dict(format=kind, case=name, ours=mine, theirs=other))
        print(f"{kind}, {name}: {median(mine):.0f} against {median(other):.0f} tokens/s: {median(ratios):.2f}x "
              f"({ratios[0]:.2f} … {ratios[-1]:.2f})", flush=True)

    for rows in ROWS:
        name = str(rows)
        line(f"prefill of {rows} × {LENGTH}", [rows * LENGTH / m[name]["first"] for m, _ in rounds],
             [rows * LENGTH / t[name]["first"] for _, t in rounds])
        line(f"decoding, batch size {rows}", [rows / m[name]["step"] for m, _ in rounds],
             [rows / t[name]["step"] for _, t in rounds])
    line("8 LoRAs, 8 sequences", [8 / m["8 LoRAs"]["step"] for m, _ in rounds], [1 / t["1"]["step"] for _, t in rounds])
    mine, other = rounds[0]
    same = sum(a == b for rows in map(str, ROWS) for r, s in zip(mine[rows]["texts"], other[rows]["texts"]) for a, b in zip(r, s))
    total = sum(ROWS) * options.new_tokens
    print(f"{kind}: {same} of {total} greedy tokens are the same", flush=True)
    return report


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("formats", nargs="*", default=FORMATS)
    parser.add_argument("--shape", choices=["110m", "1b"], default="110m")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--new-tokens", type=int, default=48)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--peer-python", default=sys.executable, help="Python with cyllama")
    parser.add_argument("--write", metavar="FILE", help="write the results as JSON")
    parser.add_argument("--keep", metavar="FOLDER", help="folder that keeps the inputs between runs")
    parser.add_argument("--peer", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peer:
        return peer(pathlib.Path(options.peer), options)
    print(f"{platform.processor() or platform.machine()}, {options.threads} threads", flush=True)
    report = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(options.keep or temporary)
        if not (folder / "prompts.json").exists():
            make_inputs(folder, options.shape)
        for kind in options.formats:
            file = folder / f"{kind}.gguf"
            if not file.exists():
                run([PEFT, "quantize", "--model", folder / "model", "--to", f"gguf-{kind}", "--output", file])
            report += measure(folder, options, kind)
    if options.write:
        pathlib.Path(options.write).write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
