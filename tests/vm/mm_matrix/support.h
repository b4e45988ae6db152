// SPDX-License-Identifier: Apache-2.0
// What the mm tests share: memory on a chosen NUMA node, processes that do
// steps on command, captures, and the kernel's own books.
#ifndef DAXSNAP_TESTS_VM_MM_MATRIX_SUPPORT_H_
#define DAXSNAP_TESTS_VM_MM_MATRIX_SUPPORT_H_

#include <gtest/gtest.h>
#include <linux/kmemfs.h>
#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "base/unique_fd.h"

namespace daxsnap::vmtest {

inline constexpr size_t kPage = 4096;
inline constexpr size_t kMiB = size_t{1} << 20;

// The mounted kmemfs under test; main() sets it.
void SetMountPoint(std::string path);
const std::string& MountPoint();

// A private anonymous mapping, 2 MiB aligned, whose memory comes from a node as
// long as there is some, as that of a task under snapctl. Not touched. Without
// huge pages unless asked. Throws nothing; a failure aborts the test
// program with a message, as nothing can be tested without memory.
class Mapping {
 public:
  enum class Pages { kSmall, kHuge };
  Mapping(size_t bytes, int node, Pages pages = Pages::kSmall);
  Mapping(Mapping&&) = delete;
  ~Mapping();

  // From now on memory comes from that node or not at all.
  void Bind(int node);
  // As in the beginning, for memory that was mapped over it.
  void Prefer(int node);
  // From now on the kernel decides where memory comes from, and moves to.
  void Anywhere();

  char* data() const { return data_; }
  char* page(size_t i) const { return data_ + i * kPage; }
  size_t bytes() const { return bytes_; }
  size_t pages() const { return bytes_ / kPage; }

 private:
  void SetPolicy(int policy, int node);

  char* base_;
  size_t base_bytes_;
  char* data_;
  size_t bytes_;
};

// Content that follows from (seed, index of the page): written at the start,
// middle and end of each page.
void Fill(char* data, size_t bytes, uint64_t seed, size_t first_page = 0);
// Number of pages that do not hold it.
long CountBad(const char* data, size_t bytes, uint64_t seed,
              size_t first_page = 0);
// Number of pages that are not all zero.
long CountNonZero(const char* data, size_t bytes);

// The same, of a file, read in pieces that are neither aligned nor whole
// pages, so that nothing is installed by reference.
long CountBadInFile(int fd, size_t bytes, uint64_t seed, off_t offset = 0);
// A hash of the first `bytes` bytes of the file.
uint64_t HashFile(int fd, size_t bytes);

// A forked process that performs named steps on command. It sees memory as it
// was when it was made. The destructor kills and reaps it.
class Child {
 public:
  using Steps = std::map<std::string, std::function<long()>>;
  explicit Child(Steps steps);
  Child(Child&&) = delete;
  ~Child();

  // The step's result; a test failure and -1 if the child died.
  long Do(const std::string& step);
  // True if the child is killed by that signal in the step; false if it
  // survives or dies otherwise.
  bool DiesIn(const std::string& step, int signal);
  pid_t pid() const { return pid_; }
  int pidfd() const { return pidfd_.get(); }
  // Ends it in order; true if it exited with 0.
  bool Finish();

 private:
  [[noreturn]] void Serve(const Steps& steps, int commands, int results);
  // True if the step ended with a result.
  bool Send(const std::string& step, long* result);
  pid_t pid_;
  UniqueFd pidfd_, commands_, results_;
  std::vector<std::string> names_;
};

UniqueFd PidFd(pid_t pid);
UniqueFd SelfPidFd();

// Page frame numbers of the pages of a range of a process; 0: not present.
std::vector<uint64_t> PageFrames(pid_t pid, const char* data, size_t bytes);
// Number of pages of a range that are swapped out.
size_t SwappedPages(pid_t pid, const char* data, size_t bytes);

// Free pages of the node including those in per-CPU lists.
long FreePagesWithLists(int node);
// A field of /proc/meminfo or of the node's meminfo, in KiB.
long MemInfo(const std::string& field, int node = -1);
// MemInfo("Mlocked"), when no CPU has pages in its lists that are not locked
// any more; it keeps up to 14 of them for as long as it is idle.
long MlockedNow();
// A counter of /proc/vmstat, or the sum of all that start so.
long VmStat(const std::string& prefix);
// Writes text to a file of /proc or /sys; false with errno if it cannot.
bool WriteFile(const std::string& path, const std::string& text);
std::string ReadFile(const std::string& path);

// Lets ksmd run, fast. False with errno if there is none.
bool StartKsm();
// Lets ksmd run until it shares more than 100 pages, then stops it; what it
// merged stays so. False if it never did.
bool MergeWithKsm();
// Stops ksmd and takes apart what it merged.
void UnmergeKsm();

// Polls until the condition holds; false when the time is over, of which a busy
// host takes its part.
bool WaitFor(const std::function<bool()>& condition, int seconds = 120);

// A test on the pool: a directory of its own in it, gone afterwards.
class PoolTest : public testing::Test {
 protected:
  void SetUp() override;
  void TearDown() override;

  // A new empty file in the test's directory, open for reading and writing.
  UniqueFd NewFile(const std::string& name = "file");
  // The same, and it holds Fill(bytes, seed), captured from memory that is
  // gone.
  UniqueFd NewCapture(size_t bytes, uint64_t seed,
                      const std::string& name = "file");
  std::string Path(const std::string& name) const { return dir_ + "/" + name; }
  int node() const { return node_; }
  kmemfs_info Info() const;
  // Commits: after it the pages of deleted files are free.
  void Commit() const;
  // Makes all checksums and commits them, so that no commit comes by itself
  // until something changes.
  void Settle() const;
  // A first commit after a mount sets pages aside for those to come; to be
  // called before pages are counted.
  void WarmUp();
  // Pages that left the node for good since it had `before` free ones, but for
  // those of checksums, which come where data was. Commits until they are at
  // most kNoise, or for some seconds.
  long PagesLost(long before) const;
  // Free pages move a little by themselves (page tables, slabs that fall back
  // to the node). Far below what one leaked page a round would be.
  static constexpr long kNoise = 64;
  // Removes the file and commits.
  void Delete(const std::string& name = "file") const;

  // Captures; a test failure if the ioctl fails or if the counts do not add up
  // to the pages of the range.
  kmemfs_capture Capture(int fd, int pidfd, const char* data, size_t bytes,
                         off_t offset = 0);
  // The file's first pages mapped by read(2) into fresh memory; returns how
  // many the kernel installed by reference.
  uint64_t Install(int fd, char* data, size_t bytes, off_t offset = 0);

 private:
  std::string dir_;
  int node_ = -1;
  long sums_pages_ = 0;  // when it was warmed up
  UniqueFd root_;
};

}  // namespace daxsnap::vmtest

#endif  // DAXSNAP_TESTS_VM_MM_MATRIX_SUPPORT_H_
