"""Default endpoints of the regions that the vendor's SDK knows (huaweicloudsdkgaussdb 3.1.219).

The database service answers under three names, by region. Elsewhere (Europe, Open Telekom Cloud,
private clouds) there is nothing to derive an endpoint from: it must be configured.
"""

_DATABASE_HOSTS = {
    "gaussdb": (
        "ap-southeast-3",
        "ap-southeast-4",
        "cn-east-3",
        "cn-north-2",
        "cn-north-4",
        "cn-north-9",
        "cn-south-1",
        "cn-south-4",
        "cn-southwest-2",
        "ru-northwest-2",
        "sa-brazil-1",
    ),
    "gaussdbformysql": (
        "ap-southeast-1",
        "ap-southeast-2",
        "cn-north-11",
        "me-east-1",
        "tr-west-1",
    ),
    "gaussdb-mysql": (
        "af-south-1",
        "cn-east-5",
        "cn-southwest-3",
        "la-north-2",
    ),
}

_DATABASE_ENDPOINTS = {
    region: f"https://{name}.{region}.myhuaweicloud.com"
    for name, regions in _DATABASE_HOSTS.items()
    for region in regions
}

_GLOBAL_IAM = "https://iam.myhuaweicloud.com"
_IAM_ENDPOINTS = {
    **{region: f"https://iam.{region}.myhuaweicloud.com" for region in _DATABASE_ENDPOINTS},
    # No IAM of their own is listed for these: huaweicloudsdkcore 3.1.219, auth/endpoint.py
    "cn-north-11": _GLOBAL_IAM,
    "cn-south-4": _GLOBAL_IAM,
    "cn-southwest-3": _GLOBAL_IAM,
    "ru-northwest-2": _GLOBAL_IAM,
    # Another domain; its database endpoint is not documented.
    "eu-west-101": "https://iam.eu-west-101.myhuaweicloud.eu",
}

_STS_REGIONS = frozenset(
    {
        "af-south-1",
        "ap-southeast-1",
        "ap-southeast-2",
        "ap-southeast-3",
        "ap-southeast-4",
        "cn-east-3",
        "cn-north-4",
        "cn-south-1",
        "cn-southwest-2",
        "la-south-2",
        "sa-brazil-1",
        "tr-west-1",
    }
)
# Any region's STS serves the whole cloud; the vendor's SDK takes this one where there is none.
_STS_ELSEWHERE = "cn-north-4"

KNOWN_REGIONS = tuple(sorted(_DATABASE_ENDPOINTS))
"""Regions with a default database endpoint, sorted: what an error message can offer."""


def default_endpoint(region: str) -> str | None:
    """The database service's endpoint; None where it must be configured."""
    return _DATABASE_ENDPOINTS.get(region)


def default_iam_endpoint(region: str) -> str | None:
    """The endpoint that gives out tokens for the region; None where it must be configured."""
    return _IAM_ENDPOINTS.get(region)


def default_sts_endpoint(region: str) -> str | None:
    """The endpoint that gives out temporary keys; None where it must be configured."""
    if region not in _STS_REGIONS and region not in _DATABASE_ENDPOINTS:
        return None
    nearest = region if region in _STS_REGIONS else _STS_ELSEWHERE
    return f"https://sts.{nearest}.myhuaweicloud.com"
