"""The endpoint that `benchmarks.judge` asks, in a process of its own: `python -m benchmarks.judge_server`.

It speaks chat completions with log-normal latencies, works on at most so many requests at once, and counts what it
serves. It looks at no picture: every answer is 1. The port is printed on the first line.
"""

import argparse
import asyncio
import json
import math
import random
import time
from typing import Any

from aiohttp import web

PICTURE_TOKENS = 415
"""Of 512 x 512 pixels to gpt-4.1-mini."""
BYTES_PER_TOKEN = 4
LARGEST_BODY = 1 << 26


class Server:
    """`slots` requests at once; the latency is drawn while a slot is held, from exp(N(ln median, sigma^2))."""

    def __init__(self, *, slots: int, median: float, sigma: float):
        self._slots, self._median, self._sigma = slots, median, sigma
        self._free, self._random = asyncio.Semaphore(slots), random.Random(0)
        self.forget()

    def forget(self) -> None:
        self.finished: list[float] = []
        self.uploaded = self.input_tokens = self.output_tokens = 0

    async def chat(self, request: web.Request) -> web.Response:
        body = await request.read()
        async with self._free:
            await asyncio.sleep(math.exp(self._random.gauss(math.log(self._median), self._sigma)))
        names = _names(body)
        content = json.dumps(dict.fromkeys(names, 1)) if names else "1"
        usage = _usage(body, content)
        self.finished.append(time.perf_counter())
        self.uploaded += len(body)
        self.input_tokens += usage["prompt_tokens"]
        self.output_tokens += usage["completion_tokens"]
        return web.json_response(_completion(content, usage))

    async def counts(self, _: web.Request) -> web.Response:
        """What was served since the last time this was asked."""
        found = {
            "finished": self.finished,
            "uploaded": self.uploaded,
            "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
        }
        self.forget()
        return web.json_response(found)


def _names(body: bytes) -> list[str]:
    """The criteria that a structured request asks for; none of one that asks for a digit."""
    if b'"response_format"' not in body:
        return []
    return list(json.loads(body)["response_format"]["json_schema"]["schema"]["properties"])


def _usage(body: bytes, content: str) -> dict[str, int]:
    start = body.index(b"data:image/")
    picture = body.index(b'"', start) - start
    prompt = PICTURE_TOKENS + (len(body) - picture) // BYTES_PER_TOKEN
    output = max(1, len(content) // BYTES_PER_TOKEN)
    return {"prompt_tokens": prompt, "completion_tokens": output, "total_tokens": prompt + output}


def _completion(content: str, usage: dict[str, int]) -> dict[str, Any]:
    options = [{"token": token, "logprob": math.log(p), "bytes": None} for token, p in (("1", 0.9), ("0", 0.09))]
    logprobs = {"content": [{**options[0], "top_logprobs": options}], "refusal": None}
    message = {"role": "assistant", "content": content, "refusal": None}
    choice = {"index": 0, "finish_reason": "stop", "message": message, "logprobs": logprobs}
    return {"id": "c", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice], "usage": usage}


async def serve(server: Server) -> None:
    app = web.Application(client_max_size=LARGEST_BODY)
    app.router.add_post("/v1/chat/completions", server.chat)
    app.router.add_get("/counts", server.counts)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=1024).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slots", type=int, default=256)
    parser.add_argument("--median", type=float, default=1.2)
    parser.add_argument("--sigma", type=float, default=0.5)
    options = parser.parse_args()
    asyncio.run(serve(Server(slots=options.slots, median=options.median, sigma=options.sigma)))


if __name__ == "__main__":
    main()
