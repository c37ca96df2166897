// Faults that the operating system raises in a process.
#pragma once

#ifdef __cplusplus
extern "C" {
#endif

/// Installs a SIGBUS handler: a process that reads a mapped file beyond its end (the file was truncated, or its disk
/// fails) exits with status 1 and one line on standard error that names the file. For programs, not libraries.
void ct_report_truncated_files(void);

#ifdef __cplusplus
}
#endif
