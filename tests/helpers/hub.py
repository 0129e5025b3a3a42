"""A Hugging Face Hub on loopback, as far as datasets are listed and read, with storage on a port of its own. For tests.

What it answers follows huggingface_hub's requests: `/api/datasets/ID/revision/REVISION`,
`/api/datasets/ID/tree/REVISION/FOLDER` in pages, `/api/datasets/ID/refs`, and `/datasets/ID/resolve/REVISION/FILE`,
which redirects to storage for large files; without `/datasets` it is a file of a model. It ends every thread that it
starts.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from email.message import Message
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, quote, unquote, urlsplit

SIGNATURE = "Signature=only-for-you"
"""In addresses of storage, as a CDN has it; it must not turn up in a message."""


@dataclass
class Repository:
    """A dataset: its commits, and who may read it."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tokens: frozenset[str] | None = None  # who may read; None for everybody
    gated: bool = False  # strangers are told that it exists

    def push(self, files: Mapping[str, bytes], branch: str = "main") -> str:
        """Put files into a branch in the place of those that are there; the commit."""
        commit = hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()
        self.commits[commit] = dict(files)
        self.branches[branch] = commit
        return commit

    def commit(self, revision: str) -> str | None:
        """What a branch, tag or commit stands for."""
        return self.branches.get(revision, revision if revision in self.commits else None)


def is_large(path: str) -> bool:
    """Whether a file lies in large file storage, as the Hub's .gitattributes has it for such suffixes."""
    return path.endswith((".parquet", ".tar", ".zip", ".gz"))


@dataclass
class Request:
    """What was asked, and how many bytes of a body went out."""

    path: str
    headers: Message
    sent: int = 0


class Visit(BaseHTTPRequestHandler):
    """One request. An answer is a function of it."""

    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        """Note the request, and give the answer of the first fault that fits, else the true one."""
        self.noted = Request(self.path, self.headers)
        self.server.hub.note(self.noted)
        with suppress(ConnectionError):
            self.server.hub.answer(self)

    do_HEAD = do_GET  # noqa: N815 - http.server calls it so

    def reply(self, body: bytes = b"", status: int = 200, *, length: int | None = None, **headers: str | int) -> None:
        """Send an answer and close. `length` is said to be that of the body, -1 for no word about it."""
        self.close_connection = True
        self.send_response(status)
        told = len(body) if length is None else length
        for name, value in {"Connection": "close", "Content_Length": told, **headers}.items():
            if name != "Content_Length" or told >= 0:
                self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.noted.sent = len(body)  # first, so that nobody who has the body finds it missing
            self.wfile.write(body)

    def reply_json(self, value: Any, **headers: str) -> None:
        """Send JSON."""
        self.reply(json.dumps(value).encode(), Content_Type="application/json", **headers)

    def refuse(self, status: int, code: str, message: str = "") -> None:
        """Send an error as the Hub does: in headers, with the message in the body too."""
        told = {"X_Error_Code": code} if code else {}
        self.reply(
            json.dumps({"error": message}).encode(),
            status,
            Content_Type="application/json",
            **told,
            X_Error_Message=message,
        )

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


Answer = Callable[[Visit], None]


class _Server(ThreadingHTTPServer):
    daemon_threads = False  # so that closing waits for them
    request_queue_size = 128

    def __init__(self, hub: Hub) -> None:
        super().__init__(("127.0.0.1", 0), Visit)
        self.hub = hub

    def handle_error(self, *_: Any) -> None:
        """A client that hangs up is no news."""


class Hub:
    """The Hub while the `with` block lasts. Repositories may be pushed to meanwhile."""

    def __init__(self, page: int = 1000) -> None:
        self.repositories: dict[str, Repository] = {}
        self.page = page  # entries of a listing
        self.requests: list[Request] = []
        self._faults: list[tuple[str, Answer, int]] = []
        self._lock = threading.Lock()
        self._servers = (_Server(self), _Server(self))
        self._threads = [threading.Thread(target=server.serve_forever, args=(0.02,)) for server in self._servers]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for server, thread in zip(self._servers, self._threads, strict=True):
            server.shutdown()
            server.server_close()
            thread.join()

    @property
    def url(self) -> str:
        """What HF_ENDPOINT has to say."""
        return f"http://127.0.0.1:{self._servers[0].server_address[1]}"

    def repository(self, name: str, files: Mapping[str, bytes], **settings: Any) -> Repository:
        """A new dataset with these files on its branch main."""
        made = self.repositories[name] = Repository(**settings)
        made.push(files)
        return made

    def fault(self, where: str, answer: Answer, times: int = 1) -> None:
        """Answer so to the next `times` requests whose address matches the pattern `where`."""
        self._faults.append((where, answer, times))

    def heal(self) -> None:
        """Forget all faults that are left, and the requests so far."""
        self._faults.clear()
        self.requests.clear()

    def note(self, request: Request) -> None:
        """Keep a request."""
        with self._lock:
            self.requests.append(request)

    def sent(self, where: str) -> int:
        """Bytes of bodies that went out for addresses that match `where`."""
        return sum(request.sent for request in self.requests if re.search(where, request.path))

    def asked(self, where: str) -> list[Request]:
        """Requests whose address matches `where`."""
        return [request for request in self.requests if re.search(where, request.path)]

    def answer(self, visit: Visit) -> None:
        """A fault if one is due, else the truth."""
        with self._lock:
            due = next((place for place, fault in enumerate(self._faults) if re.search(fault[0], visit.path)), None)
            if due is None:
                answer: Answer = self._truth
            else:
                where, answer, times = self._faults[due]
                self._faults[due : due + 1] = [(where, answer, times - 1)] if times > 1 else []
        answer(visit)

    def _truth(self, visit: Visit) -> None:
        address = urlsplit(visit.path)
        routes: list[tuple[str, Callable[..., None]]] = [
            (r"/storage/(.+)", self._storage),
            (r"/api/datasets/([^/]+/[^/]+)/refs", self._refs),
            (r"/api/(?:datasets|models)/([^/]+/[^/]+)/revision/([^/]+)", self._revision),
            (r"/api/(?:datasets|models)/([^/]+/[^/]+)/tree/([^/]+)(?:/(.+))?", self._tree),
            (r"/(?:datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", self._resolve),
        ]
        for pattern, route in routes:
            if match := re.fullmatch(pattern, address.path):
                parts = [unquote(part or "") for part in match.groups()]
                if route == self._storage or self._may_read(visit, parts[0], listing=route != self._resolve):
                    route(visit, *parts)
                return
        visit.refuse(404, "", "Sorry, we can't find the page you are looking for.")

    def _may_read(self, visit: Visit, name: str, *, listing: bool) -> bool:
        repository = self.repositories.get(name)
        token = visit.headers.get("Authorization", "").removeprefix("Bearer ")
        if token == "unknown":
            visit.refuse(401, "", "Invalid credentials in Authorization header")
        elif repository and (repository.tokens is None or token in repository.tokens or (repository.gated and listing)):
            return True
        elif repository and repository.gated:
            told = "you are not in the authorized list" if token else "You must have access to it and be authenticated"
            visit.refuse(403 if token else 401, "GatedRepo", f"Access to dataset {name} is restricted. {told}")
        else:
            visit.refuse(404 if token else 401, "RepoNotFound" if token else "", "Repository not found")
        return False

    def _refs(self, visit: Visit, name: str) -> None:
        refs = self.repositories[name].branches.items()
        branches = [{"name": ref, "ref": f"refs/heads/{ref}", "targetCommit": commit} for ref, commit in refs]
        visit.reply_json({"branches": branches, "tags": [], "converts": []})

    def _files(self, visit: Visit, name: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        commit = self.repositories[name].commit(revision)
        if commit is None:
            visit.refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            return None
        return commit, self.repositories[name].commits[commit]

    def _revision(self, visit: Visit, name: str, revision: str) -> None:
        if found := self._files(visit, name, revision):
            siblings = [{"rfilename": path} for path in sorted(found[1])]
            visit.reply_json({"_id": "0", "id": name, "sha": found[0], "private": False, "siblings": siblings})

    def _tree(self, visit: Visit, name: str, revision: str, folder: str) -> None:
        found = self._files(visit, name, revision)
        if found is None:
            return
        below = {path: data for path, data in found[1].items() if not folder or path.startswith(f"{folder}/")}
        if folder and not below:
            visit.refuse(404, "EntryNotFound", f"{folder} does not exist on {revision!r}")
            return
        query = parse_qs(urlsplit(visit.path).query)
        entries = _entries(below, folder, recursive=query.get("recursive") == ["true"])
        start = int(query.get("cursor", ["0"])[0])
        query["cursor"] = [str(start + self.page)]
        after = "&".join(f"{key}={quote(values[0])}" for key, values in query.items())
        more = (
            {"Link": f'<{self.url}{urlsplit(visit.path).path}?{after}>; rel="next"'}
            if len(entries) > start + self.page
            else {}
        )
        visit.reply_json(entries[start : start + self.page], **more)

    def _resolve(self, visit: Visit, name: str, revision: str, path: str) -> None:
        found = self._files(visit, name, revision)
        if found is None:
            return
        commit, files = found
        if path not in files:
            visit.refuse(404, "EntryNotFound", "Entry not found")
            return
        data = files[path]
        sha256 = hashlib.sha256(data).hexdigest()
        if not is_large(path):
            etag = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
            visit.reply(data, X_Repo_Commit=commit, ETag=f'"{etag}"')
            return
        port = self._servers[1].server_address[1]
        visit.reply(
            b"Found. Redirecting to storage",
            HTTPStatus.FOUND,
            Location=f"http://127.0.0.1:{port}/storage/{quote(name)}/{sha256}?{SIGNATURE}&file={quote(path)}",
            X_Repo_Commit=commit,
            X_Linked_ETag=f'"{sha256}"',
            X_Linked_Size=len(data),
        )

    def _storage(self, visit: Visit, place: str) -> None:
        name, _, sha256 = place.rpartition("/")
        everything = [data for files in self.repositories[name].commits.values() for data in files.values()]
        data = next(data for data in everything if hashlib.sha256(data).hexdigest() == sha256)
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", visit.headers.get("Range", ""))
        if not asked:
            visit.reply(data, ETag=f'"{sha256}"')
            return
        start, stop = int(asked[1]), min(int(asked[2] or len(data)) + 1, len(data))
        visit.reply(data[start:stop], 206, Content_Range=f"bytes {start}-{stop - 1}/{len(data)}")


def _entries(files: Mapping[str, bytes], folder: str, *, recursive: bool) -> list[dict[str, Any]]:
    """A listing in the Hub's form: folders and files below a folder, or right in it."""
    start = len(folder) + 1 if folder else 0
    folders = {path[: place.start()] for path in files for place in re.finditer("/", path) if place.start() > start}
    entries = [
        {"type": "directory", "oid": hashlib.sha1(path.encode()).hexdigest(), "size": 0, "path": path}
        for path in folders
    ]
    for path, data in files.items():
        entry: dict[str, Any] = {"type": "file", "oid": hashlib.sha1(data).hexdigest(), "size": len(data), "path": path}
        if is_large(path):
            entry["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
        entries.append(entry)
    wanted = [entry for entry in entries if recursive or "/" not in entry["path"][start:]]
    return sorted(wanted, key=lambda entry: hashlib.sha1(entry["path"].encode()).hexdigest())  # in no order that helps


# -- faults


def status(code: int, **headers: str | int) -> Answer:
    """An error of the server's."""
    return lambda visit: visit.reply(b"", code, **headers)


def page(body: bytes) -> Answer:
    """What somebody else in the way says."""
    return lambda visit: visit.reply(body, Content_Type="text/html")


def hang_up(visit: Visit) -> None:
    """The connection is closed without a word."""
    visit.close_connection = True


def cut(length: int | None) -> Answer:
    """The right range, broken off in the middle, with the whole length promised or with no length (-1)."""

    def answer(visit: Visit) -> None:
        start, stop = (int(number) for number in visit.headers["Range"].removeprefix("bytes=").split("-"))
        half = bytes((stop - start) // 2)
        promised = stop - start + 1 if length is None else length
        visit.reply(half, 206, length=promised, Content_Range=f"bytes {start}-{stop}/*")

    return answer


def other_range(visit: Visit) -> None:
    """As many bytes as were asked for, of another place."""
    start, stop = (int(number) for number in visit.headers["Range"].removeprefix("bytes=").split("-"))
    visit.reply(bytes(stop - start + 1), 206, Content_Range=f"bytes {start + 1}-{stop + 1}/*")


def wrong_bytes(visit: Visit) -> None:
    """The range that was asked for, with other bytes in it."""
    start, stop = (int(number) for number in visit.headers["Range"].removeprefix("bytes=").split("-"))
    visit.reply(bytes(stop - start + 1), 206, Content_Range=f"bytes {start}-{stop}/*")
