"""Which form a client gets, and that it is told the truth about it."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.exposition.negotiation import accepts_gzip, choose_format

OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
TEXT_0 = "text/plain; version=0.0.4; charset=utf-8"
TEXT_1 = "text/plain; version=1.0.0; charset=utf-8"
# Prometheus 3.5's, with native histograms and without
PROMETHEUS = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;"
    "escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)
PROTOBUF = (
    "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;"
    "encoding=delimited;q=0.7,"
)


@pytest.mark.parametrize(
    ("accept", "given"),
    [
        ("", TEXT_0),
        ("*/*", TEXT_0),
        ("application/json", TEXT_0),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", TEXT_0),
        ("text/plain", TEXT_0),
        ('text/plain;version="0.0.4"', TEXT_0),
        ("text/plain;version=1.0.0", f"{TEXT_1}; escaping=underscores"),
        ("text/plain;version=1.0.0;escaping=dots", f"{TEXT_1}; escaping=dots"),
        ("application/openmetrics-text", OPENMETRICS),
        ("Application/OpenMetrics-Text; Version=1.0.0", f"{OPENMETRICS}; escaping=underscores"),
        ('application/openmetrics-text; version="1.0.0"', f"{OPENMETRICS}; escaping=underscores"),
        (
            "application/openmetrics-text;version=1.0.0;escaping=x",
            f"{OPENMETRICS}; escaping=underscores",
        ),
        (PROMETHEUS, f"{OPENMETRICS}; escaping=allow-utf-8"),
        (PROTOBUF + PROMETHEUS, f"{OPENMETRICS}; escaping=allow-utf-8"),
        # The weight decides, and not the place
        ("application/openmetrics-text;q=0.2,text/plain;q=0.5", TEXT_0),
        ("text/plain;q=0.2,application/openmetrics-text;q=0.5", OPENMETRICS),
        (
            "*/*;q=0.1,application/openmetrics-text;version=1.0.0;q=0.2",
            f"{OPENMETRICS}; escaping=underscores",
        ),
        ("application/openmetrics-text;q=0,text/plain", TEXT_0),
        ("application/openmetrics-text;q=0", TEXT_0),
        ("application/openmetrics-text; q=0.000", TEXT_0),
        ("text/plain, application/openmetrics-text", TEXT_0),
        # No body has these versions
        ("application/openmetrics-text;version=2.0.0", TEXT_0),
        ("application/openmetrics-text;version=9.9.9,text/plain;q=0.1", TEXT_0),
        ("application/openmetrics-text;version=0.0.1", TEXT_0),
        ("text/plain;version=2.0.0", TEXT_0),
        ("text/plain;version=x", TEXT_0),
        ("application/openmetrics-text;version=1.0.0rc", TEXT_0),
        ('";;=,"', TEXT_0),
        ("text/plain;q=much,application/openmetrics-text;q=0.9", TEXT_0),
    ],
)
def test_the_form_with_the_greatest_weight_is_given_and_named_as_it_is(
    accept: str, given: str
) -> None:
    assert choose_format(accept).content_type == given


@pytest.mark.parametrize(
    ("header", "accepted"),
    [
        ("", False),
        ("gzip", True),
        ("GZIP", True),
        ("deflate, gzip;q=0.5", True),
        ("gzip;q=1.0", True),
        ("*", True),
        ("identity", False),
        ("gzip;q=0", False),
        ("gzip; Q=0.000", False),
        ("x-gzipped", False),
        ("gzip;q=0.001", True),
        ("identity;q=1, gzip;q=0.5", False),
        ("identity;q=0.5, gzip;q=0.5", True),
        ("*, gzip;q=0", False),
        ("gzip;q=0, *", False),
    ],
)
def test_gzip_is_negotiated_as_http_says(header: str, accepted: bool) -> None:
    assert accepts_gzip(header) is accepted


@given(st.text(alphabet='aq*/;,=.01 "version plain text application openmetrics-', max_size=80))
def test_whatever_a_client_writes_it_is_answered_with_a_form_that_there_is(accept: str) -> None:
    content_type = choose_format(accept).content_type
    assert re.fullmatch(
        r"(text/plain; version=(0\.0\.4|1\.0\.0)|application/openmetrics-text; version=1\.0\.0);"
        r" charset=utf-8(; escaping=[a-z0-9-]+)?",
        content_type,
    )
    accepts_gzip(accept)
