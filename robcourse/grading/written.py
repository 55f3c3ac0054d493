"""What a student wrote, found in whatever came back, and in a form that is safe to show.

nbgrader's formgrader shows a text as live HTML, in a page that may do whatever the instructor may.
So a text is shown as Markdown only if formgrader's parser finds nothing in it but prose, formulas
and pictures that are in the text itself. Else what makes HTML and links of it is pulled apart; if
that does not help, it is shown as code.
"""

import re
import unicodedata

#: Longer texts are shown as code, and cut. A picture in the text does not count as long.
_MARKDOWN, _LONGEST = 20_000, 100_000
_PICTURE = re.compile(r"data:image/(?:png|jpeg|gif|webp);base64,[A-Za-z0-9+/=]+")
_PICTURES = 4_000_000

#: The kinds of nodes that Markdown may have; links, raw HTML and other images are not among them.
_PROSE = {
    "paragraph", "text", "heading", "blank_line", "block_text", "block_quote", "block_math",
    "inline_math", "latex_environment", "table", "table_head", "table_body", "table_row",
    "table_cell", "list", "list_item", "task_list_item", "def_list", "def_list_head",
    "def_list_item", "emphasis", "strong", "strikethrough", "codespan", "block_code", "linebreak",
    "softbreak", "thematic_break",
}  # fmt: skip


def texts(release: dict, cells: list[dict]) -> dict[str, str]:
    """What the student wrote for each answer cell; "" for nothing, or the stub."""
    ours = [(c["id"], _source(c)) for c in release["cells"]]
    ids = {id for id, _ in ours}
    by_text = {_squash(text): id for id, text in ours}
    solutions = [c["metadata"].get("nbgrader", {}).get("solution") for c in release["cells"]]
    stubs = {_squash(text) for (_, text), s in zip(ours, solutions, strict=True) if s} | {""}
    sources = [_source(cell) for cell in cells]
    names = []
    for cell, source in zip(cells, sources, strict=True):
        id = str(cell.get("id"))
        known = "" if _squash(source) in stubs else by_text.get(_squash(source), "")
        names.append(id if id in ids else known)
    found = {}
    for at, cell in enumerate(release["cells"]):
        if solutions[at]:
            before = release["cells"][at - 1]["id"] if at else ""
            pieces = {}  # for their order: a copy of a cell is not shown twice
            for i in _places(names, cell["id"], before):
                code = cells[i].get("cell_type") == "code"
                if _squash(sources[i]) in stubs:
                    continue
                if cell["cell_type"] == "markdown":
                    pieces[_fenced(sources[i]) if code else sources[i]] = None
                elif code or names[i]:
                    pieces[sources[i]] = None
            found[cell["id"]] = "\n\n".join(pieces)
    return found


def safe(text: str, taken: set[str]) -> str:
    """Markdown of which formgrader makes nothing but prose, formulas and pictures."""
    text = _printable(text)
    if len(_PICTURE.sub("", text)) <= _MARKDOWN and len(text) <= _PICTURES:
        for shown in (text, _apart(text)):
            if _harmless(shown, taken):
                return shown
    return _fenced(cut(text))


def cut(text: str) -> str:
    """The text, or its beginning where it is very long, without control characters."""
    text = _printable(text)
    more = len(text) - _LONGEST
    return f"{text[:_LONGEST]}\n… ({more} characters more)" if more > 0 else text


def plain(text: str) -> str:
    """A name: formgrader writes it into its pages without escaping it."""
    return " ".join(re.sub(r"[<>&\"'`\\]", " ", line(text)).split())[:128]


def line(text: str) -> str:
    """The text on one line, without anything that cannot be printed."""
    return "".join(c if c.isprintable() else " " for c in text)


def _places(names: list[str], id: str, before: str) -> list[int]:
    """Where an answer stands: its own cells, and the new ones that follow the cell before it."""
    if not {id, before} & set(names):
        return [i for i, name in enumerate(names) if not name]
    places, follows = [], False
    for i, name in enumerate(names):
        follows = name in (id, before) or (follows and not name)
        if follows and name in ("", id):
            places.append(i)
    return places


def _apart(text: str) -> str:
    """The text with a space put where HTML, a link or a heading would begin."""
    text = re.sub(r"<(?=\S)", "< ", text)
    text = re.sub(r"\](?=[\[:]|\((?!data:image/))", "] ", text)
    text = re.sub(r"\\(?=href\b)", r"\\ ", text).replace("://", ": //")
    return re.sub(r"^([ \t]*)#", r"\1\\#", text, flags=re.MULTILINE)


def _harmless(text: str, taken: set[str]) -> bool:
    """Whether formgrader's own parser finds nothing but prose, formulas and pictures.

    taken: ids of the page. A heading gets an id from its words, and formgrader finds its fields of
    points by id.
    """
    from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

    text = _PICTURE.sub("data:image/png;base64,AAAA", text)  # no sign of Markdown is in the rest
    if "\\href" in text:  # a link in a formula, for which the parser does not look
        return False
    try:
        nodes = list(MarkdownWithMath(renderer=None)(text))
        while nodes:
            node = nodes.pop()
            attrs = node.get("attrs") or {}
            if node["type"] == "image":
                if not _PICTURE.fullmatch(attrs["url"]):
                    return False
            elif node["type"] not in _PROSE or (attrs.get("info") or "").startswith("mermaid"):
                return False
            nodes += node.get("children") or []
        html = MarkdownWithMath(renderer=IPythonRenderer(escape=False)).render(text)
    except Exception:  # nested too deeply, or whatever else would stop formgrader
        return False
    fields = [f"{id}{end}" for id in taken for end in ("", "-comment", "_extra_credit")]
    page = {*fields, "notebook", "notebook-container", "statusmessage"}
    return not page & set(re.findall(r'id="([^"]*)"', html))


def _fenced(text: str) -> str:
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}\n{text}\n{fence}"


def _printable(text: str) -> str:
    """Without control characters, and with nothing that UTF-8 cannot hold."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    kept = (c if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cs") else " " for c in text)
    return "".join(kept)


def _source(cell: dict) -> str:
    source = cell.get("source")
    lines = source if isinstance(source, list) else [source]
    return "".join(line for line in lines if isinstance(line, str))


def _squash(text: str) -> str:
    return " ".join(text.split())
