"""Listens at all addresses, IPv4 and IPv6, on the ports that are given, and accepts until it is ended."""

import selectors
import socket
import sys

selector = selectors.DefaultSelector()
for port in sys.argv[1:]:
    listener = socket.create_server(("::", int(port)), family=socket.AF_INET6, dualstack_ipv6=True)
    selector.register(listener, selectors.EVENT_READ)
print("listening", flush=True)
while True:
    for key, _ in selector.select():
        key.fileobj.accept()[0].close()
