// Asks the API for one image's classes and probabilities, and reads what it answers.

const PROBABILITIES = "application/x-npy; top_k=1; dtype=uint8";

/** A refusal, in the API's own words. */
export class Refusal extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** Fetch; throws Refusal with the API's reason, or with what a browser knows when there is no answer at all. */
export async function request(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal(0, "The server does not answer. Is it still running?");
  }
  if (!response.ok) throw new Refusal(response.status, await readReason(response));
  return response;
}

async function readReason(response) {
  const text = await response.text();
  try {
    return JSON.parse(text).error ?? text;
  } catch {
    return text.trim() || response.statusText;
  }
}

/** Post an image; `accept` is the form of the answer. The bytes alone say what they are, not the file's name. */
export function invoke(image, accept, signal) {
  const headers = { "Content-Type": "application/x-image", Accept: accept };
  return request("invocations", { method: "POST", body: image, headers, signal });
}

/**
 * Ask for one image; resolves to {width, height, at(index) → class id, probabilityAt(index) → 0…1 or null, times}.
 *
 * Where probabilities are too large an answer for the server's limits, the mask alone is asked for, `reason` says so.
 */
export async function ask(image, signal) {
  const start = performance.now();
  try {
    const response = await invoke(image, PROBABILITIES, signal);
    return { ...readNpy(await response.arrayBuffer()), times: readTimes(response, performance.now() - start) };
  } catch (error) {
    if (error.status !== 413) throw error;
    const again = performance.now();
    const response = await invoke(image, "application/json", signal);
    const answer = readMask(await response.json());
    return { ...answer, reason: error.message, times: readTimes(response, performance.now() - again) };
  }
}

/** Read NumPy's format, version 1: an array [1, 1, H, W] of pairs of bytes, class and probability × 255. */
export function readNpy(buffer) {
  const start = 10 + new DataView(buffer).getUint16(8, true);
  const header = new TextDecoder().decode(new Uint8Array(buffer, 10, start - 10));
  const shape = header.match(/'shape': \(1, 1, (\d+), (\d+)\)/);
  if (!shape || !/\('class', '\|u1'\), \('probability', '\|u1'\)/.test(header)) {
    throw new Error(`the answer's header is not understood: ${header}`);
  }
  const [height, width] = [Number(shape[1]), Number(shape[2])];
  const pairs = new Uint8Array(buffer, start, 2 * width * height);
  return { width, height, at: (index) => pairs[2 * index], probabilityAt: (index) => pairs[2 * index + 1] / 255 };
}

/** Read the JSON answer: each class's mask is COCO's compressed run-length encoding, column by column. */
export function readMask({ shape: [height, width], classes }) {
  const ids = new Uint8Array(width * height);
  for (const { id, mask } of classes) {
    let place = 0;
    let inside = false;
    for (const count of readCounts(mask.counts)) {
      for (let end = place + count; place < end; place += 1) {
        if (inside) ids[(place % height) * width + Math.floor(place / height)] = id;
      }
      inside = !inside;
    }
  }
  return { width, height, at: (index) => ids[index], probabilityAt: () => null };
}

/** Undo https://github.com/cocodataset/cocoapi/blob/master/common/maskApi.c (rleFrString): 5 bits a character. */
function readCounts(text) {
  const counts = [];
  for (let place = 0; place < text.length; ) {
    let value = 0;
    let shift = 0;
    let character;
    do {
      character = text.charCodeAt(place) - 48;
      value |= (character & 31) << shift;
      shift += 5;
      place += 1;
    } while (character & 32);
    if (character & 16) value |= -1 << shift;
    counts.push(counts.length > 2 ? value + counts[counts.length - 2] : value);
  }
  return counts;
}

/** Return [[phase, milliseconds], …]: the server's own, then what the way there and back took of `elapsed`. */
function readTimes(response, elapsed) {
  const entries = (response.headers.get("Server-Timing") ?? "").split(",").map((entry) => entry.trim().split(";dur="));
  const times = entries.filter(([, duration]) => duration).map(([name, duration]) => [name, Number(duration)]);
  const total = times.find(([name]) => name === "total")?.[1] ?? 0;
  return [...times.filter(([name]) => name !== "total"), ["way", Math.max(0, elapsed - total)]];
}
