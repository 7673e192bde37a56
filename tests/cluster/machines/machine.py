"""A machine: runs a command, where it has one, until its stdin ends, and takes all that was started on it along.

Its stdin is a pipe from the test: it ends with the test process too, whatever ends that.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import subprocess
import sys

import psutil

PR_SET_CHILD_SUBREAPER = 36  # what a dead process leaves behind becomes our child, not that of process 1

ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
if sys.argv[1:]:
    subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
while not select.select([sys.stdin], [], [], 0.2)[0]:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:  # nobody else takes note of the dead here
            pass
while left := psutil.Process().children(recursive=True):
    for process in left:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(left, timeout=1)
