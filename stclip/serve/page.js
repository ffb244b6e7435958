/* The result is a page in a frame without rights: it says how high it is, and is told where to go. */
addEventListener("message", event => {
  const frame = document.getElementById("st-result");
  if (frame && event.source === frame.contentWindow && typeof event.data.height === "number") {
    frame.style.height = `${Math.min(Math.max(event.data.height, 200), 4000) + 2}px`;
  }
});
document.addEventListener("click", event => {
  const button = event.target.closest("[data-seek]");
  const frame = document.getElementById("st-result");
  if (button && frame) {
    frame.contentWindow.postMessage({ seek: Number(button.dataset.seek) }, "*");
    frame.scrollIntoView({ behavior: "smooth", block: "start" });
  }
});

/* A film in a form that this browser does not know is no fault of the film. */
for (const name of ["error", "loadeddata"]) {
  document.addEventListener(name, event => {
    const field = event.target.tagName === "VIDEO" && event.target.closest("#st-video");
    if (!field) { return; }
    document.getElementById("st-unseen")?.remove();
    if (name === "error") {
      event.stopPropagation(); /* Gradio would show "Error: Video not playable" */
      const note = document.createElement("p");
      note.id = "st-unseen";
      note.className = "st-dim";
      note.textContent = "Your browser cannot show this film. It can be looked at all the same, unless it is damaged.";
      field.after(note);
    }
  }, true);
}
