// SPDX-License-Identifier: Apache-2.0
#include <map>

#include "client/snapctl/commands.h"

namespace daxsnap::snapctl {

void AddGlobalOptions(CLI::App* app, Context* context) {
  app->add_option("-s,--socket", context->socket, "UNIX socket of snapd")
      ->envname("DAXSNAP_SOCKET")
      ->capture_default_str();
  AddOutputOption(app, context);
}

void AddOutputOption(CLI::App* app, Context* context) {
  app->add_option("-o,--output", context->format, "How results are printed: table or json")
      ->transform(CLI::CheckedTransformer(
          std::map<std::string, Format>{{"table", Format::kTable}, {"json", Format::kJson}}))
      ->option_text("table|json");
}

}  // namespace daxsnap::snapctl
