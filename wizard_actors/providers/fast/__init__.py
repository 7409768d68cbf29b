"""The lean transport: HTTP/1.1 over httptools and Trio, for models with `transport = "fast"`.

`request` writes a request's head, `reader` reads a response, neither of them waiting for anything; `lines` are the
sockets, `transport` keeps them and makes calls over them.
"""
