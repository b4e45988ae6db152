// SPDX-License-Identifier: Apache-2.0
#include "snapd/ops/deletion.h"

#include "daxsnap/v1/manifest.pb.h"

namespace daxsnap {

absl::Status Deletion::Run(const std::string& name) {
  if (absl::Status claimed = ClaimName(name); !claimed.ok()) return claimed;
  if (!caller_.is_root()) {
    auto manifest = parts_.catalog->Read(name);
    if (!manifest.ok()) return manifest.status();
    absl::Status allowed =
        CheckSnapshotAccess(caller_, manifest->snapshot().owner_uid(), name);
    if (!allowed.ok()) return allowed;
  }
  if (absl::Status gone = parts_.catalog->Delete(name); !gone.ok()) {
    return gone;
  }
  Audit("delete", "deleted", /*pid=*/0);
  return absl::OkStatus();
}

}  // namespace daxsnap
