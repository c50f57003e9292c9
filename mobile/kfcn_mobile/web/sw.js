// Keeps every file of the page that was used, and gives it out when the network does not answer.
const KEPT = 'kfcn';
// A static host need not send these; without them a browser gives the page no threads.
const ISOLATION = {
  'Cross-Origin-Opener-Policy': 'same-origin',
  'Cross-Origin-Embedder-Policy': 'require-corp',
  'Cross-Origin-Resource-Policy': 'same-origin',
};

self.addEventListener('install', (event) => event.waitUntil(self.skipWaiting()));
// Pages that were open before this worker are its own from now on: the first visit is kept too.
self.addEventListener('activate', (event) => event.waitUntil(self.clients.claim()));
self.addEventListener('fetch', (event) => {
  const { request } = event;
  if (request.method === 'GET' && new URL(request.url).origin === self.location.origin) {
    event.respondWith(answer(request));
  }
});

async function answer(request) {
  const kept = await caches.open(KEPT);
  try {
    const response = isolated(await fetch(request));
    // A full disk is no reason to withhold what the network has given.
    if (response.status === 200) await kept.put(request, response.clone()).catch(console.warn);
    return response;
  } catch (error) {
    const copy = await kept.match(request, { ignoreSearch: true });
    if (copy) return copy;
    throw error;
  }
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
