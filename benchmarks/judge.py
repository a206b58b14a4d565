"""How fast verdicts come from an endpoint, and what they cost: `python -m benchmarks.judge`.

A server in a process of its own answers with log-normal latencies, 256 requests at once. Four clients ask it about the
same pictures and criteria: ours, one request a criterion and one a picture; a bare aiohttp loop that posts the same
bodies and keeps nothing, which is as fast as Python posts; and the pool of eight threads that is usual in the field.
Rates are those of the steady state, by the server's own clock: from when its slots have filled to when they empty.
"""

import asyncio
import json
import math
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import aiohttp
import numpy as np
import openai
import typer
from PIL import Image

from benchmarks.common import Json, Quick, show
from lens_core.records import Criterion, Prompt
from lens_rl.judges import open_backend, open_judge
from lens_rl.judges.backend import Question, Usage
from lens_rl.judges.prices import cost_of, price_of
from lens_rl.recipe import Judge
from rubrics.rubric import Rubric

SLOTS, MEDIAN, SIGMA = 256, 1.2, 0.5
MEAN = MEDIAN * math.exp(SIGMA**2 / 2)
"""Seconds; the mean of a log-normal latency."""
IMAGES, CRITERIA = 1152, 11
SIDE, MOST_BYTES = 512, 32 * 1024
MODEL = "gpt-4.1-mini"
THREADS = 8
IN_FLIGHT = 128
"""Pictures handed to our judge at once; more than the slots take in either shape."""
PROMPT = Prompt(
    "p",
    "A lighthouse on a cliff above a rough sea at dusk, one gull over it, painted in thick oil",
    criteria=tuple(
        Criterion(
            f"criterion {number}", f"Statement {number} about the lighthouse, the sea or the gull holds.", "custom"
        )
        for number in range(CRITERIA)
    ),
)

Shape = Literal["per_criterion", "per_image"]


@dataclass(frozen=True, slots=True)
class Scale:
    """How many pictures a client is asked about: enough to fill the slots for a while."""

    per_criterion: int
    per_image: int
    by_threads: int


FULL, QUICK = Scale(IMAGES, IMAGES, 24), Scale(96, 640, 4)


@dataclass(frozen=True, slots=True)
class Served:
    """What the server counted for one client."""

    finished: list[float]
    uploaded: int
    tokens: Usage

    def rate(self, at_once: int) -> float:
        """Requests a second between the first `at_once` answers and the last."""
        times = sorted(self.finished)
        edge = min(at_once, len(times) // 4)
        return (len(times) - 2 * edge) / (times[-edge - 1] - times[edge - 1])


class Endpoint:
    """The server process."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "benchmarks.judge_server", f"--slots={SLOTS}", f"--median={MEDIAN}",
                   f"--sigma={SIGMA}"]  # fmt: skip
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.url = f"http://127.0.0.1:{int(self._process.stdout.readline())}"

    def counts(self) -> Served:
        """Of what was served since the last call."""
        with urllib.request.urlopen(f"{self.url}/counts") as reply:
            found = json.load(reply)
        tokens = Usage(len(found["finished"]), found["input_tokens"], 0, 0, found["output_tokens"])
        return Served(found["finished"], found["uploaded"], tokens)

    def close(self) -> None:
        self._process.terminate()
        self._process.wait()


def pictures(count: int) -> Iterator[np.ndarray]:
    """Pictures that compress to at most 32 KiB, no two alike: smooth colours with a grain, moved along."""
    random = np.random.default_rng(0)
    bases = []
    for _ in range(min(count, 16)):
        smooth = Image.fromarray(random.integers(80, 176, (8, 8, 3), dtype=np.uint8)).resize((SIDE, SIDE))
        grain = random.normal(0, 0.8, (SIDE, SIDE, 1))
        bases.append(np.clip(np.asarray(smooth) + grain, 0, 255).astype(np.uint8))
    for number in range(count):
        yield np.roll(bases[number % len(bases)], 4 * (number // len(bases)), axis=1)


def ours(endpoint: Endpoint, shape: Shape, images: int) -> float | None:
    """Verdicts of our judge with its store and ledger. Returns what its ledger says they cost."""
    section, rubric = _section(endpoint, shape), Rubric.load("lens")
    with (
        tempfile.TemporaryDirectory() as folder,
        closing(open_judge(section, open_backend(section), rubric, Path(folder) / "verdicts.sqlite")) as judge,
    ):
        waiting: deque[Future[Any]] = deque()
        for image in pictures(images):
            waiting.append(judge.submit(PROMPT, image))
            if len(waiting) >= IN_FLIGHT * (CRITERIA if shape == "per_image" else 1):
                _check(waiting.popleft().result())
        for future in waiting:
            _check(future.result())
        return judge.cost()


def bare(endpoint: Endpoint, shape: Shape, images: int) -> None:
    """The same bodies from an aiohttp loop: no retries, no store, no ledger, replies read and forgotten."""

    async def run() -> None:
        bodies = _bodies(endpoint, shape, images)
        connector = aiohttp.TCPConnector(limit=SLOTS)
        async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(60)) as session:

            async def work() -> None:
                for body in bodies:
                    content = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
                    async with session.post(f"{endpoint.url}/v1/chat/completions", data=content) as reply:
                        assert (await reply.json())["choices"]

            await asyncio.gather(*(work() for _ in range(SLOTS)))

    asyncio.run(run())


def threads(endpoint: Endpoint, shape: Shape, images: int) -> None:
    """The same bodies from the SDK's blocking client in a pool of threads."""
    with openai.OpenAI(api_key="none", base_url=f"{endpoint.url}/v1") as client, ThreadPoolExecutor(THREADS) as pool:
        replies = pool.map(lambda body: client.chat.completions.create(**body), _bodies(endpoint, shape, images))
        assert all(reply.choices for reply in replies)


def _section(endpoint: Endpoint, shape: Shape) -> Judge:
    return Judge(base_url=f"{endpoint.url}/v1", model=MODEL, request=shape, concurrency=SLOTS)


def _bodies(endpoint: Endpoint, shape: Shape, images: int) -> Iterator[dict[str, Any]]:
    """Made as they are needed, by the backend itself."""
    backend, rubric = open_backend(_section(endpoint, shape)), Rubric.load("lens")
    questions = [Question(criterion, *rubric.messages(PROMPT.text, criterion)) for criterion in PROMPT.criteria]
    size = backend.capabilities.questions_per_request
    for image in pictures(images):
        picture = backend.prepare(image)
        for start in range(0, len(questions), size):
            yield dict(backend.request(picture, questions[start : start + size]) or {})


def _check(verdicts: Any) -> None:
    assert all(verdict.value == 1 for verdict in verdicts), "every answer was 1"


CLIENTS: dict[str, tuple[Callable[[Endpoint, Shape, int], Any], Shape, int]] = {
    "bare aiohttp loop": (bare, "per_criterion", SLOTS),
    "ours, per_criterion": (ours, "per_criterion", SLOTS),
    "ThreadPoolExecutor(8)": (threads, "per_criterion", THREADS),
    "ours, per_image": (ours, "per_image", SLOTS),
}


def measure(endpoint: Endpoint, name: str, scale: Scale) -> dict[str, Any]:
    """One row: rates as measured, the rest for a whole step of 1,152 pictures."""
    client, shape, at_once = CLIENTS[name]
    images = scale.by_threads if client is threads else getattr(scale, shape)
    started = time.process_time()
    ledger = client(endpoint, shape, images)
    seconds = time.process_time() - started
    served = endpoint.counts()
    price = price_of(MODEL)
    assert price is not None
    cost = cost_of(served.tokens, price)
    assert ledger is None or math.isclose(ledger, cost, rel_tol=1e-9), f"ledger {ledger}, server {cost}"
    requests, whole = len(served.finished), IMAGES / images
    rate = served.rate(at_once)
    return {
        "client": name,
        "requests/s": rate,
        "verdicts/s": rate * CRITERIA * images / requests,
        "CPU ms/request": 1000 * seconds / requests,
        "requests a step": round(requests * whole),
        "GB uploaded a step": served.uploaded * whole / 1e9,
        "$ a step": cost * whole,
    }


def main(quick: Quick = False, json: Json = None) -> None:
    """Print one table: each client's rate, and what a step of 1,152 pictures takes of it."""
    endpoint = Endpoint()
    try:
        backend = open_backend(_section(endpoint, "per_image"))
        largest = max(len(backend.prepare(image).url) * 3 // 4 for image in pictures(16))
        assert largest <= MOST_BYTES, f"a picture takes {largest} bytes"
        rows = [measure(endpoint, name, QUICK if quick else FULL) for name in CLIENTS]
    finally:
        endpoint.close()
    bound = min(SLOTS / MEAN, rows[0]["requests/s"])
    for row in rows:
        row["of the bound"] = f"{row['requests/s'] / bound:.0%}"
    title = (
        f"Judge: {SLOTS} slots, latency log-normal with median {MEDIAN} s and sigma {SIGMA}, so at most "
        f"{SLOTS / MEAN:.0f} requests/s; {os.cpu_count()} cores for client and server; {MODEL}"
    )
    show(title, rows, json)


if __name__ == "__main__":
    typer.run(main)
