"""What the docs site has beside docs/: pages of the repository's root, a page for each public name, the navigation."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

import edgekit
import edgekit_runtime

ROOT = Path(__file__).parents[1]
# Files outside of docs/ that are pages, and their place in the site.
PLACES = {
    "README.md": "index.md",
    "runtime/README.md": "runtime.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "CHANGELOG.md": "changes.md",
}
PACKAGES = {"edgekit": edgekit, "edgekit_runtime": edgekit_runtime}
# A page that is not there is left out, one that is named nowhere fails the build.
SECTIONS = {
    "Start": [
        *(
            "quickstart.md",
            "recipes.md",
            "data.md",
            "training.md",
            "combine.md",
            "auto.md",
            "your-base.md",
            "captioning.md",
            "onnx.md",
        ),
        *("phones.md", "commands.md"),
    ],
    "Devices": [
        *("devices.md", "operate.md", "many.md", "registry.md", "fleets.md", "clients.md", "ollama.md", "tools.md"),
        *("runtime.md", "reliability.md", "security.md"),
    ],
    "Reference": ["api.md", "formats.md", "bases.md", "fidelity.md", "benchmarks.md", "troubleshooting.md"],
    "Change it": ["contributing.md", "architecture.md", "extending/index.md", "decisions/*", "changes.md"],
}
_ROLE = re.compile(r":(?:class|func|meth|mod):<code>~?([\w.]+)</code>")
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the pages that are not in docs/, and set the navigation."""
    for source, place in PLACES.items():
        files.append(File.generated(config, place, content=(ROOT / source).read_text(encoding="utf-8")))
    api: list[dict[str, Any]] = []
    for package, module in PACKAGES.items():
        entries = []
        for name in module.__all__:
            place = f"api/{package}/{name}.md"
            files.append(File.generated(config, place, content=f"::: {package}.{name}\n"))
            entries.append({name: place})
        api.append({package: entries})
    config.nav = ["index.md", *_sections(files), {"Python": api}]
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links that hold in the repository into links that hold in the site."""
    here = page.file.src_uri
    source = next((source for source, place in PLACES.items() if place == here), f"docs/{here}")

    def moved(link: re.Match[str]) -> str:
        image, label, target = link.groups()
        path, sharp, anchor = target.partition("#")
        if "://" in target or not path:
            return link.group(0)
        wanted = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
        place = PLACES.get(wanted, wanted.removeprefix("docs/"))
        if files.get_file_from_path(place) is None and (ROOT / wanted).exists():
            return str(label)  # a file of the code: the site has no copy of it
        relative = posixpath.relpath(place, posixpath.dirname(here) or ".")
        return f"{image}[{label}]({relative}{sharp}{anchor})"

    return _LINK.sub(moved, markdown)


def on_page_content(html: str, **_: Any) -> str:
    """Write Sphinx's roles of docstrings, :class:`~edgekit.Project` say, as the name alone."""
    return _ROLE.sub(lambda role: f"<code>{role[1].rpartition('.')[2]}</code>", html)


def _sections(files: Files) -> list[dict[str, list[str]]]:
    there = sorted(file.src_uri for file in files.documentation_pages())
    found = []
    for title, places in SECTIONS.items():
        pages = [
            page
            for place in places
            for page in there
            if page == place or (place.endswith("*") and page.startswith(place[:-1]))
        ]
        found.append({title: pages})
    return found
