"""A registry of container images: skopeo pushes and pulls; blobs in one piece and in chunks with ranges."""

import contextlib
import gzip
import hashlib
import http.client
import io
import json
import os
import shutil
import tarfile
import urllib.parse

from system import CELLS as FOLDER
from system import expect

NEEDS = ["docker-registry", "skopeo"]
CELLS = {
    "registry": {
        "command": f'env REGISTRY_HTTP_ADDR="$CELL_LISTEN" REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY="$CELL_DATA" OTEL_TRACES_EXPORTER=none docker-registry serve \'{FOLDER / "registry.yml"}\'',
        "entry": {"paths": ["/v2"], "ready_path": "/v2/"},
    },
}
MIB = 1 << 20


def run(system):
    image, back = system.work / "image", system.work / "image-back"
    manifest = make(image)
    for way in system.ways("registry"):
        name = f"{way.via}-{'asleep' if way.asleep else 'awake'}"
        there = f"docker://localhost:{way.port}/{name}:latest"
        with system.check("skopeo", "push of an image with 2 layers of 50 MiB, pull", way) as check:
            skopeo = ["skopeo", "--insecure-policy", "copy", "--quiet"]
            check.sh(*skopeo, "--dest-tls-verify=false", f"oci:{image}:latest", there)
            shutil.rmtree(back, ignore_errors=True)
            check.sh(*skopeo, "--src-tls-verify=false", there, f"oci:{back}:latest")
            found = json.loads((back / "index.json").read_text())["manifests"][0]["digest"]
            check.same(found, manifest)
            for file in (back / "blobs" / "sha256").iterdir():
                check.same(hashlib.sha256(file.read_bytes()).hexdigest(), file.name)
        with system.check("registry", "a blob of 60 MiB in one piece", way) as check:
            blob = os.urandom(60 * MIB)
            check.same(pushed(way, name, blob, 60 * MIB), digest(blob))
        with system.check("registry", "a blob of 20 MiB by PATCH, 4 MiB at a time", way) as check:
            blob = os.urandom(20 * MIB)
            check.same(pushed(way, name, blob, 4 * MIB), digest(blob))


def digest(blob):
    return "sha256:" + hashlib.sha256(blob).hexdigest()


def pushed(way, name, blob, piece):
    """Uploads a blob; the digest of what is there then (OCI Distribution Specification, pushing blobs)."""
    with contextlib.closing(http.client.HTTPConnection("localhost", way.port, timeout=120)) as connection:
        def call(method, target, body=None, **headers):
            connection.request(method, target, body, {name.replace("_", "-"): value for name, value in headers.items()})
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()

        status, headers, said = call("POST", f"/v2/{name}/blobs/uploads/", content_length="0")
        expect(status == 202, f"{status} {said[:200]}")
        place = headers["location"]
        for at in range(0, len(blob), piece) if piece < len(blob) else ():
            data = blob[at:at + piece]
            status, headers, said = call("PATCH", local(place), data, content_type="application/octet-stream",
                                         content_range=f"{at}-{at + len(data) - 1}")
            expect(status == 202, f"{status} {said[:200]}")
            place = headers["location"]
        last = blob if piece >= len(blob) else b""
        with_digest = local(place) + ("&" if "?" in place else "?") + "digest=" + urllib.parse.quote(digest(blob))
        status, headers, said = call("PUT", with_digest, last, content_type="application/octet-stream")
        expect(status == 201, f"{status} {said[:200]}")
        status, headers, said = call("GET", f"/v2/{name}/blobs/{digest(blob)}")
        expect(status == 200, f"{status} {said[:200]}")
        return digest(said)


def local(place):
    parts = urllib.parse.urlsplit(place)
    return parts.path + (f"?{parts.query}" if parts.query else "")


def make(folder):
    """An image in the OCI layout; its manifest's digest."""
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def put(kind, data):
        (blobs / hashlib.sha256(data).hexdigest()).write_bytes(data)
        return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": digest(data), "size": len(data)}

    layers, unpacked = [], []
    for number in range(2):
        packed, content = io.BytesIO(), os.urandom(50 * MIB)
        with tarfile.open(fileobj=packed, mode="w") as tar:
            entry = tarfile.TarInfo(f"file-{number}")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
        unpacked.append(digest(packed.getvalue()))
        # Compressed already: else the client does it, and the digests are others.
        layers.append(put("layer.v1.tar+gzip", gzip.compress(packed.getvalue(), 1, mtime=0)))
    config = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": unpacked}}
    manifest = {
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": put("config.v1+json", json.dumps(config).encode()), "layers": layers,
    }
    placed = put("manifest.v1+json", json.dumps(manifest).encode())
    placed["annotations"] = {"org.opencontainers.image.ref.name": "latest"}
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [placed]}))
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return placed["digest"]
