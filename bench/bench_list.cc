// SPDX-License-Identifier: Apache-2.0
//
// How long ListSnapshots and GetSnapshot take when many ask: a snapd with a
// pool in a directory, in a process of its own, and clients with a connection
// each. Every client makes a call, one of the two in turn, at fixed times; how
// long it took counts from then, so that calls which wait for others do not
// make the figures better. Prints JSON.
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/log.h"
#include "base/uuid.h"
#include "daxsnap/internal/operation.pb.h"
#include "daxsnap/v1/manifest.pb.h"
#include "daxsnap/v1/snapshot.grpc.pb.h"
#include "host/task/proc.h"
#include "snapd/engine/criu_engine.h"
#include "snapd/ops/operations.h"
#include "snapd/ops/pool_holder.h"
#include "snapd/service/socket_server.h"

namespace daxsnap {
namespace {

struct Options {
  int snapshots = 1000;
  int clients = 200;
  int seconds = 60;
  int every_ms = 1000;
  std::string directory = "/tmp";
};

std::string NameOf(int number) { return absl::StrFormat("bench-%05d", number); }

absl::Status MakeSnapshot(Catalog* catalog, int number) {
  internal::Operation operation;
  operation.set_uid(NewUuid());
  operation.set_name(NameOf(number));
  auto staged = catalog->Begin(operation);
  if (!staged.ok()) return staged.status();
  v1::Manifest manifest;
  manifest.set_format_version(1);
  v1::Snapshot* snapshot = manifest.mutable_snapshot();
  snapshot->set_uid(operation.uid());
  snapshot->set_name(operation.name());
  v1::Task* task = snapshot->mutable_root_task();
  task->set_pid(1000000 + number);
  task->set_comm("redis-server");
  task->set_exe("/usr/bin/redis-check-rdb");
  task->set_boot_id(NewUuid());
  snapshot->set_task_count(3);
  snapshot->set_page_size(4096);
  snapshot->mutable_pages()->set_by_reference(70000);
  snapshot->mutable_times()->set_frozen_us(12345);
  (*snapshot->mutable_labels())["service"] = "bench";
  (*snapshot->mutable_labels())["generation"] = absl::StrCat(number);
  snapshot->mutable_versions()->set_kernel("6.12.57");
  // What a list does not show, and had to be read with it.
  for (int file = 0; file < 40; ++file) {
    v1::FileRecord* record = manifest.add_files();
    record->set_path(
        absl::StrCat("/usr/lib/x86_64-linux-gnu/lib", file, ".so"));
    record->set_build_id(NewUuid());
    record->set_mapped(true);
  }
  absl::Status status =
      catalog->WriteManifest(staged->directory.get(), manifest);
  if (status.ok()) status = catalog->Publish(&*staged);
  return status.ok() ? catalog->Finish(*std::move(staged)) : status;
}

// In a directory nothing else is slow; here nothing need survive.
class QuickPool : public Pool {
 public:
  static absl::StatusOr<std::unique_ptr<Pool>> Open(const std::string& path) {
    auto handles = OpenHandles(path);
    if (!handles.ok()) return handles.status();
    return std::unique_ptr<Pool>(new QuickPool(*std::move(handles)));
  }
  absl::Status Commit() override { return absl::OkStatus(); }

 private:
  using Pool::Pool;
};

// Serves until it is killed; a byte to `ready` says that it does.
[[noreturn]] void Serve(const Options& options, const std::string& directory,
                        int ready) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  SetLogLevel(LogLevel::kError);
  const std::string pool = directory + "/pool";
  std::filesystem::create_directory(pool);
  CriuEngine engine({.criu_path = "/nonexistent"});
  PoolHolder pools([&pool] { return QuickPool::Open(pool); }, ProcFs(),
                   &engine);
  auto open = pools.Get();
  absl::Status status = open.status();
  for (int i = 0; status.ok() && i < options.snapshots; ++i) {
    status = MakeSnapshot(&(*open)->catalog, i);
  }
  Operations operations(&pools, &engine, ProcFs());
  std::unique_ptr<SocketServer> server;
  if (status.ok()) {
    auto started =
        SocketServer::Start(directory + "/sock", std::nullopt, &operations);
    status = started.status();
    if (started.ok()) server = *std::move(started);
  }
  if (!status.ok()) {
    std::cerr << status << "\n";
    std::exit(1);
  }
  if (write(ready, "x", 1) != 1) std::exit(1);
  for (;;) pause();
}

struct Figures {
  std::vector<int64_t> list_us;
  std::vector<int64_t> get_us;
  int failed = 0;
};

class BenchClient {
 public:
  BenchClient(const Options& options, const std::string& socket, int number)
      : options_(options), random_(static_cast<unsigned>(number)) {
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    stub_ = v1::SnapshotService::NewStub(grpc::CreateCustomChannel(
        "unix:" + socket, grpc::InsecureChannelCredentials(), arguments));
  }

  // A call, to connect.
  void Connect() { (void)Get(); }

  // What is listed twice, some seconds apart, is kept in memory.
  bool Warm() {
    if (!ListAll()) return false;
    absl::SleepFor(absl::Seconds(3));
    return ListAll();
  }

  void Run(absl::Time begin) {
    const absl::Duration every = absl::Milliseconds(options_.every_ms);
    const absl::Time end = begin + absl::Seconds(options_.seconds);
    absl::Time due =
        begin + every * std::uniform_real_distribution<>(0, 1)(random_);
    for (bool list = random_() % 2 == 0; due < end; list = !list) {
      absl::SleepFor(due - absl::Now());
      if (options_.every_ms == 0) due = absl::Now();
      const bool ok = list ? List() : Get();
      const int64_t us = absl::ToInt64Microseconds(absl::Now() - due);
      (list ? figures_.list_us : figures_.get_us).push_back(us);
      if (!ok) ++figures_.failed;
      due = options_.every_ms == 0 ? absl::Now() : due + every;
    }
  }

  const Figures& figures() const { return figures_; }

 private:
  bool ListAll() {
    v1::ListSnapshotsRequest request;
    do {
      grpc::ClientContext context;
      v1::ListSnapshotsResponse response;
      if (!stub_->ListSnapshots(&context, request, &response).ok()) {
        return false;
      }
      request.set_page_token(response.next_page_token());
    } while (!request.page_token().empty());
    return true;
  }
  bool List() {
    grpc::ClientContext context;
    v1::ListSnapshotsRequest request;
    v1::ListSnapshotsResponse response;
    return stub_->ListSnapshots(&context, request, &response).ok() &&
           response.snapshots_size() == std::min(100, options_.snapshots);
  }
  bool Get() {
    grpc::ClientContext context;
    v1::GetSnapshotRequest request;
    request.set_name(NameOf(static_cast<int>(
        random_() % static_cast<unsigned>(options_.snapshots))));
    v1::GetSnapshotResponse response;
    return stub_->GetSnapshot(&context, request, &response).ok();
  }

  const Options& options_;
  std::mt19937 random_;
  std::unique_ptr<v1::SnapshotService::Stub> stub_;
  Figures figures_;
};

std::string Summary(std::vector<int64_t> times) {
  if (times.empty()) return "{\"calls\": 0}";
  std::sort(times.begin(), times.end());
  const auto at = [&times](double part) {
    return times[static_cast<size_t>(part *
                                     static_cast<double>(times.size() - 1))];
  };
  return absl::StrFormat(
      "{\"calls\": %d, \"p50_us\": %d, \"p99_us\": %d, \"max_us\": %d}",
      times.size(), at(0.5), at(0.99), times.back());
}

// Of all its threads.
double CpuMicroseconds(pid_t pid) {
  auto task = ProcFs().ReadTask(pid);
  if (!task.ok()) return 0;
  return static_cast<double>(task->cpu_ticks) * 1e6 /
         static_cast<double>(sysconf(_SC_CLK_TCK));
}

int Measure(const Options& options, const std::string& directory) {
  int ready[2];
  if (pipe(ready) != 0) return 1;
  const pid_t server = fork();
  if (server < 0) return 1;
  if (server == 0) Serve(options, directory, ready[1]);
  close(ready[1]);
  char byte = 0;
  if (read(ready[0], &byte, 1) != 1) return 1;
  std::vector<std::unique_ptr<BenchClient>> clients;
  for (int i = 0; i < options.clients; ++i) {
    clients.push_back(
        std::make_unique<BenchClient>(options, directory + "/sock", i));
    clients.back()->Connect();
  }
  if (!clients.front()->Warm()) return 1;
  const double cpu_before = CpuMicroseconds(server);
  const absl::Time begin = absl::Now();
  std::vector<std::thread> threads;
  threads.reserve(clients.size());
  for (const auto& client : clients) {
    threads.emplace_back([&client, begin] { client->Run(begin); });
  }
  for (std::thread& thread : threads) thread.join();
  Figures all;
  for (const auto& client : clients) {
    const Figures& of = client->figures();
    all.list_us.insert(all.list_us.end(), of.list_us.begin(), of.list_us.end());
    all.get_us.insert(all.get_us.end(), of.get_us.begin(), of.get_us.end());
    all.failed += of.failed;
  }
  // That says the same however busy the machine is.
  const double cpu_us = CpuMicroseconds(server) - cpu_before;
  const size_t calls = all.list_us.size() + all.get_us.size();
  kill(server, SIGKILL);
  waitpid(server, nullptr, 0);
  std::cout << absl::StrFormat(
      "{\"snapshots\": %d, \"clients\": %d, \"seconds\": %d, \"every_ms\": %d, "
      "\"failed\": %d, \"server_cpu_us_per_call\": %.0f,\n \"list\": %s,\n "
      "\"get\": %s}\n",
      options.snapshots, options.clients, options.seconds, options.every_ms,
      all.failed, cpu_us / static_cast<double>(calls), Summary(all.list_us),
      Summary(all.get_us));
  return all.failed == 0 ? 0 : 1;
}

}  // namespace
}  // namespace daxsnap

// CLI11 throws only where an option is declared twice, and then it is to end.
// NOLINTNEXTLINE(bugprone-exception-escape)
int main(int argc, char** argv) {
  daxsnap::Options options;
  CLI::App app("How long ListSnapshots and GetSnapshot take");
  app.add_option("--snapshots", options.snapshots, "In the pool")
      ->check(CLI::Range(1, 99999))
      ->capture_default_str();
  app.add_option("--clients", options.clients, "Connections")
      ->check(CLI::Range(1, 10000))
      ->capture_default_str();
  app.add_option("--seconds", options.seconds, "How long")
      ->check(CLI::Range(1, 86400))
      ->capture_default_str();
  app.add_option("--every-ms", options.every_ms,
                 "A call of each client that often; 0: one after the other")
      ->check(CLI::Range(0, 3600000))
      ->capture_default_str();
  app.add_option("--directory", options.directory, "Where the pool is made")
      ->check(CLI::ExistingDirectory)
      ->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  std::string directory = options.directory + "/daxsnap-bench.XXXXXX";
  if (mkdtemp(directory.data()) == nullptr) {
    std::perror("bench_list");
    return 1;
  }
  const int status = daxsnap::Measure(options, directory);
  std::filesystem::remove_all(directory);
  return status;
}
