// SPDX-License-Identifier: Apache-2.0
#ifndef DAXSNAP_HOST_TASK_ASK_PATHS_H_
#define DAXSNAP_HOST_TASK_ASK_PATHS_H_

#include <unistd.h>

#include <cstddef>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/bounded_child.h"

namespace daxsnap {

// Runs in the child: see BoundedChild::Work. An Answer for each path.
template <typename Answer, auto Ask>
void AskEachPath(const void* argument, int report) {
  bool written = true;
  for (auto* const* path = static_cast<const char* const*>(argument);
       written && *path != nullptr; ++path) {
    Answer answer = {};
    Ask(*path, &answer);
    written = write(report, &answer, sizeof(answer)) == sizeof(answer);
  }
}

// Has a child call Ask(const char* path, Answer* answer) for each of the paths,
// one after the other, and hands each answer to `take` with the number of its
// path. If the answers are not all there within `timeout`: what `late` returns
// for the first path without one. Answer is zero before; Ask is bound by what
// BoundedChild::Work says.
template <typename Answer, auto Ask>
absl::Status AskPaths(
    const std::vector<std::string>& paths, absl::Duration timeout,
    const std::function<absl::Status(size_t)>& late,
    const std::function<absl::Status(size_t, const Answer&)>& take) {
  if (paths.empty()) return absl::OkStatus();
  std::vector<const char*> pointers;
  pointers.reserve(paths.size() + 1);
  for (const std::string& path : paths) pointers.push_back(path.c_str());
  pointers.push_back(nullptr);
  const absl::Time deadline = absl::Now() + timeout;
  auto child = BoundedChild::Start(AskEachPath<Answer, Ask>, pointers.data());
  if (!child.ok()) return child.status();
  for (size_t i = 0; i < paths.size(); ++i) {
    Answer answer;
    absl::Status status = child->Read(&answer, sizeof(answer), deadline);
    if (absl::IsDeadlineExceeded(status)) return late(i);
    if (status.ok()) status = take(i, answer);
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

}  // namespace daxsnap

#endif  // DAXSNAP_HOST_TASK_ASK_PATHS_H_
