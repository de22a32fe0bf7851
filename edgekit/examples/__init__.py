"""Example projects: what `edgekit init` writes."""

from edgekit.examples.init import TEMPLATES, init_project

__all__ = ["TEMPLATES", "init_project"]
