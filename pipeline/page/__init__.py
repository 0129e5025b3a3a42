"""Pages that people open in a browser: one self-contained file each, made of a template beside the code that fills it.

Nothing is loaded from elsewhere, so a page can be mailed, archived, and opened on a machine without a network.
"""

from __future__ import annotations

import base64
import io
import json
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

STYLE = "style.css"
"""What all pages look like."""


def render_page(package: str, template: str, **values: Any) -> str:
    """The page that a template of `package` makes of `values`; pure.

    Texts are escaped, `as_json(data)` may stand inside a script. `style` is the style sheet of all pages, and `asset`
    puts a file of `package` in as it is.
    """
    environment = Environment(
        loader=PackageLoader(package, ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(
        style=_read_asset(__name__, STYLE), asset=lambda name: _read_asset(package, name), as_json=embed_json, **values
    )


def _read_asset(package: str, name: str) -> Markup:
    return Markup(files(package).joinpath(name).read_text(encoding="utf-8"))  # noqa: S704 - a file of ours


def embed_json(data: Any) -> Markup:
    """Compact JSON with sorted keys that may stand between script tags, whatever strings it holds."""
    text = json.dumps(data, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c"))  # noqa: S704 - made safe here


def escape_script(text: str) -> Markup:
    """JavaScript that may stand between script tags, whatever strings it holds."""
    return Markup(text.replace("</script", "<\\/script").replace("<!--", "<\\!--"))  # noqa: S704 - made safe here


def make_data_url(picture: Image.Image, longest: int, quality: int = 80) -> str:
    """A picture as an address that holds it, scaled down to `longest` on its long side."""
    shown, buffer = picture.convert("RGB"), io.BytesIO()
    shown.thumbnail((longest, longest))
    shown.save(buffer, "WEBP", quality=quality)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
