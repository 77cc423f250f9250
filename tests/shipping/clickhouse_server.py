"""ClickHouse's HTTP interface in front of chDB, which runs ClickHouse's own SQL in this process."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

PASSWORD = "open sesame"


class ClickHouseServer:
    """One server; `requests` are the parameters it was sent."""

    def __init__(self, directory: Path) -> None:
        from chdb.session import Session

        self.session = Session(str(directory))
        self.requests: list[dict[str, str]] = []
        self.failing = 0  # so many answers to inserts get lost after they took effect
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                status, answer = outer.answer(dict(parse_qsl(urlsplit(self.path).query)), self.headers, body)
                self.send_response(status)
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: object) -> None:
                pass

        # One thread for all: chDB's session is asked by one at a time.
        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()
        self.url = f"http://tokenport:open%20sesame@127.0.0.1:{self._server.server_port}"

    def answer(self, parameters: dict[str, str], headers: Any, body: bytes) -> tuple[int, bytes]:
        self.requests.append(parameters)
        if headers.get("X-ClickHouse-Key") != PASSWORD:
            return 403, b"Code: 516. DB::Exception: tokenport: Authentication failed"
        query = parameters.pop("query")
        given = {name.removeprefix("param_"): text for name, text in parameters.items() if name.startswith("param_")}
        settings = [
            f"{name} = '{text}'"
            for name, text in parameters.items()
            if not name.startswith("param_") and name not in ("database", "wait_end_of_query")
        ]
        try:
            if settings:
                self.session.query(f"SET {', '.join(settings)}")
            text = f"{query}\n{body.decode()}" if body else query
            found = self.session.query(text, params=given).bytes() if given else self.session.query(text).bytes()
        except Exception as error:
            return 500, str(error).encode()
        if query.startswith("INSERT") and self.failing:
            self.failing -= 1
            return 500, b"Code: 209. DB::NetException: the answer is lost"
        return 200, found

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self.session.close()


@contextmanager
def clickhouse(directory: Path) -> Iterator[ClickHouseServer]:
    server = ClickHouseServer(directory)
    try:
        yield server
    finally:
        server.close()
