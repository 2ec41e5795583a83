"""Passes connections on, for clients that can't be told a port."""

import socket
import threading


def relay(listen, target, before=lambda piece: None, back=lambda piece: None, accepted=lambda: None):
    """Listens at `listen` (host, port) for as long as the program runs and passes every connection on to `target`. `before` hears
    each piece of what clients send before it is passed on, `back` each of what they are to be sent, `accepted` of each connection. Gives the address, with the
    port that was chosen where 0 was asked for."""
    server = socket.create_server(listen)

    def pump(source, sink, before):
        try:
            while piece := source.recv(65_536):
                before(piece)
                sink.sendall(piece)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            for end in (source, sink):
                end.close()

    def serve():
        while True:
            client, _ = server.accept()
            accepted()
            upstream = socket.create_connection(target)
            for ends in [(client, upstream, before), (upstream, client, back)]:
                threading.Thread(target=pump, args=ends, daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    return server.getsockname()
