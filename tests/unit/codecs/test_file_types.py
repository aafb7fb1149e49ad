from __future__ import annotations

import base64
import gzip
import io
import json
import tarfile
import zipfile

import numpy as np
import pytest

from container.codecs.images import DecodeError, decode_image, describe
from tests.pictures import noise, save

JPEG, PNG = save(noise(), "JPEG"), save(noise())
RAW = "provide the raw bytes of a JPEG or PNG"
CONVERT = "convert it to JPEG or PNG"


def zipped() -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("a.png", PNG)
    return target.getvalue()


def tarred() -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as archive:
        entry = tarfile.TarInfo("a.png")
        entry.size = len(PNG)
        archive.addfile(entry, io.BytesIO(PNG))
    return target.getvalue()


def array() -> bytes:
    target = io.BytesIO()
    np.save(target, np.zeros(3))
    return target.getvalue()


MULTIPART = b'--b0undary\r\nContent-Disposition: form-data; name="f"\r\n\r\n' + JPEG + b"\r\n--b0undary--\r\n"

KINDS = [
    (b"", f"empty: {RAW}"),
    (bytes(100), f"only zeros: {RAW}"),
    (b" \r\n ", f"only white space: {RAW}"),
    (save(noise(), "WEBP"), f"a WebP image: {CONVERT}"),
    (save(noise(), "GIF"), f"a GIF image: {CONVERT}"),
    (save(noise(), "BMP"), f"a BMP image: {CONVERT}"),
    (save(noise(), "TIFF"), f"a TIFF image: {CONVERT}"),
    (save(noise(), "TIFF", big_tiff=True), f"a TIFF image: {CONVERT}"),
    (save(noise(), "ICO"), f"an icon: {CONVERT}"),
    (save(noise(), "PPM"), f"a Netpbm image: {CONVERT}"),
    (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", f"a HEIC image: {CONVERT}"),
    (b"\0\0\0\x1cftypmif1\0\0\0\0mif1avifmiaf", f"an AVIF image: {CONVERT}"),
    (b"\0\0\0\x20ftypavif\0\0\0\0avifmif1miafMA1B", f"an AVIF image: {CONVERT}"),
    (b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom", "a video: extract a frame as JPEG or PNG"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", f"a JPEG XL image: {CONVERT}"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", f"a JPEG 2000 image: {CONVERT}"),
    (b"8BPS\0\1", f"a Photoshop file: {CONVERT}"),
    (bytes(128) + b"DICM", f"a DICOM file: {CONVERT}"),
    (b"%PDF-1.7\n", f"a PDF document: {CONVERT}"),
    (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>', f"an SVG drawing: {CONVERT}"),
    (b"\n<!DOCTYPE html><html><body>Not found", "an HTML page: a download failed, or the URL is wrong"),
    (b'<?xml version="1.0"?><Error><Code>AccessDenied', "XML: a download failed, or the URL is wrong"),
    (base64.b64encode(JPEG), f"base64 text of a JPEG: decode it, and {RAW}"),
    (base64.urlsafe_b64encode(JPEG), f"base64 text of a JPEG: decode it, and {RAW}"),
    (b'"' + base64.b64encode(PNG) + b'"', f"base64 text of a PNG: decode it, and {RAW}"),
    (base64.encodebytes(save(noise(), "WEBP")), f"base64 text: decode it, and {RAW}"),
    (b"data:image/jpeg;base64," + base64.b64encode(JPEG), f"a data: URL: decode its base64 part, and {RAW}"),
    (json.dumps({"instances": [base64.b64encode(JPEG).decode()]}).encode(), f"JSON: {RAW}"),
    (b"\xef\xbb\xbf[[1, 2], [3, 4]]", f"JSON: {RAW}"),
    (MULTIPART, f"multipart form data: {RAW} as the body: curl --data-binary"),
    (b"name=value&other=%20", f"form data: {RAW} as the body"),
    (gzip.compress(JPEG), f"gzip data: extract it, and {RAW}"),
    (zipped(), f"a zip archive: extract it, and {RAW}"),
    (tarred(), f"a tar archive: extract it, and {RAW}"),
    (array(), "a NumPy array: encode it as JPEG or PNG"),
    (b"\x0a\x23\xd7\xce" + bytes(20) + JPEG, f"a RecordIO record: {RAW}, without the record around them"),
    (repr(JPEG).encode(), f"the Python representation of bytes: {RAW}"),
    (JPEG.hex().encode(), f"an image as hexadecimal text: {RAW}"),
    (
        JPEG.decode("utf-8", "replace").encode(),
        f"binary data corrupted by a conversion to text: {RAW}, without decoding them to text",
    ),
    (
        JPEG.decode("latin-1").encode(),
        f"a JPEG corrupted by a conversion to text: {RAW}, without encoding them as text",
    ),
    (PNG.decode("latin-1").encode(), f"a PNG corrupted by a conversion to text: {RAW}, without encoding them as text"),
    (
        PNG.replace(b"\r\n", b"\n"),
        "a PNG with line endings that were changed during transfer: send it as binary data (curl: --data-binary)",
    ),
    (b"version https://git-lfs.github.com/spec/v1\noid", "a Git LFS pointer: fetch the file itself (git lfs pull)"),
    (b"s3://bucket/image.jpg", f"a URL: {RAW}, not their location"),
    (b"\r\n" + JPEG, "a JPEG after 2 other bytes: remove the bytes before it"),
    (b"abc" + PNG, "a PNG after 3 other bytes: remove the bytes before it"),
    (b"hello,  world\n", f"text ('hello, world'): {RAW}"),
    (b"\1\2\3\4\5\6\7\x08\t", f"an unknown file type (01 02 03 04 05 06 07 08): {RAW}"),
    (JPEG, "a JPEG image"),
    (PNG, "a PNG image"),
]


@pytest.mark.parametrize(("data", "expected"), KINDS, ids=[expected.split(":")[0] for _, expected in KINDS])
def test_what_arrived_is_named_with_its_remedy(data: bytes, expected: str) -> None:
    assert describe(data) == expected
    assert describe(data + b" " * 10_000 if data.strip(b"\0") else data).split(":")[0] == expected.split(":")[0]


def test_the_error_names_what_arrived() -> None:
    text = f"this is neither a JPEG nor a PNG image, but a WebP image: {CONVERT}"
    with pytest.raises(DecodeError, match=f"^{text}$"):
        decode_image(save(noise(), "WEBP"))
