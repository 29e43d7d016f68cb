"""kf-tiny's worlds (faces, speech) and its recipe."""
