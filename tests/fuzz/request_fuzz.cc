// SPDX-License-Identifier: Apache-2.0
//
// Requests of any content, of root and of others: each has an answer, an error
// has a reason that the API names, and what a pool holds is gone only if its
// owner has deleted it.
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/errors.h"
#include "base/files.h"
#include "daxsnap/v1/error.pb.h"
#include "daxsnap/v1/snapshot.pb.h"
#include "snapd/ops/operations.h"
#include "snapd/ops/pool_holder.h"
#include "tests/fuzz/edit.h"
#include "tests/unit/snapd/fake_engine.h"
#include "tests/unit/snapd/temp_pool.h"

namespace daxsnap::fuzz {
namespace {

constexpr Caller kRoot = {.uid = 0, .gid = 0};
constexpr Caller kUser = {.uid = 1000, .gid = 1000};

void RequireReason(const absl::Status& status) {
  if (status.ok() || absl::IsCancelled(status)) return;
  v1::ErrorReason reason = v1::ERROR_REASON_UNSPECIFIED;
  Require(
      v1::ErrorReason_Parse("ERROR_REASON_" + ErrorReasonOf(status), &reason),
      "an error has a reason: " + status.ToString());
  Require(!ErrorMetadataOf(status)["hint"].empty(), "and a hint");
  Require(!SerializedRpcStatus(status).empty(), "and can be sent");
}

template <typename Request>
bool Parse(Input* input, const Request& like, Request* request) {
  return request->ParseFromString(Edited(input, like.SerializeAsString()));
}

class Snapd {
 public:
  Snapd() : operations_(&holder_, &engine_, Proc(), Host()) {
    std::filesystem::create_directory(directory_.Path("pool"));
    Restock();
  }

  void Call(Input* input) {
    const Caller caller = input->Take(1) % 2 == 0 ? kRoot : kUser;
    switch (input->Take(1) % 6) {
      case 0:
        return Create(input, caller);
      case 1:
        return Restore(input, caller);
      case 2:
        return Verify(input, caller);
      case 3:
        return Get(input, caller);
      case 4:
        return List(input, caller);
      default:
        return Delete(input, caller);
    }
  }

 private:
  // Where no task is.
  ProcFs Proc() {
    std::filesystem::create_directories(
        directory_.Path("proc/sys/kernel/random"));
    directory_.Write("proc/sys/kernel/random/boot_id",
                     "fedcba98-7654-3210-fedc-ba9876543210\n");
    return ProcFs(directory_.Path("proc"));
  }

  static HostActions Host() {
    HostActions host;
    host.sync = [](const std::vector<SyncTarget>&, absl::Duration,
                   const Cancellation&, int) { return SyncOutcome(); };
    return host;
  }

  void Restock() {
    Catalog& catalog = (*holder_.Get())->catalog;
    for (const auto& [name, owner] :
         {std::pair("roots", 0u), std::pair("users", 1000u)}) {
      if (*catalog.Has(name)) continue;
      AddSnapshot(&catalog, name, owner);
      auto images = EnsureDirectory(catalog.Open(name)->get(), "images");
      WriteImages(images->get(), 4242, "/bin/sh");
    }
  }

  void Create(Input* input, const Caller& caller) {
    v1::CreateSnapshotRequest request;
    request.set_pid(4242);
    request.set_name("new");
    (*request.mutable_labels())["a"] = "b";
    request.mutable_options()->set_force(true);
    if (!Parse(input, v1::CreateSnapshotRequest(request), &request)) return;
    auto result = operations_.Create(caller, request, nobody_, &never_);
    Require(!result.ok() || result->already_existed(),
            "there is no task to take");
    RequireReason(result.status());
  }

  void Restore(Input* input, const Caller& caller) {
    v1::RestoreSnapshotRequest request;
    request.set_name("users");
    request.set_request_id("0123");
    request.mutable_options()->set_files(v1::FILES_POLICY_ACCEPT);
    if (!Parse(input, v1::RestoreSnapshotRequest(request), &request)) return;
    auto result = operations_.Restore(caller, request, nobody_, &never_);
    Require(!result.ok() || caller.is_root() || request.name() == "users",
            "only owners restore");
    RequireReason(result.status());
  }

  void Verify(Input* input, const Caller& caller) {
    v1::VerifySnapshotRequest request;
    request.set_name("users");
    if (!Parse(input, v1::VerifySnapshotRequest(request), &request)) return;
    RequireReason(operations_.Verify(caller, request, {}, never_));
  }

  void Get(Input* input, const Caller& caller) {
    v1::GetSnapshotRequest request;
    request.set_name("users");
    if (!Parse(input, v1::GetSnapshotRequest(request), &request)) return;
    auto got = operations_.Get(caller, request);
    Require(!got.ok() || got->snapshot().name() == request.name(),
            "what is got is what was asked for");
    RequireReason(got.status());
  }

  void List(Input* input, const Caller& caller) {
    v1::ListSnapshotsRequest request;
    request.set_page_size(1);
    auto first = operations_.List(kRoot, request);
    Require(first.ok() && first->snapshots_size() == 1, "there is a page");
    request.set_page_token(first->next_page_token());
    if (!Parse(input, v1::ListSnapshotsRequest(request), &request)) return;
    auto listed = operations_.List(caller, request);
    RequireReason(listed.status());
    if (!listed.ok()) return;
    for (const v1::Snapshot& snapshot : listed->snapshots()) {
      Require(caller.is_root() || snapshot.owner_uid() == caller.uid,
              "others' snapshots are not listed");
    }
  }

  void Delete(Input* input, const Caller& caller) {
    v1::DeleteSnapshotRequest request;
    request.set_name("users");
    if (!Parse(input, v1::DeleteSnapshotRequest(request), &request)) return;
    RequireReason(operations_.Delete(caller, request).status());
    Catalog& catalog = (*holder_.Get())->catalog;
    Require(*catalog.Has("roots") ||
                (caller.is_root() && request.name() == "roots"),
            "only owners delete");
    Restock();
  }

  Directory directory_;
  FakeEngine engine_{nullptr};
  PoolHolder holder_{
      [this]() -> absl::StatusOr<std::unique_ptr<Pool>> {
        return std::unique_ptr<Pool>(TestPool::Open(directory_.Path("pool")));
      },
      ProcFs(directory_.Path("proc")), &engine_};
  Operations operations_;
  const ProgressSink nobody_ = [](v1::ProgressPhase) {};
  Cancellation never_;
};

}  // namespace
}  // namespace daxsnap::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static daxsnap::fuzz::Snapd snapd;
  daxsnap::fuzz::Input input(data, size);
  snapd.Call(&input);
  return 0;
}
