"""A media file is opened as a file, whatever its name says and whatever stands in it."""

import http.server
import os
import sys
import threading
from contextlib import contextmanager

import numpy as np
import pytest

from kf_core.errors import KnotForcingError
from kf_core.media.image import read_image
from kf_core.media.playback import probe
from kf_core.media.sound import SoundFile
from kf_core.media.video import VideoWriter

from ..cli.commands import write_voice
from .test_video import FPS, SIZE, frames

posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such names, pipes or devices")
NAMES = ["take 2%d %03d.wav", "-", "😀 名.wav", "a.mp3"]
POSIX_NAMES = ["take 2: final.wav", "http:x.wav", "concat:a|b.wav", "pipe:0", "rtmp:", "two\nlines.wav", b"caf\xe9.wav"]


def heard(path) -> np.ndarray:
    return np.concatenate(list(SoundFile(path).blocks(16000)))


@pytest.mark.parametrize("name", [*NAMES, *(pytest.param(name, marks=posix) for name in POSIX_NAMES)])
def test_a_name_is_never_read_as_a_protocol_or_a_pattern(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)  # a name alone: nothing before it says that it is a file
    name = os.fsdecode(name)
    write_voice(tmp_path / "plain.wav", 0.3)
    os.link(tmp_path / "plain.wav", name)
    assert np.array_equal(heard(name), heard("plain.wav"))
    with VideoWriter(tmp_path / "plain.mp4", width=SIZE, height=SIZE, fps=FPS) as video:
        video.write(frames(0, 5))
    os.replace(tmp_path / "plain.mp4", name)
    assert probe(name).frames == 5


@contextmanager
def server():
    """A server on this machine, and what it was asked for."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, *_) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as listening:
        threading.Thread(target=listening.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{listening.server_port}/voice.ts", asked
        listening.shutdown()


@pytest.mark.parametrize("opens", [SoundFile, probe])
def test_a_playlist_opens_neither_an_address_nor_another_file(tmp_path, opens):
    write_voice(tmp_path / "secret.wav", 0.3)
    with server() as (address, asked):
        (tmp_path / "voice.mp3").write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\n{address}\n#EXT-X-ENDLIST\n")
        (tmp_path / "voice.wav").write_text("ffconcat version 1.0\nfile 'secret.wav'\n")
        for name in ("voice.mp3", "voice.wav"):
            with pytest.raises(KnotForcingError, match="read|no sound|frames"):
                opens(tmp_path / name)
        with pytest.raises(KnotForcingError, match="does not exist"):
            opens(address)
    assert asked == []


@pytest.mark.parametrize("opens", [SoundFile, probe])
def test_what_is_no_regular_file_is_said_at_once(tmp_path, opens):
    with pytest.raises(KnotForcingError, match="is a folder. Give the .* file in it"):
        opens(tmp_path)
    with pytest.raises(KnotForcingError, match="does not exist"):
        opens(tmp_path / "none.mp4")
    with pytest.raises(KnotForcingError, match="cannot be opened|does not exist"):
        opens(tmp_path / ("x" * 300))


@posix
@pytest.mark.parametrize("opens", [SoundFile, probe, read_image])
def test_a_pipe_is_not_waited_for(tmp_path, opens):
    os.mkfifo(tmp_path / "voice.wav")
    with pytest.raises(KnotForcingError, match="is a pipe or a device"):
        opens(tmp_path / "voice.wav")
