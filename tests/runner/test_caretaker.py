"""What a run starts does not outlive it, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import psutil
import pytest

from tuner.runner.caretaker import TOKEN, sweep

pytestmark = pytest.mark.slow

# A driver with a caretaker and a child of its own that has left its process group, as Ray's agents do.
DRIVER = """
import os, subprocess, sys
from pathlib import Path
from tuner.runner.caretaker import TOKEN, Caretaker
token, scratch, how = sys.argv[1:]
os.environ[TOKEN] = token
caretaker = Caretaker(token, Path(scratch))
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"], start_new_session=True)
print(child.pid, flush=True)
if how == "release":
    caretaker.release()
else:
    os.kill(os.getpid(), int(how))
"""


@pytest.mark.parametrize("how", ["release", str(int(signal.SIGKILL)), str(int(signal.SIGTERM))])
def test_a_runs_processes_and_scratch_folder_go_with_its_driver(tmp_path: Path, how: str) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    command = [sys.executable, "-c", DRIVER, uuid.uuid4().hex, str(scratch), how]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as driver:
        assert driver.stdout is not None
        child = psutil.Process(int(driver.stdout.readline()))
        driver.wait(timeout=30)
    child.wait(timeout=10)
    wait_until_gone(scratch)


def wait_until_gone(path: Path) -> None:
    """Looks ten times a second, ten seconds at most."""
    with subprocess.Popen([sys.executable, "-c", WAIT, str(path)]) as waiting:
        assert waiting.wait(timeout=20) == 0


WAIT = """
import sys, time
from pathlib import Path
end = time.monotonic() + 10
while Path(sys.argv[1]).exists() and time.monotonic() < end:
    time.sleep(0.1)
sys.exit(Path(sys.argv[1]).exists())
"""


def test_only_what_carries_the_token_is_ended() -> None:
    token = uuid.uuid4().hex
    sleeper = [sys.executable, "-c", "print(flush=True); import time; time.sleep(300)"]
    marked, other = (
        subprocess.Popen(sleeper, env={**os.environ, TOKEN: value}, stdout=subprocess.PIPE)
        for value in (token, token[::-1])
    )
    try:
        for process in (marked, other):
            assert process.stdout is not None and process.stdout.readline()
        assert sweep(token) == 1
        assert marked.wait(timeout=10) == -signal.SIGKILL and other.poll() is None
        assert sweep(token) == 0
    finally:
        other.kill()
        other.communicate()
        marked.communicate()
