// An example that is clicked; `element` and `trigger` are Gradio's.
element.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    trigger("select", { number: Number(button.value) });
    // on a phone the answer is above the examples
    document.querySelector("#answers").scrollIntoView({ block: "nearest", behavior: "smooth" });
});
