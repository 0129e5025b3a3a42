"""What a page lets a browser run, and what it has to run."""

from __future__ import annotations

import base64
import hashlib
import re


def list_allowed_scripts(html: str) -> list[str]:
    """The digests of scripts in the policy of a page, which is the first to say anything in its head."""
    (policy,) = re.findall(r'<meta http-equiv="Content-Security-Policy" content="([^"]*)">', html)
    assert html.index("Content-Security-Policy") < html.index("<title>")
    (scripts,) = re.findall(r"script-src ([^;]*);", policy)
    assert "default-src 'none';" in policy
    assert "unsafe-eval" not in policy
    assert "unsafe-inline" not in scripts
    return scripts.split()


def list_run_scripts(html: str) -> list[str]:
    """The digests of the scripts that a page is to run, as a browser takes them."""
    scripts = re.findall(r'<script type="(?:module|text/javascript)">(.*?)</script>', html, re.DOTALL)
    assert scripts
    return [f"'sha256-{base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()}'" for code in scripts]
