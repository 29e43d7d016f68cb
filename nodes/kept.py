"""Kept Streams: what lies in the output folder so that streams can be gone on with, and a way to remove it."""

import time

from comfy_api.latest import io, ui

from .host import folders
from .loaders import CATEGORY


class KeptStreamsNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="KnotForcingKept",
            display_name="Kept Streams",
            category=CATEGORY,
            description="Lists the streams that are kept in output/knot_forcing/.streams, so that they can be gone on with, and how "
            "large they are. Its button removes them, and so does Extensions > Knot Forcing in the menu.",
            search_aliases=["cache", "disk space", "clean up", "delete", "storage"],
            inputs=[
                io.Boolean.Input(
                    "empty",
                    default=False,
                    tooltip="Remove all that nobody uses when this node runs. Finished videos stay; a stopped one is made anew from its "
                    "beginning when it is queued again.",
                ),
            ],
            outputs=[io.String.Output(display_name="listing", tooltip="Where they are, how large each is, and when it was used last.")],
            is_output_node=True,
        )

    @classmethod
    def fingerprint_inputs(cls, empty: bool) -> float:
        return time.time()  # what is on the disk may have changed

    @classmethod
    def execute(cls, empty: bool) -> io.NodeOutput:
        kept = folders.kept_streams()
        removed = f"{kept.empty() / 1e6:.1f} MB were removed.\n" if empty else ""
        listing = removed + kept.listing()
        return io.NodeOutput(listing, ui=ui.PreviewText(listing))


NODES = [KeptStreamsNode]
