// A bundle's net in the browser: an RGB picture in, a label map out, on LiteRT.js.
import { loadAndCompile, loadLiteRt, supportsFeature, Tensor } from '@litertjs/core';

const BUNDLE = new URL('bundle/', document.baseURI);

/** Reads what the bundle holds: size, classes, palette, models, golden images. */
export async function readBundle() {
  const response = await fetch(new URL('bundle.json', BUNDLE));
  if (!response.ok) throw new Error(`bundle.json: ${response.status} ${response.statusText}`);
  return response.json();
}

/** The address of one of the bundle's files. */
export function bundleFile(name) {
  return new URL(name, BUNDLE).href;
}

/**
 * Loads LiteRT.js once. Threads need a page that is isolated from others (two response headers)
 * and relaxed SIMD; without them one thread does the same.
 * @returns {Promise<number>} the largest number of threads to ask for.
 */
export async function loadRuntime() {
  const threads = globalThis.crossOriginIsolated && (await supportsFeature('relaxedSimd'));
  await loadLiteRt(new URL('litert/wasm/', document.baseURI).href, { threads });
  return threads ? Math.max(1, Math.min(4, navigator.hardwareConcurrency || 1)) : 1;
}

/** One `.tflite` file of a bundle, ready to run. */
export class Net {
  /** @param {object} info the bundle; @param {string} mode such as 'int8'. */
  static async load(info, mode, threads) {
    const entry = info.models.find((model) => model.mode === mode);
    const cpuOptions = { numThreads: threads };
    const model = await loadAndCompile(bundleFile(entry.file), { accelerator: 'wasm', cpuOptions });
    const net = new Net(model, info.size, mode);
    // The first run prepares the kernels: no time that is shown should contain that.
    await net.run(new Uint8Array(3 * net.height * net.width));
    return net;
  }

  constructor(model, [height, width], mode) {
    Object.assign(this, { model, height, width, mode });
    this.canvas = new OffscreenCanvas(width, height);
    this.context = this.canvas.getContext('2d', { willReadFrequently: true });
    this.context.imageSmoothingQuality = 'high';
  }

  /**
   * Brings a picture to the net's size: as large as fits, proportions kept, the rest grey.
   * @param source an ImageBitmap, canvas or video; @returns {{rgb: Uint8Array, area: object}}
   *   the net's input (H, W, 3) and the rectangle in it that shows the picture.
   */
  fit(source, sourceWidth, sourceHeight) {
    const { context, width, height } = this;
    const scale = Math.min(width / sourceWidth, height / sourceHeight);
    const area = {
      width: Math.max(1, Math.round(sourceWidth * scale)),
      height: Math.max(1, Math.round(sourceHeight * scale)),
    };
    area.x = (width - area.width) >> 1;
    area.y = (height - area.height) >> 1;
    context.fillStyle = 'rgb(128, 128, 128)';
    context.fillRect(0, 0, width, height);
    context.drawImage(source, area.x, area.y, area.width, area.height);
    const rgba = context.getImageData(0, 0, width, height).data;
    const rgb = new Uint8Array(3 * width * height);
    for (let from = 0, to = 0; to < rgb.length; from += 4) {
      rgb[to++] = rgba[from];
      rgb[to++] = rgba[from + 1];
      rgb[to++] = rgba[from + 2];
    }
    return { rgb, area };
  }

  /** @returns {Promise<{labels: Uint8Array, milliseconds: number}>} labels (H, W). */
  async run(rgb) {
    const input = new Tensor(rgb, [1, this.height, this.width, 3]);
    const start = performance.now();
    const [output] = await this.model.run(input);
    const milliseconds = performance.now() - start;
    const labels = Uint8Array.from(await output.data());
    output.delete();
    input.delete();
    return { labels, milliseconds };
  }

  delete() {
    this.model.delete();
  }
}

/** Decodes a picture to exactly its stored colours, whatever profile it carries. */
export function decode(blob) {
  return createImageBitmap(blob, { colorSpaceConversion: 'none', premultiplyAlpha: 'none' });
}
