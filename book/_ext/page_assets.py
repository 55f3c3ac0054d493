"""Tidy what Sphinx and its theme put on a page.

No script twice (the console would complain), the widget bundle (1.9 MB) only where there are
widgets, a name for the fold of each chapter in the sidebar, roles that screen readers know, and no
id twice.
"""

from myst_nb.sphinx_ import NbMetadataCollector


def tidy(app, pagename, templatename, context, doctree):
    """The last to touch a page's parts before the template does."""
    context["script_files"] = scripts(app, pagename, context.get("script_files", []))
    context["body"] = (
        context.get("body", "")
        # docutils nests entries of this deprecated role in a list, which must have list items.
        .replace('role="doc-biblioentry"', 'role="listitem"')
        .replace(' id="proof-content"', "")  # sphinx-proof: the same in every theorem
    )
    toctree = context.get("generate_toctree_html")
    if toctree is not None:
        context["generate_toctree_html"] = named(toctree)


def scripts(app, pagename, files):
    """Each script once; the widget bundle and what serves it only on pages with widgets."""
    has_widgets = bool(NbMetadataCollector.get_js_files(app.env, pagename))
    seen, kept = set(), []
    for script in files:
        name = str(getattr(script, "filename", "") or "")
        key = (name, getattr(script, "attributes", {}).get("body"))
        if key not in seen and (has_widgets or "widgets" not in name):
            kept.append(script)
        seen.add(key)
    return kept


def named(toctree):
    """The sidebar, its folds with a name: the theme gives them an icon only."""

    def with_names(*args, **options):
        soup = toctree(*args, **options)
        for fold in soup.find_all("summary"):
            fold["aria-label"] = "Pages of this chapter"
        return soup

    return with_names


def setup(app):
    app.connect("html-page-context", tidy, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
