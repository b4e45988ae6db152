// SPDX-License-Identifier: Apache-2.0
#include "base/uuid.h"

#include <uuid/uuid.h>

namespace daxsnap {

std::string NewUuid() {
  uuid_t uuid;
  uuid_generate_random(uuid);
  char text[UUID_STR_LEN];
  uuid_unparse_lower(uuid, text);
  return text;
}

bool IsUuid(absl::string_view text) {
  const std::string copy(text);
  uuid_t uuid;
  if (uuid_parse(copy.c_str(), uuid) != 0) return false;
  char as_made[UUID_STR_LEN];
  uuid_unparse_lower(uuid, as_made);
  return text == as_made;
}

}  // namespace daxsnap
