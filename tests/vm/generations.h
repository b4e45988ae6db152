// SPDX-License-Identifier: Apache-2.0
// Numbered generations of a tree. What a generation is follows from its number:
// whoever writes one and whoever looks at it replay the same operations.
#ifndef DAXSNAP_TESTS_VM_GENERATIONS_H_
#define DAXSNAP_TESTS_VM_GENERATIONS_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace daxsnap::vmtest {

inline constexpr size_t kGenerationPage = 4096;
// Of a file, unless the caller wants smaller ones.
inline constexpr size_t kGenerationPages = 192;
// The file that holds the number, in decimal and with a newline.
inline constexpr char kGenerationFile[] = "GENERATION";
// The directory that is there from generation 1 on.
inline constexpr char kGenerationDir[] = "d";

// Content of a page by its seed; 0 is a page of zeroes.
void FillPage(char* page, uint64_t seed);

// What both have in the attribute "user." + kGenerationAttribute, where the
// filesystem has attributes: of the file more than an inode's record holds, of
// the directory less. "": of all others, which have none.
inline constexpr char kGenerationAttribute[] = "generation";
std::string AttributeOf(const std::string& name, uint64_t generation);

// A file: the seeds of its pages. Names are "0" to "13", every third of them
// in directory "d"; and "14", the file of fragments.
using Model = std::map<int, std::vector<uint64_t>>;
std::string NameOf(int file);

enum class Kind {
  kWrite,
  kCapture,
  kTruncate,
  kPunch,
  kDelete,
  kRename,
  kClone,
  // One page of content, and the same page at every second place behind it;
  // holes between. A quarter of a file that has so many runs then that no
  // single page of metadata can tell of all.
  kFragment
};
inline constexpr size_t kFragmentPages = 512;  // of that file, holes included

struct Operation {
  Kind kind;
  int file, other;
  size_t first, count;  // pages
  uint64_t seed;
  bool mapped;  // written by stores through a mapping
};

// What leads from generation - 1 to generation. `max_pages`: of a file.
std::vector<Operation> OperationsOf(uint64_t generation, size_t max_pages);
uint64_t PageSeed(const Operation& o, size_t i);

void ApplyToModel(Model& model, const Operation& o);
Model ModelOf(uint64_t generation, size_t max_pages);

}  // namespace daxsnap::vmtest

#endif  // DAXSNAP_TESTS_VM_GENERATIONS_H_
