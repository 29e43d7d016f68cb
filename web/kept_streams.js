// Kept Streams: a list and a button on the node, and the same in the menu. Drawn by the browser, so that both canvases show it.

import { app } from "../../scripts/app.js";
import { api } from "../../scripts/api.js";

const NODE = "KnotForcingKept";
const WORDS = {
    en: {
        empty: "Remove kept streams",
        ask: "Remove all kept streams that are not in use? Finished videos stay; stopped ones are drawn anew.",
        none: "Nothing is kept.",
        used: "in use",
        removed: (size) => `${size} were removed.`,
        total: (count, size, limit) => `${count} kept, ${size} of at most ${limit}`,
        failed: "The kept streams cannot be read",
    },
    zh: {
        empty: "删除保留的视频流",
        ask: "删除所有未在使用的保留视频流？已完成的视频不受影响；中断的视频将重新生成。",
        none: "没有保留任何视频流。",
        used: "使用中",
        removed: (size) => `已删除 ${size}。`,
        total: (count, size, limit) => `保留 ${count} 个，${size}，上限 ${limit}`,
        failed: "无法读取保留的视频流",
    },
};

const words = () => (String(app.extensionManager?.setting?.get("Comfy.Locale") ?? "en").startsWith("zh") ? WORDS.zh : WORDS.en);
const size = (bytes) => (bytes >= 1e8 ? `${(bytes / 1e9).toFixed(2)} GB` : `${(bytes / 1e6).toFixed(1)} MB`);

async function kept(path = "", method = "GET") {
    const answer = await api.fetchApi(`/knot_forcing/kept${path}`, { method });
    if (!answer.ok) throw new Error(`${words().failed} (${answer.status}).`);
    return answer.json();
}

function tell(severity, detail) {
    app.extensionManager?.toast?.add({ severity, summary: "Knot Forcing", detail, life: 6000 });
}

async function empty() {
    const dialog = app.extensionManager?.dialog;
    const isWanted = dialog?.confirm ? await dialog.confirm({ title: words().empty, message: words().ask }) : window.confirm(words().ask);
    if (!isWanted) return;
    try {
        const { removed } = await kept("/empty", "POST");
        tell("success", words().removed(size(removed)));
    } catch (problem) {
        tell("error", problem.message);
    }
}

async function list(box) {
    try {
        const { folder, bytes, limit, streams } = await kept();
        const lines = streams.map((s) => `${s.name}  ${size(s.bytes)}${s.in_use ? `  ${words().used}` : ""}`);
        box.textContent = [words().total(streams.length, size(bytes), size(limit)), folder, ...(lines.length ? lines : [words().none])].join("\n");
    } catch (problem) {
        box.textContent = problem.message;
    }
}

app.registerExtension({
    name: "KnotForcing.KeptStreams",
    commands: [{ id: "KnotForcing.EmptyKeptStreams", label: "Remove kept streams", icon: "pi pi-trash", function: empty }],
    menuCommands: [{ path: ["Extensions", "Knot Forcing"], commands: ["KnotForcing.EmptyKeptStreams"] }],
    nodeCreated(node) {
        if (node.comfyClass !== NODE) return;
        const whole = document.createElement("div");
        whole.style.cssText = "display:flex;flex-direction:column;gap:6px;width:100%;height:100%";
        const box = document.createElement("pre");
        box.style.cssText = "flex:1;margin:0;overflow:auto;font-size:11px;white-space:pre-wrap;word-break:break-all";
        const button = document.createElement("button");
        button.textContent = words().empty;
        button.dataset.testid = "knot-forcing-empty-kept";
        button.onclick = async () => {
            await empty();
            await list(box);
        };
        whole.append(box, button);
        node.addDOMWidget("kept_streams", "kept_streams", whole, { serialize: false, getMinHeight: () => 120 });
        const before = node.onExecuted;
        node.onExecuted = function (output) {
            list(box);
            return before?.call(this, output);
        };
        list(box);
    },
});
