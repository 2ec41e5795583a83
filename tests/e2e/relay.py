"""Passes connections on, for clients that can't be told a port."""

import socket
import threading


def relay(listen, target):
    """Listens at `listen` (host, port) for as long as the program runs and passes every connection on to `target`."""
    server = socket.create_server(listen)

    def pump(source, sink):
        try:
            while piece := source.recv(65_536):
                sink.sendall(piece)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            for end in (source, sink):
                end.close()

    def serve():
        while True:
            client, _ = server.accept()
            upstream = socket.create_connection(target)
            for ends in [(client, upstream), (upstream, client)]:
                threading.Thread(target=pump, args=ends, daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
