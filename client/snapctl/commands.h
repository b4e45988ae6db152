// SPDX-License-Identifier: Apache-2.0
//
// Every subcommand has a file of its own, which adds it to the parser. Its
// callback sets `*action`; nothing is done while parsing.
#ifndef DAXSNAP_CLIENT_SNAPCTL_COMMANDS_H_
#define DAXSNAP_CLIENT_SNAPCTL_COMMANDS_H_

#include <CLI/CLI.hpp>

#include "client/snapctl/context.h"

namespace daxsnap::snapctl {

// All of snapctl's command line.
void AddCommands(CLI::App* app, Context* context, Action* action);

// Says what is wrong with the command line, in JSON if it asks for that.
void PrintUsageError(const CLI::App& app, const CLI::ParseError& error,
                     Context context);

// Options that stand before or after any subcommand.
void AddGlobalOptions(CLI::App* app, Context* context);

// The one of them that `run`, which leaves all it does not know to its command,
// has to have itself.
void AddOutputOption(CLI::App* app, Context* context);

void AddCheckpoint(CLI::App* app, Context* context, Action* action);
void AddRestore(CLI::App* app, Context* context, Action* action);
void AddLs(CLI::App* app, Context* context, Action* action);
void AddInspect(CLI::App* app, Context* context, Action* action);
void AddVerify(CLI::App* app, Context* context, Action* action);
void AddRm(CLI::App* app, Context* context, Action* action);
void AddRun(CLI::App* app, Context* context, Action* action);
void AddVersion(CLI::App* app, Context* context, Action* action);

void AddPoolCreate(CLI::App* pool, Context* context, Action* action);
void AddPoolAttach(CLI::App* pool, Context* context, Action* action);
void AddPoolDetach(CLI::App* pool, Context* context, Action* action);
void AddPoolKexecCheck(CLI::App* pool, Context* context, Action* action);
void AddPoolShow(CLI::App* pool, Context* context, Action* action);
void AddPoolUpgrade(CLI::App* pool, Context* context, Action* action);
void AddPoolRepair(CLI::App* pool, Context* context, Action* action);

}  // namespace daxsnap::snapctl

#endif  // DAXSNAP_CLIENT_SNAPCTL_COMMANDS_H_
