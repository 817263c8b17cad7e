// From the packed bytes to typed arrays. See app/components/buffers.py for the layout.

const KINDS = { f4: Float32Array, u2: Uint16Array, u1: Uint8Array };

/** The header alone: cheap, so that a payload already unpacked is recognised by its digest. */
function readHeader(bytes) {
  const length = new DataView(bytes.buffer, bytes.byteOffset, 4).getUint32(0, true);
  return { header: JSON.parse(new TextDecoder().decode(bytes.subarray(4, 4 + length))), length };
}

/** What follows the header. The bytes arrive unaligned, hence the copy. */
function readBody(bytes, length) {
  const start = bytes.byteOffset + 4 + length;
  return bytes.buffer.slice(start, bytes.byteOffset + bytes.byteLength);
}

/** One array of the body; `body` starts at a multiple of four bytes, and so does every array. */
function readArray(body, place) {
  if (!place) return null;
  const count = place.shape.reduce((product, size) => product * size, 1);
  return new KINDS[place.kind](body, place.offset, count);
}
