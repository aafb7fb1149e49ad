// The page: sends an image to the server, and shows its mask, classes, and durations.

import { invoke, request, segment } from "./api.js";
import { withoutExif } from "./exif.js";
import { ImageView } from "./image_view.js";
import { classRows, create, percent, plural, swatch, timeRows } from "./tables.js";

const get = (id) => document.getElementById(id);
const view = new ImageView(get("stage"), get("photo"), get("mask"));
const model = loadModel();

let classes = []; // from /ui/model.json, by ID
let file = null; // the newest image
let pending = new AbortController(); // of the request for the newest image; a newer image aborts it
let selected = null; // the only class that is shown, or null
let cursor = null; // [x, y] of the arrow keys

/** Fetch the model information; retry until the server has loaded the model. */
async function loadModel() {
  for (;;) {
    try {
      const info = await (await request("ui/model.json")).json();
      classes = info.classes;
      get("model").textContent = `${classes.length} classes, ${info.engine} in ${info.precision}`;
      return info;
    } catch (error) {
      if (error.status !== 503) throw error;
      await new Promise((resolve) => setTimeout(resolve, 1000));
    }
  }
}

/** Segment an image, the first of `count`, and show it with its mask. */
async function show(chosen, count = 1) {
  pending.abort();
  const controller = (pending = new AbortController());
  file = chosen;
  get("error").hidden = true;
  get("result").hidden = true;
  setStatus(`Asking for the mask of ${name()} …`);
  try {
    const { exif_orientation: orientation } = await model;
    const [bitmap, output] = await Promise.all([decode(chosen, orientation), segment(chosen, controller.signal)]);
    if (controller.signal.aborted) return;
    const start = performance.now();
    get("result").hidden = false;
    const fits = bitmap?.width === output.width && bitmap?.height === output.height;
    view.show(fits ? bitmap : null, output, classes.map(({ color }) => color));
    bitmap?.close();
    const shares = view.shares();
    get("classes").replaceChildren(...classRows(shares, classes));
    const times = [...output.times, ["draw", performance.now() - start]];
    get("times").replaceChildren(...timeRows(times));
    showNote(output, fits, count);
    get("all").disabled = true;
    selected = cursor = null;
    clearReadout();
    const seconds = times.reduce((sum, [, milliseconds]) => sum + milliseconds, 0) / 1000;
    const [[largest, share]] = shares;
    setStatus(`${name()}, ${output.width} × ${output.height}: ${plural(shares.length)} after ${seconds.toFixed(1)} s, ` +
      `most of it ${classes[largest].name} (${percent(share)}).`);
  } catch (error) {
    if (!controller.signal.aborted) showError(error);
  }
}

/** Decode an image with the orientation that the server uses; null if the browser cannot. */
async function decode(chosen, orientation) {
  try {
    return await createImageBitmap(orientation === "apply" ? chosen : await withoutExif(chosen));
  } catch {
    return null;
  }
}

function showNote(output, fits, count) {
  const notes = [];
  if (count > 1) notes.push(`Only the first of ${count} files is shown.`);
  if (output.reason) notes.push(`No probabilities: ${output.reason.replace(/\.$/, "")}.`);
  if (!fits) notes.push("This browser cannot decode the image as the server does. Only the mask is shown.");
  get("note").textContent = notes.join(" ");
  get("note").hidden = !notes.length;
}

/** Show only one class, or all if it is null or already selected. */
function choose(id) {
  selected = id === selected ? null : id;
  view.paint(selected);
  get("all").disabled = selected === null;
  for (const button of get("classes").querySelectorAll("button")) {
    button.setAttribute("aria-pressed", String(Number(button.dataset.id) === selected));
  }
}

/** Show the class of a pixel. */
function showPixel({ x, y, id, probability }) {
  const suffix = probability === null ? "" : ` · ${percent(probability)}`;
  get("readout").replaceChildren(swatch(classes[id]), create("strong", {}, classes[id].name), `${suffix} · x ${x}, y ${y}`);
}

function clearReadout() {
  get("mark").hidden = true;
  get("readout").replaceChildren("\u00a0");
}

function point(event) {
  get("readout").ariaLive = "off"; // a screen reader would read each mouse movement
  get("mark").hidden = true;
  const pixel = view.pixelUnder(event.clientX, event.clientY);
  if (pixel) showPixel(pixel);
}

function move(event) {
  const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
  if (!steps || event.ctrlKey || event.altKey || event.metaKey) return;
  event.preventDefault();
  const sizes = [view.output.width, view.output.height];
  const stride = event.shiftKey ? 1 : Math.max(1, Math.round(Math.max(...sizes) / 40));
  const middle = sizes.map((size) => Math.floor(size / 2));
  cursor = cursor ? cursor.map((at, axis) => Math.min(sizes[axis] - 1, Math.max(0, at + steps[axis] * stride))) : middle;
  get("mark").style.setProperty("--x", (cursor[0] + 0.5) / sizes[0]);
  get("mark").style.setProperty("--y", (cursor[1] + 0.5) / sizes[1]);
  get("mark").hidden = false;
  get("readout").ariaLive = "polite";
  showPixel(view.pixelAt(...cursor));
}

async function requestMask() {
  const { palette } = await model;
  return (await invoke(file, `image/png; palette=${palette}`)).blob();
}

/** Download the PNG that `make` resolves to as NAME_what.png. */
async function save(what, make) {
  const download = `${name().replace(/\.[^.]*$/, "")}_${what}.png`;
  get("error").hidden = true;
  const link = create("a", { href: URL.createObjectURL(await make()), download });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

/** Show the first file of a drop or of the clipboard. */
function showFirst(files, message) {
  get("file").value = "";
  if (files.length === 0) showError(new Error(message));
  else show(files[0], files.length);
}

function showError(error) {
  setStatus("");
  get("reason").textContent = error.status ? `${error.message} (${error.status})` : error.message;
  const isTemporary = error.status === 0 || error.status === 408 || error.status >= 500;
  get("again").hidden = file === null || !isTemporary;
  get("error").hidden = false;
}

const setStatus = (text) => { get("status").textContent = text; };
const name = () => file.name || "image.png";
const opacity = () => Number(get("opacity").value) / 100;

function showOpacity() {
  get("mask").style.opacity = opacity();
  get("percent").textContent = `${get("opacity").value} %`;
}

get("file").addEventListener("click", () => { get("file").value = ""; }); // so that the same file can be chosen again
get("file").addEventListener("change", () => get("file").files.length && show(get("file").files[0]));
get("again").addEventListener("click", () => show(file));
get("opacity").addEventListener("input", showOpacity);
get("stage").addEventListener("pointermove", point);
get("stage").addEventListener("pointerdown", point);
get("stage").addEventListener("pointerleave", (event) => event.pointerType === "mouse" && clearReadout());
get("stage").addEventListener("keydown", move);
get("classes").addEventListener("click", ({ target }) => {
  const button = target.closest("button");
  if (button) choose(Number(button.dataset.id));
});
get("all").addEventListener("click", () => choose(null));
get("save-mask").addEventListener("click", () => save("mask", requestMask).catch(showError));
get("save-overlay").addEventListener("click", () => save("overlay", () => view.overlay(opacity())).catch(showError));
document.addEventListener("keydown", ({ key }) => key === "Escape" && selected !== null && choose(null));
document.addEventListener("paste", ({ clipboardData }) => {
  showFirst(clipboardData.files, "The clipboard contains no image.");
});
for (const kind of ["dragenter", "dragover"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    document.body.classList.add("dragging");
  });
}
document.addEventListener("dragleave", ({ relatedTarget }) => {
  if (!relatedTarget) document.body.classList.remove("dragging");
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dragging");
  showFirst(event.dataTransfer.files, "The dropped item is not a file. Drop a JPEG or PNG.");
});
showOpacity();
model.catch((error) => {
  get("model").textContent = "";
  showError(error);
});
