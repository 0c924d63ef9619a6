"""Hooks of mkdocs: notebooks become pages, and files of the repository that pages link to become files of the site.

Pages of notebooks are Markdown with the outputs that were saved, so that links in them are checked like all others.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import nbformat
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

REPO = Path(__file__).resolve().parents[1]
NOTEBOOK = re.compile(r"(\]\((?!\w+:)[^)#\s]+)\.ipynb(?=[)#])")
LINK = re.compile(r"(\]\()((?:\.\./)+[^)#\s]+)")
TAKEN = "files"
"""Folder of the site for files of the repository."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Put a page in the place of each notebook; add what pages link to outside of the docs."""
    for file in list(files):
        if file.src_uri.endswith(".ipynb"):
            files.remove(file)
            page = notebook_page(nbformat.read(str(file.abs_src_path), as_version=4))
            files.append(File.generated(config, file.src_uri.removesuffix(".ipynb") + ".md", content=page))
    for file in files.documentation_pages():
        for _, target in LINK.findall(file.content_string):
            outside = _outside(target, file.src_uri, Path(config.docs_dir))
            if outside is not None and files.get_file_from_path(f"{TAKEN}/{outside}") is None:
                files.append(File.generated(config, f"{TAKEN}/{outside}", abs_src_path=str(REPO / outside)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point links to notebooks to their pages, and links that leave the docs to the site's copies."""

    def link(match: re.Match[str]) -> str:
        outside = _outside(match[2], page.file.src_uri, Path(config.docs_dir))
        if outside is None:
            return match[0]
        return match[1] + os.path.relpath(f"{TAKEN}/{outside}", Path(page.file.src_uri).parent)

    return LINK.sub(link, NOTEBOOK.sub(r"\1.md", markdown))


def _outside(target: str, page: str, docs: Path) -> str | None:
    """The path in the repository of a file that is linked to, if it is there but not in the docs."""
    path = Path(os.path.normpath(docs / Path(page).parent / target))
    if not path.is_file() or path.is_relative_to(docs) or not path.is_relative_to(REPO):
        return None
    return path.relative_to(REPO).as_posix()


def notebook_page(notebook: Any) -> str:
    """A notebook as Markdown: text as it is, code and printed output as blocks, HTML output as HTML."""
    return "\n\n".join(part for cell in notebook.cells for part in _parts(cell)) + "\n"


def _parts(cell: Any) -> list[str]:
    if cell.cell_type != "code":
        return [cell.source]
    return [_block(cell.source, "python"), *filter(None, map(_shown, cell.outputs))]


def _shown(output: Any) -> str:
    if output.output_type == "stream":
        return _block(output.text, "text") if output.name == "stdout" else ""
    data = output.get("data", {})
    if "text/html" in data:  # in one line: Markdown ends HTML at an empty one
        html = "".join(line.strip() + " " for line in data["text/html"].splitlines())
        return f'<div class="output">{html}</div>'
    return _block(data["text/plain"], "text") if "text/plain" in data else ""


def _block(text: str, language: str) -> str:
    return f"```{language}\n{text.rstrip()}\n```"
