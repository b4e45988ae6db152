// SPDX-License-Identifier: Apache-2.0
#include "tests/vm/mm_matrix/splice.h"

#include <fcntl.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace daxsnap::vmtest {

Pipe::Pipe(size_t pages) : bytes_(pages * kPage) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) {
    ADD_FAILURE() << "pipe2: " << std::strerror(errno);
    return;
  }
  out_.reset(ends[0]);
  in_.reset(ends[1]);
  EXPECT_GE(fcntl(in_.get(), F_SETPIPE_SZ, static_cast<int>(bytes_)),
            static_cast<int>(bytes_))
      << std::strerror(errno);
}

void Pipe::Put(const char* data, size_t bytes) {
  while (bytes > 0) {
    iovec piece = {const_cast<char*>(data), bytes};
    const ssize_t n = vmsplice(in_.get(), &piece, 1, SPLICE_F_NONBLOCK);
    if (n <= 0) {
      ADD_FAILURE() << "vmsplice of " << bytes
                    << " bytes: " << std::strerror(errno);
      return;
    }
    data += n;
    bytes -= static_cast<size_t>(n);
  }
}

ssize_t Pipe::Take(int file, off_t* offset, size_t bytes) {
  return splice(out_.get(), nullptr, file, offset, bytes, SPLICE_F_NONBLOCK);
}

std::ostream& operator<<(std::ostream& out, const Spliced& s) {
  return out << s.by_reference << " by reference, " << s.shared << " shared, "
             << s.copied << " copied";
}

Spliced SpliceTest::Counts() const {
  const kmemfs_info info = Info();
  return {info.spliced_by_reference, info.spliced_shared, info.spliced_copied};
}

Spliced SpliceTest::Since(const Spliced& before) const {
  const Spliced now = Counts();
  return {now.by_reference - before.by_reference, now.shared - before.shared,
          now.copied - before.copied};
}

Spliced SpliceTest::Store(int file, const char* data, size_t bytes,
                          off_t offset) {
  const Spliced before = Counts();
  Pipe pipe;
  while (bytes > 0) {
    const size_t part = std::min(bytes, pipe.bytes());
    pipe.Put(data, part);
    for (size_t done = 0; done < part;) {
      const off_t was = offset;
      const ssize_t n = pipe.Take(file, &offset, part - done);
      if (n <= 0) {
        ADD_FAILURE() << "splice: " << std::strerror(errno);
        return Since(before);
      }
      EXPECT_EQ(offset, was + n) << "the offset did not move on";
      done += static_cast<size_t>(n);
    }
    data += part;
    bytes -= part;
  }
  return Since(before);
}

Spliced SpliceTest::TakeAll(Pipe& pipe, int file, size_t bytes) {
  const Spliced before = Counts();
  off_t offset = 0;
  while (static_cast<size_t>(offset) < bytes) {
    if (pipe.Take(file, &offset, bytes - static_cast<size_t>(offset)) <= 0) {
      ADD_FAILURE() << "splice at " << offset << ": " << std::strerror(errno);
      break;
    }
  }
  return Since(before);
}

}  // namespace daxsnap::vmtest
