import pytest
from huaweicloudsdkcore.auth.endpoint import get_iam_endpoint_by_id
from huaweicloudsdkgaussdb.v3.region.gaussdb_region import GaussDBRegion

from exporter.config.regions import KNOWN_REGIONS, default_endpoint, default_iam_endpoint


@pytest.mark.parametrize(
    ("region", "endpoint"),
    [
        ("cn-north-4", "https://gaussdb.cn-north-4.myhuaweicloud.com"),
        ("sa-brazil-1", "https://gaussdb.sa-brazil-1.myhuaweicloud.com"),
        ("ap-southeast-1", "https://gaussdbformysql.ap-southeast-1.myhuaweicloud.com"),
        ("tr-west-1", "https://gaussdbformysql.tr-west-1.myhuaweicloud.com"),
        ("af-south-1", "https://gaussdb-mysql.af-south-1.myhuaweicloud.com"),
        ("la-north-2", "https://gaussdb-mysql.la-north-2.myhuaweicloud.com"),
    ],
)
def test_database_endpoint_carries_the_service_name_of_its_region(
    region: str, endpoint: str
) -> None:
    assert default_endpoint(region) == endpoint


@pytest.mark.parametrize(
    ("region", "endpoint"),
    [
        ("cn-north-4", "https://iam.cn-north-4.myhuaweicloud.com"),
        ("af-south-1", "https://iam.af-south-1.myhuaweicloud.com"),
        ("cn-north-11", "https://iam.myhuaweicloud.com"),
        ("cn-south-4", "https://iam.myhuaweicloud.com"),
        ("cn-southwest-3", "https://iam.myhuaweicloud.com"),
        ("ru-northwest-2", "https://iam.myhuaweicloud.com"),
        ("eu-west-101", "https://iam.eu-west-101.myhuaweicloud.eu"),
    ],
)
def test_iam_endpoint_is_regional_with_its_exceptions(region: str, endpoint: str) -> None:
    assert default_iam_endpoint(region) == endpoint


@pytest.mark.parametrize("region", ["eu-de", "eu-west-101", "", "CN-NORTH-4"])
def test_unknown_region_has_no_database_endpoint(region: str) -> None:
    assert default_endpoint(region) is None
    assert region not in KNOWN_REGIONS


@pytest.mark.parametrize("region", ["eu-de", "cn-north-4.evil.example"])
def test_unknown_region_has_no_iam_endpoint(region: str) -> None:
    assert default_iam_endpoint(region) is None


def test_known_regions_and_their_endpoints_are_those_of_the_vendors_sdk() -> None:
    sdk = {name: region.endpoints for name, region in GaussDBRegion.static_fields.items()}
    assert {region: [default_endpoint(region)] for region in KNOWN_REGIONS} == sdk


@pytest.mark.parametrize("region", KNOWN_REGIONS)
def test_iam_endpoint_is_the_one_that_the_vendors_sdk_would_use(region: str) -> None:
    assert default_iam_endpoint(region) == get_iam_endpoint_by_id(
        region, "https://iam.myhuaweicloud.com"
    )
