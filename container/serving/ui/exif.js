// Removes EXIF data from an image, because browsers rotate images by it, and no option reliably prevents that.

/** Return a JPEG or PNG (Blob) without its EXIF data, so that browsers do not rotate it; return other files unchanged. */
export async function withoutExif(image) {
  const bytes = new Uint8Array(await image.arrayBuffer());
  if (bytes[0] === 0xff && bytes[1] === 0xd8) return new Blob([...keepSegments(bytes)], { type: "image/jpeg" });
  if (text(bytes, 1, 3) === "PNG") return new Blob([...keepChunks(bytes)], { type: "image/png" });
  return image;
}

/** Yield the parts of a JPEG except APP1 segments with EXIF data; everything after the first scan is one part. */
function* keepSegments(bytes) {
  const view = new DataView(bytes.buffer);
  yield bytes.subarray(0, 2);
  let place = 2;
  while (place + 4 <= bytes.length && bytes[place] === 0xff && bytes[place + 1] !== 0xda) {
    const isFill = bytes[place + 1] === 0xff;
    const end = isFill ? place + 1 : place + 2 + view.getUint16(place + 2);
    if (!isFill && !(bytes[place + 1] === 0xe1 && text(bytes, place + 4, 4) === "Exif")) yield bytes.subarray(place, end);
    place = end;
  }
  yield bytes.subarray(place);
}

/** Yield a PNG's signature and chunks, but for those that hold EXIF data. */
function* keepChunks(bytes) {
  const view = new DataView(bytes.buffer);
  yield bytes.subarray(0, 8);
  let place = 8;
  while (place + 12 <= bytes.length) {
    const end = place + 12 + view.getUint32(place);
    if (text(bytes, place + 4, 4) !== "eXIf") yield bytes.subarray(place, end);
    place = end;
  }
  yield bytes.subarray(place);
}

const text = (bytes, start, length) => String.fromCharCode(...bytes.subarray(start, start + length));
