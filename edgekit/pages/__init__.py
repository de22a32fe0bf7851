"""What all pages of the kit share: one style sheet with the colours of light and dark, a policy, escaping.

A page is one file without scripts, which asks no network for anything.
"""

from edgekit.pages.frame import PageFrame, page_frame

__all__ = ["PageFrame", "page_frame"]
