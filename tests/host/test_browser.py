"""The shipped workflows in the real frontend, classic and Nodes 2.0: what a creator sees from Run to the finished video."""

import json
import re
import time
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from kf_core.media.playback import frames, probe

from .author_workflows import FOLDER, shortened
from .browser import LINES, LIVE_FRAME, Frontend, chromium, frontend
from .place import PACK, host_folder
from .server import Server
from .shipped import ENDLESS, SEGMENTS, UPSCALER, WORKFLOWS, Workflow
from .upscaler import write_upscaler

SECONDS = 1.0  # of video in most runs
CHINESE = json.loads((PACK / "locales" / "zh" / "nodeDefs.json").read_text(encoding="utf-8"))

FINISHED_VIDEO = """(() => {
    const videos = [...document.querySelectorAll('video')];
    return videos.some((video) => video.currentSrc.includes('.mp4') && video.readyState > 0 && !video.error);
})()"""
PLACE = """(type) => {
    const node = app.graph.nodes.find((node) => node.type === type), {scale, offset} = app.canvas.ds;
    const canvas = app.canvas.canvas.getBoundingClientRect();
    const [x, y] = [0, 1].map((axis) => (node.pos[axis] + offset[axis]) * scale);
    return {x: canvas.x + x, y: canvas.y + y, width: node.size[0] * scale, height: node.size[1] * scale};
}"""

each_look = pytest.mark.parametrize("nodes2", [False, True], ids=["classic", "nodes 2.0"])
RUNNABLE = [workflow for workflow in WORKFLOWS if workflow.is_runnable]
each_workflow = pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda workflow: workflow.name)
each_runnable = pytest.mark.parametrize("workflow", RUNNABLE, ids=lambda workflow: workflow.name)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    host_folder()
    running = Server(tmp_path_factory.mktemp("browser"))
    upscalers = running.folder / "models" / UPSCALER.directory
    upscalers.mkdir(parents=True)
    write_upscaler(upscalers / UPSCALER.name, times=4)
    try:
        yield running.start()
    finally:
        running.kill()


@pytest.fixture(scope="module")
def browser():
    with chromium() as found:
        yield found


@pytest.fixture(scope="module", params=[False, True], ids=["classic", "nodes 2.0"])
def tab(request, browser, server):
    with frontend(browser, server, nodes2=request.param) as found:
        yield found


def opened(tab: Frontend, workflow: Workflow) -> Frontend:
    tab.load((FOLDER / f"{workflow.name}.json").read_text(encoding="utf-8"), workflow.name)
    return tab


def colours_on(tab: Frontend, type: str) -> float:
    """How much of a node is colourful: its own look is grey, a face is not."""
    frame = Image.open(BytesIO(tab.page.screenshot(clip=tab.page.evaluate(PLACE, type)))).convert("RGB")
    values = np.asarray(frame, np.int16)
    return float((values.max(-1) - values.min(-1) > 30).mean())


@each_workflow
def test_it_loads_complete(tab, workflow):
    opened(tab, workflow)
    unknown = tab.page.evaluate("app.graph.nodes.map((node) => node.type).filter((type) => !LiteGraph.registered_node_types[type])")
    assert unknown == [] and not tab.problems


@each_runnable
def test_it_runs_from_the_run_button_and_ends_as_a_video_on_the_node(tab, server, workflow):
    opened(tab, workflow)
    assert tab.page.get_by_text("missing").count() == 0, "nothing has to be downloaded"
    tab.set("KnotForcingSampler", "seconds", SECONDS)
    tab.set("KnotForcingSampler", "seed", tab.page.evaluate("Math.floor(Math.random() * 2 ** 32)"))
    tab.press_run()
    tab.wait_until(LIVE_FRAME)
    event, detail = tab.end()
    assert event == "execution_success", detail
    tab.wait_until(FINISHED_VIDEO, 60)
    tab.page.screenshot(path=server.folder / f"{workflow.name}-{tab.name}.png")
    assert not tab.problems


def test_a_face_is_seen_while_it_runs_with_seconds_and_fps_and_cancel_says_where_the_film_is(tab, server):
    opened(tab, ENDLESS)
    before = colours_on(tab, "KnotForcingDecode")
    tab.press_run()
    tab.wait_until(LIVE_FRAME)
    line = tab.wait_until(f"{LINES}.find((line) => line.includes('FPS'))")
    assert re.fullmatch(r"[\d.]+ of 3600.0 s, [\d.]+ FPS", line)
    tab.page.get_by_text(re.compile("FPS")).first.wait_for(state="visible")
    assert colours_on(tab, "KnotForcingDecode") > before + 0.1, "a frame is on the node"
    tab.page.screenshot(path=server.folder / f"during-{tab.name}.png")  # to be looked at
    tab.press_cancel()
    event, _ = tab.end()
    assert event == "execution_interrupted"
    said = tab.wait_until(f"{LINES}.find((line) => line.startsWith('Stopped'))")
    made = re.match(r"Stopped. ([\d.]+) s are in (.+\.mp4) and can be played", said)
    assert probe(made.group(2)).frames / 16 == pytest.approx(float(made.group(1)), abs=0.06)


@each_look
def test_labels_are_chinese_where_the_language_is(browser, server, nodes2):
    with frontend(browser, server, nodes2=nodes2, locale="zh") as tab:
        for workflow in WORKFLOWS:
            opened(tab, workflow)
            shown = tab.page.evaluate(
                """app.graph.nodes.map((node) => [node.type, node.getTitle(),
                    Object.fromEntries(node.inputs.map((slot) => [slot.name, slot.localized_name])),
                    node.outputs.map((slot) => slot.localized_name)])"""
            )
            for type, title, inputs, outputs in shown:
                if type in CHINESE:
                    wanted = CHINESE[type]
                    assert title == wanted["display_name"]
                    assert inputs == {name: wanted["inputs"][name]["name"] for name in inputs}, type
                    assert outputs == [wanted["outputs"][str(slot)]["name"] for slot in range(len(outputs))], type
        if nodes2:
            tab.page.get_by_text(CHINESE["KnotForcingSampler"]["display_name"]).first.wait_for(state="visible")


@pytest.fixture(scope="module")
def prompts(browser, server) -> dict[str, dict]:
    """Each workflow as the frontend sends it to the server."""
    with frontend(browser, server) as tab:
        return {workflow.name: opened(tab, workflow).prompt() for workflow in RUNNABLE}


def under(prompt: dict, prefix: str) -> dict:
    """The same workflow with its film under another name."""
    changed = {id: node | {"inputs": dict(node["inputs"])} for id, node in prompt.items()}
    for node in changed.values():
        if "filename_prefix" in node["inputs"]:
            node["inputs"]["filename_prefix"] = prefix
    return changed


@each_runnable
def test_the_same_seed_makes_the_same_film_of_the_right_length_and_a_second_run_draws_nothing(server, prompts, workflow):
    prompt = shortened(prompts[workflow.name], SECONDS)
    films = []
    for prefix in ("one", "other"):
        for kept in (server.folder / "output" / "knot_forcing").glob(".streams/*"):
            kept.unlink()  # or the second film would be a copy of the first
        for _ in range(2):  # likewise what the host keeps of outputs: it hears of that only while it waits for a prompt
            time.sleep(1)
            server.post("/free", {"free_memory": True})
        time.sleep(1)
        event, previews, texts = server.run(under(prompt, f"{prefix}-{workflow.name}"))
        assert event == "execution_success" and previews, texts
        films += server.videos(f"{prefix}-{workflow.name}")
    facts = probe(films[0])
    assert facts.frames == round(16 * SECONDS) and facts.sound_seconds == pytest.approx(SECONDS, abs=0.05)
    assert all((one == other).all() for one, other in zip(*map(frames, films), strict=True))
    event, previews, texts = server.run(under(prompt, f"other-{workflow.name}"))
    assert (event, previews) == ("execution_success", []), texts


def test_segments_go_through_a_real_upscaler_and_meet(server, prompts):
    prompt = under(shortened(prompts[SEGMENTS.name], 2 * SECONDS), "large")
    loader = {"class_type": "UpscaleModelLoader", "inputs": {"model_name": UPSCALER.name}}
    ids = {node["class_type"]: id for id, node in prompt.items()}
    segment, sized = ids["KnotForcingNextSegment"], ids["ImageScale"]
    prompt |= {
        "loader": loader,
        "upscaled": {"class_type": "ImageUpscaleWithModel", "inputs": {"upscale_model": ["loader", 0], "image": [segment, 0]}},
    }
    prompt[sized]["inputs"]["image"] = ["upscaled", 0]
    for index in range(2):
        prompt[segment]["inputs"] |= {"index": index, "seconds": SECONDS}
        event, _, texts = server.run(prompt)
        assert event == "execution_success", texts
    facts = probe(server.videos("large")[0])
    assert (facts.frames, facts.width, facts.height) == (round(32 * SECONDS), 384, 384)
    assert facts.sound_seconds == pytest.approx(2 * SECONDS, abs=0.05)


def test_templates_are_listed_with_their_thumbnails(server):
    import urllib.request

    assert sorted(server.get("/workflow_templates")["knot-forcing"]) == sorted(workflow.name for workflow in WORKFLOWS)
    for workflow in WORKFLOWS:
        address = f"http://127.0.0.1:{server.port}/api/workflow_templates/knot-forcing/{urllib.request.quote(workflow.name)}.jpg"
        with urllib.request.urlopen(address, timeout=10) as answer:
            assert answer.read(3) == b"\xff\xd8\xff"


@each_look
def test_kept_streams_are_listed_on_their_node_and_its_button_removes_them(browser, server, nodes2):
    kept = server.folder / "output" / "knot_forcing" / ".streams" / f"{'5' * 32}.latents"
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_bytes(bytes(3_000_000))
    with frontend(browser, server, nodes2=nodes2) as tab:
        tab.page.evaluate("() => { app.graph.add(LiteGraph.createNode('KnotForcingKept')) }")
        listed = "[...document.querySelectorAll('pre')].some((box) => box.textContent.includes('55555555  3.0 MB'))"
        tab.wait_until(listed, 60)
        tab.page.get_by_test_id("knot-forcing-empty-kept").first.click()
        tab.page.get_by_role("dialog").get_by_role("button", name=re.compile("confirm|yes|ok", re.IGNORECASE)).first.click()
        tab.wait_until(f"!({listed})", 60)
        assert not kept.exists() and not tab.problems
        assert tab.page.evaluate("() => app.extensionManager.command.commands.some((c) => c.id === 'KnotForcing.EmptyKeptStreams')")
