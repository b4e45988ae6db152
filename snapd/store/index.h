// SPDX-License-Identifier: Apache-2.0
//
// What lists say of snapshots, in memory. The directories stay the only state:
// an entry counts as long as its manifest is the file that was read, so whoever
// changes something in the pool, by whatever way, is believed at once.
#ifndef DAXSNAP_SNAPD_STORE_INDEX_H_
#define DAXSNAP_SNAPD_STORE_INDEX_H_

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace daxsnap {

namespace v1 {
class Snapshot;
}

// Thread-safe.
class Index {
 public:
  using Names = std::shared_ptr<const std::vector<std::string>>;
  using Entry = std::shared_ptr<const v1::Snapshot>;

  // Which state of a file or directory that is; any change makes another.
  struct Mark {
    uint64_t device = 0;
    uint64_t inode = 0;
    uint64_t size = 0;
    absl::Time modified;
    absl::Time changed;
    friend bool operator==(const Mark&, const Mark&) = default;
  };

  // `snapshots` stays open as long as this lives. File systems take times from
  // clocks that tick: what was changed within `settle` before it was read may
  // be changed again and bear the same mark, and is not kept.
  Index(int snapshots, absl::Duration settle)
      : snapshots_(snapshots), settle_(settle) {}

  // What is in the directory, in bytewise order. Errors of ListDirectory().
  absl::StatusOr<Names> List();

  // The mark of the manifest of that snapshot; nullopt if it cannot be told,
  // and then nothing is kept.
  std::optional<Mark> MarkOf(const std::string& name) const;

  // What was kept of the snapshot under that mark; null if nothing was.
  Entry Find(const std::string& name, const Mark& mark) const;

  // Keeps what was read after `mark` was taken.
  void Keep(const std::string& name, const Mark& mark, Entry entry);

  // Gives back the memory of what is gone.
  void Drop(const std::string& name);

 private:
  bool Settled(const Mark& mark) const;

  struct Kept {
    Mark mark;
    Entry entry;
  };

  const int snapshots_;
  const absl::Duration settle_;
  mutable std::mutex mutex_;
  Mark names_mark_;                      // guarded by mutex_
  Names names_;                          // guarded by mutex_; null: not kept
  std::map<std::string, Kept> entries_;  // guarded by mutex_
};

}  // namespace daxsnap

#endif  // DAXSNAP_SNAPD_STORE_INDEX_H_
