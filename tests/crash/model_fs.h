// SPDX-License-Identifier: Apache-2.0
//
// A small filesystem over a Device, with the rules C1 to C4 of a commit, that
// writes with the kernel's format code. It can break each of the rules.
#ifndef DAXSNAP_TESTS_CRASH_MODEL_FS_H_
#define DAXSNAP_TESTS_CRASH_MODEL_FS_H_

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "tests/crash/device.h"
#include "tests/crash/tree_state.h"
#include "tests/unit/format/recovery.h"

namespace daxsnap::crash {

// One way each to get the protocol wrong.
enum class Fault {
  kNone,
  kNoDataFlush,
  kNoExtentsFlush,
  kNoSegmentFlush,
  kNoNodeFlush,
  kNoXattrsFlush,
  kNoSumsFlush,
  kNoInodesFlush,
  kNoIndexFlush,
  kNoRootFlush,
  kOnlyFirstLineFlush,    // of each page
  kFlushBeforeLastStore,  // of each metadata page
  kNoFenceBeforeRoot,
  kNoFenceAfterRoot,
  kOverwriteInPlace,  // of a page that the last commit has
  kReuseDataBeforeCommit,
  kReuseMetadataBeforeCommit,
  kWriteRulingSlot,
  kSameGeneration,
  kNoNthFlush,        // of a commit
  kRootBeforeInodes,  // the last leaf is written after the root
  kNoRetire,          // the older root stays
  kNoRetireFlush,
  kNoFenceAfterRetire,
  kRetireBeforeRoot,  // the older root goes before the newer one is durable
  kNoRetireAtMount,   // it stays if the power went in between
  kStaleSums,         // what a table is not told to be of an earlier commit
};

struct Mistake {
  Fault fault = Fault::kNone;
  int nth = 0;  // kNoNthFlush: which, from 0
};

inline constexpr uint8_t kUuid[16] = {0xc7, 0xa5, 0x40};
inline constexpr uint64_t kMaxInode = 20;  // three leaves
inline constexpr uint64_t kMaxFilePages = 12;
// Few, so that ropes of so short files have nodes.
inline constexpr size_t kSegmentFill = 6;
inline constexpr size_t kNodeFill = 2;

// Operations return whether they were possible. Not thread safe.
class ModelFs {
 public:
  // Takes over the device; `mistake` is how it will get the protocol wrong. The
  // pool is or will be of that version of the format.
  ModelFs(Device* device, const Mistake& mistake, uint32_t version);
  ModelFs(const ModelFs&) = delete;
  ModelFs& operator=(const ModelFs&) = delete;

  // A new pool, durable.
  void Format();
  // After a restart: what a recovery found.
  void Mount(const format::Recovery& recovery);

  // 0 if no inode number is free or the name is taken.
  uint64_t Create(uint64_t parent, const std::string& name, uint32_t mode);
  bool Write(uint64_t ino, uint64_t file_page, Tag tag);
  bool Truncate(uint64_t ino, uint64_t pages);
  // Makes the target's pages those of the source, shared.
  bool Clone(uint64_t from, uint64_t to);
  // Version 2: extended attributes, more than fit into a record. Made from
  // `tag`.
  bool SetXattrs(uint64_t ino, Tag tag);
  bool Unlink(uint64_t ino);
  // Over a file of that name, if there is one.
  bool Rename(uint64_t ino, uint64_t parent, const std::string& name);
  bool Commit();

  const TreeState& now() const { return now_; }
  // What must be there after a crash now.
  const TreeState& durable() const { return durable_; }
  // A commit is writing its root: this may be there instead.
  const std::optional<TreeState>& pending() const { return pending_; }

 private:
  struct Node {
    std::map<uint64_t, uint64_t> pages;  // device page, by page of the file
    bool changed = false;                // since the last commit
    // Its file tree and attributes on media:
    uint64_t top = 0;
    uint32_t height = 0;
    uint64_t nr_runs = 0;
    uint64_t xattr_page = 0;
    std::vector<uint64_t> meta;
  };
  struct Sink;
  struct Plan;

  uint64_t AllocatePage();
  void FreePage(uint64_t page);
  void DropData(uint64_t page);
  bool Named(uint64_t parent, const std::string& name, uint64_t* ino) const;
  bool Empty(uint64_t dir) const;
  void Remove(uint64_t ino);
  void Touch(uint64_t ino);

  void LoadRecords(uint64_t page, const format::Recovery& recovery);
  bool WriteFile(Plan* plan, uint64_t ino);
  bool WriteExtents(Plan* plan, uint64_t ino);
  bool WriteRope(Plan* plan, uint64_t ino);
  bool WriteXattrs(Plan* plan, uint64_t ino);
  bool WriteInodes(Plan* plan, uint64_t leaf);
  bool WriteTable(Plan* plan);
  bool WriteSums(Plan* plan);
  void KeepSums(Plan* plan);
  void FlushData();
  void Flush(const void* addr, size_t len);
  bool WriteTree(Plan* plan);
  void Publish(Plan* plan);
  void Finish(Plan* plan);

  Device* device_;
  const Fault fault_;
  const int nth_;
  const uint32_t version_;
  int flushes_ = 0;  // asked for in this commit
  TreeState now_;
  TreeState durable_;
  std::optional<TreeState> pending_;
  std::map<uint64_t, Node> nodes_;
  std::map<uint64_t, uint64_t> leaves_;  // page of a leaf of the inode table
  std::vector<uint64_t> table_;          // its index pages
  std::vector<uint64_t> sums_;           // all pages of the table of checksums
  kmemfs_root_info root_ = {};           // that rules
  std::set<uint64_t> changed_leaves_;
  std::vector<uint64_t> free_;      // the last one is taken next
  std::map<uint64_t, int> owners_;  // of data pages
  std::set<uint64_t> committed_;    // data pages of the last commit
  std::set<uint64_t> unflushed_;    // data pages written since
  std::vector<uint64_t> dropped_;   // data pages to free after the commit
  uint64_t generation_ = 0;
  unsigned int slot_ = 0;  // the one that rules
};

}  // namespace daxsnap::crash

#endif  // DAXSNAP_TESTS_CRASH_MODEL_FS_H_
