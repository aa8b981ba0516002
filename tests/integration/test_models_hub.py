"""WD14 taggers come from the hub at one commit and with the digests it states; every way it fails is told."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from modbot.cli.main import main
from modbot.errors import ModelError
from modbot.models import registry
from modbot.models.catalogue import known_models
from modbot.models.tagger import open_tagger
from tests.tiny_models import build

NAME = "wd-eva02-large-tagger-v3"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


ENTRY = f"""
models:
  {NAME}:
    kind: tagger
    source: {{from: hub, repo: SmilingWolf/{NAME}, revision: main}}
    files: {{model.onnx: null, selected_tags.csv: null}}
    input_size: 448
    licence: Apache-2.0
"""
"""The fake's model stands in for the pinned one: of the branch as it is, whatever its digests."""


class Hub(ThreadingHTTPServer):
    """As much of the hub as its client asks for: files of one repository at one commit, with their digests."""

    daemon_threads = True

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files = files
        self.digests = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
        self.requests: list[tuple[str, str, str | None]] = []
        self.status = 200
        self.commit: str | None = COMMIT
        self.break_after: list[int] = []
        """For each further GET of the model, after how many bytes the connection breaks."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        hub, asked_range = self.server, self.headers.get("Range")
        hub.requests.append((self.command, self.path, asked_range))
        found = re.fullmatch(rf"/SmilingWolf/{NAME}/resolve/(main|{COMMIT})/(.+)", self.path)
        if hub.status != 200 or found is None or found[2] not in hub.files:
            self._head(hub.status if hub.status != 200 else 404, {"Content-Length": "0"})
            return
        name = found[2]
        data, start = hub.files[name], 0
        headers = {"ETag": f'"{hub.digests[name]}"'}
        if hub.commit:
            headers["X-Repo-Commit"] = hub.commit
        if asked_range:
            start = int(asked_range.removeprefix("bytes=").split("-")[0])
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        body = data[start:]
        self._head(206 if asked_range else 200, headers | {"Content-Length": str(len(body))})
        if self.command == "GET":
            if name == "model.onnx" and hub.break_after:
                body = body[: hub.break_after.pop(0)]
                self.close_connection = True
            self.wfile.write(body)

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's signature
        """The requests are in `requests`."""


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    tiny = build(tmp_path / "tiny")
    server = Hub({name: (tiny / name).read_bytes() for name in ("model.onnx", "selected_tags.csv")})
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    monkeypatch.setenv("MODELS_DIR", str(tmp_path / "models"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "models.yaml").write_text(ENTRY)
    # Else the client asks the hub that its own module was told of at its import who is calling.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY", True)
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda _: None)
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def failed(tmp_path: Path) -> str:
    """The complaint of a fetch that fails and leaves nothing behind."""
    with pytest.raises(ModelError) as caught:
        registry.fetch(known_models()[NAME], tmp_path / "models")
    assert list((tmp_path / "models").iterdir()) == []
    return str(caught.value)


def test_a_tagger_is_fetched_at_one_commit_and_runs(
    hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["models", "get", NAME]) == 0
    assert "Apache-2.0" in capsys.readouterr().err
    folder = tmp_path / "models" / NAME
    assert sorted(path.name for path in folder.iterdir()) == ["model.lock.json", "model.onnx", "selected_tags.csv"]
    lock = json.loads((folder / "model.lock.json").read_bytes())
    assert lock["revision"] == COMMIT
    assert lock["files"] == hub.digests
    asked = [(method, path) for method, path, _ in hub.requests]
    assert asked[0] == ("HEAD", f"/SmilingWolf/{NAME}/resolve/main/model.onnx")
    assert all(COMMIT in path for _, path in asked[1:])
    assert open_tagger(NAME, models_dir=tmp_path / "models", provider="cpu").revision == COMMIT


def test_a_broken_transfer_is_resumed(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 100)
    hub.break_after = [450, 150]
    registry.fetch(known_models()[NAME], tmp_path / "models")
    assert registry.check(NAME, tmp_path / "models").verified
    ranges = [asked for method, path, asked in hub.requests if method == "GET" and path.endswith("model.onnx")]
    assert ranges == [None, "bytes=400-", "bytes=500-"]


def test_a_transfer_that_keeps_breaking_is_told(hub: Hub, tmp_path: Path) -> None:
    hub.break_after = [10] * 20
    said = failed(tmp_path)
    assert "broke" in said
    assert hub.url in said


def test_a_file_that_is_not_what_the_hub_states_is_refused(hub: Hub, tmp_path: Path) -> None:
    hub.digests["model.onnx"] = "0" * 64
    assert "the hub states 0000" in failed(tmp_path)


def test_a_hub_out_of_reach_is_told(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    said = failed(tmp_path)
    assert "http://127.0.0.1:9 can be reached" in said
    monkeypatch.setenv("HF_ENDPOINT", "not a url")
    assert "not a url" in failed(tmp_path)
    assert hub.requests == []


def test_a_hub_that_is_switched_off_is_told(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import close_session, constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    close_session()
    try:
        assert "HF_HUB_OFFLINE" in failed(tmp_path)
    finally:
        monkeypatch.undo()
        close_session()
    assert hub.requests == []


@pytest.mark.parametrize(("status", "complaint"), [(401, "HF_TOKEN"), (404, "answers 404"), (500, "answers 500")])
def test_a_refusal_is_told(hub: Hub, tmp_path: Path, status: int, complaint: str) -> None:
    hub.status = status
    assert complaint in failed(tmp_path)


def test_what_is_no_hub_is_told(hub: Hub, tmp_path: Path) -> None:
    hub.commit = None
    assert "no commit" in failed(tmp_path)


def test_p1_does_not_fetch_a_tagger_by_itself(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="modbot models get"):
        open_tagger(NAME, models_dir=tmp_path / "models", provider="cpu")
    assert hub.requests == []
