"""A process that decodes pictures: `python -m pocketlens_export.gallery.decoder_process`, started by `decoders`.

It reads, decodes and resizes; a picture that kills it or makes it hang takes nobody else with it. It is a fresh
process, no fork, and its memory is limited. Whoever started it ends it; should that one be gone, it ends by itself.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pocketlens._types import Uint8s
from pocketlens.decoders import Limits, with_formats
from pocketlens.listing import Skipped
from pocketlens.model import PictureSpec
from pocketlens.picture import read_picture
from pocketlens_export.gallery.frames import Ended, read_frame, write_frame
from pocketlens_export.gallery.scan import load_picture, read_span


def main() -> None:
    """Answer each frame with one, until no more come."""
    told = json.loads(sys.argv[1])
    spec = PictureSpec(**{**told["spec"], "features": None})
    limits = Limits(tuple(told["formats"]), told["file_bytes"], told["pixels"])
    with_formats(limits, limits.formats)  # registers decoders that come from other packages
    answers = os.dup(1)
    os.dup2(2, 1)  # nothing that a library prints gets between the frames
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal's goes to all; who started this one decides
    _limit_memory(told["memory_bytes"])
    write_frame(answers, "ready")
    try:
        while True:
            job, content = read_frame(0)
            signal.setitimer(signal.ITIMER_REAL, told["alarm_s"])  # ends the process: nobody may be left to do it
            about, pixels = _answer(job, content, spec, limits)
            signal.setitimer(signal.ITIMER_REAL, 0)
            write_frame(answers, about, memoryview(b"") if pixels is None else pixels.reshape(-1).data)
    except Ended:
        os._exit(0)


def _answer(
    job: dict[str, Any], content: Uint8s, spec: PictureSpec, limits: Limits
) -> tuple[dict[str, Any], Uint8s | None]:
    start = time.perf_counter()
    reads: dict[str, Callable[[], bytes]] = {
        "file": lambda: read_picture(job["path"], limits=limits),
        "span": lambda: read_span(job["path"], job["start"], job["size_bytes"], limits),
        "row": content.tobytes,
    }
    try:
        loaded = load_picture("", reads[job["kind"]], spec, limits)
    except MemoryError:
        loaded = Skipped("", "too large", "more than the memory that a decoder may have")
    seconds = time.perf_counter() - start
    if isinstance(loaded, Skipped):
        return {"reason": loaded.reason, "detail": loaded.detail, "seconds": seconds}, None
    names = ("sha256", "size_bytes", "width", "height", "taken")
    return {**{name: getattr(loaded, name) for name in names}, "seconds": seconds}, loaded.pixels


def _limit_memory(count: int) -> None:
    try:
        import resource
    except ModuleNotFoundError:  # Windows
        return
    has = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() if _has_proc() else 1 << 30
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    wanted = has + count
    resource.setrlimit(resource.RLIMIT_AS, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))


def _has_proc() -> bool:
    return Path("/proc/self/statm").is_file()


if __name__ == "__main__":
    main()
