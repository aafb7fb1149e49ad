"""Check that SageMaker AI can use a pushed image: check_manifest.py IMAGE_URI, with the password on standard input.

The script needs only the Python standard library, because it runs on machines without the environment of this project.
Sources: the OCI distribution specification (manifests, blobs), and the media types in the Amazon ECR User Guide.
"""

from __future__ import annotations

import base64
import http.client
import json
import sys
import urllib.error
import urllib.request
from typing import Any

DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
ACCEPTED = (
    DOCKER_MANIFEST,
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
)
TIMEOUT_SECONDS = 60


class _RedirectHandler(urllib.request.HTTPRedirectHandler):
    """Redirects without the password, because the storage behind a registry rejects it."""

    def redirect_request(self, req: Any, *arguments: Any) -> urllib.request.Request | None:
        target = super().redirect_request(req, *arguments)
        if target:
            target.remove_header("Authorization")
        return target


def fetch(url: str, password: str) -> tuple[str, bytes]:
    """Return the media type and the content at a registry's URL."""
    request = urllib.request.Request(url, headers={"Accept": ", ".join(ACCEPTED)})
    if password:
        request.add_header("Authorization", "Basic " + base64.b64encode(f"AWS:{password}".encode()).decode())
    with urllib.request.build_opener(_RedirectHandler).open(request, timeout=TIMEOUT_SECONDS) as response:
        return response.headers.get_content_type(), response.read()


def find_problem(image_uri: str, password: str) -> str | None:
    """Return why SageMaker AI cannot use the image, with the fix, or None."""
    registry, _, path = image_uri.partition("/")
    name, _, tag = path.rpartition(":")
    scheme = "http" if registry.startswith(("localhost:", "127.")) else "https"
    repository = f"{scheme}://{registry}/v2/{name}"
    media_type, manifest = fetch(f"{repository}/manifests/{tag}", password)
    if media_type != DOCKER_MANIFEST:
        return (
            f"The manifest of {image_uri} has the media type {media_type}. SageMaker AI accepts only {DOCKER_MANIFEST}."
        )
    _, content = fetch(f"{repository}/blobs/{json.loads(manifest)['config']['digest']}", password)
    config = json.loads(content)
    platform = f"{config.get('os')}/{config.get('architecture')}"
    if platform != "linux/amd64":
        return f"{image_uri} is built for {platform}. MXNet 1.9.1 and SageMaker AI need linux/amd64."
    return None


def main() -> None:
    """Print the problem and exit with 1 if SageMaker AI cannot use the image."""
    (image_uri,) = sys.argv[1:]
    try:
        problem = find_problem(image_uri, sys.stdin.read().strip())
    except (OSError, http.client.HTTPException, ValueError, LookupError) as error:
        sys.exit(f"The manifest of {image_uri} cannot be read ({error}). Run this script again.")
    if problem:
        sys.exit(f"{problem} Remove the local image, and build it with make image or make image-cpu.")


if __name__ == "__main__":
    main()
