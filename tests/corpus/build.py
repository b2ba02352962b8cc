"""Writes texts.txt.gz, the strings on which tokenizers are compared: one JSON string a line, always the same bytes.

Run: python tests/corpus/build.py FOLDER, where FOLDER holds WordNet 3.0's data files (Debian: package wordnet-base). The
glosses are WordNet's (LICENSE-WordNet beside this file); the other strings are made here.
"""

# ruff: noqa: E501, RUF001, SIM905 (odd characters are the point, and a list literal of them would be no clearer)

from __future__ import annotations

import gzip
import json
import random
import sys
from pathlib import Path

OUT = Path(__file__).with_name("texts.txt.gz")
GLOSSES = 4_800
MIXED = 600

WORDS = (
    "bicycle straße Ελλάδα москва 東京 カメラ 서울 मुंबई กรุงเทพ القاهرة תל־אביב İstanbul naïve coöperate Ångström œuvre ŒUVRE "
    "it's WE'RE I'll they'd can't you've o'clock rock'n'roll 'twas 1987 3rd ½ ² Ⅻ ٣٤٥ x² H₂O ﬁnancial ﬂower ＦＵＬＬ　ｗｉｄｔｈ "
    "“quoted” ‘single’ «guillemets» — – … • © ® ™ € £ ¥ § ¶ & &amp; &lt;b&gt; &amp;amp; &#39; &eacute; &nbsp; <b> </w> @user #tag "
    "http://example.org/a?b=c&d=e C++ C# a_b snake_case CamelCase ALL-CAPS 50% 3.14 1,000 (x) [y] {z} a/b a\\b *bold* ~ ^ ` | "
    "👩‍🚀 🐎 ✨ 👍🏽 🇯🇵 ❤️ 👨‍👩‍👧‍👦 🏳️‍🌈 1️⃣ ☃ z̷a̷l̷g̷o̷ a\u0301 \u200b \ufeff \u202eabc \u00ad \u0345 ſ'ſ K Å ǅ"
).split(" ")

BY_HAND = (
    "", " ", "\t\n", "\u3000", "a", "A", "é", "!", "'s", "'", "''", "it'S", "a" * 300, "!" * 300, "1" * 90, "a b " * 40,
    "word\nnext line\r\nand\ttab", "\x00\x01\x1f\x7f", "a\x1cb\x85c\xa0d", "\u2028line\u2029paragraph", "\x1b[31mred\x1b[0m",
    "<", ">", "<|endoftext|>", "<start_of", "end_of_text", "&", "&amp", "&amp;lt;", "&#x1F600;", "&#0;", "&notanentity;",
    "cafÃ©", "Ã¼ber", "â€œquotesâ€\x9d", "ðŸ˜€", "Ð¼Ð¾ÑÐºÐ²Ð°", "l’été", "ﬀ ﬁ ﬂ ﬃ ﬄ ﬅ ﬆ", "ＡＢＣ１２３", "①②③ ㎏ ℃ №", "\U000e0041",
)  # fmt: skip


def main(folder: Path) -> None:
    """Write the corpus from WordNet's data files in `folder`."""
    draw = random.Random(0)
    glosses = [
        line.split("| ", 1)[1].strip()
        for kind in ("noun", "verb", "adj", "adv")
        for line in (folder / f"data.{kind}").read_text(encoding="utf-8").splitlines()
        if "| " in line
    ]
    texts = [*BY_HAND, *WORDS, *at_the_limit(), *mixed(draw), *draw.sample(sorted(set(glosses)), GLOSSES)]
    lines = "".join(json.dumps(text, ensure_ascii=False) + "\n" for text in texts)
    OUT.write_bytes(gzip.compress(lines.encode(), compresslevel=9, mtime=0))
    print(f"{len(texts)} texts, {OUT.stat().st_size} bytes")


def at_the_limit() -> list[str]:
    """Return texts of 70 to 80 tokens, markers included, around open_clip's context of 77, and some far over it."""
    return [" ".join(["dog"] * (length - 2)) for length in range(70, 81)] + [" ".join(["cat"] * 500), "boat, " * 60]


def mixed(draw: random.Random) -> list[str]:
    """Return sentences of words of all kinds, some of them mojibake: UTF-8 read as Windows-1252 or Latin-1."""
    out = []
    for i in range(MIXED):
        text = " ".join(draw.choices(WORDS, k=draw.randint(2, 12)))
        if i % 4 == 0:
            text = text.encode().decode("latin-1")
        if i % 4 == 1:
            text = text.encode().decode("cp1252", "replace")
        out.append(text)
    return out


if __name__ == "__main__":
    main(Path(sys.argv[1]))
