"""A server that says what it runs on; put your agent in its place."""

import json
from http.server import BaseHTTPRequestHandler, HTTPServer

import httpx


def state() -> dict[str, str]:
    return {"status": "ok", "httpx": httpx.__version__}


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = json.dumps(state()).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    HTTPServer(("", 8000), Handler).serve_forever()
