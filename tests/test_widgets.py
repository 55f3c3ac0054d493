"""The slider: every frame has its words, and works with a Stack and, in Colab, without one."""

import base64
import io
import re

import ipywidgets
import matplotlib
import pytest
from PIL import Image

from robcourse import widgets

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # after the backend is chosen


def a_frame(alt: str = "a picture") -> str:
    return widgets.frame(plt.subplots(figsize=(1, 1))[0], alt)


def test_a_frame_is_a_picture_with_its_alternative_text():
    text = a_frame('quotes " and <signs> & more')
    alt, source = re.fullmatch(r'<img alt="([^"]*)" src="([^"]*)">', text).groups()
    assert alt == "quotes &quot; and &lt;signs&gt; &amp; more"
    kind, _, code = source.partition(",")
    assert kind == "data:image/webp;base64"
    assert Image.open(io.BytesIO(base64.b64decode(code))).size == (110, 110)
    assert not plt.get_fignums()  # the figure is closed


@pytest.mark.parametrize("alt", ["", "  "])
def test_a_frame_without_words_is_refused(alt):
    figure = plt.subplots()[0]
    with pytest.raises(ValueError, match="alt is empty"):
        widgets.frame(figure, alt)
    plt.close(figure)


def test_the_browser_alone_moves_the_stack():
    frames = [a_frame(str(i)) for i in range(3)]
    box = widgets.slider(frames, ["a", "b", "c"], description="ε", start=1)
    handle, stack = box.children
    assert isinstance(stack, ipywidgets.Stack)
    assert [child.value for child in stack.children] == frames
    assert (handle.description, handle.index, stack.selected_index) == ("ε", 1, 1)
    links = [
        w
        for w in ipywidgets.widget._instances.values()
        if isinstance(w, ipywidgets.widgets.widget_link.Link) and w.source[0] is handle
    ]
    (link,) = links
    assert (link.source[1], link.target) == ("index", (stack, "selected_index"))


def test_without_a_stack_the_kernel_swaps_the_picture(monkeypatch):
    monkeypatch.delattr(ipywidgets, "Stack")
    frames = [a_frame(str(i)) for i in range(3)]
    handle, shown = widgets.slider(frames, ["a", "b", "c"], description="ε").children
    assert shown.value == frames[0]
    handle.index = 2
    assert shown.value == frames[2]


@pytest.mark.parametrize(("frames", "labels"), [([], []), (["<img>"], []), (["<img>"], ["a", "b"])])
def test_frames_and_labels_must_match(frames, labels):
    with pytest.raises(ValueError, match="one label each"):
        widgets.slider(frames, labels, description="ε")
