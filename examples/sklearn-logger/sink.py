"""A sink of CloudEvents: prints one line for each, as KServe's message dumper does. Run: ``python sink.py [port]``."""

import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Sink(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        told = ("ce-type", "ce-id", "ce-inferenceservicename", "ce-metadata", "ce-annotations")
        print(*(self.headers[name] for name in told), " ".join(body.decode().split()), flush=True)
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 8898), Sink).serve_forever()
