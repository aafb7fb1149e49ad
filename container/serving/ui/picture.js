// Draws a photograph and its mask on two canvases that lie on each other; knows what is where.

const LIMIT = 2048; // pixels a side that are drawn, of a photograph of any size: screens have no more

export class Picture {
  /** `stage` holds both canvases and gets their shape. */
  constructor(stage, photo, mask) {
    this.stage = stage;
    this.photo = photo;
    this.mask = mask;
  }

  /** Draw `bitmap` (null: the photograph cannot be shown) and the answer's mask in `colors`, a "#rrggbb" per class. */
  show(bitmap, answer, colors) {
    this.answer = answer;
    const scale = Math.min(1, LIMIT / Math.max(answer.width, answer.height));
    for (const canvas of [this.photo, this.mask]) {
      canvas.width = Math.max(1, Math.round(answer.width * scale));
      canvas.height = Math.max(1, Math.round(answer.height * scale));
    }
    this.stage.style.setProperty("--ratio", Math.min(20, Math.max(0.05, answer.width / answer.height))); // a line is no line
    this.stage.classList.toggle("small", answer.width < 300);
    if (bitmap) {
      const context = this.photo.getContext("2d");
      context.imageSmoothingQuality = "high";
      context.drawImage(bitmap, 0, 0, this.photo.width, this.photo.height);
    }
    this.colors = new Uint32Array(256);
    this.clear = colors.map(isClear);
    colors.forEach((color, id) => {
      const [red, green, blue] = [1, 3, 5].map((place) => parseInt(color.slice(place, place + 2), 16));
      new Uint8Array(this.colors.buffer, 4 * id, 4).set([red, green, blue, 255]);
    });
    this.paint(null);
  }

  /** Paint the mask: one class alone, or all (null) whose colour is no mere darkness. */
  paint(only) {
    const { width, height } = this.mask;
    const colors = this.colors.map((color, id) => ((only === null ? !this.clear[id] : id === only) ? color : 0));
    const pixels = new Uint32Array(width * height);
    const columns = Uint32Array.from({ length: width }, (_, x) => scaleDown(x, width, this.answer.width));
    for (let y = 0, place = 0; y < height; y += 1) {
      const row = scaleDown(y, height, this.answer.height) * this.answer.width;
      for (let x = 0; x < width; x += 1, place += 1) pixels[place] = colors[this.answer.at(row + columns[x])];
    }
    const data = new ImageData(new Uint8ClampedArray(pixels.buffer), width, height);
    this.mask.getContext("2d").putImageData(data, 0, 0);
  }

  /** Return {x, y, id, probability} of the answer's pixel under a point of the window; null beside the picture. */
  find(clientX, clientY) {
    const box = this.photo.getBoundingClientRect();
    const x = Math.floor(((clientX - box.left) / box.width) * this.answer.width);
    const y = Math.floor(((clientY - box.top) / box.height) * this.answer.height);
    const inside = x >= 0 && y >= 0 && x < this.answer.width && y < this.answer.height;
    return inside ? this.look(x, y) : null;
  }

  /** Return {x, y, id, probability} of one of the answer's pixels. */
  look(x, y) {
    const index = y * this.answer.width + x;
    return { x, y, id: this.answer.at(index), probability: this.answer.probabilityAt(index) };
  }

  /** Return [[class id, share of the pixels], …], the largest first. */
  shares() {
    const pixels = this.answer.width * this.answer.height;
    const counts = new Uint32Array(256);
    for (let index = 0; index < pixels; index += 1) counts[this.answer.at(index)] += 1;
    const shares = Array.from(counts, (count, id) => [id, count / pixels]);
    return shares.filter(([, share]) => share > 0).sort((one, other) => other[1] - one[1]);
  }

  /** Resolve to a PNG of photograph and mask, as they are drawn. */
  overlay(opacity) {
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [this.photo.width, this.photo.height];
    const context = canvas.getContext("2d");
    context.drawImage(this.photo, 0, 0);
    context.globalAlpha = opacity;
    context.drawImage(this.mask, 0, 0);
    return new Promise((resolve, reject) => {
      canvas.toBlob((blob) => (blob ? resolve(blob) : reject(new Error("the picture cannot be written"))), "image/png");
    });
  }
}

/** Say whether a class is left clear when all are shown: black, the background's usual colour, would only darken. */
export const isClear = (color) => color === "#000000";

function scaleDown(place, drawn, whole) {
  return Math.min(whole - 1, Math.floor(((place + 0.5) * whole) / drawn));
}
