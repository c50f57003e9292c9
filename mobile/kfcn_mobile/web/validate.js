// `?validate`: labels the bundle's golden images with this page's own code and tells the server.
import { bundleFile, decode, Net } from './net.js';

async function tell(path, body) {
  const response = await fetch(`result/${path}`, { method: 'POST', body });
  if (!response.ok) throw new Error(`result/${path}: ${response.status}`);
}

async function sha256(bytes) {
  const digest = new Uint8Array(await crypto.subtle.digest('SHA-256', bytes));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, '0')).join('');
}

/** Runs what `validate.json` asks for. Whatever goes wrong is told too. */
export async function validate(info, threads, progress) {
  try {
    const wanted = await (await fetch('validate.json')).json();
    const agent = { agent: navigator.userAgent, threads, isolated: globalThis.crossOriginIsolated };
    await tell('agent', JSON.stringify(agent));
    for (const { mode, timing } of wanted.modes) {
      await validateModel(info, mode, timing, threads, progress);
    }
    await tell('done', '');
    progress('validated');
  } catch (error) {
    await tell('error', String(error.message || error));
    throw error;
  }
}

async function validateModel(info, mode, timing, threads, progress) {
  let net = await Net.load(info, mode, 1);
  let input;
  for (const [i, golden] of info.golden.entries()) {
    progress(`${mode}: image ${i + 1} of ${info.golden.length}`);
    const bitmap = await decode(await (await fetch(bundleFile(golden.image))).blob());
    input = net.fit(bitmap, bitmap.width, bitmap.height).rgb;
    const { labels } = await net.run(input);
    // The hash shows that the picture reached the net with exactly its stored values.
    await tell(`labels/${mode}/${i}/${await sha256(input)}`, labels);
  }
  for (const wanted of timing.runs ? timing.threads : []) {
    if (wanted > threads) continue;
    if (wanted > 1) {
      net.delete();
      net = await Net.load(info, mode, wanted);
    }
    const times = [];
    for (let i = -timing.warmup; i < timing.runs; ++i) {
      const { milliseconds } = await net.run(input);
      if (i >= 0) times.push(milliseconds);
    }
    await tell(`times/${mode}/${wanted}`, JSON.stringify(times));
  }
  net.delete();
}
