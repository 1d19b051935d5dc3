// A sheet to draw on with mouse, pen or finger. Gradio's own needs WebGL, has its brush chosen first, and zooms when
// the page is scrolled over it. `element`, `props` and `trigger` are Gradio's.
const BRUSH = 30; // pixels; MNIST's strokes are about as wide, for a digit that fills most of the sheet
const sheet = element.querySelector("canvas");
const pen = sheet.getContext("2d");
let strokes = [];
let down = false;

function draw() {
    pen.fillStyle = "white";
    pen.fillRect(0, 0, sheet.width, sheet.height);
    pen.lineWidth = BRUSH;
    pen.lineCap = pen.lineJoin = "round";
    for (const stroke of strokes) {
        pen.beginPath();
        pen.moveTo(...stroke[0]);
        for (const point of stroke) pen.lineTo(...point);
        pen.stroke();
    }
}

function show() {
    draw();
    props.value = strokes.length ? sheet.toDataURL("image/png") : "";
    trigger("input");
}

function follow(event) {
    const box = sheet.getBoundingClientRect();
    const scale = sheet.width / box.width;
    strokes.at(-1).push([(event.clientX - box.left) * scale, (event.clientY - box.top) * scale]);
    draw();
}

function lift() {
    if (!down) return;
    down = false;
    show();
}

sheet.addEventListener("pointerdown", (event) => {
    if (!event.isPrimary || event.button) return;
    sheet.setPointerCapture(event.pointerId);
    down = true;
    strokes.push([]);
    follow(event);
});
sheet.addEventListener("pointermove", (event) => { if (down && event.isPrimary) follow(event); });
sheet.addEventListener("pointerup", lift);
sheet.addEventListener("pointercancel", lift);
element.querySelector("[name=undo]").addEventListener("click", () => { strokes.pop(); show(); });
element.querySelector("[name=clear]").addEventListener("click", () => { strokes = []; show(); });
draw();
