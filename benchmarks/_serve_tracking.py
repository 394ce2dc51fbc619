"""A server over a home directory, for `benchmarks.tracking`: prints its URL and token, then serves."""

from __future__ import annotations

import sys

from modelyard.kernel import settings
from modelyard.server.run import Server

if __name__ == "__main__":
    server = Server(settings.load({"home": sys.argv[1], "port": 0}))
    server.run(lambda: print(server.url, server.token, flush=True))
