"""The Space: a page where visitors make small classifiers of their own photos (needs the extra ``space``)."""

from .bank_page import PATH as BANK_PAGE
from .build import launch, make_app

__all__ = ["BANK_PAGE", "launch", "make_app"]
