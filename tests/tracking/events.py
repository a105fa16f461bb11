"""Reads event files back, as strictly as their format says; for tests."""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.record_writer import masked_crc32c


def events_of(data: bytes) -> Iterator[Any]:
    """The events of a file, up to the end or to where it is torn; each holds its two checksums."""
    at = 0
    while len(data) >= at + 12:
        (length,) = struct.unpack_from("<Q", data, at)
        if len(data) < at + 16 + length:
            return
        header, event = data[at : at + 8], data[at + 12 : at + 12 + length]
        assert struct.unpack_from("<I", data, at + 8)[0] == masked_crc32c(header)
        assert struct.unpack_from("<I", data, at + 12 + length)[0] == masked_crc32c(event)
        yield Event.FromString(event)
        at += 16 + length


def shown(folder: Path) -> list[tuple[int, str, Any]]:
    """(step, name, value) of what TensorBoard shows of a folder: files by name, and what restarts drop."""
    found: list[tuple[int, str, Any]] = []
    for path in sorted(folder.glob("*tfevents*")):
        for event in events_of(path.read_bytes()):
            if event.session_log.status == SessionLog.START:
                found = [row for row in found if row[0] < event.step]
            found += [(event.step, value.tag, _content(value)) for value in event.summary.value]
    return found


def _content(value: Any) -> Any:
    if value.HasField("image"):
        return value.image.encoded_image_string
    if value.HasField("tensor"):
        assert value.metadata.plugin_data.plugin_name == "text"
        return value.tensor.string_val[0].decode()
    return value.simple_value
