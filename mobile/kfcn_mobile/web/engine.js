// The page's side of the worker: each request is a promise.

/** Requests to `worker.js`, by the names of the methods of its `Worker`. */
export class Engine {
  constructor() {
    this.waiting = new Map();
    this.last = 0;
    this.worker = new Worker('worker.js');
    this.worker.onmessage = ({ data: { id, value, error } }) => {
      const { resolve, reject } = this.waiting.get(id);
      this.waiting.delete(id);
      if (error === undefined) resolve(value);
      else reject(new Error(error));
    };
    this.worker.onerror = (event) => {
      event.preventDefault();
      const error = new Error(`the net cannot be run: ${event.message || 'its worker failed'}`);
      for (const { reject } of this.waiting.values()) reject(error);
      this.waiting.clear();
    };
  }

  start() { return this.ask('start'); }

  open(wanted) { return this.ask('open', [wanted]); }

  tune(file) { return this.ask('tune', [file]); }

  /** The bitmap goes over to the worker. */
  segment(bitmap, width, height) { return this.ask('segment', [bitmap, width, height], [bitmap]); }

  check(address) { return this.ask('check', [address]); }

  time(runs, warmup) { return this.ask('time', [runs, warmup]); }

  fetched() { return this.ask('fetched'); }

  ask(call, args = [], transfer = []) {
    return new Promise((resolve, reject) => {
      const id = ++this.last;
      this.waiting.set(id, { resolve, reject });
      this.worker.postMessage({ id, call, args }, transfer);
    });
  }
}
