"""Fetches the data packages by name, into a cache folder, without installing them.

npm packages come through `npm pack`, Debian packages through `apt-get download` and `dpkg -x`; each client uses the
registry that it is set up for. Nothing here knows what is inside a package: `pictures.py` reads them.
"""

from __future__ import annotations

import json
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path

NPM = {
    "emoji-datasource-google": "16.0.0",
    "emoji-datasource-twitter": "16.0.0",
    "@lobehub/fluent-emoji-3d": "1.1.0",
    "openmoji": "17.0.0",
    "emojibase-data": "17.0.0",
}
"""npm packages and the versions that the recipe was measured with."""

DEBIAN = ("openclipart-png", "openclipart-svg", "tuxpaint-stamps-default", "lomiri-wallpapers-16.04")
"""Debian packages; their versions are the ones of the release in use and are written to results.json."""


@dataclass(frozen=True, slots=True)
class Package:
    """A fetched package: its name, version, the licence that its own metadata states, and its unpacked folder."""

    name: str
    version: str
    licence: str
    folder: Path


def fetch_npm(name: str, version: str, cache: Path) -> Package:
    """Return the npm package `name`, unpacked under `cache`."""
    folder = cache / "npm" / name.replace("/", "-").lstrip("@")
    if not (folder / "package" / "package.json").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        packed = subprocess.run(
            ["npm", "pack", "--silent", f"{name}@{version}"], cwd=folder, check=True, capture_output=True, text=True
        )
        archive = folder / packed.stdout.split()[-1]
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")
        archive.unlink()
    meta = json.loads((folder / "package" / "package.json").read_text(encoding="utf-8"))
    return Package(name, meta["version"], str(meta.get("license", "none stated")), folder / "package")


def fetch_debian(name: str, cache: Path) -> Package:
    """Return the Debian package `name`, unpacked under `cache`; nothing is installed."""
    folder = cache / "debian" / name
    archives = list(folder.glob("*.deb"))
    if not archives:
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(["apt-get", "download", "-q", name], cwd=folder, check=True, capture_output=True)
        archives = list(folder.glob("*.deb"))
    root = folder / "root"
    if not root.is_dir():
        subprocess.run(["dpkg", "-x", str(archives[0]), str(root)], check=True)
    version = archives[0].name.split("_")[1]
    return Package(name, version, "see its copyright file", root)


def fetch_all(cache: Path) -> dict[str, Package]:
    """Return every data package by name, fetching those that `cache` lacks."""
    packages = {name: fetch_npm(name, version, cache) for name, version in NPM.items()}
    packages.update({name: fetch_debian(name, cache) for name in DEBIAN})
    return packages
