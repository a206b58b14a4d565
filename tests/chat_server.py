"""A real HTTP server on loopback that speaks the chat-completions wire, with replies that a test decides."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Reply:
    """An HTTP answer; `drop` closes the connection without one."""

    body: Any = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    drop: bool = False


@dataclass
class Served:
    """What the server saw."""

    url: str
    requests: list[dict[str, Any]] = field(default_factory=list)
    authorizations: list[str] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


def completion(content: str | None, probabilities: dict[str, float] | None = None, **message: Any) -> Reply:
    """A completion with this text, and the first token's probabilities if given."""
    import math

    logprobs = None
    if probabilities is not None:
        options = [{"token": token, "logprob": math.log(p), "bytes": None} for token, p in probabilities.items()]
        logprobs = {"content": [{**options[0], "top_logprobs": options}], "refusal": None}
    choice = {
        "index": 0,
        "finish_reason": "stop",
        "message": {"role": "assistant", "content": content, "refusal": None, **message},
        "logprobs": logprobs,
    }
    usage = {"prompt_tokens": 90, "completion_tokens": 1, "total_tokens": 91}
    return Reply(
        {"id": "c", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice], "usage": usage}
    )


@contextmanager
def serving(reply: Callable[[int, dict[str, Any]], Reply]) -> Iterator[Served]:
    """Serves until the block ends; `reply(number of the request, its body)` decides each answer."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with served.lock:
                number = len(served.requests)
                served.requests.append(body)
                served.authorizations.append(self.headers.get("Authorization", ""))
                served.at_once += 1
                served.most_at_once = max(served.most_at_once, served.at_once)
            answer = reply(number, body)
            with served.lock:
                served.at_once -= 1
            if answer.drop:
                self.close_connection = True
                return
            content = b"" if answer.body is None else json.dumps(answer.body).encode()
            self.send_response(answer.status)
            for name, value in {
                "Content-Type": "application/json",
                "Content-Length": len(content),
                **answer.headers,
            }.items():
                self.send_header(name, str(value))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            """A test prints nothing."""

    class Server(ThreadingHTTPServer):
        request_queue_size = 512  # five, its habit, would reset connections that come at once

    server = Server(("127.0.0.1", 0), Handler)
    served = Served(f"http://127.0.0.1:{server.server_port}/v1")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
