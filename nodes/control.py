"""Control Video (VACE): pose, depth or other control frames lead a generator that was never trained on them.

When the frames end, the generator is free again. They are encoded while the video is made, so they may be as long as it.
"""

from dataclasses import replace

from comfy_api.latest import io

from ..kf_core.conditioning.control import ControlFrames
from .conditioning import BEFORE, DRIVING_OUT, STRENGTH
from .host import folders, vace, vaes
from .loaders import CATEGORY
from .wires import Driver, DrivingWire


class ControlVideo(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="KnotForcingVace",
            display_name="Control Video (VACE)",
            category=CATEGORY,
            description="Pose, depth, edges or any other control frames lead the generator through Wan's VACE module. For generators of "
            "the 1.3B size, such as Self-Forcing; kf-tiny takes its poses through Pose Conditioning instead.",
            search_aliases=["vace", "controlnet", "openpose", "dwpose", "depth", "canny", "control video"],
            inputs=[
                io.Image.Input("control_images", tooltip="Control frames, one for each moment: from DWPose, a depth or an edge node."),
                io.Vae.Input("vae", tooltip="A Wan 2.1 VAE that encodes them: wan_2.1_vae.safetensors. A tiny decoder cannot."),
                io.Combo.Input(
                    "module_name",
                    options=folders.vace_files(),
                    tooltip="The VACE module: Wan2_1-VACE_module_1_3B_bf16.safetensors in models/diffusion_models.",
                ),
                io.Float.Input(
                    "fps",
                    default=16.0,
                    min=1.0,
                    max=120.0,
                    step=0.01,
                    tooltip="At how many frames a second control_images play. They need not have the video's rate.",
                ),
                io.Float.Input(
                    "strength", **STRENGTH, tooltip="How closely the control is followed: 0 not at all, 1 as usual, 2 exaggerated."
                ),
                io.Boolean.Input(
                    "in_clean_pass",
                    default=False,
                    advanced=True,
                    tooltip="Whether what is remembered of finished frames has heard the control, too. Off, as in public causal use.",
                ),
                DrivingWire.Input("driving", optional=True, tooltip=BEFORE),
            ],
            outputs=[DrivingWire.Output(display_name="driving", tooltip=DRIVING_OUT)],
        )

    @classmethod
    def execute(
        cls,
        control_images,
        vae,
        module_name: str,
        fps: float,
        strength: float,
        in_clean_pass: bool,
        driving: Driver | None = None,
    ) -> io.NodeOutput:
        vaes.refuse_other_vae(vae)
        before = driving or Driver()
        control = ControlFrames(control_images[..., :3], fps)
        led = replace(before.driving, control=control, control_strength=strength, control_in_clean_pass=in_clean_pass)
        return io.NodeOutput(replace(before, driving=led, vace=vace.load_vace(module_name), control_vae=vae))


NODES = [ControlVideo]
