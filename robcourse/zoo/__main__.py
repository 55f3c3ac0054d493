"""`python -m robcourse.zoo [NAME ...]`: train the named models (all, if none is named) anew."""

import argparse
import sys

from . import recipes, write


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser("python -m robcourse.zoo", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="of a model; default: all")
    parser.add_argument("--measure", action="store_true", help="only, of the weights there are")
    parser.add_argument("--note", default="", help="printed on the card")
    given = parser.parse_args(arguments)
    unknown = [name for name in given.names if name not in recipes.RECIPES]
    if unknown:
        allowed = ", ".join(recipes.RECIPES)
        print(f"no recipe for {', '.join(unknown)}; allowed: {allowed}", file=sys.stderr)
        return 2
    for name in given.names or recipes.RECIPES:
        raw, card = recipes.measure(name) if given.measure else recipes.make(name, given.note)
        write(card, raw)
        print(f"{name}: {card.clean['accuracy']:.1%} of {card.clean['n']}, {card.seconds:.1f} s, "
              f"{card.weights_bytes} bytes, " + ", ".join(
                  f"≤ {r['accuracy_upper']:.1%} at {r['norm']} {r['eps']:.4f}" for r in card.robust
              ), flush=True)  # fmt: skip
        recipes.checkpoint(name, card.seed).unlink(missing_ok=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
