// `?validate`: labels a net's examples with this page's own code and reports to the server.

async function report(path, body) {
  const response = await fetch(`result/${path}`, { method: 'POST', body });
  if (!response.ok) throw new Error(`result/${path}: ${response.status}`);
}

/** Runs what `validate.json` asks for. Whatever goes wrong is reported too. */
export async function validate(engine, net, progress) {
  try {
    const { mode, timing, engine: wanted } = await (await fetch('validate.json')).json();
    await validateModel(engine, net, { mode, timing, wanted }, progress);
    await report('done', '');
    progress('validated');
  } catch (error) {
    await report('error', String(error.message || error));
    throw error;
  }
}

async function validateModel(engine, net, { mode, timing, wanted: on }, progress) {
  const model = net.models.find((one) => one.mode === mode);
  const wanted = {
    file: new URL(model.file, document.baseURI).href, size: net.size, background: net.background,
    engine: on,
  };
  await engine.open({ ...wanted, threads: 1 });
  for (const [i, address] of net.examples.entries()) {
    progress(`${mode}: image ${i + 1} of ${net.examples.length}`);
    const { labels, sha256 } = await engine.check(new URL(address, document.baseURI).href);
    // The hash shows that the picture reached the net with exactly its stored values.
    await report(`labels/${i}/${sha256}`, labels);
  }
  for (const threads of timing.runs ? timing.threads : []) {
    if (threads > 1) {
      const opened = await engine.open({ ...wanted, threads });
      if (opened.threads < threads) continue;
    }
    const times = await engine.time(timing.runs, timing.warmup);
    await report(`times/${threads}`, JSON.stringify(times));
  }
}
