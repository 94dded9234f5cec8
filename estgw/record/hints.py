"""What to do next, for each refusal of the gateway: a table from gate and reason to a sentence.

The reason is the log's.  A hint may use the named groups of its pattern, and the fields of `explain.Facts`.
`tests/record/test_hints.py` compares the table with the refusals in the source, and provokes each row over real TLS.
"""

from __future__ import annotations

from typing import NamedTuple

from estgw.record.gates import Gate


class Row(NamedTuple):
    """One refusal."""

    gate: Gate | None
    """None: any gate."""
    reason: str
    """A regular expression for a part of the reason."""
    hint: str


LOOK = "look at the CSR with: openssl req -in FILE -noout -text -verify"

ROWS: tuple[Row, ...] = (
    # Handshakes that fail.
    Row(Gate.TLS, "not come from a load balancer in server.proxies",
        "With server.proxies, clients reach the gateway through a load balancer alone: connect to that, or add the "
        "address to server.proxies and reload (SIGHUP)."),
    Row(Gate.TLS, "PROXY header",
        "server.proxies is set, so each connection must begin with a header of the PROXY protocol: in HAProxy, write "
        "send-proxy-v2 behind the server's address; or take the address out of server.proxies."),
    Row(Gate.TLS, "^http request$",
        "The client speaks plain HTTP, and this port takes HTTPS alone: write https:// in its URL."),
    Row(Gate.TLS, "alert unknown ca",
        "The client ended it: it does not trust the CA of the gateway's certificate. Give it that CA's certificate: "
        "curl --cacert openssl-ca/cacert.pem, estclient -c openssl-ca/cacert.pem."),
    Row(Gate.TLS, "alert certificate (expired|unknown)|alert bad certificate|alert unsupported certificate",
        "The client ended it: it does not accept the gateway's certificate. Compare the host name in its URL and its "
        "clock with the certificate; `estgw check` names what is wrong with that."),
    Row(Gate.TLS, "alert",
        "The client ended it with a TLS alert, which names its reason; its own log has more."),
    Row(Gate.TLS, "unsupported protocol|version too low|wrong version number|no protocols available",
        "The client offers no TLS version that tls.minimum and tls.maximum allow, or it does not speak TLS: let it use "
        "TLS 1.2 or 1.3. Every connection of a load balancer: it sends PROXY headers, so add it to server.proxies."),
    Row(Gate.TLS, "no shared cipher|no suitable|no shared group|no shared signature",
        "Client and gateway have no cipher suite or key type in common: update the client's TLS library, or take "
        "away its restrictions."),
    Row(Gate.TLS, "certificate verify failed",
        "The gateway ended it, as client_auth.unknown_certificates is reject: the client's certificate leads to none "
        "of the anchors in client_auth, or has expired. Connect without it, or add its CA to client_auth.implicit."),
    Row(Gate.TLS, "timed out",
        "The client did not finish the handshake in server.handshake_timeout: it opened the connection and fell "
        "silent, as a port scanner does, or a client that speaks another protocol and waits for an answer."),
    Row(Gate.TLS, "closed by the peer|without close_notify|Connection reset",
        "The client closed the connection in the middle of the handshake without a reason: often it does not accept "
        "the gateway's certificate (curl --cacert, estclient -c), or it was only a test whether the port is open."),
    Row(Gate.TLS, "connections are open",
        "The gateway is full: raise server.max_connections, or look for a client that leaves connections open."),
    # Connections whose certificate is judged anew.
    Row(Gate.TLS, "no longer accepted here: (?P<why>.*)",
        "The certificate of this open connection has been revoked or has expired since, or its anchor is gone: connect "
        "anew with another certificate, or without one to enrol by password."),
    Row(Gate.TLS, "certificate can't be read",
        "Another tool may have made this certificate: look at it with openssl x509 -in FILE -noout -text, and connect "
        "without it."),
    Row(Gate.TLS, "",
        "The TLS handshake failed: try openssl s_client -connect HOST:PORT -CAfile openssl-ca/cacert.pem, which names "
        "each step."),
    # Path, method, media type, body.
    Row(Gate.PATH, "^EST lives under|^No operation in the path|^Too many path segments|ends in a slash",
        "Give the client the base URL https://HOST:PORT alone if it adds the path itself; the whole form is "
        "https://HOST:PORT/.well-known/est/[LABEL/]OPERATION."),
    Row(Gate.PATH, "^No such EST operation",
        "The operations are cacerts, csrattrs, simpleenroll, simplereenroll, serverkeygen and fullcmc, and those that "
        "conf.yaml defines; `estgw check` lists those that are open."),
    Row(Gate.PATH, "^No such CA label",
        "`estgw check` lists the labels. Leave the label out of the URL, or define it under labels in conf.yaml."),
    Row(Gate.PATH, "is not switched on here",
        "Write {operation}: {{enabled: true}} under callouts.operations in conf.yaml, then reload (SIGHUP)."),
    Row(Gate.PATH, "^(?P<name>\\S+) is a (?P<method>[A-Z]+)",
        "Send {name} by {method}; curl uses POST with --data-binary and GET without."),
    Row(Gate.PATH, "takes (?P<type>\\S+), ",
        "Send the header Content-Type: {type}; curl: -H 'Content-Type: {type}'."),
    Row(Gate.PATH, "^The path (is not UTF-8|holds an encoded slash)",
        "Write the label and the operation in plain letters in the URL."),
    Row(Gate.PATH, "^The HTTP version", "Let the client use HTTP/1.1; curl: --http1.1."),
    Row(Gate.PATH, "^The body is larger than",
        "Send the CSR alone, or raise server.max_body and reload (SIGHUP)."),
    Row(Gate.PATH, "^The body took too long",
        "The client announced more bytes in Content-Length than it sent, or its line is slow: raise "
        "server.body_timeout."),
    Row(Gate.PATH, "^body: |^not HTTP",
        "The client's HTTP is not well-formed, so another client, such as curl, is the way to see what it should "
        "send: curl -v shows it."),
    Row(Gate.PATH, "is out of service",
        "Run `estgw check`, mend the fault that it names, and reload (SIGHUP)."),
    # Passwords.
    Row(Gate.PASSWORD, "scheme not offered: (?P<scheme>\\w+)",
        "{scheme} is not taken here. The client should answer one of: {offered}."),
    Row(Gate.PASSWORD, "scheme not offered",
        "The Authorization header begins with no scheme that is known here, perhaps with the password itself. The "
        "client should answer one of: {offered}."),
    Row(Gate.PASSWORD, "more than one Authorization header",
        "The client sends two Authorization headers, or one of more than 4096 characters: configure the password in "
        "one place."),
    Row(Gate.PASSWORD, "the Basic credentials",
        "After the word Basic comes base64 of USER:PASSWORD, and nothing else (RFC 7617 2); curl makes it from -u "
        "USER:PASSWORD."),
    Row(Gate.PASSWORD, "qop that was not offered",
        "The client answers Digest as RFC 2069 had it: it needs qop=auth with nc and cnonce (RFC 7616 3.4); else let "
        "it use Basic."),
    Row(Gate.PASSWORD, "the Digest credentials|in the Digest credentials",
        "The client's Digest answer can't be read (RFC 7616 3.4); let it use Basic, or see what it sends with its own "
        "trace."),
    Row(Gate.PASSWORD, "^the password is right; the Digest nonce",
        "Nothing is wrong: the 401 has a new nonce with stale=true, and the client repeats its request with that."),
    Row(Gate.PASSWORD, "^digest uri",
        "The client signed another path than it asked for: the uri of its Digest answer must be the request's path "
        "(RFC 7616 3.4.6), so a proxy that rewrites paths breaks Digest."),
    Row(Gate.PASSWORD, "^wrong user name or password",
        "The user is unknown or the password is wrong ({offered} is offered). Set it with: estgw passwd "
        "users.htpasswd NAME; then reload (SIGHUP). Digest has a file of its own: estgw passwd --digest."),
    Row(Gate.PASSWORD, "^Too many failed attempts",
        "Wrong passwords from this address come too fast (client_auth.guess_delay): stop the client that guesses, "
        "and wait as long as Retry-After says."),
    # What the operation requires.
    Row(Gate.REQUIRES, "^no credentials$",
        "The client sent no password, and {operation} requires one: curl --anyauth -u USER:PASSWORD, estclient -p "
        "USER:PASSWORD. Many clients send it only after this 401."),
    Row(Gate.REQUIRES, "^no credentials, and no client certificate; the one offered was not accepted: (?P<why>.*)",
        "The client's certificate does not count ({why}), and it sent no password: give it one of our CA with its "
        "key, or a password (curl --anyauth -u USER:PASSWORD). Many clients send it only after this 401."),
    Row(Gate.REQUIRES, "^no credentials, and no client certificate",
        "The client sent neither password nor certificate: curl --anyauth -u USER:PASSWORD or --cert and --key, "
        "estclient -p USER:PASSWORD. Many clients send a password only after this 401."),
    Row(Gate.REQUIRES, "needs a TLS client certificate; the one offered was not accepted: (?P<why>.*)",
        "The client's certificate does not count ({why}): enrol for a new one, or add its CA to client_auth.explicit "
        "or client_auth.implicit."),
    Row(Gate.REQUIRES, "needs a TLS client certificate",
        "{operation} requires a certificate in the handshake: curl --cert cert.pem --key key.pem, estclient --cert "
        "and --key. A password does not help; `requires` in conf.yaml says what does."),
    # The CSR.
    Row(Gate.CSR, "body is empty", "Send the CSR as the body: curl --data-binary @req.pem."),
    Row(Gate.CSR, "^Not base64|^Truncated base64|^PEM block|PEM block that does not end|is encrypted or has headers",
        "The body must be a PKCS#10 in base64, PEM or DER, byte for byte: curl --data-binary @req.pem; --data would "
        "take the line breaks away."),
    Row(Gate.CSR, "base64 of something that is not|exactly one PEM|Not a PKCS#10",
        "The body is something else than a CSR: " + LOOK + "."),
    Row(Gate.CSR, "bytes too many|is cut off|longer than the one around it",
        "The CSR has been changed on its way: compare its length with the file, and " + LOOK + "."),
    Row(Gate.CSR, "signature does not fit its key|signature can't be checked",
        "The CSR must be signed with the key that it is for: make it anew with openssl req -new -key KEY."),
    Row(Gate.CSR, "is signed with", "Sign the CSR with SHA-256: openssl req -new -sha256."),
    Row(Gate.CSR, "is the least here|A DSA key|public key can't be used",
        "Take another key: openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256, or RSA of 2048 to 16384 "
        "bits."),
    Row(Gate.CSR, "subject is empty", "Give the CSR a subject: openssl req -new -subj /CN=NAME."),
    Row(Gate.CSR, "otpChallenge, and nothing here can verify",
        "A one-time password in a CSR needs a script that knows it: set authorize in conf.yaml, or leave otpChallenge "
        "out."),
    Row(Gate.CSR, "keeps subject and subject alternative name",
        "A renewal has the names of the old certificate (RFC 7030 4.2.2): make the CSR with exactly these, or enrol "
        "anew by simpleenroll."),
    Row(Gate.CSR, "yours is another's",
        "A certificate of another CA can't be renewed here: send the CSR to simpleenroll."),
    Row(Gate.CSR, "renews the certificate that the client presents in TLS; the one offered",
        "The certificate in the handshake does not count here any more: enrol for a new one by simpleenroll."),
    Row(Gate.CSR, "renews the certificate that the client presents in TLS",
        "Present the old certificate in the handshake: curl --cert old.pem --key old.key, estclient reenroll --cert "
        "and --key; or set renew_without_certificate in conf.yaml."),
    Row(Gate.CSR, "No valid certificate with the CSR's subject",
        "The register has no valid certificate with these names: compare them with openssl-ca/find, or enrol anew by "
        "simpleenroll."),
    Row(Gate.CSR, "Names are not changed here",
        "Leave ChangeSubjectName out of the CSR, or set change_subject_name in conf.yaml."),
    Row(Gate.CSR, "ChangeSubjectName needs a TLS client certificate",
        "Present the certificate whose names shall change: curl --cert and --key, estclient --cert and --key."),
    Row(Gate.CSR, "With ChangeSubjectName the CSR keeps",
        "The CSR itself has the old names, and the attribute has the new ones (RFC 6402 2.8)."),
    Row(Gate.CSR, "(?i)changeSubjectName",
        "The attribute is SEQUENCE {{ subject, [1] subjectAlt }} with at least one of them (RFC 6402 2.8): {look}."),
    Row(Gate.CSR, "lacks what is insisted on",
        "Add to the CSR what the sentence lists; GET csrattrs tells a client the same, if csr_template is the file "
        "that csrattrs prints."),
    Row(Gate.CSR, "setting (is|name_bounds)",
        "Take shorter names, or raise the setting in conf.yaml that the sentence names, then reload (SIGHUP)."),
    Row(Gate.CSR, "holds a control character", "Write the names without control characters: {look}."),
    Row(Gate.CSR, "private key encrypted|SMIMECapabilities|DecryptKeyIdentifier",
        "Ask for an encrypted key as RFC 7030 4.4.1 has it: one of the two identifiers, and SMIMECapabilities with "
        "the algorithms that the client takes; or leave both out."),
    Row(Gate.CSR, "", "The CSR has a fault: {look}."),
    # Linking identity and POP.
    Row(Gate.LINKING, "is required here, and there is no channel binding",
        "Connect over TLS 1.2, or set pop.tls13: exporter in conf.yaml."),
    Row(Gate.LINKING, "is required here",
        "The client must link the CSR: connect first, read the channel binding of that connection, put base64 of it "
        "into the CSR, sign, and send it on the same connection. estclient does so."),
    Row(Gate.LINKING, "but there is no channel binding",
        "Leave the attribute out, connect over TLS 1.2, or set pop.tls13: exporter in conf.yaml. A password belongs "
        "into HTTP authentication, not into challengePassword."),
    Row(Gate.LINKING, "is not base64 of this TLS connection's", "{provenance}"),
    Row(Gate.LINKING, "",
        "The attribute for the channel binding is no text with one value: put base64 of the binding into it, as "
        "UTF8String or PrintableString."),
    # Scripts.
    Row(None, "^the queue of callouts is full",
        "Too many requests wait for scripts: raise callouts.max_running or callouts.max_waiting, or make the scripts "
        "faster; the client comes back after Retry-After."),
    Row(None, "^could not start",
        "Run `estgw check`: the script is missing, may not be executed, or its interpreter is missing."),
    Row(None, "over its (?P<seconds>[0-9.]+) s, killed",
        "The script hangs: run it alone with `estgw run {operation}`, or raise timeout or decision_timeout in "
        "conf.yaml."),
    Row(None, "flooded its (?P<stream>\\w+), killed",
        "The script prints too much: look for a loop, or raise callouts.max_{stream} in conf.yaml."),
    Row(None, "the warm parent died",
        "Reload (SIGHUP) and try again; if it happens again, set runner: exec for this script in conf.yaml."),
    Row(None, "SIGXFSZ", "The script wrote a file larger than callouts.max_file: raise that, or write less."),
    Row(None, "ended by signal",
        "The script was killed: run it alone with `estgw run {operation}`; the kernel's log says if memory ran out."),
    Row(None, "exited with 12[67]",
        "A command in the script is missing or may not be executed: callouts.path is where commands are looked for."),
    Row(None, "exited with (?P<exit>\\d+)",
        "The script failed; its last words stand in the stderr of this request. Run it alone with `estgw run "
        "{operation}`. To refuse on purpose, a script exits with 77."),
    Row(Gate.AUTHORIZE, "said 77",
        "The policy in the script authorize says no: open it, and look for the words that the client got."),
    Row(Gate.AUTHORIZE, "said 65",
        "The script authorize has a fault in the request: open it, and look for the words that the client got."),
    Row(Gate.AUTHORIZE, "said 64",
        "The script authorize ended with 64, which is for handlers: let it exit with 77 to refuse."),
    Row(None, "^pending: ",
        "The request waits: a person decides with `estgw pending list` and `estgw pending approve`, and the client "
        "sends the same request again after Retry-After."),
    Row(None, "said (69|75)",
        "The script can't answer now, and its stderr says why; the client comes back after Retry-After."),
    Row(Gate.HANDLER, "said 77",
        "The policy in the script {operation} says no, or the policy of openssl ca does: open the script, and look "
        "for the words that the client got."),
    Row(Gate.HANDLER, "said 65",
        "The script {operation} has a fault in the request: open it, and look for the words that the client got."),
    Row(Gate.HANDLER, "said 64",
        "The script does not know this operation: name one in conf.yaml that does (operations, handler)."),
    Row(Gate.HANDLER, "said 0",
        "The script printed Status with 400 or more, and its words went to the client: open it, and look for them."),
    Row(Gate.PASSWORD, "said",
        "The script authenticate ended with a status that is neither yes (0) nor no (77): run it alone with `estgw "
        "run authenticate --user NAME`."),
    Row(None, "^The value for|^More than \\d+ values|environment that is too large|^[A-Z_]+: ",
        "Something in the request can't be passed to a script as a variable: shorten the names in the CSR, or leave "
        "out control characters."),
    Row(Gate.HANDLER, "^the answer of the script refuses",
        "The answer says why, and the script's stderr has a line for each part that failed; `estgw cmc explain FILE` "
        "reads a PKI Response."),
    Row(Gate.HANDLER, "in the clear, and the client asked for an encrypted one",
        "The handler must encrypt the key, as handlers/seal does; nothing was sent."),
    Row(Gate.HANDLER, ": (?P<fault>.+)",
        "The script's standard output is no answer to {operation}: run it alone with `estgw run {operation}`; "
        "messages belong on standard error."),
    # The machine.
    Row(None, "no descriptor is free|can be started|no memory is free|no space is left|disk quota",
        "The machine is short of something: do what the reason says; the client comes back after Retry-After."),
    Row(None, "", "The log has the details under this request's id; if it is a fault of the gateway, report it."),
)  # fmt: skip

NO_PASSWORDS = (
    "No passwords are taken here: give the client a certificate (curl --cert and --key, estclient --cert and --key), "
    "or set client_auth.users in conf.yaml."
)
"""For a 401 where no scheme is offered, which is sent as a 403."""
