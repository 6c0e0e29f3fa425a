"""What mitmproxy needs to be the proxy of a pod in REDIRECT: run it with one listener for each direction,

    mitmdump --mode transparent@15001 --mode transparent@15006 --scripts shunt.py

in the environment that Shunt sets, from which ports and addresses are read.
"""

import asyncio
import json
import os

from mitmproxy import ctx
from mitmproxy.exceptions import OptionsError
from mitmproxy.proxy import layers

MODE = os.environ["SHUNT_INTERCEPTION_MODE"]
INBOUND_PORT = int(os.environ["SHUNT_INBOUND_PORT"])
OUTBOUND_PORT = int(os.environ["SHUNT_OUTBOUND_PORT"])
HEALTH_PORT = int(os.environ["SHUNT_HEALTH_PORT"])
INBOUND_SOURCE = {
    "IPv4": os.environ.get("SHUNT_INBOUND_SOURCE_IPV4"),
    "IPv6": os.environ.get("SHUNT_INBOUND_SOURCE_IPV6"),
}
# Bodies of up to so many bytes are held back until they are complete, so that flow_detail=3 can print them.
WHOLE_BODY = 64 * 1024


class Shunt:
    def load(self, loader):
        loader.add_option("decrypt", bool, False, "Decrypt TLS with mitmproxy's own CA, which clients must trust.")

    def configure(self, updated):
        # mitmproxy cannot make the transparent sockets that TPROXY takes: no connection would ever arrive.
        if MODE == "TPROXY":
            raise OptionsError(f"SHUNT_INTERCEPTION_MODE is {MODE}; accepted by this proxy: REDIRECT and NONE")

    async def running(self):
        """Is called once both listeners are open: whoever gets an answer here finds a proxy that serves."""
        self.health = await asyncio.start_server(answer_health, None, HEALTH_PORT)

    def server_connect(self, data):
        host, port = data.server.address[:2]
        if port == OUTBOUND_PORT or port == INBOUND_PORT and inbound(data.client):
            data.server.error = "the destination is a port of the proxy itself"
        elif inbound(data.client):
            # The rules let through to the app what comes from this address. Any other connection of the proxy's to the
            # pod's own address goes back to the inbound port: a loop without an end.
            data.server.sockname = (INBOUND_SOURCE["IPv6" if ":" in host else "IPv4"], 0)

    def next_layer(self, layer):
        # HTTP/2 without TLS is refused by mitmproxy's HTTP layer; it is passed through as it comes.
        if layer.data_client().startswith(b"PRI * HTTP/2"):
            layer.layer = layers.TCPLayer(layer.context)

    def tls_clienthello(self, hello):
        hello.ignore_connection = not ctx.options.decrypt

    def requestheaders(self, flow):
        headers = flow.request.headers
        flow.request.stream = "transfer-encoding" in headers or int(headers.get("content-length", 0)) > WHOLE_BODY

    def responseheaders(self, flow):
        # Without a length a body may go on for ever, as that of server-sent events does.
        length = flow.response.headers.get("content-length")
        flow.response.stream = length is None or int(length) > WHOLE_BODY

    def server_disconnected(self, data):
        log(data)

    def server_connect_error(self, data):
        log(data, error=data.server.error)


def inbound(client):
    """Tells by the listener; mitmproxy has put the original destination into sockname."""
    return client.proxy_mode.listen_port() == INBOUND_PORT


async def answer_health(reader, writer):
    try:
        path = (await reader.readuntil(b"\r\n\r\n")).split(b" ", 2)[1]
        status = b"200 OK" if path == b"/healthz/ready" else b"404 Not Found"
        writer.write(b"HTTP/1.1 " + status + b"\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        await writer.drain()
    except (OSError, EOFError, IndexError, asyncio.LimitOverrunError):
        pass  # what came was no request, or nobody waits for the answer any more
    finally:
        writer.close()


def log(data, **more):
    """Prints a line for a connection, its addresses named as in the access log of Shunt's Envoy."""
    print(json.dumps({
        "upstream_cluster": "inbound" if inbound(data.client) else "outbound",
        "upstream_host": text(data.server.peername),
        "upstream_local_address": text(data.server.sockname),
        "downstream_local_address": text(data.server.address),
        "downstream_remote_address": text(data.client.peername),
    } | more), flush=True)


def text(address):
    """Writes an address as host:port, with an IPv6 host in brackets."""
    if not address:
        return None
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


addons = [Shunt()]
