"""Where a session's frames go: a video file, segments."""
