// SPDX-License-Identifier: Apache-2.0
#include "tests/crash/replay.h"

#include <endian.h>

#include <algorithm>
#include <cstring>
#include <utility>

namespace daxsnap::crash {
namespace {

constexpr uint64_t kSingleLines = 6;
// What was spared matters when the older of two roots is looked at, and they
// are written alone.
constexpr size_t kSparedLines = 6;

template <typename T>
T Read(const void* bytes) {
  T value;
  std::memcpy(&value, bytes, sizeof(value));
  return value;
}

std::string NameOf(const kmem_record& record) {
  const char* name = kmem_persist_step_name(le16toh(record.step));
  return name ? name : "?";
}

bool LeftOut(const kmem_record& record) {
  return (le16toh(record.flags) & KMEM_RECORD_WITHOUT) != 0;
}

}  // namespace

Replay::Replay(uint64_t seed, size_t keep)
    : LineStates(seed, kSingleLines), keep_(keep) {}

void Replay::Load(const SparseMedia& base) {
  media_ = spared_ = stored_ = base;
  loaded_ = true;
}

void Replay::SetLine(size_t index, const Line& bytes) {
  state_.Write(index * kLineSize,
               reinterpret_cast<const std::byte*>(bytes.data()), kLineSize);
}

void Replay::InvertByte(uint64_t at) {
  const std::byte other =
      ~state_.Page(at / KMEMFS_PAGE_SIZE)[at % KMEMFS_PAGE_SIZE];
  state_.Write(at, &other, 1);
}

// Every state is kept with the same chance.
void Replay::Keep(std::vector<KeptState>* kept, uint64_t* seen) {
  const uint64_t place = kept->size() < keep_ ? kept->size() : Below(*seen + 1);
  ++*seen;
  if (place >= keep_) return;
  if (place == kept->size()) kept->emplace_back();
  (*kept)[place] = {.media = state_, .allowed = Allowed()};
}

std::string Replay::CheckNow() {
  const std::string wrong = CheckState();
  if (!wrong.empty())
    return "record at byte " + std::to_string(at_) + ": " + wrong;
  if (segment_.without == "none" && keep_ > 0 && !Allowed().empty()) {
    Keep(&kept_, &seen_);
    if (Special()) Keep(&special_, &special_seen_);
  }
  return "";
}

std::vector<DirtyLine> Replay::Uncertain(const SparseMedia& media) const {
  std::map<size_t, DirtyLine> lines;
  for (const auto& [task, written] : pending_) {
    for (const Written& w : written) {
      auto [line, fresh] = lines.try_emplace(w.line);
      DirtyLine& dirty = line->second;
      if (fresh) {
        dirty.index = w.line;
        dirty.media = media.LineAt(w.line);
        dirty.cache = dirty.media;
      }
      dirty.flushed = dirty.cache;
      dirty.cache = w.bytes;
    }
  }
  std::vector<DirtyLine> uncertain;
  for (const auto& [index, line] : lines)
    if (line.cache != line.media || line.flushed != line.media)
      uncertain.push_back(line);
  return uncertain;
}

void Replay::Explore() {
  // What was there before has to survive from the beginning.
  const bool whole = attached_ || (loaded_ && nr_pages_ != 0);
  if (!whole || !violation().empty()) return;
  const std::vector<DirtyLine> lines = Uncertain(media_);
  state_ = media_;
  ExploreLines(lines);
  if (lines.size() > kSparedLines) return;
  state_ = spared_;
  ExploreLines(Uncertain(spared_));
}

void Replay::WriteLines(const std::vector<Written>& lines,
                        SparseMedia* media) const {
  for (const Written& w : lines)
    media->Write(w.line * kLineSize,
                 reinterpret_cast<const std::byte*>(w.bytes.data()), kLineSize);
}

void Replay::MakeDurable(const std::vector<Written>& lines) {
  WriteLines(lines, &media_);
  WriteLines(lines, &spared_);
}

void Replay::BeginSegment(const std::string& without) {
  segment_ = {};
  segment_.without = without;
  states_before_ = coverage_.states;
}

// Whatever was left out, the kernel goes on from what it has stored.
void Replay::EndSegment() {
  segment_.violation = std::exchange(violation_, "");
  segment_.states = coverage_.states - states_before_;
  segments_.push_back(segment_);
  pending_.clear();
  media_ = spared_ = stored_;
}

std::string Replay::Attach(const kmem_record& record, const std::byte* bytes) {
  if (attached_) return "two devices are recorded";
  if (le32toh(record.len) != sizeof(kmem_record_device)) return "not a device";
  const auto device = Read<kmem_record_device>(bytes);
  if (le64toh(device.type) != type()) return "the device is of another type";
  nr_pages_ = le64toh(device.nr_pages);
  first_ = le64toh(device.first);
  end_ = le64toh(device.end);
  async_ = device.async != 0;
  return "";
}

void Replay::WriteBack(const kmem_record& record, const std::byte* bytes) {
  const uint64_t at = le64toh(record.at);
  const uint32_t length = le32toh(record.len);
  stored_.Write(at, bytes, length);
  if (LeftOut(record)) return;
  std::vector<Written>& pending = pending_[le32toh(record.task)];
  for (uint32_t i = 0; i < length; i += kLineSize)
    pending.push_back({(at + i) / kLineSize, Read<Line>(bytes + i)});
}

void Replay::Fence(const kmem_record& record) {
  Explore();
  if (LeftOut(record) || async_) return;
  const auto pending = pending_.find(le32toh(record.task));
  if (pending == pending_.end()) return;
  MakeDurable(pending->second);
  pending_.erase(pending);
}

// A host sees all that was stored before it is asked, fenced or not.
void Replay::Ask(const kmem_record& record) {
  Explore();
  if (LeftOut(record)) return;
  for (const auto& [task, written] : pending_) MakeDurable(written);
  pending_.clear();
}

void Replay::FreeRest() {
  attached_ = true;
  Explore();
  state_ = stored_;
  const std::vector<bool> used = InUse();
  const auto keep = [&used](uint64_t page) {
    return page < used.size() && used[page];
  };
  media_.ForgetUnless(keep);
  stored_.ForgetUnless(keep);
  spared_.ForgetUnless([this, &keep](uint64_t page) {
    return keep(page) || IsMeta(spared_.Page(page));
  });
  Explore();
}

bool Replay::Mark(const std::string& text) {
  const size_t space = text.find(' ');
  if (space == std::string::npos) return false;
  const std::string word = text.substr(0, space);
  const std::string rest = text.substr(space + 1);
  Explore();
  if (word == "without") {
    EndSegment();
    BeginSegment(rest);
    return true;
  }
  if (!OnMark(word, std::strtoull(rest.c_str(), nullptr, 10))) return false;
  Explore();
  return true;
}

std::string Replay::Take(const kmem_record& record, const std::byte* bytes) {
  const unsigned int step = le16toh(record.step);
  const uint64_t page = le64toh(record.at) / KMEMFS_PAGE_SIZE;
  switch (le16toh(record.kind)) {
    case KMEM_RECORD_ATTACH:
      return Attach(record, bytes);
    case KMEM_RECORD_HEAD:
      media_.Write(le64toh(record.at), bytes, le32toh(record.len));
      OnHead(page, &media_);
      spared_ = stored_ = media_;
      return "";
    case KMEM_RECORD_WRITE_BACK:
    case KMEM_RECORD_FENCE:
    case KMEM_RECORD_SYNC:
      if (!kmem_persist_step_name(step)) return "an unknown step";
      steps_[step]++;
      segment_.left_out += LeftOut(record);
      if ((le64toh(record.at) | le32toh(record.len)) % kLineSize != 0)
        return "not whole cache lines";
      if (le16toh(record.kind) == KMEM_RECORD_FENCE)
        Fence(record);
      else if (le16toh(record.kind) == KMEM_RECORD_SYNC)
        Ask(record);
      else
        WriteBack(record, bytes);
      return "";
    case KMEM_RECORD_FREE:
      freed_++;
      media_.Forget(page);
      stored_.Forget(page);
      if (!IsMeta(spared_.Page(page))) spared_.Forget(page);
      return "";
    case KMEM_RECORD_FREE_REST:
      FreeRest();
      return "";
    case KMEM_RECORD_MARK: {
      const std::string text(reinterpret_cast<const char*>(bytes),
                             le32toh(record.len));
      return Mark(text) ? "" : "a mark that makes no sense: " + text;
    }
    default:
      return "an unknown record";
  }
}

std::string Replay::Run(std::string_view log) {
  if (log.size() < sizeof(kmem_record_log)) return "no log";
  const auto head = Read<kmem_record_log>(log.data());
  const uint64_t used = le64toh(head.used);
  if (le32toh(head.magic) != KMEM_RECORD_MAGIC) return "nothing was recorded";
  if (le32toh(head.version) != KMEM_RECORD_VERSION) return "another version";
  if (head.lost != 0)
    return std::to_string(le64toh(head.lost)) + " records did not fit";
  if (used > log.size() - sizeof(head)) return "the log is cut off";
  log = log.substr(sizeof(head), used);
  for (at_ = 0; at_ < used;) {
    if (used - at_ < sizeof(kmem_record)) return "half a record";
    const auto record = Read<kmem_record>(log.data() + at_);
    const uint64_t length = le32toh(record.len);
    const uint64_t room = sizeof(record) + (length + 7) / 8 * 8;
    if (used - at_ < room) return "half a record";
    const auto* bytes =
        reinterpret_cast<const std::byte*>(log.data() + at_ + sizeof(record));
    std::string wrong = Take(record, bytes);
    if (!wrong.empty())
      return "record at byte " + std::to_string(at_) + " (" + NameOf(record) +
             "): " + wrong;
    at_ += room;
  }
  if (!attached_) return "no device was attached";
  Explore();
  EndSegment();
  return "";
}

}  // namespace daxsnap::crash
