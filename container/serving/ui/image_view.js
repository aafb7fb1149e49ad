// Draws an image and its mask on two canvases, one above the other, and returns the class at a point.

const LIMIT = 2048; // maximum side of the canvases in pixels, because screens have no more

export class ImageView {
  /** `stage` is the parent of both canvases and gets their aspect ratio. */
  constructor(stage, image, mask) {
    this.stage = stage;
    this.image = image;
    this.mask = mask;
  }

  /** Draw `bitmap` (null: only the mask) and the mask of `output` in `colors`, one "#rrggbb" per class. */
  show(bitmap, output, colors) {
    this.output = output;
    const scale = Math.min(1, LIMIT / Math.max(output.width, output.height));
    for (const canvas of [this.image, this.mask]) {
      canvas.width = Math.max(1, Math.round(output.width * scale));
      canvas.height = Math.max(1, Math.round(output.height * scale));
    }
    this.stage.style.setProperty("--ratio", Math.min(20, Math.max(0.05, output.width / output.height))); // so that thin images remain visible
    this.stage.classList.toggle("small", output.width < 300);
    if (bitmap) {
      const context = this.image.getContext("2d");
      context.imageSmoothingQuality = "high";
      context.drawImage(bitmap, 0, 0, this.image.width, this.image.height);
    }
    this.colors = new Uint32Array(256);
    this.isTransparent = colors.map(isTransparent);
    colors.forEach((color, id) => {
      const [red, green, blue] = [1, 3, 5].map((place) => parseInt(color.slice(place, place + 2), 16));
      new Uint8Array(this.colors.buffer, 4 * id, 4).set([red, green, blue, 255]);
    });
    this.paint(null);
  }

  /** Paint the mask: one class, or all (null) except transparent ones. */
  paint(only) {
    const { width, height } = this.mask;
    const colors = this.colors.map((color, id) => ((only === null ? !this.isTransparent[id] : id === only) ? color : 0));
    const pixels = new Uint32Array(width * height);
    const columns = Uint32Array.from({ length: width }, (_, x) => scaleDown(x, width, this.output.width));
    for (let y = 0, place = 0; y < height; y += 1) {
      const row = scaleDown(y, height, this.output.height) * this.output.width;
      for (let x = 0; x < width; x += 1, place += 1) pixels[place] = colors[this.output.at(row + columns[x])];
    }
    const data = new ImageData(new Uint8ClampedArray(pixels.buffer), width, height);
    this.mask.getContext("2d").putImageData(data, 0, 0);
  }

  /** Return {x, y, id, probability} of the pixel at a point of the window; null outside the image. */
  pixelUnder(clientX, clientY) {
    const box = this.image.getBoundingClientRect();
    const x = Math.floor(((clientX - box.left) / box.width) * this.output.width);
    const y = Math.floor(((clientY - box.top) / box.height) * this.output.height);
    const inside = x >= 0 && y >= 0 && x < this.output.width && y < this.output.height;
    return inside ? this.pixelAt(x, y) : null;
  }

  /** Return {x, y, id, probability} of a pixel. */
  pixelAt(x, y) {
    const index = y * this.output.width + x;
    return { x, y, id: this.output.at(index), probability: this.output.probabilityAt(index) };
  }

  /** Return [[class ID, share of the pixels], …], the largest first. */
  shares() {
    const pixels = this.output.width * this.output.height;
    const counts = new Uint32Array(256);
    for (let index = 0; index < pixels; index += 1) counts[this.output.at(index)] += 1;
    const shares = Array.from(counts, (count, id) => [id, count / pixels]);
    return shares.filter(([, share]) => share > 0).sort((one, other) => other[1] - one[1]);
  }

  /** Resolve to a PNG of the image and the mask, as they are drawn. */
  overlay(opacity) {
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [this.image.width, this.image.height];
    const context = canvas.getContext("2d");
    context.drawImage(this.image, 0, 0);
    context.globalAlpha = opacity;
    context.drawImage(this.mask, 0, 0);
    return new Promise((resolve, reject) => {
      canvas.toBlob((blob) => (blob ? resolve(blob) : reject(new Error("The browser cannot write the PNG."))), "image/png");
    });
  }
}

/** Return whether a class is transparent if all are shown: black, the usual color of the background, would only darken. */
export const isTransparent = (color) => color === "#000000";

function scaleDown(position, drawn, size) {
  return Math.min(size - 1, Math.floor(((position + 0.5) * size) / drawn));
}
