"""A head that does what a script says: nodding, turning, tilting, as a source of pose frames.

Where the script moves the head it is drawn; elsewhere the frame is black and the model is free. Knows no words; see `vocabulary.py`.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..content_id import LEFT_OUT, frozen_names
from ..timeline import PixelSpan
from .openpose import draw_pose, keypoints_from_angles
from .pose import BLINK_EVERY, blinks
from .track import Layers, Track


@frozen_names("scripted head", yaw="yaw", pitch="pitch", roll="roll", blink="blink", seconds=LEFT_OUT)
@dataclass(frozen=True)
class ScriptedHead:
    """Tracks of yaw, pitch and roll in degrees (signs in `head.py`), and of the lids where the script moves them too."""

    yaw: Track = Layers(())
    pitch: Track = Layers(())
    roll: Track = Layers(())
    blink: Track = Layers(())
    seconds: None = None

    def open(self) -> "ScriptedHead":
        return self

    def between(self, span: PixelSpan, fps: float, latent_h: int, latent_w: int) -> Tensor:
        """The head at the frames of `span`: [s, 3, h, w] 0..1."""
        times = np.maximum(np.arange(span.start, span.stop), 0) / fps
        angles = [track.at(times) for track in (self.yaw, self.pitch, self.roll)]
        seen = torch.from_numpy(np.max([angle.weights for angle in angles], axis=0) > 0)
        result = torch.zeros(span.length, 3, latent_h, latent_w)
        if seen.any():
            yaw, pitch, roll = (torch.from_numpy(np.deg2rad(angle.values)).float()[seen] for angle in angles)
            result[seen] = draw_pose(keypoints_from_angles(yaw, pitch, roll, blink=self._lids(times)[seen]), latent_h, latent_w)
        return result

    def _lids(self, times: np.ndarray) -> Tensor:
        """The script's lids where it speaks of them, otherwise blinks of their own."""
        said = self.blink.at(times)
        own = blinks(torch.from_numpy(times), BLINK_EVERY).numpy()
        return torch.from_numpy(said.values + (1 - said.weights) * own).float().clamp(0, 1)
