"""A server of `kfcn_mobile` and what it answers."""

import contextlib
import http.client
import threading

from kfcn_mobile.server import Server


@contextlib.contextmanager
def running(site, **options):
    server = Server(site, **options)
    # It looks so often whether it is to stop; by itself twice a second.
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def get(server, path, method="GET", **headers):
    connection = http.client.HTTPConnection(*server.server_address, timeout=10)
    connection.request(method, path, headers=headers)
    response = connection.getresponse()
    content = response.read()
    connection.close()
    return response, content
