"""A plugin of pytest for emulated processors, ``-p helpers.few``: few examples of each property."""

from hypothesis import settings


def pytest_configure(config):
    """Take the place of the profile that `conftest` has loaded."""
    settings.register_profile("few", settings.get_profile("rvq_np"), max_examples=10)
    settings.load_profile("few")
