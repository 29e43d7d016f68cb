"""What the first convolution sees: the noisy latent, and for inpainting models the frames that are known, with a mask.

Source: 33 channels as in LiveTalk (noise, image, mask: 0 = known), 36 as in Wan 2.1 I2V (noise, 4 x mask: 1 = known, image).
"""

import torch
from torch import Tensor


def with_image_channels(noisy: Tensor, frame: Tensor | None, known: Tensor, in_channels: int) -> Tensor:
    """Noisy latents [b, 16, f, h, w], with image channels [b, 16, f, h, w] (None: zeros) and a mask where the model has them.

    `known` is bool [f], or [b, f] where samples differ."""
    b, c, f, h, w = noisy.shape
    if in_channels == c:
        return noisy
    frame = torch.zeros_like(noisy) if frame is None else frame.to(noisy)
    is_known = known.to(noisy).expand(b, f)[:, None, :, None, None].expand(b, 1, f, h, w)
    if in_channels == 2 * c + 1:
        return torch.cat((noisy, frame, 1 - is_known), dim=1)
    if in_channels == 2 * c + 4:
        return torch.cat((noisy, is_known.expand(b, 4, f, h, w), frame), dim=1)
    raise ValueError(f"{in_channels} input channels are none of {c}, {2 * c + 1}, {2 * c + 4}")
