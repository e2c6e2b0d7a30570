"""The variables from which the vendor's SDK takes its keys."""

import os
from collections.abc import Mapping

from exporter.credentials.values import Keys
from exporter.errors import AuthError, Reason


def keys_from_environment(environment: Mapping[str, str] | None = None) -> Keys:
    """The keys that the vendor's SDK takes from the environment; AuthError where there are none."""
    environment = os.environ if environment is None else environment
    access_key = environment.get("HUAWEICLOUD_SDK_AK", "")
    secret_key = environment.get("HUAWEICLOUD_SDK_SK", "")
    if not access_key or not secret_key:
        raise AuthError(
            "HUAWEICLOUD_SDK_AK and HUAWEICLOUD_SDK_SK are not set in the environment",
            reason=Reason.AUTH,
            hint="set both, or give the project an auth section with another type",
        )
    return Keys(access_key, secret_key, environment.get("HUAWEICLOUD_SDK_SECURITY_TOKEN") or None)
