"""Tests of peft-server over HTTP, with a small model. They need a built program (make server, or PEFT_SERVER_PROGRAM) and are
skipped without one. Only Python's standard library is used, and the package openai if it is installed."""

import base64
import concurrent.futures
import contextlib
import hashlib
import http.client
import json
import math
import os
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import tempfile
import threading
import time
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
FIXTURES = os.path.join(ROOT, "Tests", "LanguageModelsTests", "Fixtures")
ADAPTERS = os.path.join(ROOT, "Tests", "PEFTTests", "Fixtures", "hugging-face")
KEY = "secret-of-the-tests"


def program():
    own = os.environ.get("PEFT_SERVER_PROGRAM")
    places = [own] if own else [os.path.join(ROOT, ".build", kind, "peft-server") for kind in ("release", "debug")]
    return next((place for place in places if os.access(place, os.X_OK)), None)


def write_model(folder, source="llama", size=96):
    """A small model with a tokenizer of words and a chat template."""
    shutil.copytree(os.path.join(FIXTURES, source), folder)
    write_tokenizer(folder, ["<unk>", "</s>"] + [f"w{i}" for i in range(2, size)])


def write_tokenizer(folder, words):
    tokenizer = {
        "added_tokens": [], "normalizer": None, "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": None,
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": {word: i for i, word in enumerate(words)}, "unk_token": "<unk>"},
    }
    template = "{% for m in messages %}{{ m.role }} {{ m.content }} {% endfor %}{% if add_generation_prompt %}w9{% endif %}"
    with open(os.path.join(folder, "tokenizer.json"), "w") as file:
        json.dump(tokenizer, file)
    with open(os.path.join(folder, "tokenizer_config.json"), "w") as file:
        json.dump({"chat_template": template, "eos_token": "</s>"}, file)


def change_json(path, **fields):
    """Changes fields of an object in a JSON file."""
    with open(path) as file:
        value = json.load(file)
    value.update(fields)
    with open(path, "w") as file:
        json.dump(value, file)


def write_certificate(folder, name):
    """A certificate for this machine, and its key."""
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1",
         "-keyout", f"{folder}/{name}.key", "-out", f"{folder}/{name}.pem", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=IP:127.0.0.1"], check=True, capture_output=True)


def zero_tensors(path, part):
    """Sets the tensors with `part` in their names to 0 in a safetensors file."""
    with open(path, "r+b") as file:
        length = struct.unpack("<Q", file.read(8))[0]
        for name, entry in json.loads(file.read(length)).items():
            if part in name:
                begin, end = entry["data_offsets"]
                file.seek(8 + length + begin)
                file.write(bytes(end - begin))


class Server:
    """A running server."""

    def __init__(self, folder, *options, key=None, model=None):
        self.model = model or os.path.join(folder, "small")
        if not os.path.exists(self.model):
            write_model(self.model)
        environment = dict(os.environ, OMP_NUM_THREADS="1")
        environment.pop("PEFT_API_KEY", None)
        if key:
            environment["PEFT_API_KEY"] = key
        self.key = key
        self.log = []
        self.process = subprocess.Popen(
            [program(), "--model", self.model, "--port", "0", *options], stderr=subprocess.PIPE, text=True, env=environment)
        self.port = None
        self.ready = threading.Event()
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()
        if not self.ready.wait(120) or self.port is None:
            self.process.kill()
            raise RuntimeError(f"the server did not start: {self.log}")

    def _read(self):
        for line in self.process.stderr:
            try:
                event = json.loads(line)
            except ValueError:
                event = {"message": line}
            self.log.append(event)
            if event.get("message") == "listening":
                self.port = event["port"]
                self.ready.set()
        self.ready.set()

    def connect(self):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)

    def send(self, method, path, body=None, headers=None):
        """Status, headers and body of the answer."""
        connection = self.connect()
        data = json.dumps(body).encode() if isinstance(body, (dict, list)) else body
        all_headers = {"Content-Type": "application/json"}
        if self.key:
            all_headers["Authorization"] = "Bearer " + self.key
        all_headers.update(headers or {})
        connection.request(method, path, data, all_headers)
        response = connection.getresponse()
        text = response.read().decode()
        connection.close()
        with contextlib.suppress(ValueError):
            text = json.loads(text)
        return response.status, response.headers, text

    def get(self, path):
        return self.send("GET", path)[2]

    def post(self, path, body, status=200):
        code, _, answer = self.send("POST", path, body)
        assert code == status, (code, answer)
        return answer

    def stream(self, path, body):
        """The events of a stream, parsed; the last one is [DONE]."""
        connection = self.connect()
        connection.request("POST", path, json.dumps(dict(body, stream=True)), {"Content-Type": "application/json"})
        response = connection.getresponse()
        assert response.status == 200, response.read()
        assert response.headers["Content-Type"] == "text/event-stream"
        events = [line[6:] for line in response.read().decode().split("\n") if line.startswith("data: ")]
        connection.close()
        assert events[-1] == "[DONE]", events[-1:]
        return [json.loads(event) for event in events[:-1]]

    def stop(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        code = self.process.wait(60)
        self.reader.join(10)
        self.process.stderr.close()
        return code


@unittest.skipUnless(program(), "peft-server is not built")
class ServerCase(unittest.TestCase):
    options = ()
    key = None

    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.mkdtemp(prefix="peft-server-")
        cls.adapters = os.path.join(cls.folder, "adapters")
        os.mkdir(cls.adapters)
        for name in ("llama-lora", "llama-prompt", "llama-prefix"):
            shutil.copytree(os.path.join(ADAPTERS, name), os.path.join(cls.adapters, name))
        cls.prepare()
        cls.server = Server(
            cls.folder, "--adapters-dir", cls.adapters, "--scan-interval", "0.3", *cls.options, key=cls.key)

    @classmethod
    def prepare(cls):
        pass

    @classmethod
    def tearDownClass(cls):
        cls.server.stop()
        shutil.rmtree(cls.folder, ignore_errors=True)

    def wait(self, condition):
        for _ in range(600):
            if condition():
                return
            time.sleep(0.05)
        self.fail("the condition did not become true")

    def metric(self, name):
        for line in self.server.get("/metrics").splitlines():
            if line.startswith(name):
                return float(line.split()[-1])
        self.fail(name)


class AnswerTests(ServerCase):
    def complete(self, **fields):
        return self.server.post("/v1/completions", {"prompt": "w5 w9 w30", "temperature": 0, "max_tokens": 8, **fields})

    def test_models_are_the_base_and_adapters(self):
        names = [model["id"] for model in self.server.get("/v1/models")["data"]]
        self.assertEqual(names[0], "small")
        self.assertLessEqual({"llama-lora", "llama-prefix", "llama-prompt"}, set(names))
        self.assertEqual(self.server.get("/v1/models/llama-lora")["parent"], "small")
        self.assertEqual(self.server.send("GET", "/v1/models/none")[0], 404)
        states = {a["name"]: a for a in self.server.get("/v1/adapters")["data"]}
        self.assertEqual(states["llama-lora"]["state"], "loaded")
        self.assertGreater(states["llama-prompt"]["virtual_tokens"], 0)

    def test_completions(self):
        answer = self.complete(ignore_eos=True)
        self.assertEqual(answer["object"], "text_completion")
        choice = answer["choices"][0]
        self.assertEqual(len(choice["text"].split()), 8)
        self.assertEqual(choice["finish_reason"], "length")
        details = {"cached_tokens": 0}
        self.assertEqual(
            answer["usage"],
            {"prompt_tokens": 3, "completion_tokens": 8, "total_tokens": 11, "prompt_tokens_details": details})
        self.assertEqual(self.complete(ignore_eos=True, prompt=[5, 9, 30])["choices"], answer["choices"])
        several = self.complete(ignore_eos=True, prompt=["w5 w9 w30", "w7"], n=2)["choices"]
        self.assertEqual([c["index"] for c in several], [0, 1, 2, 3])
        self.assertEqual([c["text"] == choice["text"] for c in several], [True, True, False, False])
        echoed = self.complete(ignore_eos=True, echo=True)["choices"][0]["text"]
        self.assertEqual(echoed, "w5 w9 w30" + choice["text"])

    def test_models_answer_differently_and_together_as_alone(self):
        names = ["small", "llama-lora", "llama-prompt", "llama-prefix", "small:llama-lora"]
        alone = {name: self.complete(model=name, ignore_eos=True)["choices"][0]["text"] for name in names}
        self.assertEqual(alone["llama-lora"], alone["small:llama-lora"])
        self.assertGreater(len(set(alone.values())), 2)
        with concurrent.futures.ThreadPoolExecutor(10) as pool:
            answers = list(pool.map(lambda i: (names[i % 5], self.complete(model=names[i % 5], ignore_eos=True)), range(30)))
        for name, answer in answers:
            self.assertEqual(answer["choices"][0]["text"], alone[name])
            self.assertEqual(answer["model"], name)

    def test_streams_are_the_answers_in_parts(self):
        body = {"prompt": "w5 w9", "temperature": 0, "max_tokens": 9, "ignore_eos": True, "logprobs": 2, "n": 2}
        whole = self.server.post("/v1/completions", body)
        parts = self.server.stream("/v1/completions", {**body, "stream_options": {"include_usage": True}})
        self.assertEqual(parts[-1]["choices"], [])
        self.assertEqual(parts[-1]["usage"], whole["usage"])
        for index in range(2):
            own = [c for part in parts for c in part["choices"] if c["index"] == index]
            self.assertEqual("".join(c["text"] for c in own), whole["choices"][index]["text"])
            self.assertEqual([c["finish_reason"] for c in own if c["finish_reason"]], ["length"])
            tokens = [t for c in own if c["logprobs"] for t in c["logprobs"]["tokens"]]
            self.assertEqual(tokens, whole["choices"][index]["logprobs"]["tokens"])
            offsets = [t for c in own if c["logprobs"] for t in c["logprobs"]["text_offset"]]
            self.assertEqual(offsets, whole["choices"][index]["logprobs"]["text_offset"])

    def test_chats(self):
        body = {
            "messages": [{"role": "user", "content": [{"type": "text", "text": "w5 w6"}]}], "temperature": 0,
            "max_completion_tokens": 6, "logprobs": True, "top_logprobs": 3,
        }
        whole = self.server.post("/v1/chat/completions", body)
        self.assertEqual(whole["object"], "chat.completion")
        self.assertEqual(whole["choices"][0]["message"]["role"], "assistant")
        content = whole["choices"][0]["logprobs"]["content"]
        for entry in content:
            self.assertEqual(len(entry["top_logprobs"]), 3)
            self.assertEqual(entry["top_logprobs"][0]["logprob"], entry["logprob"])
            self.assertEqual(bytes(entry["bytes"]).decode(), entry["token"])
        parts = self.server.stream("/v1/chat/completions", body)
        self.assertEqual(parts[0]["choices"][0]["delta"], {"role": "assistant", "content": ""})
        text = "".join(c["delta"].get("content", "") for part in parts for c in part["choices"])
        self.assertEqual(text, whole["choices"][0]["message"]["content"])
        # The prompt is the rendered template.
        tokens = self.server.post("/tokenize", {"messages": body["messages"]})["tokens"]
        self.assertEqual(tokens, [0, 5, 6, 9])
        self.assertEqual(whole["usage"]["prompt_tokens"], 4)

    def test_sampling_fields(self):
        seeds = [self.complete(temperature=1.5, seed=seed, ignore_eos=True)["choices"][0]["text"] for seed in (1, 1, 2)]
        self.assertEqual(seeds[0], seeds[1])
        self.assertNotEqual(seeds[0], seeds[2])
        plain = self.complete(ignore_eos=True)["choices"][0]["text"].split()
        first = int(plain[0][1:])
        biased = self.complete(ignore_eos=True, logit_bias={str(first): -100})["choices"][0]["text"].split()
        self.assertNotEqual(biased[0], plain[0])
        stopped = self.complete(ignore_eos=True, stop=" " + plain[2])["choices"][0]
        self.assertEqual(stopped["finish_reason"], "stop")
        self.assertNotIn(plain[2], stopped["text"].split())
        self.assertEqual(
            self.complete(top_k=1, temperature=1, ignore_eos=True)["choices"][0]["text"].split(), plain)

    def test_tokens(self):
        tokens = self.server.post("/tokenize", {"prompt": "w5 w6", "return_token_strs": True})
        self.assertEqual(tokens["tokens"], [5, 6])
        self.assertEqual(tokens["token_strs"], ["w5", "w6"])
        self.assertEqual(tokens["max_model_len"], 128)
        self.assertEqual(self.server.post("/detokenize", {"tokens": [5, 6]})["prompt"], "w5 w6")
        self.server.post("/detokenize", {"tokens": [5, 600]}, status=400)
        self.server.post("/tokenize", {}, status=400)

    def test_state(self):
        self.assertEqual(self.server.send("GET", "/health")[0], 200)
        self.assertEqual(self.server.send("GET", "/ready")[0], 200)
        # An answer arrives before its step is counted.
        self.wait(lambda: self.metric("peft:num_requests_running") == 0)
        before = self.metric("peft:generation_tokens_total")
        self.complete(ignore_eos=True)
        self.wait(lambda: self.metric("peft:generation_tokens_total") == before + 8)
        self.assertGreater(self.metric("peft:time_to_first_token_seconds_count"), 0)
        info = ('peft:lora_requests_info{max_lora="32",model_name="small",running_lora_adapters="",'
                'waiting_lora_adapters=""}')
        self.assertLess(abs(self.metric(info) - time.time()), 3600)
        status, headers, _ = self.server.send("GET", "/health", headers={"X-Request-Id": "my-id_1"})
        self.assertEqual(headers["X-Request-Id"], "my-id_1")
        _, headers, _ = self.server.send("GET", "/health", headers={"X-Request-Id": "a b"})
        self.assertNotEqual(headers["X-Request-Id"], "a b")

    def test_openai_package(self):
        try:
            import openai
        except ImportError:
            self.skipTest("the package openai is not installed")
        client = openai.OpenAI(base_url=f"http://127.0.0.1:{self.server.port}/v1", api_key="none")
        answer = client.chat.completions.create(
            model="llama-lora", messages=[{"role": "user", "content": "w5"}], temperature=0, max_completion_tokens=5)
        stream = client.chat.completions.create(
            model="llama-lora", messages=[{"role": "user", "content": "w5"}], temperature=0, max_completion_tokens=5,
            stream=True)
        text = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
        self.assertEqual(text, answer.choices[0].message.content)
        with self.assertRaises(openai.NotFoundError):
            client.completions.create(model="none", prompt="w5")


class ErrorTests(ServerCase):
    options = ("--max-body", "20kB")

    def failure(self, status, path, body, **headers):
        code, answer_headers, answer = self.server.send("POST", path, body, headers)
        self.assertEqual(code, status, answer)
        self.assertEqual(set(answer["error"]), {"message", "type", "param", "code"})
        return answer["error"]

    def test_bodies(self):
        for body in (b"", b"{", b"[1]", b"\xff\xfe", b'{"prompt": "w5", "max_tokens": 1e999}', b"null", b"[" * 5000):
            self.failure(400, "/v1/completions", body)
        self.assertEqual(self.failure(413, "/v1/completions", b'{"prompt": "' + b"w5 " * 20000 + b'"}')["code"], "body_too_large")
        self.assertEqual(self.failure(400, "/v1/completions", {})["param"], "prompt")
        self.assertEqual(self.failure(400, "/v1/completions", {"prompt": "w5", "n": "two"})["param"], "n")
        self.assertEqual(self.failure(400, "/v1/chat/completions", {"messages": []})["param"], "messages")
        self.failure(400, "/v1/chat/completions", {"messages": [{"content": "x"}]})
        image = {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}
        self.failure(400, "/v1/chat/completions", image)

    def test_chunked_bodies_are_limited_too(self):
        connection = self.server.connect()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.request(
                "POST", "/v1/completions", (b"x" * 1000 for _ in range(100)), {"Content-Type": "application/json"},
                encode_chunked=True)
        with contextlib.suppress(ConnectionResetError, http.client.RemoteDisconnected):
            self.assertEqual(connection.getresponse().status, 413)
        connection.close()
        self.assertEqual(self.server.send("GET", "/health")[0], 200)

    def test_values(self):
        cases = {
            "temperature": -1, "top_p": 0, "top_p ": None, "n": 0, "max_tokens": 0, "presence_penalty": 3, "min_p": 2,
            "logit_bias": {"x": 1}, "logprobs": 50, "stop": [""], "repetition_penalty": 0, "min_tokens": 99,
            "best_of": 3, "suffix": "x", "use_beam_search": True,
        }
        for name, value in cases.items():
            if value is None:
                continue
            error = self.failure(400, "/v1/completions", {"prompt": "w5", "max_tokens": 4, name: value})
            self.assertIn(name.replace("_", "-").split("-")[0][:3], error["message"].replace("_", "-"), name)
        self.server.post("/v1/completions", {"prompt": "w5", "max_tokens": 2, "user": "me", "unknown_field": 1})
        error = self.failure(400, "/v1/completions", {"prompt": "w5", "max_tokens": 1000})
        self.assertEqual(error["code"], "context_length_exceeded")
        self.failure(400, "/v1/completions", {"prompt": [5, 5000]})

    def test_names_and_paths(self):
        error = self.failure(404, "/v1/completions", {"model": "llama-lorra", "prompt": "w5"})
        self.assertEqual(error["code"], "model_not_found")
        self.assertIn("did you mean 'llama-lora'?", error["message"])
        self.assertEqual(self.server.send("GET", "/nothing")[0], 404)
        self.assertEqual(self.server.send("GET", "/nothing")[2]["error"]["type"], "invalid_request_error")
        outside = os.path.join(self.folder, "outside")
        shutil.copytree(os.path.join(ADAPTERS, "llama-lora"), outside)
        os.symlink(outside, os.path.join(self.adapters, "link"))
        inner = os.path.join(self.adapters, ".inner")
        os.mkdir(inner)
        for name in os.listdir(outside):
            os.symlink(os.path.join(outside, name), os.path.join(inner, name))
        for path in (outside, "../outside", self.adapters + "/../outside", "link", ".inner", "/etc", "none", "a\0b", ""):
            code = self.server.send("POST", "/v1/load_lora_adapter", {"lora_name": "x", "lora_path": path})[0]
            self.assertIn(code, (400, 404), path)
        for name in ("", "a:b", "small", "x" * 200, "a\nb"):
            self.failure(400, "/v1/load_lora_adapter", {"lora_name": name, "lora_path": "llama-lora"})
        self.failure(404, "/v1/unload_lora_adapter", {"lora_name": "none"})

    def test_adapters_that_do_not_fit(self):
        shutil.copytree(os.path.join(ADAPTERS, "gpt2-lora"), os.path.join(self.adapters, "gpt2-lora"))
        error = self.failure(400, "/v1/load_lora_adapter", {"lora_name": "x", "lora_path": "gpt2-lora"})
        self.assertEqual(error["code"], "adapter_rejected")

        def state():
            states = {a["name"]: a for a in self.server.get("/v1/adapters")["data"]}
            return states.get("gpt2-lora", {}).get("state")

        self.wait(lambda: state() == "rejected")
        self.assertEqual(self.failure(400, "/v1/completions", {"model": "gpt2-lora", "prompt": "w5"})["code"], "adapter_rejected")

    def test_adapters_that_change_nothing(self):
        useless = os.path.join(self.folder, "useless")
        shutil.copytree(os.path.join(ADAPTERS, "llama-lora"), useless)
        zero_tensors(os.path.join(useless, "adapter_model.safetensors"), "lora_B")
        os.rename(useless, os.path.join(self.adapters, "useless"))
        error = self.failure(400, "/v1/load_lora_adapter", {"lora_name": "x", "lora_path": "useless"})
        self.assertEqual(error["code"], "adapter_rejected")
        self.assertEqual(error["message"], "the adapter changes no logit of the sample examples")

        def own():
            return next((a for a in self.server.get("/v1/adapters")["data"] if a["name"] == "useless"), {})

        self.wait(lambda: own().get("state") == "rejected")
        self.assertEqual(own()["problem"], error["message"])

        def logged():
            return [e for e in self.server.log if e.get("message") == "adapter rejected" and e.get("adapter") == "useless"]

        self.wait(lambda: len(logged()) == 1)
        self.assertEqual(logged()[0]["problem"], error["message"])


class AdapterTests(ServerCase):
    def names(self):
        return {a["name"] for a in self.server.get("/v1/adapters")["data"]}

    def test_load_and_unload(self):
        self.server.post("/v1/load_lora_adapter", {"lora_name": "mine", "lora_path": "llama-lora"})
        self.server.post("/v1/load_lora_adapter", {"lora_name": "mine", "lora_path": "llama-lora"}, status=400)
        body = {"prompt": "w5 w9", "temperature": 0, "max_tokens": 8, "ignore_eos": True}
        mine = self.server.post("/v1/completions", {**body, "model": "mine"})["choices"]
        self.assertEqual(mine, self.server.post("/v1/completions", {**body, "model": "llama-lora"})["choices"])
        self.server.post(
            "/v1/load_lora_adapter", {"lora_name": "mine", "lora_path": "llama-prefix", "load_inplace": True})
        other = self.server.post("/v1/completions", {**body, "model": "mine"})["choices"]
        self.assertEqual(other, self.server.post("/v1/completions", {**body, "model": "llama-prefix"})["choices"])
        self.server.post("/v1/unload_lora_adapter", {"lora_name": "mine"})
        self.server.post("/v1/completions", {**body, "model": "mine"}, status=404)

    def test_watched_folder(self):
        new = os.path.join(self.adapters, "new")
        shutil.copytree(os.path.join(ADAPTERS, "llama-lora"), new)
        self.wait(lambda: "new" in self.names())
        shutil.rmtree(new)
        self.wait(lambda: "new" not in self.names())


class LoadTests(ServerCase):
    options = ("--max-sequences", "2", "--max-waiting", "2")

    def test_a_full_queue_answers_429(self):
        body = {"prompt": "w5", "max_tokens": 120, "ignore_eos": True}
        with concurrent.futures.ThreadPoolExecutor(24) as pool:
            answers = list(pool.map(lambda _: self.server.send("POST", "/v1/completions", body), range(24)))
        codes = [answer[0] for answer in answers]
        self.assertEqual(set(codes), {200, 429})
        refused = next(answer for answer in answers if answer[0] == 429)
        self.assertGreaterEqual(int(refused[1]["Retry-After"]), 1)
        self.assertEqual(refused[2]["error"]["type"], "rate_limit_error")

    def test_killed_clients_are_forgotten(self):
        # Choices enough to keep the server busy until it notices.
        body = json.dumps({"prompt": "w5", "max_tokens": 120, "ignore_eos": True, "stream": True, "n": 24}).encode()
        aborted = self.metric('peft:request_success_total{finished_reason="abort"')
        for stream in (body, body.replace(b'"stream": true', b'"stream": false')):
            plain = socket.create_connection(("127.0.0.1", self.server.port))
            plain.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(stream) + stream)
            if stream is body:
                plain.recv(100)
            plain.close()
        self.wait(lambda: self.metric('peft:request_success_total{finished_reason="abort"') == aborted + 2)
        self.wait(lambda: self.metric("peft:num_requests_running") == 0)
        self.assertEqual(self.metric("peft:kv_cache_bytes"), 0)

    def test_half_requests_do_no_harm(self):
        plain = socket.create_connection(("127.0.0.1", self.server.port))
        plain.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        plain.close()
        plain = socket.create_connection(("127.0.0.1", self.server.port))
        plain.sendall(b"\x00\x01nonsense\r\n\r\n")
        plain.close()
        self.assertEqual(self.server.send("GET", "/health")[0], 200)


class KeyTests(ServerCase):
    key = KEY

    def test_keys(self):
        for header, expected in ((f"Bearer {KEY}", 200), (f"bearer {KEY}", 200), (f"Bearer {KEY}x", 401), ("", 401), (KEY, 401)):
            code, headers, answer = self.server.send("GET", "/v1/models", headers={"Authorization": header})
            self.assertEqual(code, expected, header)
            if code == 401:
                self.assertEqual(headers["WWW-Authenticate"], "Bearer")
                self.assertEqual(answer["error"]["code"], "invalid_api_key")
        self.assertEqual(self.server.send("GET", "/metrics", headers={"Authorization": ""})[0], 401)
        own = {"Authorization": "", "X-Api-Key": KEY}
        self.assertEqual(self.server.send("GET", "/v1/models", headers=own)[0], 200)
        # Scripts of other origins get no permission.
        _, headers, _ = self.server.send("GET", "/v1/models", headers={"Origin": "https://a.example"})
        self.assertIsNone(headers["Access-Control-Allow-Origin"])
        self.assertEqual(self.server.send("GET", "/health", headers={"Authorization": ""})[0], 200)
        self.assertNotIn(KEY, json.dumps(self.server.log))


@unittest.skipUnless(program(), "peft-server is not built")
class ClientTests(unittest.TestCase):
    def test_models_and_rates(self):
        def entry(name, **fields):
            return {"name": name, "sha256": hashlib.sha256(name.encode()).hexdigest(), **fields}

        with tempfile.TemporaryDirectory() as folder:
            path = folder + "/keys.json"
            with open(path, "w") as file:
                json.dump([
                    entry("all"), entry("one", models=["a"]), entry("slow", models=["a", "base"], requests_per_minute=2),
                    entry("short", tokens_per_minute=5)], file)
            adapters = [word for name in ("a", "b") for word in ("--adapter", f"{name}={ADAPTERS}/llama-lora")]
            server = Server(folder, *adapters, "--keys", path, "--served-name", "base", key=KEY)

            def send(key, model, way="/v1/completions", method="POST"):
                body = {"model": model, "prompt": "w5 w6", "max_tokens": 4, "temperature": 0} if method == "POST" else None
                return server.send(method, way, body, {"Authorization": f"Bearer {key}"})

            try:
                for key, model, status in (
                    (KEY, "base", 200), ("all", "b", 200), ("all", None, 200), ("one", "a", 200), ("one", "base:a", 200),
                    ("one", "b", 404), ("one", "base", 404), ("one", None, 404), ("none", "a", 401),
                ):
                    self.assertEqual(send(key, model)[0], status, (key, model))
                # Nothing of the others is known to a key with models.
                self.assertNotIn("did you mean", send("one", "bb")[2]["error"]["message"])
                self.assertEqual([m["id"] for m in send("one", None, "/v1/models", "GET")[2]["data"]], ["a"])
                self.assertEqual(len(send("all", None, "/v1/models", "GET")[2]["data"]), 3)
                self.assertEqual(send("one", "a", "/tokenize")[0], 200)
                for way in ("/v1/adapters", "/metrics", "/playground", "/runs"):
                    self.assertEqual(send("one", None, way, "GET")[0], 403, way)
                self.assertEqual(send("one", "a", "/v1/unload_lora_adapter")[0], 403)
                form = {"Content-Type": "application/x-www-form-urlencoded"}
                self.assertEqual(server.send("POST", "/login", "key=one&next=/", form)[0], 401)
                self.assertEqual(server.send("POST", "/login", "key=all&next=/", form)[0], 303)
                for status in (200, 200, 429):
                    code, headers, answer = send("slow", "a")
                    self.assertEqual(code, status, answer)
                self.assertEqual(answer["error"]["code"], "rate_limit_exceeded")
                self.assertIn(int(headers["Retry-After"]), range(1, 31))
                # Six tokens of the first request are more than five.
                self.assertEqual([send("short", "a")[0] for _ in range(2)], [200, 429])
                self.assertEqual(send("all", "a")[0], 200)
            finally:
                server.stop()
            digest = "0" * 64
            for text, said in (
                ("name: x", "is not a list of keys"), ("- x", "not a mapping"), ("- name: x\n  sha256: 12", "is not a SHA-256 digest"),
                (f"- sha256: {digest}", "'name' is missing"), (f"- name: x\n  sha256: {digest}\n  rate: 5", "unknown field 'rate'"),
                (f"- name: x\n  sha256: {digest}\n  requests_per_minute: many", "is no number"),
                (f"- name: x\n  sha256: {digest}\n  models: a", "is not a list of names"),
                (f"- name: x\n  sha256: {digest}\n- name: y\n  sha256: {digest}", "occurs twice"),
            ):
                with open(path, "w") as file:
                    file.write(text)
                result = subprocess.run(
                    [program(), "--model", server.model, "--keys", path], capture_output=True, text=True, timeout=60)
                self.assertNotEqual(result.returncode, 0, text)
                self.assertIn(said, result.stderr)


@unittest.skipUnless(program(), "peft-server is not built")
class ReloadTests(unittest.TestCase):
    def write(self, path, *entries):
        """Replaces the file, as an editor does."""
        with open(path + ".new", "w") as file:
            json.dump([{"name": n, "sha256": hashlib.sha256(n.encode()).hexdigest(), **fields} for n, fields in entries], file)
        os.rename(path + ".new", path)

    def logged(self, server, message, files, count):
        """Waits for so many lines of the log, and returns the last."""
        for _ in range(1200):
            lines = [e for e in server.log if e.get("message") == message and e.get("files") == files]
            if len(lines) >= count:
                return lines[-1]
            time.sleep(0.05)
        self.fail(f"{message}: {server.log}")

    def test_keys(self):
        with tempfile.TemporaryDirectory() as folder:
            path = folder + "/keys.json"
            self.write(path, ("old", {}), ("slow", {"tokens_per_minute": 1}))
            server = Server(folder, "--keys", path, "--scan-interval", "3600")
            connection = server.connect()
            self.addCleanup(connection.close)

            def status(key):
                connection.request("GET", "/v1/models", headers={"Authorization": f"Bearer {key}"})
                response = connection.getresponse()
                response.read()
                return response.status

            def complete(key):
                # Many tokens, whose rate takes an hour to fill up again.
                body = {"prompt": "w5 " * 60, "max_tokens": 1}
                return server.send("POST", "/v1/completions", body, {"Authorization": f"Bearer {key}"})[0]

            try:
                self.assertEqual([status("old"), status("new"), complete("slow")], [200, 401, 200])
                open_socket = connection.sock
                form = {"Content-Type": "application/x-www-form-urlencoded"}
                cookie = server.send("POST", "/login", "key=old&next=/", form)[1]["Set-Cookie"].split(";")[0]
                self.assertEqual(server.send("GET", "/v1/adapters", headers={"Cookie": cookie})[0], 200)
                self.write(path, ("new", {}), ("slow", {"tokens_per_minute": 1}))
                server.process.send_signal(signal.SIGHUP)
                self.logged(server, "reloaded", "keys", 1)
                self.assertEqual([status("old"), status("new")], [401, 200])
                self.assertIs(connection.sock, open_socket)
                # What is left of a rate stays, and the sessions of a removed key end.
                self.assertEqual(complete("slow"), 429)
                self.assertEqual(server.send("GET", "/v1/adapters", headers={"Cookie": cookie})[0], 401)
                with open(path, "w") as file:
                    file.write("name: x")
                server.process.send_signal(signal.SIGHUP)
                self.assertIn("not a list of keys", self.logged(server, "not reloaded", "keys", 1)["problem"])
                self.assertEqual([status("old"), status("new")], [401, 200])
                # Without any keys nobody is served.
                self.write(path)
                server.process.send_signal(signal.SIGHUP)
                self.logged(server, "reloaded", "keys", 2)
                self.assertEqual([status("new"), complete("new")], [401, 401])
            finally:
                self.assertEqual(server.stop(), 0)
            self.write(path, ("old", {}))
            server = Server(folder, "--keys", path, "--scan-interval", "0.2", key="old")
            try:
                self.write(path, ("new", {}))
                self.logged(server, "reloaded", "keys", 1)
                self.assertEqual(server.send("GET", "/v1/models", headers={"Authorization": "Bearer new"})[0], 200)
            finally:
                self.assertEqual(server.stop(), 0)

    @unittest.skipUnless(shutil.which("openssl"), "openssl is missing")
    def test_certificates(self):
        with tempfile.TemporaryDirectory() as folder:
            for name in ("a", "b"):
                write_certificate(folder, name)
            for kind in ("pem", "key"):
                shutil.copy(f"{folder}/a.{kind}", f"{folder}/own.{kind}")
            server = Server(
                folder, "--tls-certificate", folder + "/own.pem", "--tls-key", folder + "/own.key", "--scan-interval", "3600")
            trust = ssl.create_default_context(cafile=folder + "/a.pem")
            trust.load_verify_locations(folder + "/b.pem")

            def connect():
                connection = http.client.HTTPSConnection("127.0.0.1", server.port, timeout=60, context=trust)
                self.addCleanup(connection.close)
                self.assertEqual(status(connection), 200)
                return connection, connection.sock.getpeercert(binary_form=True)

            def status(connection):
                connection.request("GET", "/v1/models")
                response = connection.getresponse()
                response.read()
                return response.status

            def expected(name):
                with open(f"{folder}/{name}.pem") as file:
                    return ssl.PEM_cert_to_DER_cert(file.read())

            try:
                first, certificate = connect()
                self.assertEqual(certificate, expected("a"))
                # The key alone doesn't fit.
                shutil.copy(folder + "/b.key", folder + "/own.key")
                server.process.send_signal(signal.SIGHUP)
                self.assertIn("is not the key of", self.logged(server, "not reloaded", "certificate", 1)["problem"])
                self.assertEqual(connect()[1], expected("a"))
                shutil.copy(folder + "/b.pem", folder + "/own.pem")
                server.process.send_signal(signal.SIGHUP)
                self.logged(server, "reloaded", "certificate", 1)
                self.assertEqual(connect()[1], expected("b"))
                open_socket = first.sock
                self.assertEqual(status(first), 200)
                self.assertIs(first.sock, open_socket)
            finally:
                self.assertEqual(server.stop(), 0)


@unittest.skipUnless(program(), "peft-server is not built")
class FormatTests(unittest.TestCase):
    def test_answers_satisfy_their_schemas(self):
        model = os.path.join(ROOT, "Tests", "TrainingTests", "Fixtures", "chat", "model")
        schema = {"type": "array", "items": {"enum": ["x", 12, None]}, "minItems": 2, "maxItems": 3}
        body = {
            "messages": [{"role": "user", "content": "Hello"}], "temperature": 1.5, "seed": 3, "max_tokens": 100, "n": 3,
            "response_format": {"type": "json_schema", "json_schema": {"name": "list", "schema": schema}},
        }
        with tempfile.TemporaryDirectory() as folder:
            server = Server(folder, model=model)
            try:
                for choice in server.post("/v1/chat/completions", body)["choices"]:
                    elements = json.loads(choice["message"]["content"])
                    self.assertIn(len(elements), (2, 3))
                    self.assertTrue(all(element in ("x", 12, None) for element in elements))
                    self.assertEqual(choice["finish_reason"], "stop")
                parts = server.stream("/v1/chat/completions", {**body, "n": 1})
                json.loads("".join(c["delta"].get("content", "") for part in parts for c in part["choices"]))
                for wrong in ({"type": "xml"}, {"type": "json_schema"}, {"type": "json_schema", "json_schema": {"schema": {"not": {}}}}):
                    answer = server.post("/v1/chat/completions", {**body, "response_format": wrong}, status=400)
                    self.assertEqual(answer["error"]["param"], "response_format")
            finally:
                server.stop()


def tool(name, **properties):
    parameters = {"type": "object", "properties": properties, "required": list(properties)}
    return {"type": "function", "function": {"name": name, "description": "A tool.", "parameters": parameters}}


@unittest.skipUnless(program(), "peft-server is not built")
class ToolTests(unittest.TestCase):
    """Calls of tools: required ones, which a schema enforces, and those among text, which a word of the vocabulary contains."""

    CALL = '<tool_call>{"name":"find","arguments":{"b":1,"a":"x"}}</tool_call>'
    MODEL = os.path.join(ROOT, "Tests", "TrainingTests", "Fixtures", "chat", "model")
    tools = [tool("find", kind={"enum": ["x", "y"]}), tool("count", n={"enum": [1, 22]})]

    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.mkdtemp(prefix="peft-server-")
        # Room for the tools' descriptions, of which every byte is a token.
        model = os.path.join(cls.folder, "chats")
        shutil.copytree(cls.MODEL, model)
        change_json(os.path.join(model, "config.json"), max_position_embeddings=1024)
        cls.server = Server(cls.folder, model=model)
        model = os.path.join(cls.folder, "words")
        write_model(model)
        with open(os.path.join(model, "tokenizer.json")) as file:
            tokenizer = json.load(file)
        words = {word: i for word, i in tokenizer["model"]["vocab"].items() if i not in (50, 51)}
        words.update({cls.CALL: 50, "Well": 51})
        tokenizer["model"]["vocab"] = words
        with open(os.path.join(model, "tokenizer.json"), "w") as file:
            json.dump(tokenizer, file)
        template = (
            "{% if tools %}{{ tools | tojson }}{# <tool_call> #} {% endif %}{% for m in messages %}{{ m.role }} "
            "{% if m.tool_calls %}{{ m.tool_calls | tojson }}{% else %}{{ m.content }}{% endif %} {% endfor %}")
        with open(os.path.join(model, "chat_template.jinja"), "w") as file:
            file.write(template)
        cls.words = Server(cls.folder, model=model)

    @classmethod
    def tearDownClass(cls):
        cls.server.stop()
        cls.words.stop()
        shutil.rmtree(cls.folder, ignore_errors=True)

    def body(self, **fields):
        return {
            "messages": [{"role": "user", "content": "w5"}], "tools": self.tools, "temperature": 1, "seed": 5,
            "max_tokens": 600, **fields}

    def joined(self, parts):
        """The message that the deltas of a stream add up to, and the reason."""
        content, calls, reasons = "", [], []
        for choice in (c for part in parts for c in part["choices"]):
            content += choice["delta"].get("content") or ""
            for call in choice["delta"].get("tool_calls", []):
                if call["index"] == len(calls):
                    calls.append({"id": call["id"], "type": call["type"], "function": dict(call["function"])})
                else:
                    calls[call["index"]]["function"]["arguments"] += call["function"]["arguments"]
            reasons += [choice["finish_reason"]] if choice["finish_reason"] else []
        return content, calls, reasons

    def test_required_calls(self):
        for several in (True, False):
            body = self.body(tool_choice="required", parallel_tool_calls=several)
            choice = self.server.post("/v1/chat/completions", body)["choices"][0]
            calls = choice["message"]["tool_calls"]
            self.assertEqual(choice["finish_reason"], "tool_calls")
            self.assertIsNone(choice["message"]["content"])
            for call in calls:
                self.assertEqual(call["type"], "function")
                arguments = json.loads(call["function"]["arguments"])
                allowed = {"find": [{"kind": "x"}, {"kind": "y"}], "count": [{"n": 1}, {"n": 22}]}
                self.assertIn(arguments, allowed[call["function"]["name"]])
            self.assertEqual(len({call["id"] for call in calls}), len(calls))
            if not several:
                self.assertEqual(len(calls), 1)
            content, streamed, reasons = self.joined(self.server.stream("/v1/chat/completions", body))
            self.assertEqual((content, reasons), ("", ["tool_calls"]))
            self.assertEqual([c["function"] for c in streamed], [c["function"] for c in calls])

    def test_a_named_function(self):
        body = self.body(tool_choice={"type": "function", "function": {"name": "count"}})
        choice = self.server.post("/v1/chat/completions", body)["choices"][0]
        (call,) = choice["message"]["tool_calls"]
        self.assertEqual(call["function"]["name"], "count")
        self.assertIn(json.loads(call["function"]["arguments"])["n"], (1, 22))
        self.assertEqual(choice["finish_reason"], "stop")
        parts = self.server.stream("/v1/chat/completions", body)
        _, streamed, _ = self.joined(parts)
        self.assertEqual(streamed[0]["function"], call["function"])
        # The arguments arrive in several parts.
        self.assertGreater(sum(1 for part in parts for c in part["choices"] if c["delta"].get("tool_calls")), 1)

    def test_calls_among_text(self):
        body = self.body(max_tokens=2, temperature=0, logit_bias={"50": 100}, ignore_eos=True)
        choice = self.words.post("/v1/chat/completions", body)["choices"][0]
        functions = [call["function"] for call in choice["message"]["tool_calls"]]
        self.assertEqual(functions, 2 * [{"name": "find", "arguments": '{"b":1,"a":"x"}'}])
        content, streamed, _ = self.joined(self.words.stream("/v1/chat/completions", body))
        self.assertEqual([c["function"] for c in streamed], functions)
        self.assertEqual(content.strip(), "")
        one = self.words.post("/v1/chat/completions", {**body, "parallel_tool_calls": False})["choices"][0]
        self.assertEqual(len(one["message"]["tool_calls"]), 1)
        text = self.words.post("/v1/chat/completions", {**body, "logit_bias": {"51": 100}})["choices"][0]
        self.assertEqual(text["message"]["content"], "Well Well")
        self.assertNotIn("tool_calls", text["message"])
        plain = self.words.post("/v1/chat/completions", {**body, "tool_choice": "none"})["choices"][0]
        self.assertNotIn("tool_calls", plain["message"])
        self.assertIn("<tool_call>", plain["message"]["content"])

    def test_conversations_with_calls(self):
        call = {"id": "a", "type": "function", "function": {"name": "find", "arguments": '{"b": 1, "a": 2}'}}
        messages = [
            {"role": "user", "content": "w5"}, {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "a", "content": "w6"}]
        tokens = self.server.post("/tokenize", {"messages": messages, "tools": self.tools})["tokens"]
        text = self.server.post("/detokenize", {"tokens": tokens})["prompt"]
        # The arguments are an object, and all members keep their order.
        self.assertIn('<tool_call>{"name": "find", "arguments": {"b": 1, "a": 2}}</tool_call>', text)
        self.assertIn('[{"type": "function", "function": {"name": "find", "description"', text)
        self.server.post("/v1/chat/completions", self.body(messages=messages, max_tokens=2))

    def messages(self, **fields):
        """A body of Anthropic's API."""
        tools = [
            {"name": t["function"]["name"], "description": "A tool.", "input_schema": t["function"]["parameters"]}
            for t in self.tools]
        return {"messages": [{"role": "user", "content": "w5"}], "tools": tools, "temperature": 1, "max_tokens": 200, **fields}

    def events(self, server, body):
        """The events of a stream of Anthropic's API."""
        status, headers, text = server.send("POST", "/v1/messages", {**body, "stream": True})
        self.assertEqual((status, headers["Content-Type"]), (200, "text/event-stream"))
        events = []
        for part in text.strip().split("\n\n"):
            name, data = part.split("\n")
            events.append(json.loads(data[len("data: "):]))
            self.assertEqual(name, "event: " + events[-1]["type"])
        return events

    def test_messages(self):
        body = self.messages(tool_choice={"type": "tool", "name": "count"})
        answer = self.server.post("/v1/messages", body)
        (block,) = answer["content"]
        self.assertEqual((answer["type"], answer["role"], answer["stop_reason"]), ("message", "assistant", "tool_use"))
        self.assertEqual((block["type"], block["name"]), ("tool_use", "count"))
        self.assertIn(block["input"]["n"], (1, 22))
        events = self.events(self.server, body)
        kinds = [event["type"] for event in events]
        self.assertEqual(kinds[:2], ["message_start", "content_block_start"])
        self.assertEqual(kinds[-3:], ["content_block_stop", "message_delta", "message_stop"])
        parts = [event["delta"]["partial_json"] for event in events if event["type"] == "content_block_delta"]
        self.assertIn(json.loads("".join(parts))["n"], (1, 22))
        self.assertEqual(events[-2]["delta"]["stop_reason"], "tool_use")
        # A text, then calls, with the words' model.
        body = self.messages(max_tokens=3, temperature=0, system=[{"type": "text", "text": "w7"}])
        body.pop("tools")
        whole = self.words.post("/v1/messages", body)
        self.assertEqual(whole["stop_reason"], "max_tokens")
        self.assertEqual(whole["usage"]["output_tokens"], 3)
        events = self.events(self.words, body)
        text = "".join(event["delta"]["text"] for event in events if event["type"] == "content_block_delta")
        self.assertEqual(text, whole["content"][0]["text"])
        self.assertEqual(events[-2]["usage"]["output_tokens"], 3)
        turns = [
            {"role": "user", "content": "w5"},
            {"role": "assistant", "content": [
                {"type": "text", "text": "w6"}, {"type": "tool_use", "id": "a", "name": "find", "input": {"b": 1}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "a", "content": "w8"}]}]
        self.words.post("/v1/messages", {**body, "messages": turns})
        for wrong in ({**body, "max_tokens": None}, {**body, "messages": []}, {**body, "thinking": {"type": "enabled"}}):
            error = self.words.post("/v1/messages", wrong, status=400)
            self.assertEqual((error["type"], error["error"]["type"]), ("error", "invalid_request_error"))

    def test_mistakes(self):
        for field, fields in (
            ("tool_choice", {"tool_choice": "some"}), ("tool_choice", {"tool_choice": {"function": {"name": "none"}}}),
            ("tools", {"tools": [{"type": "function"}]}), ("tools", {"tools": 1}),
            ("tool_choice", {"tools": None, "tool_choice": "required"}),
            ("response_format", {"response_format": {"type": "json_object"}}),
        ):
            answer = self.server.post("/v1/chat/completions", self.body(**fields), status=400)
            self.assertEqual(answer["error"]["param"], field)


def read_logits(adapter):
    """The inputs of an adapter of the fixtures, and the outputs that Hugging Face PEFT computed."""
    folder = os.path.join(ADAPTERS, adapter)
    with open(os.path.join(folder, "expected.json")) as file:
        inputs = [row[0] for row in json.load(file)["rows"]]
    with open(os.path.join(folder, "expected.safetensors"), "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        entry = json.loads(file.read(length))["logits"]
        start, end = entry["data_offsets"]
        file.seek(8 + length + start)
        values = struct.unpack(f"<{(end - start) // 4}f", file.read(end - start))
    size = entry["shape"][1]
    return inputs, [values[i:i + size] for i in range(0, len(values), size)]


def softmax(values):
    powers = [math.exp(value - max(values)) for value in values]
    return [power / sum(powers) for power in powers]


@unittest.skipUnless(program(), "peft-server is not built")
class HeadTests(unittest.TestCase):
    """Scores and embeddings of models with a head."""

    @contextlib.contextmanager
    def serve(self, family, adapter):
        with tempfile.TemporaryDirectory() as folder:
            model = os.path.join(folder, "small")
            write_model(model, f"heads/{family}", 48)
            server = Server(folder, "--adapter", "own=" + os.path.join(ADAPTERS, adapter), model=model)
            try:
                yield server
            finally:
                server.stop()

    def assertClose(self, values, expected):
        self.assertEqual(len(values), len(expected))
        for value, right in zip(values, expected):
            self.assertAlmostEqual(value, right, delta=1e-4 * max(1, abs(right)))

    def test_scores_of_a_decoder(self):
        inputs, logits = read_logits("task-llama-classification-lora")
        with self.serve("llama", "task-llama-classification-lora") as server:
            answer = server.post("/classify", {"model": "own", "input": inputs})
            for entry, own in zip(answer["data"], logits, strict=True):
                self.assertClose(entry["probs"], softmax(own))
                self.assertEqual(entry["label"], f"LABEL_{max(range(5), key=lambda i: own[i])}")
                self.assertEqual(list(entry["scores"].values()), entry["probs"])
                self.assertEqual(entry["num_classes"], 5)
            self.assertEqual(answer["usage"], {"prompt_tokens": 21, "total_tokens": 21})
            # Texts, many at a time, each as alone.
            texts = [" ".join(f"w{2 + (7 * i + j) % 44}" for j in range(1 + i % 9)) for i in range(40)]
            body = {"model": "own", "input": texts}
            together = [entry["probs"] for entry in server.post("/classify", body)["data"]]
            with concurrent.futures.ThreadPoolExecutor(8) as pool:
                alone = list(pool.map(lambda text: server.post("/classify", {**body, "input": text})["data"][0]["probs"], texts))
            for one, other in zip(together, alone, strict=True):
                self.assertClose(one, other)
            self.assertGreater(len({tuple(one) for one in together}), 30)
            # The base has no trained head, and the model generates no text and has no embeddings.
            for path, body in (
                ("/classify", {"input": "w5"}), ("/v1/embeddings", {"model": "own", "input": "w5"}),
                ("/v1/completions", {"model": "own", "prompt": "w5"}), ("/classify", {"model": "own", "input": []}),
                ("/classify", {"model": "own", "input": "w5 " * 50}), ("/classify", {"model": "own", "input": [[99]]}),
                ("/classify", {"model": "own"}),
            ):
                server.post(path, body, status=400)
            server.post("/classify", {"model": "other", "input": "w5"}, status=404)

    def test_scores_of_encoders(self):
        inputs, logits = read_logits("task-bert-regression-lora")
        with self.serve("bert", "task-bert-regression-lora") as server:
            answer = server.post("/classify", {"model": "own", "input": inputs})["data"]
            self.assertClose([entry["score"] for entry in answer], [own[0] for own in logits])
            pair = server.post("/classify", {"model": "own", "input": {"text": "w5", "pair": "w6 w7"}})
            self.assertEqual(pair["usage"]["prompt_tokens"], 3)
        inputs, _ = read_logits("task-bert-token-classification-lora")
        with self.serve("bert", "task-bert-token-classification-lora") as server:
            answer = server.post("/classify", {"model": "own", "input": ["w5\nw6\nw7", *inputs]})["data"]
            self.assertEqual([len(entry["labels"]) for entry in answer], [3, 5, 7, 9])
            self.assertTrue(all(0.2 <= score <= 1 for entry in answer for score in entry["scores"]))

    def test_embeddings(self):
        inputs, vectors = read_logits("task-bert-embeddings-lora")
        with self.serve("bert", "task-bert-embeddings-lora") as server:
            body = {"model": "own", "input": inputs}
            answer = server.post("/v1/embeddings", body)
            for entry, vector in zip(answer["data"], vectors, strict=True):
                self.assertEqual(entry["object"], "embedding")
                self.assertClose(entry["embedding"], vector)
            packed = server.post("/v1/embeddings", {**body, "encoding_format": "base64"})["data"]
            for entry, own in zip(packed, answer["data"], strict=True):
                values = struct.unpack("<16f", base64.b64decode(entry["embedding"]))
                self.assertClose(values, own["embedding"])
            # Without the adapter other vectors.
            base = server.post("/v1/embeddings", {"input": inputs})["data"]
            self.assertNotEqual(base[0]["embedding"], answer["data"][0]["embedding"])
            server.post("/v1/embeddings", {**body, "encoding_format": "x"}, status=400)
            server.post("/v1/embeddings", {**body, "dimensions": 8}, status=400)
            server.post("/classify", body, status=400)


class PrefixTests(ServerCase):
    PROMPT = " ".join(f"w{2 + 7 * i % 90}" for i in range(60))

    @classmethod
    def prepare(cls):
        # An adapter with other words for the same ids.
        folder = os.path.join(cls.adapters, "words")
        shutil.copytree(os.path.join(ADAPTERS, "llama-lora"), folder)
        write_tokenizer(folder, ["<unk>", "</s>"] + [f"x{i}" for i in range(2, 96)])

    def test_prompts_that_begin_alike_are_read_once(self):
        body = {"temperature": 0, "max_tokens": 8, "ignore_eos": True}
        self.wait(lambda: len(self.server.get("/v1/adapters")["data"]) == 4)
        for name in ("small", "llama-lora", "llama-prompt", "llama-prefix"):
            first = self.server.post("/v1/completions", {**body, "model": name, "prompt": self.PROMPT})
            self.assertEqual(first["usage"]["prompt_tokens_details"]["cached_tokens"], 0, name)
            again = self.server.post("/v1/completions", {**body, "model": name, "prompt": self.PROMPT})
            self.assertEqual(again["usage"]["prompt_tokens_details"]["cached_tokens"], 59)
            self.assertEqual(again["choices"], first["choices"])
            events = self.server.stream("/v1/completions", {
                **body, "model": name, "prompt": self.PROMPT, "stream_options": {"include_usage": True}})
            self.assertEqual(events[-1]["usage"]["prompt_tokens_details"]["cached_tokens"], 59)
            longer = {**body, "model": name, "prompt": self.PROMPT + " w3 w4"}
            cached = self.server.post("/v1/completions", longer)
            self.assertGreaterEqual(cached["usage"]["prompt_tokens_details"]["cached_tokens"], 60)
        self.assertGreater(self.metric("peft:prefix_cache_hits_total"), 4 * 100)

    def test_own_tokenizers(self):
        self.wait(lambda: any(a["name"] == "words" for a in self.server.get("/v1/adapters")["data"]))
        body = {"temperature": 0, "max_tokens": 6, "ignore_eos": True}
        own = self.server.post("/v1/completions", {**body, "model": "words", "prompt": "x5 x9"})["choices"][0]["text"]
        other = self.server.post("/v1/completions", {**body, "model": "llama-lora", "prompt": "w5 w9"})["choices"][0]["text"]
        self.assertEqual(own, other.replace("w", "x"))
        chat = {"messages": [{"role": "user", "content": "x5"}], "model": "words", "max_tokens": 3, "logprobs": True}
        for entry in self.server.post("/v1/chat/completions", chat)["choices"][0]["logprobs"]["content"]:
            self.assertNotIn("w", entry["token"])
        self.assertEqual(self.server.post("/tokenize", {"model": "words", "prompt": "x5"})["tokens"], [5])
        self.assertEqual(self.server.post("/detokenize", {"model": "words", "tokens": [5]})["prompt"], "x5")


@unittest.skipUnless(program(), "peft-server is not built")
class LifeCycleTests(unittest.TestCase):
    def test_sigterm_completes_running_requests(self):
        with tempfile.TemporaryDirectory() as folder:
            server = Server(folder)
            body = {"prompt": "w5", "max_tokens": 120, "ignore_eos": True, "temperature": 0}
            with concurrent.futures.ThreadPoolExecutor(6) as pool:
                answers = [pool.submit(server.send, "POST", "/v1/completions", body) for _ in range(6)]
                for _ in range(200):
                    if "peft:num_requests_running{model_name=\"small\"} 0.0" not in server.get("/metrics"):
                        break
                code = server.stop()
                self.assertEqual(code, 0, server.log[-3:])
                for answer in answers:
                    status, _, text = answer.result()
                    self.assertEqual(status, 200)
                    self.assertEqual(text["usage"]["completion_tokens"], 120)
            self.assertEqual(server.log[-1]["message"], "stopped")

    def test_settings_from_a_file(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "server.yaml")
            with open(path, "w") as file:
                file.write(
                    "served_name: team/mine\nmax-length: 64\nprefix-cache: false\ncors-origin: [https://a.example, https://b.example]\n"
                    "api-key: secret\n")
            server = Server(folder, "--config", path, "--max-length", "32")
            try:
                server.key = "secret"
                model = server.get("/v1/models")["data"][0]
                self.assertEqual((model["id"], model["max_model_len"]), ("team/mine", 32))
                self.assertEqual(server.get("/v1/models/team/mine"), model)
                self.assertEqual(server.get("/v1/models/team%2Fmine"), model)
                self.assertEqual(server.send("GET", "/v1/models", headers={"Authorization": ""})[0], 401)
                _, headers, _ = server.send("GET", "/v1/models", headers={"Origin": "https://b.example"})
                self.assertEqual(headers["Access-Control-Allow-Origin"], "https://b.example")
                _, headers, _ = server.send("GET", "/v1/models", headers={"Origin": "https://c.example"})
                self.assertIsNone(headers["Access-Control-Allow-Origin"])
                status, headers, _ = server.send("OPTIONS", "/v1/chat/completions", headers={
                    "Authorization": "", "Origin": "https://a.example", "Access-Control-Request-Method": "POST",
                    "Access-Control-Request-Headers": "authorization,x-stainless-os"})
                self.assertEqual((status, headers["Access-Control-Allow-Origin"]), (204, "https://a.example"))
                self.assertEqual(headers["Access-Control-Allow-Headers"], "authorization,x-stainless-os")
            finally:
                server.stop()
            for text in ("unknown-setting: 1\n", "prefix-cache: no\n", "- a\n", "help: true\n", "a: b: c\n"):
                with open(path, "w") as file:
                    file.write(text)
                result = subprocess.run(
                    [program(), "--model", server.model, "--config", path], capture_output=True, text=True, timeout=60)
                self.assertNotEqual(result.returncode, 0, text)
                self.assertIn("rror", result.stderr)

    @unittest.skipUnless(shutil.which("openssl"), "openssl is missing")
    def test_tls(self):
        with tempfile.TemporaryDirectory() as folder:
            for name in ("a", "b"):
                write_certificate(folder, name)
            files = ["--tls-certificate", folder + "/a.pem", "--tls-key", folder + "/a.key"]
            server = Server(folder, *files, key=KEY)
            try:
                trust = ssl.create_default_context(cafile=folder + "/a.pem")
                server.connect = lambda: http.client.HTTPSConnection("127.0.0.1", server.port, timeout=60, context=trust)
                answer = server.post("/v1/completions", {"prompt": "w5", "max_tokens": 3, "temperature": 0})
                self.assertEqual(answer["usage"]["completion_tokens"], 3)
                self.assertEqual(server.send("GET", "/v1/models", headers={"Authorization": ""})[0], 401)
                form = {"Content-Type": "application/x-www-form-urlencoded"}
                _, headers, _ = server.send("POST", "/login", f"key={KEY}&next=/playground", form)
                self.assertIn("; Secure", headers["Set-Cookie"])
                # Nothing is answered in plain text.
                plain = socket.create_connection(("127.0.0.1", server.port), timeout=60)
                plain.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
                with contextlib.suppress(ConnectionError):
                    self.assertNotIn(b"HTTP", plain.recv(100))
                plain.close()
                with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
                    with trust.wrap_socket(connection, server_hostname="127.0.0.1") as wrapped:
                        self.assertIn(wrapped.version(), ("TLSv1.2", "TLSv1.3"))
            finally:
                self.assertEqual(server.stop(), 0)
            for options, said in (
                (files[:2], "--tls-certificate needs --tls-key"), (files[2:], "--tls-key needs --tls-certificate"),
                (["--tls-certificate", folder + "/none", *files[2:]], "is not a readable certificate"),
                ([*files[:2], "--tls-key", folder + "/a.pem"], "is not a readable private key"),
                ([*files[:2], "--tls-key", folder + "/b.key"], "is not the key of"),
            ):
                result = subprocess.run(
                    [program(), "--model", server.model, *options], capture_output=True, text=True, timeout=60)
                self.assertNotEqual(result.returncode, 0)
                self.assertIn(said, result.stderr)

    @unittest.skipUnless(os.path.exists("/dev/full"), "there is no /dev/full")
    def test_a_full_disk_loses_log_lines_only(self):
        with tempfile.TemporaryDirectory() as folder, open("/dev/full", "w") as full:
            write_model(folder + "/model")
            with socket.create_server(("127.0.0.1", 0)) as free:
                port = free.getsockname()[1]
            process = subprocess.Popen([program(), "--model", folder + "/model", "--port", str(port)], stderr=full)
            try:
                for _ in range(1200):
                    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=60):
                        break
                    time.sleep(0.1)
                for _ in range(3):
                    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
                    connection.request("POST", "/v1/completions", json.dumps({"prompt": "w5", "max_tokens": 2}))
                    self.assertEqual(connection.getresponse().status, 200)
                    connection.close()
            finally:
                process.terminate()
                self.assertEqual(process.wait(60), 0)

    def test_mistakes_at_the_start(self):
        with tempfile.TemporaryDirectory() as folder:
            for options in (["--model", folder + "/none"], ["--model", folder, "--port", "99999"], ["--max-sequences", "0"]):
                result = subprocess.run([program(), *options], capture_output=True, text=True, timeout=60)
                self.assertNotEqual(result.returncode, 0)
                self.assertIn("rror", result.stderr)
            write_model(folder + "/model")
            result = subprocess.run(
                [program(), "--model", folder + "/model", "--pooling", "max"], capture_output=True, text=True, timeout=60)
            self.assertIn("unknown pooling 'max'; use one of mean, cls, last-token", result.stderr)


@unittest.skipUnless(program() and shutil.which("nginx") and shutil.which("openssl"), "peft-server or nginx is missing")
class ProxyTests(unittest.TestCase):
    """deploy/nginx.conf before two replicas."""

    def test_affinity_and_failover(self):
        with contextlib.ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            adapters = os.path.join(folder, "adapters")
            for i in range(12):
                shutil.copytree(os.path.join(ADAPTERS, "llama-lora"), os.path.join(adapters, f"a{i}"))
            servers = [Server(folder, "--adapters-dir", adapters) for _ in range(2)]
            for server in servers:
                stack.callback(lambda server=server: server.process.poll() is None and server.stop())
            with socket.create_server(("127.0.0.1", 0)) as free:
                port = free.getsockname()[1]
            subprocess.run(
                ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", folder + "/key", "-out", folder + "/pem",
                 "-days", "1", "-subj", "/CN=localhost"], check=True, capture_output=True)
            with open(os.path.join(ROOT, "deploy", "nginx.conf")) as file:
                text = file.read()
            for old, new in (
                ("listen 443", f"listen 127.0.0.1:{port}"), ("127.0.0.1:8001", f"127.0.0.1:{servers[0].port}"),
                ("127.0.0.1:8002", f"127.0.0.1:{servers[1].port}"), ("/etc/ssl/certs/peft.pem", folder + "/pem"),
                ("/etc/ssl/private/peft.key", folder + "/key"),
            ):
                self.assertEqual(text.count(old), 1, old)
                text = text.replace(old, new)
            paths = "".join(f"{kind}_temp_path {folder}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
            with open(folder + "/nginx.conf", "w") as file:
                file.write(
                    f"daemon off; pid {folder}/pid; error_log {folder}/errors;\nevents {{}}\nhttp {{\naccess_log off;\n"
                    f"{paths}{text}}}\n")
            proxy = subprocess.Popen(["nginx", "-p", folder, "-c", folder + "/nginx.conf", "-e", folder + "/errors"])
            stack.callback(lambda: (proxy.terminate(), proxy.wait(30)))
            trust = ssl.create_default_context(cafile=folder + "/pem")
            trust.check_hostname = False

            def send(path, body, **headers):
                connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=60, context=trust)
                connection.request("POST" if body else "GET", path, json.dumps(body) if body else None, headers)
                response = connection.getresponse()
                text = response.read().decode()
                connection.close()
                return response.status, text

            def counts():
                return [{a["name"]: a["requests"] for a in server.get("/v1/adapters")["data"]} for server in servers]

            for _ in range(200):
                with contextlib.suppress(OSError):
                    if send("/ready", None)[0] == 200:
                        break
                time.sleep(0.05)
            body = {"prompt": "w5", "max_tokens": 3, "temperature": 0}
            for _ in range(3):
                for i in range(12):
                    named = {**body, "model": f"a{i}"}
                    status, text = send("/v1/completions", named, **{"X-Adapter": f"a{i}"})
                    self.assertEqual(status, 200, text)
                    self.assertEqual(send(f"/adapters/a{i}/v1/completions", named)[0], 200)
            before = counts()
            for i in range(12):
                # All six went to one of the two.
                self.assertEqual(sorted(count[f"a{i}"] for count in before), [0, 6])
            self.assertTrue(all(sum(count.values()) > 0 for count in before))
            status, text = send("/v1/completions", {**body, "stream": True})
            self.assertTrue(text.endswith("data: [DONE]\n\n"))
            self.assertEqual(send("/metrics", None)[0], 404)
            # One replica shuts down under load; nothing is lost.
            with concurrent.futures.ThreadPoolExecutor(8) as pool:
                answers = [
                    pool.submit(send, "/v1/completions", {**body, "model": f"a{i % 12}", "max_tokens": 60}, **{"X-Adapter": f"a{i % 12}"})
                    for i in range(48)]
                answers[4].result()
                self.assertEqual(servers[0].stop(), 0)
                self.assertEqual({answer.result()[0] for answer in answers}, {200})


if __name__ == "__main__":
    unittest.main()
