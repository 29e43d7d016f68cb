"""Make `workflows/*.json` in the real frontend, and their thumbnails by running them: `python -m tests.host.author_workflows`.

    --thumbnails    only the thumbnails, after new weights
    --screenshot    only the README's frame of a workflow at work
    NAME ...        only these workflows

Run it with the Python of a ComfyUI that has Playwright (see `browser.py`), in the checkout's folder. What is made is described in
`shipped.py`; nothing in the files is written by hand.
"""

import io
import json
import sys
import tempfile
import uuid
from dataclasses import asdict
from pathlib import Path

import tomllib
from PIL import Image

from kf_core.media.playback import frames

from .browser import LINES, LIVE_FRAME, Frontend, chromium, frontend
from .place import PACK, host_folder
from .server import Server
from .shipped import CORE, NOTE_SIZE, WORKFLOWS, Workflow

FOLDER = PACK / "workflows"
GAP, PADDING, TITLE, BELOW = 24, 14, 40, 100  # canvas pixels; BELOW a node stands the title of the next, and it may grow
THUMBNAIL = 384  # pixels
QUALITY = 88
SCREENSHOT, SHOWN, SHOWN_AT = PACK / "docs" / "comfyui.webp", "Talking portrait", 2.5  # seconds made

BUILD = """({note, columns, versions, links, gap, padding, title, below}) => {
    app.graph.clear();
    const made = {};
    const add = (name, spec, x, y) => {
        const node = LiteGraph.createNode(spec.type);
        app.graph.add(node);
        for (const [widget, value] of Object.entries(spec.widgets)) {
            const found = node.widgets.find((each) => each.name === widget);
            if (!found) throw Error(`${spec.type} has no widget ${widget}`);
            found.value = value;
        }
        const [width, height] = node.computeSize();
        node.size = [Math.max(width, spec.size[0]), Math.max(height, spec.size[1])];
        node.pos = [x, y];
        node.mode = spec.is_bypassed ? 4 : 0;
        Object.assign(node.properties, {'Node name for S&R': spec.type, ...versions[spec.type]});
        if (spec.models.length) node.properties.models = spec.models;
        made[name] = node;
        return node;
    };
    add('note', note, 0, 0);
    let x = note.size[0] + gap;
    for (const [name, nodes] of columns) {
        let y = 0, widest = 0;
        for (const [id, spec] of nodes) {
            const node = add(id, spec, x, y);
            y += node.size[1] + below + 5 * (node.widgets ?? []).length;  // Nodes 2.0 draws rows higher
            widest = Math.max(widest, node.size[0]);
        }
        const group = new LiteGraph.LGraphGroup(name);
        group.pos = [x - padding, -2 * title];
        group.size = [widest + 2 * padding, y - below / 2 + 2 * title];
        app.graph.add(group);
        x += widest + gap + 2 * padding;
    }
    for (const [from, output, to, input] of links) {
        const slot = made[from].findOutputSlot(output), place = made[to].findInputSlot(input);
        if (slot < 0 || place < 0) throw Error(`no link from ${from}.${output} to ${to}.${input}`);
        if (!made[from].connect(slot, made[to], place)) throw Error(`${from}.${output} does not fit ${to}.${input}`);
    }
    app.graph.updateExecutionOrder();
    return app.graph.serialize();
}"""


FIT = """() => {
    const nodes = app.graph.nodes, {canvas, ds} = app.canvas;
    for (const node of nodes) node.has_errors = false;  // their files are not here
    const edge = (most, of) => nodes.map(of).reduce((a, b) => most(a, b));
    const left = edge(Math.min, (n) => n.pos[0]), right = edge(Math.max, (n) => n.pos[0] + n.size[0]);
    const top = edge(Math.min, (n) => n.pos[1] - 80), bottom = edge(Math.max, (n) => n.pos[1] + n.size[1]);
    const {width, height} = canvas.getBoundingClientRect(), side = 0.92 * Math.min(width, height);
    ds.scale = side / Math.max(right - left, bottom - top);
    ds.offset = [width / 2 / ds.scale - (left + right) / 2, height / 2 / ds.scale - (top + bottom) / 2];
    app.canvas.setDirty(true, true);
}"""


def main(words: list[str]) -> None:
    host_folder()
    with tempfile.TemporaryDirectory() as folder:
        server = Server(Path(folder), "--disable-api-nodes").start()
        try:
            with chromium() as browser, frontend(browser, server) as tab:
                if "--screenshot" in words:
                    screenshot(tab).save(SCREENSHOT, quality=QUALITY, method=6)
                    return
                names = [word for word in words if not word.startswith("--")]
                for workflow in [each for each in WORKFLOWS if not names or each.name in names]:
                    path = FOLDER / f"{workflow.name}.json"
                    if "--thumbnails" not in words:
                        path.parent.mkdir(exist_ok=True)
                        path.write_text(json.dumps(authored(tab, workflow), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
                    tab.load(path.read_text(encoding="utf-8"), workflow.name)
                    thumbnail(tab, server, workflow).save(path.with_suffix(".jpg"), quality=QUALITY, optimize=True)
                    print(f"{path.name}: {path.stat().st_size} bytes, thumbnail {path.with_suffix('.jpg').stat().st_size}", flush=True)
        finally:
            server.kill()


def screenshot(tab: Frontend) -> Image.Image:
    """The window while *Talking portrait* runs: the face on the node with the seconds made, the film half done."""
    path = FOLDER / f"{SHOWN}.json"
    tab.load(path.read_text(encoding="utf-8"), path.stem)
    tab.page.evaluate(FIT)
    tab.press_run()
    tab.wait_until(f"{LIVE_FRAME} && {LINES}.some((line) => line.includes('FPS') && parseFloat(line) >= {SHOWN_AT})")
    image = Image.open(io.BytesIO(tab.page.screenshot())).convert("RGB")
    tab.end()
    return image


def authored(tab: Frontend, workflow: Workflow) -> dict:
    """The workflow as the frontend serialises it."""
    note = {"type": "MarkdownNote", "widgets": {"text": workflow.note}, "size": NOTE_SIZE, "is_bypassed": False, "models": []}
    links = [
        (*source.split("."), name, input) for name, node in workflow.nodes().items() for input, source in node.inputs.items()
    ]  # fmt: skip
    made = tab.page.evaluate(
        BUILD,
        {
            "note": note,
            "columns": [[title, [[name, asdict(node)] for name, node in nodes.items()]] for title, nodes in workflow.columns.items()],
            "versions": {type: version_of(type) for type in {"MarkdownNote", *(node.type for node in workflow.nodes().values())}},
            "links": links,
            "gap": GAP,
            "padding": PADDING,
            "title": TITLE,
            "below": BELOW,
        },
    )
    made["id"] = str(uuid.uuid5(uuid.NAMESPACE_URL, workflow.name))  # the frontend's is another one each time
    made["extra"] = {}  # where this tab looked: whoever opens it should see all of it
    return made


def version_of(type: str) -> dict[str, str]:
    """Which pack a node is of, and its version, as ComfyUI Manager wants to find it."""
    if type.startswith("KnotForcing"):
        project = tomllib.loads((PACK / "pyproject.toml").read_text())["project"]
        return {"cnr_id": project["name"], "ver": project["version"]}
    core = tomllib.loads((host_folder() / "pyproject.toml").read_text())["project"]["version"]
    return {"cnr_id": CORE, "ver": core}


def thumbnail(tab: Frontend, server: Server, workflow: Workflow) -> Image.Image:
    """A frame out of the video that the workflow makes; of its nodes, where that takes a download."""
    if not workflow.is_runnable:
        tab.page.evaluate(FIT)
        tab.page.wait_for_timeout(1000)
        image = Image.open(io.BytesIO(tab.page.screenshot())).convert("RGB")
        left = (image.width - image.height) // 2
        return image.crop((left, 0, left + image.height, image.height)).resize((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    prompt = shortened(tab.prompt(), workflow.thumbnail_seconds)
    event, _, texts = server.run(prompt)
    assert event == "execution_success", (workflow.name, texts)
    made = max((server.folder / "output").rglob("*.mp4"), key=lambda path: path.stat().st_mtime)
    wanted = round(workflow.thumbnail_at * 16)
    frame = next(frame for index, frame in enumerate(frames(made)) if index == wanted)
    image = Image.fromarray((frame * 255).round().byte().numpy())
    return image.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)


def shortened(prompt: dict, seconds: float) -> dict:
    """The same workflow, for so many seconds."""
    for node in prompt.values():
        if node["class_type"] == "KnotForcingSampler":
            node["inputs"]["seconds"] = seconds
    return prompt


if __name__ == "__main__":
    main(sys.argv[1:])
