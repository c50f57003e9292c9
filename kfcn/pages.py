"""Pages in one HTML file that needs no other: pictures stand inside."""

import base64
import html
import io

from PIL import Image

WIDTH = 360  # of a picture on a page

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 76rem; padding: 0 1rem;
       color: #222; background: #fff }
table { border-collapse: collapse; margin: 1rem 0 }
td, th { padding: .2rem .8rem; text-align: right; border-bottom: 1px solid #ddd }
td:first-child, th:first-child { text-align: left }
.chip { display: inline-block; width: .8em; height: .8em; border: 1px solid #777;
        margin-right: .5em }
.bar { display: inline-block; height: .7em; background: #7aa6d8; vertical-align: middle }
.sheet { display: grid; grid-template-columns: repeat(auto-fill, minmax(17rem, 1fr)); gap: 1rem }
.row { display: flex; flex-wrap: wrap; gap: 1rem; margin: 0 0 1.5rem }
.row figure { flex: 1 1 16rem; max-width: 24rem }
figure { margin: 0 } figure img { width: 100%; display: block }
figcaption { font-size: 12px; color: #555; overflow-wrap: anywhere }
.error { color: #a40000 } .warning { color: #8a5a00 } .fine { color: #1c6b1c }
"""


def document(title: str, body: str) -> str:
    """A whole page; `title` is text, `body` HTML."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head>"
        f"<body>{body}</body></html>\n"
    )


def figure(picture: Image.Image, caption: str, link: str = "", width: int = WIDTH) -> str:
    """A picture with a line below it.

    Args:
        picture: RGB; made smaller where it is wider than `width`.
        caption: text.
        link: where the picture leads when it is clicked; empty for nowhere.
        width: of the stored picture, in pixels.
    """
    if picture.width > width:
        picture = picture.resize((width, max(round(picture.height * width / picture.width), 1)))
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=85)
    content = base64.b64encode(file.getvalue()).decode()
    image = f'<img alt="{html.escape(caption)}" src="data:image/jpeg;base64,{content}">'
    if link:
        image = f'<a href="{html.escape(link)}">{image}</a>'
    return f"<figure>{image}<figcaption>{html.escape(caption)}</figcaption></figure>"
