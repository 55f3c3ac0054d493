"""`python -m robcourse.zoo [NAME ...]`: train the named models (all, if none is named) anew.

With `--measure` first, only measure again the weights that are there.
"""

import sys

from . import recipes, write


def main(names: list[str]) -> int:
    again = "--measure" in names
    names = [name for name in names if name != "--measure"]
    unknown = [name for name in names if name not in recipes.RECIPES]
    if unknown:
        allowed = ", ".join(recipes.RECIPES)
        print(f"no recipe for {', '.join(unknown)}; allowed: {allowed}", file=sys.stderr)
        return 2
    for name in names or recipes.RECIPES:
        raw, card = recipes.measure(name) if again else recipes.make(name)
        write(card, raw)
        print(f"{name}: {card.clean['accuracy']:.1%} of {card.clean['n']}, {card.seconds:.1f} s, "
              f"{card.weights_bytes} bytes, " + ", ".join(
                  f"≤ {r['accuracy_upper']:.1%} at {r['norm']} {r['eps']:.4f}" for r in card.robust
              ), flush=True)  # fmt: skip
        recipes.checkpoint(name, card.seed).unlink(missing_ok=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
