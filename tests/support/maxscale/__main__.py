"""The double as a process of its own: ``python -m tests.support.maxscale`` prints its URL, and ends with its input.

It begins empty: no server, no service, no monitor. Listeners that are made over the REST API route.
"""

from __future__ import annotations

import argparse
import sys

from tests.support.maxscale.double import Double
from tests.support.maxscale.versions import VERSIONS


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.support.maxscale", description=__doc__)
    parser.add_argument("--version", choices=VERSIONS, default="24.02.3")
    with Double.empty(parser.parse_args().version) as double:
        print(double.login_url, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
