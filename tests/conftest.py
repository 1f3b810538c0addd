"""Property tests have no deadline: no test depends on wall time, and a first call may compile."""

from hypothesis import settings

settings.register_profile("sparsefab", deadline=None)
settings.load_profile("sparsefab")
