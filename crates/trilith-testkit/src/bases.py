"""Makes many images of one: the same layers, each in a repository and with a config of its own.

    bases.py HOST REPOSITORY TAG PREFIX COUNT

Image I is `PREFIX/bI:latest` and has the label `base=I`.
"""

import hashlib
import http.client
import json
import sys
import urllib.parse

MANIFEST = "application/vnd.oci.image.manifest.v1+json"

host, repository, tag, prefix, count = sys.argv[1:]
connection = http.client.HTTPConnection(host)


def request(method, path, status, body=None, **headers):
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, body, headers)
    response = connection.getresponse()
    content = response.read()
    assert response.status == status, (method, path, response.status, content)
    return response, content


def digest(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


manifest = json.loads(request("GET", f"/v2/{repository}/manifests/{tag}", 200, Accept=MANIFEST)[1])
config = json.loads(request("GET", f"/v2/{repository}/blobs/{manifest['config']['digest']}", 200)[1])
for number in range(int(count)):
    target = f"{prefix}/b{number}"
    for layer in manifest["layers"]:
        request("POST", f"/v2/{target}/blobs/uploads/?mount={layer['digest']}&from={repository}", 201)
    config.setdefault("config", {})["Labels"] = {"base": str(number)}
    content = json.dumps(config).encode()
    upload = request("POST", f"/v2/{target}/blobs/uploads/", 202)[0].headers["Location"]
    upload = urllib.parse.urlparse(upload)
    query = f"{upload.query}&digest={digest(content)}".lstrip("&")
    request("PUT", f"{upload.path}?{query}", 201, content, Content_Type="application/octet-stream")
    manifest["config"] = dict(manifest["config"], digest=digest(content), size=len(content))
    body = json.dumps(manifest).encode()
    request("PUT", f"/v2/{target}/manifests/latest", 201, body, Content_Type=MANIFEST)
