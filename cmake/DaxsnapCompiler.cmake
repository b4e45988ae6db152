# SPDX-License-Identifier: Apache-2.0
#
# Language level, warnings, sanitizers. Everything first-party links to
# daxsnap_options (done by daxsnap_target below); generated code does not.

set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_C_STANDARD 11)
set(CMAKE_C_EXTENSIONS ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)

set(DAXSNAP_SANITIZER "" CACHE STRING
    "Sanitizers to build with: empty, address (with undefined) or thread")
set_property(CACHE DAXSNAP_SANITIZER PROPERTY STRINGS "" address thread)

if(DAXSNAP_SANITIZER STREQUAL "address")
  # To check a vptr UBSan asks a pipe whether memory can be read: in a test that
  # leaves no descriptor for one, good objects would be reported.
  add_compile_options(-fsanitize=address,undefined -fno-sanitize=vptr
                      -fno-sanitize-recover=all -fno-omit-frame-pointer)
  add_link_options(-fsanitize=address,undefined)
elseif(DAXSNAP_SANITIZER STREQUAL "thread")
  add_compile_options(-fsanitize=thread -fno-omit-frame-pointer)
  add_link_options(-fsanitize=thread)
elseif(NOT DAXSNAP_SANITIZER STREQUAL "")
  message(FATAL_ERROR "DAXSNAP_SANITIZER: ${DAXSNAP_SANITIZER} is neither address nor thread")
endif()

# Where tests make system calls fail and operations end: see base/files.h.
option(DAXSNAP_FAULT_POINTS "Fault points, which most unit tests need" ON)

find_program(DAXSNAP_CCACHE ccache)
if(DAXSNAP_CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  set(CMAKE_C_COMPILER_LAUNCHER ${DAXSNAP_CCACHE})
  set(CMAKE_CXX_COMPILER_LAUNCHER ${DAXSNAP_CCACHE})
endif()

add_library(daxsnap_options INTERFACE)
target_compile_options(daxsnap_options INTERFACE -Wall -Wextra -Werror)
target_include_directories(daxsnap_options INTERFACE
  "${PROJECT_SOURCE_DIR}"
  "${PROJECT_SOURCE_DIR}/client/include")

# <linux/kmemfs.h> and <linux/kmem_persist.h> of this tree.
add_library(daxsnap_uapi INTERFACE)
target_include_directories(daxsnap_uapi SYSTEM INTERFACE
  "${PROJECT_SOURCE_DIR}/kernel/src/include/uapi")

# daxsnap_target(NAME): the project's warnings and include roots for a target
# (includes are written from the source root: "snapd/store/pool.h").
function(daxsnap_target name)
  target_link_libraries(${name} PRIVATE daxsnap_options)
endfunction()
