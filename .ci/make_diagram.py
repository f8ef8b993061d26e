"""Draws the system once for each chapter of the course, that chapter's part lit: nbs/images/system_NN.svg."""
from pathlib import Path

FOLDER = Path(__file__).parent.parent/"nbs"/"images"
INK, GREY, LIT, PAPER = "#1b1b1b", "#8a8a8a", "#ffd166", "#ffffff"

# chapter: the boxes it lights, by their names below
BOXES = {  # name: (left, top, width, height, lines)
    "emotions": (16, 30, 96, 40, ("eight emotions,", "two polarities")),
    "scenes": (16, 92, 96, 40, ("drawn scenes", "or photographs")),
    "batch": (140, 61, 84, 40, ("a batch:", "8 × 4 images")),
    "backbone": (252, 30, 78, 102, ("backbone", "", "conv3", "conv5")),
    "low": (358, 30, 92, 40, ("attention:", "polarity")),
    "high": (358, 92, 92, 40, ("attention:", "emotion")),
    "pooling": (478, 61, 84, 40, ("bilinear", "pooling")),
    "embedding": (590, 61, 84, 40, ("embedding", "512 numbers")),
    "pair": (706, 14, 138, 34, ("pair losses: N-pair, EP",)),
    "negatives": (706, 60, 138, 34, ("generated negatives",)),
    "measures": (706, 114, 138, 34, ("search and measures",)),
    "training": (252, 158, 310, 28, ("training: losses back through everything",)),
    "experiments": (590, 158, 84, 28, ("rows, seeds",)),
    "findings": (706, 158, 138, 28, ("tables and findings",)),
    "inside": (140, 158, 84, 28, ("look inside",)),
}
ARROWS = (("emotions", "batch"), ("scenes", "batch"), ("batch", "backbone"), ("low", "pooling"), ("high", "pooling"),
          ("pooling", "embedding"), ("embedding", "pair"), ("embedding", "negatives"), ("embedding", "measures"))
CHAPTERS = {"00": ("emotions",), "01": ("scenes",), "02": ("batch",), "03": ("backbone",), "04": ("low", "high"),
            "05": ("pooling",), "06": ("backbone", "low", "high", "pooling", "embedding"), "07": ("pair",),
            "08": ("negatives",), "09": ("measures",), "10": ("training",), "11": ("experiments",), "12": ("inside",),
            "13": ("findings",)}


def arrow(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<path d="M{x1} {y1} L{x2 - 5} {y2}" stroke="{GREY}" fill="none" marker-end="url(#tip)"/>'


def draw(lit: tuple[str, ...], chapter: str) -> str:
    "The diagram as SVG text."
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 860 200" width="860" height="200" role="img" '
             f'font-family="sans-serif" font-size="11"><title>The system; lit: chapter {chapter}</title>'
             f'<defs><marker id="tip" markerWidth="6" markerHeight="6" refX="1" refY="3" orient="auto">'
             f'<path d="M0 0 L6 3 L0 6 z" fill="{GREY}"/></marker></defs>'
             f'<rect width="860" height="200" rx="8" fill="{PAPER}"/>']
    for a, b in ARROWS:
        (x, y, w, h, _), (x2, y2, _, h2, _) = BOXES[a], BOXES[b]
        parts.append(arrow(x + w, y + h/2, x2, y2 + h2/2))
    for name in ("low", "high"):
        x, y, _, h, _ = BOXES[name]
        parts.append(arrow(330, y + h/2, x, y + h/2))
    for name, (x, y, w, h, lines) in BOXES.items():
        on = name in lit
        parts.append(f'<rect x="{x}" y="{y}" width="{w}" height="{h}" rx="5" fill="{LIT if on else "#f2f2f2"}" '
                     f'stroke="{INK if on else GREY}" stroke-width="{1.6 if on else .8}"/>')
        top = y + h/2 - 6.5*(len(lines) - 1) + 4
        for i, line in enumerate(lines):
            weight = ' font-weight="bold"' if on else ""
            colour = INK if on else "#444444"
            parts.append(f'<text x="{x + w/2}" y="{top + 13*i}" text-anchor="middle" fill="{colour}"{weight}>'
                         f"{line}</text>")
    return "\n".join([*parts, "</svg>"]) + "\n"


if __name__ == "__main__":
    for number, lit in CHAPTERS.items():
        (FOLDER/f"system_{number}.svg").write_text(draw(lit, number), encoding="utf-8")
