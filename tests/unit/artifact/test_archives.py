"""The channel `model`: the one model in it is found whatever lies about, and what is no model is named."""

from __future__ import annotations

import gzip
import io
import json
import logging
import random
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from container.artifact import archives, unpacking
from container.artifact.archives import open_model_channel
from container.errors import ClientError, PlatformError

SETTINGS = json.dumps({"num_classes": 2}).encode()
MODEL = {"hyperparams.json": SETTINGS, "model_best.params": b"weights" * 1000}
Members = dict[str, bytes] | list[tuple[str | tarfile.TarInfo, bytes]]


def tar(members: Members, form: int = tarfile.PAX_FORMAT) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=form) as archive:
        for name, content in members.items() if isinstance(members, dict) else members:
            entry = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            if not isinstance(name, tarfile.TarInfo):
                entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return target.getvalue()


def put(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def entry(name: str, kind: bytes, link: str = "") -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname = kind, link
    return made


def read(channel: Path) -> tuple[dict[str, bytes], str]:
    """Open a channel's model; return its files and what errors would call it."""
    with open_model_channel(channel) as model:
        return {path.name: path.read_bytes() for path in model.directory.iterdir()}, model.source


def refused(channel: Path) -> ClientError:
    with pytest.raises(ClientError) as caught, open_model_channel(channel):
        pass
    assert "/tmp/tmp" not in str(caught.value)  # no temporary folder
    return caught.value


@pytest.mark.parametrize("name", ["model.tar.gz", "MODEL.TAR.GZ", "model.tgz", "model.tar", "a/b/model", "x.zip"])
@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_archive_is_detected_by_its_content(tmp_path: Path, name: str, compressed: bool, form: int) -> None:
    others = {"model_algo-1": b"last", "code/train.py": b"pass", "._hyperparams.json": b"\0\5\x16\7", "n" * 300: b""}
    content = tar({**others, **MODEL} if form != tarfile.USTAR_FORMAT else MODEL, form)
    path = put(tmp_path / name, gzip.compress(content) if compressed else content)
    assert read(tmp_path) == (MODEL, str(path))


def test_extracted_files_are_removed_afterwards(tmp_path: Path) -> None:
    put(tmp_path / "model.tar.gz", gzip.compress(tar(MODEL)))
    with open_model_channel(tmp_path) as model:
        assert model.directory.is_dir()
    assert not model.directory.exists()


@pytest.mark.parametrize("folder", ["", "job-2024/output"])
def test_extracted_model_is_used_in_place(tmp_path: Path, folder: str) -> None:
    for name, content in MODEL.items():
        put(tmp_path / folder / name, content)
    put(tmp_path / folder / "model_algo-1", b"last")
    with open_model_channel(tmp_path) as model:
        assert (model.directory, model.source) == (tmp_path / folder, str(tmp_path / folder))


def test_names_with_leading_dot_are_accepted(tmp_path: Path) -> None:
    members = [(entry("./", tarfile.DIRTYPE), b""), *((f"./{name}", content) for name, content in MODEL.items())]
    put(tmp_path / "model.tar.gz", gzip.compress(tar(members)))
    assert read(tmp_path)[0] == MODEL


def test_several_models_are_all_listed(tmp_path: Path) -> None:  # case 27
    paths = [
        put(tmp_path / f"job-{year}/output/model.tar.gz", gzip.compress(tar(MODEL))) for year in (2020, 2022, 2024)
    ]
    error = refused(tmp_path)
    assert str(error).startswith(
        f"{tmp_path} contains 3 models, but a job starts from one model. Set the S3 URI of a single"
    )
    assert error.details == tuple(map(str, paths))


def test_extracted_model_next_to_an_archive_is_rejected(tmp_path: Path) -> None:
    path = put(tmp_path / "model.tar.gz", gzip.compress(tar(MODEL)))
    for name, content in MODEL.items():
        put(tmp_path / name, content)
    assert refused(tmp_path).details == (str(path), str(tmp_path))


def test_other_files_are_skipped_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = put(tmp_path / "output/model.tar.gz", gzip.compress(tar(MODEL)))
    output = put(tmp_path / "output/output.tar.gz", gzip.compress(tar({"data/report.json": b"{}"})))
    nested = put(tmp_path / "nested.tar", tar({f"old/{name}": content for name, content in MODEL.items()}))
    linked = put(tmp_path / "source.tgz", gzip.compress(tar([(entry("a", tarfile.SYMTYPE, "/etc/passwd"), b"")])))
    put(tmp_path / "stray/hyperparams.json", SETTINGS)
    put(tmp_path / "data.csv.gz", gzip.compress(b"1,2\n" * 1000))
    put(tmp_path / "README", b"")
    put(tmp_path / "zeros.bin", bytes(600) + b"x")
    put(tmp_path / ".hidden/model.tar.gz", gzip.compress(tar(MODEL)))
    put(tmp_path / "._model.tar.gz", b"AppleDouble")
    with caplog.at_level(logging.WARNING):
        assert read(tmp_path) == (MODEL, str(path))
    assert sorted(caplog.messages) == sorted(
        [
            f"Skipped in the model channel: {output} does not contain hyperparams.json at the top level",
            f"Skipped in the model channel: {nested} does not contain hyperparams.json at the top level "
            "(it contains old/hyperparams.json)",
            f"Skipped in the model channel: {linked} does not contain hyperparams.json at the top level",
            f"Skipped in the model channel: {tmp_path}/stray does not contain model_best.params",
        ]
    )


@pytest.mark.parametrize(
    ("name", "members", "said"),
    [
        ("model.tar.gz", {}, "does not contain hyperparams.json at the top level"),
        ("model.tar.gz", {"model_best.params": b""}, "does not contain hyperparams.json at the top level"),
        ("model.tar.gz", {"hyperparams.json": b"{}"}, "does not contain model_best.params at the top level"),
        (
            "model.tar.gz",
            {"model/hyperparams.json": b"{}", "model/model_best.params": b""},
            "does not contain hyperparams.json at the top level (it contains model/hyperparams.json)",
        ),
        (
            "model.tar.gz",
            {"hyperparams.json": b"{}", "model/model_best.params": b""},
            "does not contain model_best.params at the top level (it contains model/model_best.params)",
        ),
        (
            "model.tar.gz",
            {"/hyperparams.json": b"{}", "../model_best.params": b""},
            "does not contain hyperparams.json at the top level (it contains /hyperparams.json)",
        ),
    ],
)
def test_error_lists_what_each_archive_does_not_contain(tmp_path: Path, name: str, members: Members, said: str) -> None:
    path = put(tmp_path / name, gzip.compress(tar(members)))
    error = refused(tmp_path)
    assert str(error).startswith(f"{tmp_path} does not contain a model. Add the model.tar.gz of one training job")
    assert error.details == (f"{path} {said}",)


def test_error_without_an_archive_lists_the_files(tmp_path: Path) -> None:
    assert refused(tmp_path).details == ("the directory is empty",)
    path = put(tmp_path / "model.zip", b"PK\3\4")
    assert refused(tmp_path).details == (f"{path} is not a tar archive",)


GOOD = list(MODEL.items())


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ([*GOOD, ("../../evil", b"evil")], "../../evil has a path outside the archive"),
        ([*GOOD, ("a/../b", b"")], "a/../b has a path outside the archive"),
        ([*GOOD, ("/etc/evil", b"evil")], "/etc/evil has a path outside the archive"),
        ([*GOOD, (entry("link", tarfile.SYMTYPE, "/etc/passwd"), b"")], "link is a link"),
        ([*GOOD, (entry("link", tarfile.LNKTYPE, "hyperparams.json"), b"")], "link is a link"),
        ([*GOOD, (entry("pipe", tarfile.FIFOTYPE), b"")], "pipe is neither a file nor a directory"),
        ([*GOOD, (entry("null", tarfile.CHRTYPE), b"")], "null is neither a file nor a directory"),
        ([*GOOD, GOOD[0]], "hyperparams.json occurs twice"),
        ([*GOOD, ("./model_best.params", b"other")], "./model_best.params occurs twice"),
        ([GOOD[1], (entry("hyperparams.json", tarfile.SYMTYPE, "/etc/passwd"), b"")], "hyperparams.json is a link"),
        ([GOOD[0], (entry("model_best.params", tarfile.DIRTYPE), b"")], "model_best.params is not a regular file"),
        (
            [("hyperparams.json", b" " * (2**20 + 1)), GOOD[1]],
            "hyperparams.json has 1048577 bytes, and the limit is 1048576",
        ),
    ],
)
def test_unexpected_entries_are_listed(tmp_path: Path, members: Members, said: str) -> None:
    path = put(tmp_path / "channel/model.tar.gz", gzip.compress(tar(members)))
    error = refused(tmp_path / "channel")
    assert str(error).startswith(f"{path} contains entries that no training job writes. Create the archive again")
    assert error.details == (said,)
    assert sorted(found.name for found in tmp_path.rglob("*")) == ["channel", "model.tar.gz"]


def test_zip_bomb_is_rejected_before_it_fills_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(archives._LIMITS, "model_best.params", 10_000)
    monkeypatch.setattr(archives, "_ARCHIVE_LIMIT", 100_000)
    path = put(tmp_path / "model.tar.gz", gzip.compress(tar({**MODEL, "model_best.params": bytes(10_001)})))
    assert refused(tmp_path).details == ("model_best.params has 10001 bytes, and the limit is 10000",)
    put(path, gzip.compress(tar({**MODEL, "other": bytes(200_000)})))
    assert str(refused(tmp_path)).startswith(
        f"{path} cannot be extracted: the extracted content has more than 100000 bytes"
    )
    put(path, gzip.compress(tar(MODEL) + bytes(200_000)))
    assert str(refused(tmp_path)).startswith(
        f"{path} cannot be extracted: the extracted content has more than 100000 bytes"
    )


def test_headers_and_number_of_members_are_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put(tmp_path / "model.tar.gz", gzip.compress(tar({"n" * 2**18: b"", **MODEL})))
    assert str(refused(tmp_path)).startswith(f"{path} cannot be extracted: the header of a member has 26")
    monkeypatch.setattr(unpacking, "_MEMBERS_LIMIT", 10)
    put(path, gzip.compress(tar({**MODEL, **{f"{number}": b"" for number in range(9)}})))
    assert str(refused(tmp_path)).startswith(f"{path} cannot be extracted: it has more than 10 members")


@pytest.mark.parametrize("name", ["model.tar.gz", "model.tgz", "MODEL.TAR"])
@pytest.mark.parametrize(
    "content",
    [b"", b"no archive", b"PK\3\4", gzip.compress(b"no archive"), gzip.compress(b"")],
    ids=["empty", "text", "zip", "gzip of text", "gzip of nothing"],
)
def test_file_named_like_an_archive_must_be_an_archive(tmp_path: Path, name: str, content: bytes) -> None:
    path = put(tmp_path / name, content)
    assert str(refused(tmp_path)).startswith(f"{path} cannot be extracted: ")


DAMAGES: list[tuple[str, Callable[[bytes], bytes]]] = [
    ("the tail cut off", lambda packed: packed[:-1]),
    ("the checksum cut off", lambda packed: packed[:-8]),
    ("half of it", lambda packed: packed[: len(packed) // 2]),
    ("something behind it", lambda packed: packed + b"garbage"),
    ("a wrong checksum", lambda packed: packed[:-8] + bytes(4) + packed[-4:]),
    ("a wrong length", lambda packed: packed[:-4] + b"\1\1\1\1"),
    ("its head alone", lambda packed: packed[:10]),
]


@pytest.mark.parametrize(("what", "damage"), DAMAGES, ids=[what for what, _ in DAMAGES])
def test_corruption_at_any_position_is_detected(tmp_path: Path, what: str, damage: Callable[[bytes], bytes]) -> None:
    weights = random.Random(1).randbytes(100_000)
    packed = gzip.compress(tar({**MODEL, "model_best.params": weights, "model_algo-1": weights}))
    path = put(tmp_path / "model.tar.gz", damage(packed))
    assert str(refused(tmp_path)).startswith(f"{path} cannot be extracted: ")


@pytest.mark.parametrize("length", [512, 1000, 1024, 8704, 9216, 9728])
def test_truncated_plain_archive_is_corrupt(tmp_path: Path, length: int) -> None:
    whole = tar({**MODEL, "model_algo-1": b"last"}, tarfile.USTAR_FORMAT)
    path = put(tmp_path / "model.tar", whole[:length])
    assert str(refused(tmp_path)).startswith(f"{path} cannot be extracted: ")


def test_plain_archive_with_an_invalid_header_is_corrupt(tmp_path: Path) -> None:
    whole = bytearray(tar({"hyperparams.json": SETTINGS, "model_best.params": b"w", "x": b"y"}, tarfile.USTAR_FORMAT))
    whole[2048 + 5] ^= 1  # in the name of the third member: its header's checksum is wrong
    path = put(tmp_path / "model.tar", bytes(whole))
    assert str(refused(tmp_path)) == (
        f"{path} cannot be extracted: it is truncated after model_best.params. "
        "Copy the complete archive again, or remove it."
    )


def test_any_corrupted_byte_gives_a_clear_error(tmp_path: Path) -> None:
    """Whatever is changed, the archive is read as it was, or refused by name: nothing else comes up."""
    rng = random.Random(7)
    plain = tar({**MODEL, "model_best.params": b"weights", "n" * 200: b"x"})
    for packed in (plain, gzip.compress(plain)):
        for _ in range(100):
            changed = bytearray(packed)
            for _ in range(rng.choice((1, 1, 2, 20))):
                changed[rng.randrange(len(changed))] = rng.randrange(256)
            path = put(tmp_path / "model.tar.gz", bytes(changed))
            try:
                read(tmp_path)
            except ClientError as error:
                assert str(path) in str(error)


def test_full_disk_is_not_reported_as_a_corrupt_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "model.tar.gz", gzip.compress(tar(MODEL)))

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(unpacking.shutil, "copyfileobj", full)
    with pytest.raises(OSError, match="No space left") as caught, open_model_channel(tmp_path):
        pass
    assert not isinstance(caught.value, ClientError | PlatformError)


def test_name_that_is_not_utf8_is_escaped(tmp_path: Path) -> None:
    members = {**MODEL, "../stra\udcdfe": b""}
    put(tmp_path / "model.tar.gz", gzip.compress(tar(members, tarfile.GNU_FORMAT)))
    assert str(refused(tmp_path)).endswith(r": ../stra\xdfe has a path outside the archive")
