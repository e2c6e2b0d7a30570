"""What a page of ours may load and do: itself, its own style, and nothing else."""

import base64
import hashlib


def content_security_policy(style: str) -> str:
    """The header to send with a page whose one `<style>` element holds `style`."""
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode("ascii")
    return (
        f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    )
