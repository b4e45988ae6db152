// SPDX-License-Identifier: Apache-2.0
#include "snapd/ops/findings.h"

#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/errors.h"
#include "base/utf8.h"
#include "host/task/apart_threads.h"
#include "host/task/stat_paths.h"
#include "host/task/sysv_ipc.h"
#include "host/task/tree_names.h"
#include "host/task/volatile_place.h"

namespace daxsnap {
namespace {

constexpr size_t kMaxOfAKind = 100;
// With one more of at most 50 KB, for each of eight kinds at most: a list of
// snapshots has to fit into what gRPC clients accept, 4 MiB.
constexpr size_t kMaxBytesOfAKind = size_t{24} << 10;
// gRPC sends a status in headers, of which 8 KiB are safe.
constexpr size_t kMaxMessage = 1500;

constexpr char kNamespaceHint[] =
    "start the program with `snapctl run`; a service's sandbox and a container "
    "have such namespaces";
constexpr char kThisBootOnly[] =
    ", or pass --force for a snapshot that this boot alone can restore";

struct NamespaceKind {
  const char* link;
  const char* name;
};
constexpr NamespaceKind kNamespaces[] = {{"pid", "PID"},
                                         {"mnt", "mount"},
                                         {"user", "user"},
                                         {"net", "network"},
                                         {"cgroup", "cgroup"}};

// Whether the directory is a mount point that is there after a boot as well:
// one in a directory that stays, or of systemd's own. /run/user/UID is none.
bool IsMountPointAfterBoot(const UsedFile& directory) {
  if (directory.path != directory.mount_point) return false;
  constexpr absl::string_view kEmptied[] = {"/dev/", "/run/", "/tmp/"};
  constexpr absl::string_view kOfBoot[] = {"/dev/hugepages", "/dev/mqueue",
                                           "/dev/shm", "/run/lock"};
  const auto is_below = [&directory](absl::string_view above) {
    return absl::StartsWith(directory.path, above);
  };
  return std::none_of(std::begin(kEmptied), std::end(kEmptied), is_below) ||
         std::find(std::begin(kOfBoot), std::end(kOfBoot), directory.path) !=
             std::end(kOfBoot);
}

bool IsDevice(mode_t mode) { return S_ISCHR(mode) || S_ISBLK(mode); }

// Those files whose name ends like that of a deleted one, and which have it.
absl::StatusOr<std::set<const UsedFile*>> FindCalledDeleted(
    const std::vector<UsedFile>& files, absl::Duration timeout) {
  std::vector<const UsedFile*> suspects;
  std::vector<std::string> paths;
  for (const UsedFile& file : files) {
    if (file.mount_point.empty() || IsDevice(file.mode) ||
        !absl::EndsWith(file.path, kDeleted)) {
      continue;
    }
    suspects.push_back(&file);
    paths.push_back(file.path);
  }
  auto found = StatPaths(paths, {}, timeout);
  if (!found.ok()) return found.status();
  std::set<const UsedFile*> called;
  for (size_t i = 0; i < suspects.size(); ++i) {
    const absl::StatusOr<struct statx>& info = (*found)[i];
    if (absl::IsNotFound(info.status())) continue;
    if (!info.ok()) return info.status();
    if (makedev(info->stx_dev_major, info->stx_dev_minor) ==
            suspects[i]->device &&
        info->stx_ino == suspects[i]->inode) {
      called.insert(suspects[i]);
    }
  }
  return called;
}

class Finder {
 public:
  Finder(const ProcFs& proc, const std::vector<TaskInfo>& tree,
         const FindingsInput& input)
      : proc_(proc),
        tree_(tree),
        input_(input),
        places_(proc, *input.tmpfiles, input.answer_timeout) {
    for (const TaskInfo& task : tree) tasks_[task.id.pid] = &task;
  }

  absl::StatusOr<std::vector<v1::Finding>> Run(
      const std::vector<UsedFile>& files) {
    if (absl::Status found = FindNamespaces(); !found.ok()) return found;
    if (absl::Status found = FindThreads(); !found.ok()) return found;
    if (absl::Status found = FindPids(); !found.ok()) return found;
    auto called = FindCalledDeleted(files, input_.answer_timeout);
    if (!called.ok()) return called.status();
    for (const UsedFile& file : files) {
      absl::Status looked = LookAt(file, called->contains(&file));
      if (!looked.ok()) return looked;
    }
    if (absl::Status found = FindNames(); !found.ok()) return found;
    if (absl::Status found = FindSysv(files); !found.ok()) return found;
    for (const auto& [key, kind] : kinds_) {
      if (kind.left_out == 0) continue;
      absl::StrAppend(findings_[kind.last].mutable_message(), " (and ",
                      kind.left_out, " more of this kind)");
    }
    // Losses first.
    std::stable_sort(findings_.begin(), findings_.end(),
                     [](const v1::Finding& a, const v1::Finding& b) {
                       return a.consequence() < b.consequence();
                     });
    return std::move(findings_);
  }

 private:
  // Findings of one reason and consequence.
  struct Kind {
    size_t told = 0;
    size_t left_out = 0;
    size_t bytes = 0;
    size_t last = 0;  // index in findings_ of the last one told
  };

  void Add(v1::ErrorReason reason, v1::FindingConsequence consequence,
           pid_t pid, const std::string& path, const std::string& message,
           std::string hint) {
    // Losses are never left out for what is none.
    Kind& kind = kinds_[{reason, consequence}];
    if (kind.told > 0 &&
        (kind.told == kMaxOfAKind || kind.bytes > kMaxBytesOfAKind)) {
      ++kind.left_out;
      return;
    }
    ++kind.told;
    kind.last = findings_.size();
    v1::Finding& finding = findings_.emplace_back();
    finding.set_reason(reason);
    finding.set_consequence(consequence);
    finding.set_pid(pid);
    finding.set_path(ToPrintableUtf8(path));
    finding.set_message(ToPrintableUtf8(message));
    finding.set_hint(std::move(hint));
    kind.bytes += finding.ByteSizeLong();
  }

  // Who of the tree is in another namespace than snapd.
  struct Foreigners {
    const TaskInfo* first = nullptr;
    // No task is known to be in snapd's.
    bool all = false;
  };

  absl::StatusOr<Foreigners> FindForeigners(const std::string& kind) {
    const std::string link = absl::StrCat("ns/", kind);
    Foreigners foreigners;
    auto ours = proc_.ReadLink(getpid(), link);
    // A kernel may lack a kind.
    if (absl::IsNotFound(ours.status())) return foreigners;
    if (!ours.ok()) return ours.status();
    bool some_ours = false;
    for (const TaskInfo& task : tree_) {
      auto its = proc_.ReadLink(task.id.pid, link);
      if (!its.ok()) {
        // Zombies have none.
        absl::Status gone = proc_.UnlessGone(task.id, its.status());
        if (!gone.ok()) return gone;
        continue;
      }
      if (*its == *ours) {
        some_ours = true;
      } else if (foreigners.first == nullptr) {
        foreigners.first = &task;
      }
    }
    foreigners.all = foreigners.first != nullptr && !some_ours;
    return foreigners;
  }

  absl::Status FindNamespaces() {
    for (const NamespaceKind& kind : kNamespaces) {
      auto foreigners = FindForeigners(kind.link);
      if (!foreigners.ok()) return foreigners.status();
      if (foreigners->first == nullptr) continue;
      const pid_t pid = foreigners->first->id.pid;
      if (kind.link == absl::string_view("pid")) foreign_pids_ = true;
      Add(v1::ERROR_REASON_NAMESPACE, v1::FINDING_CONSEQUENCE_LOST, pid,
          kind.link,
          absl::StrCat(Named(pid), " is in a ", kind.name,
                       " namespace of its own, which is not restored"),
          kNamespaceHint);
    }
    return FindNamespacesOfChildren();
  }

  // unshare(2) gives a PID namespace to the children to come; it cannot be read
  // before there is one.
  absl::Status FindNamespacesOfChildren() {
    constexpr char kLink[] = "ns/pid_for_children";
    auto ours = proc_.ReadLink(getpid(), "ns/pid");
    // A kernel may lack it.
    if (absl::IsNotFound(ours.status())) return absl::OkStatus();
    if (!ours.ok()) return ours.status();
    for (const TaskInfo& task : tree_) {
      auto its = proc_.ReadLink(task.id.pid, "ns/pid");
      if (!its.ok() || *its != *ours) continue;
      auto children = proc_.ReadLink(task.id.pid, kLink);
      if (!children.ok() && !absl::IsNotFound(children.status())) {
        absl::Status gone = proc_.UnlessGone(task.id, children.status());
        if (!gone.ok()) return gone;
        continue;
      }
      auto alive = proc_.IsAlive(task.id);
      if (!alive.ok()) return alive.status();
      if (!*alive || (children.ok() && *children == *ours)) continue;
      Add(v1::ERROR_REASON_NAMESPACE, v1::FINDING_CONSEQUENCE_LOST, task.id.pid,
          "pid_for_children",
          absl::StrCat(Named(task.id.pid),
                       " has a PID namespace for its children to come, which "
                       "is not restored"),
          kNamespaceHint);
      break;
    }
    return absl::OkStatus();
  }

  absl::Status FindThreads() {
    auto apart = FindApartThreads(proc_, tree_);
    if (!apart.ok()) return apart.status();
    for (const ApartThread& thread : *apart) {
      const std::string who =
          absl::StrCat(Named(thread.pid), ": thread ", thread.thread);
      const bool files = thread.part == "fd" || thread.part == "cwd";
      if (!files) {
        Add(v1::ERROR_REASON_NAMESPACE, v1::FINDING_CONSEQUENCE_LOST,
            thread.pid, thread.part,
            absl::StrCat(who, " is in a ", thread.part,
                         " namespace of its own, which is not restored"),
            kNamespaceHint);
        continue;
      }
      Add(v1::ERROR_REASON_TASK_UNSUPPORTED, v1::FINDING_CONSEQUENCE_LOST,
          thread.pid, "apart-thread",
          absl::StrCat(who, " has ",
                       thread.part == "fd"
                           ? "descriptors of its own, which are not stored"
                           : "a working or root directory of its own, which "
                             "is not restored"),
          "take the snapshot when the program has no such thread, or pass "
          "--force: then it has what its process has");
    }
    return absl::OkStatus();
  }

  absl::Status FindPids() {
    // In another PID namespace its own PIDs are the ones to be had again.
    if (foreign_pids_) return absl::OkStatus();
    std::set<pid_t> low;
    for (const TaskInfo& task : tree_) {
      if (task.id.pid < input_.first_reserved_pid) low.insert(task.id.pid);
      auto threads = proc_.ReadThreads(task.id.pid);
      if (!threads.ok()) {
        absl::Status gone = proc_.UnlessGone(task.id, threads.status());
        if (!gone.ok()) return gone;
        continue;
      }
      for (const pid_t thread : *threads) {
        if (thread < input_.first_reserved_pid) low.insert(thread);
      }
    }
    if (low.empty()) return absl::OkStatus();
    // The root task is the one that people know.
    const pid_t root = tree_.front().id.pid;
    const pid_t first = low.contains(root) ? root : *low.begin();
    const std::string more =
        low.size() == 1 ? "" : absl::StrCat(" and ", low.size() - 1, " more");
    Add(v1::ERROR_REASON_PID_NOT_RESERVED, v1::FINDING_CONSEQUENCE_LOST, first,
        "",
        absl::StrCat(Named(first), more,
                     " may be in use after a reboot: a boot gives PIDs below ",
                     input_.first_reserved_pid, " to its own tasks"),
        absl::StrCat(
            low.contains(root)
                ? "start the program with `snapctl run`"
                : "this boot has given out all PIDs above since the program "
                  "was started, and goes on below: start it again with "
                  "`snapctl run`",
            kThisBootOnly));
    return absl::OkStatus();
  }

  std::string Use(const UsedFile& file, const std::string& path) const {
    if (file.link == "cwd") {
      return absl::StrCat(Named(file.pid), ": its working directory is ", path);
    }
    if (file.link == "root") {
      return absl::StrCat(Named(file.pid), ": its root directory is ", path);
    }
    if (file.is_mapping()) {
      return absl::StrCat(Named(file.pid), ": it has mapped ", path);
    }
    return absl::StrCat(Named(file.pid), ": descriptor ", file.link.substr(3),
                        " is ", path);
  }

  // `called_deleted`: it has the name that it seems to have had.
  absl::Status LookAt(const UsedFile& file, bool called_deleted) {
    // Of the kernel's own mounts, memfd for example, or nowhere any more.
    if (file.mount_point.empty() || IsDevice(file.mode)) {
      return absl::OkStatus();
    }
    const bool deleted = absl::EndsWith(file.path, kDeleted) && !called_deleted;
    // The server keeps such a name as long as the file is open.
    const bool renamed =
        absl::StartsWith(file.file_system, "nfs") &&
        absl::StartsWith(file.path.substr(file.path.rfind('/') + 1), ".nfs");
    if (!deleted && !renamed) return LookAtPlace(file, Use(file, file.path));
    // Without a name it is stored in the snapshot.
    if (deleted && file.links == 0) return absl::OkStatus();
    UsedFile named = file;
    if (deleted) named.path.resize(file.path.size() - kDeleted.size());
    LinkRemapped(named);
    // The name by which a restore finds it is in the same directory.
    return LookAtPlace(named, Use(named, named.path));
  }

  // `use` says what the task does with it.
  absl::Status LookAtPlace(const UsedFile& file, const std::string& use) {
    const bool directory = S_ISDIR(file.mode);
    auto lost = places_.WhereLost(file);
    if (!lost.ok()) return lost.status();
    if (!lost->empty()) {
      if (!directory || !(IsMountPointAfterBoot(file) ||
                          input_.tmpfiles->MakesDirectory(file.path))) {
        Volatile(file, absl::StrCat(use, ", which is ", *lost,
                                    " and gone after a reboot"));
      }
      return absl::OkStatus();
    }
    const TmpfilesRules::Verdict verdict = input_.tmpfiles->FateOf(file.path);
    if (verdict.fate == TmpfilesRules::Fate::kRemoved &&
        !(directory && input_.tmpfiles->MakesDirectory(file.path))) {
      Volatile(file,
               absl::StrCat(use, ", which systemd-tmpfiles removes at boot: ",
                            verdict.rule));
    } else if (verdict.fate == TmpfilesRules::Fate::kAges) {
      Add(v1::ERROR_REASON_VOLATILE_FILE, v1::FINDING_CONSEQUENCE_LIMITED,
          file.pid, file.path,
          absl::StrCat(use,
                       ", which systemd-tmpfiles removes when it has not been "
                       "used for ",
                       verdict.age, ": ", verdict.rule),
          "restore in time, or keep the file elsewhere");
    } else if (verdict.fate == TmpfilesRules::Fate::kMayBeRemoved) {
      Add(v1::ERROR_REASON_VOLATILE_FILE, v1::FINDING_CONSEQUENCE_LIMITED,
          file.pid, file.path,
          absl::StrCat(use,
                       ", which systemd-tmpfiles may remove by a line that is "
                       "not understood: ",
                       verdict.rule),
          "keep the file elsewhere unless that line is about others");
    }
    return absl::OkStatus();
  }

  void Volatile(const UsedFile& file, const std::string& message) {
    Add(v1::ERROR_REASON_VOLATILE_FILE, v1::FINDING_CONSEQUENCE_LOST, file.pid,
        file.path, message,
        absl::StrCat("have the program keep it in a directory that stays, or, "
                     "if a directory is all it needs, have boots make that: a "
                     "\"d\" line in /etc/tmpfiles.d",
                     kThisBootOnly));
  }

  void LinkRemapped(const UsedFile& file) {
    const std::string& path = file.path;
    const std::string what =
        absl::StrCat(Use(file, path),
                     ", a name that was removed while the file "
                     "has others: ");
    if (input_.leave_running) {
      Add(v1::ERROR_REASON_LINK_REMAPPED, v1::FINDING_CONSEQUENCE_LOST,
          file.pid, path,
          absl::StrCat(what,
                       "a snapshot that leaves the tasks running cannot "
                       "be restored"),
          "have the program open the file anew, or take the snapshot without "
          "--leave-running");
    } else {
      Add(v1::ERROR_REASON_LINK_REMAPPED, v1::FINDING_CONSEQUENCE_LIMITED,
          file.pid, path,
          absl::StrCat(what, "the snapshot can be restored once"),
          "have the program open the file anew before the snapshot is taken");
    }
  }

  // What tasks have by its name alone.
  absl::Status FindNames() {
    auto names = ReadTreeNames(proc_, tree_, input_.answer_timeout);
    if (!names.ok()) return names.status();
    for (const UsedFile& socket : names->sockets) {
      // A restore makes the socket, but no directory.
      UsedFile directory = socket;
      directory.path.resize(std::max<size_t>(directory.path.rfind('/'), 1));
      directory.mode = S_IFDIR;
      absl::Status looked = LookAtPlace(
          directory,
          absl::StrCat(Named(socket.pid), ": the socket ", socket.path,
                       " of descriptor ", socket.link.substr(3),
                       " is bound in ", directory.path));
      if (!looked.ok()) return looked;
    }
    for (const UsedFile& watched : names->watched) {
      absl::Status looked =
          LookAtPlace(watched, absl::StrCat(Named(watched.pid), ": descriptor ",
                                            watched.link.substr(3), " watches ",
                                            watched.path));
      if (!looked.ok()) return looked;
    }
    for (const InFlight& flight : names->in_flight) {
      Add(v1::ERROR_REASON_TASK_UNSUPPORTED, v1::FINDING_CONSEQUENCE_LOST,
          flight.pid, "in-flight",
          absl::StrCat(Named(flight.pid), ": ", flight.count,
                       " descriptors were sent to its socket, descriptor ",
                       flight.fd,
                       ", and not received yet: what they are of is not "
                       "looked at"),
          "try again when the program has received them, or pass --force");
    }
    return absl::OkStatus();
  }

  absl::Status FindSysv(const std::vector<UsedFile>& files) {
    // Those with an IPC namespace of their own have their objects in it.
    auto foreigners = FindForeigners("ipc");
    if (!foreigners.ok()) return foreigners.status();
    if (foreigners->all) return absl::OkStatus();
    auto objects = FindSysvObjects(proc_, tree_, files);
    if (!objects.ok()) return objects.status();
    for (const SysvObject& object : *objects) Sysv(object);
    return absl::OkStatus();
  }

  void Sysv(const SysvObject& object) {
    const absl::string_view what = object.kind == "shm"   ? "shared memory"
                                   : object.kind == "sem" ? "semaphores"
                                                          : "message queue";
    std::string message = absl::StrCat(
        Named(object.pid), object.tie == SysvTie::kUsed ? " uses" : " may use",
        " System V ", what, " ", object.id);
    std::string hint = "run the program without System V IPC";
    if (object.tie == SysvTie::kMaybeTheirs) {
      absl::StrAppend(&message, ", of its user and not known to be others'");
      absl::StrAppend(&hint,
                      ", remove what programs left behind that have ended "
                      "(ipcrm)",
                      kThisBootOnly);
    } else if (object.tie == SysvTie::kUnknown) {
      absl::StrAppend(&message, ": there are too many to look at all");
      absl::StrAppend(&hint, kThisBootOnly);
    }
    absl::StrAppend(&message,
                    object.tie == SysvTie::kUsed ? ", which is" : "; it is",
                    " gone after a reboot");
    Add(v1::ERROR_REASON_SYSV_IPC, v1::FINDING_CONSEQUENCE_LOST, object.pid,
        absl::StrCat(object.kind, " ", object.id), message, std::move(hint));
  }

  std::string Named(pid_t pid) const {
    const auto task = tasks_.find(pid);
    if (task == tasks_.end()) return absl::StrCat("pid ", pid);
    return absl::StrCat("pid ", pid, " (", task->second->comm, ")");
  }

  const ProcFs& proc_;
  const std::vector<TaskInfo>& tree_;
  const FindingsInput& input_;
  VolatilePlaces places_;
  std::map<pid_t, const TaskInfo*> tasks_;
  bool foreign_pids_ = false;
  std::map<std::pair<v1::ErrorReason, v1::FindingConsequence>, Kind> kinds_;
  std::vector<v1::Finding> findings_;
};

// Name of the reason without its prefix.
std::string ReasonName(v1::ErrorReason reason) {
  return v1::ErrorReason_Name(reason).substr(
      absl::string_view("ERROR_REASON_").size());
}

bool IsLoss(const v1::Finding& finding) {
  return finding.consequence() == v1::FINDING_CONSEQUENCE_LOST;
}

}  // namespace

absl::StatusOr<std::vector<v1::Finding>> FindLosses(
    const ProcFs& proc, const std::vector<TaskInfo>& tree,
    const std::vector<UsedFile>& files, const FindingsInput& input) {
  return Finder(proc, tree, input).Run(files);
}

bool HasLoss(const std::vector<v1::Finding>& findings) {
  return std::any_of(findings.begin(), findings.end(), IsLoss);
}

absl::Status RefuseLosses(const std::vector<v1::Finding>& findings) {
  std::vector<std::string> reasons;
  std::string text;
  size_t losses = 0;
  size_t told = 0;
  const v1::Finding* first = nullptr;
  for (const v1::Finding& finding : findings) {
    if (!IsLoss(finding)) continue;
    if (first == nullptr) first = &finding;
    ++losses;
    std::string reason = ReasonName(finding.reason());
    if (std::find(reasons.begin(), reasons.end(), reason) == reasons.end()) {
      reasons.push_back(std::move(reason));
    }
    if (losses > 1 && text.size() + finding.message().size() > kMaxMessage) {
      continue;
    }
    absl::StrAppend(&text, text.empty() ? "" : "; ", finding.message());
    ++told;
  }
  if (first == nullptr) return absl::OkStatus();
  if (told < losses) {
    absl::StrAppend(&text, "; and ", losses - told, " more");
  }
  const std::string reason = ReasonName(first->reason());
  ErrorDetails details{.code = absl::StatusCode::kFailedPrecondition,
                       .reason = reason,
                       .message = std::move(text),
                       .hint = first->hint(),
                       .metadata = {{"pid", absl::StrCat(first->pid())},
                                    {"reasons", absl::StrJoin(reasons, ",")}}};
  if (first->reason() == v1::ERROR_REASON_NAMESPACE) {
    details.metadata["namespace"] = first->path();
  } else if (first->reason() == v1::ERROR_REASON_TASK_UNSUPPORTED) {
    details.metadata["kind"] = first->path();
  } else if (!first->path().empty()) {
    details.metadata["path"] = first->path();
  }
  return MakeError(details);
}

}  // namespace daxsnap
