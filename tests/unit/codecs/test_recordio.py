from __future__ import annotations

import io
import os
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from container.codecs.recordio import RecordIOError, RecordTooLongError, frame, read_records

MAGIC = bytes.fromhex("0a23d7ce")


def test_whole_record_is_header_payload_and_padding() -> None:
    assert b"".join(frame(b"abc")) == MAGIC + bytes.fromhex("03000000") + b"abc\0"


def test_empty_payload_is_a_record() -> None:
    assert b"".join(frame(b"")) == MAGIC + bytes(4)
    assert list(read_records(io.BytesIO(MAGIC + bytes(4)))) == [b""]


def test_payload_is_split_where_it_holds_the_magic_at_a_multiple_of_four() -> None:
    payload = b"1234" + MAGIC + MAGIC + b"end"
    framed = (
        MAGIC + bytes.fromhex("04000020") + b"1234"
        + MAGIC + bytes.fromhex("00000040")
        + MAGIC + bytes.fromhex("03000060") + b"end\0"
    )  # fmt: skip
    assert b"".join(frame(payload)) == framed
    assert list(read_records(io.BytesIO(framed))) == [payload]


def test_payload_is_not_split_at_a_magic_elsewhere() -> None:
    assert b"".join(frame(b"1" + MAGIC)) == MAGIC + bytes.fromhex("05000000") + b"1" + MAGIC + bytes(3)


def test_frame_does_not_copy_the_payload() -> None:
    payload = bytearray(b"before")
    buffers = frame(payload)
    payload[:] = b"after!"
    assert b"after!" in b"".join(buffers)


def test_too_long_a_payload_is_refused() -> None:
    with pytest.raises(RecordTooLongError, match="536870912 bytes"):
        frame(np.zeros(2**29, np.uint8).data)


@given(st.lists(st.lists(st.sampled_from([MAGIC, b"a", b"1234", b"\0\0"])).map(b"".join)))
def test_what_is_framed_is_read_back(payloads: list[bytes]) -> None:
    stream = io.BytesIO(b"".join(buffer for payload in payloads for buffer in frame(payload)))
    assert list(read_records(stream)) == payloads


def test_reading_goes_no_further_than_the_record() -> None:
    first = b"".join(frame(b"1234" + MAGIC + b"67"))
    stream = io.BytesIO(first + b"whatever")
    assert next(read_records(stream)) == b"1234" + MAGIC + b"67"
    assert stream.tell() == len(first)


def test_an_unbuffered_pipe_that_gives_pieces_is_read() -> None:
    payload = os.urandom(1_000_003)  # many times a pipe's own buffer
    reading, writing = os.pipe()

    def write() -> None:
        with open(writing, "wb") as pipe:
            pipe.writelines(frame(payload))
            pipe.writelines(frame(b"second"))

    writer = threading.Thread(target=write)
    writer.start()
    with open(reading, "rb", buffering=0) as pipe:
        assert list(read_records(pipe)) == [payload, b"second"]
    writer.join()


@pytest.mark.parametrize("length", range(1, 36))
def test_a_truncated_stream_is_refused_with_the_byte_where_it_ends(length: int) -> None:
    whole = b"".join(frame(b"1234" + MAGIC + b"567")) + b"".join(frame(b"89"))
    assert len(whole) == 36
    if length == 24:  # the border between the two records
        return
    with pytest.raises(RecordIOError, match=rf"ends at byte {length}\b"):
        list(read_records(io.BytesIO(whole[:length])))


def test_records_before_the_damage_are_given() -> None:
    records = read_records(io.BytesIO(b"".join(frame(b"good")) + b"not a record"))
    assert next(records) == b"good"
    with pytest.raises(RecordIOError, match="no RecordIO record starts at byte 12"):
        next(records)


def test_a_foreign_stream_is_refused_with_what_is_there() -> None:
    with pytest.raises(RecordIOError, match=r"at byte 0\. The bytes there are 89 50 4e 47 0d 0a 1a 0a"):
        list(read_records(io.BytesIO(b"\x89PNG\r\n\x1a\n" + bytes(100))))


def test_parts_out_of_order_are_refused() -> None:
    last = MAGIC + bytes.fromhex("00000060")
    with pytest.raises(RecordIOError, match="at byte 0 continues a record that has no first part"):
        list(read_records(io.BytesIO(last)))
    first_then_whole = MAGIC + bytes.fromhex("00000020") + MAGIC + bytes(4)
    with pytest.raises(RecordIOError, match="a new record starts at byte 8, within the record at byte 0"):
        list(read_records(io.BytesIO(first_then_whole)))
