"""The addresses of the project in its metadata, told by whoever builds a release.

The code does not know where it is published: PROJECT_URL, the address of the repository, does.
"""

import os
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface


class ProjectUrls(MetadataHookInterface):
    PLUGIN_NAME = "custom"

    def update(self, metadata: dict[str, Any]) -> None:
        url = os.environ.get("PROJECT_URL", "").rstrip("/")
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
