"""Give every cell of a notebook page the anchor `cell-<id of the cell>`.

The ledger, the take-aways and the tables of exercises link to the cell that shows a claim. A cell's
id is in the notebook; the page has none of it. A code cell is a container that knows its index. A
markdown cell leaves no node, but myst-nb numbers the lines of cell i from 10000·(i + 1) on, so the
first node with such a line is where it begins.
"""

from pathlib import Path

import nbformat
from docutils import nodes
from sphinx.util import logging

LINES = 10_000  # myst_nb.core.nb_to_tokens: start_line = (cell_index + 1) * 10000
#: What cannot have a target beside it: parts of lists, tables, figures and terms.
BLOCKS = (nodes.section, nodes.document, nodes.container)


def index_of(node) -> int | None:
    """The index of the cell that a node comes from."""
    if isinstance(node, nodes.container) and node.get("nb_element") == "cell_code":
        return node["cell_index"]
    line = getattr(node, "line", None)
    return line // LINES - 1 if line and line > LINES else None


def first_nodes(doctree) -> dict[int, nodes.Element]:
    """The first block of each cell, by the cell's index."""
    found = {}
    for node in doctree.findall(nodes.Element):
        if isinstance(node.parent, BLOCKS):
            index = index_of(node)
            if index is not None and not isinstance(node, nodes.title):
                found.setdefault(index, node)
    return found


def anchor(app, doctree):
    """Put the anchors in, once the page has been read."""
    path = Path(app.env.doc2path(app.env.docname))
    if path.suffix != ".ipynb":
        return
    cells = nbformat.read(path, as_version=4).cells
    where = first_nodes(doctree)
    for index, cell in enumerate(cells):
        node, name = where.get(index), f"cell-{cell['id']}"
        if node is None:
            if cell.source.strip() and "remove-cell" not in cell.metadata.get("tags", []):
                logging.getLogger(__name__).warning(
                    "cell %r has no place on the page: its anchor is missing",
                    cell["id"],
                    location=app.env.docname,
                )
        elif isinstance(node, nodes.section):
            node["ids"].append(name)
        else:
            node.parent.insert(node.parent.index(node), nodes.target("", "", ids=[name]))


def setup(app):
    app.connect("doctree-read", anchor, priority=400)  # before proofs are rewritten
    return {"parallel_read_safe": True, "parallel_write_safe": True}
