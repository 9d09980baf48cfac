"""A Hub for the tests, in a separate thread: it serves the real client over HTTP, and can simulate faults.

It implements the requests of `huggingface_hub` for creating, uploading (regular, LFS, multipart LFS), committing,
listing and downloading. Large files are on another host, as on the real Hub: the same server as `localhost`.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatch
from typing import Any
from urllib.parse import unquote

import uvicorn
import yaml
from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.responses import JSONResponse, RedirectResponse
from jobs_server import Jobs

TOKEN = "hf_loopback"
OWNER = "me"
LFS_PATTERNS = ("*.safetensors", "*.onnx", "*.parquet", "*.bin", "*.zip")
LFS_ABOVE = 10_000_000
PARTS_ABOVE = 5_000_000
PART_SIZE = 2_000_000


@dataclass
class Entry:
    """A file in a tree; large files are identified by their SHA-256."""

    content: bytes
    lfs: bool

    @property
    def oid(self) -> str:
        """The hash as computed by the client: SHA-256 of a large file, git's SHA-1 of other files."""
        if self.lfs:
            return hashlib.sha256(self.content).hexdigest()
        return hashlib.sha1(b"blob %d\0" % len(self.content) + self.content).hexdigest()

    def describe(self, path: str) -> dict[str, Any]:
        git_oid = hashlib.sha1(self.oid.encode()).hexdigest() if self.lfs else self.oid
        described: dict[str, Any] = {"type": "file", "path": path, "size": len(self.content), "oid": git_oid}
        if self.lfs:
            described["lfs"] = {"oid": self.oid, "size": len(self.content), "pointerSize": 130}
        return described


Tree = dict[str, Entry]


@dataclass
class Repo:
    repo_id: str
    kind: str
    private: bool
    variables: dict[str, str] = field(default_factory=dict)
    hardware: str = "cpu-basic"
    commits: dict[str, tuple[str, Tree]] = field(default_factory=dict)
    """Message and files by commit."""
    refs: dict[str, str] = field(default_factory=dict)
    """Commit by branch."""
    history: dict[str, list[str]] = field(default_factory=dict)
    """Commit messages of a branch, oldest first."""

    def commit(self, branch: str, message: str, tree: Tree) -> str:
        sha = hashlib.sha1(
            f"{len(self.commits)} {message} {sorted((path, tree[path].oid) for path in tree)}".encode()
        ).hexdigest()
        self.commits[sha] = message, tree
        self.refs[branch] = sha
        self.history.setdefault(branch, []).append(message)
        return sha

    def sha(self, revision: str) -> str:
        sha = self.refs.get(revision, revision)
        if sha not in self.commits:
            raise _error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return sha

    def tree(self, revision: str = "main") -> Tree:
        return self.commits[self.sha(revision)][1]

    def files(self, revision: str = "main") -> dict[str, bytes]:
        return {path: entry.content for path, entry in self.tree(revision).items() if path != ".gitattributes"}


@dataclass
class Fault:
    """A fault of the next `times` requests whose method and path match."""

    method: str
    path: str
    status: int = 0
    """Status code of the answer; 0 breaks the connection in the middle of the request."""
    times: int = 1
    body: str = '{"error": "as the test wants it"}'
    headers: dict[str, str] = field(default_factory=dict)
    cut_answer_after: int | None = None
    """The request is carried out, but the connection breaks after this number of bytes of the answer."""


def _error(status: int, code: str, message: str) -> HTTPException:
    return HTTPException(status, message, {"X-Error-Code": code, "X-Error-Message": message})


class LoopbackHub:
    """The state of the Hub; `app` serves it."""

    def __init__(self) -> None:
        self.repos: dict[tuple[str, str], Repo] = {}
        self.blobs: dict[str, bytes] = {}
        self.parts: dict[str, dict[int, bytes]] = {}
        self.faults: list[Fault] = []
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        """Method, path and headers of every request."""
        self.url = self.cdn = ""
        self.role = "write"
        """Role of the token."""
        self.jobs = Jobs(TOKEN, OWNER)
        self.app = FastAPI()
        self.jobs.add_routes(self.app)
        self._add_routes()

    def repo(self, repo_id: str, kind: str = "models") -> Repo:
        return self.repos[kind, repo_id]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """The app, with simulated faults."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        path = unquote(scope["raw_path"].decode())
        headers = {key.decode(): value.decode() for key, value in scope["headers"]}
        self.requests.append((scope["method"], path, headers))
        fault = next((f for f in self.faults if f.times and f.method == scope["method"] and re.search(f.path, path)), 0)
        if not fault:
            return await self.app(scope, receive, send)
        fault.times -= 1
        if fault.cut_answer_after is not None:
            return await self.app(scope, receive, _cutting(send, receive.__self__.transport, fault.cut_answer_after))
        if fault.status == 0:
            await receive()
            return receive.__self__.transport.abort()
        while (await receive()).get("more_body"):
            pass
        response = Response(fault.body, fault.status, fault.headers, media_type="application/json")
        return await response(scope, receive, send)

    def _find(self, request: Request, kind: str, repo_id: str, write: bool = False) -> Repo:
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        if token and token != TOKEN:
            raise HTTPException(401, "Invalid username or password.")
        repo = self.repos.get((kind, repo_id))
        if repo is None or (repo.private and not token):
            raise _error(404 if token else 401, "RepoNotFound", "Repository not found")
        if write and not token:
            raise HTTPException(401, "Invalid username or password.")
        return repo

    def _add_routes(self) -> None:
        app, api = self.app, "/api/{kind}/{owner}/{name}"

        @app.exception_handler(HTTPException)
        async def explain(_request: Request, error: HTTPException) -> Response:
            return JSONResponse({"error": error.detail}, error.status_code, error.headers)

        @app.get("/api/whoami-v2")
        async def whoami(request: Request) -> Any:
            if request.headers.get("authorization") != f"Bearer {TOKEN}":
                raise HTTPException(401, "Invalid username or password.")
            access = {"type": "access_token", "accessToken": {"displayName": "loopback", "role": self.role}}
            return {"type": "user", "name": OWNER, "orgs": [], "auth": access}

        @app.post("/api/repos/create")
        async def create(request: Request) -> Any:
            asked = await request.json()
            kind, repo_id = f"{asked.get('type', 'model')}s", f"{asked['organization'] or OWNER}/{asked['name']}"
            if request.headers.get("authorization") != f"Bearer {TOKEN}":
                raise HTTPException(401, "Invalid username or password.")
            if asked["organization"] not in (OWNER, None):
                raise HTTPException(403, "You don't have the rights to create a repo under this namespace")
            url = f"{self.url}/{'' if kind == 'models' else f'{kind}/'}{repo_id}"
            if (kind, repo_id) in self.repos:
                return JSONResponse({"error": "You already created this repo", "url": url}, 409)
            repo = self.repos[kind, repo_id] = Repo(repo_id, kind, asked.get("visibility") == "private")
            repo.commit("main", "initial commit", {".gitattributes": Entry(b"*.bin filter=lfs\n", False)})
            return {"url": url, "id": repo_id}

        @app.post("/api/validate-yaml")
        async def validate(request: Request) -> Any:
            content = (await request.json())["content"]
            try:
                yaml.safe_load(re.match(r"---\n(.*?)\n---", content, re.DOTALL)[1])
            except (TypeError, yaml.YAMLError):
                return JSONResponse({"errors": [{"message": "the front matter is no YAML"}], "warnings": []}, 400)
            return {"errors": [], "warnings": []}

        @app.get(api)
        @app.get(api + "/revision/{revision}")
        async def info(request: Request, kind: str, owner: str, name: str, revision: str = "main") -> Any:
            repo = self._find(request, kind, f"{owner}/{name}")
            siblings = [{"rfilename": path} for path in repo.tree(revision)]
            content = {"_id": "1", "id": repo.repo_id, "sha": repo.sha(revision), "private": repo.private}
            content |= {"siblings": siblings, "tags": [], "downloads": 0, "likes": 0, "gated": False, "disabled": False}
            return content | {"lastModified": "2026-01-01T00:00:00.000Z", "createdAt": "2026-01-01T00:00:00.000Z"}

        @app.post(api + "/preupload/{revision}")
        async def preupload(request: Request, kind: str, owner: str, name: str, revision: str) -> Any:
            tree = self._find(request, kind, f"{owner}/{name}", write=True).tree(revision)
            answers = []
            for file in (await request.json())["files"]:
                lfs = file["size"] > LFS_ABOVE or any(fnmatch(file["path"], pattern) for pattern in LFS_PATTERNS)
                answer = {"path": file["path"], "uploadMode": "lfs" if lfs else "regular", "shouldIgnore": False}
                answers.append(answer | ({"oid": tree[file["path"]].oid} if file["path"] in tree else {}))
            return {"files": answers}

        @app.post("/{owner}/{name}.git/info/lfs/objects/batch")
        @app.post("/{kind}/{owner}/{name}.git/info/lfs/objects/batch")
        async def batch(request: Request, owner: str, name: str, kind: str = "models") -> Any:
            self._find(request, kind, f"{owner}/{name}", write=True)
            objects = []
            for asked in (await request.json())["objects"]:
                oid, size = asked["oid"], asked["size"]
                if oid in self.blobs:
                    objects.append({"oid": oid, "size": size})
                    continue
                upload: dict[str, Any] = {"href": f"{self.cdn}/lfs/{oid}"}
                if size > PARTS_ABOVE:
                    numbers = range(1, -(-size // PART_SIZE) + 1)
                    upload = {"href": f"{self.url}/api/complete/{oid}", "header": {"chunk_size": str(PART_SIZE)}}
                    upload["header"] |= {str(number): f"{self.cdn}/lfs/{oid}/{number}" for number in numbers}
                verify = {"href": f"{self.url}/api/verify"}
                objects.append({"oid": oid, "size": size, "actions": {"upload": upload, "verify": verify}})
            return {"transfer": "basic", "objects": objects}

        @app.put("/lfs/{oid}")
        async def upload(request: Request, oid: str) -> Response:
            content = await request.body()
            if hashlib.sha256(content).hexdigest() != oid:
                raise HTTPException(400, "not what was announced")
            self.blobs[oid] = content
            return Response()

        @app.put("/lfs/{oid}/{number}")
        async def upload_part(request: Request, oid: str, number: int) -> Response:
            content = await request.body()
            self.parts.setdefault(oid, {})[number] = content
            return Response(headers={"ETag": hashlib.md5(content).hexdigest()})

        @app.post("/api/complete/{oid}")
        async def complete(request: Request, oid: str) -> Any:
            asked = await request.json()
            parts = [self.parts[oid][part["partNumber"]] for part in asked["parts"]]
            etags = [hashlib.md5(part).hexdigest() for part in parts]
            content = b"".join(parts)
            if etags != [part["etag"] for part in asked["parts"]] or hashlib.sha256(content).hexdigest() != oid:
                raise HTTPException(400, "the parts are not the whole")
            self.blobs[oid] = content
            return {}

        @app.post("/api/verify")
        async def verify(request: Request) -> Any:
            asked = await request.json()
            if len(self.blobs.get(asked["oid"], b"")) != asked["size"]:
                raise HTTPException(404, "not there")
            return {}

        @app.post(api + "/commit/{revision}")
        async def commit(request: Request, kind: str, owner: str, name: str, revision: str) -> Any:
            repo = self._find(request, kind, f"{owner}/{name}", write=True)
            lines = [json.loads(line) for line in (await request.body()).splitlines()]
            header = lines.pop(0)["value"]
            if header.get("parentCommit") not in (None, repo.sha(revision)):
                raise HTTPException(412, "A commit has happened since. Please refresh and try again.")
            tree = dict(repo.tree(revision))
            for line in lines:
                value = line["value"]
                if line["key"] == "file":
                    tree[value["path"]] = Entry(base64.b64decode(value["content"]), False)
                elif line["key"] == "lfsFile":
                    if value["oid"] not in self.blobs:
                        raise HTTPException(400, f"{value['path']} was not uploaded")
                    tree[value["path"]] = Entry(self.blobs[value["oid"]], True)
                elif tree.pop(value["path"], None) is None:
                    raise _error(404, "EntryNotFound", "A file with this name doesn't exist")
            url, branch = f"{self.url}/{'' if kind == 'models' else f'{kind}/'}{repo.repo_id}", revision
            pull_request = None
            if request.query_params.get("create_pr") == "1":
                number = 1 + sum(ref.startswith("refs/pr/") for ref in repo.refs)
                branch, pull_request = f"refs/pr/{number}", f"{url}/discussions/{number}"
            sha = repo.commit(branch, header["summary"], tree)
            return {
                "success": True,
                "commitUrl": f"{url}/commit/{sha}",
                "commitOid": sha,
                "pullRequestUrl": pull_request,
            }

        @app.get(api + "/tree/{revision}")
        @app.get(api + "/tree/{revision}/{path:path}")
        async def tree(
            request: Request, kind: str, owner: str, name: str, revision: str, path: str = "", recursive: bool = False
        ) -> Any:
            files = self._find(request, kind, f"{owner}/{name}").tree(revision)
            prefix = f"{path}/" if path else ""
            below = {name.removeprefix(prefix): entry for name, entry in files.items() if name.startswith(prefix)}
            if not below:
                raise _error(404, "EntryNotFound", f"{path} does not exist on {revision}")
            folders = {"/".join(name.split("/")[:n]) for name in below for n in range(1, name.count("/") + 1)}
            entries = [{"type": "directory", "path": prefix + name, "oid": "0" * 40, "size": 0} for name in folders]
            entries += [entry.describe(prefix + name) for name, entry in below.items()]
            return [e for e in entries if recursive or "/" not in e["path"].removeprefix(prefix)]

        @app.post(api + "/paths-info/{revision}")
        async def paths_info(request: Request, kind: str, owner: str, name: str, revision: str) -> Any:
            files = self._find(request, kind, f"{owner}/{name}").tree(revision)
            paths = (await request.form()).getlist("paths")
            folders = [path for path in paths if any(name.startswith(f"{path}/") for name in files)]
            described = [files[path].describe(path) for path in paths if path in files]
            return described + [{"type": "directory", "path": path, "oid": "0" * 40, "size": 0} for path in folders]

        @app.post(api + "/branch/{branch}")
        async def create_branch(request: Request, kind: str, owner: str, name: str, branch: str) -> Any:
            repo = self._find(request, kind, f"{owner}/{name}", write=True)
            if branch in repo.refs:
                raise HTTPException(409, "Reference already exists")
            start = (await request.json()).get("startingPoint") or "main"
            repo.refs[branch] = repo.sha(start)
            repo.history[branch] = [*repo.history[start]]
            return {}

        @app.delete(api + "/branch/{branch}")
        async def delete_branch(request: Request, kind: str, owner: str, name: str, branch: str) -> Any:
            del self._find(request, kind, f"{owner}/{name}", write=True).refs[branch]
            return {}

        @app.post(api + "/variables")
        async def set_variable(request: Request, kind: str, owner: str, name: str) -> Any:
            asked = await request.json()
            repo = self._find(request, kind, f"{owner}/{name}", write=True)
            repo.variables[asked["key"]] = asked["value"]
            return {key: {"key": key, "value": value} for key, value in repo.variables.items()}

        @app.post(api + "/hardware")
        async def set_hardware(request: Request, kind: str, owner: str, name: str) -> Any:
            repo = self._find(request, kind, f"{owner}/{name}", write=True)
            repo.hardware = (await request.json())["flavor"]
            return {"stage": "BUILDING", "hardware": {"current": None, "requested": repo.hardware}}

        @app.api_route("/{owner}/{name}/resolve/{revision}/{path:path}", methods=["GET", "HEAD"])
        @app.api_route("/{kind}/{owner}/{name}/resolve/{revision}/{path:path}", methods=["GET", "HEAD"])
        async def resolve(
            request: Request, owner: str, name: str, revision: str, path: str, kind: str = "models"
        ) -> Response:
            repo = self._find(request, kind, f"{owner}/{name}")
            sha = repo.sha(revision)
            if path not in repo.tree(sha):
                error = _error(404, "EntryNotFound", f"{path} is not there")
                raise HTTPException(404, error.detail, {**(error.headers or {}), "X-Repo-Commit": sha})
            entry = repo.tree(sha)[path]
            headers = {"X-Repo-Commit": sha, "ETag": f'"{entry.oid}"', "Accept-Ranges": "bytes"}
            if not entry.lfs:
                return _ranged(request, entry.content, headers)
            headers |= {"X-Linked-Etag": f'"{entry.oid}"', "X-Linked-Size": str(len(entry.content))}
            return RedirectResponse(f"{self.cdn}/blobs/{entry.oid}", 302, headers)

        @app.api_route("/blobs/{oid}", methods=["GET", "HEAD"])
        async def blob(request: Request, oid: str) -> Response:
            return _ranged(request, self.blobs[oid], {"ETag": f'"{oid}"', "Accept-Ranges": "bytes"})


def _cutting(send: Any, transport: Any, n_bytes: int) -> Any:
    async def send_some(message: Any) -> None:
        if message["type"] == "http.response.start" and n_bytes:
            return await send(message)
        if n_bytes:
            await send({"type": "http.response.body", "body": message["body"][:n_bytes], "more_body": True})
            await asyncio.sleep(0.1)  # so that they are sent before the connection breaks
        return transport.abort()

    return send_some


def _ranged(request: Request, content: bytes, headers: dict[str, str]) -> Response:
    asked = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("range", ""))
    if asked is None:
        return Response(content, 200, headers, media_type="application/octet-stream")
    start, end = int(asked[1]), min(int(asked[2] or len(content)), len(content) - 1)
    headers = headers | {"Content-Range": f"bytes {start}-{end}/{len(content)}"}
    return Response(content[start : end + 1], 206, headers, media_type="application/octet-stream")


@contextmanager
def running_hub() -> Iterator[LoopbackHub]:
    """A running Hub on a free port of this machine."""
    hub = LoopbackHub()
    config = uvicorn.Config(hub, "127.0.0.1", 0, log_level="critical", http="h11", lifespan="off", ws="none")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    hub.url, hub.cdn = f"http://127.0.0.1:{port}", f"http://localhost:{port}"
    try:
        yield hub
    finally:
        server.should_exit = True
        thread.join(10)
