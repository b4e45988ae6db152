// SPDX-License-Identifier: Apache-2.0
//
// Checks what a kernel has made durable, from its log.
//
//   log_check [OPTION...] fs|blk LOG NVDIMM OFFSET
//
// LOG is what CONFIG_KMEM_PERSIST_RECORD left while fs_generations or
// blk_writer was at work, NVDIMM the device's file as it was before that,
// OFFSET where the device begins in it, in bytes.
//
//   --fresh=yes     the device held nothing before; NVDIMM may be as it is now
//   --committed=N   fs: the generation that was there at first (0)
//   --begun=N       fs: or this one, if it was being written (as --committed)
//   --cached-root=yes
//                   fs: the newer root that was there is in no more than a
//                   cache: it is durable only when the log says so
//   --pages=N       fs: as fs_generations has it
//   --seed=N        of the random states (1)
//   --keep=N        keep N random states, and N with two whole roots
//   --states=DIR    there, as N.img and special-N.img, each a device's file to
//                   boot from, with what may be found in N.txt: "COMMITTED
//                   BEGUN" or "SEED DONE"
//
// Prints a line for each part of the log: what was left out there, and which
// state shows it. Exit: 0 if all parts without a fault are whole, and each
// fault was seen; 1 if not; 2 if the log cannot be used; 64 usage.
#include <endian.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "tests/crash/blk_replay.h"
#include "tests/crash/fs_replay.h"

namespace daxsnap::crash {
namespace {

constexpr uint64_t kPage = SparseMedia::kPage;

struct Options {
  bool fs = false, fresh = false, cached_root = false;
  std::string log, nvdimm, states;
  uint64_t offset = 0, committed = 0, begun = 0, seed = 1, keep = 0;
  uint64_t pages = vmtest::kGenerationPages;
};

uint64_t Number(const std::string& text) {
  return std::strtoull(text.c_str(), nullptr, 0);
}

bool Parse(int argc, char** argv, Options* options) {
  std::vector<std::string> words;
  for (int i = 1; i < argc; i++) {
    const std::string word = argv[i];
    const size_t equals = word.find('=');
    if (word.rfind("--", 0) != 0 || equals == std::string::npos) {
      words.push_back(word);
      continue;
    }
    const std::string name = word.substr(0, equals);
    const std::string value = word.substr(equals + 1);
    if (name == "--committed")
      options->committed = options->begun = Number(value);
    else if (name == "--fresh")
      options->fresh = value == "yes";
    else if (name == "--cached-root")
      options->cached_root = value == "yes";
    else if (name == "--begun")
      options->begun = Number(value);
    else if (name == "--pages")
      options->pages = Number(value);
    else if (name == "--seed")
      options->seed = Number(value);
    else if (name == "--keep")
      options->keep = Number(value);
    else if (name == "--states")
      options->states = value;
    else
      return false;
  }
  if (words.size() != 4 || (words[0] != "fs" && words[0] != "blk"))
    return false;
  options->fs = words[0] == "fs";
  options->log = words[1];
  options->nvdimm = words[2];
  options->offset = Number(words[3]);
  return options->keep == 0 || !options->states.empty();
}

// The part of the log that is in use, which is little of the file.
std::string ReadLog(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  kmem_record_log head = {};
  if (!file.read(reinterpret_cast<char*>(&head), sizeof(head))) return "";
  std::string log(sizeof(head), '\0');
  std::memcpy(log.data(), &head, sizeof(head));
  file.seekg(0, std::ios::end);
  const uint64_t rest = static_cast<uint64_t>(file.tellg()) - sizeof(head);
  log.resize(sizeof(head) + std::min<uint64_t>(rest, le64toh(head.used)));
  file.seekg(sizeof(head));
  file.read(log.data() + sizeof(head),
            static_cast<std::streamsize>(log.size() - sizeof(head)));
  return log;
}

// Only what the file has: the rest is holes, and nobody's.
SparseMedia ReadDevice(const Options& options) {
  SparseMedia media;
  const int fd = open(options.nvdimm.c_str(), O_RDONLY | O_CLOEXEC);
  std::vector<std::byte> page(kPage);
  auto at = static_cast<off_t>(options.offset);
  while ((at = lseek(fd, at, SEEK_DATA)) >= 0) {
    const off_t end = lseek(fd, at, SEEK_HOLE);
    at = at / static_cast<off_t>(kPage) * static_cast<off_t>(kPage);
    for (; at < end; at += static_cast<off_t>(kPage))
      if (pread(fd, page.data(), kPage, at) == static_cast<ssize_t>(kPage))
        media.Write(static_cast<uint64_t>(at) - options.offset, page.data(),
                    kPage);
  }
  close(fd);
  return media;
}

bool WriteState(const Options& options, const KeptState& state,
                const std::string& name) {
  const std::string path = options.states + "/" + name;
  std::ofstream(path + ".txt") << state.allowed << "\n";
  const int from = open(options.nvdimm.c_str(), O_RDONLY | O_CLOEXEC);
  const int to = open((path + ".img").c_str(),
                      O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  bool ok =
      from >= 0 && to >= 0 && ftruncate(to, lseek(from, 0, SEEK_END)) == 0;
  // What comes before the device is not its own.
  std::vector<std::byte> page(kPage);
  for (uint64_t at = 0; ok && at < options.offset; at += kPage) {
    ok = pread(from, page.data(), kPage, static_cast<off_t>(at)) ==
         static_cast<ssize_t>(kPage);
    if (ok && std::any_of(page.begin(), page.end(),
                          [](std::byte b) { return b != std::byte{0}; }))
      ok = pwrite(to, page.data(), kPage, static_cast<off_t>(at)) ==
           static_cast<ssize_t>(kPage);
  }
  for (const uint64_t number : state.media.Pages())
    ok = ok && pwrite(to, state.media.Page(number), kPage,
                      static_cast<off_t>(options.offset + number * kPage)) ==
                   static_cast<ssize_t>(kPage);
  close(from);
  close(to);
  if (!ok) std::cerr << "log_check: cannot write " << path << ".img\n";
  return ok;
}

bool WriteStates(const Options& options, const Replay& replay) {
  bool ok = true;
  int number = 0;
  for (const KeptState& state : replay.kept())
    ok &= WriteState(options, state, std::to_string(number++));
  number = 0;
  for (const KeptState& state : replay.special())
    ok &= WriteState(options, state, "special-" + std::to_string(number++));
  return ok;
}

// Whether all is as it should be.
bool Report(const Replay& replay) {
  bool ok = true;
  int faults = 0;
  int survivors = 0;
  for (const Segment& segment : replay.segments()) {
    const bool fault = segment.without != "none";
    const bool seen = !segment.violation.empty();
    faults += fault;
    survivors += fault && !seen;
    ok &= fault == seen;
    if (!fault && !seen) continue;
    std::cout << (fault ? "without " + segment.without : "as it is") << ": "
              << (seen ? segment.violation : "NOT SEEN") << " ("
              << segment.states << " states, " << segment.left_out
              << " left out)\n";
  }
  const Coverage& coverage = replay.coverage();
  std::cout << coverage.states << " states at " << coverage.points
            << " moments (" << coverage.exhaustive
            << " of them in full): " << coverage.old_state << " old, "
            << coverage.new_state << " new; " << replay.freed()
            << " pages let go; " << faults << " faults, " << survivors
            << " not seen\n";
  for (const auto& [step, count] : replay.steps())
    std::cout << "  " << kmem_persist_step_name(step) << " " << count << "\n";
  return ok;
}

int Main(int argc, char** argv) {
  Options options;
  if (!Parse(argc, argv, &options)) {
    std::cerr << "usage: log_check [--fresh=yes] [--committed=N] [--begun=N] "
                 "[--cached-root=yes] [--pages=N] "
                 "[--seed=N] "
                 "[--keep=N --states=DIR] fs|blk LOG NVDIMM OFFSET\n";
    return 64;
  }
  std::unique_ptr<Replay> replay;
  if (options.fs) {
    auto fs = std::make_unique<FsReplay>(options.seed, options.keep,
                                         options.committed, options.begun,
                                         options.pages);
    if (options.cached_root) fs->set_cached_root();
    replay = std::move(fs);
  } else {
    replay = std::make_unique<BlkReplay>(options.seed, options.keep);
  }
  if (!options.fresh) replay->Load(ReadDevice(options));
  const std::string why = replay->Run(ReadLog(options.log));
  if (!why.empty()) {
    std::cerr << "log_check: " << options.log << ": " << why << "\n";
    return 2;
  }
  const bool ok = Report(*replay);
  return WriteStates(options, *replay) && ok ? 0 : 1;
}

}  // namespace
}  // namespace daxsnap::crash

int main(int argc, char** argv) { return daxsnap::crash::Main(argc, argv); }
