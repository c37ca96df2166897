"""Speed of training in 1, 2, 4 … processes, beside a cost model.

    swift build -c release --product peft
    python Benchmarks/processes.py [--processes 1,2,4] [--threads 4] [--write RESULTS.json]
    sudo python Benchmarks/processes.py --network --rate 1gbit --delay 0.1ms

A Llama with random weights (hidden size 512, 8 layers, vocabulary 8,192) trains a LoRA of rank 16 on all linear layers, with 16
examples of about 256 bytes per step. All processes run on this host and divide the threads, so ideal scaling is the speed of one
process with all of them. With --network each process has a network namespace of its own, and `tc` limits the rate of its
interface and delays its packets (Linux, root); one process then uses 1/N of the threads, so that N processes are compared with N
hosts.

Model: a step of N processes takes compute(N) + max(0, wire(N) - overlap), with wire(N) = 2 (N-1)/N * bytes / rate +
2 (N-1) * delay for each bucket of 4 MB (ring all-reduce), compute(N) the time of one process with the same threads for 1/N of
the examples, and overlap two thirds of compute(N), the backward pass's part. Prints a Markdown table. Requires only Python.
"""
import argparse
import contextlib
import json
import math
import os
import pathlib
import random
import re
import struct
import subprocess
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
EXAMPLES = 16
UNITS = dict(kbit=1e3, mbit=1e6, gbit=1e9)


def write_model(folder):
    """A byte-level Llama with random weights in bf16's range, as a safetensors file."""
    size, inner, layers, heads, vocabulary = 512, 1408, 8, 8, 8192
    (folder / "config.json").write_text(json.dumps(dict(
        model_type="llama", architectures=["LlamaForCausalLM"], vocab_size=vocabulary, hidden_size=size,
        intermediate_size=inner, num_hidden_layers=layers, num_attention_heads=heads, num_key_value_heads=heads,
        tie_word_embeddings=True, bos_token_id=0, eos_token_id=1, max_position_embeddings=4096)))
    letters = {chr(c if 33 <= c <= 126 or c > 160 and c != 173 else 256 + c): 2 + c for c in range(256)}
    vocabulary_entries = {"<s>": 0, "</s>": 1, **letters}
    added = [dict(id=i, content=c, special=True, single_word=False, lstrip=False, rstrip=False, normalized=False)
             for c, i in (("<s>", 0), ("</s>", 1))]
    (folder / "tokenizer.json").write_text(json.dumps(dict(
        version="1.0", added_tokens=added, normalizer=None, post_processor=None,
        pre_tokenizer=dict(type="ByteLevel", add_prefix_space=False, trim_offsets=True, use_regex=True),
        decoder=dict(type="ByteLevel", add_prefix_space=False, trim_offsets=True, use_regex=True),
        model=dict(type="BPE", vocab=vocabulary_entries, merges=[], unk_token=None))))
    shapes = {"model.embed_tokens.weight": (vocabulary, size), "model.norm.weight": (size,)}
    for layer in range(layers):
        prefix = f"model.layers.{layer}."
        for name in "qkvo":
            shapes[prefix + f"self_attn.{name}_proj.weight"] = (size, size)
        for name, shape in dict(gate=(inner, size), up=(inner, size), down=(size, inner)).items():
            shapes[prefix + f"mlp.{name}_proj.weight"] = shape
        for name in ("input_layernorm", "post_attention_layernorm"):
            shapes[prefix + name + ".weight"] = (size,)
    header, offset, choose = {}, 0, random.Random(0)
    noise = struct.pack("<65536f", *(choose.gauss(0, 0.02) for _ in range(65536)))
    for name, shape in shapes.items():
        count = math.prod(shape)
        header[name] = dict(dtype="F32", shape=shape, data_offsets=[offset, offset + 4 * count])
        offset += 4 * count
    with open(folder / "model.safetensors", "wb") as file:
        text = json.dumps(header).encode()
        file.write(struct.pack("<Q", len(text)) + text)
        for name, shape in shapes.items():
            count = 4 * math.prod(shape)
            data = struct.pack("<f", 1) * (count // 4) if len(shape) == 1 else noise * (count // len(noise) + 1)
            file.write(data[:count])


def options(folder, steps, batch, output):
    return ["train", "--quiet", "--model", folder / "model", "--data", folder / "rows.jsonl", "--prompt", "{q}", "--target",
            "{a}", "--targets", "all-linear", "--rank", "16", "--steps", steps, "--batch-size", batch, "--output", output]


@contextlib.contextmanager
def namespaces(count, rate, delay):
    """Network namespaces on one bridge, with limited interfaces; yields their names and addresses."""
    def ip(*words):
        subprocess.run(["ip", *words], check=True)

    bridge, names = f"peft{os.getpid() % 10000}", []
    try:
        ip("link", "add", bridge, "type", "bridge")
        ip("link", "set", bridge, "up")
        for rank in range(count):
            name = f"{bridge}n{rank}"
            ip("netns", "add", name)
            names.append(name)
            ip("link", "add", f"{name}h", "type", "veth", "peer", "name", "eth0", "netns", name)
            ip("link", "set", f"{name}h", "master", bridge, "up")
            ip("-n", name, "addr", "add", f"10.213.0.{rank + 1}/24", "dev", "eth0")
            ip("-n", name, "link", "set", "eth0", "up")
            ip("-n", name, "link", "set", "lo", "up")
            if subprocess.run(["ip", "netns", "exec", name, "tc", "qdisc", "add", "dev", "eth0", "root", "netem", "rate", rate,
                               "delay", delay]).returncode:
                raise SystemExit("tc can't limit the network: --network needs root and the kernel module sch_netem")
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name])
        subprocess.run(["ip", "link", "del", bridge])


def seconds_per_step(program, folder, count, threads, steps, batch, network):
    """The mean step of a run in `count` processes with `threads` threads each."""
    output = folder / "adapter"
    words = [str(w) for w in options(folder, steps, batch, output)]
    environment = dict(os.environ, OMP_NUM_THREADS=str(threads))
    if count == 1:
        subprocess.run([program, *words], check=True, env=environment, stdout=subprocess.DEVNULL)
    elif network is None:
        subprocess.run([program, "launch", "-n", str(count), "--", *words], check=True, env=environment,
                       stdout=subprocess.DEVNULL)
    else:
        with namespaces(count, *network) as names:
            processes = []
            for rank, name in enumerate(names):
                place = dict(RANK=str(rank), WORLD_SIZE=str(count), MASTER_ADDR="10.213.0.1", MASTER_PORT="29500")
                processes.append(subprocess.Popen(["ip", "netns", "exec", name, program, *words], env={**environment, **place},
                                                  stdout=subprocess.DEVNULL))
            if any([process.wait() for process in processes]):
                raise SystemExit("a process failed")
    record = json.loads((output / "training.json").read_text())
    subprocess.run(["rm", "-r", output], check=True)
    return record["seconds"] / steps, record["trainable"]


def amount(text, units):
    number, unit = re.fullmatch(r"([0-9.]+)([a-z]+)", text).groups()
    return float(number) * units[unit]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", default="1,2,4")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of all processes together")
    parser.add_argument("--program", default=ROOT / ".build/release/peft")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--network", action="store_true", help="one network namespace per process (root)")
    parser.add_argument("--rate", default="1gbit")
    parser.add_argument("--delay", default="0.1ms")
    parser.add_argument("--write", help="JSON file of the measurements")
    arguments = parser.parse_args()
    counts = [int(word) for word in arguments.processes.split(",")]
    network = (arguments.rate, arguments.delay) if arguments.network else None
    # Memory bandwidth stands for the network within a host.
    rate = amount(arguments.rate, UNITS) / 8 if network else 2e9
    delay = amount(arguments.delay, dict(us=1e-6, ms=1e-3, s=1)) if network else 20e-6
    results = []
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        (folder / "model").mkdir()
        write_model(folder / "model")
        choose = random.Random(1)
        rows = [dict(q="".join(choose.choices("abcdefgh ", k=192)), a="".join(choose.choices("abcdefgh ", k=64)))
                for _ in range(EXAMPLES * 4)]
        (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
        print("| processes | threads each | s/step | model | speedup | efficiency |\n|---|---|---|---|---|---|")
        for count in counts:
            threads = max(1, arguments.threads // (max(counts) if network else count))
            measured, trainable = seconds_per_step(
                arguments.program, folder, count, threads, arguments.steps, EXAMPLES, network)
            compute, _ = (measured, 0) if count == 1 else seconds_per_step(
                arguments.program, folder, 1, threads, arguments.steps, EXAMPLES // count, None)
            size = trainable * 4
            buckets = math.ceil(size / 4e6)
            wire = 2 * (count - 1) / count * size / rate + 2 * (count - 1) * delay * buckets
            model = compute + max(0, wire - compute * 2 / 3)
            results.append(dict(processes=count, threads=threads, seconds=measured, model=model, bytes=size, wire=wire))
            first = results[0]["seconds"]
            ideal = count / counts[0] if network else 1
            print(f"| {count} | {threads} | {measured:.3f} | {model:.3f} | {first / measured:.2f} | "
                  f"{first / measured / ideal:.0%} |", flush=True)
    if arguments.write:
        pathlib.Path(arguments.write).write_text(json.dumps(results, indent=1))


main()
