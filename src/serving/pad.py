"""A white sheet on a page of Gradio's, to draw on with mouse, pen or finger.

Gradio's own sketchpad needs WebGL, has its brush chosen first, and zooms when the page is scrolled over it.
"""

from __future__ import annotations

import base64
import io

import gradio as gr
from PIL import Image

SIDE = 380  # pixels
BRUSH = 30  # pixels; MNIST's strokes are about as wide, for a digit that fills most of the sheet

TEMPLATE = f"""
<canvas width="{SIDE}" height="{SIDE}" aria-label="sheet to draw on"></canvas>
<div><button type="button" name="undo">Undo</button><button type="button" name="clear">Clear</button></div>
"""

STYLE = f"""
canvas {{ display: block; width: 100%; max-width: {SIDE}px; border: 1px solid #bbb; background: white;
    cursor: crosshair; touch-action: none; }}
button {{ margin: 8px 8px 0 0; padding: 4px 14px; border: 1px solid #bbb; border-radius: 4px; }}
button:hover {{ background: #eee; }}
"""

SCRIPT = f"""
const sheet = element.querySelector("canvas");
const pen = sheet.getContext("2d");
let strokes = [];
let down = false;

function draw() {{
    pen.fillStyle = "white";
    pen.fillRect(0, 0, sheet.width, sheet.height);
    pen.lineWidth = {BRUSH};
    pen.lineCap = pen.lineJoin = "round";
    for (const stroke of strokes) {{
        pen.beginPath();
        pen.moveTo(...stroke[0]);
        for (const point of stroke) pen.lineTo(...point);
        pen.stroke();
    }}
}}

function show() {{
    draw();
    props.value = strokes.length ? sheet.toDataURL("image/png") : "";
    trigger("input");
}}

function follow(event) {{
    const box = sheet.getBoundingClientRect();
    const scale = sheet.width / box.width;
    strokes.at(-1).push([(event.clientX - box.left) * scale, (event.clientY - box.top) * scale]);
    draw();
}}

function lift() {{
    if (!down) return;
    down = false;
    show();
}}

sheet.addEventListener("pointerdown", (event) => {{
    if (!event.isPrimary || event.button) return;
    sheet.setPointerCapture(event.pointerId);
    down = true;
    strokes.push([]);
    follow(event);
}});
sheet.addEventListener("pointermove", (event) => {{ if (down && event.isPrimary) follow(event); }});
sheet.addEventListener("pointerup", lift);
sheet.addEventListener("pointercancel", lift);
element.querySelector("[name=undo]").addEventListener("click", () => {{ strokes.pop(); show(); }});
element.querySelector("[name=clear]").addEventListener("click", () => {{ strokes = []; show(); }});
draw();
"""


def pad() -> gr.HTML:
    """Its `input` event comes after each stroke; its value is for `as_image`."""
    return gr.HTML(
        "", html_template=TEMPLATE, css_template=STYLE, js_on_load=SCRIPT, apply_default_css=False, elem_id="pad"
    )


def as_image(value: str | None) -> Image.Image | None:
    """Black on white; None of an empty sheet."""
    if not value:
        return None
    return Image.open(io.BytesIO(base64.b64decode(value.partition(",")[2])))
