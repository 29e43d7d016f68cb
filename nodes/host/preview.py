"""What a run shows while it goes: frames on the node at playing speed, progress, a line of text; and where Cancel is heard.

A helper thread shows the frames of a chunk one after the other, because they are made a chunk at a time. Knows nothing of models.
"""

import threading
import time

from comfy.model_management import throw_exception_if_processing_interrupted
from comfy.utils import ProgressBar
from comfy_execution.graph_utils import ExecutionBlocker
from comfy_execution.progress import get_progress_state
from PIL import Image
from server import PromptServer
from torch import Tensor

from ...kf_core.timeline import pixels
from ...kf_core.types import FrameChunk, Step

SHOWN_SIZE = 512  # pixels, the longer side


def stop_if_cancelled() -> None:
    """Raises the host's own exception when the user has pressed Cancel."""
    throw_exception_if_processing_interrupted()


def set_status(node_id: str, text: str) -> None:
    """A line on the node."""
    server = getattr(PromptServer, "instance", None)
    if server is not None and text:
        server.send_progress_text(text, node_id, server.client_id)


def blocked(why: str) -> ExecutionBlocker:
    """Stands for an output that was not made: nodes that wait for it stop, and show `why`."""
    return ExecutionBlocker(why)


class Preview:
    """One run on one node. `steps` counts denoising steps; frames come with `show`."""

    def __init__(self, node_id: str, frames: int, there: int, fps: float) -> None:
        self._node_id, self._frames, self._fps = node_id, frames, fps
        self._there = self._made = there
        self._value = there
        self._began = time.perf_counter()
        self._bar = ProgressBar(frames, node_id=node_id)
        self._chunk: list[Image.Image] = []
        self._is_over = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._play, name="knot-forcing-preview", daemon=True)

    @property
    def speed(self) -> float:
        """Frames a second, of those made in this run."""
        return (self._made - self._there) / max(1e-9, time.perf_counter() - self._began)

    def step(self, step: Step) -> None:
        """A denoising step is done: the bar moves on by its share of the chunk, whose frames come when the next one is being denoised."""
        share = (step.index + 1) / (step.total + 1) * 4 * (step.span.length - 1)
        self._tell(min(self._frames, max(self._value, pixels(step.span).start + int(share))))

    def show(self, chunk: FrameChunk) -> None:
        """Frames are done: play them, and say how fast they come."""
        self._made = max(self._made, chunk.span.stop)
        self._tell(max(self._value, self._made))
        speed = f", {self.speed:.1f} FPS" if self._made > self._there else ""
        set_status(self._node_id, f"{self._made / self._fps:.1f} of {self._frames / self._fps:.1f} s{speed}")
        images = [_small(frame) for frame in chunk.frames]
        with self._changed:
            self._chunk = images
            self._changed.notify()

    def clear(self) -> None:
        """Call it when the show is over: the live frame leaves the node, where the finished video is to stand.

        The frontend (1.45) drops a live frame only when its node begins to run. A state without this node and then one with it look
        like a beginning. `web/finished_video.js` does the rest; both can go when a frontend drops live frames at the end."""
        server = getattr(PromptServer, "instance", None)
        if server is None or self._made == self._there:
            return
        state = get_progress_state()
        server.send_sync("progress_state", {"prompt_id": state.prompt_id, "nodes": {}}, server.client_id)
        state.update_progress(self._node_id, self._value, self._frames, None)

    def _tell(self, value: int) -> None:
        self._value = value
        self._bar.update_absolute(value, self._frames)

    def _play(self) -> None:
        """Frames in time; when the next chunk is there before its time, what is left of the old one is skipped."""
        while True:
            with self._changed:
                while not self._chunk and not self._is_over:
                    self._changed.wait()
                if self._is_over:
                    return
                images, self._chunk = self._chunk, []
            for image in images:
                shown_at = time.monotonic()
                get_progress_state().update_progress(self._node_id, self._value, self._frames, ("JPEG", image, SHOWN_SIZE))
                with self._changed:
                    self._changed.wait_for(lambda: self._is_over, max(0.0, shown_at + 1 / self._fps - time.monotonic()))
                    if self._is_over or self._chunk:
                        break

    def __enter__(self) -> "Preview":
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        with self._changed:
            self._is_over = True
            self._changed.notify_all()
        self._thread.join(timeout=5)


def _small(frame: Tensor) -> Image.Image:
    """[h, w, 3] 0..1 -> at most SHOWN_SIZE pixels, so that a browser on a slow line keeps up."""
    image = Image.fromarray((frame.clamp(0, 1) * 255).round().byte().cpu().numpy())
    image.thumbnail((SHOWN_SIZE, SHOWN_SIZE))
    return image
