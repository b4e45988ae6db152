// SPDX-License-Identifier: Apache-2.0
#ifndef DAXSNAP_SNAPD_SERVICE_STREAM_REACTOR_H_
#define DAXSNAP_SNAPD_SERVICE_STREAM_REACTOR_H_

#include <grpcpp/support/server_callback.h>
#include <grpcpp/support/status.h>

#include <deque>
#include <mutex>
#include <optional>
#include <utility>

#include "base/cancellation.h"

namespace daxsnap {

// Writes what one worker thread sends, in order and without blocking it, and
// tells that worker when the client has gone. Deletes itself after End.
//
// gRPC allows one write at a time; Finish and the last write may be followed by
// the deletion of this object on another thread, so both are called without the
// lock and as the last thing.
template <typename Response>
class StreamReactor : public grpc::ServerWriteReactor<Response> {
 public:
  // Called by the worker only.
  void Send(Response response) {
    {
      const std::lock_guard lock(mutex_);
      if (broken_) return;
      queue_.push_back(std::move(response));
      if (writing_) return;
      writing_ = true;
    }
    this->StartWrite(&queue_.front());
  }

  // Called by the worker, once, as the last thing it does with this object.
  void End(const grpc::Status& status) {
    {
      const std::lock_guard lock(mutex_);
      if (writing_) {
        end_ = status;
        return;
      }
    }
    this->Finish(status);
  }

  Cancellation* cancellation() { return &cancellation_; }

  void OnCancel() override { cancellation_.Cancel(); }

  void OnWriteDone(bool ok) override {
    std::optional<grpc::Status> end;
    const Response* next = nullptr;
    {
      const std::lock_guard lock(mutex_);
      queue_.pop_front();
      if (!ok) {
        broken_ = true;
        queue_.clear();
      }
      if (!queue_.empty()) {
        next = &queue_.front();
      } else {
        writing_ = false;
        end.swap(end_);
      }
    }
    if (next != nullptr) {
      this->StartWrite(next);
    } else if (end.has_value()) {
      this->Finish(*end);
    }
  }

  void OnDone() override { delete this; }

 private:
  Cancellation cancellation_;
  std::mutex mutex_;
  std::deque<Response> queue_;  // guarded by mutex_; front is being written
  bool writing_ = false;        // guarded by mutex_
  bool broken_ = false;         // guarded by mutex_: the client has gone
  std::optional<grpc::Status> end_;  // guarded by mutex_: for after the writes
};

}  // namespace daxsnap

#endif  // DAXSNAP_SNAPD_SERVICE_STREAM_REACTOR_H_
