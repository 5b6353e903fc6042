/*
 * load: a bounded HTTP/1.1 load generator for chat completions, which checks every answer.
 *
 *   load --port P --body FILE [--connections N] [--seconds S] [--warm S] [--rate R] [--stream] [--chunks N]
 *        [--phrases N] [--fresh] [--hold] [--ramp S] [--key KEY] [--header 'k: v']... [--path PATH]
 *
 * The head is the one that the official OpenAI client for Python sends. --fresh: each request has an `x-request-id` and
 * a `traceparent` of its own besides, so that no two heads are alike.
 * Closed loop: each connection sends its next request when the answer is complete. --rate makes it an open loop: requests
 * are due at fixed times and latency counts from the due time, so that a slow proxy cannot slow down its own examiner.
 * --hold: one request per connection, then the streams are held open until the time is over or SIGTERM comes.
 *
 * A request is good if its status is 200 and, with --stream, exactly --chunks stamped chunks and a [DONE] arrived, or
 * with --phrases, the whole body held the mock upstream's phrase as often as that. Figures are printed as one JSON
 * object. Times are milliseconds, and only of requests begun after --warm; `completed` and `chunks_all` count all of
 * them, for the CPU per request.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { STAMP_DIGITS = 19, HEAD_ROOM = 8192, MAX_EVENTS = 512, MAX_BODY = 1 << 20 };
static const int64_t SECOND_NS = 1000000000, GRACE_S = 10;

/* ---- options and results ------------------------------------------------------------------------------------ */

static struct {
    int port, connections, stream, chunks, phrases, fresh, hold;
    double seconds, warm, rate, ramp;
    const char *body, *key, *path;
    char headers[4096];
} want = {.connections = 1, .chunks = 64, .seconds = 5, .key = "sk-test", .path = "/v1/chat/completions"};

typedef struct {
    int64_t *at;
    long n, room;
} Times;

static Times latencies, first_tokens, travels; /* of requests, of first chunks, of chunks since their stamp */
static Times gaps;                             /* the largest of each good stream, between two of its chunks */
static struct {
    long ok, errors, short_streams, dropped, completed, chunks, chunks_all, status[600];
} got;

static int64_t measure_from, stop_at;
static volatile sig_atomic_t told_to_stop;
static char *request, *request_id, *trace_id; /* the latter two point into it, where --fresh writes */
static size_t request_size;
static int poller;

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * SECOND_NS + t.tv_nsec;
}

static void keep(Times *times, int64_t t) {
    if (times->n == times->room) {
        times->room = times->room ? times->room * 2 : 65536;
        times->at = realloc(times->at, (size_t)times->room * sizeof *times->at);
    }
    times->at[times->n++] = t;
}

static int by_size(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static void print_times(const char *name, Times *times) {
    static const struct {
        const char *name;
        double share;
    } marks[] = {{"p50", .5}, {"p90", .9}, {"p99", .99}, {"max", 1}};
    qsort(times->at, (size_t)times->n, sizeof *times->at, by_size);
    printf(",\"%s\":{\"n\":%ld", name, times->n);
    for (size_t i = 0; i < sizeof marks / sizeof *marks && times->n; i++)
        printf(",\"%s\":%.4f", marks[i].name, (double)times->at[(long)(marks[i].share * (double)(times->n - 1) + .5)] / 1e6);
    printf("}");
}

/* ---- one connection ----------------------------------------------------------------------------------------- */

enum State { IDLE, BUSY, REFUSED };
enum Part { CHUNK_SIZE, CHUNK_DATA, CHUNK_END, LAST_LINE };

typedef struct {
    int fd;
    enum State state;
    int64_t begun;
    char head[HEAD_ROOM];
    size_t head_used;
    int head_done;
    int chunked;
    long left;              /* of a body with content-length */
    enum Part part;         /* of a chunked body */
    long chunk_left;
    int stamp_digits;       /* digits read since '@', -1 outside a stamp */
    int64_t stamp;
    int chunks;             /* stamps seen in this answer */
    int64_t last, gap;      /* when the last one came, and the largest gap so far */
    int done, done_matched; /* [DONE] seen; how much of it has matched */
    int packed;             /* compressed, as the client allows: LiteLLM does it, and what is in it is not read */
    int phrases, matched;   /* phrases seen in a whole body; how much of the next one has matched */
} Connection;

static void hang_up(Connection *c) {
    if (c->fd >= 0) close(c->fd);
    c->fd = -1;
    if (c->state != REFUSED) c->state = IDLE;
}

static void fail(Connection *c) {
    if (c->state == BUSY) got.errors++;
    hang_up(c);
}

static int dial(Connection *c) {
    int one = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)want.port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address)) {
        if (fd >= 0) close(fd);
        return -1;
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
    epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event);
    c->fd = fd;
    return 0;
}

/* Writes `digits` hexadecimal digits: no number comes twice in a run, and none is like its neighbour. */
static void write_id(char *to, int digits) {
    static uint64_t seed;
    if (!seed) seed = (uint64_t)now_ns();
    for (int i = 0; i < digits; i += 16) {
        char block[17];
        uint64_t z = seed += 0x9e3779b97f4a7c15u; /* splitmix64 */
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
        sprintf(block, "%016llx", (unsigned long long)(z ^ (z >> 31)));
        memcpy(to + i, block, 16);
    }
}

static void freshen_request(void) {
    write_id(request_id, 16);
    write_id(trace_id, 32);
    write_id(trace_id + 33, 16); /* behind the trace's id and a dash, the span's */
}

static void fire(Connection *c, int64_t due) {
    if (c->fd < 0 && dial(c)) {
        got.errors++;
        c->state = REFUSED;
        return;
    }
    int fd = c->fd;
    memset(c, 0, sizeof *c);
    c->fd = fd;
    c->state = BUSY;
    c->begun = due;
    c->stamp_digits = -1;
    if (want.fresh) freshen_request();
    for (size_t sent = 0; sent < request_size;) {
        ssize_t n = send(fd, request + sent, request_size - sent, MSG_NOSIGNAL);
        if (n < 0 && errno != EAGAIN && errno != EINTR) {
            fail(c);
            return;
        }
        if (n > 0) sent += (size_t)n;
    }
}

static void finish(Connection *c, int64_t t) {
    int status = c->head_used > 12 ? atoi(c->head + 9) : 0;
    if (status < 0 || status > 599) status = 0;
    got.status[status]++;
    got.completed++;
    c->state = IDLE;
    if (c->begun < measure_from) return;
    int complete = want.stream ? c->done && c->chunks == want.chunks
                               : c->packed || !want.phrases || c->phrases == want.phrases;
    if (status == 200 && complete) {
        got.ok++;
        keep(&latencies, t - c->begun);
        if (want.stream) keep(&gaps, c->gap);
    } else {
        got.errors++;
        if (status == 200) got.short_streams++;
    }
}

/* ---- what arrives ------------------------------------------------------------------------------------------- */

static void note_stamp(Connection *c, int64_t t) {
    got.chunks_all++;
    if (c->chunks && t - c->last > c->gap) c->gap = t - c->last;
    c->last = t;
    if (c->chunks++ == 0 && c->begun >= measure_from) keep(&first_tokens, t - c->begun);
    if (t >= measure_from) {
        got.chunks++;
        keep(&travels, t - c->stamp);
    }
}

/* Reads stamps and the closing [DONE] out of a stream that may be cut anywhere. */
static void read_events(Connection *c, const char *data, long size, int64_t t) {
    static const char mark[] = "[DONE]";
    for (const char *p = data, *end = data + size; p < end; p++) {
        if (c->stamp_digits >= 0) {
            if (*p < '0' || *p > '9') {
                c->stamp_digits = -1;
            } else {
                c->stamp = c->stamp * 10 + (*p - '0');
                if (++c->stamp_digits == STAMP_DIGITS) {
                    c->stamp_digits = -1;
                    note_stamp(c, t);
                }
            }
        } else if (*p == '@') {
            c->stamp_digits = 0;
            c->stamp = 0;
        } else if (*p == mark[c->done_matched]) {
            if (++c->done_matched == (int)sizeof mark - 1) {
                c->done = 1;
                c->done_matched = 0;
            }
        } else {
            c->done_matched = *p == '[';
        }
    }
}

/* Counts a phrase of the mock upstream's answer in a body that may be cut anywhere. */
static void read_phrases(Connection *c, const char *data, long size) {
    static const char phrase[] = "lazy dog"; /* its first letter does not come again, so a mismatch begins anew */
    for (const char *p = data, *end = data + size; p < end; p++) {
        c->matched = *p == phrase[c->matched] ? c->matched + 1 : *p == phrase[0];
        if (c->matched == (int)sizeof phrase - 1) {
            c->phrases++;
            c->matched = 0;
        }
    }
}

static void read_content(Connection *c, const char *data, long size, int64_t t) {
    if (want.stream) read_events(c, data, size, t);
    else if (want.phrases) read_phrases(c, data, size);
}

static int hex_digit(char ch) {
    if (ch >= '0' && ch <= '9') return ch - '0';
    ch |= 32;
    return ch >= 'a' && ch <= 'f' ? ch - 'a' + 10 : -1;
}

/* Returns 1 when the body is complete. */
static int read_body(Connection *c, const char *data, long size, int64_t t) {
    if (!c->chunked) {
        long take = size < c->left ? size : c->left;
        read_content(c, data, take, t);
        c->left -= take;
        return c->left == 0;
    }
    for (const char *p = data, *end = data + size; p < end;) {
        if (c->part == CHUNK_DATA) {
            long take = end - p < c->chunk_left ? end - p : c->chunk_left;
            read_content(c, p, take, t);
            p += take;
            if ((c->chunk_left -= take) == 0) c->part = CHUNK_END;
            continue;
        }
        char ch = *p++;
        if (c->part == LAST_LINE) {
            if (ch == '\n') return 1;
        } else if (c->part == CHUNK_END) {
            if (ch == '\n') c->part = CHUNK_SIZE;
        } else if (ch == '\n') {
            c->part = c->chunk_left ? CHUNK_DATA : LAST_LINE;
        } else if (hex_digit(ch) >= 0) {
            c->chunk_left = c->chunk_left * 16 + hex_digit(ch);
        }
    }
    return 0;
}

/* Collects the head. Returns how many of the bytes belonged to it; head_done tells whether it is complete. */
static long read_head(Connection *c, const char *data, long size) {
    size_t room = HEAD_ROOM - 1 - c->head_used, take = (size_t)size < room ? (size_t)size : room, before = c->head_used;
    memcpy(c->head + before, data, take);
    c->head_used += take;
    c->head[c->head_used] = 0;
    char *end = memmem(c->head, c->head_used, "\r\n\r\n", 4);
    if (!end) return (long)take;
    c->head_done = 1;
    *end = 0;
    char *length = strcasestr(c->head, "\r\ncontent-length:"), *coding = strcasestr(c->head, "\r\ntransfer-encoding:");
    c->chunked = coding != NULL;
    c->packed = strcasestr(c->head, "\r\ncontent-encoding:") != NULL;
    c->left = length ? atol(length + 17) : INT64_MAX;
    return end + 4 - c->head - (long)before;
}

static void receive(Connection *c) {
    static char data[1 << 18];
    ssize_t n = recv(c->fd, data, sizeof data, MSG_DONTWAIT);
    int64_t t = now_ns();
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (n <= 0) {
        if (c->state == BUSY && c->head_done && !c->chunked && c->left > INT64_MAX / 2) finish(c, t);
        fail(c);
        return;
    }
    if (c->state != BUSY) return;
    long used = 0;
    if (!c->head_done) {
        used = read_head(c, data, n);
        if (!c->head_done && c->head_used >= HEAD_ROOM - 1) fail(c);
        if (!c->head_done) return;
    }
    if ((!c->chunked && c->left == 0) || (n > used && read_body(c, data + used, n - used, t))) finish(c, t);
}

/* ---- the run ------------------------------------------------------------------------------------------------ */

static void prepare_request(void) {
    static char body[MAX_BODY];
    FILE *file = fopen(want.body, "rb");
    if (!file) {
        perror(want.body);
        exit(2);
    }
    size_t size = fread(body, 1, sizeof body, file);
    fclose(file);
    request = malloc(size + 16384);
    const char *fresh = want.fresh ? "x-request-id: req-0000000000000000\r\n"
                                     "traceparent: 00-00000000000000000000000000000000-0000000000000000-01\r\n"
                                   : "";
    request_size = (size_t)sprintf(
        request,
        "POST %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nAccept-Encoding: gzip, deflate\r\nConnection: keep-alive\r\n"
        "Authorization: Bearer %s\r\nAccept: application/json\r\nContent-Type: application/json\r\n"
        "User-Agent: OpenAI/Python 2.54.0\r\nX-Stainless-Lang: python\r\nX-Stainless-Package-Version: 2.54.0\r\n"
        "X-Stainless-OS: Linux\r\nX-Stainless-Arch: x64\r\nX-Stainless-Runtime: CPython\r\n"
        "X-Stainless-Runtime-Version: 3.11.7\r\nX-Stainless-Async: false\r\nx-stainless-retry-count: 0\r\n"
        "x-stainless-read-timeout: 600\r\n%s%sContent-Length: %zu\r\n\r\n",
        want.path, want.port, want.key, want.headers, fresh, size);
    if (want.fresh) {
        request_id = strstr(request, "x-request-id: req-") + 18;
        trace_id = strstr(request, "traceparent: 00-") + 16;
    }
    memcpy(request + request_size, body, size);
    request_size += size;
}

static void read_options(int count, char **words) {
    static const struct option known[] = {
        {"port", 1, 0, 'p'},  {"body", 1, 0, 'b'},   {"connections", 1, 0, 'c'}, {"seconds", 1, 0, 's'},
        {"warm", 1, 0, 'w'},  {"rate", 1, 0, 'r'},   {"stream", 0, 0, 'S'},      {"chunks", 1, 0, 'n'},
        {"hold", 0, 0, 'h'},  {"ramp", 1, 0, 'R'},   {"key", 1, 0, 'k'},         {"header", 1, 0, 'H'},
        {"path", 1, 0, 'P'},  {"fresh", 0, 0, 'f'},  {"phrases", 1, 0, 'l'},     {0, 0, 0, 0}};
    for (int option; (option = getopt_long(count, words, "", known, NULL)) != -1;) switch (option) {
            case 'p': want.port = atoi(optarg); break;
            case 'b': want.body = optarg; break;
            case 'c': want.connections = atoi(optarg); break;
            case 's': want.seconds = atof(optarg); break;
            case 'w': want.warm = atof(optarg); break;
            case 'r': want.rate = atof(optarg); break;
            case 'S': want.stream = 1; break;
            case 'n': want.chunks = atoi(optarg); break;
            case 'h': want.hold = 1; break;
            case 'f': want.fresh = 1; break;
            case 'l': want.phrases = atoi(optarg); break;
            case 'R': want.ramp = atof(optarg); break;
            case 'k': want.key = optarg; break;
            case 'P': want.path = optarg; break;
            case 'H':
                if (strlen(want.headers) + strlen(optarg) + 3 > sizeof want.headers) exit(2);
                strcat(strcat(want.headers, optarg), "\r\n");
                break;
            default: exit(2);
        }
    if (!want.port || !want.body) {
        fprintf(stderr, "usage: load --port P --body FILE [options], see the head of load.c\n");
        exit(2);
    }
}

/* Open loop: fires every request that has become due, on a connection that is free. */
static void fire_due(Connection *all, int64_t start, int64_t t, long *fired) {
    static int turn;
    double gap_ns = 1e9 / want.rate;
    for (int64_t due; (due = start + (int64_t)((double)*fired * gap_ns)) <= t; ++*fired) {
        int tries = 0;
        while (tries < want.connections && all[turn].state != IDLE) {
            turn = (turn + 1) % want.connections;
            tries++;
        }
        if (tries == want.connections) {
            got.dropped++;
            continue;
        }
        fire(&all[turn], due);
        turn = (turn + 1) % want.connections;
    }
}

/* Closed loop: starts connections, evenly over --ramp. */
static void start_some(Connection *all, int64_t start, int64_t t, int *started) {
    double share = want.ramp > 0 ? (double)(t - start) / (want.ramp * 1e9) : 1;
    int limit = share >= 1 ? want.connections : 1 + (int)(want.connections * share);
    while (*started < limit && *started < want.connections) fire(&all[(*started)++], now_ns());
}

static int count_busy(const Connection *all) {
    int busy = 0;
    for (int i = 0; i < want.connections; i++) busy += all[i].state == BUSY;
    return busy;
}

static void stop(int number) { told_to_stop = number; }

static int run(Connection *all) {
    int64_t start = now_ns();
    measure_from = start + (int64_t)(want.warm * 1e9);
    stop_at = measure_from + (int64_t)(want.seconds * 1e9);
    struct epoll_event events[MAX_EVENTS];
    long fired = 0;
    int started = 0, open_loop = want.rate > 0;
    for (;;) {
        int64_t t = now_ns();
        if (told_to_stop && t < stop_at) stop_at = t;
        if (t >= stop_at) {
            int busy = count_busy(all);
            if (!busy || want.hold || t > stop_at + GRACE_S * SECOND_NS) return busy;
        } else if (open_loop) {
            fire_due(all, start, t, &fired);
        } else {
            start_some(all, start, t, &started);
        }
        int64_t wait = 2000000;
        if (open_loop && t < stop_at) {
            int64_t next = start + (int64_t)((double)fired * 1e9 / want.rate) - now_ns();
            wait = next < 0 ? 0 : next < wait ? next : wait;
        }
        struct timespec timeout = {.tv_nsec = wait};
        int n = epoll_pwait2(poller, events, MAX_EVENTS, &timeout, NULL);
        for (int i = 0; i < n; i++) {
            Connection *c = events[i].data.ptr;
            receive(c);
            if (c->state == IDLE && !open_loop && !want.hold && now_ns() < stop_at) fire(c, now_ns());
        }
    }
}

int main(int count, char **words) {
    signal(SIGPIPE, SIG_IGN);
    signal(SIGTERM, stop);
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    read_options(count, words);
    prepare_request();
    poller = epoll_create1(0);
    Connection *all = calloc((size_t)want.connections, sizeof *all);
    for (int i = 0; i < want.connections; i++) all[i].fd = -1;

    int unfinished = run(all), live = 0;
    for (int i = 0; i < want.connections; i++) live += all[i].state == BUSY && all[i].chunks > 0;
    if (!want.hold) got.errors += unfinished;
    printf("{\"ok\":%ld,\"errors\":%ld,\"short_streams\":%ld,\"dropped\":%ld,\"completed\":%ld,\"chunks\":%ld,\"chunks_all\":%ld,"
           "\"live\":%d,\"per_s\":%.1f",
           got.ok, got.errors, got.short_streams, got.dropped, got.completed, got.chunks, got.chunks_all, live,
           (double)got.ok / want.seconds);
    print_times("latency_ms", &latencies);
    print_times("ttft_ms", &first_tokens);
    print_times("chunk_ms", &travels);
    print_times("gap_ms", &gaps);
    const char *separator = "";
    printf(",\"status\":{");
    for (int i = 0; i < 600; i++)
        if (got.status[i]) {
            printf("%s\"%d\":%ld", separator, i, got.status[i]);
            separator = ",";
        }
    printf("}}\n");
    return 0;
}
