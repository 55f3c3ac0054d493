"""Fold proofs with the browser's own `<details>`.

sphinx-proof writes a proof without a title; sphinx-togglebutton looks for one, fails, and then
folds nothing on the whole page. Every proof also gets the same id. A proof of class `dropdown`
becomes a `<details>`: no script, and it opens with the keyboard.
"""

from docutils import nodes
from sphinx_proof.nodes import proof_node

TITLE = "Proof. "


def untitled(box) -> None:
    """Take the word that sphinx-proof writes in front of the first paragraph away again."""
    text = next(box.findall(nodes.Text), None)
    if text is not None and text.startswith(TITLE):
        text.parent.replace(text, nodes.Text(text[len(TITLE) :]))


def fold(app, doctree):
    """Rewrite the proofs of one page."""
    for proof in list(doctree.findall(proof_node)):
        box = proof[0]
        box["ids"] = []
        if "dropdown" not in box["classes"]:
            continue
        untitled(box)
        opening = '<details class="proof"><summary>Proof</summary>'
        inside = [nodes.raw("", opening, format="html"), *box.children]
        proof.parent.replace(proof, [*inside, nodes.raw("", "</details>", format="html")])


def setup(app):
    app.connect("doctree-read", fold)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
