"""What holds for all tests."""

from hypothesis import HealthCheck, settings

settings.register_profile("vlmill", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("vlmill")  # how fast a machine is decides nothing
