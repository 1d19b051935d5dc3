"""The page of the demo: what is drawn or dropped goes in on the left, what the network makes of it comes out."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor, to_pil_image

from src.config.errors import UserError
from src.config.schema import DemoConfig
from src.data.decoding import decode
from src.data.splitting import split
from src.model.build import read_images
from src.model.predictor import UNSURE, Predictor, Reading
from src.results.figures.canvas import BLUE, shorten
from src.results.figures.tiles import as_colour, overlay
from src.results.intervals import percent
from src.results.outcome import Outcome
from src.results.screen import describe_origin

SIDE = 380  # pixels of the sheet
EXAMPLES = 10
PLAIN: Any = {"apply_default_css": False}
HIDDEN: Any = {"show_progress": "hidden", "api_visibility": "private"}
CSS, DRAW, CHOOSE = (Path(__file__).with_name(name).read_text("utf-8") for name in ("web.css", "draw.js", "choose.js"))
PAD = f"""
<canvas width="{SIDE}" height="{SIDE}" aria-label="sheet to draw on"></canvas>
<div><button type="button" name="undo">Undo</button><button type="button" name="clear">Clear</button></div>
"""
Answer = tuple[dict[str, float] | None, str]  # what the page shows of one image: class -> probability, and HTML
Example = tuple[Path, str]  # its true class


def answer_drawing(predictor: Predictor, drawing: str | None) -> Answer:
    """Of a PNG in base64, as the pad gives it."""
    sheet = Image.open(io.BytesIO(base64.b64decode(drawing.partition(",")[2]))) if drawing else None
    reading = sheet and predictor.centre(decode(sheet, 1, None)[0].numpy(), invert=True)
    if not reading:
        return None, note("Draw something large. The answer comes as soon as you lift the pen.")
    return answer(predictor, reading)


def answer_file(predictor: Predictor, path: str | None) -> Answer:
    if path is None:
        return None, note("Drop an image, paste one or choose a file.")
    try:
        return answer(predictor, predictor.read(Path(path)))
    except UserError as error:
        return None, note(str(error).replace(path, Path(path).name))


def answer(predictor: Predictor, reading: Reading) -> Answer:
    pixels = reading.pixels
    probabilities = predictor(pixels[None])[0]
    best = probabilities.argmax()
    shown = [(f"What the network gets: {predictor.width}\u00a0×\u00a0{predictor.height} pixels", pixels)]
    if (heat := predictor.saliency(pixels[None], best[None])) is not None:
        name = escape(shorten(predictor.classes[best]))
        shown.append((f"Grad-CAM: where the network looked for “{name}”", overlay(pixels, heat[0])))
    figures = "".join(f"<figure>{png(image)}<figcaption>{caption}</figcaption></figure>" for caption, image in shown)
    facts = {
        f"Unsure: no class has {percent(UNSURE, 0)}.": probabilities[best] < UNSURE,
        "Dark on light: inverted, as the network learned light on dark.": reading.inverted,
        "Cut and centred as MNIST's digits lie.": reading.centred,
    }
    said = " ".join(fact for fact, holds in facts.items() if holds)
    seen = f'<div class="seen">{figures}</div>{note(said) if said else ""}'
    return dict(zip(predictor.classes, probabilities.tolist(), strict=True)), seen


def note(text: str) -> str:
    return f'<p class="note">{escape(text)}</p>'


def png(image: Tensor) -> str:
    file = io.BytesIO()
    to_pil_image(as_colour(image)).save(file, "png")
    return f'<img alt="" src="data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}">'


def find_examples(predictor: Predictor, data_dir: str, folder: Path) -> list[Example]:
    """About ten test images, as many of each of the first classes, as files in `folder`; UserError if not to be had."""
    dataset = predictor.config.dataset.model_copy(update={"download": False})  # ten images are worth no download
    source = read_images(dataset, data_dir)
    if source.classes != predictor.classes or source.train.shape[1] != predictor.channels:
        raise UserError(f"the images in {data_dir} are not those that the network was trained on.")
    test = split(source, dataset.valid_fraction, predictor.config.seed).test
    examples: list[Example] = []
    for label, name in enumerate(source.classes[:EXAMPLES]):
        for index in (test.labels == label).nonzero()[: max(EXAMPLES // len(source.classes), 1), 0].tolist():
            examples.append((folder / f"example-{len(examples)}.png", name))
            to_pil_image(as_colour(test[[index]].images[0])).save(examples[-1][0])
    return examples


def describe_score(checkpoint: Path) -> str:
    """What the run's results.json says of this checkpoint, if there is one."""
    outcome = Outcome.of_checkpoint(checkpoint)
    score = outcome and (outcome.test or outcome.val)
    if not outcome or not score or score.accuracy is None:
        return ""
    whose = describe_origin(outcome.dataset.name, outcome.dataset.source) if outcome.test else "validation images"
    return f"Accuracy {percent(score.accuracy, interval=score.accuracy_interval)} on {score.images:,} {whose}. "


def build(predictor: Predictor, about: str, examples: Sequence[Example]) -> gr.Blocks:
    """The page; where no handwriting was learned, it has no pad to draw on."""
    title, drawn = f"{predictor.config.model.name} on {predictor.config.dataset.name}", predictor.handwritten
    options: Any = {"trigger_mode": "always_last", "concurrency_id": "network", **HIDDEN}
    with gr.Blocks(title=title, analytics_enabled=False) as page:
        # text, not Markdown: a stranger's checkpoint says what stands there
        gr.HTML(f"<h1>{escape(title)}</h1>", elem_id="title")
        gr.HTML(f"<p>{escape(about)}</p>", elem_classes="aside")
        with gr.Row():
            with gr.Column(min_width=300), gr.Tabs(selected="draw" if drawn else "image") as tabs:
                if drawn:
                    with gr.Tab("Draw", id="draw") as draw_tab:
                        pad = gr.HTML("", html_template=PAD, js_on_load=DRAW, elem_id="pad", **PLAIN)
                with gr.Tab("Image", id="image") as image_tab:
                    looks: Any = {"show_label": False, "buttons": [], "height": SIDE, "elem_id": "picture"}
                    picture = gr.Image(type="filepath", sources=["upload", "clipboard"], **looks)
            with gr.Column(min_width=300, elem_id="answers"):
                outputs = [gr.Label(num_top_classes=5, show_label=False, elem_id="answer"), gr.HTML(elem_id="seen")]
        # its own opens the file, and would answer a broken one with a stack trace
        vars(picture)["preprocess"] = lambda payload: payload and payload.path
        if drawn:
            starts = [pad.input, draw_tab.select, page.load]
            gr.on(starts, lambda drawing: answer_drawing(predictor, drawing), pad, outputs, **options)
        starts = [image_tab.select, picture.change, *([] if drawn else [page.load])]
        gr.on(starts, lambda path: answer_file(predictor, path), picture, outputs, **options)
        if examples:
            show_examples(examples, picture, tabs)
    return page


def show_examples(examples: Sequence[Example], picture: gr.Image, tabs: gr.Tabs) -> None:
    gr.Markdown("From the test set, with their true class: click one.", elem_classes="aside")
    buttons = ""
    for number, (path, name) in enumerate(examples):
        image = png(pil_to_tensor(Image.open(path)))
        buttons += f'<button type="button" value="{number}">{image}{escape(name)}</button>'
    choice = gr.HTML(f'<div class="examples">{buttons}</div>', js_on_load=CHOOSE, **PLAIN)

    def choose(event: gr.EventData) -> tuple[str, gr.Tabs]:
        return str(examples[event.number][0]), gr.Tabs(selected="image")

    choice.select(choose, None, [picture, tabs], **HIDDEN)


def serve(predictor: Predictor, checkpoint: Path, name: str, config: DemoConfig, host: str, uploads: Path) -> None:
    """Serve the page, which calls the checkpoint by `name`, until a signal comes; OSError if the port is taken."""
    if predictor.hardware.note:
        print(predictor.hardware.note)
    try:
        examples = find_examples(predictor, config.data_dir or predictor.config.data_dir, uploads)
    except UserError as error:
        examples = []
        print(f"No examples on the page: {error}")
    blank = torch.zeros(predictor.channels, predictor.height, predictor.width, dtype=torch.uint8)
    answer(predictor, Reading(blank, False, False))  # the first is slow
    score = describe_score(checkpoint)
    if score:
        print(score)
    page = build(predictor, f"{score}Checkpoint: {name}", examples)
    fonts: Any = {"font": ["system-ui", "sans-serif"], "font_mono": ["monospace"]}  # none to be fetched
    theme = gr.themes.Base(primary_hue="blue", radius_size="sm", **fonts).set(stat_background_fill=BLUE)
    light = "() => document.body.classList.remove('dark')"  # the sheet is white
    looks: Any = {"theme": theme, "css": CSS, "js": light, "footer_links": [], "quiet": True, "max_file_size": "30mb"}
    address: Any = {"server_name": host, "server_port": config.port, "root_path": "", "inbrowser": config.open_browser}
    page.launch(share=False, ssr_mode=False, prevent_thread_lock=True, **address, **looks)
    print(f"Open http://{host}:{config.port} in a browser; Ctrl-C ends it.", flush=True)
    page.block_thread()
