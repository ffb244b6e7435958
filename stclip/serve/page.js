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
