"""An EST server that misbehaves on purpose, and the judge of the clients that meet it.

Theory of operation.  `table` has a row for each quirk: what the server does, what a good client does, the function that
spoils an answer or checks a login, and the function that judges.  `server` listens, reads the quirk from the label in
the URL (or from the port, for faults of TLS, which come before any URL), and lets `desk` make the right answer, which
the quirk then spoils.  Everything that happens on the wire becomes a `seen.Handshake` or a `seen.Exchange`.  `scores`
keeps these for `estgw quirks serve`; `runner` collects them around one run of a client's command, together with what
the command has left behind (`kept`).  Both hand them to the quirk's judge.
"""
