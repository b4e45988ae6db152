// SPDX-License-Identifier: Apache-2.0
//
// What lists say of snapshots, in memory. The directories stay the only state:
// an entry counts as long as its manifest is the file that was read, so whoever
// changes something in the pool, by whatever way, is believed at once.
#ifndef DAXSNAP_SNAPD_STORE_INDEX_H_
#define DAXSNAP_SNAPD_STORE_INDEX_H_

#include <sys/stat.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
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
  // How long some clock has run that nobody sets.
  using Clock = std::function<absl::Duration()>;

  // Which state of a file or directory that is; any change makes another.
  struct Mark {
    static Mark Of(const struct stat& info);
    friend bool operator==(const Mark&, const Mark&) = default;

    uint64_t device = 0;
    uint64_t inode = 0;
    // Where the size of a directory does not say how much is in it, this does.
    uint64_t links = 0;
    uint64_t size = 0;
    absl::Time modified;
    absl::Time changed;
  };

  // What is there now.
  struct Sight {
    // What was kept of it; null: read it.
    Entry entry;
    // Under which mark to keep what is read after this; nullopt: under none.
    std::optional<Mark> mark;
  };

  // CLOCK_MONOTONIC.
  static absl::Duration Monotonic();

  // `snapshots` stays open as long as this lives. File systems take times from
  // clocks that tick: what has just been changed may be changed again and bear
  // the same mark. So what is read is kept only if its mark was first seen
  // `settle` before. Those times may be of any clock, also one that was set
  // back since.
  Index(int snapshots, absl::Duration settle, Clock clock = Monotonic)
      : snapshots_(snapshots), settle_(settle), clock_(std::move(clock)) {}

  // What is in the directory, in bytewise order. Errors of ListDirectory().
  absl::StatusOr<Names> List();

  // Looks at the manifest of that snapshot.
  Sight Look(const std::string& name);

  // Keeps what was read after Look() has returned `mark`.
  void Keep(const std::string& name, const Mark& mark, Entry entry);

  // Gives back the memory of what is gone.
  void Drop(const std::string& name);

 private:
  // What bears a mark, and since when that is known.
  template <typename Content>
  struct Kept {
    Mark mark;
    absl::Duration since;
    Content content;  // null: not kept
  };

  // Whether what is read from now on cannot change and keep the mark. `now` is
  // later than the look that has found the mark.
  template <typename Content>
  bool Settled(const Mark& mark, absl::Duration now, Kept<Content>* kept) const;

  const int snapshots_;
  const absl::Duration settle_;
  const Clock clock_;
  std::mutex mutex_;
  Kept<Names> names_;                           // guarded by mutex_
  std::map<std::string, Kept<Entry>> entries_;  // guarded by mutex_
};

}  // namespace daxsnap

#endif  // DAXSNAP_SNAPD_STORE_INDEX_H_
