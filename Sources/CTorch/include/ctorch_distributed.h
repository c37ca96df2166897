// Processes that train together: c10d's key-value store, its Gloo process group, and gradient buckets.
//
// The conventions are those of ctorch.h. A store and a group are used by one thread each.
#ifndef CTORCH_DISTRIBUTED_H
#define CTORCH_DISTRIBUTED_H

#include "ctorch.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct CTStore CTStore;
typedef struct CTProcessGroup CTProcessGroup;
typedef struct CTGradientBuckets CTGradientBuckets;
typedef struct CTPartition CTPartition;

/// Connects to the key-value store at host:port. The process that hosts it passes `is_host`, and may pass a listening
/// socket (else -1). Keys are prefixed, so that restarted jobs may share a store.
CTStore *ct_store_connect(const char *host, int port, bool is_host, int listening_socket, const char *prefix, int64_t timeout_ms);
/// Another connection to the same store, for another thread.
CTStore *ct_store_clone(const CTStore *);
/// The same connection, with another prefix before its own.
CTStore *ct_store_prefixed(const CTStore *, const char *prefix);
void ct_store_release(CTStore *);
int ct_store_set(CTStore *, const char *key, const void *bytes, size_t count);
/// Sets a key unless it exists.
int ct_store_set_once(CTStore *, const char *key, const char *text);
/// Adds to a counter, which is 0 at first; `sum` may be NULL.
int ct_store_add(CTStore *, const char *key, int64_t value, int64_t *sum);
/// Whether a key exists.
int ct_store_check(CTStore *, const char *key, bool *exists);
/// Waits up to `timeout_ms` for a key, and copies its value into a new buffer, which the caller frees.
int ct_store_get(CTStore *, const char *key, int64_t timeout_ms, void **bytes, size_t *count);

/// The address, as text, of this host's interface that leads to another host. `room` includes the final 0.
int ct_local_address(const char *host, char *address, size_t room);
/// A socket that listens at a free port of the loopback interface, without close-on-exec; -1 on failure.
int ct_listen_locally(int *port);

/// Connects all ranks, each of which listens at an address of its own (NULL: at the network interface `interface`).
CTProcessGroup *ct_group_join(CTStore *, int rank, int size, const char *address, const char *interface, int64_t timeout_ms);
/// Ends what a thread waits for in this group, now and in future, with an error. From any thread.
void ct_group_cancel(CTProcessGroup *, const char *message);
/// Whether an operation of the group has failed or was canceled.
bool ct_group_has_failed(const CTProcessGroup *);
/// In place: the sum over all ranks. The tensor is contiguous and on the CPU.
int ct_group_sum(CTProcessGroup *, CTTensor *);
/// In place: the values of `root`. The tensor is contiguous and on the CPU.
int ct_group_broadcast(CTProcessGroup *, CTTensor *, int root);
/// Disconnects, unless the group was canceled: a thread of it may then wait forever.
void ct_group_release(CTProcessGroup *);

/// Sums the gradients of parameters over all ranks. Gradients travel as fp32 in buckets of about `bucket_bytes`, the
/// last parameters first.
CTGradientBuckets *ct_gradients_make(CTProcessGroup *, CTTensor *const *parameters, int count, int64_t bucket_bytes);
/// Lets each bucket travel as soon as the coming backward pass has completed its gradients.
void ct_gradients_begin(CTGradientBuckets *);
/// Sends what was not sent, waits, and replaces the gradients by their sums. A parameter without a gradient at all ranks
/// keeps none. `scalars` are summed, too.
int ct_gradients_finish(CTGradientBuckets *, double *scalars, int scalar_count);
void ct_gradients_release(CTGradientBuckets *);

/// Keeps this rank's 1/N of the bytes of a tensor on the CPU, and releases the others. Until they are gathered, every
/// access to its values is an error; shape and dtype stay. All ranks gather the same tensors in the same order.
CTPartition *ct_partition_make(CTProcessGroup *, const CTTensor *);
/// Starts to gather the bytes, unless they are here or on their way.
int ct_partition_start(CTPartition *);
/// Starts if need be, and waits for the bytes.
int ct_partition_wait(CTPartition *);
/// Releases what other ranks hold.
void ct_partition_drop(CTPartition *);
/// Bytes of the tensor, and those that this rank keeps.
int64_t ct_partition_bytes(const CTPartition *);
int64_t ct_partition_own_bytes(const CTPartition *);
void ct_partition_release(CTPartition *);

/// Calls `run` in the backward pass when the gradient of a tensor that requires one is known, before the node that
/// computed the tensor runs; a status other than 0 is an error with the last message. `release` frees the context.
int ct_on_gradient(CTTensor *, int (*run)(void *), void (*release)(void *), void *context);

#ifdef __cplusplus
}
#endif

#endif
