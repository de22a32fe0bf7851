"""Example projects: what `edgekit init` writes."""

from edgekit.templates.init import TEMPLATES, init_project

__all__ = ["TEMPLATES", "init_project"]
