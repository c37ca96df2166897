"""Speed and memory of training in 1, 2, 4 … processes, beside a cost model, and the model drawn to 64 nodes and 70B parameters.

    swift build -c release --product peft
    python Benchmarks/processes.py [--kinds lora,full,sharded] [--processes 1,2,4] [--threads 4] [--write RESULTS.json]
    python Benchmarks/processes.py --memory
    python Benchmarks/processes.py --project [--rate 1gbit] [--flops 1e12]
    sudo python Benchmarks/processes.py --network --rate 1gbit --delay 0.1ms

A Llama with random weights (hidden size 512, 8 layers, vocabulary 8,192) trains with 16 examples of about 256 bytes per step: a LoRA of
rank 16 on all linear layers, all weights (`full`), or the LoRA with the base divided among the processes (`sharded`,
--shard-base). All processes run on this host and divide the threads, so ideal scaling is the speed of one process with all of
them. With --network each process has a network namespace of its own, and `tc` limits the rate of its interface and delays its
packets (Linux, root); one process then uses 1/N of the threads, so that N processes are compared with N hosts.

Model, of N processes: a step takes compute(N) + max(0, gradients(N) - 2/3 compute(N)) + max(0, weights(N) - compute(N)).
  compute(N)     the time of one process with the same threads for 1/N of the examples; if processes have more threads than the host,
                 that many times as long
  gradients(N)   2 (N-1)/N * bytes / rate + 2 (N-1) * delay for each bucket of 4 MB (ring all-reduce of the trained parameters' fp32
                 gradients), hidden by the backward pass, two thirds of compute(N)
  weights(N)     2 * ((N-1)/N * base / rate + 2 * base / copying + (N-1) * delay * tensors) with a sharded base, which is gathered in
                 both passes while the part before computes; Gloo's result is copied twice. 0 otherwise.
--project fills in compute = FLOPs / --flops, with 4 FLOPs per parameter and token for LoRA (forward pass, and gradients w.r.t.
activations) and 6 for full fine-tuning, and --tokens per node. Efficiency is compute / step. Memory per node: the base's bf16 weights
(of which each node has 1/N, and two parts, with a sharded base), or 20 bytes per parameter with full fine-tuning (weights,
gradients, two Adam moments, buckets); activations come on top.

--memory samples /proc while such a model of 32 layers trains with one example per process: the peak of private memory, and how much of the
model file's mapping is shared.
Prints Markdown tables. Requires only Python.
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
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
EXAMPLES = 16
KINDS = dict(
    lora=["--targets", "all-linear", "--rank", "16"], full=["--method", "full"],
    sharded=["--targets", "all-linear", "--rank", "16", "--shard-base"])
COPYING = 4e9
UNITS = dict(kbit=1e3, mbit=1e6, gbit=1e9)


def write_model(folder, layers=8):
    """A byte-level Llama with random weights in bf16's range, as a safetensors file."""
    size, inner, heads, vocabulary = 512, 1408, 8, 8192
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


def options(kind, folder, steps, batch, output):
    return ["train", "--quiet", "--model", folder / "model", "--data", folder / "rows.jsonl", "--prompt", "{q}", "--target",
            "{a}", *KINDS[kind], "--steps", steps, "--batch-size", batch, "--output", output]


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
            limit = ["ip", "netns", "exec", name, "tc", "qdisc", "add", "dev", "eth0", "root"]
            delayed = ["netem", "rate", rate, "delay", delay] if delay else ["tbf", "rate", rate, "burst", "256kb", "latency", "50ms"]
            if subprocess.run([*limit, *delayed]).returncode:
                raise SystemExit("tc can't limit the network: --network needs root and the kernel module sch_netem, "
                                 "or sch_tbf with --delay 0")
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name])
        subprocess.run(["ip", "link", "del", bridge])


def seconds_per_step(program, kind, folder, count, threads, steps, batch, network):
    """The mean step of a run in `count` processes with `threads` threads each."""
    output = folder / "adapter"
    words = [str(w) for w in options("lora" if count == 1 and kind == "sharded" else kind, folder, steps, batch, output)]
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


class Network:
    """Rates in bytes per second, and a message's delay in seconds."""

    def __init__(self, rate, delay):
        self.rate, self.delay = rate, delay

    def gradients(self, count, size):
        return 2 * (count - 1) / count * size / self.rate + 2 * (count - 1) * self.delay * math.ceil(size / 4e6)

    def weights(self, count, size, tensors):
        if count == 1:
            return 0
        return 2 * ((count - 1) / count * size / self.rate + 2 * size / COPYING + (count - 1) * self.delay * tensors)

    def step(self, count, compute, trained, base=0, tensors=0):
        """The model: seconds of a step. `trained` and `base` are bytes that travel."""
        return (compute + max(0, self.gradients(count, trained) - compute * 2 / 3)
                + max(0, self.weights(count, base, tensors) - compute))


def measure(arguments, kinds, folder, network, link):
    counts = [int(word) for word in arguments.processes.split(",")]
    results, computes = [], {}

    def compute(kind, count, threads):
        """Of 1/N of the examples; the threads that all processes have beyond the host's take turns."""
        kind = "lora" if kind == "sharded" else kind
        if (kind, count) not in computes:
            computes[kind, count] = seconds_per_step(
                arguments.program, kind, folder, 1, threads, arguments.steps, EXAMPLES // count, None)
        seconds, trainable = computes[kind, count]
        return seconds * (1 if network else max(1, threads * count / arguments.threads)), trainable

    base = (folder / "model/model.safetensors").stat().st_size
    print("| | processes | threads each | s/step | model | speedup | efficiency |\n|---|---|---|---|---|---|---|")
    for kind in kinds:
        for count in counts:
            threads = max(1, arguments.threads // (max(counts) if network else count))
            alone, trainable = compute(kind, count, threads)
            measured = alone if count == 1 else seconds_per_step(
                arguments.program, kind, folder, count, threads, arguments.steps, EXAMPLES, network)[0]
            model = link.step(count, alone, trainable * 4, base if kind == "sharded" else 0, 58)
            results.append(dict(kind=kind, processes=count, threads=threads, seconds=measured, model=model, compute=alone))
            first = next(r for r in results if r["kind"] == kind)["seconds"]
            ideal = count / counts[0] if network else 1
            print(f"| {kind} | {count} | {threads} | {measured:.3f} | {model:.3f} | {first / measured:.2f} | "
                  f"{first / measured / ideal:.0%} |", flush=True)
    return results


def children(process):
    """A process and those that it started, as far as they are this program's."""
    try:
        words = pathlib.Path(f"/proc/{process}/task/{process}/children").read_text().split()
    except OSError:
        words = []
    return [process] + [c for word in words for c in children(int(word))]


def sample(process):
    """Bytes of a process: anonymous memory, and its mapping of the model file by kind of page."""
    result, name = dict(anonymous=0, mapped=0, share=0, dirty=0), None
    for line in pathlib.Path(f"/proc/{process}/smaps").read_text().splitlines():
        words = line.split()
        if not words[0].endswith(":"):
            name = words[-1]
            continue
        key, is_model = words[0][:-1], name.endswith("model.safetensors")
        if key == "Anonymous" and not is_model:
            result["anonymous"] += int(words[1]) * 1024
        field = dict(Rss="mapped", Pss="share", Anonymous="dirty").get(key)
        if is_model and field:
            result[field] += int(words[1]) * 1024
    return result


def memory(arguments, folder):
    write_model(folder / "model", 32)
    base = (folder / "model/model.safetensors").stat().st_size
    print(f"\nThe base has {base / 1e6:.0f} MB. Peaks of the largest process, in MB; PSS divides shared pages by their users:\n")
    print("| | processes | private memory | mapped base | its PSS | its pages written to |\n|---|---|---|---|---|---|")
    results = []
    for kind, count in (("lora", 1), ("lora", 2), ("sharded", 2), ("sharded", 4)):
        output = folder / "adapter"
        launch = ["launch", "-n", count, "--"] if count > 1 else []
        words = [str(w) for w in [*launch, *options(kind, folder, 2, count, output)]]
        environment = dict(os.environ, OMP_NUM_THREADS="1")
        process = subprocess.Popen([arguments.program, *words], env=environment, stdout=subprocess.DEVNULL)
        peaks = {}
        while process.poll() is None:
            for child in children(process.pid):
                try:
                    values = sample(child)
                except OSError:
                    continue
                peak = peaks.setdefault(child, values)
                for key, value in sorted(values.items(), key=lambda item: item[0] != "share"):
                    # The smallest share while most is mapped: while all processes run.
                    if key != "share":
                        peak[key] = max(peak[key], value)
                    elif values["mapped"] > peak["mapped"]:
                        peak[key] = value
                    elif values["mapped"] == peak["mapped"]:
                        peak[key] = min(peak[key], value)
            time.sleep(0.02)
        if process.returncode:
            raise SystemExit("a process failed")
        subprocess.run(["rm", "-r", output], check=True)
        workers = [p for c, p in peaks.items() if count == 1 or c != process.pid]
        most = {key: max(p[key] for p in workers) for key in workers[0]}
        results.append(dict(kind=kind, processes=count, **most))
        print(f"| {kind} | {count} | " + " | ".join(
            f"{most[key] / 1e6:.0f}" for key in ("anonymous", "mapped", "share", "dirty")) + " |", flush=True)
    return results


def project(arguments, link):
    """Models of 7B, 13B and 70B parameters on 1 to 64 nodes, each with `--tokens` per step."""
    sizes = dict([("7B", (6.7e9, 32, 4096)), ("13B", (13e9, 40, 5120)), ("70B", (69e9, 80, 8192))])
    print(f"\n{arguments.flops:g} FLOP/s and {arguments.tokens} tokens per node and step, {link.rate * 8 / 1e9:g} Gbit/s, "
          f"{link.delay * 1e3:g} ms; s/step, efficiency, GB per node:\n")
    print("| model | nodes | LoRA | full | sharded |\n|---|---|---|---|---|")
    results = []
    for name, (parameters, layers, width) in sizes.items():
        # Rank 16 on the seven projections of a layer, of which three are wider.
        trained = 16 * layers * (4 * 2 * width + 3 * (width + 2.7 * width))
        tensors = 7 * layers + 2
        for count in (1, 2, 4, 8, 16, 32, 64):
            cells = []
            for kind in ("lora", "full", "sharded"):
                compute = parameters * arguments.tokens * (6 if kind == "full" else 4) / arguments.flops
                sent = 4 * (parameters if kind == "full" else trained)
                step = link.step(count, compute, sent, 2 * parameters if kind == "sharded" else 0, tensors)
                if kind == "full":
                    held = 20 * parameters
                elif kind == "lora" or count == 1:
                    held = 2 * parameters + 16 * trained
                else:
                    held = 2 * parameters * (1 / count + 2 / layers) + 16 * trained
                cells.append(f"{step:.0f} s, {compute / step:.0%}, {held / 1e9:.0f} GB")
                results.append(dict(model=name, nodes=count, kind=kind, seconds=step, compute=compute, bytes=held))
            print(f"| {name} | {count} | " + " | ".join(cells) + " |")
    return results


def amount(text, units):
    number, unit = re.fullmatch(r"([0-9.]+)([a-z]+)", text).groups()
    return float(number) * units[unit]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", help="lora, full, sharded, separated by commas: what to measure the speed of")
    parser.add_argument("--processes", default="1,2,4")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of all processes together")
    parser.add_argument("--program", default=ROOT / ".build/release/peft")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--memory", action="store_true", help="measure memory")
    parser.add_argument("--project", action="store_true", help="print the model for 1 to 64 nodes")
    parser.add_argument("--flops", type=float, default=1e12, help="FLOP/s that a node reaches, of --project")
    parser.add_argument("--tokens", type=int, default=8192, help="tokens of a step per node, of --project")
    parser.add_argument("--network", action="store_true", help="one network namespace per process (root)")
    parser.add_argument("--rate", default="1gbit", help="of --network and --project")
    parser.add_argument("--delay", default="0.1ms", help="0 limits the rate alone, for kernels without netem")
    parser.add_argument("--write", help="JSON file of the results")
    arguments = parser.parse_args()
    delay = amount(arguments.delay, dict(us=1e-6, ms=1e-3, s=1)) if arguments.delay != "0" else 20e-6
    network = (arguments.rate, arguments.delay if arguments.delay != "0" else None) if arguments.network else None
    results = {}
    # Without --kinds, --memory and --project measure no speed.
    kinds = arguments.kinds or ("" if arguments.memory or arguments.project else "lora")
    if kinds or arguments.memory:
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            (folder / "model").mkdir()
            write_model(folder / "model")
            choose = random.Random(1)
            rows = [dict(q="".join(choose.choices("abcdefgh ", k=192)), a="".join(choose.choices("abcdefgh ", k=64)))
                    for _ in range(EXAMPLES * 4)]
            (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
            # Memory bandwidth stands for the network within a host.
            link = Network(amount(network[0], UNITS) / 8, delay) if network else Network(2e9, 20e-6)
            if kinds:
                results["speed"] = measure(arguments, kinds.split(","), folder, network, link)
            if arguments.memory:
                results["memory"] = memory(arguments, folder)
    if arguments.project:
        results["projection"] = project(arguments, Network(amount(arguments.rate, UNITS) / 8, delay))
    if arguments.write:
        pathlib.Path(arguments.write).write_text(json.dumps(results, indent=1))


main()
