"""Never a wrong number, whatever the cloud holds and however the API fails: a property.

Each example draws a cloud and a script of faults, and scrapes one exporter several times. For every
instance and every scrape, either the published numbers are those of a correct full listing, or
`scrape_success` is 0 and there is no backup gauge at all; before the window is listed, or where
history has changed, the latest backup alone is told.

`listing_complete 0` excuses different numbers. It must itself have an excuse: a `total_count` that
is not true, rows that changed during the query, a fault that changed the listing, or whole windows
that cannot be listed.
"""

from hypothesis import given

from tests.properties.drawing import scenarios
from tests.properties.running import execute
from tests.properties.world import Scenario
from tests.support.searches import extent, search


@search(extent(60))
@given(scenarios())
def test_published_numbers_are_those_of_a_correct_full_listing_or_absent(
    scenario: Scenario,
) -> None:
    execute(scenario)
