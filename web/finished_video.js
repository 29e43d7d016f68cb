// The finished video takes the place of the live frames.
//
// ComfyUI's frontend (seen on 1.45) prefers a node's live frame to its output, also where the output is a video, and then finds that a
// JPEG cannot be played. So the live frame is forgotten the moment the output comes. To be removed when the frontend does it itself.

import { app } from "../../scripts/app.js";

const SHOW_BOTH = ["KnotForcingDecode"];

app.registerExtension({
    name: "KnotForcing.FinishedVideo",
    beforeRegisterNodeDef(nodeType, nodeData) {
        if (!SHOW_BOTH.includes(nodeData.name)) return;
        const before = nodeType.prototype.onExecuted;
        nodeType.prototype.onExecuted = function (output) {
            const place = this.graph?.isRootGraph === false ? `${this.graph.id}:${this.id}` : `${this.id}`;
            if (output?.images && app.nodePreviewImages?.[place]) {
                app.nodePreviewImages[place] = [];
                this.imgs = undefined; // the classic canvas keeps the frame in a widget as well
                const still = (this.widgets ?? []).findIndex((widget) => widget.name === "$$canvas-image-preview");
                if (still >= 0) this.widgets.splice(still, 1)[0].onRemove?.();
            }
            return before?.call(this, output);
        };
    },
});
