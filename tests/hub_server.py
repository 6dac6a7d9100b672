"""A Hub on loopback: a real HTTP server that speaks the protocol huggingface_hub uses, with faults on demand.

A test module imports `running_hub`, which is the fixture `hub`. Large files are redirected to another
origin (``localhost`` instead of ``127.0.0.1``), as the real Hub does, and that origin refuses to see a token.
"""

import asyncio
import base64
import hashlib
import json
import re
import socket
import threading
import time
from dataclasses import dataclass, field

import pytest
import uvicorn
import yaml
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, RedirectResponse, Response, StreamingResponse

OWNER_TOKEN = "hf_ownerOwnerOwnerOwner"          # may write to acme/...
READER_TOKEN = "hf_readerReaderReaderRead"       # a valid user without any right to acme/...
LARGE = (".safetensors", ".png", ".bin")         # kept in large file storage whatever their size


def git_oid(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@dataclass(frozen=True)
class Commit:
    sha: str
    message: str
    files: dict[str, bytes]


@dataclass
class Repository:
    private: bool = False
    gated: bool = False
    commits: list[Commit] = field(default_factory=list)
    tags: dict[str, str] = field(default_factory=dict)

    def commit(self, message: str, files: dict[str, bytes]) -> Commit:
        parent = self.commits[-1].sha if self.commits else ""
        entry = [parent, len(self.commits), message, sorted((name, sha256(body)) for name, body in files.items())]
        self.commits.append(Commit(hashlib.sha1(json.dumps(entry).encode()).hexdigest(), message, dict(files)))
        return self.commits[-1]

    def find(self, revision: str) -> Commit | None:
        wanted = self.commits[-1].sha if revision == "main" else self.tags.get(revision, revision)
        return next((commit for commit in self.commits if commit.sha == wanted), None)


@dataclass
class Fault:
    """What happens to the next `times` requests whose "METHOD /path" matches `pattern`."""

    pattern: str
    kind: str                  # "status", "flip" (one byte), "short" (half a body), "hang", "drop" or "lost"
    times: int = 1
    status: int = 503
    headers: dict[str, str] = field(default_factory=dict)
    body: str = ""


class Hub:
    """The server's state, open to the tests: repositories, every request seen, faults to come."""

    def __init__(self, port: int):
        self.endpoint, self.storage = f"http://127.0.0.1:{port}", f"http://localhost:{port}"
        self.users = {OWNER_TOKEN: "acme", READER_TOKEN: "reader"}
        self.repositories: dict[str, Repository] = {}
        self.large: dict[str, bytes] = {}
        self.requests: list[str] = []          # "METHOD /path"
        self.leaks: list[str] = []             # requests to the storage origin that carried a token
        self.faults: list[Fault] = []
        self.tells_oids = True                 # whether preupload says what a path holds already
        self.watch = lambda line: None         # called with each request before it is answered

    def fail(self, pattern: str, kind: str = "status", **settings) -> None:
        self.faults.append(Fault(pattern, kind, **settings))

    def fault(self, request: str) -> Fault | None:
        for fault in self.faults:
            if fault.times > 0 and re.search(fault.pattern, request):
                fault.times -= 1
                return fault
        return None

    def publish(self, repo: str, files: dict[str, bytes], message: str = "Add files", **settings) -> str:
        """Commit `files` as the server's own user would, and return the commit."""
        repository = self.repositories.setdefault(repo, Repository(**settings))
        whole = {**(repository.commits[-1].files if repository.commits else {}), **files}
        return repository.commit(message, whole).sha

    def seen(self, pattern: str) -> int:
        return sum(bool(re.search(pattern, request)) for request in self.requests)


def error(status: int, code: str, message: str) -> JSONResponse:
    return JSONResponse({"error": message}, status, headers={"X-Error-Code": code, "X-Error-Message": message})


def application(hub: Hub) -> FastAPI:
    app = FastAPI(openapi_url=None)

    def user(request: Request) -> str | None:
        return hub.users.get(request.headers.get("authorization", "").removeprefix("Bearer "))

    def access(request: Request, repo: str, *, write: bool = False, content: bool = False):
        """Return the repository, or the response that refuses it, worded and coded as the Hub does."""
        who, repository = user(request), hub.repositories.get(repo)
        if request.headers.get("authorization") and who is None:
            return error(401, "", "Invalid credentials in Authorization header")
        owner = who is not None and who == repo.split("/")[0]
        if repository is None or (repository.private and not owner):
            return error(404 if who else 401, "RepoNotFound", "Repository not found")
        if repository.gated and content and not owner:
            return error(403 if who else 401, "GatedRepo", f"Access to model {repo} is restricted")
        if write and not owner:
            return error(403 if who else 401, "", "You don't have the rights to write to this repository")
        return repository

    def note_token(request: Request) -> None:
        if "authorization" in request.headers:
            hub.leaks.append(f"{request.method} {request.url.path}")

    def at(repository: Repository, revision: str):
        return repository.find(revision) or error(404, "RevisionNotFound", f"Invalid rev id: {revision}")

    @app.get("/api/whoami-v2")
    def whoami(request: Request):
        name = user(request)
        known = {"type": "user", "name": name, "orgs": [], "auth": {}}
        return known if name else error(401, "", "Invalid username or password.")

    @app.post("/api/repos/create")
    async def create(request: Request):
        asked, who = await request.json(), user(request)
        if who is None:
            return error(401, "", "Invalid username or password.")
        owner = asked.get("organization") or who
        if owner != who:
            return error(403, "", f"You don't have the rights to create a model under the namespace {owner!r}")
        repo = f"{owner}/{asked['name']}"
        answer = {"url": f"{hub.endpoint}/{repo}", "name": repo}
        if repo in hub.repositories:
            return JSONResponse({**answer, "error": "You already created this model repo"}, 409)
        private = asked.get("private") or asked.get("visibility") == "private"
        hub.repositories[repo] = Repository(private=bool(private))
        hub.repositories[repo].commit("initial commit", {".gitattributes": b"*.safetensors filter=lfs -text\n"})
        return answer

    @app.post("/api/validate-yaml")
    async def validate_yaml(request: Request):
        content = (await request.json())["content"]
        front = re.match(r"---\r?\n(.*?)\r?\n---(\r?\n|$)", content, re.DOTALL)
        try:
            known = yaml.safe_load(front[1]) if front else None
        except yaml.YAMLError as reason:
            return JSONResponse({"errors": [{"message": f"invalid YAML: {reason}"}], "warnings": []}, 400)
        warnings = [] if known else [{"message": "empty or missing yaml metadata in repo card"}]
        return {"errors": [], "warnings": warnings}

    def sibling(name: str, content: bytes, blobs: bool) -> dict:
        entry = {"rfilename": name}
        if blobs:
            entry |= {"size": len(content), "blobId": git_oid(content)}
        if blobs and name.endswith(LARGE):
            pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256(content)}\nsize {len(content)}\n"
            lfs = {"sha256": sha256(content), "size": len(content), "pointerSize": len(pointer)}
            entry |= {"blobId": git_oid(pointer.encode()), "lfs": lfs}
        return entry

    def model_info(request: Request, repo: str, revision: str):
        repository = access(request, repo)
        if isinstance(repository, Response):
            return repository
        commit = at(repository, revision)
        if isinstance(commit, Response):
            return commit
        siblings = [sibling(name, content, "blobs" in request.query_params) for name, content in commit.files.items()]
        return {
            "_id": "0", "id": repo, "modelId": repo, "sha": commit.sha, "private": repository.private,
            "gated": "auto" if repository.gated else False, "disabled": False, "tags": [], "siblings": siblings,
        }

    @app.get("/api/models/{owner}/{name}/revision/{revision:path}")
    def info_at(request: Request, owner: str, name: str, revision: str):
        return model_info(request, f"{owner}/{name}", revision)

    @app.get("/api/models/{owner}/{name}/commits/{revision:path}")
    def commits(request: Request, owner: str, name: str, revision: str):
        repository = access(request, f"{owner}/{name}")
        if isinstance(repository, Response):
            return repository
        day = "2026-01-01T00:00:00.000Z"
        return [
            {"id": commit.sha, "title": commit.message, "message": "", "date": day, "authors": [{"user": owner}]}
            for commit in reversed(repository.commits)
        ]

    @app.get("/api/models/{owner}/{name}/refs")
    def refs(request: Request, owner: str, name: str):
        repository = access(request, f"{owner}/{name}")
        if isinstance(repository, Response):
            return repository
        tags = [{"name": tag, "ref": f"refs/tags/{tag}", "targetCommit": sha} for tag, sha in repository.tags.items()]
        branch = {"name": "main", "ref": "refs/heads/main", "targetCommit": repository.commits[-1].sha}
        return {"branches": [branch], "converts": [], "tags": tags}

    @app.post("/api/models/{owner}/{name}/tag/{revision:path}")
    async def tag(request: Request, owner: str, name: str, revision: str):
        repository = access(request, f"{owner}/{name}", write=True)
        if isinstance(repository, Response):
            return repository
        commit = at(repository, revision)
        if isinstance(commit, Response):
            return commit
        repository.tags[(await request.json())["tag"]] = commit.sha
        return {}

    @app.get("/api/models/{owner}/{name}/tree/{revision:path}")
    def tree(request: Request, owner: str, name: str, revision: str):
        repository = access(request, f"{owner}/{name}")
        if isinstance(repository, Response):
            return repository
        commit = at(repository, revision)
        if isinstance(commit, Response):
            return commit
        return [entry(name, content) for name, content in commit.files.items()]

    def entry(name: str, content: bytes) -> dict:
        known = sibling(name, content, blobs=True)
        lfs = {"lfs": {**known["lfs"], "oid": known["lfs"]["sha256"]}} if "lfs" in known else {}
        return {"type": "file", "path": name, "size": len(content), "oid": known["blobId"], **lfs}

    @app.post("/api/models/{owner}/{name}/paths-info/{revision:path}")
    async def paths_info(request: Request, owner: str, name: str, revision: str):
        repository = access(request, f"{owner}/{name}")
        if isinstance(repository, Response):
            return repository
        commit = at(repository, revision)
        if isinstance(commit, Response):
            return commit
        paths = (await request.form()).getlist("paths")
        return [entry(path, commit.files[path]) for path in paths if path in commit.files]

    @app.get("/api/models/{owner}/{name}")
    def info(request: Request, owner: str, name: str):
        return model_info(request, f"{owner}/{name}", "main")

    @app.post("/api/models/{owner}/{name}/preupload/{revision:path}")
    async def preupload(request: Request, owner: str, name: str, revision: str):
        repository = access(request, f"{owner}/{name}", write=True)
        if isinstance(repository, Response):
            return repository
        head = repository.commits[-1].files
        ignored = head.get(".gitignore", b"").decode().split()

        def mode(path: str) -> dict:
            large = path.endswith(LARGE)
            oid = (sha256 if large else git_oid)(head[path]) if path in head and hub.tells_oids else None
            kind = "lfs" if large else "regular"
            return {"path": path, "uploadMode": kind, "shouldIgnore": path in ignored, "oid": oid}

        return {"files": [mode(file["path"]) for file in (await request.json())["files"]]}

    @app.post("/{owner}/{name}.git/info/lfs/objects/batch")
    async def batch(request: Request, owner: str, name: str):
        repository = access(request, f"{owner}/{name}", write=True)
        if isinstance(repository, Response):
            return repository
        objects = []
        for item in (await request.json())["objects"]:
            upload = {"href": f"{hub.storage}/storage/{item['oid']}", "header": {}}
            verify = {"href": f"{hub.endpoint}/{owner}/{name}.git/verify", "header": {}}
            actions = {} if item["oid"] in hub.large else {"actions": {"upload": upload, "verify": verify}}
            objects.append({**item, **actions})
        return {"transfer": "basic", "objects": objects}

    @app.put("/storage/{oid}")
    async def store(request: Request, oid: str):
        note_token(request)
        content = await request.body()
        if sha256(content) != oid:
            return Response(status_code=400)
        hub.large[oid] = content
        return Response()

    @app.post("/{owner}/{name}.git/verify")
    async def verify(request: Request, owner: str, name: str):
        asked = await request.json()
        found = hub.large.get(asked["oid"])
        return {} if found is not None and len(found) == asked["size"] else Response(status_code=404)

    @app.post("/api/models/{owner}/{name}/commit/{revision:path}")
    async def commit(request: Request, owner: str, name: str, revision: str):
        repository = access(request, f"{owner}/{name}", write=True)
        if isinstance(repository, Response):
            return repository
        lines = [json.loads(line) for line in (await request.body()).splitlines()]
        header, files = lines[0]["value"], dict(repository.commits[-1].files)
        if header.get("parentCommit", repository.commits[-1].sha) != repository.commits[-1].sha:
            return error(412, "", "A commit has happened since. Please refresh and try again.")
        for line in lines[1:]:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile" and value["oid"] in hub.large:
                files[value["path"]] = hub.large[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
            else:
                return error(400, "", f"Cannot commit {line['key']} {value['path']}")
        made = repository.commit(header["summary"], files)
        url = f"{hub.endpoint}/{owner}/{name}/commit/{made.sha}"
        return {"commitUrl": url, "commitOid": made.sha, "hookOutput": "", "success": True}

    @app.api_route("/{owner}/{name}/resolve/{rest:path}", methods=["GET", "HEAD"])
    def resolve(request: Request, owner: str, name: str, rest: str):
        repository = access(request, f"{owner}/{name}", content=True)
        if isinstance(repository, Response):
            return repository
        revision, _, path = rest.partition("/")
        commit = at(repository, revision)
        if isinstance(commit, Response):
            return commit
        if path not in commit.files:
            missing = error(404, "EntryNotFound", "Entry not found")
            missing.headers["X-Repo-Commit"] = commit.sha
            return missing
        content = commit.files[path]
        if not path.endswith(LARGE):
            return send(request, content, {"X-Repo-Commit": commit.sha, "ETag": f'"{git_oid(content)}"'})
        oid = sha256(content)
        hub.large[oid] = content
        known = {"X-Repo-Commit": commit.sha, "X-Linked-Etag": f'"{oid}"', "X-Linked-Size": str(len(content))}
        return RedirectResponse(f"{hub.storage}/storage/{oid}", 302, headers=known)

    @app.get("/storage/{oid}")
    def stored(request: Request, oid: str):
        note_token(request)
        return send(request, hub.large[oid], {"ETag": f'"{oid}"'})

    def send(request: Request, content: bytes, headers: dict[str, str]) -> Response:
        size, first = len(content), 0
        if asked := re.fullmatch(r"bytes=(\d+)-", request.headers.get("range", "")):
            first = int(asked[1])
            headers["Content-Range"] = f"bytes {first}-{size - 1}/{size}"
        headers |= {"Content-Length": str(size - first), "Accept-Ranges": "bytes"}
        status = 206 if asked else 200
        if request.method == "HEAD":
            return Response(status_code=status, headers=headers)
        body = content[first:]
        fault = request.scope.get("fault")
        if fault and fault.kind == "flip":
            middle = len(body) // 2
            body = body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :]
        if fault and fault.kind == "short":
            body = body[: len(body) // 2]
        return StreamingResponse(iter([body]), status, headers=headers)

    return app


class Door:
    """ASGI: writes every request down and lets the faults happen that concern the whole request."""

    def __init__(self, app: FastAPI, hub: Hub):
        self.app, self.hub = app, hub

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        line = f"{scope['method']} {scope['path']}"
        self.hub.requests.append(line)
        self.hub.watch(line)
        fault = scope["fault"] = self.hub.fault(line)
        if fault and fault.kind == "status":
            return await Response(fault.body, fault.status, headers=fault.headers)(scope, receive, send)
        if fault and fault.kind == "hang":
            return await asyncio.sleep(1)
        if fault and fault.kind == "drop":
            return await _cut(send)
        if fault and fault.kind == "lost":          # the work is done, the answer never arrives
            await self.app(scope, receive, _nowhere)
            return await _cut(send)
        return await self.app(scope, receive, send)


async def _nowhere(message) -> None:
    pass


async def _cut(send) -> None:
    """Promise a body and close the connection instead."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"100")]})


@pytest.fixture(name="hub")
def running_hub(monkeypatch, tmp_path):
    """A running Hub for this process and its children; the cache is empty, nobody is logged in, waits are short."""
    from huggingface_hub import constants

    import zoo.hub

    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)      # read once, at import: both are needed
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)         # another test may have been offline by then
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-login"))
    monkeypatch.setattr(zoo.hub, "DELAYS", (0.0, 0.0))
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_OFFLINE", "HF_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        state = Hub(listener.getsockname()[1])
        door = Door(application(state), state)
        config = uvicorn.Config(door, log_level="critical", lifespan="off", timeout_graceful_shutdown=1)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        monkeypatch.setenv("HF_ENDPOINT", state.endpoint)
        yield state
        server.should_exit = True
        thread.join(timeout=5)
