#!/usr/bin/env python3
"""Answers every GET / with the name of its container and a new UUID, as JSON, on port 9005.

Only Python's standard library, and of that only what a minimal installation has.
"""

import json
import os
import signal
import socket
import sys
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PORT = 9005


class Handler(BaseHTTPRequestHandler):
    """GET / and nothing else."""

    server_version = "dummy-service"
    protocol_version = "HTTP/1.1"
    # the answer is one small piece: do not wait for more
    disable_nagle_algorithm = True
    wbufsize = -1

    def do_GET(self):
        if self.path != "/":
            self.answer(404, {"error": "not found"})
            return
        self.answer(200, {"hostname": socket.gethostname(), "uuid": str(uuid.uuid4())})

    def answer(self, status, document):
        body = (json.dumps(document, indent=2) + "\n").encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format, *args):
        print(self.address_string(), format % args, flush=True)


class Server(ThreadingHTTPServer):
    """One thread for each connection; none keeps the process alive."""

    daemon_threads = True
    request_queue_size = 512


def stop(_signal, _frame):
    """The first process of a container has no default for SIGTERM: leave at once."""
    os._exit(0)


def main():
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    server = Server(("", PORT), Handler)
    print("listening on port", PORT, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    sys.exit(main())
