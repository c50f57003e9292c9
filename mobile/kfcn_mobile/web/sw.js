// Keeps every file of the page that was used, and gives it out when the network does not answer.
const KEPT = 'kfcn';
const PATIENCE = 5000; // milliseconds that a network may take where there is a copy
// A static host need not send these; without them a browser gives the page no threads.
const ISOLATION = {
  'Cross-Origin-Opener-Policy': 'same-origin',
  'Cross-Origin-Embedder-Policy': 'require-corp',
  'Cross-Origin-Resource-Policy': 'same-origin',
};
const SCOPE = self.registration.scope;

let ours = null; // a promise: whether the page at this address is kfcn's

self.addEventListener('install', (event) => event.waitUntil(self.skipWaiting()));
// Pages that were open before this worker are its own from now on: the first visit is kept too.
self.addEventListener('activate', (event) => event.waitUntil(self.clients.claim()));
self.addEventListener('fetch', (event) => {
  const { request } = event;
  if (request.method !== 'GET' || !request.url.startsWith(SCOPE)) return;
  if (request.mode === 'navigate') ours = null; // asked once for each page
  event.respondWith(answer(request));
});

async function answer(request) {
  ours ??= isOurs();
  if (!(await ours)) return fetch(request);
  const kept = await caches.open(KEPT);
  const copy = await kept.match(request, { ignoreSearch: true });
  // The name of a net's file holds its hash: what is kept is what the network would give.
  if (copy && request.url.startsWith(`${SCOPE}nets/`)) return copy;
  const fetched = fetch(request).then(async (response) => {
    const answered = isolated(response);
    // A full disk is no reason to withhold what the network has given.
    if (response.status === 200) await kept.put(request, answered.clone()).catch(console.warn);
    return answered;
  });
  if (!copy) return fetched;
  const late = new Promise((resolve) => { setTimeout(resolve, PATIENCE, copy); });
  return Promise.race([fetched.catch(() => copy), late]);
}

/** Another program may serve this address by now, such as another one's port 8000: it is let be. */
async function isOurs() {
  const response = await Promise.race([
    fetch(`${SCOPE}nets.json`, { cache: 'no-store' }).catch(() => null),
    new Promise((resolve) => { setTimeout(resolve, PATIENCE, null); }),
  ]);
  if (response?.status !== 404) return true; // or no network: what is kept is kfcn's
  await caches.delete(KEPT);
  await self.registration.unregister();
  return false;
}

function isolated(response) {
  if (response.type !== 'basic' || response.headers.has('Cross-Origin-Embedder-Policy')) {
    return response;
  }
  const headers = new Headers(response.headers);
  for (const [name, value] of Object.entries(ISOLATION)) headers.set(name, value);
  const { status, statusText } = response;
  const body = [204, 304].includes(status) ? null : response.body;
  return new Response(body, { status, statusText, headers });
}
