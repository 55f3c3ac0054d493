"""A slider that works in the published page, where there is no kernel.

The frames are drawn once, when the notebook runs; the slider only chooses which one is seen. In
the built page the browser does that alone. In Colab (ipywidgets 7, which has no `Stack`) the
running kernel does.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ipywidgets
    from matplotlib.figure import Figure


def frame(figure: Figure, alt: str, *, dpi: int = 110) -> str:
    """A figure as an `<img>` element with its alternative text; the figure is closed.

    Raises:
        ValueError: the alternative text is empty.
    """
    import matplotlib.pyplot as plt

    if not alt.strip():
        raise ValueError("alt is empty; say what the picture shows, with its key numbers")
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=dpi, format="webp", facecolor="white")
    plt.close(figure)
    code = base64.b64encode(buffer.getvalue()).decode()
    return f'<img alt="{html.escape(alt, quote=True)}" src="data:image/webp;base64,{code}">'


def slider(
    frames: Sequence[str], labels: Sequence[str], *, description: str, start: int = 0
) -> ipywidgets.VBox:
    """A slider over `frames` (of `frame`), one label each; frame `start` is shown first.

    Raises:
        ValueError: no frames, or another number of labels than of frames.
    """
    import ipywidgets as w

    if len(frames) != len(labels) or not frames:
        raise ValueError(
            f"got {len(frames)} frames and {len(labels)} labels; expected one label each"
        )
    handle = w.SelectionSlider(
        options=[(label, i) for i, label in enumerate(labels)],
        value=start,
        description=description,
        continuous_update=True,
        style={"description_width": "initial"},
        layout={"width": "min(100%, 30rem)"},
    )
    stack = getattr(w, "Stack", None)
    if stack is not None:
        shown = stack([w.HTML(f) for f in frames], selected_index=start)
        w.jslink((handle, "index"), (shown, "selected_index"))
    else:
        shown = w.HTML(frames[start])
        handle.observe(lambda change: setattr(shown, "value", frames[change["new"]]), "index")
    return w.VBox([handle, shown])
