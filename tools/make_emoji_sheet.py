"""Build the bundled `emoji` data set: one sheet of 32x32 tiles and its index.

Usage: python tools/make_emoji_sheet.py PKG_DIR OUT_DIR

PKG_DIR is the unpacked npm package emoji-datasource-google@16.0.0. Every glyph that has an image of its own is taken,
but for flags and the five skin-tone swatches ("components"); skin variants are left out.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from PIL import Image

TILE = 32
COLUMNS = 41
LEFT_OUT = {"flags", "component"}


def slug(text: str) -> str:
    """`Smileys & Emotion` -> `smileys-emotion`."""
    words = "".join(c if c.isalnum() else " " for c in text.lower()).split()
    return "-".join(words)


def glyphs(package: Path) -> list[tuple[str, str, Path]]:
    """Return (name, category, file) of every glyph taken, in Unicode's own order."""
    entries = json.loads((package / "emoji.json").read_text(encoding="utf-8"))
    entries.sort(key=lambda entry: (entry["sort_order"], entry["unified"]))
    return [
        (entry["short_name"].replace("_", "-"), slug(entry["category"]), package / "img/google/64" / entry["image"])
        for entry in entries
        if entry["has_img_google"] and slug(entry["category"]) not in LEFT_OUT
    ]


def tile(path: Path) -> Image.Image:
    """Return the glyph over white, reduced to one tile."""
    with Image.open(path) as opened:
        glyph = opened.convert("RGBA")
    over_white = Image.alpha_composite(Image.new("RGBA", glyph.size, "white"), glyph).convert("RGB")
    return over_white.resize((TILE, TILE), Image.Resampling.LANCZOS)


def main(package: Path, out: Path) -> None:
    chosen = glyphs(package)
    rows = -(-len(chosen) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * TILE, rows * TILE), "white")
    for place, (_, _, path) in enumerate(chosen):
        sheet.paste(tile(path), (place % COLUMNS * TILE, place // COLUMNS * TILE))
    out.mkdir(parents=True, exist_ok=True)
    sheet.save(out / "sheet.png", optimize=True)
    lines = ",\n".join(json.dumps([name, category], ensure_ascii=False) for name, category, _ in chosen)
    index = f'{{"tile": {TILE}, "columns": {COLUMNS}, "tiles": [\n{lines}\n]}}\n'
    (out / "index.json").write_text(index, encoding="utf-8")
    print(f"{len(chosen)} glyphs in {out / 'sheet.png'} ({(out / 'sheet.png').stat().st_size / 1e6:.2f} MB)")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
