// SPDX-License-Identifier: Apache-2.0
#ifndef DAXSNAP_CLIENT_SNAPCTL_SNAPSHOT_OUTPUT_H_
#define DAXSNAP_CLIENT_SNAPCTL_SNAPSHOT_OUTPUT_H_

#include <ostream>

#include "daxsnap/client.h"
#include "daxsnap/v1/pool.pb.h"
#include "daxsnap/v1/snapshot.pb.h"

namespace daxsnap::snapctl {

// What `checkpoint` prints: name, bytes by the way they were stored, times.
void PrintSummary(const v1::Snapshot& snapshot, std::ostream& out);

// What `checkpoint` says on standard error about what does not come back.
void PrintWarnings(const v1::Snapshot& snapshot, std::ostream& err);

// What `inspect` prints: all there is.
void PrintDetails(const v1::Snapshot& snapshot, std::ostream& out);

// What `ls` prints.
void PrintList(const client::Client::SnapshotList& list, std::ostream& out);

// What `pool show` prints.
void PrintPool(const v1::Pool& pool, std::ostream& out);

}  // namespace daxsnap::snapctl

#endif  // DAXSNAP_CLIENT_SNAPCTL_SNAPSHOT_OUTPUT_H_
