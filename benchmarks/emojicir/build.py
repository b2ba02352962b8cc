"""Builds EmojiCIR from packages: `python -m emojicir.build --cache CACHE --out DIR`, with benchmarks/ on the path.

Writes DIR/pictures, DIR/pictures.tsv, DIR/queries.jsonl and DIR/emojicir.json; README.md describes them. `--check`
compares the result with the sha256 that are committed, `--commit` replaces what is committed beside this file.
"""

from __future__ import annotations

import argparse
import functools
import gzip
import hashlib
import json
import logging
import shutil
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from emojicir.gallery import Gallery, picture_id
from emojicir.lens_base import fetch, fingerprint
from emojicir.names import Concept, read_concepts
from emojicir.queries import CASES, NEGATIVE_CASES, PER_TARGET, SEED, Query, build_queries
from emojicir.render import FOLDERS, leave_out_copies, write_vendor
from emojicir.tables import HERE, PHRASINGS, read_tables

LOG = logging.getLogger("emojicir")
VERSION = 1
COLUMNS = ("id", "concept", "vendor", "name", "base", "split", "encoder")
PICTURE_LICENCES = {
    "emoji-datasource-google": "Apache-2.0",
    "emoji-datasource-twitter": "CC-BY-4.0",
    "emojibase-data": "no pictures",
}
"""Licences of pictures whose package states that of its code."""


def _pictures_tsv(vendors: Mapping[str, Iterable[str]], concepts: Mapping[str, Concept]) -> str:
    rows = []
    for vendor, keys in vendors.items():
        for concept in (concepts[key] for key in keys):
            row = (concept.key, vendor, concept.name, concept.base, concept.split, concept.encoder)
            rows.append("\t".join((picture_id(vendor, concept.key), *row)))
    return "\n".join(["\t".join(COLUMNS), *sorted(rows)]) + "\n"


def counts(queries: Iterable[Query]) -> dict[str, dict[str, dict[str, int]]]:
    """Return, by family and split, the numbers of queries, of cases (queries but for their phrasing) and of targets.

    `unseen` and `unseen_targets` count those queries and targets of which lens-base was not trained on the base.
    """
    found: dict[tuple[str, str], list[Query]] = {}
    for query in queries:
        found.setdefault((query.family, query.split), []).append(query)
    table: dict[str, dict[str, dict[str, int]]] = {}
    for (family, split), members in sorted(found.items()):
        unseen = [query for query in members if not query.seen]
        table.setdefault(family, {})[split] = {
            "queries": len(members),
            "cases": len({query.id.rsplit("#", 1)[0] for query in members}),
            "targets": len({query.target for query in members}),
            "unseen": len(unseen),
            "unseen_targets": len({query.target for query in unseen}),
        }
    return table


def copies(queries: Iterable[Query], pictures: Path) -> list[str]:
    """Return the ids of queries with an answer whose file has the bytes of the reference or of what is unwanted."""

    @functools.cache
    def digest(name: str) -> str:
        return hashlib.sha256((pictures / name).read_bytes()).hexdigest()

    return [
        query.id
        for query in queries
        if not {digest(a) for a in query.answers}.isdisjoint(map(digest, (query.reference, *query.unwanted)))
    ]


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _summary(
    queries: list[Query], vendors: Mapping[str, list[str]], packages: Mapping[str, tuple[str, str, Path]]
) -> dict[str, Any]:
    """Return emojicir.json without the sha256 of the files."""
    return {
        "version": VERSION,
        "seed": SEED,
        "cases_asked_for": CASES,
        "negative_cases_asked_for": NEGATIVE_CASES,
        "cases_per_target_at_most": PER_TARGET,
        "phrasings": list(PHRASINGS),
        "counts": counts(queries),
        "pictures": {vendor: len(keys) for vendor, keys in vendors.items()},
        "packages": [
            {"name": name, "version": release, "licence": licence, "pictures": PICTURE_LICENCES.get(name, licence)}
            for name, (release, licence, _) in packages.items()
        ],
        "tools": {name: version(name) for name in ("pillow", "resvg_py")},
        "split_sha256": fingerprint([(query.id, query.split) for query in queries]),
    }


def build(cache: Path, out: Path) -> dict[str, Any]:
    """Build the benchmark in `out` and return what emojicir.json says.

    Raises:
        ValueError: a query's answer is its reference, or what is unwanted, under another name.
    """
    packages = fetch(cache)
    folder = packages["emojibase-data"][2] / "en" / "data.json"
    extras = packages["openmoji"][2] / "data" / "openmoji.json"
    concepts = read_concepts(
        json.loads(folder.read_text(encoding="utf-8")), json.loads(extras.read_text(encoding="utf-8"))
    )
    shutil.rmtree(out / "pictures", ignore_errors=True)
    vendors: dict[str, list[str]] = {}
    for vendor, (package, inner) in FOLDERS.items():
        vendors[vendor] = write_vendor(vendor, packages[package][2] / inner, concepts, out / "pictures")
    vendors = leave_out_copies(vendors, out / "pictures")
    for vendor, keys in vendors.items():
        LOG.info("%s: %d pictures", vendor, len(keys))
    queries = build_queries(Gallery(concepts, vendors), read_tables())
    LOG.info("%d queries", len(queries))
    if wrong := copies(queries, out / "pictures"):
        raise ValueError(f"{len(wrong)} queries have an answer that is their reference or is unwanted, as {wrong[0]}")
    files = {
        "queries.jsonl": "".join(f"{query.line()}\n" for query in queries),
        "pictures.tsv": _pictures_tsv(vendors, concepts),
    }
    summary = _summary(queries, vendors, packages)
    summary["sha256"] = {name: _sha256(text) for name, text in files.items()}
    for name, text in files.items():
        (out / name).write_text(text, encoding="utf-8", newline="\n")
    (out / "emojicir.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    return summary


def check(summary: Mapping[str, Any]) -> list[str]:
    """Return the files whose sha256 is not the committed one."""
    committed = json.loads((HERE / "emojicir.json").read_text(encoding="utf-8"))["sha256"]
    return [name for name, digest in summary["sha256"].items() if committed[name] != digest]


def commit(out: Path) -> None:
    """Replace the files beside this one by those of `out`."""
    shutil.copyfile(out / "emojicir.json", HERE / "emojicir.json")
    for name in ("queries.jsonl", "pictures.tsv"):
        packed = gzip.compress((out / name).read_bytes(), compresslevel=9, mtime=0)
        (HERE / f"{name}.gz").write_bytes(packed)


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True, help="where fetched packages are kept")
    parser.add_argument("--out", type=Path, required=True, help="folder of the benchmark")
    after = parser.add_mutually_exclusive_group()
    after.add_argument("--check", action="store_true", help="fail if the result is not the committed benchmark")
    after.add_argument("--commit", action="store_true", help="replace the committed benchmark by the result")
    chosen = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    summary = build(chosen.cache, chosen.out)
    if chosen.commit:
        commit(chosen.out)
    stale = check(summary) if chosen.check else []
    if stale:
        raise SystemExit(f"{', '.join(stale)}: not as committed")
    LOG.info("%s", "as committed" if chosen.check else f"written to {chosen.out}")


if __name__ == "__main__":
    main()
