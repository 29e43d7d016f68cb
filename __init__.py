"""ComfyUI's door into the pack; to everyone else an empty package.

The host imports this file and asks for `comfy_entrypoint`; only that imports the nodes, because they need the host.
"""

WEB_DIRECTORY = "./web"


async def comfy_entrypoint():
    """The pack as ComfyUI's V3 node interface wants it."""
    from .nodes import KnotForcing

    return KnotForcing()
