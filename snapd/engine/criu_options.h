// SPDX-License-Identifier: Apache-2.0
//
// Where the options of a request become CRIU's; nothing else names those.
#ifndef DAXSNAP_SNAPD_ENGINE_CRIU_OPTIONS_H_
#define DAXSNAP_SNAPD_ENGINE_CRIU_OPTIONS_H_

#include "daxsnap/internal/criu.pb.h"
#include "snapd/engine/engine.h"

namespace daxsnap {

inline constexpr char kCriuDumpLog[] = "criu-dump.log";
inline constexpr char kCriuRestoreLog[] = "criu-restore.log";

// What CRIU is asked for a dump, with messages up to `log_level` in
// kCriuDumpLog of the work directory.
internal::criu::Request ToCriu(const DumpRequest& request, int log_level);

// For a restore, with kCriuRestoreLog in the directory `work`.
internal::criu::Request ToCriu(const RestoreRequest& request, int work,
                               int log_level);

// For the version.
internal::criu::Request CriuVersionRequest();

}  // namespace daxsnap

#endif  // DAXSNAP_SNAPD_ENGINE_CRIU_OPTIONS_H_
