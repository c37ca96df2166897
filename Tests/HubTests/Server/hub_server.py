"""A small hub for the tests: what a folder holds, with the faults that a JSON file asks for.

    python3 hub_server.py FOLDER

FOLDER/repos/<owner>/<name>/ holds a repository's files. FOLDER/faults.json says what is to go wrong; it is read at each
request, and what a fault counts down is kept here. Two servers run, "hub" and "storage" (another host, for redirects);
their ports are printed as one line. FOLDER/requests.jsonl gets one line a request.

A file named *.safetensors, *.bin or *.lfs is "large": its ETag is the SHA-256, and its content lies on the storage host.

Uploads go the way of huggingface_hub: a repository is created, files are announced (preupload), large ones are sent to the
storage host in one piece or, with the setting "part_size", in parts, and a commit puts all of them into FOLDER/repos.
"""

import base64
import hashlib
import json
import os
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import quote, unquote, urlsplit

folder = sys.argv[1]
log_lock = threading.Lock()
used = {}
ports = {}


def faults():
    try:
        with open(os.path.join(folder, "faults.json")) as file:
            return json.load(file)
    except FileNotFoundError:
        return {}


def counted(key, times):
    """Whether a fault that happens so many times happens now."""
    with log_lock:
        used[key] = used.get(key, 0) + 1
        return used[key] <= times


def commit_of(repo):
    return hashlib.sha1(("commit " + repo + faults().get("commit", "")).encode()).hexdigest()


def content_of(repo, path):
    name = os.path.join(folder, "repos", repo, path)
    if not os.path.isfile(name):
        return None
    with open(name, "rb") as file:
        return file.read()


def is_large(path):
    return path.endswith((".safetensors", ".bin", ".lfs"))


def etag_of(path, content):
    if is_large(path):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    role = "hub"

    def log_message(self, *arguments):
        pass

    def answer(self, status, headers=(), body=b"", length=True):
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        if length:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def refuse(self, status, code=None, message=None):
        headers = [("X-Error-Code", code)] if code else []
        headers += [("X-Error-Message", message)] if message else []
        self.answer(status, headers, b'{"error": "no"}')

    def do_HEAD(self):
        self.do_GET()

    def log_request_line(self, path):
        with log_lock, open(os.path.join(folder, "requests.jsonl"), "a") as log:
            entry = {
                "host": self.role,
                "method": self.command,
                "path": path,
                "token": self.headers.get("Authorization"),
                "range": self.headers.get("Range"),
            }
            log.write(json.dumps(entry) + "\n")

    def meets_fault(self, path, what):
        """Whether a fault answered this request."""
        for fault in what.get("status", []):
            if fault["path"] in path and self.command in fault.get("methods", ["HEAD", "GET"]):
                if counted(json.dumps(fault), fault.get("times", 1 << 60)):
                    headers = [(k, v) for k, v in fault.get("headers", {}).items()]
                    self.answer(fault["code"], headers, fault.get("body", "trouble").encode())
                    return True
        return False

    def do_GET(self):
        path = unquote(urlsplit(self.path).path)
        self.log_request_line(path)
        what = faults()
        if self.meets_fault(path, what):
            return None
        wanted = what.get("token")
        if wanted and self.role == "hub" and self.headers.get("Authorization") != "Bearer " + wanted:
            if what.get("gated"):
                return self.refuse(403 if self.headers.get("Authorization") else 401, "GatedRepo", "Access is restricted.")
            return self.refuse(401, None, "Invalid username or password.")
        if self.role == "storage":
            return self.storage(path)
        if path.startswith("/api/models/"):
            return self.listing(path[len("/api/models/") :], what)
        return self.resolve(path[1:], what)

    def listing(self, path, what):
        if "/revision/" not in path:
            path += "/revision/main"
        repo, revision = path.split("/revision/")
        root = os.path.join(folder, "repos", repo)
        if not os.path.isdir(root):
            return self.refuse(404, "RepoNotFound", "Repository not found")
        if revision not in ("main", commit_of(repo), "refs/pr/1"):
            return self.refuse(404, "RevisionNotFound", "Invalid rev id: " + revision)
        siblings = []
        for place, _, files in os.walk(root):
            for file in files:
                name = os.path.relpath(os.path.join(place, file), root)
                content = content_of(repo, name)
                entry = {"rfilename": name}
                if not what.get("plain"):
                    entry.update(size=len(content), blobId="0" * 40)
                    if is_large(name):
                        entry["lfs"] = {"sha256": etag_of(name, content), "size": len(content), "pointerSize": 130}
                    else:
                        entry["blobId"] = etag_of(name, content)
                siblings.append(entry)
        siblings += [{"rfilename": name} for name in what.get("listed", [])]
        body = json.dumps({"id": repo, "sha": commit_of(repo), "siblings": siblings}).encode()
        self.answer(200, [("Content-Type", "application/json")], body)

    def resolve(self, path, what):
        repo, rest = path.split("/resolve/")
        revision, _, file = rest.partition("/")
        commit = [("X-Repo-Commit", commit_of(repo))]
        content = content_of(repo, file)
        if content is None:
            return self.answer(404, commit + [("X-Error-Code", "EntryNotFound")], b"")
        etag = what.get("etag") or etag_of(file, content)
        if is_large(file) and not what.get("direct"):
            headers = commit + [
                ("X-Linked-Etag", '"%s"' % etag),
                ("X-Linked-Size", str(len(content))),
                ("Location", "http://127.0.0.1:%d/store/%s" % (ports["storage"], quote(repo + "/" + file))),
            ]
            return self.answer(302, headers, b"Found. Redirecting")
        if what.get("moved") and not repo.endswith("-new"):
            return self.answer(307, commit + [("Location", "/%s-new/resolve/%s" % (repo, rest))], b"")
        self.content(file, content, commit + [("ETag", '"%s"' % etag)], what)

    def storage(self, path):
        name = path[len("/store/") :]
        owner, repo, file = name.split("/", 2)
        self.content(file, content_of(owner + "/" + repo, file), [("ETag", '"other"')], faults())

    def content(self, file, content, headers, what):
        if self.command == "HEAD":
            if what.get("no_length"):
                self.close_connection = True
                return self.answer(200, headers + [("Connection", "close")], length=False)
            return self.answer(200, headers, content)
        damage = what.get("damage", {}).get(file)
        if damage and counted("damage " + file, damage):
            content = bytes([content[0] ^ 1]) + content[1:]
        start, status = 0, 200
        asked = self.headers.get("Range")
        if asked and not what.get("no_ranges"):
            start = int(asked.split("=")[1].rstrip("-"))
            if start >= len(content):
                return self.answer(416, [("Content-Range", "bytes */%d" % len(content))])
            status = 206
            headers = headers + [("Content-Range", "bytes %d-%d/%d" % (start, len(content) - 1, len(content)))]
        part = content[start:]
        cut = what.get("cut", {}).get(file)
        if cut and counted("cut " + file, cut["times"]):
            self.send_response(status)
            for key, value in headers:
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(part)))
            self.end_headers()
            self.wfile.write(part[: cut["after"]])
            self.wfile.flush()
            self.close_connection = True
            self.connection.shutdown(2)
            return
        if what.get("no_length"):
            self.close_connection = True
            self.answer(status, headers + [("Connection", "close")], length=False)
            self.wfile.write(part)
            return
        pause = what.get("slow", {}).get(file)
        if pause:
            self.answer(status, headers + [("Content-Length", str(len(part)))], length=False)
            for place in range(0, len(part), 50_000):
                self.wfile.write(part[place : place + 50_000])
                time.sleep(pause)
            return
        self.answer(status, headers, part)


    # Uploads

    def do_PUT(self):
        self.do_POST()

    def do_POST(self):
        path = unquote(urlsplit(self.path).path)
        self.log_request_line(path)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        what = faults()
        if self.meets_fault(path, what):
            return None
        if self.role == "storage":
            return self.store(path, body)
        if self.headers.get("Authorization") != "Bearer " + what.get("token", "secret"):
            return self.refuse(401, None, "Invalid username or password.")
        if path == "/api/repos/create":
            return self.create(json.loads(body))
        if path.endswith("/info/lfs/objects/batch"):
            return self.batch(json.loads(body), what)
        if path.startswith("/lfs/"):
            return self.finish_object(path[5:], json.loads(body))
        repo = path[len("/api/models/") :].rsplit("/", 2)[0]
        if not os.path.isdir(os.path.join(folder, "repos", repo)):
            return self.refuse(404, "RepoNotFound", "Repository not found")
        if "/preupload/" in path:
            return self.preupload(json.loads(body))
        return self.commit(repo, body)

    def send_json(self, value, status=200):
        self.answer(status, [("Content-Type", "application/json")], json.dumps(value).encode())

    def create(self, wanted):
        repo = "/".join(part for part in (wanted.get("organization"), wanted["name"]) if part)
        os.makedirs(os.path.join(folder, "repos", repo))
        with open(os.path.join(folder, "created.json"), "w") as file:
            json.dump(wanted, file)
        self.send_json({"url": "http://127.0.0.1/" + repo})

    def preupload(self, wanted):
        answers = []
        for file in wanted["files"]:
            sample = base64.b64decode(file["sample"])
            assert len(sample) == min(512, file["size"])
            mode = "lfs" if is_large(file["path"]) else "regular"
            answers.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": file["path"].endswith(".log")})
        self.send_json({"files": answers})

    def batch(self, wanted, what):
        assert wanted["operation"] == "upload" and wanted["hash_algo"] == "sha256" and wanted["ref"]["name"] == "main"
        objects = []
        for entry in wanted["objects"]:
            oid, size = entry["oid"], entry["size"]
            answer = {"oid": oid, "size": size}
            storage = "http://127.0.0.1:%d/objects/%s" % (ports["storage"], oid)
            verify = {"href": "http://127.0.0.1:%d/lfs/verify" % ports["hub"]}
            if "rejected" in what:
                answer["error"] = {"code": 422, "message": what["rejected"]}
            elif what.get("part_size"):
                count = -(-size // what["part_size"])
                header = {str(i + 1): "%s/%d" % (storage, i + 1) for i in range(count)}
                header["chunk_size"] = str(what["part_size"])
                href = "http://127.0.0.1:%d/lfs/complete" % ports["hub"]
                answer["actions"] = {"upload": {"href": href, "header": header}, "verify": verify}
            elif not os.path.exists(os.path.join(folder, "objects", oid)):
                answer["actions"] = {"upload": {"href": storage}, "verify": verify}
            objects.append(answer)
        self.send_json({"transfer": "multipart" if what.get("part_size") else "basic", "objects": objects})

    def store(self, path, body):
        name = os.path.join(folder, path[1:].replace("/", "-", 2).replace("objects-", "objects/", 1))
        os.makedirs(os.path.dirname(name), exist_ok=True)
        with open(name, "wb") as file:
            file.write(body)
        self.answer(200, [("ETag", '"%s"' % hashlib.md5(body).hexdigest())])

    def finish_object(self, action, wanted):
        name = os.path.join(folder, "objects", wanted["oid"])
        if action == "complete":
            content = b""
            for part in wanted["parts"]:
                with open("%s-%d" % (name, part["partNumber"]), "rb") as file:
                    data = file.read()
                assert part["etag"] == '"%s"' % hashlib.md5(data).hexdigest()
                content += data
            with open(name, "wb") as file:
                file.write(content)
        with open(name, "rb") as file:
            content = file.read()
        if hashlib.sha256(content).hexdigest() != wanted["oid"]:
            return self.refuse(422, None, "the content has another checksum")
        return self.send_json({})

    def commit(self, repo, body):
        assert self.headers["Content-Type"] == "application/x-ndjson"
        lines = [json.loads(line) for line in body.decode().splitlines()]
        assert lines[0]["key"] == "header" and lines[0]["value"]["summary"]
        for line in lines[1:]:
            value = line["value"]
            target = os.path.join(folder, "repos", repo, value["path"])
            os.makedirs(os.path.dirname(target), exist_ok=True)
            if line["key"] == "file":
                content = base64.b64decode(value["content"])
            else:
                with open(os.path.join(folder, "objects", value["oid"]), "rb") as file:
                    content = file.read()
                assert len(content) == value["size"]
            with open(target, "wb") as file:
                file.write(content)
        with open(os.path.join(folder, "commit.json"), "w") as file:
            json.dump(lines[0]["value"], file)
        self.send_json({"commitOid": commit_of(repo), "commitUrl": "http://127.0.0.1/%s/commit/1" % repo})


class StorageHandler(Handler):
    role = "storage"


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        pass


servers = {"hub": Server(("127.0.0.1", 0), Handler), "storage": Server(("127.0.0.1", 0), StorageHandler)}
for role, server in servers.items():
    ports[role] = server.server_address[1]
    threading.Thread(target=server.serve_forever, daemon=True).start()
print(json.dumps(ports), flush=True)
# The tests hold the other end of standard input: where they end, however they end, so does this.
sys.stdin.read()
