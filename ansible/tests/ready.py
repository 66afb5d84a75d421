"""Stands in for a data plane: says that it is ready, and whose it is."""

import http.server
import sys


class Ready(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = sys.argv[1].encode()
        self.send_response(200 if self.path == "/.well-known/skep/ready" else 404)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("0.0.0.0", 80), Ready)
print("listening", flush=True)
server.serve_forever()
