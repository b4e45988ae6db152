// SPDX-License-Identifier: Apache-2.0
//
// CRIU's images and statistics that are not as CRIU has written them: they are
// read, or are damaged.
#include <fcntl.h>

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>

#include "absl/status/status.h"
#include "base/files.h"
#include "daxsnap/internal/criu.pb.h"
#include "daxsnap/v1/manifest.pb.h"
#include "snapd/engine/criu_images.h"
#include "snapd/ops/manifest.h"
#include "tests/fuzz/edit.h"
#include "tests/unit/snapd/temp_pool.h"

namespace daxsnap::fuzz {
namespace {

namespace pb = ::daxsnap::internal::criu;

void RequireReadOrDamaged(const absl::Status& status) {
  Require(status.ok() || absl::IsDataLoss(status),
          "an image is read or damaged: " + status.ToString());
}

class Images {
 public:
  Images() : directory_fd_(OpenDirectory(AT_FDCWD, directory_.path()).value()) {
    WriteImages(directory_fd_.get(), 42, "/bin/sh", {"/bin/ls"});
    WriteStats(directory_fd_.get(), 1, 2, 3);
    WritePageCounts(directory_fd_.get(), 1, 2, 3, 4);
    WritePolicies();
    auto names = ListDirectory(directory_fd_.get());
    for (const std::string& name : *names) {
      originals_[name] =
          ReadFileAt(directory_fd_.get(), name, size_t{1} << 20).value();
    }
  }

  void Read(Input* input) {
    auto original = originals_.begin();
    std::advance(original, input->Take(1) % originals_.size());
    directory_.Write(original->first, Edited(input, original->second));
    const int images = directory_fd_.get();
    RequireReadOrDamaged(ReadImageSet(images).status());
    RequireReadOrDamaged(ReadPolicies(images).status());
    RequireReadOrDamaged(ReadDumpTimes(images).status());
    RequireReadOrDamaged(ReadPageCounts(images).status());
    Require(ListImages(images).ok(), "they can be listed");
    directory_.Write(original->first, original->second);
  }

 private:
  // As CRIU has them: two magic numbers, then size and message.
  template <typename Message>
  void WriteOne(const std::string& name, const Message& message) {
    const std::string body = message.SerializeAsString();
    const auto size = static_cast<uint32_t>(body.size());
    std::string bytes = originals_magic();
    bytes.append(reinterpret_cast<const char*>(&size), sizeof(size));
    directory_.Write(name, bytes + body);
  }
  static std::string originals_magic() {
    return "\x19\x43\x56\x54\x01\x02\x03\x04";
  }

  void WritePolicies() {
    pb::Core core;
    core.mutable_thread_core()->set_mempolicy(2);
    core.mutable_thread_core()->set_mempolicy_nodes(3);
    WriteOne("core-42.img", core);
    pb::Mm mm;
    mm.set_exe_file_id(7);
    pb::Vma* vma = mm.add_vmas();
    vma->set_shmid(7);
    vma->set_status(1 << 6);
    vma->set_mempolicy_nodes(1);
    WriteOne("mm-42.img", mm);
  }

  Directory directory_;
  UniqueFd directory_fd_;
  std::map<std::string, std::string> originals_;
};

}  // namespace
}  // namespace daxsnap::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static daxsnap::fuzz::Images images;
  daxsnap::fuzz::Input input(data, size);
  images.Read(&input);
  return 0;
}
