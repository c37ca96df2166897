"""Drives the pages of peft-server in headless Chromium, over the DevTools protocol: at the widths of a desktop and of a phone,
light and dark, by keyboard. Needs a built peft and peft-server (PEFT_PROGRAM and PEFT_SERVER_PROGRAM, or make server) and
Chromium (CHROMIUM, or in PATH); without them it says so and succeeds. Only Python's standard library is used.

    python3 Scripts/test_pages.py [--shots FOLDER]      # FOLDER gets a screenshot of each page
"""

import base64
import http.client
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, "Scripts"))
import test_server  # noqa: E402

SHOTS = None
CHROMIUM = next(
    (path for name in (os.environ.get("CHROMIUM"), "chromium", "chromium-browser", "google-chrome")
     if name and (path := shutil.which(name))), None)


def peft():
    """The program beside the server, which its commands run."""
    server = test_server.program()
    place = os.environ.get("PEFT_PROGRAM") or server and os.path.join(os.path.dirname(server), "peft")
    return place if place and os.access(place, os.X_OK) else None


class Browser:
    """A headless Chromium with one tab."""

    def __init__(self, folder):
        self.process = subprocess.Popen(
            [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
             "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
             "--remote-debugging-port=0", "--user-data-dir=" + os.path.join(folder, "profile"), "about:blank"],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        port = None
        for line in self.process.stderr:
            if "DevTools listening on" in line:
                port = int(line.split("://")[1].split("/")[0].split(":")[1])
                break
        if port is None:
            raise RuntimeError("Chromium did not start")
        for _ in range(100):
            connection = http.client.HTTPConnection("127.0.0.1", port)
            connection.request("GET", "/json/list")
            pages = [t for t in json.loads(connection.getresponse().read()) if t["type"] == "page"]
            if pages:
                break
            time.sleep(0.1)
        path = pages[0]["webSocketDebuggerUrl"].split(str(port), 1)[1]
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        key = base64.b64encode(os.urandom(16)).decode()
        self.socket.sendall(
            (f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
             f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n").encode())
        self.rest = b""
        while b"\r\n\r\n" not in self.rest:
            self.rest += self.socket.recv(4096)
        self.rest = self.rest.split(b"\r\n\r\n", 1)[1]
        self.number = 0
        self.problems = []
        self.requests = []
        for domain in ("Page", "Runtime", "Network", "Log", "Accessibility"):
            self.call(domain + ".enable")

    def _bytes(self, count):
        while len(self.rest) < count:
            part = self.socket.recv(1 << 16)
            if not part:
                raise RuntimeError("Chromium closed the connection")
            self.rest += part
        part, self.rest = self.rest[:count], self.rest[count:]
        return part

    def _message(self):
        text = b""
        while True:
            head = self._bytes(2)
            length = head[1] & 127
            if length == 126:
                length = struct.unpack(">H", self._bytes(2))[0]
            elif length == 127:
                length = struct.unpack(">Q", self._bytes(8))[0]
            text += self._bytes(length)
            if head[0] & 128:
                return json.loads(text)

    def call(self, method, **parameters):
        self.number += 1
        data = json.dumps({"id": self.number, "method": method, "params": parameters}).encode()
        mask = os.urandom(4)
        size = len(data)
        head = b"\x81" + (bytes([128 | size]) if size < 126 else bytes([254]) + struct.pack(">H", size) if size < 65536
                          else bytes([255]) + struct.pack(">Q", size))
        self.socket.sendall(head + mask + bytes(b ^ mask[i % 4] for i, b in enumerate(data)))
        while True:
            message = self._message()
            if message.get("id") == self.number:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']}")
                return message["result"]
            event, details = message.get("method"), message.get("params", {})
            if event == "Runtime.exceptionThrown":
                self.problems.append(details["exceptionDetails"].get("exception", {}).get("description"))
            elif event == "Log.entryAdded" and details["entry"]["level"] == "error":
                self.problems.append(details["entry"]["text"] + " " + details["entry"].get("url", ""))
            elif event == "Network.requestWillBeSent":
                self.requests.append(details["request"]["url"])

    def run(self, expression):
        result = self.call(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in result:
            raise RuntimeError(result["exceptionDetails"]["exception"].get("description"))
        return result["result"].get("value")

    def wait(self, expression, seconds=60):
        end = time.monotonic() + seconds
        while not self.run(expression):
            if time.monotonic() > end:
                raise AssertionError(f"{expression} did not become true; the page says: " + self.run("document.body.innerText"))
            time.sleep(0.1)

    def show(self, width, height=900, dark=False):
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600)
        self.call(
            "Emulation.setEmulatedMedia",
            features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])

    def open(self, url):
        self.run("window.isOld = true")
        self.call("Page.navigate", url=url)
        self.wait("window.isOld === undefined && document.readyState === 'complete'")

    def key(self, name, code, modifiers=0):
        text = {"text": "\r"} if name == "Enter" and not modifiers else {"text": " "} if name == " " else {}
        for kind in ("keyDown", "keyUp"):
            self.call(
                "Input.dispatchKeyEvent", type=kind, key=name, code=name if name != " " else "Space",
                windowsVirtualKeyCode=code, modifiers=modifiers, **(text if kind == "keyDown" else {}))

    def shot(self, name):
        if SHOTS:
            data = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)["data"]
            with open(os.path.join(SHOTS, name + ".png"), "wb") as file:
                file.write(base64.b64decode(data))

    def close(self):
        try:
            self.call("Browser.close")
        except (RuntimeError, OSError):
            self.process.terminate()
        self.process.wait(20)
        self.process.stderr.close()
        self.socket.close()


# What every page must satisfy: nothing wider than the window, a name for every control and picture, one main heading, and
# contrast of text.
CHECK = """
(() => {
  const problems = [];
  if (document.documentElement.scrollWidth > innerWidth) {
    problems.push("wider than the window: " + document.documentElement.scrollWidth);
  }
  if (document.querySelectorAll("h1").length !== 1) problems.push("not one h1");
  let last = 0;
  for (const heading of document.querySelectorAll("h1,h2,h3,h4")) {
    if (heading.closest("[hidden]")) continue;
    const level = Number(heading.tagName[1]);
    if (level > last + 1) problems.push("a heading level is skipped at " + heading.textContent);
    last = level;
  }
  for (const control of document.querySelectorAll("input:not([type=hidden]),textarea,select")) {
    if (!control.labels || !control.labels.length) problems.push("no label: " + control.name);
  }
  for (const picture of document.querySelectorAll("svg[role=img]")) {
    if (!picture.getAttribute("aria-label")) problems.push("a picture without a name");
  }
  const ids = Array.from(document.querySelectorAll("[id]"), e => e.id);
  for (const id of ids) if (ids.indexOf(id) !== ids.lastIndexOf(id)) problems.push("id twice: " + id);
  const luminance = color => {
    const parts = color.match(/[\\d.]+/g).map(Number);
    const [r, g, b] = parts.slice(0, 3).map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const background = element => {
    for (let e = element; e; e = e.parentElement) {
      const color = getComputedStyle(e).backgroundColor;
      if (!/, 0\\)$/.test(color) && color !== "transparent") return color;
    }
    return "rgb(255,255,255)";
  };
  for (const element of document.querySelectorAll("p,a,span,dt,dd,th,td,h1,h2,h3,h4,label,legend,button,li,small,summary,strong")) {
    if (!element.textContent.trim() || element.closest("[hidden]") || element.disabled || !element.offsetParent) continue;
    const [a, b] = [luminance(getComputedStyle(element).color), luminance(background(element))];
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (contrast < 4.5) problems.push("contrast " + contrast.toFixed(2) + ": " + element.textContent.trim().slice(0, 40));
  }
  return problems;
})()
"""

WINDOWS = [(1280, False), (1280, True), (390, False), (390, True)]


@unittest.skipUnless(test_server.program() and peft(), "peft and peft-server are not built")
@unittest.skipUnless(CHROMIUM, "Chromium is not installed")
class PageTests(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.mkdtemp(prefix="peft-pages-")
        cls.adapters = os.path.join(cls.folder, "adapters")
        cls.runs = os.path.join(cls.folder, "runs")
        os.mkdir(cls.adapters)
        os.mkdir(cls.runs)
        for name in ("llama-lora", "llama-prompt", "llama-prefix"):
            shutil.copytree(os.path.join(test_server.ADAPTERS, name), os.path.join(cls.adapters, name))
        shutil.copytree(
            os.path.join(ROOT, "Tests/TrainingTests/Fixtures/chat/model"), os.path.join(cls.runs, "llama"))
        with open(os.path.join(cls.runs, "rows.jsonl"), "w") as file:
            for i in range(8):
                file.write(json.dumps({"q": f"Tom {i}", "a": f"ran away <b>{i}</b>"}) + "\n")
        cls.options = [
            "--model", "llama", "--data", "rows.jsonl", "--prompt", "{q}", "--target", "{a}", "--batch-size", "2"]
        cls.peft(
            "train", "--quiet", *cls.options, "--steps", "120", "--lr", "3e-3", "--validation", "rows.jsonl",
            "--validate-every", "20", "--samples", "2", "--schedule", "cosine", "--warmup", "10", "--output", "mail")
        shared = [
            "--quiet", *cls.options, "--test", "rows.jsonl", "--max-new-tokens", "3", "--steps", "3", "--lr", "1e-3"]
        cls.peft("compare", *shared, "--methods", "base,lora,prompt", "--seeds", "2", "--output", "methods.json")
        cls.peft("sweep", *shared, "--values", "1,2", "--seeds", "1", "--output", "ranks.json")
        cls.peft(
            "train", "--quiet", *cls.options, "--method", "prompt", "--tokens", "6", "--steps", "2", "--no-log",
            "--output", "soft")
        cls.peft("neighbors", "soft", "--output", "map.json")
        cls.server = test_server.Server(
            cls.folder, "--adapters-dir", cls.adapters, "--scan-interval", "0.3", "--runs", cls.runs)
        cls.browser = Browser(cls.folder)
        cls.home = f"http://127.0.0.1:{cls.server.port}"

    @classmethod
    def peft(cls, *arguments, code=0):
        environment = dict(os.environ, OMP_NUM_THREADS="1")
        result = subprocess.run(
            [peft(), *arguments], cwd=cls.runs, env=environment, capture_output=True, text=True)
        assert result.returncode == code, (arguments, result.stderr)
        return result.stdout

    @classmethod
    def tearDownClass(cls):
        cls.browser.close()
        cls.server.stop()
        shutil.rmtree(cls.folder, ignore_errors=True)

    def tearDown(self):
        problems = [p for p in self.browser.problems if "favicon" not in str(p)]
        self.browser.problems.clear()
        self.assertEqual(problems, [])
        outside = [url for url in self.browser.requests if not url.startswith(("http://127.0.0.1:", "about:", "data:"))]
        self.assertEqual(outside, [], "the pages ask other servers")

    def check(self, name):
        for width, dark in WINDOWS:
            self.browser.show(width, dark=dark)
            self.assertEqual(self.browser.run(CHECK), [], f"{name} at {width}, dark: {dark}")
            self.browser.shot(f"{name}-{width}-{'dark' if dark else 'light'}")
        self.browser.show(1280)

    def test_playground(self):
        browser = self.browser
        browser.show(1280)
        browser.open(self.home + "/")
        browser.wait("document.querySelectorAll('[name=model]').length === 4")
        self.check("playground-empty")
        # By keyboard alone: the first tab stop skips the links.
        browser.run("document.activeElement.blur()")
        browser.key("Tab", 9)
        self.assertEqual(browser.run("document.activeElement.className"), "skip")
        browser.run("document.getElementById('prompt').focus()")
        browser.call("Input.insertText", text="w5 w6 w7")
        browser.run("document.getElementsByName('kind')[1].click(); document.getElementById('tokens').value = 24")
        browser.key("Enter", 13, modifiers=2)
        browser.wait("document.getElementById('status').textContent.includes('complete')")
        texts = browser.run("Array.from(document.querySelectorAll('.output .text'), e => e.textContent)")
        names = browser.run("Array.from(document.querySelectorAll('.output h3'), e => e.textContent)")
        self.assertEqual(len(names), 4)
        for name, text in zip(names, texts):
            answer = self.server.post(
                "/v1/completions", {"model": name, "prompt": "w5 w6 w7", "max_tokens": 24, "temperature": 0, "seed": 0})
            self.assertEqual(text, answer["choices"][0]["text"], name)
        self.assertTrue(browser.run(
            "Array.from(document.querySelectorAll('.output')).every(e => e.getAttribute('aria-busy') === 'false' &&"
            " document.getElementById(e.getAttribute('aria-labelledby')))"))
        self.check("playground")
        # Escape stops answers that are not complete; then another prompt can be sent.
        browser.run("document.getElementById('tokens').value = 80; document.getElementById('prompt').focus()")
        browser.key("Enter", 13, modifiers=2)
        browser.wait("!document.getElementById('stop').disabled || !document.getElementById('send').disabled")
        browser.key("Escape", 27)
        browser.wait("document.getElementById('send').disabled === false && document.getElementById('stop').disabled")
        # A problem of one model is in its column.
        browser.run("document.getElementById('tokens').value = 8000; document.getElementById('send').click()")
        browser.wait("document.querySelectorAll('.output .problem').length === 4")
        self.assertIn("0 of 4 answers", browser.run("document.getElementById('status').textContent"))
        self.assertTrue(all("400" in problem for problem in browser.problems), browser.problems)
        browser.problems.clear()
        # No model is an advice, not a request.
        browser.run("document.querySelectorAll('[name=model]').forEach(e => e.checked = false)")
        browser.run("document.getElementById('send').click()")
        browser.wait("document.getElementById('status').textContent === 'Choose a model.'")

    def test_lists_and_reports(self):
        browser = self.browser
        browser.open(self.home + "/runs")
        rows = browser.run("Array.from(document.querySelectorAll('tbody th a'), e => e.textContent)")
        self.assertEqual(sorted(rows), ["mail", "map.json", "methods.json", "ranks.json"])
        self.check("runs")
        listed = json.loads(self.peft("runs", ".", "--json"))
        self.assertEqual(
            sorted((run["kind"], run["state"]) for run in listed),
            [("comparison", "finished"), ("soft-prompt map", "finished"), ("sweep", "finished"), ("training", "finished")])
        self.assertIn("methods.json", self.peft("runs", ".", "--kind", "comparison"))
        self.assertNotIn("ranks.json", self.peft("runs", ".", "--kind", "comparison"))
        for name in ("methods", "ranks", "map"):
            browser.open(self.home + "/runs")
            browser.run(f"Array.from(document.querySelectorAll('tbody th a')).find(e => e.textContent === '{name}.json').click()")
            browser.wait("document.querySelector('nav') && location.pathname.startsWith('/runs/')")
            browser.wait("document.readyState === 'complete'")
            browser.shot("report-" + name)
        # Kept without its file.
        os.rename(os.path.join(self.runs, "map.json"), os.path.join(self.folder, "map.json"))
        self.assertIn("Neighbors of soft", self.peft("runs", ".", "--json"))
        os.rename(os.path.join(self.folder, "map.json"), os.path.join(self.runs, "map.json"))
        status, _, text = self.server.send("GET", "/runs/999")
        self.assertEqual((status, text["error"]["type"]), (404, "not_found_error"))

    def test_training(self):
        browser = self.browser
        browser.open(self.home + "/runs")
        browser.run("Array.from(document.querySelectorAll('tbody th a')).find(e => e.textContent === 'mail').click()")
        browser.wait("document.querySelector('#progress .finished') !== null")
        self.assertEqual(browser.run("document.querySelectorAll('#charts figure').length"), 5)
        self.assertEqual(browser.run("document.querySelectorAll('#samples article').length"), 2)
        # Texts are text: no element of a target.
        self.assertEqual(browser.run("document.querySelectorAll('#samples b').length"), 0)
        self.assertIn("<b>", browser.run("document.querySelector('#samples .target .text').textContent"))
        self.check("training")

    def test_live_training(self):
        browser = self.browser
        environment = dict(os.environ, OMP_NUM_THREADS="1")
        run = subprocess.Popen(
            [peft(), "train", "--quiet", *self.options, "--steps", "100000", "--validation", "rows.jsonl",
             "--validate-every", "50", "--samples", "1", "--output", "live"],
            cwd=self.runs, env=environment, stderr=subprocess.PIPE, text=True)
        try:
            for _ in range(300):
                if os.path.exists(os.path.join(self.runs, "live.checkpoint/runs/samples.jsonl")):
                    break
                time.sleep(0.1)
            browser.open(self.home + "/runs")
            browser.run("Array.from(document.querySelectorAll('tbody th a')).find(e => e.textContent === 'live').click()")
            browser.wait("document.querySelector('#progress .running') !== null")
            first = browser.run("document.querySelector('.state span').textContent")
            browser.wait("document.querySelector('#earlier-0') !== null")
            browser.run("document.querySelector('#earlier-0').open = true")
            browser.wait(f"document.querySelector('.state span').textContent !== {json.dumps(first)}")
            browser.wait("document.querySelectorAll('#charts figure').length === 5")
            time.sleep(4)
            self.assertTrue(browser.run("document.querySelector('#earlier-0').open"), "open details were closed")
            self.check("live")
        finally:
            run.terminate()
            run.communicate()
        browser.wait("document.querySelector('#progress .interrupted') !== null")
        self.assertIn("Interrupted", browser.run("document.getElementById('spoken').textContent"))

    def test_keys(self):
        server = test_server.Server(self.folder, "--runs", self.runs, key="secret")
        try:
            home = f"http://127.0.0.1:{server.port}"
            server.key = None
            self.assertEqual(server.send("GET", "/runs")[0], 401)
            self.assertEqual(server.send("GET", "/v1/models", headers={"Accept": "text/html"})[0], 401)
            self.browser.open(home + "/runs")
            self.browser.wait("location.pathname === '/login'")
            self.check("login")
            self.browser.run("document.getElementById('key').value = 'wrong'; document.forms[0].submit()")
            self.browser.wait("document.querySelector('[role=alert]') !== null")
            self.browser.problems.clear()
            self.browser.run("document.getElementById('key').focus()")
            self.browser.call("Input.insertText", text="secret")
            self.browser.key("Enter", 13)
            self.browser.wait("location.pathname === '/runs' && document.querySelector('h1')?.textContent === 'Runs'")
            self.assertEqual(self.browser.run("document.cookie"), "", "a script can read the cookie")
            # The list asks for nothing; the playground may, with the session.
            self.browser.open(home + "/playground")
            self.assertEqual(self.browser.run("fetch('/v1/models').then(r => r.status)"), 200)
            # A redirect leads to this server only.
            status, headers, _ = server.send(
                "POST", "/login", "key=secret&next=%2F%2Felsewhere",
                headers={"Content-Type": "application/x-www-form-urlencoded"})
            self.assertEqual((status, headers["Location"]), (303, "/playground"))
            self.assertIn("HttpOnly; SameSite=Strict", headers["Set-Cookie"])
        finally:
            server.stop()


if __name__ == "__main__":
    if "--shots" in sys.argv:
        place = sys.argv.index("--shots")
        SHOTS = os.path.abspath(sys.argv[place + 1])
        del sys.argv[place : place + 2]
        os.makedirs(SHOTS, exist_ok=True)
    unittest.main()
