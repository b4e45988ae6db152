// SPDX-License-Identifier: Apache-2.0
//
// The log of what a kernel has made durable (linux/kmem_persist_record.h), and
// every state that a power cut could have left meanwhile.
#ifndef DAXSNAP_TESTS_CRASH_REPLAY_H_
#define DAXSNAP_TESTS_CRASH_REPLAY_H_

#include <linux/kmem_persist_record.h>

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "tests/crash/line_states.h"
#include "tests/crash/sparse_media.h"

namespace daxsnap::crash {

// What was recorded while one step or order was left out, or none.
struct Segment {
  std::string without = "none";
  std::string violation;  // the first one, and where in the log
  uint64_t left_out = 0;  // write-backs and fences that were not done
  uint64_t states = 0;
};

// A crash state to boot from.
struct KeptState {
  SparseMedia media;
  std::string allowed;  // what the workload may find, for people and scripts
};

// Goes through a log. Only what was written back and fenced counts, on a device
// that has to be asked only what was written back before that; what else was
// written back may be there or not, a line or a word of it; what
// the store let go of is lost at once, or all of it but the metadata. All
// states are checked by a subclass, which knows the workload. Not thread safe.
class Replay : public LineStates {
 public:
  // Keeps `keep` random states of segments without a fault, and as many that
  // Special() finds so.
  Replay(uint64_t seed, size_t keep);

  // What the device holds before the log begins.
  void Load(const SparseMedia& base);

  // "" or why the log cannot be used. Violations are in segments().
  std::string Run(std::string_view log);

  const std::vector<Segment>& segments() const { return segments_; }
  // By step: how often it was recorded, left out or not.
  const std::map<unsigned int, uint64_t>& steps() const { return steps_; }
  uint64_t freed() const { return freed_; }
  const std::vector<KeptState>& kept() const { return kept_; }
  const std::vector<KeptState>& special() const { return special_; }

 protected:
  // The state to be checked.
  const SparseMedia& state() const { return state_; }
  // Twice gives what was there.
  void InvertByte(uint64_t at);
  uint64_t nr_pages() const { return nr_pages_; }
  uint64_t first() const { return first_; }
  uint64_t end() const { return end_; }

  // A word of the workload, to be taken before the states that follow it are
  // checked; false if it makes no sense.
  virtual bool OnMark(const std::string& word, uint64_t number) = 0;
  virtual uint32_t type() const = 0;
  // A page of the head is known as the kernel found it when it attached.
  virtual void OnHead(uint64_t /*page*/, SparseMedia* /*media*/) const {}
  // What KeptState.allowed says; "": such a state is not kept.
  virtual std::string Allowed() const = 0;
  // Whether a page is in use in state().
  virtual std::vector<bool> InUse() const = 0;
  // Whether these are a page of metadata, as they were written.
  virtual bool IsMeta(const std::byte* /*page*/) const { return false; }
  // Whether to keep this state with special().
  virtual bool Special() { return false; }
  virtual std::string CheckState() = 0;

 private:
  struct Written {
    size_t line;
    Line bytes;
  };

  void SetLine(size_t index, const Line& bytes) override;
  std::string CheckNow() override;

  std::string Take(const kmem_record& record, const std::byte* bytes);
  std::string Attach(const kmem_record& record, const std::byte* bytes);
  void WriteBack(const kmem_record& record, const std::byte* bytes);
  void Fence(const kmem_record& record);
  void Ask(const kmem_record& record);
  void FreeRest();
  bool Mark(const std::string& text);
  void Explore();
  std::vector<DirtyLine> Uncertain(const SparseMedia& media) const;
  void MakeDurable(const std::vector<Written>& lines);
  void WriteLines(const std::vector<Written>& lines, SparseMedia* media) const;
  void BeginSegment(const std::string& without);
  void EndSegment();
  void Keep(std::vector<KeptState>* kept, uint64_t* seen);

  const size_t keep_;
  SparseMedia media_;   // for certain
  SparseMedia spared_;  // with metadata that was let go of, and not yet used
  SparseMedia stored_;  // as if all had been written back, and fenced
  SparseMedia state_;
  std::map<uint32_t, std::vector<Written>> pending_;  // by task
  uint64_t nr_pages_ = 0;
  uint64_t first_ = 0;
  uint64_t end_ = 0;
  bool loaded_ = false;
  bool attached_ = false;
  bool async_ = false;  // the device has to be asked
  uint64_t at_ = 0;     // of the record in the log
  Segment segment_;
  uint64_t states_before_ = 0;
  std::vector<Segment> segments_;
  std::map<unsigned int, uint64_t> steps_;
  uint64_t freed_ = 0;
  std::vector<KeptState> kept_, special_;
  uint64_t seen_ = 0, special_seen_ = 0;
};

}  // namespace daxsnap::crash

#endif  // DAXSNAP_TESTS_CRASH_REPLAY_H_
