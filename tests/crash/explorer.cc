// SPDX-License-Identifier: Apache-2.0
#include "tests/crash/explorer.h"

#include <cstring>
#include <set>

#include "tests/unit/format/recovery.h"

namespace daxsnap::crash {
namespace {

constexpr size_t kExhaustiveLines = 6;
constexpr int kTornStates = 8;   // besides the subsets of whole lines
constexpr int kSamples = 12;     // where there are too many subsets
constexpr uint64_t kAgain = 16;  // one state in so many is recovered twice

uint64_t PageOf(const DirtyLine& line) {
  return line.index * kLineSize / KMEMFS_PAGE_SIZE;
}

}  // namespace

void Explorer::Put(const DirtyLine& line, Choice choice) {
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
          case 0:  // a page is zeroed before it is filled
            if (bytes[word] != line.cache[word]) bytes[word] = 0;
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
  std::memcpy(&image_[line.index * kLineSize], bytes.data(), kLineSize);
}

void Explorer::Exhaust(const std::vector<DirtyLine>& lines, const ModelFs& fs) {
  coverage_.exhaustive++;
  for (uint64_t subset = 0; subset < (1ULL << lines.size()); subset++) {
    for (size_t i = 0; i < lines.size(); i++)
      Put(lines[i], (subset >> i) & 1 ? Choice::kNew : Choice::kOld);
    Check(fs);
  }
  if (lines.empty()) return;
  for (int i = 0; i < kTornStates; i++) {
    for (const DirtyLine& line : lines) Put(line, Choice::kTorn);
    Check(fs);
  }
}

// All that is dirty was written back but for one page; and the other way round.
void Explorer::OnePage(const std::vector<DirtyLine>& lines, const ModelFs& fs) {
  std::set<uint64_t> pages;
  for (const DirtyLine& line : lines) pages.insert(PageOf(line));
  for (const uint64_t page : pages) {
    for (const Choice choice : {Choice::kOld, Choice::kNew, Choice::kTorn}) {
      const Choice others =
          choice == Choice::kNew ? Choice::kOld : Choice::kNew;
      for (const DirtyLine& line : lines)
        Put(line, PageOf(line) == page ? choice : others);
      Check(fs);
    }
  }
}

void Explorer::Scatter(const std::vector<DirtyLine>& lines) {
  const uint64_t tenths = Below(11);
  for (const DirtyLine& line : lines) {
    const Choice choice =
        Below(8) == 0 ? Choice::kTorn
                      : (Below(10) < tenths ? Choice::kNew : Choice::kOld);
    Put(line, choice);
  }
}

void Explorer::Sample(const std::vector<DirtyLine>& lines, const ModelFs& fs) {
  for (int i = 0; i < kSamples; i++) {
    Scatter(lines);
    Check(fs);
  }
}

void Explorer::Explore(const Device& device, const ModelFs& fs) {
  if (!violation_.empty()) return;
  coverage_.points++;
  image_ = device.media();
  const std::vector<DirtyLine> lines = device.DirtyLines();
  if (lines.size() <= kExhaustiveLines) {
    Exhaust(lines, fs);
    return;
  }
  OnePage(lines, fs);
  Sample(lines, fs);
}

Bytes Explorer::RandomCrash(const Device& device, const ModelFs& fs) {
  image_ = device.media();
  Scatter(device.DirtyLines());
  Check(fs);
  return image_;
}

void Explorer::CheckAgain(const format::Recovery& first,
                          const kmemfs_media& media) {
  const Bytes before = image_;
  const format::Recovery second = format::Recover(media);
  if (second.slot != first.slot || second.error != first.error ||
      second.inodes != first.inodes || second.meta != first.meta)
    violation_ = "recovering twice gives two results";
  if (image_ != before) violation_ = "recovering writes";
}

void Explorer::Check(const ModelFs& fs) {
  if (!violation_.empty()) return;
  const kmemfs_media media = MediaOf(image_, kUuid);
  const format::Recovery recovery = format::Recover(media);
  if (coverage_.states++ % kAgain == 0) CheckAgain(recovery, media);
  if (!recovery.ok()) {
    violation_ = "not recovered: " + recovery.why;
    return;
  }
  const ReadTree found = ReadState(recovery, media);
  const std::string is_new =
      fs.pending() ? Difference(*fs.pending(), found.state) : "no commit";
  const std::string is_old = Difference(fs.durable(), found.state);
  if (!found.torn.empty()) {
    violation_ = found.torn;
  } else if (is_new.empty()) {
    coverage_.new_state++;
  } else if (!is_old.empty()) {
    violation_ = "not the old state: " + is_old + "; not the new: " + is_new;
  } else if (fs.pending()) {
    coverage_.old_state++;
  }
  for (unsigned int slot = 0; slot < KMEMFS_ROOT_SLOTS; slot++) {
    const auto* root =
        static_cast<const kmemfs_root*>(media.page(&media, 1 + slot));
    if (root->head.kind && kmem_persist_page_crc(root, 4) != root->head.crc)
      coverage_.torn_slot++;
  }
}

}  // namespace daxsnap::crash
