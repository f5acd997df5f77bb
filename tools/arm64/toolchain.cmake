# ARM64 Linux with Debian's cross compiler; tests run under qemu. First: tools/arm64/sysroot.sh
#   cmake --preset arm64 && cmake --build --preset arm64 && ctest --preset arm64
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
set(CMAKE_LIBRARY_ARCHITECTURE aarch64-linux-gnu)

get_filename_component(default "${CMAKE_CURRENT_LIST_DIR}/../../build/arm64-sysroot" ABSOLUTE)
set(EDGEVIT_SYSROOT "${default}" CACHE PATH "What tools/arm64/sysroot.sh made")
list(APPEND CMAKE_TRY_COMPILE_PLATFORM_VARIABLES EDGEVIT_SYSROOT)
if(NOT EXISTS "${EDGEVIT_SYSROOT}/.ready")
  message(FATAL_ERROR
    "${EDGEVIT_SYSROOT} is not there: sh tools/arm64/sysroot.sh PYTHON ${EDGEVIT_SYSROOT}")
endif()

# The C library is the cross compiler's own; packages come from the sysroot and never from this
# machine. Static ones, so that a board needs no libjpeg and no libpng.
set(CMAKE_FIND_ROOT_PATH "${EDGEVIT_SYSROOT}")
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
if(NOT CMAKE_FIND_ROOT_PATH_MODE_PACKAGE)  # BOTH: an installed libedgevit lies outside the sysroot
  set(CMAKE_FIND_ROOT_PATH_MODE_PACKAGE ONLY)
endif()
set(CMAKE_FIND_LIBRARY_SUFFIXES .a)
set(CMAKE_CXX_STANDARD_INCLUDE_DIRECTORIES
  "${EDGEVIT_SYSROOT}/usr/include/${CMAKE_LIBRARY_ARCHITECTURE}")  # libjpeg's jconfig.h

# Cortex-A76: Raspberry Pi 5; a core with the int8 dot product, as phones have had since 2018.
set(CMAKE_CROSSCOMPILING_EMULATOR qemu-aarch64 -cpu cortex-a76 -L "${EDGEVIT_SYSROOT}")
