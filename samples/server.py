"""A small HTTP server on 127.0.0.1 that hands out a folder's files and counts what was asked for.

    with SampleServer(images) as server:
        ...  # links begin with server.base_url
    server.gets  # Counter: path -> number of GETs

The last part of a path names the file, so that `/r/17/coffee.png` is coffee.png under another link. A name that is
not in the folder answers 404, any other method than GET 501.
"""

from __future__ import annotations

import argparse
import mimetypes
import sys
import threading
from collections import Counter
from collections.abc import Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self

DEFAULT_PORT = 8765


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        self.server.count(self.path)
        name = self.path.partition("?")[0].rsplit("/", 1)[-1]
        data = self.server.files.get(name)
        if data is None:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", mimetypes.guess_type(name)[0] or "application/octet-stream")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
        """Says nothing: the counters tell."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, port: int, files: Mapping[str, bytes]) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.files = files
        self.gets: Counter[str] = Counter()
        self._counting = threading.Lock()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - as the base class has it
        """Tells what went wrong, unless whoever asked is gone: runs that are stopped go without a word."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)

    def count(self, path: str) -> None:
        with self._counting:
            self.gets[path] += 1


class SampleServer:
    """Serves the files that lie in `folder` at start, from memory, until the `with` block ends."""

    def __init__(self, folder: Path, port: int = 0) -> None:
        self._server = _Server(port, {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()})
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    @property
    def host(self) -> str:
        """`127.0.0.1:PORT`, as MODBOT_ALLOW_HOSTS takes it."""
        return f"127.0.0.1:{self._server.server_port}"

    @property
    def base_url(self) -> str:
        return f"http://{self.host}"

    @property
    def gets(self) -> Counter[str]:
        """How often each path was asked for."""
        return self._server.gets

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def main() -> None:
    """`python -m samples.server DIR [--port N]`: serves until interrupted."""
    parser = argparse.ArgumentParser(
        prog="python -m samples.server", description="Hand out a folder's files over HTTP."
    )
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument("--port", type=int, default=DEFAULT_PORT, help="(default: %(default)s)")
    chosen = parser.parse_args()
    with SampleServer(chosen.folder, chosen.port) as server:
        print(f"{server.base_url} hands out {chosen.folder}; Ctrl-C ends it")
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            print(f"{server.gets.total()} files asked for")


if __name__ == "__main__":
    main()
