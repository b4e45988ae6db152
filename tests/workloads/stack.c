/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The stack: a deep recursion whose every frame holds data and a link to its
 * caller. The bottom is where the process is when it is checkpointed; after it
 * the recursion returns through every frame, then starts anew.
 */
#include "workload.h"

enum { kDepth = 600, kFrameWords = 256, kTurnsAtBottom = 20 };

struct frame {
  const struct frame *caller;
  uint64_t generation;
  unsigned depth;
  uint64_t words[kFrameWords];
};

static const struct frame *bottom;
static uint64_t generation;

static void verify(struct workload *w, const struct frame *f) {
  if (f->generation != generation ||
      !workload_matches(f->words, kFrameWords, f->depth, f->generation))
    workload_fail(w, "stack frame at depth %u is damaged", f->depth);
}

static uint64_t __attribute__((noinline)) descend(struct workload *w,
                                                  const struct frame *caller,
                                                  unsigned depth) {
  struct frame f = {.caller = caller, .generation = generation, .depth = depth};
  workload_fill(f.words, kFrameWords, depth, generation);
  uint64_t below = 0;
  if (depth + 1 < kDepth) {
    below = descend(w, &f, depth + 1);
  } else {
    bottom = &f;
    for (int i = 0; i < kTurnsAtBottom; i++) workload_turn(w);
    bottom = 0;
  }
  verify(w, &f);
  return below + workload_mix(depth ^ f.generation);
}

static void start(struct workload *w) { (void)w; }

static void step(struct workload *w) {
  generation++;
  uint64_t expected = 0;
  for (unsigned depth = 0; depth < kDepth; depth++)
    expected += workload_mix(depth ^ generation);
  if (descend(w, 0, 0) != expected)
    workload_fail(w, "the recursion of generation %llu returned a wrong sum",
                  (unsigned long long)generation);
}

static void check(struct workload *w) {
  unsigned expected = kDepth;
  for (const struct frame *f = bottom; f != 0; f = f->caller) {
    if (f->depth != --expected)
      workload_fail(w, "stack frame %u found where %u was expected", f->depth,
                    expected);
    verify(w, f);
  }
  if (bottom != 0 && expected != 0)
    workload_fail(w, "the chain of frames ends at depth %u", expected);
}

int main(int argc, char **argv) {
  static const struct workload_ops ops = {0, start, step, check};
  return workload_main(argc, argv, &ops);
}
