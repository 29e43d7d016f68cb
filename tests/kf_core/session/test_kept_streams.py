"""Laws of kept streams: bounded, the longest unused goes first, and none goes while somebody uses it, in this process or another."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kf_core.errors import KnotForcingError
from kf_core.session.kept_streams import KeptStreams, limit_from
from kf_core.session.latent_log import LatentLog
from kf_core.session.stream import StreamState

from .test_stream import frames, stream, whole  # noqa: F401

NAMES = [letter * 32 for letter in "abcde"]
ROOT = Path(__file__).parents[3]


def keep(folder: Path, ages: dict[str, float], size: int = 1000) -> None:
    """Streams of `size` bytes in two files, last used so many seconds ago."""
    folder.mkdir(exist_ok=True)
    for name, age in ages.items():
        used = time.time() - age
        for file in (folder / f"{name}.latents", folder / f"{name}-01234567.state"):
            file.write_bytes(bytes(size // 2))
            os.utime(file, (used, used))


def there(kept: KeptStreams) -> list[str]:
    return [found.recipe for found in kept.streams()]


def test_they_are_listed_the_last_used_first(tmp_path):
    keep(tmp_path, {NAMES[0]: 30, NAMES[1]: 10})
    (tmp_path / "of-an-older-version.state").write_bytes(bytes(7))
    (tmp_path / "folder").mkdir()
    os.utime(tmp_path / "of-an-older-version.state", (1e9, 1e9))
    kept = KeptStreams(tmp_path)
    assert there(kept) == [NAMES[1], NAMES[0], "of-an-older-version.state"] and kept.num_bytes == 2007
    first, second, *_ = kept.listing().splitlines()
    assert first == f"3 kept streams, 0.0 MB of at most 4.00 GB, in {tmp_path}" and second.startswith("bbbbbbbb  0.0 MB  used 20")


def test_beyond_the_limit_the_longest_unused_goes_whole(tmp_path):
    keep(tmp_path, dict(zip(NAMES, (50, 10, 40, 20, 30), strict=True)))
    kept = KeptStreams(tmp_path, limit_bytes=3500)
    assert kept.trim() == 2000 and there(kept) == [NAMES[1], NAMES[3], NAMES[4]]
    assert len(list(tmp_path.glob("*.state"))) == 3


def test_the_one_that_was_used_last_stays_however_large(tmp_path):
    keep(tmp_path, {NAMES[0]: 10, NAMES[1]: 20})
    kept = KeptStreams(tmp_path, limit_bytes=10)
    assert kept.trim() == 1000 and there(kept) == [NAMES[0]]


def test_using_counts_as_use_and_nothing_is_taken_from_under_it(tmp_path):
    keep(tmp_path, {NAMES[0]: 50, NAMES[1]: 10})
    kept = KeptStreams(tmp_path, limit_bytes=0)
    with kept.use(NAMES[0]) as folder, kept.use(NAMES[0]):
        assert folder == tmp_path and there(kept) == [NAMES[0]]
        assert KeptStreams(tmp_path).streams()[0].is_used
        assert kept.empty() == 0 and "in use now" in kept.listing()
    assert not kept.streams()[0].is_used and kept.empty() == 1000 and there(kept) == []
    assert [file.name for file in tmp_path.iterdir()] in ([], ["streams.lock"])


OTHER = """
import sys
from kf_core.session.kept_streams import KeptStreams
from pathlib import Path
with KeptStreams(Path(sys.argv[1])).use(sys.argv[2]):
    print("using", flush=True)
    sys.stdin.read()
"""


def test_another_process_that_uses_a_stream_is_seen_until_it_ends_even_by_a_kill(tmp_path):
    keep(tmp_path, {NAMES[0]: 50, NAMES[1]: 10})
    kept = KeptStreams(tmp_path, limit_bytes=0)
    words = [sys.executable, "-c", OTHER, str(tmp_path), NAMES[0]]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as other:
        assert other.stdout.readline() == "using\n"
        assert kept.empty() == 1000 and there(kept) == [NAMES[0]]
        other.kill()
    assert kept.empty() == 1000 and there(kept) == []
    assert not list(tmp_path.glob(f"{NAMES[0]}*"))


def test_nothing_outside_the_folder_is_touched(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    keep(tmp_path / "kept", {NAMES[0]: 10})
    try:
        (tmp_path / "kept" / f"{NAMES[1]}.latents").symlink_to(tmp_path / "mine.txt")
    except OSError:
        pytest.skip("this system makes no links")
    assert KeptStreams(tmp_path / "kept").empty() == 1000
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_files_of_others_in_the_folder_are_neither_counted_nor_removed(tmp_path):
    keep(tmp_path, {NAMES[0]: 10})
    mine = [tmp_path / name for name in ("notes.txt", f"{NAMES[0]}.png", "film.mp4", "states")]
    for path in mine:
        path.write_text("mine")
    (tmp_path / f"{NAMES[0]}.latents.new").write_bytes(bytes(7))
    kept = KeptStreams(tmp_path, limit_bytes=0)
    assert there(kept) == [NAMES[0]] and kept.num_bytes == 1007
    with kept.use(NAMES[1]):
        pass
    kept.empty()
    assert there(kept) == []
    assert all(path.read_text() == "mine" for path in mine)


def test_a_folder_that_is_not_there_keeps_nothing(tmp_path):
    kept = KeptStreams(tmp_path / "none")
    assert kept.streams() == [] and kept.num_bytes == kept.empty() == 0


def test_a_stream_whose_file_is_removed_by_hand_goes_on_without(stream, whole, tmp_path):  # noqa: F811
    spool, made = LatentLog(tmp_path, stream.recipe()), []
    for chunk in stream.frames(StreamState.start(stream), spool):
        made.append(chunk)
        spool.path.unlink(missing_ok=True)
    assert frames(made).equal(whole) and not spool.path.exists()


def test_the_limit_is_a_number_of_gigabytes():
    assert limit_from(None) == limit_from("") == 4 * 10**9 and limit_from("0.5") == 500_000_000 and limit_from("0") == 0
    for wrong in ("much", "-1", "inf", "nan"):
        with pytest.raises(KnotForcingError, match="KNOT_FORCING_KEPT_GB is"):
            limit_from(wrong)
