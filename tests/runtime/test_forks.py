from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pocketlens
from pocketlens.lens import open_lens

FORK = """
import os, sys, threading
import pocketlens
from pathlib import Path

def in_a_fork(task):
    "Return what a fork of this process prints of a task; it is over in ten seconds."
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        import signal
        signal.alarm(10)
        try:
            told = repr(task())
        except BaseException as error:
            told = f"{type(error).__name__}: {error}"
        os.write(writing, told.encode())
        os._exit(0)  # as multiprocessing does; onnxruntime's own end waits for its threads
    os.close(writing)
    with open(reading) as file:
        told = file.read()
    assert os.waitpid(child, 0)[1] == 0, told
    return told

bundle, pictures = map(Path, sys.argv[1:])
"""


def run(code: str, bundle: Path, pictures: Path) -> str:
    command = [sys.executable, "-W", "error", "-c", FORK + code, str(bundle), str(pictures)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


def test_every_call_in_a_fork_is_refused_at_once(own_bundle: Path, pictures: Path) -> None:
    code = """
lens = pocketlens.open(bundle)
encoder, image_encoder, contents = lens.text_encoder(), lens.image_encoder(), lens._collection.now()
lens.add([pictures / "red.png"], root=pictures)
calls = [
    lambda: lens.search(text="red"),
    lambda: lens.search(image=pictures / "red.png", text="blue"),
    lambda: lens.search_vector([1, 0, 0, 0]),
    lambda: lens.similar("red.png"),
    lambda: lens.encode(text="red"),
    lambda: lens.add([pictures / "red.png"]),
    lambda: lens.remove(["red.png"]),
    lens.compact,
    lens.text_encoder,
    lens.image_encoder,
    lambda: lens.gallery,
    lambda: encoder.encode(["red"]),
    lambda: image_encoder.encode([pictures / "red.png"]),
]
locks = [lens._towers.lock, lens._collection._lock]
for lock in locks:  # another thread may hold them when the process forks
    lock.acquire()
for call in calls:
    told = in_a_fork(call)
    assert told.startswith("Forked: ") and f"in process {os.getpid()} and cannot be used in" in told, told
assert in_a_fork(lens.close) == "None"
for lock in locks:
    lock.release()
print(lens.search(text="red", k=1)[0].id)
"""
    assert run(code, own_bundle, pictures) == "more/red copy.png\n"


def test_what_a_fork_lets_go_of_harms_nobody(own_bundle: Path, pictures: Path) -> None:
    """Neither does it wait for threads, nor close what the parent has open; the parent's commits are all kept."""
    code = """
import gc
lens = pocketlens.open(bundle)
lens.remove(["red.png"])
lens.search(text="red")

def let_go():
    global lens
    del lens
    gc.collect()

for number in range(5):
    in_a_fork(let_go)
    lens.add({f"new {number}": (pictures / "red.png").read_bytes()})
lens._collection._store.close()  # as a killed process leaves it
os._exit(0)
"""
    run(code, own_bundle, pictures)
    with open_lens(own_bundle) as lens:
        ids = {hit.id for hit in lens.search(text="red", k=100)}
    assert {f"new {number}" for number in range(5)} | {"more/red copy.png"} < ids
    assert "red.png" not in ids


def test_a_fork_may_open_the_bundle_itself(own_bundle: Path, pictures: Path) -> None:
    code = """
lens = pocketlens.open(bundle)
lens.search(text="red")
print(in_a_fork(lambda: pocketlens.open(bundle).search(image=pictures / "green.png", k=1)[0].id))
"""
    assert run(code, own_bundle, pictures) == "'green.png'\n"


def test_forked_is_an_error_of_its_own() -> None:
    assert issubclass(pocketlens.Forked, pocketlens.PocketlensError)
    assert not issubclass(pocketlens.Forked, pocketlens.BadQuery)
