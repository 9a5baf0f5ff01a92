"""Settings of the whole test suite."""

from hypothesis import settings

# A slow or busy machine is no failure: what must be fast is measured elsewhere, as ratios.
settings.register_profile("throttllem", deadline=None)
settings.load_profile("throttllem")
