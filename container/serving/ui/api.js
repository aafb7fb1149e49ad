// Sends requests to the API of the server and parses its responses.

const PROBABILITIES = "application/x-npy; top_k=1; dtype=uint8";

/** An error response of the API, with its message; status 0 if there is no response. */
export class RequestError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** Fetch; throws RequestError if the response is an error or there is no response. */
export async function request(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new RequestError(0, "The server does not respond. Check that it is running.");
  }
  if (!response.ok) throw new RequestError(response.status, await readMessage(response));
  return response;
}

async function readMessage(response) {
  const text = await response.text();
  try {
    return JSON.parse(text).error ?? text;
  } catch {
    return text.trim() || response.statusText;
  }
}

/** Post an image; `accept` is the response format. The server detects the image format from the bytes. */
export function invoke(image, accept, signal) {
  const headers = { "Content-Type": "application/x-image", Accept: accept };
  return request("invocations", { method: "POST", body: image, headers, signal });
}

/**
 * Segment one image; resolves to {width, height, at(index) → class ID, probabilityAt(index) → 0…1 or null, times}.
 *
 * If the probabilities exceed the limits of the server, request only the mask; `reason` is then the message of the server.
 */
export async function segment(image, signal) {
  const start = performance.now();
  try {
    const response = await invoke(image, PROBABILITIES, signal);
    return { ...readNpy(await response.arrayBuffer()), times: readTimes(response, performance.now() - start) };
  } catch (error) {
    if (error.status !== 413) throw error;
    const retryStart = performance.now();
    const response = await invoke(image, "application/json", signal);
    const output = readMask(await response.json());
    return { ...output, reason: error.message, times: readTimes(response, performance.now() - retryStart) };
  }
}

/** Parse the NumPy format, version 1: an array [1, 1, H, W] of pairs of bytes, class ID and probability × 255. */
export function readNpy(buffer) {
  const start = 10 + new DataView(buffer).getUint16(8, true);
  const header = new TextDecoder().decode(new Uint8Array(buffer, 10, start - 10));
  const shape = header.match(/'shape': \(1, 1, (\d+), (\d+)\)/);
  if (!shape || !/\('class', '\|u1'\), \('probability', '\|u1'\)/.test(header)) {
    throw new Error(`The header of the response is not supported: ${header}`);
  }
  const [height, width] = [Number(shape[1]), Number(shape[2])];
  const pairs = new Uint8Array(buffer, start, 2 * width * height);
  return { width, height, at: (index) => pairs[2 * index], probabilityAt: (index) => pairs[2 * index + 1] / 255 };
}

/** Parse the JSON response: the mask of each class is in the compressed run-length encoding of COCO, by columns. */
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

/** Decode https://github.com/cocodataset/cocoapi/blob/master/common/maskApi.c (rleFrString): 5 bits per character. */
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

/** Return [[phase, milliseconds], …]: the phases of the server, then the remainder of `elapsed` for the network. */
function readTimes(response, elapsed) {
  const entries = (response.headers.get("Server-Timing") ?? "").split(",").map((entry) => entry.trim().split(";dur="));
  const times = entries.filter(([, duration]) => duration).map(([name, duration]) => [name, Number(duration)]);
  const total = times.find(([name]) => name === "total")?.[1] ?? 0;
  return [...times.filter(([name]) => name !== "total"), ["network", Math.max(0, elapsed - total)]];
}
