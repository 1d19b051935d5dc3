"""The page of the demo: what is drawn or dropped goes in on the left, what the network makes of it comes out."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr
import numpy as np
import torch
from PIL import Image

from src.config.errors import UserError
from src.data.image_folder import as_pixels, read_image
from src.model.predictor import Predictor
from src.results.figures.canvas import BLUE, shorten
from src.results.figures.images import as_rows, overlay
from src.serving.drawing import centre
from src.serving.pad import SIDE, as_image, pad

SHOWN = 5  # classes
LARGEST_FILE = "30mb"

CSS = f"""
.gradio-container {{ width: 100% !important; max-width: 960px !important; margin: 0 auto !important; }}
.gradio-container .app {{ padding: 12px !important; }}
.tabitem {{ padding: 12px 0 0 !important; }}
.html-container {{ padding: 0 !important; }}
#title h1 {{ font-size: 28px; font-weight: 600; margin: 0; }}
.aside, .aside * {{ color: #555 !important; }}
#picture {{ max-width: {SIDE}px; margin-left: 0 !important; }}
#picture img {{ width: 100%; height: 100%; object-fit: contain; }}
#answer h2 {{ padding: 4px !important; }}
#answer:has(.empty) {{ display: none; }}
@media (min-width: 700px) {{ #answers {{ min-height: 590px; }} }}
.seen {{ display: grid; grid-template-columns: 1fr 1fr; gap: 12px; }}
.seen figure {{ margin: 0; }}
.seen img {{ width: 100%; aspect-ratio: 1; object-fit: contain; image-rendering: pixelated; }}
.seen figcaption {{ font-size: 14px; line-height: 1.4; color: #555; margin-top: 4px; }}
.note {{ margin: 12px 0 0; }}
"""

THUMBNAILS = f"""
display: grid; grid-template-columns: repeat(10, 1fr); gap: 8px;
@media (max-width: 700px) {{ grid-template-columns: repeat(5, 1fr); }}
button {{ font-size: 14px; text-align: center; overflow: hidden; white-space: nowrap; text-overflow: ellipsis; }}
img {{ width: 100%; aspect-ratio: 1; object-fit: contain; image-rendering: pixelated; border: 3px solid transparent; }}
button:hover img, button:focus-visible img {{ border-color: {BLUE}; }}
"""

# on a phone the answer is above the examples
CHOOSE = """
element.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    trigger("select", { number: Number(button.value) });
    document.querySelector("#answers").scrollIntoView({ block: "nearest", behavior: "smooth" });
});
"""

# the sheet is white
LIGHT = "() => document.body.classList.remove('dark')"


class Example(NamedTuple):
    path: Path
    label: str


class Answer(NamedTuple):
    """What the page shows of one image: class -> probability, and HTML."""

    probabilities: dict[str, float] | None
    seen: str


def answer_drawing(predictor: Predictor, drawing: str | None) -> Answer:
    """Of what lies on the pad."""
    sheet = as_image(drawing)
    image = sheet and centre(sheet)
    if image is None:
        return _said("Draw something large. The answer comes as soon as you lift the pen.")
    return answer(predictor, as_pixels(image, predictor.channels, (predictor.width, predictor.height)))


def answer_file(predictor: Predictor, path: str | None) -> Answer:
    if path is None:
        return _said("Drop an image, paste one or choose a file.")
    try:
        pixels = read_image(Path(path), predictor.channels, (predictor.width, predictor.height))
    except UserError as error:
        reason = str(error).replace(str(path), Path(path).name)
        return _said(reason)
    return answer(predictor, pixels)


def answer(predictor: Predictor, pixels: np.ndarray) -> Answer:
    """Of uint8 (C, H, W)."""
    inverted = predictor.is_inverted(pixels)
    images = torch.from_numpy(255 - pixels if inverted else pixels.copy())[None]
    probabilities = predictor(images)[0]
    best = probabilities.argmax()
    by_class = dict(zip(predictor.classes, probabilities.tolist(), strict=True))
    size = f"{predictor.width}\u00a0×\u00a0{predictor.height} pixels"
    figures = [_figure(as_rows(images[0]), f"What the network gets: {size}")]
    heat = predictor.saliency(images, best[None])
    if heat is not None:
        name = escape(shorten(predictor.classes[best]))
        figures.append(_figure(overlay(images[0], heat[0]), f"Orange is what spoke for “{name}” (Grad-CAM)"))
    note = '<p class="note">Dark on light: inverted, as the network learned light on dark.</p>' if inverted else ""
    return Answer(by_class, f'<div class="seen">{"".join(figures)}</div>{note}')


def _said(text: str) -> Answer:
    return Answer(None, f'<p class="note">{escape(text)}</p>')


def _figure(rows: np.ndarray, caption: str) -> str:
    return f"<figure>{_image(rows)}<figcaption>{caption}</figcaption></figure>"


def _image(rows: np.ndarray) -> str:
    file = io.BytesIO()
    Image.fromarray(rows).save(file, "png")
    return f'<img alt="" src="data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}">'


def build(predictor: Predictor, title: str, about: str, examples: Sequence[Example]) -> gr.Blocks:
    with gr.Blocks(title=title, analytics_enabled=False) as page:
        # text, not Markdown: a stranger's checkpoint says what stands there
        gr.HTML(f"<h1>{escape(title)}</h1>", elem_id="title")
        gr.HTML(f"<p>{escape(about)}</p>", elem_classes="aside")
        with gr.Row():
            with gr.Column(min_width=300), gr.Tabs(selected="draw" if predictor.dark_background else "image") as tabs:
                if predictor.dark_background:
                    with gr.Tab("Draw", id="draw") as draw_tab:
                        sheet = pad()
                with gr.Tab("Image", id="image") as image_tab:
                    picture = gr.Image(
                        type="filepath",
                        sources=["upload", "clipboard"],
                        show_label=False,
                        buttons=[],
                        height=SIDE,
                        elem_id="picture",
                    )
                    # its own opens the file, and would answer a broken one with a stack trace
                    vars(picture)["preprocess"] = lambda payload: payload and payload.path
            with gr.Column(min_width=300, elem_id="answers"):
                label = gr.Label(num_top_classes=SHOWN, show_label=False, elem_id="answer")
                seen = gr.HTML(elem_id="seen")
        options: dict[str, Any] = {
            "outputs": [label, seen],
            "trigger_mode": "always_last",
            "concurrency_id": "network",
            "show_progress": "hidden",
            "api_visibility": "private",
        }
        gr.on([picture.change, image_tab.select], lambda path: answer_file(predictor, path), picture, **options)
        if predictor.dark_background:
            gr.on(
                [sheet.input, draw_tab.select, page.load],
                lambda drawing: answer_drawing(predictor, drawing),
                sheet,
                **options,
            )
        else:
            page.load(lambda: answer_file(predictor, None), **options)
        if examples:
            _show_examples(examples, picture, tabs)
    return page


def _show_examples(examples: Sequence[Example], picture: gr.Image, tabs: gr.Tabs) -> None:
    gr.Markdown("From the test set, with their true class: click one.", elem_classes="aside")
    buttons = [
        f'<button type="button" value="{number}">{_image(np.asarray(Image.open(path)))}{escape(name)}</button>'
        for number, (path, name) in enumerate(examples)
    ]
    choice = gr.HTML("".join(buttons), css_template=THUMBNAILS, js_on_load=CHOOSE, apply_default_css=False)

    def choose(event: gr.EventData) -> tuple[str, Any]:
        return str(examples[event.number].path), gr.Tabs(selected="image")

    choice.select(choose, None, [picture, tabs], api_visibility="private", show_progress="hidden")


def serve(page: gr.Blocks, host: str, port: int, open_browser: bool) -> None:
    """In threads that end with the process; raises OSError if another process serves at `port`."""
    fonts: dict[str, Any] = {"font": ["system-ui", "sans-serif"], "font_mono": ["monospace"]}  # none to be fetched
    theme = gr.themes.Base(primary_hue="blue", radius_size="sm", **fonts).set(stat_background_fill=BLUE)
    page.launch(
        server_name=host,
        server_port=port,
        inbrowser=open_browser,
        share=False,
        ssr_mode=False,
        root_path="",
        quiet=True,
        prevent_thread_lock=True,
        footer_links=[],
        max_file_size=LARGEST_FILE,
        theme=theme,
        css=CSS,
        js=LIGHT,
    )
