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

}  // namespace daxsnap
