// SPDX-License-Identifier: Apache-2.0
//
// The pool: the directory that holds all snapshots, on kmemfs or on any other
// file system. Layout:
//
//   snapshots/NAME/{manifest.pb, images/, criu-dump.log}
//   staging/UUID/           what is being made or removed; emptied at start
//   staging/UUID.operation  who makes it, see operation.proto
#ifndef DAXSNAP_SNAPD_STORE_POOL_H_
#define DAXSNAP_SNAPD_STORE_POOL_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/cancellation.h"
#include "base/unique_fd.h"
#include "daxsnap/v1/pool.pb.h"
#include "host/pool/checksums.h"

namespace daxsnap {

// Who promises that the pool's memory keeps what is stored there.
enum class Persistence {
  kUnknown,      // a plain directory: not our business
  kPromised,     // the firmware, or the host of this machine
  kNotPromised,  // nobody
};

// An open pool. Thread-safe.
class Pool {
 public:
  // Opens `path`, makes the layout if it is not there, and locks the pool
  // against another snapd. FAILED_PRECONDITION, POOL_MISSING if that fails, or
  // if what is there was not made by a snapd. One that is read-only may lack
  // the layout.
  static absl::StatusOr<std::unique_ptr<Pool>> Open(const std::string& path);

  virtual ~Pool() = default;
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  const std::string& path() const { return path_; }
  // DAX device, "dax0.0"; empty on a plain directory.
  const std::string& device() const { return device_; }
  // True: pages are taken by reference. False: everything is copied.
  bool is_kmemfs() const { return is_kmemfs_; }
  int snapshots() const { return snapshots_.get(); }
  int staging() const { return staging_.get(); }

  // Makes everything written before the call durable. UNAVAILABLE,
  // COMMIT_FAILED if that fails; then nothing is known to be durable.
  virtual absl::Status Commit();

  // The state now, without the number of snapshots. UNAVAILABLE, POOL_MISSING
  // if it cannot be had.
  absl::StatusOr<v1::Pool> Info() const;

  // Whether it can be changed. FAILED_PRECONDITION, POOL_READ_ONLY, with what
  // to do, if not; OK also if that cannot be told.
  virtual absl::Status CheckWritable() const;

  // Whether its tree does not hold, so that files may be missing; false also if
  // that cannot be told.
  bool IsDamaged() const;

  virtual Persistence persistence() const { return persistence_; }

  // As pool::CheckRange(), of a file of this pool.
  virtual absl::StatusOr<pool::RangeCheck> CheckRange(int file, uint64_t offset,
                                                      uint64_t length) const;

  // Makes the checksums that the pool lacks, and has them on the device. Takes
  // as long as reading all that has none; CANCELLED. FAILED_PRECONDITION,
  // CHECKSUMS_MISSING if this pool has none; NO_SPACE; COMMIT_FAILED.
  virtual absl::Status MakeChecksums(const Cancellation& cancellation) const;

  // Why nothing in this pool ever has a checksum, if nothing has.
  std::string WhyNoChecksums() const;

 protected:
  // What is open and locked, for Open and for tests that replace Commit.
  struct Handles {
    std::string path;
    std::string device;
    bool is_kmemfs = false;
    Persistence persistence = Persistence::kUnknown;
    UniqueFd root;
    UniqueFd snapshots;
    UniqueFd staging;
  };
  static absl::StatusOr<Handles> OpenHandles(const std::string& path);
  explicit Pool(Handles handles);

 private:
  absl::Status CommitFailed(const std::string& what, int error) const;

  std::string path_;
  std::string device_;
  bool is_kmemfs_;
  Persistence persistence_;
  UniqueFd root_;  // holds the lock
  UniqueFd snapshots_;
  UniqueFd staging_;
};

}  // namespace daxsnap

#endif  // DAXSNAP_SNAPD_STORE_POOL_H_
