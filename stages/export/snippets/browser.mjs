// From a film to its mask with onnxruntime-web:
//   const session = await ort.InferenceSession.create("unet.onnx");
//   const mask = await segment(session, await read(file));
import * as ort from "onnxruntime-web";

const SIZE = 128;
const CHANNELS = 1;
const THRESHOLD = 0.5;
const LUMA = [0.299, 0.587, 0.114]; // of red, green, blue

/** Decodes a File or Blob in a browser; elsewhere, pass RGBA pixels of a decoder. */
export async function read(file) {
  const bitmap = await createImageBitmap(file, { colorSpaceConversion: "none" });
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
  const context = canvas.getContext("2d");
  context.drawImage(bitmap, 0, 0);
  return context.getImageData(0, 0, bitmap.width, bitmap.height);
}

/** A mask of 0 and 255, of the film's own size. */
export async function segment(session, { data, width, height }) {
  const weigh = width >= SIZE && height >= SIZE ? area : linear;
  const image = new Float32Array(SIZE * SIZE * CHANNELS);
  for (let channel = 0; channel < CHANNELS; channel++) {
    const plane = Float32Array.from({ length: width * height }, (_, i) => {
      const [red, green, blue] = data.subarray(4 * i, 4 * i + 3);
      if (CHANNELS === 3) return [blue, green, red][channel];
      return Math.round(LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue);
    });
    resize(plane, width, height, SIZE, SIZE, weigh).forEach((value, i) => {
      image[i * CHANNELS + channel] = Math.round(value) / 255;
    });
  }
  const input = new ort.Tensor("float32", image, [1, SIZE, SIZE, CHANNELS]);
  const { probability } = await session.run({ image: input });
  const full = resize(probability.data, SIZE, SIZE, width, height, linear);
  return Uint8Array.from(full, (value) => (value >= THRESHOLD ? 255 : 0));
}

/** Sources and weights of one target pixel: all that it covers. */
function area(target, from, to) {
  const begin = (target * from) / to;
  const end = ((target + 1) * from) / to;
  const parts = [];
  for (let i = Math.floor(begin); i < Math.min(Math.ceil(end), from); i++) {
    parts.push([i, (Math.min(i + 1, end) - Math.max(i, begin)) / (end - begin)]);
  }
  return parts;
}

/** Sources and weights of one target pixel: its two neighbours. */
function linear(target, from, to) {
  const place = Math.min(Math.max(((target + 0.5) * from) / to - 0.5, 0), from - 1);
  const left = Math.floor(place);
  const right = Math.min(left + 1, from - 1);
  return [[left, left + 1 - place], [right, place - left]];
}

function resize(values, width, height, toWidth, toHeight, weigh) {
  const columns = Array.from({ length: toWidth }, (_, i) => weigh(i, width, toWidth));
  const rows = Array.from({ length: toHeight }, (_, i) => weigh(i, height, toHeight));
  const narrow = new Float32Array(toWidth * height);
  for (let y = 0; y < height; y++) {
    columns.forEach((parts, x) => {
      for (const [i, weight] of parts) narrow[y * toWidth + x] += weight * values[y * width + i];
    });
  }
  const result = new Float32Array(toWidth * toHeight);
  rows.forEach((parts, y) => {
    for (const [i, weight] of parts) {
      for (let x = 0; x < toWidth; x++) result[y * toWidth + x] += weight * narrow[i * toWidth + x];
    }
  });
  return result;
}
