// What the system does to a process from outside.
#pragma once

#ifdef __cplusplus
extern "C" {
#endif

/// From now on a process that reads a mapped file beyond its end (the file was truncated, or its disk fails) ends with the
/// status 1 and one line on standard error that names the file, in place of SIGBUS alone. For programs: it installs a handler.
void ct_report_truncated_files(void);

#ifdef __cplusplus
}
#endif
