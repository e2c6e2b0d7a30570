"""The variables from which the vendor's SDK takes its keys."""

import os
from collections.abc import Mapping

from exporter.credentials.secret import clean
from exporter.credentials.values import Keys
from exporter.errors import AuthError, Reason

ACCESS_KEY = "HUAWEICLOUD_SDK_AK"
SECRET_KEY = "HUAWEICLOUD_SDK_SK"  # noqa: S105 - its name
SECURITY_TOKEN = "HUAWEICLOUD_SDK_SECURITY_TOKEN"  # noqa: S105


def keys_from_environment(environment: Mapping[str, str] | None = None) -> Keys:
    """The keys that the vendor's SDK takes from the environment; AuthError where there are none."""
    environment = os.environ if environment is None else environment
    found = {
        name: clean(environment[name], f"the variable {name}")
        for name in (ACCESS_KEY, SECRET_KEY, SECURITY_TOKEN)
        if environment.get(name, "").strip()
    }
    if ACCESS_KEY not in found or SECRET_KEY not in found:
        raise AuthError(
            f"{ACCESS_KEY} and {SECRET_KEY} are not set in the environment",
            reason=Reason.AUTH,
            hint="set both, or give the project an auth section with another type",
        )
    return Keys(found[ACCESS_KEY], found[SECRET_KEY], found.get(SECURITY_TOKEN))
