"""What holds for all tests.

Property tests draw the same examples in every run, so that a run that passes passes again. To look for new ones:
`pytest --hypothesis-profile search`.
"""

from hypothesis import HealthCheck, settings

settings.register_profile("search", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("vlmill", settings.get_profile("search"), derandomize=True)
settings.load_profile("vlmill")  # no deadline: how fast a machine is decides nothing
