// Takes EXIF data out of a photograph: browsers turn a picture by it, and no option of theirs reliably keeps them from it.

/** Return a JPEG or PNG (Blob) without its EXIF data, so that it is shown as it is stored; anything else as it is. */
export async function withoutExif(image) {
  const bytes = new Uint8Array(await image.arrayBuffer());
  if (bytes[0] === 0xff && bytes[1] === 0xd8) return new Blob([...keepSegments(bytes)], { type: "image/jpeg" });
  if (text(bytes, 1, 3) === "PNG") return new Blob([...keepChunks(bytes)], { type: "image/png" });
  return image;
}

/** Yield a JPEG's parts, but for the APP1 segments that hold EXIF data; what follows the first scan is one part. */
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
