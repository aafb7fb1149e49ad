// The page: takes a photograph, asks for its answer, shows it, and says what is where.

import { ask, invoke, request } from "./answers.js";
import { withoutExif } from "./exif.js";
import { Picture } from "./picture.js";
import { classRows, create, percent, plural, swatch, timeRows } from "./tables.js";

const get = (id) => document.getElementById(id);
const picture = new Picture(get("stage"), get("photo"), get("mask"));
const model = loadModel();

let classes = []; // what /ui/model.json says of them, by id
let file = null; // the photograph that is shown, or was to be
let asking = new AbortController(); // of the last photograph: who comes later wins
let alone = null; // the class that is shown alone
let spot = null; // [x, y] that the arrow keys have chosen

/** Fetch what is known of the model; waits until the server has loaded it. */
async function loadModel() {
  for (;;) {
    try {
      const known = await (await request("ui/model.json")).json();
      classes = known.classes;
      get("model").textContent = `${classes.length} classes, computed by ${known.engine} in ${known.precision}`;
      return known;
    } catch (error) {
      if (error.status !== 503) throw error;
      await new Promise((resolve) => setTimeout(resolve, 1000));
    }
  }
}

/** Ask for the answer to a photograph, the first of so many, and show both. */
async function show(chosen, count = 1) {
  asking.abort();
  const mine = (asking = new AbortController());
  file = chosen;
  get("error").hidden = true;
  get("result").hidden = true;
  say(`Asking for the mask of ${name()} …`);
  try {
    const { exif_orientation: orientation } = await model;
    const [bitmap, answer] = await Promise.all([decode(chosen, orientation), ask(chosen, mine.signal)]);
    if (mine.signal.aborted) return;
    const start = performance.now();
    get("result").hidden = false;
    const fits = bitmap?.width === answer.width && bitmap?.height === answer.height;
    picture.show(fits ? bitmap : null, answer, classes.map(({ color }) => color));
    bitmap?.close();
    const shares = picture.shares();
    get("classes").replaceChildren(...classRows(shares, classes));
    const times = [...answer.times, ["draw", performance.now() - start]];
    get("times").replaceChildren(...timeRows(times));
    showNote(answer, fits, count);
    get("all").disabled = true;
    alone = spot = null;
    leave();
    const seconds = times.reduce((sum, [, milliseconds]) => sum + milliseconds, 0) / 1000;
    const [[most, share]] = shares;
    say(`${name()}, ${answer.width} × ${answer.height}: ${plural(shares.length)} after ${seconds.toFixed(1)} s, ` +
      `most of it ${classes[most].name} (${percent(share)}).`);
  } catch (error) {
    if (!mine.signal.aborted) fail(error);
  }
}

/** Decode as the server does, turned or as stored; null when this browser cannot. */
async function decode(chosen, orientation) {
  try {
    return await createImageBitmap(orientation === "apply" ? chosen : await withoutExif(chosen));
  } catch {
    return null;
  }
}

function showNote(answer, fits, count) {
  const notes = [];
  if (count > 1) notes.push(`Of ${count} files the first is shown.`);
  if (answer.reason) notes.push(`No probabilities: ${answer.reason}.`);
  if (!fits) notes.push("This browser cannot show the photograph as the server sees it: the mask is shown without it.");
  get("note").textContent = notes.join(" ");
  get("note").hidden = !notes.length;
}

/** Show one class alone; the same once more, or null, shows all. */
function choose(id) {
  alone = id === alone ? null : id;
  picture.paint(alone);
  get("all").disabled = alone === null;
  for (const button of get("classes").querySelectorAll("button")) {
    button.setAttribute("aria-pressed", String(Number(button.dataset.id) === alone));
  }
}

/** Say what a pixel of the answer is. */
function tell({ x, y, id, probability }) {
  const certainty = probability === null ? "" : ` · ${percent(probability)}`;
  get("readout").replaceChildren(swatch(classes[id]), create("strong", {}, classes[id].name), `${certainty} · x ${x}, y ${y}`);
}

function leave() {
  get("mark").hidden = true;
  get("readout").replaceChildren("\u00a0");
}

function point(event) {
  get("readout").ariaLive = "off"; // a mouse's every step would be read out
  get("mark").hidden = true;
  const found = picture.find(event.clientX, event.clientY);
  if (found) tell(found);
}

function move(event) {
  const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
  if (!steps || event.ctrlKey || event.altKey || event.metaKey) return;
  event.preventDefault();
  const sizes = [picture.answer.width, picture.answer.height];
  const stride = event.shiftKey ? 1 : Math.max(1, Math.round(Math.max(...sizes) / 40));
  const middle = sizes.map((size) => Math.floor(size / 2));
  spot = spot ? spot.map((at, axis) => Math.min(sizes[axis] - 1, Math.max(0, at + steps[axis] * stride))) : middle;
  get("mark").style.setProperty("--x", (spot[0] + 0.5) / sizes[0]);
  get("mark").style.setProperty("--y", (spot[1] + 0.5) / sizes[1]);
  get("mark").hidden = false;
  get("readout").ariaLive = "polite";
  tell(picture.look(...spot));
}

async function makeMask() {
  const { palette } = await model;
  return (await invoke(file, `image/png; palette=${palette}`)).blob();
}

/** Offer the PNG that `make` resolves to as NAME_what.png. */
async function save(what, make) {
  const download = `${name().replace(/\.[^.]*$/, "")}_${what}.png`;
  get("error").hidden = true;
  const link = create("a", { href: URL.createObjectURL(await make()), download });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

/** Take the first file of a drop or of the clipboard. */
function take(files, otherwise) {
  get("file").value = "";
  if (files.length === 0) fail(new Error(otherwise));
  else show(files[0], files.length);
}

function fail(error) {
  say("");
  get("reason").textContent = error.status ? `${error.message} (${error.status})` : error.message;
  const mayPass = error.status === 0 || error.status === 408 || error.status >= 500;
  get("again").hidden = file === null || !mayPass;
  get("error").hidden = false;
}

const say = (text) => { get("status").textContent = text; };
const name = () => file.name || "photograph.png";
const opacity = () => Number(get("opacity").value) / 100;

function showOpacity() {
  get("mask").style.opacity = opacity();
  get("percent").textContent = `${get("opacity").value} %`;
}

get("file").addEventListener("click", () => { get("file").value = ""; }); // so that the same one can be chosen again
get("file").addEventListener("change", () => get("file").files.length && show(get("file").files[0]));
get("again").addEventListener("click", () => show(file));
get("opacity").addEventListener("input", showOpacity);
get("stage").addEventListener("pointermove", point);
get("stage").addEventListener("pointerdown", point);
get("stage").addEventListener("pointerleave", (event) => event.pointerType === "mouse" && leave());
get("stage").addEventListener("keydown", move);
get("classes").addEventListener("click", ({ target }) => {
  const button = target.closest("button");
  if (button) choose(Number(button.dataset.id));
});
get("all").addEventListener("click", () => choose(null));
get("save-mask").addEventListener("click", () => save("mask", makeMask).catch(fail));
get("save-overlay").addEventListener("click", () => save("overlay", () => picture.overlay(opacity())).catch(fail));
document.addEventListener("keydown", ({ key }) => key === "Escape" && alone !== null && choose(null));
document.addEventListener("paste", ({ clipboardData }) => {
  take(clipboardData.files, "The clipboard holds no picture.");
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
  take(event.dataTransfer.files, "What was dropped is no file: drop a JPEG or PNG.");
});
showOpacity();
model.catch((error) => {
  get("model").textContent = "";
  fail(error);
});
