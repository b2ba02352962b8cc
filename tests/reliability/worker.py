"""A process that changes bundles in children of its own, which it lets fail or kills. It obeys lines of JSON.

Forking it is quick: everything is imported already. What it is told: `bundle`; `changes`, in order; one of `kill_s`
(seconds after the child is ready), `kill_at` and `fail_at` (the number of a system call that changes something, from 0;
it gets `error`; with `persistent` so does every later one but those that remove something) and `file_bytes` (no file
may grow beyond). What it answers: `steps` that the child said were done, `error` (what it raised, by type, and whether
the type is ours) and `calls` seen.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

from PIL import Image

from pocketlens.errors import PocketlensError
from pocketlens.lens import open_lens
from tests.reliability import seccomp
from tests.reliability.changes import perform


def main() -> None:
    Image.preinit()
    warm = False
    for line in sys.stdin:
        told = json.loads(line)
        if not warm:  # what is parsed and compiled once, children have already
            open_lens(told["bundle"]).close()
            warm = True
        print(json.dumps(_run(told)), flush=True)


def _run(told: dict[str, Any]) -> dict[str, Any]:
    ours, theirs = socket.socketpair()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        ours.close()
        try:
            _change(told, theirs, writing)
        finally:
            os._exit(0)
    os.close(writing)
    theirs.close()
    calls: list[str] = []
    if "kill_s" in told:
        ours.recv(1)  # ready
        time.sleep(told["kill_s"])
        os.kill(child, signal.SIGKILL)
    elif "kill_at" in told or "fail_at" in told:
        calls = seccomp.supervise(ours, Path(told["bundle"]).parent, _Decision(told))
    ours.close()
    with os.fdopen(reading) as file:
        lines = file.read().split("\n")
    _, status = os.waitpid(child, 0)
    errors = [json.loads(line) for line in lines if line.startswith("{")]
    return {
        "steps": lines.count("done"), "error": errors[0] if errors else None, "calls": calls,
        "killed": os.WIFSIGNALED(status) and os.WTERMSIG(status), "finished": "end" in lines,
    }  # fmt: skip


class _Decision:
    def __init__(self, told: dict[str, Any]) -> None:
        self._told = told
        self._number = -1

    def __call__(self, name: str) -> int | None:
        self._number += 1
        if self._number == self._told.get("kill_at"):
            return None
        at = self._told.get("fail_at")
        later = self._told.get("persistent") and name not in ("unlink", "unlinkat", "rmdir")
        failing = at is not None and (self._number == at or (later and self._number >= at))
        return int(self._told["error"]) if failing else 0


def _change(told: dict[str, Any], supervisor: socket.socket, writing: int) -> None:
    def tell(line: str) -> None:
        os.write(writing, f"{line}\n".encode())

    try:
        with open_lens(Path(told["bundle"]), threads=1) as lens:
            lens.image_encoder()
            supervisor.send(b"r") if "kill_s" in told else None
            if "kill_at" in told or "fail_at" in told:
                seccomp.ask_for_filter(supervisor)
            if "file_bytes" in told:
                resource.setrlimit(resource.RLIMIT_FSIZE, (told["file_bytes"],) * 2)
            for change in told["changes"]:
                perform(lens, change, lambda: tell("done"))
    except BaseException as error:
        ours = isinstance(error, PocketlensError)
        tell(json.dumps({"type": type(error).__name__, "ours": ours, "message": str(error)}))
    tell("end")


if __name__ == "__main__":
    main()
