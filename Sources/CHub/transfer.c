// libcurl by dlopen: its functions and option numbers are a stable ABI, so that neither its headers are needed at
// build time nor its libraries at start-up.
#include "chub.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef int (*setopt_function)(void *, int, ...);
typedef int (*getinfo_function)(void *, int, ...);

static struct {
    int (*global_init)(long);
    void *(*easy_init)(void);
    void (*easy_reset)(void *);
    void (*easy_cleanup)(void *);
    int (*easy_perform)(void *);
    const char *(*easy_strerror)(int);
    setopt_function setopt;
    getinfo_function getinfo;
    void *(*slist_append)(void *, const char *);
    void (*slist_free_all)(void *);
    const char *failure;
} curl;

enum {
    option_write_data = 10001,
    option_read_data = 10009,
    option_url = 10002,
    option_error_buffer = 10010,
    option_user_headers = 10023,
    option_header_data = 10029,
    option_method = 10036,
    option_progress_data = 10057,
    option_authorities = 10065,
    option_seek_data = 10168,
    option_write = 20011,
    option_read = 20012,
    option_header = 20079,
    option_seek = 20167,
    option_progress = 20219,
    option_stall_bytes = 19,
    option_stall_seconds = 20,
    option_no_progress = 43,
    option_no_body = 44,
    option_upload = 46,
    option_follow = 52,
    option_connect_timeout = 78,
    option_buffer_size = 98,
    option_no_signal = 99,
    option_protocols = 181,
    option_body_size = 30115,
    info_status = 0x200002,
    protocol_http = 1,
    protocol_https = 2,
};

static void load(void) {
    static const char *const names[] = {"libcurl.so.4", "libcurl-gnutls.so.4", "libcurl.4.dylib", "libcurl.so"};
    void *library = NULL;
    for (size_t i = 0; library == NULL && i < sizeof names / sizeof *names; i++)
        library = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) {
        curl.failure = "libcurl is not installed";
        return;
    }
    struct {
        void **place;
        const char *name;
    } const symbols[] = {
        {(void **)&curl.global_init, "curl_global_init"},   {(void **)&curl.easy_init, "curl_easy_init"},
        {(void **)&curl.easy_reset, "curl_easy_reset"},     {(void **)&curl.easy_cleanup, "curl_easy_cleanup"},
        {(void **)&curl.easy_perform, "curl_easy_perform"}, {(void **)&curl.easy_strerror, "curl_easy_strerror"},
        {(void **)&curl.setopt, "curl_easy_setopt"},        {(void **)&curl.getinfo, "curl_easy_getinfo"},
        {(void **)&curl.slist_append, "curl_slist_append"}, {(void **)&curl.slist_free_all, "curl_slist_free_all"},
    };
    for (size_t i = 0; i < sizeof symbols / sizeof *symbols; i++) {
        *symbols[i].place = dlsym(library, symbols[i].name);
        if (*symbols[i].place == NULL) {
            curl.failure = "libcurl lacks a function; it is damaged or very old";
            return;
        }
    }
    const long everything = 3;
    if (curl.global_init(everything) != 0) curl.failure = "libcurl can't be initialized";
}

const char *chub_load(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, load);
    return curl.failure;
}

struct chub_session {
    void *handle;
};

chub_session *chub_session_open(void) {
    if (chub_load() != NULL) return NULL;
    chub_session *session = malloc(sizeof *session);
    if (session == NULL) return NULL;
    session->handle = curl.easy_init();
    if (session->handle == NULL) {
        free(session);
        return NULL;
    }
    return session;
}

void chub_session_close(chub_session *session) {
    if (session == NULL) return;
    curl.easy_cleanup(session->handle);
    free(session);
}

static size_t receive_header(const char *bytes, size_t size, size_t count, void *data) {
    const chub_request *request = data;
    return request->on_header(bytes, size * count, request->context) == 0 ? size * count : 0;
}

static size_t receive_body(const char *bytes, size_t size, size_t count, void *data) {
    const chub_request *request = data;
    // For an empty part, 0 would mean success to libcurl.
    return request->on_body(bytes, size * count, request->context) == 0 ? size * count : (size_t)-1;
}

/// The body of a request, as far as it was sent.
typedef struct {
    const chub_request *request;
    int64_t offset;
} upload;

static size_t send_body(char *bytes, size_t size, size_t count, void *data) {
    upload *body = data;
    const size_t stop = 0x10000000;
    int64_t copied = body->request->on_read(bytes, size * count, body->offset, body->request->context);
    if (copied < 0) return stop;
    body->offset += copied;
    return (size_t)copied;
}

/// Sends the body anew from `offset`, as when a kept connection turns out to be closed.
static int seek_body(void *data, int64_t offset, int origin) {
    upload *body = data;
    const int done = 0, failed = 1;
    if (origin != SEEK_SET || offset < 0) return failed;
    body->offset = offset;
    return done;
}

static int tick(void *data, int64_t a, int64_t b, int64_t c, int64_t d) {
    (void)a, (void)b, (void)c, (void)d;
    const chub_request *request = data;
    return request->on_tick(request->context);
}

static chub_outcome outcome_of(int code) {
    switch (code) {
    case 0: return CHUB_OK;
    case 5: case 6: case 7: return CHUB_UNREACHABLE;
    case 23: case 42: return CHUB_STOPPED;
    case 35: case 51: case 53: case 54: case 58: case 59: case 60: case 66: case 77: case 83: case 90: case 91:
        return CHUB_INSECURE;
    case 8: case 16: case 18: case 28: case 52: case 55: case 56: case 61: case 92: return CHUB_CUT;
    default: return CHUB_FAILED;
    }
}

chub_result chub_perform(chub_session *session, const chub_request *request) {
    chub_result result = {.outcome = CHUB_FAILED};
    void *handle = session->handle;
    // Resets the options but keeps open connections.
    curl.easy_reset(handle);
    void *headers = NULL;
    for (int i = 0; i < request->header_count; i++) {
        void *longer = curl.slist_append(headers, request->headers[i]);
        if (longer == NULL) {
            curl.slist_free_all(headers);
            strcpy(result.message, "out of memory");
            return result;
        }
        headers = longer;
    }
    char message[256] = "";
    curl.setopt(handle, option_url, request->url);
    curl.setopt(handle, option_user_headers, headers);
    curl.setopt(handle, option_error_buffer, message);
    curl.setopt(handle, option_no_body, (long)(request->is_head != 0));
    curl.setopt(handle, option_follow, 0L);
    curl.setopt(handle, option_no_signal, 1L);
    curl.setopt(handle, option_buffer_size, 256L * 1024);
    curl.setopt(handle, option_connect_timeout, request->connect_timeout);
    curl.setopt(handle, option_stall_bytes, 1L);
    curl.setopt(handle, option_stall_seconds, request->stall_timeout);
    curl.setopt(handle, option_protocols, (long)(protocol_http | protocol_https));
    if (request->authorities != NULL) curl.setopt(handle, option_authorities, request->authorities);
    curl.setopt(handle, option_header, receive_header);
    curl.setopt(handle, option_header_data, request);
    curl.setopt(handle, option_write, receive_body);
    curl.setopt(handle, option_write_data, request);
    curl.setopt(handle, option_no_progress, 0L);
    curl.setopt(handle, option_progress, tick);
    curl.setopt(handle, option_progress_data, request);
    upload body = {.request = request};
    if (request->method != NULL) {
        curl.setopt(handle, option_upload, 1L);
        curl.setopt(handle, option_method, request->method);
        curl.setopt(handle, option_body_size, request->body_size);
        curl.setopt(handle, option_read, send_body);
        curl.setopt(handle, option_read_data, &body);
        curl.setopt(handle, option_seek, seek_body);
        curl.setopt(handle, option_seek_data, &body);
    }
    int code = curl.easy_perform(handle);
    curl.getinfo(handle, info_status, &result.status);
    result.outcome = outcome_of(code);
    strncpy(result.message, message[0] != 0 ? message : curl.easy_strerror(code), sizeof result.message - 1);
    curl.setopt(handle, option_error_buffer, NULL);
    curl.slist_free_all(headers);
    return result;
}
