// A net in the browser: a picture in, a label map and its regions out, on LiteRT.js.
import { loadAndCompile, loadLiteRt, supportsFeature, Tensor } from './litert/core.js';
import { findRegions, smoothRegions } from './regions.js';

const MOST_THREADS = 4;
const TRIALS = 3; // runs on each engine, of which the quickest counts
const ALIKE = 0.99; // share of the labels that two engines must have in common

/** What the worker does for the page; each method is a request. */
export class Worker {
  constructor(wasm) {
    this.wasm = wasm;
    this.net = null;
  }

  /**
   * Loads LiteRT.js. Threads need a page that is isolated from others (two response headers) and
   * relaxed SIMD; without them one thread does the same.
   * @returns {Promise<{threads: number}>} the largest number of threads to ask for.
   */
  async start() {
    const threads = self.crossOriginIsolated && (await supportsFeature('relaxedSimd'));
    await loadLiteRt(this.wasm, { threads });
    const cores = navigator.hardwareConcurrency || 1;
    this.threads = threads ? Math.max(1, Math.min(MOST_THREADS, cores)) : 1;
    return { threads: this.threads };
  }

  /**
   * Loads a `.tflite` file in the place of the one before.
   * @param {{file: string, size: number[], background: number[], classes?: number,
   *   threads?: number, engine?: string}} wanted `file` is its address, `background` holds the
   *   classes that are no objects, `classes` is how many there are, `engine` is 'wasm' (which
   *   every browser has) or 'webgpu'.
   */
  async open({ file, size, background, classes, threads = this.threads, engine = 'wasm' }) {
    const net = await Net.load(file, size, Math.min(threads, this.threads), engine);
    this.exchange(net);
    this.wanted = { file, size, classes };
    this.background = new Set(background);
    return net.about();
  }

  exchange(net) {
    this.net?.delete();
    this.net = net;
  }

  /**
   * Tries the net on the graphics processor and keeps to it where it is quicker on the picture that
   * was labelled last and gives the same labels. It is not for 8-bit files: in WebAssembly their
   * labels are the same on every device, and on a graphics processor they need not be.
   * @param {string} file the address of the file that is meant: another may be open by now.
   * @returns {Promise<object>} which engine the net has now.
   */
  async tune(file) {
    if (this.wanted.file !== file) return this.net.about();
    // On WebGPU LiteRT pads the classes to a multiple of four, with zeros that its argmax counts:
    // where all logits are negative the label is a class that does not exist.
    if (!this.seen || this.wanted.classes % 4 || !(await graphics())) return this.net.about();
    const { size } = this.wanted;
    const other = await Net.load(file, size, this.threads, 'webgpu').catch((error) => {
      console.warn('WebGPU:', error);
      return null;
    });
    if (!other) return this.net.about();
    const [here, there] = [await trial(this.net, this.seen), await trial(other, this.seen)];
    let alike = 0;
    for (let at = 0; at < here.labels.length; ++at) alike += here.labels[at] === there.labels[at];
    const agrees = alike >= ALIKE * here.labels.length;
    console.info(
      `${this.net.engine} ${here.best.toFixed(1)} ms, WebGPU ${there.best.toFixed(1)} ms, `
      + `${((100 * alike) / here.labels.length).toFixed(3)} % equal labels`,
    );
    if (agrees && there.best < here.best) this.exchange(other);
    else other.delete();
    return this.net.about();
  }

  /**
   * Labels a picture.
   * @param {ImageBitmap} bitmap the picture; it is closed.
   * @param {number} width, height of the map of regions that is wanted: the screen's.
   * @returns labels of the whole input of the net (H, W); `area`, the rectangle in it that shows
   *   the picture; `map`, the region of each pixel on the screen; `regions`, what they are.
   */
  async segment(bitmap, width, height) {
    const { rgb, area } = this.net.fit(bitmap);
    bitmap.close();
    this.seen = rgb;
    const { labels, milliseconds } = await this.net.run(rgb);
    const found = findRegions(labels, this.net.width, area, this.background);
    const map = smoothRegions(found.map, area, width, height);
    return { labels, netWidth: this.net.width, area, map, regions: found.regions, milliseconds };
  }

  /** The labels of an encoded picture of exactly the net's size, and the hash of its pixels. */
  async check(address) {
    const blob = await (await fetch(address)).blob();
    // To exactly its stored colours, whatever profile it carries.
    const exact = { colorSpaceConversion: 'none', premultiplyAlpha: 'none' };
    const { rgb } = this.net.fit(await createImageBitmap(blob, exact));
    this.checked = rgb;
    const { labels } = await this.net.run(rgb);
    const digest = new Uint8Array(await crypto.subtle.digest('SHA-256', rgb));
    const sha256 = Array.from(digest, (byte) => byte.toString(16).padStart(2, '0')).join('');
    return { labels, sha256 };
  }

  /** Milliseconds of `runs` runs, after `warmup` others, on the picture that was checked last. */
  async time(runs, warmup) {
    const times = [];
    for (let i = -warmup; i < runs; ++i) {
      const { milliseconds } = await this.net.run(this.checked);
      if (i >= 0) times.push(milliseconds);
    }
    return times;
  }

  /** The addresses of all that the worker has fetched. */
  async fetched() {
    return performance.getEntriesByType('resource').map((entry) => entry.name);
  }
}

/** Whether there is a graphics processor; one that the processor plays is none. */
async function graphics() {
  const adapter = await navigator.gpu?.requestAdapter({ powerPreference: 'high-performance' });
  return Boolean(adapter) && !(adapter.info?.isFallbackAdapter ?? adapter.isFallbackAdapter);
}

/** The shortest time of some runs, and the labels. */
async function trial(net, rgb) {
  let best = Infinity;
  let labels;
  for (let i = 0; i < TRIALS; ++i) {
    const result = await net.run(rgb);
    best = Math.min(best, result.milliseconds);
    ({ labels } = result);
  }
  return { best, labels };
}

/** One `.tflite` file, ready to run. */
class Net {
  static async load(file, [height, width], threads, engine) {
    const cpuOptions = { numThreads: threads };
    const response = await fetch(file);
    if (!response.ok) throw new Error(`${response.status} ${response.statusText}`);
    const content = new Uint8Array(await response.arrayBuffer());
    const model = await loadAndCompile(content, { accelerator: engine, cpuOptions });
    const gpu = model.options.accelerator === 'webgpu';
    if (engine === 'webgpu' && !gpu) {
      model.delete();
      throw new Error('the file does not run on WebGPU as a whole');
    }
    const net = gpu
      ? new Net(model, height, width, 'WebGPU', 1)
      : new Net(model, height, width, 'WebAssembly', threads);
    // The first run prepares the kernels: no time that is shown should contain that.
    await net.run(new Uint8Array(3 * height * width));
    return net;
  }

  constructor(model, height, width, engine, threads) {
    Object.assign(this, { model, height, width, engine, threads });
    const canvas = new OffscreenCanvas(width, height);
    this.context = canvas.getContext('2d', { willReadFrequently: true });
    this.context.imageSmoothingQuality = 'high';
  }

  /**
   * Brings a picture to the net's size: as large as fits, proportions kept, the rest grey.
   * @param {ImageBitmap} source; @returns {{rgb: Uint8Array, area: object}}
   *   the net's input (H, W, 3) and the rectangle in it that shows the picture.
   */
  fit(source) {
    const { context, width, height } = this;
    const scale = Math.min(width / source.width, height / source.height);
    const area = {
      width: Math.max(1, Math.round(source.width * scale)),
      height: Math.max(1, Math.round(source.height * scale)),
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
    const labels = Uint8Array.from(await output.data());
    const milliseconds = performance.now() - start;
    output.delete();
    input.delete();
    return { labels, milliseconds };
  }

  about() {
    return { engine: this.engine, threads: this.threads };
  }

  delete() {
    this.model.delete();
  }
}
