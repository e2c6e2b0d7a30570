"""The variables that the vendor's SDK reads."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

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
    if unset := [name for name in (ACCESS_KEY, SECRET_KEY) if name not in found]:
        is_are = "is" if len(unset) == 1 else "are"
        raise AuthError(
            f"{' and '.join(unset)} {is_are} not set in the environment",
            reason=Reason.AUTH,
            hint="set both, or give the project an auth section with another type",
        )
    return Keys(found[ACCESS_KEY], found[SECRET_KEY], found.get(SECURITY_TOKEN))


_IDP_ID = "HUAWEICLOUD_SDK_IDP_ID"
_ID_TOKEN_FILE = "HUAWEICLOUD_SDK_ID_TOKEN_FILE"  # noqa: S105


@dataclass(frozen=True, slots=True)
class IdentityProvider:
    """Who vouches for us to the older IAM, and the file with its word."""

    idp_id: str
    id_token_file: Path


def find_identity_provider(environment: Mapping[str, str]) -> IdentityProvider | None:
    """The one that is named; the SDK takes it before it takes keys. None where there is none."""
    idp_id, file = (environment.get(name, "").strip() for name in (_IDP_ID, _ID_TOKEN_FILE))
    return IdentityProvider(idp_id, Path(file)) if idp_id and file else None
