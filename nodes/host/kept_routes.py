"""What the canvas asks of kept streams: which there are, and to remove those that nobody uses. No path comes from the outside."""

import asyncio
from typing import Any

from aiohttp import web
from server import PromptServer

from .folders import kept_streams

KEPT = "/knot_forcing/kept"


def add() -> None:
    """Tell the server; without one there is nobody to ask."""
    server = getattr(PromptServer, "instance", None)
    if server is None:
        return

    @server.routes.get(KEPT)
    async def listed(_: web.Request) -> web.Response:
        return web.json_response(await asyncio.to_thread(facts))

    @server.routes.post(f"{KEPT}/empty")
    async def emptied(_: web.Request) -> web.Response:
        return web.json_response(await asyncio.to_thread(empty))


def facts() -> dict[str, Any]:
    kept = kept_streams()
    streams = kept.streams()
    shown = [{"name": s.recipe[:8], "bytes": s.num_bytes, "last_used": s.last_used, "in_use": s.is_used} for s in streams]
    return {"folder": str(kept.folder), "bytes": kept.num_bytes, "limit": kept.limit_bytes, "streams": shown}


def empty() -> dict[str, Any]:
    return {"removed": kept_streams().empty(), **facts()}
