// LiteRT.js works in here, so that the page answers while a net computes.
//
// A classic worker: LiteRT.js loads its WebAssembly with `importScripts`, which modules lack.
'use strict';

const wasm = new URL('litert/wasm/', self.location).href;
// What LiteRT.js gives to its WebAssembly. Its threads are started from this file: by itself it
// would look for a <script> element.
self.Module = {
  locateFile: (name) => wasm + name,
  mainScriptUrlOrBlob: `${wasm}litert_wasm_threaded_internal.js`,
};

const work = import('./net.js').then(({ Worker }) => new Worker(wasm));
let queue = Promise.resolve();

// One request at a time, in their order: a net is not exchanged while it runs.
self.onmessage = ({ data: { id, call, args } }) => {
  queue = queue.then(async () => {
    try {
      const worker = await work;
      const value = await worker[call](...args);
      self.postMessage({ id, value }, transferables(value));
    } catch (error) {
      self.postMessage({ id, error: error.message || String(error) });
    }
  });
};

function transferables(value) {
  const values = value && typeof value === 'object' ? Object.values(value) : [];
  return values.filter(ArrayBuffer.isView).map((array) => array.buffer);
}
