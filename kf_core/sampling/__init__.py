"""From noise to frames: schedule, noise, knot, rollout."""
