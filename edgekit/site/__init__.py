"""Bundles as static sites: a web app and the JS module ``edgekit-runtime`` that run a bundle inside a browser page."""

from edgekit.site.build import build_site, site_folder, site_for_device
from edgekit.site.network import lan_address
from edgekit.site.serve import serve_site

__all__ = ["build_site", "lan_address", "serve_site", "site_folder", "site_for_device"]
