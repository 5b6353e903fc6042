/*
 * mock_upstream PORT: an OpenAI-compatible upstream that costs next to nothing.
 *
 * One thread, one epoll. It answers
 *   POST *            a chat completion: JSON, or a paced SSE stream when the body says "stream":true
 *   GET  /counts      what it served so far, as JSON
 *   GET  /last-body   the body of the last POST, byte for byte
 *   GET  *            a model list that also passes for a health check
 *
 * A request sets its own pace with a tag anywhere in its body: "pace-5000-64" asks for 64 chunks, 5,000 µs apart;
 * an interval of 0 sends the whole stream in one write. Each chunk's content is "@" and the time it was sent
 * (CLOCK_MONOTONIC, 19 digits of nanoseconds), so that a client on the same machine can tell how long it travelled.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MAX_FDS = 65536, MAX_EVENTS = 512, CHUNK_ROOM = 512, MAX_BURST = 2000 };
enum { DEFAULT_CHUNKS = 64 };

typedef struct {
    int fd;
    char *in;            /* received, not yet consumed */
    size_t used, room;
    int streaming;       /* a paced stream is being written: further requests wait */
    int chunk, chunks;   /* next chunk's number, and how many the request asked for */
    int64_t interval_ns;
    int64_t due_ns;      /* when the next chunk leaves */
    int place;           /* index in the schedule, -1 when absent */
} Connection;

static Connection *connections[MAX_FDS];
static Connection *schedule[MAX_FDS]; /* binary heap: the earliest chunk first */
static int scheduled;

static struct {
    long connections_open, connections_total, requests, streams, streams_finished, streams_cut, chunks;
} counts;

static char *last_body;
static size_t last_body_size;

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

/* ---- the schedule ------------------------------------------------------------------------------------------- */

static void swap(int a, int b) {
    Connection *c = schedule[a];
    schedule[a] = schedule[b];
    schedule[b] = c;
    schedule[a]->place = a;
    schedule[b]->place = b;
}

static void settle(int i) {
    while (i > 0 && schedule[i]->due_ns < schedule[(i - 1) / 2]->due_ns) {
        swap(i, (i - 1) / 2);
        i = (i - 1) / 2;
    }
    for (;;) {
        int earliest = i;
        for (int child = 2 * i + 1; child <= 2 * i + 2 && child < scheduled; child++)
            if (schedule[child]->due_ns < schedule[earliest]->due_ns) earliest = child;
        if (earliest == i) return;
        swap(i, earliest);
        i = earliest;
    }
}

static void schedule_add(Connection *c) {
    schedule[scheduled] = c;
    c->place = scheduled++;
    settle(c->place);
}

static void schedule_remove(Connection *c) {
    int i = c->place;
    if (i < 0) return;
    scheduled--;
    if (i != scheduled) {
        swap(i, scheduled);
        settle(i);
    }
    c->place = -1;
}

/* ---- connections -------------------------------------------------------------------------------------------- */

static void drop(Connection *c) {
    if (c->streaming) counts.streams_cut++;
    schedule_remove(c);
    counts.connections_open--;
    connections[c->fd] = NULL;
    close(c->fd);
    free(c->in);
    free(c);
}

/* Returns 0, or -1 when the peer is gone. A full socket buffer is waited for: the writes here are small. */
static int send_all(Connection *c, const char *data, size_t size) {
    while (size > 0) {
        ssize_t sent = send(c->fd, data, size, MSG_NOSIGNAL);
        if (sent < 0 && (errno == EAGAIN || errno == EINTR)) {
            usleep(50);
            continue;
        }
        if (sent < 0) return -1;
        data += sent;
        size -= (size_t)sent;
    }
    return 0;
}

#define HEAD_ROOM 320

/* A head as providers send it: with the time and an id of its own, so that no two are the same. */
static size_t head_of(char *out, const char *type, const char *framing) {
    static char date[40];
    static time_t told;
    static unsigned long long answers;
    time_t now = time(NULL);
    if (now != told) {
        struct tm parts;
        gmtime_r(&now, &parts);
        strftime(date, sizeof date, "%a, %d %b %Y %H:%M:%S GMT", &parts);
        told = now;
    }
    return (size_t)snprintf(out, HEAD_ROOM,
                            "HTTP/1.1 200 OK\r\ndate: %s\r\ncontent-type: %s\r\nx-request-id: %016llx\r\n%s\r\n\r\n",
                            date, type, ++answers, framing);
}

static int answer(Connection *c, const char *type, const char *body, size_t size) {
    char head[HEAD_ROOM], length[40];
    snprintf(length, sizeof length, "content-length: %zu", size);
    size_t n = head_of(head, type, length);
    if (size + n > 65536) return send_all(c, head, n) || send_all(c, body, size) ? -1 : 0;
    char whole[65536]; /* one write: one packet, one wake-up of the proxy */
    memcpy(whole, head, n);
    memcpy(whole + n, body, size);
    return send_all(c, whole, n + size);
}

/* ---- what is answered --------------------------------------------------------------------------------------- */

#define CHUNK_HEAD \
    "data: {\"id\":\"chatcmpl-9f1c2b3a4d5e6f70\",\"object\":\"chat.completion.chunk\",\"created\":1763770000," \
    "\"model\":\"mock-model\","

static size_t stream_head(char *out) {
    return head_of(out, "text/event-stream; charset=utf-8", "cache-control: no-cache\r\ntransfer-encoding: chunked");
}

static size_t frame(char *out, const char *event) {
    return (size_t)sprintf(out, "%zx\r\n%s\r\n", strlen(event), event);
}

static size_t content_chunk(char *out, int number) {
    char event[CHUNK_ROOM - 16];
    snprintf(event, sizeof event,
             CHUNK_HEAD "\"system_fingerprint\":null,\"choices\":[{\"index\":0,\"delta\":{%s\"content\":\"@%019lld\"},"
                        "\"logprobs\":null,\"finish_reason\":null}]}\n\n",
             number == 0 ? "\"role\":\"assistant\"," : "", (long long)now_ns());
    return frame(out, event);
}

static size_t closing_chunks(char *out, int chunks) {
    char usage[CHUNK_ROOM];
    snprintf(usage, sizeof usage,
             CHUNK_HEAD "\"choices\":[],\"usage\":{\"prompt_tokens\":300,\"completion_tokens\":%d,\"total_tokens\":%d}}\n\n",
             chunks, 300 + chunks);
    size_t n = frame(out, CHUNK_HEAD "\"choices\":[{\"index\":0,\"delta\":{},\"logprobs\":null,\"finish_reason\":\"stop\"}]}\n\n");
    n += frame(out + n, usage);
    n += frame(out + n, "data: [DONE]\n\n");
    n += (size_t)sprintf(out + n, "0\r\n\r\n");
    return n;
}

static int answer_completion(Connection *c) {
    static char body[4096];
    static size_t size;
    if (!size) {
        char text[1024] = "";
        for (int i = 0; i < 14; i++) strcat(text, "The quick brown fox jumps over the lazy dog near the river bank. ");
        size = (size_t)sprintf(
            body,
            "{\"id\":\"chatcmpl-9f1c2b3a4d5e6f70\",\"object\":\"chat.completion\",\"created\":1763770000,"
            "\"model\":\"mock-model\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"%s\","
            "\"refusal\":null},\"logprobs\":null,\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":300,"
            "\"completion_tokens\":190,\"total_tokens\":490},\"system_fingerprint\":null}",
            text);
    }
    return answer(c, "application/json", body, size);
}

static int send_burst(Connection *c) {
    static char whole[HEAD_ROOM + (MAX_BURST + 8) * CHUNK_ROOM];
    size_t n = stream_head(whole);
    for (int k = 0; k < c->chunks; k++) n += content_chunk(whole + n, k);
    n += closing_chunks(whole + n, c->chunks);
    counts.chunks += c->chunks;
    counts.streams_finished++;
    return send_all(c, whole, n);
}

/* Sends the chunk that is due and books the next one. */
static int stream_step(Connection *c) {
    char out[4 * CHUNK_ROOM];
    int last = c->chunk == c->chunks;
    size_t n = last ? closing_chunks(out, c->chunks) : content_chunk(out, c->chunk);
    if (send_all(c, out, n) < 0) return -1;
    if (last) {
        schedule_remove(c);
        c->streaming = 0;
        counts.streams_finished++;
        return 0;
    }
    counts.chunks++;
    c->chunk++;
    c->due_ns += c->interval_ns;
    settle(c->place);
    return 0;
}

static int start_stream(Connection *c) {
    counts.streams++;
    if (c->interval_ns == 0) return send_burst(c);
    char head[HEAD_ROOM];
    if (send_all(c, head, stream_head(head)) < 0) return -1;
    c->streaming = 1;
    c->chunk = 0;
    c->due_ns = now_ns();
    schedule_add(c);
    return stream_step(c);
}

static int wants_stream(const char *body, size_t size) {
    const char *end = body + size;
    for (const char *p = body; (p = memmem(p, (size_t)(end - p), "\"stream\"", 8));) {
        p += 8;
        while (p < end && (*p == ' ' || *p == ':' || *p == '\n' || *p == '\t')) p++;
        if (p < end && *p == 't') return 1;
    }
    return 0;
}

static int answer_post(Connection *c, const char *body, size_t size) {
    counts.requests++;
    free(last_body);
    last_body = malloc(size + 1); /* + 1: a terminator for the number parser below */
    memcpy(last_body, body, size);
    last_body[size] = 0;
    last_body_size = size;
    c->chunks = DEFAULT_CHUNKS;
    c->interval_ns = 0;
    const char *tag = memmem(last_body, size, "pace-", 5);
    if (tag) {
        char *rest;
        c->interval_ns = strtoll(tag + 5, &rest, 10) * 1000;
        if (*rest == '-') c->chunks = atoi(rest + 1);
        if (c->interval_ns == 0 && c->chunks > MAX_BURST) c->chunks = MAX_BURST;
    }
    return wants_stream(last_body, size) ? start_stream(c) : answer_completion(c);
}

static int answer_get(Connection *c) {
    char body[512];
    int n;
    if (!strncmp(c->in, "GET /last-body ", 15))
        return answer(c, "application/octet-stream", last_body ? last_body : "", last_body_size);
    if (!strncmp(c->in, "GET /counts ", 12))
        n = snprintf(body, sizeof body,
                     "{\"requests\":%ld,\"streams\":%ld,\"streams_finished\":%ld,\"streams_cut\":%ld,\"chunks\":%ld,"
                     "\"connections_open\":%ld,\"connections_total\":%ld}",
                     counts.requests, counts.streams, counts.streams_finished, counts.streams_cut, counts.chunks,
                     counts.connections_open, counts.connections_total);
    else
        n = snprintf(body, sizeof body,
                     "{\"object\":\"list\",\"status\":\"ok\",\"model_path\":\"mock-model\",\"is_generation\":true,"
                     "\"data\":[{\"id\":\"mock-model\",\"object\":\"model\",\"created\":1,\"owned_by\":\"mock\"}]}");
    return answer(c, "application/json", body, (size_t)n);
}

/* ---- requests ----------------------------------------------------------------------------------------------- */

/* The value of a header, or NULL. `end` is where the head ends. */
static const char *header(const char *head, const char *end, const char *name) {
    size_t n = strlen(name);
    for (const char *line = head; line < end;) {
        const char *next = memmem(line, (size_t)(end - line), "\r\n", 2);
        if (!next) next = end;
        if ((size_t)(next - line) > n && line[n] == ':' && !strncasecmp(line, name, n)) return line + n + 1;
        line = next + 2;
    }
    return NULL;
}

/* Joins a chunked body in place. Returns how many bytes it took on the wire, 0 when more are to come. */
static size_t join_chunks(char *body, size_t size, size_t *joined) {
    size_t from = 0, to = 0;
    for (int pass = 0; pass < 2; pass++, from = 0) { /* first only measure: an incomplete body must stay as it is */
        to = 0;
        for (;;) {
            char *line_end = memmem(body + from, size - from, "\r\n", 2);
            if (!line_end) return 0;
            size_t n = strtoul(body + from, NULL, 16);
            from = (size_t)(line_end - body) + 2;
            if (from + n + 2 > size) return 0;
            if (pass && n) memmove(body + to, body + from, n);
            to += n;
            from += n + 2;
            if (n == 0) break;
        }
        if (pass) break;
    }
    *joined = to;
    return from;
}

/* Answers every complete request that was received. Returns -1 when the connection is to be dropped. */
static int serve(Connection *c) {
    while (!c->streaming && c->used) {
        char *end = memmem(c->in, c->used, "\r\n\r\n", 4);
        if (!end) return 0;
        size_t head = (size_t)(end - c->in) + 4, available = c->used - head, taken, size;
        const char *value = header(c->in, end, "transfer-encoding");
        if (value) {
            taken = join_chunks(c->in + head, available, &size);
            if (!taken) return 0;
        } else {
            value = header(c->in, end, "content-length");
            size = taken = value ? strtoul(value, NULL, 10) : 0;
            if (available < taken) return 0;
        }
        int sent = c->in[0] == 'P' ? answer_post(c, c->in + head, size) : answer_get(c);
        if (sent < 0) return -1;
        c->used -= head + taken;
        memmove(c->in, c->in + head + taken, c->used);
    }
    return 0;
}

static void receive(Connection *c) {
    if (c->room - c->used < 4096) {
        c->room *= 2;
        c->in = realloc(c->in, c->room);
    }
    ssize_t n = recv(c->fd, c->in + c->used, c->room - c->used, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (n <= 0) {
        drop(c);
        return;
    }
    c->used += (size_t)n;
    if (serve(c) < 0) drop(c);
}

static void accept_all(int listener, int epoll) {
    for (;;) {
        int one = 1, fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
        if (fd < 0) return;
        if (fd >= MAX_FDS) {
            close(fd);
            continue;
        }
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        Connection *c = calloc(1, sizeof *c);
        c->fd = fd;
        c->room = 8192;
        c->in = malloc(c->room);
        c->place = -1;
        connections[fd] = c;
        counts.connections_open++;
        counts.connections_total++;
        struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
        epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
    }
}

static void send_due(void) {
    int64_t t = now_ns();
    while (scheduled && schedule[0]->due_ns <= t) {
        Connection *c = schedule[0];
        if (stream_step(c) < 0 || (!c->streaming && serve(c) < 0)) drop(c);
    }
}

static int listen_on(int port) {
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(fd, (struct sockaddr *)&address, sizeof address) || listen(fd, 4096)) {
        perror("mock_upstream: bind");
        exit(1);
    }
    return fd;
}

int main(int count, char **words) {
    if (count != 2) {
        fprintf(stderr, "usage: mock_upstream PORT\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);

    int listener = listen_on(atoi(words[1])), epoll = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN, .data.fd = listener}, events[MAX_EVENTS];
    epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event);
    for (;;) {
        struct timespec wait, *timeout = NULL;
        if (scheduled) {
            int64_t left = schedule[0]->due_ns - now_ns();
            if (left < 0) left = 0;
            wait = (struct timespec){.tv_sec = left / 1000000000, .tv_nsec = left % 1000000000};
            timeout = &wait;
        }
        int n = epoll_pwait2(epoll, events, MAX_EVENTS, timeout, NULL);
        for (int i = 0; i < n; i++) {
            int fd = events[i].data.fd;
            if (fd == listener) accept_all(listener, epoll);
            else if (connections[fd]) receive(connections[fd]);
        }
        send_due();
    }
}
