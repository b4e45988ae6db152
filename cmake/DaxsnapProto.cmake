# SPDX-License-Identifier: Apache-2.0

# daxsnap_proto_library(NAME [GRPC] ROOT DIR PROTOS FILE... [DEPENDS TARGET...])
#
# A static library NAME of C++ code generated from PROTOS, which are named
# relative to ROOT as they import one another. With GRPC also the service
# stubs. DEPENDS are other libraries made by this function whose files are
# imported. Users include "daxsnap/v1/x.pb.h", as named in PROTOS.
# The property DAXSNAP_DESCRIPTOR_ROOT of NAME is its ROOT.
function(daxsnap_proto_library name)
  cmake_parse_arguments(ARG "GRPC" "ROOT" "PROTOS;DEPENDS" ${ARGN})
  cmake_path(ABSOLUTE_PATH ARG_ROOT NORMALIZE OUTPUT_VARIABLE root)
  set(out "${CMAKE_CURRENT_BINARY_DIR}/${name}.gen")
  file(MAKE_DIRECTORY "${out}")

  set(import_paths "-I${root}")
  foreach(dep IN LISTS ARG_DEPENDS)
    get_target_property(dep_root ${dep} DAXSNAP_DESCRIPTOR_ROOT)
    list(APPEND import_paths "-I${dep_root}")
  endforeach()
  list(REMOVE_DUPLICATES import_paths)

  set(sources)
  foreach(proto IN LISTS ARG_PROTOS)
    string(REGEX REPLACE "\\.proto$" "" stem "${proto}")
    set(generated "${out}/${stem}.pb.cc" "${out}/${stem}.pb.h")
    set(plugin_args)
    if(ARG_GRPC)
      list(APPEND generated "${out}/${stem}.grpc.pb.cc" "${out}/${stem}.grpc.pb.h")
      set(plugin_args "--grpc_out=${out}"
                      "--plugin=protoc-gen-grpc=${DAXSNAP_GRPC_CPP_PLUGIN}")
    endif()
    add_custom_command(
      OUTPUT ${generated}
      COMMAND protobuf::protoc ${import_paths} "--cpp_out=${out}" ${plugin_args}
              "${root}/${proto}"
      DEPENDS "${root}/${proto}" protobuf::protoc
      COMMENT "Generating C++ from ${proto}"
      VERBATIM)
    list(APPEND sources ${generated})
  endforeach()

  add_library(${name} STATIC ${sources})
  set_target_properties(${name} PROPERTIES
    DAXSNAP_DESCRIPTOR_ROOT "${root}"
    CXX_CLANG_TIDY "")
  target_include_directories(${name} SYSTEM PUBLIC "${out}")
  target_link_libraries(${name} PUBLIC protobuf::libprotobuf ${ARG_DEPENDS})
  if(ARG_GRPC)
    target_link_libraries(${name} PUBLIC gRPC::grpc++)
  endif()
endfunction()
