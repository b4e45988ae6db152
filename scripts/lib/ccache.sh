# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# Compiler cache for the C++ half, shared by all clones of the repository on this
# machine. Source it after cache.sh.

export CCACHE_DIR=${CCACHE_DIR:-$DAXSNAP_CACHE/ccache} CCACHE_MAXSIZE=${CCACHE_MAXSIZE:-5G}
# Paths below the clone count relative to it.
export CCACHE_BASEDIR=$DAXSNAP_ROOT CCACHE_NOHASHDIR=1
export CMAKE_C_COMPILER_LAUNCHER=ccache CMAKE_CXX_COMPILER_LAUNCHER=ccache
