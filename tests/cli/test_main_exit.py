"""The command line ends with its exit status, whatever threads of libraries still do."""

from __future__ import annotations

import os
import subprocess
import sys

LATE = """
import atexit, sys, threading, time
from unsup.core.process import leave
atexit.register(lambda: print("at exit"))
threading.Thread(target=lambda: (time.sleep(0.3), print("thread"))).start()
threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
print("main")
leave(3)
"""


def test_a_process_waits_for_its_threads_and_writes_its_output() -> None:
    done = subprocess.run([sys.executable, "-c", LATE], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr) == (3, "")
    assert done.stdout.split("\n") == ["main", "thread", "at exit", ""]


GONE = "from unsup.core.process import leave; print(1); leave(3)"


def test_a_reader_that_is_gone_changes_nothing() -> None:
    words = f'"{sys.executable}" -c "{GONE}" | true; echo ${{PIPESTATUS[0]}}'
    environment = os.environ | {"PYTHONUNBUFFERED": ""}
    done = subprocess.run(["bash", "-c", words], capture_output=True, text=True, timeout=30, env=environment)
    assert (done.stdout, done.stderr) == ("3\n", "")
