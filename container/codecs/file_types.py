"""Detection of other file formats from their bytes, with advice."""

from __future__ import annotations

import re

_HEAD = 4096  # bytes that are inspected

_CONVERT = "convert it to JPEG or PNG"
_FRAME = "extract a frame as JPEG or PNG"
_FAILED = "a download failed, or the URL is wrong"
_RAW = "provide the raw bytes of a JPEG or PNG"
_EXTRACT = "extract it, and " + _RAW
_DECODE = "decode it, and " + _RAW

_JPEG, _PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
_SIGNATURES = (  # signature, its offset, name, fix
    (_JPEG, 0, "a JPEG image", ""),
    (_PNG, 0, "a PNG image", ""),
    (b"WEBP", 8, "a WebP image", _CONVERT),
    (b"AVI ", 8, "a video", _FRAME),
    (b"GIF8", 0, "a GIF image", _CONVERT),
    (b"II*\0", 0, "a TIFF image", _CONVERT),
    (b"MM\0*", 0, "a TIFF image", _CONVERT),
    (b"II+\0", 0, "a TIFF image", _CONVERT),
    (b"MM\0+", 0, "a TIFF image", _CONVERT),
    (b"\0\0\0\x0cJXL ", 0, "a JPEG XL image", _CONVERT),
    (b"\xff\x0a", 0, "a JPEG XL image", _CONVERT),
    (b"\0\0\0\x0cjP  ", 0, "a JPEG 2000 image", _CONVERT),
    (b"\xff\x4f\xff\x51", 0, "a JPEG 2000 image", _CONVERT),
    (b"8BPS", 0, "a Photoshop file", _CONVERT),
    (b"\0\0\1\0", 0, "an icon", _CONVERT),
    (b"DICM", 128, "a DICOM file", _CONVERT),
    (b"\x76\x2f\x31\x01", 0, "an OpenEXR image", _CONVERT),
    (b"%PDF", 0, "a PDF document", _CONVERT),
    (b"\x93NUMPY", 0, "a NumPy array", "encode it as JPEG or PNG"),
    (
        b"\x89PNG",
        0,
        "a PNG with line endings that were changed during transfer",
        "send it as binary data (curl: --data-binary)",
    ),
    (b"\xef\xbf\xbd", 0, "binary data corrupted by a conversion to text", _RAW + ", without decoding them to text"),
    (b"\xc3\xbf\xc3\x98", 0, "a JPEG corrupted by a conversion to text", _RAW + ", without encoding them as text"),
    (b"\xc2\x89PNG", 0, "a PNG corrupted by a conversion to text", _RAW + ", without encoding them as text"),
    (b"\x0a\x23\xd7\xce", 0, "a RecordIO record", _RAW + ", without the record around them"),
    (b"\x1f\x8b", 0, "gzip data", _EXTRACT),
    (b"PK\x03\x04", 0, "a zip archive", _EXTRACT),
    (b"PK\x05\x06", 0, "an empty zip archive", _RAW),
    (b"ustar", 257, "a tar archive", _EXTRACT),
    (b"7z\xbc\xaf", 0, "a 7z archive", _EXTRACT),
    (b"BZh", 0, "bzip2 data", _EXTRACT),
    (b"\x28\xb5\x2f\xfd", 0, "zstd data", _EXTRACT),
    (b"PAR1", 0, "a Parquet file", _RAW),
    (b"\x1a\x45\xdf\xa3", 0, "a video", _FRAME),
)
_BRANDS = {b"avif": "an AVIF image", b"avis": "an AVIF image", b"crx ": "a raw image of a camera"}
_HEIF = (b"he", b"mif", b"msf")  # prefixes of the brands of HEIF files

_TEXTS = (  # regular expression for the start of the text, name, fix
    (rb"data:[\w/+.;=-]*base64,", "a data: URL", "decode its base64 part, and " + _RAW),
    (rb"data:[\w/+.-]+[;,]", "a data: URL", _RAW),
    (rb"[\"']?b'(/9j/|iVBORw0KGgo)", "the Python representation of base64 bytes", "call .decode() on them"),
    (rb"[\"']?[/_]9j[/_]", "base64 text of a JPEG", _DECODE),
    (rb"[\"']?iVBORw0KGgo", "base64 text of a PNG", _DECODE),
    (rb"[\"']?b'\\xff\\xd8|[\"']?b'\\x89PNG", "the Python representation of bytes", _RAW),
    (rb"(?i)ffd8ff[0-9a-f]{6}|89504e470d0a1a0a", "an image as hexadecimal text", _RAW),
    (rb"--[^\r\n]{1,200}\r?\n(?i:content-)", "multipart form data", _RAW + " as the body: curl --data-binary"),
    (rb"(?i)<!doctype html|<html|<head|<body", "an HTML page", _FAILED),
    (rb"(?is)(<\?xml.{0,400}?)?(<!--.{0,400}?-->\s*)?(<!doctype svg|<svg)", "an SVG drawing", _CONVERT),
    (rb"<\?xml|<[A-Za-z][\w:.-]*[\s>/]", "XML", _FAILED),
    (rb"version https://git-lfs", "a Git LFS pointer", "fetch the file itself (git lfs pull)"),
    (rb"(https?|s3|gs|file)://", "a URL", _RAW + ", not their location"),
    (rb"\{\s*[\"}]|\[\s*[\[{\"\]0-9-]", "JSON", _RAW),
    (rb"[A-Za-z0-9+/_-]{40}[A-Za-z0-9+/_\r\n-]*([=\t ][=\s]*)?$", "base64 text", _DECODE),
    (rb"[\w.%+-]+=[\w.%+/-]*(&|$)", "form data", _RAW + " as the body"),
    (rb"P[1-7]\s+[\d#]", "a Netpbm image", _CONVERT),
)
_SOME_TEXT = re.compile(rb"[\t\n\r\x20-\x7e\x80-\xff]*")


def describe(data: bytes) -> str:
    """Describe bytes from their first 4096, with a fix: "a WebP image: convert it to JPEG or PNG"."""
    name, remedy = _find(bytes(data[:_HEAD]))
    return f"{name}: {remedy}" if remedy else name


def name(data: bytes) -> str:
    """Return the kind of bytes from their first 4096, for example "a WebP image"."""
    return _find(bytes(data[:_HEAD]))[0]


def _find(head: bytes) -> tuple[str, str]:
    if not head:
        return "empty", _RAW
    for signature, place, name, remedy in _SIGNATURES:
        if head.startswith(signature, place):
            return name, remedy
    if head[4:8] == b"ftyp":
        return _base_media(head)
    if head[:2] == b"BM" and b"\0" in head[:14]:
        return "a BMP image", _CONVERT
    if not head.strip(b"\0"):
        return "only zeros", _RAW
    return _text(head)


def _base_media(head: bytes) -> tuple[str, str]:
    """Return name and fix for a file in the ISO base media format, from its brands."""
    brands = [head[8:12], *(head[place : place + 4] for place in range(16, min(head[3], len(head)), 4))]
    for brand in brands:
        if brand in _BRANDS:
            return _BRANDS[brand], _CONVERT
    if any(brand.startswith(_HEIF) for brand in brands):
        return "a HEIC image", _CONVERT
    return "a video", _FRAME


def _text(head: bytes) -> tuple[str, str]:
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    for pattern, name, remedy in _TEXTS:
        if re.match(pattern, text):
            return name, remedy
    for start, kind in ((head.find(_JPEG), "JPEG"), (head.find(_PNG), "PNG")):
        if start > 0:
            return f"a {kind} after {start} other bytes", "remove the bytes before it"
    if not text:
        return "only white space", _RAW
    if _SOME_TEXT.fullmatch(head) and sum(byte < 0x80 for byte in head) * 2 > len(head):
        shown = text[:40].decode("ascii", "replace").split()
        return f"text ({' '.join(shown)!r})", _RAW
    return f"an unknown file type ({head[:8].hex(' ')})", _RAW
