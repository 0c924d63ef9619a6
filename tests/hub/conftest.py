"""The fixtures of the loopback Hub, for its own tests."""

from tests.hub.fixtures import hub

__all__ = ["hub"]
