"""The text of a failure: what a person reads first, in the room that the platform gives it."""

from __future__ import annotations

import itertools
import os
import pickle

import pytest

from container.errors import AlgorithmError, ClientError, JobError, PlatformError, last_line, printable


def test_a_message_without_details_is_the_text() -> None:
    assert str(ClientError("channel train is missing")) == "channel train is missing"
    assert ClientError("channel train is missing").reason == "ClientError: channel train is missing"


def test_details_follow_cause_and_remedy() -> None:
    error = PlatformError("two files are gone; copy them again", ["a.jpg", "b.jpg"])
    assert error.reason == "PlatformError: two files are gone; copy them again: a.jpg; b.jpg"


def test_as_many_details_as_fit_then_how_many_more() -> None:
    names = [f"{number:08d}.jpg" for number in range(500)]  # 12 characters each
    reason = ClientError("rename them", names).reason
    # "ClientError: rename them: " is 26, "; and 429 more" 14 characters: (1024 - 26 - 14 + 2) // 14 names fit
    assert reason == f"ClientError: rename them: {'; '.join(names[:70])}; and 430 more"
    assert len(reason) == 26 + 70 * 14 - 2 + 14


@pytest.mark.parametrize("count", [72, 71, 70])
def test_the_last_detail_takes_the_room_of_the_number(count: int) -> None:
    names = [f"{number:08d}.jpg" for number in range(count)]
    whole = f"ClientError: rename them: {'; '.join(names)}"
    assert (ClientError("rename them", names).reason == whole) == (len(whole) <= 1024)


@pytest.mark.parametrize("kind", [ClientError, AlgorithmError, PlatformError])
@pytest.mark.parametrize("character", ["x", "ü", "語", "🦊", "\udcdf", "\n"])
def test_whatever_the_text_the_platform_keeps_all_of_it(kind: type[JobError], character: str) -> None:
    lengths = (0, 1, 300, 1000, 1009, 1010, 1011, 1012, 1024, 5000)
    for length, details, size in itertools.product(lengths, (0, 1, 2, 400), (1, 37, 2000)):
        reason = kind(character * length, [character * size] * details).reason
        assert len(reason.encode()) <= 1024  # bytes: so no more characters either, whichever are counted
        assert len(reason.splitlines()) == 1
        assert reason.startswith(f"{kind.__name__}: ")
        if details == 400:
            assert reason.endswith(" more")
        elif length <= 1 and details * size <= 74 and details:
            assert "more" not in reason and "…" not in reason


def test_a_long_message_ends_in_an_ellipsis() -> None:
    assert ClientError("x" * 5000).reason == "ClientError: " + "x" * 1008 + "…"
    assert ClientError("語" * 5000).reason == "ClientError: " + "語" * 336 + "…"  # 13 + 3 × 336 + 3 = 1024


def test_an_error_survives_the_way_from_another_process() -> None:
    error = pickle.loads(pickle.dumps(ClientError("rename them", ["a", "b"])))
    assert (type(error), error.message, error.details) == (ClientError, "rename them", ("a", "b"))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (os.fsdecode(b"stra\xdfe.jpg"), r"stra\xdfe.jpg"),
        ("straße 語.jpg", "straße 語.jpg"),
        ("a\nb\tc\r\x1b[31m\x7f", r"a\nb\tc\r\x1b[31m\x7f"),
        ("\x85\u00a0\u200b\u2028\u202e\ud83d", r"\u0085\u00a0\u200b\u2028\u202e\ud83d"),
        ("C:\\data", "C:\\data"),
    ],
)
def test_what_cannot_be_printed_is_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert shown.isprintable() and shown.encode()


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (  # of MXNet 1.9.1
            RuntimeError(
                'Traceback (most recent call last):\n  File "../src/ndarray/ndarray.cc", line 1854\n'
                "MXNetError: Check failed: fi->Read(&header): Invalid NDArray file format"
            ),
            "MXNetError: Check failed: fi->Read(&header): Invalid NDArray file format",
        ),
        (
            RuntimeError(
                "[10:00:00] src/x.cc:12: Check failed: false\nStack trace:\n  [bt] (0) /lib/a.so(+0x1) [0x7f]\n"
                "  [bt] (1) /lib/b.so(+0x2) [0x7f]\n\n"
            ),
            "[10:00:00] src/x.cc:12: Check failed: false",
        ),
        (
            'Traceback (most recent call last):\n  File "x.py", line 1\n    f()\n    ^^^\nValueError: no\n',
            "ValueError: no",
        ),
        ("Traceback (most recent call last):\n", ""),
        ("", ""),
        (KeyError("surprise"), "'surprise'"),
        (KeyError(), "KeyError"),
        (Mute(), "Mute"),
        (ValueError(os.fsdecode(b"\xdf.jpg is bad")), r"\xdf.jpg is bad"),
        (ValueError("\n \n"), "ValueError"),
    ],
)
def test_the_line_that_says_something(error: BaseException | str, line: str) -> None:
    assert last_line(error) == line
