"""The shared package of *The book that checks itself*: one module a chapter.

Importing `robcourse` is cheap: nothing below is loaded, and torch least of all, until a module
is touched (`from robcourse import attacks`, or `robcourse.attacks`).
"""

import importlib

__version__ = "0.1.0"
__all__ = [
    "attacks", "blackbox", "bounds", "branching", "campaign", "checks", "cli", "concentration",
    "data", "flatness", "grading", "graphs", "intervals", "linear", "lipschitz", "milp", "models",
    "objectives", "orthogonal", "plots", "query", "risk", "runtime", "smoothing", "threat",
    "training", "verify", "widgets", "zoo",
]  # fmt: skip


def __getattr__(name: str):
    if name in __all__:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"robcourse has no module {name!r}; it has {', '.join(__all__)}")


def __dir__():
    return sorted([*globals(), *__all__])
