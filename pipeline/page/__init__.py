"""Pages that people open in a browser: one self-contained file each, made of a template beside the code that fills it.

Nothing is loaded from elsewhere, so a page can be mailed, archived, and opened on a machine without a network.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

STYLE = "style.css"
"""What all pages look like."""

SCRIPTS = "(scripts)"
"""Stands in a page's head until all its scripts are known."""

POLICY = (
    '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
    f"style-src 'unsafe-inline'; script-src {SCRIPTS}; base-uri 'none'; form-action 'none'\">\n"
    '<meta name="referrer" content="no-referrer">'
)
"""What a page may do: run its own scripts, show its own styles and pictures, and ask for nothing."""


def render_page(package: str, template: str, **values: Any) -> str:
    """The page that a template of `package` makes of `values`; pure.

    Texts are escaped, `as_json(data)` may stand inside a script. `style` is the style sheet of all pages, and `asset`
    puts a file of `package` in as it is. `script(code)` is a script of the page; `content_policy()` in its head lets a
    browser run these alone, told by their sha256, and load nothing.
    """
    digests = list[str]()

    def add_script(code: str, kind: str = "module") -> Markup:
        digests.append(f"'sha256-{base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()}'")
        return Markup(f'<script type="{kind}">{code}</script>')  # noqa: S704 - code of ours

    environment = Environment(
        loader=PackageLoader(package, ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template(template).render(
        style=_read_asset(__name__, STYLE),
        asset=lambda name: _read_asset(package, name),
        as_json=embed_json,
        script=add_script,
        content_policy=lambda: Markup(POLICY),  # noqa: S704 - made above
        **values,
    )
    return page.replace(SCRIPTS, " ".join(digests), 1)


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
