// SPDX-License-Identifier: Apache-2.0
#ifndef DAXSNAP_HOST_POOL_INFO_H_
#define DAXSNAP_HOST_POOL_INFO_H_

#include <linux/kmemfs.h>

#include "daxsnap/v1/pool.pb.h"

namespace daxsnap::pool {

// What the kernel says of the kmemfs that `fd` is on. False, and errno.
bool ReadInfo(int fd, kmemfs_info* info);

// The same as the API puts it: all but path, device, persistence and the number
// of snapshots, which the kernel does not know.
v1::Pool ToProto(const kmemfs_info& info);

}  // namespace daxsnap::pool

#endif  // DAXSNAP_HOST_POOL_INFO_H_
