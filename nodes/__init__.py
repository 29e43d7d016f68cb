"""The method as nodes: each a form with a few lines behind it, and everything else in `kf_core`.

Needs ComfyUI; the pack's own `__init__.py` imports this only when the host asks for it.
"""

from comfy_api.latest import ComfyExtension, io

from . import conditioning, control, decoding, example, kept, loaders, measuring, portrait, sampling, segments
from .host import kept_routes


class KnotForcing(ComfyExtension):
    """The nodes, in the order of a workflow."""

    async def on_load(self) -> None:
        kept_routes.add()

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        files = (example, loaders, portrait, conditioning, control, sampling, decoding, segments, kept, measuring)
        return [node for file in files for node in file.NODES]
