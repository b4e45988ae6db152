// SPDX-License-Identifier: Apache-2.0
//
// Makes manifests of snapshots, and checks before a restore that what they say
// still holds.
#ifndef DAXSNAP_SNAPD_OPS_MANIFEST_H_
#define DAXSNAP_SNAPD_OPS_MANIFEST_H_

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "daxsnap/v1/manifest.pb.h"
#include "host/task/machine.h"
#include "host/task/proc.h"
#include "host/task/written_files.h"
#include "snapd/engine/criu_images.h"

namespace daxsnap {

// What a manifest is made of, besides the images.
struct ManifestInput {
  std::string name;
  std::string uid;
  std::string boot_id;
  std::string criu_version;
  absl::Time create_time;
  bool left_running = false;
  bool pool_is_kmemfs = false;
  std::string pool_uuid;
  int memory_node = -1;
  TaskInfo root;
  uid_t owner = 0;
  // What was known of the tasks of the tree, by PID.
  std::map<pid_t, TaskInfo> tasks;
  std::map<std::string, std::string> labels;
  // As of the freeze.
  std::map<std::string, WrittenFile> written_files;
  // From ListImages().
  std::map<std::string, uint64_t> image_sizes;
};

// Everything but times, page counts and the commit's generation. Stats the
// files that the images name and reads their build-ids; an error if one that is
// there cannot be read, as a later restore could not check it then.
absl::StatusOr<v1::Manifest> MakeManifest(const ManifestInput& input,
                                          const ImageSet& images);

// Adds what is known once CRIU has ended: times and page counts from the
// statistics in `directory` (snapshots/NAME), and the size of the images.
// `callback_us` is the time of CRIU's frozen time that was not CRIU's. What
// cannot be read stays zero and is logged.
void AddStatistics(int directory, uint64_t callback_us, v1::Manifest* manifest);

// FILE_CHANGED if a file that the tasks map or can write is gone or another one
// now, or has been written since; with FILES_POLICY_ACCEPT only if CRIU would
// refuse it, too. Files that were only appended to by the tasks may have grown.
// Another error if that cannot be told.
absl::Status CheckFiles(const v1::Manifest& manifest, v1::FilesPolicy policy);

// CPU_FEATURE_MISSING if this CPU lacks what that of the snapshot had.
absl::Status CheckCpu(const v1::Manifest& manifest, const CpuInfo& cpu);

// NODE_MISSING if one of the policies names a node that is not `there`, among
// those that have memory, or that was the pool's and is not any more:
// `pool_node` is the pool's now, -1 if it has none.
absl::Status CheckNodes(const v1::Manifest& manifest,
                        const std::set<ImagePolicy>& policies, uint64_t there,
                        int pool_node);

// PID_IN_USE if a PID or thread ID of the snapshot belongs to a task. Waits
// some seconds for tasks that have been killed to be gone.
absl::Status CheckPidsFree(const v1::Manifest& manifest, const ProcFs& proc);

// LINK_REMAPPED if a file whose name was removed had a second name, which the
// dump made or found, and that is gone too: used up by another restore.
absl::Status CheckRemappedLinks(const v1::Manifest& manifest);

// SNAPSHOT_DAMAGED if an image of snapshot `name` is missing or has another
// size than it had; SNAPSHOT_UNREADABLE if that cannot be told. OK if the
// snapshot is one of a version that kept no list.
absl::Status CheckImages(const v1::Manifest& manifest, const std::string& name,
                         int images);

// All PIDs and thread IDs of the snapshot.
std::vector<pid_t> PidsOf(const v1::Manifest& manifest);

}  // namespace daxsnap

#endif  // DAXSNAP_SNAPD_OPS_MANIFEST_H_
