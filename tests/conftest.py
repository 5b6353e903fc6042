"""What Hypothesis searches with in all tests.

The same code gets the same examples, so that a test which fails does so for what was changed. `make test-properties` tries
new ones (`--hypothesis-profile=search`). Neither minds how long an example takes: machines differ.
"""

from hypothesis import HealthCheck, settings

settings.register_profile("same", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("search", settings.get_profile("same"), derandomize=False, print_blob=True)
settings.load_profile("same")
