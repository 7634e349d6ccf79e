"""A stand-in for the Hugging Face Hub on the loopback interface, with faults on request.

    with FakeHub() as hub, use(hub, monkeypatch, tmp_path):
        revision = hub.add_repo("org/name", {"model.safetensors": weights})
        hub.fail(Fault("cut", path="model.safetensors"))
        hf_hub_download("org/name", "model.safetensors", revision=revision)

It speaks the routes that the client library uses without Xet: downloads, listings, commits with small and
large files, squashing, and permanent deletion. It also serves plain files below `/raw/` with ranges, in place
of any other web server."""

from __future__ import annotations

import base64
import importlib
import json
import re
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, unquote

from fake_hub_http import Answer, Fault, FaultyServer, Request, file_answer, json_answer
from fake_hub_store import Commit, RefusedError, Repository, etag_of, is_lfs, sha256_of

if TYPE_CHECKING:
    import pytest

__all__ = ["Commit", "FakeHub", "Fault", "Request", "environment", "use"]

LONGEST_WAIT_S = 0.01
GIT_ATTRIBUTES = {".gitattributes": b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"}


@dataclass(frozen=True, slots=True)
class Call:
    """A request on its way through the routes: the named parts of its path, its query, its range and its
    body."""

    parts: dict[str, str]
    query: dict[str, list[str]]
    span: str
    token: str | None
    body: bytes

    @property
    def kind(self) -> str:
        return (self.parts.get("kinds") or "models").removesuffix("s")

    @property
    def revision(self) -> str:
        return self.parts.get("revision") or "main"


class FakeHub:
    """A Hub in memory at `url`; set `token` to demand it for writing and for private repositories.

    `requests` tells what arrived, `waits_s` for how long the client library of this process wanted to pause
    (see `use`), `hardware` and `settings` are those of the latest Space, and `errors` holds mistakes of this stand-in itself, which leaving the `with` block raises.
    """

    def __init__(self, token: str | None = None) -> None:
        self.token = token
        self.waits_s: list[float] = []
        self.hardware = ""
        self.settings: dict[str, dict[str, str]] = {"secrets": {}, "variables": {}}
        self._repositories: dict[tuple[str, str], Repository] = {}
        self._raw: dict[str, bytes] = {}
        self._lock = threading.RLock()
        self._server = FaultyServer(self._answer)
        self.requests = self._server.requests
        self.errors = self._server.errors
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> FakeHub:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close()
        if self.errors and kind is None:
            raise self.errors[0]

    def close(self) -> None:
        """Stop at once: requests that hang and connections that are kept alive end without an answer."""
        self._server.stop()

    def add_repo(
        self,
        name: str,
        files: Mapping[str, bytes] | None = None,
        *,
        kind: str = "model",
        private: bool = False,
    ) -> str:
        """Make a repository of kind "model" or "dataset" with one commit and return the commit's id."""
        with self._lock:
            if (kind, name) in self._repositories:
                raise ValueError(f"{name} exists")
            repository = self._repositories[kind, name] = Repository(name, kind, private)
            return repository.commit("initial commit", files or {})

    def commit(
        self,
        name: str,
        files: Mapping[str, bytes],
        *,
        kind: str = "model",
        delete: Iterable[str] = (),
        message: str = "update",
    ) -> str:
        """Commit as somebody else would and return the commit's id."""
        with self._lock:
            return self._repositories[kind, name].commit(message, files, delete)

    def files(self, name: str, *, kind: str = "model", revision: str = "main") -> dict[str, bytes]:
        with self._lock:
            return dict(self._repositories[kind, name].at(revision).files)

    def commits(self, name: str, *, kind: str = "model") -> list[Commit]:
        """Return the commits that can still be reached, oldest first."""
        with self._lock:
            return list(self._repositories[kind, name].commits)

    def lfs_objects(self, name: str, *, kind: str = "model") -> dict[str, bytes]:
        """Return the stored large files by SHA-256, also those that no commit names any more."""
        with self._lock:
            return dict(self._repositories[kind, name].lfs)

    def has_repo(self, name: str, *, kind: str = "model") -> bool:
        with self._lock:
            return (kind, name) in self._repositories

    def add_raw(self, path: str, content: bytes) -> str:
        """Serve a plain file and return its address."""
        with self._lock:
            self._raw[path] = content
        return f"{self.url}/raw/{path}"

    def seen(self, method: str = "", path: str = "") -> list[Request]:
        """Return the requests of a method ("" is any) whose path matches an expression."""
        return [
            request
            for request in list(self.requests)
            if method in {"", request.method} and re.search(path, request.path)
        ]

    def fail(self, fault: Fault) -> Fault:
        """Add a fault; each request meets the first one that takes it."""
        with self._server.lock:
            self._server.faults.append(fault)
        return fault

    def clear_faults(self) -> None:
        with self._server.lock:
            self._server.faults.clear()

    def _answer(self, method: str, target: str, headers: Message, body: bytes) -> Answer:
        path, _, query = target.partition("?")
        verb = "GET" if method == "HEAD" else method
        matches = (
            (re.fullmatch(pattern, path), route) for wanted, pattern, route in ROUTES if wanted == verb
        )
        match, route = next(((match, route) for match, route in matches if match), (None, None))
        if match is None or route is None:
            return json_answer({"error": f"no route for {method} {path}"}, 404)
        parts = {name: unquote(text) for name, text in match.groupdict().items() if text}
        call = Call(
            parts,
            parse_qs(query),
            headers.get("Range", "") if method == "GET" else "",
            headers.get("Authorization"),
            body,
        )
        try:
            with self._lock:
                # open to all; an address that was handed out
                if route not in {FakeHub._validate, FakeHub._lfs_put}:
                    self._authorize(call, writes=verb == "POST")
                return route(self, call)
        except RefusedError as refusal:
            texts = {
                "Error-Code": refusal.code,
                "Error-Message": refusal.message,
                "Repo-Commit": refusal.commit,
            }
            headers = {f"X-{name}": text for name, text in texts.items() if text}
            return json_answer({"error": refusal.message}, refusal.status, headers)

    def _authorize(self, call: Call, *, writes: bool) -> None:
        if self.token is None:
            return
        if call.token not in {None, f"Bearer {self.token}"}:
            raise RefusedError(401, "Invalid credentials in Authorization header")
        repository = self._repositories.get((call.kind, call.parts.get("repo", "")))
        hidden = "repo" in call.parts and (repository is None or repository.private)
        if call.token is None and (writes or hidden):
            # The library tells this case by the status for https addresses only; the code has the same effect
            # for http.
            raise RefusedError(
                401, "Invalid username or password.", "RepoNotFound" if "repo" in call.parts else ""
            )

    def _repository(self, call: Call) -> Repository:
        repository = self._repositories.get((call.kind, call.parts["repo"]))
        if repository is None:
            raise RefusedError(404, "Repository not found", "RepoNotFound")
        return repository

    def _raw_file(self, call: Call) -> Answer:
        content = self._raw.get(call.parts["path"])
        if content is None:
            return Answer(404, b"404: Not Found")
        return file_answer(content, call.span, {"ETag": f'"{sha256_of(content)}"'})

    def _resolve(self, call: Call) -> Answer:
        path = call.parts["path"]
        commit, content = self._repository(call).file(call.revision, path)
        headers = {"X-Repo-Commit": commit.oid, "ETag": f'"{etag_of(path, content)}"'}
        if is_lfs(path, len(content)):
            headers |= {"X-Linked-Etag": headers["ETag"], "X-Linked-Size": str(len(content))}
        return file_answer(content, call.span, headers)

    def _info(self, call: Call) -> Answer:
        return json_answer(self._repository(call).info(call.revision))

    def _tree(self, call: Call) -> Answer:
        recursive = call.query.get("recursive", ["false"])[0].lower() in {"true", "1"}
        return json_answer(
            self._repository(call).tree(call.revision, call.parts.get("path", ""), recursive=recursive)
        )

    def _create(self, call: Call) -> Answer:
        asked = json.loads(call.body)
        name, kind = f"{asked.get('organization') or 'tester'}/{asked['name']}", asked.get("type") or "model"
        url = f"{self.url}/{name}" if kind == "model" else f"{self.url}/{kind}s/{name}"
        if self.has_repo(name, kind=kind):
            return json_answer({"error": f"You already created this {kind} repo", "url": url}, 409)
        self.hardware = asked.get("hardware", "")
        self.add_repo(name, GIT_ATTRIBUTES, kind=kind, private=asked.get("visibility") == "private")
        return json_answer({"url": url, "name": name})

    def _set(self, call: Call) -> Answer:
        self._repository(call)
        asked = json.loads(call.body)
        self.settings[call.parts["path"]][asked["key"]] = asked["value"]
        return self._list_variables(call)

    def _list_variables(self, call: Call) -> Answer:
        self._repository(call)
        rows = self.settings["variables"].items()
        return json_answer({name: {"key": name, "value": value} for name, value in rows})

    def _validate(self, call: Call) -> Answer:
        front = re.match(r"\s*---\r?\n(.*?)\r?\n---", json.loads(call.body)["content"], re.DOTALL)
        licensed = front and re.search(r"^license:\s*\S", front[1], re.MULTILINE)
        errors = [] if licensed else [{"message": '"license" is required'}]
        return json_answer({"errors": errors, "warnings": []}, 400 if errors else 200)

    def _preupload(self, call: Call) -> Answer:
        files = self._repository(call).at(call.revision).files
        rows = []
        for asked in json.loads(call.body)["files"]:
            path, mode = asked["path"], "lfs" if is_lfs(asked["path"], asked["size"]) else "regular"
            known = {"oid": etag_of(path, files[path])} if path in files else {}
            rows.append({"path": path, "uploadMode": mode, "shouldIgnore": False} | known)
        return json_answer({"files": rows})

    def _lfs_batch(self, call: Call) -> Answer:
        repository = self._repository(call)
        base = f"{self.url}/lfs/{call.kind}s/{repository.name}"
        rows = []
        for asked in json.loads(call.body)["objects"]:
            sha256 = asked["oid"]
            row = {"oid": sha256, "size": asked["size"]}
            if sha256 not in repository.lfs:
                row["actions"] = {"upload": {"href": f"{base}/{sha256}"}}
            rows.append(row)
        return json_answer({"transfer": "basic", "objects": rows})

    def _lfs_put(self, call: Call) -> Answer:
        if sha256_of(call.body) != call.parts["sha256"]:
            raise RefusedError(400, "The content does not match its SHA-256.")
        self._repository(call).lfs[sha256_of(call.body)] = call.body
        return Answer()

    def _commit(self, call: Call) -> Answer:
        repository = self._repository(call)
        head = repository.at(call.revision).oid
        if head != repository.commits[-1].oid:
            raise RefusedError(400, "Commits go to a branch.")
        files: dict[str, bytes] = {}
        delete: list[str] = []
        message = ""
        for key, value in ((line["key"], line["value"]) for line in map(json.loads, call.body.splitlines())):
            if key == "header":
                message = "\n\n".join(filter(None, (value["summary"], value.get("description"))))
                if not head.startswith(value.get("parentCommit") or head):
                    raise RefusedError(412, "A commit has happened since. Please refresh and try again.")
            elif key == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif key == "lfsFile":
                if value["oid"] not in repository.lfs:
                    raise RefusedError(400, f"The large file {value['oid']} was not uploaded.")
                files[value["path"]] = repository.lfs[value["oid"]]
            else:
                delete.append(value["path"])
        oid = repository.commit(message, files, delete)
        return json_answer(
            {"success": True, "commitOid": oid, "commitUrl": f"{self.url}/{repository.name}/commit/{oid}"}
        )

    def _squash(self, call: Call) -> Answer:
        if call.revision != "main":
            raise RefusedError(404, f"Invalid rev id: {call.revision}", "RevisionNotFound")
        return json_answer({"commitOid": self._repository(call).squash(json.loads(call.body)["message"])})

    def _lfs_list(self, call: Call) -> Answer:
        return json_answer(self._repository(call).lfs_rows())

    def _lfs_delete(self, call: Call) -> Answer:
        self._repository(call).delete_lfs(json.loads(call.body)["deletions"]["sha"])
        return json_answer({})


_REPO = r"(?P<repo>[^/]+/[^/]+)"
_API = rf"/api/(?P<kinds>models|datasets|spaces)/{_REPO}"
_REVISION = r"(?P<revision>[^/]+)"
ROUTES: list[tuple[str, str, Callable[[FakeHub, Call], Answer]]] = [
    ("GET", r"/raw/(?P<path>.+)", FakeHub._raw_file),
    ("GET", rf"/(?:(?P<kinds>datasets|spaces)/)?{_REPO}/resolve/{_REVISION}/(?P<path>.+)", FakeHub._resolve),
    ("GET", rf"{_API}(?:/revision/{_REVISION})?", FakeHub._info),
    ("GET", rf"{_API}/tree/{_REVISION}(?:/(?P<path>.+))?", FakeHub._tree),
    ("GET", rf"{_API}/lfs-files", FakeHub._lfs_list),
    ("POST", r"/api/repos/create", FakeHub._create),
    ("POST", r"/api/validate-yaml", FakeHub._validate),
    ("POST", rf"{_API}/preupload/{_REVISION}", FakeHub._preupload),
    ("POST", rf"/(?:(?P<kinds>datasets|spaces)/)?{_REPO}\.git/info/lfs/objects/batch", FakeHub._lfs_batch),
    ("PUT", rf"/lfs/(?P<kinds>models|datasets|spaces)/{_REPO}/(?P<sha256>\w+)", FakeHub._lfs_put),
    ("POST", rf"{_API}/commit/{_REVISION}", FakeHub._commit),
    ("POST", rf"{_API}/super-squash/{_REVISION}", FakeHub._squash),
    ("POST", rf"{_API}/lfs-files/batch", FakeHub._lfs_delete),
    ("POST", rf"{_API}/(?P<path>secrets|variables)", FakeHub._set),
    ("GET", rf"{_API}/variables", FakeHub._list_variables),
]


def environment(hub: FakeHub, cache_dir: Path, timeout_s: int = 5) -> dict[str, str]:
    """Return the variables that point a subprocess at the hub; `cache_dir` is its HF_HOME, and downloads lie
    in its folder `hub`."""
    switched_on = ("DISABLE_XET", "DISABLE_TELEMETRY", "DISABLE_UPDATE_CHECK", "DISABLE_PROGRESS_BARS")
    folders = {
        "HF_HOME": str(cache_dir),
        "HF_HUB_CACHE": str(cache_dir / "hub"),
        "HF_TOKEN_PATH": str(cache_dir / "token"),
    }
    timeouts = {f"HF_HUB_{name}_TIMEOUT": str(timeout_s) for name in ("ETAG", "DOWNLOAD")}
    switches = {"HF_HUB_OFFLINE": "0", "NO_PROXY": "127.0.0.1"} | {
        f"HF_HUB_{name}": "1" for name in switched_on
    }
    return {"HF_ENDPOINT": hub.url} | folders | timeouts | switches


@contextmanager
def use(hub: FakeHub, monkeypatch: pytest.MonkeyPatch, cache_dir: Path, timeout_s: int = 5) -> Iterator[None]:
    """Point the client library of this process at the hub while the block runs, with an empty cache of its
    own and nobody logged in.

    The library reads its environment when it is imported, so its constants are replaced in every module that
    holds one. Its pauses between attempts are cut to 10 ms and noted in `hub.waits_s`; everything is as
    before afterwards."""
    from huggingface_hub import constants, hf_api
    from huggingface_hub.utils import _http as http

    # they copy constants, so they must not be imported within the block
    for name in ("_cache_manager", "_git_credential", "tqdm"):
        importlib.import_module(f"huggingface_hub.utils.{name}")
    variables = environment(hub, cache_dir, timeout_s)
    values: dict[str, object] = {name: text for name, text in variables.items() if hasattr(constants, name)}
    values |= {
        name: text == "1"
        for name, text in values.items()
        if name.startswith("HF_HUB_DISABLE_") or name == "HF_HUB_OFFLINE"
    }
    values |= {"HF_HUB_ETAG_TIMEOUT": timeout_s, "HF_HUB_DOWNLOAD_TIMEOUT": timeout_s}
    values |= {
        "ENDPOINT": hub.url,
        "HUGGINGFACE_CO_URL_TEMPLATE": hub.url + "/{repo_id}/resolve/{revision}/{filename}",
    }

    def pause(seconds: float) -> None:
        hub.waits_s.append(seconds)
        time.sleep(min(seconds, LONGEST_WAIT_S))

    with monkeypatch.context() as patch:
        for name, text in variables.items():
            patch.setenv(name, text)
        for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_OIDC_RESOURCE"):
            patch.delenv(name, raising=False)
        modules = [
            module
            for name, module in list(sys.modules.items())
            if name.partition(".")[0] == "huggingface_hub"
        ]
        for module in modules:
            for name in values.keys() & vars(module).keys():
                patch.setattr(module, name, values[name])
            if vars(module).get("time") is time:
                patch.setattr(module, "time", SimpleNamespace(**{**vars(time), "sleep": pause}))
        patch.setattr(hf_api.api, "endpoint", hub.url)
        # Each upload of the library is deprecated use of its own HTTP client, which would be an error under
        # pytest.
        patch.setattr("httpx2._content.warnings", SimpleNamespace(warn=lambda *_, **__: None))
        # so that a factory set within the block goes with it
        patch.setattr(http, "_GLOBAL_CLIENT_FACTORY", http._GLOBAL_CLIENT_FACTORY)
        http.close_session()
        try:
            yield
        finally:
            http.close_session()
