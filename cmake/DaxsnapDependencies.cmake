# SPDX-License-Identifier: Apache-2.0
#
# Libraries of the distribution, the same names on Debian 12 and 13.

find_package(Threads REQUIRED)
find_package(PkgConfig REQUIRED)
find_package(absl CONFIG REQUIRED)
# The module, not a config package: Debian's protobuf 3.21 ships none.
find_package(Protobuf MODULE REQUIRED)
find_package(gRPC CONFIG REQUIRED)
find_package(CLI11 CONFIG REQUIRED)
find_program(DAXSNAP_GRPC_CPP_PLUGIN grpc_cpp_plugin REQUIRED)

# The device and namespace library of ndctl: PkgConfig::daxctl.
pkg_check_modules(daxctl IMPORTED_TARGET libdaxctl)
# sd-bus (transient scopes) and sd_notify: PkgConfig::systemd_lib.
pkg_check_modules(systemd_lib REQUIRED IMPORTED_TARGET libsystemd)
pkg_check_modules(UUID REQUIRED IMPORTED_TARGET uuid)

if(BUILD_TESTING OR NOT DEFINED BUILD_TESTING)
  find_package(GTest REQUIRED)
endif()
