/* client: a load client for TLS servers that never resumes a session and looks into every answer.
 *
 * Each thread is one client: it connects, posts the next CSR and reads the answer, until the time is up.  An answer
 * counts only if it is a 200 with what was asked for; where certificates are expected, one whose key is the CSR's.
 * Prints one JSON object.  Built and run by load.py; `cc -O2 client.c -lssl -lcrypto -lpthread`.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/tcp.h>
#include <openssl/asn1.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define ANSWER (1 << 16) /* bytes of the longest answer */
#define PATIENCE 30      /* seconds that a client waits for a server */

struct request {
    char *bytes; /* head and body, ready to send */
    int length;
    unsigned char *key; /* the SubjectPublicKeyInfo of its CSR, DER */
    int key_length;
};

struct client {
    pthread_t thread;
    SSL_CTX *context;
    SSL *tls;
    char answer[ANSWER + 1];
    int begins; /* of the answer's body */
    int length; /* of the body */
    double *times;
    int done, room, errors, reopened;
    char fault[200]; /* the first one */
};

static struct {
    int port, clients, keep, greet, ack;
    long count;
    double seconds;
    const char *path, *method, *login, *type, *expect, *cert, *key, *csrs, *tls;
} option = {.clients = 1, .seconds = 1, .path = "/", .method = "POST", .type = "application/pkcs10",
            .expect = "pkcs7"};

static struct request *requests;
static int request_count;
static atomic_long next_request;
static double deadline;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static void die(const char *what, const char *why) {
    fprintf(stderr, "client: %s: %s\n", what, why);
    exit(2);
}

static int fault(struct client *c, const char *what) {
    unsigned long error = ERR_peek_last_error();
    if (!*c->fault)
        snprintf(c->fault, sizeof c->fault, "%s%s%s", what, error ? ": " : "",
                 error ? ERR_reason_error_string(error) : "");
    ERR_clear_error();
    return 0;
}

/* The requests: one for each line of the file, a CSR in base64. */

static void add_request(const char *line, int length) {
    struct request *r = &requests[request_count++];
    unsigned char *der = malloc(length);
    const unsigned char *at = der;
    int size = EVP_DecodeBlock(der, (const unsigned char *)line, length);
    for (int i = length; i && line[i - 1] == '='; i--) size--;
    X509_REQ *csr = size > 0 ? d2i_X509_REQ(NULL, &at, size) : NULL;
    if (!csr) die(option.csrs, "a line that is no CSR in base64");
    r->key_length = i2d_X509_PUBKEY(X509_REQ_get_X509_PUBKEY(csr), &r->key);
    X509_REQ_free(csr);
    free(der);

    char *body = malloc(length + length / 64 + 2), *end = body;
    for (int i = 0; i < length; i += 64) {
        int part = length - i < 64 ? length - i : 64;
        end = mempcpy(end, line + i, part);
        *end++ = '\n';
    }
    char login[400] = "";
    if (option.login) {
        unsigned char text[300];
        EVP_EncodeBlock(text, (const unsigned char *)option.login, strlen(option.login));
        snprintf(login, sizeof login, "Authorization: Basic %s\r\n", text);
    }
    int post = !strcmp(option.method, "POST");
    char content[200] = "";
    if (post) snprintf(content, sizeof content, "Content-Type: %s\r\nContent-Length: %d\r\n", option.type,
                       (int)(end - body));
    r->length = asprintf(&r->bytes,
                         "%s %s HTTP/1.1\r\nHost: localhost:%d\r\nUser-Agent: bench\r\nAccept: */*\r\n%s%s\r\n%.*s",
                         option.method, option.path, option.port, login, content, post ? (int)(end - body) : 0, body);
    free(body);
}

static void read_requests(void) {
    FILE *file = fopen(option.csrs, "r");
    char *line = NULL;
    size_t size = 0;
    ssize_t length;
    int room = 0;
    if (!file) die(option.csrs, strerror(errno));
    while ((length = getline(&line, &size, file)) > 0) {
        if (line[length - 1] == '\n') length--;
        if (request_count == room && !(requests = realloc(requests, (room += 1024) * sizeof *requests))) abort();
        add_request(line, length);
    }
    if (!request_count) die(option.csrs, "no CSRs in it");
    free(line);
    fclose(file);
}

/* Connections: a full handshake each. */

static SSL_CTX *make_context(void) {
    SSL_CTX *context = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_options(context, SSL_OP_NO_TICKET);
    if (option.tls) { /* "1.2" or "1.3": that version and no other */
        int version = strcmp(option.tls, "1.2") ? TLS1_3_VERSION : TLS1_2_VERSION;
        SSL_CTX_set_min_proto_version(context, version);
        SSL_CTX_set_max_proto_version(context, version);
    }
    if (option.cert && (SSL_CTX_use_certificate_chain_file(context, option.cert) != 1 ||
                        SSL_CTX_use_PrivateKey_file(context, option.key, SSL_FILETYPE_PEM) != 1))
        die(option.cert, "no certificate with its key");
    return context;
}

/* A server that writes an answer in two pieces waits for the acknowledgement of the first, which the kernel delays by
 * 40 ms.  The kernel forgets the option after a while, so it is set before each read. */
static void acknowledge(int descriptor) {
    int yes = 1;
    if (option.ack) setsockopt(descriptor, IPPROTO_TCP, TCP_QUICKACK, &yes, sizeof yes);
}

static int open_connection(struct client *c) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(option.port)};
    struct timeval patience = {PATIENCE, 0};
    int yes = 1, descriptor = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(descriptor, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    setsockopt(descriptor, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    if (connect(descriptor, (struct sockaddr *)&address, sizeof address)) {
        close(descriptor);
        return fault(c, strerror(errno));
    }
    acknowledge(descriptor);
    c->tls = SSL_new(c->context);
    SSL_set_fd(c->tls, descriptor);
    SSL_set_tlsext_host_name(c->tls, "localhost");
    if (SSL_connect(c->tls) == 1) {
        if (!SSL_session_reused(c->tls)) return 1;
        fault(c, "a session was resumed");
    } else {
        fault(c, "handshake");
    }
    SSL_free(c->tls);
    c->tls = NULL;
    close(descriptor);
    return 0;
}

/* With `wait`, until the server has said goodbye, too: so it has been through the whole of the handshake. */
static void close_connection(struct client *c, int wait) {
    if (!c->tls) return;
    int descriptor = SSL_get_fd(c->tls);
    char rest[256];
    SSL_shutdown(c->tls);
    while (wait && SSL_read(c->tls, rest, sizeof rest) > 0) continue;
    SSL_free(c->tls);
    ERR_clear_error();
    c->tls = NULL;
    close(descriptor);
}

/* Answers. */

static int header(const char *head, const char *name, const char **value) {
    for (const char *line = strstr(head, "\r\n"); line; line = strstr(line, "\r\n")) {
        line += 2;
        if (!strncasecmp(line, name, strlen(name)) && line[strlen(name)] == ':') {
            *value = line + strlen(name) + 1;
            *value += strspn(*value, " ");
            return 1;
        }
    }
    return 0;
}

/* Take the chunks' sizes out of a body; returns whether its last chunk is there. */
static int join_chunks(struct client *c, int end) {
    char *from = c->answer + c->begins, *to = from, *limit = c->answer + end;
    for (;;) {
        char *line = memmem(from, limit - from, "\r\n", 2);
        if (!line) return 0;
        long size = strtol(from, NULL, 16);
        if (size < 0 || size > ANSWER || line + 2 + size + 2 > limit) return 0;
        if (!size) {
            c->length = to - c->answer - c->begins;
            return 1;
        }
        from = line + 2 + size + 2;
        memmove(to, line + 2, size); /* once only: nothing is taken out before the last chunk is there */
        to += size;
    }
}

static int last_chunk_is_here(const char *body, int length) {
    return length >= 5 && !memcmp(body + length - 5, "0\r\n\r\n", 5);
}

/* 1: answered.  0: not.  -1: the server had closed a kept connection before the request was there. */
static int exchange(struct client *c, const struct request *r, int fresh, int *stays) {
    int end = 0, got;
    const char *value;
    if (SSL_write(c->tls, r->bytes, r->length) <= 0) return fresh ? fault(c, "the request can't be sent") : -1;
    c->begins = 0;
    c->length = -1;
    *stays = 1;
    while (acknowledge(SSL_get_fd(c->tls)), (got = SSL_read(c->tls, c->answer + end, ANSWER - end)) > 0) {
        end += got;
        c->answer[end] = 0;
        if (!c->begins) {
            char *blank = strstr(c->answer, "\r\n\r\n");
            if (!blank) continue;
            c->begins = blank + 4 - c->answer;
            blank[2] = 0; /* so that no line of the body is taken for a header */
            if (header(c->answer, "Connection", &value) && !strncasecmp(value, "close", 5)) *stays = 0;
            if (header(c->answer, "Content-Length", &value)) c->length = atoi(value);
        }
        if (c->length >= 0 ? end - c->begins >= c->length
                           : last_chunk_is_here(c->answer + c->begins, end - c->begins))
            break;
    }
    if (got <= 0 && !end && !fresh) return -1;
    if (!c->begins) return fault(c, "no answer");
    if (c->length < 0) {
        if (header(c->answer, "Transfer-Encoding", &value)) {
            if (!join_chunks(c, end)) return fault(c, "an answer that breaks off");
        } else { /* until the end of the connection */
            c->length = end - c->begins;
            *stays = 0;
        }
    }
    if (end - c->begins < c->length) return fault(c, "an answer that breaks off");
    return 1;
}

/* The key in a certs-only PKCS#7.  d2i_PKCS7 would do, and take half a millisecond to make a usable key of it. */

struct der {
    const unsigned char *at, *end;
};

/* Take the next element off; returns its tag and class, -1 where there is none.  `whole` and `content` may be null. */
static int take(struct der *from, struct der *whole, struct der *content) {
    const unsigned char *at = from->at;
    long length;
    int tag, class, form = ASN1_get_object(&at, &length, &tag, &class, from->end - at);
    if (from->at >= from->end || form & 0x81) return -1; /* broken, or of indefinite length */
    if (whole) *whole = (struct der){from->at, at + length};
    from->at = at + length;
    if (content) *content = (struct der){at, at + length}; /* last: it may be `from` */
    return class | tag;
}

/* Find the SubjectPublicKeyInfo of the one certificate (RFC 5652 5.1, RFC 5280 4.1). */
static int find_key(struct der in, struct der *key) {
    enum { TAGGED = V_ASN1_CONTEXT_SPECIFIC };
    struct der at, certificates;
    if (take(&in, NULL, &in) != V_ASN1_SEQUENCE || take(&in, NULL, NULL) != V_ASN1_OBJECT) return 0;
    if (take(&in, NULL, &in) != TAGGED || take(&in, NULL, &in) != V_ASN1_SEQUENCE) return 0;
    if (take(&in, NULL, NULL) != V_ASN1_INTEGER || take(&in, NULL, NULL) != V_ASN1_SET) return 0;
    if (take(&in, NULL, NULL) != V_ASN1_SEQUENCE || take(&in, NULL, &certificates) != TAGGED) return 0;
    if (take(&certificates, NULL, &at) != V_ASN1_SEQUENCE || certificates.at != certificates.end) return 0;
    if (take(&at, NULL, &at) != V_ASN1_SEQUENCE || take(&at, NULL, NULL) != TAGGED) return 0;
    if (take(&at, NULL, NULL) != V_ASN1_INTEGER) return 0;
    for (int i = 0; i < 4; i++) /* signature, issuer, validity, subject */
        if (take(&at, NULL, NULL) != V_ASN1_SEQUENCE) return 0;
    return take(&at, key, NULL) == V_ASN1_SEQUENCE;
}

/* Is the answer what was asked for?  Some servers hand on a script's CGI header as if it were content: skip it. */
static int good(struct client *c, const struct request *r) {
    if (strncmp(c->answer, "HTTP/1.1 200", 12)) {
        snprintf(c->fault, *c->fault ? 0 : sizeof c->fault, "%.12s %.100s", c->answer, c->answer + c->begins);
        return 0;
    }
    char *body = c->answer + c->begins;
    int length = c->length;
    if (length > 13 && !strncasecmp(body, "Content-Type:", 13)) {
        char *blank = memmem(body, length, "\n\n", 2);
        if (!blank) return fault(c, "no end of the CGI header");
        length -= blank + 2 - body;
        body = blank + 2;
    }
    if (strcmp(option.expect, "pkcs7")) /* a text, or anything when it is empty */
        return memmem(body, length, option.expect, strlen(option.expect)) ? 1 : fault(c, "another text");

    unsigned char packed[ANSWER], decoded[ANSWER];
    int size = 0;
    for (int i = 0; i < length; i++)
        if (body[i] != '\n' && body[i] != '\r') packed[size++] = body[i];
    size = EVP_DecodeBlock(decoded, packed, size);
    if (size <= 0) return fault(c, "an answer that is not base64");
    struct der key;
    if (!find_key((struct der){decoded, decoded + size}, &key)) return fault(c, "no PKCS#7 with one certificate");
    if (key.end - key.at != r->key_length || memcmp(key.at, r->key, r->key_length))
        return fault(c, "a certificate for another key");
    return 1;
}

static void note(struct client *c, double seconds) {
    if (c->done == c->room && !(c->times = realloc(c->times, (c->room += 4096) * sizeof *c->times))) abort();
    c->times[c->done++] = seconds;
}

/* One request: seconds until its answer was there, negative when that is none to be had. */
static double one(struct client *c, const struct request *r) {
    int stays = 0, answered = 0;
    double begun = now(), taken;
    if (option.greet) {
        if (!open_connection(c)) return -1;
        close_connection(c, 1);
        return now() - begun;
    }
    for (int fresh = !c->tls; !answered; fresh = 1) {
        if (!c->tls && !open_connection(c)) return -1;
        if ((answered = exchange(c, r, fresh, &stays)) < 0) {
            close_connection(c, 0);
            c->reopened++;
            answered = 0;
            continue;
        }
        if (!answered) break;
    }
    taken = now() - begun;
    int sound = answered && good(c, r);
    if (!option.keep || !stays || !answered) {
        if (option.keep && answered) c->reopened++;
        close_connection(c, 0);
    }
    return sound ? taken : -1;
}

static void *work(void *argument) {
    struct client *c = argument;
    for (;;) {
        if (now() >= deadline) break;
        long number = atomic_fetch_add(&next_request, 1);
        if (option.count && number >= option.count) break;
        double taken = one(c, &requests[request_count ? number % request_count : 0]);
        if (taken >= 0) {
            note(c, taken);
        } else {
            c->errors++;
            usleep(10000); /* a server that refuses all shall not be asked as fast as we can */
        }
    }
    close_connection(c, 0);
    return NULL;
}

static int by_size(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double seconds_of(struct timeval t) { return t.tv_sec + t.tv_usec / 1e6; }

int main(int argc, char **argv) {
    static const struct option names[] = {
        {"port", 1, 0, 'p'},   {"path", 1, 0, 'u'},  {"method", 1, 0, 'm'}, {"login", 1, 0, 'l'}, {"type", 1, 0, 't'},
        {"expect", 1, 0, 'e'}, {"cert", 1, 0, 'c'},  {"key", 1, 0, 'k'},    {"csrs", 1, 0, 'r'},  {"clients", 1, 0, 'n'},
        {"seconds", 1, 0, 's'}, {"count", 1, 0, 'N'}, {"keep", 0, 0, 'K'},   {"greet", 0, 0, 'g'}, {"tls", 1, 0, 'v'},
        {"ack", 0, 0, 'a'},    {0, 0, 0, 0}};
    for (int letter; (letter = getopt_long(argc, argv, "", names, NULL)) != -1;) switch (letter) {
            case 'p': option.port = atoi(optarg); break;
            case 'u': option.path = optarg; break;
            case 'm': option.method = optarg; break;
            case 'l': option.login = optarg; break;
            case 't': option.type = optarg; break;
            case 'e': option.expect = optarg; break;
            case 'c': option.cert = optarg; break;
            case 'k': option.key = optarg; break;
            case 'r': option.csrs = optarg; break;
            case 'n': option.clients = atoi(optarg); break;
            case 's': option.seconds = atof(optarg); break;
            case 'N': option.count = atol(optarg); break;
            case 'K': option.keep = 1; break;
            case 'g': option.greet = 1; break; /* nothing but handshakes */
            case 'v': option.tls = optarg; break;
            case 'a': option.ack = 1; break; /* acknowledge at once */
            default: return 2;
        }
    if (option.clients < 1 || option.clients > 1000 || (option.login && strlen(option.login) > 200))
        die("clients or login", "out of bounds");
    signal(SIGPIPE, SIG_IGN);
    if (!option.greet) read_requests();

    struct client *clients = calloc(option.clients, sizeof *clients);
    for (int i = 0; i < option.clients; i++) clients[i].context = make_context();
    struct rusage before, after;
    getrusage(RUSAGE_SELF, &before);
    double begun = now();
    deadline = begun + option.seconds;
    for (int i = 0; i < option.clients; i++)
        if (pthread_create(&clients[i].thread, NULL, work, &clients[i])) die("a thread", "can't be started");
    long done = 0, errors = 0, reopened = 0;
    const char *first = "";
    for (int i = 0; i < option.clients; i++) {
        pthread_join(clients[i].thread, NULL);
        done += clients[i].done;
        errors += clients[i].errors;
        reopened += clients[i].reopened;
        if (!*first) first = clients[i].fault;
    }
    double seconds = now() - begun;
    getrusage(RUSAGE_SELF, &after);

    double *times = malloc((done + 1) * sizeof *times);
    long number = 0;
    for (int i = 0; i < option.clients; i++) {
        memcpy(times + number, clients[i].times, clients[i].done * sizeof *times);
        number += clients[i].done;
    }
    qsort(times, done, sizeof *times, by_size);
    double cpu = seconds_of(after.ru_utime) + seconds_of(after.ru_stime) - seconds_of(before.ru_utime) -
                 seconds_of(before.ru_stime);
    for (char *at = (char *)first; *at; at++)
        if (*at == '"' || *at == '\\' || (unsigned char)*at < ' ' || (unsigned char)*at > '~') *at = ' ';
    printf("{\"done\": %ld, \"errors\": %ld, \"reopened\": %ld, \"seconds\": %.6f, \"cpu\": %.6f, \"p50\": %.6f, "
           "\"p99\": %.6f, \"fault\": \"%s\"}\n",
           done, errors, reopened, seconds, cpu, done ? times[(done - 1) / 2] : 0,
           done ? times[(long)((done - 1) * 0.99)] : 0, first);
    return 0;
}
