// SPDX-License-Identifier: Apache-2.0
#ifndef DAXSNAP_SNAPD_OPS_RECOVERY_H_
#define DAXSNAP_SNAPD_OPS_RECOVERY_H_

#include <string>

#include "absl/status/status.h"
#include "host/task/proc.h"
#include "snapd/engine/engine.h"
#include "snapd/store/catalog.h"
#include "snapd/store/pool.h"

namespace daxsnap {

// Finishes or undoes what an earlier snapd was about to do, and empties staging
// of all but the records of restores whose tasks live. Nobody else may use the
// catalog meanwhile.
//
// A checkpoint that was killed between publication and its end is taken back if
// its task was to be killed and was not, be it there or ended by others, so
// that it never happened; otherwise the snapshot is complete, may be all that
// is left of the task, and stays. Tasks of a restore that CRIU has not let run
// are ended; what runs is left, and the record tells who asks again.
//
// The first error, with the rest of that operation left to the next call. Until
// then Catalog::Unfinished() has it.
absl::Status Recover(const ProcFs& proc, Engine* engine, Pool* pool,
                     Catalog* catalog);

// Tries one of them again. Nobody else may work on its name meanwhile.
absl::Status RecoverOne(const ProcFs& proc, Engine* engine, Catalog* catalog,
                        const std::string& uid);

}  // namespace daxsnap

#endif  // DAXSNAP_SNAPD_OPS_RECOVERY_H_
