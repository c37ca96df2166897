"""Load test of peft-server: many streams over many adapters, each answer compared with its adapter's offline answer, and faults.

    make server
    python Benchmarks/serving_load.py [--streams 200] [--adapters 64] [--model tiny-t5 | llama] [--threads N] [--write RESULTS.json]
    python Benchmarks/serving_load.py --small       # 8 streams over 6 adapters
    python Benchmarks/serving_load.py --no-faults --by-method --rounds 5   # throughput, also by method
    python Benchmarks/serving_load.py --compare --streams 8   # a 110 M Llama, against other servers that are installed

The models are the embedded tiny-t5 and a Llama with random weights in the shape of TinyStories-656K. Adapters of five methods
are trained for a step, and then get random values, so that they answer differently. At temperature 0 the text of each answer
must be what `peft generate` writes. Prints Markdown tables and ends with status 1 if an answer was lost or wrong, or a fault did
harm. Requires only Python; with the package openai installed, a part of the streams use it.
"""
import argparse
import contextlib
import importlib.util
import json
import math
import os
import pathlib
import random
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import http.client

ROOT = pathlib.Path(__file__).resolve().parent.parent
METHODS = ["lora", "ia3", "dora", "loha", "prompt"]
TOKENS = 32


# Models and adapters

def write_llama(folder):
    """A Llama with random weights, and a tokenizer of words."""
    hidden, heads, groups, inner, layers, words = 128, 8, 4, 384, 2, 2048
    config = dict(
        model_type="llama", architectures=["LlamaForCausalLM"], vocab_size=words, hidden_size=hidden, intermediate_size=inner,
        num_hidden_layers=layers, num_attention_heads=heads, num_key_value_heads=groups, tie_word_embeddings=True,
        eos_token_id=1, bos_token_id=0, max_position_embeddings=512, rms_norm_eps=1e-5)
    narrow = hidden * groups // heads
    shapes = {"model.embed_tokens.weight": [words, hidden], "model.norm.weight": [hidden]}
    for layer in range(layers):
        for name, shape in {
            "input_layernorm": [hidden], "post_attention_layernorm": [hidden], "self_attn.q_proj": [hidden, hidden],
            "self_attn.k_proj": [narrow, hidden], "self_attn.v_proj": [narrow, hidden], "self_attn.o_proj": [hidden, hidden],
            "mlp.gate_proj": [inner, hidden], "mlp.up_proj": [inner, hidden], "mlp.down_proj": [hidden, inner],
        }.items():
            shapes[f"model.layers.{layer}.{name}.weight"] = shape
    choose = random.Random(1)
    folder.mkdir(parents=True)
    write_tensors(
        folder / "model.safetensors",
        {name: (shape, [1.0 if len(shape) == 1 else choose.gauss(0, 0.08) for _ in range(math.prod(shape))])
         for name, shape in shapes.items()})
    (folder / "config.json").write_text(json.dumps(config))
    write_tokenizer(folder, words)


def write_tokenizer(folder, words):
    vocabulary = {word: i for i, word in enumerate(["<unk>", "</s>"] + [f"w{i}" for i in range(2, words)])}
    tokenizer = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None,
        "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": None, "decoder": None,
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "<unk>"}}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "</s>", "unk_token": "<unk>"}))


def write_letters(folder, words):
    """A byte-level BPE tokenizer, which llama.cpp has, too. Its words are the texts of letter_words, a token each."""
    alphabet = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [code for code in range(256) if code not in alphabet]
    letters = [chr(code) for code in alphabet] + [chr(256 + i) for i in range(len(others))]
    tokens = ["<s>", "</s>", *letters]
    known = ["\u0120" + word for word in letter_words(words - len(tokens))]
    vocabulary = {token: i for i, token in enumerate(tokens + known)}
    special = [dict(id=i, content=tokens[i], single_word=False, lstrip=False, rstrip=False, normalized=False, special=True)
               for i in range(2)]
    plain = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    tokenizer = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": special, "normalizer": None, "pre_tokenizer": plain,
        "post_processor": None, "decoder": plain,
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None,
                  "fuse_unk": False, "byte_fallback": False, "vocab": vocabulary,
                  "merges": [f"{word[:-1]} {word[-1]}" for word in known]}}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "GPT2Tokenizer", "bos_token": "<s>", "eos_token": "</s>", "add_bos_token": False}))


def letter_words(count):
    """a, b, …, z, aa, ab, …: each word follows its beginning."""
    words, start = [""], 0
    while len(words) <= count:
        words += [words[start] + chr(ord("a") + i) for i in range(26)]
        start += 1
    return words[1:count + 1]


def write_tensors(path, tensors):
    """fp32 safetensors: names to shapes and values."""
    header, end = {}, 0
    for name, (shape, values) in tensors.items():
        header[name] = dict(dtype="F32", shape=shape, data_offsets=[end, end + 4 * len(values)])
        end += 4 * len(values)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for _, values in tensors.values():
            file.write(struct.pack(f"<{len(values)}f", *values))


def read_tensors(path):
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    result = {}
    for name, entry in json.loads(data[8:8 + length]).items():
        if name == "__metadata__":
            continue
        assert entry["dtype"] == "F32", entry
        start, end = entry["data_offsets"]
        result[name] = (entry["shape"], list(struct.unpack(f"<{(end - start) // 4}f", data[8 + length + start:8 + length + end])))
    return result


def run(*words):
    result = subprocess.run([str(word) for word in words], capture_output=True, text=True)
    if result.returncode:
        sys.exit(f"{' '.join(str(word) for word in words)}:\n{result.stderr}")
    return result.stdout


def write_rows(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def make_adapters(peft, model, folder, count):
    """Folders of adapters, by turns of each method, with random values added to those of a short training."""
    rows = folder / "training.jsonl"
    write_rows(rows, [{"prompt": f"w{i} w{i + 1}", "target": f"w{i + 2}"} for i in range(2, 10)])
    trained = {}
    for method in METHODS[:count]:
        trained[method] = folder / "trained" / method
        run(peft, "train", "--model", model, "--data", rows, "--prompt", "{prompt}", "--target", "{target}", "--method", method,
            "--steps", 1, "--output", trained[method], "--quiet")
    adapters = folder / "adapters"
    adapters.mkdir()
    for index in range(count):
        method = METHODS[index % len(METHODS)]
        own = adapters / f"a{index:02d}-{method}"
        shutil.copytree(trained[method], own, ignore=shutil.ignore_patterns("checkpoint*"))
        choose = random.Random(index)
        file = own / "adapter_model.safetensors"
        scale = 0.5 if method in ("ia3", "prompt") else 0.15
        tensors = {
            name: (shape, [value + choose.gauss(0, scale) for value in values])
            for name, (shape, values) in read_tensors(file).items()}
        write_tensors(file, tensors)
    return adapters


def make_prompts(kind, count):
    choose = random.Random(7)
    if kind == "llama":
        return [" ".join(f"w{choose.randrange(2, 2048)}" for _ in range(choose.randrange(3, 40))) for _ in range(count)]
    with open(ROOT / "Examples/dialogues/test.jsonl") as file:
        rows = [json.loads(line) for line in file]
    return ["summarize: " + " ".join(choose.choice(rows)["dialogue"].split()[:choose.randrange(10, 50)]) for _ in range(count)]


def offline(peft, model, folder, names, prompts):
    """Texts by adapter and prompt, from `peft generate`."""
    rows = [{"prompt": prompt, "adapter": name} for name in names for prompt in prompts]
    write_rows(folder / "prompts.jsonl", rows)
    options = [word for name in names for word in ("--adapter", f"{name}={folder / 'adapters' / name}")]
    run(peft, "generate", "--model", model, *options, "--data", folder / "prompts.jsonl", "--prompt", "{prompt}",
        "--adapter-field", "adapter", "--temperature", 0, "--beams", 1, "--max-new-tokens", TOKENS, "--min-new-tokens", TOKENS, "--quiet",
        "--output", folder / "answers.jsonl")
    with open(folder / "answers.jsonl") as file:
        answers = [json.loads(line)["output"] for line in file]
    return {(row["adapter"], row["prompt"]): answer for row, answer in zip(rows, answers, strict=True)}


# The server

class Server:
    def __init__(self, program, model, *options, threads=None):
        environment = dict(os.environ)
        environment.pop("PEFT_API_KEY", None)
        words = [str(program), "--model", str(model), "--port", "0", "--max-waiting", "2000"]
        if threads:
            words += ["--threads", str(threads)]
        self.process = subprocess.Popen(words + [str(o) for o in options], stderr=subprocess.PIPE, text=True, env=environment)
        self.port, self.log = None, []
        ready = threading.Event()

        def read():
            for line in self.process.stderr:
                with contextlib.suppress(ValueError):
                    event = json.loads(line)
                    if event.get("message") == "listening":
                        self.port = event["port"]
                        ready.set()
                    if event.get("level") in ("warning", "error", "critical"):
                        self.log.append(event)
            ready.set()

        threading.Thread(target=read, daemon=True).start()
        if not ready.wait(600) or self.port is None:
            self.process.kill()
            sys.exit("the server did not start")

    def send(self, method, path, body=None, timeout=600):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request(method, path, None if body is None else json.dumps(body), {"Content-Type": "application/json"})
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def wait_for(self, count):
        """Waits until the adapters of the folder are there."""
        for _ in range(6000):
            adapters = json.loads(self.send("GET", "/v1/adapters")[1])["data"]
            if len(adapters) == count and all(adapter["state"] == "loaded" for adapter in adapters):
                return adapters
            time.sleep(0.1)
        sys.exit(f"the adapters were not loaded: {adapters}")

    def metric(self, name):
        for line in self.send("GET", "/metrics")[1].splitlines():
            if line.startswith(f"peft:{name}{{"):
                return float(line.split()[-1])
        return 0.0

    def processor_seconds(self):
        """Processor time of the server until now; 0 where it is unknown."""
        with contextlib.suppress(OSError), open(f"/proc/{self.process.pid}/stat") as file:
            fields = file.read().rsplit(")", 1)[1].split()
            return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        return 0.0

    def wait_idle(self, seconds=60):
        end = time.time() + seconds
        while time.time() < end:
            if self.metric("num_requests_running") == 0 and self.metric("num_requests_waiting") == 0:
                return True
            time.sleep(0.05)
        return False

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(120)


class Stream:
    """The answer to one request as it arrives."""

    def __init__(self, port, model, prompt, pause=0, on_token=None, openai=None, ends=True):
        self.text, self.times, self.error, self.reason, self.ends = "", [], None, None, ends
        self.start = time.perf_counter()
        try:
            if openai:
                self.by_package(openai, port, model, prompt)
            else:
                self.read(port, model, prompt, pause, on_token, ends)
        except (OSError, http.client.HTTPException, ValueError, LookupError) as error:
            self.error = f"{type(error).__name__}: {error}"

    def body(self, model, prompt):
        return dict(model=model, prompt=prompt, temperature=0, max_tokens=TOKENS)

    @property
    def least(self):
        """Fields of our server: answers of all adapters are equally long, so that their throughputs can be compared."""
        return dict(min_tokens=TOKENS) if self.ends else {}

    @property
    def tokens(self):
        """Number of tokens, some of which may have no text."""
        return TOKENS if self.ends and self.reason == "length" else len(self.times)

    def read(self, port, model, prompt, pause, on_token, ends):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
        body = json.dumps(dict(self.body(model, prompt), stream=True, **self.least))
        connection.request("POST", "/v1/completions", body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        if response.status != 200:
            self.error = f"status {response.status}: {response.read().decode()[:200]}"
            return
        is_complete = False
        for line in response:
            if not line.startswith(b"data: "):
                continue
            if line.strip() == b"data: [DONE]":
                is_complete = True
                break
            event = json.loads(line[6:])
            if "error" in event:
                self.error = event["error"]["message"]
                return
            choice = event["choices"][0]
            self.add(choice["text"], choice.get("finish_reason"))
            if pause:
                time.sleep(pause)
            if on_token:
                on_token(len(self.times))
        connection.close()
        # Some servers end a stream without [DONE].
        if not is_complete and (ends or not self.reason):
            self.error = "the stream ended early"

    def by_package(self, openai, port, model, prompt):
        client = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0)
        for event in client.completions.create(stream=True, extra_body=self.least, **self.body(model, prompt)):
            self.add(event.choices[0].text, event.choices[0].finish_reason)

    def add(self, text, reason):
        if text:
            self.times.append(time.perf_counter())
        self.text += text
        self.reason = reason or self.reason


def load(server, streams, requests, choose, prompts, openai=None, ends=True):
    """Runs streams at the same time, each of some requests after another.
    Returns the answers as (adapter, prompt, stream), and the seconds."""
    results, lock = [], threading.Lock()

    def client(number):
        pick = random.Random(number)
        for index in range(requests):
            name, prompt = choose(number, index), pick.choice(prompts)
            stream = Stream(server.port, name, prompt, openai=openai if number % 4 == 3 else None, ends=ends)
            with lock:
                results.append((name, prompt, stream))

    threads = [threading.Thread(target=client, args=(number,)) for number in range(streams)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results, time.perf_counter() - start


def percentile(values, share):
    values = sorted(values)
    return values[min(len(values) - 1, int(share * len(values)))] if values else float("nan")


def check(results, expected):
    """Numbers of lost and of wrong answers, and an example."""
    lost = [s.error for _, _, s in results if s.error]
    wrong = [(name, prompt, expected[name, prompt], s.text) for name, prompt, s in results
             if not s.error and s.text.strip() != expected[name, prompt].strip()]
    return len(lost), len(wrong), (lost + wrong)[:1]


def summary(results, seconds):
    firsts = [1e3 * (s.times[0] - s.start) for _, _, s in results if s.times]
    gaps = [1e3 * (b - a) for _, _, s in results for a, b in zip(s.times, s.times[1:])]
    return dict(
        answers_per_second=len(results) / seconds, tokens_per_second=sum(s.tokens for _, _, s in results) / seconds,
        first_p50=percentile(firsts, 0.5), first_p99=percentile(firsts, 0.99), gap_p50=percentile(gaps, 0.5),
        gap_p99=percentile(gaps, 0.99))


# Faults

def faults(server, peft, names, prompts, expected, folder, streams):
    """Rows (fault, outcome, whether it is good). Before the last one, requests of other clients must go on as usual."""
    rows = []
    background, stop = [], threading.Event()

    def others(number):
        pick = random.Random(1000 + number)
        while not stop.is_set():
            name, prompt = pick.choice(names[1:]), pick.choice(prompts)
            background.append((name, prompt, Stream(server.port, name, prompt)))

    threads = [threading.Thread(target=others, args=(number,)) for number in range(max(2, streams // 8))]
    for thread in threads:
        thread.start()

    def fault(name, action):
        before = len(background)
        try:
            outcome, is_good = action()
        except Exception as error:
            outcome, is_good = f"{type(error).__name__}: {error}", False
        while len(background) < before + len(threads):
            time.sleep(0.01)
        rows.append([name, outcome, is_good])

    def raw(data, receive=0):
        connection = socket.create_connection(("127.0.0.1", server.port), timeout=60)
        with contextlib.suppress(OSError):
            connection.sendall(data)
        answer = b""
        with contextlib.suppress(OSError):
            while len(answer) < receive:
                part = connection.recv(65536)
                if not part:
                    break
                answer += part
        return connection, answer

    def request(body, headers=b""):
        return (b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n%sContent-Length: %d\r\n\r\n"
                % (headers, len(body)) + body)

    body = json.dumps(dict(model=names[0], prompt=prompts[0], temperature=0, max_tokens=TOKENS, ignore_eos=True, stream=True))

    def killed():
        aborted = 'request_success_total{finished_reason="abort"'

        def count():
            return next((float(line.split()[-1]) for line in server.send("GET", "/metrics")[1].splitlines()
                         if aborted in line), 0.0)

        before, is_gone = count(), False
        for index in range(streams):
            long = body.replace(f'"max_tokens": {TOKENS}', f'"max_tokens": 200, "n": 4, "seed": {index}').encode()
            connection, _ = raw(request(long), 1 if index % 2 else 0)
            # A reset instead of an orderly end.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()
        for _ in range(1200):
            is_gone = count() - before >= streams or server.metric("num_requests_running") <= len(threads)
            if is_gone:
                break
            time.sleep(0.05)
        return f"{count() - before:.0f} of {streams} cancelled before their end, {'none' if is_gone else 'some'} left running", is_gone

    def slow():
        stream = Stream(server.port, names[0], prompts[0], pause=0.05)
        good = not stream.error and stream.text.strip() == expected[names[0], prompts[0]].strip()
        return "complete and right" if good else f"{stream.error or 'wrong'}", good

    def stuck():
        connection, _ = raw(request(body.encode()), 1)
        time.sleep(2)
        connection.close()
        return "a client that reads nothing delays no one", True

    def malformed():
        answers = [raw(request(data), 12)[1][9:12] for data in
                   (b"{", b"\xff\xfe", b"[" * 5000, b'{"prompt": 1e999}', b"null", b'{"prompt": "x", "max_tokens": "y"}')]
        return "status " + ", ".join(sorted({a.decode() for a in answers})), set(answers) == {b"400"}

    def large(chunked):
        size = 100 << 20
        connection = socket.create_connection(("127.0.0.1", server.port), timeout=60)
        head = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\n"
        head += b"Transfer-Encoding: chunked\r\n\r\n" if chunked else b"Content-Length: %d\r\n\r\n" % size
        sent, status = 0, b""
        block = b"x" * (1 << 20)
        with contextlib.suppress(OSError):
            connection.sendall(head)
            connection.settimeout(5)
            while sent < size:
                connection.sendall(b"%x\r\n" % len(block) + block + b"\r\n" if chunked else block)
                sent += len(block)
        with contextlib.suppress(OSError):
            status = connection.recv(100)[9:12]
        connection.close()
        said = f"status {status.decode()}" if status else "connection closed"
        return f"{said} after {sent >> 20} of 100 MiB", status in (b"413", b"") and server.send("GET", "/health")[0] == 200

    def half():
        for data in (b"POST /v1/completions HTTP/1.1\r\nContent-Length: 100\r\n\r\n{", b"\x00\x01nonsense\r\n\r\n", b""):
            raw(data)[0].close()
        return "ignored", server.send("GET", "/health")[0] == 200

    def deleted():
        name = names[0]

        def unload(count):
            if count == 2:
                shutil.rmtree(folder / "adapters" / name)
                server.send("POST", "/v1/unload_lora_adapter", {"lora_name": name})

        stream = Stream(server.port, name, prompts[0], on_token=unload)
        good = not stream.error and stream.text.strip() == expected[name, prompts[0]].strip()
        status = server.send("POST", "/v1/completions", dict(model=name, prompt="w5", max_tokens=1))[0]
        return f"the running answer is {'right' if good else 'wrong'}, later requests get {status}", good and status == 404

    fault(f"{streams} clients killed, half of them while they read", killed)
    fault("slow reader (a token every 50 ms)", slow)
    fault("client that stops reading", stuck)
    fault("malformed JSON", malformed)
    fault("100 MiB body with Content-Length", lambda: large(False))
    fault("100 MiB body in chunks", lambda: large(True))
    fault("half requests and nonsense", half)
    fault("adapter deleted and unloaded while in use", deleted)
    stop.set()
    for thread in threads:
        thread.join()
    lost, wrong, example = check(background, expected)
    rows.append([f"other clients meanwhile ({len(background)} answers)", f"{lost} lost, {wrong} wrong {example or ''}", lost + wrong == 0])

    # SIGTERM: what was accepted is completed.
    results, threads = [], []
    for number in range(streams):
        name, prompt = names[1 + number % (len(names) - 1)], prompts[number % len(prompts)]
        thread = threading.Thread(target=lambda n=name, p=prompt: results.append((n, p, Stream(server.port, n, p))))
        threads.append(thread)
        thread.start()
    for _ in range(1000):
        if server.metric("num_requests_running") + server.metric("num_requests_waiting") > 0:
            break
        time.sleep(0.005)
    code = server.stop()
    for thread in threads:
        thread.join()
    # Clients that had not connected, or whose request had not been read, are turned away.
    turned = [r for r in results if r[2].error and ("503" in r[2].error or not r[2].times)]
    lost, wrong, example = check([r for r in results if r not in turned], expected)
    rows.append([
        f"SIGTERM with {streams} clients",
        f"{len(results) - len(turned)} complete, {len(turned)} turned away, {lost} lost, {wrong} wrong, exit code {code} {example or ''}",
        lost + wrong == 0 and code == 0 and len(turned) < streams])
    return rows


def table(head, rows):
    print("\n| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    for row in rows:
        print("| " + " | ".join(str(cell) for cell in row) + " |")
    print(flush=True)


# Comparison

def write_large(folder):
    """A 110 M Llama with random weights, two LoRA adapters over it, and a merged copy for each."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(1)
    words = 32_000
    base = folder / "base"
    model = LlamaForCausalLM(LlamaConfig(
        vocab_size=words, hidden_size=768, intermediate_size=2048, num_hidden_layers=12, num_attention_heads=12,
        tie_word_embeddings=True, eos_token_id=1, bos_token_id=0, pad_token_id=0, max_position_embeddings=2048))
    model.save_pretrained(base)
    write_letters(base, words)
    settings = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    names = ["a", "b"]
    for name in names:
        adapted = get_peft_model(LlamaForCausalLM.from_pretrained(base), settings)
        for key, value in adapted.named_parameters():
            if "lora_B" in key:
                torch.nn.init.normal_(value, std=0.02)
        adapted.save_pretrained(folder / name)
        adapted.merge_and_unload().save_pretrained(folder / f"merged-{name}")
        write_letters(folder / f"merged-{name}", words)
    return base, names


def compare(options, folder):
    """Requests per second over a 110 M Llama: the base alone, and two LoRA adapters. Servers that can't load adapters beside a base
    get a merged copy for each."""
    if any(importlib.util.find_spec(name) is None for name in ("torch", "transformers", "peft")):
        sys.exit("--compare makes a model with the packages torch, transformers and peft: install them")
    model, names = write_large(folder)
    choose = random.Random(7)
    known = letter_words(31_000)
    prompts = ["".join(" " + choose.choice(known) for _ in range(64)) for _ in range(16)]
    rows = []

    def measure(name, port, served):
        class Other:
            pass

        other = Other()
        other.port = port
        for one in sorted(set(served)):
            load(other, 1, 1, lambda *_: one, prompts, ends=False)
        results, seconds = load(
            other, options.streams, options.requests, lambda n, i: served[(n + i) % len(served)], prompts, ends=False)
        failed = [stream.error for _, _, stream in results if stream.error]
        figures = summary(results, seconds)
        rows.append([name, f"{figures['answers_per_second']:.2f}", f"{figures['tokens_per_second']:.0f}",
                     f"{figures['first_p50']:.0f}", f"{figures['gap_p50']:.1f}", f"{len(failed)}{' ' + failed[0] if failed else ''}"])

    server = Server(options.server, model, *(word for n in names for word in ("--adapter", f"{n}={folder / n}")), threads=options.threads)
    measure("peft-server, base", server.port, ["base"])
    measure("peft-server, 2 adapters", server.port, names)
    server.stop()

    def other(name, modules, words, *runs):
        missing = [module for module in modules if importlib.util.find_spec(module) is None]
        if missing:
            rows.append([name, f"not installed: {', '.join(missing)}", "", "", "", ""])
            return
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        environment = dict(os.environ, **({"OMP_NUM_THREADS": str(options.threads)} if options.threads else {}))
        process = subprocess.Popen([*words, "--port", str(port)], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            for _ in range(600):
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                    break
                if process.poll() is not None:
                    rows.append([name, f"did not start (status {process.returncode})", "", "", "", ""])
                    return
                time.sleep(0.2)
            for label, served in runs:
                measure(f"{name}, {label}", port, served)
        finally:
            process.terminate()
            process.wait(30)

    merged = [str(folder / f"merged-{name}") for name in names]
    serve = [sys.executable, "-m", "transformers.cli.transformers", "serve", "--device", "cpu"]
    for label, extra in (("transformers serve", []), ("transformers serve --continuous-batching", ["--continuous-batching"])):
        other(label, ["fastapi", "uvicorn", "openai"], [*serve, *extra], ("base", [str(model)]), ("2 merged models", merged))
    name = "llama.cpp in process (cyllama)"
    if importlib.util.find_spec("cyllama") is None:
        rows.append([name, "not installed: cyllama", "", "", "", ""])
    else:
        rows += llama_cpp(options, folder, names, prompts, name)
    table(["server", "answers/s", "tokens/s", "first token p50, ms", "between tokens p50, ms", "failed"], rows)


def llama_cpp(options, folder, names, prompts, label):
    """Rows for llama.cpp's batches without a server: its own server is not on the package index, and those of the Python packages
    don't batch requests. Sequences with different LoRAs can't share a batch there, and cyllama can't apply any, so each adapter
    is a merged model, and batches of half the size take turns."""
    from cyllama.batching import BatchGenerator, GenerationConfig

    rows = []
    for run_label, models in (("base", ["base"]), (f"{len(names)} merged models in turn", [f"merged-{name}" for name in names])):
        generators = []
        for model in models:
            file = folder / f"{model}.gguf"
            run(options.peft, "quantize", "--model", folder / model, "--to", "gguf-f32", "--output", file)
            generators.append(BatchGenerator(str(file), batch_size=2048, n_ctx=2048, n_seq_max=options.streams))
            if options.threads:
                generators[-1].ctx.set_n_threads(options.threads, options.threads)
        size = max(1, options.streams // len(models))
        settings = GenerationConfig(max_tokens=TOKENS, temperature=0.0, add_bos=False)

        def batch(number):
            generator = generators[number % len(generators)]
            generator.ctx.kv_cache_clear(True)
            picked = [prompts[(number * size + i) % len(prompts)] for i in range(size)]
            return generator.generate_batch(picked, settings)

        for number in range(len(models)):
            batch(number)
        count = max(1, options.streams * options.requests // size)
        start = time.perf_counter()
        answers = [answer for number in range(count) for answer in batch(number)]
        seconds = time.perf_counter() - start
        for generator in generators:
            generator.close()
        rows.append([
            f"{label}, {run_label}, batches of {size}", f"{len(answers) / seconds:.2f}", f"{len(answers) * TOKENS / seconds:.0f}", "",
            "", "0"])
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=200)
    parser.add_argument("--adapters", type=int, default=64)
    parser.add_argument("--requests", type=int, default=4, help="requests of each stream")
    parser.add_argument("--model", action="append", choices=["tiny-t5", "llama"])
    parser.add_argument("--rounds", type=int, default=3, help="rounds with one and with all adapters, in turn")
    parser.add_argument("--by-method", action="store_true", help="also measure the adapters of each method")
    parser.add_argument("--no-faults", action="store_true", help="measure only")
    parser.add_argument("--small", action="store_true", help="8 streams over 6 adapters, 2 requests each")
    parser.add_argument("--compare", action="store_true", help="only compare with other servers")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--programs", default=ROOT / ".build/release", type=pathlib.Path, help="folder of peft and peft-server")
    parser.add_argument("--write", help="file for the results")
    options = parser.parse_args()
    if options.small:
        options.streams, options.adapters, options.requests, options.rounds = 8, 6, 2, 1
    options.peft, options.server = (options.programs.resolve() / name for name in ("peft", "peft-server"))
    try:
        import openai
    except ImportError:
        openai = None
        print("The package openai is not installed; all streams use http.client.")
    results, is_good = {}, True
    with tempfile.TemporaryDirectory(prefix="peft-load-") as name:
        folder = pathlib.Path(name)
        if options.compare:
            return compare(options, folder)
        write_llama(folder / "llama")
        for kind in options.model or ["llama", "tiny-t5"]:
            own = folder / kind / "load" if kind == "llama" else folder / kind
            own.mkdir(parents=True, exist_ok=True)
            model = folder / "llama" if kind == "llama" else kind
            adapters = make_adapters(options.peft, model, own, options.adapters)
            names = sorted(path.name for path in adapters.iterdir())
            prompts = make_prompts(kind, 6)
            expected = offline(options.peft, model, own, names, prompts)
            distinct = len({expected[n, prompts[0]] for n in names})
            server = Server(options.server, model, "--adapters-dir", adapters, "--scan-interval", "3600", threads=options.threads)
            server.wait_for(len(names))
            kinds = [("1 adapter", names[:1]), (f"{len(names)} adapters", names)]
            if options.by_method:
                for method in METHODS:
                    own_names = [name for name in names if name.endswith("-" + method)]
                    kinds.append((f"1 × {method}", own_names[:1]))
                    if len(own_names) > 1:
                        kinds.append((f"{len(own_names)} × {method}", own_names))
            rounds = {label: [] for label, _ in kinds}
            for label, chosen in kinds:
                load(server, min(8, options.streams), 1, lambda n, i: chosen[n % len(chosen)], prompts)
            for number in range(options.rounds):
                # The kinds take turns, so that what else the machine does hits all of them.
                for label, chosen in kinds if number % 2 == 0 else kinds[::-1]:
                    busy = server.processor_seconds()
                    answers, seconds = load(
                        server, options.streams, options.requests, lambda n, i: chosen[(n + i * 7) % len(chosen)], prompts, openai)
                    rounds[label].append((answers, seconds, server.processor_seconds() - busy))
            rows, figures = [], {}
            for label, parts in rounds.items():
                answers = [answer for part in parts for answer in part[0]]
                lost, wrong, example = check(answers, expected)
                is_good = is_good and lost + wrong == 0
                f = figures[label] = dict(
                    summary(answers, sum(part[1] for part in parts)), answers=len(answers), lost=lost, wrong=wrong,
                    rounds=[summary(*part[:2])["tokens_per_second"] for part in parts])
                tokens = sum(stream.tokens for _, _, stream in answers)
                f["processor_microseconds"] = 1e6 * sum(part[2] for part in parts) / max(1, tokens)
                rows.append([
                    label, len(answers), lost, wrong, f"{f['tokens_per_second']:.0f}",
                    " ".join(f"{value:.0f}" for value in f["rounds"]), f"{f['processor_microseconds']:.0f}",
                    f"{f['first_p50']:.0f} / {f['first_p99']:.0f}", f"{f['gap_p50']:.1f} / {f['gap_p99']:.1f}"])
                if example:
                    print("not as offline:", *example)
            one, many = (figures[label]["tokens_per_second"] for label, _ in kinds[:2])
            print(f"\n{kind}: {options.streams} streams, {len(names)} adapters of {len(METHODS)} methods with {distinct} distinct answers to "
                  f"the first prompt; {len(names)} adapters at {100 * many / one:.0f} % of the throughput of one.")
            table(["", "answers", "lost", "wrong", "tokens/s", "by round", "processor µs/token", "first token p50 / p99, ms",
                   "between tokens p50 / p99, ms"], rows)
            if options.no_faults:
                server.stop()
                results[kind] = dict(load=figures, ratio=many / one)
                continue
            found = faults(server, options.peft, names, prompts, expected, own, options.streams)
            is_good = is_good and all(row[2] for row in found)
            table(["fault", "outcome", ""], [[fault, outcome, "good" if good else "BAD"] for fault, outcome, good in found])
            results[kind] = dict(load=figures, faults=found, ratio=many / one)
    if options.write:
        pathlib.Path(options.write).write_text(json.dumps(results, indent=1) + "\n")
    sys.exit(0 if is_good else 1)


if __name__ == "__main__":
    main()
