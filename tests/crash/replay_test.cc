// SPDX-License-Identifier: Apache-2.0
//
// A log counts for what was written back and fenced, and is refused if it is
// not whole. What it says of real kernels is tests/vm/durable's matter.
#include "tests/crash/replay.h"

#include <endian.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <set>
#include <string>

#include "tests/crash/blk_replay.h"
#include "tests/crash/fs_replay.h"

namespace daxsnap::crash {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;

constexpr uint64_t kPages = 16;

// What the kernel does, by hand.
class Log {
 public:
  void Add(kmem_record_kind kind, unsigned int step = 0, uint64_t at = 0,
           const std::string& bytes = "", uint16_t flags = 0,
           uint32_t task = 1) {
    const kmem_record record = {
        .kind = htole16(static_cast<uint16_t>(kind)),
        .step = htole16(static_cast<uint16_t>(step)),
        .len = htole32(static_cast<uint32_t>(bytes.size())),
        .at = htole64(at),
        .task = htole32(task),
        .node = htole16(1),
        .flags = htole16(flags)};
    records_.append(reinterpret_cast<const char*>(&record), sizeof(record));
    records_ += bytes;
    records_.resize((records_.size() + 7) / 8 * 8);
  }

  void Attach(bool async = false) {
    const kmem_record_device device = {.nr_pages = htole64(kPages),
                                       .first = 0,
                                       .end = htole64(kPages),
                                       .type = htole64(KMEM_PERSIST_NONE),
                                       .async = htole64(async)};
    Add(KMEM_RECORD_ATTACH, 0, 0,
        {reinterpret_cast<const char*>(&device), sizeof(device)});
    Add(KMEM_RECORD_FREE_REST);
  }

  std::string Text(uint64_t lost = 0) const {
    kmem_record_log head = {};
    head.magic = htole32(KMEM_RECORD_MAGIC);
    head.version = htole32(KMEM_RECORD_VERSION);
    head.used = htole64(records_.size());
    head.lost = htole64(lost);
    return std::string(reinterpret_cast<const char*>(&head), sizeof(head)) +
           records_;
  }

 private:
  std::string records_;
};

// Notes which values the first word of page 3 has in the states.
class OneWord : public Replay {
 public:
  OneWord() : Replay(1, 0) {}
  std::set<uint64_t> Take() { return std::exchange(seen_, {}); }

 private:
  bool OnMark(const std::string& word, uint64_t) override {
    seen_.clear();
    return word == "look";
  }
  uint32_t type() const override { return KMEM_PERSIST_NONE; }
  std::string Allowed() const override { return ""; }
  std::vector<bool> InUse() const override {
    return std::vector<bool>(kPages, true);
  }
  bool ZeroesFirst() const override { return false; }
  std::string CheckState() override {
    uint64_t word;
    std::memcpy(&word, state().Page(3), sizeof(word));
    seen_.insert(word);
    return "";
  }

  std::set<uint64_t> seen_;
};

constexpr uint64_t kAt = 3 * SparseMedia::kPage;
constexpr uint64_t kAnything = 0xa5a5a5a5a5a5a5a5;

std::string Line(uint64_t word) {
  std::string line(kLineSize, '\0');
  std::memcpy(line.data(), &word, sizeof(word));
  return line;
}

// The values that there may be at the end of `log`.
std::set<uint64_t> Values(Log log) {
  log.Add(KMEM_RECORD_MARK, 0, 0, "look 0");
  OneWord replay;
  EXPECT_THAT(replay.Run(log.Text()), IsEmpty());
  return replay.Take();
}

TEST(Replay, CountsWhatWasWrittenBackAndFenced) {
  Log log;
  log.Attach();
  log.Add(KMEM_RECORD_WRITE_BACK, KMEM_STEP_FS_DATA, kAt, Line(7));
  log.Add(KMEM_RECORD_FENCE, KMEM_STEP_FS_BEFORE_ROOT);
  EXPECT_EQ(Values(log), (std::set<uint64_t>{7}));
}

TEST(Replay, DoubtsWhatNoFenceOfTheTaskFollowed) {
  Log log;
  log.Attach();
  log.Add(KMEM_RECORD_WRITE_BACK, KMEM_STEP_FS_DATA, kAt, Line(7));
  log.Add(KMEM_RECORD_FENCE, KMEM_STEP_FS_BEFORE_ROOT, 0, "", 0, 2);
  EXPECT_EQ(Values(log), (std::set<uint64_t>{7, kAnything}));
}

TEST(Replay, DoubtsWhatTheDeviceWasNotAskedFor) {
  Log log;
  log.Attach(/*async=*/true);
  log.Add(KMEM_RECORD_SYNC, KMEM_STEP_SYNC_FS_TREE);
  log.Add(KMEM_RECORD_WRITE_BACK, KMEM_STEP_FS_DATA, kAt, Line(7));
  log.Add(KMEM_RECORD_FENCE, KMEM_STEP_FS_BEFORE_ROOT);
  log.Add(KMEM_RECORD_SYNC, KMEM_STEP_SYNC_FS_TREE, 0, "", KMEM_RECORD_WITHOUT);
  EXPECT_EQ(Values(log), (std::set<uint64_t>{7, kAnything}));
  log.Add(KMEM_RECORD_SYNC, KMEM_STEP_SYNC_FS_TREE, 0, "", 0, 2);
  EXPECT_EQ(Values(log), (std::set<uint64_t>{7}));
}

TEST(Replay, DoesNotCountWhatWasLeftOut) {
  Log log;
  log.Attach();
  log.Add(KMEM_RECORD_WRITE_BACK, KMEM_STEP_FS_DATA, kAt, Line(7),
          KMEM_RECORD_WITHOUT);
  log.Add(KMEM_RECORD_FENCE, KMEM_STEP_FS_BEFORE_ROOT);
  EXPECT_EQ(Values(log), (std::set<uint64_t>{kAnything}));
}

TEST(Replay, GoesOnFromWhatWasStoredWhenNothingIsLeftOutAnyMore) {
  Log log;
  log.Attach();
  log.Add(KMEM_RECORD_WRITE_BACK, KMEM_STEP_FS_DATA, kAt, Line(7),
          KMEM_RECORD_WITHOUT);
  log.Add(KMEM_RECORD_MARK, 0, 0, "without none");
  EXPECT_EQ(Values(log), (std::set<uint64_t>{7}));
}

TEST(Replay, LosesWhatTheStoreLetsGoOf) {
  Log log;
  log.Attach();
  log.Add(KMEM_RECORD_WRITE_BACK, KMEM_STEP_FS_DATA, kAt, Line(7));
  log.Add(KMEM_RECORD_FENCE, KMEM_STEP_FS_BEFORE_ROOT);
  log.Add(KMEM_RECORD_FREE, 0, kAt);
  EXPECT_EQ(Values(log), (std::set<uint64_t>{kAnything}));
}

TEST(Replay, RefusesALogThatIsNotWhole) {
  Log log;
  log.Attach();
  const std::string whole = log.Text();
  EXPECT_THAT(OneWord().Run(""), HasSubstr("no log"));
  EXPECT_THAT(OneWord().Run(std::string(64, '\0')),
              HasSubstr("nothing was recorded"));
  EXPECT_THAT(OneWord().Run(log.Text(3)), HasSubstr("3 records did not fit"));
  EXPECT_THAT(OneWord().Run(whole.substr(0, whole.size() - 8)),
              HasSubstr("cut off"));
  EXPECT_THAT(OneWord().Run(Log().Text()), HasSubstr("no device was attached"));
}

TEST(Replay, RefusesWhatItDoesNotKnow) {
  Log step;
  step.Attach();
  step.Add(KMEM_RECORD_FENCE, KMEM_NR_ORDERS);
  EXPECT_THAT(OneWord().Run(step.Text()), HasSubstr("unknown step"));
  Log lines;
  lines.Attach();
  lines.Add(KMEM_RECORD_WRITE_BACK, KMEM_STEP_FS_DATA, kAt, "part of a line");
  EXPECT_THAT(OneWord().Run(lines.Text()), HasSubstr("whole cache lines"));
  Log kind;
  kind.Add(static_cast<kmem_record_kind>(99));
  EXPECT_THAT(OneWord().Run(kind.Text()), HasSubstr("unknown record"));
  Log mark;
  mark.Attach();
  mark.Add(KMEM_RECORD_MARK, 0, 0, "nonsense");
  EXPECT_THAT(OneWord().Run(mark.Text()), HasSubstr("makes no sense"));
  Log two;
  two.Attach();
  two.Attach();
  EXPECT_THAT(OneWord().Run(two.Text()), HasSubstr("two devices"));
  Log other;
  other.Attach();
  EXPECT_THAT(BlkReplay(1, 0).Run(other.Text()), HasSubstr("another type"));
}

}  // namespace
}  // namespace daxsnap::crash
