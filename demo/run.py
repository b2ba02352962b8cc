"""The demo: index the sample pictures, ask by text, by picture and by both, print a table and write a contact sheet.

The gallery is encoded by lens-base, as on a server; pictures of queries by lens-tiny, as on a device. The same gallery
is then asked through lens-base's own image tower, to tell what the light one loses.

Needs the runtime alone. Everything runs offline, on this machine.
"""

from __future__ import annotations

import html
import json
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

import pocketlens
from pocketlens_export.gallery.cli import pack
from pocketlens_export.gallery.index_cli import index

DEMO = Path(__file__).parent
PICTURES, BUNDLE, HEAVY, SHEET = DEMO / "pictures", DEMO / "bundle", DEMO / "bundle-heavy", DEMO / "index.html"
SHOWN = 6
TOWERS = "The gallery was encoded by lens-base; pictures of queries are by lens-tiny, texts by lens-base."


@dataclass(frozen=True, slots=True)
class Answer:
    """A query, its hits, and how long encoding and searching took."""

    text: str | None
    image: str | None
    expected: list[str]
    hits: list[pocketlens.Hit]
    latency_ms: float

    @property
    def found(self) -> bool:
        """Whether an expected picture is among the hits."""
        return any(hit.id in self.expected for hit in self.hits)

    @property
    def title(self) -> str:
        """The query in words: text, picture, or both."""
        return " + ".join(part for part in (self.image, self.text and f'"{self.text}"') if part)


def main() -> None:
    """Run the whole demo."""
    run(index, "index", str(_shown(PICTURES)), "--query-model", "lens-tiny", "--out", str(_shown(BUNDLE)), "--replace")
    gallery = ("--gallery", str(_shown(BUNDLE / "gallery")))
    towers = ("--text", "lens-base", "--image", "lens-base")
    run(pack, "pack", *gallery, *towers, "--out", str(_shown(HEAVY)), "--replace")
    light, heavy = (ask_all(bundle) for bundle in (BUNDLE, HEAVY))
    click.echo(f"\n{TOWERS}")
    click.echo(table(light))
    click.echo(f"\n{verdict(light, heavy)}")
    SHEET.write_text(contact_sheet(light, heavy), encoding="utf-8")
    click.echo(f"Open {_shown(SHEET)} to see the pictures. Ask your own:")
    click.echo(f'$ .venv-runtime/bin/pocketlens search {_shown(BUNDLE)} "a boat on the water"')


def run(command: click.Command, name: str, *arguments: str) -> None:
    """Show and run a command of pocketlens."""
    click.echo(f"$ pocketlens {name} {' '.join(arguments)}")
    command.main(list(arguments), standalone_mode=False)


def ask_all(bundle: Path) -> list[Answer]:
    """Return a bundle's answers to all queries."""
    queries = json.loads((DEMO / "queries.json").read_text())
    with pocketlens.open(bundle) as lens:
        ask(lens, queries[0])  # opens the encoders, so that the times below are those of a running app
        ask(lens, {"image": lens.search(text="a dog", k=1)[0].id, "expected": []})
        return [ask(lens, query) for query in queries]


def ask(lens: pocketlens.Lens, query: Mapping[str, Any]) -> Answer:
    """Return the answer to a query: text, image (a path below the pictures) or both, and what is expected."""
    text, image = query.get("text"), query.get("image")
    start = time.perf_counter()
    found = lens.search(text=text, image=PICTURES / image if image else None, k=SHOWN + 1)
    hits = [hit for hit in found if hit.id != image][:SHOWN]  # the picture itself is no answer
    return Answer(text, image, query["expected"], hits, (time.perf_counter() - start) * 1e3)


def table(answers: list[Answer]) -> str:
    """Return one line per query: what was asked, the milliseconds, the best three."""
    width = max(len(answer.title) for answer in answers)
    lines = [f"\n{'query':{width}}  {'ms':>5}  best hits (cosine)"]
    for answer in answers:
        best = ", ".join(f"{hit.id} ({hit.cosine:.2f})" for hit in answer.hits[:3])
        lines.append(f"{answer.title:{width}}  {answer.latency_ms:5.1f}  {best}")
    return "\n".join(lines)


def verdict(light: list[Answer], heavy: list[Answer]) -> str:
    """Return in how many queries an expected picture was found, through either image tower."""
    found, by_heavy = (sum(answer.found for answer in answers) for answers in (light, heavy))
    return (
        f"An expected picture was among the first {SHOWN} for {found} of {len(light)} queries; through lens-base's own "
        f"image tower for {by_heavy}. Queries by picture took {_picture_ms(light):.0f} ms, against "
        f"{_picture_ms(heavy):.0f} ms (medians)."
    )


def _picture_ms(answers: list[Answer]) -> float:
    return statistics.median(answer.latency_ms for answer in answers if answer.image and not answer.text)


def contact_sheet(light: list[Answer], heavy: list[Answer]) -> str:
    """Return a page that opens from disk: a row of pictures per query."""
    return _PAGE.format(towers=TOWERS, verdict=verdict(light, heavy), rows="\n".join(_row(answer) for answer in light))


def _row(answer: Answer) -> str:
    asked = (
        f'<figure class="asked">{_image(answer.image)}<figcaption>asked</figcaption></figure>' if answer.image else ""
    )
    hits = "".join(
        f'<figure class="{"expected" if hit.id in answer.expected else "hit"}">{_image(hit.uri)}<figcaption>'
        f"{html.escape(hit.id)}<br>cosine {hit.cosine:.3f}, z {hit.z:.1f}"
        "</figcaption></figure>"
        for hit in answer.hits
    )
    missed = "" if answer.found else ", none of them expected"
    title = f"{html.escape(answer.title)} <small>{answer.latency_ms:.1f} ms{missed}</small>"
    return f'<section><h2>{title}</h2><div class="row">{asked}{hits}</div></section>'


def _image(uri: str | None) -> str:
    return f'<img loading="lazy" src="pictures/{html.escape(uri or "")}" alt="{html.escape(uri or "")}">'


def _shown(path: Path) -> Path:
    return path.resolve().relative_to(Path.cwd()) if path.resolve().is_relative_to(Path.cwd()) else path


_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>pocketlens demo</title>
<style>
  body {{ font: 15px/1.4 system-ui, sans-serif; margin: 2rem auto; max-width: 1240px; padding: 0 1rem; color: #222; }}
  h2 {{ font-size: 1.05rem; margin: 1.6rem 0 .4rem; }}
  small {{ color: #888; font-weight: normal; }}
  .row {{ display: flex; flex-wrap: wrap; gap: .8rem; }}
  figure {{ margin: 0; width: 160px; }}
  .asked {{ border-right: 3px solid #36c; padding-right: .8rem; }}
  img {{ width: 160px; height: 160px; object-fit: contain; background: #f4f4f4; border-radius: 6px; }}
  .expected img {{ outline: 3px solid #2a2; }}
  figcaption {{ font-size: .75rem; color: #555; overflow-wrap: anywhere; }}
</style>
<h1>pocketlens demo</h1>
<p>Every query ran on this machine, offline. Best hit first; cosine is the similarity, z the standard deviations
above the query's mean over the gallery; a green frame marks a picture that was expected. {towers} {verdict}</p>
{rows}
</html>
"""

if __name__ == "__main__":
    main()
