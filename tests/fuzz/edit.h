// SPDX-License-Identifier: Apache-2.0
// What the fuzzers of snapd share: files that are nearly right.
#ifndef DAXSNAP_TESTS_FUZZ_EDIT_H_
#define DAXSNAP_TESTS_FUZZ_EDIT_H_

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include "base/log.h"
#include "base/unique_fd.h"
#include "google/protobuf/stubs/logging.h"
#include "tests/fuzz/input.h"

namespace daxsnap::fuzz {

// `bytes` with some of them changed, taken out, put in, doubled or cut off, or
// other bytes altogether, as the rest of the input says.
inline std::string Edited(Input* input, std::string bytes) {
  constexpr size_t kMaxBytes = size_t{1} << 16;
  if (input->Take(1) % 16 == 0) bytes.clear();
  while (!input->empty() && bytes.size() < kMaxBytes) {
    const uint64_t how = input->Take(1);
    const size_t at = bytes.empty() ? 0 : input->Take(2) % bytes.size();
    switch (how % 8) {
      case 0:
        bytes.resize(at);
        break;
      case 1:
        bytes.erase(at, 1 + input->Take(1) % 32);
        break;
      case 2:
        bytes.insert(at, bytes.substr(at, 1 + input->Take(1)));
        break;
      case 3:
        // A length, or a number, as large as can be.
        bytes.insert(at, "\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01");
        break;
      case 4:
        bytes.insert(at, 1, static_cast<char>(input->Take(1)));
        break;
      default:
        if (bytes.empty()) bytes.push_back(0);
        bytes[at] = static_cast<char>(input->Take(1));
    }
  }
  return bytes;
}

// A directory in memory that goes with the process.
class Directory {
 public:
  Directory() : path_("/dev/shm/daxsnap-fuzz.XXXXXX") {
    Require(mkdtemp(path_.data()) != nullptr, "a directory can be made");
    // What is refused is not of interest.
    SetLogLevel(static_cast<LogLevel>(0));
    google::protobuf::SetLogHandler(nullptr);
  }
  Directory(const Directory&) = delete;
  Directory& operator=(const Directory&) = delete;
  ~Directory() { std::filesystem::remove_all(path_); }

  const std::string& path() const { return path_; }
  std::string Path(const std::string& name) const { return path_ + "/" + name; }

  void Write(const std::string& name, const std::string& bytes) const {
    const UniqueFd fd(open(Path(name).c_str(),
                           O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
    Require(write(fd.get(), bytes.data(), bytes.size()) ==
                static_cast<ssize_t>(bytes.size()),
            name + " can be written");
  }

 private:
  std::string path_;
};

}  // namespace daxsnap::fuzz

#endif  // DAXSNAP_TESTS_FUZZ_EDIT_H_
