// SPDX-License-Identifier: Apache-2.0
#include "tests/crash/line_states.h"

#include <set>

namespace daxsnap::crash {
namespace {

constexpr size_t kExhaustiveLines = 6;
constexpr int kTornStates = 8;  // besides the subsets of whole lines
constexpr int kSamples = 12;    // where there are too many subsets

uint64_t PageOf(const DirtyLine& line) {
  return line.index * kLineSize / KMEMFS_PAGE_SIZE;
}

}  // namespace

void LineStates::Put(const DirtyLine& line, Choice choice) {
  Line bytes = line.media;
  switch (choice) {
    case Choice::kOld:
      break;
    case Choice::kNew:
      bytes = line.cache;
      break;
    case Choice::kTorn:
      for (size_t word = 0; word < kWordsPerLine; word++) {
        switch (Below(8)) {
          case 0:
            if (ZeroesFirst() && bytes[word] != line.cache[word])
              bytes[word] = 0;
            break;
          case 1:
            bytes[word] = line.flushed[word];
            break;
          case 2:
          case 3:
          case 4:
            bytes[word] = line.cache[word];
            break;
          default:
            break;
        }
      }
      break;
  }
  SetLine(line.index, bytes);
}

void LineStates::Exhaust(const std::vector<DirtyLine>& lines) {
  coverage_.exhaustive++;
  for (uint64_t subset = 0; subset < (1ULL << lines.size()); subset++) {
    for (size_t i = 0; i < lines.size(); i++)
      Put(lines[i], (subset >> i) & 1 ? Choice::kNew : Choice::kOld);
    CheckUnlessViolated();
  }
  if (lines.empty()) return;
  for (int i = 0; i < kTornStates; i++) {
    for (const DirtyLine& line : lines) Put(line, Choice::kTorn);
    CheckUnlessViolated();
  }
}

// All that is dirty was written back but for one page; and the other way round.
void LineStates::OnePage(const std::vector<DirtyLine>& lines) {
  std::set<uint64_t> pages;
  for (const DirtyLine& line : lines) pages.insert(PageOf(line));
  for (const uint64_t page : pages) {
    for (const Choice choice : {Choice::kOld, Choice::kNew, Choice::kTorn}) {
      const Choice others =
          choice == Choice::kNew ? Choice::kOld : Choice::kNew;
      for (const DirtyLine& line : lines)
        Put(line, PageOf(line) == page ? choice : others);
      CheckUnlessViolated();
    }
  }
}

// The same of single lines.
void LineStates::OneLine(const std::vector<DirtyLine>& lines) {
  for (uint64_t i = 0; i < single_lines_; i++) {
    const size_t one = lines[Below(lines.size())].index;
    for (const Choice choice : {Choice::kOld, Choice::kNew}) {
      const Choice others =
          choice == Choice::kNew ? Choice::kOld : Choice::kNew;
      for (const DirtyLine& line : lines)
        Put(line, line.index == one ? choice : others);
      CheckUnlessViolated();
    }
  }
}

void LineStates::Scatter(const std::vector<DirtyLine>& lines) {
  const uint64_t tenths = Below(11);
  for (const DirtyLine& line : lines) {
    const Choice choice =
        Below(8) == 0 ? Choice::kTorn
                      : (Below(10) < tenths ? Choice::kNew : Choice::kOld);
    Put(line, choice);
  }
}

void LineStates::Sample(const std::vector<DirtyLine>& lines) {
  for (int i = 0; i < kSamples; i++) {
    Scatter(lines);
    CheckUnlessViolated();
  }
}

void LineStates::ExploreLines(const std::vector<DirtyLine>& lines) {
  if (!violation_.empty()) return;
  coverage_.points++;
  if (lines.size() <= kExhaustiveLines) {
    Exhaust(lines);
    return;
  }
  OnePage(lines);
  OneLine(lines);
  Sample(lines);
}

void LineStates::CheckUnlessViolated() {
  if (!violation_.empty()) return;
  coverage_.states++;
  violation_ = CheckNow();
}

}  // namespace daxsnap::crash
