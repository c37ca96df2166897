"""Tests of peft-server over HTTP, with a small model. They need a built program (make server, or PEFT_SERVER_PROGRAM) and are
skipped without one. Only Python's standard library is used, and the package openai if it is installed."""

import concurrent.futures
import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
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


def write_model(folder):
    """The small Llama with a tokenizer of words and a chat template."""
    shutil.copytree(os.path.join(FIXTURES, "llama"), folder)
    words = ["<unk>", "</s>"] + [f"w{i}" for i in range(2, 96)]
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
        self.assertEqual(answer["usage"], {"prompt_tokens": 3, "completion_tokens": 8, "total_tokens": 11})
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
        before = self.metric("peft:generation_tokens_total")
        self.complete(ignore_eos=True)
        self.assertEqual(self.metric("peft:generation_tokens_total"), before + 8)
        self.assertGreater(self.metric("peft:time_to_first_token_seconds_count"), 0)
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
        self.assertEqual(self.server.send("GET", "/health", headers={"Authorization": ""})[0], 200)
        self.assertNotIn(KEY, json.dumps(self.server.log))


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

    def test_mistakes_at_the_start(self):
        with tempfile.TemporaryDirectory() as folder:
            for options in (["--model", folder + "/none"], ["--model", folder, "--port", "99999"], ["--max-sequences", "0"]):
                result = subprocess.run([program(), *options], capture_output=True, text=True, timeout=60)
                self.assertNotEqual(result.returncode, 0)
                self.assertIn("rror", result.stderr)


if __name__ == "__main__":
    unittest.main()
