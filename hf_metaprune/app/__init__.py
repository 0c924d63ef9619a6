"""The Space: a page where a visitor makes a small classifier of their own photos (needs the extra ``space``)."""

from .build import launch, make_app

__all__ = ["launch", "make_app"]
