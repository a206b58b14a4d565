"""Killed at any moment and started again with the same command, a run is the run that was never killed."""

import os
import random
import signal
import subprocess
import time

import pytest

from tests.e2e.runs import assert_equal, command, finish, model, state


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["full", "lora"])
def test_five_kills_change_nothing(tmp_path, policy):
    """Run A of 12 steps; run B killed with SIGKILL at five random moments: equal to the bit."""
    extra = (f"policy.kind={policy}", "policy.rank=4", "policy.alpha=8")
    start = model(tmp_path / "model")
    clock = time.monotonic()
    finish(command(start, tmp_path, "a", *extra))
    whole = time.monotonic() - clock

    dice = random.Random(policy)
    for _ in range(5):
        process = subprocess.Popen(command(start, tmp_path, "b", *extra), stderr=subprocess.PIPE, text=True)
        try:
            # From while it loads to while it tests: anywhere in the life of a process.
            process.wait(timeout=dice.uniform(0.25, 0.95) * whole)
        except subprocess.TimeoutExpired:
            process.kill()
        process.communicate()
    finish(command(start, tmp_path, "b", *extra))
    assert_equal(state(tmp_path / "a"), state(tmp_path / "b"))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_says_how_to_go_on(tmp_path, number):
    start = model(tmp_path / "model")
    process = subprocess.Popen(command(start, tmp_path, "b"), stderr=subprocess.PIPE, text=True)
    metrics = tmp_path / "b" / "metrics.jsonl"
    while not metrics.exists() or metrics.read_text().count("\n") < 3:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.02)
    os.kill(process.pid, number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert f"interrupted by {signal.Signals(number).name}" in errors
    assert "The same command goes on from there" in errors
    finish(command(start, tmp_path, "b"))
    finish(command(start, tmp_path, "a"))
    assert_equal(state(tmp_path / "a"), state(tmp_path / "b"))
