// SPDX-License-Identifier: Apache-2.0
//
// Manifests and records of operations that are not as snapd has written them:
// they are damaged, newer or whole, whoever reads them; what is whole can be
// written again; and recovery comes to an end and leaves a pool that works.
#include <fcntl.h>
#include <sys/stat.h>

#include <cstddef>
#include <cstdint>
#include <ctime>
#include <filesystem>
#include <memory>
#include <string>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "base/errors.h"
#include "base/files.h"
#include "daxsnap/internal/operation.pb.h"
#include "daxsnap/v1/manifest.pb.h"
#include "snapd/ops/manifest.h"
#include "snapd/ops/recovery.h"
#include "snapd/store/catalog.h"
#include "snapd/store/pool.h"
#include "tests/fuzz/edit.h"
#include "tests/unit/snapd/fake_engine.h"
#include "tests/unit/snapd/temp_pool.h"

namespace daxsnap::fuzz {
namespace {

constexpr absl::Duration kSettle = absl::Seconds(2);
constexpr char kUid[] = "01234567-89ab-cdef-0123-456789abcdef";
constexpr char kBoot[] = "fedcba98-7654-3210-fedc-ba9876543210";

v1::Manifest SomeManifest() {
  v1::Manifest manifest;
  manifest.set_format_version(1);
  v1::Snapshot* snapshot = manifest.mutable_snapshot();
  snapshot->set_uid(kUid);
  snapshot->set_owner_uid(1000);
  snapshot->mutable_root_task()->set_pid(4242);
  snapshot->mutable_root_task()->set_comm("sleep");
  snapshot->mutable_pages()->set_copied(77);
  (*snapshot->mutable_labels())["key"] = "value";
  snapshot->add_findings()->set_path("/tmp/x");
  manifest.add_cpu_features("avx512f");
  manifest.add_tasks()->mutable_task()->set_pid(4242);
  manifest.mutable_tasks(0)->add_thread_ids(4243);
  v1::FileRecord* file = manifest.add_files();
  file->set_path("/bin/sh");
  file->set_size(1234);
  file->set_build_id("00ff");
  file->mutable_modify_time()->set_seconds(1);
  v1::ImageRecord* image = manifest.add_images();
  image->set_name("pages-1.img");
  image->set_size(4096);
  return manifest;
}

internal::Operation SomeOperation(internal::OperationKind kind) {
  internal::Operation operation;
  operation.set_uid(kUid);
  operation.set_name("a");
  operation.set_kind(kind);
  operation.set_boot_id(kBoot);
  operation.set_pid(4242);
  operation.set_start_ticks(7);
  operation.set_criu_pid(4711);
  operation.set_criu_start_ticks(8);
  operation.set_cgroup("/daxsnap.slice/x.scope");
  operation.set_resuming(true);
  operation.set_request_id("id");
  operation.set_kill(internal::KILL_STATE_AGREED);
  operation.add_victims()->set_pid(4243);
  operation.mutable_options()->set_files(v1::FILES_POLICY_ACCEPT);
  return operation;
}

class Store {
 public:
  Store() {
    // Where no task is.
    std::filesystem::create_directories(
        directory_.Path("proc/sys/kernel/random"));
    directory_.Write("proc/sys/kernel/random/boot_id",
                     std::string(kBoot) + "\n");
    std::filesystem::create_directory(directory_.Path("pool"));
    pool_ = TestPool::Open(directory_.Path("pool"));
    catalog_ = std::make_unique<Catalog>(pool_.get(), absl::Seconds(10),
                                         kSettle, [this] { return now_; });
  }

  void ReadManifest(Input* input) {
    AddIfMissing();
    directory_.Write("pool/snapshots/a/manifest.pb",
                     Edited(input, SomeManifest().SerializeAsString()));
    // The clock of the file system may stand still.
    const timespec times[] = {{.tv_sec = ++modified_, .tv_nsec = 0},
                              {.tv_sec = modified_, .tv_nsec = 0}};
    Require(utimensat(AT_FDCWD,
                      directory_.Path("pool/snapshots/a/manifest.pb").c_str(),
                      times, 0) == 0,
            "its time can be set");
    RequireListed();
    auto manifest = catalog_->Read("a");
    if (!manifest.ok()) {
      const std::string reason = ErrorReasonOf(manifest.status());
      Require(reason == reason::kSnapshotDamaged ||
                  reason == reason::kVersionUnsupported,
              "it is called damaged or newer: " + reason);
      return;
    }
    (void)PidsOf(*manifest);
    (void)CheckCpu(*manifest, {.model = "x", .features = {"sse"}});
    (void)CheckNodes(*manifest, {{.mode = 2, .nodes = 3}}, 1, 1);
    auto directory = catalog_->Open("a");
    Require(directory.ok(), "it can be opened");
    (void)CheckImages(*manifest, "a", directory->get());
    Require(catalog_->WriteManifest(directory->get(), *manifest).ok(),
            "it can be written again");
    Require(catalog_->Read("a").ok(), "and read again");
    // What is listed was kept of the one that this replaces.
    RequireListed();
    manifest->mutable_snapshot()->set_owner_uid(
        manifest->snapshot().owner_uid() + 1);
    Require(catalog_->WriteManifest(directory->get(), *manifest).ok(),
            "it can be changed");
    RequireListed();
  }

  void Recover(Input* input) {
    AddIfMissing();
    const internal::Operation operation = SomeOperation(
        input->Take(1) % 2 == 0 ? internal::OPERATION_KIND_CHECKPOINT
                                : internal::OPERATION_KIND_RESTORE);
    FakeEngine engine(nullptr);
    const uint64_t how = input->Take(1);
    engine.worker_ends = how % 4 != 0;
    engine.has_let_go = how % 8 < 4;
    if (how % 16 < 4) engine.tasks_left = TasksLeft::kNeverRan;
    if (how % 16 > 12) engine.tasks_left = TasksLeft::kRun;
    directory_.Write("pool/staging/" + std::string(kUid) + ".operation",
                     Edited(input, operation.SerializeAsString()));
    auto record = catalog_->records().Read(kUid);
    Require(record.ok() || absl::IsDataLoss(record.status()),
            "a record is whole or is not");
    const absl::Status recovered = RecoverOne(ProcFs(directory_.Path("proc")),
                                              &engine, catalog_.get(), kUid);
    // What is not done is tried again by the next call, which has no CRIU in
    // its way.
    engine.worker_ends = true;
    if (!recovered.ok()) {
      (void)RecoverOne(ProcFs(directory_.Path("proc")), &engine, catalog_.get(),
                       kUid);
    }
    catalog_->RemoveUnfinished(kUid);
    Require(catalog_->records().Remove(kUid).ok(), "a record can be removed");
    Require(catalog_->List("").ok(), "the pool can be listed");
  }

 private:
  // Of manifest.pb as it is, all that is listed is what is read: when it is
  // seen first, when it is kept, and from memory.
  void RequireListed() {
    auto manifest = catalog_->Read("a");
    for (int i = 0; i < 3; ++i) {
      int opened = 0;
      const ScopedFileFault count(
          [&opened](absl::string_view call, const std::string&) {
            if (call == "open") ++opened;
            return 0;
          });
      auto described = catalog_->Describe("a");
      Require(manifest.status().code() == described.status().code() &&
                  manifest.status().message() == described.status().message(),
              "list and restore agree");
      Require(!manifest.ok() || (*described)->DebugString() ==
                                    manifest->snapshot().DebugString(),
              "what is listed is what is read");
      Require((opened == 0) == (manifest.ok() && i == 2),
              "what is whole is kept, and nothing else");
      now_ += kSettle;
    }
  }

  void AddIfMissing() {
    auto has = catalog_->Has("a");
    if (has.ok() && *has) return;
    AddSnapshot(catalog_.get(), "a", 0);
  }

  Directory directory_;
  absl::Duration now_;
  time_t modified_ = 0;
  std::unique_ptr<TestPool> pool_;
  std::unique_ptr<Catalog> catalog_;
};

}  // namespace
}  // namespace daxsnap::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static daxsnap::fuzz::Store store;
  daxsnap::fuzz::Input input(data, size);
  if (input.Take(1) % 2 == 0) {
    store.ReadManifest(&input);
  } else {
    store.Recover(&input);
  }
  return 0;
}
