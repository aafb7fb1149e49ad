// Makes the rows of the page's tables, and writes their figures.

import { isClear } from "./picture.js";

const PHASES = {
  read: "Server: the photograph arrives",
  queue: "Server: waiting for its turn",
  decode: "Server: decoding",
  inference: "Server: the network",
  encode: "Server: writing the answer",
  compress: "Server: compressing it",
  way: "The way there and back",
  draw: "Browser: drawing",
};

/** Return a row for each [class id, share of the pixels]: a button with name and colour, and the share. */
export function classRows(shares, classes) {
  return shares.map(([id, share]) => {
    const clear = isClear(classes[id].color) ? create("span", { className: "quiet" }, "\u00a0– left clear") : "";
    const button = create("button", { type: "button" }, swatch(classes[id]), create("span", {}, classes[id].name, clear));
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
  return [...named, ["Together", sum]].map(([phase, milliseconds]) => {
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
