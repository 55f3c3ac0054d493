"""`python -m robcourse.zoo.experiments [NAME ...]`."""

import argparse
import json
import sys

from robcourse import runtime
from robcourse.zoo import HERE

from . import EXPERIMENTS, __doc__, run


def main(arguments: list[str]) -> int:
    """Run the named experiments (all, if none is named) and write their records."""
    parser = argparse.ArgumentParser("python -m robcourse.zoo.experiments", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="of a record; default: all")
    parser.add_argument("--note", default="", help="printed on the card")
    given = parser.parse_args(arguments)
    unknown = [name for name in given.names if name not in EXPERIMENTS]
    if unknown or runtime.profile() != "full":
        print(f"run with ROBCOURSE_PROFILE=full; names: {', '.join(EXPERIMENTS)}", file=sys.stderr)
        return 2
    for name in given.names or EXPERIMENTS:
        path = HERE / "records" / f"{name}.json"
        part = path.with_suffix(".part")
        part.write_text(json.dumps(run(name, given.note), indent=1) + "\n", encoding="utf-8")
        part.replace(path)
        print(path.name)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
