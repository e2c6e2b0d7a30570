"""The addresses of the project in its metadata, told by whoever builds a release.

The code does not know where it is published: PROJECT_URL, the address of the repository, does.
"""

import os
import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

_IMAGE = re.compile(r"(!\[[^\]]*\]\()(?!https?:)")
_LINK = re.compile(r"(\]\()(?!https?:|#)")


class ProjectUrls(MetadataHookInterface):
    PLUGIN_NAME = "custom"

    def update(self, metadata: dict[str, Any]) -> None:
        url = os.environ.get("PROJECT_URL", "").rstrip("/")
        readme = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        metadata["readme"] = {
            "content-type": "text/markdown",
            "text": with_whole_links(readme, url) if url else readme,
        }
        metadata["urls"] = (
            {
                "Homepage": url,
                "Source": url,
                "Documentation": f"{url}#readme",
                "Changelog": f"{url}/blob/main/CHANGELOG.md",
                "Issues": f"{url}/issues",
            }
            if url
            else {}
        )


def with_whole_links(text: str, url: str) -> str:
    """The text for the package index, which has neither our files nor our pictures."""
    return _LINK.sub(rf"\1{url}/blob/main/", _IMAGE.sub(rf"\1{url}/raw/main/", text))
