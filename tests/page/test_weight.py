"""How heavy the page is."""

from dataclasses import replace

from exporter.page.status import render_status
from tests.page.making import DAY, NOW, make_failure, make_reading, make_result, make_view, minutes


def test_page_of_a_thousand_busy_instances_stays_light() -> None:
    reading = make_reading(minutes(7 * 24 * 60, 5), lookback=7 * DAY)
    results = [make_result(f"db-{number:04}", reading, lookback=7 * DAY) for number in range(1_000)]
    html = render_status(make_view(results), now=NOW, version="1")
    assert reading.count == 2_016
    assert len(html.encode()) < 400_000


def test_page_of_a_thousand_instances_that_all_fail_for_one_cause_stays_light() -> None:
    reading = make_reading(minutes(24 * 60, 5))
    failure = make_failure(message="word " * 200)
    results = [
        replace(make_result(f"db-{number:04}", failure=failure), last_reading=reading)
        for number in range(1_000)
    ]
    html = render_status(make_view(results), now=NOW, version="1")
    assert len(html.encode()) < 500_000


def test_page_of_the_most_ragged_pictures_stays_light() -> None:
    # Backups some four units apart, each gap a hole: nothing can be merged.
    reading = make_reading(minutes(24 * 60, 8, 8))
    results = [make_result(f"db-{number:04}", reading, stale_after=60.0) for number in range(1_000)]
    html = render_status(make_view(results), now=NOW, version="1")
    assert len(html.encode()) < 1_500_000
