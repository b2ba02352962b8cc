"""A process that opens damaged copies of a bundle and says what it noticed. `python -m tests.reliability.damage`.

Arguments: the bundle, then what to do: `flips PART OF EVERY` changes bytes in place, three ways each (PART of OF equal
parts of every EVERY-th byte of all shipped files); `cuts` makes files shorter and longer and zeroes pages of them;
`swaps` exchanges each two files. What is not noticed by the file's own check, or noticed as another file's damage, is
printed; a crash of native code ends the process.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import combinations
from pathlib import Path

from pocketlens.bundle import read_bundle
from pocketlens.errors import FormatError
from pocketlens.lens import open_lens
from pocketlens.model import Model
from tests.folders import files_below

MASKS = (0x01, 0x80, 0xFF)
LENGTHS = 50
PAGE = 4_096


def main() -> None:
    bundle, what = Path(sys.argv[1]), sys.argv[2]
    if what == "flips":
        part, parts, every = map(int, sys.argv[3:])
        tried, missed = flips(bundle, part, parts, every)
    elif what == "cuts":
        tried, missed = cuts(bundle)
    else:
        tried, missed = swaps(bundle)
    print(json.dumps({"tried": tried, "missed": missed, "sound": noticed(bundle)}))


def noticed(bundle: Path, name: str = "") -> str | None:
    """Open a bundle as far as it takes to use one of its files, by default all; return what is said to be wrong."""
    try:
        if not name.startswith(("text/", "image/")):
            open_lens(bundle, threads=1).close()
        manifest = read_bundle(bundle)
        for tower, sha256 in (("text", manifest.text), ("image", manifest.image)):
            model = Model.open(bundle / tower, manifest_sha256=sha256)
            for file in model.manifest.files:  # as an encoder does before it reads one
                model.file(file)
    except FormatError as error:
        return str(error)
    return None


def places(bundle: Path, every: int) -> list[tuple[str, int]]:
    """Return every `every`-th byte of a bundle's files, with the first and the last of each."""
    found = []
    for name in files_below(bundle):
        size = (bundle / name).stat().st_size
        found += [(name, at) for at in sorted({0, size - 1, *range(0, size, every)} if size else ())]
    return found


def flips(bundle: Path, part: int, parts: int, every: int) -> tuple[int, list[str]]:
    missed, all_places = [], places(bundle, every)
    for name, at in all_places[part::parts]:
        with (bundle / name).open("r+b", buffering=0) as file:
            file.seek(at)
            byte = file.read(1)[0]
            for mask in MASKS:
                file.seek(at)
                file.write(bytes([byte ^ mask]))
                told = noticed(bundle, name)
                if told is None or name not in told:
                    missed.append(f"{name} at {at} with {mask:#x}: {told}")
            file.seek(at)
            file.write(bytes([byte]))
    return 3 * len(all_places[part::parts]), missed


def cuts(bundle: Path) -> tuple[int, list[str]]:
    tried, missed = 0, []
    for name in files_below(bundle):
        content = (bundle / name).read_bytes()
        spoilt = [content[: len(content) * number // LENGTHS] for number in range(LENGTHS)]
        spoilt += [content[:-1], content + b"\0", content + content[-1:]]
        for start in range(0, len(content), PAGE):
            zeros = bytes(len(content[start : start + PAGE]))
            if content[start : start + PAGE] != zeros:
                spoilt.append(content[:start] + zeros + content[start + PAGE :])
        spoilt = [changed for changed in spoilt if changed != content]  # a file without bytes cannot be cut
        for changed in spoilt:
            (bundle / name).write_bytes(changed)
            told = noticed(bundle)
            if told is None or name not in told:
                missed.append(f"{name} of {len(changed)} bytes: {told}")
        (bundle / name).write_bytes(content)
        tried += len(spoilt)
    return tried, missed


def swaps(bundle: Path) -> tuple[int, list[str]]:
    tried, missed = 0, []
    for first, second in combinations(files_below(bundle), 2):
        if (bundle / first).read_bytes() == (bundle / second).read_bytes():
            continue  # both towers come with the same golden values
        with exchanged(bundle / first, bundle / second):
            told = noticed(bundle)
            if told is None or (first not in told and second not in told):
                missed.append(f"{first} and {second}: {told}")
        tried += 1
    return tried, missed


@contextmanager
def exchanged(first: Path, second: Path) -> Iterator[None]:
    contents = first.read_bytes(), second.read_bytes()
    for path, content in zip((first, second), contents[::-1], strict=True):
        path.write_bytes(content)
    yield
    for path, content in zip((first, second), contents, strict=True):
        path.write_bytes(content)


if __name__ == "__main__":
    main()
