"""Generation speed against Hugging Face PEFT: the same weights, adapters and prompts, the same tokens.

    PEFT_BENCHMARKS=1 swift build -c release --product generation-benchmark
    python generation.py [--rounds 3] [--new-tokens 48] [--write RESULTS.json]

A Llama of 110 million random parameters continues prompts of 64 random tokens greedily at batch sizes 1 and 8: the base model
alone, with an unmerged LoRA (r 16 on all linear layers), and with a different adapter for each example. The sides alternate,
one process each; all tokens must be equal. Then, on our side only: batch size 64 with 64 adapters against one adapter (r 16 on
all linear layers, and r 8 on q and v), and batch size 1 with quantized base models, with the fraction of the threads' memory
bandwidth that decoding reaches.
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

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent
PROGRAM = os.environ.get("GENERATION_BENCHMARK", str(ROOT / ".build/release/generation-benchmark"))
MODEL = dict(model_type="llama", vocab_size=32000, hidden_size=768, intermediate_size=2048, num_hidden_layers=12,
             num_attention_heads=12, num_key_value_heads=12, max_position_embeddings=2048, tie_word_embeddings=False,
             bos_token_id=1, eos_token_id=2, pad_token_id=0)
LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def case(name, rows, adapters=()):
    return dict(name=name, rows=rows, adapters=list(adapters))


BOTH = [case("base, 1 row", 1), case("LoRA, 1 row", 1, ["wide-0"]), case("base, 8 rows", 8),
        case("LoRA, 8 rows", 8, ["wide-0"]), case("8 adapters, 8 rows", 8, [f"wide-{i}" for i in range(8)])]
MANY = [case("base", 64), case("one wide", 64, ["wide-0"]), case("64 wide", 64, [f"wide-{i}" for i in range(64)]),
        case("one narrow", 64, ["narrow-0"]), case("64 narrow", 64, [f"narrow-{i}" for i in range(64)])]


def peer_model(folder):
    import torch
    from safetensors.torch import load_file
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**{k: v for k, v in MODEL.items() if k != "model_type"})).eval()
    file = folder / "model" / "model.safetensors"
    if file.exists():
        model.load_state_dict(load_file(file))
    return model


def make_inputs(folder):
    import random

    import peft
    import torch
    from safetensors.torch import save_file

    (folder / "model").mkdir(parents=True)
    (folder / "model" / "config.json").write_text(json.dumps(MODEL))
    model = peer_model(folder)
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, folder / "model" / "model.safetensors",
              metadata={"format": "pt"})
    for kind, rank, targets in (("wide", 16, LINEARS), ("narrow", 8, ["q_proj", "v_proj"])):
        config = peft.LoraConfig(r=rank, lora_alpha=rank, target_modules=targets, init_lora_weights=False,
                                 task_type="CAUSAL_LM")
        for number in range(64):
            torch.manual_seed(number)
            adapted = peft.get_peft_model(model, config)
            with torch.no_grad():
                for name, parameter in adapted.named_parameters():
                    if "lora_" in name:
                        parameter.normal_(0, 0.02)
            adapted.save_pretrained(folder / f"{kind}-{number}")
            model = adapted.unload()
    random.seed(0)
    prompts = [[random.randrange(3, 32000) for _ in range(64)] for _ in range(64)]
    (folder / "prompts.json").write_text(json.dumps(prompts))


def peer(folder, options):
    """Hugging Face PEFT's side; prints one line of JSON."""
    import torch
    from peft import PeftModel

    torch.set_num_threads(options.threads)
    prompts = json.loads((folder / "prompts.json").read_text())
    model = peer_model(folder)
    results = []

    def measure(item, model):
        ids = torch.tensor(prompts[:item["rows"]])
        more = {"adapter_names": item["adapters"]} if len(item["adapters"]) > 1 else {}

        def generate(count):
            start = time.perf_counter()
            with torch.no_grad():
                out = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=count,
                                     min_new_tokens=count, do_sample=False, pad_token_id=0, **more)
            return time.perf_counter() - start, out[:, ids.shape[1]:].tolist()

        generate(4)
        first = generate(1)[0]
        seconds, texts = generate(options.new_tokens)
        results.append(dict(name=item["name"], texts=texts, seconds=[seconds],
                            stepSeconds=[(seconds - first) / (options.new_tokens - 1)]))

    for item in BOTH:
        if not item["adapters"]:
            measure(item, model)
    model = PeftModel.from_pretrained(model, folder / "wide-0", adapter_name="wide-0").eval()
    for item in BOTH:
        if len(item["adapters"]) == 1:
            measure(item, model)
    for number in range(1, 8):
        model.load_adapter(folder / f"wide-{number}", adapter_name=f"wide-{number}")
    model.eval()
    for item in BOTH:
        if len(item["adapters"]) > 1:
            measure(item, model)
    print(json.dumps(dict(cases=results)))


def run(command):
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))} failed:\n{result.stderr[-2000:]}")
    lines = result.stdout.splitlines()
    return json.loads(lines[-1]) if lines else None


def ours(folder, options, cases, rounds=1, **more):
    (folder / "run.json").write_text(json.dumps(dict(
        cases=cases, rounds=rounds, threads=options.threads, new_tokens=options.new_tokens,
        prompts=json.loads((folder / "prompts.json").read_text()), **more)))
    return run([PROGRAM, folder])


def against_peer(folder, options):
    sides = {"ours": {}, "theirs": {}}
    for number in range(options.rounds):
        other = run([sys.executable, __file__, "--peer", folder, "--threads", str(options.threads), "--new-tokens",
                     str(options.new_tokens)])
        for side, result in (("ours", ours(folder, options, BOTH)), ("theirs", other)):
            for item in result["cases"]:
                sides[side].setdefault(item["name"], []).append(item)
    report = []
    for item in BOTH:
        mine, theirs = sides["ours"][item["name"]], sides["theirs"][item["name"]]
        tokens = item["rows"] * options.new_tokens
        rate = lambda rounds: [tokens / r["seconds"][0] for r in rounds]
        ratios = sorted(a / b for a, b in zip(rate(mine), rate(theirs)))
        same = sum(a == b for r, s in zip(mine[0]["texts"], theirs[0]["texts"]) for a, b in zip(r, s))
        report.append(dict(case=item["name"], ours=rate(mine), theirs=rate(theirs), ratio=statistics.median(ratios),
                           ratios=ratios, same=same, tokens=tokens))
        print(f"{item['name']}: {statistics.median(rate(mine)):.1f} against {statistics.median(rate(theirs)):.1f} tokens/s: "
              f"{statistics.median(ratios):.2f}x ({ratios[0]:.2f} … {ratios[-1]:.2f}); {same} of {tokens} tokens the same",
              flush=True)
    return report


def step(result, name):
    return statistics.median(next(c for c in result["cases"] if c["name"] == name)["stepSeconds"])


def alone(folder, options):
    """Cases without a counterpart in PEFT."""
    report = {}
    cases = BOTH[:2]
    result = ours(folder, options, cases, rounds=2 * options.rounds)
    pairs = zip(*(next(c for c in result["cases"] if c["name"] == item["name"])["stepSeconds"] for item in cases))
    cost = statistics.median(b / a for a, b in pairs) - 1
    print(f"unmerged LoRA r 16 on all linear layers, batch size 1: {cost:+.1%} time per token", flush=True)
    report["unmerged"] = cost
    for kind in ("wide", "narrow"):
        names = [f"one {kind}", f"64 {kind}"]
        result = ours(folder, options, [c for c in MANY if c["name"] in names], rounds=options.rounds)
        one, many = step(result, names[0]), step(result, names[1])
        print(f"batch size 64, {kind} adapters: one {64 / one:.0f} tokens/s, 64 different {64 / many:.0f}: {one / many:.0%}",
              flush=True)
        report[kind] = dict(one=64 / one, many=64 / many)
    for weights in (None, "bf16", "int8", "nf4", "nf4-double"):
        result = ours(folder, options, BOTH[:1], rounds=2 * options.rounds + 1, **({"weights": weights} if weights else {}))
        seconds, size = step(result, BOTH[0]["name"]), result["projectionBytes"]
        # Relative to the memory bandwidth measured in the same round.
        pairs = zip(result["cases"][0]["stepSeconds"], result["readingRates"])
        share = statistics.median(size / one / rate for one, rate in pairs)
        rate = statistics.median(result["readingRates"])
        print(f"{weights or 'fp32'}, batch size 1: {1 / seconds:.1f} tokens/s, {size / 1e6:.0f} MB a token at "
              f"{size / seconds / 1e9:.1f} of {rate / 1e9:.1f} GB/s: {share:.0%}", flush=True)
        report[weights or "fp32"] = dict(tokens=1 / seconds, bytes=size, rate=rate, share=share)
    return report


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--new-tokens", type=int, default=48)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--only", choices=["peer", "alone"])
    parser.add_argument("--write", metavar="FILE", help="write the results as JSON")
    parser.add_argument("--keep", metavar="FOLDER", help="folder that keeps the inputs between runs")
    parser.add_argument("--peer", help=argparse.SUPPRESS)
    parser.add_argument("--make", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.make:
        return make_inputs(pathlib.Path(options.make))
    if options.peer:
        return peer(pathlib.Path(options.peer), options)
    print(f"{platform.processor() or platform.machine()}, {options.threads} threads", flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(options.keep or temporary)
        if not (folder / "prompts.json").exists():
            run([sys.executable, __file__, "--make", folder])
        results = {}
        if options.only != "alone":
            results["peer"] = against_peer(folder, options)
        if options.only != "peer":
            results["alone"] = alone(folder, options)
    if options.write:
        pathlib.Path(options.write).write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
