"""TensorBoard's event files: numbers, figures and sample prompts, each step once.

A run that goes on begins a new file, whose first event tells TensorBoard to drop what earlier files hold of
later steps; a last event that a kill tore is passed over. Files are written in the caller's thread: the
thread of tensorboardX's own writer ends on a full disk, and the next writes then wait for it forever.
"""

import socket
import struct
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboardX.proto.tensor_pb2 import TensorProto
from tensorboardX.record_writer import masked_crc32c

from icl.tracking.markdown import as_markdown
from icl.tracking.tracker import Sample

PREFIX = "events.out.tfevents."
_SHOWN_WITHIN = 10.0
"""Seconds after which what was written can be read, at the next write."""


class TensorBoard:
    """Writes events to an open file; a `Tracker`."""

    def __init__(self, file: BinaryIO, clock: Callable[[], float] = time.time) -> None:
        """Begins a file; `clock` gives each event its time."""
        self._file, self._clock = file, clock
        self._flushed = time.monotonic()
        self._write(file_version="brain.Event:2")

    @classmethod
    def append(cls, folder: Path, first_step: int) -> "TensorBoard":
        """Begins another file of a folder, which TensorBoard reads from `first_step` on."""
        folder.mkdir(parents=True, exist_ok=True)
        # TensorBoard reads files by name, so the later one needs the larger number.
        earlier = [path.name.removeprefix(PREFIX).partition(".")[0] for path in folder.glob(f"{PREFIX}*")]
        number = max([int(time.time()), *(int(name) + 1 for name in earlier if name.isdecimal())])
        writer = cls((folder / file_name(number, socket.gethostname())).open("xb"))
        writer._write(step=first_step, session_log=SessionLog(status=SessionLog.START))
        return writer

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Writes numbers by their names."""
        self._summary(step, [Summary.Value(tag=name, simple_value=value) for name, value in values.items()])

    def figure(self, step: int, name: str, png: bytes) -> None:
        """Writes a PNG file as it is."""
        width, height = struct.unpack(">II", png[16:24])
        image = Summary.Image(width=width, height=height, colorspace=4, encoded_image_string=png)
        self._summary(step, [Summary.Value(tag=name, image=image)])

    def samples(self, step: int, name: str, samples: Sequence[Sample]) -> None:
        """Writes prompts with answers as Markdown."""
        self._summary(step, [_text(name, as_markdown(samples))])

    def sync(self) -> None:
        """Hands what was written to the system."""
        self._file.flush()
        self._flushed = time.monotonic()

    def close(self, *, failed: bool = False) -> None:
        """Closes the file."""
        del failed
        self._file.close()

    def _summary(self, step: int, values: Sequence[Any]) -> None:
        self._write(step=step, summary=Summary(value=values))
        if time.monotonic() - self._flushed >= _SHOWN_WITHIN:
            self.sync()

    def _write(self, **content: Any) -> None:
        event = Event(wall_time=self._clock(), **content).SerializeToString()
        length = struct.pack("<Q", len(event))
        checks = (struct.pack("<I", masked_crc32c(part)) for part in (length, event))
        self._file.write(length + next(checks) + event + next(checks))


def file_name(number: int, writer: str) -> str:
    """The name of an event file; TensorBoard reads those of a folder in the order of their names."""
    return f"{PREFIX}{number:010d}.{writer}"


def _text(name: str, markdown: str) -> Any:
    """Text for TensorBoard's page of texts, which takes it for Markdown."""
    metadata = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="text"))
    tensor = TensorProto(dtype="DT_STRING", string_val=[markdown.encode()])
    return Summary.Value(tag=name, metadata=metadata, tensor=tensor)
