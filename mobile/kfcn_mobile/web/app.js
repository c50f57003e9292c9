// The page: a picture or the camera in, the overlay and the list of classes out.
import { bundleFile, decode, loadRuntime, Net, readBundle } from './net.js';
import { palettePng } from './png.js';

const LONGEST_SIDE = 1280; // of the picture on the screen
const SMOOTH = 0.9; // weight of the past in the camera's time per frame
const query = new URLSearchParams(location.search);
const element = (id) => document.getElementById(id);
const [picture, overlay, frame, hint] = ['picture', 'overlay', 'frame', 'hint'].map(element);

let info, threads, net;
let shown = null; // {source, width, height, labels, area}
let stream = null;
let queue = Promise.resolve();

/** One piece of work at a time: a net is not exchanged while it runs. */
function inTurn(work) {
  queue = queue.catch(() => {}).then(work);
  return queue;
}

function say(text, failed = false) {
  element('status').textContent = text;
  element('status').classList.toggle('error', failed);
}

function fail(error) {
  console.error(error);
  hint.hidden = Boolean(shown);
  hint.textContent = '';
  say(error.message || String(error), true);
}

/** Waits until the service worker keeps what is fetched; without one the page works online. */
async function keepForOffline() {
  if (!('serviceWorker' in navigator) || query.has('validate')) return;
  try {
    await navigator.serviceWorker.register('sw.js');
    if (!navigator.serviceWorker.controller) {
      await new Promise((resolve) => {
        navigator.serviceWorker.addEventListener('controllerchange', resolve, { once: true });
        setTimeout(resolve, 3000);
      });
    }
    // What was loaded before the worker took over is fetched once more through it.
    const before = performance.getEntriesByType('resource').map((entry) => entry.name);
    const own = [document.baseURI, ...before].filter((url) => url.startsWith(location.origin));
    await Promise.all(own.map((url) => fetch(url)));
  } catch (error) {
    console.warn('not kept for offline use:', error);
  }
}

function chooseModel(mode) {
  return inTurn(async () => {
    const before = net;
    net = await Net.load(info, mode, threads);
    before?.delete();
  });
}

/** Labels a picture and shows it. */
function show(source, width, height, smoothed = null) {
  return inTurn(() => showNow(source, width, height, smoothed));
}

async function showNow(source, width, height, smoothed) {
  const { rgb, area } = net.fit(source, width, height);
  const { labels, milliseconds } = await net.run(rgb);
  const time = smoothed === null ? milliseconds : SMOOTH * smoothed + (1 - SMOOTH) * milliseconds;
  shown = { source, width, height, labels, area };
  drawPicture(source, width, height);
  drawOverlay(labels, area);
  listClasses(labels, area);
  const size = `${net.width} × ${net.height}`;
  const workers = `${threads} thread${threads > 1 ? 's' : ''}`;
  say(`${time.toFixed(1)} ms per frame · ${size} · ${net.mode} · ${workers}`);
  hint.hidden = true;
  element('download').disabled = false;
  return time;
}

function drawPicture(source, width, height) {
  const scale = Math.min(1, LONGEST_SIDE / Math.max(width, height));
  picture.width = Math.round(width * scale);
  picture.height = Math.round(height * scale);
  picture.getContext('2d').drawImage(source, 0, 0, picture.width, picture.height);
}

function drawOverlay(labels, area) {
  overlay.width = area.width;
  overlay.height = area.height;
  const context = overlay.getContext('2d');
  const pixels = context.createImageData(area.width, area.height);
  forEachLabel(labels, area, (label, at) => {
    const [red, green, blue] = info.palette[label];
    pixels.data.set([red, green, blue, 255], 4 * at);
  });
  context.putImageData(pixels, 0, 0);
  placeOverlay();
}

/** The overlay lies over the picture as the browser laid it out. */
function placeOverlay() {
  overlay.style.left = `${picture.offsetLeft}px`;
  overlay.style.top = `${picture.offsetTop}px`;
  overlay.style.width = `${picture.offsetWidth}px`;
  overlay.style.height = `${picture.offsetHeight}px`;
}

function forEachLabel(labels, area, visit) {
  for (let y = 0, at = 0; y < area.height; ++y) {
    const row = (area.y + y) * net.width + area.x;
    for (let x = 0; x < area.width; ++x, ++at) visit(labels[row + x], at);
  }
}

function listClasses(labels, area) {
  const counts = new Array(info.classes.length).fill(0);
  forEachLabel(labels, area, (label) => ++counts[label]);
  const total = area.width * area.height;
  const present = counts.map((count, label) => ({ count, label })).filter(({ count }) => count);
  present.sort((a, b) => b.count - a.count);
  element('list').replaceChildren(...present.map(({ count, label }) => row(label, count / total)));
}

function row(label, share) {
  const item = document.createElement('li');
  const swatch = item.appendChild(document.createElement('i'));
  swatch.style.background = `rgb(${info.palette[label].join(',')})`;
  item.appendChild(document.createElement('b')).textContent = info.classes[label];
  const percent = 100 * share;
  const text = percent < 0.1 ? '< 0.1 %' : `${percent.toFixed(1)} %`;
  item.appendChild(document.createElement('span')).textContent = text;
  const bar = item.appendChild(document.createElement('meter'));
  bar.value = share;
  bar.setAttribute('aria-label', `share of ${info.classes[label]}`);
  return item;
}

async function showFile(file) {
  stopCamera();
  try {
    // As a browser shows it: turned as the camera noted, colours brought to the screen's.
    const bitmap = await createImageBitmap(file).catch(() => {
      throw new Error(`${file.name}: not a picture that this browser reads`);
    });
    await show(bitmap, bitmap.width, bitmap.height);
  } catch (error) {
    fail(error);
  }
}

async function startCamera() {
  if (!navigator.mediaDevices) {
    throw new Error('The browser gives a camera to pages from https or this machine only.');
  }
  const wanted = { facingMode: 'environment' };
  stream = await navigator.mediaDevices.getUserMedia({ video: wanted, audio: false });
  const video = document.createElement('video');
  Object.assign(video, { srcObject: stream, muted: true, playsInline: true });
  await video.play();
  element('camera').textContent = 'Stop';
  let time = null;
  while (stream) {
    await new Promise(requestAnimationFrame);
    if (!stream) break;
    time = await show(video, video.videoWidth, video.videoHeight, time);
  }
}

function stopCamera() {
  if (!stream) return;
  stream.getTracks().forEach((track) => track.stop());
  stream = null;
  element('camera').textContent = 'Camera';
  if (shown) {
    // The last frame stays: a video that has ended shows nothing.
    const still = new OffscreenCanvas(picture.width, picture.height);
    still.getContext('2d').drawImage(picture, 0, 0);
    shown = { ...shown, source: still };
  }
}

/** The label map at the picture's own size. */
async function download() {
  const { width, height, labels, area } = shown;
  const full = new Uint8Array(width * height);
  for (let y = 0; y < height; ++y) {
    const from = (area.y + Math.floor(((y + 0.5) * area.height) / height)) * net.width + area.x;
    for (let x = 0; x < width; ++x) {
      full[y * width + x] = labels[from + Math.floor(((x + 0.5) * area.width) / width)];
    }
  }
  const link = document.createElement('a');
  link.href = URL.createObjectURL(await palettePng(full, width, height, info.palette));
  link.download = 'labels.png';
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

function listen() {
  element('file').addEventListener('change', ({ target }) => {
    if (target.files[0]) showFile(target.files[0]);
    target.value = ''; // the same file can be chosen again
  });
  element('camera').addEventListener('click', () => {
    if (stream) stopCamera();
    else startCamera().catch((error) => { stopCamera(); fail(error); });
  });
  element('download').addEventListener('click', () => download().catch(fail));
  const fade = () => { overlay.style.opacity = element('opacity').value / 100; };
  element('opacity').addEventListener('input', fade);
  fade();
  element('mode').addEventListener('change', async ({ target }) => {
    try {
      await chooseModel(target.value);
      if (shown && !stream) await show(shown.source, shown.width, shown.height);
    } catch (error) {
      fail(error);
    }
  });
  for (const type of ['dragover', 'dragleave', 'drop']) {
    document.addEventListener(type, (event) => {
      event.preventDefault();
      frame.classList.toggle('drop', type === 'dragover');
      if (type === 'drop' && event.dataTransfer.files[0]) showFile(event.dataTransfer.files[0]);
    });
  }
  new ResizeObserver(placeOverlay).observe(picture);
}

async function start() {
  await keepForOffline();
  info = await readBundle();
  const modes = info.models.map((model) => model.mode);
  element('mode').replaceChildren(...modes.map((mode) => new Option(mode)));
  const first = modes.includes('int8') ? 'int8' : modes[0];
  element('mode').value = first;
  threads = await loadRuntime();
  if (query.has('validate')) {
    const { validate } = await import('./validate.js');
    await validate(info, threads, (line) => { hint.textContent = line; });
    return;
  }
  await chooseModel(first);
  listen();
  for (const id of ['mode', 'file', 'camera']) element(id).disabled = false;
  hint.textContent = 'Choose a picture, drop one here, or use the camera.';
  // The bundle's first golden image shows at once what the page does.
  const example = await decode(await (await fetch(bundleFile(info.golden[0].image))).blob());
  if (!shown) await show(example, example.width, example.height);
  document.body.dataset.ready = 'yes';
}

start().catch(fail);
