// The page: a picture or the camera in, the objects in it out.
import { backgroundOf, shownColours } from './colours.js';
import { Engine } from './engine.js';
import { palettePng } from './png.js';
import { percent, View } from './view.js';

const LONGEST_SIDE = 1280; // of the picture as it is drawn
const LEAST_SIDE = 960; // a small picture is enlarged, so that outlines are fine
const CAMERA_SIDE = 800; // a frame must be drawn quickly
const SMOOTH = 0.9; // weight of the past in the camera's time per frame
const PREFERRED = 'int8'; // the same labels on every device
const READING = 6000; // milliseconds that an error stands, whatever a camera has to say

const query = new URLSearchParams(location.search);
const element = (id) => document.getElementById(id);
const engine = new Engine();
const view = new View(element('frame'), markRow);

let nets, net, mode, opened;
let picture = null; // {source, width, height}: what was last to be shown
let shown = null; // {picture, net, labels, area}: what is
let choice = 0; // counts what a person chose to see; what of it comes too late is dropped
let turn = 0; // counts what is to be shown, also for another net or as a camera's next frame
let stream = null;
let note = ''; // what is to be said of a picture beside its time
let failed = -READING; // when an error was told last

function say(text, error = false) {
  // The time of a camera changes with every picture: a screen reader would never stop.
  element('status').setAttribute('aria-live', stream && !error ? 'off' : 'polite');
  element('status').textContent = text || '\u00a0';
  element('status').classList.toggle('error', error);
}

function fail(error) {
  console.error(error);
  failed = performance.now();
  element('busy').hidden = true;
  if (!shown) hint('');
  say(error.message || String(error), true);
}

function hint(text) {
  element('hint').hidden = !text;
  element('hint').firstElementChild.textContent = text;
}

// --- nets

async function readNets() {
  const response = await fetch('nets.json');
  if (!response.ok) throw new Error(`nets.json: ${response.status} ${response.statusText}`);
  ({ nets } = await response.json());
  for (const one of nets) {
    one.background = backgroundOf(one.classes);
    one.colours = shownColours(one.palette);
    one.models.sort((a, b) => (b.mode === PREFERRED) - (a.mode === PREFERRED));
  }
}

/** Loads a file of a net; the choices and the text about it follow. */
async function open(chosen, chosenMode) {
  const model = chosen.models.find((one) => one.mode === chosenMode) ?? chosen.models[0];
  element('busy').hidden = false;
  const file = absolute(model.file);
  const { size, background } = chosen;
  const wanted = { file, size, background, classes: chosen.classes.length };
  try {
    opened = { ...(await engine.open(wanted)), file };
  } catch (error) {
    const reason = navigator.onLine ? error.message : `${error.message}; there is no network`;
    throw new Error(`${chosen.name}, ${model.mode}: ${reason}`);
  }
  if (net !== chosen) keep(null);
  [net, mode] = [chosen, model.mode];
  element('busy').hidden = true;
  chooseOpened();
  element('about').hidden = false;
  element('about-text').textContent = net.about;
  const known = net.classes.filter((_, label) => !net.background.includes(label));
  element('knows').textContent = `It knows ${known.join(', ')}.`;
}

/** The choices are those of the net that runs. */
function chooseOpened() {
  element('net').value = String(nets.indexOf(net));
  element('mode').replaceChildren(...net.models.map((one) => new Option(one.mode)));
  element('mode').value = mode;
  element('mode-choice').hidden = net.models.length < 2;
}

/** Loads another net or file and labels what is shown once more, or the net's own example. */
async function change(chosen, chosenMode) {
  const other = chosen !== net;
  try {
    say('');
    await open(chosen, chosenMode);
    // A picture may have been chosen while the net was loading.
    if (other && !choice && net.examples.length) await showExample();
    else if (picture && !stream) await show(picture.source, picture.width, picture.height);
    await tune();
    await keepForOffline();
  } catch (error) {
    chooseOpened(); // which goes on
    fail(error);
  }
}

/** Has a file of floating-point numbers run where it is quicker; the labels are shown anew. */
async function tune() {
  if (mode === 'int8') return; // the same labels on every device, which WebGPU does not promise
  const before = opened;
  const found = await engine.tune(before.file);
  if (opened !== before) return; // another file was opened meanwhile
  opened = { ...before, ...found };
  if (opened.engine !== before.engine && picture && !stream) {
    await show(picture.source, picture.width, picture.height);
  }
}

// --- pictures

/**
 * Labels a picture and shows it.
 * @param source an ImageBitmap or canvas; @param {number|null} smoothed of a camera: the time so far.
 * @param {string} name of its file.
 */
async function show(source, width, height, smoothed = null, name = picture?.name) {
  const own = ++turn;
  const by = net;
  picture = { source, width, height, name };
  const live = stream !== null;
  const longest = Math.max(width, height);
  const side = live ? CAMERA_SIDE : Math.min(LONGEST_SIDE, Math.max(LEAST_SIDE, longest));
  const [wide, high] = [width, height].map((n) => Math.max(1, Math.round((n * side) / longest)));
  const later = setTimeout(() => { element('busy').hidden = live; }, 150);
  if (!live) {
    view.show(source, wide, high);
    hint('');
    // What was found in another picture, or by another net, is not in this one.
    if (shown?.picture.source !== source || shown.net !== by) forget();
  }
  const drawn = picture;
  try {
    const result = await engine.segment(await createImageBitmap(source), wide, high);
    if (own !== turn) return null;
    // Another net was opened meanwhile: which of them gave these labels, nobody knows.
    if (net !== by) return await show(source, width, height, smoothed, name);
    if (live) {
      view.show(source, wide, high);
      hint('');
    }
    shown = { picture: drawn, net: by, ...result };
    view.lay(result, net.classes, net.colours);
    listObjects(result, live);
    const { milliseconds } = result;
    const time = smoothed === null ? milliseconds : SMOOTH * smoothed + (1 - SMOOTH) * milliseconds;
    const threads = opened.threads > 1 ? ` on ${opened.threads} threads` : '';
    const size = `${net.size[1]} × ${net.size[0]}`;
    if (!live || performance.now() > failed + READING) {
      say(`${live ? '' : note}${time.toFixed(1)} ms · ${mode} · ${opened.engine}${threads} · ${size}`);
    }
    element('download').disabled = false;
    const { dataset } = element('frame');
    dataset.shown = Number(dataset.shown ?? 0) + 1;
    return time;
  } catch (error) {
    if (own === turn && !live) forget();
    throw error;
  } finally {
    clearTimeout(later);
    if (own === turn) element('busy').hidden = true;
  }
}

/** Nothing is labelled. */
function forget() {
  shown = null;
  keep(null);
  element('list').replaceChildren();
  element('summary').textContent = '';
  element('none').hidden = true;
  element('picture').setAttribute('aria-label', 'Picture');
  element('download').disabled = true;
}

/** Shows the first of some files. */
async function showFiles([file, ...others]) {
  if (!file) return;
  const own = ++choice;
  stopCamera();
  note = others.length ? `first of ${1 + others.length} pictures · ` : '';
  say('');
  try {
    // As a browser shows it: turned as the camera noted, colours brought to the screen's.
    const bitmap = await createImageBitmap(file).catch(() => {
      throw new Error(`${file.name || 'It'}: not a picture that this browser reads`);
    });
    if (own !== choice) bitmap.close();
    else await show(bitmap, bitmap.width, bitmap.height, null, file.name);
  } catch (error) {
    if (own === choice) fail(error);
  }
}

async function showExample() {
  const address = net.examples[0];
  if (!address) return hint('Choose a picture, drop or paste one here, or use the camera.');
  const bitmap = await createImageBitmap(await (await fetch(address)).blob());
  if (!choice) await show(bitmap, bitmap.width, bitmap.height, null, 'example');
}

// --- the list

function listObjects({ regions, area }, live) {
  const total = area.width * area.height;
  const counts = new Map();
  for (const { label, count } of regions.slice(1)) counts.set(label, (counts.get(label) ?? 0) + count);
  const objects = [...counts].sort((a, b) => b[1] - a[1]);
  const list = element('list');
  const focused = document.activeElement?.dataset?.label;
  list.replaceChildren(...objects.map(([label, count]) => row(label, count / total)));
  const rest = regions[0].count;
  if (rest) list.append(restRow(rest / total));
  if (focused) list.querySelector(`[data-label="${focused}"]`)?.focus();
  keep(objects.some(([label]) => label === kept) ? kept : null);
  element('none').hidden = objects.length > 0;
  const texts = objects.map(([label, count]) => `${net.classes[label]} ${percent(count / total)}`);
  const text = texts.join(', ') || 'background only';
  element('picture').setAttribute('aria-label', `Picture, with ${text}`);
  // A camera would never stop speaking.
  if (!live) element('summary').textContent = `Found: ${text}`;
}

function row(label, share) {
  const item = document.createElement('li');
  const button = item.appendChild(document.createElement('button'));
  button.type = 'button';
  button.className = 'row';
  button.dataset.label = label;
  button.setAttribute('aria-pressed', 'false');
  button.style.setProperty('--colour', `rgb(${net.colours[label].join(' ')})`);
  button.style.setProperty('--share', share);
  fill(button, net.classes[label], share);
  const bar = button.appendChild(document.createElement('div'));
  bar.className = 'bar';
  const light = () => view.lightClass(label);
  const dark = () => view.light(view.kept);
  for (const type of ['pointerenter', 'focus']) button.addEventListener(type, light);
  for (const type of ['pointerleave', 'blur']) button.addEventListener(type, dark);
  button.addEventListener('click', () => keep(kept === label ? null : label));
  return item;
}

function restRow(share) {
  const item = document.createElement('li');
  item.className = 'rest';
  const line = item.appendChild(document.createElement('div'));
  line.className = 'row';
  const names = net.background.map((label) => net.classes[label]);
  fill(line, names.join(', ') || 'too small to name', share);
  return item;
}

function fill(line, name, share) {
  line.appendChild(document.createElement('i'));
  line.appendChild(document.createElement('b')).textContent = name;
  line.appendChild(document.createElement('span')).textContent = percent(share);
}

let kept = null; // the class that stays lit until it is chosen again

function keep(label) {
  kept = label;
  view.kept = label === null ? null : (region) => region.label === label;
  for (const button of element('list').querySelectorAll('button')) {
    button.setAttribute('aria-pressed', String(Number(button.dataset.label) === label));
  }
  view.light(view.kept);
}

/** The row of what the pointer is on. */
function markRow(label) {
  for (const button of element('list').querySelectorAll('button')) {
    button.classList.toggle('lit', label !== null && Number(button.dataset.label) === label);
  }
}

// --- the camera

async function useCamera() {
  const own = ++choice;
  let media;
  try {
    media = await askForCamera();
    const video = document.createElement('video');
    Object.assign(video, { srcObject: media, muted: true, playsInline: true });
    await video.play();
    if (own === choice) await showCamera(media, video);
  } catch (error) {
    if (own === choice) {
      stopCamera();
      fail(error);
    }
  } finally {
    // Also where something else was chosen while the browser asked: a camera that nobody looks at
    // is off.
    media?.getTracks().forEach((track) => track.stop());
  }
}

async function askForCamera() {
  if (!navigator.mediaDevices) {
    throw new Error('The browser gives a camera to pages from https or this machine only.');
  }
  const wanted = { facingMode: 'environment' };
  return navigator.mediaDevices.getUserMedia({ video: wanted, audio: false })
    .catch((error) => { throw new Error(cameraProblem(error)); });
}

async function showCamera(media, video) {
  stream = media;
  cameraButton(true);
  let time = null;
  while (stream === media) {
    await new Promise(requestAnimationFrame);
    if (stream !== media) break;
    // A copy: the video goes on while the net works, and the last frame stays at the end.
    const frame = new OffscreenCanvas(video.videoWidth, video.videoHeight);
    frame.getContext('2d').drawImage(video, 0, 0);
    time = (await show(frame, frame.width, frame.height, time, 'camera')) ?? time;
  }
}

function cameraProblem(error) {
  return {
    NotAllowedError: 'The browser was not allowed to use the camera.',
    NotFoundError: 'This device has no camera.',
    NotReadableError: 'The camera is in use by another program.',
  }[error.name] ?? `The camera cannot be used (${error.message}).`;
}

function stopCamera() {
  if (!stream) return;
  stream.getTracks().forEach((track) => track.stop());
  stream = null;
  cameraButton(false);
}

function cameraButton(on) {
  element('camera').textContent = on ? 'Stop the camera' : 'Use the camera';
  element('camera').setAttribute('aria-pressed', String(on));
}

// --- saving

/** The label map at the picture's own size. */
async function download() {
  const { labels, area, netWidth } = shown;
  const { width, height, name } = shown.picture;
  const full = new Uint8Array(width * height);
  for (let y = 0; y < height; ++y) {
    const from = (area.y + Math.floor(((y + 0.5) * area.height) / height)) * netWidth + area.x;
    for (let x = 0; x < width; ++x) {
      full[y * width + x] = labels[from + Math.floor(((x + 0.5) * area.width) / width)];
    }
  }
  const link = document.createElement('a');
  link.href = URL.createObjectURL(await palettePng(full, width, height, shown.net.palette));
  link.download = `${(name || 'picture').replace(/\.[^.]*$/, '')}-labels.png`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

// --- without a network

/**
 * Has the service worker keep all that was fetched so far, and of each net the file that comes
 * first; without one the page works online.
 */
async function keepForOffline() {
  if (!('serviceWorker' in navigator)) return;
  try {
    await navigator.serviceWorker.register('sw.js');
    if (!navigator.serviceWorker.controller) {
      await new Promise((resolve) => {
        navigator.serviceWorker.addEventListener('controllerchange', resolve, { once: true });
        setTimeout(resolve, 3000);
      });
    }
    // What was fetched before it took over is fetched once more through it.
    const used = performance.getEntriesByType('resource').map((entry) => entry.name);
    const first = nets.flatMap(({ models, examples }) => [models[0].file, ...examples]).map(absolute);
    const all = new Set([document.baseURI, ...used, ...(await engine.fetched()), ...first]);
    const own = [...all].filter((url) => url.startsWith(absolute('.')));
    const cached = await caches.open('kfcn');
    const missing = await Promise.all(own.map(async (url) => !(await cached.match(url)) && url));
    await Promise.all(missing.filter(Boolean).map((url) => fetch(url)));
    await dropOthers(cached);
    element('offline').hidden = !navigator.serviceWorker.controller;
  } catch (error) {
    console.warn('not kept for offline use:', error);
  }
}

/** Files of nets that are served no longer need no place. */
async function dropOthers(cached) {
  const files = nets.flatMap(({ models, examples }) => [...models.map(({ file }) => file), ...examples]);
  const known = new Set(files.map(absolute));
  for (const { url } of await cached.keys()) {
    if (url.startsWith(absolute('nets/')) && !known.has(url)) await cached.delete(url);
  }
}

function absolute(address) {
  return new URL(address, document.baseURI).href;
}

// --- start

function listen() {
  element('file').addEventListener('change', ({ target }) => {
    showFiles([...target.files]);
    target.value = ''; // the same file can be chosen again
  });
  element('camera').addEventListener('click', () => {
    if (stream) stopCamera();
    else useCamera();
  });
  element('download').addEventListener('click', () => download().catch(fail));
  element('opacity').addEventListener('input', ({ target }) => view.setOpacity(target.value / 100));
  element('net').addEventListener('change', ({ target }) => change(nets[target.value], mode));
  element('mode').addEventListener('change', ({ target }) => change(net, target.value));
  for (const type of ['dragover', 'dragleave', 'drop']) {
    document.addEventListener(type, (event) => {
      event.preventDefault();
      element('frame').classList.toggle('drop', type === 'dragover');
      if (type === 'drop') showFiles([...event.dataTransfer.files]);
    });
  }
  document.addEventListener('paste', ({ clipboardData }) => {
    showFiles([...clipboardData.files]);
  });
  document.addEventListener('keydown', ({ key }) => {
    if (key === 'Escape') {
      keep(null);
      view.leave();
    }
  });
}

async function start() {
  await Promise.all([readNets(), engine.start()]);
  if (query.has('validate')) {
    const { validate } = await import('./validate.js');
    await validate(engine, nets[0], hint);
    return;
  }
  element('net').replaceChildren(...nets.map((one, i) => new Option(one.name, i)));
  element('net-choice').hidden = nets.length < 2;
  await open(nets[0], PREFERRED);
  listen();
  for (const id of ['file', 'camera']) element(id).disabled = false;
  await showExample();
  await tune();
  await keepForOffline();
  document.body.dataset.ready = 'yes';
}

start().catch(fail);
