"""Kept streams in a real ComfyUI: listed and emptied by node and by the canvas, bounded, and what was lost is said."""

import asyncio

import pytest

from .conftest import talking

QUIET = {"keep_frames": False}


def listing(empty: bool = False) -> dict[str, dict]:
    return {"kept": {"class_type": "KnotForcingKept", "inputs": {"empty": empty}}}


def names(host) -> set[str]:
    """The recipes that are kept."""
    return {file.name[:32] for file in (host.folder / "output" / "knot_forcing" / ".streams").glob("*.latents")}


def test_the_node_lists_them_anew_each_time_and_empties_them(host):
    host.forget_streams()
    host.fresh()
    assert host.run(talking(seed=31, prefix="kept", decode=QUIET)).succeeded
    (name,) = names(host)
    first = host.run(listing()).outputs["kept"][0]
    assert first.splitlines()[0].startswith("1 kept stream, 0.") and ".streams" in first and name[:8] in first
    assert host.run(talking(seed=32, prefix="kept", decode=QUIET)).succeeded
    assert host.run(listing()).outputs["kept"][0].startswith("2 kept streams")
    emptied = host.run(listing(empty=True)).outputs["kept"][0]
    assert "were removed" in emptied and "0 kept streams" in emptied and not names(host)
    assert len(list((host.folder / "output").glob("kept_*.mp4"))) == 2  # videos stay


def test_beyond_the_limit_only_the_last_stays(host, monkeypatch):
    host.forget_streams()
    host.fresh()
    monkeypatch.setenv("KNOT_FORCING_KEPT_GB", "0")
    for seed in (33, 34):
        assert host.run(talking(seed=seed, prefix="bound", decode=QUIET)).succeeded
        assert len(names(host)) == 1


def test_what_was_lost_is_said_on_the_node_and_drawn_once_more(host):
    host.forget_streams()
    host.fresh()
    host.cancels_at = "0.6 of 2.0 s"
    try:
        assert not host.run(talking(seed=35, prefix="lost", decode=QUIET)).succeeded
    finally:
        host.cancels_at = ""
    host.forget_streams()
    ran = host.run(talking(seed=35, prefix="lost", decode=QUIET))
    assert ran.succeeded
    assert any("is missing: the frames from 0.0 s to 0.6 s are denoised once more" in line for line in ran.said("decode"))


@pytest.fixture
def asked(host):
    """Asks the routes that the pack has told the server of, over HTTP."""
    from aiohttp import web  # the host's
    from aiohttp.test_utils import TestClient, TestServer

    def ask(method: str, path: str, **words):
        async def answer():
            app = web.Application()
            app.add_routes([route for route in host.server.routes if route.path.startswith("/knot_forcing/kept")])
            async with TestClient(TestServer(app)) as client:
                got = await client.request(method, path, **words)
                return got.status, await got.json() if got.status == 200 else None

        return asyncio.run(answer())

    return ask


def test_the_canvas_lists_and_empties_and_takes_no_path(host, asked):
    host.forget_streams()
    host.fresh()
    assert host.run(talking(seed=36, prefix="route", decode=QUIET)).succeeded
    (name,) = names(host)
    status, said = asked("GET", "/knot_forcing/kept")
    assert status == 200 and said["folder"].endswith(".streams") and said["limit"] == 4 * 10**9
    assert [(stream["name"], stream["in_use"]) for stream in said["streams"]] == [(name[:8], False)]
    assert said["bytes"] == said["streams"][0]["bytes"] > 0
    assert asked("GET", "/knot_forcing/kept/empty")[0] == 405  # a link cannot empty them
    mine = host.folder / "output" / "mine.txt"
    mine.write_text("mine")
    with host.of_pack("host.folders").kept_streams().use(name):
        assert asked("POST", "/knot_forcing/kept/empty", json={"folder": str(mine.parent), "path": "../../mine.txt"})[1]["removed"] == 0
        assert names(host) == {name}
    status, said = asked("POST", "/knot_forcing/kept/empty?folder=..")
    assert status == 200 and said["removed"] > 0 and said["streams"] == [] and not names(host)
    assert mine.exists() and list((host.folder / "output").glob("route_*.mp4"))
