// SPDX-License-Identifier: Apache-2.0
#include "tests/vm/generations.h"

#include <algorithm>
#include <iterator>
#include <vector>

namespace daxsnap::vmtest {
namespace {

constexpr int kNames = 14;
constexpr int kOperations = 6;
constexpr int kFragments = kNames;  // the name after all others
constexpr size_t kQuarters = 4;
constexpr size_t kLongAttribute = 400;
constexpr size_t kShortAttribute = 40;

uint64_t Mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15ULL;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
  return x ^ (x >> 31);
}

}  // namespace

void FillPage(char* page, uint64_t seed) {
  auto* words = reinterpret_cast<uint64_t*>(page);
  for (size_t i = 0; i < kGenerationPage / sizeof(uint64_t); ++i) {
    words[i] = seed == 0 ? 0 : seed + i * 0x9e3779b97f4a7c15ULL;
  }
}

std::string NameOf(int file) {
  return (file % 3 == 0 ? std::string(kGenerationDir) + "/" : "") +
         std::to_string(file);
}

std::string AttributeOf(const std::string& name, uint64_t generation) {
  size_t length = 0;
  if (name == kGenerationFile) length = kLongAttribute;
  if (name == kGenerationDir) length = kShortAttribute;
  std::string page(kGenerationPage, '\0');
  FillPage(page.data(), Mix(generation + length));
  return page.substr(0, length);
}

std::vector<Operation> OperationsOf(uint64_t generation, size_t max_pages) {
  static constexpr Kind kKinds[] = {
      Kind::kWrite, Kind::kWrite,    Kind::kCapture, Kind::kCapture,
      Kind::kPunch, Kind::kTruncate, Kind::kDelete,  Kind::kRename,
      Kind::kClone, Kind::kCapture};
  std::vector<Operation> operations;
  for (uint64_t i = 0; i < kOperations; ++i) {
    const uint64_t r = Mix(generation * kOperations + i);
    Operation o;
    o.kind = kKinds[r % std::size(kKinds)];
    o.file = static_cast<int>((r >> 8) % kNames);
    o.other = static_cast<int>((r >> 16) % kNames);
    o.first = (r >> 24) % (max_pages / 2);
    o.count = 1 + (r >> 40) % (max_pages / 2);
    o.seed = Mix(r) | 1;
    o.mapped = (r >> 60) % 2 != 0;
    operations.push_back(o);
  }
  constexpr size_t kQuarter = kFragmentPages / kQuarters;
  operations.push_back({.kind = Kind::kFragment,
                        .file = kFragments,
                        .other = kFragments,
                        .first = generation % kQuarters * kQuarter,
                        .count = kQuarter,
                        .seed = Mix(generation),
                        .mapped = false});
  return operations;
}

uint64_t PageSeed(const Operation& o, size_t i) { return Mix(o.seed + i) | 1; }

void ApplyToModel(Model& model, const Operation& o) {
  const bool exists = model.count(o.file) != 0;
  switch (o.kind) {
    case Kind::kWrite:
    case Kind::kCapture: {
      auto& pages = model[o.file];
      pages.resize(std::max(pages.size(), o.first + o.count), 0);
      for (size_t i = 0; i < o.count; ++i) {
        pages[o.first + i] = PageSeed(o, i);
      }
      break;
    }
    case Kind::kTruncate:
      if (exists) model[o.file].resize(o.first, 0);
      break;
    case Kind::kPunch:
      if (exists) {
        auto& pages = model[o.file];
        for (size_t i = o.first; i < o.first + o.count && i < pages.size(); ++i)
          pages[i] = 0;
      }
      break;
    case Kind::kDelete:
      model.erase(o.file);
      break;
    case Kind::kRename:
      if (exists && o.other != o.file) {
        model[o.other] = model[o.file];
        model.erase(o.file);
      }
      break;
    case Kind::kClone:
      if (exists && o.other != o.file) model[o.other] = model[o.file];
      break;
    case Kind::kFragment: {
      auto& pages = model[o.file];
      pages.resize(kFragmentPages, 0);
      for (size_t i = 0; i < o.count; i += 2)
        pages[o.first + i] = PageSeed(o, 0);
      break;
    }
  }
}

Model ModelOf(uint64_t generation, size_t max_pages) {
  Model model;
  for (uint64_t g = 1; g <= generation; ++g) {
    for (const Operation& o : OperationsOf(g, max_pages))
      ApplyToModel(model, o);
  }
  return model;
}

}  // namespace daxsnap::vmtest
