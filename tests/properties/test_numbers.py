"""Never a wrong number, whatever the cloud holds and however the API fails: a property.

Each example draws a cloud and a script of faults, and scrapes one exporter several times. For every
instance and every scrape, either the published numbers are those of a correct full listing, or
`scrape_success` is 0 and there is no backup gauge at all; before the window is listed, or where
history has changed, the latest backup alone is told.

`listing_complete 0` excuses different numbers. It must itself have an excuse: a `total_count` that
is not true, rows that changed during the query, a fault that changed the listing, or whole windows
that cannot be listed.
"""

import os

from hypothesis import HealthCheck, Phase, given, settings

from tests.properties.drawing import scenarios
from tests.properties.running import execute
from tests.properties.world import Scenario
from tests.support.searches import examples

# FUZZ_EXAMPLES: so many. FUZZ_NEW: other ones each time; without it every run tries the same, and a
# change is not blamed for what it did not break.
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", examples(60)))
NEW_EXAMPLES = "FUZZ_NEW" in os.environ


@settings(
    max_examples=EXAMPLES,
    derandomize=not NEW_EXAMPLES,
    print_blob=True,
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
    report_multiple_bugs=False,
    suppress_health_check=[
        HealthCheck.too_slow,
        HealthCheck.large_base_example,
        HealthCheck.data_too_large,
    ],
)
@given(scenarios())
def test_published_numbers_are_those_of_a_correct_full_listing_or_absent(
    scenario: Scenario,
) -> None:
    execute(scenario)
