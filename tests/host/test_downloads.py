"""The workflows that want a download, run as they are shipped, in the real frontend's words: a film with as many frames and as much
sound as was asked for.

The files are small and random (`downloads.py`), so what the films show means nothing. Only the frames' size is another.
"""

import pytest

from kf_core.media.playback import frames, probe

from .author_workflows import FOLDER
from .browser import chromium, frontend
from .downloads import write_downloads
from .place import host_folder
from .server import Server
from .shipped import LIVETALK, TEXT_TO_VIDEO

SIZE = {"width": 64, "height": 48}  # pixels; the models' own would take hours here
VOICE_SECONDS = 11.0  # of the example
Prompt = dict[str, dict]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    host_folder()
    running = Server(tmp_path_factory.mktemp("downloads"))
    write_downloads(running.folder)
    try:
        yield running.start()
    finally:
        running.kill()


@pytest.fixture(scope="module")
def prompt_of(server) -> dict[str, Prompt]:
    """Each workflow as the frontend sends it, but for the size."""
    prompts = {}
    with chromium() as browser, frontend(browser, server) as tab:
        for name in (LIVETALK.name, TEXT_TO_VIDEO.name):
            tab.load((FOLDER / f"{name}.json").read_text(encoding="utf-8"), name)
            prompts[name] = changed(tab.prompt(), KnotForcingEncodeAnchor=SIZE)
    return prompts


def changed(prompt: Prompt, **inputs: dict) -> Prompt:
    """The prompt with inputs of a kind of node set otherwise."""
    return {id: node | {"inputs": node["inputs"] | inputs.get(node["class_type"], {})} for id, node in prompt.items()}


def film(server: Server, prompt: Prompt, name: str):
    """The film that a prompt makes, and what was said."""
    event, _, texts = server.run(changed(prompt, KnotForcingDecode={"filename_prefix": name}), seconds=900)
    assert event == "execution_success", texts
    (path,) = server.videos(name)
    return path, texts


def test_livetalk_waits_for_its_licence_and_then_speaks_as_long_as_the_voice(server, prompt_of):
    prompt = prompt_of[LIVETALK.name]
    assert server.run(prompt)[0] == "execution_error"
    (refused,) = server.history().values()
    assert "LiveTalk's README says Apache-2.0, its LICENSE file CC BY-NC-SA 4.0" in str(refused["status"]["messages"])
    agreed = changed(prompt, KnotForcingLoadModel={"accept_licence": True})
    path, texts = film(server, agreed, "livetalk")
    facts = probe(path)
    assert (facts.width, facts.height, facts.fps) == (SIZE["width"], SIZE["height"], 16)
    assert facts.frames == round(VOICE_SECONDS * 16) and facts.sound_seconds == pytest.approx(VOICE_SECONDS, abs=0.1)
    assert any("by its sizes it is taken for LiveTalk 1.3B" in text for text in texts)


def test_livetalk_speaks_under_knot_forcing_by_one_switch(server, prompt_of):
    agreed = changed(prompt_of[LIVETALK.name], KnotForcingLoadModel={"accept_licence": True}, KnotForcingSampler={"seconds": 2.0})
    own, _ = film(server, agreed, "own")
    other, _ = film(server, changed(agreed, KnotForcingSampler={"method": "knot forcing"}), "other")
    assert probe(other).frames == probe(own).frames == 32
    apart = [(a - b).abs().mean().item() for a, b in zip(frames(own), frames(other), strict=True)]
    assert max(apart[9:]) > 0.01, "it is another way of denoising"


def test_a_sentence_becomes_a_film_and_the_next_line_changes_it(server, prompt_of):
    prompt = prompt_of[TEXT_TO_VIDEO.name]
    path, texts = film(server, prompt, "text")
    facts = probe(path)
    assert (facts.width, facts.height, facts.frames) == (SIZE["width"], SIZE["height"], 80)
    (script,) = (node["inputs"]["script"] for node in prompt.values() if node["class_type"] == "KnotForcingScript")
    first = script.splitlines()[0]
    alone, _ = film(server, changed(prompt, KnotForcingScript={"script": first}), "alone")
    differs = [index for index, (a, b) in enumerate(zip(frames(path), frames(alone), strict=True)) if not (a - b).abs().max() < 0.02]
    assert 36 < min(differs) <= 60, "from the chunk on in which the third second falls"
