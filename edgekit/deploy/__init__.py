"""Bundles to devices over ssh."""

from edgekit.deploy.rollout import Options, Outcome, deploy

__all__ = ["Options", "Outcome", "deploy"]
