"""One film has one writer at a time, and a writer that is gone hinders nobody."""

import subprocess
import sys

import pytest

from kf_core.errors import KnotForcingError
from kf_core.lock import lock_of, locked


def test_a_second_writer_is_refused_and_the_next_one_is_not(tmp_path):
    state = tmp_path / "a.mp4.resume"
    with locked(state, tmp_path / "a.mp4"):
        with pytest.raises(KnotForcingError, match="a.mp4 is being made by another process right now"), locked(state, tmp_path / "a.mp4"):
            pass
        with pytest.raises(KnotForcingError, match="is being made"), locked(state, tmp_path / "a.mp4"):
            pass
        with locked(tmp_path / "b.mp4.resume", tmp_path / "b.mp4"):
            pass
    with locked(state, tmp_path / "a.mp4"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_writer_that_was_killed_leaves_no_lock(tmp_path):
    state = tmp_path / "a.mp4.resume"
    script = "import sys, time; from pathlib import Path; from kf_core.lock import locked\nwith locked(Path(sys.argv[1]), Path('a.mp4')):"
    script += "\n    print('held', flush=True); time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", script, state], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(KnotForcingError, match="is being made"), locked(state, tmp_path / "a.mp4"):
            pass
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    with locked(state, tmp_path / "a.mp4"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_that_name_with_something_in_it_stays(tmp_path):
    state = tmp_path / "a.mp4.resume"
    lock_of(state).write_text("somebody's")
    with locked(state, tmp_path / "a.mp4"):
        pass
    assert lock_of(state).read_text() == "somebody's"


def test_where_no_file_can_be_the_reason_is_said(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(KnotForcingError, match="cannot be written: .*file"), locked(tmp_path / "file" / "a.resume", tmp_path / "a.mp4"):
        pass
