"""Makes an image in skopeo's `dir:` form, which can hold every format without conversion.

    image.py OUT SPEC

SPEC is JSON: `layers` (tar files), `format` (`oci` or `docker`), `compression` (`gzip`, `zstd` or
`none`), `platforms` (as in `linux/arm64/v8`), `index` (whether to make one). Same input, same bytes.
"""

import gzip
import hashlib
import json
import pathlib
import subprocess
import sys

CREATED = "2024-03-05T06:07:08.123456789Z"
OCI = "application/vnd.oci.image."
DOCKER = "application/vnd.docker."
TYPES = {
    "oci": {
        "config": OCI + "config.v1+json",
        "manifest": OCI + "manifest.v1+json",
        "index": OCI + "index.v1+json",
        "gzip": OCI + "layer.v1.tar+gzip",
        "zstd": OCI + "layer.v1.tar+zstd",
        "none": OCI + "layer.v1.tar",
    },
    "docker": {
        "config": DOCKER + "container.image.v1+json",
        "manifest": DOCKER + "distribution.manifest.v2+json",
        "index": DOCKER + "distribution.manifest.list.v2+json",
        "gzip": DOCKER + "image.rootfs.diff.tar.gzip",
        "none": DOCKER + "image.rootfs.diff.tar",
    },
}


def digest(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def compress(data, how):
    if how == "gzip":
        return gzip.compress(data, 6, mtime=0)
    if how == "zstd":
        return subprocess.run(["zstd", "-q", "-3", "-c"], input=data, stdout=subprocess.PIPE, check=True).stdout
    return data


def encode(document):
    # Tabs and order as Docker's own manifests have them; nobody may rely on either.
    return json.dumps(document, indent=3).encode()


def config_for(platform, diff_ids):
    system, architecture, *variant = platform.split("/")
    history = [
        {"created": CREATED, "created_by": "/bin/sh -c #(nop) ADD file:rootfs in / "},
        {"created": CREATED, "created_by": "/bin/sh -c #(nop)  ENV BASE=1", "empty_layer": True},
    ]
    history += [{"created": CREATED, "created_by": f"layer {number}"} for number in range(1, len(diff_ids))]
    document = {
        "architecture": architecture,
        "os": system,
        "author": "testkit",
        "config": {
            "Hostname": "",
            "ArgsEscaped": True,
            "Cmd": ["/bin/sh"],
            "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "BASE=1"],
            "ExposedPorts": {"8080/tcp": {}},
            "Healthcheck": {"Test": ["CMD-SHELL", "true"], "Interval": 30000000000},
            "Labels": {"org.example.base": "yes", "z": "1", "a": "2"},
            "OnBuild": ["LABEL org.example.onbuild=ran"],
            "Shell": ["/bin/sh", "-ec"],
            "StopSignal": "SIGINT",
            "StopTimeout": 7,
            "Volumes": {"/data": {}},
            "WorkingDir": "/tmp",
            "x-foreign": {"b": [1, 2.5, None], "a": "<&>é"},
        },
        "container_config": {"Image": ""},
        "created": CREATED,
        "docker_version": "19.03.15",
        "history": history,
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
        "moby.buildkit.buildinfo.v1": "e30=",
    }
    if variant:
        document["variant"] = variant[0]
    return document


def main():
    out = pathlib.Path(sys.argv[1])
    spec = json.loads(sys.argv[2])
    types = TYPES[spec["format"]]
    out.mkdir()
    (out / "version").write_text("Directory Transport Version: 1.1\n")

    def describe(kind, data, **fields):
        return {"mediaType": types[kind], "size": len(data), "digest": digest(data), **fields}

    def store(kind, data, **fields):
        (out / digest(data).partition(":")[2]).write_bytes(data)
        return describe(kind, data, **fields)

    tars = [pathlib.Path(path).read_bytes() for path in spec["layers"]]
    layers = [store(spec["compression"], compress(tar, spec["compression"])) for tar in tars]
    entries = []
    for platform in spec["platforms"]:
        config = store("config", encode(config_for(platform, [digest(tar) for tar in tars])))
        manifest = {"schemaVersion": 2, "mediaType": types["manifest"], "config": config, "layers": layers}
        data = encode(manifest)
        system, architecture, *variant = platform.split("/")
        fields = {"architecture": architecture, "os": system, **({"variant": variant[0]} if variant else {})}
        entries.append((data, describe("manifest", data, platform=fields)))
    if spec["index"]:
        for data, entry in entries:
            (out / (entry["digest"].partition(":")[2] + ".manifest.json")).write_bytes(data)
        data = encode({"schemaVersion": 2, "mediaType": types["index"], "manifests": [entry for _, entry in entries]})
    else:
        ((data, _),) = entries
    (out / "manifest.json").write_bytes(data)
    print(digest(data))


main()
