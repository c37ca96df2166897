#ifndef CHUB_H
#define CHUB_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// Transfers by the system's libcurl, which is loaded at the first request, so that programs without requests start
// without it.

/// Loads libcurl. Returns NULL, or an error message.
const char *chub_load(void);

/// A persistent connection. Use it from one thread at a time.
typedef struct chub_session chub_session;
/// Returns NULL if libcurl can't be loaded or memory is short.
chub_session *chub_session_open(void);
void chub_session_close(chub_session *);

typedef struct {
    const char *url;
    /// Lines such as "Accept: */*".
    const char *const *headers;
    int header_count;
    /// Whether to request only the headers (HEAD).
    int is_head;
    /// The method of a request with a body, such as "POST"; NULL for GET and HEAD.
    const char *method;
    int64_t body_size;
    /// Copies up to `count` bytes of the body from `offset` on. Returns their number, or -1 to stop.
    int64_t (*on_read)(void *bytes, size_t count, int64_t offset, void *context);
    /// Timeouts in seconds: to connect, and for the next byte of a stalled connection.
    long connect_timeout, stall_timeout;
    /// CA certificate file, or NULL for the system's.
    const char *authorities;
    /// Each receives a part of the response and returns 0 to continue.
    int (*on_header)(const char *line, size_t count, void *context);
    int (*on_body)(const void *bytes, size_t count, void *context);
    /// Called several times a second.
    int (*on_tick)(void *context);
    void *context;
} chub_request;

typedef enum {
    CHUB_OK = 0,
    /// The host was not found or didn't answer.
    CHUB_UNREACHABLE,
    /// The connection was interrupted, stalled or sent invalid data.
    CHUB_CUT,
    /// No secure connection, for a reason that a retry doesn't change.
    CHUB_INSECURE,
    /// A callback requested to stop.
    CHUB_STOPPED,
    CHUB_FAILED,
} chub_outcome;

typedef struct {
    chub_outcome outcome;
    long status;
    char message[256];
} chub_result;

/// Sends one request; redirects are not followed.
chub_result chub_perform(chub_session *, const chub_request *);

// Checksums.

typedef struct {
    uint32_t state[8];
    uint64_t count;
    uint8_t rest[64];
} chub_digest;

void chub_sha256_begin(chub_digest *);
void chub_sha256_add(chub_digest *, const void *bytes, size_t count);
void chub_sha256_end(chub_digest *, uint8_t sum[32]);
void chub_sha1_begin(chub_digest *);
void chub_sha1_add(chub_digest *, const void *bytes, size_t count);
void chub_sha1_end(chub_digest *, uint8_t sum[20]);

#ifdef __cplusplus
}
#endif
#endif
