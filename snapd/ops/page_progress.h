// SPDX-License-Identifier: Apache-2.0
#ifndef DAXSNAP_SNAPD_OPS_PAGE_PROGRESS_H_
#define DAXSNAP_SNAPD_OPS_PAGE_PROGRESS_H_

#include <cstdint>
#include <vector>

#include "host/task/proc.h"

namespace daxsnap {

// About how many pages a dump of these tasks has: what they have in memory and
// in swap, but for files. What several share counts for each; what cannot be
// told counts as nothing.
uint64_t PagesToDump(const ProcFs& proc, const std::vector<TaskInfo>& tree);

// How many the images in that directory hold so far.
uint64_t PagesDumped(int images);

}  // namespace daxsnap

#endif  // DAXSNAP_SNAPD_OPS_PAGE_PROGRESS_H_
