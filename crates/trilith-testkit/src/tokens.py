"""Gives out tokens for a registry, as the token service of its documentation does.

Arguments: user, password, and a directory with `key.pem`, and `cert.pem` that the registry trusts.
Says its port on stdout. Whoever logs in is given what is asked for, and nothing more.

https://distribution.github.io/distribution/spec/auth/token/
"""

import base64
import http.server
import json
import subprocess
import sys
import time
import urllib.parse

USER, PASSWORD, DIRECTORY = sys.argv[1:]
LOGIN = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
with open(f"{DIRECTORY}/cert.pem") as file:
    CERTIFICATE = "".join(line.strip() for line in file if "-----" not in line)


def coded(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def access(scope):
    kind, rest = scope.split(":", 1)
    name, actions = rest.rsplit(":", 1)
    return {"type": kind, "name": name, "actions": actions.split(",")}


def token(audience, scopes):
    header = {"typ": "JWT", "alg": "RS256", "x5c": [CERTIFICATE]}
    now = int(time.time())
    claims = {
        "iss": "testkit",
        "sub": USER,
        "aud": audience,
        "nbf": now - 10,
        "iat": now,
        "exp": now + 300,
        "access": [access(scope) for scope in scopes],
    }
    parts = [coded(json.dumps(part).encode()) for part in (header, claims)]
    signed = b".".join(parts)
    sign = ["openssl", "dgst", "-sha256", "-sign", f"{DIRECTORY}/key.pem"]
    signature = subprocess.run(sign, input=signed, stdout=subprocess.PIPE, check=True).stdout
    return (signed + b"." + coded(signature)).decode()


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
        scopes = " ".join(query.get("scope", [])).split()
        known = self.headers.get("Authorization") == LOGIN
        body = {"token": token(query["service"][0], scopes)} if known else {}
        body = json.dumps(body).encode()
        self.send_response(200 if known else 401)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
