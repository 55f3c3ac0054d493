"""The built site, as a reader has it: in Chromium, at desktop and phone width, in light and dark.

Needs `_build/html` (`make book`) and a browser. Where one is missing the tests skip and say so;
with ROBCOURSE_REQUIRE_BROWSER=1 (set by `.ci/run`) they fail.
"""

import functools
import http.server
import threading
from collections import Counter
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat
import pytest
import yaml
from bs4 import BeautifulSoup
from helpers import missing

ROOT = Path(__file__).resolve().parents[1]
HTML = ROOT / "_build" / "html"
CONFIG = yaml.safe_load((ROOT / "_config.yml").read_text())
#: `index.html` only sends the reader on to the front page.
PAGES = sorted(
    p.relative_to(HTML).as_posix()
    for p in HTML.rglob("*.html")
    if not {"_static", "_sources"} & set(p.parts) and p.relative_to(HTML).as_posix() != "index.html"
)
NOTEBOOKS = [p for p in PAGES if (ROOT / p).with_suffix(".ipynb").exists()]
WIDTHS = {"desktop": (1280, 900), "phone": (390, 844)}
pytestmark = pytest.mark.page


@functools.cache
def soup(page: str) -> BeautifulSoup:
    return BeautifulSoup((HTML / page).read_text(encoding="utf-8"), "html.parser")


@pytest.fixture(scope="module", autouse=True)
def book():
    if not (HTML / "book" / "intro.html").exists():
        missing("_build/html is not there: `make book` first")


@pytest.fixture(scope="module")
def site(book):
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Quiet, directory=str(HTML))
    )
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()


class Visit:
    """One page in one window, and everything that went wrong in it."""

    def __init__(self, browser, site: str, page: str, width: str):
        size = dict(zip(("width", "height"), WIDTHS[width], strict=True))
        self.context = browser.new_context(viewport=size, color_scheme="light")
        self.tab = self.context.new_page()
        self.wrong: list[str] = []
        self.tab.on("console", lambda m: m.type == "error" and self.wrong.append(m.text))
        self.tab.on("pageerror", lambda e: self.wrong.append(str(e)))
        self.tab.on("request", lambda r: self.outside(r.url, site))
        self.tab.on("response", lambda r: r.ok or self.wrong.append(f"{r.status} {r.url}"))
        self.tab.goto(site + page)
        self.tab.wait_for_load_state("load")
        self.tab.evaluate("window.MathJax && MathJax.startup && MathJax.startup.promise")
        if views := len(soup(page.partition("?")[0]).select('[type$="widget-view+json"]')):
            self.tab.wait_for_function(
                f"document.querySelectorAll('.noUi-handle[aria-label]').length >= {views}"
            )

    def outside(self, url: str, site: str) -> None:
        if not url.startswith((site, "data:", "blob:")):
            self.wrong.append(f"request to {url}")

    def change(self, theme: str) -> None:
        """As a reader's system does at nightfall."""
        self.tab.emulate_media(color_scheme=theme, reduced_motion="reduce")
        self.tab.wait_for_function(f"document.documentElement.dataset.theme == '{theme}'")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.context.close()


@pytest.fixture
def visit(browser, site):
    return functools.partial(Visit, browser, site)


#: Contrast is most of axe's time, and code most of that: thousands of words in a dozen
#: colours. Before contrast is measured, a word of a kind that was seen before is hidden.
FIRST_OF_EACH_KIND = """() => {
  const seen = new Set();
  for (const word of document.querySelectorAll('.highlight pre span')) {
    const where = word.closest('.cell_input, .cell_output, .admonition, details, .bd-article');
    const kind = word.className + '|' + (where ? where.className : '');
    if (seen.has(kind) && !word.children.length) word.style.display = 'none';
    seen.add(kind);
  }
}"""
#: The rules that look at colours are run in both themes, all others once at each width.
COLOURS = "axe.run(document, {runOnly: ['color-contrast', 'link-in-text-block']})"
ALL_ELSE = (
    "axe.run(document, {rules: {'color-contrast': {enabled: false},"
    " 'link-in-text-block': {enabled: false}}})"
)


def barriers(tab, run: str) -> list[str]:
    """What axe calls serious or critical."""
    return [
        f"{v['id']} ({v['impact']}): {node['html'][:160]}"
        for v in tab.evaluate(f"{run}.then(r => r.violations)")
        if v["impact"] in ("serious", "critical")
        for node in v["nodes"]
    ]


STATE = """() => {
  const all = (css) => [...document.querySelectorAll(css)];
  return {
    theme: document.documentElement.dataset.theme,
    overflow: document.documentElement.scrollWidth - document.documentElement.clientWidth,
    formulas: all(".bd-article .math").length,
    errors: all("mjx-merror, .bd-article .math:not(:has(mjx-container))").map(e => e.textContent),
    images: all(".bd-article img").filter(i => !(i.alt || "").trim()).map(i => i.src.slice(0, 80)),
    unreachable: all(".bd-article *")
      .filter(e => e.scrollWidth > e.clientWidth + 1 && e.tabIndex < 0)
      .filter(e => ["auto", "scroll"].includes(getComputedStyle(e).overflowX))
      .map(e => e.outerHTML.slice(0, 80)),
    broken: all("img").filter(i => i.complete && !i.naturalWidth).map(i => i.src.slice(0, 80)),
  };
}"""


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("page", PAGES)
def test_a_page_is_sound_and_open_to_everyone(visit, page, width):
    from axe_playwright_python.sync_playwright import Axe

    with visit(page, width) as v:
        v.tab.evaluate(
            "document.querySelectorAll('.bd-article details').forEach(d => d.open = true)"
        )
        v.tab.wait_for_timeout(50)  # for what follows an unfolding
        for theme in ("light", "dark"):
            v.change(theme)
            state = v.tab.evaluate(STATE)
            assert state["overflow"] <= 0, f"{theme}: the page is wider than the window"
            assert state["errors"] == [], "formulas that are not typeset"
            assert state["images"] == [], "images without an alternative text"
            assert state["unreachable"] == [], "what scrolls must take the focus, or keys cannot"
            assert state["broken"] == [], "images that do not load"
        assert v.wrong == []  # before axe: it asks for style sheets itself
        v.tab.evaluate(Axe().axe_script)
        assert barriers(v.tab, ALL_ELSE) == []
        v.tab.evaluate(FIRST_OF_EACH_KIND)
        for theme in ("dark", "light"):
            v.change(theme)
            assert barriers(v.tab, COLOURS) == [], theme


@pytest.mark.parametrize("page", [p for p in PAGES if "widget-view" in (HTML / p).read_text()])
def test_sliders_move_by_keyboard_without_a_kernel(visit, page):
    shown = """handle => {
      const box = handle.closest('.widget-vbox');
      return {
        images: [...box.querySelectorAll('img')]
          .filter(i => i.getClientRects().length).map(i => i.src),
        readout: box.querySelector('.widget-readout').textContent.trim(),
        value: handle.getAttribute('aria-valuetext'),
        label: handle.getAttribute('aria-label'),
        description: box.querySelector('.widget-label').textContent.trim(),
      };
    }"""
    with visit(page, "phone") as v:
        handles = v.tab.query_selector_all(".noUi-handle")
        assert len(handles) == len(soup(page).select('[type$="widget-view+json"]')) > 0
        for handle in handles:
            before = handle.evaluate(shown)
            handle.focus()
            # A slider that starts at its right end can only go back.
            end = handle.evaluate("h => h.ariaValueNow == h.ariaValueMax")
            handle.press("ArrowLeft" if end else "ArrowRight")
            v.tab.wait_for_timeout(80)
            after = handle.evaluate(shown)
            assert len(before["images"]) == len(after["images"]) == 1, "one frame is seen at a time"
            assert after["images"] != before["images"], "the slider moved, the image did not"
            assert after["readout"] != before["readout"]
            assert after["value"] == after["readout"]
            assert after["label"] == after["description"] != ""
        assert v.wrong == []


def test_chapter_1_has_a_slider():
    assert soup("chapters/01_linear_hypothesis.html").select('[type$="widget-view+json"]')


def test_search_finds_a_word(visit):
    with visit("search.html?q=linear", "desktop") as v:
        v.tab.wait_for_selector("#search-results li a")
        found = [a.get_attribute("href") for a in v.tab.query_selector_all("#search-results li a")]
        assert any("chapters/01_linear_hypothesis" in href for href in found)
    with visit("search.html?q=qwertzuiop", "desktop") as v:
        said = "document.querySelector('#search-results p')?.textContent.length > 20"
        v.tab.wait_for_function(said)
        assert not v.tab.query_selector_all("#search-results li a")


def test_theme_button_changes_the_theme(visit):
    with visit("book/intro.html", "desktop") as v:
        button = v.tab.locator("button.theme-switch-button:visible").first
        seen = set()
        for _ in range(3):  # auto, light, dark in turn
            button.click()
            seen.add(v.tab.evaluate("document.documentElement.dataset.theme"))
        assert seen == {"light", "dark"}


def test_a_proof_unfolds_by_keyboard(visit):
    with visit("chapters/01_linear_hypothesis.html", "desktop") as v:
        fold = v.tab.locator("details.proof").first
        assert not fold.evaluate("d => d.open")
        fold.locator("summary").focus()
        v.tab.keyboard.press("Enter")
        assert fold.evaluate("d => d.open")
        assert len(fold.inner_text()) > 40


def test_an_address_inside_a_fold_opens_it(visit):
    page = "chapters/01_linear_hypothesis.html"
    with visit(page, "desktop") as v:
        target = v.tab.evaluate("""() => {
          const fold = document.querySelector('.bd-article details:not([open])');
          const inner = fold.querySelector('p, pre, div');
          inner.id = 'inside-a-fold';
          location.hash = '#inside-a-fold';
          return new Promise(done => setTimeout(() => done(fold.open), 100));
        }""")
        assert target


# What needs no browser.


@pytest.mark.parametrize("page", PAGES)
def test_links_and_anchors_resolve(page):
    wrong = []
    for tag, name in (("a", "href"), ("link", "href"), ("script", "src"), ("img", "src")):
        for element in soup(page).find_all(tag, **{name: True}):
            url = urlsplit(element[name])
            if url.scheme or url.netloc:
                loads = tag != "a" and url.scheme != "data" and element.get("rel") != ["canonical"]
                wrong += [f"loads {element[name]}"] if loads else []
                continue
            target = (HTML / page).parent / unquote(url.path) if url.path else HTML / page
            target = target.resolve()
            if target.is_dir():
                target /= "index.html"
            if not target.exists():
                wrong.append(f"no file for {element[name]}")
            elif url.fragment and target.suffix == ".html":
                other = soup(target.relative_to(HTML).as_posix())
                if other.find(id=unquote(url.fragment)) is None:
                    wrong.append(f"no anchor for {element[name]}")
    assert wrong == []


@pytest.mark.parametrize("page", PAGES)
def test_no_id_is_used_twice(page):
    ids = Counter(e["id"] for e in soup(page).select(".bd-article [id]"))
    assert [i for i, times in ids.items() if times > 1] == []


def tags(cell) -> list[str]:
    return cell.metadata.get("tags", [])


@pytest.mark.parametrize("page", NOTEBOOKS)
def test_every_cell_has_its_anchor(page):
    """In the order of the notebook, and a code cell's right before that cell."""
    cells = nbformat.read((ROOT / page).with_suffix(".ipynb"), as_version=4).cells
    cells = [c for c in cells if c.source.strip() and "remove-cell" not in tags(c)]
    found = [e["id"] for e in soup(page).select('[id^="cell-"]')]
    assert found == [f"cell-{c.id}" for c in cells]
    for cell in cells:
        if cell.cell_type == "code" and "remove-input" not in tags(cell):
            after = soup(page).find(id=f"cell-{cell.id}").find_next("div", class_="cell")
            code = after.select_one(".cell_input pre").get_text()
            assert code.split() == cell.source.split()


@pytest.mark.parametrize("page", NOTEBOOKS)
def test_colab_and_download_buttons(page):
    repository = CONFIG["repository"]
    name = page.replace(".html", ".ipynb")
    owner = repository["url"].removeprefix("https://github.com/").rstrip("/")
    colab = f"https://colab.research.google.com/github/{owner}/blob/{repository['branch']}/{name}"
    buttons = soup(page).select('a[href*="colab.research.google.com/github"]')
    assert [a["href"] for a in buttons] == [colab]
    download = soup(page).select_one("a.btn-download-source-button")["href"]
    file = (HTML / page).parent / download
    assert file.suffix == ".ipynb"
    assert nbformat.read(file, as_version=4).cells


def test_no_page_is_left_over_from_an_earlier_toc():
    named = {"book/intro", "search"}

    def files(node):
        if isinstance(node, dict):
            if "file" in node:
                named.add(node["file"])
            for value in node.values():
                files(value)
        elif isinstance(node, list):
            for value in node:
                files(value)

    files(yaml.safe_load((ROOT / "_toc.yml").read_text()))
    assert {p.removesuffix(".html") for p in PAGES} == named
