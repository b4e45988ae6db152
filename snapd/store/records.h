// SPDX-License-Identifier: Apache-2.0
#ifndef DAXSNAP_SNAPD_STORE_RECORDS_H_
#define DAXSNAP_SNAPD_STORE_RECORDS_H_

#include <set>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "daxsnap/internal/operation.pb.h"

namespace daxsnap {

// The records of operations under way: staging/UID.operation, beside the
// directory staging/UID that an operation may have, as that becomes the
// snapshot. They are for the snapd that comes after one that was killed, not
// for what a power cut leaves: nothing makes them durable by itself.
// Thread-safe but for two calls on one record.
class Records {
 public:
  // `staging` stays open as long as this lives.
  explicit Records(int staging) : staging_(staging) {}

  // Makes the record of operation.uid(), or replaces it in one step. EFBIG if
  // Read() would not take it.
  absl::Status Write(const internal::Operation& operation) const;

  // NOT_FOUND: there is none. DATA_LOSS: it does not hold. Another error says
  // nothing of it.
  absl::StatusOr<internal::Operation> Read(const std::string& uid) const;

  // OK if there is none.
  absl::Status Remove(const std::string& uid) const;

  // The UID that something in staging is of; empty if snapd makes nothing of
  // that name.
  static std::string UidOf(absl::string_view entry);

  // The UIDs of all that is in staging, with and without a record. What has
  // another name is not ours.
  absl::StatusOr<std::set<std::string>> List() const;

 private:
  const int staging_;
};

}  // namespace daxsnap

#endif  // DAXSNAP_SNAPD_STORE_RECORDS_H_
