// Creates the rows of the tables, and formats their numbers.

import { isTransparent } from "./image_view.js";

const PHASES = {
  read: "Server: receive the image",
  queue: "Server: wait in the queue",
  decode: "Server: decode",
  inference: "Server: run inference",
  encode: "Server: encode the response",
  compress: "Server: compress the response",
  network: "Network",
  draw: "Browser: draw",
};

/** Return a row for each [class id, share of the pixels]: a button with name and color, and the share. */
export function classRows(shares, classes) {
  return shares.map(([id, share]) => {
    const note = isTransparent(classes[id].color) ? create("span", { className: "quiet" }, "\u00a0– transparent") : "";
    const button = create("button", { type: "button" }, swatch(classes[id]), create("span", {}, classes[id].name, note));
    button.setAttribute("aria-pressed", "false");
    button.dataset.id = id;
    const bar = create("span", { className: "bar" });
    bar.style.setProperty("--share", share);
    const head = create("th", { scope: "row" }, button);
    return create("tr", {}, head, create("td", { className: "number" }, percent(share), bar));
  });
}

/** Return a row for each [phase, milliseconds], and one for their sum. */
export function timeRows(times) {
  const sum = times.reduce((total, [, milliseconds]) => total + milliseconds, 0);
  const named = times.map(([phase, milliseconds]) => [PHASES[phase] ?? phase, milliseconds]);
  return [...named, ["Total", sum]].map(([phase, milliseconds]) => {
    const head = create("th", { scope: "row" }, phase);
    return create("tr", {}, head, create("td", { className: "number" }, milliseconds.toFixed(1)));
  });
}

/** Return an element with properties and children; texts stay texts, whatever they hold. */
export function create(tag, properties, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

/** Return a square in a class's colour. */
export function swatch({ color }) {
  const element = create("span", { className: "swatch" });
  element.style.setProperty("--color", color);
  return element;
}

/** Write a share in percent; what is there at all is never 0. */
export function percent(share) {
  if (share > 0 && share < 0.001) return "< 0.1 %";
  return `${(100 * share).toFixed(share > 0 && share < 0.1 ? 1 : 0)} %`;
}

export const plural = (count) => (count === 1 ? "one class" : `${count} classes`);
