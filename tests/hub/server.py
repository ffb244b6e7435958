"""A small Hugging Face Hub on this machine: what huggingface_hub asks for, and no more."""

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any


class Hub(ThreadingHTTPServer):
    """Repositories by name: {revision: commit}, and {file: bytes} of each commit.

    Attributes:
        requests: (method, path) of all so far.
        elsewhere: files come from another path, to which their own redirects.
        cut: how many of the next answers with a file break off in the middle.
        short: files are shorter than was said before.
        gated: every repository is.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.refs: dict[str, dict[str, str]] = {}
        self.commits: dict[str, dict[str, bytes]] = {}
        self.requests: list[tuple[str, str]] = []
        self.elsewhere = self.short = self.gated = False
        self.cut = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def commit(self, name: str, files: dict[str, bytes], revision: str = "main") -> str:
        """A new commit with these files and those that were there before."""
        refs = self.refs.setdefault(name, {})
        held = {**self.commits.get(refs.get(revision, ""), {}), **files}
        number = hashlib.sha1(f"{name}{len(self.commits)}".encode()).hexdigest()
        self.commits[number] = held
        refs[revision] = number
        return number

    def publish(self, name: str, folder: Path, revision: str = "main") -> str:
        files = {path.name: path.read_bytes() for path in folder.iterdir()}
        return self.commit(name, files, revision)

    def unplug(self) -> None:
        """Be no longer there."""
        self.shutdown()
        self.server_close()

    def fetched(self) -> list[str]:
        """The names of the files whose contents were sent."""
        files = ("/resolve/", "/elsewhere/")
        sent = [p for m, p in self.requests if m == "GET" and any(word in p for word in files)]
        return [path.rpartition("/")[2] for path in sent]


class Handler(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *words: Any) -> None:
        pass

    def answer(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def refuse(self, status: int, code: str) -> None:
        self.answer(status, headers={"X-Error-Code": code})

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.server.requests.append((self.command, path))
        if found := re.fullmatch(r"/elsewhere/(\w+)/(.+)", path):
            return self.send_file(found[1], found[2])
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree)/(.+))?", path):
            return self.describe(found[1], found[2], found[3] or "main")
        found = re.fullmatch(r"/([^/]+/[^/]+)/resolve/(.+)/([^/]+)", path)
        commit = self.find(found[1], found[2]) if found else None
        if found is None or commit is None:
            return None
        if found[3] not in self.server.commits[commit]:
            return self.refuse(404, "EntryNotFound")
        if not self.server.elsewhere:
            return self.send_file(commit, found[3])
        return self.answer(302, headers=self.facts(commit, found[3], f"/elsewhere/{commit}"))

    def find(self, name: str, revision: str) -> str | None:
        """The commit; None if the answer has been given."""
        refs = self.server.refs.get(name)
        if self.server.gated:
            return self.refuse(403, "GatedRepo")
        if refs is None:
            return self.refuse(404, "RepoNotFound")
        commit = refs.get(revision, revision)
        if commit not in refs.values() and commit not in self.server.commits:
            return self.refuse(404, "RevisionNotFound")
        return commit

    def describe(self, name: str, what: str | None, revision: str) -> None:
        commit = self.find(name, revision)
        if commit is None:
            return
        found: Any = {"id": name, "sha": commit, "siblings": [], "tags": [], "private": False}
        if what == "tree":
            files = self.server.commits.get(commit, {})
            found = [
                {"type": "file", "path": name, "size": len(data), "oid": "0" * 40}
                for name, data in files.items()
            ]
        self.answer(200, json.dumps(found).encode(), {"Content-Type": "application/json"})

    def facts(self, commit: str, name: str, elsewhere: str = "") -> dict[str, str]:
        data = self.server.commits[commit][name]
        etag = hashlib.sha256(data).hexdigest()
        found = {"X-Repo-Commit": commit, "ETag": f'"{etag}"'}
        if elsewhere:
            found |= {"Location": f"{self.server.url}{elsewhere}/{name}", "X-Linked-ETag": etag}
        if elsewhere or self.server.short:
            found["X-Linked-Size"] = str(len(data))
        return found

    def send_file(self, commit: str, name: str) -> None:
        data, headers = self.server.commits[commit][name], self.facts(commit, name)
        if self.command == "GET" and self.server.short:
            data = data[: len(data) // 2]
        start = int((self.headers.get("Range") or "bytes=0-")[6:].partition("-")[0])
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        if self.command == "GET" and self.server.cut and name == "model.safetensors":
            self.server.cut -= 1
            headers["Content-Length"] = str(len(data) - start)
            data = data[: len(data) // 2]
        self.answer(206 if start else 200, data[start:], headers)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.requests.append(("POST", self.path))
        found: Any = {}
        if self.path == "/api/repos/create":
            told = json.loads(body)
            name = f"{told['organization']}/{told['name']}"
            exists = name in self.server.refs
            self.server.refs.setdefault(name, {}).setdefault("main", "0" * 40)
            return self.json({"url": f"{self.server.url}/{name}"}, 409 if exists else 200)
        if self.path == "/api/validate-yaml":
            found = {"errors": [], "warnings": []}
        elif "/preupload/" in self.path:
            files = json.loads(body)["files"]
            plain = {"uploadMode": "regular", "shouldIgnore": False}
            found = {"files": [{"path": file["path"], **plain} for file in files]}
        elif named := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/main", self.path):
            lines = [json.loads(line) for line in body.splitlines()]
            values = [line["value"] for line in lines if line["key"] == "file"]
            files = {v["path"]: base64.b64decode(v["content"]) for v in values}
            number = self.server.commit(named[1], files)
            url = f"{self.server.url}/{named[1]}/commit/{number}"
            found = {"commitOid": number, "commitUrl": url}
        return self.json(found)

    def json(self, value: Any, status: int = 200) -> None:
        self.answer(status, json.dumps(value).encode(), {"Content-Type": "application/json"})


@contextmanager
def serving() -> Iterator[Hub]:
    with Hub() as hub:
        thread = Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield hub
        finally:
            hub.shutdown()
            thread.join()
