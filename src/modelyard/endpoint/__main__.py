"""`python -m modelyard.endpoint --config PATH`: serve until SIGTERM."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

import uvloop

from modelyard.endpoint.process import Process, lock
from modelyard.kernel.errors import ModelyardError

EXIT_REFUSED = 3


def main() -> int:
    """Entry point. Exit status 3: it could not even start, and says why on standard error."""
    parser = argparse.ArgumentParser(prog="python -m modelyard.endpoint", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="JSON file that says what to serve; it is watched")
    parser.add_argument("--port", type=int, default=0, help="port to take if it is free; 0: the configuration's")
    given = parser.parse_args()
    path: Path = given.config
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    try:
        # Held until the process ends, which is what releases it.
        lock(path.absolute().parent)
        process = Process(path.absolute(), given.port)
    except ModelyardError as error:
        logging.getLogger("modelyard.endpoint").error("%s", error)
        return EXIT_REFUSED
    status: int = uvloop.run(process.run())
    return status


if __name__ == "__main__":
    raise SystemExit(main())
